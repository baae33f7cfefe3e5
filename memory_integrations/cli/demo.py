"""The command ``demo``: a memory at work on the sample conversation."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from memory_integrations.cli.facts import all_facts
from memory_integrations.cli.options import PROGRAM, Scope, failure
from memory_integrations.cli.prompt import show_context
from memory_integrations.cli.show import console, counted, plain, show_hits, show_rows
from memory_integrations.cli.values import shown_value
from memory_integrations.manager import MemoryManager
from memory_integrations.scopes import MemoryScope

if TYPE_CHECKING:
    from memory_integrations.cli.replay import Question, ReplayedSession

_SCOPE = "user:maya"
_TOKENS = 220
_QUESTIONS = (4, 8)  # of questions.json: a file, and a name that changed
_HITS = 2


def demo(
    question: Annotated[
        str | None, typer.Option(help="Ask this of the sample, instead of the demo's own questions.")
    ] = None,
    scope: Scope = _SCOPE,
    data_dir: Annotated[Path | None, typer.Option(help="Keep the memory here, to look at it later.")] = None,
) -> None:
    """See a memory work: a sample conversation of 13 sessions is replayed, and asked about.

    It takes a few seconds. No model is called: you see what a model would be given. Nothing is kept without --data-dir.
    """
    owner = MemoryScope.parse(scope).owner
    if owner.user_id is None:
        raise typer.BadParameter(f"{scope} is no user, whose sessions could be replayed: expected user:ID.")
    screen = console(as_page=True)
    with tempfile.TemporaryDirectory(prefix="memory-integrations-") as temporary:
        _show(screen, owner, data_dir or Path(temporary), question)
    screen.print("Next", style="bold")
    if data_dir:
        of = f"--scope {quote(scope)} --data-dir {quote(str(data_dir))}"
        screen.print(f"  {PROGRAM} facts history {of}", soft_wrap=True)
        screen.print(f'  {PROGRAM} search "cherry blossom" {of}', soft_wrap=True)
    else:
        screen.print(f'  {PROGRAM} demo --question "When is the trip to Japan?"')
        screen.print(f"  {PROGRAM} chat                       # a memory of your own")
    screen.print(f"  {PROGRAM} ingest conversations.json  # your ChatGPT export")


def _show(screen: Console, scope: MemoryScope, data_dir: Path, question: str | None) -> None:
    from memory_integrations.cli import replay as sample

    clock = sample.ReplayClock()
    messages, questions = sample.sample_messages(), sample.sample_questions()
    with closing(MemoryManager(scope, data_dir=data_dir, clock=clock)) as memory:
        with screen.status("Opening the memory ..."):
            known = memory.long_term.count()
        facts = len(memory.features.export()["facts"])  # without those that hold for everybody
        if not known and not facts:
            _show_replay(screen, memory, sample.replay(memory, clock, messages))
        elif known != len(messages):
            raise failure(
                f"{scope} has memories in {data_dir} that are not the demo's: {counted(known, 'message')}, "
                f"{counted(facts, 'fact')}. Give the demo another --data-dir."
            )
        _show_changes(screen, memory)
        asked = [sample.Question(question)] if question else [questions[i] for i in _QUESTIONS]
        for each in asked:
            screen.print(Text(each.text, "bold"))
            show_hits(screen, memory.search_long_term(each.text, 5 if question else _HITS), each.evidence, lines=2)
            screen.print()
        if not question:
            _show_score(screen, memory, questions)
        question = question or sample.NEW_QUESTION
        screen.print(Text.assemble(("In a new session, Maya asks: ", "bold"), question))
        screen.print(f"This is what a model would be given, within {_TOKENS} tokens:", style="dim")
        show_context(screen, sample.ask(memory, question).get_context(question, _TOKENS))
        screen.print()


def _show_replay(screen: Console, memory: MemoryManager, sessions: Iterable[ReplayedSession]) -> None:
    told = " in 2025. Replayed as it was said, this is learnt:\n"
    screen.print(Text.assemble(("Maya talks with an assistant", "bold"), told))
    started, count = time.perf_counter(), 0
    for session in sessions:
        count += 1
        if session.learnt:
            line = Text.assemble((f"  {session.id:<27}", "cyan"), (", ".join(session.learnt), "green"))
            screen.print(line, overflow="ellipsis", no_wrap=True)
    screen.print(
        f"\n{count} sessions in {time.perf_counter() - started:.1f} s: {memory.long_term.count()} messages in "
        f"long-term memory, {len(memory.features.export()['facts'])} facts by rules.\n"
        "At the end of each session its short-term memory was tidied, and forgotten.\n",
        style="dim",
    )


def _show_changes(screen: Console, memory: MemoryManager) -> None:
    """The facts that are no longer what they were first."""
    facts, rows = all_facts(memory), []
    for fact in facts:
        last = fact.history[-1]
        before = fact.history if last.until else fact.history[:-1]
        if before:
            row = (
                plain(fact.key),
                Text(", ").join(shown_value(version.value) for version in before),
                Text() if last.until else shown_value(last.value),
                Text(_day(last.until or last.since)),
                plain(last.message_id or ""),
            )
            rows.append(row)
    screen.print(Text.assemble(("Facts that changed", "bold"), f"; {len(facts) - len(rows)} more never did"))
    show_rows(screen, ("fact", "was", "is", "since", "message"), rows)
    screen.print()


def _show_score(screen: Console, memory: MemoryManager, questions: Sequence[Question]) -> None:
    found = sum(
        any(question.evidence.intersection(hit.message_ids) for hit in memory.search_long_term(question.text, _HITS))
        for question in questions
    )
    screen.print(
        f"✓ holds an answer; {found} of the sample's {len(questions)} questions find one in their first {_HITS}.\n",
        style="dim",
    )


def _day(moment: datetime) -> str:
    return f"{moment.day} {moment:%b %Y}"
