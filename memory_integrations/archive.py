"""Everything of a scope, or of all scopes, as one JSON Lines file: for export and import, and for backups.

    {"archive": "memory_integrations", "format": 1, "scope": "user:ann", ...}    the first line; scope null means all
    {"scope": "user:ann", "number": 1, "event": {"at": ..., "kind": "set", ...}}  facts and decisions with their history
    {"id": "...", "payload": {"page_content": ..., "metadata": {...}}, ...}       messages, summaries, items
    {"end": {"events": 12, "points": 345, "sha256": "..."}}                       of all the bytes before it

The same memory gives the same bytes, whichever stores it is in: nothing says when or where the file was made.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from memory_integrations.collection import MemoryCollection, batched, equals, in_order, tagged
from memory_integrations.copying import PAGE, Progress
from memory_integrations.errors import StoreCorruptedError, StoreUnavailableError
from memory_integrations.journal import (
    Event,
    Journal,
    as_json_line,
    decode_event,
    encode_event,
    events_of,
    restored,
)
from memory_integrations.layout import DENSE, SPARSE, vectors_of
from memory_integrations.namespaces import own_tag
from memory_integrations.scopes import MemoryScope

if TYPE_CHECKING:
    from qdrant_client import models

FORMAT = 1
_NAME = "memory_integrations"


@dataclass(frozen=True, slots=True)
class ArchiveReceipt:
    """What was written to an archive, or read from it.

    Attributes:
        scope: Whose memory it is; None for all scopes.
        events: Events of journals: facts with their history, decisions of managing.
        points: Points of the collection: messages (long ones in pieces), file summaries, items.
        sha256: Of what the file says, in hexadecimal digits; two archives with the same one are the same.
    """

    scope: str | None
    events: int
    points: int
    sha256: str


# Writing


def write_archive(
    path: Path,
    scope: MemoryScope | None,
    journal: Journal,
    collection: MemoryCollection,
    vectors: bool = False,
    progress: Progress | None = None,
) -> ArchiveReceipt:
    """Write an archive. The file is there when it is complete, and not before.

    Everything that was acknowledged before the call is in it; what is written meanwhile may be.

    Args:
        path: The file; one that is there is replaced.
        scope: Whose memory; None means everything of all scopes.
        journal: Where the facts are.
        collection: Where the memories are.
        vectors: Whether to write the vectors too, so that reading it back embeds nothing.
        progress: Told how far it is.

    Raises:
        StoreUnavailableError: The file cannot be written.
        StoreError: A store cannot be read.
    """
    name = None if scope is None else str(scope)
    with _replacing(path) as file:
        writer = _Writer(file)
        made_by = collection.identity if vectors else {}
        writer.write({"archive": _NAME, "format": FORMAT, "scope": name, **made_by})
        events = points = 0
        for one in _scopes_of(scope, journal):
            for event in events_of(journal, one):
                writer.write({"scope": str(one), "number": event.number, "event": json.loads(encode_event(event))})
                events += 1
        ids = [point.id for point in in_order(collection.scroll(_points_of(scope), ["metadata.order"]))]
        for batch in batched(ids, PAGE):
            found = {point.id: point for point in collection.retrieve(batch, with_vectors=vectors)}
            for point in (found[id_] for id_ in batch if id_ in found):  # else it was deleted meanwhile
                writer.write({"id": point.id, "payload": point.payload or {}, **(_packed(point) if vectors else {})})
                points += 1
            if progress is not None:
                progress(points, len(ids))
        digest = writer.digest
        writer.write({"end": {"events": events, "points": points, "sha256": digest}})
    return ArchiveReceipt(name, events, points, digest)


class _Writer:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = sha256()

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def write(self, record: dict[str, Any]) -> None:
        line = as_json_line(record)
        self._hash.update(line)
        self._file.write(line)


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of another in one step, once it is written and on the disk; for the owner only."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(descriptor)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise StoreUnavailableError(
            f"The archive {path} cannot be written ({error}). Expected a place that this user may write, with space "
            "left; what was there before is unchanged."
        ) from error


def _scopes_of(scope: MemoryScope | None, journal: Journal) -> list[MemoryScope]:
    """The scopes whose journals belong to an archive, in the order of their names."""
    found = {one for one in journal.scopes() if scope in (None, one, one.owner)}
    return sorted(found, key=str)


def _points_of(scope: MemoryScope | None) -> models.Filter | None:
    """The filter of the points that belong to an archive; None for all."""
    if scope is None:
        return None
    if scope != scope.owner:
        return tagged([scope.owner.tag], equals("metadata.session_id", scope.session_id or ""))
    return tagged([scope.tag, own_tag(scope)])


def _packed(point: Any) -> dict[str, Any]:
    """A point's vectors, exactly: 32-bit floats, little-endian, in base64."""
    vectors = vectors_of(point)
    dense, sparse = vectors.get(DENSE), vectors.get(SPARSE)
    packed = {} if not dense else {"dense": _floats(dense)}
    return packed if sparse is None else {**packed, "sparse": [list(sparse.indices), _floats(sparse.values)]}


