"""The memories as LangChain's own components.

Each takes a :class:`memory_integrations.MemoryManager`. Where a run carries the identity (``configurable`` or the
runtime's context), one manager of the global scope serves every user; see ``identity``.

Importing this package imports no framework; each name is loaded at its first use. The middleware, the tools and the
store need the extra ``memory-integrations[langchain]``, the others langchain-core alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memory_integrations.lazily import loading

if TYPE_CHECKING:
    from memory_integrations.langchain.chat_history import ShortTermChatMessageHistory
    from memory_integrations.langchain.middleware import MemoryMiddleware
    from memory_integrations.langchain.prompts import memory_prompt
    from memory_integrations.langchain.retriever import LongTermRetriever
    from memory_integrations.langchain.store import MemoryStore
    from memory_integrations.langchain.tools import memory_tools
    from memory_integrations.manager_chain import build_manager_chain

__all__ = [
    "LongTermRetriever",
    "MemoryMiddleware",
    "MemoryStore",
    "ShortTermChatMessageHistory",
    "build_manager_chain",
    "memory_prompt",
    "memory_tools",
]

_MODULES = {
    "LongTermRetriever": "memory_integrations.langchain.retriever",
    "MemoryMiddleware": "memory_integrations.langchain.middleware",
    "MemoryStore": "memory_integrations.langchain.store",
    "ShortTermChatMessageHistory": "memory_integrations.langchain.chat_history",
    "build_manager_chain": "memory_integrations.manager_chain",
    "memory_prompt": "memory_integrations.langchain.prompts",
    "memory_tools": "memory_integrations.langchain.tools",
}
__getattr__ = loading(__name__, _MODULES, {"langchain": "langchain", "langgraph": "langchain"})


def __dir__() -> list[str]:
    return sorted(__all__)
