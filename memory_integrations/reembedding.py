"""Moving a collection to another embedding or language, so that an interruption at any moment loses nothing.

The new vectors are written into a second collection first. When that is complete it says so in its metadata, and
only then is the first one replaced; whoever opens the collection in between goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from memory_integrations.copying import Progress, copy_points, create_alike
from memory_integrations.errors import StoreUnavailableError

if TYPE_CHECKING:
    from qdrant_client import QdrantClient


def reembed(
    client: QdrantClient,
    name: str,
    create: Callable[[str], None],
    wanted: Mapping[str, Any],
    encode: Callable[[list[Any]], list[Any]],
    progress: Progress | None = None,
) -> int:
    """Write every point of a collection anew.

    Args:
        client: The client.
        name: The collection's name.
        create: Creates an empty collection of a name, as it shall be.
        wanted: What its metadata then says; an unfinished one that says otherwise is begun anew.
        encode: The points with their new vectors.
        progress: Told how far it is.

    Returns:
        How many points there are.

    Raises:
        StoreUnavailableError: Memories were deleted meanwhile.
    """
    finish(client, name)
    second = _second(name)
    if client.collection_exists(second):
        begun = client.get_collection(second).config.metadata or {}
        if any(begun.get(key) != value for key, value in wanted.items()):
            client.delete_collection(second)
    if not client.collection_exists(second):
        create(second)
    try:
        count = copy_points(client, name, client, second, encode, progress)
        client.update_collection(second, metadata={"complete": True})
    except Exception as error:
        if client.collection_exists(second):
            raise
        raise StoreUnavailableError(
            "Memories were deleted while all of them were embedded anew, which had to begin again lest they come back. "
            "Call it again."
        ) from error
    finish(client, name)
    return count


def finish(client: QdrantClient, name: str) -> None:
    """Put a complete second collection in the place of the first, where a move was interrupted after it."""
    second = _second(name)
    if not client.collection_exists(second):
        return
    if not (client.get_collection(second).config.metadata or {}).get("complete"):
        return
    if client.collection_exists(name):
        client.delete_collection(name)
    _recreate(client, second, name)
    client.delete_collection(second)


def is_unfinished(client: QdrantClient, name: str) -> bool:
    """Whether a move was interrupted, which :func:`reembed` goes on with."""
    return client.collection_exists(_second(name))


def abandon(client: QdrantClient, name: str) -> None:
    """Drop a second collection that is not complete: what is deleted from the first may be in it, and must be gone."""
    second = _second(name)
    if client.collection_exists(second) and not (client.get_collection(second).config.metadata or {}).get("complete"):
        client.delete_collection(second)


def _recreate(client: QdrantClient, source: str, target: str) -> None:
    """Copy a collection with its vectors as they are. An interrupted copy is deleted by the next :func:`finish`."""
    metadata = client.get_collection(source).config.metadata or {}
    left = {key: value for key, value in metadata.items() if key != "complete"}
    create_alike(client, source, client, target, left)
    copy_points(client, source, client, target)


def _second(name: str) -> str:
    return f"{name}.reembedded"
