"""The one open collection that the long-term memories of all scopes share."""

from __future__ import annotations

import functools
import itertools
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar
from weakref import WeakValueDictionary

from memory_integrations.copying import PAGE, Progress, finish_purging, purging
from memory_integrations.errors import EmbeddingError, EmbeddingMismatchError, StoreUnavailableError
from memory_integrations.forks import inherited
from memory_integrations.layout import (
    DELETED,
    DENSE,
    SPARSE,
    day_of,
    id_of,
    key_of,
    line,
    metadata_of,
    name_of,
    piece_of,
    speaker_of,
    text_of,
)
from memory_integrations.namespaces import owners_tag
from memory_integrations.reembedding import abandon, finish, is_unfinished, reembed
from memory_integrations.server import asking

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings
    from qdrant_client import QdrantClient, models

    from memory_integrations.qdrant_edge import QdrantEdgeClient
    from memory_integrations.ranking import Conversations, RankingWeights
    from memory_integrations.sparse import SparseEncoder

COLLECTION = "memory_integrations"
_SCOPES_KEPT = 64  # whose filters are kept
_ROWS_KEPT, _TABLES_KEPT = 250_000, 2_000
"""Messages, and scopes, that ranking keeps in mind, at some 0.4 and 3 kB; who searched longest ago is read anew."""
_LOOKS_AGAIN_AFTER, _LOOKS_AGAIN_EMBEDDED_AFTER = 60.0, 1.0
"""Seconds after which an open memory asks a server, or the embedded engine, again how the collection's vectors were
made. The latter takes a fifth of a millisecond."""
_CLOCKS_DIFFER = 60e9
"""Nanoseconds by which the clocks of machines may differ that share a server; beyond, all of a scope is read anew."""
_SERVER_INDEXES = {
    "metadata.session_id": "keyword",
    "metadata.message_id": "keyword",
    "metadata.role": "keyword",
    "metadata.name": "keyword",
    "metadata.kind": "keyword",
    "metadata.piece": "integer",
    "metadata.order": "integer",
}
"""What else filters ask about: a server in strict mode, as Qdrant Cloud has them, refuses a filter without an index."""


_Made = TypeVar("_Made")


