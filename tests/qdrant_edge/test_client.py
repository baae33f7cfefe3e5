"""The client's own surface: what it answers, what it refuses, and with which errors."""

from __future__ import annotations

import hashlib
import inspect
import subprocess
import sys
import tarfile
import warnings
from typing import Any

import numpy as np
import pytest
from edge_helpers import ROOT, bytes_under, points, small
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client import models as m
from qdrant_client.async_client_base import AsyncQdrantBase
from qdrant_client.client_base import QdrantBase
from qdrant_client.http.models import QueryResponse

from memory_integrations.errors import StoreCorruptedError, StoreUnavailableError
from memory_integrations.qdrant_edge import (
    AsyncQdrantEdgeClient,
    EdgeBackend,
    InferenceRequired,
    QdrantEdgeClient,
    configs,
)
from memory_integrations.qdrant_edge.aclient import AsyncEdgeBackend
from memory_integrations.qdrant_edge.backend import SERVER_ONLY
from memory_integrations.qdrant_edge.errors import unsupported
from memory_integrations.qdrant_edge.store import Store

RED = m.Filter(must=[m.FieldCondition(key="color", match=m.MatchValue(value="red"))])


def several(client: Any) -> None:
    """Create a collection with a vector of every kind."""
    client.create_collection(
        "c",
        {
            "d": m.VectorParams(size=2, distance=m.Distance.DOT),
            "mv": m.VectorParams(
                size=2,
                distance=m.Distance.DOT,
                multivector_config=m.MultiVectorConfig(comparator=m.MultiVectorComparator.MAX_SIM),
            ),
        },
        sparse_vectors_config={"s": m.SparseVectorParams()},
    )


def public(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}


