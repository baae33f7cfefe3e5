"""Qdrant's own engine inside the process, behind qdrant_client's classes.

>>> from memory_integrations.qdrant_edge import QdrantEdgeClient
>>> client = QdrantEdgeClient("data/vectors")  # a qdrant_client.QdrantClient

Nothing is imported until a name is used: neither qdrant_client nor the engine.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memory_integrations.qdrant_edge.aclient import AsyncQdrantEdgeClient
    from memory_integrations.qdrant_edge.backend import EdgeBackend
    from memory_integrations.qdrant_edge.bm25 import Bm25Encoder
    from memory_integrations.qdrant_edge.client import QdrantEdgeClient
    from memory_integrations.qdrant_edge.errors import InferenceRequired
    from memory_integrations.qdrant_edge.langchain_sparse import Bm25SparseEmbeddings

__all__ = [
    "AsyncQdrantEdgeClient",
    "Bm25Encoder",
    "Bm25SparseEmbeddings",
    "EdgeBackend",
    "InferenceRequired",
    "QdrantEdgeClient",
]

_MODULES = {
    "AsyncQdrantEdgeClient": "aclient",
    "Bm25Encoder": "bm25",
    "Bm25SparseEmbeddings": "langchain_sparse",
    "EdgeBackend": "backend",
    "InferenceRequired": "errors",
    "QdrantEdgeClient": "client",
}


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
