"""The command ``ingest``: the conversations of files, stored a batch at a time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from memory_integrations.cli.options import (
    DATA_DIR,
    LANGUAGE,
    SCOPE,
    SCOPE_HELP,
    AsJson,
    DataDir,
    Language,
    interruption,
    opened,
)
from memory_integrations.cli.show import console, plain, print_json, progress, show_grid
from memory_integrations.ingest import Item, Problem, Read, Skipped, read_file
from memory_integrations.manager import MemoryManager
from memory_integrations.messages import Message
from memory_integrations.scopes import MemoryScope

if TYPE_CHECKING:
    from memory_integrations.long_term import LongTermMemory

_BATCH = 256  # messages that are stored at once


def ingest(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", readable=False, help="Files of conversations.")],
    scope: Annotated[str | None, typer.Option(help=SCOPE_HELP, show_default=SCOPE)] = None,
    data_dir: DataDir = DATA_DIR,
    language: Language = LANGUAGE,
    as_json: AsJson = False,
) -> None:
    """Store the conversations of files: OpenAI-style JSON Lines, ChatGPT's conversations.json, a benchmark's JSON.

    The format is told by the content. Running it again, also after an interruption, doubles nothing: messages without
    an id get one from their session, place and content. Ids are taken to be unique within a scope. Times without a
    zone are UTC. Each conversation of a benchmark becomes a user of its own, user:ID, unless --scope is given.

    What cannot be read is reported by file and line, the rest is stored, and the exit code is 1.
    """
    from rich.progress import DownloadColumn

    given = MemoryScope.parse(scope) if scope is not None else None
    report, started, interrupted = console(stderr=True), time.perf_counter(), False
    with opened(given or SCOPE, data_dir, language) as memory:
        ingestion = _Ingestion(memory, given)
        try:
            with progress(report, "reading", DownloadColumn()) as advance:
                size = sum(map(_size, files))
                for item, done in _items(files, memory.scope.session_id):
                    problem = ingestion.take(item)
                    if problem:
                        report.print(plain(f"{problem.where}: {problem.reason}"), soft_wrap=True)
                    advance(done, size)
                ingestion.store()
        except KeyboardInterrupt:
            interrupted = True
        summary = ingestion.summary(time.perf_counter() - started)
    if as_json:
        print_json({**summary, "interrupted": interrupted})
    else:
        _show_summary(console(), summary)
    if interrupted:
        raise interruption("stored")
    if ingestion.problems:
        raise typer.Exit(1)


def _items(files: Iterable[Path], session: str | None) -> Iterator[tuple[Item, int]]:
    """Everything in the files, each with how many bytes were read by then."""
    before = 0
    for path in files:
        offset = 0
        for item, offset in read_file(path, session):
            yield item, before + offset
        before += offset


class _Ingestion:
    """Stores what readers find, a batch at a time, and counts it.

    Args:
        memory: The open memory.
        scope: Where everything goes; None gives each conversation of a benchmark a user of its own.
    """

    def __init__(self, memory: MemoryManager, scope: MemoryScope | None) -> None:
        self.skipped: Counter[str] = Counter()
        self.problems: list[Problem] = []
        self._memory = memory
        self._given = scope
        self._stores: dict[MemoryScope, tuple[LongTermMemory, int]] = {}
        self._batch: list[Message] = []
        self._batch_scope = memory.scope
        self._texts: dict[tuple[MemoryScope, str], bytes] = {}
        self._stored = 0

    def take(self, item: Item) -> Problem | None:
        """Count an item, and store it with its batch; returns what is wrong with it."""
        if isinstance(item, Read):
            return self._take_message(item)
        if isinstance(item, Skipped):
            self.skipped[item.reason] += 1
            return None
        self.problems.append(item)
        return item

    def store(self) -> None:
        """Store what the batch holds."""
        batch, self._batch = self._batch, []
        if batch:
            stored = len(self._store_of(self._batch_scope).store_messages(batch))
            self._stored += stored
            self.skipped.update({"nothing but injected memory": len(batch) - stored})

    def summary(self, seconds: float) -> dict[str, Any]:
        """What was done, as JSON."""
        new = sum(store.count() - before for store, before in self._stores.values())
        # A batch that an interruption left is none that was read; one that it cut short may be stored all the same.
        read = max(self._stored, new) + self.skipped.total()
        return {
            "read": read,
            "new": new,
            "already_there": max(self._stored - new, 0),
            "skipped": dict(+self.skipped),
            "problems": [asdict(problem) for problem in self.problems],
            "scopes": [str(scope) for scope in self._stores],
            "seconds": round(seconds, 3),
            "messages_per_second": round(read / seconds),
        }

    def _take_message(self, item: Read) -> Problem | None:
        message, scope = item.message, self._given or self._memory.scope
        if item.user_id is not None:
            if self._given is None:
                scope = MemoryScope(item.user_id)
            else:  # the ids of a benchmark are those of its conversation: "D1:1" is in each
                message = replace(
                    message, id=f"{item.user_id}:{message.id}", session_id=f"{item.user_id}:{message.session_id}"
                )
        digest = blake2b(f"{message.role}:{message.content}".encode(), digest_size=8).digest()
        if self._texts.setdefault((scope, message.id or ""), digest) != digest:
            self.problems.append(Problem(f"id {message.id!r} is that of another message before it", item.where))
            return self.problems[-1]
        if scope != self._batch_scope or len(self._batch) >= _BATCH:
            self.store()
            self._batch_scope = scope
        self._batch.append(message)
        return None

    def _store_of(self, scope: MemoryScope) -> LongTermMemory:
        if scope not in self._stores:
            store = self._memory.for_scope(scope).long_term
            self._stores[scope] = (store, store.count())
        return self._stores[scope][0]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # the reader will say so
        return 0


def _show_summary(screen: Console, summary: Mapping[str, Any]) -> None:
    skipped, problems, scopes = summary["skipped"], summary["problems"], summary["scopes"]
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in skipped.items())
    into = ", ".join(scopes[:4]) + (f" and {len(scopes) - 4} more" if len(scopes) > 4 else "")
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    table.add_row("read", f"{summary['read']:,}", f"messages for {into}" if into else "messages")
    table.add_row("stored new", f"{summary['new']:,}")
    table.add_row("already there", f"{summary['already_there']:,}")
    table.add_row("skipped", f"{sum(skipped.values()):,}", reasons)
    if problems:
        table.add_row(Text("not readable", "red"), f"{len(problems):,}", "reported above")
    table.add_row("seconds", f"{summary['seconds']:.1f}", f"{summary['messages_per_second']:,} messages/s")
    show_grid(screen, table)
