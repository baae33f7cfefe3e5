"""The default dense embedding: static word vectors that ship with wordllama, so nothing is downloaded.

A text's vector is the mean of the vectors of its content words (no stop words), scaled to length 1. On
conversations this finds far more than the mean over all tokens, which mostly says that a text is English.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from langchain_core.embeddings import Embeddings

_STOP_WORDS = frozenset(
    """a an the of to in on at for and or but so if is are was were be been being am do does did done has have had
    having will would could should can may might must shall what when where who whom whose which why how with by from
    as that this these those it its his her hers their theirs he she they them him i you me my mine your yours we us
    our ours s t d ll m re ve not no yes there here then than too very just about into over after before during out
    up down off again once any some all both each more most other such own same only""".split()
)
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")


def content_words(text: str, without: Collection[str] = ()) -> list[str]:
    """The words of a text that carry meaning, in lower case, in order.

    Args:
        text: Any text. English stop words are left out; other languages keep all of theirs.
        without: Further words to leave out, in lower case.
    """
    words = (word.lower().replace("’", "'").partition("'")[0] for word in _WORD.findall(text))
    return [word for word in words if word not in _STOP_WORDS and word not in without]


class StaticEmbeddings(Embeddings):
    """wordllama's bundled 256-dimensional vectors as LangChain embeddings. Loaded once a process, at first use.

    Vectors have length 1, so that a cosine is a dot product. A text without content words is embedded by all of
    its words, and one without any word by its characters.
    """

    model = "wordllama/l2_supercat_256/content-words"
    """Recorded in the collection, so that vectors of different embeddings are never mixed."""
    dimensions = 256

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of texts: ``[n_texts, 256]``."""
        return self.embed(texts).tolist()  # type: ignore[no-any-return]

    def embed_query(self, text: str) -> list[float]:
        """The vector of a text: ``[256]``."""
        return self.embed([text])[0].tolist()  # type: ignore[no-any-return]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Like :meth:`embed_documents`; it takes microseconds, so no thread is used."""
        return self.embed_documents(texts)

    async def aembed_query(self, text: str) -> list[float]:
        """Like :meth:`embed_query`."""
        return self.embed_query(text)

    def embed(self, texts: list[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Vectors of texts as an array: ``[n_texts, 256]``, float32."""
        vectors = _wordllama().vectors
        sums = np.empty((len(texts), vectors.shape[1]), dtype=np.float32)
        for row, text in enumerate(texts):
            words = content_words(text) or _WORD.findall(text) or [text]
            sums[row] = vectors[[token for word in words for token in _tokens(word)]].sum(axis=0)
        return _of_length_one(sums)

    def embed_weighted(self, text: str, weight: Callable[[str], float]) -> list[float]:
        """The vector of a question: ``[256]``.

        Args:
            text: The question.
            weight: How much a content word counts, such as its rarity in what is searched.
        """
        words = content_words(text)
        weights = [weight(word) for word in words]
        if not sum(weights):
            return self.embed_query(text)
        vectors = _wordllama().vectors
        total = sum(w * vectors[list(_tokens(word))].sum(axis=0) for word, w in zip(words, weights, strict=True))
        return _of_length_one(np.asarray([total]))[0].tolist()  # type: ignore[no-any-return]


def _of_length_one(rows: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return rows / np.maximum(lengths, 1e-9)[:, None]  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=50_000)
def _tokens(word: str) -> tuple[int, ...]:
    """The tokens of one word; conversations repeat theirs, so this saves most of the tokenizer's work."""
    return tuple(_wordllama().tokenizer.encode(word, add_special_tokens=False).ids)


def forget_words() -> None:
    """Forget the words that were embedded: they may be what was said by somebody who is erased."""
    _tokens.cache_clear()


class _Model(NamedTuple):
    vectors: np.ndarray[Any, np.dtype[np.float32]]
    tokenizer: Any


@functools.cache
def _wordllama() -> _Model:
    from importlib.util import find_spec
    from pathlib import Path

    with _root_logger_left_alone():
        from wordllama import WordLlama

    spec = find_spec("wordllama")
    assert spec is not None and spec.origin is not None
    # Its own package folder is the cache directory that holds the bundled files.
    model = WordLlama.load(cache_dir=Path(spec.origin).parent, disable_download=True)
    model.tokenizer.no_padding()
    model.tokenizer.no_truncation()
    return _Model(model.embedding, model.tokenizer)


@contextmanager
def _root_logger_left_alone() -> Iterator[None]:
    """Import what calls ``logging.basicConfig``: how a program logs is not a library's to say.

    With a handler there that call does nothing.
    """
    root, handler = logging.root, logging.NullHandler()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


class _OfLlamaIndex(Embeddings):
    """A LlamaIndex embedding as LangChain's."""

    def __init__(self, model: Any) -> None:
        self._model = model
        named = getattr(model, "model_name", None)
        self.model = type(model).__name__ if named in (None, "", "unknown") else str(named)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._model.get_text_embedding_batch(texts)  # type: ignore[no-any-return]

    def embed_query(self, text: str) -> list[float]:
        return self._model.get_query_embedding(text)  # type: ignore[no-any-return]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return await self._model.aget_text_embedding_batch(texts)  # type: ignore[no-any-return]

    async def aembed_query(self, text: str) -> list[float]:
        return await self._model.aget_query_embedding(text)  # type: ignore[no-any-return]


def as_embeddings(embeddings: Any = None) -> Embeddings:
    """An embedding as LangChain's: LangChain's own, a LlamaIndex ``BaseEmbedding``, or the bundled one for None.

    Raises:
        TypeError: It is none of these.
    """
    if embeddings is None:
        return StaticEmbeddings()
    if hasattr(embeddings, "embed_documents") and hasattr(embeddings, "embed_query"):
        return embeddings  # type: ignore[no-any-return]
    if hasattr(embeddings, "get_text_embedding_batch") and hasattr(embeddings, "get_query_embedding"):
        return _OfLlamaIndex(embeddings)
    raise TypeError(
        f"embeddings={embeddings!r:.80}: expected a LangChain Embeddings, a LlamaIndex BaseEmbedding, or None."
    )


def embedding_name(embeddings: Embeddings) -> str:
    """What a collection records of an embedding: its model's name, or else its class."""
    for attribute in ("model", "model_name", "model_id", "deployment"):
        name = getattr(embeddings, attribute, None)
        if isinstance(name, str) and name:
            return name
    return type(embeddings).__name__


def embedding_size(embeddings: Embeddings) -> int:
    """Dimensions: what the embedding says of itself, or else the length of a vector."""
    size = getattr(embeddings, "dimensions", None)
    return size if isinstance(size, int) else len(embeddings.embed_query("size"))
