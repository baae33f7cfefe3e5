"""The embedded engine against qdrant_client's local mode: the same calls, the same answers.

Hypothesis draws collections, payloads, filters, queries and writes; both clients get them; ids, payloads, vectors
and order must be the same, scores within 1e-4. Where scores are equal the order is free, and where a limit cuts
through equal scores, either point is right. Queries that fuse ranks are left out where a prefetch has such ties.

What differs, and why it stays so. The engine is the server's own code, so it answers as the server does:

* ``FieldCondition(is_empty=...)`` and ``FieldCondition(is_null=False)`` on a key with several values (``nest[].a``):
  the engine asks whether one of the values is so, the local mode whether all are. ``IsEmptyCondition`` and
  ``IsNullCondition`` agree.
* ``SearchParams(idf=...)`` on a vector without the IDF modifier: refused by the engine, ignored by the local mode.
* Global IDF counts deleted points until the collection is purged; over a corpus filter (``Filter()`` for all) both
  count live points only.
* One request that conditionally upserts the same id twice: the engine decides both by what was there before the
  request, the local mode one after the other.
* ``set_payload`` with a null on a point whose payload was cleared stores the null; otherwise a null removes the key.
* A payload index answers for its own kind of value: 0.5 under an integer index is in no range. The local mode has
  no indexes. An order or a facet *inside a prefetch* needs an index (a ``ValueError`` says so); elsewhere both work
  without one.
* Relevance feedback over sparse and multivectors works in the engine; the local mode cannot.
* Integers beyond 64 bits become floats, and NaN in a payload is refused: the server stores JSON.
* ``version`` counts a point's writes; the local mode always says 0.

And where the local mode fails by accident (numpy's errors for discovery in an empty collection, ``TypeError`` for a
flat list in place of a multivector) the engine answers, or raises ``ValueError``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from edge_strategies import (
    collections,
    filters,
    maybe_filters,
    mmr,
    nearest,
    phrases,
    prefetches,
    requests,
    selectors,
    vector_of,
    writes,
)
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient
from qdrant_client import models as m

from memory_integrations.qdrant_edge import QdrantEdgeClient

SCALE = 14 if os.environ.get("HYPOTHESIS_PROFILE") == "benchmark" else 1


def cases(count: int) -> settings:
    """Return how often a test is tried: so often by default, 14 times as often in the benchmark profile."""
    return settings(
        max_examples=count * SCALE,
        deadline=None,
        database=None,
        # Shrinking a case takes minutes; whoever looks into one runs the benchmark profile, which does.
        phases=tuple(Phase) if SCALE > 1 else (Phase.explicit, Phase.generate),
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.function_scoped_fixture,
        ],
    )


class Both:
    """The same calls on both clients."""

    def __init__(self, edge: QdrantClient, local: QdrantClient) -> None:
        self.edge, self.local = edge, local

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        outcomes = []
        for client in (self.edge, self.local):
            try:
                outcomes.append(getattr(client, name)(*args, **kwargs))
            except (ValueError, KeyError, TypeError) as error:
                outcomes.append(error)
        return outcomes[0], outcomes[1]


@pytest.fixture
def both() -> Iterator[Both]:
    edge, local = QdrantEdgeClient(":memory:"), QdrantClient(":memory:")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield Both(edge, local)
    edge.close()
    local.close()


def fill(both: Both, drawn: dict[str, Any]) -> None:
    for client in (both.edge, both.local):
        client.delete_collection("c")
        client.create_collection("c", drawn["vectors"], sparse_vectors_config=drawn["sparse"])
        for field, schema in drawn["indexes"]:
            client.create_payload_index("c", field, schema)
        if drawn["points"]:
            client.upsert("c", [p.model_copy(deep=True) for p in drawn["points"]])


@cases(70)
@given(drawn=collections(), given_filters=st.lists(filters, min_size=1, max_size=6))
def test_filters(both: Both, drawn, given_filters) -> None:
    fill(both, drawn)
    for each in given_filters:
        before = each.model_copy(deep=True)
        edge, local = both.call("scroll", "c", each, limit=100)
        assert each == before
        assert not isinstance(local, Exception), local
        assert [r.id for r in edge[0]] == [r.id for r in local[0]]
        assert [r.payload for r in edge[0]] == [r.payload for r in local[0]]


def close(one: float, other: float) -> bool:
    return abs(one - other) <= 1e-4 * max(1.0, abs(other))


def same_vectors(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_vectors(one[name], other[name]) for name in one)
    if isinstance(one, m.SparseVector):
        return one.indices == other.indices and same_vectors(one.values, other.values)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_vectors, one, other))
    return one == other or (isinstance(one, float) and isinstance(other, float) and close(one, other))


def compare(edge: Any, local: Any, everything: dict[Any, Any]) -> None:
    """Check that both found the same, up to the order of equal scores.

    ``everything`` is the local mode's whole ranking by id: where equal scores are cut off by a limit, either
    point is right, so what the engine found must be somewhere in it with the score it has there.
    """
    if isinstance(local, ValueError) or isinstance(edge, ValueError):
        assert isinstance(local, ValueError) and isinstance(edge, ValueError), (edge, local)
        return
    assert len(edge) == len(local), (edge, local)
    assert len({point.id for point in edge}) == len(edge)
    for one, other in zip(edge, local, strict=True):
        assert close(one.score, other.score), (edge, local)
        same = everything[one.id]
        assert close(one.score, same.score)
        assert one.payload == same.payload
        assert same_vectors(one.vector, same.vector)


def query(client: QdrantClient, request: dict[str, Any], **changes: Any) -> list[m.ScoredPoint]:
    fields = {**request, **changes}
    fields["query_filter"] = fields.pop("filter")
    fields["with_vectors"] = fields.pop("with_vector")
    fields["search_params"] = fields.pop("params", None)
    return client.query_points("c", **fields).points


def outcome(call: Any) -> Any:
    try:
        return call()
    except ValueError as error:
        return error


def ranks_are_settled(client: QdrantClient, prefetches: Any) -> bool:
    """Whether in no prefetch two points score nearly the same: then either rank is right, and fusing ranks differs."""
    for stage in [prefetches] if isinstance(prefetches, m.Prefetch) else prefetches or ():
        fields = {"using": stage.using, "prefetch": stage.prefetch, "query_filter": stage.filter}
        found = outcome(lambda s=stage, f=fields: client.query_points("c", s.query, limit=1_000, **f).points)
        if isinstance(found, list) and any(close(one.score, other.score) for one, other in pairwise(found)):
            return False
        if not ranks_are_settled(client, stage.prefetch):
            return False
    return True


@cases(110)
@given(data=st.data(), drawn=collections(min_points=5))
def test_queries(both: Both, data, drawn) -> None:
    fill(both, drawn)
    for _ in range(3):
        request = data.draw(requests(drawn))
        if not ranks_are_settled(both.local, request.get("prefetch")):
            continue
        edge = outcome(lambda r=request: query(both.edge, r))
        local = outcome(lambda r=request: query(both.local, r))
        everything = outcome(lambda r=request: query(both.local, r, limit=1_000, offset=0))
        known = {} if isinstance(everything, Exception) else {point.id: point for point in everything}
        compare(edge, local, known)


def everything_in(client: QdrantClient) -> list[m.Record]:
    return client.scroll("c", limit=1_000, with_payload=True, with_vectors=True)[0]


def same_state(both: Both) -> None:
    edge, local = everything_in(both.edge), everything_in(both.local)
    assert [point.id for point in edge] == [point.id for point in local]
    for one, other in zip(edge, local, strict=True):
        assert one.payload == other.payload
        assert same_vectors(one.vector, other.vector), (one, other)


@cases(60)
@given(data=st.data(), drawn=collections(min_points=4))
def test_writes(both: Both, data, drawn) -> None:
    fill(both, drawn)
    for _ in range(4):
        name, arguments = data.draw(writes(drawn))
        edge, local = both.call(name, "c", **arguments)
        if isinstance(local, TypeError):  # numpy's or Python's own, where the local mode forgot to check
            assert isinstance(edge, ValueError)
        else:
            assert type(edge) is type(local), (edge, local)
        same_state(both)
    if "idf" in drawn["names"]:  # the statistics of what is left, too
        live = {"search_params": m.SearchParams(idf=m.IdfCorpusParams(corpus=m.Filter())), "limit": 100}
        edge, local = both.call("query_points", "c", vector_of(drawn["rng"], "idf"), using="idf", **live)
        compare(edge.points, local.points, {point.id: point for point in local.points})


@cases(25)
@given(data=st.data(), drawn=collections(min_points=4))
def test_mmr(both: Both, data, drawn) -> None:
    fill(both, drawn)
    name = data.draw(st.sampled_from(drawn["names"]))
    arguments = {"query": data.draw(mmr(drawn, name)), "using": name, "limit": data.draw(st.integers(1, 8))}
    edge, local = both.call("query_points", "c", **arguments, query_filter=data.draw(maybe_filters), with_payload=False)
    assert [p.id for p in edge.points] == [p.id for p in local.points]
    assert all(close(p.score, o.score) for p, o in zip(edge.points, local.points, strict=True))


@cases(25)
@given(data=st.data(), drawn=collections(min_points=4))
def test_order_by(both: Both, data, drawn) -> None:
    fill(both, drawn)
    order = m.OrderBy(
        key=data.draw(st.sampled_from(["num", "int", "amount", "when", "at", "any", "nest[].a"])),
        direction=data.draw(st.one_of(st.none(), st.sampled_from(list(m.Direction)))),
        start_from=data.draw(st.one_of(st.none(), st.integers(-2, 3), st.sampled_from([0.5]))),
    )
    chosen, limit = data.draw(maybe_filters), data.draw(st.integers(1, 20))
    whole = {(p.order_value, p.id): p for p in both.local.scroll("c", chosen, order_by=order, limit=1_000)[0]}
    edge, local = both.call("scroll", "c", chosen, order_by=order, limit=limit)
    assert [p.order_value for p in edge[0]] == [p.order_value for p in local[0]]
    assert all(whole[p.order_value, p.id].payload == p.payload for p in edge[0])
    edge, local = both.call("query_points", "c", m.OrderByQuery(order_by=order), query_filter=chosen, limit=limit)
    assert [(p.order_value, p.score) for p in edge.points] == [(p.order_value, p.score) for p in local.points]
    assert all((p.order_value, p.id) in whole for p in edge.points)


@cases(10)
@given(data=st.data(), drawn=collections(min_points=4))
def test_samples(both: Both, data, drawn) -> None:
    fill(both, drawn)
    chosen, limit = data.draw(maybe_filters), data.draw(st.integers(1, 8))
    sample = m.SampleQuery(sample=m.Sample.RANDOM)
    edge, local = both.call("query_points", "c", sample, query_filter=chosen, limit=limit)
    allowed = {point.id for point in both.local.scroll("c", chosen, limit=100)[0]}
    assert len(edge.points) == len(local.points)
    assert {point.id for point in edge.points} <= allowed
    assert len({point.id for point in edge.points}) == len(edge.points)


@cases(25)
@given(data=st.data(), drawn=collections(min_points=4))
def test_groups(both: Both, data, drawn) -> None:
    fill(both, drawn)
    name = data.draw(st.sampled_from(drawn["names"]))
    prefetch = data.draw(st.one_of(st.none(), st.lists(prefetches(drawn, 0), min_size=1, max_size=2)))
    arguments = {
        "group_by": data.draw(st.sampled_from(["kw", "int", "num", "uid", "any", "obj.x", "nest[].a"])),
        "query": data.draw(nearest(drawn, name)),
        "prefetch": prefetch,
        "using": name,
        "query_filter": data.draw(maybe_filters),
        "limit": data.draw(st.integers(1, 5)),
        "group_size": data.draw(st.integers(1, 4)),
        "with_payload": data.draw(selectors),
        "with_vectors": data.draw(st.booleans()),
        "with_lookup": data.draw(st.sampled_from([None, None, "c"])),
    }
    edge, local = both.call("query_points_groups", "c", **arguments)
    assert [group.id for group in edge.groups] == [group.id for group in local.groups]
    for one, other in zip(edge.groups, local.groups, strict=True):
        compare(one.hits, other.hits, {hit.id: hit for hit in other.hits})
        assert (one.lookup is None) == (other.lookup is None)


@cases(20)
@given(data=st.data(), drawn=collections(min_points=4))
def test_facets(both: Both, data, drawn) -> None:
    fill(both, drawn)
    key = data.draw(st.sampled_from(["kw", "int", "flag", "uid", "any", "obj.x", "nest[].b"]))
    limit, chosen = data.draw(st.integers(1, 6)), data.draw(maybe_filters)
    edge, local = both.call("facet", "c", key, facet_filter=chosen, limit=limit, exact=True)
    whole = {(type(hit.value), hit.value): hit.count for hit in both.local.facet("c", key, chosen, limit=1_000).hits}
    assert [hit.count for hit in edge.hits] == [hit.count for hit in local.hits]
    assert all(whole[type(hit.value), hit.value] == hit.count for hit in edge.hits)


@cases(25)
@given(data=st.data(), drawn=collections())
def test_reading(both: Both, data, drawn) -> None:
    fill(both, drawn)
    chosen, limit = data.draw(maybe_filters), data.draw(st.integers(1, 5))
    payload, vectors = data.draw(selectors), data.draw(st.booleans())
    offset = None
    while True:
        arguments = {"limit": limit, "offset": offset, "with_payload": payload, "with_vectors": vectors}
        edge, local = both.call("scroll", "c", chosen, **arguments)
        assert [p.id for p in edge[0]] == [p.id for p in local[0]]
        assert [p.payload for p in edge[0]] == [p.payload for p in local[0]]
        assert all(same_vectors(p.vector, o.vector) for p, o in zip(edge[0], local[0], strict=True))
        assert edge[1] == local[1]
        offset = edge[1]
        if offset is None:
            break
    edge, local = both.call("count", "c", chosen)
    assert edge == local
    ids = data.draw(st.lists(st.sampled_from([*(p.id for p in drawn["points"]), 99, "nope"]), max_size=6))
    edge, local = both.call("retrieve", "c", ids, with_payload=payload, with_vectors=vectors)
    assert [(p.id, p.payload) for p in edge] == [(p.id, p.payload) for p in local]


@cases(15)
@given(data=st.data(), drawn=collections(min_points=4))
def test_text_queries(both: Both, data, drawn) -> None:
    drawn["indexes"].append(("text", m.TextIndexParams(type="text", scoring=True)))
    fill(both, drawn)
    arguments = {
        "query": m.TextQuery(text=data.draw(phrases)),
        "using": "text",
        "query_filter": data.draw(maybe_filters),
    }
    edge, local = both.call("query_points", "c", **arguments, limit=data.draw(st.integers(1, 20)))
    whole = both.local.query_points("c", **arguments, limit=1_000).points
    compare(edge.points, local.points, {point.id: point for point in whole})
