"""JSON values by namespace and key, kept as points of the collection that long-term memories share.

An item is laid out like a memory: ``page_content`` is the text that a search sees, ``metadata`` holds the rest. So an
item under a user's namespace is a memory of that user, which recall finds and erasure removes; every other item is kept
under a tag of its own, which no scope has and no recall asks for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from memory_integrations.arrival import utc_now
from memory_integrations.collection import MemoryCollection, batched, embedding, equals, in_order, tagged
from memory_integrations.conditions import check_filter, meets_all
from memory_integrations.copying import PAGE
from memory_integrations.delimiters import strip_injected
from memory_integrations.errors import MessageError
from memory_integrations.layout import DENSE, SPARSE, id_of, is_expired, metadata_of, text_of
from memory_integrations.messages import as_unicode, as_utc
from memory_integrations.namespaces import KIND, ItemScopes, Namespace, item_id, joined
from memory_integrations.server import asking

if TYPE_CHECKING:
    from qdrant_client import QdrantClient, models

ItemKey = tuple[Namespace, str]
"""A namespace and a key in it, which together name an item."""

_TTL_SLACK = 1e-6  # minutes; what a float may lose on its way through an engine's JSON
_DEEPEST = 100  # levels of lists and mappings in a value, as in a fact's
_TAKEN = 64  # points that a search by a query reads at a time, at least
# What an item's metadata says; anything else that a point has was added by others, and stays.
_FIELDS = frozenset(
    "scope store session_id kind namespace within key value created_at updated_at ttl expires_at order".split()
)


@dataclass(frozen=True, slots=True)
class NewItem:
    """A value to be stored.

    Args:
        namespace: Where.
        key: Its name there.
        value: An object of JSON.
        text: What a search sees of it; a text of nothing is found by no query.
        ttl: Minutes after which it expires, counted from the last write or refreshing read; None means never.
    """

    namespace: Namespace
    key: str
    value: Mapping[str, Any]
    text: str = ""
    ttl: float | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """A value that is stored.

    Args:
        namespace: Where.
        key: Its name there.
        value: The value, equal to what was put.
        created_at: When it was first put, UTC.
        updated_at: When it was last put, UTC.
        ttl: Its time to live in minutes; None means that it never expires.
        score: What a search by a query gave it, in [0, 1], higher is better; comparable within one search. None when
            there was no query, or when the item has no text that a query could find.
    """

    namespace: Namespace
    key: str
    value: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    ttl: float | None = None
    score: float | None = None


class ItemMemory:
    """The items of a store: written, read, found and expired.

    It sees the items that it would write itself: of one user's manager those of that user and the store's own, of a
    global manager those of every scope and the store's own. What another manager's store keeps for itself it never
    sees.

    What needs the items of a whole prefix (a search without a query, a filter, a listing) reads all of them; a search
    by a query scores all of them. Both are meant for the thousands of items that a user has.

    Args:
        collection: The open collection.
        scopes: Which scope an item belongs to.
        clock: Gives the time, aware.
    """

    def __init__(
        self, collection: MemoryCollection, scopes: ItemScopes, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self.scopes = scopes
        self._collection = collection
        self._clock = clock
        self._indexed: QdrantClient | None = None

    # Writing

    def put_many(self, items: Iterable[NewItem]) -> None:
        """Store items; of one name the last. One that is there already keeps its place and the time it was created.

        Args:
            items: In order of arrival.

        Raises:
            MessageError: A key is no text, a value is no object of JSON, or a time to live is no time. Nothing was
                stored.
            ScopeError: A namespace is malformed, or belongs to a scope that this store does not reach. Nothing was
                stored.
            StoreError: They could not be written; those before a failed batch of 256 were.
        """
        now = self._now()
        latest = {(item.namespace, item.key): item for item in items}
        ready = [(self._id(name), self._payload(item, now)) for name, item in latest.items()]
        for batch in batched(ready, PAGE):
            with self._collection.turns({payload["metadata"]["scope"] for _, payload in batch}):
                self._write(dict(batch), now)

    def delete_many(self, names: Iterable[ItemKey]) -> int:
        """Delete items, physically; returns how many there were.

        Raises:
            ScopeError: A namespace is malformed, or belongs to a scope that this store does not reach.
            StoreError: They could not be deleted.
        """
        from qdrant_client import models

        ids = {self._id(name): self.scopes.tag(name[0]) for name in names}
        with self._collection.turns(ids.values()):
            there = self._collection.retrieve(ids)
            self._delete(there, models.PointIdsList(points=[point.id for point in there]))
        return len(there)

    def refresh(self, items: Iterable[Item]) -> None:
        """Begin the time to live of items anew, where they have one and have not been given another meanwhile."""
        from qdrant_client import models

        ids: dict[float, list[str]] = {}
        for item in items:
            if item.ttl is not None:
                ids.setdefault(item.ttl, []).append(self._id((item.namespace, item.key)))
        now, collection = self._now(), self._collection
        for ttl, same in ids.items():
            span = models.Range(gte=ttl - _TTL_SLACK, lte=ttl + _TTL_SLACK)
            # By a filter: what was deleted meanwhile is passed over, and what was put anew without a ttl keeps none.
            unchanged = models.Filter(
                must=[
                    models.HasIdCondition(has_id=list(same)),
                    models.FieldCondition(key="metadata.ttl", range=span),
                ]
            )
            with asking():
                collection.open().set_payload(
                    collection.name, {"expires_at": _expiry(now, ttl).isoformat()}, points=unchanged, key="metadata"
                )

    def sweep(self) -> int:
        """Delete expired items, physically; returns how many there were.

        Raises:
            StoreError: They could not be deleted.
        """
        from qdrant_client import models

        expired = self._under((), self._now(), expired=True)
        there = list(self._collection.scroll(expired))
        self._delete(there, models.FilterSelector(filter=expired))
        return len(there)

    # Reading

    def get_many(self, names: Sequence[ItemKey]) -> list[Item | None]:
        """Items by their names, in order; None where there is none, or one that has expired.

        Raises:
            ScopeError: A namespace is malformed, or belongs to a scope that this store does not reach.
            StoreError: The store cannot be read.
        """
        now, ids = self._now(), [self._id(name) for name in names]
        found = {
            str(point.id): _as_item(point)
            for point in self._collection.retrieve(dict.fromkeys(ids))
            if not is_expired(point, now)
        }
        return [found.get(id_) for id_ in ids]

    def search(
        self,
        prefix: Namespace,
        query: str | None = None,
        where: Mapping[str, Any] | None = None,
        limit: int = 10,
        offset: int = 0,
    ) -> list[Item]:
        """Find items under a namespace.

        A score is ``(bm25 / top_bm25 + cosine / top_cosine) / 2``, of what all items under the prefix score, so that
        pages of one search never overlap. Items without text come last.

        Args:
            prefix: The first labels of the namespace; none for every item that this store sees.
            query: Any text; None or nothing but space asks for the order of arrival.
            where: What the fields of a value must be; see :func:`meets`.
            limit: How many at most.
            offset: How many of the best to leave out.

        Returns:
            By a query the best first, of equals the one that came first; else in order of arrival.

        Raises:
            FilterError: The filter has an operator that there is not.
            ScopeError: The prefix is malformed, or belongs to a scope that this store does not reach.
            StoreError: The store cannot be read.
        """
        if limit < 0 or offset < 0:
            raise ValueError(f"limit={limit}, offset={offset}: expected 0 or more.")
        check_filter(where or {})
        wanted = self._under(prefix, self._now())
        query = as_unicode(query or "")
        points: Iterable[tuple[Any, float | None]]
        if query.strip():
            points = self._best_first(query, wanted, max(limit + offset, _TAKEN))
        else:
            points = ((point, None) for point in in_order(self._collection.scroll(wanted)))
        items = (_as_item(point, score) for point, score in points if self._is_here(point))
        found = (item for item in items if not where or meets_all(item.value, where))
        return list(islice(found, offset, offset + limit))

    def namespaces(self, prefix: Namespace = ()) -> list[Namespace]:
        """The namespaces that hold an item, under a prefix, sorted.

        Raises:
            ScopeError: The prefix is malformed, or belongs to a scope that this store does not reach.
            StoreError: The store cannot be read.
        """
        points = self._collection.scroll(self._under(prefix, self._now()))
        return sorted({_namespace_of(point) for point in points if self._is_here(point)})

    # Inside

    def _see_to_indexes(self) -> None:
        """See that the collection finds items among any number of memories by an index.

        A server in strict mode, as Qdrant Cloud has them, refuses to look for them without.
        """
        client = self._collection.open()
        if client is self._indexed:
            return
        from qdrant_client import models

        name = self._collection.name
        with asking():
            present = client.get_collection(name).payload_schema
            for field, kind in (
                ("metadata.within", models.PayloadSchemaType.KEYWORD),
                ("metadata.store", models.PayloadSchemaType.KEYWORD),
                ("metadata.expires_at", models.PayloadSchemaType.DATETIME),
                ("metadata.ttl", models.PayloadSchemaType.FLOAT),
            ):
                if field not in present:
                    client.create_payload_index(name, field, kind)
        self._indexed = client

    def _now(self) -> datetime:
        return as_utc(self._clock())

    def _id(self, name: ItemKey) -> str:
        namespace, key = name
        return item_id(self.scopes.tag(namespace), namespace, key)

    def _is_here(self, point: Any) -> bool:
        return self.scopes.holds(_namespace_of(point), metadata_of(point)["scope"])

    def _under(self, prefix: Namespace, now: datetime, expired: bool = False) -> models.Filter:
        """The filter of the items under a prefix that have not expired, or of those that have."""
        from qdrant_client import models

        self._see_to_indexes()
        tags = self.scopes.tags(prefix)
        conditions = [equals("metadata.within", joined(prefix))]
        wanted = models.Filter() if tags is None else tagged(tags)
        if tags is None:  # every scope's items, but what other managers' stores keep for themselves
            nobodys = models.IsEmptyCondition(is_empty=models.PayloadField(key="metadata.store"))
            conditions.append(models.Filter(should=[nobodys, equals("metadata.store", self.scopes.own_tag)]))
        gone = models.FieldCondition(key="metadata.expires_at", range=models.DatetimeRange(lte=now))
        wanted.must = [*conditions, gone] if expired else conditions
        wanted.must_not = None if expired else [gone]
        return wanted

    def _payload(self, item: NewItem, now: datetime) -> dict[str, Any]:
        """What a new item's point says, but for its place in the order.

        Raises:
            MessageError: The item cannot be stored.
            ScopeError: Its namespace is malformed, or belongs to a scope that this store does not reach.
        """
        if not isinstance(item.key, str) or item.key != as_unicode(item.key):
            raise MessageError(f"key={item.key!r} in {item.namespace!r}: expected Unicode text. Nothing was stored.")
        scope = self.scopes.of(item.namespace)
        fields = {
            "scope": self.scopes.tag(item.namespace),
            "store": self.scopes.own_tag if scope is None else None,
            "session_id": scope.session_id if scope is not None else None,
            "kind": KIND,
            "namespace": list(item.namespace),
            "within": [joined(item.namespace[:depth]) for depth in range(len(item.namespace) + 1)],
            "key": item.key,
            # As text: an engine's own JSON rounds some floats and all integers beyond 64 bits.
            "value": json.dumps(as_object(item.value, f"The value of {item.key!r} in {item.namespace!r}")),
            "created_at": now.isoformat(),
            "updated_at": now.isoformat(),
            "ttl": item.ttl,
            "expires_at": None if item.ttl is None else _expiry(now, item.ttl).isoformat(),
        }
        text = strip_injected(as_unicode(item.text))
        return {
            "page_content": text if text.strip() else "",
            "metadata": {name: value for name, value in fields.items() if value is not None},
        }

    def _write(self, payloads: dict[str, dict[str, Any]], now: datetime) -> None:
        """Write points by their ids."""
        collection = self._collection
        for point in collection.retrieve(payloads):
            before, fields = metadata_of(point), payloads[str(point.id)]["metadata"]
            fields.update({name: value for name, value in before.items() if name not in _FIELDS})
            if not is_expired(point, now):
                fields.update({name: before[name] for name in ("created_at", "order")})
        for payload, order in zip(payloads.values(), collection.next_orders(len(payloads)), strict=True):
            payload["metadata"].setdefault("order", order)
        points = collection.encode(list(payloads), list(payloads.values()))
        self._see_to_indexes()
        collection.upsert(points)
        for tag in {metadata_of(point)["scope"] for point in points}:
            collection.note(tag, [point for point in points if metadata_of(point)["scope"] == tag])

    def _delete(self, points: Sequence[Any], selector: models.PointIdsList | models.FilterSelector) -> None:
        """Delete what a selector says, which are these points. Without any nothing is done: it writes files anew."""
        tags = {metadata_of(point)["scope"] for point in points}
        if tags:
            with self._collection.removing(*tags):
                self._collection.delete(selector)
        else:
            self._collection.finish_removing()

    def _best_first(self, query: str, wanted: models.Filter, page: int) -> Iterator[tuple[Any, float | None]]:
        """The points of a filter with their scores, best first; those without a score last, in order of arrival."""
        collection = self._collection
        count = collection.count(wanted)
        ranked = self._scored(query, wanted, count) if count else []
        seen: set[Any] = set()
        for some in _pages(ranked, page):
            scores = {str(id_of(key)): score for key, score in some}
            points = [point for point in collection.retrieve(scores) if text_of(point)]
            seen.update(point.id for point in points)
            first_come = in_order(points)
            yield from sorted(((point, scores[str(point.id)]) for point in first_come), key=lambda found: -found[1])
        if len(seen) < count:
            yield from ((point, None) for point in in_order(collection.scroll(wanted)) if point.id not in seen)

    def _scored(self, query: str, wanted: models.Filter, limit: int) -> list[tuple[int, float]]:
        """Keys of points with their scores, best first."""
        from qdrant_client import models

        collection = self._collection
        indices, values = collection.sparse.embed_query(query)
        terms = models.SparseVector(indices=indices, values=values)
        rare = models.SearchParams(idf=models.IdfCorpusParams(corpus=wanted))
        with embedding():
            vector = collection.dense.embed_query(query)
        found = collection.scores(
            [
                models.QueryRequest(query=terms, using=SPARSE, filter=wanted, limit=limit, params=rare),
                models.QueryRequest(query=vector, using=DENSE, filter=wanted, limit=limit),
            ]
        )
        bm25, cosine = (_shares(scores) for scores in found)
        scores = {key: (bm25.get(key, 0.0) + cosine.get(key, 0.0)) / 2 for key in {**bm25, **cosine}}
        return sorted(scores.items(), key=lambda scored: -scored[1])


def as_object(value: Any, what: str = "The value") -> dict[str, Any]:
    """A mapping as JSON would give it back: equal, but for tuples, which are lists.

    Args:
        value: The mapping.
        what: What it is, for the error.

    Raises:
        MessageError: It is no mapping, or holds what is not JSON.
    """
    try:
        if not isinstance(value, Mapping):
            raise TypeError(f"{type(value).__name__} is no mapping")
        copied: dict[str, Any] = json.loads(json.dumps(dict(value), allow_nan=False))
        _check_names(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise MessageError(
            f"{what} is no object of JSON ({error}): expected a mapping with text as keys, and text, finite numbers, "
            f"true, false, None, or lists and mappings of these, at most {_DEEPEST} deep. Nothing was stored."
        ) from error
    return copied


def _check_names(value: Any, depth: int = 0) -> None:
    """See that no key would become text only in JSON, where two may become one, and that it can always be read back."""
    if not isinstance(value, Mapping | list | tuple):
        return
    if depth == _DEEPEST:
        raise ValueError("it is too deep")
    if isinstance(value, Mapping) and (others := [name for name in value if not isinstance(name, str)]):
        raise TypeError(f"the key {others[0]!r:.60} is no text")
    for inner in value.values() if isinstance(value, Mapping) else value:
        _check_names(inner, depth + 1)


def _namespace_of(point: Any) -> Namespace:
    return tuple(metadata_of(point)["namespace"])


def _as_item(point: Any, score: float | None = None) -> Item:
    fields = metadata_of(point)
    return Item(
        _namespace_of(point),
        fields["key"],
        json.loads(fields["value"]),
        datetime.fromisoformat(fields["created_at"]),
        datetime.fromisoformat(fields["updated_at"]),
        fields.get("ttl"),
        score,
    )


def _expiry(now: datetime, ttl: float) -> datetime:
    """When something expires whose time to live begins now.

    Raises:
        MessageError: The time to live is no positive number of minutes, or ends after the year 9999.
    """
    try:
        if not isinstance(ttl, bool) and ttl > 0:
            return now + timedelta(minutes=ttl)
    except (TypeError, OverflowError, ValueError) as error:
        raise MessageError(f"ttl={ttl!r}: expected minutes, at most until the year 9999.") from error
    raise MessageError(f"ttl={ttl!r}: expected a positive number of minutes, or None for what never expires.")


def _shares(scores: Mapping[int, float]) -> dict[int, float]:
    """Scores by their share of the highest, in [0, 1]; below 0 is 0."""
    top = max(scores.values(), default=0.0)
    return {key: max(score, 0.0) / top if top > 0 else 0.0 for key, score in scores.items()}


def _pages(ranked: Sequence[tuple[int, float]], size: int) -> Iterator[Sequence[tuple[int, float]]]:
    """What is ranked, in pages of a size; equal scores stay on one page, where they can be put in order."""
    start = 0
    while start < len(ranked):
        end = min(start + size, len(ranked))
        while end < len(ranked) and ranked[end][1] == ranked[end - 1][1]:
            end += 1
        yield ranked[start:end]
        start = end
