"""The memories as LangChain's own components.

Each takes a :class:`memory_integrations.MemoryManager`. Where a run carries the identity (``configurable`` or the
runtime's context), one manager of the global scope serves every user; see ``identity``.

Importing this package imports no framework; each name is loaded at its first use. The middleware, the tools and the
store need the extra ``memory-integrations[langchain]``, the others langchain-core alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
    "LongTermRetriever": "langchain.retriever",
    "MemoryMiddleware": "langchain.middleware",
    "MemoryStore": "langchain.store",
    "ShortTermChatMessageHistory": "langchain.chat_history",
    "build_manager_chain": "manager_chain",
    "memory_prompt": "langchain.prompts",
    "memory_tools": "langchain.tools",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"memory_integrations.{_MODULES[name]}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("langchain", "langgraph"):
            raise
        raise ImportError(
            f"{name} needs {error.name}, which is not installed: pip install 'memory-integrations[langchain]'"
        ) from error
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
