"""Random collections, payloads, filters and queries, for comparing two clients.

What is discrete (which fields, which conditions, which kinds of query) is drawn by hypothesis, so that it
shrinks. Vectors come from a seeded generator instead: numbers without structure have no equal scores, and a
comparison of fused ranks means nothing where scores are equal.
"""

from __future__ import annotations

import datetime as dt
import random
import uuid
from typing import Any

from hypothesis import strategies as st
from qdrant_client import models as m

WORDS = ["red", "green", "Blue", "sea", "deep-blue", "été"]
MOMENTS = [
    "2024-01-01T00:00:00Z",
    "2024-01-01T12:30:00+02:00",
    "2024-02-29",
    "2023-12-31 23:59:59.5",
    "2025-06-01T08:00",
    "not a date",
]
PLACES = [
    {"lon": 13.4, "lat": 52.5},
    {"lon": 2.35, "lat": 48.86},
    {"lon": -73.98, "lat": 40.75},
    {"lon": 179.5, "lat": -16.5},
    {"lon": -179.5, "lat": -17.0},
]
UUIDS = [str(uuid.UUID(int=number << 64 | number)) for number in range(1, 5)]
KEYS = [
    "kw",
    "num",
    "int",
    "flag",
    "text",
    "when",
    "geo",
    "uid",
    "obj.x",
    "obj.y",
    "nest[].a",
    "nest[].b",
    "nest[0].a",
    "none",
]
VECTORS = {
    "": m.VectorParams(size=3, distance=m.Distance.COSINE),
    "dot": m.VectorParams(size=2, distance=m.Distance.DOT),
    "euclid": m.VectorParams(size=4, distance=m.Distance.EUCLID),
    "man": m.VectorParams(size=3, distance=m.Distance.MANHATTAN),
    "multi": m.VectorParams(
        size=2,
        distance=m.Distance.COSINE,
        multivector_config=m.MultiVectorConfig(comparator=m.MultiVectorComparator.MAX_SIM),
    ),
    "multi-dot": m.VectorParams(
        size=3,
        distance=m.Distance.DOT,
        multivector_config=m.MultiVectorConfig(comparator=m.MultiVectorComparator.MAX_SIM),
    ),
}
SPARSE = {"sparse": m.SparseVectorParams(), "idf": m.SparseVectorParams(modifier=m.Modifier.IDF)}
TERMS = 12

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 5),
    st.sampled_from([0.0, 0.5, 1.0, -2.5, 3.25]),
    st.sampled_from(WORDS),
)
values = st.one_of(scalars, st.lists(scalars, max_size=3))


def _some(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(strategy, strategy, st.lists(strategy, max_size=2), st.none())


payloads = st.fixed_dictionaries(
    {},
    optional={
        "kw": _some(st.sampled_from(WORDS)),
        "num": _some(st.one_of(st.integers(-3, 5), st.sampled_from([0.5, 1.0, -2.5, 3.25]))),
        "int": _some(st.integers(-3, 5)),
        "flag": _some(st.booleans()),
        "text": _some(st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)),
        "when": _some(st.sampled_from(MOMENTS)),
        "geo": _some(st.sampled_from(PLACES)),
        "uid": _some(st.sampled_from(UUIDS)),
        "obj": st.one_of(scalars, st.dictionaries(st.sampled_from(["x", "y"]), values, max_size=2)),
        "nest": st.one_of(
            scalars, st.lists(st.dictionaries(st.sampled_from(["a", "b"]), values, max_size=2), max_size=3)
        ),
        "any": values,
        "amount": st.sampled_from([-1.5, 0.0, 2, 7.25]),
        "at": st.sampled_from(MOMENTS[:4]),
        "place": st.sampled_from(PLACES),
    },
)


# ----------------------------------------------------------------------------------------------------- conditions

