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
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import groupby, takewhile
from operator import itemgetter
from pathlib import Path
from tempfile import mkstemp
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from memory_integrations.collection import MemoryCollection, batched, equals, in_order, tagged
from memory_integrations.copying import PAGE, Progress, at_first_need
from memory_integrations.errors import HistoryError, StoreCorruptedError, StoreUnavailableError
from memory_integrations.journal import Event, Journal, as_json_line, encode_event, events_of, restored
from memory_integrations.layout import (
    DELETED,
    DENSE,
    SPARSE,
    as_marks,
    line,
    marks_in,
    metadata_of,
    moment_of,
    name_of,
    piece_of,
    point_id,
    vectors_of,
)
from memory_integrations.namespaces import own_tag
from memory_integrations.records import check_point, event_of, floats, id_by, is_of, read_line, scope_of, strange_id
from memory_integrations.scopes import MemoryScope

if TYPE_CHECKING:
    from qdrant_client import models

FORMAT = 1
_log = logging.getLogger("memory_integrations")

_NAME = "memory_integrations"


@dataclass(frozen=True, slots=True)
class ArchiveReceipt:
    """What was written to an archive, or read from it.

    Attributes:
        scope: Whose memory it is; None for all scopes.
        events: Events of journals: facts with their history, decisions of managing.
        points: Points of the collection: messages (long ones in pieces), file summaries, items.
        sha256: Of what the file says, in hexadecimal digits; two archives with the same one are the same.
        embedded_anew: Whether it has vectors that an import could not use, since they are of another embedding or
            language: all that the points say was embedded.
        new_events: How many of the events an import wrote: those that were not there, or were lost.
        new_points: How many of the points were not there, or said something else.
        left_out: Scopes whose events an import of all scopes did not write, since these have another history here.
    """

    scope: str | None
    events: int
    points: int
    sha256: str
    embedded_anew: bool = False
    new_events: int = 0
    new_points: int = 0
    left_out: tuple[str, ...] = ()


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
        StoreCorruptedError: Events of a journal are missing.
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
                said = json.loads(encode_event(event))
                # As it is: in which order a fact's value says its keys, a prompt shows.
                writer.write({"scope": str(one), "number": event.number, "event": said}, sort_keys=False)
                events += 1
        there = collection.scroll(_points_of(scope), ["metadata.order"]) if collection.exists() else ()
        ids = [point.id for point in in_order(there)]
        for batch in batched(ids, PAGE):
            found = {point.id: point for point in collection.retrieve(batch, with_vectors=vectors)}
            for point in (found[id_] for id_ in batch if id_ in found):
                if scope is not None and not is_of(metadata_of(point), scope):
                    continue  # as one that is not found: it was deleted meanwhile, and has a mark in its place
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

    def write(self, record: dict[str, Any], *, sort_keys: bool = True) -> None:
        line = as_json_line(record, sort_keys=sort_keys)
        self._hash.update(line)
        self._file.write(line)


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of another in one step, once it is written and on the disk; for the owner only."""
    try:
        path = Path(os.path.realpath(path))  # of a link it is what it leads to that is replaced
        if path.exists() and not (path.is_file() and os.access(path, os.W_OK)):
            raise PermissionError("what is there is no file that may be written")
        descriptor, name = mkstemp(".unfinished", ".archive.", path.parent)  # two may write to one path at once
        try:
            with open(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(descriptor)
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise StoreUnavailableError(
            f"The archive {path} cannot be written ({error}). Expected a place that this user may write, with space "
            "left; what was there before is unchanged."
        ) from error
    with suppress(OSError):  # the file is there; some file systems do not let a directory be put on the disk
        _sync(path.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    packed = {} if not dense else {"dense": _packed_floats(dense)}
    return packed if sparse is None else {**packed, "sparse": [list(sparse.indices), _packed_floats(sparse.values)]}


def _packed_floats(values: Iterable[float]) -> str:
    import numpy as np

    return base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()


# Reading


class Archive:
    """An archive that was read through once, and is whole: every line of it is one that its scope's archive may have.

    It stays open: what is read later is of the same file, and each line is looked at again when it is read.

    Args:
        path: The file.

    Attributes:
        scope: Whose it is; None for all scopes.
        receipt: What it says of itself.

    Raises:
        StoreUnavailableError: It cannot be read.
        StoreCorruptedError: It is no archive, it was changed or cut off, or a later version wrote it.
    """

    scope: MemoryScope | None
    receipt: ArchiveReceipt

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise self._unreadable(error) from error
        try:
            self._read_through()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        """The archive itself."""
        return self

    def __exit__(self, *args: object) -> None:
        """Close the file."""
        self.close()

    @property
    def has_vectors(self) -> bool:
        """Whether it has vectors."""
        return "embedding" in self._header

    def has_vectors_of(self, collection: MemoryCollection) -> bool:
        """Whether it has the vectors that a collection would make."""
        return {name: self._header.get(name) for name in collection.identity} == collection.identity

    def journals(self) -> Iterator[tuple[MemoryScope, list[Event]]]:
        """The events of each scope, in order."""
        events = takewhile(lambda record: "event" in record, self._records())
        for scope, found in groupby((event_of(record, self.scope) for record in events), key=itemgetter(0)):
            yield scope, [event for _, event in found]

    def points(self) -> Iterator[dict[str, Any]]:
        """The points, in order."""
        return (record for record in self._records() if "payload" in record)

    def damaged(self, why: str) -> StoreCorruptedError:
        """The error that says that it is damaged."""
        return StoreCorruptedError(
            f"{self.path} is no archive of memory_integrations, or it is damaged: {why}. Nothing was imported. Use "
            "another copy of it."
        )

    # Inside

    def _read_through(self) -> None:
        self._header = self._read_header()
        seen, events, points, end = sha256(), 0, 0, None
        for record in self._records(seen.update):
            events += "event" in record
            points += "payload" in record
            end = record.get("end")
        if not isinstance(end, dict):
            raise self.damaged("it was cut off")
        if end.get("sha256") != seen.hexdigest():
            raise self.damaged("what it says is not what was written to it")
        if (end.get("events"), end.get("points")) != (events, points):
            raise self.damaged(f"it says that it has other counts than {events} events and {points} points")
        self.receipt = ArchiveReceipt(self._header["scope"], events, points, seen.hexdigest())

    def _read_header(self) -> dict[str, Any]:
        for number, text in self._lines():
            with self._naming(number):
                header = read_line(text)
                if header.get("archive") != _NAME:
                    raise ValueError("it does not begin as one")
                if header.get("format") != FORMAT:
                    raise ValueError(f"it says {str(header)[:80]}, and this version reads format {FORMAT}")
                self.scope = None if header.get("scope", "") is None else scope_of(header.get("scope"))
                self._size = header.get("embedding_size") if "embedding" in header else None
                if type(self._size) not in (int, type(None)):
                    raise ValueError("it does not say of how many numbers its vectors are")
                return header
        raise self.damaged("it is empty")

    def _records(self, hashing: Callable[[bytes], object] = bytes) -> Iterator[dict[str, Any]]:
        """What follows the first line, looked at; all bytes but the last line's go through ``hashing``."""
        journals: dict[MemoryScope, int] = {}
        latest, is_past_events, is_past_all = None, False, False
        for number, text in self._lines():
            if number == 1:
                hashing(text)
                continue
            with self._naming(number):
                record = read_line(text)
                if is_past_all:
                    raise ValueError("it is after the end")
                if record.keys() == {"end"}:
                    is_past_all = True
                elif record.keys() == {"scope", "number", "event"} and not is_past_events:
                    scope, event = event_of(record, self.scope)
                    expected = journals.get(scope, 0) + 1
                    if event.number != expected or (scope != latest and expected > 1):
                        raise ValueError(f"it is event {event.number} of {scope}, where event {expected} is to follow")
                    journals[scope], latest = expected, scope
                elif {"id", "payload"} <= record.keys() <= {"id", "payload", "dense", "sparse"}:
                    check_point(record, self.scope, self._size)
                    is_past_events = True
                else:
                    raise ValueError(f"it is neither an event nor a point here: {record!s:.60}")
            if not is_past_all:
                hashing(text)
            yield record

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        try:
            self._file.seek(0)
            yield from enumerate(self._file, 1)
        except OSError as error:
            raise self._unreadable(error) from error

    @contextmanager
    def _naming(self, number: int) -> Iterator[None]:
        """What is wrong with a line, as an error of ours."""
        try:
            yield
        except ValueError as error:
            raise self.damaged(f"line {number}, {error}") from error

    def _unreadable(self, error: OSError) -> StoreUnavailableError:
        return StoreUnavailableError(f"The archive {self.path} cannot be read ({error}). Expected a regular file.")


