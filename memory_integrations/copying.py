"""Copying a collection, within a client or from one to another: called again after an interruption, it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qdrant_client import QdrantClient, models

Progress = Callable[[int, int], None]
"""Called with how many points are done, and how many there are."""

PAGE = 256
"""Points a call: the embedded engine holds the interpreter lock for the whole of each."""


def create_alike(
    source: QdrantClient,
    name: str,
    target: QdrantClient,
    new_name: str,
    metadata: Mapping[str, Any],
    options: Mapping[str, Any] | None = None,
) -> None:
    """Create an empty collection with the vectors and indexes of another.

    Args:
        source: Where the other one is.
        name: Its name.
        target: Where to.
        new_name: The new one's name.
        metadata: What it says of itself.
        options: What else it is created with; None means as the other one is.
    """
    found = source.get_collection(name)
    params = found.config.params
    if options is None:
        names = ("shard_number", "replication_factor", "write_consistency_factor")
        options = {name: getattr(params, name) for name in names}
    target.create_collection(
        new_name,
        vectors_config=params.vectors,
        sparse_vectors_config=params.sparse_vectors,
        metadata=dict(metadata),
        **options,
    )
    for field, index in found.payload_schema.items():
        target.create_payload_index(new_name, field, index.params or index.data_type)


def copy_points(
    source: QdrantClient,
    name: str,
    target: QdrantClient,
    new_name: str,
    prepare: Callable[[list[Any]], list[Any]] | None = None,
    progress: Progress | None = None,
) -> int:
    """Copy the points that the target does not have yet, or has with another payload, page by page.

    Args:
        source: Where they are.
        name: The collection's name there.
        target: Where to.
        new_name: The collection's name there.
        prepare: The points with new vectors; None copies them as they are.
        progress: Told how far it is.

    Returns:
        How many points there are.
    """
    total, done = source.count(name, exact=True).count, 0
    for points in pages(source, name, with_vectors=prepare is None):
        there = {point.id: point.payload for point in target.retrieve(new_name, [point.id for point in points])}
        missing = [point for point in points if point.id not in there or there[point.id] != point.payload]
        if missing:
            target.upsert(new_name, points=as_they_are(missing) if prepare is None else prepare(missing), wait=True)
        done += len(points)
        if progress is not None:
            progress(done, total)
    return done


def pages(client: QdrantClient, name: str, *, with_vectors: bool) -> Iterator[list[Any]]:
    """Every point of a collection with its payload, page by page, by their ids."""
    offset = None
    while True:
        points, offset = client.scroll(name, limit=PAGE, offset=offset, with_payload=True, with_vectors=with_vectors)
        yield points
        if offset is None:
            return


def as_they_are(points: list[Any]) -> list[Any]:
    """Points that were read, to be written."""
    from qdrant_client import models

    return [models.PointStruct(id=point.id, vector=point.vector or {}, payload=point.payload) for point in points]


def settings_of(config: models.CollectionConfig) -> dict[str, Any]:
    """What a collection was created with beside its vectors, for another to be created with."""
    from qdrant_client import models

    params = config.params
    settings = {
        "shard_number": params.shard_number,
        "sharding_method": params.sharding_method,
        "replication_factor": params.replication_factor,
        "write_consistency_factor": params.write_consistency_factor,
        "on_disk_payload": params.on_disk_payload,
        "payload": params.payload,
        "id_tracker": params.id_tracker,
        "quantization_config": config.quantization_config,
        "hnsw_config": _as(models.HnswConfigDiff, config.hnsw_config),
        "optimizers_config": _as(models.OptimizersConfigDiff, config.optimizer_config),
        "wal_config": _as(models.WalConfigDiff, config.wal_config),
        "strict_mode_config": _as(models.StrictModeConfig, config.strict_mode_config),
    }
    return {name: value for name, value in settings.items() if value is not None}


def _as(kind: Any, found: Any) -> Any:
    """What a server tells of a setting, as it is told."""
    return found and kind(**found.model_dump(exclude_none=True))
