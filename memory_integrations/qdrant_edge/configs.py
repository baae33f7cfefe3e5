"""What a collection is made of, from qdrant_client's models to the engine's types. Pure functions.

The two libraries name nearly every field alike, so one function (:func:`_mirror`) carries a model over field
by field, and a table says which fields need a conversion of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from enum import Enum
from functools import cache
from typing import Any, TypeVar, cast

import qdrant_edge as edge
from pydantic import BaseModel
from qdrant_client import models

__all__ = [
    "create_index",
    "create_vector",
    "dense_vectors",
    "edge_config",
    "index_from_json",
    "index_params",
    "index_to_json",
]

T = TypeVar("T")

TUNABLE = frozenset(
    {"hnsw_config", "optimizers_config", "quantization_config", "sparse_vectors_config", "vectors_config"}
)
"""What :func:`updated` can change."""

HNSW_DEFAULTS: dict[str, Any] = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000}


@cache
def _members(edge_enum: Any) -> dict[str, Any]:
    return {name.replace("_", "").lower(): getattr(edge_enum, name) for name in dir(edge_enum) if name[0].isupper()}


def _member(edge_enum: type[T], value: Enum | str) -> T:
    """Return the engine's spelling of an enum value, which differs in case and underscores only."""
    text = str(value.value if isinstance(value, Enum) else value)
    found: T | None = _members(cast(Hashable, edge_enum)).get(text.replace("_", "").lower())
    if found is None:
        raise NotImplementedError(
            f"The embedded engine has no {edge_enum.__name__} {text!r}: use a Qdrant server (QdrantClient(url=...))"
        )
    return found


def _enum(edge_enum: type) -> Callable[[Any], Any]:
    return lambda value: _member(edge_enum, value)


def _mirror(
    edge_class: Callable[..., T],
    model: BaseModel,
    leave_out: tuple[str, ...] = ("type",),
    defaults: Mapping[str, Any] | None = None,
) -> T:
    """Build the engine's object from the fields of the model that are set."""
    given = {
        name: _FIELDS.get(name, _same)(value) for name, value in model if value is not None and name not in leave_out
    }
    return edge_class(**{**(defaults or {}), **given})


def _same(value: Any) -> Any:
    return value


def _quantization(config: Any) -> Any:
    if config is None or config == models.Disabled.DISABLED:
        return None
    for model, (attribute, edge_class, choices) in _QUANTIZATIONS.items():
        if isinstance(config, model):
            inner = getattr(config, attribute)
            given = {name: choices.get(name, _FIELDS.get(name, _same))(v) for name, v in inner if v is not None}
            return edge_class(**given)
    raise ValueError(f"Unsupported quantization config type: {type(config)}")


def _stopwords(value: Any) -> edge.Stopwords:
    if isinstance(value, models.StopwordsSet):
        languages = {_member(edge.Language, language) for language in value.languages or []}
        return edge.StopwordsSet(languages=languages, custom=set(value.custom or []))
    return _member(edge.Language, value)


def _stemmer(value: Any) -> edge.StemmingAlgorithm:
    if isinstance(value, models.SnowballParams):
        return edge.SnowballParams(_member(edge.SnowballLanguage, value.language))
    return edge.DisabledStemmer()


def _scoring(value: Any) -> bool | edge.TextScoringParams:
    if isinstance(value, bool):
        return value
    return edge.TextScoringParams(_member(edge.TextScoringType, value.type))


def _hnsw(value: models.HnswConfigDiff) -> edge.HnswIndexConfig:
    return _mirror(edge.HnswIndexConfig, value, defaults=HNSW_DEFAULTS)


def _multivector(value: models.MultiVectorConfig) -> edge.MultiVectorConfig:
    return edge.MultiVectorConfig(_member(edge.MultiVectorComparator, value.comparator))


