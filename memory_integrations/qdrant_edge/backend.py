"""The engine behind ``QdrantEdgeClient``: every call of ``qdrant_client``'s ``QdrantBase``, over shards on disk.

Each method does what the same method of a server does for one machine. Options that only tune a cluster
(``consistency``, ``ordering``, ``wait``, ``timeout``, replication) have nothing to act on and are accepted;
options that would change a result and cannot be kept raise ``NotImplementedError``.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import qdrant_edge as edge
from qdrant_client import models
from qdrant_client.client_base import QdrantBase
from qdrant_client.http.models import QueryResponse
from qdrant_client.migrate.migrate import migrate

from memory_integrations.qdrant_edge import configs, emulated, shard, snapshots, writes
from memory_integrations.qdrant_edge.errors import unsupported
from memory_integrations.qdrant_edge.filters import edge_filter
from memory_integrations.qdrant_edge.points import (
    edge_payload,
    edge_point_id,
    known_point_id,
    ordered_points,
    payload_selector,
    plain_vector,
    point_id,
    query_response,
    records,
    scored_points,
    update_result,
    vector_selector,
)
from memory_integrations.qdrant_edge.queries import Search, query_request
from memory_integrations.qdrant_edge.store import Collection, Lease, Store

__all__ = ["EdgeBackend"]

POINTS_PER_PAGE = 512
MAX_VECTOR_SIZE = 65_536
CLUSTER_OPTIONS = frozenset(
    {"consistency", "max_retries", "method", "ordering", "parallel", "shard_key_selector", "timeout", "wait"}
)
"""What steers requests to a cluster. One process has nothing to steer, except that shard keys choose points."""
INVALID_NAME_CHARS = '<>:"/\\|?*\0\x1f'


class EdgeBackend(QdrantBase):
    """Serves a directory of collections; see the module's docstring.

    Args:
        path: the directory, or None for a private temporary one that goes when the last user closes.
        beside: a backend whose temporary directory this one shares.
    """

    _lease: Lease

    def __init__(self, path: Path | None, beside: EdgeBackend | None = None) -> None:
        super().__init__()
        self._lease = Lease(path, beside._lease if beside is not None and path is None else None)
        # runs when the backend is collected and, at the latest, when the interpreter ends
        self._finalizer = weakref.finalize(self, self._lease.release)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._lease.closed

    def close(self, **kwargs: Any) -> None:
        """Flush, and give the directory up when no other client of this process uses it."""
        self._finalizer()

    def _store(self) -> Store:
        return self._lease.store or self._lease.open()

    def _collection(self, name: str) -> Collection:
        return (self._lease.store or self._lease.open()).collection(name)

    # ------------------------------------------------------------------------------------------------- searching

    def query_points(
        self,
        collection_name: str,
        query: Any = None,
        using: str | None = None,
        prefetch: Any = None,
        query_filter: models.Filter | None = None,
        search_params: models.SearchParams | None = None,
        limit: int = 10,
        offset: int | None = None,
        with_payload: Any = True,
        with_vectors: Any = False,
        score_threshold: float | None = None,
        lookup_from: models.LookupLocation | None = None,
        consistency: Any = None,
        shard_key_selector: Any = None,
        timeout: int | None = None,
        **options: Any,
    ) -> QueryResponse:
        """Search; see ``QdrantClient.query_points``."""
        collection = self._collection(collection_name)
        if shard_key_selector is not None or options:
            _check_options("query_points", {**options, "shard_key_selector": shard_key_selector})
        search = Search(
            query,
            using,
            prefetch,
            query_filter,
            search_params,
            limit,
            offset,
            with_payload,
            with_vectors,
            score_threshold,
            lookup_from,
        )
        special = _special(collection, search)
        if special is not None:
            return special(self, collection, search)
        return scored_points(collection.read(edge.EdgeShard.query, query_request(collection, search)))

    def query_batch_points(
        self,
        collection_name: str,
        requests: Sequence[models.QueryRequest],
        consistency: Any = None,
        timeout: int | None = None,
        **options: Any,
    ) -> list[QueryResponse]:
        """Search several times in one call of the engine; see ``QdrantClient.query_batch_points``."""
        collection = self._collection(collection_name)
        if options:
            _check_options("query_batch_points", options)
        searches = [Search.of(request) for request in requests]
        if any(_special(collection, search) for search in searches):
            return [self.query_points(collection_name, *search) for search in searches]
        batch = edge.QueryBatchRequest([query_request(collection, search) for search in searches])
        return [scored_points(found) for found in collection.read(edge.EdgeShard.query_batch, batch)]

    def query_scores(self, collection_name: str, requests: Sequence[models.QueryRequest]) -> list[dict[int, float]]:
        """Search several times and give only scores; see ``QdrantEdgeClient.query_scores``."""
        collection = self._collection(collection_name)
        batch = edge.QueryBatchRequest([query_request(collection, Search.of(request)) for request in requests])
        return [
            {(number if type(number := point.id) is int else number.int): point.score for point in found}  # type: ignore[union-attr]
            for found in collection.read(edge.EdgeShard.query_batch, batch)
        ]

    def _query_ordered(self, collection: Collection, search: Search) -> QueryResponse:
        """Answer an order without prefetches, which the engine does only for indexed fields."""
        if search.score_threshold is not None:
            raise ValueError("Can't use score_threshold with an order_by query.")
        skipped = search.offset or 0
        found, _ = self.scroll(
            collection.name,
            search.query_filter,
            search.limit + skipped,
            search.query.order_by,
            with_payload=search.with_payload,
            with_vectors=search.with_vectors,
        )
        return ordered_points(found[skipped:])

    def _query_diverse(self, collection: Collection, search: Search) -> QueryResponse:
        """Answer MMR over sparse vectors, which the engine does only for dense ones."""
        nearest, mmr, name = search.query.nearest, search.query.mmr, search.using or ""
        candidates = search.limit if mmr.candidates_limit is None else mmr.candidates_limit
        if candidates == 0:
            return query_response([])
        found = self.query_points(
            collection.name,
            *search._replace(query=models.NearestQuery(nearest=nearest), limit=candidates, offset=None),
        )
        if not isinstance(nearest, models.SparseVector):
            nearest = collection.vector_of(nearest, name, search.lookup_from)
        stored = self.retrieve(collection.name, [point.id for point in found.points], False, [name])
        vectors: dict[Any, Any] = {record.id: record.vector[name] for record in stored}  # type: ignore[call-overload, index]
        skipped = search.offset or 0
        picked = emulated.diverse(found.points, vectors, nearest, mmr, search.limit + skipped)
        return query_response(picked[skipped:])

    def query_points_groups(
        self,
        collection_name: str,
        group_by: str,
        query: Any = None,
        using: str | None = None,
        prefetch: Any = None,
        query_filter: models.Filter | None = None,
        search_params: models.SearchParams | None = None,
        limit: int = 10,
        group_size: int = 3,
        with_payload: Any = True,
        with_vectors: Any = False,
        score_threshold: float | None = None,
        with_lookup: Any = None,
        lookup_from: models.LookupLocation | None = None,
        **options: Any,
    ) -> models.GroupsResult:
        """Search and group what is found; see ``QdrantClient.query_points_groups``."""
        _check_options("query_points_groups", options)
        if limit < 1:
            raise ValueError(f"limit value {limit} is invalid. Must be 1 or larger.")
        if group_size < 1:
            raise ValueError(f"group_size value {group_size} is invalid. Must be 1 or larger.")
        total = self.count(collection_name).count
        wide = emulated.widened(prefetch, max(1, total))

        def search(count: int) -> list[models.ScoredPoint]:
            return self.query_points(
                collection_name,
                query,
                using=using,
                prefetch=wide,
                query_filter=query_filter,
                search_params=search_params,
                limit=count,
                with_payload=[group_by],
                score_threshold=score_threshold,
                lookup_from=lookup_from,
            ).points

        groups = emulated.groups(search, group_by, limit, group_size, total)
        wanted = list({hit.id: hit for group in groups for hit in group.hits})
        stored = {found.id: found for found in self.retrieve(collection_name, wanted, with_payload, with_vectors)}
        for hit in (hit for group in groups for hit in group.hits):
            found = stored.get(hit.id)
            hit.payload, hit.vector = (found.payload, found.vector) if found is not None else (None, None)
        if with_lookup is not None:
            self._look_up(groups, with_lookup)
        return models.GroupsResult(groups=groups)

    def _look_up(self, groups: list[models.PointGroup], with_lookup: Any) -> None:
        lookup = models.WithLookup(collection=with_lookup) if isinstance(with_lookup, str) else with_lookup
        self._collection(lookup.collection)
        for group in groups:
            try:
                wanted = edge_point_id(group.id)
            except (TypeError, ValueError):
                continue  # a group's value need not be a point's id
            found = self.retrieve(
                lookup.collection,
                [wanted],
                True if lookup.with_payload is None else lookup.with_payload,
                lookup.with_vectors,
            )
            group.lookup = next(iter(found), None)

    def search_matrix_pairs(
        self,
        collection_name: str,
        query_filter: models.Filter | None = None,
        limit: int = 3,
        sample: int = 10,
        using: str | None = None,
        **options: Any,
    ) -> models.SearchMatrixPairsResponse:
        """Compare a random sample of points with each other; see ``QdrantClient.search_matrix_pairs``."""
        _check_options("search_matrix_pairs", options)
        ids, rows = self._matrix(collection_name, query_filter, limit, sample, using or "")
        return models.SearchMatrixPairsResponse(
            pairs=[
                models.SearchMatrixPair(a=point, b=hit.id, score=hit.score)
                for point, row in zip(ids, rows, strict=True)
                for hit in row
            ]
        )

    def search_matrix_offsets(
        self,
        collection_name: str,
        query_filter: models.Filter | None = None,
        limit: int = 3,
        sample: int = 10,
        using: str | None = None,
        **options: Any,
    ) -> models.SearchMatrixOffsetsResponse:
        """Compare a random sample of points with each other; see ``QdrantClient.search_matrix_offsets``."""
        _check_options("search_matrix_offsets", options)
        ids, rows = self._matrix(collection_name, query_filter, limit, sample, using or "")
        column = {point: number for number, point in enumerate(ids)}
        cells = [(number, column[hit.id], hit.score) for number, row in enumerate(rows) for hit in row]
        return models.SearchMatrixOffsetsResponse(
            offsets_row=[row for row, _, _ in cells],
            offsets_col=[col for _, col, _ in cells],
            scores=[score for _, _, score in cells],
            ids=ids,
        )

    def _matrix(
        self, collection_name: str, query_filter: models.Filter | None, limit: int, sample: int, using: str
    ) -> tuple[list[Any], list[list[models.ScoredPoint]]]:
        if limit < 1:
            raise ValueError(f"limit value {limit} is invalid. Must be 1 or larger.")
        if sample < 2:
            raise ValueError(f"sample value {sample} is invalid. Must be 2 or larger.")
        has_vector = models.HasVectorCondition(has_vector=using)
        samples = self.query_points(
            collection_name,
            models.SampleQuery(sample=models.Sample.RANDOM),
            query_filter=models.Filter(must=[has_vector] if query_filter is None else [query_filter, has_vector]),
            limit=sample,
            with_payload=False,
            with_vectors=[using],
        ).points
        if len(samples) < 2:
            return [], []
        # integers before UUIDs, as the collection itself is ordered
        samples.sort(key=lambda point: (isinstance(point.id, str), point.id))
        requests = emulated.matrix_requests(samples, query_filter, limit, using)
        found = self.query_batch_points(collection_name, requests)
        return [point.id for point in samples], [response.points for response in found]

    # --------------------------------------------------------------------------------------------------- reading

    def retrieve(
        self,
        collection_name: str,
        ids: Sequence[Any],
        with_payload: Any = True,
        with_vectors: Any = False,
        **options: Any,
    ) -> list[models.Record]:
        """Read points by id, in the order asked for; those that are not there are left out."""
        _check_options("retrieve", options)
        collection = self._collection(collection_name)
        payload = payload_selector(with_payload)
        vectors = vector_selector(with_vectors, collection.schema)
        wanted = [point for point in map(known_point_id, ids) if point is not None]
        found: list[models.Record] = []
        for chunk in writes.chunks(wanted, POINTS_PER_PAGE):
            found += records(collection.read(edge.EdgeShard.retrieve, chunk, payload, vectors))
        if len(found) == len(wanted):
            return found
        stored = {record.id: record for record in found}
        order = map(point_id, wanted)
        return [stored[point] for point in order if point in stored]

    def scroll(
        self,
        collection_name: str,
        scroll_filter: models.Filter | None = None,
        limit: int = 10,
        order_by: Any = None,
        offset: Any = None,
        with_payload: Any = True,
        with_vectors: Any = False,
        **options: Any,
    ) -> tuple[list[models.Record], Any]:
        """Read points page by page; see ``QdrantClient.scroll``."""
        _check_options("scroll", options)
        if limit < 1:
            raise ValueError(f"limit value {limit} is invalid. Must be 1 or larger.")
        collection = self._collection(collection_name)
        conditions = edge_filter(scroll_filter)
        payload = payload_selector(with_payload)
        vectors = vector_selector(with_vectors, collection.schema)
        if order_by is not None:
            if offset is not None:
                raise ValueError("Offset is not supported in conjunction with `order_by` scroll parameter")
            order = models.OrderBy(key=order_by) if isinstance(order_by, str) else order_by
            return emulated.ordered(collection, order, conditions, limit, payload, vectors), None
        position = None if offset is None else edge_point_id(offset)
        found: list[models.Record] = []
        while True:
            request = edge.ScrollRequest(
                offset=position,
                limit=min(POINTS_PER_PAGE, limit - len(found)),
                filter=conditions,
                with_payload=payload,
                with_vector=vectors,
            )
            page, position = collection.read(edge.EdgeShard.scroll, request)
            found += records(page)
            if position is None or len(found) >= limit:
                return found, None if position is None else point_id(position)

    def count(
        self,
        collection_name: str,
        count_filter: models.Filter | None = None,
        exact: bool = True,
        **options: Any,
    ) -> models.CountResult:
        """Count points; see ``QdrantClient.count``."""
        _check_options("count", options)
        request = edge.CountRequest(exact=exact, filter=edge_filter(count_filter))
        return models.CountResult(count=self._collection(collection_name).read(edge.EdgeShard.count, request))

    def facet(
        self,
        collection_name: str,
        key: str,
        facet_filter: models.Filter | None = None,
        limit: int = 10,
        exact: bool = False,
        **options: Any,
    ) -> models.FacetResponse:
        """Count the values of a payload field; see ``QdrantClient.facet``."""
        _check_options("facet", options)
        if limit < 1:
            raise ValueError(f"limit value {limit} is invalid. Must be 1 or larger.")
        return emulated.facet(self._collection(collection_name), key, edge_filter(facet_filter), limit, exact)

    # --------------------------------------------------------------------------------------------------- writing

    def upsert(
        self,
        collection_name: str,
        points: Any,
        wait: bool = True,
        ordering: Any = None,
        shard_key_selector: Any = None,
        update_filter: models.Filter | None = None,
        update_mode: models.UpdateMode | None = None,
        timeout: int | None = None,
        **options: Any,
    ) -> models.UpdateResult:
        """Insert or replace points. All are checked before the first is written."""
        collection = self._collection(collection_name)
        if shard_key_selector is not None or options:
            _check_options("upsert", {**options, "shard_key_selector": shard_key_selector})
        return _apply(collection, writes.upsert(collection, points, update_filter, update_mode))

    def upload_points(
        self,
        collection_name: str,
        points: Iterable[Any],
        batch_size: int = 64,
        update_filter: models.Filter | None = None,
        update_mode: models.UpdateMode | None = None,
        **options: Any,
    ) -> None:
        """Insert or replace points from any iterable, batch by batch."""
        _check_options("upload_points", options)
        collection = self._collection(collection_name)
        stream = iter(points)
        while batch := list(itertools.islice(stream, max(1, batch_size))):
            _apply(collection, writes.upsert(collection, batch, update_filter, update_mode))

    def upload_collection(
        self,
        collection_name: str,
        vectors: Any,
        payload: Iterable[dict[Any, Any]] | None = None,
        ids: Iterable[Any] | None = None,
        batch_size: int = 64,
        **kwargs: Any,
    ) -> None:
        """Insert points from columns of vectors, payloads and ids; see ``QdrantClient.upload_collection``."""
        if isinstance(vectors, Mapping):
            if len({len(column) for column in vectors.values()}) > 1:
                raise ValueError("Each named vector should have the same number of vectors")
            rows: Iterable[Any] = (dict(zip(vectors, row, strict=True)) for row in zip(*vectors.values(), strict=True))
        else:
            rows = iter(vectors)
        numbered = zip(
            (str(uuid.uuid4()) for _ in itertools.count()) if ids is None else ids,
            rows,
            itertools.repeat({}) if payload is None else payload,
            strict=False,
        )
        self.upload_points(
            collection_name,
            (
                models.PointStruct.model_construct(id=point, vector=plain_vector(vector), payload=fields or {})
                for point, vector, fields in numbered
            ),
            batch_size,
            **kwargs,
        )

    def update_vectors(
        self,
        collection_name: str,
        points: Sequence[models.PointVectors],
        update_filter: models.Filter | None = None,
        **options: Any,
    ) -> models.UpdateResult:
        """Replace vectors of points that are there, leaving their other vectors and payload."""
        _check_options("update_vectors", options)
        collection = self._collection(collection_name)
        return _apply(collection, writes.update_vectors(collection, points, update_filter))

    def delete_vectors(
        self, collection_name: str, vectors: Sequence[str], points: Any, **options: Any
    ) -> models.UpdateResult:
        """Remove named vectors from points."""
        _check_options("delete_vectors", options)
        collection = self._collection(collection_name)
        return _apply(collection, writes.delete_vectors(collection, vectors, points))

    def delete(self, collection_name: str, points_selector: Any, **options: Any) -> models.UpdateResult:
        """Delete points by id or filter. Their payloads stay in the files until ``purge``."""
        _check_options("delete", options)
        return _apply(self._collection(collection_name), writes.delete(points_selector))

    def set_payload(
        self,
        collection_name: str,
        payload: models.Payload,
        points: Any,
        key: str | None = None,
        **options: Any,
    ) -> models.UpdateResult:
        """Merge fields into payloads; see ``QdrantClient.set_payload``."""
        _check_options("set_payload", options)
        return _apply(self._collection(collection_name), writes.set_payload(payload, points, key))

    def overwrite_payload(
        self, collection_name: str, payload: models.Payload, points: Any, **options: Any
    ) -> models.UpdateResult:
        """Replace whole payloads."""
        _check_options("overwrite_payload", options)
        return _apply(self._collection(collection_name), writes.overwrite_payload(payload, points))

    def delete_payload(
        self, collection_name: str, keys: Sequence[str], points: Any, **options: Any
    ) -> models.UpdateResult:
        """Remove fields from payloads."""
        _check_options("delete_payload", options)
        return _apply(self._collection(collection_name), writes.delete_payload(keys, points))

    def clear_payload(self, collection_name: str, points_selector: Any, **options: Any) -> models.UpdateResult:
        """Empty payloads."""
        _check_options("clear_payload", options)
        return _apply(self._collection(collection_name), writes.clear_payload(points_selector))

    def batch_update_points(
        self, collection_name: str, update_operations: Sequence[models.UpdateOperation], **options: Any
    ) -> list[models.UpdateResult]:
        """Run several updates in order. All are checked before the first is applied."""
        _check_options("batch_update_points", options)
        collection = self._collection(collection_name)
        planned = [writes.writes_of(collection, operation) for operation in update_operations]
        with collection.writing:
            return [_apply(collection, plan) for plan in planned]

    # ----------------------------------------------------------------------------------------------- collections

    def create_collection(
        self,
        collection_name: str,
        vectors_config: Any = None,
        sparse_vectors_config: Mapping[str, models.SparseVectorParams] | None = None,
        sharding_method: models.ShardingMethod | None = None,
        strict_mode_config: Any = None,
        metadata: models.Payload | None = None,
        timeout: int | None = None,
        **kwargs: Any,
    ) -> bool:
        """Create a collection; see ``QdrantClient.create_collection``."""
        store = self._store()
        _check_collection_name(collection_name)
        if sharding_method == models.ShardingMethod.CUSTOM:
            raise unsupported("create_collection(sharding_method=ShardingMethod.CUSTOM)")
        if strict_mode_config is not None:
            raise unsupported("create_collection(strict_mode_config=...)")
        for name in sparse_vectors_config or {}:
            if name == "":
                raise ValueError("Sparse vector name cannot be empty")
            _check_vector_name(name, "sparse")
        config = models.CreateCollection(
            vectors=dict(vectors_config) if isinstance(vectors_config, Mapping) else vectors_config or {},
            sparse_vectors=None if sparse_vectors_config is None else dict(sparse_vectors_config),
            metadata=edge_payload(metadata),
            **kwargs,
        ).model_copy(deep=True)
        for name, params in configs.dense_vectors(config).items():
            _check_vector_name(name, "dense")
            _check_vector_size(params.size)
        store.create(collection_name, config)
        return True

    def recreate_collection(self, collection_name: str, vectors_config: Any = None, **kwargs: Any) -> bool:
        """Delete a collection and create it anew."""
        _check_collection_name(collection_name)
        self.delete_collection(collection_name)
        return self.create_collection(collection_name, vectors_config, **kwargs)

    def delete_collection(self, collection_name: str, **kwargs: Any) -> bool:
        """Delete a collection with its files and aliases; tell whether there was one."""
        return self._store().delete(collection_name)

    def update_collection(
        self,
        collection_name: str,
        metadata: models.Payload | None = None,
        timeout: int | None = None,
        strict_mode_config: Any = None,
        collection_params: Any = None,
        **changes: Any,
    ) -> bool:
        """Change a collection's metadata or its tuning; see ``QdrantClient.update_collection``."""
        if strict_mode_config is not None:
            raise unsupported("update_collection(strict_mode_config=...)")
        if collection_params is not None:
            raise unsupported("update_collection(collection_params=...)")
        collection = self._collection(collection_name)
        tuning = {name: change for name, change in changes.items() if change is not None}
        if unknown := tuning.keys() - configs.TUNABLE:
            raise TypeError(f"Unknown arguments of update_collection: {sorted(unknown)}")
        added = edge_payload(metadata)
        with collection.store.changing(collection):
            config = configs.updated(collection.config, tuning)
            if added is not None:
                merged = {**(config.metadata or {}), **added}
                # a null removes the key, as in a payload
                config.metadata = {key: value for key, value in merged.items() if value is not None or key not in added}
            collection.record(collection.directory, config, collection.indexes, collection.purge_due)
            if tuning:
                collection.reload()
        return bool(tuning) or added is not None

    def get_collections(self, **kwargs: Any) -> models.CollectionsResponse:
        """List the collections."""
        return models.CollectionsResponse(
            collections=[models.CollectionDescription(name=name) for name in list(self._store().collections)]
        )

    def collection_exists(self, collection_name: str, **kwargs: Any) -> bool:
        """Tell whether a name is a collection's or an alias's."""
        store = self._store()
        return collection_name in store.collections or collection_name in store.aliases

    def get_collection(self, collection_name: str, **kwargs: Any) -> models.CollectionInfo:
        """Describe a collection: its configuration, indexes, metadata and size."""
        collection = self._collection(collection_name)
        info = collection.read(edge.EdgeShard.info)
        indexed = info.payload_schema
        config = collection.config
        return models.CollectionInfo(
            status=models.CollectionStatus.GREEN,
            optimizer_status=models.OptimizersStatusOneOf.OK,
            indexed_vectors_count=info.indexed_vectors_count,
            points_count=info.points_count,
            segments_count=info.segments_count,
            payload_schema={
                field: models.PayloadIndexInfo(
                    data_type=configs.index_type(schema),
                    params=None if isinstance(schema, models.PayloadSchemaType) else schema,
                    points=indexed[field].points if field in indexed else 0,
                )
                for field, schema in collection.indexes.items()
            },
            config=configs.described(config),
        )

    def update_collection_aliases(
        self, change_aliases_operations: Sequence[models.AliasOperations], **kwargs: Any
    ) -> bool:
        """Create, rename and delete aliases, all or none."""
        store = self._store()
        with store.committing():
            for operation in change_aliases_operations:
                _change_alias(store.aliases, store, operation)
        return True

    def get_collection_aliases(self, collection_name: str, **kwargs: Any) -> models.CollectionsAliasesResponse:
        """List the aliases of a collection."""
        return _aliases(self._store(), lambda target: target == collection_name)

    def get_aliases(self, **kwargs: Any) -> models.CollectionsAliasesResponse:
        """List all aliases."""
        return _aliases(self._store(), lambda target: True)

    def create_payload_index(
        self,
        collection_name: str,
        field_name: str,
        field_schema: Any = None,
        field_type: Any = None,
        **kwargs: Any,
    ) -> models.UpdateResult:
        """Index a payload field; an index the field already has is replaced."""
        collection = self._collection(collection_name)
        given = field_schema if field_schema is not None else field_type
        if given is None:
            raise ValueError(f"create_payload_index needs field_schema: which kind of values does {field_name} hold?")
        schema = configs.index_params(given)
        with collection.store.changing(collection):
            collection.write(configs.create_index(field_name, schema))
            collection.indexes[field_name] = schema
        return update_result()

    def delete_payload_index(self, collection_name: str, field_name: str, **kwargs: Any) -> models.UpdateResult:
        """Remove the index of a payload field; one that is not there is fine."""
        collection = self._collection(collection_name)
        with collection.store.changing(collection):
            collection.write(edge.UpdateOperation.delete_field_index(field_name))
            collection.indexes.pop(field_name, None)
        return update_result()

    def create_vector_name(
        self,
        collection_name: str,
        vector_name: str,
        vector_name_config: models.VectorNameConfig,
        **kwargs: Any,
    ) -> models.UpdateResult:
        """Add a named vector to a collection."""
        collection = self._collection(collection_name)
        is_dense = isinstance(vector_name_config, models.DenseVectorNameConfig)
        _check_vector_name(vector_name, "dense" if is_dense else "sparse")
        if isinstance(vector_name_config, models.DenseVectorNameConfig):
            _check_vector_size(vector_name_config.dense.size)
        operation = configs.create_vector(vector_name, vector_name_config)
        with collection.store.changing(collection):
            changed = configs.with_vector(collection.config, vector_name, vector_name_config)
            collection.write(operation)
            collection.record(collection.directory, changed, collection.indexes, collection.purge_due)
        return update_result()

    def delete_vector_name(self, collection_name: str, vector_name: str, **kwargs: Any) -> models.UpdateResult:
        """Remove a named vector from a collection and from every point; one that is not there is fine."""
        collection = self._collection(collection_name)
        if vector_name not in collection.schema:
            return update_result()
        if isinstance(collection.config.vectors, models.VectorParams) and vector_name == "":
            raise ValueError("Cannot delete the unnamed vector when it is the only dense vector in the collection")
        with collection.store.changing(collection):
            collection.write(edge.UpdateOperation.delete_vector_name(vector_name))
            left = configs.without_vector(collection.config, vector_name)
            collection.record(collection.directory, left, collection.indexes, collection.purge_due)
        return update_result()

    # ------------------------------------------------------------------------------------------- upkeep, snapshots

    def optimize(self, collection_name: str) -> bool:
        """See ``QdrantEdgeClient.optimize``."""
        collection = self._collection(collection_name)
        with collection.working("optimize") as opened:
            # The graphs go into new segments, beside the old ones.
            shard.expect_room(collection.path, "optimize", shard.SPARE + shard.occupied(collection.path))
            return opened.optimize()

    def purge(self, collection_name: str, progress: Callable[[int], None] | None = None) -> int:
        """See ``QdrantEdgeClient.purge``."""
        return self._collection(collection_name).rebuild(progress)

    def purging(self, collection_name: str) -> AbstractContextManager[None]:
        """See ``QdrantEdgeClient.purging``."""
        return self._collection(collection_name).removing()

    def purge_is_due(self, collection_name: str) -> bool:
        """See ``QdrantEdgeClient.purge_is_due``."""
        return self._collection(collection_name).purge_due

    def flush(self, collection_name: str | None = None) -> None:
        """See ``QdrantEdgeClient.flush``."""
        store = self._store()
        names = list(store.collections) if collection_name is None else [collection_name]
        for name in names:
            store.collection(name).flush()

    def list_snapshots(self, collection_name: str, **kwargs: Any) -> list[models.SnapshotDescription]:
        """List the snapshots of a collection."""
        return snapshots.listed(self._store(), collection_name)

    def create_snapshot(self, collection_name: str, **kwargs: Any) -> models.SnapshotDescription:
        """Write a snapshot of a collection: a compressed archive of this package's own format."""
        return snapshots.create(self._store(), collection_name)

    def delete_snapshot(self, collection_name: str, snapshot_name: str, **kwargs: Any) -> bool:
        """Delete a snapshot; tell whether it was there."""
        return snapshots.delete(self._store(), collection_name, snapshot_name)

    def recover_snapshot(self, collection_name: str, location: str, checksum: str | None = None, **kwargs: Any) -> bool:
        """Make a collection what a snapshot holds; the collection is created when it is not there."""
        return snapshots.recover(self._store(), collection_name, location, checksum)

    def list_full_snapshots(self, **kwargs: Any) -> list[models.SnapshotDescription]:
        """Return nothing: snapshots are made of one collection at a time."""
        return []

    def list_shard_snapshots(
        self, collection_name: str, shard_id: int, **kwargs: Any
    ) -> list[models.SnapshotDescription]:
        """Return nothing: snapshots are made of whole collections."""
        return []

    def migrate(
        self,
        dest_client: QdrantBase,
        collection_names: list[str] | None = None,
        batch_size: int = 100,
        recreate_on_collision: bool = False,
    ) -> None:
        """Copy collections into another client, such as one of a server."""
        migrate(
            source_client=self,
            dest_client=dest_client,
            collection_names=collection_names,
            batch_size=batch_size,
            recreate_on_collision=recreate_on_collision,
        )

    def info(self) -> models.VersionInfo:
        """Return the version of the embedded engine."""
        version = importlib.metadata.version("qdrant-edge-py")
        return models.VersionInfo(title="qdrant edge - embedded vector search engine", version=version, commit=None)


