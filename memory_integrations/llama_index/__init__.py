"""The memories as LlamaIndex's own components.

Each takes a :class:`memory_integrations.MemoryManager` of a user, and a ``scope`` where that is another. What is
written through them is read through :mod:`memory_integrations.langchain`, and the other way round.

Importing this package imports no framework; each name is loaded at its first use. They need the extra
``memory-integrations[llama-index]``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memory_integrations.lazily import loading

if TYPE_CHECKING:
    from memory_integrations.llama_index.blocks import FeatureMemoryBlock, LongTermMemoryBlock
    from memory_integrations.llama_index.chat_memory import ManagedChatMemory
    from memory_integrations.llama_index.retriever import LongTermRetriever

__all__ = ["FeatureMemoryBlock", "LongTermMemoryBlock", "LongTermRetriever", "ManagedChatMemory"]

_MODULES = {
    "FeatureMemoryBlock": "memory_integrations.llama_index.blocks",
    "LongTermMemoryBlock": "memory_integrations.llama_index.blocks",
    "LongTermRetriever": "memory_integrations.llama_index.retriever",
    "ManagedChatMemory": "memory_integrations.llama_index.chat_memory",
}
__getattr__ = loading(__name__, _MODULES, {"llama_index": "llama-index"})


def __dir__() -> list[str]:
    return sorted(__all__)