_FIELDS: dict[str, Callable[[Any], Any]] = {
    "datatype": _enum(edge.VectorStorageDatatype),
    "distance": _enum(edge.Distance),
    "hnsw_config": _hnsw,
    "memory": _enum(edge.Memory),
    "multivector_config": _multivector,
    "quantization_config": _quantization,
    "scoring": _scoring,
    "stemmer": _stemmer,
    "stopwords": _stopwords,
    "tokenizer": _enum(edge.TokenizerType),
}

_QUANTIZATIONS: dict[type, tuple[str, type, dict[str, Callable[[Any], Any]]]] = {
    models.ScalarQuantization: (
        "scalar",
        edge.ScalarQuantizationConfig,
        {"type": _enum(edge.ScalarType)},
    ),
    models.ProductQuantization: (
        "product",
        edge.ProductQuantizationConfig,
        {"compression": _enum(edge.CompressionRatio)},
    ),
    models.BinaryQuantization: (
        "binary",
        edge.BinaryQuantizationConfig,
        {
            "encoding": _enum(edge.BinaryQuantizationEncoding),
            "query_encoding": _enum(edge.BinaryQuantizationQueryEncoding),
        },
    ),
    models.TurboQuantization: (
        "turbo",
        edge.TurboQuantQuantizationConfig,
        {"bits": _enum(edge.TurboQuantBitSize)},
    ),
}

_INDEXES: dict[str, tuple[type[BaseModel], type]] = {
    "keyword": (models.KeywordIndexParams, edge.KeywordIndexParams),
    "integer": (models.IntegerIndexParams, edge.IntegerIndexParams),
    "float": (models.FloatIndexParams, edge.FloatIndexParams),
    "geo": (models.GeoIndexParams, edge.GeoIndexParams),
    "text": (models.TextIndexParams, edge.TextIndexParams),
    "bool": (models.BoolIndexParams, edge.BoolIndexParams),
    "datetime": (models.DatetimeIndexParams, edge.DatetimeIndexParams),
    "uuid": (models.UuidIndexParams, edge.UuidIndexParams),
}


def dense_vectors(config: models.CreateCollection) -> dict[str, models.VectorParams]:
    """Return the dense vectors of a collection by name; the unnamed one is called ``""``."""
    if config.vectors is None:
        return {}
    return dict(config.vectors) if isinstance(config.vectors, Mapping) else {"": config.vectors}


def edge_config(config: models.CreateCollection, logged: bool = True) -> edge.EdgeConfig:
    """Return the engine's configuration of a collection.

    Args:
        config: the collection as qdrant_client describes it.
        logged: whether writes go through the write-ahead log, which is what makes them survive the death of
            the process.
    """
    vectors = {name: _mirror(edge.EdgeVectorParams, params) for name, params in dense_vectors(config).items()}
    sparse = {name: _sparse(params) for name, params in (config.sparse_vectors or {}).items()}
    optimizers = config.optimizers_config
    return edge.EdgeConfig(
        vectors=vectors,
        sparse_vectors=sparse,
        on_disk_payload=config.on_disk_payload,
        hnsw_config=_hnsw(config.hnsw_config) if config.hnsw_config else None,
        quantization_config=_quantization(config.quantization_config),
        optimizers=_mirror(
            edge.EdgeOptimizersConfig,
            optimizers,
            leave_out=("memmap_threshold", "flush_interval_sec", "max_optimization_threads"),
        )
        if optimizers
        else None,
        payload_memory=_member(edge.Memory, config.payload.memory)
        if config.payload and config.payload.memory
        else None,
        id_tracker_memory=_member(edge.Memory, config.id_tracker.memory)
        if config.id_tracker and config.id_tracker.memory
        else None,
        wal_enabled=logged,
    )


def _sparse(params: models.SparseVectorParams) -> edge.EdgeSparseVectorParams:
    given = {name: _FIELDS.get(name, _same)(v) for name, v in params.index or () if v is not None}
    return edge.EdgeSparseVectorParams(modifier=_modifier(params.modifier), **given)


