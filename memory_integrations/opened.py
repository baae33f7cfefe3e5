"""What the managers of all scopes share: the open stores, the conversations of this process, and who manages."""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from memory_integrations.arrival import new_id
from memory_integrations.collection import MemoryCollection, is_embedded
from memory_integrations.errors import ManagementError, MemoryIntegrationError, StoreUnavailableError
from memory_integrations.features import FeatureMemory, ShelfSource, open_shelves
from memory_integrations.forks import inherited
from memory_integrations.journal import Journal
from memory_integrations.journal_files import JsonlJournal
from memory_integrations.layout import MessageName
from memory_integrations.long_term import REMEMBERED_ROLES, LongTermMemory
from memory_integrations.managed import ManagementLog
from memory_integrations.messages import Message
from memory_integrations.plans import ManagementReceipt, Manager
from memory_integrations.policies import ShortTermPolicy
from memory_integrations.rules import RuleManager
from memory_integrations.scopes import MemoryScope
from memory_integrations.server import QdrantServer, leave_to_parent
from memory_integrations.sessions import Sessions
from memory_integrations.short_term import ShortTermMemory
from memory_integrations.tokens import TokenCounter

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings
    from qdrant_client import QdrantClient

_log = logging.getLogger("memory_integrations")
_FAILURES_KEPT = 100  # of what was done off the reply path
_RECENT_USERS = 256  # whose facts stay in memory while nobody uses them


