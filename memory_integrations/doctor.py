"""Looks at every store: what is wrong, what to do, and a repair where nothing can be lost by it."""

from __future__ import annotations

import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memory_integrations.collection import MemoryCollection, is_embedded, tagged
from memory_integrations.copying import pages
from memory_integrations.errors import EmbeddingMismatchError, StoreCorruptedError, StoreError
from memory_integrations.journal import Journal, events_of
from memory_integrations.journal_files import JsonlJournal
from memory_integrations.layout import DELETED, metadata_of
from memory_integrations.reembedding import is_unfinished
from memory_integrations.scopes import MemoryScope
from memory_integrations.server import asking

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

_EARLY = 256 << 20  # bytes of free space below which it is time to say so
_HEADER = b'{"scope":'  # what a journal's file begins with


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
    """Everything that is found, in all scopes. Nothing is made or changed.

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
            for key, count in journal.strays().items():
                yield _stray(journal, key, count)
    except StoreError as error:
        yield Finding(journal.place, str(error))
    try:
        yield from _examine_collection(collection)
    except (StoreError, EmbeddingMismatchError) as error:
        yield Finding("memories", str(error))


# The directory


def _examine_directory(data_dir: Path) -> Iterator[Finding]:
    for directory in (data_dir / "journal", data_dir / "vectors"):
        if not directory.is_dir():
            if os.path.lexists(directory):
                yield Finding(str(directory), "It is no directory. See what it is, and move it away or restore it.")
            continue
        mode = directory.stat().st_mode & 0o777
        if mode & data_dir.stat().st_mode & 0o077:  # the one around it may be closed to others
            yield Finding(
                str(directory),
                f"Others than its owner may read it (mode {mode:o}); it holds what users said. Expected 700.",
                partial(_close_to_others, directory),
            )
    yield from _examine_segments(data_dir / "vectors")
    yield from _examine_disk(data_dir, shutil.disk_usage(data_dir).free)


def _examine_segments(vectors: Path) -> Iterator[Finding]:
    from memory_integrations.qdrant_edge.shard import knows_its_points

    for segment in sorted(vectors.glob("shards/*/segments/*")):
        if not knows_its_points(segment):
            yield Finding(
                str(segment),
                "Its table of ids (mutable_id_tracker.mappings) is missing or was cut off: the engine finds only the "
                "latest memories, which its log holds. Store nothing further, and restore the directory from a backup.",
            )


def _examine_disk(data_dir: Path, free: int) -> Iterator[Finding]:
    from memory_integrations.qdrant_edge.shard import SPARE

    if free >= _EARLY:
        return
    left, needed = f"{free >> 20} MiB are left on its disk", f"{SPARE >> 20} MiB"
    if free >= SPARE or not (data_dir / "vectors").is_dir():
        yield Finding(
            str(data_dir), f"Only {left}. Below {needed} the embedded engine refuses to write.", serious=False
        )
        return
    yield Finding(
        str(data_dir),
        f"{left}, and the embedded engine writes only where {needed} are: nothing is remembered. Free room outside of "
        "the memory, such as old archives and logs: deleting memories needs room itself.",
    )


def _close_to_others(directory: Path) -> str:
    directory.chmod(0o700)
    return "nobody else may read it now"


# The journal


def _examine_files(journal: JsonlJournal) -> Iterator[Finding]:
    for path in journal.files():
        if path.is_symlink() and not path.exists():
            yield Finding(str(path), "It is a link to nothing, so that its scope has no facts. Restore what it led to.")
            continue
        try:
            scope = journal.scope_of(path)
        except StoreError as error:
            yield Finding(str(path), str(error))
            continue
        if scope is None:
            yield from _examine_nobodys(path)
        elif journal.path(scope) != path:
            yield Finding(
                str(path),
                f"It is the journal of {scope}, whose file is named {journal.path(scope).name}: nobody reads this one. "
                "Rename it where that one is missing, else move it away.",
            )
        else:
            yield from _examine_events(journal, scope, str(path))
    for path in sorted(journal.directory.glob("*.jsonl.*")):
        with suppress(FileNotFoundError):
            yield _left_behind(path)


def _examine_nobodys(path: Path) -> Iterator[Finding]:
    """A file without a whole line: empty, a first write that was cut off, or anything else."""
    try:
        with path.open("rb") as file:
            begin = file.read(len(_HEADER))
            size = path.stat().st_size
    except OSError:  # erased meanwhile
        return
    if not _HEADER.startswith(begin):
        yield Finding(
            str(path),
            f"Its {size:,} bytes are no journal, and the next event of its scope sets them aside. Restore the file "
            "from a backup, or see what it is and delete it.",
        )


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
    repair = partial(_repair, journal, scope, where)
    try:
        journal.check(scope)
    except StoreCorruptedError as error:
        yield Finding(where, str(error), repair)
        return
    try:
        events_of(journal, scope)
    except StoreCorruptedError as error:
        yield Finding(where, str(error), repair if isinstance(journal, JsonlJournal) else None)
        return
    if isinstance(journal, JsonlJournal) and (torn := journal.torn(scope)):
        yield Finding(
            where,
            f"It ends in {torn} bytes of an event that was not written whole: its writer died, and never acknowledged "
            "it; or the file was cut off, and what stood behind is lost, which only a backup tells.",
            repair,
            serious=False,
        )


def _stray(journal: Journal, key: str, count: int) -> Finding:
    return Finding(
        journal.place,
        f"{count:,} events have the key {key!r}, and no scope has: its row in memory_journal_scopes is missing, so "
        "that nobody sees them. The key begins as the scope's name does. Restore the row from a backup of the "
        "database; or erase the facts of that scope, which removes them, and `import` a backup.",
    )


def _repair(journal: Journal, scope: MemoryScope, where: str) -> str:
    return journal.repair(scope).told(where)


# The collection


def _examine_collection(collection: MemoryCollection) -> Iterator[Finding]:
    if not collection.exists():
        return
    client, name = collection.client(), collection.name
    with asking():
        unfinished, is_there = is_unfinished(client, name), client.collection_exists(name)
    if unfinished:
        yield Finding(
            "memories",
            "Embedding them anew was interrupted. Run `memory-integrations reembed` again to go on, with the embedding "
            "or `--language` that it was begun with; or drop what was begun, by which no memory is lost.",
            partial(_abandon_reembedding, collection),
        )
    if is_there:
        try:
            collection.check_embedding()
        except (StoreError, EmbeddingMismatchError) as error:
            yield Finding("memories", str(error))
            if isinstance(error, StoreError):
                return
        counts: Counter[str] = Counter()
        with asking():
            found = _look_at((point for page in pages(client, name, with_vectors=False) for point in page), counts)
        yield from found
        if is_embedded(client):
            yield from _examine_index(collection, counts)


def _examine_index(collection: MemoryCollection, counts: Mapping[str, int]) -> Iterator[Finding]:
    """See that every scope's memories are found by their scope: whoever searches, counts or erases asks for that."""
    client, name = collection.client(), collection.name
    with asking():
        suspects = [tag for tag, count in counts.items() if count > client.count(name, tagged([tag]), exact=True).count]
        hidden = sum(len(_hidden(client, name, tag)) for tag in suspects)
    if hidden:
        yield Finding(
            "memories",
            f"{hidden:,} of {sum(counts.values()):,} are not found by the scope that they say, and by no search: the "
            "index of scopes is damaged.",
            partial(_index_anew, collection),
        )