keys = st.sampled_from([*KEYS, "any"])
single_keys = st.sampled_from([key for key in [*KEYS, "any"] if "[]" not in key])
numbers = st.one_of(st.none(), st.sampled_from([-3.0, -1.0, 0.0, 0.5, 1.0, 2.0, 5.0]))
counts = st.one_of(st.none(), st.integers(0, 3))
strings = st.sampled_from([*WORDS, *UUIDS, "zzz"])
integers = st.integers(-3, 5)
phrases = st.one_of(
    st.sampled_from([*WORDS, "", "blue", "RED"]), st.lists(st.sampled_from(WORDS), max_size=3).map(" ".join)
)
instants = st.one_of(
    st.none(),
    st.datetimes(min_value=dt.datetime(2023, 12, 1), max_value=dt.datetime(2025, 7, 1)),
    st.dates(min_value=dt.date(2023, 12, 30), max_value=dt.date(2024, 3, 1)),
)

matches = st.one_of(
    st.one_of(st.booleans(), integers, strings).map(lambda v: m.MatchValue(value=v)),
    phrases.map(lambda v: m.MatchText(text=v)),
    phrases.map(lambda v: m.MatchTextAny(text_any=v)),
    phrases.map(lambda v: m.MatchPhrase(phrase=v)),
    st.sampled_from(["", "r", "deep", "De", "é"]).map(lambda v: m.MatchPrefix(prefix=v)),
    st.sampled_from(["", "e", "lu", "p-b"]).map(lambda v: m.MatchSubstring(substring=v)),
    st.one_of(st.lists(strings, max_size=3), st.lists(integers, max_size=3)).map(lambda v: m.MatchAny(any=v)),
    st.one_of(st.lists(strings, max_size=3), st.lists(integers, max_size=3)).map(
        lambda v: m.MatchExcept(**{"except": v})
    ),
)
places = st.sampled_from(PLACES).map(lambda p: m.GeoPoint(**p))
rings = st.sampled_from(
    [
        [(0, 40), (20, 40), (20, 60), (0, 60), (0, 40)],
        [(-80, 35), (-70, 35), (-70, 45), (-80, 45), (-80, 35)],
        [(2, 48), (3, 48), (3, 49), (2, 49), (2, 48)],
    ]
).map(lambda ring: m.GeoLineString(points=[m.GeoPoint(lon=lon, lat=lat) for lon, lat in ring]))

field_conditions = st.one_of(
    st.builds(lambda k, v: m.FieldCondition(key=k, match=v), keys, matches),
    st.builds(
        lambda k, a, b, c, d: m.FieldCondition(key=k, range=m.Range(gte=a, gt=b, lte=c, lt=d)),
        st.sampled_from(["num", "int", "any", "obj.x", "nest[].a", "flag"]),
        numbers,
        numbers,
        numbers,
        numbers,
    ),
    st.builds(
        lambda k, a, b, c, d: m.FieldCondition(key=k, range=m.DatetimeRange(gte=a, gt=b, lte=c, lt=d)),
        st.sampled_from(["when", "when", "any"]),
        instants,
        instants,
        instants,
        instants,
    ),
    st.builds(
        lambda k, a, b, c, d: m.FieldCondition(key=k, values_count=m.ValuesCount(gte=a, gt=b, lte=c, lt=d)),
        keys,
        counts,
        counts,
        counts,
        counts,
    ),
    single_keys.map(lambda k: m.FieldCondition(key=k, is_empty=True)),
    keys.map(lambda k: m.FieldCondition(key=k, is_null=True)),
    single_keys.map(lambda k: m.FieldCondition(key=k, is_empty=False)),
    single_keys.map(lambda k: m.FieldCondition(key=k, is_null=False)),
    st.builds(
        lambda center, radius: m.FieldCondition(key="geo", geo_radius=m.GeoRadius(center=center, radius=radius)),
        places,
        st.sampled_from([1_000.0, 500_000.0, 2_000_000.0, 9_000_000.0]),
    ),
    st.builds(
        lambda left, top, width, height: m.FieldCondition(
            key="geo",
            geo_bounding_box=m.GeoBoundingBox(
                top_left=m.GeoPoint(lon=left, lat=top), bottom_right=m.GeoPoint(lon=left + width, lat=top - height)
            ),
        ),
        st.sampled_from([-75.0, 0.0, 2.0, -180.0]),
        st.sampled_from([60.0, 50.0, 45.0]),
        st.sampled_from([5.0, 20.0, 150.0]),
        st.sampled_from([5.0, 20.0, 70.0]),
    ),
    st.builds(lambda ring: m.FieldCondition(key="geo", geo_polygon=m.GeoPolygon(exterior=ring)), rings),
)