class OpenMemory:
    """The stores that a :class:`~memory_integrations.MemoryManager` was opened with; its arguments are the manager's.

    Nothing is opened before it is needed.

    Attributes:
        places: Where its journal and its memories are.
        stores: A name for both, which says no more than whether another memory has the same.
    """

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
        self.counter = counter
        self.clock = clock
        self.journal: Journal = _journal(journal_url, data_dir, clock)
        self.shelf: ShelfSource = open_shelves(self.journal)
        self.memories = MemoryCollection(
            lambda: self._client(data_dir, qdrant),
            lambda: as_embeddings(embeddings),
            language=language,
            options=qdrant.collection_options if isinstance(qdrant, QdrantServer) else None,
        )
        self.places = _journal_place(journal_url, data_dir, self.journal), _place_of(data_dir, qdrant)
        self.stores = _name_of(data_dir, *self.places)
        self.sessions = Sessions(self._begin, self._comes_back)
        self._made_by = os.getpid()
        self._own_client: QdrantClient | None = None
        self._own_client_of = 0
        self._worker: ThreadPoolExecutor | None = None
        self._working: list[Future[ManagementReceipt]] = []
        self._lock = threading.Lock()
        self._features: WeakValueDictionary[MemoryScope, FeatureMemory] = WeakValueDictionary()
        self._recent: OrderedDict[MemoryScope, FeatureMemory] = OrderedDict()
        inherited(self)

    def managed(self, scope: MemoryScope) -> ManagementLog:
        """What managing did to a session; read from its journal each time, since it is seldom asked for."""
        return ManagementLog(self.journal, scope)

    def managed_sessions(self, owner: MemoryScope) -> list[MemoryScope]:
        """An owner's sessions that have a journal of their own.

        Raises:
            StoreError: One that may be the owner's cannot be read.
        """
        if owner.user_id is None:
            return []
        return [scope for scope in self.journal.scopes(owner) if scope != owner]

    def remove_said(self, owner: MemoryScope, messages: Collection[MessageName]) -> None:
        """Remove messages of an owner's sessions from conversations, and what managing wrote down of them."""
        names = set(messages)
        if owner.user_id is None:  # what has no user has no sessions: those of that name are others'
            names = {(session, message) for session, message in names if session == owner.session_id}
        with self.journal.removing():
            for session in {session for session, _ in names}:
                scope = owner.with_session(session)
                ids = {message for of, message in names if of == session}
                if (conversation := self.sessions.get(scope)) is not None:  # first: else managing writes it down again
                    for message in ids:
                        conversation.delete(message)
                self.managed(scope).remove_said(ids)

    def resume(self, scope: MemoryScope, conversation: ShortTermMemory) -> list[Message]:
        """Bring a conversation back from long-term memory and as it was managed; returns the whole of it.

        Where it has begun already, nothing is done and nothing is returned.

        Raises:
            StoreError: A store cannot be read.
        """
        long_term = LongTermMemory(self.memories, scope, self.counter, self.clock)
        with long_term.held(), conversation.held():  # in this order; no erasure comes between reading and taking in
            if len(conversation) and not conversation.to_be_resumed:
                return []
            session, cleared = scope.session_id, self.managed(scope).cleared()
            said = [
                message
                for message in long_term.messages(session)
                if message.role in REMEMBERED_ROLES
                and message.session_id == session
                and (cleared is None or message.created_at is None or message.created_at > cleared)
            ]
            conversation.extend(message for message in said if not conversation.knows(message))
            conversation.to_be_resumed = False
        return said

    def features(self, scope: MemoryScope) -> FeatureMemory:
        """The one fold of an owner's facts in this open memory: for as long as somebody uses it, and a while longer.

        A run asks for its user's anew at each step, and must not read the whole journal each time.
        """
        with self._lock:
            found = self._features.get(scope.owner)
        made = FeatureMemory(self.shelf, scope, self.counter) if found is None else found  # it reads: others go on
        with self._lock:
            found = self._features.setdefault(scope.owner, made)
            self._recent[scope.owner] = found
            self._recent.move_to_end(scope.owner)
            if len(self._recent) > _RECENT_USERS:
                self._recent.popitem(last=False)
            return found

    def refresh_facts(self) -> None:
        """Read what was written to journals past the facts that are open here, of everybody.

        Raises:
            StoreError: A journal cannot be read.
        """
        with self._lock:
            open_ = list(self._features.values())
        for features in open_:
            features.refresh()

    def work(self, job: Callable[[], ManagementReceipt], *, background: bool) -> Future[ManagementReceipt]:
        """Do something, off the reply path one thing after the other, or now; errors are :meth:`finish_work`'s to tell.

        What is done now and fails without an error says so in its receipt.
        """
        if background:
            with self._lock:
                if self._worker is None:
                    self._worker = ThreadPoolExecutor(1, thread_name_prefix="memory-manager")
                done = self._worker.submit(job)
                self._working = [*_to_be_told(self._working), done]
            return done
        done = _done(job)
        if done.exception() is not None:
            with self._lock:
                self._working = [*_to_be_told(self._working), done]
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
        raise_first([failure for done in working if (failure := _failure_of(done))])

    def close(self) -> None:
        """Close what this opened; what is used next opens it again."""
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.shutdown()
        self.journal.close()
        with self.memories.lock:  # so that nobody is handed the client that is closed here
            self.memories.close()
            self._leave_client_to_parent()
            client, self._own_client = self._own_client, None
        if client is not None:
            client.close()

    def leave_to_parent(self) -> None:
        """In a forked process: what the parent's threads hold and do is theirs, as its connections are."""
        self._lock = threading.Lock()
        self._worker, self._working = None, []
        self._leave_client_to_parent()

    def _leave_client_to_parent(self) -> None:
        """Drop a client that was inherited over a fork; an embedded engine says itself whose it is."""
        if self._own_client is not None and self._own_client_of != os.getpid() and not is_embedded(self._own_client):
            leave_to_parent(self._own_client)
            self._own_client = None

    def _begin(self, scope: MemoryScope) -> ShortTermMemory:
        """A conversation, with what managing did to it in this process and in others."""
        memory = ShortTermMemory(self.policy, session_id=scope.session_id, counter=self.counter, clock=self.clock)
        log = self.managed(scope)
        memory.remember_managed(log.deleted(), log.compressed())
        return memory

    def _comes_back(self, scope: MemoryScope, conversation: ShortTermMemory) -> bool:
        """Whether a conversation would come back as it is: told again, or from long-term memory, which is tried."""
        told = conversation.told_again
        if told is None and not self.memories.is_open:
            return False
        try:
            again = self._begin(scope)
            if told is not None:
                return told.issuperset(entry.id for entry in conversation.entries) and conversation.is_as_managed(again)
            self.resume(scope, again)
        except MemoryIntegrationError:
            return False
        return again.entries == conversation.entries

    def _client(self, data_dir: Path, qdrant: QdrantServer | QdrantClient | None) -> QdrantClient:
        if qdrant is not None and not isinstance(qdrant, QdrantServer):
            if self._made_by != os.getpid() and not is_embedded(qdrant):
                raise StoreUnavailableError(
                    "The QdrantClient that was given belongs to the process that this one was forked from, and both "
                    "would read each other's answers. Open the client and the memory after the fork, or give the "
                    "server's URL, which is connected to anew."
                )
            return qdrant
        self._leave_client_to_parent()
        if self._own_client is not None:  # opened before, for a collection that was then refused
            return self._own_client
        self._own_client_of = os.getpid()
        if qdrant is None:
            from memory_integrations.qdrant_edge import QdrantEdgeClient

            self._own_client = QdrantEdgeClient(data_dir / "vectors")
        else:
            self._own_client = qdrant.connect()
        return self._own_client


