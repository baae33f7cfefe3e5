"""Points, vectors and payloads between qdrant_client's models and the engine's types, both ways.

Results are built without pydantic's validation: what the engine returns is typed already, and validation (or
``model_construct``, which is slower still) would take longer than the search itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar, get_args
from uuid import UUID

import numpy as np
import qdrant_edge as edge
from pydantic import BaseModel
from pydantic_core import to_jsonable_python
from qdrant_client import models
from qdrant_client.common.validation import validate_batch_lengths
from qdrant_client.embed.common import INFERENCE_OBJECT_TYPES
from qdrant_client.http.models import QueryResponse  # qdrant_client.models has another of this name

from memory_integrations.messages import is_deeper
from memory_integrations.qdrant_edge.errors import InferenceRequired

__all__ = [
    "Schema",
    "batch_points",
    "edge_payload",
    "edge_point_id",
    "edge_points",
    "edge_sparse",
    "edge_vectors",
    "known_point_id",
    "ordered_points",
    "payload_selector",
    "plain_vector",
    "point_id",
    "query_response",
    "record",
    "records",
    "reject_inference",
    "scored_points",
    "update_result",
    "vector_selector",
]

Model = TypeVar("Model", bound=BaseModel)

Schema = Mapping[str, "models.VectorParams | models.SparseVectorParams"]
"""The vectors of a collection by name."""

_INFERENCE: tuple[type, ...] = get_args(INFERENCE_OBJECT_TYPES)
_MAX_INDEX = 2**32 - 1
_MAX_DEPTH = 126

# ---------------------------------------------------------------------------------------------- towards the engine


def edge_point_id(value: Any) -> edge.PointId:
    """Check a point id: an unsigned integer, or a UUID as an object or a string.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, bool) or not isinstance(value, int | str | UUID):
        raise TypeError(f"Incompatible point id type: {type(value)}")
    if isinstance(value, str):
        try:
            return UUID(value)
        except ValueError as error:
            raise ValueError(f"Point id {value} is not a valid UUID") from error
    if isinstance(value, int) and not 0 <= value < 2**64:
        raise ValueError(f"Point id {value} is not an unsigned 64-bit integer")
    return value


def known_point_id(value: Any) -> edge.PointId | None:
    """Return a point id, or None for what can be no point's: looking it up finds nothing."""
    try:
        return edge_point_id(value)
    except ValueError:
        return None


def edge_payload(payload: Any) -> dict[str, Any]:
    """Return a payload as JSON, as the server would receive it: dates and UUIDs become strings.

    Raises:
        ValueError: it is nested so deep that the engine would take it and read nothing beside it any more.
    """
    _expect_readable(payload)
    try:
        return json.loads(json.dumps(payload))  # type: ignore[no-any-return]
    except (TypeError, ValueError):
        return json.loads(json.dumps(payload, default=to_jsonable_python))  # type: ignore[no-any-return]


def _expect_readable(payload: Any) -> None:
    if is_deeper(payload, _MAX_DEPTH):
        raise ValueError(f"Wrong input: the payload is nested deeper than {_MAX_DEPTH} levels")


def edge_sparse(vector: Any) -> edge.SparseVector:
    """Check and return a sparse vector.

    Raises:
        ValueError: indices and values do not go together, an index repeats or is no 32-bit number, or a value
            is not a number.
    """
    indices, values = vector.indices, vector.values
    if len(indices) != len(values):
        raise ValueError("Indices and values must have the same length")
    if len(set(indices)) != len(indices):
        raise ValueError("Indices must be unique")
    if indices and not (min(indices) >= 0 and max(indices) <= _MAX_INDEX):
        raise ValueError(f"Indices must be between 0 and {_MAX_INDEX}")
    if math.isnan(sum(values)) and any(map(math.isnan, values)):
        raise ValueError("Values must not contain NaN")
    return edge.SparseVector(indices, values)


def _dense(vector: Any, params: models.VectorParams, name: str) -> list[float]:
    if isinstance(vector, np.ndarray):
        vector = vector.tolist()
    if len(vector) != params.size:
        if not vector:
            raise ValueError(f"Wrong input: Dense vector must not be empty for vector '{name}'")
        _reject_nested(vector, name)
        raise ValueError(
            f"Wrong input: Vector dimension error: expected dim: {params.size}, got {len(vector)} for vector '{name}'"
        )
    try:
        total = sum(vector)
    except TypeError:
        _reject_nested(vector, name)
        raise
    # the sum of a vector is a NaN when one of its numbers is, or when it holds both infinities
    if total != total and any(map(math.isnan, vector)):
        raise ValueError("Vector contains NaN values")
    return vector  # type: ignore[no-any-return]