def _modifier(modifier: models.Modifier | None) -> edge.Modifier | None:
    return edge.Modifier.Idf if modifier == models.Modifier.IDF else None


def create_vector(name: str, config: models.VectorNameConfig) -> edge.UpdateOperation:
    """Return the operation that adds a named vector to a collection."""
    if isinstance(config, models.DenseVectorNameConfig):
        dense = config.dense
        return edge.UpdateOperation.create_dense_vector(
            name,
            dense.size,
            _member(edge.Distance, dense.distance),
            _multivector(dense.multivector_config) if dense.multivector_config else None,
            _member(edge.VectorStorageDatatype, dense.datatype) if dense.datatype else None,
        )
    if isinstance(config, models.SparseVectorNameConfig):
        sparse = config.sparse
        return edge.UpdateOperation.create_sparse_vector(
            name,
            _modifier(sparse.modifier),
            _member(edge.VectorStorageDatatype, sparse.datatype) if sparse.datatype else None,
        )
    raise ValueError(f"Unsupported vector name config type: {type(config)}")


def index_params(schema: Any) -> models.PayloadFieldSchema:
    """Return a payload index's schema as a model, whichever way it was given.

    Raises:
        ValueError: it names no type of index.
    """
    if isinstance(schema, models.PayloadSchemaType | BaseModel):
        return cast(models.PayloadFieldSchema, schema)
    if isinstance(schema, Mapping):
        return index_from_json(dict(schema))
    return models.PayloadSchemaType(schema)


def create_index(field: str, schema: models.PayloadFieldSchema) -> edge.UpdateOperation:
    """Return the operation that creates a payload index."""
    params: edge.PayloadSchemaType | edge.PayloadSchemaParams
    if isinstance(schema, models.PayloadSchemaType):
        params = _member(edge.PayloadSchemaType, schema)
    else:
        params = _mirror(_INDEXES[schema.type.value][1], schema)
    return edge.UpdateOperation.create_field_index(field, params)


def index_to_json(schema: models.PayloadFieldSchema) -> Any:
    """Return a payload index's schema as the registry keeps it."""
    if isinstance(schema, models.PayloadSchemaType):
        return schema.value
    return schema.model_dump(mode="json", exclude_none=True)


def index_from_json(schema: Any) -> models.PayloadFieldSchema:
    """Read what :func:`index_to_json` wrote."""
    if isinstance(schema, str):
        return models.PayloadSchemaType(schema)
    try:
        model = _INDEXES[schema["type"]][0]
    except KeyError as error:
        raise ValueError(f"Unknown payload index {schema!r}") from error
    return model(**schema)  # type: ignore[return-value]


def index_type(schema: models.PayloadFieldSchema) -> models.PayloadSchemaType:
    """Return which kind of values a payload index holds."""
    return schema if isinstance(schema, models.PayloadSchemaType) else models.PayloadSchemaType(schema.type.value)


def with_vector(config: models.CreateCollection, name: str, vector: models.VectorNameConfig) -> models.CreateCollection:
    """Return a collection's configuration with one more vector; the same vector again changes nothing.

    Raises:
        ValueError: the name is taken by a vector that is different.
    """
    dense, sparse = dense_vectors(config), dict(config.sparse_vectors or {})
    if isinstance(vector, models.DenseVectorNameConfig):
        if name in sparse:
            raise ValueError(f"Vector {name} already exists as a sparse vector")
        given = vector.dense
        known = dense.get(name)
        if known is not None:
            if (known.size, known.distance, known.multivector_config) != (
                given.size,
                given.distance,
                given.multivector_config,
            ):
                raise ValueError(f"Vector {name} already exists with a different configuration")
            return config
        datatype = None if given.datatype is None else models.Datatype(given.datatype.value)
        dense[name] = models.VectorParams(
            size=given.size,
            distance=given.distance,
            multivector_config=given.multivector_config,
            datatype=datatype,
        )
        return config.model_copy(update={"vectors": dense})
    if name in dense:
        raise ValueError(f"Vector {name} already exists as a dense vector")
    if name in sparse:
        if sparse[name].modifier != vector.sparse.modifier:
            raise ValueError(f"Sparse vector {name} already exists with a different configuration")
        return config
    sparse[name] = models.SparseVectorParams(modifier=vector.sparse.modifier)
    return config.model_copy(update={"sparse_vectors": sparse})


