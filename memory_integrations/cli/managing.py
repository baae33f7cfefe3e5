"""The command ``manage``: tidy a stored conversation and learn facts from it, after a look at what would change."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from memory_integrations.cli.options import (
    DATA_DIR,
    LANGUAGE,
    SCOPE,
    DataDir,
    Language,
    Model,
    Scope,
    agreed,
    failure,
    opened,
)
from memory_integrations.cli.show import console, plain, printable
from memory_integrations.policies import ShortTermPolicy
from memory_integrations.scopes import MemoryScope

if TYPE_CHECKING:
    from memory_integrations.manager import MemoryManager
    from memory_integrations.plans import ManagementPlan, ManagementReceipt

_COLOURS = {"-": "red", "+": "green"}
_DONE = {
    "Promote": "fact{s} set",
    "Forget": "fact{s} removed",
    "Delete": "entr{ies} deleted",
    "Compress": "entr{ies} compressed",
}


def manage(
    model: Model = None,
    every: Annotated[bool, typer.Option("--all", help="Every session of the scope, not its latest alone.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take back what was done last.")] = False,
    max_tokens: Annotated[int, typer.Option(help="So much of a conversation is managed, its latest part.")] = 8000,
    scope: Scope = SCOPE,
    data_dir: DataDir = DATA_DIR,
    language: Language = LANGUAGE,
) -> None:
    """Tidy a stored conversation and learn facts from it: see what would change, then say yes.

    What is deleted or compressed is so in the conversation alone, when it goes on: nothing leaves long-term memory.
    Without a model it is done by rules.
    """
    policy = ShortTermPolicy(max_tokens=max_tokens, manage_above_tokens=0)
    with opened(scope, data_dir, language, to_read=True, short_term_policy=policy, llm_client=model) as memory:
        conversations = [memory.for_scope(session) for session in _sessions(memory)]
        if not conversations:
            raise failure(f"{memory.scope} has no stored conversation.")
        if undo:
            _undo(conversations, scope)
            return
        for conversation in conversations if every else conversations[-1:]:
            _manage(console(), conversation, yes)


def _sessions(memory: MemoryManager) -> list[MemoryScope]:
    """The sessions that a scope has conversations of, that of the latest message last."""
    if memory.scope.session_id is not None:
        return [memory.scope]
    said = (message.session_id for message in memory.long_term.messages() if message.role != "file")
    latest_last = dict.fromkeys(reversed(list(dict.fromkeys(reversed(list(said))))))
    return [memory.scope if session is None else memory.scope.with_session(session) for session in latest_last]


def _manage(screen: Console, memory: MemoryManager, yes: bool) -> None:
    from memory_integrations.plans import ManagementPlan

    memory.resume()
    count = len(memory.short_term)
    plan = memory.manage_short_term(dry_run=True)
    assert isinstance(plan, ManagementPlan)  # it is a dry run
    said = f"{count} message{'s' * (count != 1)}, {memory.short_term.total_tokens:,} tokens"
    screen.print(Text.assemble((printable(str(memory.scope)), "bold"), f": {said}"), soft_wrap=True)
    if plan.failed:
        raise failure(f"{plan.failed}. Nothing was changed.")
    if not plan.diff().rows:
        screen.print("nothing to do")
        return
    _show(screen, plan)
    if not yes and not agreed("Do this?"):
        raise failure("nothing was changed.")
    receipt = memory.apply(plan)
    screen.print(f"{_told(receipt)}; `manage --undo` takes it back", soft_wrap=True)


def _undo(conversations: list[MemoryManager], scope: str) -> None:
    """Take back what was done last in any of the conversations."""
    done = [(receipt, memory) for memory in conversations for receipt in memory.receipts()[-1:]]
    if not done:
        raise failure(f"nothing is left to take back in {scope}.")
    receipt, memory = max(done, key=_time)
    memory.undo(receipt)
    console().print(plain(f"{memory.scope}: taken back: {_told(receipt)}"), soft_wrap=True)


def _time(done: tuple[ManagementReceipt, MemoryManager]) -> datetime:
    assert done[0].at is not None  # it is written down
    return done[0].at


def _show(screen: Console, plan: ManagementPlan) -> None:
    for line in str(plan.diff()).splitlines():
        screen.print(Text(printable(line), _COLOURS.get(line[:1], "")), soft_wrap=True)


def _told(receipt: ManagementReceipt) -> str:
    """What was done, in numbers."""
    counts = Counter(type(decision).__name__ for decision in receipt.decisions)
    told = (
        f"{counts[name]} {text.format(s='' if counts[name] == 1 else 's', ies='y' if counts[name] == 1 else 'ies')}"
        for name, text in _DONE.items()
        if counts[name]
    )
    return ", ".join(told)