def _reject_nested(vector: Any, name: str) -> None:
    if isinstance(vector[0], Sequence):
        raise ValueError(f"Wrong input: Dense vector must be one-dimensional for vector '{name}'")


def _multi(vector: Any, params: models.VectorParams, name: str) -> list[list[float]]:
    if isinstance(vector, np.ndarray):
        vector = vector.tolist()
    if not vector:
        raise ValueError(f"Wrong input: Multivector must not be empty for vector '{name}'")
    if not all(isinstance(row, Sequence | np.ndarray) for row in vector):
        raise ValueError(f"Wrong input: Multivector must be a list of vectors for vector '{name}'")
    if not all(map(len, vector)):
        raise ValueError(f"Wrong input: All vectors of a multivector must be non-empty for vector '{name}'")
    return [_dense(row, params, name) for row in vector]


def edge_vectors(vector: Any, schema: Schema) -> dict[str, Any]:
    """Check a point's vectors against the collection and return them by name.

    Raises:
        ValueError: a name the collection has not, a wrong size or kind, or a number that is none.
        InferenceRequired: a document or an image stands in a vector's place.
    """
    if type(vector) is not dict:
        if vector is None:
            return {}
        if not isinstance(vector, Mapping):
            reject_inference(vector)
            named = [name for name, params in schema.items() if isinstance(params, models.VectorParams)]
            if named != [""]:
                raise ValueError(
                    "Wrong input: Unnamed vectors are not allowed when a collection has named vectors or "
                    f"multivectors: {named}"
                )
            vector = {"": vector}
    return {name: _named(value, name, schema) for name, value in vector.items()}


def _named(value: Any, name: str, schema: Schema) -> Any:
    params = schema.get(name)
    if params is None:
        raise ValueError(f"Wrong input: Not existing vector name error: {name}")
    is_sparse = isinstance(value, models.SparseVector)
    if is_sparse != isinstance(params, models.SparseVectorParams):
        reject_inference(value)
        raise ValueError(f"Wrong input: Conversion between sparse and regular vectors failed for vector '{name}'")
    if is_sparse:
        return edge_sparse(value)
    reject_inference(value)
    assert isinstance(params, models.VectorParams)
    return (_multi if params.multivector_config is not None else _dense)(value, params, name)


def reject_inference(value: Any) -> None:
    """Refuse a document or an image in a vector's place.

    Raises:
        InferenceRequired: it is one.
    """
    if isinstance(value, _INFERENCE):
        raise InferenceRequired(
            f"models.{type(value).__name__} needs a model that turns it into a vector: pass the vector itself, or "
            "use a Qdrant server with inference (QdrantClient(url=..., cloud_inference=True))"
        )


def plain_vector(vector: Any) -> Any:
    """Return a vector, or vectors by name, without numpy arrays."""
    if isinstance(vector, np.ndarray):
        return vector.tolist()
    if isinstance(vector, dict):
        return {name: plain_vector(value) for name, value in vector.items()}
    return vector


def edge_points(points: Iterable[Any], schema: Schema) -> list[edge.Point]:
    """Check points and return them for the engine; nothing is written when one of them is wrong."""
    return [_point(point, schema) for point in points]


def _point(point: Any, schema: Schema) -> edge.Point:
    vectors = edge_vectors(point.vector, schema)
    _expect_readable(point.payload)
    try:
        return edge.Point(point.id, vectors, point.payload)
    except (TypeError, ValueError):
        # rare: an id or a payload the engine does not take as it is
        return edge.Point(edge_point_id(point.id), vectors, edge_payload(point.payload))


def batch_points(batch: models.Batch) -> list[models.PointStruct]:
    """Turn the columns of a batch into points."""
    validate_batch_lengths(batch)
    columns: Mapping[str, Any] = batch.vectors if isinstance(batch.vectors, Mapping) else {"": batch.vectors}
    payloads: list[Any] = batch.payloads or [None] * len(batch.ids)
    return [
        models.PointStruct.model_construct(
            id=point, vector={name: column[row] for name, column in columns.items()}, payload=payload
        )
        for row, (point, payload) in enumerate(zip(batch.ids, payloads, strict=True))
    ]


