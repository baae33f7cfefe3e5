"""A conversation as LangChain's chat history, for ``RunnableWithMessageHistory`` and plain LCEL chains.

LangChain deprecates both, with removal announced for 2.0: an agent takes ``MemoryMiddleware`` instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage
from langchain_core.runnables.config import ensure_config

from memory_integrations.arrival import new_id
from memory_integrations.langchain.messages import all_to_langchain, from_langchain
from memory_integrations.manager import MemoryManager
from memory_integrations.messages import Message


class ShortTermChatMessageHistory(BaseChatMessageHistory):
    """The conversation of one session under the memory's policy.

    Reading gives the policy's view, oldest first: what a model should see, not all that was ever said. What is added
    reaches long-term memory too, an exchange once its answer is there.

    Make one for each call, as ``RunnableWithMessageHistory``'s factory does: it is light, and every history of a
    session shows the same conversation. Inside a run it shows the view with which the run began, so that a view which
    shrinks or grows meanwhile neither loses what is new nor stores again what is old.

    Args:
        memory: The memory.
        session_id: The session; None means that of the memory's scope.
        backing: Another history (Redis, PostgreSQL, a file) that keeps the whole conversation, so that it outlives this
            process and several machines share it.
        remember: Whether what is added reaches long-term memory.
        max_tokens: The budget of the view, in tokens; None means the policy's.

    A write that fails raises a ``StoreError``; ``RunnableWithMessageHistory`` only logs it, so the next call tries
    again first, and raises before the model is asked.
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
        self.memory = memory if session_id is None else memory.for_scope(memory.scope.with_session(session_id))
        self.backing = backing
        self.remember = remember
        self.max_tokens = max_tokens
        self._of_run: list[BaseMessage] | None = None

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]
        """The policy's view of the conversation, oldest first."""
        if self._of_run is None or not self._in_run():
            whole = None if self.backing is None else self.backing.messages
            return self._shown(whole)
        return self._of_run

    async def aget_messages(self) -> list[BaseMessage]:
        """Async twin of :attr:`messages`."""
        if self._of_run is None or not self._in_run():
            whole = None if self.backing is None else await self.backing.aget_messages()
            return await asyncio.to_thread(self._shown, whole)
        return self._of_run

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Add messages: whole ones, each under an id.

        Raises:
            StoreError: They could not be stored.
        """
        added = _with_ids(messages)
        if self.backing is not None:
            self.backing.add_messages(added)
        self._of_run = None
        self.memory.follow(map(from_langchain, added), remember=self.remember)

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Async twin of :meth:`add_messages`."""
        added = _with_ids(messages)
        if self.backing is not None:
            await self.backing.aadd_messages(added)
        self._of_run = None
        await self.memory.afollow(map(from_langchain, added), remember=self.remember)

    def clear(self) -> None:
        """Forget the conversation. What was remembered of it in long-term memory stays: see ``MemoryManager.erase``."""
        if self.backing is not None:
            self.backing.clear()
        self._of_run = None
        self.memory.clear_session()

    async def aclear(self) -> None:
        """Async twin of :meth:`clear`."""
        if self.backing is not None:
            await self.backing.aclear()
        self._of_run = None
        self.memory.clear_session()

    def _shown(self, whole: Iterable[BaseMessage] | None) -> list[BaseMessage]:
        memory = self.memory
        if self.remember:
            memory.long_term.open()
            memory.follow([])  # what a write left undone that failed
        if whole is None:
            view: Iterable[Message] = memory.short_term.get_context(self.max_tokens)
        else:
            kept = [from_langchain(message) for message in _with_stable_ids(whole)]
            memory.follow(kept, remember=False)
            view = memory.short_term.viewing(kept)(self.max_tokens)
        shown = [message.model_copy() for message in all_to_langchain(view)]  # theirs to change
        self._of_run = shown if self._in_run() else None
        return shown

    def _in_run(self) -> bool:
        """Whether a ``RunnableWithMessageHistory`` is at work with this very object."""
        return (ensure_config().get("configurable") or {}).get("message_history") is self


def _with_ids(messages: Iterable[BaseMessage]) -> list[BaseMessage]:
    """Whole messages, each under an id; the caller's own stay as they are."""
    whole = [message for said in messages if isinstance(message := from_langchain(said).raw, BaseMessage)]
    return [message.model_copy(update={"id": message.id or new_id()}) for message in whole]


def _with_stable_ids(messages: Iterable[BaseMessage]) -> list[BaseMessage]:
    """The messages of a history that may keep no ids: the same message in the same place gets the same one."""
    return [
        message if message.id else message.model_copy(update={"id": _place_id(place, message)})
        for place, message in enumerate(messages)
    ]


def _place_id(place: int, message: BaseMessage) -> str:
    said = f"{place}:{message.type}:{message.content}"
    return f"b-{blake2b(said.encode('utf-8', 'surrogatepass'), digest_size=16).hexdigest()}"
