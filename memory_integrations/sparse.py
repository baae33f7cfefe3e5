"""The sparse encoder of memories: BM25 with a language's stems and stop words, and none where a script has none."""

from __future__ import annotations

import re
from collections.abc import Iterable

from memory_integrations.qdrant_edge.bm25 import Bm25Encoder, Sparse

AVERAGE_LENGTH = 18.0
"""The mean length of a chat message in BM25 terms, against which each is measured (Qdrant's own default is 256)."""

# Scripts whose words are not set apart by spaces: Thai, Lao, Burmese, Khmer, Japanese, Chinese.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


class SparseEncoder(Bm25Encoder):
    """Like :class:`Bm25Encoder`, but a text in a script without spaces is also cut into its words.

    Args:
        language: The language of stems and stop words, such as "english", "german" or "french"; None for neither.

    Raises:
        ValueError: The engine does not know the language.
    """

    def __init__(self, language: str | None = "english") -> None:
        super().__init__(language, avg_len=AVERAGE_LENGTH)
        self._unspaced = Bm25Encoder(None, avg_len=AVERAGE_LENGTH)

    def embed_query(self, text: str) -> Sparse:
        """Encode a question: every distinct term weighs 1."""
        found = super().embed_query(text)
        return _union(found, self._unspaced.embed_query(text)) if _UNSPACED.search(text) else found

    def embed_documents(self, texts: Iterable[str]) -> list[Sparse]:
        """Encode texts to be found: terms weigh by how often they occur and how long the text is."""
        texts = list(texts)
        found = super().embed_documents(texts)
        for i, text in enumerate(texts):
            if _UNSPACED.search(text):
                found[i] = _union(found[i], self._unspaced.embed_documents([text])[0])
        return found


def _union(one: Sparse, other: Sparse) -> Sparse:
    """Both vectors' terms; where both have one, its higher weight."""
    weights = dict(zip(*one, strict=True))
    for index, value in zip(*other, strict=True):
        weights[index] = max(value, weights.get(index, 0.0))
    return Sparse(list(weights), list(weights.values()))
