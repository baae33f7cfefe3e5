"""Every past exchange and file summary, found again through Qdrant.

All scopes share one collection, a point a message, laid out as ``langchain_qdrant.QdrantVectorStore`` expects
it: ``page_content`` is what was said, ``metadata`` says where, when and by whom.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from memory_integrations.delimiters import as_data, strip_injected
from memory_integrations.errors import EmbeddingMismatchError, MessageError
from memory_integrations.messages import Message, as_unicode, utc_now
from memory_integrations.scopes import MemoryScope
from memory_integrations.short_term import arrived
from memory_integrations.tokens import TokenCounter, check_budget

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings
    from langchain_qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient, models

    from memory_integrations.qdrant_edge import Bm25Encoder
    from memory_integrations.ranking import Conversations, RankingWeights

COLLECTION = "memory_integrations"
DENSE = ""
"""langchain_qdrant's name of the dense vector."""
SPARSE = "langchain-sparse"
"""langchain_qdrant's name of the sparse vector."""

_REMEMBERED_ROLES = frozenset(("user", "assistant"))
_PAGE = 256  # points a call: the embedded engine holds the interpreter lock for the whole of each
_MONTHS = tuple("January February March April May June July August September October November December".split())


@dataclass(frozen=True, slots=True)
class MemoryHit:
    """Something found.

    Args:
        id: The id of its point, which :meth:`LongTermMemory.delete` takes.
        text: What the model will see: date, speaker and what was said, escaped as data.
        score: In (0, 1], higher is better; comparable within one search.
        message_ids: The messages that the text shows.
        metadata: The point's metadata: scope, session_id, role, name, created_at, kind, and the message's own
            under "extra".
    """

    id: str
    text: str
    score: float
    message_ids: tuple[str, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)


class LongTermStore:
    """One open collection, shared by the long-term memories of all scopes.

    Args:
        client: Gives the Qdrant client; called at first use.
        embeddings: Gives the dense embedding; called at first use.
        collection: The collection's name.
        weights: How ranking adds its signals up; None means the tuned defaults.
    """

    def __init__(
        self,
        client: Callable[[], QdrantClient],
        embeddings: Callable[[], Embeddings],
        collection: str = COLLECTION,
        weights: RankingWeights | None = None,
    ) -> None:
        self.collection = collection
        self._make_client = client
        self._make_embeddings = embeddings
        self._weights = weights
        self._lock = threading.RLock()
        self._ready = False
        self._tables: dict[str, Conversations] = {}
        self._orders = itertools.count(time.time_ns())

    def open(self) -> QdrantClient:
        """The client, with the collection there; opened once.

        Raises:
            EmbeddingMismatchError: The collection was written with another embedding.
            StoreLockedError: Another process holds the embedded engine's directory.
        """
        if not self._ready:
            with self._lock:
                if not self._ready:
                    self.client = self._make_client()
                    self._open_collection()
                    self._ready = True
        return self.client

    @property
    def is_open(self) -> bool:
        """Whether anything was read or written yet."""
        return self._ready

    @cached_property
    def encoders(self) -> tuple[Embeddings, Bm25Encoder]:
        """The dense and the sparse encoder."""
        from memory_integrations.qdrant_edge import Bm25Encoder

        return self._make_embeddings(), Bm25Encoder(avg_len=BM25_AVERAGE_LENGTH)

    @cached_property
    def weights(self) -> RankingWeights:
        """How ranking adds its signals up."""
        from memory_integrations.ranking import RankingWeights

        return self._weights or RankingWeights()

    def next_order(self) -> int:
        """A number that grows with every message, also over restarts: nanoseconds since the epoch, never twice."""
        return next(self._orders)

    def table(self, tag: str) -> Conversations:
        """What ranking knows of a scope's messages; read from the collection at first use."""
        table = self._tables.get(tag)
        if table is None:
            from memory_integrations.ranking import Conversations

            with self._lock:
                table = self._tables.get(tag)
                if table is None:
                    table = Conversations()
                    points = self.scroll(_tagged([tag]))
                    for point in sorted(points, key=lambda p: (_metadata(p).get("order", 0), str(p.id))):
                        _tabulate(table, point)
                    self._tables[tag] = table
        return table

    def note(self, tag: str, points: Iterable[Any]) -> None:
        """Add points to a scope's table, where it was read already."""
        with self._lock:
            table = self._tables.get(tag)
            if table is not None:
                for point in points:
                    _tabulate(table, point)

    def forget(self, tag: str) -> None:
        """Drop a scope's table: the next search reads it anew."""
        with self._lock:
            self._tables.pop(tag, None)

    def scroll(self, query_filter: models.Filter) -> Iterator[models.Record]:
        """Every point of a filter, page by page."""
        client, offset = self.open(), None
        while True:
            points, offset = client.scroll(
                self.collection, scroll_filter=query_filter, limit=_PAGE, offset=offset, with_payload=True
            )
            yield from points
            if offset is None:
                return

    def close(self) -> None:
        """Forget what was read; the client is its owner's to close."""
        with self._lock:
            self._ready = False
            self._tables.clear()

    def _open_collection(self) -> None:
        from qdrant_client import models

        from memory_integrations.embeddings import embedding_name

        embeddings, _ = self.encoders
        name = embedding_name(embeddings)
        if not self.client.collection_exists(self.collection):
            size = _size_of(embeddings)
            self.client.create_collection(
                self.collection,
                vectors_config=models.VectorParams(size=size, distance=models.Distance.COSINE),
                sparse_vectors_config={SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)},
                metadata={"embedding": name, "embedding_size": size},
            )
            self.client.create_payload_index(
                self.collection,
                "metadata.scope",
                models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
            )
            return
        config = self.client.get_collection(self.collection).config
        recorded = (config.metadata or {}).get("embedding", name)
        vectors = config.params.vectors
        found = vectors.get(DENSE) if isinstance(vectors, dict) else vectors
        # Embedding a text may cost a call to a paid service: only where the name does not settle it.
        size = found.size if found and recorded == name and not _known_size(embeddings) else _size_of(embeddings)
        if found is None or recorded != name or found.size != size:
            raise EmbeddingMismatchError(
                f"Collection {self.collection!r} was written with the embedding {recorded!r} of "
                f"{found.size if found else 'no'} dimensions; it was opened with {name!r} of {size}. Open it with the "
                "former, or embed it anew: export its messages, and store them under another data_dir or collection."
            )


