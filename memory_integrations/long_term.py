"""Every past exchange and file summary, found again through Qdrant."""

from __future__ import annotations

import itertools
import operator
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

from memory_integrations.arrival import arrived, expect_message, expect_text, utc_now
from memory_integrations.collection import (
    MemoryCollection,
    batched,
    embedding,
    equals,
    in_order,
    tagged,
    within_corpus,
)
from memory_integrations.copying import PAGE
from memory_integrations.delimiters import strip_injected
from memory_integrations.errors import FilterError, MessageError, ScopeError
from memory_integrations.filters import MemoryFilter
from memory_integrations.layout import (
    DELETED,
    DENSE,
    MARKS_OF_A_POINT,
    SPARSE,
    TOLD,
    MemoryHit,
    MessageName,
    as_marks,
    as_message,
    as_metadata,
    id_of,
    is_expired,
    is_said_by_call,
    key_of,
    mark_of,
    marks_in,
    metadata_of,
    moment_of,
    name_of,
    piece_of,
    pieces,
    places_of_mark,
    point_id,
    shown,
    text_of,
)
from memory_integrations.messages import Message, as_unicode, as_utc
from memory_integrations.namespaces import own_tag
from memory_integrations.scopes import MemoryScope
from memory_integrations.tokens import TokenCounter, check_budget

if TYPE_CHECKING:
    from langchain_qdrant import QdrantVectorStore
    from qdrant_client import models

    from memory_integrations.copying import Progress
    from memory_integrations.ranking import Conversations, Ranked

# Of a long text a hit shows so many pieces, and only those that score about as well as the best.
_PIECES_SHOWN = 2
_PIECE_SHARE = 0.9
_PIECES_HIDDEN = 16
"""Of a message that a search leaves out, so many pieces are."""
_LOOKED_FOR = 100
"""Of so many messages it is looked for other users who have them."""
_WORD = re.compile(r"\w+")
REMEMBERED_ROLES = frozenset(("user", "assistant"))


