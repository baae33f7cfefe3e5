"""The gRPC services: messages to qdrant-client's models and back, by qdrant-client's own conversions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import grpc
from qdrant_client import grpc as q
from qdrant_client import models as m
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

from qdrant_server.operations import Asked, Code, Cut, Refused

MOST_CALLS = 16
"""Calls that are answered at once."""
_FIELD_TYPES = {
    q.FieldType.FieldTypeKeyword: m.PayloadSchemaType.KEYWORD,
    q.FieldType.FieldTypeInteger: m.PayloadSchemaType.INTEGER,
    q.FieldType.FieldTypeFloat: m.PayloadSchemaType.FLOAT,
    q.FieldType.FieldTypeGeo: m.PayloadSchemaType.GEO,
    q.FieldType.FieldTypeText: m.PayloadSchemaType.TEXT,
    q.FieldType.FieldTypeBool: m.PayloadSchemaType.BOOL,
    q.FieldType.FieldTypeDatetime: m.PayloadSchemaType.DATETIME,
    q.FieldType.FieldTypeUuid: m.PayloadSchemaType.UUID,
}

Answer = Callable[[Asked, Mapping[str, str], Callable[[], Any]], Any]


class Rpc(NamedTuple):
    """One call: its operation, its body as a model, and the response of a result and a time."""

    operation: str
    read: Callable[[Any], Any]
    write: Callable[[Any, float], Any]


def _optional(message: Any, name: str, convert: Callable[[Any], Any] = lambda value: value) -> Any:
    return convert(getattr(message, name)) if message.HasField(name) else None


def _nothing(message: Any) -> None:
    """It has no body."""


# Collections


def _create(message: Any) -> m.CreateCollection:
    given = {
        "vectors": _optional(message, "vectors_config", GrpcToRest.convert_vectors_config),
        "sparse_vectors": _optional(message, "sparse_vectors_config", GrpcToRest.convert_sparse_vector_config),
        "hnsw_config": _optional(message, "hnsw_config", GrpcToRest.convert_hnsw_config_diff),
        "wal_config": _optional(message, "wal_config", GrpcToRest.convert_wal_config_diff),
        "optimizers_config": _optional(message, "optimizers_config", GrpcToRest.convert_optimizers_config_diff),
        "quantization_config": _optional(message, "quantization_config", GrpcToRest.convert_quantization_config),
        "sharding_method": _optional(message, "sharding_method", GrpcToRest.convert_sharding_method),
        "strict_mode_config": _optional(message, "strict_mode_config", GrpcToRest.convert_strict_mode_config),
        "metadata": GrpcToRest.convert_payload(message.metadata) if message.metadata else None,
    }
    for name in ("shard_number", "on_disk_payload", "replication_factor", "write_consistency_factor"):
        given[name] = _optional(message, name)
    return m.CreateCollection(**{name: value for name, value in given.items() if value is not None})


def _aliases(message: Any) -> m.ChangeAliasesOperation:
    return m.ChangeAliasesOperation(actions=[GrpcToRest.convert_alias_operations(one) for one in message.actions])


def _index(message: Any) -> m.CreateFieldIndex:
    schema: Any = None
    if message.HasField("field_index_params"):
        schema = GrpcToRest.convert_payload_schema_params(message.field_index_params)
    elif message.HasField("field_type"):
        schema = _FIELD_TYPES[message.field_type]
    return m.CreateFieldIndex(field_name=message.field_name, field_schema=schema)


def _done(result: bool, spent: float) -> Any:
    return q.CollectionOperationResponse(result=result, time=spent)


def _listed_aliases(result: m.CollectionsAliasesResponse, spent: float) -> Any:
    aliases = [RestToGrpc.convert_alias_description(one) for one in result.aliases]
    return q.ListAliasesResponse(aliases=aliases, time=spent)


COLLECTIONS = {
    "Get": Rpc(
        "get_collection",
        _nothing,
        lambda info, spent: q.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(info), time=spent),
    ),
    "List": Rpc(
        "get_collections",
        _nothing,
        lambda found, spent: q.ListCollectionsResponse(
            collections=[RestToGrpc.convert_collection_description(one) for one in found.collections], time=spent
        ),
    ),
    "CollectionExists": Rpc(
        "collection_exists",
        _nothing,
        lambda found, spent: q.CollectionExistsResponse(result=q.CollectionExists(exists=found.exists), time=spent),
    ),
    "Create": Rpc("create_collection", _create, _done),
    "Update": Rpc("update_collection", GrpcToRest.convert_update_collection, _done),
    "Delete": Rpc("delete_collection", _nothing, _done),
    "UpdateAliases": Rpc("update_aliases", _aliases, _done),
    "ListCollectionAliases": Rpc("get_collection_aliases", _nothing, _listed_aliases),
    "ListAliases": Rpc("get_aliases", _nothing, _listed_aliases),
}


# Points


def _upsert(message: Any) -> m.PointsList:
    return m.PointsList(
        points=[GrpcToRest.convert_point_struct(point) for point in message.points],
        update_filter=_optional(message, "update_filter", GrpcToRest.convert_filter),
        update_mode=_optional(message, "update_mode", GrpcToRest.convert_update_mode),
    )


def _retrieve(message: Any) -> m.PointRequest:
    return m.PointRequest(
        ids=[GrpcToRest.convert_point_id(one) for one in message.ids],
        with_payload=_payload_wanted(message) or False,  # what is not asked for is not given
        with_vector=_optional(message, "with_vectors", GrpcToRest.convert_with_vectors_selector),
    )


def _payload_wanted(message: Any) -> Any:
    return _optional(message, "with_payload", GrpcToRest.convert_with_payload_interface)


def _scroll(message: Any) -> m.ScrollRequest:
    return m.ScrollRequest(
        filter=_optional(message, "filter", GrpcToRest.convert_filter),
        limit=_optional(message, "limit"),
        offset=_optional(message, "offset", GrpcToRest.convert_point_id),
        order_by=_optional(message, "order_by", GrpcToRest.convert_order_by),
        with_payload=_payload_wanted(message) or False,
        with_vector=_optional(message, "with_vectors", GrpcToRest.convert_with_vectors_selector),
    )


def _scrolled(found: m.ScrollResult, spent: float) -> Any:
    following = found.next_page_offset
    return q.ScrollResponse(
        result=_retrieved(found.points),
        next_page_offset=None if following is None else RestToGrpc.convert_extended_point_id(following),
        time=spent,
    )


def _count(message: Any) -> m.CountRequest:
    return m.CountRequest(
        filter=_optional(message, "filter", GrpcToRest.convert_filter), exact=_optional(message, "exact")
    )


def _facet(message: Any) -> m.FacetRequest:
    return m.FacetRequest(
        key=message.key,
        filter=_optional(message, "filter", GrpcToRest.convert_filter),
        limit=_optional(message, "limit"),
        exact=_optional(message, "exact"),
    )


def _query_batch(message: Any) -> m.QueryRequestBatch:
    return m.QueryRequestBatch(searches=[GrpcToRest.convert_query_points(one) for one in message.query_points])


def _selector(name: str) -> Callable[[Any], m.PointsSelector]:
    return lambda message: GrpcToRest.convert_points_selector(getattr(message, name))


def _chosen(message: Any) -> dict[str, Any]:
    """Points or a filter, as the bodies of payload operations have them."""
    selector = _optional(message, "points_selector", GrpcToRest.convert_points_selector)
    return {"points": getattr(selector, "points", None), "filter": getattr(selector, "filter", None)}


def _set_payload(message: Any) -> m.SetPayload:
    payload = GrpcToRest.convert_payload(message.payload)
    return m.SetPayload(payload=payload, key=_optional(message, "key"), **_chosen(message))


def _update_vectors(message: Any) -> m.UpdateVectors:
    return m.UpdateVectors(
        points=[GrpcToRest.convert_point_vectors(point) for point in message.points],
        update_filter=_optional(message, "update_filter", GrpcToRest.convert_filter),
    )


def _batch_update(message: Any) -> m.UpdateOperations:
    return m.UpdateOperations(
        operations=[GrpcToRest.convert_points_update_operation(one) for one in message.operations]
    )


def _updated(result: m.UpdateResult, spent: float) -> Any:
    return q.PointsOperationResponse(result=RestToGrpc.convert_update_result(result), time=spent)


def _retrieved(records: list[m.Record]) -> list[Any]:
    # what has no payload has an empty one: a map of protobuf is never missing
    return [
        RestToGrpc.convert_retrieved_point(record.model_copy(update={"payload": record.payload or {}}))
        for record in records
    ]


def _scored(found: m.QueryResponse) -> list[Any]:
    return [RestToGrpc.convert_scored_point(point) for point in found.points]


POINTS = {
    "Upsert": Rpc("upsert", _upsert, _updated),
    "Delete": Rpc("delete", _selector("points"), _updated),
    "Get": Rpc("retrieve", _retrieve, lambda found, spent: q.GetResponse(result=_retrieved(found), time=spent)),
    "UpdateVectors": Rpc("update_vectors", _update_vectors, _updated),
    "DeleteVectors": Rpc(
        "delete_vectors",
        lambda message: m.DeleteVectors(vector=list(message.vectors.names), **_chosen(message)),
        _updated,
    ),
    "SetPayload": Rpc("set_payload", _set_payload, _updated),
    "OverwritePayload": Rpc("overwrite_payload", _set_payload, _updated),
    "DeletePayload": Rpc(
        "delete_payload", lambda message: m.DeletePayload(keys=list(message.keys), **_chosen(message)), _updated
    ),
    "ClearPayload": Rpc("clear_payload", _selector("points"), _updated),
    "CreateFieldIndex": Rpc("create_field_index", _index, _updated),
    "DeleteFieldIndex": Rpc("delete_field_index", _nothing, _updated),
    "Scroll": Rpc("scroll", _scroll, _scrolled),
    "Count": Rpc(
        "count",
        _count,
        lambda found, spent: q.CountResponse(result=RestToGrpc.convert_count_result(found), time=spent),
    ),
    "Facet": Rpc(
        "facet",
        _facet,
        lambda found, spent: q.FacetResponse(
            hits=[RestToGrpc.convert_facet_value_hit(hit) for hit in found.hits], time=spent
        ),
    ),
    "Query": Rpc(
        "query",
        GrpcToRest.convert_query_points,
        lambda found, spent: q.QueryResponse(result=_scored(found), time=spent),
    ),
    "QueryBatch": Rpc(
        "query_batch",
        _query_batch,
        lambda found, spent: q.QueryBatchResponse(
            result=[q.BatchResult(result=_scored(one)) for one in found], time=spent
        ),
    ),
    "UpdateBatch": Rpc(
        "batch_update",
        _batch_update,
        lambda done, spent: q.UpdateBatchResponse(
            result=[RestToGrpc.convert_update_result(one) for one in done], time=spent
        ),
    ),
}

ROOT = {
    "HealthCheck": Rpc("version", _nothing, lambda found, spent: RestToGrpc.convert_health_check_reply(found)),
}


class RpcServer:
    """Listens from its making to :meth:`stop`."""

    def __init__(self, address: tuple[str, int], answer: Answer) -> None:
        self._pool = ThreadPoolExecutor(MOST_CALLS, thread_name_prefix="qdrant-grpc")
        # Else a second server could listen on the same port, and each would get some of the calls.
        options = [
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
        ]
        self._server = grpc.server(self._pool, options=options)
        q.add_PointsServicer_to_server(_servicer(q.PointsServicer, POINTS, answer), self._server)
        q.add_CollectionsServicer_to_server(_servicer(q.CollectionsServicer, COLLECTIONS, answer), self._server)
        q.add_QdrantServicer_to_server(_servicer(q.QdrantServicer, ROOT, answer), self._server)
        self._server.add_insecure_port(f"{address[0]}:{address[1]}")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(grace=None).wait()
        self._pool.shutdown()


def _servicer(base: type, calls: Mapping[str, Rpc], answer: Answer) -> Any:
    assert all(hasattr(base, name) for name in calls)
    return type(base.__name__, (base,), {name: _method(rpc, answer) for name, rpc in calls.items()})()


def _method(rpc: Rpc, answer: Answer) -> Callable[[Any, Any, grpc.ServicerContext], Any]:
    def call(self: Any, message: Any, context: grpc.ServicerContext) -> Any:
        started = time.perf_counter()
        asked = Asked(rpc.operation, "grpc", getattr(message, "collection_name", None) or None)
        for name in ("wait", "timeout", "field_name"):
            value = getattr(message, name, None)
            if value:
                asked.options[name] = value
        headers = {name: str(value) for name, value in context.invocation_metadata()}
        try:
            result = answer(asked, headers, lambda: _read(rpc, message))
        except Cut:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        except Refused as refused:
            if refused.retry_after is not None:
                context.set_trailing_metadata((("retry-after", str(refused.retry_after)),))
            context.abort(refused.code.grpc, refused.message)
        return rpc.write(result, time.perf_counter() - started)

    return call


def _read(rpc: Rpc, message: Any) -> Any:
    try:
        return rpc.read(message)
    except (ValueError, KeyError) as error:
        raise Refused(Code.BAD_REQUEST, f"Wrong input: {error}") from error
