"""One manager over the three memories of a scope."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from memory_integrations.archive import Archive, ArchiveReceipt, restore_archive, write_archive
from memory_integrations.arrival import arrived, utc_now
from memory_integrations.collection import MemoryCollection
from memory_integrations.context import Context, assemble, defused
from memory_integrations.copying import Progress
from memory_integrations.decisions import (
    Compress,
    Decision,
    Delete,
    Forget,
    Promote,
    Skipped,
    undone,
    validate,
)
from memory_integrations.delimiters import strip_injected
from memory_integrations.doctor import Finding, examine
from memory_integrations.errors import (
    FactError,
    ManagementError,
    MessageError,
    PolicyError,
    ScopeError,
    StoreError,
    StoreUnavailableError,
)
from memory_integrations.features import FeatureMemory, Json, ShelfSource, open_shelves
from memory_integrations.journal import Journal, JsonlJournal
from memory_integrations.layout import MemoryHit
from memory_integrations.long_term import LongTermMemory, MessageName
from memory_integrations.managed import ManagementLog
from memory_integrations.messages import Content, Message
from memory_integrations.migration import MigrationReceipt, copy_collection, copy_journals
from memory_integrations.plans import ManagementPlan, ManagementReceipt, ManagementRequest, Manager, applied, planned
from memory_integrations.policies import Entry, ShortTermPolicy
from memory_integrations.rules import RuleManager
from memory_integrations.scopes import MemoryScope
from memory_integrations.server import QdrantServer
from memory_integrations.short_term import ShortTermMemory
from memory_integrations.tokens import TokenCounter, check_budget

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings
    from qdrant_client import QdrantClient

_log = logging.getLogger("memory_integrations")

DEFAULT_DATA_DIR = "data/memory"
_NO_LIMIT = 1_000_000_000  # tokens
_CLAIMED = 20_000  # of so many messages it is known whose they are
_UNIQUE = 16  # characters of an id that nobody else's message has by chance
_RECENT_USERS = 256  # whose facts stay in memory while nobody uses them
_RECENT_SESSIONS = 1000  # whose conversations do
_RELEASED_KNOWN = 100_000
_RECALLED = 50  # memories that a context recalls at most; the budget decides how many
_SHOWN_ANYWAY = 10  # so many of them may be in the conversation that a model sees anyway
_NO_FACT = object()


@dataclass(frozen=True, slots=True)
class EraseReceipt:
    """What an erasure removed, by store.

    Attributes:
        scope: Whose memory it was.
        facts: Events of the journal.
        memories: Long-term memories.
        messages: Messages of short-term memory.
        decisions: What managing wrote down of sessions.
    """

    scope: str
    facts: int
    memories: int
    messages: int
    decisions: int = 0


class _OpenMemory:
    """What the managers of all scopes share: the open stores and the conversations in this process."""

    def __init__(
        self,
        data_dir: Path,
        policy: ShortTermPolicy,
        embeddings: Any,
        qdrant: QdrantServer | QdrantClient | None,
        counter: TokenCounter,
        clock: Callable[[], datetime],
        language: str | None,
        llm_client: Any,
        background: bool,
        journal_url: str | None,
        options: dict[str, Any],
    ) -> None:
        self.options = options
        self.policy = policy
        self.background = background
        self.manager: Manager = _manager_of(llm_client, counter)
        self._worker: ThreadPoolExecutor | None = None
        self._working: list[Future[ManagementReceipt]] = []
        self.counter = counter
        self.clock = clock
        self.journal: Journal = _journal(journal_url, data_dir, clock)
        self.shelf: ShelfSource = open_shelves(self.journal)
        self.memories = MemoryCollection(
            lambda: self._client(data_dir, qdrant),
            lambda: _as_embeddings(embeddings),
            language=language,
            options=qdrant.collection_options if isinstance(qdrant, QdrantServer) else None,
        )
        self._own_client: QdrantClient | None = None
        self.places = self.journal.place, _place_of(data_dir, qdrant)
        self._lock = threading.Lock()
        self._short_term: WeakValueDictionary[MemoryScope, ShortTermMemory] = WeakValueDictionary()
        self._recent_sessions: OrderedDict[MemoryScope, ShortTermMemory] = OrderedDict()
        self._released: OrderedDict[MemoryScope, None] = OrderedDict()
        self._features: WeakValueDictionary[MemoryScope, FeatureMemory] = WeakValueDictionary()
        self._recent: OrderedDict[MemoryScope, FeatureMemory] = OrderedDict()
        self.turns: dict[MemoryScope, int] = {}
        self._waiting: dict[MemoryScope, list[Message]] = {}
        self._claimed: OrderedDict[tuple[str | None, str | None, int], str] = OrderedDict()

    def claim(self, scope: MemoryScope, messages: Iterable[Message]) -> None:
        """Note whose conversation messages are from.

        Raises:
            ScopeError: The same message of the same session is another user's already: two users share a thread.
        """
        if scope.user_id is None:
            return
        with self._lock:
            for message in messages:
                if not message.id or len(message.id) < _UNIQUE:
                    continue  # "1" is everybody's
                name = scope.session_id, message.id, hash(message.text)
                owner = self._claimed.setdefault(name, scope.user_id)
                if owner != scope.user_id:
                    raise ScopeError(
                        f"The thread {scope.session_id!r} holds messages of another user than {scope.user_id!r}. Give "
                        "each user threads of their own: their ids must differ, since a checkpointer knows no users. "
                        "Nothing was stored."
                    )
            while len(self._claimed) > _CLAIMED:
                self._claimed.popitem(last=False)

    def wait(self, scope: MemoryScope, messages: Iterable[Message]) -> None:
        """Keep messages of a conversation until they are stored in long-term memory."""
        with self._lock:
            self._waiting.setdefault(scope, []).extend(messages)

    def waiting(self, scope: MemoryScope) -> list[Message]:
        """The messages of a conversation that are not yet stored in long-term memory."""
        with self._lock:
            return list(self._waiting.get(scope, ()))

    def stored(self, scope: MemoryScope, messages: Sequence[Message]) -> None:
        """Note that messages wait no longer."""
        done = set(map(id, messages))
        with self._lock:
            left = [message for message in self._waiting.get(scope, ()) if id(message) not in done]
            self._waiting.pop(scope, None)
            if left:
                self._waiting[scope] = left

    def scopes_waiting(self) -> list[MemoryScope]:
        """The conversations of which something waits."""
        with self._lock:
            return list(self._waiting)

    def managed(self, scope: MemoryScope) -> ManagementLog:
        """What managing did to a session; read from its journal each time, since it is seldom asked for."""
        return ManagementLog(self.journal, scope)

    def remove_said(self, owner: MemoryScope, messages: Collection[MessageName]) -> None:
        """Remove what managing wrote down of what messages of an owner's sessions say."""
        for session in {session for session, _ in messages}:
            ids = {message for of, message in messages if of == session}
            self.managed(owner.with_session(session)).remove_said(ids)

    def work(self, job: Callable[[], ManagementReceipt]) -> Future[ManagementReceipt]:
        """Do something off the reply path, one thing after the other."""
        with self._lock:
            if self._worker is None:
                self._worker = ThreadPoolExecutor(1, thread_name_prefix="memory-manager")
            done = self._worker.submit(job)
            self._working.append(done)
            return done

    def finish_work(self) -> None:
        """Wait for what is done off the reply path, and raise what failed of it.

        Raises:
            ManagementError: A plan failed.
            StoreError: It could not be carried out.
        """
        with self._lock:
            working, self._working = self._working, []
        wait(working)
        for done in working:
            if (failed := done.result().failed) is not None:
                raise ManagementError(f"Managing in the background failed: {failed}. Nothing was changed.")

    def short_term(self, scope: MemoryScope) -> ShortTermMemory:
        """The one conversation of a scope in this open memory; for how long: see :meth:`release_one`."""
        with self._lock:
            found = self._short_term.get(scope)
            if found is None:
                found = ShortTermMemory(
                    self.policy, session_id=scope.session_id, counter=self.counter, clock=self.clock
                )
                log = self.managed(scope)
                found.remember_managed(log.deleted(), log.compressed())
                found.to_be_resumed = self._released.pop(scope, _NO_FACT) is None
                self._short_term[scope] = found
            self._recent_sessions[scope] = found
            self._recent_sessions.move_to_end(scope)
            return found

    def release_one(self) -> None:
        """Let go of the conversation that was used longest ago, if long-term memory can bring back what was said in it.

        A server meets sessions without end. One that somebody holds stays all the same, while it is held.
        """
        with self._lock:
            if len(self._recent_sessions) <= _RECENT_SESSIONS:
                return
            scope, conversation = next(iter(self._recent_sessions.items()))
            self._recent_sessions.move_to_end(scope)  # where it must stay, the next in turn is asked next time
            revision = conversation.revision
        if not self._can_be_resumed(scope, conversation):
            return
        with self._lock:
            if conversation.revision == revision and self._recent_sessions.pop(scope, None) is not None:
                self.turns.pop(scope, None)
                if len(conversation) or conversation.to_be_resumed:
                    self._released[scope] = None
                if len(self._released) > _RELEASED_KNOWN:
                    self._released.popitem(last=False)

    def _can_be_resumed(self, scope: MemoryScope, conversation: ShortTermMemory) -> bool:
        """Whether :meth:`MemoryManager.resume` would bring back what users and assistants said, and no more."""
        said = [entry.original or entry.message for entry in conversation.entries]
        told = [message for message in said if message.role in ("user", "assistant") and message.text.strip()]
        if conversation.diverged or self.waiting(scope):
            return False
        try:
            recorded = LongTermMemory(self.memories, scope, self.counter, self.clock).recorded(told)
        except StoreError:
            return False
        return all(recorded.get(message.id or "") for message in told)

    def features(self, scope: MemoryScope) -> FeatureMemory:
        """The one fold of an owner's facts in this open memory: for as long as somebody uses it, and a while longer.

        A run asks for its user's anew at each step, and must not read the whole journal each time.
        """
        with self._lock:
            found = self._features.get(scope.owner)
            if found is None:
                found = self._features[scope.owner] = FeatureMemory(self.shelf, scope, self.counter)
            self._recent[scope.owner] = found
            self._recent.move_to_end(scope.owner)
            if len(self._recent) > _RECENT_USERS:
                self._recent.popitem(last=False)
            return found

    def conversations_of(self, owner: MemoryScope) -> list[ShortTermMemory]:
        """Every conversation whose durable memories an owner has."""
        with self._lock:
            return [memory for scope, memory in self._short_term.items() if scope.owner == owner]

    def close(self) -> None:
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.shutdown()
        self.journal.close()
        self.memories.close()
        client, self._own_client = self._own_client, None
        if client is not None:
            client.close()

    def _client(self, data_dir: Path, qdrant: QdrantServer | QdrantClient | None) -> QdrantClient:
        if qdrant is not None and not isinstance(qdrant, QdrantServer):
            return qdrant
        if self._own_client is not None:  # opened before, for a collection that was then refused
            return self._own_client
        if qdrant is None:
            from memory_integrations.qdrant_edge import QdrantEdgeClient

            try:
                data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise StoreUnavailableError(
                    f"The directory {data_dir} cannot be made ({error}). Pass a data_dir that this user may write."
                ) from error
            self._own_client = QdrantEdgeClient(data_dir / "vectors")
        else:
            self._own_client = qdrant.connect()
        return self._own_client