class LongTermMemory:
    """What was said and summarised in a scope, searched together with what is global.

    Memories belong to the scope's owner: the user where there is one, so that every session of a user finds them.

    Args:
        store: The open collection.
        scope: Whose memories.
        counter: Counts tokens.
        clock: Gives the time, aware.
    """

    def __init__(
        self,
        store: LongTermStore,
        scope: MemoryScope,
        counter: TokenCounter | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.scope = scope.owner
        self.session_id = scope.session_id
        self.counter = counter or TokenCounter()
        self._store = store
        self._clock = clock

    # Writing

    def store_conversation(self, user: str, assistant: str, session_id: str | None = None) -> list[str]:
        """Store an exchange.

        Args:
            user: What the user said.
            assistant: The answer.
            session_id: The session; None means the scope's.

        Returns:
            The ids of the two memories.

        Raises:
            MessageError: Both texts are empty.
            StoreError: It could not be written.
        """
        now = self._clock()
        messages = [Message("user", user, created_at=now), Message("assistant", assistant, created_at=now)]
        if not any(message.text.strip() for message in messages):
            raise MessageError("Both sides of the conversation are empty: expected something said.")
        return self.store_messages(replace(message, session_id=session_id) for message in messages)

    def store_messages(self, messages: Iterable[Message]) -> list[str]:
        """Store what users and assistants said; other roles, and messages without text, are no memories.

        A message whose id is stored already keeps its place and its time, and is not doubled. Blocks of injected
        memory inside a message are left out.

        Args:
            messages: In the order in which they were said.

        Returns:
            The ids of the memories, in order.

        Raises:
            StoreError: They could not be written; those before a failed batch of 256 were.
        """
        ids: list[str] = []
        now = self._clock()
        worthy = (m for m in messages if m.role in _REMEMBERED_ROLES)
        for batch in _batched(worthy, _PAGE):
            prepared = []
            for message in batch:
                text = strip_injected(message.text)
                if text:
                    prepared.append((message, arrived(message, self.session_id, now), text))
            ids += self._write(prepared)
        return ids

    def store_file_summary(self, filename: str, summary: str, metadata: Mapping[str, Any] | None = None) -> str:
        """Store what a file says; a summary of the same file replaces the one before.

        Args:
            filename: The file's name, as the model will see it.
            summary: Its summary.
            metadata: Anything else.

        Returns:
            The id of the memory.

        Raises:
            MessageError: The name or the summary is empty.
            StoreError: It could not be written.
        """
        if not filename.strip() or not summary.strip():
            raise MessageError(f"filename={filename!r}, summary of {len(summary)} characters: expected both.")
        message = Message("file", summary, name=filename, metadata=metadata or {}, created_at=self._clock())
        given = replace(message, id=f"file:{filename}")
        return self._write([(given, given, message.text)], kind="file")[0]

    def delete(self, ids: Sequence[str]) -> int:
        """Delete memories of this scope by their ids (``MemoryHit.id``); others' are not touched.

        Returns:
            How many there were.
        """
        own: list[Any] = [
            str(point.id) for point in self._retrieve(ids) if _metadata(point).get("scope") == self.scope.tag
        ]
        if own:
            client = self._store.open()
            client.delete(self._store.collection, points_selector=own, wait=True)
            self._store.forget(self.scope.tag)
        return len(own)

    def erase(self, session_id: str | None = None) -> int:
        """Remove everything of the scope, or of one of its sessions, physically; returns how many memories."""
        from qdrant_client import models

        client = self._store.open()
        query_filter = _tagged([self.scope.tag], session_id)
        count = client.count(self._store.collection, count_filter=query_filter, exact=True).count
        client.delete(self._store.collection, points_selector=models.FilterSelector(filter=query_filter), wait=True)
        self._store.forget(self.scope.tag)
        # The embedded engine keeps deleted payloads in its files until they are written anew; a server purges itself.
        purge = getattr(client, "purge", None)
        if purge is not None:
            purge(self._store.collection)
        return count

    # Reading

    def search(self, query: str, limit: int = 5) -> list[MemoryHit]:
        """Find memories, the scope's own and global ones.

        Args:
            query: A question or any text.
            limit: How many at most.

        Returns:
            Hits, best first.

        Raises:
            StoreError: The store cannot be read.
        """
        if limit < 1:
            raise ValueError(f"limit={limit}: expected 1 or more.")
        if not query.strip():
            return []
        query = as_unicode(query)
        tags = [scope.tag for scope in self.scope.lineage]
        sparse, dense = self._candidates(query, tags)
        unknown = self._unknown(tags, {*sparse, *dense})
        for point in self._retrieve(unknown):
            self._store.note(_metadata(point).get("scope", ""), [point])
        ranked = self._rank(query, tags, sparse, dense, limit)
        points = {str(point.id): point for point in self._retrieve([point_id for point_id, _ in ranked])}
        return [_hit(points[point_id], score) for point_id, score in ranked if point_id in points]

    def get_relevant_context(self, query: str, max_tokens: int = 500, limit: int = 50) -> str:
        """What a search finds as lines for a prompt, best first, within a budget of tokens.

        Raises:
            BudgetError: The budget is negative or not an integer.
        """
        check_budget(max_tokens)
        lines: list[str] = []
        left = max_tokens
        for hit in self.search(query, limit):
            tokens = self.counter.count(hit.text) + 1
            if tokens > left:
                break
            lines.append(hit.text)
            left -= tokens
        return "\n".join(lines)

    def count(self) -> int:
        """How many memories the scope itself has, exactly."""
        client = self._store.open()
        return client.count(self._store.collection, count_filter=_tagged([self.scope.tag]), exact=True).count

    def messages(self) -> Iterator[Message]:
        """Every message of the scope in the order in which it was said, through all pages."""
        points = self._store.scroll(_tagged([self.scope.tag]))
        for point in sorted(points, key=lambda p: (_metadata(p).get("order", 0), str(p.id))):
            yield _as_message(point)

    @property
    def vectorstore(self) -> QdrantVectorStore:
        """The same collection as langchain_qdrant's own class, hybrid.

        It sees all scopes: give it a filter on ``metadata.scope``, and give what it adds a ``scope`` in its
        metadata, without which no scope finds it.
        """
        from langchain_qdrant import QdrantVectorStore, RetrievalMode

        from memory_integrations.qdrant_edge import Bm25SparseEmbeddings

        client = self._store.open()
        embeddings, encoder = self._store.encoders
        return QdrantVectorStore(
            client=client,
            collection_name=self._store.collection,
            embedding=embeddings,
            sparse_embedding=Bm25SparseEmbeddings(encoder),
            retrieval_mode=RetrievalMode.HYBRID,
            validate_collection_config=False,
        )

    # Inside

    def _write(self, prepared: Sequence[tuple[Message, Message, str]], kind: str = "message") -> list[str]:
        """Write messages: as they were given, as they arrived, and the text to be remembered."""
        from qdrant_client import models

        if not prepared:
            return []
        client, tag = self._store.open(), self.scope.tag
        embeddings, encoder = self._store.encoders
        ids = [point_id(tag, arrived.id or "") for _, arrived, _ in prepared]
        # Only an id that came from outside can be known already.
        given = [id_ for id_, (message, _, _) in zip(ids, prepared, strict=True) if message.id]
        known = {str(point.id): _metadata(point) for point in self._retrieve(given)}
        payloads: list[dict[str, Any]] = []
        for id_, (_, message, text) in zip(ids, prepared, strict=True):
            metadata = _as_metadata(message, tag, kind, self._store.next_order())
            before = known.get(id_)
            if before is not None:
                metadata = {**before, **metadata, "order": before.get("order", metadata["order"])}
                if kind == "message":
                    metadata["created_at"] = before.get("created_at", metadata["created_at"])
            payloads.append({"page_content": text, "metadata": metadata})
        dense = embeddings.embed_documents([text for _, _, text in prepared])
        sparse = encoder.embed_documents(_line(p["page_content"], p["metadata"]) for p in payloads)
        points = [
            models.PointStruct(
                id=id_,
                vector={DENSE: vector, SPARSE: models.SparseVector(indices=indices, values=values)},
                payload=payload,
            )
            for id_, payload, vector, (indices, values) in zip(ids, payloads, dense, sparse, strict=True)
        ]
        client.upsert(self._store.collection, points=points, wait=True)
        self._store.note(tag, points)
        return ids

    def _candidates(self, query: str, tags: list[str]) -> tuple[dict[str, float], dict[str, float]]:
        """BM25 scores and cosines of the candidates, by point id."""
        from qdrant_client import models

        from memory_integrations.ranking import named_speakers, without_speakers

        client = self._store.open()
        embeddings, encoder = self._store.encoders
        speakers = [name for tag in tags for name in self._store.table(tag).speakers]
        # A speaker's bonus stands for the name, which as a word would match half of what was said.
        question = without_speakers(query, named_speakers(query, speakers))
        indices, values = encoder.embed_query(question)
        in_scope, limit = _tagged(tags), self._store.weights.candidates
        responses = client.query_batch_points(
            self._store.collection,
            [
                models.QueryRequest(
                    query=models.SparseVector(indices=indices, values=values),
                    using=SPARSE,
                    filter=in_scope,
                    limit=limit,
                    params=models.SearchParams(idf=models.IdfCorpusParams(corpus=in_scope)),
                ),
                models.QueryRequest(
                    query=embeddings.embed_query(question),
                    using=DENSE,
                    filter=in_scope,
                    limit=limit,
                ),
            ],
        )
        sparse, dense = ({str(point.id): point.score for point in response.points} for response in responses)
        return sparse, dense

    def _unknown(self, tags: list[str], ids: Iterable[str]) -> list[str]:
        """The ids that are in no table: points that somebody else wrote since."""
        tables = [self._store.table(tag).row_of for tag in tags]
        return [point_id for point_id in ids if not any(point_id in rows for rows in tables)]

    def _rank(
        self, query: str, tags: list[str], sparse: dict[str, float], dense: dict[str, float], limit: int
    ) -> list[tuple[str, float]]:
        from memory_integrations.ranking import rank, share_of_top

        weights = self._store.weights
        sparse, dense = share_of_top(sparse), share_of_top(dense)
        ranked: list[tuple[str, float]] = []
        for tag in tags:
            table = self._store.table(tag)
            own_sparse = {point_id: score for point_id, score in sparse.items() if point_id in table}
            own_dense = {point_id: score for point_id, score in dense.items() if point_id in table}
            if own_sparse or own_dense:
                ranked += rank(own_sparse, own_dense, query, table, weights, limit)
        return sorted(ranked, key=lambda item: -item[1])[:limit]

    def _retrieve(self, ids: Sequence[str]) -> list[models.Record]:
        if not ids:
            return []
        client = self._store.open()
        return [
            point
            for batch in _batched(ids, _PAGE)
            for point in client.retrieve(self._store.collection, list(batch), with_payload=True)
        ]


BM25_AVERAGE_LENGTH = 18.0
"""The mean length of a chat message in BM25 tokens, against which each is measured (Qdrant's own default is 256)."""


def point_id(tag: str, message_id: str) -> str:
    """The id of a message's point: the same for the same message in the same scope, and for no other."""
    digest = blake2b(f"{len(tag)}:{tag}{message_id}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return str(UUID(bytes=digest, version=4))


def _tagged(tags: Sequence[str], session_id: str | None = None) -> models.Filter:
    """The filter that every call to the engine carries; there is none without a scope."""
    from qdrant_client import models

    # One condition a tag: the engine serves that from its index in half the time of a MatchAny.
    scopes: list[models.Condition] = [
        models.FieldCondition(key="metadata.scope", match=models.MatchValue(value=tag)) for tag in tags
    ]
    if session_id is None:
        return models.Filter(should=scopes)
    session = models.FieldCondition(key="metadata.session_id", match=models.MatchValue(value=session_id))
    return models.Filter(should=scopes, must=[session])


def _metadata(point: Any) -> dict[str, Any]:
    """A point's metadata; what the ecosystem's classes wrote may have none."""
    found = (point.payload or {}).get("metadata")
    return found if isinstance(found, dict) else {}


def _as_metadata(message: Message, tag: str, kind: str, order: int) -> dict[str, Any]:
    assert message.created_at is not None  # given on arrival
    fields = {
        "scope": tag,
        "session_id": message.session_id,
        "message_id": message.id,
        "role": message.role,
        "name": message.name,
        "created_at": message.created_at.isoformat(),
        "kind": kind,
        "order": order,
        "extra": _as_json(message.metadata) or None,
    }
    return {key: value for key, value in fields.items() if value is not None}


def _as_json(metadata: Mapping[str, Any]) -> dict[str, Any]:
    try:
        copied: dict[str, Any] = json.loads(json.dumps(dict(metadata), allow_nan=False)) if metadata else {}
    except (TypeError, ValueError) as error:
        raise MessageError(
            f"A message's metadata is not JSON ({error}): expected text, finite numbers, true, false, None, or lists "
            "and objects of these. Nothing was stored."
        ) from error
    return copied


def _as_message(point: Any) -> Message:
    fields = _metadata(point)
    created = fields.get("created_at")
    return Message(
        role=fields.get("role", "user"),
        content=point.payload.get("page_content", ""),
        name=fields.get("name"),
        id=fields.get("message_id", str(point.id)),
        session_id=fields.get("session_id"),
        created_at=datetime.fromisoformat(created) if created else None,
        metadata=fields.get("extra", {}),
    )


def _tabulate(table: Conversations, point: Any) -> None:
    fields = _metadata(point)
    created = fields.get("created_at")
    day = date.fromisoformat(created[:10]).toordinal() if created else 0
    session = fields.get("session_id") if fields.get("kind") == "message" else None
    table.add(str(point.id), session, _speaker(fields), point.payload.get("page_content", ""), day)


def _speaker(fields: Mapping[str, Any]) -> str:
    return str(fields.get("name") or fields.get("role") or "note")


def _line(text: str, fields: Mapping[str, Any]) -> str:
    """A memory as the model sees it: "8 May 2023 Caroline: ...". Plain words cost the fewest tokens for a date."""
    created = fields.get("created_at")
    when = ""
    if created:
        moment = date.fromisoformat(created[:10])
        when = f"{moment.day} {_MONTHS[moment.month - 1]} {moment.year} "
    return f"{when}{_speaker(fields)}: {text}"


def _hit(point: Any, score: float) -> MemoryHit:
    fields = _metadata(point)
    text = as_data(_line(point.payload.get("page_content", ""), fields))
    return MemoryHit(str(point.id), text, score, (fields.get("message_id", str(point.id)),), fields)


def _known_size(embeddings: Embeddings) -> int | None:
    size = getattr(embeddings, "dimensions", None)
    return size if isinstance(size, int) else None


def _size_of(embeddings: Embeddings) -> int:
    return _known_size(embeddings) or len(embeddings.embed_query("size"))


_Item = TypeVar("_Item")


def _batched(items: Iterable[_Item], size: int) -> Iterator[tuple[_Item, ...]]:
    iterator = iter(items)
    while batch := tuple(itertools.islice(iterator, size)):
        yield batch
