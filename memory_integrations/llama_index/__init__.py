"""The memories as LlamaIndex's own components.

Each takes a :class:`memory_integrations.MemoryManager` of a user, and a ``scope`` where that is another. What is written
through them is read through :mod:`memory_integrations.langchain`, and the other way round.

Importing this package imports no framework; each name is loaded at its first use. They need the extra
``memory-integrations[llama-index]``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memory_integrations.llama_index.blocks import FeatureMemoryBlock, LongTermMemoryBlock
    from memory_integrations.llama_index.chat_memory import ManagedChatMemory
    from memory_integrations.llama_index.retriever import LongTermRetriever

__all__ = ["FeatureMemoryBlock", "LongTermMemoryBlock", "LongTermRetriever", "ManagedChatMemory"]

_MODULES = {
    "FeatureMemoryBlock": "blocks",
    "LongTermMemoryBlock": "blocks",
    "LongTermRetriever": "retriever",
    "ManagedChatMemory": "chat_memory",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{_MODULES[name]}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "llama_index":
            raise
        raise ImportError(
            f"{name} needs {error.name}, which is not installed: pip install 'memory-integrations[llama-index]'"
        ) from error
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
