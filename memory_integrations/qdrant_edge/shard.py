"""One shard directory of the embedded engine: create, load, copy, and what its errors mean.

The engine reports nearly everything as a bare ``Exception`` with a message. :func:`translate` is the one
place that reads those messages and decides which typed error a caller gets.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import qdrant_edge as edge

from memory_integrations.errors import (
    StoreCorruptedError,
    StoreLockedError,
    StoreUnavailableError,
)
from memory_integrations.qdrant_edge.errors import ClosedError
from memory_integrations.qdrant_edge.lock import SERVER_HINT

__all__ = [
    "FLOATS_PER_CALL",
    "SPARE",
    "SPARE_TO_OPEN",
    "batch_size",
    "close",
    "copy_points",
    "create",
    "expect_room",
    "failures",
    "has_room",
    "is_there",
    "knows_its_points",
    "load",
    "occupied",
    "remove",
    "translate",
]

FLOATS_PER_CALL = 32_768
"""Vector components handed to the engine in one call: it holds the interpreter lock for the whole call, and
this many take it 2 to 4 ms."""

SPARE = 32 << 20
"""Bytes that must be free on the disk before the engine writes. Its files are sparse and mapped into memory: where the
disk has no page left for them, the system does not refuse: it ends the process (SIGBUS). A call writes less."""
SPARE_TO_OPEN = 8 << 20
"""The same for opening, which writes what the log holds beyond the last flush: what is on a full disk can be read."""

_VERSION, _SHORTEST_ID = 8, 13  # bytes of a point's version, and of the shortest entry of a table of ids

_MISSING_POINT = re.compile(r"No point with id (?P<id>\S+)")
_FAULT = re.compile(r"^(Service (runtime|internal) error|Out of memory|IO error)", re.IGNORECASE)
_LOCKED = re.compile(r"WouldBlock")
_IO = re.compile(r"(No space left|Read-only file system|Permission denied|Too many open files|os error \d+)")
_GONE = re.compile(r"Shard is not initialized")


def failures() -> tuple[type[BaseException], ...]:
    """What the engine raises: errors, and panics, which are no ``Exception``.

    A panic's class cannot be imported, and is made at the first one: ask when something was raised.
    """
    return (Exception, *(kind for kind in BaseException.__subclasses__() if kind.__name__ == "PanicException"))


def translate(error: BaseException, path: Path | str, action: str) -> BaseException:
    """Return the typed error that says what the engine's error means.

    Args:
        error: what the engine raised.
        path: the shard directory, named in the message.
        action: what was asked, as in "cannot <action>".

    Returns:
        ``KeyError`` for a point that is not there, ``ValueError`` for what the caller gave, and a
        :class:`~memory_integrations.errors.StoreError` for the directory's own troubles.
    """
    if not isinstance(error, Exception):  # a panic
        return StoreCorruptedError(
            f"The engine could not {action} in {path}: {error}. Restore the directory from a backup or a snapshot, or "
            "delete the collection and write it anew"
        )
    if type(error) is not Exception and not isinstance(error, OSError | TypeError):
        return error  # typed already, by this package or by the engine
    text = str(error)
    if missing := _MISSING_POINT.search(text):
        number = missing["id"]
        return KeyError(int(number) if number.isdigit() else number)
    if _LOCKED.search(text):
        return StoreLockedError(
            f"{path} is held by another process: one process at a time may open an embedded store. Close the "
            f"other one, or {SERVER_HINT}"
        )
    if _GONE.search(text):
        return ClosedError(f"The collection at {path} is closed. Create a new QdrantEdgeClient to use it")
    if isinstance(error, OSError) or (_FAULT.search(text) and _IO.search(text)):
        return StoreUnavailableError(f"Cannot {action} in {path}: {text}")
    if _FAULT.search(text):
        return StoreUnavailableError(f"The engine failed to {action} in {path}: {text}")
    if isinstance(error, TypeError):
        return TypeError(f"Cannot {action}: {text}")
    return ValueError(f"Wrong input: {text}")


def batch_size(floats_per_point: int) -> int:
    """Return how many points to hand to the engine at once, so that one call stays short."""
    return max(16, min(256, FLOATS_PER_CALL // max(1, floats_per_point)))


def has_room(path: Path, needed: int = SPARE) -> bool:
    """Whether the disk has room for what the engine is about to write; see :data:`SPARE`.

    Raises:
        StoreUnavailableError: it cannot be asked.
    """
    try:
        return shutil.disk_usage(path).free >= needed
    except OSError as error:
        raise StoreUnavailableError(f"Cannot read {path}: {error}") from error


def expect_room(path: Path, action: str, needed: int = SPARE) -> None:
    """See that the disk has room for what the engine is about to write; see :data:`SPARE`.

    Raises:
        StoreUnavailableError: it has not, or cannot be asked.
    """
    if not has_room(path, needed):
        raise StoreUnavailableError(
            f"Cannot {action} in {path}: No space left. The embedded engine needs {needed >> 20} MiB free on its disk. "
            "Make room and try again: what was acknowledged before is there"
        )


def _unoccupied(path: Path) -> int:
    """How many bytes those sparse files do not take yet that the engine reads whole when it opens them."""
    read = itertools.chain(path.glob("segments/*/payload_index/*/*.dat"), path.glob("segments/*/*/*/chunk_*.mmap"))
    return sum(max(0, status.st_size - status.st_blocks * 512) for status in map(Path.stat, read))


def _is_in_memory(path: Path) -> bool:
    """Whether a path is on a tmpfs, where what was never written takes room once it is read."""
    device = path.stat().st_dev
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:  # no Linux
        return False
    kinds = {line.split()[2]: line.partition(" - ")[2].split()[0] for line in mounts}
    return kinds.get(f"{os.major(device)}:{os.minor(device)}") in ("tmpfs", "ramfs")


def occupied(path: Path) -> int:
    """How many bytes of the disk a directory takes; sparse files take less than their length."""
    return sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())


def create(path: Path, config: edge.EdgeConfig) -> edge.EdgeShard:
    """Create an empty shard in a new directory.

    Raises:
        StoreUnavailableError: the directory cannot be made or written.
        ValueError: the configuration is one the engine refuses.
    """
    try:
        path.mkdir(mode=0o700, parents=True)
        expect_room(path, "create a collection")
        return edge.EdgeShard.create(str(path), config)
    except Exception as error:
        remove(path)
        raise translate(error, path, "create a collection") from error


def close(opened: edge.EdgeShard) -> None:
    """Close a shard once no other thread is inside one of its calls.

    A call holds the interpreter lock, but where it makes Python objects the garbage collector may run, and with it
    other threads.
    """
    while True:
        try:
            opened.close()
            return
        except RuntimeError as error:
            if "borrowed" not in str(error):
                raise
        time.sleep(0.001)


def is_there(path: Path) -> bool:
    """Whether a directory holds a shard."""
    return any(path.glob("segments/*/segment.json"))


def knows_its_points(segment: Path) -> bool:
    """Whether a segment's table of ids has an entry for every point that was ever written to it.

    The engine takes a table that is missing or empty for that of a segment without points.
    """
    versions = _size(segment / "mutable_id_tracker.versions")  # first: the table grows first
    return versions // _VERSION * _SHORTEST_ID <= _size(segment / "mutable_id_tracker.mappings") or not segment.exists()


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def load(path: Path) -> edge.EdgeShard:
    """Open a shard that exists, replaying what its log holds beyond the last flush.

    Raises:
        StoreCorruptedError: the directory is missing or the engine cannot read it.
        StoreLockedError: another process holds it.
        StoreUnavailableError: the system refuses to read it, or the disk is full.
    """
    if not is_there(path):  # where the engine would begin anew with nothing
        raise StoreCorruptedError(
            f"The collection directory {path} is recorded but missing or empty. What else is in {path.parent} was "
            "kept. Restore the directory from a backup, or delete the collection and write it anew"
        )
    expect_room(path, "open the collection", SPARE_TO_OPEN + (_unoccupied(path) if _is_in_memory(path) else 0))
    try:
        return edge.EdgeShard.load(str(path))
    except BaseException as error:  # a Rust panic on a damaged file is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            raise
        typed = translate(error, path, "open the collection") if isinstance(error, Exception) else None
        if isinstance(typed, StoreLockedError) or _IO.search(str(error)):
            raise typed or StoreUnavailableError(f"Cannot open {path}: {error}") from error
        raise StoreCorruptedError(
            f"The collection at {path} cannot be read: {error}. Restore the directory from a backup or a "
            "snapshot, or delete the collection and write it anew"
        ) from error


def remove(path: Path) -> None:
    """Delete a directory with everything in it; one that is not there is fine.

    Raises:
        StoreUnavailableError: something in it could not be deleted.
    """
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StoreUnavailableError(f"Cannot delete {path}: {error}") from error


def pages(shard: edge.EdgeShard, size: int) -> Iterator[list[edge.Record]]:
    """Yield every live point with payload and vectors, ``size`` at a time, in id order."""
    offset: edge.PointId | None = None
    while True:
        records, offset = shard.scroll(
            edge.ScrollRequest(offset=offset, limit=size, with_payload=True, with_vector=True)
        )
        if records:
            yield records
        if offset is None:
            return


def copy_points(
    source: edge.EdgeShard,
    target: edge.EdgeShard,
    directory: Path,
    size: int,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Copy every live point of one shard into another, which is in a directory, in short calls.

    Returns:
        How many points were copied.
    """
    copied = 0
    for records in pages(source, size):
        points = [edge.Point(record.id, record.vector or {}, record.payload or {}) for record in records]
        expect_room(directory, "write the new shard")
        target.update(edge.UpdateOperation.upsert_points(points))
        copied += len(points)
        if progress is not None:
            progress(copied)
    return copied


def sync_directory(path: Path) -> None:
    """Make renames and deletions inside ``path`` durable, where the system knows how."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
