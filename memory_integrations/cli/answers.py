"""What a model answers, streamed and shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from memory_integrations.cli.options import complain, failure
from memory_integrations.cli.show import printable, shortened

Prompt = list[dict[str, str]]
Stream = Callable[[Prompt], Iterator[str]]
"""Gives the parts of an answer to a prompt, as they come."""


def streaming(model: str, debug: bool) -> Stream:
    """Make a model ready to answer.

    Args:
        model: A name that LangChain's ``init_chat_model`` takes.
        debug: Whether the errors of its provider are raised as they are.

    Returns:
        What streams its answers.

    Raises:
        typer.Exit: LangChain or what the provider needs is missing; it was said.
    """
    try:
        from langchain.chat_models import init_chat_model
    except ModuleNotFoundError as error:
        raise failure(f"chat --model needs {error.name}: pip install 'memory-integrations[langchain]'", 2) from error
    try:
        with _errors_of(model, debug):
            chat_model = init_chat_model(model)
    except _ModelError as error:
        raise failure(str(error), 2) from error

    def stream(prompt: Prompt) -> Iterator[str]:
        with _errors_of(model, debug):
            for chunk in chat_model.stream(prompt):
                yield str(chunk.text)

    return stream


def show_answer(stream: Stream, prompt: Prompt) -> str:
    """Show an answer while it comes.

    Returns:
        The answer; nothing of one that failed or was stopped: half an answer is no memory.
    """
    parts: list[str] = []
    try:
        for part in stream(prompt):
            parts.append(part)
            print(printable(part), end="", flush=True)
    except _ModelError as error:
        parts.clear()
        complain(str(error))
    except KeyboardInterrupt:
        parts.clear()
        print(" (stopped, not stored)", end="")
    print()
    return "".join(parts)


class _ModelError(Exception):
    """A model did not answer."""


@contextmanager
def _errors_of(model: str, debug: bool) -> Iterator[None]:
    """Errors of a model's provider in one line."""
    try:
        yield
    except Exception as error:  # the errors of providers have no other class in common
        if debug:
            raise
        raise _ModelError(f"model {model}: {type(error).__name__}: {shortened(str(error), 300)}") from error
