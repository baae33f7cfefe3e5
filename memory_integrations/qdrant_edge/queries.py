"""Queries from qdrant_client's models to the engine's types: every kind, with their trees of prefetches.

Where a query names a point instead of a vector, the vector is looked up, and the point itself is kept out of
the results, as the server does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import numpy as np
import qdrant_edge as edge
from qdrant_client import models

from memory_integrations.qdrant_edge.errors import unsupported
from memory_integrations.qdrant_edge.filters import edge_filter, excluding, instant
from memory_integrations.qdrant_edge.formulas import edge_formula
from memory_integrations.qdrant_edge.points import (
    Schema,
    edge_point_id,
    edge_sparse,
    payload_selector,
    reject_inference,
    vector_selector,
)

__all__ = ["Context", "Search", "query_request"]

MMR_CANDIDATES_LIMIT_MAX = 16_384
DEFAULT_LIMIT = 10
DEFAULT_RANKING_CONSTANT_K = 2


class Context(Protocol):
    """What building a query needs to know about the collection."""

    name: str
    schema: Schema

    def vector_of(self, point_id: Any, vector_name: str, lookup_from: models.LookupLocation | None) -> Any:
        """Return a stored vector as the engine takes it."""
        ...


class Search(NamedTuple):
    """One search, as ``QdrantClient.query_points`` is given it."""

    query: Any
    using: str | None
    prefetch: Any
    query_filter: models.Filter | None
    search_params: models.SearchParams | None
    limit: int
    offset: int | None
    with_payload: Any
    with_vectors: Any
    score_threshold: float | None
    lookup_from: models.LookupLocation | None

    @classmethod
    def of(cls, request: models.QueryRequest) -> Search:
        """Return the search that a request of a batch asks for."""
        return cls(
            request.query,
            request.using,
            request.prefetch,
            request.filter,
            request.params,
            DEFAULT_LIMIT if request.limit is None else request.limit,
            request.offset,
            request.with_payload,
            request.with_vector,
            request.score_threshold,
            request.lookup_from,
        )


def query_request(context: Context, search: Search) -> edge.QueryRequest:
    """Return the engine's request for a search.

    Raises:
        ValueError: an argument is out of range, a vector's name or size is not the collection's, a point named
            in the query is not there.
        NotImplementedError: the query needs a server.
    """
    limit, offset = search.limit, search.offset
    if limit < 1:
        raise ValueError(f"limit value {limit} is invalid. Must be 1 or larger.")
    if offset is not None and offset < 0:
        raise ValueError(f"offset value {offset} is invalid. Must be 0 or larger.")
    scoring, conditions, prefetches = _stage(context, search)
    return edge.QueryRequest(
        limit,
        offset=offset,
        query=scoring,
        prefetches=prefetches,
        with_vector=vector_selector(search.with_vectors, context.schema),
        with_payload=payload_selector(search.with_payload),
        filter=conditions,
        score_threshold=search.score_threshold,
        params=None if search.search_params is None else _search_params(search.search_params),
    )


def _stage(
    context: Context, stage: Search
) -> tuple[edge.ScoringQueryType | None, edge.Filter | None, list[edge.Prefetch] | None]:
    """Convert what a request and a prefetch have in common."""
    query, score_threshold = stage.query, stage.score_threshold
    prefetches = _prefetches(context, stage.prefetch)
    conditions = edge_filter(stage.query_filter)
    if query is None:
        if prefetches:
            raise ValueError("A query is needed to merge the prefetches.")
        if score_threshold is not None:
            raise ValueError("A query is needed to use the score_threshold.")
        return None, conditions, None
    if score_threshold is not None and isinstance(query, models.OrderByQuery):
        raise ValueError("Can't use score_threshold with an order_by query.")
    building = _Query(context, stage, bool(prefetches))
    scoring = building.build(query)
    if building.mentioned:
        conditions = excluding(conditions, building.mentioned)
    return scoring, conditions, prefetches


def _prefetches(context: Context, prefetch: Any) -> list[edge.Prefetch] | None:
    if not prefetch:
        return None
    items: Sequence[models.Prefetch] = [prefetch] if isinstance(prefetch, models.Prefetch) else prefetch
    return [_prefetch(context, item) for item in items if item is not None]


def _prefetch(context: Context, item: models.Prefetch) -> edge.Prefetch:
    limit = DEFAULT_LIMIT if item.limit is None else item.limit
    if limit < 1:
        raise ValueError(f"prefetch limit value {limit} is invalid. Must be 1 or larger.")
    stage = Search(
        item.query,
        item.using,
        item.prefetch,
        item.filter,
        item.params,
        limit,
        None,
        False,
        False,
        item.score_threshold,
        item.lookup_from,
    )
    scoring, conditions, prefetches = _stage(context, stage)
    return edge.Prefetch(
        limit,
        query=scoring,
        prefetches=prefetches,
        params=None if item.params is None else _search_params(item.params),
        filter=conditions,
        score_threshold=item.score_threshold,
    )


class _Query:
    """Builds one query and collects the points that it names."""

    def __init__(self, context: Context, stage: Search, has_prefetch: bool) -> None:
        self.context = context
        self.using = stage.using
        self.name = stage.using or ""
        self.limit = stage.limit
        self.lookup_from = stage.lookup_from
        self.has_prefetch = has_prefetch
        self.mentioned: set[edge.PointId] = set()

    def build(self, query: Any) -> edge.ScoringQueryType:
        convert = _QUERIES.get(type(query))
        if convert is not None:
            return convert(self, query)
        return edge.Query.Nearest(self.vector(query), using=self.name)

    def vector(self, value: Any) -> Any:
        """Return a vector for the engine, of whatever may stand for one."""
        params = self.context.schema.get(self.name)
        if type(value) is list:
            if not isinstance(params, models.VectorParams):
                raise ValueError(f"Dense vector {self.name} is not found in the collection")
            if (params.multivector_config is not None) != (bool(value) and isinstance(value[0], list)):
                raise ValueError(
                    f"{'Dense vector' if params.multivector_config else 'Multivector'} {self.name} is not found in "
                    "the collection"
                )
            return value
        if isinstance(value, models.SparseVector):
            if not isinstance(params, models.SparseVectorParams):
                raise ValueError(f"Sparse vector {self.name} is not found in the collection")
            return edge_sparse(value)
        if isinstance(value, np.ndarray):
            return self.vector(value.tolist())
        if isinstance(value, int | str | UUID) and not isinstance(value, bool):
            found = self.context.vector_of(value, self.name, self.lookup_from)
            if self.lookup_from is None or self.lookup_from.collection == self.context.name:
                self.mentioned.add(edge_point_id(value))
            return found
        reject_inference(value)
        if isinstance(value, Sequence):
            return self.vector(list(value))
        raise ValueError(f"Unsupported query type: {type(value)}")

    def vectors(self, values: Iterable[Any] | None) -> list[Any]:
        return [self.vector(value) for value in values or ()]

    def nearest(self, query: models.NearestQuery) -> edge.ScoringQueryType:
        vector = self.vector(query.nearest)
        mmr = query.mmr
        if mmr is None:
            return edge.Query.Nearest(vector, using=self.name)
        candidates = self.limit if mmr.candidates_limit is None else mmr.candidates_limit
        if not 0 <= candidates <= MMR_CANDIDATES_LIMIT_MAX:
            raise ValueError(
                f"mmr candidates_limit value {candidates} is invalid. Must be from 0 to {MMR_CANDIDATES_LIMIT_MAX}."
            )
        if isinstance(vector, edge.SparseVector):
            raise unsupported("MMR over sparse vectors inside a prefetch")
        diversity = 0.5 if mmr.diversity is None else mmr.diversity
        if not 0.0 <= diversity <= 1.0:
            raise ValueError("MMR lambda must be between 0.0 and 1.0")
        return edge.Mmr(vector, 1.0 - diversity, candidates, using=self.name)

    def recommend(self, query: models.RecommendQuery) -> edge.Query:
        given = query.recommend
        positives, negatives = self.vectors(given.positive), self.vectors(given.negative)
        strategy = given.strategy or models.RecommendStrategy.AVERAGE_VECTOR
        if strategy == models.RecommendStrategy.AVERAGE_VECTOR:
            if not positives:
                raise ValueError("Positive list is empty")
            return edge.Query.Nearest(_average(positives, negatives), using=self.name)
        if not positives and not negatives:
            raise ValueError("No positive or negative examples given")
        examples = edge.RecommendQuery(positives, negatives)
        if strategy == models.RecommendStrategy.BEST_SCORE:
            return edge.Query.RecommendBestScore(examples, using=self.name)
        return edge.Query.RecommendSumScores(examples, using=self.name)

    def pairs(self, context: Any) -> list[edge.ContextPair]:
        given = context if isinstance(context, list) else [context]
        return [edge.ContextPair(self.vector(pair.positive), self.vector(pair.negative)) for pair in given if pair]

    def discover(self, query: models.DiscoverQuery) -> edge.Query:
        target = self.vector(query.discover.target)
        return edge.Query.Discover(edge.DiscoverQuery(target, self.pairs(query.discover.context)), using=self.name)

    def context_only(self, query: models.ContextQuery) -> edge.Query:
        pairs = self.pairs(query.context)
        if not pairs:
            raise ValueError("No target or context given")
        return edge.Query.Context(edge.ContextQuery(pairs), using=self.name)

    def feedback(self, query: models.RelevanceFeedbackQuery) -> edge.Query:
        given = query.relevance_feedback
        naive = given.strategy.naive
        if naive.b < 0:
            raise ValueError(f"naive feedback b value {naive.b} is invalid. Must be 0 or larger.")
        return edge.Query.FeedbackNaive(
            edge.FeedbackNaiveQuery(
                self.vector(given.target),
                [edge.FeedbackItem(self.vector(item.example), item.score) for item in given.feedback],
                edge.NaiveFeedbackStrategy(naive.a, naive.b, naive.c),
            ),
            using=self.name,
        )

    def order_by(self, query: models.OrderByQuery) -> edge.OrderBy:
        return edge_order_by(query.order_by)

    def fusion(self, query: models.FusionQuery) -> edge.ScoringQueryType:
        self.merging("fusion")
        if query.fusion == models.Fusion.RRF:
            return edge.Fusion.Rrf(DEFAULT_RANKING_CONSTANT_K)  # type: ignore[return-value]
        return edge.Fusion.Dbsf()  # type: ignore[return-value]

    def rrf(self, query: models.RrfQuery) -> edge.ScoringQueryType:
        k = DEFAULT_RANKING_CONSTANT_K if query.rrf.k is None else query.rrf.k
        if k < 1:
            raise ValueError(f"rrf k value {k} is invalid. Must be 1 or larger.")
        self.merging("RRF query")
        return edge.Fusion.Rrf(k, query.rrf.weights)  # type: ignore[return-value]

    def merging(self, kind: str) -> None:
        if self.using:
            raise ValueError("Fusion queries cannot be combined with the 'using' field.")
        if not self.has_prefetch:
            raise ValueError(f"Cannot perform {kind} without prefetches")

    def formula(self, query: models.FormulaQuery) -> edge.Formula:
        if not self.has_prefetch:
            raise ValueError("Cannot perform formula without prefetches")
        return edge_formula(query)

    def sample(self, query: models.SampleQuery) -> edge.Sample:
        return edge.Sample.Random

    def text(self, query: models.TextQuery) -> edge.TextQuery:
        if self.using is None:
            raise ValueError("A text query needs `using` to name the payload field to search")
        if isinstance(query.text, str):
            return edge.TextQuery(self.using, query.text)
        scoring = query.text.scoring
        params = edge.Bm25Params(scoring.bm25.k, scoring.bm25.b) if scoring is not None else None
        return edge.TextQuery(self.using, query.text.query, params)


_QUERIES: dict[type, Callable[[_Query, Any], edge.ScoringQueryType]] = {
    models.NearestQuery: _Query.nearest,
    models.RecommendQuery: _Query.recommend,
    models.DiscoverQuery: _Query.discover,
    models.ContextQuery: _Query.context_only,
    models.OrderByQuery: _Query.order_by,
    models.FusionQuery: _Query.fusion,
    models.RrfQuery: _Query.rrf,
    models.FormulaQuery: _Query.formula,
    models.SampleQuery: _Query.sample,
    models.RelevanceFeedbackQuery: _Query.feedback,
    models.TextQuery: _Query.text,
}


def _average(positives: list[Any], negatives: list[Any]) -> Any:
    """Return what ``RecommendStrategy.AVERAGE_VECTOR`` searches for: twice the good mean, less the bad one."""
    first = positives[0]
    if isinstance(first, edge.SparseVector):
        return _average_sparse(positives, negatives)
    if isinstance(first[0], list):
        # the engine matches every row of a multivector by itself, so rows are gathered, not averaged
        return [row for rows in positives for row in rows] + [[-x for x in row] for rows in negatives for row in rows]
    mean = np.mean(np.asarray(positives, dtype=np.float32), axis=0)
    if negatives:
        mean = mean + mean - np.mean(np.asarray(negatives, dtype=np.float32), axis=0)
    return mean.tolist()


def _average_sparse(positives: list[edge.SparseVector], negatives: list[edge.SparseVector]) -> edge.SparseVector:
    totals: dict[int, float] = {}
    sides = [(positives, 2.0 if negatives else 1.0), (negatives, -1.0)]
    for vectors, weight in sides:
        for vector in vectors:
            for index, value in zip(vector.indices, vector.values, strict=True):
                totals[index] = totals.get(index, 0.0) + weight * value / len(vectors)
    return edge.SparseVector(list(totals), list(totals.values()))


def edge_order_by(order_by: Any) -> edge.OrderBy:
    """Return the engine's form of an order: a key, or a key with a direction and a start."""
    if isinstance(order_by, str):
        return edge.OrderBy(order_by)
    direction = None
    if order_by.direction is not None:
        direction = edge.Direction.Desc if order_by.direction == models.Direction.DESC else edge.Direction.Asc
    start = instant(order_by.start_from) if isinstance(order_by.start_from, date) else order_by.start_from
    return edge.OrderBy(order_by.key, direction, start)


def _search_params(params: Any) -> edge.SearchParams:
    if isinstance(params, dict):
        params = models.SearchParams(**params)
    return edge.SearchParams(
        hnsw_ef=params.hnsw_ef,
        exact=bool(params.exact),
        quantization=_given(edge.QuantizationSearchParams, params.quantization),
        indexed_only=bool(params.indexed_only),
        acorn=_given(edge.AcornSearchParams, params.acorn),
        idf=_idf(params.idf),
    )


def _given(edge_class: type, model: Any) -> Any:
    return None if model is None else edge_class(**{name: value for name, value in model if value is not None})


def _idf(idf: models.IdfParams | None) -> edge.IdfParams | None:
    if idf is None:
        return None
    return edge.IdfParams(edge_filter(idf.corpus) if isinstance(idf, models.IdfCorpusParams) else None)