_open_memories: WeakValueDictionary[str, _OpenMemory] = WeakValueDictionary()


class MemoryManager:
    """The three memories of a scope: ``short_term``, ``features`` and ``long_term``. Safe for threads.

    Args:
        scope: "global", "user:ID", "session:ID" or "user:ID/session:ID".
        llm_client: A model that manages short-term memory: a LangChain chat model or Runnable, a LlamaIndex LLM, a name
            for ``init_chat_model`` such as "openai:gpt-5-mini", or a function; None manages by rules.
        data_dir: Where the journal and the embedded engine keep their files.
        short_term_policy: What short-term memory keeps.
        embeddings: Any LangChain ``Embeddings`` or LlamaIndex ``BaseEmbedding``; None means the bundled ones.
        qdrant: None for the embedded engine; a server's URL, or a :class:`QdrantServer` with more to say of it; or any
            ready ``QdrantClient`` (yours to close).
        journal_url: None for JSON Lines files under ``data_dir``; or a database's URL, for several machines:
            ``postgresql://user:password@host/database``, or for a trial ``sqlite:///file.db``.
        model: The model whose tokens are counted; None counts ``cl100k_base``.
        language: The language of search's stems and stop words, such as "german"; None for neither.
        clock: Gives the time, aware; for tests.
        manage_in_background: Manage off the reply path where ``manage_every_n_turns`` says so; :meth:`flush` waits for
            it, and raises what failed.

    Nothing is opened before it is needed: a manager that only touches facts never takes the engine's lock.

    Raises:
        ScopeError: The scope cannot be read.
        PolicyError: ``short_term_policy`` is none.
        ManagementError: ``llm_client`` is nothing that can manage.
        StoreUnavailableError: ``qdrant`` or ``journal_url`` is no URL.
        TypeError: ``embeddings`` is none.
    """

    def __init__(
        self,
        scope: str | MemoryScope = "global",
        *,
        llm_client: Any = None,
        data_dir: str | Path = DEFAULT_DATA_DIR,
        short_term_policy: ShortTermPolicy | None = None,
        embeddings: Any = None,
        qdrant: str | QdrantServer | QdrantClient | None = None,
        journal_url: str | None = None,
        model: str | None = None,
        language: str | None = "english",
        clock: Callable[[], datetime] = utc_now,
        manage_in_background: bool = False,
    ) -> None:
        if short_term_policy is not None and not isinstance(short_term_policy, ShortTermPolicy):
            raise PolicyError(f"short_term_policy={short_term_policy!r:.80}: expected a ShortTermPolicy, or None.")
        opened = _OpenMemory(
            Path(data_dir).expanduser(),
            short_term_policy or ShortTermPolicy(),
            None if embeddings is None else _as_embeddings(embeddings),
            QdrantServer(qdrant) if isinstance(qdrant, str) else qdrant,
            TokenCounter(model),
            clock,
            language,
            llm_client,
            manage_in_background,
            journal_url,
            _plain_options(
                data_dir=str(Path(data_dir).expanduser().absolute()), llm_client=llm_client, embeddings=embeddings,
                qdrant=qdrant, journal_url=journal_url, model=model, language=language,
                manage_in_background=manage_in_background, **({} if clock is utc_now else {"clock": clock}),
            ),
        )  # fmt: skip
        self._bind(MemoryScope.parse(scope), opened)
        _open_memories[opened.options["data_dir"]] = opened

    def _bind(self, scope: MemoryScope, opened: _OpenMemory) -> None:
        self.scope = scope
        self._open = opened
        self._short_term = opened.short_term(scope)
        self.features = opened.features(scope)
        self.long_term = LongTermMemory(
            opened.memories, scope, opened.counter, opened.clock, partial(opened.remove_said, scope.owner)
        )

    @classmethod
    def opened(cls, data_dir: str | Path, scope: str | MemoryScope = "global") -> MemoryManager | None:
        """The memory of a directory that was opened last in this process and is not closed; None where none is."""
        found = _open_memories.get(str(Path(data_dir).expanduser().absolute()))
        if found is None:
            return None
        sibling = object.__new__(cls)
        sibling._bind(MemoryScope.parse(scope), found)
        return sibling

    @property
    def short_term(self) -> ShortTermMemory:
        """The conversation.

        Raises:
            StoreError: It was let go of, after a thousand others were used, and cannot be brought back now.
        """
        conversation = self._short_term
        if conversation.to_be_resumed:
            with conversation.held():
                if conversation.to_be_resumed:
                    self._resume(conversation)
                    conversation.to_be_resumed = False
        return conversation

    @property
    def options(self) -> dict[str, Any]:
        """What it was opened with, as JSON: ``objects`` names what is not, such as an embedding of your own."""
        return dict(self._open.options)

    def for_scope(self, scope: str | MemoryScope) -> MemoryManager:
        """A light sibling for another scope, on the same open stores.

        Raises:
            ScopeError: The scope cannot be read.
        """
        sibling = object.__new__(type(self))
        sibling._bind(MemoryScope.parse(scope), self._open)
        return sibling

    # Conversation

    def add_turn(self, user: str, assistant: str, session_id: str | None = None) -> tuple[str, str]:
        """Add an exchange to short-term and to long-term memory.

        Both or neither: long-term memory is written first, and where that fails nothing was added. Blocks of
        injected memory inside the texts are left out.

        Args:
            user: What the user said.
            assistant: The answer.
            session_id: The session; None means the scope's. Another one is what ``for_scope`` opens of the same user:
                without a user, the memories are that session's alone.

        Returns:
            The ids of the two messages.

        Raises:
            MessageError: A text is empty.
            StoreError: It could not be written.
        """
        first, second = self.add_messages([Message("user", user), Message("assistant", assistant)], session_id)
        return first, second

    def add_messages(self, messages: Iterable[Message], session_id: str | None = None) -> list[str]:
        """Add messages to short-term and, where users and assistants said them, to long-term memory.

        Each goes to the session that it names: see :meth:`add_turn`.

        Returns:
            Their ids.

        Raises:
            MessageError: One is empty.
            StoreError: They could not be written; nothing was added.
        """
        now = self._open.clock()
        session = session_id or self.scope.session_id
        ready = [arrived(_without_injected(_checked(message)), session, now) for message in messages]
        for message in ready:
            if not message.text.strip() and not message.tool_calls and isinstance(message.content, str):
                raise MessageError(
                    f"A message of role {message.role!r} is empty: expected something said. Leave it out, or add what "
                    "the user said alone with add_messages."
                )
        sessions = {message.session_id: self._of_session(message.session_id) for message in ready}
        for owner in {memory.scope.owner: memory for memory in sessions.values()}.values():
            owner.long_term.store_messages(m for m in ready if sessions[m.session_id].scope.owner == owner.scope.owner)
        ids = [sessions[message.session_id].short_term.add_message(message) for message in ready]
        self._open.release_one()
        for memory in sessions.values():
            said = [message for message in ready if message.session_id == memory.scope.session_id]
            memory._manage_if_due(sum(message.role == "assistant" for message in said))
        return ids

    def follow(self, messages: Iterable[Message], *, remember: bool = True, unanswered: bool = False) -> list[str]:
        """Take in what is new of a conversation that is kept elsewhere: an agent's state, another chat history.

        It goes to short-term memory at once, and to long-term memory an exchange at a time, once its answer is there.
        What was taken in before is passed over, also where it was evicted, deleted or erased since, so the whole
        conversation may be given again and again. Blocks of injected memory are left out.

        Args:
            messages: The conversation, or the end of it, oldest first.
            remember: Whether it goes to long-term memory.
            unanswered: Store what was said last too, without waiting for its answer.

        Returns:
            The ids of the new messages.

        Raises:
            MessageError: One is no message.
            ScopeError: They are another user's: two users share a thread.
            StoreError: Long-term memory could not be written. Short-term memory has the messages, and they wait: the
                next call, or :meth:`flush`, stores them.
        """
        now, memory = self._open.clock(), self.short_term
        fresh: list[Message] = []
        for message in messages:
            said = _without_injected(_checked(message))
            if (said is message or _says_something(said)) and not (said.id and memory.knows(said)):
                fresh.append(arrived(said, self.scope.session_id, now))
        self._open.claim(self.scope, fresh)
        if remember and fresh:
            fresh = self._as_recorded(fresh)
        # What is stored already and was changed, perhaps to take something out of it, waits for nothing.
        changed = any(memory.get(message.id or "") for message in fresh)
        ids = memory.extend(fresh)
        if remember:
            self._open.wait(self.scope, fresh)
            self._store_waiting(unanswered=unanswered or changed)
        self._open.release_one()
        self._manage_if_due(sum(message.role == "assistant" for message in fresh))
        return ids

    def flush(self) -> None:
        """Wait for what is managed in the background, and store what waits to be remembered, answered or not.

        Raises:
            ManagementError: Managing in the background failed; nothing was changed by it.
            StoreError: Something could not be stored; what was said waits on.
        """
        self._store_waiting(unanswered=True)
        self._open.finish_work()

    def remember(self, messages: Iterable[Message]) -> None:
        """Store messages in long-term memory alone, whatever short-term memory has.

        Raises:
            MessageError: One is no message.
            StoreError: They could not be stored. They wait: the next call, or :meth:`flush`, stores them.
        """
        now, session = self._open.clock(), self.scope.session_id
        ready = [arrived(_without_injected(_checked(message)), session, now) for message in messages]
        self._open.wait(self.scope, [message for message in ready if _says_something(message)])
        self._store_waiting(unanswered=True)

    def get_context(
        self, query: str | None = None, max_tokens: int | None = 2000, *, recall: int = _RECALLED
    ) -> Context:
        """What a model should be given: facts, the recent conversation, and what is recalled for a query.

        One budget is spent once. The policy's ``reserved_tokens`` are left free of it.

        Args:
            query: What to recall memories for; None recalls nothing.
            max_tokens: The budget of the whole, in tokens; None means no limit.
            recall: How many memories at most; 0 recalls nothing.

        Raises:
            BudgetError: The budget is negative or not an integer.
            StoreError: A store cannot be read.

        Warns:
            BudgetWarning: The latest user message alone is over the budget; it is there all the same.
        """
        self._open.release_one()
        budget = self._budget(max_tokens)
        hits = self._recall(query, recall + _SHOWN_ANYWAY) if budget and recall else []
        count, session = self._open.counter.count_line, self.scope.session_id
        return assemble(budget, self.features.render, self.short_term.view, hits, count, session, recall)

    def get_context_of(
        self, messages: Sequence[Message], max_tokens: int | None = None, *, recall: int = 10
    ) -> Context:
        """What a model should be given for a conversation that is kept elsewhere: an agent's state, another history.

        The policy's view of it, the facts, and what is recalled for its latest user message. That message and what
        came after it, the tool calls and results of an agent at work, are always there. The agent's work is not counted
        (nor in the context's texts), so that the rest stays the same, byte for byte, while it goes on.

        Args:
            messages: The conversation, oldest first.
            max_tokens: The budget of the whole, in tokens; None means the policy's ``max_tokens``.
            recall: How many memories at most; 0 recalls nothing.

        Raises:
            BudgetError: The budget is negative or not an integer.
            StoreError: A store cannot be read.

        Warns:
            BudgetWarning: The latest user message alone is over the budget; it is there all the same.
        """
        self._open.release_one()
        memory, count = self.short_term, self._open.counter.count_line
        budget = self._budget(memory.policy.max_tokens if max_tokens is None else max_tokens)
        asked = next((i for i in range(len(messages) - 1, -1, -1) if messages[i].role == "user"), len(messages))
        turn = messages[asked:]
        hits: list[MemoryHit] = []
        if turn and recall and budget:
            # Some of what is found is in the conversation anyway.
            own = [message.id for message in turn if message.id]
            hits = self._recall(strip_injected(turn[0].text), recall + _SHOWN_ANYWAY, own)
        view, session = memory.viewing(messages[: asked + 1]), self.scope.session_id
        context = assemble(budget, self.features.render, view, hits, count, session, recall)
        if len(turn) < 2:
            return context
        work = memory.viewing(turn)(_NO_LIMIT)
        return replace(
            context,
            messages=(*context.messages, *map(defused, work.messages[1:])),
            dropped=[*context.dropped, *work.dropped],
        )

    def resume(self) -> list[Message]:
        """Bring the conversation of this session back after a restart, from long-term memory and as it was managed.

        It has what users and assistants said since :meth:`clear_session`, without their tools. Short-term memory takes
        as much of it as the policy holds. Where the conversation has begun already, nothing is done.

        Returns:
            The whole of it, oldest first; empty where nothing was done.

        Raises:
            StoreError: A store cannot be read.
        """
        return [] if len(self.short_term) else self._resume(self.short_term)

    def _resume(self, conversation: ShortTermMemory) -> list[Message]:
        session, cleared = self.scope.session_id, self._open.managed(self.scope).cleared()
        said = [
            message
            for message in self.long_term.messages(session)
            if message.role != "file"
            and message.session_id == session
            and (cleared is None or message.created_at is None or message.created_at > cleared)
        ]
        conversation.extend(message for message in said if not conversation.knows(message))
        return said

    def still_there(self, messages: Sequence[Message]) -> list[Message]:
        """Those messages of a former state of this session that were not erased, deleted or forgotten since.

        What long-term memory does not keep, such as the work of tools, goes with the user's message before it.

        Args:
            messages: The conversation as it was, oldest first, with its ids and times.

        Raises:
            StoreError: A store cannot be read.
        """
        cleared, recorded = self._open.managed(self.scope).cleared(), self.long_term.recorded(messages)
        kept: list[Message] = []
        turn_is_gone = bool(recorded) and not any(recorded.values())  # what comes before the first question
        for message in messages:
            is_deleted = message.id in recorded and recorded[message.id] is None
            if message.role == "user":
                turn_is_gone = is_deleted
            is_cleared = cleared is not None and message.created_at is not None and message.created_at <= cleared
            if not (is_deleted or is_cleared or (turn_is_gone and message.id not in recorded)):
                kept.append(message)
        return kept

    def clear_session(self) -> int:
        """Forget the scope's short-term conversation for good; returns how many messages it had. The rest stays.

        Raises:
            StoreError: That it is forgotten could not be written down, for :meth:`resume`. Here it is.
        """
        self._open.stored(self.scope, self._open.waiting(self.scope))
        count = self.short_term.clear()
        self._open.managed(self.scope).clear(self._open.clock())
        self.short_term.diverged = False
        return count

    # Facts and long-term memory

    def set_fact(self, key: str, value: Json, source: str = "user", confidence: float = 1.0) -> int:
        """Set a fact; see :meth:`FeatureMemory.set`."""
        return self.features.set(key, value, source, confidence)

    def get_fact(self, key: str, default: Any = None) -> Any:
        """The value of a fact, or the default; see :meth:`FeatureMemory.get`."""
        return self.features.get(key, default)

    def search_long_term(self, query: str, limit: int = 5) -> list[MemoryHit]:
        """Find memories; see :meth:`LongTermMemory.search`."""
        return self.long_term.search(query, limit)

    def store_file_summary(self, filename: str, summary: str) -> str:
        """Store what a file says; see :meth:`LongTermMemory.store_file_summary`."""
        return self.long_term.store_file_summary(filename, summary)

    # Management

    @property
    def manager(self) -> Manager:
        """Whoever plans, for every sibling: rules, or the chain of ``llm_client``.

        Any Runnable from a :class:`ManagementRequest` to a :class:`ManagementPlan` may take its place.
        """
        return self._open.manager

    @manager.setter
    def manager(self, manager: Manager) -> None:
        self._open.manager = manager

    def manage_short_term(self, dry_run: bool = False) -> ManagementReceipt | ManagementPlan:
        """Tidy short-term memory and learn facts from it.

        A model is not called below the policy's ``threshold``, and above it once, twice where its first answer cannot
        be read. What a model answers, or that it does not, changes nothing that the policy protects; where it fails,
        nothing is changed and the receipt says so.

        Args:
            dry_run: Give the plan and change nothing.

        Returns:
            What was done, or with ``dry_run`` what would be.

        Raises:
            StoreError: A fact or an original could not be written.
        """
        plan = self._planned()
        return plan if dry_run else self.apply(plan)

    def manage_in_background(self) -> Future[ManagementReceipt]:
        """Do what :meth:`manage_short_term` does off the reply path; :meth:`flush` waits for it."""
        return self._open.work(lambda: self.apply(self._planned()))

    def apply(self, plan: ManagementPlan) -> ManagementReceipt:
        """Carry a plan out. It is checked again first: what changed since it was made is left as it is.

        Raises:
            ManagementError: The plan is for another scope.
            StoreError: A fact or an original could not be written; the facts before it were, the entries are unchanged.
        """
        self._expect_own("plan", plan.scope)
        with self.short_term.held():  # what is said meanwhile waits: it must not evict what is being changed
            return self._carry_out(plan)

    def expand(self, entry_id: str) -> Entry:
        """Bring what a compressed entry said in full back into views, also where the entry was evicted since.

        Raises:
            ManagementError: It was never compressed in this session.
            StoreError: The journal cannot be read or written.
        """
        log = self._open.managed(self.scope)
        entry = self.short_term.get(entry_id)
        original = (entry.original if entry is not None else None) or log.original(entry_id)
        if original is None:
            raise ManagementError(
                f"entry {entry_id!r} was never compressed in {self.scope}: there is nothing to expand."
            )
        if entry_id in log.compressed():
            log.note_expanded(entry_id)
        return self.short_term.expand_entry(original)

    def receipts(self) -> list[ManagementReceipt]:
        """What managing did to this session and was not taken back, oldest first, also in other processes.

        Their ``entries_before`` are not kept.

        Raises:
            StoreError: The journal cannot be read.
        """
        return self._open.managed(self.scope).receipts()

    def undo(self, receipt: ManagementReceipt) -> None:
        """Take back what a receipt says was done. What was said since stays.

        By a receipt of :meth:`receipts`, what was deleted comes back when the conversation is told again or resumed.

        Raises:
            ManagementError: The receipt is another scope's.
            StoreError: A fact could not be written back.
        """
        self._expect_own("receipt", receipt.scope)
        for event in reversed(receipt.fact_events):
            self.features.undo(event)
        if receipt.number is not None:
            self._open.managed(self.scope).take_back(receipt.number)
        before = {entry.id for entry in receipt.entries_before}  # nothing, where it was read from the journal
        with self.short_term.held():
            self.short_term.restore(undone(receipt.entries_before, self.short_term.entries, receipt.decisions))
            self.short_term.forget_managed({decision.entry_id for decision in receipt.decisions} - before)

    # The whole

    def get_stats(self) -> dict[str, Any]:
        """Counts of the three memories, as JSON: entries and tokens, facts, memories.

        Counting the memories opens their store.
        """
        return {
            "scope": str(self.scope),
            "short_term": {"entries": len(self.short_term), "tokens": self.short_term.total_tokens},
            "features": {"facts": len(self.features)},
            "long_term": {"memories": self.long_term.count()},
        }

    def erase(self) -> EraseReceipt:
        """Remove everything of the scope, physically. For a user's scope that is every session of the user.

        The session of a user (``user:ID/session:ID``) loses its messages; the user's facts stay. What is kept elsewhere
        (an agent's checkpoints, another history) is its owner's to delete; told again, it brings nothing back.

        Raises:
            StoreError: A store could not be written; running it again goes on where it stopped.
        """
        self._open.counter.count_line.cache_clear()
        whole = self.scope == self.scope.owner
        conversations = self._open.conversations_of(self.scope) if whole else [self.short_term]
        told = [entry.message for conversation in conversations for entry in conversation.entries]
        mine = [s for s in self._open.scopes_waiting() if s == self.scope or (whole and s.owner == self.scope)]
        waiting = {scope: self._open.waiting(scope) for scope in mine}
        for scope, messages in waiting.items():
            self._open.stored(scope, messages)
            told += messages
        try:  # first what may be refused, since another process can hold the embedded engine
            memories = self.long_term.erase(None if whole else self.scope.session_id, told)
        except BaseException:
            for scope, messages in waiting.items():
                self._open.wait(scope, messages)
            raise
        sessions = self._managed_sessions() if whole else [self.scope]
        receipt = EraseReceipt(
            scope=str(self.scope),
            decisions=sum(self._open.managed(scope).erase() for scope in sessions),
            facts=self.features.erase() if whole else 0,
            memories=memories,
            messages=sum(conversation.clear() for conversation in conversations),
        )
        for conversation in conversations:
            conversation.diverged = False
        return receipt

    def erase_fact(self, key: str) -> int:
        """Remove a fact of the scope's owner with its history, physically, and what managing decided of it.

        ``features.delete`` keeps the history. What was said of it stays in long-term memory: see
        :meth:`LongTermMemory.delete`.

        Returns:
            How many events of its history there were.

        Raises:
            FactError: The key is no text.
            StoreError: A journal could not be written; running it again goes on where it stopped.
        """
        for scope in self._managed_sessions():
            self._open.managed(scope).remove_fact(key)
        return self.features.erase(key)

    def export(
        self, path: str | Path, *, all_scopes: bool = False, vectors: bool = False, progress: Progress | None = None
    ) -> ArchiveReceipt:
        """Write everything of the scope to one JSON Lines file: facts with their history, messages, decisions.

        A user's scope takes all of the user's sessions with it. The same memory gives the same bytes. It may be done
        while others write: everything that was acknowledged before is in it.

        Args:
            path: The file; one that is there is replaced, in one step.
            all_scopes: Everything of all scopes. With ``vectors`` that is a backup.
            vectors: Write the vectors too: the file is larger, and reading it back embeds nothing.
            progress: Told how many points are done, and how many there are.

        Raises:
            StoreUnavailableError: The file cannot be written.
            StoreError: A store cannot be read.
        """
        self._flush_all() if all_scopes else self.flush()
        opened, scope = self._open, None if all_scopes else self.scope
        return write_archive(Path(path), scope, opened.journal, opened.memories, vectors, progress)

    def import_archive(self, path: str | Path, progress: Progress | None = None) -> ArchiveReceipt:
        """Write what an archive of :meth:`export` has into this memory, whatever stores it is in.

        What is there already is not doubled; memories that were deleted here come back. Interrupted, it goes on when it
        is called again.

        Args:
            path: The archive of this scope; or one of all scopes, which the global scope imports.
            progress: Told how many points are done, and how many there are.

        Raises:
            ScopeError: It is another scope's; nothing was written.
            StoreCorruptedError: The file is damaged, or no archive; nothing was written.
            StoreUnavailableError: A scope has another history here; nothing was written.
            StoreError: A store could not be written.
        """
        archive = Archive(Path(path))
        whose = archive.receipt.scope
        if (whose or "global") != str(self.scope):
            raise ScopeError(
                f"{path} is an archive of {whose or 'all scopes'}, and this is the memory of {self.scope}: open it for "
                f"{whose or 'global'}. Nothing was written."
            )
        receipt = restore_archive(archive, self._open.journal, self._open.memories, progress)
        self.features.refresh()
        return receipt

    def examine(self) -> list[Finding]:
        """Look at every store, of all scopes: what is wrong, what to do, and a ``repair`` where nothing can be lost.

        It reads everything and changes nothing.
        """
        opened = self._open
        return list(examine(Path(opened.options["data_dir"]), opened.journal, opened.memories))

    def migrate_to(
        self, target: MemoryManager, progress: Callable[[str, int, int], None] | None = None
    ) -> MigrationReceipt:
        """Copy everything of all scopes to the stores of another open memory, and read it back to compare it.

        A store that both have stays where it is: with the same ``data_dir`` and another ``qdrant`` only the memories
        move. Nothing is deleted, in neither place. Interrupted, it goes on when it is called again; let nobody write
        meanwhile.

        Args:
            target: The open memory; whatever scope it is of.
            progress: Told what is being copied ("scopes", "points"), how many are done, and how many there are.

        Raises:
            EmbeddingMismatchError: The target was written with another embedding.
            StoreUnavailableError: The target has another history, or points that this memory has not; or both have all
                their stores in common.
            StoreCorruptedError: What was read back differs.
            StoreError: A store could not be read or written.
        """
        self._flush_all()
        here, there = self._open, target._open
        receipt = MigrationReceipt()
        if here.places == there.places:
            raise StoreUnavailableError("Both memories have the same stores: there is nothing to move.")
        if here.journal.place != there.journal.place:
            scopes, events, digest = copy_journals(here.journal, there.journal, progress)
            receipt = replace(receipt, scopes=scopes, events=events, events_sha256=digest)
        if here.places[1] != there.places[1]:
            points, digest = copy_collection(here.memories, there.memories, progress)
            receipt = replace(receipt, points=points, points_sha256=digest)
        return receipt

    def close(self) -> None:
        """Store what waits, and release the journal's files and the engine's lock, for every sibling.

        What is used next opens again.

        Raises:
            StoreError: What waited could not be stored. Everything is closed all the same.
        """
        try:
            self._open.finish_work()
            self._flush_all()
        finally:
            if _open_memories.get(directory := self._open.options["data_dir"]) is self._open:
                del _open_memories[directory]
            self._open.close()

    def __enter__(self) -> MemoryManager:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    async def __aenter__(self) -> MemoryManager:
        return self

    async def __aexit__(self, *args: object) -> None:
        await self.aclose()

    def __deepcopy__(self, memo: dict[int, Any]) -> MemoryManager:
        return self  # what is open is open once: copies of what holds a memory share it

    def __repr__(self) -> str:
        return f"MemoryManager(scope={str(self.scope)!r})"

    # Async twins: the same work in a thread, so that the event loop is never blocked.

    async def aadd_turn(self, user: str, assistant: str, session_id: str | None = None) -> tuple[str, str]:
        """Async twin of :meth:`add_turn`."""
        return await asyncio.to_thread(self.add_turn, user, assistant, session_id)

    async def aadd_messages(self, messages: Iterable[Message], session_id: str | None = None) -> list[str]:
        """Async twin of :meth:`add_messages`."""
        return await asyncio.to_thread(self.add_messages, messages, session_id)

    async def afollow(
        self, messages: Iterable[Message], *, remember: bool = True, unanswered: bool = False
    ) -> list[str]:
        """Async twin of :meth:`follow`."""
        return await asyncio.to_thread(self.follow, messages, remember=remember, unanswered=unanswered)

    async def aremember(self, messages: Iterable[Message]) -> None:
        """Async twin of :meth:`remember`."""
        await asyncio.to_thread(self.remember, messages)

    async def aflush(self) -> None:
        """Async twin of :meth:`flush`."""
        await asyncio.to_thread(self.flush)

    async def aget_context_of(
        self, messages: Sequence[Message], max_tokens: int | None = None, *, recall: int = 10
    ) -> Context:
        """Async twin of :meth:`get_context_of`."""
        return await asyncio.to_thread(self.get_context_of, messages, max_tokens, recall=recall)

    async def aget_context(
        self, query: str | None = None, max_tokens: int | None = 2000, *, recall: int = _RECALLED
    ) -> Context:
        """Async twin of :meth:`get_context`."""
        return await asyncio.to_thread(self.get_context, query, max_tokens, recall=recall)

    async def aset_fact(self, key: str, value: Json, source: str = "user", confidence: float = 1.0) -> int:
        """Async twin of :meth:`set_fact`."""
        return await asyncio.to_thread(self.set_fact, key, value, source, confidence)

    async def asearch_long_term(self, query: str, limit: int = 5) -> list[MemoryHit]:
        """Async twin of :meth:`search_long_term`."""
        return await asyncio.to_thread(self.search_long_term, query, limit)

    async def astore_file_summary(self, filename: str, summary: str) -> str:
        """Async twin of :meth:`store_file_summary`."""
        return await asyncio.to_thread(self.store_file_summary, filename, summary)

    async def amanage_short_term(self, dry_run: bool = False) -> ManagementReceipt | ManagementPlan:
        """Async twin of :meth:`manage_short_term`: the model is awaited, the rest is done in threads."""
        request = await asyncio.to_thread(self._request)
        if self._is_below(request):
            plan = planned((), request, self._open.counter.count, source="llm")
        else:
            try:
                plan = _expected(await self.manager.ainvoke(request))
            except Exception as error:
                plan = _failed(request, error)
        return plan if dry_run else await asyncio.to_thread(self.apply, plan)

    async def aexpand(self, entry_id: str) -> Entry:
        """Async twin of :meth:`expand`."""
        return await asyncio.to_thread(self.expand, entry_id)

    async def aapply(self, plan: ManagementPlan) -> ManagementReceipt:
        """Async twin of :meth:`apply`."""
        return await asyncio.to_thread(self.apply, plan)

    async def aundo(self, receipt: ManagementReceipt) -> None:
        """Async twin of :meth:`undo`."""
        await asyncio.to_thread(self.undo, receipt)

    async def areceipts(self) -> list[ManagementReceipt]:
        """Async twin of :meth:`receipts`."""
        return await asyncio.to_thread(self.receipts)

    async def aresume(self) -> list[Message]:
        """Async twin of :meth:`resume`."""
        return await asyncio.to_thread(self.resume)

    async def astill_there(self, messages: Sequence[Message]) -> list[Message]:
        """Async twin of :meth:`still_there`."""
        return await asyncio.to_thread(self.still_there, messages)

    async def aget_stats(self) -> dict[str, Any]:
        """Async twin of :meth:`get_stats`."""
        return await asyncio.to_thread(self.get_stats)

    async def aerase(self) -> EraseReceipt:
        """Async twin of :meth:`erase`."""
        return await asyncio.to_thread(self.erase)

    async def aerase_fact(self, key: str) -> int:
        """Async twin of :meth:`erase_fact`."""
        return await asyncio.to_thread(self.erase_fact, key)

    async def aexport(self, path: str | Path, *, all_scopes: bool = False, vectors: bool = False) -> ArchiveReceipt:
        """Async twin of :meth:`export`."""
        return await asyncio.to_thread(self.export, path, all_scopes=all_scopes, vectors=vectors)

    async def aimport_archive(self, path: str | Path) -> ArchiveReceipt:
        """Async twin of :meth:`import_archive`."""
        return await asyncio.to_thread(self.import_archive, path)

    async def aexamine(self) -> list[Finding]:
        """Async twin of :meth:`examine`."""
        return await asyncio.to_thread(self.examine)

    async def amigrate_to(self, target: MemoryManager) -> MigrationReceipt:
        """Async twin of :meth:`migrate_to`."""
        return await asyncio.to_thread(self.migrate_to, target)

    async def aclose(self) -> None:
        """Async twin of :meth:`close`."""
        await asyncio.to_thread(self.close)

    # Inside

    def _flush_all(self) -> None:
        for scope in self._open.scopes_waiting():
            self.for_scope(scope).flush()

    def _budget(self, max_tokens: int | None) -> int:
        """Tokens that a context may spend."""
        limit = check_budget(max_tokens)
        return _NO_LIMIT if limit is None else max(limit - self.short_term.policy.reserved_tokens, 0)

    def _recall(self, query: str | None, limit: int, without: Collection[str] = ()) -> list[MemoryHit]:
        """What is found for a query; of this conversation it counts as used."""
        if not query or not query.strip():
            return []
        hits = self.long_term.search(query, limit, without=without)
        if self.short_term.policy.decay_half_life is not None:
            for hit in hits:
                for message_id in hit.message_ids:
                    self.short_term.touch(message_id)
        return hits

    def _as_recorded(self, messages: list[Message]) -> list[Message]:
        """The messages as of the time when they were first said, without those that were stored once and deleted.

        A thread that goes on after a restart is not said anew: its age, and which of its facts are outdated, stay.
        """
        try:
            recorded = self.long_term.recorded(messages)
        except StoreError:  # a store that cannot be read cannot be written either, which is said when they are stored
            return messages
        said_at = [recorded.get(message.id or "", message.created_at) for message in messages]
        return [replace(m, created_at=at) for m, at in zip(messages, said_at, strict=True) if at is not None]

    def _store_waiting(self, *, unanswered: bool) -> None:
        """Store what waits: whole exchanges, or with ``unanswered`` everything."""
        stored = False
        while not stored:  # where an erasure came in between, it goes on with what was told since
            era, waiting = self.long_term.era, self._open.waiting(self.scope)
            answers = (i for i in range(len(waiting) - 1, -1, -1) if waiting[i].role == "assistant" and waiting[i].text)
            ready = waiting if unanswered else waiting[: next(answers, -1) + 1]
            stored = not ready or self.long_term.store_of(era, ready)
        self._open.stored(self.scope, ready)

    def _of_session(self, session_id: str | None) -> MemoryManager:
        """The memory of a session of this scope's user."""
        return self if session_id == self.scope.session_id else self.for_scope(self.scope.with_session(session_id))

    def _request(self) -> ManagementRequest:
        """What whoever manages is given now."""
        self.features.refresh()
        return ManagementRequest(
            entries=tuple(self.short_term.entries),
            facts=self.features.all(),
            policy=self.short_term.policy,
            now=self._open.clock(),
            facts_changed=self.features.changes(),
            scope=str(self.scope),
        )

    def _is_below(self, request: ManagementRequest) -> bool:
        """Whether so little was said that no model is called."""
        return not isinstance(self.manager, RuleManager) and request.tokens <= request.policy.threshold

    def _planned(self) -> ManagementPlan:
        request = self._request()
        if self._is_below(request):
            return planned((), request, self._open.counter.count, source="llm")
        try:
            return _expected(self.manager.invoke(request))
        except Exception as error:
            return _failed(request, error)

    def _carry_out(self, plan: ManagementPlan) -> ManagementReceipt:
        memory = self.short_term
        before, tokens_before = memory.entries, memory.total_tokens
        if plan.failed:
            return ManagementReceipt(
                skipped=plan.skipped, failed=plan.failed, tokens_before=tokens_before, tokens_after=tokens_before,
                calls=plan.calls, usage=plan.usage,
            )  # fmt: skip
        current, changed = _unchanged(plan, before)
        accepted, refused = validate(current, before, memory.policy, self._open.counter.count)
        self.features.refresh()
        done: list[Decision] = []
        events: list[int] = []
        learnt: set[str] = set()
        skipped = [*plan.skipped, *changed, *refused]
        for decision in accepted:
            why = self._changed_since(decision, plan, learnt) or self._learn(decision, plan.source, events, learnt)
            if why:
                skipped.append(Skipped(decision, why))
            else:
                done.append(decision)
        receipt = ManagementReceipt(
            decisions=tuple(done),
            skipped=tuple(skipped),
            tokens_before=tokens_before,
            tokens_after=sum(entry.tokens for entry in applied(before, done, self._open.counter.count)),
            calls=plan.calls,
            usage=plan.usage,
            entries_before=tuple(before),
            fact_events=tuple(events),
            scope=str(self.scope),
        )
        if done:
            receipt = self._write_down(receipt)
        diverged = memory.diverged
        for decision in done:
            if isinstance(decision, Delete):
                memory.delete(decision.entry_id)
            elif isinstance(decision, Compress):
                memory.compress_entry(decision.entry_id, decision.content)
        memory.diverged = diverged  # what was deleted is written down
        return receipt

    def _changed_since(self, decision: Decision, plan: ManagementPlan, learnt: Collection[str]) -> str | None:
        """Why a decision on a fact comes too late; of a plan made by hand it is not known what it was made for."""
        if not plan.before or not isinstance(decision, Promote | Forget) or decision.key in learnt:
            return None
        now, was = self.features.get(decision.key, _NO_FACT), plan.facts.get(decision.key, _NO_FACT)
        if now is was or now == was or (isinstance(decision, Promote) and now == decision.value):
            return None
        return "the fact was changed after the plan was made"

    def _learn(self, decision: Decision, source: str, events: list[int], learnt: set[str]) -> str | None:
        """Change the fact that a decision is about, and note the event and the key; or say why not."""
        features = self.features
        if isinstance(decision, Forget):
            event = features.retract(decision.key, source, decision.entry_id)
            if event is None:
                return "there is no such fact"
            events.append(event)
        if isinstance(decision, Promote):
            if decision.key in features and features.get(decision.key) == decision.value:
                return "the fact is known already"
            try:
                event = features.set(decision.key, decision.value, source, decision.confidence, decision.entry_id)
            except FactError as error:
                return str(error)
            events.append(event)
        if isinstance(decision, Promote | Forget):
            learnt.add(decision.key)
        return None

    def _write_down(self, receipt: ManagementReceipt) -> ManagementReceipt:
        """Write down what is about to be done, and what entries said that will be compressed."""
        log = self._open.managed(self.scope)
        compressed = {decision.entry_id for decision in receipt.decisions if isinstance(decision, Compress)}
        for entry in receipt.entries_before:
            if entry.id in compressed:
                log.keep(entry.original or entry.message)
        return log.note(receipt)

    def _managed_sessions(self) -> list[MemoryScope]:
        """The owner's sessions that have a journal of their own."""
        owner = self.scope.owner
        return [scope for scope in self._open.journal.scopes() if scope.owner == owner and scope != owner]

    def _expect_own(self, what: str, scope: str | None) -> None:
        if scope is not None and scope != str(self.scope):
            raise ManagementError(f"This {what} is for {scope}, not for {self.scope}. Nothing was changed.")

    def _manage_if_due(self, new_turns: int) -> None:
        every = self.short_term.policy.manage_every_n_turns
        if every is None:
            return
        turns = self._open.turns.get(self.scope, 0) + new_turns
        self._open.turns[self.scope] = turns % every
        if turns >= every:
            self.manage_in_background() if self._open.background else self.manage_short_term()


