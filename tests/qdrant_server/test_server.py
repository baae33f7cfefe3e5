"""The real client on the stand-in: what the embedded engine answers directly, both protocols answer too.

And what a server refuses, and how it fails, as qdrant-client hears of it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import grpc
import httpx
import pytest
from qdrant_client import QdrantClient
from qdrant_client import models as m
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from strategies import time_limit

from memory_integrations.qdrant_edge import QdrantEdgeClient
from qdrant_server.fixtures import Connect
from qdrant_server.operations import Code
from qdrant_server.stand_in import StandIn
from qdrant_server.strict import CLOUD

NAME = "notes"
UUIDS = [f"00000000-0000-4000-8000-00000000000{n}" for n in range(10)]
EVERYTHING_JSON = {
    "text": 'naïve 日本語 👩‍👩‍👧 \u0000 "quoted"',
    "whole": 1,
    "point": 1.0,
    "large": 2**62,
    "negative": -(2**53) - 1,
    "yes": True,
    "none": None,
    "empty": [{}, [], ""],
    "deep": {"a": [{"b": None}, 0.1]},
}


@pytest.fixture
def embedded() -> Iterator[QdrantClient]:
    with QdrantEdgeClient(":memory:") as client:
        yield client


def filled(client: QdrantClient) -> QdrantClient:
    """A collection with a dense, a sparse vector and a few points."""
    client.create_collection(
        NAME,
        m.VectorParams(size=2, distance=m.Distance.COSINE),
        sparse_vectors_config={"terms": m.SparseVectorParams(modifier=m.Modifier.IDF)},
    )
    client.create_payload_index(NAME, "user", m.KeywordIndexParams(type=m.KeywordIndexType.KEYWORD, is_tenant=True))
    client.create_payload_index(NAME, "n", m.PayloadSchemaType.INTEGER)
    client.create_payload_index(NAME, "at", m.PayloadSchemaType.DATETIME)
    client.upsert(NAME, [point(n) for n in range(8)])
    return client


def point(n: int) -> m.PointStruct:
    terms = m.SparseVector(indices=[n % 3, 9], values=[1.0 + n / 8, 0.5])  # no two score the same
    return m.PointStruct(
        id=UUIDS[n] if n % 2 else n,
        vector={"": [1.0, float(n)], "terms": terms},
        payload={
            "user": "ann" if n < 4 else "bob",
            "n": n,
            "odd": bool(n % 2),
            "at": datetime(2025, 5, n + 1, tzinfo=UTC).isoformat(),
            "tags": [{"name": "a", "weight": n}, {"name": "b", "weight": 0.5}],
            **({"rare": None} if n == 3 else {}),
        },
    )


def plain(answer: Any) -> Any:
    """An answer as data: a missing payload is an empty one, and a version counts writes, which differs by protocol."""
    if isinstance(answer, list | tuple):
        return [plain(one) for one in answer]
    if not hasattr(answer, "model_dump"):
        return answer
    found = answer.model_dump(exclude_none=True)
    if isinstance(answer, m.Record | m.ScoredPoint):
        found["payload"] = answer.payload or {}  # also what is None in it
    if hasattr(answer, "points"):
        found["points"] = plain(answer.points)
    return found


# Each scenario asks the same of any client, and says what it was answered.


def collections(client: QdrantClient) -> Iterator[Any]:
    yield client.collection_exists(NAME)
    yield client.create_collection(
        NAME,
        {"one": m.VectorParams(size=3, distance=m.Distance.DOT, on_disk=True)},
        sparse_vectors_config={"terms": m.SparseVectorParams(modifier=m.Modifier.IDF)},
        metadata={"embedding": "x", "size": 3, "nested": {"a": [1, None]}},
        optimizers_config=m.OptimizersConfigDiff(vacuum_min_vector_number=200),
    )
    yield client.create_payload_index(
        NAME, "a.b", m.KeywordIndexParams(type=m.KeywordIndexType.KEYWORD, is_tenant=True)
    )
    yield client.create_payload_index(NAME, "at", m.PayloadSchemaType.DATETIME)
    yield client.create_payload_index(NAME, "gone", "integer")
    yield client.delete_payload_index(NAME, "gone")
    yield client.update_collection(NAME, metadata={"complete": True, "size": 4})
    yield client.collection_exists(NAME)
    info = client.get_collection(NAME)
    yield info.config.params.vectors, info.config.params.sparse_vectors, info.config.metadata
    yield info.config.optimizer_config.vacuum_min_vector_number
    yield sorted((name, index.data_type, index.params) for name, index in info.payload_schema.items())
    create = m.CreateAliasOperation(create_alias=m.CreateAlias(collection_name=NAME, alias_name="short"))
    rename = m.RenameAliasOperation(rename_alias=m.RenameAlias(old_alias_name="short", new_alias_name="shorter"))
    yield client.update_collection_aliases([create, rename])
    yield client.get_aliases(), client.get_collection_aliases(NAME), client.get_collection("shorter").points_count
    delete = m.DeleteAliasOperation(delete_alias=m.DeleteAlias(alias_name="shorter"))
    yield client.update_collection_aliases([delete])
    yield client.get_collections()
    yield client.delete_collection(NAME), client.delete_collection(NAME)


def reading(client: QdrantClient) -> Iterator[Any]:
    filled(client)
    yield client.retrieve(NAME, [4, UUIDS[1], 99, 0], with_vectors=True)
    yield client.retrieve(NAME, [0], with_payload=False)
    yield client.retrieve(NAME, [0], with_payload=["n", "tags[].name"], with_vectors=["terms"])
    yield client.retrieve(NAME, [0], with_payload=m.PayloadSelectorExclude(exclude=["tags"]))
    yield client.retrieve(NAME, [])
    offset: Any = None
    for _ in range(3):
        page, offset = client.scroll(NAME, limit=3, offset=offset)
        yield page, offset
    yield client.scroll(NAME, order_by=m.OrderBy(key="n", direction=m.Direction.DESC), limit=3)[0]
    yield client.facet(NAME, "user")


def filtering(client: QdrantClient) -> Iterator[Any]:
    filled(client)
    match, field = m.MatchValue, m.FieldCondition
    from_third, to_sixth = datetime(2025, 5, 3, tzinfo=UTC), datetime(2025, 5, 6, tzinfo=UTC)
    for condition in (
        field(key="user", match=match(value="ann")),
        field(key="n", match=match(value=3)),
        field(key="odd", match=match(value=True)),
        field(key='"odd"', match=match(value=False)),
        field(key="user", match=m.MatchAny(any=["bob", "eve"])),
        field(key="user", match=m.MatchExcept(**{"except": ["bob"]})),
        field(key="n", range=m.Range(gt=2, lte=5)),
        field(key="at", range=m.DatetimeRange(gte=from_third, lt=to_sixth)),
        field(key="tags", values_count=m.ValuesCount(gte=2)),
        field(key="tags[].weight", range=m.Range(gte=6)),
        m.NestedCondition(
            nested=m.Nested(
                key="tags",
                filter=m.Filter(
                    must=[field(key="name", match=match(value="b")), field(key="weight", range=m.Range(gte=1))]
                ),
            )
        ),
        m.IsEmptyCondition(is_empty=m.PayloadField(key="rare")),
        m.IsNullCondition(is_null=m.PayloadField(key="rare")),
        m.HasIdCondition(has_id=[2, UUIDS[3], UUIDS[9]]),
        m.Filter(should=[field(key="n", match=match(value=1)), field(key="n", match=match(value=2))]),
    ):
        yield [record.id for record in client.scroll(NAME, m.Filter(must=[condition]))[0]]
        yield client.count(NAME, m.Filter(must_not=[condition])).count
    several = [field(key="n", range=m.Range(gte=n)) for n in (1, 3, 5)]
    yield client.count(NAME, m.Filter(min_should=m.MinShould(conditions=several, min_count=2))).count


def searching(client: QdrantClient) -> Iterator[Any]:
    filled(client)
    anns = m.Filter(must=[m.FieldCondition(key="user", match=m.MatchValue(value="ann"))])
    terms = m.SparseVector(indices=[0, 2], values=[1.0, 1.0])
    rare = m.SearchParams(idf=m.IdfCorpusParams(corpus=anns))
    yield client.query_points(NAME, [0.5, 1.0], limit=3)
    yield client.query_points(NAME, [0.5, 1.0], limit=3, offset=2, with_payload=["n"], with_vectors=True)
    yield client.query_points(NAME, [0.5, 1.0], query_filter=anns, score_threshold=0.8, with_payload=False)
    yield client.query_points(NAME, terms, using="terms", query_filter=anns)
    yield client.query_points(NAME, terms, using="terms", query_filter=anns, search_params=rare)
    yield client.query_points(NAME, UUIDS[1], limit=2)
    yield client.query_points(NAME, m.OrderByQuery(order_by="n"), limit=2)
    prefetch = [m.Prefetch(query=[0.5, 1.0], limit=4), m.Prefetch(query=terms, using="terms", filter=anns, limit=4)]
    yield client.query_points(NAME, m.FusionQuery(fusion=m.Fusion.RRF), prefetch=prefetch, limit=2)
    yield client.query_points(NAME, m.FusionQuery(fusion=m.Fusion.DBSF), prefetch=prefetch, limit=3)
    yield client.query_batch_points(
        NAME,
        [
            m.QueryRequest(query=[1.0, 0.0], limit=2),
            m.QueryRequest(query=terms, using="terms", filter=anns, params=rare, limit=2, with_payload=True),
            m.QueryRequest(query=[1.0, 0.0], filter=m.Filter(must=[m.HasIdCondition(has_id=[])]), limit=2),
        ],
    )


def writing(client: QdrantClient) -> Iterator[Any]:
    filled(client)
    everything = {"limit": 100, "with_vectors": True}
    twos = m.Filter(must=[m.FieldCondition(key="n", match=m.MatchValue(value=2))])
    yield client.set_payload(NAME, {"seen": True}, points=[0, UUIDS[1]])
    yield client.set_payload(NAME, {"inner": None, "other": 1.5}, points=twos, key="more.deep")
    yield client.overwrite_payload(NAME, {"only": [1]}, points=m.FilterSelector(filter=twos))
    yield client.delete_payload(NAME, ["tags"], points=m.PointIdsList(points=[4]))
    yield client.clear_payload(NAME, [6])
    yield client.update_vectors(NAME, [m.PointVectors(id=0, vector={"": [3.0, 4.0]})])
    yield client.delete_vectors(NAME, ["terms"], points=[4])
    yield client.scroll(NAME, **everything)
    yield client.upsert(NAME, m.Batch(ids=[70, 71], vectors=[[1.0, 1.0], [2.0, 1.0]], payloads=[{"a": 1}, {}]))
    yield client.upsert(NAME, [m.PointStruct(id=72, vector={}, payload={"without": "vectors"})])
    yield client.upsert(NAME, [m.PointStruct(id=0, vector=[9.0, 1.0])], update_mode=m.UpdateMode.INSERT_ONLY)
    yield client.delete(NAME, points_selector=[2, 1234])
    yield client.delete(NAME, points_selector=m.FilterSelector(filter=m.Filter(must=[m.HasIdCondition(has_id=[6])])))
    yield client.batch_update_points(
        NAME,
        [
            m.UpsertOperation(upsert=m.PointsList(points=[m.PointStruct(id=80, vector=[1.0, 0.0], payload={"b": 1})])),
            m.SetPayloadOperation(set_payload=m.SetPayload(payload={"c": 2}, points=[80])),
            m.DeleteOperation(delete=m.PointIdsList(points=[71])),
        ],
    )
    yield client.scroll(NAME, **everything)
    yield client.upsert(NAME, [m.PointStruct(id=90, vector=[1.0, 0.0])], wait=False).status is not None


def values(client: QdrantClient) -> Iterator[Any]:
    filled(client)
    client.upsert(NAME, [m.PointStruct(id=100, vector=[1.0, 0.0], payload=EVERYTHING_JSON)])
    [stored] = client.retrieve(NAME, [100])
    yield stored.payload
    yield sorted((name, type(value).__name__) for name, value in (stored.payload or {}).items())


SCENARIOS = [collections, reading, filtering, searching, writing, values]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_what_the_engine_answers_both_protocols_answer(
    connect: Connect, embedded: QdrantClient, scenario: Callable[[QdrantClient], Iterator[Any]]
) -> None:
    assert [plain(answer) for answer in scenario(connect())] == [plain(answer) for answer in scenario(embedded)]


def test_the_scenarios_ask_for_every_operation_there_is(connect: Connect, qdrant_server: StandIn) -> None:
    from qdrant_server.operations import OPERATIONS

    client = connect()
    client.info()
    for scenario in SCENARIOS:
        list(scenario(client))
        client.delete_collection(NAME)
    assert {asked.operation for asked in qdrant_server.asked} == set(OPERATIONS)


# What a client is told


def told(call: Callable[[], Any]) -> Code | str:
    """How a call ended, whatever the protocol."""
    try:
        call()
    except UnexpectedResponse as error:
        return next(code for code in Code if code.http == error.status_code)
    except ResourceExhaustedResponse as error:
        return f"wait {error.retry_after_s} s"
    except ResponseHandlingException as error:
        return "no answer" if isinstance(error.source, httpx.HTTPError) else repr(error)
    except grpc.RpcError as error:
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            return "no answer" if "ordered by" not in error.details() else Code.UNAVAILABLE
        return next(code for code in Code if code.grpc is error.code())
    return Code.OK


@pytest.mark.parametrize(
    ("call", "code", "why"),
    [
        (lambda c: c.get_collection("other"), Code.NOT_FOUND, "Collection `other` doesn't exist!"),
        (lambda c: c.count("other"), Code.NOT_FOUND, "Collection `other` doesn't exist!"),
        (lambda c: c.upsert("other", [point(1)]), Code.NOT_FOUND, "Collection `other` doesn't exist!"),
        (
            lambda c: c.create_collection(NAME, m.VectorParams(size=2, distance=m.Distance.DOT)),
            Code.ALREADY_EXISTS,
            "already exists",
        ),
        (
            lambda c: c.upsert(NAME, [m.PointStruct(id=1, vector=[1.0])]),
            Code.BAD_REQUEST,
            "Vector dimension error: expected dim: 2, got 1",
        ),
        (lambda c: c.upsert(NAME, []), Code.BAD_REQUEST, "Empty update request"),
        (lambda c: c.query_points(NAME, [1.0, 0.0], using="none"), Code.BAD_REQUEST, "none"),
        (lambda c: c.query_points(NAME, [1.0, 0.0], limit=0), Code.UNPROCESSABLE, "must be 1 or larger"),
        (lambda c: c.query_points(NAME, 404), Code.BAD_REQUEST, "404"),
        (lambda c: c.scroll(NAME, order_by="odd"), Code.BAD_REQUEST, "No range index for `order_by` key: `odd`"),
        (lambda c: c.facet(NAME, "odd"), Code.BAD_REQUEST, "No appropriate index for faceting: `odd`"),
    ],
)
def test_what_a_server_refuses(connect: Connect, call: Callable[[Any], Any], code: Code, why: str) -> None:
    client = filled(connect())
    with pytest.raises((UnexpectedResponse, grpc.RpcError)) as caught:
        call(client)
    if isinstance(caught.value, UnexpectedResponse):
        assert caught.value.status_code == code.http
        assert why in json.loads(caught.value.content)["status"]["error"]
    else:
        assert caught.value.code() is code.grpc
        assert why in caught.value.details()


def test_a_write_that_is_not_waited_for_is_only_acknowledged(connect: Connect) -> None:
    client = filled(connect())
    assert client.upsert(NAME, [point(9)], wait=False).status == m.UpdateStatus.ACKNOWLEDGED
    assert client.upsert(NAME, [point(9)], wait=True).status == m.UpdateStatus.COMPLETED


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "why"),
    [
        ("PUT", "points", '{"points": [{"id": 1, "vector": [1.0, 0.0], "payloads": {}}]}', 400, "payloads"),
        ("PUT", "points", '{"points": [{"id": -1.5, "vector": [1.0, 0.0]}]}', 400, "id"),
        ("PUT", "points", "{", 400, "Format error in JSON body"),
        ("POST", "points/count", '{"filter": {"must": [{"key": "n", "match": {"values": 1}}]}}', 400, "match"),
        ("POST", "points/scroll", '{"limit": 0}', 422, "must be 1 or larger"),
        ("POST", "points/payload", '{"payload": {"a": 1}}', 422, "points or filter"),
        ("POST", "points/nothing", "{}", 404, "nothing"),
    ],
)
def test_a_body_that_is_not_qdrants_is_refused_and_shown(
    connect: Connect, qdrant_server: StandIn, method: str, path: str, body: str, status: int, why: str
) -> None:
    filled(connect("rest"))
    answer = httpx.request(method, f"{qdrant_server.url}/collections/{NAME}/{path}", content=body)
    assert answer.status_code == status
    assert why in answer.json()["status"]["error"]


def test_probes_answer_without_a_key(qdrant_server: StandIn) -> None:
    qdrant_server.api_key = "right"
    for path, text in (
        ("healthz", "healthz check passed"),
        ("readyz", "all shards are ready"),
        ("", '"version":"1.20'),
    ):
        answer = httpx.get(f"{qdrant_server.url}/{path}")
        assert (answer.status_code, text in answer.text) == (200, True)
    assert httpx.get(f"{qdrant_server.url}/collections").status_code == 401


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
def test_the_key_is_asked_for_and_never_kept(connect: Connect, qdrant_server: StandIn) -> None:
    qdrant_server.api_key, qdrant_server.read_only_key = "secret-rw", "secret-ro"
    assert told(lambda: connect().get_collections()) is Code.UNAUTHORIZED
    assert told(lambda: connect(api_key="secret-wrong").get_collections()) is Code.UNAUTHORIZED
    filled(connect(api_key="secret-rw"))
    reader = connect(api_key="secret-ro")
    assert told(lambda: reader.count(NAME)) is Code.OK
    assert told(lambda: reader.upsert(NAME, [point(1)])) is Code.FORBIDDEN
    assert [asked.key for asked in qdrant_server.asked_for("get_collections", "count")] == [False, True, True]
    assert "secret" not in repr(qdrant_server.asked)


def test_what_was_asked_is_kept(connect: Connect, qdrant_server: StandIn, protocol: str) -> None:
    client = filled(connect())
    only = m.Filter(must=[m.FieldCondition(key="n", match=m.MatchValue(value=1))])
    client.query_batch_points(NAME, [m.QueryRequest(query=[1.0, 0.0], filter=only), m.QueryRequest(query=[0.0, 1.0])])
    client.create_collection(
        "sharded", m.VectorParams(size=2, distance=m.Distance.DOT), shard_number=4, replication_factor=2
    )
    [searched] = qdrant_server.asked_for("query_batch")
    assert (searched.protocol, searched.collection, searched.answer) == (protocol, NAME, "OK")
    assert searched.filters[0] is not None
    assert searched.filters[0].must == only.must
    assert searched.filters[1] is None
    created = qdrant_server.asked_for("create_collection")[-1].body
    assert (created.shard_number, created.replication_factor) == (4, 2)
    params = client.get_collection("sharded").config.params
    assert (params.shard_number, params.replication_factor) == (4, 2)
    [tenant, *_] = [asked.body.field_schema for asked in qdrant_server.asked_for("create_field_index")]
    assert tenant.is_tenant is True


# Faults


def test_so_many_answers_are_refused_as_a_test_orders(connect: Connect, qdrant_server: StandIn) -> None:
    client = filled(connect())
    qdrant_server.refuse(Code.UNAVAILABLE, times=2, only="count")
    answers = [told(lambda: client.count(NAME)) for _ in range(3)]
    assert answers == [Code.UNAVAILABLE, Code.UNAVAILABLE, Code.OK]
    assert [asked.answer for asked in qdrant_server.asked_for("count")] == ["UNAVAILABLE", "UNAVAILABLE", "OK"]


def test_a_limited_rate_says_how_long_to_wait(connect: Connect, qdrant_server: StandIn) -> None:
    client = filled(connect())
    qdrant_server.refuse(Code.TOO_MANY_REQUESTS, retry_after=7)
    assert told(lambda: client.count(NAME)) == "wait 7 s"
    qdrant_server.refuse(Code.TOO_MANY_REQUESTS)
    assert told(lambda: client.count(NAME)) is Code.TOO_MANY_REQUESTS


def test_a_connection_that_ends_leaves_open_whether_the_write_was_done(
    connect: Connect, qdrant_server: StandIn
) -> None:
    client = filled(connect())
    qdrant_server.cut("before", only="upsert")
    assert told(lambda: client.upsert(NAME, [point(8)])) == "no answer"
    assert client.count(NAME).count == 8
    qdrant_server.cut("after", only="upsert")
    assert told(lambda: client.upsert(NAME, [point(8)])) == "no answer"
    assert client.count(NAME).count == 9


def test_an_answer_that_is_kept_back_is_waited_for_no_longer_than_the_client_says(
    connect: Connect, qdrant_server: StandIn
) -> None:
    client = filled(connect())
    qdrant_server.hold(only="count")
    assert told(lambda: connect(timeout=1).count(NAME)) == "no answer"
    found: list[int] = []
    qdrant_server.hold(only="count")
    waiting = threading.Thread(target=lambda: found.append(client.count(NAME).count))
    waiting.start()
    with time_limit(60):
        while len(qdrant_server.asked_for("count")) < 2:
            time.sleep(0.01)
    qdrant_server.release()
    waiting.join()
    assert found == [8]


def test_a_server_that_starts_again_has_what_was_stored(connect: Connect, qdrant_server: StandIn) -> None:
    client, url = filled(connect()), qdrant_server.url
    qdrant_server.stop()
    assert told(lambda: client.count(NAME)) == "no answer"
    qdrant_server.start()
    assert qdrant_server.url == url
    with time_limit(60):
        while told(lambda: client.count(NAME)) == "no answer":  # gRPC tries to connect again now and then
            time.sleep(0.05)
    assert client.count(NAME).count == 8


# Strict mode


def test_strict_mode_refuses_a_filter_on_a_field_without_an_index(connect: Connect, qdrant_server: StandIn) -> None:
    client = filled(connect())
    qdrant_server.storage.strict_mode = CLOUD
    odd = m.Filter(should=[m.Filter(must=[m.FieldCondition(key="odd", match=m.MatchValue(value=True))])])
    user = m.Filter(must=[m.FieldCondition(key='"user"', match=m.MatchValue(value="ann"))])
    late = m.Filter(must=[m.FieldCondition(key="at", range=m.DatetimeRange(gt=datetime(2025, 5, 4, tzinfo=UTC)))])
    rare = m.SearchParams(idf=m.IdfCorpusParams(corpus=odd))
    terms = m.SparseVector(indices=[0], values=[1.0])
    searches: list[Callable[[m.Filter], Any]] = [
        lambda f: client.count(NAME, f),
        lambda f: client.scroll(NAME, f),
        lambda f: client.query_points(NAME, [1.0, 0.0], query_filter=f),
        lambda f: client.query_batch_points(NAME, [m.QueryRequest(query=[1.0, 0.0], filter=f)]),
        lambda f: client.set_payload(NAME, {"a": 1}, points=f),
        lambda f: client.delete(NAME, points_selector=m.FilterSelector(filter=f)),
    ]
    for search in searches:
        assert [told(lambda s=search, f=f: s(f)) for f in (odd, user, late)] == [Code.BAD_REQUEST, Code.OK, Code.OK]
    assert told(lambda: client.query_points(NAME, terms, using="terms", search_params=rare)) is Code.BAD_REQUEST
    with pytest.raises((UnexpectedResponse, grpc.RpcError), match="of one of the following types"):
        client.count(NAME, odd)
    client.create_payload_index(NAME, "odd", m.PayloadSchemaType.KEYWORD)
    assert told(lambda: client.count(NAME, odd)) is Code.BAD_REQUEST  # an index of another kind is none
    client.create_payload_index(NAME, "odd", m.PayloadSchemaType.BOOL)
    assert told(lambda: client.count(NAME, odd)) is Code.OK


def test_a_collection_may_have_its_own_strict_mode(connect: Connect) -> None:
    client = connect()
    for name, strict in (("open", None), ("strict", CLOUD)):
        client.create_collection(name, m.VectorParams(size=2, distance=m.Distance.DOT), strict_mode_config=strict)
    odd = m.Filter(must=[m.FieldCondition(key="odd", match=m.MatchValue(value=True))])
    assert [told(lambda n=name: client.count(n, odd)) for name in ("open", "strict")] == [Code.OK, Code.BAD_REQUEST]
    config = client.get_collection("strict").config.strict_mode_config
    assert config is not None
    assert config.unindexed_filtering_retrieve is False
    client.update_collection("strict", strict_mode_config=m.StrictModeConfig(enabled=False))
    assert told(lambda: client.count("strict", odd)) is Code.OK