class TestSurface:
    def test_it_is_a_qdrant_client(self, client):
        assert isinstance(client, QdrantClient)
        assert isinstance(client.as_async(), AsyncQdrantClient)

    def test_importing_the_package_imports_neither_library(self):
        script = (
            "import sys, memory_integrations.qdrant_edge as e; dir(e); "
            "assert not {'qdrant_client', 'qdrant_edge', 'langchain_core'} & set(sys.modules); "
            "from memory_integrations.qdrant_edge import Bm25Encoder; "
            "assert 'qdrant_client' not in sys.modules and 'langchain_core' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)

    def test_unknown_names_of_the_package(self):
        import memory_integrations.qdrant_edge as package

        with pytest.raises(AttributeError, match="nothing_like_it"):
            package.nothing_like_it  # noqa: B018

    def test_the_backend_answers_every_method_of_qdrant_client_s(self):
        unanswered = {name for name in public(QdrantBase) if name not in vars(EdgeBackend)}
        assert unanswered == set(), "QdrantBase has grown methods that EdgeBackend neither serves nor refuses"

    def test_the_asynchronous_backend_answers_every_method(self):
        unanswered = {name for name in public(AsyncQdrantBase) if name not in vars(AsyncEdgeBackend)}
        assert unanswered == set()

    def test_the_backend_takes_every_argument_of_qdrant_client_s(self):
        for name in public(QdrantBase):
            theirs = inspect.signature(getattr(QdrantClient, name, getattr(QdrantBase, name))).parameters
            ours = inspect.signature(getattr(EdgeBackend, name)).parameters
            open_ended = any(p.kind is p.VAR_KEYWORD for p in ours.values())
            assert open_ended or theirs.keys() - {"kwargs"} <= ours.keys(), name

    @pytest.mark.parametrize("name", ["query_points", "query_batch_points", "upsert"])
    def test_the_direct_methods_take_positional_arguments_in_the_same_order(self, name):
        theirs = [p for p in inspect.signature(getattr(QdrantClient, name)).parameters if p != "kwargs"]
        ours = list(inspect.signature(getattr(EdgeBackend, name)).parameters)
        assert ours[: len(theirs)] == theirs

    @pytest.mark.parametrize("name", SERVER_ONLY)
    def test_what_needs_a_server_says_so(self, client, name):
        arguments = {
            parameter.name: 1
            for parameter in inspect.signature(getattr(QdrantClient, name)).parameters.values()
            if parameter.default is parameter.empty and parameter.name not in ("self", "kwargs")
        }
        with pytest.raises(NotImplementedError, match=rf"{name}.*QdrantClient\(url="):
            getattr(client, name)(**arguments)

    def test_results_are_of_qdrant_client_s_own_types(self, client):
        local = QdrantClient(":memory:")
        for each in (client, local):
            small(each, count=3)
        calls: list[tuple[str, tuple[Any, ...]]] = [
            ("query_points", ("c", [1.0, 1.0])),
            ("query_batch_points", ("c", [m.QueryRequest(query=[1.0, 1.0])])),
            ("query_points_groups", ("c", "n", [1.0, 1.0])),
            ("retrieve", ("c", [1])),
            ("scroll", ("c",)),
            ("count", ("c",)),
            ("facet", ("c", "n")),
            ("search_matrix_pairs", ("c",)),
            ("search_matrix_offsets", ("c",)),
            ("upsert", ("c", points([1]))),
            ("set_payload", ("c", {"a": 1}, [1])),
            ("delete", ("c", [2])),
            ("get_collection", ("c",)),
            ("get_collections", ()),
            ("get_aliases", ()),
            ("info", ()),
        ]
        for name, arguments in calls:
            edge, same = getattr(client, name)(*arguments), getattr(local, name)(*arguments)
            assert type(edge) is type(same), name
            if isinstance(edge, list | tuple):
                assert [type(each) for each in edge] == [type(each) for each in same], name
            if hasattr(edge, "model_dump"):
                assert edge.model_dump().keys() == same.model_dump().keys()
        found = client.query_points("c", [1.0, 1.0])
        assert type(found) is QueryResponse
        assert found == QueryResponse(**found.model_dump())
        assert "points=" in repr(found)
        assert found.points[0] == m.ScoredPoint(**found.points[0].model_dump())
        copy = found.model_copy(deep=True)
        copy.points[0].payload["n"] = "changed"
        copy.points[0].shard_key = "k"
        assert found.points[0].payload["n"] != "changed"
        assert found.points[1].shard_key is None

    def test_the_repr_of_init_options_makes_another_client(self, client, directory):
        assert client.init_options == {"path": directory}


class TestErrors:
    def test_a_missing_collection_is_the_local_mode_s_error(self, client):
        local = QdrantClient(":memory:")
        calls: list[tuple[str, tuple[Any, ...]]] = [
            ("query_points", ("nope", [1.0])),
            ("query_batch_points", ("nope", [m.QueryRequest(query=[1.0])])),
            ("upsert", ("nope", points([1]))),
            ("retrieve", ("nope", [1])),
            ("scroll", ("nope",)),
            ("count", ("nope",)),
            ("delete", ("nope", [1])),
            ("get_collection", ("nope",)),
            ("create_payload_index", ("nope", "f", "keyword")),
            ("update_collection", ("nope",)),
        ]
        for name, arguments in calls:
            with pytest.raises(ValueError) as theirs:
                getattr(local, name)(*arguments)
            with pytest.raises(type(theirs.value)) as ours:
                getattr(client, name)(*arguments)
            assert str(ours.value) == str(theirs.value) == "Collection nope not found"

    @pytest.mark.parametrize(
        ("name", "arguments"),
        [
            ("query_points", {"query": [1.0]}),
            ("query_points", {"query": [1.0, 1.0], "using": "nope"}),
            ("query_points", {"query": [[1.0, 1.0]]}),
            ("query_points", {"query": m.SparseVector(indices=[1], values=[1.0])}),
            ("query_points", {"query": 77}),
            ("query_points", {"query": [1.0, 1.0], "limit": 0}),
            ("query_points", {"query": [1.0, 1.0], "offset": -1}),
            ("query_points", {"score_threshold": 0.5}),
            ("query_points", {"prefetch": [m.Prefetch(query=[1.0, 1.0])]}),
            ("query_points", {"prefetch": [m.Prefetch(query=[1.0, 1.0], limit=0)], "query": [1.0, 1.0]}),
            ("query_points", {"query": m.FusionQuery(fusion=m.Fusion.RRF)}),
            ("query_points", {"query": m.RrfQuery(rrf=m.Rrf())}),
            ("query_points", {"query": m.FormulaQuery(formula=1.0)}),
            ("query_points", {"query": m.RrfQuery(rrf=m.Rrf(k=0)), "prefetch": [m.Prefetch(query=[1.0, 1.0])]}),
            (
                "query_points",
                {"query": m.FusionQuery(fusion=m.Fusion.RRF), "prefetch": [m.Prefetch(query=[1.0, 1.0])], "using": "x"},
            ),
            (
                "query_points",
                {"query": m.RrfQuery(rrf=m.Rrf(weights=[1.0, 2.0])), "prefetch": [m.Prefetch(query=[1.0, 1.0])]},
            ),
            ("query_points", {"query": m.NearestQuery(nearest=[1.0, 1.0], mmr=m.Mmr(diversity=2.0))}),
            ("query_points", {"query": m.NearestQuery(nearest=[1.0, 1.0], mmr=m.Mmr(candidates_limit=99_999))}),
            ("query_points", {"query": m.RecommendQuery(recommend=m.RecommendInput(positive=[]))}),
            ("query_points", {"query": [1.0, 1.0], "with_payload": "n"}),
            ("query_points", {"query": [1.0, 1.0], "with_vectors": "n"}),
            ("query_points", {"query": m.TextQuery(text="x")}),
            ("query_points", {"query": m.TextQuery(text="x"), "using": "text"}),
            (
                "query_points",
                {"query_filter": m.Filter(min_should=m.MinShould(conditions=[], min_count=0))},
            ),
            ("query_points", {"query": 1, "lookup_from": m.LookupLocation(collection="nope")}),
            ("query_points_groups", {"group_by": "n", "query": [1.0, 1.0], "limit": 0}),
            ("query_points_groups", {"group_by": "n", "query": [1.0, 1.0], "group_size": 0}),
            ("scroll", {"limit": 0}),
            ("scroll", {"order_by": "n", "offset": 1}),
            ("facet", {"key": "n", "limit": 0}),
            ("search_matrix_pairs", {"limit": 0}),
            ("search_matrix_pairs", {"sample": 1}),
            ("upsert", {"points": []}),
            ("upsert", {"points": [m.PointStruct(id=1, vector=[1.0])]}),
            ("upsert", {"points": [m.PointStruct(id=1, vector=[])]}),
            ("upsert", {"points": [m.PointStruct(id=1, vector=[float("nan"), 1.0])]}),
            ("upsert", {"points": [m.PointStruct(id=1, vector={"x": [1.0, 1.0]})]}),
            ("upsert", {"points": [m.PointStruct(id="not-a-uuid", vector=[1.0, 1.0])]}),
            ("upsert", {"points": [m.PointStruct(id=1, vector={"": m.SparseVector(indices=[1], values=[1.0])})]}),
            ("upsert", {"points": m.Batch(ids=[1, 2], vectors=[[1.0, 1.0]])}),
            ("delete", {"points_selector": []}),
            ("delete", {"points_selector": m.PointIdsList(points=[])}),
            ("set_payload", {"payload": {"a": 1}, "points": [99]}),
            ("overwrite_payload", {"payload": {"a": 1}, "points": [99]}),
            ("clear_payload", {"points_selector": [99]}),
            ("delete_payload", {"keys": ["a"], "points": [99]}),
            ("set_payload", {"payload": {"a": 1}, "points": [1], "key": "a..b"}),
            ("delete_payload", {"keys": ["a..b"], "points": [1]}),
            ("update_vectors", {"points": []}),
            ("update_vectors", {"points": [m.PointVectors(id=99, vector=[1.0, 1.0])]}),
            ("update_vectors", {"points": [m.PointVectors(id=1, vector={"x": [1.0, 1.0]})]}),
            ("delete_vectors", {"vectors": [], "points": [1]}),
            ("delete_vectors", {"vectors": ["x"], "points": [1]}),
            ("delete_vectors", {"vectors": [""], "points": [99]}),
            ("batch_update_points", {"update_operations": [m.DeleteOperation(delete=m.PointIdsList(points=[]))]}),
            (
                "batch_update_points",
                {"update_operations": [m.SetPayloadOperation(set_payload=m.SetPayload(payload={"a": 1}))]},
            ),
            ("delete_vector_name", {"vector_name": ""}),
            (
                "create_vector_name",
                {
                    "vector_name": "",
                    "vector_name_config": m.DenseVectorNameConfig(dense=m.DenseVectorConfig(size=3, distance="Dot")),
                },
            ),
            ("create_vector_name", {"vector_name": "a/b", "vector_name_config": m.SparseVectorNameConfig(sparse={})}),
        ],
    )
    def test_bad_arguments_raise_what_the_local_mode_raises(self, client, name, arguments):
        local = QdrantClient(":memory:")
        for each in (client, local):
            small(each, count=3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises((ValueError, KeyError)) as theirs:
                getattr(local, name)("c", **arguments)
        with pytest.raises(type(theirs.value)):
            getattr(client, name)("c", **arguments)
        assert client.scroll("c") == local.scroll("c")

    @pytest.mark.parametrize(
        "arguments",
        [
            {"vectors_config": m.VectorParams(size=0, distance="Dot")},
            {"vectors_config": m.VectorParams(size=70_000, distance="Dot")},
            {"vectors_config": {"a:b": m.VectorParams(size=1, distance="Dot")}},
            {"vectors_config": {"x" * 201: m.VectorParams(size=1, distance="Dot")}},
            {"vectors_config": {}, "sparse_vectors_config": {"": m.SparseVectorParams()}},
            {"collection_name": "taken", "vectors_config": {}},
            {"collection_name": "nick", "vectors_config": {}},
        ],
    )
    def test_bad_collections_raise_what_the_local_mode_raises(self, client, arguments):
        local = QdrantClient(":memory:")
        for each in (client, local):
            small(each, "taken")
            each.update_collection_aliases(
                [m.CreateAliasOperation(create_alias=m.CreateAlias(collection_name="taken", alias_name="nick"))]
            )
            with pytest.raises(ValueError):
                each.create_collection(**{"collection_name": "new", **arguments})
        assert client.get_collections() == local.get_collections()

    @pytest.mark.parametrize(
        "vector",
        [
            {"s": m.SparseVector(indices=[1, 2], values=[1.0])},
            {"s": m.SparseVector(indices=[1, 1], values=[1.0, 2.0])},
            {"s": m.SparseVector(indices=[-1], values=[1.0])},
            {"s": m.SparseVector(indices=[2**32], values=[1.0])},
            {"s": m.SparseVector(indices=[1], values=[float("nan")])},
            {"s": [1.0, 2.0]},
            {"d": m.SparseVector(indices=[1], values=[1.0])},
            {"d": [1.0]},
            {"d": []},
            {"d": [[1.0, 2.0]]},
            {"d": [[1.0], [2.0]]},
            {"d": [1.0, float("nan")]},
            {"mv": []},
            {"mv": [[]]},
            {"mv": [[1.0]]},
            {"mv": [[1.0, float("nan")]]},
            {"nope": [1.0, 2.0]},
            [1.0, 2.0],
        ],
        ids=str,
    )
    def test_vectors_that_do_not_fit_are_refused_as_by_the_local_mode(self, client, vector):
        local = QdrantClient(":memory:")
        for each in (client, local):
            several(each)
            with pytest.raises(ValueError):
                each.upsert("c", [m.PointStruct(id=1, vector=vector)])
            with pytest.raises(ValueError):
                each.update_vectors("c", [m.PointVectors(id=1, vector=vector)])
            assert each.count("c").count == 0

    @pytest.mark.parametrize("point", [-1, 2**64, "x", 1.5])
    def test_ids_that_are_none(self, client, point):
        small(client)
        with pytest.raises((ValueError, TypeError)):
            client.upsert("c", [m.PointStruct.model_construct(id=point, vector=[1.0, 1.0], payload=None)])
        assert client.count("c").count == 0

    def test_what_is_no_condition_match_or_expression_is_named(self, client):
        small(client, count=1)
        for wrong in (
            m.Filter.model_construct(must=["color"]),
            m.Filter(must=[m.FieldCondition.model_construct(key="n", match="red")]),
            "color",
        ):
            with pytest.raises(ValueError, match=r"condition|filter"):
                client.count("c", wrong)
        formula = m.FormulaQuery.model_construct(formula=object(), defaults={})
        with pytest.raises(ValueError, match="Unsupported expression"):
            client.query_points("c", formula, prefetch=[m.Prefetch(query=[1.0, 1.0])])
        with pytest.raises(ValueError, match="Unsupported query type"):
            client.query_points("c", {"vector": 1})
        with pytest.raises(ValueError, match="Unsupported update operation"):
            client.batch_update_points("c", ["delete everything"])
        for selector in ("all", None):
            with pytest.raises(ValueError, match="Unsupported selector"):
                client.delete("c", selector)
        assert client.count("c").count == 1

    def test_nothing_of_a_batch_with_a_bad_point_is_written(self, client):
        small(client, count=2)
        bad = [*points(range(10, 400)), m.PointStruct(id=5, vector=[1.0])]
        with pytest.raises(ValueError, match="dimension"):
            client.upsert("c", bad)
        with pytest.raises(ValueError, match="UUID"):
            client.batch_update_points(
                "c",
                [
                    m.DeleteOperation(delete=m.PointIdsList(points=[0])),
                    m.UpsertOperation(upsert=m.PointsList(points=[m.PointStruct(id="x", vector=[1.0, 1.0])])),
                ],
            )
        assert client.count("c").count == 2

    def test_a_missing_point_is_named_once_the_others_are_done(self, client):
        small(client, count=3)
        with pytest.raises(KeyError, match="77"):
            client.set_payload("c", {"seen": True}, [0, 77, 2])
        assert [record.payload.get("seen") for record in client.scroll("c")[0]] == [True, None, True]

    def test_unknown_arguments_are_refused(self, client):
        small(client)
        for name, arguments in [
            ("query_points", {"query": [1.0, 1.0]}),
            ("query_batch_points", {"requests": []}),
            ("upsert", {"points": points([1])}),
            ("scroll", {}),
            ("update_collection", {}),
        ]:
            with pytest.raises((TypeError, AssertionError), match="Unknown arguments"):
                getattr(client, name)("c", **arguments, wrong=1)
        with pytest.raises(TypeError, match="Unknown arguments of count"):
            client._client.count("c", wrong=1)

    @pytest.mark.parametrize(
        ("name", "arguments"),
        [
            ("query_points", {"query": [1.0, 1.0], "shard_key_selector": "k"}),
            ("upsert", {"points": points([1]), "shard_key_selector": "k"}),
            ("delete", {"points_selector": [1], "shard_key_selector": "k"}),
            ("query_points", {"query_filter": m.Filter(must=[m.SliceCondition(slice=m.Slice(total=2, index=0))])}),
            ("update_collection", {"strict_mode_config": m.StrictModeConfig(enabled=True)}),
            ("recover_snapshot", {"location": "http://somewhere/snapshot"}),
        ],
    )
    def test_what_only_a_server_keeps_is_not_ignored(self, client, name, arguments):
        small(client, count=2)
        with pytest.raises(NotImplementedError, match=r"QdrantClient\(url="):
            getattr(client, name)("c", **arguments)

    def test_custom_shards_and_strict_mode_are_not_ignored(self, client):
        params = m.VectorParams(size=1, distance=m.Distance.DOT)
        for option in ({"sharding_method": m.ShardingMethod.CUSTOM}, {"strict_mode_config": m.StrictModeConfig()}):
            with pytest.raises(NotImplementedError, match=r"QdrantClient\(url="):
                client.create_collection("c", params, **option)

    def test_cluster_options_that_steer_nothing_are_accepted(self, client):
        small(client, count=2)
        client.upsert("c", points([5]), wait=False, ordering=m.WriteOrdering.STRONG, timeout=3)
        client.query_points("c", [1.0, 1.0], consistency="all", timeout=3)
        client.delete("c", [5], True, m.WriteOrdering.WEAK)
        client.upsert("c", points([6]), False)
        assert client.count("c").count == 3

    def test_documents_ask_for_a_vector(self, client):
        small(client, count=1)
        document = m.Document(text="hello", model="some/model")
        with pytest.raises(InferenceRequired, match=r"models\.Document"):
            client.query_points("c", document)
        with pytest.raises(InferenceRequired, match=r"models\.Document"):
            client.upsert("c", [m.PointStruct(id=1, vector=document)])
        with pytest.raises(InferenceRequired, match=r"models\.Document"):
            client.query_batch_points("c", [m.QueryRequest(query=m.NearestQuery(nearest=document))])

    def test_documents_are_embedded_where_fastembed_is_installed(self, client, monkeypatch):
        small(client, count=3)
        monkeypatch.setattr(QdrantEdgeClient, "_FASTEMBED_INSTALLED", True)

        def embed(self, given, **options):
            for each in [given] if isinstance(given, m.NearestQuery | m.PointStruct) else given:
                if isinstance(each, m.NearestQuery):
                    yield m.NearestQuery(nearest=[1.0, 0.0])
                else:
                    yield m.PointStruct(id=each.id, vector=[9.0, 0.0], payload=each.payload)

        monkeypatch.setattr(QdrantClient, "_embed_models", embed)
        document = m.Document(text="hello", model="some/model")
        client.upsert("c", [m.PointStruct(id=9, vector=document)])
        assert client.query_points("c", document, limit=1).points[0].id == 9

    def test_a_full_disk_is_told(self, client, monkeypatch):
        small(client)
        collection = client._client._collection("c")

        class Full:
            def update(self, operation):
                raise Exception("Service runtime error: IO Error: No space left on device (os error 28)")

        monkeypatch.setattr(collection, "_shard", Full())
        with pytest.raises(StoreUnavailableError, match="No space left") as caught:
            client.upsert("c", points([1]))
        assert str(collection.path) in str(caught.value)
        assert isinstance(caught.value.__cause__, Exception)

    def test_every_refusal_names_the_call_and_the_way_out(self):
        assert str(unsupported("this()")).startswith("this() is not served by the embedded engine: use a Qdrant server")


class TestReading:
    def test_scores_alone(self, client):
        small(client, count=5)
        client.upsert("c", [m.PointStruct(id="00000000-0000-0000-0000-0000000000ff", vector=[9.0, 0.0])])
        requests = [m.QueryRequest(query=[1.0, 0.0], limit=3), m.QueryRequest(query=4, limit=2)]
        full = client.query_batch_points("c", requests)
        scores = client.query_scores("c", requests)
        assert scores == [{255: 9.0, 4: 4.0, 3: 3.0}, {255: 36.0, 3: 13.0}]
        assert [list(each.values()) for each in scores] == [[p.score for p in each.points] for each in full]

    def test_plain_dictionaries_stand_for_models(self, client):
        small(client, count=5)
        only = {"must": [{"key": "n", "range": {"gte": 3}}]}
        found = client.query_points("c", [1.0, 0.0], query_filter=only, search_params={"exact": True})
        assert [point.id for point in found.points] == [4, 3]

    def test_formula_defaults_may_be_dates_and_places(self, client):
        import datetime

        small(client, count=2)
        found = client.query_points(
            "c",
            m.FormulaQuery(
                formula=m.SumExpression(
                    sum=[
                        m.GeoDistance(geo_distance=m.GeoDistanceParams(origin=m.GeoPoint(lon=0.0, lat=0.0), to="at")),
                        m.DivExpression(div=m.DivParams(left=m.DatetimeKeyExpression(datetime_key="day"), right=1e9)),
                    ]
                ),
                defaults={"at": m.GeoPoint(lon=0.0, lat=0.0), "day": datetime.date(2001, 9, 9)},
            ),
            prefetch=[m.Prefetch(query=[1.0, 0.0])],
        )
        assert [point.score for point in found.points] == pytest.approx([1.0, 1.0], abs=1e-3)

    def test_text_queries_take_their_own_parameters(self, client):
        small(client)
        client.create_payload_index("c", "text", m.TextIndexParams(type="text", scoring=True))
        client.upsert(
            "c",
            [
                m.PointStruct(id=n, vector=[1.0, 1.0], payload={"text": text})
                for n, text in enumerate(["red sea", "red red red sea and more words", "blue"])
            ],
        )
        flat = m.TextQueryInput(query="red", scoring=m.Bm25Scoring(bm25=m.Bm25Params(k=0.0)))
        scores = [p.score for p in client.query_points("c", m.TextQuery(text=flat), using="text").points]
        assert len(scores) == 2
        assert scores[0] == pytest.approx(scores[1])

    def test_p21_nothing_the_caller_gave_is_changed(self, client):
        client.create_collection(
            "c",
            m.VectorParams(size=2, distance=m.Distance.COSINE),
            sparse_vectors_config={"s": m.SparseVectorParams(modifier=m.Modifier.IDF)},
        )
        given = [
            m.PointStruct(
                id=n,
                vector={"": [3.0, 4.0], "s": m.SparseVector(indices=[9, 1], values=[1.0, 2.0])},
                payload={"color": "red", "tags": ("a", "b")},
            )
            for n in range(3)
        ]
        before = [point.model_copy(deep=True) for point in given]
        client.upsert("c", given)
        assert given == before
        request = m.QueryRequest(
            query=1,
            prefetch=m.Prefetch(query=2, filter=RED, prefetch=[m.Prefetch(query=[1.0, 1.0])]),
            filter=RED,
            params=m.SearchParams(idf=None),
        )
        copy = request.model_copy(deep=True)
        client.query_batch_points("c", [request])
        client.query_points("c", 1, prefetch=request.prefetch, query_filter=request.filter)
        client.query_points_groups("c", "color", 1, prefetch=request.prefetch, query_filter=request.filter)
        client.search_matrix_pairs("c", query_filter=request.filter)
        assert request == copy

    def test_a_point_in_the_query_is_kept_out_of_the_results(self, client):
        small(client, count=5)
        assert [p.id for p in client.query_points("c", 4, limit=2).points] == [3, 2]
        recommended = m.RecommendQuery(recommend=m.RecommendInput(positive=[4], negative=[0]))
        assert {p.id for p in client.query_points("c", recommended).points} == {1, 2, 3}

    def test_vectors_are_looked_up_in_another_collection(self, client):
        small(client, count=5)
        client.create_collection("other", {"v": m.VectorParams(size=2, distance=m.Distance.DOT)})
        client.upsert("other", [m.PointStruct(id=4, vector={"v": [1.0, 0.0]}), m.PointStruct(id=5, vector={})])
        there = m.LookupLocation(collection="other", vector="v")
        assert client.query_points("c", 4, lookup_from=there, limit=1).points[0].id == 4
        with pytest.raises(ValueError, match="Vector with name v for point 5 not found"):
            client.query_points("c", 5, lookup_from=there)

    def test_numpy_vectors(self, client):
        small(client, count=3)
        assert client.query_points("c", np.array([1.0, 0.0]), limit=1).points[0].id == 2
        client.upsert("c", [m.PointStruct.model_construct(id=7, vector=np.array([9.0, 9.0]), payload=None)])
        assert client.query_points("c", np.array([1.0, 0.0], dtype=np.float32), limit=1).points[0].id == 7

    @pytest.mark.parametrize(
        "spelling",
        [
            "0b6f7ae0-1d4b-4c3e-9f3a-5d1c2b3a4f5e",
            "0B6F7AE0-1D4B-4C3E-9F3A-5D1C2B3A4F5E",
            "0b6f7ae01d4b4c3e9f3a5d1c2b3a4f5e",
            "urn:uuid:0b6f7ae0-1d4b-4c3e-9f3a-5d1c2b3a4f5e",
        ],
    )
    def test_uuids_come_back_in_one_spelling(self, client, spelling):
        small(client)
        client.upsert("c", [m.PointStruct(id=spelling, vector=[1.0, 1.0])])
        (record,) = client.retrieve("c", [spelling])
        assert record.id == "0b6f7ae0-1d4b-4c3e-9f3a-5d1c2b3a4f5e"
        assert client.count("c", m.Filter(must=[m.HasIdCondition(has_id=[spelling])])).count == 1
        assert client.query_points("c", [1.0, 1.0]).points[0].id == record.id

    def test_the_largest_integer_id(self, client):
        small(client)
        client.upsert("c", [m.PointStruct(id=2**64 - 1, vector=[1.0, 1.0])])
        assert client.scroll("c")[0][0].id == 2**64 - 1

    def test_a_payload_that_could_not_be_read_back_is_refused(self, client):
        """Else nothing could be scrolled, deleted or purged any more, in the whole collection."""

        def nested(levels):
            return {"a": [] if levels == 2 else nested(levels - 1)} if levels > 1 else {}

        small(client)
        client.upsert("c", [m.PointStruct(id=1, vector=[1.0, 1.0], payload=nested(126))])
        for write in (
            lambda: client.upsert("c", [m.PointStruct(id=2, vector=[1.0, 1.0], payload=nested(127))]),
            lambda: client.set_payload("c", nested(127), points=[1]),
            lambda: client.overwrite_payload("c", nested(500), points=[1]),
        ):
            with pytest.raises(ValueError, match="nested deeper than 126 levels"):
                write()
        assert client.retrieve("c", [1])[0].payload == nested(126)
        client.delete("c", m.PointIdsList(points=[1]))
        client.purge("c")

    def test_payloads_are_stored_as_json(self, client):
        import datetime
        import uuid

        small(client)
        payload = {
            "when": datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.UTC),
            "day": datetime.date(2024, 5, 1),
            "uuid": uuid.UUID(int=1),
            "tuple": (1, "a"),
            1: "integer key",
            "big": 2**63,
            "nested": {"list": [None, True, 1.5, {"x": []}]},
        }
        client.upsert("c", [m.PointStruct.model_construct(id=1, vector=[1.0, 1.0], payload=payload)])
        assert client.retrieve("c", [1])[0].payload == {
            "when": "2024-05-01T12:00:00Z",
            "day": "2024-05-01",
            "uuid": "00000000-0000-0000-0000-000000000001",
            "tuple": [1, "a"],
            "1": "integer key",
            "big": 2**63,
            "nested": {"list": [None, True, 1.5, {"x": []}]},
        }
        client.set_payload("c", {"when": datetime.date(2025, 1, 1), "day": None}, [1])
        stored = client.retrieve("c", [1])[0].payload
        assert stored["when"] == "2025-01-01"
        assert "day" not in stored

    def test_p29_listing_goes_through_every_page(self, client):
        small(client, count=0)
        client.upsert("c", points(range(2_250)))
        seen, offset = [], None
        while True:
            page, offset = client.scroll("c", limit=250, offset=offset)
            seen += [record.id for record in page]
            if offset is None:
                break
        assert seen == list(range(2_250))
        assert [record.id for record in client.scroll("c", limit=5_000)[0]] == seen
        assert len(client.retrieve("c", seen)) == 2_250

    def test_an_order_of_an_unindexed_field_goes_through_every_page(self, client):
        small(client)
        client.upsert("c", [m.PointStruct(id=n, vector=[1.0, 1.0], payload={"rank": -n}) for n in range(1_500)])
        first = [record.id for record in client.scroll("c", order_by="rank", limit=3)[0]]
        client.create_payload_index("c", "rank", m.PayloadSchemaType.INTEGER)
        assert first == [record.id for record in client.scroll("c", order_by="rank", limit=3)[0]] == [1499, 1498, 1497]

    def test_an_index_that_cannot_be_used_is_not(self, client):
        small(client)
        client.upsert("c", [m.PointStruct(id=n, vector=[1.0, 1.0], payload={"n": n % 3}) for n in range(9)])
        client.create_payload_index("c", "n", m.IntegerIndexParams(type="integer", lookup=False, range=True))
        assert [(hit.value, hit.count) for hit in client.facet("c", "n").hits] == [(0, 3), (1, 3), (2, 3)]
        client.create_payload_index("c", "n", m.IntegerIndexParams(type="integer", lookup=True, range=False))
        assert client.scroll("c", order_by="n", limit=1)[0][0].order_value == 0

    def test_an_order_inside_a_prefetch_needs_an_index(self, client):
        small(client, count=5)
        request = {
            "prefetch": [m.Prefetch(query=m.OrderByQuery(order_by="n"), limit=2)],
            "query": m.FusionQuery(fusion=m.Fusion.RRF),
        }
        with pytest.raises(ValueError, match="No range index"):
            client.query_points("c", **request)
        client.create_payload_index("c", "n", m.PayloadSchemaType.INTEGER)
        assert {point.id for point in client.query_points("c", **request).points} == {0, 1}

    def test_feedback_works_for_every_kind_of_vector(self, client):
        client.create_collection(
            "c",
            {
                "mv": m.VectorParams(
                    size=2,
                    distance="Dot",
                    multivector_config=m.MultiVectorConfig(comparator=m.MultiVectorComparator.MAX_SIM),
                )
            },
            sparse_vectors_config={"s": m.SparseVectorParams()},
        )
        sparse = [m.SparseVector(indices=[n, 9], values=[1.0, n]) for n in range(4)]
        client.upsert("c", [m.PointStruct(id=n, vector={"mv": [[n, 1.0]], "s": sparse[n]}) for n in range(4)])
        strategy = m.NaiveFeedbackStrategy(naive=m.NaiveFeedbackStrategyParams(a=1.0, b=1.0, c=1.0))
        for name, target in (("mv", [[1.0, 0.0]]), ("s", sparse[3])):
            query = m.RelevanceFeedbackQuery(
                relevance_feedback=m.RelevanceFeedbackInput(
                    target=target, feedback=[m.FeedbackItem(example=0, score=0.5)], strategy=strategy
                )
            )
            assert {point.id for point in client.query_points("c", query, using=name).points} == {1, 2, 3}

    def test_groups_beyond_the_first_hits_are_found(self, client):
        small(client)
        given = [m.PointStruct(id=n, vector=[500.0 - n, 0.0], payload={"g": "big"}) for n in range(400)]
        given += [m.PointStruct(id=n, vector=[600.0 - n, 0.0], payload={"g": f"g{n % 3}"}) for n in range(590, 600)]
        client.upsert("c", given)
        found = client.query_points_groups("c", "g", [1.0, 0.0], limit=3, group_size=2, with_payload=False)
        assert [(group.id, [hit.id for hit in group.hits]) for group in found.groups] == [
            ("big", [0, 1]),
            ("g2", [590, 593]),
            ("g0", [591, 594]),
        ]
        assert found.groups[0].hits[0].payload is None

    def test_the_idf_of_a_corpus_is_the_corpus_s(self, client):
        client.create_collection("c", {}, sparse_vectors_config={"s": m.SparseVectorParams(modifier=m.Modifier.IDF)})
        colors = ["red"] * 2 + ["blue"] * 8
        client.upsert(
            "c",
            [
                m.PointStruct(
                    id=n,
                    vector={"s": m.SparseVector(indices=[1 if color == "red" else 2, 3], values=[1.0, 1.0])},
                    payload={"color": color},
                )
                for n, color in enumerate(colors)
            ],
        )
        query = m.SparseVector(indices=[1], values=[1.0])
        everywhere = client.query_points("c", query, using="s", query_filter=RED).points[0].score
        within = m.SearchParams(idf=m.IdfCorpusParams(corpus=RED))
        inside = client.query_points("c", query, using="s", query_filter=RED, search_params=within).points[0].score
        assert everywhere == pytest.approx(np.log((10 - 2 + 0.5) / 2.5 + 1), abs=1e-5)
        assert inside == pytest.approx(np.log((2 - 2 + 0.5) / 2.5 + 1), abs=1e-5)


class TestWriting:
    def test_a_batch_of_columns(self, client):
        small(client)
        client.upsert("c", m.Batch(ids=[1, 2], vectors=[[1.0, 0.0], [0.0, 1.0]], payloads=[{"a": 1}, {}]))
        client.upsert("c", m.Batch(ids=[3], vectors=[[1.0, 0.0]]))
        assert [(r.id, r.payload) for r in client.scroll("c")[0]] == [(1, {"a": 1}), (2, {}), (3, {})]

    def test_upload_points_and_collections(self, client):
        client.create_collection(
            "c",
            {"a": m.VectorParams(size=2, distance="Dot"), "b": m.VectorParams(size=1, distance="Dot")},
        )
        client.upload_points(
            "c", (m.PointStruct(id=n, vector={"a": [n, 1.0]}, payload={"n": n}) for n in range(300)), batch_size=32
        )
        client.upload_collection(
            "c",
            {"a": np.ones((50, 2)), "b": np.zeros((50, 1))},
            payload=({"k": n} for n in range(50)),
            ids=range(300, 350),
        )
        client.upload_collection("c", [{"a": [1.0, 2.0]}], wait=True)
        client.upload_points("c", [])
        assert client.count("c").count == 351
        assert client.retrieve("c", [310])[0].payload == {"k": 10}
        with pytest.raises(ValueError, match="same number"):
            client.upload_collection("c", {"a": np.ones((2, 2)), "b": np.zeros((3, 1))})

    def test_conditional_upserts(self, client):
        small(client)
        client.upsert("c", [m.PointStruct(id=1, vector=[1.0, 1.0], payload={"color": "blue"})])
        new = [m.PointStruct(id=n, vector=[2.0, 2.0], payload={"color": "new"}) for n in (1, 2)]
        client.upsert("c", new, update_filter=RED)
        assert [r.payload["color"] for r in client.scroll("c")[0]] == ["blue", "new"]
        client.upsert("c", [m.PointStruct(id=3, vector=[1.0, 1.0])], update_mode=m.UpdateMode.UPDATE_ONLY)
        client.upsert("c", [m.PointStruct(id=1, vector=[1.0, 1.0])], update_mode="insert_only")
        assert [r.payload for r in client.scroll("c")[0]] == [{"color": "blue"}, {"color": "new"}]

    def test_p11_updating_a_field_keeps_the_others(self, client):
        small(client, count=1)
        client.set_payload("c", {"new": {"deep": 1}}, [0])
        client.set_payload("c", {"more": 2}, [0], key="new")
        client.update_vectors("c", [m.PointVectors(id=0, vector=[5.0, 5.0])])
        (record,) = client.retrieve("c", [0], with_vectors=True)
        assert record.payload == {"n": 0, "text": "text 0", "new": {"deep": 1, "more": 2}}
        assert record.vector == [5.0, 5.0]

    def test_p22_a_delete_moves_nobody_else(self, client):
        small(client)
        client.upsert("c", [m.PointStruct(id=n, vector=[1.0, 1.0], payload={"u": n % 3}) for n in range(30)])
        user = m.Filter(must=[m.FieldCondition(key="u", match=m.MatchValue(value=1))])
        client.delete("c", m.FilterSelector(filter=user))
        assert client.count("c").count == 20
        assert client.count("c", user).count == 0

    def test_many_operations_in_one_call(self, client):
        small(client, count=4)
        results = client.batch_update_points(
            "c",
            [
                m.UpsertOperation(upsert=m.PointsList(points=points([10]))),
                m.UpsertOperation(upsert=m.PointsBatch(batch=m.Batch(ids=[11], vectors=[[1.0, 1.0]]))),
                m.DeleteOperation(delete=m.PointIdsList(points=[0])),
                m.SetPayloadOperation(set_payload=m.SetPayload(payload={"a": 1}, points=[1])),
                m.OverwritePayloadOperation(overwrite_payload=m.SetPayload(payload={"b": 1}, points=[2])),
                m.DeletePayloadOperation(delete_payload=m.DeletePayload(keys=["text"], points=[3])),
                m.ClearPayloadOperation(clear_payload=m.PointIdsList(points=[10])),
                m.UpdateVectorsOperation(
                    update_vectors=m.UpdateVectors(points=[m.PointVectors(id=1, vector=[7.0, 7.0])])
                ),
                m.DeleteVectorsOperation(delete_vectors=m.DeleteVectors(vector=[""], points=[2])),
            ],
        )
        assert [result.status for result in results] == [m.UpdateStatus.COMPLETED] * 9
        found = {r.id: (r.payload, r.vector) for r in client.scroll("c", with_vectors=True)[0]}
        assert found == {
            1: ({"n": 1, "text": "text 1", "a": 1}, [7.0, 7.0]),
            2: ({"b": 1}, {}),
            3: ({"n": 3}, [3.0, 1.0]),
            10: ({}, [10.0, 1.0]),
            11: ({}, [1.0, 1.0]),
        }


class TestCollections:
    def test_what_a_collection_is_told_to_be(self, client):
        client.create_collection(
            "c",
            {
                "full": m.VectorParams(
                    size=8,
                    distance=m.Distance.COSINE,
                    on_disk=True,
                    datatype=m.Datatype.FLOAT16,
                    hnsw_config=m.HnswConfigDiff(m=8),
                    quantization_config=m.ScalarQuantization(
                        scalar=m.ScalarQuantizationConfig(type=m.ScalarType.INT8, quantile=0.9)
                    ),
                ),
                "mv": m.VectorParams(
                    size=2,
                    distance=m.Distance.DOT,
                    multivector_config=m.MultiVectorConfig(comparator=m.MultiVectorComparator.MAX_SIM),
                    memory=m.Memory.COLD,
                ),
            },
            sparse_vectors_config={
                "s": m.SparseVectorParams(
                    modifier=m.Modifier.IDF, index=m.SparseIndexParams(full_scan_threshold=100, on_disk=True)
                )
            },
            hnsw_config=m.HnswConfigDiff(ef_construct=50, memory=m.Memory.CACHED),
            optimizers_config=m.OptimizersConfigDiff(indexing_threshold=99, flush_interval_sec=1),
            quantization_config=m.BinaryQuantization(
                binary=m.BinaryQuantizationConfig(
                    encoding=m.BinaryQuantizationEncoding.TWO_BITS,
                    query_encoding=m.BinaryQuantizationQueryEncoding.SCALAR4BITS,
                )
            ),
            on_disk_payload=True,
            payload=m.PayloadStorageParams(memory=m.Memory.COLD),
            id_tracker=m.IdTrackerParams(memory=m.Memory.CACHED),
            metadata={"a": 1},
            shard_number=1,
            replication_factor=1,
            wal_config=m.WalConfigDiff(wal_capacity_mb=1),
            timeout=5,
        )
        info = client.get_collection("c")
        assert info.config.params.vectors["full"].quantization_config.scalar.quantile == 0.9
        assert info.config.params.vectors["full"].hnsw_config.m == 8
        assert info.config.params.sparse_vectors["s"].index.full_scan_threshold == 100
        assert info.config.hnsw_config.ef_construct == 50
        assert info.config.optimizer_config.indexing_threshold == 99
        assert info.config.metadata == {"a": 1}
        client.upsert("c", [m.PointStruct(id=n, vector={"full": [n + 1.0] * 8}) for n in range(4)])
        assert client.count("c").count == 4

    @pytest.mark.parametrize(
        "quantization",
        [
            m.ProductQuantization(product=m.ProductQuantizationConfig(compression=m.CompressionRatio.X4)),
            m.TurboQuantization(turbo=m.TurboQuantQuantizationConfig(bits=m.TurboQuantBitSize.BITS1_5)),
            m.ScalarQuantization(scalar=m.ScalarQuantizationConfig(type=m.ScalarType.INT8, memory=m.Memory.PINNED)),
        ],
    )
    def test_every_quantization(self, client, quantization):
        client.create_collection(
            "c", m.VectorParams(size=16, distance=m.Distance.COSINE), quantization_config=quantization
        )
        assert client.get_collection("c").config.quantization_config == quantization

    def test_what_the_engine_lacks_is_refused(self, client):
        later = m.VectorParams.model_construct(size=4, distance="Hamming")
        with pytest.raises(NotImplementedError, match=r"Hamming.*QdrantClient\(url="):
            configs.edge_config(m.CreateCollection.model_construct(vectors={"v": later}))

    @pytest.mark.parametrize(
        "schema",
        [
            *m.PayloadSchemaType,
            "keyword",
            m.KeywordIndexParams(type="keyword", is_tenant=True, on_disk=True),
            m.IntegerIndexParams(type="integer", lookup=True, range=True, is_principal=True),
            m.FloatIndexParams(type="float", memory=m.Memory.CACHED),
            m.GeoIndexParams(type="geo"),
            m.BoolIndexParams(type="bool"),
            m.DatetimeIndexParams(type="datetime", is_principal=True),
            m.UuidIndexParams(type="uuid", is_tenant=True),
            m.TextIndexParams(
                type="text",
                tokenizer=m.TokenizerType.MULTILINGUAL,
                lowercase=True,
                phrase_matching=True,
                stopwords=m.StopwordsSet(languages=[m.Language.ENGLISH], custom=["foo"]),
                stemmer=m.SnowballParams(type="snowball", language="english"),
                scoring=m.TextScoringParams(type="bm25"),
            ),
            m.TextIndexParams(type="text", stopwords=m.Language.GERMAN, stemmer=m.DisabledStemmerParams(type="none")),
            {"type": "keyword", "is_tenant": True},
        ],
        ids=str,
    )
    def test_every_payload_index(self, directory, schema):
        with QdrantEdgeClient(directory) as client:
            small(client, count=2)
            client.create_payload_index("c", "deep.field", schema)
            told = client.get_collection("c").payload_schema["deep.field"]
        with QdrantEdgeClient(directory) as client:
            again = client.get_collection("c").payload_schema["deep.field"]
            assert again == told
            client.purge("c")
            assert client.get_collection("c").payload_schema["deep.field"] == told
            client.delete_payload_index("c", "deep.field")
            client.delete_payload_index("c", "never.there")
            assert client.get_collection("c").payload_schema == {}

    def test_an_index_needs_a_type(self, client):
        small(client)
        with pytest.raises(ValueError, match="field_schema"):
            client.create_payload_index("c", "f")
        with pytest.raises(ValueError, match="nonsense"):
            client.create_payload_index("c", "f", "nonsense")

    def test_an_index_changes_no_result(self, client):
        small(client)
        client.upsert("c", [m.PointStruct(id=n, vector=[1.0, n], payload={"t": f"u{n % 4}"}) for n in range(40)])
        tenant = m.Filter(must=[m.FieldCondition(key="t", match=m.MatchValue(value="u1"))])
        before = client.query_points("c", [1.0, 1.0], query_filter=tenant)
        client.create_payload_index("c", "t", m.KeywordIndexParams(type="keyword", is_tenant=True))
        after = client.query_points("c", [1.0, 1.0], query_filter=tenant)
        assert [(p.id, p.score) for p in before.points] == [(p.id, p.score) for p in after.points]

    def test_metadata_is_merged(self, directory):
        with QdrantEdgeClient(directory) as client:
            small(client)
            assert client.update_collection("c", metadata={"embedding": "x", "size": 2, "old": 1})
            client.update_collection("c", metadata={"size": 3, "old": None})
            told = client.get_collection("c").config.metadata
            told["size"] = "changed by the caller"
        with QdrantEdgeClient(directory) as client:
            assert client.get_collection("c").config.metadata == {"embedding": "x", "size": 3}

    def test_tuning_can_be_changed(self, directory):
        with QdrantEdgeClient(directory) as client:
            client.create_collection(
                "c",
                {"v": m.VectorParams(size=4, distance="Dot")},
                sparse_vectors_config={"s": m.SparseVectorParams()},
            )
            client.upsert("c", [m.PointStruct(id=1, vector={"v": [1.0] * 4})])
            assert client.update_collection(
                "c",
                hnsw_config=m.HnswConfigDiff(m=24),
                optimizers_config=m.OptimizersConfigDiff(indexing_threshold=5),
                vectors_config={"v": m.VectorParamsDiff(on_disk=True, hnsw_config=m.HnswConfigDiff(m=4))},
                sparse_vectors_config={"s": m.SparseVectorParams(index=m.SparseIndexParams(on_disk=True))},
                quantization_config=m.ScalarQuantization(scalar=m.ScalarQuantizationConfig(type="int8")),
            )
            client.update_collection("c", quantization_config=m.Disabled.DISABLED)
            client.update_collection("c")
            assert client.count("c").count == 1
        with QdrantEdgeClient(directory) as client:
            config = client.get_collection("c").config
            assert (config.hnsw_config.m, config.hnsw_config.ef_construct) == (24, 100)
            assert config.params.vectors["v"].on_disk
            assert config.params.vectors["v"].hnsw_config.m == 4
            assert config.params.sparse_vectors["s"].index.on_disk
            assert config.quantization_config is None
            assert client.count("c").count == 1
            with pytest.raises(ValueError, match="nope"):
                client.update_collection("c", vectors_config={"nope": m.VectorParamsDiff(on_disk=True)})
            with pytest.raises(ValueError, match="nope"):
                client.update_collection("c", sparse_vectors_config={"nope": m.SparseVectorParams()})

    def test_vectors_come_and_go(self, directory):
        with QdrantEdgeClient(directory) as client:
            small(client, count=2)
            dense = m.DenseVectorNameConfig(dense=m.DenseVectorConfig(size=3, distance=m.Distance.COSINE))
            sparse = m.SparseVectorNameConfig(sparse=m.SparseVectorConfig(modifier=m.Modifier.IDF))
            client.create_vector_name("c", "late", dense)
            client.create_vector_name("c", "late", dense)
            client.create_vector_name("c", "terms", sparse)
            with pytest.raises(ValueError, match="already exists"):
                client.create_vector_name("c", "late", sparse)
            client.update_vectors(
                "c",
                [
                    m.PointVectors(
                        id=1, vector={"late": [0.0, 2.0, 0.0], "terms": m.SparseVector(indices=[1], values=[1.0])}
                    )
                ],
            )
        with QdrantEdgeClient(directory) as client:
            assert client.query_points("c", [0.0, 1.0, 0.0], using="late").points[0].id == 1
            assert client.query_points("c", m.SparseVector(indices=[1], values=[1.0]), using="terms").points[0].id == 1
            client.purge("c")
            client.delete_vector_name("c", "late")
            client.delete_vector_name("c", "late")
            client.delete_vector_name("c", "terms")
        with QdrantEdgeClient(directory) as client:
            assert client.retrieve("c", [1], with_vectors=True)[0].vector == [1.0, 1.0]
            with pytest.raises(ValueError, match="late"):
                client.query_points("c", [0.0, 1.0, 0.0], using="late")

    def test_aliases(self, client):
        small(client, "one", count=1)
        small(client, "two", count=2)

        def change(*operations):
            return client.update_collection_aliases(list(operations))

        def create(collection, alias):
            return m.CreateAliasOperation(create_alias=m.CreateAlias(collection_name=collection, alias_name=alias))

        def rename(old, new):
            return m.RenameAliasOperation(rename_alias=m.RenameAlias(old_alias_name=old, new_alias_name=new))

        assert change(create("one", "a"), rename("a", "b"), create("two", "c"))
        assert client.count("b").count == 1
        assert client.collection_exists("b")
        assert [each.alias_name for each in client.get_collection_aliases("two").aliases] == ["c"]
        for wrong in (create("nope", "x"), create("one", "two"), rename("nope", "x"), rename("b", "one")):
            with pytest.raises(ValueError):
                change(create("one", "half"), wrong)
        assert {each.alias_name for each in client.get_aliases().aliases} == {"b", "c"}
        change(
            create("two", "b"),
            m.DeleteAliasOperation(delete_alias=m.DeleteAlias(alias_name="c")),
            m.DeleteAliasOperation(delete_alias=m.DeleteAlias(alias_name="never")),
        )
        assert client.count("b").count == 2
        client.delete_collection("two")
        assert client.get_aliases().aliases == []

    def test_deleting_and_recreating(self, client):
        small(client, count=3)
        assert client.delete_collection("c") is True
        assert client.delete_collection("c") is False
        small(client)
        with pytest.deprecated_call():
            client.recreate_collection("c", m.VectorParams(size=5, distance="Dot"))
        assert client.get_collection("c").config.params.vectors.size == 5

    def test_optimize_builds_a_graph_only_when_asked(self, client):
        client.create_collection(
            "c",
            m.VectorParams(size=16, distance=m.Distance.COSINE),
            optimizers_config=m.OptimizersConfigDiff(indexing_threshold=10),
        )
        rng = np.random.default_rng(0)
        vectors = rng.normal(size=(3_000, 16))
        client.upload_collection("c", vectors, ids=range(3_000))
        before = client.query_points("c", vectors[5], limit=5)
        assert len(client.get_collection("c").payload_schema) == 0
        assert client.optimize("c") is True
        assert client.optimize("c") is False
        assert client.count("c").count == 3_000
        after = client.query_points("c", vectors[5], limit=5, search_params=m.SearchParams(exact=True))
        assert [p.id for p in after.points] == [p.id for p in before.points]
        client.upsert("c", [m.PointStruct(id=9_999, vector=[1.0] * 16)])
        assert client.purge("c") == 3_001


class TestSnapshots:
    def test_a_round_trip(self, client, directory):
        small(client, count=5)
        client.create_payload_index("c", "n", m.PayloadSchemaType.INTEGER)
        client.update_collection("c", metadata={"kept": 1})
        made = client.create_snapshot("c")
        assert client.list_snapshots("c") == [made]
        path = next(directory.glob(f"snapshots/*/{made.name}"))
        assert made.checksum == hashlib.sha256(path.read_bytes()).hexdigest()
        assert made.size == path.stat().st_size < 1_000_000
        client.delete("c", [0, 1])
        client.upsert("c", points([50]))
        assert client.recover_snapshot("c", str(path), checksum=made.checksum)
        assert [r.id for r in client.scroll("c")[0]] == [0, 1, 2, 3, 4]
        assert client.recover_snapshot("copy", path.as_uri())
        assert client.count("copy").count == 5
        assert client.get_collection("copy").config.metadata == {"kept": 1}
        assert "n" in client.get_collection("copy").payload_schema
        client.upsert("copy", points([9]))
        assert (client.count("copy").count, client.count("c").count) == (6, 5)
        assert client.delete_snapshot("c", made.name) is True
        assert client.delete_snapshot("c", made.name) is False
        assert client.list_snapshots("c") == []
        assert client.list_full_snapshots() == client.list_shard_snapshots("c", 0) == []

    def test_an_alias_keeps_its_snapshots_when_it_stands_for_another_collection(self, client, directory):
        small(client, count=5)
        first = client.create_snapshot("c")
        small(client, "other", count=2)
        client.delete_collection("c")
        client.update_collection_aliases(
            [m.CreateAliasOperation(create_alias=m.CreateAlias(collection_name="other", alias_name="c"))]
        )
        second = client.create_snapshot("c")
        assert client.list_snapshots("c") == client.list_snapshots("other") == [first, second]
        path = next(directory.glob(f"snapshots/*/{first.name}"))
        assert client.recover_snapshot("c", str(path), checksum=first.checksum)
        assert client.count("c").count == client.count("other").count == 5
        assert client.delete_snapshot("c", first.name) is True
        assert client.delete_snapshot("other", second.name) is True
        assert client.list_snapshots("c") == []
        assert not list(directory.glob("snapshots/*/*"))

    def test_a_good_snapshot_is_not_called_damaged(self, client, directory, monkeypatch):
        small(client, count=5)
        made = client.create_snapshot("c")
        path = next(directory.glob(f"snapshots/*/{made.name}"))

        def refused(*_):
            raise ValueError("Wrong input: this engine does not do that")

        monkeypatch.setattr(Store, "create", refused)
        with pytest.raises(ValueError, match="does not do that"):
            client.recover_snapshot("new", str(path))

    def test_it_survives_a_reopening(self, directory):
        with QdrantEdgeClient(directory) as client:
            small(client, count=5)
            made = client.create_snapshot("c")
            path = next(directory.glob(f"snapshots/*/{made.name}"))
            client.recover_snapshot("c", str(path))
            client.upsert("c", points([7]))
        with QdrantEdgeClient(directory) as client:
            assert client.count("c").count == 6
            assert len(list((directory / "shards").iterdir())) == 1

    def test_what_is_no_snapshot(self, client, tmp_path):
        small(client, count=2)
        wrong = tmp_path / "wrong.edge.tar.gz"
        with pytest.raises(StoreUnavailableError, match=r"wrong\.edge"):
            client.recover_snapshot("c", str(wrong))
        wrong.write_bytes(b"not an archive")
        with pytest.raises(StoreCorruptedError, match="not a snapshot"):
            client.recover_snapshot("c", str(wrong))
        with tarfile.open(wrong, "w:gz") as archive:
            archive.add(ROOT / "LICENSE", "collection.json")
        with pytest.raises(StoreCorruptedError, match="not a snapshot"):
            client.recover_snapshot("new", str(wrong))
        made = client.create_snapshot("c")
        path = next(tmp_path.rglob(made.name))
        with pytest.raises(StoreCorruptedError, match="checksum"):
            client.recover_snapshot("c", str(path), checksum="0" * 64)
        path.write_bytes(path.read_bytes()[:-2_000])
        with pytest.raises(StoreCorruptedError):
            client.recover_snapshot("new", str(path))
        with pytest.raises(ValueError, match="name of a snapshot"):
            client.delete_snapshot("c", "../../collections.json")
        assert not client.collection_exists("new")
        assert client.count("c").count == 2

    def test_an_archive_cannot_write_elsewhere(self, client, tmp_path, directory):
        small(client, count=2)
        made = client.create_snapshot("c")
        good = next(tmp_path.rglob(made.name))
        evil = tmp_path / "evil.edge.tar.gz"
        with tarfile.open(good) as source, tarfile.open(evil, "w:gz") as target:
            for member in source:
                target.addfile(member, source.extractfile(member) if member.isfile() else None)
            target.add(ROOT / "LICENSE", "shard/../../../escaped")
        with pytest.raises(StoreCorruptedError):
            client.recover_snapshot("c", str(evil))
        assert not list(tmp_path.rglob("escaped"))
        assert client.count("c").count == 2

    def test_purging_leaves_snapshots_to_their_owner(self, client, directory):
        small(client, count=2)
        client.create_snapshot("c")
        client.delete("c", [0])
        client.purge("c")
        assert len(client.list_snapshots("c")) == 1
        assert not bytes_under(directory / "shards", b"text 0")


class TestAsync:
    async def test_everything_is_there(self, client):
        small(client, count=3)
        async with client.as_async() as shared:
            assert isinstance(shared, AsyncQdrantClient)
            assert shared.path == client.path
            assert (await shared.count("c")).count == 3
            await shared.upsert("c", points([9]))
            assert [p.id for p in (await shared.query_points("c", [1.0, 0.0], limit=1)).points] == [9]
            shared.upload_points("c", points(range(20, 30)))
            shared.upload_collection("c", [[1.0, 1.0]])
            assert (await shared.query_scores("c", [m.QueryRequest(query=[1.0, 0.0], limit=1)])) == [{29: 29.0}]
            assert (await shared.purge("c")) == 15
            assert (await shared.optimize("c")) in (True, False)
            await shared.flush()
            await shared.create_collection("d", m.VectorParams(size=1, distance="Dot"))
            with pytest.raises(ValueError, match="not found"):
                await shared.count("nope")
            with pytest.raises(NotImplementedError, match="cluster_status"):
                await shared.cluster_status()
        with pytest.raises(RuntimeError, match="closed"):
            await shared.count("c")
        assert client.collection_exists("d")

    async def test_either_may_close_first(self, directory):
        client = QdrantEdgeClient(directory)
        small(client, count=3)
        shared = client.as_async()
        assert (await shared.count("c")).count == 3
        client.close()
        assert (await shared.count("c")).count == 3
        await shared.close()

    async def test_in_memory_is_shared_too(self):
        client = QdrantEdgeClient(":memory:")
        small(client, count=3)
        shared = client.as_async()
        assert (await shared.count("c")).count == 3
        client.close()
        assert (await shared.count("c")).count == 3
        await shared.close()

    async def test_it_opens_by_itself(self, directory):
        async with AsyncQdrantEdgeClient(directory) as client:
            await client.create_collection("c", m.VectorParams(size=1, distance="Dot"))
            assert await client.collection_exists("c")
