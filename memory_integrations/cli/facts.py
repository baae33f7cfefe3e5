"""The facts that are known of a user: ``facts list``, ``set``, ``history``, ``delete``, ``undo`` and ``repair``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from memory_integrations.cli.options import (
    DATA_DIR,
    SCOPE,
    SCOPE_HELP,
    AsJson,
    DataDir,
    Scope,
    expect_memory,
    failure,
    opened,
    settings,
)
from memory_integrations.cli.show import console, plain, print_json, printable, show_rows
from memory_integrations.cli.values import shown_value, typed_value
from memory_integrations.errors import StoreCorruptedError
from memory_integrations.manager import MemoryManager, directory_of
from memory_integrations.messages import as_unicode
from memory_integrations.scopes import MemoryScope

if TYPE_CHECKING:
    from memory_integrations.features import Fact

Key = Annotated[str, typer.Argument(metavar="KEY", help="The fact's name.")]


def list_facts(scope: Scope = SCOPE, data_dir: DataDir = DATA_DIR, as_json: AsJson = False) -> None:
    """List the facts that hold now."""
    with opened(scope, data_dir, to_read=True) as memory:
        if as_json:
            print_json(memory.features.all())
        else:
            show_facts(console(), memory)


def set_fact(
    key: Key,
    value: Annotated[str, typer.Argument(metavar="VALUE", help="JSON where it is JSON, else text.")],
    scope: Scope = SCOPE,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Set a fact. What it was before stays in its history."""
    key = as_unicode(key)
    with opened(scope, data_dir) as memory:
        memory.set_fact(key, typed_value(value))
        _show_value(memory, key)


def fact_history(
    key: Annotated[str | None, typer.Argument(metavar="KEY", help="The fact's name; without it, all.")] = None,
    scope: Scope = SCOPE,
    data_dir: DataDir = DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Show every value that facts had: since when, until when, who said so, and in which message."""
    key = key and as_unicode(key)
    with opened(scope, data_dir, to_read=True) as memory:
        facts = [fact for fact in all_facts(memory) if key in (None, fact.key)]
    if key is not None and not facts:
        raise _unknown(scope, key)
    if as_json:
        print_json([asdict(fact) for fact in facts])
    else:
        show_rows(console(), ("fact", "value", "since", "until", "source", "message"), _history(facts))


def delete_fact(
    key: Key,
    history: Annotated[
        bool, typer.Option("--history", help="Remove its history too, from every file; it cannot be undone.")
    ] = False,
    scope: Scope = SCOPE,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Delete a fact. Its history stays, and `facts undo` brings it back."""
    key = as_unicode(key)
    with opened(scope, data_dir, to_read=True) as memory:
        if not (memory.erase_fact(key) if history else memory.features.delete(key)):
            raise _unknown(scope, key)
        _show_value(memory, key)


def undo_fact(scope: Scope = SCOPE, data_dir: DataDir = DATA_DIR) -> None:
    """Take back the latest change of a fact; run again, the one before it."""
    with opened(scope, data_dir, to_read=True) as memory:
        key = memory.features.undo()
        if key is None:
            raise failure(f"{scope} has no change left to take back.")
        _show_value(memory, key)


def repair_facts(
    scope: Annotated[str | None, typer.Option(help=SCOPE_HELP, show_default="all of them")] = None,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Set aside the lines of the journal that cannot be read, into a file beside it; all others stay, in order."""
    from memory_integrations.journal_files import JsonlJournal

    if settings.get().journal_url:
        raise failure("facts repair mends files, and the facts are in a database: run `doctor --repair`.", 2)
    expect_memory(data_dir)
    journal = JsonlJournal(directory_of(data_dir) / "journal")
    try:
        scopes = journal.scopes() if scope is None else [MemoryScope.parse(scope).owner]
    except StoreCorruptedError as error:
        raise failure(f"{error} Its first line names its scope, so say which it is by --scope.") from error
    for each in scopes:
        console().print(plain(f"{each}: {journal.repair(each).told(journal.path(each))}"), soft_wrap=True)


def all_facts(memory: MemoryManager) -> list[Fact]:
    """Every fact that was ever set, deleted ones too."""
    keys = dict.fromkeys([*memory.features.keys(), *memory.features.export()["facts"]])
    facts = (memory.features.get_with_history(key) for key in keys)
    return [fact for fact in facts if fact is not None]


def show_facts(screen: Console, memory: MemoryManager) -> None:
    """Show the facts that hold now, each with who said so, and when."""
    rows = []
    for key, value in memory.features.all().items():
        fact = memory.features.get_with_history(key)
        assert fact is not None  # it has a value
        now = fact.history[-1]
        rows.append((plain(key), shown_value(value), _minute(now.since), plain(now.source)))
    if rows:
        show_rows(screen, ("fact", "value", "since", "source"), rows)
    else:
        screen.print(printable(f"No facts are known of {memory.scope}."))


def _history(facts: Iterable[Fact]) -> Iterator[Sequence[Text]]:
    """Every value of facts, a row each."""
    for fact in facts:
        for number, version in enumerate(fact.history):
            yield (
                Text() if number else plain(fact.key),
                shown_value(version.value),
                _minute(version.since),
                _minute(version.until) if version.until else Text(),
                plain(version.source),
                plain(version.message_id or ""),
            )


def _show_value(memory: MemoryManager, key: str) -> None:
    """The value that a fact has after a change."""
    known = key in memory.features
    value = Text.assemble("= ", shown_value(memory.get_fact(key))) if known else Text("has no value now")
    console().print(plain(key), value, soft_wrap=True)


def _unknown(scope: str, key: str) -> typer.Exit:
    return failure(f"{scope} has no fact {key!r}: `facts list` shows those it has.")


def _minute(moment: datetime) -> Text:
    return Text(f"{moment:%Y-%m-%d %H:%M}")
