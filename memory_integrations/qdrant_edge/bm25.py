"""BM25 as sparse vectors, by the engine's own encoder. Imports neither qdrant_client nor a framework."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import qdrant_edge as edge

__all__ = ["Bm25Encoder", "Sparse"]


class Sparse(NamedTuple):
    """A sparse vector: term numbers and their weights, of one length."""

    indices: list[int]
    values: list[float]


class Bm25Encoder:
    """Turns texts into sparse vectors whose dot product, with Qdrant's IDF modifier, is BM25.

    Args:
        language: for stop words and stemming, such as ``"english"`` or ``"german"``; None for neither, which
            suits mixed languages and scripts that have no stems or spaces, and drops accents.
        stem: whether words are cut to their stems; False keeps the language's stop words only.
        k: how much repeating a term counts, at least 0.
        b: how much a text's length counts, from 0 to 1.
        avg_len: the length in tokens of an average text.
        ascii_folding: whether accents are dropped.

    Raises:
        ValueError: a language the engine does not know, or a number out of range.
    """

    def __init__(
        self,
        language: str | None = "english",
        *,
        stem: bool = True,
        k: float = 1.2,
        b: float = 0.75,
        avg_len: float = 256.0,
        ascii_folding: bool = False,
    ) -> None:
        neutral = language is None
        self._model = edge.Bm25(
            edge.Bm25Config(
                k=k,
                b=b,
                avg_len=avg_len,
                tokenizer=edge.TokenizerType.Multilingual if neutral else None,
                language=language,
                ascii_folding=ascii_folding,
                stopwords=edge.StopwordsSet(set(), set()) if neutral else None,
                stemmer=edge.DisabledStemmer() if neutral or not stem else None,
            )
        )

    def embed_query(self, text: str) -> Sparse:
        """Encode a question: every distinct term weighs 1."""
        vector = self._model.embed_query(text)
        return Sparse(vector.indices, vector.values)

    def embed_document(self, text: str) -> Sparse:
        """Encode a text to be found: terms weigh by how often they occur and how long the text is."""
        vector = self._model.embed_document(text)
        return Sparse(vector.indices, vector.values)

    def embed_documents(self, texts: Iterable[str]) -> list[Sparse]:
        """Encode several texts to be found; see :meth:`embed_document`."""
        return [self.embed_document(text) for text in texts]