def _only_on_a_server(name: str) -> Callable[..., Any]:
    def refuse(self: EdgeBackend, *args: Any, **kwargs: Any) -> Any:
        raise unsupported(name)

    refuse.__name__ = name
    refuse.__doc__ = "Raise NotImplementedError: this needs a Qdrant server."
    return refuse


SERVER_ONLY = (
    "create_full_snapshot",
    "delete_full_snapshot",
    "create_shard_snapshot",
    "delete_shard_snapshot",
    "recover_shard_snapshot",
    "create_shard_key",
    "delete_shard_key",
    "list_shard_keys",
    "cluster_collection_update",
    "collection_cluster_info",
    "cluster_status",
    "cluster_telemetry",
    "recover_current_peer",
    "remove_peer",
    "get_optimizations",
)
"""What has no meaning on one machine without a server."""

for _name in SERVER_ONLY:
    setattr(EdgeBackend, _name, _only_on_a_server(_name))


def _special(collection: Collection, search: Search) -> Callable[..., QueryResponse] | None:
    """Return the method for a search that the engine does not do by itself."""
    kind = type(search.query)
    if kind is models.OrderByQuery:
        return None if search.prefetch else EdgeBackend._query_ordered
    if kind is models.NearestQuery and search.query.mmr is not None:
        params = collection.schema.get(search.using or "")
        return EdgeBackend._query_diverse if isinstance(params, models.SparseVectorParams) else None
    return None


