"""What the engine leaves to its caller: groups, distance matrices, MMR over sparse vectors, unindexed orders.

The engine orders and counts by an index only. qdrant_client's local mode has no indexes and does both by
looking at every point, so a field without one is read through here, page by page: an index is faster.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import qdrant_edge as edge
from qdrant_client import models
from qdrant_client.local.order_by import to_order_value
from qdrant_client.local.payload_value_extractor import parse_uuid, value_by_key

from memory_integrations.qdrant_edge import configs
from memory_integrations.qdrant_edge.points import record
from memory_integrations.qdrant_edge.store import Collection

__all__ = ["diverse", "facet", "groups", "matrix_requests", "ordered", "widened"]

POINTS_PER_PAGE = 1_024
ORDERED_INDEXES = frozenset({"integer", "float", "datetime"})
COUNTED_INDEXES = frozenset({"keyword", "integer", "uuid", "bool"})
FACET_TYPES: tuple[type, ...] = (bool, int, str)
GROUP_TYPES: tuple[type, ...] = (int, str)


def _indexed(collection: Collection, key: str, kinds: frozenset[str], use: str) -> bool:
    """Tell whether a field has an index of one of the kinds, for the given use (``"range"`` or ``"lookup"``)."""
    schema = collection.indexes.get(key)
    if schema is None or getattr(schema, use, None) is False:
        return False
    return configs.index_type(schema).value in kinds


def _values(
    collection: Collection, key: str, conditions: edge.Filter | None
) -> Iterator[tuple[edge.PointId, list[Any]]]:
    """Yield every point that has the field with the field's values."""
    offset: edge.PointId | None = None
    while True:
        request = edge.ScrollRequest(
            offset=offset, limit=POINTS_PER_PAGE, filter=conditions, with_payload=[key], with_vector=False
        )
        page, offset = collection.read(edge.EdgeShard.scroll, request)
        for found in page:
            values = value_by_key(found.payload or {}, key)
            if values is not None:
                yield found.id, values
        if offset is None:
            return


def ordered(
    collection: Collection,
    order_by: models.OrderBy,
    conditions: edge.Filter | None,
    limit: int,
    with_payload: edge.WithPayloadType,
    with_vectors: edge.WithVectorType,
) -> list[models.Record]:
    """Return points in the order of a payload field, whether it is indexed or not."""
    descending = order_by.direction == models.Direction.DESC
    if _indexed(collection, order_by.key, ORDERED_INDEXES, "range"):
        start = order_by.start_from
        request = edge.ScrollRequest(
            limit=limit,
            filter=conditions,
            with_payload=with_payload,
            with_vector=with_vectors,
            order_by=edge.OrderBy(
                order_by.key,
                edge.Direction.Desc if descending else edge.Direction.Asc,
                start if start is None or isinstance(start, int | float) else start.isoformat(),
            ),
        )
        return [record(found) for found in collection.read(edge.EdgeShard.scroll, request)[0]]
    start = to_order_value(order_by.start_from)
    found = {
        (value, point)
        for point, values in _values(collection, order_by.key, conditions)
        for value in map(to_order_value, values)
        if value is not None and (start is None or (value <= start if descending else value >= start))
    }
    best = sorted(found, key=lambda pair: pair[0], reverse=descending)[:limit]
    wanted = list({point for _, point in best})
    stored = {each.id: each for each in collection.read(edge.EdgeShard.retrieve, wanted, with_payload, with_vectors)}
    return [record(stored[point], value) for value, point in best if point in stored]


def facet(
    collection: Collection, key: str, conditions: edge.Filter | None, limit: int, exact: bool
) -> models.FacetResponse:
    """Count the points that hold each value of a payload field: most first, then by value."""
    if _indexed(collection, key, COUNTED_INDEXES, "lookup"):
        request = edge.FacetRequest(key, limit, exact, conditions)
        hits = [(hit.value, hit.count) for hit in collection.read(edge.EdgeShard.facet, request)]
    else:
        # the type is part of the key: True and 1 are equal to Python and different values to Qdrant
        counts: Counter[tuple[int, Any]] = Counter()
        for _, values in _values(collection, key, conditions):
            counts.update(
                {
                    (FACET_TYPES.index(type(value)), _facet_value(value))
                    for value in values
                    if type(value) in FACET_TYPES
                }
            )
        best = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:limit]
        hits = [(value, count) for (_, value), count in best]
    return models.FacetResponse(hits=[models.FacetValueHit(value=value, count=count) for value, count in hits])


