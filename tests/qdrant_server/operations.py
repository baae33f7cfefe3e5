"""What a server does for a request: one function an operation, of qdrant_client's models, whatever the protocol.

Where the embedded engine is kinder than a server, the server's refusal is made here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from grpc import StatusCode
from qdrant_client import models as m

from memory_integrations.qdrant_edge import QdrantEdgeClient
from qdrant_server.strict import conditions_of, missing_index

Protocol = Literal["rest", "grpc"]
TITLE, VERSION = "qdrant - vector search engine", "1.20.0"
_OF_A_CLUSTER = ("shard_number", "replication_factor", "write_consistency_factor")
RANGE_INDEXES = ("integer", "float", "datetime")
FACET_INDEXES = ("keyword", "integer", "uuid", "bool")


class Code(Enum):
    """How an operation ended: the status of each protocol."""

    OK = (200, StatusCode.OK)
    BAD_REQUEST = (400, StatusCode.INVALID_ARGUMENT)
    UNAUTHORIZED = (401, StatusCode.UNAUTHENTICATED)
    FORBIDDEN = (403, StatusCode.PERMISSION_DENIED)
    NOT_FOUND = (404, StatusCode.NOT_FOUND)
    ALREADY_EXISTS = (409, StatusCode.ALREADY_EXISTS)
    UNPROCESSABLE = (422, StatusCode.INVALID_ARGUMENT)
    TOO_MANY_REQUESTS = (429, StatusCode.RESOURCE_EXHAUSTED)
    INTERNAL = (500, StatusCode.INTERNAL)
    NOT_SERVED = (501, StatusCode.UNIMPLEMENTED)
    UNAVAILABLE = (503, StatusCode.UNAVAILABLE)
    # What a proxy before it says; over gRPC it is unavailable.
    BAD_GATEWAY = (502, StatusCode.UNAVAILABLE)
    GATEWAY_TIMEOUT = (504, StatusCode.UNAVAILABLE)

    @property
    def http(self) -> int:
        return self.value[0]

    @property
    def grpc(self) -> StatusCode:
        return self.value[1]


class Refused(Exception):
    """What a client is told in place of a result."""

    def __init__(self, code: Code, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.retry_after = code, message, retry_after


class Cut(Exception):
    """The connection ends without an answer."""


@dataclass
class Asked:
    """A request as the server took it in. Secrets are left out: ``key`` says only whether there was one."""

    operation: str
    protocol: Protocol
    collection: str | None = None
    body: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    key: bool = False
    answer: str = ""

    @property
    def filters(self) -> list[m.Filter | None]:
        """The filters of what it searches, reads or changes: one a request of a batch."""
        parts = self.body.searches if isinstance(self.body, m.QueryRequestBatch) else [self.body]
        return [getattr(part, "filter", None) for part in parts]


class Storage:
    """What a server holds: the engine, and what its collections were created with beyond what the engine keeps."""

    def __init__(self, strict_mode: m.StrictModeConfig | None = None) -> None:
        self.engine = QdrantEdgeClient(":memory:")
        self.strict_mode = strict_mode
        self.created: dict[str, m.CreateCollection] = {}
        self.creating = threading.Lock()

    def strict_mode_of(self, name: str) -> m.StrictModeConfig | None:
        created = self.created.get(self.real_name(name))
        given = created and created.strict_mode_config
        config = given or self.strict_mode
        return config if config is not None and config.enabled else None

    def real_name(self, name: str) -> str:
        """The collection that an alias stands for, or the name itself."""
        aliases = {one.alias_name: one.collection_name for one in self.engine.get_aliases().aliases}
        return aliases.get(name, name)

    def schema(self, name: str) -> dict[str, m.PayloadIndexInfo]:
        return self.engine.get_collection(name).payload_schema


@dataclass(frozen=True)
class Operation:
    """One entry of the table.

    Args:
        name: Its name.
        run: Does it.
        body: What a REST request's body is; None for no body.
        writes: Whether a read-only key is refused.
        inside: Whether the collection must be there.
    """

    name: str
    run: Callable[[Storage, Asked], Any]
    body: Any = None
    writes: bool = False
    inside: bool = True


OPERATIONS: dict[str, Operation] = {}


def operation(body: Any = None, **traits: bool) -> Callable[[Callable[[Storage, Asked], Any]], Any]:
    def enter(run: Callable[[Storage, Asked], Any]) -> Any:
        OPERATIONS[run.__name__] = Operation(run.__name__, run, body, **traits)
        return run

    return enter


def perform(storage: Storage, asked: Asked) -> Any:
    """Do what was asked.

    Raises:
        Refused: The server would not.
    """
    done = OPERATIONS[asked.operation]
    if done.inside and not storage.engine.collection_exists(asked.collection):
        raise Refused(Code.NOT_FOUND, f"Not found: Collection `{asked.collection}` doesn't exist!")
    if done.inside:
        _check_strict_mode(storage, asked, done.writes)
    try:
        return done.run(storage, asked)
    except NotImplementedError as error:
        raise Refused(Code.NOT_SERVED, f"The stand-in does not do this: {error}") from error
    except KeyError as error:
        raise Refused(Code.NOT_FOUND, f"Not found: {error.args[0]}") from error
    except (ValueError, TypeError) as error:
        raise Refused(Code.BAD_REQUEST, f"Wrong input: {str(error).removeprefix('Wrong input: ')}") from error


def _check_strict_mode(storage: Storage, asked: Asked, writes: bool) -> None:
    config = storage.strict_mode_of(str(asked.collection))
    allowed = config and (config.unindexed_filtering_update if writes else config.unindexed_filtering_retrieve)
    if config is None or allowed is not False:
        return
    schema = {field: info.data_type.value for field, info in storage.schema(str(asked.collection)).items()}
    for condition in conditions_of(asked.body):
        missing = missing_index(condition, schema)
        if missing is not None:
            raise Refused(
                Code.BAD_REQUEST,
                f'Bad request: Index required but not found for "{missing[0]}" of one of the following types: '
                f"[{', '.join(missing[1])}]. Help: Create an index for this key or use a different filter.",
            )


def _check_limits(*limits: int | None) -> None:
    if any(limit is not None and limit < 1 for limit in limits):
        raise Refused(
            Code.UNPROCESSABLE, "Validation error in JSON body: [limit: value 0 invalid, must be 1 or larger]"
        )


def _options(asked: Asked, *names: str) -> dict[str, Any]:
    return {name: asked.options[name] for name in names if asked.options.get(name) is not None}


# The service, and collections


@operation(inside=False)
def version(storage: Storage, asked: Asked) -> m.VersionInfo:
    return m.VersionInfo(title=TITLE, version=VERSION, commit="stand-in")


@operation(inside=False)
def get_collections(storage: Storage, asked: Asked) -> m.CollectionsResponse:
    return storage.engine.get_collections()


@operation(inside=False)
def collection_exists(storage: Storage, asked: Asked) -> m.CollectionExistence:
    return m.CollectionExistence(exists=storage.engine.collection_exists(asked.collection))


@operation()
def get_collection(storage: Storage, asked: Asked) -> m.CollectionInfo:
    info = storage.engine.get_collection(asked.collection)
    created = storage.created[storage.real_name(str(asked.collection))]
    for name in _OF_A_CLUSTER:
        setattr(info.config.params, name, getattr(created, name) or 1)
    config = storage.strict_mode_of(str(asked.collection))
    if config is not None:
        info.config.strict_mode_config = m.StrictModeConfigOutput(**config.model_dump(exclude_none=True))
    return info


@operation(body=m.CreateCollection, writes=True, inside=False)
def create_collection(storage: Storage, asked: Asked) -> bool:
    name, body = str(asked.collection), asked.body
    given = {field: getattr(body, field) for field in body.model_fields_set}
    given.pop("strict_mode_config", None)
    vectors, sparse = given.pop("vectors", None), given.pop("sparse_vectors", None)
    with storage.creating:  # of several at once one creates it, and the others are told so
        if storage.engine.collection_exists(name):
            raise Refused(Code.ALREADY_EXISTS, f"Wrong input: Collection `{name}` already exists!")
        storage.created[name] = body  # first: from the moment it is there, others ask for it
        storage.engine.create_collection(name, vectors, sparse_vectors_config=sparse, **given)
    return True


@operation(body=m.UpdateCollection, writes=True)
def update_collection(storage: Storage, asked: Asked) -> bool:
    body = asked.body
    storage.engine.update_collection(
        asked.collection,
        metadata=body.metadata,
        optimizers_config=body.optimizers_config,
        hnsw_config=body.hnsw_config,
        vectors_config=body.vectors,
        sparse_vectors_config=body.sparse_vectors,
        quantization_config=body.quantization_config,
    )
    if body.strict_mode_config is not None:
        created = storage.created[storage.real_name(str(asked.collection))]
        created.strict_mode_config = body.strict_mode_config
    return True


@operation(writes=True, inside=False)
def delete_collection(storage: Storage, asked: Asked) -> bool:
    storage.created.pop(str(asked.collection), None)
    return storage.engine.delete_collection(asked.collection)


@operation(body=m.ChangeAliasesOperation, writes=True, inside=False)
def update_aliases(storage: Storage, asked: Asked) -> bool:
    for action in asked.body.actions:
        if isinstance(action, m.CreateAliasOperation):
            name = action.create_alias.collection_name
            if not storage.engine.collection_exists(name):
                raise Refused(Code.NOT_FOUND, f"Not found: Collection `{name}` doesn't exist!")
    return storage.engine.update_collection_aliases(asked.body.actions)


@operation()
def get_collection_aliases(storage: Storage, asked: Asked) -> m.CollectionsAliasesResponse:
    return storage.engine.get_collection_aliases(asked.collection)


@operation(inside=False)
def get_aliases(storage: Storage, asked: Asked) -> m.CollectionsAliasesResponse:
    return storage.engine.get_aliases()


@operation(body=m.CreateFieldIndex, writes=True)
def create_field_index(storage: Storage, asked: Asked) -> m.UpdateResult:
    field_name, schema = asked.body.field_name, asked.body.field_schema
    return _updated(asked, storage.engine.create_payload_index(asked.collection, field_name, schema))


@operation(writes=True)
def delete_field_index(storage: Storage, asked: Asked) -> m.UpdateResult:
    return _updated(asked, storage.engine.delete_payload_index(asked.collection, asked.options["field_name"]))


# Points: reading


@operation(body=m.PointRequest)
def retrieve(storage: Storage, asked: Asked) -> list[m.Record]:
    body = asked.body
    ids = list(dict.fromkeys(body.ids))  # in the order asked for, each once
    payload = True if body.with_payload is None else body.with_payload
    return storage.engine.retrieve(asked.collection, ids, payload, body.with_vector or False)


@operation(body=m.ScrollRequest)
def scroll(storage: Storage, asked: Asked) -> m.ScrollResult:
    body = asked.body
    _check_limits(body.limit)
    order = m.OrderBy(key=body.order_by) if isinstance(body.order_by, str) else body.order_by
    if order is not None and not _indexed(storage, asked, order.key, RANGE_INDEXES):
        raise Refused(
            Code.BAD_REQUEST,
            f"Bad request: No range index for `order_by` key: `{order.key}`. Please create one to use `order_by`. "
            "Check https://qdrant.tech/documentation/concepts/indexing/#payload-index to see which payload schemas "
            "support Range conditions",
        )
    points, offset = storage.engine.scroll(
        asked.collection,
        body.filter,
        10 if body.limit is None else body.limit,
        order,
        body.offset,
        True if body.with_payload is None else body.with_payload,
        body.with_vector or False,
    )
    return m.ScrollResult(points=points, next_page_offset=offset)


@operation(body=m.CountRequest)
def count(storage: Storage, asked: Asked) -> m.CountResult:
    exact = True if asked.body.exact is None else asked.body.exact
    return storage.engine.count(asked.collection, asked.body.filter, exact)


@operation(body=m.FacetRequest)
def facet(storage: Storage, asked: Asked) -> m.FacetResponse:
    body = asked.body
    _check_limits(body.limit)
    if not _indexed(storage, asked, body.key, FACET_INDEXES):
        raise Refused(
            Code.BAD_REQUEST,
            f"Bad request: No appropriate index for faceting: `{body.key}`. Please create one to facet on this field.",
        )
    limit = 10 if body.limit is None else body.limit
    return storage.engine.facet(asked.collection, body.key, body.filter, limit, bool(body.exact))


@operation(body=m.QueryRequest)
def query(storage: Storage, asked: Asked) -> m.QueryResponse:
    return _queried(storage, asked, asked.body)


@operation(body=m.QueryRequestBatch)
def query_batch(storage: Storage, asked: Asked) -> list[m.QueryResponse]:
    return [_queried(storage, asked, request) for request in asked.body.searches]


def _queried(storage: Storage, asked: Asked, request: m.QueryRequest) -> m.QueryResponse:
    _check_limits(request.limit)
    return storage.engine.query_points(
        asked.collection,
        request.query,
        using=request.using,
        prefetch=request.prefetch,
        query_filter=request.filter,
        search_params=request.params,
        limit=10 if request.limit is None else request.limit,
        offset=request.offset,
        with_payload=request.with_payload or False,
        with_vectors=request.with_vector or False,
        score_threshold=request.score_threshold,
        lookup_from=request.lookup_from,
    )


def _indexed(storage: Storage, asked: Asked, key: str, kinds: tuple[str, ...]) -> bool:
    found = storage.schema(str(asked.collection)).get(key)
    return found is not None and found.data_type.value in kinds


# Points: writing


@operation(body=m.PointInsertOperations, writes=True)
def upsert(storage: Storage, asked: Asked) -> m.UpdateResult:
    body = asked.body
    points = body.batch if isinstance(body, m.PointsBatch) else body.points
    chosen = {"update_filter": body.update_filter, "update_mode": body.update_mode}
    return _updated(asked, storage.engine.upsert(asked.collection, points, **chosen))


@operation(body=m.PointsSelector, writes=True)
def delete(storage: Storage, asked: Asked) -> m.UpdateResult:
    return _updated(asked, storage.engine.delete(asked.collection, asked.body))


@operation(body=m.SetPayload, writes=True)
def set_payload(storage: Storage, asked: Asked) -> m.UpdateResult:
    body = asked.body
    return _updated(asked, storage.engine.set_payload(asked.collection, body.payload, _selected(body), key=body.key))


@operation(body=m.SetPayload, writes=True)
def overwrite_payload(storage: Storage, asked: Asked) -> m.UpdateResult:
    return _updated(
        asked, storage.engine.overwrite_payload(asked.collection, asked.body.payload, _selected(asked.body))
    )


@operation(body=m.DeletePayload, writes=True)
def delete_payload(storage: Storage, asked: Asked) -> m.UpdateResult:
    return _updated(asked, storage.engine.delete_payload(asked.collection, asked.body.keys, _selected(asked.body)))


@operation(body=m.PointsSelector, writes=True)
def clear_payload(storage: Storage, asked: Asked) -> m.UpdateResult:
    return _updated(asked, storage.engine.clear_payload(asked.collection, asked.body))


@operation(body=m.UpdateVectors, writes=True)
def update_vectors(storage: Storage, asked: Asked) -> m.UpdateResult:
    body = asked.body
    return _updated(asked, storage.engine.update_vectors(asked.collection, body.points, body.update_filter))


@operation(body=m.DeleteVectors, writes=True)
def delete_vectors(storage: Storage, asked: Asked) -> m.UpdateResult:
    return _updated(asked, storage.engine.delete_vectors(asked.collection, asked.body.vector, _selected(asked.body)))


@operation(body=m.UpdateOperations, writes=True)
def batch_update(storage: Storage, asked: Asked) -> list[m.UpdateResult]:
    done = storage.engine.batch_update_points(asked.collection, asked.body.operations)
    return [_updated(asked, result) for result in done]


def _selected(body: Any) -> Any:
    if body.points is None and body.filter is None:
        raise Refused(Code.UNPROCESSABLE, "Validation error in JSON body: [points or filter must be given]")
    return body.points if body.points is not None else body.filter


def _updated(asked: Asked, result: m.UpdateResult) -> m.UpdateResult:
    """Who does not wait is told only that the write was taken in."""
    if not asked.options.get("wait", False):
        return m.UpdateResult(operation_id=result.operation_id, status=m.UpdateStatus.ACKNOWLEDGED)
    return result
