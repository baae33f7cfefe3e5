"""The sparse encoder of memories: BM25 with a language's stems and stop words, and none where a script has none."""

from __future__ import annotations

import re
from collections.abc import Iterable

from memory_integrations.qdrant_edge.bm25 import Bm25Encoder, Sparse

AVERAGE_LENGTH = 18.0
"""The mean length of a chat message in BM25 terms, against which each is measured (Qdrant's own default is 256)."""

# Scripts whose words are not set apart by spaces: Thai, Lao, Burmese, Khmer, Japanese, Chinese.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")


class SparseEncoder(Bm25Encoder):
    """Like :class:`Bm25Encoder`; text in a script without spaces is encoded by its characters and pairs of them.

    Pairs are the usual terms for such scripts (Lucene's CJK analysis): they need no dictionary, and a question is cut
    as what it asks for is cut.

    Args:
        language: The language of stems and stop words, such as "english", "german" or "french"; None for neither.

    Raises:
        ValueError: The engine does not know the language.
    """

    def __init__(self, language: str | None = "english") -> None:
        super().__init__(language, avg_len=AVERAGE_LENGTH)

    def embed_query(self, text: str) -> Sparse:
        """Encode a question: every distinct term weighs 1."""
        return super().embed_query(_UNSPACED.sub(_spaced, text))

    def embed_documents(self, texts: Iterable[str]) -> list[Sparse]:
        """Encode texts to be found: terms weigh by how often they occur and how long the text is."""
        return super().embed_documents(_UNSPACED.sub(_spaced, text) for text in texts)


def _spaced(run: re.Match[str]) -> str:
    characters = run[0]
    pairs = (characters[i : i + 2] for i in range(len(characters) - 1))
    return f" {' '.join(characters)} {' '.join(pairs)} "