def restore_archive(
    archive: Archive, journal: Journal, collection: MemoryCollection, progress: Progress | None = None
) -> ArchiveReceipt:
    """Write what an archive has into stores; what is there already is not doubled, and what is newer there stays.

    What is older there is physically gone when this returns. It may be interrupted: called again, it goes on. Memories
    that were deleted here come back, and so do events that were lost here.

    Returns:
        What the archive says of itself, what of it was new here, and whether its vectors could be used.

    Raises:
        StoreCorruptedError: Events of a scope are missing here, or a point can only be read with its vectors, which are
            of another embedding; nothing was written.
        HistoryError: The scope has another history here than in its archive; nothing was written. Of an archive of all
            scopes such ones are left out, and the receipt names them.
        StoreError: A store could not be written.
    """
    from qdrant_client import models

    if archive.receipt.points:
        collection.open()
    packed = archive.has_vectors_of(collection)
    new_events = new_points = done = 0
    left_out: list[str] = []
    for scope, events in archive.journals():
        try:
            restored(journal, scope, events, dry_run=True)
        except HistoryError as error:
            if archive.scope is not None:
                raise
            _log.warning("%s", error)
            left_out.append(str(scope))
    if not packed:
        _check_texts(archive)
    for scope, events in archive.journals():
        if str(scope) not in left_out:
            new_events += restored(journal, scope, events)
    with at_first_need(collection.removing) as overwrite:  # once: it writes the whole collection anew
        for batch in batched(archive.points(), PAGE):
            read = list(map(_unpacked, batch))
            points = read if archive.scope is None else _placed(read, archive.scope, collection)
            here = _here(points, collection)
            new = [point for point in points if _is_new(point, here)]
            if not packed:
                new = collection.encode([point.id for point in new], [point.payload or {} for point in new])
            with collection.turns(map(_tag_of, new)):  # nobody writes between this look and the write
                here = _here(new, collection)
                new = [_with_marks(point, here) for point in new if _is_new(point, here)]
                if any(_is_memory(here.get(point.id)) for point in new):
                    overwrite()
                    surplus = [id_ for point in new for id_ in _surplus(point, here)]
                    collection.delete(models.PointIdsList(points=list(surplus)) if surplus else None)
                collection.put(new)
            new_points += len(new)
            done += len(batch)
            if progress is not None:
                progress(done, archive.receipt.points)
    if done:  # what an interrupted import has overwritten
        collection.finish_removing()
    return replace(
        archive.receipt,
        embedded_anew=archive.has_vectors and not packed,
        new_events=new_events,
        new_points=new_points,
        left_out=tuple(left_out),
    )