def _checked(message: Message) -> Message:
    if not isinstance(message, Message):
        raise MessageError(
            f"{type(message).__name__} {message!r:.60}: expected a memory_integrations.Message, such as "
            "Message('user', 'Hello')."
        )
    return message


def _without_injected(message: Message) -> Message:
    """The message without blocks of injected memory: the same object where it has none.

    What a tool found in memory stays: it is no memory, and its call needs its result.
    """
    content = message.content
    if message.role == "tool":
        return message
    if isinstance(content, str):
        stripped: Content = strip_injected(content)
    else:
        stripped = [left for block in content if (left := _block_without_injected(block)) is not None]
    return message if len(stripped) == len(content) and stripped == content else replace(message, content=stripped)


def _block_without_injected(block: str | Mapping[str, Any]) -> str | Mapping[str, Any] | None:
    """The block without injected memory; None where it was nothing else."""
    text = block if isinstance(block, str) else block.get("text")
    if not isinstance(text, str) or (stripped := strip_injected(text)) == text:
        return block
    if not stripped:
        return None
    return stripped if isinstance(block, str) else {**block, "text": stripped}


def _says_something(message: Message) -> bool:
    return bool(message.content and (not isinstance(message.content, str) or message.content.strip()))


def _manager_of(llm_client: Any, counter: TokenCounter) -> Manager:
    if llm_client is None:
        return RuleManager(counter.count)
    from memory_integrations.manager_chain import build_manager_chain

    chain: Manager = build_manager_chain(llm_client, counter=counter)
    return chain