def _facet_value(value: Any) -> Any:
    as_uuid = parse_uuid(value)
    return str(as_uuid) if as_uuid else value


def widened(prefetch: Any, limit: int) -> Any:
    """Return a copy of prefetches that keep up to ``limit`` points, so that no group loses its own early."""
    if not prefetch:
        return prefetch
    if isinstance(prefetch, list):
        return [widened(item, limit) for item in prefetch]
    return prefetch.model_copy(update={"limit": limit, "prefetch": widened(prefetch.prefetch, limit)})


def groups(
    search: Callable[[int], list[models.ScoredPoint]], group_by: str, limit: int, group_size: int, total: int
) -> list[models.PointGroup]:
    """Group what a search finds by a payload field.

    Args:
        search: returns so many of the best points, with the field in their payload.
        group_by: the field.
        limit: how many groups.
        group_size: how many points a group.
        total: how many points there are; no search is asked for more.
    """
    asked = min(total, 4 * limit * group_size)
    while asked:
        hits = search(asked)
        found: dict[tuple[type, Any], list[models.ScoredPoint]] = {}
        for hit in hits:
            for value in _group_values(hit, group_by):
                found.setdefault((type(value), value), []).append(hit)
        chosen = list(found.items())[:limit]
        complete = len(chosen) == limit and all(len(members) >= group_size for _, members in chosen)
        if complete or len(hits) < asked or asked >= total:
            return [
                models.PointGroup.model_construct(
                    id=value, hits=[member.model_copy() for member in members[:group_size]], lookup=None
                )
                for (_, value), members in chosen
            ]
        asked = min(total, asked * 8)
    return []


def _group_values(hit: models.ScoredPoint, group_by: str) -> list[Any]:
    """Return the groups of a point. One value that can be no group's keeps the point out of all, as on the server."""
    values = value_by_key(hit.payload or {}, group_by)
    if values is None or any(type(value) not in GROUP_TYPES for value in values):
        return []
    return list(dict.fromkeys(values))


def matrix_requests(
    samples: list[models.ScoredPoint], query_filter: models.Filter | None, limit: int, using: str
) -> list[models.QueryRequest]:
    """Return the searches that compare every sampled point with the others."""
    ids = [sample.id for sample in samples]
    requests = []
    for sample in samples:
        others = models.HasIdCondition(has_id=[other for other in ids if other != sample.id])
        vector: Any = sample.vector[using] if isinstance(sample.vector, dict) else sample.vector
        requests.append(
            models.QueryRequest(
                query=models.NearestQuery(nearest=vector),
                using=using,
                filter=models.Filter(must=[others] if query_filter is None else [query_filter, others]),
                limit=limit,
            )
        )
    return requests


def diverse(
    candidates: list[models.ScoredPoint],
    vectors: dict[Any, models.SparseVector],
    query: models.SparseVector,
    mmr: models.Mmr,
    limit: int,
) -> list[models.ScoredPoint]:
    """Pick points that are near and unlike each other, among candidates with sparse vectors.

    The engine does this for dense vectors only. Similarity is the dot product; each pick is the candidate with
    the best ``(1 - diversity) * similarity to the query - diversity * similarity to the nearest pick``.
    """
    diversity = 0.5 if mmr.diversity is None else mmr.diversity
    wanted = dict(zip(query.indices, query.values, strict=True))
    weights = {
        point.id: dict(zip(vectors[point.id].indices, vectors[point.id].values, strict=True)) for point in candidates
    }
    pending = [(point, _dot(weights[point.id], wanted)) for point in candidates]
    nearest = {point.id: -math.inf for point in candidates}
    picked: list[models.ScoredPoint] = []
    while pending and len(picked) < limit:
        scores = [
            relevance if not picked else (1.0 - diversity) * relevance - diversity * nearest[point.id]
            for point, relevance in pending
        ]
        # the engine's own order of equal candidates: the last one wins, and the list's end takes its place
        best = max(range(len(pending)), key=lambda at: (scores[at], at))
        point, _ = pending[best]
        pending[best] = pending[-1]
        pending.pop()
        picked.append(point)
        for other, _ in pending:
            nearest[other.id] = max(nearest[other.id], _dot(weights[other.id], weights[point.id]))
    return picked


def _weights(vector: Any) -> dict[int, float]:
    return dict(zip(vector.indices, vector.values, strict=True))


def _dot(one: dict[int, float], other: dict[int, float]) -> float:
    return sum(value * other[index] for index, value in one.items() if index in other)
