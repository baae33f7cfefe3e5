"""A conversation as LangChain's chat history, for ``RunnableWithMessageHistory`` and plain LCEL chains.

LangChain deprecates both, with removal announced for 2.0: an agent takes ``MemoryMiddleware`` instead.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage

from memory_integrations.arrival import new_id
from memory_integrations.errors import ScopeError
from memory_integrations.langchain import identity
from memory_integrations.langchain.backing import Writing, forget
from memory_integrations.langchain.messages import from_langchain, to_langchain
from memory_integrations.manager import MemoryManager
from memory_integrations.messages import Message
from memory_integrations.tokens import check_budget
from memory_integrations.views import warn_of_overflow

_RUNS_AT_ONCE = 32
"""So many runs of a session may be under way with one and the same history."""
_NEWEST = 2_000
"""So many messages of a backing, the newest, go to short-term memory: a policy keeps fewer."""


class ShortTermChatMessageHistory(BaseChatMessageHistory):
    """The conversation of one session under the memory's policy.

    Reading gives the policy's view, oldest first: what a model should see, not all that was ever said. What is added
    reaches long-term memory too, an exchange once its answer is there.

    It is light: make one for each call, or keep one; every history of a session shows the same conversation. However a
    view changes while a ``RunnableWithMessageHistory`` is at work, what is new is stored, and once, and what is old is
    not stored again.

    Args:
        memory: The memory.
        session_id: The session; None means that of the memory's scope.
        backing: Another history (Redis, PostgreSQL, a file) that keeps the whole conversation, so that it outlives this
            process and several machines share it. It is read before each writing.
        remember: Whether what is added reaches long-term memory.
        max_tokens: The budget of the view, in tokens; None means the policy's.

    A write that fails raises a ``StoreError``. Nothing is to be added again then: the next call does what was left
    undone, and where it cannot, raises before the model is asked: ``RunnableWithMessageHistory`` only logs what a
    write raises.

    Raises:
        BudgetError: The budget is negative or not an integer.
        ScopeError: The session is empty or no text; at reading: the run names another user than the memory's.
    """

    def __init__(
        self,
        memory: MemoryManager,
        session_id: str | None = None,
        *,
        backing: BaseChatMessageHistory | None = None,
        remember: bool = True,
        max_tokens: int | None = None,
    ) -> None:
        super().__init__()
        identity.expect_memory(memory)
        self.memory = memory if session_id is None else memory.for_scope(memory.scope.with_session(session_id))
        self.backing = backing
        self.remember = remember
        self.max_tokens = check_budget(max_tokens)
        self._given: deque[dict[str | None, Any]] = deque(maxlen=_RUNS_AT_ONCE)  # contents by ids, a run each

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]
        """The policy's view of the conversation, oldest first; the caller's to change.

        Raises:
            StoreError: What was left undone cannot be stored, or the backing cannot be read.
        """
        stage = _stage_of_run()
        if stage in _END:
            return []
        whole = None if self.backing is None else self._write(self.backing).whole
        return self._noted(self._shown(whole), stage)

    async def aget_messages(self) -> list[BaseMessage]:
        """Async twin of :attr:`messages`."""
        stage = _stage_of_run()
        if stage in _END:
            return []
        whole = None if self.backing is None else (await self._awrite(self.backing)).whole
        return self._noted(await asyncio.to_thread(self._shown, whole), stage)

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Add messages: whole ones, each under an id.

        Raises:
            StoreError: They could not be stored; the next call does it.
        """
        added = self._new(messages)
        try:
            if self.backing is not None:
                self._take_in(self._write(self.backing, added).earlier)
        finally:
            self._follow(added)

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Async twin of :meth:`add_messages`."""
        added = self._new(messages)
        try:
            if self.backing is not None:
                writing = await self._awrite(self.backing, added)
                await asyncio.to_thread(self._take_in, writing.earlier)
        finally:
            await asyncio.to_thread(self._follow, added)

    def clear(self) -> None:
        """Forget the conversation. What was remembered of it in long-term memory stays: see ``MemoryManager.erase``."""
        if self.backing is not None:
            self.backing.clear()
        self._forget()

    async def aclear(self) -> None:
        """Async twin of :meth:`clear`."""
        if self.backing is not None:
            await self.backing.aclear()
        await asyncio.to_thread(self._forget)

    # Inside

    def _shown(self, whole: Iterable[BaseMessage] | None) -> list[BaseMessage]:
        """The view, of short-term memory or of the whole that a backing keeps."""
        memory, policy = self.memory, self.memory.short_term.policy
        named = identity.user_of_run()
        if named is not None and named != memory.scope.user_id:
            raise ScopeError(
                f"The run names the user {named!r}, and this history is of {memory.scope}. Make it of that user's "
                "memory: ShortTermChatMessageHistory(memory.for_scope(MemoryScope(user_id)), session_id)."
            )
        if self.remember:
            memory.long_term.open()
            memory.follow([])  # what a write left undone that failed
        if whole is None:
            view = memory.short_term.get_context(self.max_tokens)
        else:
            view = memory.short_term.viewing(self._take_in(whole))(self.max_tokens)
            budget = max(policy.max_tokens - policy.reserved_tokens, 0) if self.max_tokens is None else self.max_tokens
            if view.tokens > budget:
                warn_of_overflow(view.tokens, budget)
        return [_own(to_langchain(message)) for message in view]

    def _take_in(self, whole: Iterable[BaseMessage]) -> list[Message]:
        """What a backing keeps, once short-term memory has it too; it was remembered when it was added."""
        messages = list(map(from_langchain, whole))
        self.memory.follow(messages[-_NEWEST:], remember=False)
        return messages

    def _follow(self, added: Iterable[BaseMessage]) -> None:
        """Take what is new into short-term memory, and into long-term memory."""
        self.memory.follow(map(from_langchain, added), remember=self.remember)

    def _noted(self, shown: list[BaseMessage], stage: str | None) -> list[BaseMessage]:
        """The view; where a run begins with it, that will be known at its end."""
        if stage in _BEGINNING:
            self._given.append({message.id: message.content for message in shown})
        return shown

    def _new(self, messages: Iterable[BaseMessage]) -> list[BaseMessage]:
        """What is to be added, as whole messages under ids; the caller's own stay as they are."""
        added = [message for said in messages if isinstance(message := from_langchain(said).raw, BaseMessage)]
        if _stage_of_run() in _END:
            added = [message for message in added if not self._was_given(message)]
        return [_own(message, id=message.id or new_id()) for message in added]

    def _was_given(self, message: BaseMessage) -> bool:
        """Whether a run was given a message as it is; under its id with another content it is an edit of it."""
        return any(message.id in given and given[message.id] == message.content for given in self._given)

    def _write(self, backing: BaseChatMessageHistory, added: Sequence[BaseMessage] = ()) -> Writing:
        """Write to the backing what is not there yet."""
        with Writing(self.memory, type(backing).__name__, added, self.remember) as writing:
            try:
                writing.plan(backing.messages)
                if writing.missing:
                    backing.add_messages(writing.missing)
            except BaseException:
                self._follow(added)  # before another call may take up what is left undone
                raise
        return writing

    async def _awrite(self, backing: BaseChatMessageHistory, added: Sequence[BaseMessage] = ()) -> Writing:
        """Async twin of :meth:`_write`."""
        await asyncio.to_thread(lambda: self.memory.short_term)  # which may have to be brought back
        with Writing(self.memory, type(backing).__name__, added, self.remember) as writing:
            try:
                await asyncio.to_thread(writing.plan, await backing.aget_messages())
                if writing.missing:
                    await _added(backing, writing.missing)
            except BaseException:
                await asyncio.to_thread(self._follow, added)
                raise
        return writing

    def _forget(self) -> None:
        forget(self.memory.short_term)
        self.memory.clear_session()