point_ids = st.one_of(st.integers(0, 12), st.sampled_from(UUIDS))

leaf_conditions = st.one_of(
    field_conditions,
    field_conditions,
    field_conditions,
    keys.map(lambda k: m.IsEmptyCondition(is_empty=m.PayloadField(key=k))),
    keys.map(lambda k: m.IsNullCondition(is_null=m.PayloadField(key=k))),
    st.lists(point_ids, max_size=6).map(lambda ids: m.HasIdCondition(has_id=ids)),
    st.sampled_from([*VECTORS, *SPARSE]).map(lambda name: m.HasVectorCondition(has_vector=name)),
)

inner_conditions = st.one_of(
    st.builds(lambda k, v: m.FieldCondition(key=k, match=v), st.sampled_from(["a", "b"]), matches),
    st.builds(
        lambda k, a, b: m.FieldCondition(key=k, range=m.Range(gte=a, lt=b)),
        st.sampled_from(["a", "b"]),
        numbers,
        numbers,
    ),
    st.sampled_from(["a", "b"]).map(lambda k: m.IsEmptyCondition(is_empty=m.PayloadField(key=k))),
    st.sampled_from(["a", "b"]).map(lambda k: m.IsNullCondition(is_null=m.PayloadField(key=k))),
)


def _clauses(conditions: st.SearchStrategy[Any]) -> st.SearchStrategy[m.Filter]:
    clause = st.one_of(st.none(), st.none(), conditions, st.lists(conditions, max_size=2))
    min_should = st.one_of(
        st.none(),
        st.none(),
        st.none(),
        st.builds(
            lambda given, count: m.MinShould(conditions=given, min_count=count),
            st.lists(conditions, min_size=1, max_size=3),
            st.integers(1, 3),
        ),
    )
    return st.builds(
        lambda must, should, must_not, at_least: m.Filter(
            must=must, should=should, must_not=must_not, min_should=at_least
        ),
        clause,
        clause,
        clause,
        min_should,
    )


nested_conditions = st.builds(
    lambda key, inner: m.NestedCondition(nested=m.Nested(key=key, filter=inner)),
    st.sampled_from(["nest", "nest[]", "obj"]),
    _clauses(inner_conditions),
)
conditions = st.recursive(st.one_of(leaf_conditions, nested_conditions), _clauses, max_leaves=5)
filters = _clauses(conditions)
maybe_filters = st.one_of(st.none(), st.none(), st.none(), filters)


# -------------------------------------------------------------------------------------------------------- vectors


def dense_of(rng: random.Random, size: int) -> list[float]:
    """Return a vector whose like does not occur twice."""
    return [rng.gauss(0.0, 1.0) for _ in range(size)]


def sparse_of(rng: random.Random, most: int = 5) -> m.SparseVector:
    """Return a sparse vector of at least one term."""
    indices = rng.sample(range(TERMS), rng.randint(1, most))
    return m.SparseVector(indices=indices, values=[rng.uniform(0.1, 2.0) for _ in indices])


def vector_of(rng: random.Random, name: str) -> Any:
    """Return a vector that fits the one of that name."""
    if name in SPARSE:
        return sparse_of(rng)
    params = VECTORS[name]
    if params.multivector_config is not None:
        return [dense_of(rng, params.size) for _ in range(rng.randint(1, 3))]
    return dense_of(rng, params.size)