class LongTermMemory:
    """What was said and summarised in a scope, searched together with what is global.

    Memories belong to the scope's owner: the user where there is one, so that every session of a user finds them.

    Args:
        collection: The open collection.
        scope: Whose memories.
        counter: Counts tokens.
        clock: Gives the time, aware.
        before_delete: Told of messages that are about to be deleted, by session and id, to remove what else is kept of
            them. What it raises leaves them.
    """

    def __init__(
        self,
        collection: MemoryCollection,
        scope: MemoryScope,
        counter: TokenCounter | None = None,
        clock: Callable[[], datetime] = utc_now,
        before_delete: Callable[[Collection[MessageName]], None] | None = None,
    ) -> None:
        self.scope = scope.owner
        self.session_id = scope.session_id
        self._tags = [one.tag for one in scope.lineage]
        self.counter = counter or TokenCounter()
        self._collection = collection
        self._clock = clock
        self._before_delete = before_delete
        self._turn = collection.turn(self.scope.tag)

    def open(self) -> None:
        """Open the store now instead of at its first use, so that what is wrong with it shows.

        Raises:
            StoreError: It cannot be opened.
            EmbeddingMismatchError: It was written with another embedding.
        """
        self._collection.open()

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

        A message whose id is stored already keeps its place and its time, and is not doubled; where it says something
        else now, its metadata says when that was told (``updated_at``). Blocks of injected memory inside a message are
        left out. One that is told again with nothing left in it is deleted, physically; it may be told again.

        Args:
            messages: In the order in which they were said.

        Returns:
            The ids of the memories, in order.

        Raises:
            MessageError: One is no message.
            StoreError: They could not be written; those before a failed batch of 256 were.
        """
        ids: list[str] = []
        now = self._clock()
        for batch in batched((m for m in map(expect_message, messages) if m.role in REMEMBERED_ROLES), PAGE):
            texts = [(message, strip_injected(message.text)) for message in batch]
            ids += self._write(
                [(arrived(message, self.session_id, now), text) for message, text in texts if text or message.id],
                # Only an id that came from outside can be known already.
                given={message.id for message, _ in texts if message.id},
            )
        return ids

    def held(self) -> AbstractContextManager[Any]:
        """Lets several calls of this thread be one step: other threads of this process write and erase before or after.

        Whoever holds the conversation too takes it after this.
        """
        return self._turn.lock

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
        if not expect_text("filename", filename).strip() or not expect_text("summary", summary).strip():
            raise MessageError(f"filename={filename!r}, summary of {len(summary)} characters: expected both.")
        message_id = f"file:{filename}"
        message = Message("file", summary, filename, message_id, None, self._clock(), metadata or {})
        return self._write([(message, message.text)], given={message_id}, kind="file")[0]

    def delete(self, ids: Sequence[str]) -> int:
        """Delete memories of this scope by their ids (``MemoryHit.id``), physically; others' are not touched.

        A deleted message stays deleted: a conversation that is told again (``MemoryManager.follow``) does not bring it
        back. What says the same again is another memory: ``search(distinct=False)`` shows them all.

        Returns:
            How many there were.

        Raises:
            StoreError: They could not be deleted.
            TypeError: It is one id, and no list of ids.
        """
        from qdrant_client import models

        if isinstance(ids, str):
            raise TypeError(f"ids={ids!r:.60}: expected a list of ids, such as [hit.id]. Nothing was deleted.")
        tag = self.scope.tag
        with self._turn.lock:
            # By their ids: one that is given twice, or written in another way, is one memory.
            stored = {str(point.id): point for point in self._collection.retrieve(ids)}
            own = [point for point in stored.values() if metadata_of(point).get("scope") == tag]
            messages = {name_of(point) for point in own if _is_message(point)}
            if own:
                if self._before_delete is not None:
                    self._before_delete(messages)
                first = [point_id(tag, *name) for name in messages]
                with self._collection.removing(tag):  # in this order: where it is interrupted, it can be run again
                    rest = _every_piece(tag, own)
                    rest.must_not = [models.HasIdCondition(has_id=list(first))]
                    self._collection.delete(models.FilterSelector(filter=rest))
                    # By their ids too, since an index may be damaged.
                    known = itertools.chain.from_iterable((str(p.id), *_further_pieces(tag, p)) for p in own)
                    self._collection.delete_ids({*known}.difference(first))
                    self._bury(first)
            else:  # what is gone already may still be in files: running it again goes on
                self._collection.finish_removing()
            return len(set(map(name_of, own)))

    def erase(self, session_id: str | None = None, told: Iterable[Message] = ()) -> int:
        """Remove everything of the scope, or of one of its sessions, physically; returns how many memories.

        As with :meth:`delete`, a conversation that is told again brings nothing back.

        Args:
            session_id: The session; None means all.
            told: Further messages that belong to it and may not be stored yet.

        Raises:
            ScopeError: The session's id is no text.
            StoreError: They could not be removed; running it again goes on.
        """
        from qdrant_client import models

        tag = self.scope.tag
        conditions = _of_session(session_id)
        # With everything of a scope goes what stores of the scope keep for themselves.
        tags = [tag] if conditions else [tag, own_tag(self.scope)]
        with self._turn.lock:
            count = self._count(tags, *conditions)
            with self._collection.removing(tag):
                names = [point_id(tag, message.session_id, message.id) for message in told if message.id]
                self._mark([*_first_pieces(self._collection.scroll(tagged([tag], *conditions))), *names])
                self._collection.delete(models.FilterSelector(filter=tagged(tags, *conditions)))
                # An index may be damaged: what it did not find is looked for among all.
                left = [point for point in self._collection.look_through() if _is_of(point, tags, session_id)]
                self._mark(_first_pieces(left))
                self._collection.delete_ids(str(point.id) for point in left)
                count += sum(piece_of(metadata_of(point))[0] == 0 for point in left)
            return count

    def recorded(self, messages: Iterable[Message]) -> dict[str, datetime | None]:
        """When those messages of this session that were stored before were said, by ids; None for deleted ones."""
        places = {
            point_id(self.scope.tag, message.session_id or self.session_id, message.id): message.id
            for message in messages
            if message.id
        }
        marked = {id_ for place in places for id_ in places_of_mark(self.scope.tag, place)}
        there = {str(point.id): metadata_of(point) for point in self._collection.retrieve({*places, *marked})}
        erased = set().union(*(marks_in(there.get(place, {})) for place in marked))
        found: dict[str, datetime | None] = {}
        for place, message_id in places.items():
            fields = there.get(place)
            if mark_of(place) in erased if fields is None else fields.get("scope") == DELETED:
                found[message_id] = None
            elif fields is not None and (moment := moment_of(fields)) is not None:
                found[message_id] = moment
        return found

    def users_of(self, messages: Sequence[Message]) -> dict[str, str]:
        """The other users whose memories have those messages of this session, as they are, by the messages' ids.

        Of many the latest are looked for. The embedded engine looks through everything that is stored.
        """
        from qdrant_client import models

        texts = {message.id: strip_injected(message.text) for message in messages[-_LOOKED_FOR:] if message.id}
        any_of = models.FieldCondition(key="metadata.message_id", match=models.MatchAny(any=list(texts)))
        wanted = models.Filter(
            must=[_in_session(self.session_id), any_of], must_not=[equals("metadata.scope", self.scope.tag)]
        )
        found: dict[str, str] = {}
        for point in self._collection.scroll(wanted):
            message_id, tag = name_of(point)[1], metadata_of(point).get("scope")
            if isinstance(tag, str) and _is_message(point) and text_of(point) in texts[message_id]:
                user = MemoryScope.parse(tag).user_id
                found |= {message_id: user} if user is not None else {}
        return found

    def reembed(self, progress: Progress | None = None) -> int:
        """Embed the memories of all scopes anew, with the embedding and language that this memory is opened with.

        It may be interrupted at any moment: called again, it goes on. Until it is done the collection opens with the
        former embedding only.

        Args:
            progress: Called with how many pieces are done, and how many there are.

        Returns:
            How many pieces there are.
        """
        return self._collection.reembed(progress)

    def optimize(self) -> bool:
        """Build the embedded engine's search graphs for all scopes. Never needed, and never done unasked.

        A user's own memories are scanned exactly and fast without; it is worth a thought above some 10,000 memories
        in one scope. It is one call of the engine, which stops every thread of this process: some 4 s at 100,000
        memories, 30 s and more the first time. Deleting memories undoes it. A server builds its graphs by itself.

        Returns:
            Whether there was anything to do.
        """
        return self._collection.optimize()

    # Reading

    def search(
        self,
        query: str,
        limit: int = 5,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        where: MemoryFilter | None = None,
        without: Collection[str] = (),
        distinct: bool = True,
        explain: bool = False,
    ) -> list[MemoryHit]:
        """Find memories, the scope's own and global ones.

        The pieces of one long text are one hit.

        Args:
            query: A question or any text. A time that it names ("in May", "last week") prefers what was said then.
            limit: How many at most.
            since: Only what was said then or later, aware.
            until: Only what was said before, aware.
            where: Only what meets these conditions.
            without: Ids of messages of this session that are left out, such as the question's own: it is what is most
                like itself.
            distinct: Leave out what says the same as a better hit in the same words, and an assistant's echo of it with
                some words around them; of an echo and what the user said the latter is shown.
            explain: Say what each signal gave to a score.

        Returns:
            Hits, best first.

        Raises:
            FilterError: ``where`` is no filter.
            MessageError: The query is no text, or a time has no zone.
            StoreError: The store cannot be read.
            ValueError: The limit is none.
        """
        if type(limit) is not int or limit < 1:
            raise ValueError(f"limit={limit!r:.60}: expected a whole number, 1 or more.")
        if where is not None and not isinstance(where, MemoryFilter):
            raise FilterError(
                f"where={where!r:.80}: expected a MemoryFilter, such as MemoryFilter(session_id='monday')."
            )
        query = as_unicode(expect_text("query", query))
        if not query.strip():
            return []
        tags = self._tags
        hidden = {
            key_of(point_id(self.scope.tag, self.session_id, message_id, piece))
            for message_id in without
            for piece in range(_PIECES_HIDDEN)
        }
        wanted = [*_between(since, until), *_where(where)]
        # The engine meets the conditions, but a neighbour of what it found may not: then further ones are needed.
        enough = sys.maxsize if wanted else 2 * limit + len(without)
        ranked = self._rank(query, tags, wanted, hidden, enough, explain)
        hits, now = _Hits(limit, distinct), self._clock()
        for batch in batched(ranked, limit):
            stored = self._collection.retrieve(id_of(found.point) for found in batch)
            if len(stored) < len(batch):
                there = {key_of(point.id) for point in stored}
                self._collection.miss(tags, [found.point for found in batch if found.point not in there])
            points = {
                key_of(point.id): point
                for point in stored
                if metadata_of(point).get("scope") in tags  # it may have been deleted by now
                and _is_within(point, since, until)
                and (where is None or where.allows(metadata_of(point)))
                and key_of(point.id) not in hidden
                and not is_expired(point, now)
            }
            hits.add((found, points[found.point]) for found in batch if found.point in points)
            if hits.complete:
                break
        return hits.as_list()

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

    def count(self, session_id: str | None = None) -> int:
        """How many memories the scope itself has, exactly.

        Args:
            session_id: Only those of this session; None means all.

        Raises:
            ScopeError: The session's id is no text.
            StoreError: The store cannot be read.
        """
        conditions = _of_session(session_id)
        return self._count([self.scope.tag], *conditions)

    def messages(self, session_id: str | None = None) -> Iterator[Message]:
        """Every message and file summary of the scope in the order in which it came, through all pages.

        Args:
            session_id: Only those of this session; None means all.
        """
        conditions = _of_session(session_id)
        stored = self._collection.scroll(tagged([self.scope.tag], *conditions))
        points = in_order(point for point in stored if metadata_of(point).get("kind") != "item")
        for _, same in groupby(points, key=name_of):
            if told := _whole_message(list(same)):
                yield as_message(told)

    @property
    def vectorstore(self) -> QdrantVectorStore:
        """The same collection as langchain_qdrant's own class, hybrid.

        It sees all scopes: give it a filter on ``metadata.scope``, and give what it adds a ``scope`` in its
        metadata, without which no scope finds it.
        """
        from langchain_qdrant import QdrantVectorStore, RetrievalMode

        from memory_integrations.qdrant_edge import Bm25SparseEmbeddings

        return QdrantVectorStore(
            client=self._collection.open(),
            collection_name=self._collection.name,
            embedding=self._collection.dense,
            sparse_embedding=Bm25SparseEmbeddings(self._collection.sparse),
            retrieval_mode=RetrievalMode.HYBRID,
            validate_collection_config=False,
        )

    # Inside

    def _write(
        self, messages: Sequence[tuple[Message, str]], given: Collection[str], kind: str = "message"
    ) -> list[str]:
        """Write messages that have arrived, with the texts to be remembered of them.

        Args:
            messages: The messages and texts. Where there is no text, what is stored of the message is deleted.
            given: Those ids that came from outside, and so may be stored already.
            kind: What they are.
        """
        tag = self.scope.tag
        places = [point_id(tag, message.session_id, message.id or "") for message, _ in messages]
        first = {place: number for number, place in reversed(list(enumerate(places)))}
        is_first = [first[place] == number for number, place in enumerate(places)]
        again = list(itertools.compress(messages, map(operator.not_, is_first)))  # as if each were told after the other
        with self._turn.lock:
            if messages:
                self._write_in_turn(list(itertools.compress(messages, is_first)), given, kind)
            if again:
                self._write(again, {*given, *(message.id for message, _ in again if message.id)}, kind)
        return [place for place, (_, text) in zip(places, messages, strict=True) if text]

    def _write_in_turn(self, messages: Sequence[tuple[Message, str]], given: Collection[str], kind: str) -> None:
        collection, tag = self._collection, self.scope.tag
        if not (any(text for _, text in messages) or collection.is_open or collection.exists()):
            return  # what says nothing makes no collection
        places = [point_id(tag, message.session_id, message.id or "") for message, _ in messages]
        known = self._stored(place for place, (message, _) in zip(places, messages, strict=True) if message.id in given)
        ids: list[str] = []
        payloads: list[dict[str, Any]] = []
        lengths: dict[MessageName, int] = {}  # of texts that take the place of others, in pieces
        is_shorter = False
        emptied: list[Any] = []
        is_cut = False  # whether something that a message said is taken out of it
        again: dict[str, tuple[MessageName, int]] = {}  # where a longer text would go on that was there before
        for place, (message, text) in zip(places, messages, strict=True):
            before, name = known.get(place, []), (message.session_id, message.id or "")
            if not text:
                emptied += [] if before and is_said_by_call(metadata_of(before[0])) else before
                continue
            metadata, parts = as_metadata(message, tag, kind), pieces(text)
            if before:
                metadata = _updated(metadata_of(before[0]), metadata)
                is_whole = piece_of(metadata_of(before[0]))[1] == len(parts)
                if is_whole and parts == list(map(text_of, before)) and metadata == _whole(metadata_of(before[0])):
                    again[point_id(tag, *name, len(parts))] = name, len(parts)
                    continue  # a conversation that is told again costs no writing
                if kind == "message":  # it keeps its time, and of two archives one must know which is later
                    metadata["updated_at"] = as_utc(self._clock()).isoformat()
            orders = [metadata_of(point).get("order") for point in before]
            if len(before) != len(parts) or None in orders:
                orders = list(collection.next_orders(len(parts)))
            if before:
                lengths[name] = len(parts)
            is_shorter = is_shorter or len(before) > len(parts)
            is_cut = is_cut or (kind == "message" and any(text_of(point) not in text for point in before))
            for number, (part, order) in enumerate(zip(parts, orders, strict=True)):
                numbered = {"piece": number, "pieces": len(parts)} if len(parts) > 1 else {}
                ids.append(point_id(tag, *name, number))
                payloads.append({"page_content": part, "metadata": {**metadata, **numbered, "order": order}})
        left = [again[str(point.id)] for point in collection.retrieve(again)]  # whose removal failed
        lengths.update(left)
        is_shorter = is_shorter or bool(left)
        points = collection.encode(ids, payloads)
        if is_shorter or emptied or is_cut:
            from qdrant_client import models

            with collection.removing(tag):
                if emptied:
                    collection.delete(models.FilterSelector(filter=_every_piece(tag, emptied)))
                collection.upsert(points)  # before the rest goes: where it is interrupted, one of the two is whole
                rest = _pieces_beyond(tag, lengths) if lengths else None
                collection.delete(None if rest is None else models.FilterSelector(filter=rest))
        else:
            collection.upsert(points)
            collection.note(tag, points)
            if again or any(not text and not message.tool_calls for message, text in messages):
                collection.finish_removing()  # it may be told again since that failed

    def _mark(self, places: Iterable[str]) -> None:
        """Note that messages are erased, many in one point: see :func:`places_of_mark`."""
        from qdrant_client import models

        with self._collection.turns([DELETED]):  # an import writes marks of any scope
            possible = {mark_of(place): places_of_mark(self.scope.tag, place) for place in places}
            found = self._collection.retrieve({id_ for ids in possible.values() for id_ in ids})
            there = {str(point.id): marks_in(metadata_of(point)) for point in found}
            new = {mark: ids for mark, ids in possible.items() if all(mark not in there.get(id_, ()) for id_ in ids)}
            added: defaultdict[str, set[str]] = defaultdict(set)
            for mark, (first, further) in new.items():
                has_room = len(there.get(first, ())) + len(new) <= MARKS_OF_A_POINT
                added[first if has_room else further].add(mark)
            marks = {id_: more | there.get(id_, set()) for id_, more in added.items()}
            self._collection.upsert(
                models.PointStruct(id=id_, vector={}, payload=as_marks(m)) for id_, m in marks.items()
            )

    def _bury(self, places: Iterable[str]) -> None:
        """Put a mark in the place of messages that are deleted: their id, which is a hash, and nothing they said."""
        from qdrant_client import models

        mark = {"page_content": "", "metadata": {"scope": DELETED}}
        self._collection.upsert(models.PointStruct(id=place, vector={}, payload=mark) for place in places)

    def _stored(self, places: Iterable[str]) -> dict[str, list[models.Record]]:
        """The messages that are stored already, by the ids of their first points: each as its points, in order."""
        there = self._collection.retrieve(places)
        first = {str(point.id): point for point in there if metadata_of(point).get("scope") != DELETED}
        further = {place: _further_pieces(self.scope.tag, point) for place, point in first.items()}
        rest = {str(p.id): p for p in self._collection.retrieve(id_ for ids in further.values() for id_ in ids)}
        return {place: [first[place], *(rest[id_] for id_ in ids if id_ in rest)] for place, ids in further.items()}

    def _rank(
        self,
        query: str,
        tags: list[str],
        conditions: list[models.Condition],
        hidden: Collection[int],
        limit: int,
        explain: bool,
    ) -> list[Ranked]:
        from memory_integrations.periods import named_periods, without_relative_times
        from memory_integrations.ranking import named_speakers, rank, without_speakers

        collection = self._collection
        vectors: dict[str, list[float]] = {}
        for read in (collection.catch_up, collection.forget, None):
            tables = list(map(collection.table, tags))
            speakers = [name for table in tables for name in table.speakers]
            # A speaker's bonus stands for the name, which as a word would match half of what was said.
            question = without_relative_times(without_speakers(query, named_speakers(query, speakers)))
            sparse, dense = self._candidates(question, tags, conditions, tables, vectors)
            unknown = {*sparse, *dense}.difference(*(table.row_of for table in tables))
            if read is None or not unknown:
                break
            # Somebody else wrote since: what is new is read, or where that is not enough, all.
            for tag in collection.tags_of(unknown):
                read(tag)
        for key in hidden:  # here, since the engine takes longer for such a condition than for all the rest
            sparse.pop(key, None)
            dense.pop(key, None)
        today = self._clock().date()
        ranked: list[Ranked] = []
        with collection.lock:  # other threads add to the tables
            for table in tables:
                if len(table):
                    periods = named_periods(query, today, table.years)
                    ranked += rank(sparse, dense, query, table, collection.weights, limit, periods, explain)
        return sorted(ranked, key=lambda found: -found.score)[:limit]

    def _candidates(
        self,
        question: str,
        tags: list[str],
        conditions: list[models.Condition],
        tables: list[Conversations],
        vectors: dict[str, list[float]],
    ) -> tuple[dict[int, float], dict[int, float]]:
        """BM25 scores and cosines of the candidates, by the keys of points; see :meth:`_embed`."""
        from qdrant_client import models

        collection = self._collection
        indices, values = collection.sparse.embed_query(question)
        wanted, limit = tagged(tags, *conditions), collection.weights.candidates
        request = models.QueryRequest.model_construct  # its parts are right, and to try them all takes a while
        sparse, dense = collection.scores(
            [
                request(
                    query=models.SparseVector.model_construct(indices=indices, values=values),
                    using=SPARSE,
                    filter=wanted,
                    limit=limit,
                    params=within_corpus(tuple(tags)),
                ),
                request(query=self._embed(question, tables, vectors), using=DENSE, filter=wanted, limit=limit),
            ],
        )
        return sparse, dense

    def _embed(self, question: str, tables: list[Conversations], vectors: dict[str, list[float]]) -> list[float]:
        """The question's vector; where the embedding can, its words weigh by how rare they are in what is searched.

        Args:
            question: The question.
            tables: What is searched.
            vectors: Those of this search, where they do not depend on the tables: an embedding may be paid for.
        """
        weighted = getattr(self._collection.dense, "embed_weighted", None)
        if weighted is None:
            if question not in vectors:
                with embedding():
                    vectors[question] = self._collection.dense.embed_query(question)
            return vectors[question]
        from memory_integrations.ranking import rarity

        messages = sum(len(table) for table in tables)

        def weight(word: str) -> float:
            terms = self._collection.sparse.embed_query(word).indices
            return rarity((sum(table.frequency[term] for table in tables) for term in terms), messages)

        vector: list[float] = weighted(question, weight)
        return vector

    def _count(self, tags: Sequence[str], *conditions: models.Condition) -> int:
        from qdrant_client import models

        further = models.FieldCondition(key="metadata.piece", range=models.Range(gt=0))
        first = tagged(tags, *conditions)
        first.must_not = [models.Filter(must=[further, _is_told()])]
        return self._collection.count(first)


def _is_of(point: Any, tags: Collection[str], session_id: str | None) -> bool:
    fields = metadata_of(point)
    return fields.get("scope") in tags and session_id in (None, fields.get("session_id"))


def _updated(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a memory that is stored again: what others added stays, a message keeps its time."""
    merged = {**_whole(before), **now}
    if now["kind"] == "message":
        merged["created_at"] = before.get("created_at", now["created_at"])
    return merged