async def _added(backing: BaseChatMessageHistory, messages: Sequence[BaseMessage]) -> None:
    """Add messages to a backing. A thread goes on when its caller is cancelled, so that its end is waited for."""
    if type(backing).aadd_messages is not BaseChatMessageHistory.aadd_messages:
        return await backing.aadd_messages(messages)
    writing = asyncio.ensure_future(backing.aadd_messages(messages))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait([writing])
        if not writing.cancelled():
            writing.exception()  # whether it failed, the next reading sees
        raise


# At its end a RunnableWithMessageHistory reads the history again, to cut as many messages off its input as that has. By
# then the view may be longer, and what is new would be cut off with it; and a history that is kept cannot know which of
# several runs is asking. So it is given nothing to cut off, and add_messages leaves out what is old. LangChain has no
# other way to tell this reading from others than who is calling.

_HISTORIES = "langchain_core.runnables.history"
_BEGINNING = ("_enter_history", "_aenter_history")
_END = ("_exit_history", "_aexit_history")


def _stage_of_run() -> str | None:
    """The function of ``RunnableWithMessageHistory`` on whose behalf this is called; None where it is not."""
    frame = inspect.currentframe()
    while frame is not None:
        name = frame.f_code.co_name
        if name in (*_BEGINNING, *_END) and frame.f_globals.get("__name__") == _HISTORIES:
            return name
        frame = frame.f_back
    return None


def _own(message: BaseMessage, **changes: Any) -> BaseMessage:
    """A copy that shares no list and no dictionary with the message."""
    fields = {name: _copied(value) for name, value in message.__dict__.items() if type(value) in (list, dict)}
    return message.model_copy(update={**fields, **changes})


def _copied(value: Any) -> Any:
    if type(value) is list:
        return [_copied(item) for item in value]
    return {key: _copied(item) for key, item in value.items()} if type(value) is dict else value