def raise_first(errors: Sequence[BaseException]) -> None:
    """Raise the first of these errors, with what the others say."""
    for first, *others in [errors] if errors else ():
        for other in others:
            first.add_note(f"And {type(other).__name__}: {other}")
        raise first


def _done(job: Callable[[], ManagementReceipt]) -> Future[ManagementReceipt]:
    """What a job gives, or the error that it ends in."""
    done: Future[ManagementReceipt] = Future()
    try:
        done.set_result(job())
    except Exception as error:
        _log.error("managing short-term memory failed: %s", error)
        done.set_exception(error)
    return done


def _to_be_told(working: Iterable[Future[ManagementReceipt]]) -> Iterator[Future[ManagementReceipt]]:
    """What goes on, and the first failures: nobody may ever ask for them."""
    failures = 0
    for one in working:
        if not one.done():
            yield one
        elif failures < _FAILURES_KEPT and _failure_of(one) is not None:
            failures += 1
            yield one


def _failure_of(done: Future[ManagementReceipt]) -> BaseException | None:
    """What failed of something that was done off the reply path."""
    error = done.exception()
    if error is None and (failed := done.result().failed) is not None:
        return ManagementError(f"Managing in the background failed: {failed}. Nothing was changed.")
    return error


def as_embeddings(embeddings: Any) -> Embeddings:
    """What a manager was given as its embedding; see :func:`memory_integrations.embeddings.as_embeddings`."""
    from memory_integrations.embeddings import as_embeddings

    return as_embeddings(embeddings)


def _manager_of(llm_client: Any, counter: TokenCounter) -> Manager:
    if llm_client is None:
        return RuleManager(counter.count)
    from memory_integrations.manager_chain import build_manager_chain

    chain: Manager = build_manager_chain(llm_client, counter=counter)
    return chain


def _journal(url: str | None, data_dir: Path, clock: Callable[[], datetime]) -> Journal:
    if url is None:
        return JsonlJournal(data_dir / "journal", clock)
    from memory_integrations.journal_sql import SqlJournal

    return SqlJournal(url, clock)


def _journal_place(url: str | None, data_dir: Path, journal: Journal) -> str:
    return journal.place if url is not None else _journal_files(data_dir)


def _journal_files(data_dir: Path) -> str:
    return os.path.realpath(data_dir / "journal")


def _place_of(data_dir: Path, qdrant: QdrantServer | QdrantClient | None) -> str:
    """Where the memories are: the same for the same store."""
    if qdrant is None:
        return os.path.realpath(data_dir)
    if isinstance(qdrant, QdrantServer):
        return qdrant.place
    return f"client {_clients.setdefault(qdrant, new_id())}"


_clients: WeakKeyDictionary[Any, str] = WeakKeyDictionary()  # their names: an address soon is another's


def files_in(data_dir: Path) -> str:
    """The name of the stores that are files in a directory; see :attr:`OpenMemory.stores`."""
    return _name_of(data_dir, _journal_files(data_dir), _place_of(data_dir, None))


def _name_of(data_dir: Path, *places: str) -> str:
    """A name for stores that tells nothing of where they are."""
    return blake2b(repr([str(data_dir.absolute()), *places]).encode(), digest_size=12).hexdigest()