def _whole_message(points: Sequence[Any]) -> list[Any]:
    """The pieces of a message; none where some are missing, since a process died before it had written them all.

    Of a text that another replaced there may be more, for the same reason.
    """
    first = next((point for point in points if piece_of(metadata_of(point))[0] == 0), None)
    count = 0 if first is None else piece_of(metadata_of(first))[1]
    found = [point for point in points if piece_of(metadata_of(point))[1] == count]
    return found if len(found) == count else []


def _whole(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What a point's metadata says of the whole message, and not of this piece of it."""
    return {key: value for key, value in metadata.items() if key not in ("piece", "pieces", "order")}


def _is_message(point: Any) -> bool:
    return metadata_of(point).get("kind") == "message"


def _has_pieces(point: Any) -> bool:
    return metadata_of(point).get("kind") in TOLD


def _is_told() -> models.Condition:
    """The condition that a point says by which name, and in which pieces, its text is stored."""
    from qdrant_client import models

    return models.FieldCondition(key="metadata.kind", match=models.MatchAny(any=list(TOLD)))


def _first_pieces(points: Iterable[Any]) -> list[str]:
    """Of these points, the ids of messages' first pieces: by them a message is known."""
    return [str(point.id) for point in points if _is_message(point) and piece_of(metadata_of(point))[0] == 0]


def _further_pieces(tag: str, point: Any) -> list[str]:
    """The ids of a stored text's further pieces."""
    return [point_id(tag, *name_of(point), number) for number in range(1, piece_of(metadata_of(point))[1])]


def _every_piece(tag: str, points: Sequence[Any]) -> models.Filter:
    """The filter of these points of a scope and of all pieces of their texts, also those that they do not tell of."""
    from qdrant_client import models

    by_session: dict[str | None, set[str]] = {}
    for session, message in map(name_of, filter(_has_pieces, points)):
        by_session.setdefault(session, set()).add(message)
    wanted: list[models.Condition] = [models.HasIdCondition(has_id=[point.id for point in points])]
    for session, ids in by_session.items():
        of_session = _in_session(session)
        any_of = models.FieldCondition(key="metadata.message_id", match=models.MatchAny(any=sorted(ids)))
        wanted.append(models.Filter(must=[of_session, any_of, _is_told()]))
    return tagged([tag], models.Filter(should=wanted))


def _in_session(session: str | None) -> models.Condition:
    """The condition that a memory is of a session, or of none."""
    from qdrant_client import models

    if session is None:
        return models.IsEmptyCondition(is_empty=models.PayloadField(key="metadata.session_id"))
    return equals("metadata.session_id", session)


def _pieces_beyond(tag: str, lengths: Mapping[MessageName, int]) -> models.Filter:
    """The filter of a scope's pieces beyond the lengths of texts, also those that an interrupted update left."""
    from qdrant_client import models

    beyond: list[models.Condition] = []
    for (session, message), length in lengths.items():
        of_session = _in_session(session)
        further = models.FieldCondition(key="metadata.piece", range=models.Range(gte=max(length, 1)))
        named = equals("metadata.message_id", message)
        beyond.append(models.Filter(must=[of_session, named, further, _is_told()]))
    return tagged([tag], models.Filter(should=beyond))


class _Hits:
    """Collects ranked points, best first, into hits: the pieces of one text together, and nothing said twice."""

    def __init__(self, limit: int, distinct: bool) -> None:
        from memory_integrations.ranking import Distinct

        self._limit = limit
        self._distinct = Distinct() if distinct else None
        self._by_message: dict[Any, list[tuple[Ranked, Any]]] = {}

    @property
    def complete(self) -> bool:
        return len(self._by_message) >= self._limit

    def add(self, found: Iterable[tuple[Ranked, Any]]) -> None:
        for ranked, point in found:
            fields = metadata_of(point)
            message = fields.get("scope"), *name_of(point)
            if message in self._by_message:
                self._by_message[message].append((ranked, point))
            elif not self.complete:
                words, role = _WORD.findall(text_of(point).lower()), fields.get("role")
                twin = self._distinct.twin_of(words, role, message) if self._distinct else None
                if twin is None:
                    self._by_message[message] = [(ranked, point)]
                elif fields.get("role") == "user":
                    self._prefer(message, point, twin)

    def _prefer(self, message: Any, point: Any, twin: Any) -> None:
        """Show what the user said in the place of an assistant's echo of it."""
        echo = self._by_message.get(twin)
        if echo and metadata_of(echo[0][1]).get("role") == "assistant":
            self._by_message = {
                message if key == twin else key: [(echo[0][0], point)] if key == twin else pieces_
                for key, pieces_ in self._by_message.items()
            }

    def as_list(self) -> list[MemoryHit]:
        return [_hit(found) for found in self._by_message.values()]


def _hit(found: list[tuple[Ranked, Any]]) -> MemoryHit:
    """The hit of one message: of a long text the best pieces, in their order."""
    best = found[0][0]
    told = [point for ranked, point in found[:_PIECES_SHOWN] if ranked.score >= _PIECE_SHARE * best.score]
    points = sorted(told, key=lambda point: piece_of(metadata_of(point)))
    fields = dict(metadata_of(points[0]))
    (session, message_id), number = name_of(points[0]), piece_of(fields)[0]
    fields.pop("piece", None)
    first = point_id(fields["scope"], session, message_id) if number else str(points[0].id)
    return MemoryHit(first, shown(points), best.score, (message_id,), fields, best.parts)


def _of_session(session_id: str | None) -> list[models.Condition]:
    """The condition that a memory is of a session; none where all are meant."""
    if session_id is None:
        return []
    if not isinstance(session_id, str):
        raise ScopeError(f"session_id={session_id!r:.60}: expected the session's id as text, or None for all of them.")
    return [equals("metadata.session_id", session_id)]


def _between(since: datetime | None, until: datetime | None) -> list[models.Condition]:
    """The conditions of a span of time; none for an open one."""
    if since is None and until is None:
        return []
    from qdrant_client import models

    span = models.DatetimeRange(gte=since and as_utc(since), lt=until and as_utc(until))
    return [models.FieldCondition(key="metadata.created_at", range=span)]


def _where(where: MemoryFilter | None) -> list[models.Condition]:
    """The conditions of a filter."""
    from qdrant_client import models

    conditions: list[models.Condition] = []
    for path, allowed in where.conditions.items() if where else ():
        key = ".".join(["metadata", *path[:-1], f'"{path[-1]}"'])
        conditions.append(models.Filter(should=[equals(key, value) for value in allowed]))
    return conditions


def _is_within(point: Any, since: datetime | None, until: datetime | None) -> bool:
    if since is None and until is None:
        return True
    moment = moment_of(metadata_of(point))
    return moment is not None and (since is None or moment >= since) and (until is None or moment < until)
