"""Moving to other stores: embedded engine to server and back, files to a database and back.

What was copied is read back and compared. Nothing is deleted, in neither place, and an interrupted move goes on when it
is called again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid4, uuid5

from memory_integrations.collection import MemoryCollection, batched, is_embedded
from memory_integrations.copying import (
    PAGE,
    are_equal,
    copy_points,
    create_alike,
    finish_purging,
    index_alike,
    pages,
    purging,
    settings_of,
)
from memory_integrations.errors import EmbeddingMismatchError, StoreCorruptedError, StoreUnavailableError
from memory_integrations.journal import Event, Journal, as_json_line, encode_event, events_of, merged, restored
from memory_integrations.layout import metadata_of, piece_of
from memory_integrations.records import id_by
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


def expect_no_further_scopes(source: Journal, target: Journal) -> None:
    """See that the target has no journals of other scopes: what was erased in the source after a first move, or more.

    Raises:
        StoreUnavailableError: It has.
        StoreError: A store could not be read.
    """
    further = sorted(str(scope) for scope in {*target.scopes()}.difference(source.scopes()) if not _is_mark(scope))
    if further:
        raise StoreUnavailableError(
            f"The target has facts or decisions of scopes that the source has not: {_named(further)}. Everything of "
            "the source is there. What was erased here since it was copied has to be erased there too: see what these "
            "are before you use it."
        )


def _named(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


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
        found = here.get_collection(name)
        metadata = found.config.metadata or {}
        if not there.collection_exists(name):
            # What the embedded engine tells of its settings are its defaults; and it has not all that a server has.
            alike = is_embedded(here) == is_embedded(there)
            settings = settings_of(found.config, spread=False) if alike else {}
            create_alike(here, name, there, name, metadata, {**settings, **target.options})
        elif (written := there.get_collection(name).config.metadata or {}) != metadata:
            raise EmbeddingMismatchError(
                f"The collection {name!r} of the target was written with {written}, that of the source with "
                f"{metadata}. Nothing was copied: use an empty target, or call long_term.reembed() on one of them."
            )
        else:
            index_alike(found, there, name)
        copy_points(here, name, there, name, progress=told)
        if surplus := _surplus_pieces(here, there, name):
            with purging(there, name):
                for batch in batched(surplus, PAGE):
                    there.delete(name, points_selector=list(batch), wait=True)
        finish_purging(there, name)  # what a call that was interrupted has overwritten
        return _compared(here, there, name)


def _compared(here: QdrantClient, there: QdrantClient, name: str) -> tuple[int, str]:
    counts = here.count(name, exact=True).count, there.count(name, exact=True).count
    if counts[1] > counts[0]:
        raise StoreUnavailableError(
            f"The target has {counts[1]:,} points, the source {counts[0]:,}. The others are of "
            f"{_named(_scopes_of_others(here, there, name))}: erased here since they were copied, the target's own, or "
            "written meanwhile. All of the source's are there. What was erased here has to be erased there too."
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


def _others(here: QdrantClient, there: QdrantClient, name: str) -> Iterator[Any]:
    """The points that the target has and the source has not."""
    for points in pages(there, name, with_vectors=False):
        known = {point.id for point in here.retrieve(name, [point.id for point in points], with_payload=False)}
        yield from (point for point in points if point.id not in known)


def _scopes_of_others(here: QdrantClient, there: QdrantClient, name: str) -> list[str]:
    return sorted({str(metadata_of(point).get("scope")) for point in _others(here, there, name)})


def _surplus_pieces(here: QdrantClient, there: QdrantClient, name: str) -> list[Any]:
    """The further pieces of texts that became shorter in the source, or of which a mark is left, since a first move."""
    if there.count(name, exact=True).count <= here.count(name, exact=True).count:
        return []
    found: list[Any] = []
    for batch in batched(_others(here, there, name), PAGE):
        further = {point.id: metadata_of(point) for point in batch if piece_of(metadata_of(point))[0] > 0}
        first = {id_: id_by({**fields, "piece": 0}) for id_, fields in further.items() if id_by(fields) == id_}
        places = [place for place in set(first.values()) if place is not None]
        known = {point.id for point in here.retrieve(name, places, with_payload=False)}
        found += [id_ for id_, place in first.items() if place in known]
    return found


def _digest(events: Iterable[Event]) -> str:
    """The same for events that are equal, in whatever order they say their keys."""
    digest = sha256()
    for event in events:
        digest.update(as_json_line([event.number, json.loads(encode_event(event))]))
    return digest.hexdigest()
