"""Any language model as a Runnable from messages to an answer: LangChain's, LlamaIndex's, a name, a function."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableLambda
from pydantic import ValidationError

from memory_integrations.errors import ManagementError

_ROLES = {"system": "system", "human": "user", "ai": "assistant"}


def as_runnable(llm: Any) -> Runnable[Any, Any]:
    """The model as a Runnable.

    Args:
        llm: A LangChain chat model or Runnable, a LlamaIndex LLM, a name for ``init_chat_model`` such as
            "openai:gpt-5-mini", or a function from a prompt to its answer.

    Raises:
        ManagementError: It is none of these, or its name cannot be resolved.
    """
    if isinstance(llm, str):
        return _named(llm)
    if isinstance(llm, Runnable):
        return llm
    if any(parent.__module__.startswith("llama_index.") for parent in type(llm).__mro__) and hasattr(llm, "achat"):
        return _of_llama_index(llm)
    if callable(llm):
        return RunnableLambda(llm)
    raise ManagementError(
        f"llm={llm!r:.80}: expected a LangChain chat model or Runnable, a LlamaIndex LLM, a name such as "
        "'openai:gpt-5-mini', or a function from a prompt to its answer."
    )


def structured(model: Runnable[Any, Any], schema: type) -> Runnable[Any, Any] | None:
    """The model with answers of a schema, the whole message with them; None where it has no such answers."""
    if not isinstance(model, BaseChatModel):
        return None
    own = type(model)
    if (
        own.with_structured_output is BaseChatModel.with_structured_output
        and own.bind_tools is BaseChatModel.bind_tools
    ):
        return None
    try:
        return model.with_structured_output(schema, include_raw=True)
    except NotImplementedError:
        return None


def answer_of(output: Any) -> Any:
    """What a model said, as ``replies.read_reply`` takes it: the arguments of a call, or text."""
    if isinstance(output, dict) and "raw" in output:  # of with_structured_output(include_raw=True)
        output = output["raw"]
    if isinstance(output, AIMessage) and output.tool_calls:
        return output.tool_calls[0]["args"]
    if isinstance(output, BaseMessage):
        return output.text
    return output


def unreadable_errors() -> tuple[type[Exception], ...]:
    """What clients themselves raise over an answer that is not of the schema, cut off or withheld."""
    openai = sys.modules.get("openai")  # loaded where a model is its
    names = ("LengthFinishReasonError", "ContentFilterFinishReasonError")
    return ValidationError, *(getattr(openai, name) for name in names if hasattr(openai, name))


def usage_of(output: Any) -> dict[str, int]:
    """The tokens that an answer took, where the model says so, or the error that a client made of it."""
    if isinstance(output, dict) and "raw" in output:
        output = output["raw"]
    usage = getattr(output, "usage_metadata", None) or _openai_usage(getattr(output, "completion", None)) or {}
    return {name: usage[name] for name in ("input_tokens", "output_tokens") if isinstance(usage.get(name), int)}


def _named(name: str) -> Runnable[Any, Any]:
    try:
        from langchain.chat_models import init_chat_model
    except ModuleNotFoundError as error:
        raise ManagementError(
            f"llm={name!r}: a model's name needs langchain: pip install 'memory-integrations[langchain]'"
        ) from error
    try:
        return init_chat_model(name)
    except (ValueError, ImportError) as error:
        raise ManagementError(f"llm={name!r} cannot be made: {error}") from error


def _of_llama_index(llm: Any) -> Runnable[Any, Any]:
    from llama_index.core.base.llms.types import ChatMessage

    def asked(prompt: Any) -> list[Any]:
        messages: Sequence[BaseMessage] = prompt.to_messages() if isinstance(prompt, PromptValue) else prompt
        return [ChatMessage(role=_ROLES.get(message.type, "user"), content=message.text) for message in messages]

    def said(response: Any) -> AIMessage:
        return AIMessage(response.message.content or "", usage_metadata=_openai_usage(getattr(response, "raw", None)))

    def chat(prompt: Any) -> AIMessage:
        return said(llm.chat(asked(prompt)))

    async def achat(prompt: Any) -> AIMessage:
        return said(await llm.achat(asked(prompt)))

    return RunnableLambda(chat, achat, name=type(llm).__name__)


def _openai_usage(completion: Any) -> Any:
    """What an OpenAI-like completion says of tokens; None where it says nothing."""
    usage = getattr(completion, "usage", None)
    spent, made = (getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens"))
    if not isinstance(spent, int) or not isinstance(made, int):
        return None
    return {"input_tokens": spent, "output_tokens": made, "total_tokens": spent + made}