def _expected(plan: Any) -> ManagementPlan:
    if not isinstance(plan, ManagementPlan):
        raise ManagementError(f"The manager gave {type(plan).__name__}: expected a ManagementPlan.")
    return plan


def _failed(request: ManagementRequest, error: Exception) -> ManagementPlan:
    """The plan where a manager failed: whatever a model, its client or its answer did, nothing is changed."""
    _log.warning("managing short-term memory failed: %s", type(error).__name__)
    return ManagementPlan(
        source="llm",
        tokens_before=request.tokens,
        failed=f"{type(error).__name__}: {error}",
        calls=1,
        scope=request.scope,
        before=request.entries,
        after=request.entries,
        facts=request.facts,
    )


def _unchanged(plan: ManagementPlan, entries: Sequence[Entry]) -> tuple[list[Decision], list[Skipped]]:
    """A plan's decisions on what is still as it was when the plan was made, and the others."""
    was = {entry.id: entry.message for entry in plan.before}
    now = {entry.id: entry.message for entry in entries}
    kept: list[Decision] = []
    changed: list[Skipped] = []
    for decision in plan.decisions:
        id_ = decision.entry_id
        if id_ in was and id_ in now and was[id_] != now[id_]:
            changed.append(Skipped(decision, "the entry was changed after the plan was made"))
        else:
            kept.append(decision)
    return kept, changed


def _journal(url: str | None, data_dir: Path, clock: Callable[[], datetime]) -> Journal:
    if url is None:
        return JsonlJournal(data_dir / "journal", clock)
    from memory_integrations.journal_sql import SqlJournal

    return SqlJournal(url, clock)


def _place_of(data_dir: Path, qdrant: QdrantServer | QdrantClient | None) -> str:
    """Where the memories are: the same for the same store."""
    if qdrant is None:
        return str(data_dir.absolute())
    return qdrant.url.rstrip("/") if isinstance(qdrant, QdrantServer) else f"client {id(qdrant)}"


def _plain_options(**options: Any) -> dict[str, Any]:
    """The options that JSON can say, and the names of those that it cannot, or must not: a URL may have a password."""
    secret = [name for name in ("journal_url", "qdrant") if "@" in str(options[name])]
    objects = [name for name, value in options.items() if name in secret or not isinstance(value, str | bool | None)]
    return {name: value for name, value in options.items() if name not in objects} | {"objects": objects}


def _as_embeddings(embeddings: Any) -> Embeddings:
    from memory_integrations.embeddings import as_embeddings

    return as_embeddings(embeddings)