def payload_selector(with_payload: Any) -> edge.WithPayloadType:
    """Return which payload fields to read.

    Raises:
        ValueError: it is neither a bool, a list of keys nor a selector.
    """
    if with_payload is None or isinstance(with_payload, bool):
        return bool(with_payload)
    if isinstance(with_payload, str):
        raise ValueError(
            f"with_payload must be a bool, a list of payload keys or a PayloadSelector, got a str: {with_payload!r}"
        )
    if isinstance(with_payload, models.PayloadSelectorExclude):
        return edge.PayloadSelector.Exclude(with_payload.exclude)
    if isinstance(with_payload, models.PayloadSelectorInclude):
        with_payload = with_payload.include
    return edge.PayloadSelector.Include(list(with_payload))


def vector_selector(with_vectors: Any, schema: Schema) -> edge.WithVectorType:
    """Return which vectors to read; names the collection has not are left out.

    Raises:
        ValueError: it is neither a bool nor a list of names.
    """
    if with_vectors is None or isinstance(with_vectors, bool):
        return bool(with_vectors)
    if isinstance(with_vectors, str):
        raise ValueError(f"with_vectors must be a bool or a list of vector names, got a str: {with_vectors!r}")
    return [name for name in dict.fromkeys(with_vectors) if name in schema]


# ------------------------------------------------------------------------------------------- back from the engine


@lru_cache(maxsize=32_768)
def _uuid_text(number: int) -> str:
    digits = f"{number:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def point_id(value: edge.PointId) -> int | str:
    """Return a point id as the server spells it: an integer, or a UUID in lower case with hyphens."""
    return value if type(value) is int else _uuid_text(value.int)  # type: ignore[union-attr]


def _vectors(vector: Any) -> Any:
    if type(vector) is dict:
        if len(vector) == 1 and "" in vector:
            return vector[""]  # the unnamed vector alone goes without its name
        return {name: _sparse(value) if type(value) is edge.SparseVector else value for name, value in vector.items()}
    return vector


def _sparse(vector: edge.SparseVector) -> models.SparseVector:
    return models.SparseVector.model_construct(indices=vector.indices, values=vector.values)


_set_dict = BaseModel.__dict__["__dict__"].__set__
_set_fields = BaseModel.__dict__["__pydantic_fields_set__"].__set__
_set_extra = BaseModel.__dict__["__pydantic_extra__"].__set__
_set_private = BaseModel.__dict__["__pydantic_private__"].__set__


def _builder(model: type[Model]) -> Callable[[dict[str, Any]], Model]:
    """Return a function that makes a model of values known to be right, at a quarter of validation's cost."""
    model.model_rebuild()  # which pydantic would do at the first validation
    create = model.__new__
    # naming every field keeps later assignments to one object from changing what the others share
    every_field = set(model.model_fields)

    def build(values: dict[str, Any]) -> Model:
        made = create(model)
        _set_dict(made, values)
        _set_fields(made, every_field)
        _set_extra(made, None)
        _set_private(made, None)
        return made

    return build


_scored_point = _builder(models.ScoredPoint)
_record = _builder(models.Record)
_response = _builder(QueryResponse)
_update_result = _builder(models.UpdateResult)


def scored_points(points: Iterable[edge.ScoredPoint]) -> QueryResponse:
    """Return what a query found, best first."""
    build, text = _scored_point, _uuid_text
    found = []
    for point in points:
        number, vector = point.id, point.vector
        found.append(
            build(
                {
                    "id": number if type(number) is int else text(number.int),  # type: ignore[union-attr]
                    "version": point.version,
                    "score": point.score,
                    "payload": point.payload,
                    "vector": vector if vector is None else _vectors(vector),
                    "shard_key": None,
                    "order_value": point.order_value,
                }
            )
        )
    return _response({"points": found})


def record(point: edge.Record, order_value: int | float | None = None) -> models.Record:
    """Return one stored point, with the value it was ordered by."""
    return _record(
        {
            "id": point_id(point.id),
            "payload": point.payload,
            "vector": _vectors(point.vector),
            "shard_key": None,
            "order_value": point.order_value if order_value is None else order_value,
        }
    )


def records(points: Iterable[edge.Record]) -> list[models.Record]:
    """Return stored points."""
    return [record(point) for point in points]


def ordered_points(found: Iterable[models.Record]) -> QueryResponse:
    """Return points found by an order, which scores nothing."""
    return _response({"points": [_scored_point({**each.__dict__, "version": 0, "score": 1.0}) for each in found]})


def query_response(found: list[models.ScoredPoint]) -> QueryResponse:
    """Return points as the answer to a query."""
    return _response({"points": found})


def update_result() -> models.UpdateResult:
    """Return what every write answers: the engine has applied it."""
    return _update_result({"operation_id": 0, "status": models.UpdateStatus.COMPLETED})