def _placed(points: Sequence[Any], whose: MemoryScope, collection: MemoryCollection) -> list[Any]:
    """The points of a scope's archive, each with an id that is the scope's.

    What another program wrote has an id that tells nothing. It keeps that where it is here already: another scope's
    memory may stand in that place, now or later.
    """
    strange = [point.id for point in points if id_by(metadata_of(point)) is None]
    here = {point.id for point in collection.retrieve(strange) if is_of(metadata_of(point), whose)}
    moved = set(strange) - here
    return [
        point.model_copy(update={"id": strange_id(whose, point.id)}) if point.id in moved else point for point in points
    ]


_Here = Mapping[Any, Mapping[str, Any]]
"""What is here, in the places of points and of the first pieces of their texts: metadata by ids."""


def _here(points: Sequence[models.PointStruct], collection: MemoryCollection) -> _Here:
    ids = {*(point.id for point in points), *map(_first_piece, points)}
    return {point.id: metadata_of(point) for point in collection.retrieve(ids)}


def _is_new(point: models.PointStruct, here: _Here) -> bool:
    """Whether a point is not here, or older here: what was written since an archive was made stays.

    The pieces of a text are all of one time.
    """
    fields, beginning = metadata_of(point), here.get(_first_piece(point))
    if marks := marks_in(fields):
        return not marks <= marks_in(beginning or {})
    is_as_long = piece_of(fields)[1] == piece_of(beginning or {})[1]
    return _is_before(beginning, fields) or (
        is_as_long and _is_before(here.get(point.id), fields)  # an interrupted import goes on
    )