def _apply(collection: Collection, planned: list[writes.Write]) -> models.UpdateResult:
    """Apply writes in order. A point that is not there is reported after the others are done."""
    missing: KeyError | None = None
    for operation, weight in planned:
        try:
            collection.write(operation, weight)
        except KeyError as error:
            missing = missing or error
    if missing is not None:
        raise missing
    return update_result()


def _check_options(call: str, options: Mapping[str, Any]) -> None:
    """Refuse options that nobody knows or that only a cluster can keep.

    Raises:
        TypeError: an option is unknown.
        NotImplementedError: the option picks shards of a cluster.
    """
    unknown = options.keys() - CLUSTER_OPTIONS
    if unknown:
        raise TypeError(f"Unknown arguments of {call}: {sorted(unknown)}")
    if options.get("shard_key_selector") is not None:
        raise unsupported(f"{call}(shard_key_selector=...)")


def _change_alias(aliases: dict[str, str], store: Store, operation: Any) -> None:
    if isinstance(operation, models.CreateAliasOperation):
        created = operation.create_alias
        if created.collection_name not in store.collections:
            raise ValueError(f"Collection {created.collection_name} not found")
        if created.alias_name in store.collections:
            raise ValueError(f"Collection {created.alias_name} already exists")
        aliases[created.alias_name] = created.collection_name
    elif isinstance(operation, models.DeleteAliasOperation):
        aliases.pop(operation.delete_alias.alias_name, None)
    elif isinstance(operation, models.RenameAliasOperation):
        renamed = operation.rename_alias
        if renamed.new_alias_name in store.collections:
            raise ValueError(f"Collection {renamed.new_alias_name} already exists")
        if renamed.old_alias_name not in aliases:
            raise ValueError(f"Alias {renamed.old_alias_name} does not exist")
        aliases[renamed.new_alias_name] = aliases.pop(renamed.old_alias_name)
    else:
        raise ValueError(f"Unknown operation: {operation}")


