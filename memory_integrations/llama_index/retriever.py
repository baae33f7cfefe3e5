"""Long-term memory as LlamaIndex's retriever."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from memory_integrations.filters import MemoryFilter
from memory_integrations.layout import MemoryHit
from memory_integrations.manager import MemoryManager
from memory_integrations.scopes import MemoryScope


class LongTermRetriever(BaseRetriever):
    """Finds memories for a question: for a ``RetrieverQueryEngine``, a chat engine, or a ``RetrieverTool``.

    A node's text is the memory as the model will see it, its date and speaker included, escaped as data; its
    ``metadata`` has ``created_at``, ``session_id``, ``role``, ``message_ids`` and what else is known, and is kept from
    the model. Scores are in (0, 1], higher is better, comparable within one search. Best first.

    Args:
        memory: The memory.
        k: How many nodes at most.
        scope: Whose memories; None means the memory's own scope.
        score_threshold: Only nodes of this score or more.
        since: Only what was said then or later, aware.
        until: Only what was said before, aware.
        filter: Further conditions. Whatever they say, nobody else's memories are found.
        kwargs: What LlamaIndex's own retrievers take: ``callback_manager``, ``verbose``.

    Raises:
        ScopeError: The scope cannot be read.
        StoreError: At a call: the store cannot be read.
        TypeError: ``memory`` is none.
        ValueError: ``k`` is less than 1.
    """

    def __init__(
        self,
        memory: MemoryManager,
        k: int = 5,
        *,
        scope: str | MemoryScope | None = None,
        score_threshold: float | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        filter: MemoryFilter | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(memory, MemoryManager):
            raise TypeError(f"memory={memory!r:.80}: expected a MemoryManager.")
        if k < 1:
            raise ValueError(f"k={k}: expected 1 or more.")
        self.memory = memory if scope is None else memory.for_scope(scope)
        self.k = k
        self.score_threshold = score_threshold
        self.since, self.until = since, until
        self.filter = filter

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = self.memory.long_term.search(
            query_bundle.query_str, self.k, since=self.since, until=self.until, where=self.filter
        )
        return [_node(hit) for hit in hits if self.score_threshold is None or hit.score >= self.score_threshold]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


def _node(hit: MemoryHit) -> NodeWithScore:
    metadata = {**hit.metadata, "message_ids": list(hit.message_ids)}
    hidden = list(metadata)
    node = TextNode(
        id_=hit.id,
        text=hit.text,
        metadata=metadata,
        excluded_llm_metadata_keys=hidden,
        excluded_embed_metadata_keys=hidden,
    )
    return NodeWithScore(node=node, score=hit.score)
