"""Copying a collection, within a client or from one to another: called again after an interruption, it goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

from memory_integrations.layout import SPARSE, vectors_of
from memory_integrations.server import refusals

if TYPE_CHECKING:
    from qdrant_client import QdrantClient, models

Progress = Callable[[int, int], None]
"""Called with how many points are done, and how many there are."""

PAGE = 256
"""Points a call: the embedded engine holds the interpreter lock for the whole of each."""
_CLOSE = 1e-5
"""So much two vectors may differ that are the same: each store brings them to length 1 in its own arithmetic."""


def create_alike(
    source: QdrantClient,
    name: str,
    target: QdrantClient,
    new_name: str,
    metadata: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    """Create an empty collection with the vectors and indexes of another.

    One that is there already is taken where it is such a collection: an answer may have been lost on the way.

    Args:
        source: Where the other one is.
        name: Its name.
        target: Where to.
        new_name: The new one's name.
        metadata: What it says of itself.
        options: What else it is created with; see :func:`settings_of`.
    """
    found = source.get_collection(name)
    params = found.config.params
    try:
        target.create_collection(
            new_name,
            vectors_config=params.vectors,
            sparse_vectors_config=params.sparse_vectors,
            metadata=dict(metadata),
            **options,
        )
    except refusals():
        if not target.collection_exists(new_name):
            raise
        there = target.get_collection(new_name).config
        if _kinds(there.params) != _kinds(params) or (there.metadata or {}) != dict(metadata):
            raise
    index_alike(found, target, new_name)


def index_alike(found: models.CollectionInfo, client: QdrantClient, name: str) -> None:
    """See that a collection has the indexes of another one that was found."""
    present = client.get_collection(name).payload_schema
    for field, index in found.payload_schema.items():
        if field not in present:
            client.create_payload_index(name, field, index.params or index.data_type)


def _kinds(params: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What vectors a collection takes, of all that is said of them what must be the same."""
    dense = params.vectors if isinstance(params.vectors, dict) else {"": params.vectors} if params.vectors else {}
    return (
        {name: (one.size, one.distance) for name, one in dense.items()},
        {name: one.modifier for name, one in (params.sparse_vectors or {}).items()},
    )


def copy_points(
    source: QdrantClient,
    name: str,
    target: QdrantClient,
    new_name: str,
    prepare: Callable[[list[Any]], list[Any]] | None = None,
    progress: Progress | None = None,
) -> int:
    """Copy the points that the target does not have yet, or has otherwise, page by page.

    Of what is overwritten nothing is left in the embedded engine's files when this returns.

    Args:
        source: Where they are.
        name: The collection's name there.
        target: Where to.
        new_name: The collection's name there.
        prepare: The points with new vectors, for those whose payload differs; None copies them as they are.
        progress: Told how far it is.

    Returns:
        How many points there are.
    """
    total, done = source.count(name, exact=True).count, 0
    whole = prepare is None
    with at_first_need(lambda: purging(target, new_name)) as overwrite:
        for points in pages(source, name, with_vectors=whole):
            ids = [point.id for point in points]
            there = {point.id: point for point in target.retrieve(new_name, ids, with_vectors=whole)}
            missing = [
                point
                for point in points
                if point.id not in there or not are_equal(point, there[point.id], with_vectors=whole)
            ]
            if any(point.id in there for point in missing):
                overwrite()
            if missing:
                written = as_they_are(missing) if prepare is None else prepare(missing)
                target.upsert(new_name, points=written, wait=True)
            done += len(points)
            if progress is not None:
                progress(done, total)
    return done


@contextmanager
def at_first_need(begin: Callable[[], AbstractContextManager[object]]) -> Iterator[Callable[[], object]]:
    """Enter a context when what this gives is called, once, and leave it after the body; else it costs nothing."""
    with ExitStack() as entered:
        yield cache(lambda: entered.enter_context(begin()))


def purging(client: QdrantClient, name: str) -> AbstractContextManager[object]:
    """What the body deletes or overwrites is physically gone afterwards from the embedded engine's files.

    Deleted payloads stay until the files are written anew, which a server does in its own time. The body holds up no
    other writer.
    """
    begun: AbstractContextManager[object] = getattr(client, "purging", nullcontext)(name)
    return begun


def finish_purging(client: QdrantClient, name: str) -> None:
    """Write the embedded engine's files anew, where an earlier body of :func:`purging` could not."""
    embedded: Any = client
    if hasattr(client, "purge_is_due") and embedded.purge_is_due(name):  # a server purges in its own time
        embedded.purge(name)


def pages(
    client: QdrantClient, name: str, *, with_vectors: bool, only: models.Filter | None = None
) -> Iterator[list[Any]]:
    """Every point of a collection, or of a filter, with its payload, page by page, by their ids."""
    offset = None
    while True:
        points, offset = client.scroll(name, only, PAGE, offset=offset, with_payload=True, with_vectors=with_vectors)
        yield points
        if offset is None:
            return


def as_they_are(points: list[Any]) -> list[Any]:
    """Points that were read, to be written."""
    from qdrant_client import models

    return [models.PointStruct(id=point.id, vector=point.vector or {}, payload=point.payload) for point in points]


def settings_of(config: models.CollectionConfig, *, spread: bool) -> dict[str, Any]:
    """What a collection was created with beside its vectors, for another to be created with.

    Args:
        config: Its configuration.
        spread: Whether also how it is spread over a cluster, which another cluster knows better.
    """
    from qdrant_client import models

    params = config.params
    names = ("shard_number", "sharding_method", "replication_factor", "write_consistency_factor")
    settings = {
        **({name: getattr(params, name) for name in names} if spread else {}),
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


def are_equal(point: Any, copy: Any, *, with_vectors: bool) -> bool:
    """Whether two points say the same; with their vectors, number by number."""
    if _written(point) != _written(copy):
        return False
    if not with_vectors:
        return True
    import numpy as np

    one, other = _numbers(point), _numbers(copy)
    return one.keys() == other.keys() and all(
        len(one[key]) == len(other[key]) and np.allclose(one[key], other[key], atol=_CLOSE, rtol=0) for key in one
    )


def _written(point: Any) -> str:
    """A payload as text, since to Python 1 is 1.0 and True."""
    return json.dumps(point.payload or {}, sort_keys=True)


def _numbers(point: Any) -> dict[Any, list[float]]:
    """A point's numbers: those of its dense vector, and of each term of the sparse one."""
    found = vectors_of(point)
    sparse = found.get(SPARSE)
    terms = {} if sparse is None else {(SPARSE, i): [v] for i, v in zip(sparse.indices, sparse.values, strict=True)}
    return {**{name: vector for name, vector in found.items() if name != SPARSE}, **terms}
