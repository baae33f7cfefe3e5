"""The BM25 encoder as langchain_qdrant's ``SparseEmbeddings``. Importing this imports LangChain."""

from __future__ import annotations

from typing import Any

from langchain_qdrant import SparseEmbeddings
from langchain_qdrant.sparse_embeddings import SparseVector

from memory_integrations.qdrant_edge.bm25 import Bm25Encoder

__all__ = ["Bm25SparseEmbeddings"]


class Bm25SparseEmbeddings(SparseEmbeddings):
    """BM25 for ``QdrantVectorStore`` in sparse and hybrid mode, with no model to download.

    Give the collection's sparse vector ``modifier=models.Modifier.IDF``.

    Args:
        encoder: the encoder to use; by default one made of the options.
        options: as of :class:`~memory_integrations.qdrant_edge.bm25.Bm25Encoder`.
    """

    def __init__(self, encoder: Bm25Encoder | None = None, **options: Any) -> None:
        self.encoder = encoder or Bm25Encoder(**options)

    def embed_documents(self, texts: list[str]) -> list[SparseVector]:
        """Encode texts to be found."""
        return [
            SparseVector(indices=found.indices, values=found.values) for found in self.encoder.embed_documents(texts)
        ]

    def embed_query(self, text: str) -> SparseVector:
        """Encode a question."""
        found = self.encoder.embed_query(text)
        return SparseVector(indices=found.indices, values=found.values)