def _hidden(client: QdrantClient, name: str, tag: str) -> list[Any]:
    """The ids of a scope's points that its filter does not find, also when it is asked again: others may write."""
    from qdrant_client import models

    said = {
        p.id for page in pages(client, name, with_vectors=False) for p in page if metadata_of(p).get("scope") == tag
    }
    found = {point.id for page in pages(client, name, with_vectors=False, only=tagged([tag])) for point in page}
    return [
        id_
        for id_ in said - found
        if any(metadata_of(point).get("scope") == tag for point in client.retrieve(name, [id_]))
        and not client.count(name, tagged([tag], models.HasIdCondition(has_id=[id_])), exact=True).count
    ]


def _index_anew(collection: MemoryCollection) -> str:
    collection.rewrite()
    return "all memories are written anew, with their indexes"


def _abandon_reembedding(collection: MemoryCollection) -> str:
    collection.abandon_reembedding()
    return "what was begun is dropped"


def _look_at(points: Iterable[Any], counts: Counter[str]) -> list[Finding]:
    """What is wrong with points; counts those of each scope."""
    homeless, undated, strange = 0, 0, 0
    pieces: defaultdict[tuple[Any, ...], set[int]] = defaultdict(set)
    expected: dict[tuple[Any, ...], int] = {}
    for point in points:
        fields = metadata_of(point)
        scope = fields.get("scope")
        if scope == DELETED:
            continue
        if isinstance(scope, str):
            counts[scope] += 1
        else:
            homeless += 1
        undated += not _is_time(fields.get("created_at"))
        piece, count = fields.get("piece", 0), fields.get("pieces", 1)
        name = scope, fields.get("session_id"), fields.get("message_id")
        if not (type(piece) is type(count) is int and all(isinstance(one, str | None) for one in name)):
            strange += isinstance(scope, str)
        elif count > 1:
            pieces[name].add(piece)
            expected[name] = count
    found = []
    if homeless:
        found.append(
            Finding(
                "memories",
                f"{homeless:,} say no scope, so that none finds them: another program wrote them. Give them a "
                "`metadata.scope`, or delete them through `long_term.vectorstore`.",
            )
        )
    if undated:
        found.append(
            Finding("memories", f"{undated:,} have a `created_at` that is no time. Store them again, or delete them.")
        )
    if strange:
        found.append(
            Finding(
                "memories",
                f"{strange:,} have a `session_id` or `message_id` that is no text, or a `piece` or `pieces` that is no "
                "number: another program wrote them. Give these another name, or delete them through "
                "`long_term.vectorstore`.",
                serious=False,
            )
        )
    for (scope, session, message), there in pieces.items():
        count = expected[scope, session, message]
        if len(there) != count or there != set(range(count)):
            found.append(
                Finding(
                    str(scope),
                    f"Of the message {message!r} (session {session!r}) {len(there)} of {count} pieces are there. "
                    "Tell it again, or import it from a backup.",
                )
            )
    return found


def _is_time(text: Any) -> bool:
    if text is None:
        return True
    try:
        datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return False
    return True
