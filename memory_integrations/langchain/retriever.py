"""Long-term memory as LangChain's retriever."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig
from pydantic import ConfigDict, Field, InstanceOf

from memory_integrations.filters import MemoryFilter
from memory_integrations.langchain import identity
from memory_integrations.layout import MemoryHit
from memory_integrations.manager import MemoryManager


class LongTermRetriever(BaseRetriever):
    """Finds memories for a question: those of the user that the run names, else those of the manager's own scope.

    A document's ``page_content`` is the memory as the model will see it, its date and speaker included, escaped as
    data; its ``metadata`` has ``score`` (in (0, 1], higher is better, comparable within one search), ``created_at``,
    ``session_id``, ``role``, ``message_ids`` and what else is known. Best first.

    Args:
        memory: The memory.
        k: How many documents at most; also in ``invoke(query, k=...)``.
        score_threshold: Only documents of this score or more.
        since: Only what was said then or later, aware.
        until: Only what was said before, aware.
        filter: Further conditions. Whatever they say, nobody else's memories are found.
        require_user: Whether a user must be known, so that a run which names none raises instead of finding nothing.

    Raises:
        MessageError: At a call: a time has no zone.
        ScopeError: At a call: the run names another user than the manager's.
        StoreError: At a call: the store cannot be read.
        ValueError: ``k`` is less than 1.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    memory: MemoryManager
    k: int = Field(default=5, ge=1)
    score_threshold: float | None = Field(default=None, ge=0, le=1)
    since: datetime | None = None
    until: datetime | None = None
    require_user: bool = False
    filter: InstanceOf[MemoryFilter] | None = None  # of a dictionary an unknown key would be no condition

    def invoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """Find documents for a question, for the user that the config names."""
        return super().invoke(input, config, memory=self._of(config), **kwargs)

    async def ainvoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> list[Document]:
        """Async twin of :meth:`invoke`."""
        return await super().ainvoke(input, config, memory=self._of(config), **kwargs)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        memory: MemoryManager | None = None,
        k: int | None = None,
    ) -> list[Document]:
        return self._found(memory or self.memory, query, k)

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        memory: MemoryManager | None = None,
        k: int | None = None,
    ) -> list[Document]:
        return await asyncio.to_thread(self._found, memory or self.memory, query, k)

    def _of(self, config: RunnableConfig | None) -> MemoryManager:
        return identity.of_run(self.memory, config, require_user=self.require_user or None)

    def _found(self, memory: MemoryManager, query: str, k: int | None) -> list[Document]:
        limit = self.k if k is None else k
        hits = memory.long_term.search(query, limit, since=self.since, until=self.until, where=self.filter)
        return [as_document(hit) for hit in hits if self.score_threshold is None or hit.score >= self.score_threshold]


def as_document(hit: MemoryHit) -> Document:
    """A found memory as a document."""
    metadata = {**hit.metadata, "score": hit.score, "message_ids": list(hit.message_ids)}
    return Document(hit.text, id=hit.id, metadata=metadata)
