"""What each writing call asks of the engine: operations that are all checked before the first is applied."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import qdrant_edge as edge
from qdrant_client import models

from memory_integrations.qdrant_edge.filters import edge_filter
from memory_integrations.qdrant_edge.points import (
    Schema,
    batch_points,
    edge_payload,
    edge_point_id,
    edge_points,
    edge_vectors,
)

__all__ = [
    "Write",
    "chunks",
    "clear_payload",
    "delete",
    "delete_payload",
    "delete_vectors",
    "overwrite_payload",
    "set_payload",
    "update_vectors",
    "upsert",
    "writes_of",
]

T = TypeVar("T")

IDS_PER_CALL = 1_024

_UPDATE_MODES = {
    models.UpdateMode.UPSERT: edge.UpdateMode.Upsert,
    models.UpdateMode.INSERT_ONLY: edge.UpdateMode.InsertOnly,
    models.UpdateMode.UPDATE_ONLY: edge.UpdateMode.UpdateOnly,
}


class Target(Protocol):
    """What a write needs to know of the collection."""

    schema: Schema
    batch_size: int


class Write(NamedTuple):
    """One operation for the engine and how many points it writes."""

    operation: edge.UpdateOperation
    weight: int


def chunks(items: list[T], size: int) -> Iterable[list[T]]:
    """Yield the items in lists of at most ``size``."""
    return [items] if len(items) <= size else (items[at : at + size] for at in range(0, len(items), size))


def upsert(
    target: Target,
    given: Any,
    update_filter: models.Filter | None = None,
    update_mode: models.UpdateMode | None = None,
) -> list[Write]:
    """Insert or replace points.

    Raises:
        ValueError: there are none, or one does not fit the collection.
    """
    condition = edge_filter(update_filter)
    points = batch_points(given) if isinstance(given, models.Batch) else given
    if not isinstance(points, list):
        raise ValueError(f"Unsupported type: {type(points)}")
    if not points:
        raise ValueError("Empty update request")
    mode = None if update_mode is None else _UPDATE_MODES[models.UpdateMode(update_mode)]
    return [
        Write(edge.UpdateOperation.upsert_points(chunk, condition, mode), len(chunk))
        for chunk in chunks(edge_points(points, target.schema), target.batch_size)
    ]


def update_vectors(
    target: Target, given: Sequence[models.PointVectors], update_filter: models.Filter | None = None
) -> list[Write]:
    """Replace vectors of points that are there."""
    if not given:
        raise ValueError("must specify points to update")
    condition = edge_filter(update_filter)
    converted = [
        edge.PointVectors(edge_point_id(point.id), edge_vectors(point.vector, target.schema)) for point in given
    ]
    return [
        Write(edge.UpdateOperation.update_vectors(chunk, condition), len(chunk))
        for chunk in chunks(converted, target.batch_size)
    ]


def delete_vectors(target: Target, names: Sequence[str], selector: Any) -> list[Write]:
    """Remove named vectors from points."""
    if not names:
        raise ValueError("must specify vector names to delete")
    vectors = list(names)
    writes = _selected(
        selector,
        lambda ids: edge.UpdateOperation.delete_vectors(ids, vectors),
        lambda conditions: edge.UpdateOperation.delete_vectors_by_filter(conditions, vectors),
    )
    for name in vectors:
        if name not in target.schema:
            raise ValueError(f"Wrong input: Not existing vector name error: {name}")
    return writes


def delete(selector: Any) -> list[Write]:
    """Delete points."""
    return _selected(selector, edge.UpdateOperation.delete_points, edge.UpdateOperation.delete_points_by_filter)


def set_payload(payload: Any, selector: Any, key: str | None = None) -> list[Write]:
    """Merge fields into payloads, at their root or under a key."""
    fields = edge_payload(payload)
    return _selected(
        selector,
        lambda ids: edge.UpdateOperation.set_payload(ids, fields, key),
        lambda conditions: edge.UpdateOperation.set_payload_by_filter(conditions, fields, key),
    )


def overwrite_payload(payload: Any, selector: Any) -> list[Write]:
    """Replace whole payloads."""
    fields = edge_payload(payload) or {}
    return _selected(
        selector,
        lambda ids: edge.UpdateOperation.overwrite_payload(ids, fields),
        lambda conditions: edge.UpdateOperation.overwrite_payload_by_filter(conditions, fields),
    )


def delete_payload(keys: Sequence[str], selector: Any) -> list[Write]:
    """Remove fields from payloads."""
    names = list(keys)
    return _selected(
        selector,
        lambda ids: edge.UpdateOperation.delete_payload(ids, names),
        lambda conditions: edge.UpdateOperation.delete_payload_by_filter(conditions, names),
    )


def clear_payload(selector: Any) -> list[Write]:
    """Empty payloads."""
    return _selected(selector, edge.UpdateOperation.clear_payload, edge.UpdateOperation.clear_payload_by_filter)


def writes_of(target: Target, operation: models.UpdateOperation) -> list[Write]:
    """Return the writes of one operation of ``batch_update_points``."""
    convert = _OPERATIONS.get(type(operation))
    if convert is None:
        raise ValueError(f"Unsupported update operation: {type(operation)}")
    return convert(target, operation)


def _selected(
    selector: Any,
    by_ids: Callable[[list[edge.PointId]], edge.UpdateOperation],
    by_filter: Callable[[edge.Filter], edge.UpdateOperation],
) -> list[Write]:
    """Return an operation on the points that a selector names, by their ids or by a filter."""
    if isinstance(selector, models.PointIdsList):
        selector = selector.points
    elif isinstance(selector, models.FilterSelector):
        selector = selector.filter
    if isinstance(selector, models.Filter):
        conditions = edge_filter(selector)
        assert conditions is not None
        return [Write(by_filter(conditions), 1)]
    if not isinstance(selector, list):
        raise ValueError(f"Unsupported selector type: {type(selector)}")
    if not selector:
        raise ValueError("Empty update request")
    ids = [edge_point_id(point) for point in selector]
    return [Write(by_ids(chunk), len(chunk)) for chunk in chunks(ids, IDS_PER_CALL)]


def _either(operation: Any) -> Any:
    if operation.points is not None:
        return operation.points
    if operation.filter is None:
        raise ValueError("No filter or points provided")
    return operation.filter


def _upsert_operation(target: Target, operation: models.UpsertOperation) -> list[Write]:
    given = operation.upsert
    points = given.batch if isinstance(given, models.PointsBatch) else given.points
    return upsert(target, points, given.update_filter, given.update_mode)


_OPERATIONS: dict[type, Callable[[Target, Any], list[Write]]] = {
    models.UpsertOperation: _upsert_operation,
    models.DeleteOperation: lambda target, op: delete(op.delete),
    models.SetPayloadOperation: lambda target, op: set_payload(
        op.set_payload.payload, _either(op.set_payload), op.set_payload.key
    ),
    models.OverwritePayloadOperation: lambda target, op: overwrite_payload(
        op.overwrite_payload.payload, _either(op.overwrite_payload)
    ),
    models.DeletePayloadOperation: lambda target, op: delete_payload(
        op.delete_payload.keys, _either(op.delete_payload)
    ),
    models.ClearPayloadOperation: lambda target, op: clear_payload(op.clear_payload),
    models.UpdateVectorsOperation: lambda target, op: update_vectors(
        target, op.update_vectors.points, op.update_vectors.update_filter
    ),
    models.DeleteVectorsOperation: lambda target, op: delete_vectors(
        target, op.delete_vectors.vector, _either(op.delete_vectors)
    ),
}