def _floats(values: Iterable[float]) -> str:
    import numpy as np

    return base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()


# Reading


class Archive:
    """An archive that was read through once, and is whole.

    Args:
        path: The file.

    Attributes:
        receipt: What it says of itself.

    Raises:
        StoreUnavailableError: It cannot be read.
        StoreCorruptedError: It is no archive, it was changed or cut off, or a later version wrote it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        seen, last = sha256(), b""
        try:
            with path.open("rb") as file:
                self._header = self._parsed(file.readline(), "archive", "it does not begin as one")
                file.seek(0)
                for line in file:
                    seen.update(last)
                    last = line
        except OSError as error:
            raise StoreUnavailableError(
                f"The archive {path} cannot be read ({error}). Expected a regular file."
            ) from error
        if self._header["archive"] != _NAME or self._header.get("format") != FORMAT:
            raise self._damaged(f"it says {str(self._header)[:80]}, and this version reads format {FORMAT}")
        end = self._parsed(last, "end", "it was cut off")["end"]
        if end.get("sha256") != seen.hexdigest():
            raise self._damaged("what it says is not what was written to it")
        self.receipt = ArchiveReceipt(self._header["scope"], end["events"], end["points"], end["sha256"])

    def journals(self) -> Iterator[tuple[MemoryScope, list[Event]]]:
        """The events of each scope, in order."""
        events = (record for record in self._records() if "event" in record)
        for scope, records in groupby(events, key=lambda record: record["scope"]):
            yield (
                MemoryScope.parse(scope),
                [decode_event(record["number"], json.dumps(record["event"])) for record in records],
            )

    def points(self) -> Iterator[dict[str, Any]]:
        """The points, in order."""
        return (record for record in self._records() if "payload" in record)

    def has_vectors_of(self, collection: MemoryCollection) -> bool:
        """Whether it has the vectors that a collection would make."""
        return {name: self._header.get(name) for name in collection.identity} == collection.identity

    def _records(self) -> Iterator[dict[str, Any]]:
        with self.path.open("rb") as file:
            yield from map(json.loads, file)

    def _parsed(self, line: bytes, expected: str, otherwise: str) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or expected not in record or not line.endswith(b"\n"):
            raise self._damaged(otherwise)
        return record

    def _damaged(self, why: str) -> StoreCorruptedError:
        return StoreCorruptedError(
            f"{self.path} is no archive of memory_integrations, or it is damaged: {why}. Nothing was imported. Use "
            "another copy of it."
        )


def restore_archive(
    archive: Archive, journal: Journal, collection: MemoryCollection, progress: Progress | None = None
) -> ArchiveReceipt:
    """Write what an archive has into stores; what is there already is not doubled.

    It may be interrupted: called again, it goes on. Memories that were deleted here come back.

    Returns:
        What the archive says of itself.

    Raises:
        StoreUnavailableError: A scope has another history here than in the archive; nothing was written.
        StoreError: A store could not be written.
    """
    collection.open()
    for scope, events in archive.journals():
        restored(journal, scope, events, dry_run=True)
    for scope, events in archive.journals():
        restored(journal, scope, events)
    packed, done = archive.has_vectors_of(collection), 0
    for batch in batched(archive.points(), PAGE):
        collection.put([_unpacked(record) for record in batch] if packed else _embedded(batch, collection))
        done += len(batch)
        if progress is not None:
            progress(done, archive.receipt.points)
    return archive.receipt


def _embedded(records: Iterable[dict[str, Any]], collection: MemoryCollection) -> list[models.PointStruct]:
    found = list(records)
    return collection.encode([record["id"] for record in found], [record["payload"] for record in found])


def _unpacked(record: dict[str, Any]) -> models.PointStruct:
    import numpy as np
    from qdrant_client import models

    def floats(packed: str) -> list[float]:
        values: list[float] = np.frombuffer(base64.b64decode(packed), "<f4").tolist()
        return values

    vector: dict[str, Any] = {}
    if "dense" in record:
        vector[DENSE] = floats(record["dense"])
    if "sparse" in record:
        indices, values = record["sparse"]
        vector[SPARSE] = models.SparseVector(indices=indices, values=floats(values))
    return models.PointStruct(id=record["id"], vector=vector, payload=record["payload"])