class Turn:
    """Whose turn it is to change the memories of a scope: one writer after the other, and erasures among them.

    Attributes:
        lock: Held while something is written or removed.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()


class MemoryCollection:
    """A Qdrant collection with its encoders and, for each scope that was searched, what ranking knows of it.

    Args:
        client: Gives the Qdrant client; called at first use.
        embeddings: Gives the dense embedding; called at first use.
        name: The collection's name.
        language: The language of stems and stop words; None for neither. Recorded in the collection.
        weights: How ranking adds its signals up; None means the tuned defaults.
        options: What else the collection is created with, such as ``replication_factor``.
    """

    def __init__(
        self,
        client: Callable[[], QdrantClient],
        embeddings: Callable[[], Embeddings],
        name: str = COLLECTION,
        language: str | None = "english",
        weights: RankingWeights | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.language = language
        self._make_client = client
        self._make_embeddings = embeddings
        self.options = dict(options or {})
        self.lock = threading.RLock()  # held while a table is filled or ranked, and while all is embedded anew
        self._client: QdrantClient | None = None
        self._place = name  # the collection that the name stands for
        self._look_again_at = 0.0
        self._opened_by = 0
        self.is_shared = False
        """Whether it is a server's, where other processes write and erase too; known once it was opened."""
        self._tables: OrderedDict[str, Conversations] = OrderedDict()
        self._rows = 0  # of all tables
        self._turns: WeakValueDictionary[str, Turn] = WeakValueDictionary()
        self._last_order = 0
        self._briefly = threading.Lock()  # held for no longer than a moment: event loops wait for it
        self._making = threading.RLock()
        self._made: dict[str, Any] = {} if weights is None else {"weights": weights}
        inherited(self)

    def open(self) -> QdrantClient:
        """The client, with the collection there; opened once.

        Raises:
            EmbeddingMismatchError: The collection was written with another embedding.
            StoreLockedError: Another process holds the embedded engine's directory.
            StoreUnavailableError: A server does not answer, or refuses.
        """
        found = self._opened()
        if found is None:
            with self.lock:
                found = self._opened()
                if found is None:
                    found = self._make_client()
                    with asking():
                        self._open_collection(found)
                    self.is_shared = not is_embedded(found)
                    self._opened_by, self._client = os.getpid(), found
        elif time.monotonic() > self._look_again_at:
            self._look_again(found)
        return found

    @property
    def is_open(self) -> bool:
        """Whether it was opened in this process and not closed since."""
        return self._opened() is not None

    def client(self) -> QdrantClient:
        """The client, whatever collection is there."""
        with self.lock:
            return self._opened() or self._make_client()

    def _opened(self) -> QdrantClient | None:
        """The client, where this process has it open; what was inherited over a fork is the parent's."""
        client = self._client
        return client if self._opened_by == os.getpid() else None

    def exists(self) -> bool:
        """Whether there is a collection, or one that is to take its place; nothing is made by asking."""
        client = self.client()
        if is_embedded(client) and client.path is not None and not client.path.is_dir():
            return False
        with asking():
            return client.collection_exists(self.name) or is_unfinished(client, self.name)

    def check_embedding(self) -> None:
        """See that the collection, which is there, was written with this embedding and language; nothing is changed.

        Raises:
            EmbeddingMismatchError: It was written with another.
            StoreUnavailableError: A server does not answer, or refuses.
        """
        with asking():
            self._expect_alike(self.client().get_collection(self.name))

    def abandon_reembedding(self) -> None:
        """Drop what :meth:`reembed` has begun and not ended; one that only has to be put in its place is."""
        client = self.client()
        with asking():
            place = finish(client, self.name)
            if place is not None:
                abandon(client, self.name, place)

    @property
    def dense(self) -> Embeddings:
        """The dense embedding."""
        return self._once("dense", self._make_embeddings)

    @property
    def sparse(self) -> SparseEncoder:
        """The sparse encoder."""
        from memory_integrations.sparse import SparseEncoder

        return self._once("sparse", lambda: SparseEncoder(self.language))

    @property
    def weights(self) -> RankingWeights:
        """How ranking adds its signals up."""
        from memory_integrations.ranking import RankingWeights

        return self._once("weights", RankingWeights)

    def _once(self, name: str, make: Callable[[], _Made]) -> _Made:
        """What is made at its first use, by one thread; not by a ``cached_property``, whose lock outlives a fork."""
        if name not in self._made:
            with self._making:
                if name not in self._made:
                    self._made[name] = make()
        made: _Made = self._made[name]
        return made

    def next_orders(self, count: int) -> list[int]:
        """Numbers that grow with every message, in all processes: nanoseconds since the epoch, never twice in this."""
        with self._briefly:
            first = max(time.time_ns(), self._last_order + 1)
            self._last_order = first + count - 1
        return list(range(first, first + count))

    def turn(self, tag: str) -> Turn:
        """The turn of a scope, for as long as somebody holds it."""
        with self._briefly:
            turn = self._turns.get(tag)
            if turn is None:
                turn = self._turns[tag] = Turn()
            return turn

    @contextmanager
    def turns(self, tags: Iterable[str]) -> Iterator[None]:
        """Hold the turns of scopes: in one order, so that no two who hold several wait for each other."""
        # A turn that nobody has is let go of. That of marks comes last: an erasure takes it within its own.
        wanted = sorted(set(map(owners_tag, tags)), key=lambda tag: (tag == DELETED, tag))
        held = [self.turn(tag) for tag in wanted]
        with ExitStack() as stack:
            for turn in held:
                stack.enter_context(turn.lock)
            yield

    def table(self, tag: str) -> Conversations:
        """What ranking knows of a scope's messages; read from the collection at first use."""
        with self.lock:
            table = self._tables.get(tag)
            if table is None:
                from memory_integrations.ranking import Conversations

                table = Conversations()
                self._tabulate(table, in_order(self.scroll(tagged([tag]))))
                self._tables[tag] = table
                self._count_in(tag, len(table))
            self._tables.move_to_end(tag)
            return table

    def _count_in(self, tag: str, rows: int) -> None:
        """Add to what is kept, and let go of who searched longest ago, where that is too much now."""
        self._rows += rows
        # Never below two, which one search uses.
        while len(self._tables) > 2 and (len(self._tables) > _TABLES_KEPT or self._rows > _ROWS_KEPT):
            oldest = next(other for other in self._tables if other != tag)
            self._rows -= len(self._tables.pop(oldest))

    def note(self, tag: str, points: Sequence[Any]) -> None:
        """Add points to a scope's table, where it was read already."""
        with self.lock:
            table = self._tables.get(tag)
            if table is not None:
                before = len(table)
                self._tabulate(table, points)
                self._count_in(tag, len(table) - before)

    def catch_up(self, tag: str) -> None:
        """Add to a scope's table what others wrote since it was read."""
        from qdrant_client import models

        with self.lock:
            table = self.table(tag)
            lately = models.Range(gte=table.latest - _CLOCKS_DIFFER)
            recent = self.scroll(tagged([tag], models.FieldCondition(key="metadata.order", range=lately)))
            self.note(tag, in_order(point for point in recent if key_of(point.id) not in table))

    def tags_of(self, points: Iterable[int]) -> set[str]:
        """The scopes that points are in."""
        return {str(metadata_of(point).get("scope")) for point in self.retrieve(map(id_of, points))}

    def miss(self, tags: Iterable[str], points: Collection[int]) -> None:
        """Drop the tables of those scopes that have points which are not there any more: others deleted them."""
        for tag in tags:
            if not self.table(tag).row_of.keys().isdisjoint(points):
                self.forget(tag)

    def forget(self, tag: str) -> None:
        """Drop a scope's table: the next search reads it anew."""
        with self.lock:
            table = self._tables.pop(tag, None)
            self._rows -= 0 if table is None else len(table)

    def scores(self, requests: Sequence[models.QueryRequest]) -> list[dict[int, float]]:
        """What queries find, by the keys of points."""
        client = self.open()
        # The embedded engine answers without a model for each of hundreds of points, which would take most of a search.
        quick = getattr(client, "query_scores", None)
        if quick is not None:
            found: list[dict[int, float]] = quick(self.name, requests)
            return found
        with asking():
            responses = client.query_batch_points(self.name, requests)
        return [{key_of(point.id): point.score for point in response.points} for response in responses]

    def scroll(self, query_filter: models.Filter | None, payload: bool | list[str] = True) -> Iterator[models.Record]:
        """Every point of a filter (None: of all scopes), page by page, by their ids; with what of their payloads."""
        client, offset = self.open(), None
        while True:
            with asking():
                points, offset = client.scroll(
                    self.name, scroll_filter=query_filter, limit=PAGE, offset=offset, with_payload=payload
                )
            yield from points
            if offset is None:
                return

    def look_through(self) -> Iterator[models.Record]:
        """Every point of the embedded engine, without its text, whatever its indexes say; none of a server's."""
        if is_embedded(self.open()):
            fields = "scope", "session_id", "kind", "piece", "pieces"
            yield from self.scroll(None, [f"metadata.{field}" for field in fields])

    def retrieve(self, ids: Iterable[str | int], *, with_vectors: bool = False) -> list[models.Record]:
        """The points of these ids that there are."""
        found: list[models.Record] = []
        for batch in batched(ids, PAGE):
            with asking():
                found += self.open().retrieve(self.name, list(batch), with_payload=True, with_vectors=with_vectors)
        return found

    def count(self, query_filter: models.Filter) -> int:
        """How many points meet a filter, exactly."""
        with asking():
            return self.open().count(self.name, count_filter=query_filter, exact=True).count

    def upsert(self, points: Iterable[models.PointStruct]) -> None:
        """Write points, in short calls; when this returns they are there."""
        for batch in batched(points, PAGE):
            with asking():
                self.open().upsert(self.name, points=list(batch), wait=True)

    def put(self, points: Sequence[models.PointStruct]) -> None:
        """Write points of any scopes as they are; what was read of these is read anew."""
        self.upsert(points)
        for tag in {str(metadata_of(point).get("scope")) for point in points}:
            self.forget(tag)

    @contextmanager
    def removing(self, *tags: str) -> Iterator[None]:
        """What the body deletes or overwrites in scopes is physically gone afterwards from the embedded engine's files.

        Deleted payloads stay until the files are written anew, which a server does in its own time.

        Raises:
            StoreUnavailableError: They cannot be written anew; see :meth:`finish_removing`.
        """
        client = self.open()
        try:
            with purging(client, self.name):
                yield
        finally:
            for tag in tags:
                self.forget(tag)

    def finish_removing(self) -> None:
        """Remove what an earlier removal could not; nothing, where there is none."""
        finish_purging(self.open(), self.name)

    def rewrite(self) -> None:
        """Write all points of the embedded engine into new files, with their indexes; a server keeps its own.

        Raises:
            StoreUnavailableError: They cannot be written.
        """
        client = self.client()
        if is_embedded(client):
            client.purge(self.name)
        with self.lock:
            self._forget_all()

    def delete(self, selector: models.PointIdsList | models.FilterSelector | None) -> None:
        """Delete points, while :meth:`removing`; None deletes no further ones than those that were overwritten."""
        client = self.open()
        with asking():
            if selector is not None:
                client.delete(self.name, points_selector=selector, wait=True)
            moved = abandon(client, self.name, self._place) != self._place
        if moved:
            self._client = None
            raise StoreUnavailableError(
                "All memories were embedded anew while these were deleted, which may have missed them: they may still "
                "be there. Call it again; where it was with another embedding, open the memory with that one first."
            )

    def delete_ids(self, ids: Iterable[str | int]) -> None:
        """Delete points of the embedded engine by their ids, while :meth:`removing`: a server's indexes are its own."""
        from qdrant_client import models

        for batch in batched(ids, PAGE) if is_embedded(self.open()) else ():
            self.delete(models.PointIdsList(points=list(batch)))

    def optimize(self) -> bool:
        """Build the embedded engine's graphs; see ``LongTermMemory.optimize``."""
        client = self.open()
        return is_embedded(client) and client.optimize(self.name)  # a server does so by itself

    def close(self) -> None:
        """Forget what was read; the client is its owner's to close."""
        with self.lock:
            self._client = None
            self._forget_all()

    def leave_to_parent(self) -> None:
        """In a forked process: what the parent's threads hold, and have half done, is theirs."""
        self.lock, self._briefly, self._making = threading.RLock(), threading.Lock(), threading.RLock()
        for turn in list(self._turns.values()):
            turn.lock = threading.RLock()
        self._client = None
        self._forget_all()

    def _forget_all(self) -> None:
        self._tables.clear()
        self._rows = 0

    def reembed(self, progress: Progress | None = None) -> int:
        """Embed every memory anew with this embedding and language; see ``LongTermMemory.reembed``."""
        with self.lock, asking():
            client = self.client()
            place = finish(client, self.name)
            if place is None:
                return 0
            if not self._differences(client.get_collection(self.name)):
                abandon(client, self.name, place)  # one that was begun for another embedding
                return client.count(self.name, exact=True).count
            count = reembed(client, self.name, place, self.identity, self._encode, progress)
            self._client = None
            self._forget_all()
            return count

    def encode(self, ids: Sequence[Any], payloads: Sequence[dict[str, Any]]) -> list[models.PointStruct]:
        """Points of payloads, with their vectors; what says nothing gets none, so that no search finds it."""
        from qdrant_client import models

        told = [payload for payload in payloads if payload.get("page_content")]
        with embedding():
            dense = self.dense.embed_documents([payload["page_content"] for payload in told]) if told else []
        sparse = self.sparse.embed_documents(line(p["page_content"], p.get("metadata") or {}) for p in told)
        vectors: Iterator[dict[str, Any]] = iter(
            [
                {DENSE: vector, SPARSE: models.SparseVector(indices=terms.indices, values=terms.values)}
                for vector, terms in zip(dense, sparse, strict=True)
            ]
        )
        return [
            models.PointStruct(id=id_, vector=next(vectors) if payload.get("page_content") else {}, payload=payload)
            for id_, payload in zip(ids, payloads, strict=True)
        ]

    def expect_embedding(self) -> None:
        """See that the embedding works at all, where it did not take a text.

        Raises:
            EmbeddingError: It does not.
        """
        with embedding():
            self.dense.embed_documents(["Hello."])

    @property
    def identity(self) -> dict[str, Any]:
        """What the collection records of how its vectors were made."""
        return self._once("identity", self._identify)

    def _identify(self) -> dict[str, Any]:
        from memory_integrations.embeddings import embedding_name, embedding_size

        assert self.sparse  # a language that is not known raises here, before anything is recorded
        with embedding():
            size = embedding_size(self.dense)
        return {
            "embedding": embedding_name(self.dense),
            "embedding_size": size,
            "language": self.language or "none",
        }

    def _create(self, client: QdrantClient) -> None:
        """Create the collection for this embedding and language."""
        from qdrant_client import models

        try:
            client.create_collection(
                self.name,
                vectors_config=models.VectorParams(
                    size=self.identity["embedding_size"], distance=models.Distance.COSINE
                ),
                sparse_vectors_config={SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)},
                metadata=self.identity,
                **self.options,
            )
        except Exception:
            if not client.collection_exists(self.name):  # else another process was faster
                raise

    def _index(self, client: QdrantClient, found: models.CollectionInfo) -> None:
        """See that the collection has the indexes that there are to be, with the scope as its tenant."""
        from qdrant_client import models

        tenant = models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True)
        wanted: dict[str, Any] = {"metadata.scope": tenant, "metadata.created_at": models.PayloadSchemaType.DATETIME}
        if not is_embedded(client):  # it scans a scope faster than it keeps further indexes
            wanted |= _SERVER_INDEXES
        for field, kind in wanted.items():
            if field not in found.payload_schema:
                client.create_payload_index(self._place, field, kind)

    def _open_collection(self, client: QdrantClient) -> None:
        place = finish(client, self.name)
        if place is None:
            self._create(client)
        self._place = place or self.name
        found = client.get_collection(self.name)
        self._expect_alike(found)
        self._index(client, found)  # an earlier version made fewer
        self._look_later(client)

    def _look_again(self, client: QdrantClient) -> None:
        """See that nobody else has embedded the collection anew since it was opened here."""
        self._look_later(client)  # first: of several threads one looks
        try:
            with asking():
                self._expect_alike(client.get_collection(self.name))
        except Exception:
            self._client = None  # what is called next opens it anew
            raise

    def _look_later(self, client: QdrantClient) -> None:
        wait = _LOOKS_AGAIN_EMBEDDED_AFTER if is_embedded(client) else _LOOKS_AGAIN_AFTER
        self._look_again_at = time.monotonic() + wait

    def _expect_alike(self, found: models.CollectionInfo) -> None:
        written = self._differences(found)
        if written:
            raise EmbeddingMismatchError(
                f"Collection {self.name!r} was written with {_described(written)}; it was opened with "
                f"{_described(self.identity)}. Open it with the former, or call long_term.reembed() to embed its "
                "memories with the latter."
            )

    def _differences(self, found: models.CollectionInfo) -> dict[str, Any]:
        """How the collection's vectors were made, where it was otherwise than now; empty where it was not."""
        config = found.config
        vectors = config.params.vectors
        dense = vectors.get(DENSE) if isinstance(vectors, dict) else vectors
        # What the ecosystem's own classes created says nothing of its embedding but the size.
        written = {**self.identity, **(config.metadata or {}), "embedding_size": dense.size if dense else None}
        return {} if all(written[key] == value for key, value in self.identity.items()) else written

    def _encode(self, points: list[Any]) -> list[Any]:
        return list(self.encode([point.id for point in points], [point.payload for point in points]))

    def _tabulate(self, table: Conversations, points: Iterable[Any]) -> None:
        for batch in batched(points, PAGE):
            lines = [line(text_of(point), metadata_of(point)) for point in batch]
            for point, terms in zip(batch, self.sparse.embed_documents(lines), strict=True):
                fields, text = metadata_of(point), text_of(point)
                session, message = name_of(point)
                if fields.get("kind") != "message":
                    session = f"\0{message}" if piece_of(fields)[1] > 1 else None  # pieces of a file stand together
                table.add(
                    key_of(point.id), session, speaker_of(fields), text, day_of(fields), terms.indices, _order_of(point)
                )