def _aliases(store: Store, wanted: Callable[[str], bool]) -> models.CollectionsAliasesResponse:
    return models.CollectionsAliasesResponse(
        aliases=[
            models.AliasDescription(alias_name=alias, collection_name=target)
            for alias, target in list(store.aliases.items())
            if wanted(target)
        ]
    )


def _check_collection_name(name: str) -> None:
    for char in INVALID_NAME_CHARS:
        if char in name:
            raise ValueError(f"Collection name cannot contain {char!r} char")
    if name in ("", ".", ".."):
        raise ValueError(f"Collection name cannot be {name!r}")
    if len(name) > 255:
        raise ValueError("Collection name must be at most 255 characters long")


def _check_vector_name(name: str, kind: str) -> None:
    if len(name.encode()) > 200:
        raise ValueError(f"Invalid {kind} vector name `{name}`: must be at most 200 bytes long")
    for char in INVALID_NAME_CHARS:
        if char in name:
            raise ValueError(f"Invalid {kind} vector name `{name}`: cannot contain {char!r} char")
    if name in (".", ".."):
        raise ValueError(f"Invalid {kind} vector name `{name}`")


def _check_vector_size(size: int) -> None:
    if not 1 <= size <= MAX_VECTOR_SIZE:
        raise ValueError(f"Vector size {size} is invalid. Must be from 1 to {MAX_VECTOR_SIZE}.")
