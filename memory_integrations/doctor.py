"""Looks at every store: what is wrong, what to do, and a repair where nothing can be lost by it."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from memory_integrations.collection import MemoryCollection
from memory_integrations.errors import EmbeddingMismatchError, StoreCorruptedError, StoreError
from memory_integrations.journal import Journal, JsonlJournal, events_of
from memory_integrations.layout import DELETED, metadata_of
from memory_integrations.reembedding import is_unfinished
from memory_integrations.scopes import MemoryScope

_NEEDED = 256 << 20  # bytes of free space; the embedded engine makes files of 32 MiB


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        where: The file, the scope or the store.
        problem: What is wrong, and what to do.
        repair: Mends it without losing anything, and says what it did; None where that is somebody's to decide.
        serious: Whether something does not work, or is lost; what is not serious only wants to be known.
    """

    where: str
    problem: str
    repair: Callable[[], str] | None = field(default=None, repr=False, compare=False)
    serious: bool = True


def examine(data_dir: Path, journal: Journal, collection: MemoryCollection) -> Iterator[Finding]:
    """Everything that is found, in all scopes. Nothing is changed.

    Args:
        data_dir: The directory of what is kept in files.
        journal: Where the facts are.
        collection: Where the memories are.
    """
    if data_dir.is_dir():
        yield from _examine_directory(data_dir)
    try:
        if isinstance(journal, JsonlJournal):
            yield from _examine_files(journal)
        else:
            for scope in journal.scopes():
                yield from _examine_events(journal, scope, str(scope))
    except StoreError as error:
        yield Finding(journal.place, str(error))
    try:
        yield from _examine_collection(collection)
    except (StoreError, EmbeddingMismatchError) as error:
        yield Finding("memories", str(error))


# The directory


def _examine_directory(data_dir: Path) -> Iterator[Finding]:
    for directory in filter(Path.is_dir, (data_dir / "journal", data_dir / "vectors")):
        mode = directory.stat().st_mode & 0o777
        if mode & data_dir.stat().st_mode & 0o077:  # the one around it may be closed to others
            yield Finding(
                str(directory),
                f"Others than its owner may read it (mode {mode:o}); it holds what users said. Expected 700.",
                partial(_close_to_others, directory),
            )
    free = shutil.disk_usage(data_dir).free
    if free < _NEEDED:
        yield Finding(str(data_dir), f"Only {free >> 20} MiB are left on the disk: writes will be refused.")


def _close_to_others(directory: Path) -> str:
    directory.chmod(0o700)
    return "nobody else may read it now"


# The journal


def _examine_files(journal: JsonlJournal) -> Iterator[Finding]:
    for path in journal.files():
        try:
            scope = journal.scope_of(path)
        except StoreError as error:
            yield Finding(str(path), str(error))
            continue
        if scope is not None and journal.path(scope) != path:
            yield Finding(
                str(path),
                f"It is the journal of {scope}, whose file is named {journal.path(scope).name}: nobody reads this one. "
                "Rename it where that one is missing, else move it away.",
            )
        elif scope is not None:
            yield from _examine_events(journal, scope, str(path))
    for path in sorted(journal.directory.glob("*.jsonl.*")):
        with suppress(FileNotFoundError):
            yield _left_behind(path)


def _left_behind(path: Path) -> Finding:
    """What a call that was interrupted left beside a journal."""
    if path.suffix == ".rewritten":
        return Finding(
            str(path),
            "A copy of a journal that was being written when its writer died. The journal itself is whole.",
            partial(_delete, path),
            serious=False,
        )
    return Finding(
        str(path),
        f"{path.stat().st_size:,} bytes that are no events were set aside here, and may hold what was said. See what "
        "they are, then delete the file.",
        serious=False,
    )


def _delete(path: Path) -> str:
    path.unlink(missing_ok=True)
    return "deleted"


def _examine_events(journal: Journal, scope: MemoryScope, where: str) -> Iterator[Finding]:
    try:
        numbers = [event.number for event in events_of(journal, scope)]
    except StoreCorruptedError as error:
        repair = partial(_set_aside, journal, scope) if isinstance(journal, JsonlJournal) else None
        yield Finding(where, str(error), repair)
        return
    if numbers != list(range(1, len(numbers) + 1)):
        missing = sorted(set(range(1, max(numbers) + 1)) - set(numbers))
        yield Finding(where, f"The events {missing[:5]} of {scope} are missing. Restore them from a backup (`import`).")


def _set_aside(journal: JsonlJournal, scope: MemoryScope) -> str:
    count = journal.repair(scope)
    return f"{count} {'lines' if count > 1 else 'line'} set aside, in {journal.path(scope)}.aside"


# The collection


def _examine_collection(collection: MemoryCollection) -> Iterator[Finding]:
    client = collection.open()
    if is_unfinished(client, collection.name):
        yield Finding(
            "memories", "Embedding them anew was interrupted. Run `memory-integrations reembed` again to go on."
        )
    homeless, undated = 0, 0
    pieces: defaultdict[tuple[Any, ...], set[int]] = defaultdict(set)
    expected: dict[tuple[Any, ...], int] = {}
    for point in collection.scroll(None, ["metadata"]):
        fields = metadata_of(point)
        scope = fields.get("scope")
        if scope == DELETED:
            continue
        homeless += not isinstance(scope, str)
        undated += not _is_time(fields.get("created_at"))
        if (count := fields.get("pieces", 1)) > 1:
            name = scope, fields.get("session_id"), fields.get("message_id")
            pieces[name].add(fields.get("piece", 0))
            expected[name] = count
    if homeless:
        yield Finding(
            "memories",
            f"{homeless:,} say no scope, so that none finds them: another program wrote them. Give them a "
            "`metadata.scope`, or delete them through `long_term.vectorstore`.",
        )
    if undated:
        yield Finding("memories", f"{undated:,} have a `created_at` that is no time. Store them again, or delete them.")
    for name, found in pieces.items():
        if found != set(range(expected[name])):
            scope, session, message = name
            yield Finding(
                str(scope),
                f"Of the message {message!r} (session {session!r}) {len(found)} of {expected[name]} pieces are there. "
                "Tell it again, or import it from a backup.",
            )


def _is_time(text: Any) -> bool:
    if text is None:
        return True
    try:
        datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return False
    return True