def _with_marks(point: models.PointStruct, here: _Here) -> models.PointStruct:
    """A point; one that has marks of what was erased with those that are here."""
    marks = marks_in(metadata_of(point))
    return point.model_copy(update={"payload": as_marks(marks | marks_in(here.get(point.id, {})))}) if marks else point


def _surplus(point: models.PointStruct, here: _Here) -> list[str]:
    """Of what a new point takes the place of, the pieces beyond its own; told with the first of them."""
    piece, count = piece_of(metadata_of(point))
    count_here = piece_of(here.get(point.id, {}))[1]
    tag, name = _tag_of(point), name_of(point)
    return [] if piece else [point_id(tag, *name, further) for further in range(count, count_here)]


def _tag_of(point: models.PointStruct) -> str:
    return str(metadata_of(point).get("scope"))


def _is_memory(fields: Mapping[str, Any] | None) -> bool:
    """Whether there is something with this metadata, and not the mark of something that was deleted."""
    return fields is not None and fields.get("scope") != DELETED


def _first_piece(point: models.PointStruct) -> Any:
    """The id of the first piece of the text that a point is of."""
    return point_id(_tag_of(point), *name_of(point)) if piece_of(metadata_of(point))[0] else point.id


def _is_before(here: Mapping[str, Any] | None, fields: Mapping[str, Any]) -> bool:
    """Whether what is here was deleted, or was written before what has these fields."""
    if here is None:
        return True
    if not _is_memory(here):
        return _is_memory(fields)
    was, now = (moment_of(one, "updated_at") or moment_of(one) for one in (here, fields))
    return was is not None and now is not None and was < now


def _check_texts(archive: Archive) -> None:
    """See that every text can be embedded: other programs may write what nobody here can read."""
    for record in archive.points():
        text = record["payload"].get("page_content")
        try:
            if text and not isinstance(text, str):
                raise TypeError("its page_content is no text")
            line(text or "", record["payload"].get("metadata") or {})
        except (AttributeError, TypeError, ValueError) as error:
            raise archive.damaged(
                f"the point {record['id']} cannot be embedded ({error}), and needs a memory of the embedding and "
                "language that its vectors are of"
            ) from error


def _unpacked(record: dict[str, Any]) -> models.PointStruct:
    from qdrant_client import models

    vector: dict[str, Any] = {}
    if "dense" in record:
        vector[DENSE] = floats(record["dense"])
    if "sparse" in record:
        indices, values = record["sparse"]
        vector[SPARSE] = models.SparseVector(indices=indices, values=floats(values))
    return models.PointStruct(id=record["id"], vector=vector, payload=record["payload"])
