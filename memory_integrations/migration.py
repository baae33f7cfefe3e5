"""Moving to other stores: embedded engine to server and back, files to a database and back.

What was copied is read back and compared. Nothing is deleted, in neither place, and an interrupted move goes on when it
is called again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, uuid4, uuid5

from memory_integrations.collection import MemoryCollection
from memory_integrations.copying import are_equal, copy_points, create_alike, index_alike, pages
from memory_integrations.errors import EmbeddingMismatchError, StoreCorruptedError, StoreUnavailableError
from memory_integrations.journal import Event, Journal, as_json_line, encode_event, events_of, merged, restored
from memory_integrations.reembedding import finish
from memory_integrations.scopes import MemoryScope
from memory_integrations.server import asking

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

Progress = Callable[[str, int, int], None]
"""Called with what is being copied ("scopes", "points"), how many are done, and how many there are."""

_MARK = str(uuid5(NAMESPACE_URL, "memory_integrations:mark"))
"""The id of a point that is written for a moment, to see where it appears."""


@dataclass(frozen=True, slots=True)
class MigrationReceipt:
    """What was copied, and read back to see that it is the same.

    Attributes:
        scopes: Journals.
        events: Their events; 0 where the journal stayed where it is.
        events_sha256: Of all of them, equal in both places.
        points: Points of the collection; 0 where it stayed where it is.
        points_sha256: Of their ids and payloads, equal in both places. Their vectors are compared number by number.
    """

    scopes: int = 0
    events: int = 0
    events_sha256: str = ""
    points: int = 0
    points_sha256: str = ""


def expect_another_journal(source: Journal, target: Journal) -> None:
    """See that two journals are not one under two names: what the target is given for a moment, only it has.

    Raises:
        StoreUnavailableError: They are one.
        StoreError: A store could not be read or written.
    """
    scopes = target.scopes()
    if not scopes:
        return
    for scope in filter(_is_mark, scopes):
        if [event.kind for event in events_of(target, scope)] == ["mark"]:  # of a call that was interrupted
            target.open(scope, _ignore, _ignore).erase()
    scope = MemoryScope(session_id=f"mark {uuid4()}")
    mark = target.open(scope, _ignore, _ignore)
    try:
        mark.append("mark", {})
        is_one = scope in source.scopes()
    finally:
        mark.erase()
    if is_one:
        raise _same_store("journal", source.place, target.place)


def _is_mark(scope: MemoryScope) -> bool:
    return scope.user_id is None and re.fullmatch(r"mark [0-9a-f-]{36}", scope.session_id or "") is not None


def expect_another_collection(source: MemoryCollection, target: MemoryCollection) -> None:
    """See that two collections are not one under two names; as with journals.

    Raises:
        StoreUnavailableError: They are one.
        StoreError: A store could not be read or written.
    """
    from qdrant_client import models

    name, here, there = source.name, source.client(), target.client()
    with asking():
        if not (here.collection_exists(name) and there.collection_exists(name)):
            return
        payload = {"mark": str(uuid4())}
        try:
            there.upsert(name, [models.PointStruct(id=_MARK, vector={}, payload=payload)], wait=True)
            is_one = payload in [point.payload for point in here.retrieve(name, [_MARK])]
        finally:
            there.delete(name, points_selector=[_MARK], wait=True)
    if is_one:
        raise _same_store("collection", "the source", "the target")


def _same_store(what: str, one: str, other: str) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"The {what} of {one} and that of {other} are the same, under two names: there is nothing to move, and to "
        "delete one is to delete both. Nothing was copied. Name another target, or give it the source's name."
    )


def _ignore(_: object) -> None:
    pass


def copy_journals(source: Journal, target: Journal, progress: Progress | None = None) -> tuple[int, int, str]:
    """Copy the journals of all scopes, each with all its events as they are.

    Returns:
        How many scopes, how many events, and their checksum.

    Raises:
        StoreUnavailableError: A scope has another history in the target.
        StoreCorruptedError: What was read back differs.
        StoreError: A store could not be read or written.
    """
    scopes = sorted(source.scopes(), key=str)
    for scope in scopes:
        events = events_of(source, scope)
        restored(target, scope, events, dry_run=True)
        there = events_of(target, scope)
        if len(there) > len(events) or any(
            merged(one, event) != event for one, event in zip(there, events, strict=False)
        ):
            raise StoreUnavailableError(
                f"{scope} goes on in the target, with events that are not here, or without what was removed there: it "
                "is not what this was copied to, or was used since. Nothing was written. Erase the scope there first, "
                "or choose another target."
            )
    count, checked = 0, sha256()
    for done, scope in enumerate(scopes, 1):
        events = events_of(source, scope)
        restored(target, scope, events)
        there = events_of(target, scope)[: len(events)]
        if _digest(there) != _digest(events):
            raise StoreCorruptedError(
                f"The journal of {scope} was copied and does not read back as it was written. Nothing was changed "
                "where it came from: go on using that."
            )
        count += len(events)
        checked.update(f"{scope}\n{_digest(events)}\n".encode())
        if progress is not None:
            progress("scopes", done, len(scopes))
    return len(scopes), count, checked.hexdigest()


def copy_collection(
    source: MemoryCollection, target: MemoryCollection, progress: Progress | None = None
) -> tuple[int, str]:
    """Copy every point with its vectors as they are.

    Returns:
        How many points, and their checksum.

    Raises:
        EmbeddingMismatchError: The target was written with another embedding.
        StoreUnavailableError: The target has points that the source has not.
        StoreCorruptedError: What was read back differs.
        StoreError: A store could not be read or written.
    """

    def told(done: int, whole: int) -> None:
        if progress is not None:
            progress("points", done, whole)

    name, here, there = source.name, source.client(), target.client()
    with asking():
        finish(here, name)
        if not here.collection_exists(name):
            return 0, sha256().hexdigest()
        metadata = here.get_collection(name).config.metadata or {}
        if not there.collection_exists(name):
            create_alike(here, name, there, name, metadata, target.options)
        elif (written := there.get_collection(name).config.metadata or {}) != metadata:
            raise EmbeddingMismatchError(
                f"The collection {name!r} of the target was written with {written}, that of the source with "
                f"{metadata}. Nothing was copied: use an empty target, or call long_term.reembed() on one of them."
            )
        else:
            index_alike(here, name, there, name)
        copy_points(here, name, there, name, progress=told)
        return _compared(here, there, name)


def _compared(here: QdrantClient, there: QdrantClient, name: str) -> tuple[int, str]:
    counts = here.count(name, exact=True).count, there.count(name, exact=True).count
    if counts[1] > counts[0]:
        raise StoreUnavailableError(
            f"The target has {counts[1]:,} points, the source {counts[0]:,}: somebody else writes to it, or it was "
            "filled before. All of the source's are there; see what the others are before you use it."
        )
    digest = sha256()
    for points in pages(here, name, with_vectors=True):
        found = {point.id: point for point in there.retrieve(name, [point.id for point in points], with_vectors=True)}
        if not all(point.id in found and are_equal(point, found[point.id], with_vectors=True) for point in points):
            break
        for point in points:
            digest.update(as_json_line([point.id, point.payload or {}]))
    else:
        return counts[0], digest.hexdigest()
    raise StoreCorruptedError(
        f"The collection {name!r} was copied and does not read back as it was written ({counts[1]:,} of {counts[0]:,} "
        "points are there). Was it written to meanwhile? Nothing was changed where it came from: run it again."
    )


def _digest(events: Iterable[Event]) -> str:
    digest = sha256()
    for event in events:
        digest.update(f"{event.number} {encode_event(event)}\n".encode())
    return digest.hexdigest()
