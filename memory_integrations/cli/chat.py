"""The command ``chat``: a conversation that is remembered while it goes on."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from memory_integrations.arrival import utc_now
from memory_integrations.cli.answers import Stream, show_answer, streaming
from memory_integrations.cli.facts import show_facts
from memory_integrations.cli.options import (
    DATA_DIR,
    LANGUAGE,
    SCOPE,
    DataDir,
    Language,
    MaxTokens,
    Model,
    Scope,
    complain,
    opened,
    settings,
)
from memory_integrations.cli.prompt import prompt, show_context, show_prompt
from memory_integrations.cli.show import console, plain, printable
from memory_integrations.cli.values import shown_value
from memory_integrations.errors import MessageError
from memory_integrations.manager import MemoryManager
from memory_integrations.messages import Message
from memory_integrations.scopes import MemoryScope
from memory_integrations.tokens import check_budget

if TYPE_CHECKING:
    from memory_integrations.context import Context

_HELP = "/facts  what is known   /context  the last prompt   /forget  this conversation   /quit  or ctrl-D"
# Also one that is mistyped or has something behind it; "/etc/hosts is broken" is said.
_COMMAND = re.compile(r"/\w*|/(?:facts|context|forget|quit)\b.*", re.DOTALL)


def chat(
    model: Model = None,
    max_tokens: MaxTokens = 2000,
    scope: Scope = SCOPE,
    data_dir: DataDir = DATA_DIR,
    language: Language = LANGUAGE,
) -> None:
    """Talk, and see what is remembered. What you say, and what a model answers, is stored.

    Without a model you see what one would be given. Each run is a new session, unless the scope names one. In the
    chat: /facts, /context, /forget, /quit.
    """
    check_budget(max_tokens)
    parsed = MemoryScope.parse(scope)
    if parsed.user_id and not parsed.session_id:
        parsed = parsed.with_session(f"chat-{utc_now():%Y%m%dT%H%M%S}")
    screen = console()
    stream = streaming(model, debug=settings.get().debug) if model else None
    with opened(parsed, data_dir, language) as memory:
        memory.resume()
        if back := len(memory.short_term):
            screen.print(f"The conversation goes on: {back} message{'s' * (back != 1)} of it are here.", style="dim")
        if stream is None:
            screen.print("No model is given (--model), so nothing answers: you see what a model would be given.")
        screen.print(_HELP, style="dim")
        _converse(screen, memory, stream, max_tokens)


def _converse(screen: Console, memory: MemoryManager, stream: Stream | None, max_tokens: int) -> None:
    shown: Context | None = None
    for typed in _typed():
        if typed == "/quit":
            return
        if _COMMAND.fullmatch(typed):
            shown = _obey(screen, memory, typed, shown)
            continue
        if not _remember(memory, Message("user", typed)):
            continue
        _show_learnt(screen, memory)
        shown = memory.get_context(typed, max_tokens)
        if stream is None:
            show_prompt(screen, shown)
            continue
        answer = show_answer(stream, prompt(shown))
        if answer.strip():
            _remember(memory, Message("assistant", answer))


def _remember(memory: MemoryManager, message: Message) -> bool:
    """Whether there was something in the message to remember: nothing is but what memory itself had injected."""
    try:
        memory.add_messages([message])
    except MessageError as error:
        complain(str(error))
        return False
    return True


def _typed() -> Iterator[str]:
    """What is typed, line by line, until ctrl-D or ctrl-C."""
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        with suppress(ImportError):
            import readline  # noqa: F401  # gives input() the arrow keys
    while True:
        try:
            typed = input("you> " if at_terminal else "")
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if typed.strip():
            yield typed.strip()


def _obey(screen: Console, memory: MemoryManager, command: str, shown: Context | None) -> Context | None:
    """Do what a command says; returns what is shown as the last prompt from then on."""
    if command == "/facts":
        show_facts(screen, memory)
    elif command == "/context" and shown:
        show_context(screen, shown)
    elif command == "/context":
        screen.print("Nothing was said yet.")
    elif command == "/forget":
        memory.clear_session()
        screen.print("This conversation is forgotten. Facts and memories stay.")
        return None
    else:
        screen.print(printable(f"{command} is no command, and was not stored."))
        screen.print(_HELP, style="dim")
    return shown


def _show_learnt(screen: Console, memory: MemoryManager) -> None:
    from memory_integrations.decisions import Promote
    from memory_integrations.plans import ManagementReceipt

    receipt = memory.manage_short_term()
    assert isinstance(receipt, ManagementReceipt)  # not a plan: it was no dry run
    for decision in receipt.decisions:
        if isinstance(decision, Promote):
            learnt = Text.assemble("learnt ", plain(decision.key), " = ", shown_value(decision.value), style="green")
            screen.print(learnt)
