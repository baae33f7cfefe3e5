"""The engine's files are long and nearly empty: read and copy what is in them, and not the holes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def _extents(file: int) -> Iterator[tuple[int, int]]:
    """Where there is something, and how much."""
    end = 0
    size = os.fstat(file).st_size
    while end < size:
        try:
            begin = os.lseek(file, end, os.SEEK_DATA)
        except OSError:  # nothing but a hole is left
            return
        end = os.lseek(file, begin, os.SEEK_HOLE)
        yield begin, end - begin


def content(path: Path) -> bytes:
    """What a file holds, without its holes."""
    with path.open("rb") as file:
        return b"\0".join(os.pread(file.fileno(), size, begin) for begin, size in _extents(file.fileno()))


def copied(source: str, target: str) -> None:
    """Copy a file, and leave its holes."""
    with open(source, "rb") as read, open(target, "wb") as write:
        for begin, size in _extents(read.fileno()):
            os.pwrite(write.fileno(), os.pread(read.fileno(), size, begin), begin)
        write.truncate(os.fstat(read.fileno()).st_size)
