"""Facts and long-term memory as memory blocks, for those who keep LlamaIndex's own ``Memory``."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.memory.memory import BaseMemoryBlock
from pydantic import Field, InstanceOf

from memory_integrations.delimiters import strip_injected, tag_name, without_tags_of
from memory_integrations.layout import unsaid
from memory_integrations.llama_index.known import conversation_of
from memory_integrations.llama_index.messages import from_llama_index
from memory_integrations.manager import MemoryManager
from memory_integrations.messages import Message
from memory_integrations.scopes import MemoryScope
from memory_integrations.tokens import check_budget

_SHOWN_ANYWAY = 10
"""So many of the memories that are found may stand in the conversation that a model sees anyway."""
_MEMORY = re.compile(r"\n(?!  )")
"""Where a memory begins: the further lines of one are indented."""


class FeatureMemoryBlock(BaseMemoryBlock[str]):
    """The facts about the user as JSON, one a line; nothing where none is known. It learns nothing by itself.

    Args:
        memory: The memory of the user.
        max_tokens: The budget in tokens; None means no limit.
        include_history: Whether a fact's former values are shown.
        priority: 0 is never truncated; of the others LlamaIndex truncates the lowest number first. Truncated, the facts
            that changed longest ago go first.
    """

    name: str = "facts"
    memory: InstanceOf[MemoryManager] = Field(exclude=True)
    max_tokens: int | None = None
    include_history: bool = False
    accept_short_term_memory: bool = False

    async def _aget(self, messages: list[ChatMessage] | None = None, **block_kwargs: Any) -> str:
        return await asyncio.to_thread(self._rendered, self.max_tokens)

    async def _aput(self, messages: list[ChatMessage]) -> None:
        """Facts are learnt by managing, by tools, or by hand."""

    async def atruncate(self, content: str, tokens_to_truncate: int) -> str | None:
        """The facts in fewer tokens; None where none fits."""
        if not content:
            return None
        room = self.memory.long_term.counter.count(content) - tokens_to_truncate
        return await asyncio.to_thread(self._rendered, max(room, 0)) or None

    def _rendered(self, max_tokens: int | None) -> str:
        facts = self.memory.features.to_prompt(self.include_history, check_budget(max_tokens))
        return "" if facts == "{}" else without_tags_of(facts, _tags(self.name))


class LongTermMemoryBlock(BaseMemoryBlock[str]):
    """What was said in earlier conversations and is like the latest user message, a line a memory, best first.

    It stores what LlamaIndex's ``Memory`` ejects, and with ``remember_all`` everything that it sees, so that a session
    which never grows over its limit is remembered too; each message once. One block may serve any number of sessions.

    Args:
        memory: The memory of the user.
        k: How many memories at most.
        max_tokens: The budget in tokens.
        remember_all: Whether messages are stored when they are first seen, instead of when they are ejected.
        priority: 0 is never truncated; of the others LlamaIndex truncates the lowest number first. Truncated, the worst
            matches go first.

    A put that fails raises, as does the get that found something to store; the messages wait, and the next call of
    either stores them.
    """

    name: str = "recalled"
    priority: int = 1
    memory: InstanceOf[MemoryManager] = Field(exclude=True)
    k: int = Field(default=10, ge=1)
    max_tokens: int = 1000
    remember_all: bool = True

    async def _aget(
        self, messages: list[ChatMessage] | None = None, session_id: str | None = None, **block_kwargs: Any
    ) -> str:
        return await asyncio.to_thread(self._recalled, messages or [], session_id)

    async def _aput(self, messages: list[ChatMessage]) -> None:
        await asyncio.to_thread(self._store_by_session, messages)

    async def atruncate(self, content: str, tokens_to_truncate: int) -> str | None:
        """The best of what was recalled, in fewer tokens; None where none fits."""
        if not content:
            return None
        count = self.memory.long_term.counter.count
        lines = _MEMORY.split(content)
        room = count(content) - tokens_to_truncate
        while lines and count("\n".join(lines)) > room:
            lines.pop()
        return "\n".join(lines) or None

    def _recalled(self, messages: list[ChatMessage], session_id: str | None) -> str:
        memory = self._of(session_id)
        said = [from_llama_index(message) for message in messages]
        if self.remember_all and said:
            self._store(memory, said)
        asked = next((message.text for message in reversed(said) if message.role == "user"), "")
        if not asked.strip():
            return ""
        hits = memory.long_term.search(strip_injected(asked), self.k + _SHOWN_ANYWAY)
        lines: list[str] = []
        left = self.max_tokens
        tags = _tags(self.name)
        for hit in unsaid(hits, said):
            text = without_tags_of(hit.text, tags)
            left -= memory.long_term.counter.count(f"{text}\n")
            if left < 0 or len(lines) == self.k:
                break
            lines.append(text)
        return "\n".join(lines)

    def _store_by_session(self, messages: list[ChatMessage]) -> None:
        """Store what was ejected. ``Memory`` says of which session in the messages themselves."""
        sessions: dict[str | None, list[Message]] = {}
        for message in messages:
            others = dict(message.additional_kwargs)
            session = others.pop("session_id", None)
            plain = ChatMessage.model_construct(role=message.role, blocks=message.blocks, additional_kwargs=others)
            sessions.setdefault(session, []).append(from_llama_index(plain))
        for session, said in sessions.items():
            self._store(self._of(session), said)

    def _store(self, memory: MemoryManager, said: list[Message]) -> None:
        conversation = conversation_of(memory)
        with conversation.lock:
            conversation.recollect(memory)
            memory.remember(conversation.unknown(said, memory.short_term))

    def _of(self, session_id: str | None) -> MemoryManager:
        """The memory of a session: the user's, where the memory is a user's."""
        if session_id is None:
            return self.memory
        return self.memory.for_scope(MemoryScope(self.memory.scope.user_id, session_id))


def _tags(name: str) -> frozenset[str]:
    """The tags that LlamaIndex's template has: around all blocks, and around each that may be there."""
    return frozenset(("memory", "facts", "recalled", tag_name(name))) - {""}
