"""What the tests of the embedded engine share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qdrant_client import models as m

ROOT = Path(__file__).parents[2]


def small(client: Any, name: str = "c", count: int = 0) -> None:
    """Create a collection of two dimensions, with points 0 to ``count``."""
    client.create_collection(name, m.VectorParams(size=2, distance=m.Distance.DOT))
    if count:
        client.upsert(name, points(range(count)))


def points(numbers: Any, text: str = "text") -> list[m.PointStruct]:
    """Return points with their number in the vector and the payload."""
    return [m.PointStruct(id=n, vector=[float(n), 1.0], payload={"n": n, "text": f"{text} {n}"}) for n in numbers]


def bytes_under(directory: Path, needle: bytes) -> list[Path]:
    """Return the files below a directory that hold some bytes."""
    return [path for path in directory.rglob("*") if path.is_file() and needle in path.read_bytes()]