def is_embedded(client: Any) -> TypeGuard[QdrantEdgeClient]:
    """Whether a client is the embedded engine."""
    return hasattr(client, "purge")


def _described(identity: Mapping[str, Any]) -> str:
    size = identity["embedding_size"] or "no"
    return f"the embedding {identity['embedding']!r} of {size} dimensions and language {identity['language']!r}"


@contextmanager
def embedding() -> Iterator[None]:
    """What an embedding does not do, as an error of ours: many are services that fail in ways of their own.

    Raises:
        EmbeddingError: It failed.
    """
    try:
        yield
    except Exception as error:
        raise EmbeddingError(
            f"The embedding failed ({type(error).__name__}: {' '.join(str(error).split())[:200]}). Nothing was stored "
            "or found; try again when it works."
        ) from error


def in_order(points: Iterable[Any]) -> list[Any]:
    """Points in the order in which what they say was said."""
    return sorted(points, key=lambda point: (_order_of(point), str(point.id)))


def _order_of(point: Any) -> int | float:
    order = metadata_of(point).get("order", 0)
    return order if isinstance(order, int | float) else 0


def equals(key: str, value: str | int | bool) -> models.Condition:
    """The condition that a field is a value."""
    from qdrant_client import models

    return models.FieldCondition(key=key, match=models.MatchValue(value=value))


@functools.lru_cache(maxsize=_SCOPES_KEPT)
def _scope_conditions(tags: tuple[str, ...]) -> list[models.Condition]:
    # One condition a tag: the engine serves that from its index in half the time of a MatchAny.
    return [equals("metadata.scope", tag) for tag in tags]


def tagged(tags: Sequence[str], *conditions: models.Condition) -> models.Filter:
    """The filter that every call to the engine carries: one of these scopes, and all further conditions."""
    from qdrant_client import models

    return models.Filter(should=list(_scope_conditions(tuple(tags))), must=list(conditions) or None)


@functools.lru_cache(maxsize=_SCOPES_KEPT)
def within_corpus(tags: tuple[str, ...]) -> models.SearchParams:
    """Terms are as rare as they are in these scopes: whatever others say changes no score."""
    from qdrant_client import models

    return models.SearchParams(idf=models.IdfCorpusParams(corpus=tagged(tags)))


_Item = TypeVar("_Item")


def batched(items: Iterable[_Item], size: int) -> Iterator[tuple[_Item, ...]]:
    """The items in tuples of at most ``size``."""
    iterator = iter(items)
    while batch := tuple(itertools.islice(iterator, size)):
        yield batch