@st.composite
def collections(draw: st.DrawFn, min_points: int = 0) -> dict[str, Any]:
    """Draw a collection: its vectors, its points and its payload indexes."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    unnamed = draw(st.booleans()) and draw(st.booleans())
    if unnamed:
        names = [""]
        vectors: Any = m.VectorParams(size=3, distance=draw(st.sampled_from(list(m.Distance))))
        sparse: dict[str, m.SparseVectorParams] = {}
    else:
        names = draw(st.lists(st.sampled_from([*VECTORS, *SPARSE]), min_size=1, max_size=4, unique=True))
        vectors = {name: VECTORS[name] for name in names if name in VECTORS}
        sparse = {name: SPARSE[name] for name in names if name in SPARSE}
    ids = draw(st.lists(point_ids, min_size=min_points, max_size=14, unique=True))
    points = []
    for point in ids:
        named = {name: vector_of(rng, name) for name in names if rng.random() < 0.85}
        points.append(
            m.PointStruct(
                id=point,
                vector=named.get("", {}) if unnamed else named,
                payload=draw(st.one_of(payloads, payloads, st.none())),
            )
        )
    indexes = draw(
        st.lists(
            st.sampled_from(
                [
                    ("kw", m.PayloadSchemaType.KEYWORD),
                    ("num", m.PayloadSchemaType.FLOAT),
                    ("int", m.PayloadSchemaType.INTEGER),
                    ("flag", m.PayloadSchemaType.BOOL),
                    ("geo", m.PayloadSchemaType.GEO),
                    ("when", m.PayloadSchemaType.DATETIME),
                    ("uid", m.PayloadSchemaType.UUID),
                    ("uid", m.PayloadSchemaType.KEYWORD),
                    ("nest[].a", m.PayloadSchemaType.KEYWORD),
                ]
            ),
            max_size=3,
            unique_by=lambda pair: pair[0],
        )
    )
    return {"vectors": vectors, "sparse": sparse, "names": names, "points": points, "indexes": indexes, "rng": rng}


# -------------------------------------------------------------------------------------------------------- queries

selectors = st.one_of(
    st.booleans(),
    st.lists(st.sampled_from(["kw", "num", "obj.x", "nest[].a", "obj", "missing"]), max_size=3),
    st.lists(st.sampled_from(["kw", "num", "obj.x", "nest[].a", "obj"]), min_size=1, max_size=3).map(
        lambda keys: m.PayloadSelectorInclude(include=keys)
    ),
    st.lists(st.sampled_from(["kw", "num", "obj.x", "nest[].a", "obj"]), min_size=1, max_size=3).map(
        lambda keys: m.PayloadSelectorExclude(exclude=keys)
    ),
)


def stored(drawn: dict[str, Any], name: str) -> list[Any]:
    """Return the ids of the points that have a vector of that name."""
    return [
        point.id
        for point in drawn["points"]
        if (name in point.vector if isinstance(point.vector, dict) else name == "")
    ]


@st.composite
def examples(draw: st.DrawFn, drawn: dict[str, Any], name: str) -> Any:
    """Draw a vector, or the id of a point that has one."""
    ids = stored(drawn, name)
    if ids and draw(st.booleans()):
        return draw(st.sampled_from(ids))
    return vector_of(drawn["rng"], name)


@st.composite
def nearest(draw: st.DrawFn, drawn: dict[str, Any], name: str) -> Any:
    """Draw a nearest query as a vector, an id or a model."""
    example = draw(examples(drawn, name))
    return m.NearestQuery(nearest=example) if draw(st.booleans()) else example


@st.composite
def recommend(draw: st.DrawFn, drawn: dict[str, Any], name: str) -> m.RecommendQuery:
    """Draw a recommendation of any strategy."""
    strategy = draw(st.one_of(st.none(), st.sampled_from(list(m.RecommendStrategy))))
    average = strategy in (None, m.RecommendStrategy.AVERAGE_VECTOR)
    positive = draw(st.lists(examples(drawn, name), min_size=1 if average else 0, max_size=3))
    negative = draw(st.lists(examples(drawn, name), min_size=0 if positive else 1, max_size=2))
    return m.RecommendQuery(recommend=m.RecommendInput(positive=positive, negative=negative or None, strategy=strategy))


def _pairs(drawn: dict[str, Any], name: str) -> st.SearchStrategy[list[m.ContextPair]]:
    return st.lists(
        st.builds(
            lambda good, bad: m.ContextPair(positive=good, negative=bad), examples(drawn, name), examples(drawn, name)
        ),
        min_size=1,
        max_size=3,
    )


@st.composite
def discover(draw: st.DrawFn, drawn: dict[str, Any], name: str) -> m.DiscoverQuery:
    """Draw a discovery."""
    pairs = draw(_pairs(drawn, name))
    return m.DiscoverQuery(discover=m.DiscoverInput(target=draw(examples(drawn, name)), context=pairs))


@st.composite
def context(draw: st.DrawFn, drawn: dict[str, Any], name: str) -> m.ContextQuery:
    """Draw a context search."""
    return m.ContextQuery(context=draw(_pairs(drawn, name)))


@st.composite
def feedback(draw: st.DrawFn, drawn: dict[str, Any], name: str) -> m.RelevanceFeedbackQuery:
    """Draw a search with relevance feedback."""
    items = draw(
        st.lists(
            st.builds(
                lambda example, score: m.FeedbackItem(example=example, score=score),
                examples(drawn, name),
                st.sampled_from([-1.0, 0.25, 0.5, 1.0]),
            ),
            min_size=1,
            max_size=3,
        )
    )
    return m.RelevanceFeedbackQuery(
        relevance_feedback=m.RelevanceFeedbackInput(
            target=draw(examples(drawn, name)),
            feedback=items,
            strategy=m.NaiveFeedbackStrategy(naive=m.NaiveFeedbackStrategyParams(a=0.7, b=1.0, c=0.4)),
        )
    )


@st.composite
def mmr(draw: st.DrawFn, drawn: dict[str, Any], name: str) -> m.NearestQuery:
    """Draw a search for different points."""
    return m.NearestQuery(
        nearest=draw(examples(drawn, name)),
        mmr=m.Mmr(
            diversity=draw(st.one_of(st.none(), st.sampled_from([0.0, 0.3, 1.0]))),
            candidates_limit=draw(st.one_of(st.none(), st.integers(1, 20))),
        ),
    )


idf_params = st.one_of(
    st.none(),
    st.just(m.SearchParams(idf=m.IdfScope.GLOBAL)),
    filters.map(lambda corpus: m.SearchParams(idf=m.IdfCorpusParams(corpus=corpus))),
)

DEFAULTS = {"amount": 0.75, "at": "2024-06-01T00:00:00Z", "place": {"lon": 10.0, "lat": 50.0}}
AGE = m.SumExpression(
    sum=[
        m.DatetimeExpression(datetime="2025-01-01T00:00:00Z"),
        m.NegExpression(neg=m.DatetimeKeyExpression(datetime_key="at")),
    ]
)
DISTANCE = m.GeoDistance(geo_distance=m.GeoDistanceParams(origin=m.GeoPoint(lon=5.0, lat=45.0), to="place"))


def _decay(kind: str, x: Any, scale: float) -> Any:
    if kind == "gauss":
        return m.GaussDecayExpression(gauss_decay=m.DecayParamsExpression(x=x, target=0.5, scale=scale))
    if kind == "exp":
        return m.ExpDecayExpression(exp_decay=m.DecayParamsExpression(x=x, scale=scale))
    return m.LinDecayExpression(lin_decay=m.DecayParamsExpression(x=x, target=1.0, scale=scale, midpoint=0.2))


decays = st.sampled_from(["gauss", "exp", "lin"])
expressions = st.recursive(
    st.one_of(
        st.sampled_from([0.5, 1.0, -2.0, 3.0]),
        st.sampled_from(["$score", "$score", "$score[0]", "amount"]),
        st.builds(lambda k, v: m.FieldCondition(key=k, match=v), st.sampled_from(["kw", "flag"]), matches),
        decays.map(lambda kind: _decay(kind, AGE, 86_400.0 * 90)),
        decays.map(lambda kind: _decay(kind, DISTANCE, 500_000.0)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda e: m.SumExpression(sum=e)),
        st.lists(inner, min_size=1, max_size=3).map(lambda e: m.MultExpression(mult=e)),
        st.lists(inner, min_size=1, max_size=3).map(lambda e: m.MaxExpression(max=e)),
        st.lists(inner, min_size=1, max_size=3).map(lambda e: m.MinExpression(min=e)),
        inner.map(lambda e: m.NegExpression(neg=e)),
        inner.map(lambda e: m.AbsExpression(abs=e)),
        inner.map(lambda e: m.SqrtExpression(sqrt=m.AbsExpression(abs=e))),
        inner.map(lambda e: m.LnExpression(ln=m.SumExpression(sum=[m.AbsExpression(abs=e), 1.0]))),
        inner.map(lambda e: m.Log10Expression(log10=m.SumExpression(sum=[m.AbsExpression(abs=e), 1.0]))),
        inner.map(lambda e: m.AcoshExpression(acosh=m.SumExpression(sum=[m.AbsExpression(abs=e), 1.0]))),
        inner.map(lambda e: m.ExpExpression(exp=m.NegExpression(neg=m.AbsExpression(abs=e)))),
        st.builds(
            lambda e, by: m.DivExpression(div=m.DivParams(left=e, right=by, by_zero_default=0.0)),
            inner,
            st.one_of(st.sampled_from([2.0, -4.0, 0.0])),
        ),
        inner.map(lambda e: m.PowExpression(pow=m.PowParams(base=m.AbsExpression(abs=e), exponent=0.5))),
        st.builds(_decay, decays, inner, st.sampled_from([0.5, 2.0, 10.0])),
    ),
    max_leaves=4,
)
formulas = expressions.map(lambda e: m.FormulaQuery(formula=e, defaults=DEFAULTS))

limits = st.one_of(st.integers(1, 20), st.just(50))
thresholds = st.one_of(st.none(), st.none(), st.none(), st.none(), st.sampled_from([-1.03, 0.07, 0.31, 1.23]))


@st.composite
def plain(draw: st.DrawFn, drawn: dict[str, Any]) -> dict[str, Any]:
    """Draw a query whose scores are all different, to be fused or cut off by a limit."""
    name = draw(st.sampled_from(drawn["names"]))
    average = st.lists(examples(drawn, name), min_size=1, max_size=2).map(
        lambda positive: m.RecommendQuery(recommend=m.RecommendInput(positive=positive))
    )
    return {
        "query": draw(st.one_of(nearest(drawn, name), average)),
        "using": name or draw(st.sampled_from([None, ""])),
        "params": draw(idf_params) if name == "idf" else None,
    }


@st.composite
def prefetches(draw: st.DrawFn, drawn: dict[str, Any], depth: int = 1) -> m.Prefetch:
    """Draw a prefetch, which may have prefetches of its own."""
    inner = None
    if depth and draw(st.booleans()):
        inner = draw(st.lists(prefetches(drawn, depth - 1), min_size=1, max_size=2))
        if len(inner) == 1 and draw(st.booleans()):
            inner = inner[0]
    return m.Prefetch(
        **draw(plain(drawn)),
        prefetch=inner,
        filter=draw(maybe_filters),
        limit=draw(st.one_of(st.none(), limits)),
        score_threshold=draw(thresholds),
    )


@st.composite
def merged(draw: st.DrawFn, drawn: dict[str, Any]) -> dict[str, Any]:
    """Draw a query over prefetches: a fusion, a formula or another score."""
    given = draw(st.lists(prefetches(drawn), min_size=1, max_size=3))
    weights = draw(
        st.one_of(st.none(), st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=len(given), max_size=len(given)))
    )
    k = draw(st.one_of(st.none(), st.integers(1, 60)))
    query: dict[str, Any] = draw(
        st.one_of(
            st.sampled_from(list(m.Fusion)).map(lambda f: {"query": m.FusionQuery(fusion=f)}),
            st.just({"query": m.RrfQuery(rrf=m.Rrf(k=k, weights=weights))}),
            formulas.map(lambda f: {"query": f}),
            plain(drawn),
        )
    )
    return {**query, "prefetch": given[0] if len(given) == 1 and draw(st.booleans()) else given}


@st.composite
def single(draw: st.DrawFn, drawn: dict[str, Any]) -> dict[str, Any]:
    """Draw a query of any kind without prefetches."""
    name = draw(st.sampled_from(drawn["names"]))
    kinds = [nearest, recommend, discover, context]
    if name in VECTORS and VECTORS[name].multivector_config is None:
        kinds.append(feedback)
    return {
        "query": draw(st.sampled_from(kinds).flatmap(lambda kind: kind(drawn, name))),
        "using": name or draw(st.sampled_from([None, ""])),
        "params": draw(idf_params) if name == "idf" else None,
    }


@st.composite
def requests(draw: st.DrawFn, drawn: dict[str, Any]) -> dict[str, Any]:
    """Draw a whole request, as the fields of ``QueryRequest``."""
    query = draw(st.one_of(single(drawn), merged(drawn), st.just({"query": None})))
    return {
        **query,
        "filter": draw(maybe_filters),
        "limit": draw(limits),
        "offset": draw(st.one_of(st.none(), st.none(), st.integers(0, 4))),
        "with_payload": draw(selectors),
        "with_vector": draw(
            st.one_of(st.booleans(), st.lists(st.sampled_from(["", "dot", "idf", "multi", "nope"]), max_size=2))
        ),
        "score_threshold": None if query["query"] is None else draw(thresholds),
    }


# --------------------------------------------------------------------------------------------------------- writes

point_selectors = st.one_of(
    st.lists(point_ids, min_size=1, max_size=4),
    st.lists(point_ids, max_size=4).map(lambda ids: m.PointIdsList(points=ids)),
    filters,
    filters.map(lambda f: m.FilterSelector(filter=f)),
)
paths = st.sampled_from(["kw", "obj.x", "nest[].a", "nest[0]", "new.deep", "any"])
fields = st.dictionaries(
    st.sampled_from(["kw", "num", "fresh"]), values.filter(lambda value: value is not None), max_size=2
)


@st.composite
def point(draw: st.DrawFn, drawn: dict[str, Any], vectors_only: bool = False) -> Any:
    """Draw a point for a collection, or new vectors of one; sometimes one that does not fit."""
    rng = drawn["rng"]
    names = draw(st.lists(st.sampled_from(drawn["names"]), unique=True))
    named = {name: vector_of(rng, name) for name in names}
    if draw(st.integers(0, 12)) == 0:
        named[draw(st.sampled_from(["nope", *drawn["names"]]))] = draw(st.sampled_from([[1.0], [], [float("nan")] * 3]))
    vector: Any = named
    if isinstance(drawn["vectors"], m.VectorParams) and "" in named and len(named) == 1 and draw(st.booleans()):
        vector = named[""]
    identity = draw(point_ids)
    if vectors_only:
        return m.PointVectors(id=identity, vector=vector)
    return m.PointStruct(id=identity, vector=vector, payload=draw(st.one_of(st.none(), payloads)))


@st.composite
def writes(draw: st.DrawFn, drawn: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Draw a writing call: the method's name and its arguments."""
    kind = draw(
        st.sampled_from(
            ["upsert", "upsert", "delete", "set", "overwrite", "delete_payload", "clear", "vectors", "delete_vectors"]
        )
    )

    def some(strategy: st.SearchStrategy[Any], low: int = 1, unique: bool = False) -> list[Any]:
        by = (lambda each: each.id) if unique else None
        return draw(st.lists(strategy, min_size=low, max_size=4, unique_by=by))

    if kind == "upsert":
        if draw(st.booleans()):
            return "upsert", {"points": some(point(drawn), 0)}
        return "upsert", {
            "points": some(point(drawn), 0, unique=True),
            "update_filter": draw(maybe_filters),
            "update_mode": draw(st.one_of(st.none(), st.sampled_from(list(m.UpdateMode)))),
        }
    if kind == "vectors":
        points = some(point(drawn, True), 0, unique=True)
        return "update_vectors", {"points": points, "update_filter": draw(maybe_filters)}
    selector = draw(point_selectors)
    if kind == "delete":
        return "delete", {"points_selector": selector}
    if kind == "set":
        return "set_payload", {"payload": draw(fields), "points": selector, "key": draw(st.one_of(st.none(), paths))}
    if kind == "overwrite":
        return "overwrite_payload", {"payload": draw(payloads), "points": selector}
    if kind == "delete_payload":
        return "delete_payload", {"keys": some(paths), "points": selector}
    if kind == "clear":
        return "clear_payload", {"points_selector": selector}
    names = some(st.sampled_from([*drawn["names"], *drawn["names"], "nope"]), 0)
    return "delete_vectors", {"vectors": names, "points": selector}
