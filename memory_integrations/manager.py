"""One manager over the three memories of a scope."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from memory_integrations.archive import Archive, ArchiveReceipt, restore_archive, write_archive
from memory_integrations.arrival import arrived, expect_message, expect_text, says_something, utc_now, without_injected
from memory_integrations.context import Context, assemble, defused
from memory_integrations.copying import Progress
from memory_integrations.decisions import Delete, undone
from memory_integrations.delimiters import strip_injected
from memory_integrations.doctor import Finding, examine
from memory_integrations.errors import (
    EmbeddingError,
    ManagementError,
    MemoryIntegrationError,
    MessageError,
    PolicyError,
    ScopeError,
    StoreError,
    StoreUnavailableError,
)
from memory_integrations.features import FeatureMemory, Json
from memory_integrations.layout import MemoryHit
from memory_integrations.long_term import LongTermMemory
from memory_integrations.managing import Managing, turns_ended
from memory_integrations.messages import Message
from memory_integrations.migration import (
    MigrationReceipt,
    copy_collection,
    copy_journals,
    expect_another_collection,
    expect_another_journal,
    expect_no_further_scopes,
)
from memory_integrations.opened import OpenMemory, as_embeddings, files_in, raise_first
from memory_integrations.plans import ManagementPlan, ManagementReceipt, Manager
from memory_integrations.policies import Entry, ShortTermPolicy
from memory_integrations.scopes import MemoryScope
from memory_integrations.server import QdrantServer
from memory_integrations.short_term import ShortTermMemory
from memory_integrations.tokens import TokenCounter, check_budget

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

DEFAULT_DATA_DIR = "data/memory"
_log = logging.getLogger("memory_integrations")
_NO_LIMIT = 1_000_000_000  # tokens
_RECALLED = 50  # memories that a context recalls at most; the budget decides how many
_REFUSED_AT_ONCE = 8  # messages, after which the others wait: an embedding that takes no more may be busy
_SHOWN_ANYWAY = 10  # so many of them may be in the conversation that a model sees anyway


def directory_of(data_dir: str | Path) -> Path:
    """The directory that was given, with a ``~`` before it read as a home directory.

    Raises:
        StoreUnavailableError: There is no such user.
    """
    try:
        return Path(data_dir).expanduser()
    except RuntimeError as error:
        raise StoreUnavailableError(
            f"data_dir={str(data_dir)!r}: there is no such user, or no home directory. Expected a directory; write "
            "./~... where its name begins with a ~."
        ) from error


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


_opened: WeakValueDictionary[str, OpenMemory] = WeakValueDictionary()  # by the names of their stores


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
        StoreUnavailableError: ``qdrant`` or ``journal_url`` is no store's URL, or ``data_dir`` is in no one's home.
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
        if not (qdrant is None or isinstance(qdrant, str | QdrantServer) or _is_client(qdrant)):
            raise StoreUnavailableError(
                f"qdrant={qdrant!r:.60}: expected a server's URL, a QdrantServer, a QdrantClient (not an asynchronous "
                "one), or None."
            )
        if short_term_policy is not None and not isinstance(short_term_policy, ShortTermPolicy):
            raise PolicyError(f"short_term_policy={short_term_policy!r:.80}: expected a ShortTermPolicy, or None.")
        directory = directory_of(data_dir)
        opened = OpenMemory(
            directory,
            short_term_policy or ShortTermPolicy(),
            None if embeddings is None else as_embeddings(embeddings),
            QdrantServer(qdrant) if isinstance(qdrant, str) else qdrant,
            TokenCounter(model),
            clock,
            language,
            llm_client,
            manage_in_background,
            journal_url,
            _plain_options(
                data_dir=str(directory.absolute()), llm_client=llm_client, embeddings=embeddings,
                qdrant=qdrant, journal_url=journal_url, model=model, language=language,
                manage_in_background=manage_in_background, **({} if clock is utc_now else {"clock": clock}),
            ),
        )  # fmt: skip
        self._bind(MemoryScope.parse(scope), opened)
        _opened[opened.stores] = opened

    def _bind(self, scope: MemoryScope, opened: OpenMemory) -> None:
        self.scope = scope
        self._open = opened
        self._conversation: ShortTermMemory | None = None
        self._features: FeatureMemory | None = None
        self.long_term = LongTermMemory(
            opened.memories, scope, opened.counter, opened.clock, partial(opened.remove_said, scope.owner)
        )

    @classmethod
    def opened(
        cls, data_dir: str | Path, scope: str | MemoryScope = "global", *, stores: str | None = None
    ) -> MemoryManager | None:
        """The memory that was opened last in this process on these stores and is not closed; None where none is.

        Two memories of one directory may be two tenants': each with a server, a client or a database of its own.

        Args:
            data_dir: Where it keeps its files.
            scope: Whose memory.
            stores: What its :attr:`options` call its stores; None means the files in that directory.
        """
        found = _opened.get(stores or files_in(directory_of(data_dir)))
        if found is None:
            return None
        sibling = object.__new__(cls)
        sibling._bind(MemoryScope.parse(scope), found)
        return sibling

    @property
    def short_term(self) -> ShortTermMemory:
        """The conversation.

        Raises:
            StoreError: How it was managed cannot be read; or it was let go of, after a thousand others were used, and
                cannot be brought back now.
        """
        conversation = self._as_it_is()
        if conversation.to_be_resumed:
            self._open.resume(self.scope, conversation)
        return conversation

    @property
    def features(self) -> FeatureMemory:
        """The facts. At the first use their journal is read; before, components are made on the event loop.

        Raises:
            StoreError: It cannot be read.
        """
        if self._features is None:
            self._features = self._open.features(self.scope)
        return self._features

    @property
    def attached(self) -> dict[str, Any]:
        """What components know of the conversation besides its messages, by their names; it lives as long."""
        return self._as_it_is().attached

    @property
    def options(self) -> dict[str, Any]:
        """What it was opened with, as JSON: ``objects`` names what is not, such as an embedding of your own.

        ``stores`` tells its stores from all others, and nothing of where they are.
        """
        return {**self._open.options, "stores": self._open.stores}

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
            MessageError: One is empty, or cannot be stored as it is.
            StoreError: They could not be written; nothing was added.
        """
        now = self._open.clock()
        session = session_id or self.scope.session_id
        ready = [arrived(without_injected(expect_message(message)), session, now) for message in messages]
        for message in ready:
            if not message.text.strip() and not message.tool_calls and isinstance(message.content, str):
                raise MessageError(
                    f"A message of role {message.role!r} is empty: expected something said. Leave it out, or add what "
                    "the user said alone with add_messages."
                )
        sessions = {message.session_id: self._of_session(message.session_id) for message in ready}
        # First: what cannot be brought back now raises before anything is stored.
        conversations = {session: memory.short_term for session, memory in sessions.items()}
        owners = {memory.scope.owner.tag: memory for memory in sessions.values()}
        turns: dict[str | None, int] = {}
        with ExitStack() as held:  # both memories have what threads add in the same order
            for _, owner in sorted(owners.items()):
                held.enter_context(owner.long_term.held())
            for tag, owner in owners.items():
                owner.long_term.store_messages(m for m in ready if sessions[m.session_id].scope.owner.tag == tag)
            for session, conversation in conversations.items():
                said = [message for message in ready if message.session_id == session]
                turns[session] = turns_ended(said, conversation.last)
                conversation.extend(said)
        self._open.sessions.release()
        for session, memory in sessions.items():
            memory._manage_if_due(turns[session])
        return [message.id for message in ready if message.id is not None]  # each was given one on arrival

    def follow(self, messages: Iterable[Message], *, remember: bool = True, unanswered: bool = False) -> list[str]:
        """Take in what is new of a conversation that is kept elsewhere: an agent's state, another chat history.

        It goes to short-term memory at once, and to long-term memory an exchange at a time, once its answer is there.
        What was taken in before is passed over, also where it was evicted, deleted or erased since, so the whole
        conversation may be given again and again. Blocks of injected memory are left out.

        Args:
            messages: The conversation, or the end of it, oldest first.
            remember: Whether it goes to long-term memory, which is not opened for it otherwise.
            unanswered: Store what was said last too, without waiting for its answer.

        Returns:
            The ids of the new messages.

        Raises:
            MessageError: One is no message.
            ScopeError: They are another user's: two users share a thread.
            StoreError: Long-term memory could not be written. Short-term memory has the messages, and they wait: the
                next call, or :meth:`flush`, stores them.
        """
        self._see_erased()
        now, memory = self._open.clock(), self.short_term
        fresh: list[Message] = []
        is_known = False
        for message in messages:
            said = without_injected(expect_message(message))
            if said.id and memory.knows(said):
                if memory.has_forgotten and not is_known:  # what comes before the first that is known was known once
                    fresh.clear()
                is_known = True
            elif said is message or says_something(said):
                fresh.append(arrived(said, self.scope.session_id, now))
        if not fresh and not (remember and self._open.sessions.waiting(self.scope, refused=False)):
            return []  # who only reads waits for nobody who writes
        with self.long_term.held():  # an erasure comes before or after: it must not be overwritten
            if fresh and (remember or self._open.memories.is_open):
                fresh = self._as_recorded(fresh, goes_on=remember and memory.is_blank)
            self._open.sessions.claim(self.scope, fresh)
            # What is stored already and was changed, perhaps to take something out of it, waits for nothing.
            changed = any(memory.get(message.id or "") for message in fresh)
            if outdated := {message.id or "" for message in fresh if memory.is_outdated_by(message)}:
                self._open.managed(self.scope).remove_said(outdated)  # what they said at first is kept no longer
            turns = turns_ended(fresh, memory.last)
            ids = memory.extend(fresh)
            if remember:
                self._open.sessions.wait(self.scope, fresh)
                self._store_waiting(unanswered=unanswered or changed)
        self._open.sessions.release()
        self._manage_if_due(turns)
        return ids

    def flush(self) -> None:
        """Wait for what is managed in the background, and store what waits to be remembered, answered or not.

        Raises:
            ManagementError: Managing in the background failed; nothing was changed by it.
            StoreError: Something could not be stored; what was said waits on.
        """
        self._store_waiting(unanswered=True, refused_too=True)
        self._open.finish_work()

    def remember(self, messages: Iterable[Message]) -> None:
        """Store messages in long-term memory alone, whatever short-term memory has.

        As with :meth:`follow`, what was deleted or erased stays away when it is told again under its id.

        Raises:
            MessageError: One is no message.
            StoreError: They could not be stored. They wait: the next call, or :meth:`flush`, stores them.
        """
        now, session = self._open.clock(), self.scope.session_id
        ready = [arrived(without_injected(expect_message(message)), session, now) for message in messages]
        with self.long_term.held():  # an erasure comes before or after
            said = self._as_recorded([message for message in ready if says_something(message)])
            self._open.sessions.wait(self.scope, said)
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
            MessageError: The query is no text.
            StoreError: A store cannot be read.

        Warns:
            BudgetWarning: The latest user message alone is over the budget; it is there all the same.
        """
        self._open.sessions.release()
        self._see_erased()
        budget = self._budget(max_tokens)
        hits = self._recall(query, recall + _SHOWN_ANYWAY) if budget and recall else []
        count, session = self._open.counter.count_line, self.scope.session_id
        return assemble(budget, self.features.render, self.short_term.view, hits, count, session, recall)

    def get_context_of(
        self, messages: Sequence[Message], max_tokens: int | None = None, *, recall: int = 10
    ) -> Context:
        """What a model should be given for a conversation that is kept elsewhere: an agent's state, another history.

        The policy's view of it, the facts, and what is recalled for its latest user message. That message and what
        came after it, the tool calls and results of an agent at work, are always there; where it is in a summary by
        now, what came after that. The agent's work is not counted (nor in the context's texts), so that the rest stays
        the same, byte for byte, while it goes on.

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
        self._open.sessions.release()
        self._see_erased()
        memory, count = self.short_term, self._open.counter.count_line
        budget = self._budget(memory.policy.max_tokens if max_tokens is None else max_tokens)
        begin = _begin_of_turn(messages)
        said, work = messages[: begin + 1], messages[begin + 1 :]
        hits: list[MemoryHit] = []
        if said and said[-1].role == "user" and recall and budget:
            # Some of what is found is in the conversation anyway.
            own = [message.id for message in messages[begin:] if message.id]
            hits = self._recall(strip_injected(said[-1].text), recall + _SHOWN_ANYWAY, own)
        view, session = memory.viewing(said), self.scope.session_id
        context = assemble(budget, self.features.render, view, hits, count, session, recall)
        if not work:
            return context
        done = memory.whole(work)
        return replace(
            context,
            messages=(*context.messages, *map(defused, done.messages)),
            dropped=[*context.dropped, *done.dropped],
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
        return self._open.resume(self.scope, self._as_it_is())

    def still_there(self, messages: Sequence[Message]) -> list[Message]:
        """Those messages of a former state of this session that were not erased, deleted or forgotten since.

        What long-term memory does not keep, such as the work of tools, goes with the user's message before it.

        Args:
            messages: The conversation as it was, oldest first, with its ids and times.

        Raises:
            StoreError: A store cannot be read.
        """
        cleared, recorded = self._open.managed(self.scope).cleared(), self._recorded(messages)
        gone = set(map(id, _deleted(messages, recorded)))
        return [
            message
            for message in messages
            if id(message) not in gone
            and (cleared is None or message.created_at is None or message.created_at > cleared)
        ]

    def clear_session(self) -> int:
        """Forget the scope's short-term conversation for good; returns how many messages it had. The rest stays.

        Neither :meth:`resume` nor :meth:`expand` nor :meth:`undo` brings anything of it back. Whoever keeps it
        elsewhere and tells it again, such as an agent whose thread goes on, says it anew.

        Raises:
            StoreError: That it is forgotten could not be written down, for other processes. Here it is; called again,
                it goes on.
        """
        self._open.sessions.stored(self.scope, self._open.sessions.waiting(self.scope))
        conversation = self._as_it_is()
        with suppress(StoreError):  # what cannot be brought back now is forgotten all the same
            conversation = self.short_term
        with conversation.held():  # what is managed meanwhile comes before or after
            count = conversation.clear()
            self._open.managed(self.scope).clear(self._open.clock())
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
            StoreError: A fact or an original could not be written, or a server not be asked what others erased.
        """
        plan = self._managing().plan()
        return plan if dry_run else self.apply(plan)

    def manage_in_background(self) -> Future[ManagementReceipt]:
        """Do what :meth:`manage_short_term` does off the reply path; :meth:`flush` waits for it."""
        return self._open.work(lambda: self.apply(self._managing().plan()), background=True)

    def apply(self, plan: ManagementPlan) -> ManagementReceipt:
        """Carry a plan out. It is checked again first: what changed since it was made is left as it is.

        Raises:
            ManagementError: It is no plan, or for another scope.
            StoreError: A fact or an original could not be written; the facts before it were, the entries are unchanged.
        """
        self._expect_own(plan, ManagementPlan)
        managing = self._managing()
        with self.short_term.held():  # what is said meanwhile waits: it must not evict what is being changed
            return managing.carry_out(plan)

    def expand(self, entry_id: str) -> Entry:
        """Bring what a compressed entry said in full back into views, also where the entry was evicted since.

        Raises:
            ManagementError: It was never compressed in this session.
            StoreError: The journal cannot be read or written.
        """
        log, conversation = self._open.managed(self.scope), self.short_term
        with self.long_term.held(), conversation.held():  # an erasure comes before or after
            entry = conversation.get(entry_id)
            original = (entry.original if entry is not None else None) or log.original(entry_id)
            if original is None:
                raise ManagementError(
                    f"entry {entry_id!r} was never compressed in {self.scope}: there is nothing to expand."
                )
            if entry_id in log.compressed():
                log.note_expanded(entry_id)
            return conversation.expand_entry(original)

    def receipts(self) -> list[ManagementReceipt]:
        """What managing did to this session and was not taken back, oldest first, also in other processes.

        Their ``entries_before`` are not kept.

        Raises:
            StoreError: The journal cannot be read.
        """
        return self._open.managed(self.scope).receipts()

    def undo(self, receipt: ManagementReceipt) -> None:
        """Take back what a receipt says was done. What was said since stays, and what was erased since stays erased.

        By a receipt of :meth:`receipts`, what was deleted comes back when the conversation is told again or resumed.

        Raises:
            ManagementError: It is no receipt, another scope's, or stands no more: it was taken back, erased or
                forgotten.
            StoreError: A store could not be read, or a fact not be written back.
        """
        self._expect_own(receipt, ManagementReceipt)
        if receipt.number is None:
            return  # nothing was done
        log, conversation = self._open.managed(self.scope), self.short_term
        with self.long_term.held(), conversation.held():  # an erasure comes before or after
            if all((one.number, one.at) != (receipt.number, receipt.at) for one in log.receipts()):
                raise ManagementError(
                    f"The receipt {receipt.number} of {self.scope} stands no more: what it says was taken back, erased "
                    "or forgotten since. Nothing was changed."
                )
            sources = {decision.entry_id for decision in receipt.decisions}
            deleted = {decision.entry_id for decision in receipt.decisions if isinstance(decision, Delete)}
            shorter = log.compressed()
            before = [  # nothing, where the receipt was read from the journal
                entry if entry.id in shorter else conversation.as_said(entry)
                for entry in self._not_erased(receipt.entries_before)
                if entry.id in deleted or conversation.why_gone(entry.id) != "deleted"
            ]
            for event in reversed(receipt.fact_events):
                if self.features.learnt_from(event) in sources:  # else facts were erased since, and count anew
                    self.features.undo(event)
            log.take_back(receipt.number)
            conversation.restore(undone(before, conversation.entries, receipt.decisions))
            conversation.forget_managed(sources - {entry.id for entry in receipt.entries_before})

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
            StoreError: A store could not be read or written; running it again goes on where it stopped.
        """
        from memory_integrations.embeddings import forget_words

        opened, sessions, scope = self._open, self._open.sessions, self.scope
        whole = scope == scope.owner
        # First what may be refused: a journal can be damaged, and another process can hold the embedded engine.
        managed, features = (opened.managed_sessions(scope), self.features) if whole else ([scope], None)
        with self.long_term.held(), opened.journal.removing():  # what is told or brought back comes before or after
            told = [entry.message for conversation in sessions.within(scope) for entry in conversation.entries]
            waiting = {one: sessions.waiting(one) for one in sessions.scopes_waiting(scope)}
            memories = self.long_term.erase(None if whole else scope.session_id, chain(told, *waiting.values()))
            for one, messages in waiting.items():
                sessions.stored(one, messages)
            forgotten = sessions.forget(scope)  # before what managing wrote down of them: it must not write it again
            if whole:  # one may have been managed for the first time meanwhile
                managed = [*{*managed, *opened.managed_sessions(scope)}]
            receipt = EraseReceipt(
                scope=str(scope),
                decisions=sum(opened.managed(one).erase() for one in managed),
                facts=features.erase() if features is not None else 0,
                memories=memories,
                messages=forgotten,
            )
        self._open.counter.count_line.cache_clear()
        forget_words()
        return receipt

    def erase_fact(self, key: str) -> int:
        """Remove a fact of the scope's owner with its history, physically, and what managing decided of it.

        The reasons that managing gave for anything go too, since a model may have quoted the fact in them.
        ``features.delete`` keeps the history. What was said of it stays in long-term memory: see
        :meth:`LongTermMemory.delete`.

        Returns:
            How many events of its history there were.

        Raises:
            FactError: The key is no text.
            StoreError: A journal could not be written; running it again goes on where it stopped.
        """
        owner = self.scope.owner
        self._open.managed_sessions(owner)  # first what may be refused: a journal can be damaged
        with self._open.journal.removing():
            events = self.features.erase(key)
            self._open.sessions.settle(owner)  # what is managed just now may have set the fact, and still writes it
            for scope in [*self._open.managed_sessions(owner), owner]:  # without a session it is managed in the owner's
                self._open.managed(scope).remove_fact(key)
        return events

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
            StoreCorruptedError: Events of a journal are missing; `doctor` says what to do.
            StoreUnavailableError: The file cannot be written.
            StoreError: A store cannot be read.
        """
        opened, scope = self._open, None if all_scopes else self.scope
        self._store_all_waiting(scope)
        return write_archive(Path(path), scope, opened.journal, opened.memories, vectors, progress)

    def import_archive(self, path: str | Path, progress: Progress | None = None) -> ArchiveReceipt:
        """Write what an archive of :meth:`export` has into this memory, whatever stores it is in.

        What is there already is not doubled, and what is newer here stays. Memories that were deleted here come back,
        and events that were lost here; facts that were erased, here or there, do not.
        Interrupted, it goes on when it is called again.

        Whoever made it, an archive of a scope writes into no other. One of all scopes may say anything of everybody.

        Args:
            path: The archive of this scope; or one of all scopes, which the global scope imports.
            progress: Told how many points are done, and how many there are.

        Raises:
            ScopeError: It is another scope's; nothing was written.
            StoreCorruptedError: The file is damaged or no archive of its scope, or events are missing here; nothing was
                written.
            HistoryError: The scope has another history here; nothing was written. Of an archive of all scopes the
                events of such ones are left out, and the receipt names them.
            StoreError: A store could not be written.
        """
        with Archive(Path(path)) as archive:
            whose = archive.receipt.scope
            if (whose or "global") != str(self.scope):
                raise ScopeError(
                    f"{path} is an archive of {whose or 'all scopes'}, and this is the memory of {self.scope}: open it "
                    f"for {whose or 'global'}. Nothing was written."
                )
            receipt = restore_archive(archive, self._open.journal, self._open.memories, progress)
        self._open.refresh_facts()
        return receipt

    def examine(self) -> list[Finding]:
        """Look at every store, of all scopes: what is wrong, what to do, and a ``repair`` where nothing can be lost.

        It reads everything; it makes and changes nothing.
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
            StoreUnavailableError: The target has another history, or points or scopes that this memory has not, which
                it names; or both have all their stores in common, or one under two names.
            StoreCorruptedError: What was read back differs.
            StoreError: A store could not be read or written.
        """
        self._store_all_waiting()
        here, there = self._open, target._open
        receipt = MigrationReceipt()
        facts, memories = (one != other for one, other in zip(here.places, there.places, strict=True))
        if not (facts or memories):
            raise StoreUnavailableError("Both memories have the same stores: there is nothing to move.")
        if facts:
            expect_another_journal(here.journal, there.journal)
        if memories:
            expect_another_collection(here.memories, there.memories)
        if facts:
            scopes, events, digest = copy_journals(here.journal, there.journal, progress)
            receipt = replace(receipt, scopes=scopes, events=events, events_sha256=digest)
        if memories:
            points, digest = copy_collection(here.memories, there.memories, progress)
            receipt = replace(receipt, points=points, points_sha256=digest)
        if facts:
            expect_no_further_scopes(here.journal, there.journal)
        return receipt

    def close(self) -> None:
        """Store what waits, and release the journal's files and the engine's lock, for every sibling.

        What is used next opens again.

        Raises:
            StoreError: What waited could not be stored. Everything is closed all the same.
            ManagementError: Managing in the background failed; so is it then.
        """
        try:
            try:
                self._store_all_waiting()
            finally:
                self._open.finish_work()
        finally:
            if _opened.get(self._open.stores) is self._open:
                del _opened[self._open.stores]
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
        plan = await (await asyncio.to_thread(self._managing)).aplan()
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

    async def aexport(
        self, path: str | Path, *, all_scopes: bool = False, vectors: bool = False, progress: Progress | None = None
    ) -> ArchiveReceipt:
        """Async twin of :meth:`export`; ``progress`` is called in another thread."""
        return await asyncio.to_thread(self.export, path, all_scopes=all_scopes, vectors=vectors, progress=progress)

    async def aimport_archive(self, path: str | Path, progress: Progress | None = None) -> ArchiveReceipt:
        """Async twin of :meth:`import_archive`; ``progress`` is called in another thread."""
        return await asyncio.to_thread(self.import_archive, path, progress)

    async def aexamine(self) -> list[Finding]:
        """Async twin of :meth:`examine`."""
        return await asyncio.to_thread(self.examine)

    async def amigrate_to(
        self, target: MemoryManager, progress: Callable[[str, int, int], None] | None = None
    ) -> MigrationReceipt:
        """Async twin of :meth:`migrate_to`; ``progress`` is called in another thread."""
        return await asyncio.to_thread(self.migrate_to, target, progress)

    async def aclose(self) -> None:
        """Async twin of :meth:`close`."""
        await asyncio.to_thread(self.close)

    # Inside

    def _store_all_waiting(self, within: MemoryScope | None = None) -> None:
        """Store what waits of a scope, or of all: one that cannot be stored keeps no other from it."""
        failed: list[Exception] = []
        for scope in self._open.sessions.scopes_waiting(within):
            try:
                self.for_scope(scope)._store_waiting(unanswered=True, refused_too=True)
            except Exception as error:
                failed.append(error)
        raise_first(failed)

    def _budget(self, max_tokens: int | None) -> int:
        """Tokens that a context may spend."""
        limit = check_budget(max_tokens)
        return _NO_LIMIT if limit is None else max(limit - self.short_term.policy.reserved_tokens, 0)

    def _recall(self, query: str | None, limit: int, without: Collection[str] = ()) -> list[MemoryHit]:
        """What is found for a query; of this conversation it counts as used."""
        if query is None or not expect_text("query", query).strip():
            return []
        hits = self.long_term.search(query, limit, without=without)
        if self.short_term.policy.decay_half_life is not None:
            for hit in hits:
                for message_id in hit.message_ids:
                    self.short_term.touch(message_id)
        return hits

    def _not_erased(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those of former entries that are there, or were not erased, deleted or forgotten since."""
        there = {entry.id for entry in self.short_term.entries}
        if there.issuperset(entry.id for entry in entries):
            return list(entries)
        there.update(said.id or "" for said in self.still_there([entry.original or entry.message for entry in entries]))
        return [entry for entry in entries if entry.id in there]

    def _see_erased(self) -> None:
        """Do :meth:`_leave_out_erased`, once a minute; where the server does not answer, nothing waits for it again."""
        if self._open.sessions.may_be_outdated(self._as_it_is()):
            try:
                self._leave_out_erased()
            except MemoryIntegrationError as error:  # it keeps nobody from what is said now
                _log.warning("it is not known what other processes erased of %s: %s", self.scope, error)
                self._open.sessions.ask_later()

    def _leave_out_erased(self) -> None:
        """Delete what other processes erased or deleted of the conversation, and the work of tools for it.

        Raises:
            StoreError: The server cannot be asked.
        """
        conversation = self._as_it_is()
        if not self._open.memories.is_shared or not (entries := conversation.entries):
            return
        said = [entry.original or entry.message for entry in entries]
        recorded = self._recorded(said)
        gone = {message.id or "" for message in _deleted(said, recorded)}
        asked = next((place for place, entry in enumerate(entries) if entry.role == "user"), len(entries))
        with conversation.held():
            for place, entry in enumerate(entries):
                is_own = entry.pinned or entry.role == "system" or place < asked  # it goes with no question
                if entry.id not in gone or (is_own and entry.id not in recorded):
                    continue
                if conversation.get(entry.id) is entry:  # else it was said anew meanwhile
                    conversation.delete(entry.id)
            if gone and not len(conversation):  # as where it is erased here: nothing is known of it any more
                conversation.clear()

    def _recorded(self, messages: Iterable[Message]) -> dict[str, datetime | None]:
        """What :meth:`LongTermMemory.recorded` gives; where there is no store, none is made."""
        memories = self._open.memories
        return self.long_term.recorded(messages) if memories.is_open or memories.exists() else {}

    def _as_recorded(self, messages: list[Message], *, goes_on: bool = False) -> list[Message]:
        """The messages as of the time when they were first said, without those that were stored once and deleted.

        A thread that goes on after a restart is not said anew: its age, and which of its facts are outdated, stay.

        Args:
            messages: The messages.
            goes_on: Whether they may be of a thread that another process had, and so of another user.

        Raises:
            ScopeError: They are another user's: two users share a thread.
        """
        try:
            recorded = self._recorded(messages)
        except StoreError:  # a store that cannot be read cannot be written either, which is said when they are stored
            return messages
        if goes_on and self._open.memories.is_open:
            with suppress(StoreError):  # as above
                self._expect_no_others(messages, recorded)
        said_at = [recorded.get(message.id or "", message.created_at) for message in messages]
        return [replace(m, created_at=at) for m, at in zip(messages, said_at, strict=True) if at is not None]

    def _expect_no_others(self, messages: Sequence[Message], recorded: Collection[str]) -> None:
        """See that what was said before the latest question, and is not recorded here, is not another user's."""
        latest = max((place for place, message in enumerate(messages) if message.role == "user"), default=0)
        unknown = [
            message
            for message in messages[:latest]
            if message.role == "user" and message.text.strip() and message.id not in recorded
        ]
        self._open.sessions.claim(self.scope, unknown, lambda: self.long_term.users_of(unknown))

    def _store_waiting(self, *, unanswered: bool, refused_too: bool = False) -> None:
        """Store what waits: whole exchanges, or with ``unanswered`` everything; what was refused just now, if asked."""
        sessions = self._open.sessions
        with self.long_term.held():  # an erasure comes before or after
            waiting = sessions.waiting(self.scope, refused=refused_too)
            answers = (i for i in range(len(waiting) - 1, -1, -1) if waiting[i].role == "assistant" and waiting[i].text)
            ready = waiting if unanswered else waiting[: next(answers, -1) + 1]
            if not ready:
                return
            done, errors = 0, list[BaseException]()
            try:
                self.long_term.store_messages(ready)
            except (EmbeddingError, MessageError):
                self._open.memories.expect_embedding()  # else all of it waits
                for place, error in islice(self._store_apart(ready), _REFUSED_AT_ONCE):
                    sessions.stored(self.scope, ready[done:place])
                    errors.append(sessions.refused(self.scope, ready[place], error))
                    done = place + 1
            if len(errors) < _REFUSED_AT_ONCE:
                sessions.stored(self.scope, ready[done:])
            raise_first(errors)

    def _store_apart(self, messages: Sequence[Message], first: int = 0) -> Iterator[tuple[int, MemoryIntegrationError]]:
        """Store messages in ever smaller parts, in order: one that is refused for what it says keeps no other from it.

        Yields:
            The places of those that are refused, and why.

        Raises:
            StoreError: None can be stored any more.
        """
        try:
            self.long_term.store_messages(messages)
        except (EmbeddingError, MessageError) as error:
            if len(messages) == 1:
                yield first, error
                return
            half = len(messages) // 2
            yield from self._store_apart(messages[:half], first)
            yield from self._store_apart(messages[half:], first + half)

    def _as_it_is(self) -> ShortTermMemory:
        """The conversation, also where it is still to be resumed: no store of memories is asked."""
        if self._conversation is None:
            self._conversation = self._open.sessions.of(self.scope)
        return self._conversation

    def _of_session(self, session_id: str | None) -> MemoryManager:
        """The memory of a session of this scope's user."""
        return self if session_id == self.scope.session_id else self.for_scope(self.scope.with_session(session_id))

    def _managing(self) -> Managing:
        self._leave_out_erased()  # else it would write down again what others erased
        opened, scope = self._open, self.scope
        return Managing(
            scope, opened.manager, self.short_term, self.features, lambda: opened.managed(scope), opened.counter.count,
            opened.clock,
        )  # fmt: skip

    def _expect_own(self, given: Any, kind: type[ManagementPlan | ManagementReceipt]) -> None:
        if not isinstance(given, kind):
            raise ManagementError(f"{given!r:.60}: expected a {kind.__name__}. Nothing was changed.")
        if given.scope is not None and given.scope != str(self.scope):
            raise ManagementError(
                f"This {kind.__name__} is for {given.scope}, not for {self.scope}. Nothing was changed."
            )

    def _manage_if_due(self, new_turns: int) -> None:
        """Manage where it is time; what fails of it is told by :meth:`flush`, since what was said is stored already."""
        every = self.short_term.policy.manage_every_n_turns
        if every is not None and self._open.sessions.is_due(self.scope, new_turns, every):
            self._open.work(lambda: self.apply(self._managing().plan()), background=self._open.background)


def _deleted(messages: Sequence[Message], recorded: dict[str, datetime | None]) -> Iterator[Message]:
    """What was deleted of a conversation by what is recorded of it: what is not goes with the user's message before."""
    turn_is_gone = bool(recorded) and not any(recorded.values())  # what comes before the first question
    for message in messages:
        is_deleted = message.id in recorded and recorded[message.id] is None
        if message.role == "user":
            turn_is_gone = is_deleted
        if is_deleted or (turn_is_gone and message.id not in recorded):
            yield message


def _begin_of_turn(messages: Sequence[Message]) -> int:
    """The place of the latest user message; where a summary, a system message, took it in, of that; -1 for neither.

    A tool may show what it found as a user's message, and a human may speak before a call is approved: a message that
    stands between a call and its result begins no turn.
    """
    roles = [message.role for message in reversed(messages)]
    role = next((role for role in ("user", "system") if role in roles), None)
    begin = -1 if role is None else len(roles) - 1 - roles.index(role)
    asked: set[str] = set()
    for message in messages[begin + 1 :]:
        asked.update(call.id for call in message.tool_calls)
        if message.tool_call_id is None or message.tool_call_id in asked:
            continue
        for place in range(begin - 1, -1, -1):
            if any(call.id == message.tool_call_id for call in messages[place].tool_calls):
                return _begin_of_turn(messages[:place])
    return begin


def _is_client(qdrant: Any) -> bool:
    ask = getattr(qdrant, "query_points", None)
    return callable(ask) and not inspect.iscoroutinefunction(ask)


def _plain_options(**options: Any) -> dict[str, Any]:
    """The options that JSON can say, and the names of those that it cannot, or must not: a URL may have a password."""
    secret = [name for name in ("journal_url", "qdrant") if re.search("[@?]", str(options[name]))]
    objects = [name for name, value in options.items() if name in secret or not isinstance(value, str | bool | None)]
    return {name: value for name, value in options.items() if name not in objects} | {"objects": objects}