def without_vector(config: models.CreateCollection, name: str) -> models.CreateCollection:
    """Return a collection's configuration without a vector."""
    sparse = dict(config.sparse_vectors or {})
    if name in sparse:
        del sparse[name]
        return config.model_copy(update={"sparse_vectors": sparse})
    return config.model_copy(
        update={"vectors": {other: params for other, params in dense_vectors(config).items() if other != name}}
    )


def updated(config: models.CreateCollection, changes: Mapping[str, Any]) -> models.CreateCollection:
    """Return a collection's configuration with what ``update_collection`` was given; unset fields keep their value.

    Raises:
        ValueError: a change names a vector that is not there.
    """
    config = config.model_copy(deep=True)
    for field in ("hnsw_config", "optimizers_config"):
        if (change := changes.get(field)) is not None:
            setattr(config, field, _merged(getattr(config, field), change))
    if (quantization := changes.get("quantization_config")) is not None:
        config.quantization_config = None if quantization == models.Disabled.DISABLED else quantization
    for name, change in (changes.get("vectors_config") or {}).items():
        params = dense_vectors(config).get(name)
        if params is None:
            raise ValueError(f"Wrong input: Not existing vector name error: {name}")
        merged = _merged(params, change)
        config.vectors = {**config.vectors, name: merged} if isinstance(config.vectors, dict) else merged
    sparse = dict(config.sparse_vectors or {})
    for name, change in (changes.get("sparse_vectors_config") or {}).items():
        if name not in sparse:
            raise ValueError(f"Vector {name} does not exist in the collection")
        sparse[name] = _merged(sparse[name], change)
    config.sparse_vectors = sparse or config.sparse_vectors
    return config


def _merged(known: Any, change: BaseModel) -> Any:
    """Return a model with the fields that the change sets, merged all the way down."""
    if known is None:
        return change
    values = known.model_dump(exclude_none=True)
    for field, value in change.model_dump(exclude_none=True).items():
        values[field] = {**values[field], **value} if isinstance(values.get(field), dict) else value
    return type(known)(**values)


def described(config: models.CreateCollection) -> models.CollectionConfig:
    """Return a collection's configuration as ``get_collection`` tells it."""
    optimizers: dict[str, Any] = {
        "deleted_threshold": 0.2,
        "vacuum_min_vector_number": 1_000,
        "default_segment_number": 0,
        "indexing_threshold": 10_000,
        "flush_interval_sec": 5,
    }
    if config.optimizers_config is not None:
        optimizers |= config.optimizers_config.model_dump(exclude_none=True, exclude={"max_optimization_threads"})
    hnsw = HNSW_DEFAULTS | (config.hnsw_config.model_dump(exclude_none=True) if config.hnsw_config else {})
    return models.CollectionConfig(
        params=models.CollectionParams(
            vectors=config.vectors,
            sparse_vectors=config.sparse_vectors,
            on_disk_payload=config.on_disk_payload,
            payload=config.payload,
            id_tracker=config.id_tracker,
            shard_number=1,
            replication_factor=1,
        ),
        hnsw_config=models.HnswConfig(**hnsw),
        optimizer_config=models.OptimizersConfig(**optimizers),
        wal_config=models.WalConfig(wal_capacity_mb=32, wal_segments_ahead=0),
        quantization_config=config.quantization_config,
        metadata=config.metadata,
    ).model_copy(deep=True)
