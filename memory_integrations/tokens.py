"""Counting tokens: exact with tiktoken where its encoding is on this machine, an estimate where it is not.

Nothing is loaded at import and nothing is ever downloaded.
"""

from __future__ import annotations

import functools
import os
import re
import tempfile
import warnings
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha1, sha256
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import Any

from memory_integrations.errors import BudgetError

DEFAULT_ENCODING = "cl100k_base"
MEDIA_TOKENS = 765
"""What an image, audio or file block costs, whatever the length of its encoding: OpenAI's figure for a
1024 x 1024 image at high detail."""

_MEDIA_TYPES = frozenset(
    ("image", "image_url", "input_image", "audio", "input_audio", "video", "file", "input_file", "document", "media")
)
_REMEMBERED_LINES = 4096
_LONGEST_RUN = 100_000
_LONG_RUN = re.compile(rf"\s{{{_LONGEST_RUN}}}")
_LONGEST_WORD = 1000  # characters without a space: a longer run is base64, not text
# Scripts written without spaces, where a character is about a token.
_WIDE = re.compile(r"[ᄀ-ᇿ⺀-鿿ꥠ-꥿가-퟿豈-﫿\U00020000-\U0003ffff]")


class TokenEstimateWarning(UserWarning):
    """Tokens are estimated, because no tiktoken encoding is on this machine."""


def estimate_tokens(text: str) -> int:
    """A count without an encoding: a token a CJK character, else one for four UTF-8 bytes, rounded up."""
    wide = len(_WIDE.findall(text))
    narrow = len(_WIDE.sub("", text).encode("utf-8", "replace")) if wide else len(text.encode("utf-8", "replace"))
    return wide + -(-narrow // 4)


class TokenCounter:
    """Counts tokens of texts and of message contents.

    Args:
        model: A model name ("gpt-4o", "claude-sonnet-4-5", anything) or an encoding name. A name that tiktoken does
            not know counts by ``cl100k_base``.
        media_tokens: What one image, audio, video or file block costs.

    The encoding is read from disk at the first count: from ``TIKTOKEN_CACHE_DIR``, tiktoken's own cache, or
    the files that llama-index-core carries. With none of them every count is an estimate, and
    :class:`TokenEstimateWarning` says so once.
    """

    def __init__(self, model: str | None = None, *, media_tokens: int = MEDIA_TOKENS) -> None:
        self.model = model
        self.media_tokens = media_tokens
        self._count: Callable[[str], int] | None = None
        self.count_line = functools.lru_cache(maxsize=_REMEMBERED_LINES)(self.count)
        """:meth:`count` for texts that come again, such as the lines of a conversation; it remembers them."""

    @property
    def exact(self) -> bool:
        """Whether counts come from the encoding (loads it) and not from an estimate."""
        return self._loaded() is not estimate_tokens

    def count(self, text: str) -> int:
        """Tokens of a text. Special tokens in it count as the plain text they are."""
        return (self._count or self._loaded())(text)

    def count_content(self, content: str | Sequence[str | Mapping[str, Any]]) -> int:
        """Tokens of a message's content: its text, plus a fixed figure for every media block.

        Of a block of a kind that is not known every text counts; a long one without a space is taken for an encoding.
        """
        if isinstance(content, str):
            return self.count(content)
        return sum(self.count(block) if isinstance(block, str) else self._count_block(block) for block in content)

    def _count_block(self, block: Mapping[str, Any]) -> int:
        if block.get("type") in _MEDIA_TYPES:
            return self.media_tokens
        for inside in (block.get("text"), block.get("content")):
            if isinstance(inside, str | list | tuple):
                return self.count_content(inside)
        return self._count_value(block)

    def _count_value(self, value: Any) -> int:
        if isinstance(value, Mapping):
            return sum(self.count(str(name)) + self._count_value(item) for name, item in value.items())
        if isinstance(value, list | tuple):
            return sum(map(self._count_value, value))
        text = value if isinstance(value, str) else repr(value)
        head = text[:_LONGEST_WORD]
        encoded = len(text) > _LONGEST_WORD and head.isascii() and not re.search(r"\s", head)
        return self.media_tokens if encoded else self.count(text)

    def _loaded(self) -> Callable[[str], int]:
        if self._count is None:
            self._count = _counting_function(self.model)
        return self._count


def check_budget(tokens: int | None, name: str = "max_tokens") -> int | None:
    """Give a token budget back, or say what is wrong with it.

    Raises:
        BudgetError: It is negative or not an integer.
    """
    if tokens is not None and (not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 0):
        raise BudgetError(f"{name}={tokens!r}: expected a whole number of tokens, 0 or more, or None for no limit.")
    return tokens


@functools.cache
def _counting_function(model: str | None) -> Callable[[str], int]:
    encode = _encode(_encoding_name(model)) or _encode(DEFAULT_ENCODING)
    if encode is None:
        _warn_of_estimate()
        return estimate_tokens
    return lambda text: len(encode(text)) if len(text) < _LONGEST_RUN else sum(map(len, map(encode, _parts(text))))


def _parts(text: str) -> Iterator[str]:
    """A text, cut within very long runs of spaces only: tiktoken gives up on one of a million (a panic)."""
    start = 0
    for run in _LONG_RUN.finditer(text):
        yield text[start : run.end()]
        start = run.end()
    yield text[start:]


@functools.cache
def _warn_of_estimate() -> None:
    warnings.warn(
        "No tiktoken encoding is on this machine, so tokens are estimated. For exact counts install "
        "llama-index-core, which carries the files, or set TIKTOKEN_CACHE_DIR to a directory that holds them.",
        TokenEstimateWarning,
        stacklevel=6,
    )


def _encoding_name(model: str | None) -> str:
    if not model:
        return DEFAULT_ENCODING
    from tiktoken.model import encoding_name_for_model
    from tiktoken.registry import list_encoding_names

    if model in list_encoding_names():
        return model
    try:
        return encoding_name_for_model(model.rpartition(":")[2].rpartition("/")[2])
    except KeyError:
        return DEFAULT_ENCODING


@functools.cache
def _encode(name: str) -> Callable[[str], list[int]] | None:
    """The encoding's function, or None where its file is on no disk.

    tiktoken's own loading would download a file that is missing, and delete one that is damaged before it downloads
    that. So its recipe for the encoding is run with a loader that only reads.
    """
    import tiktoken
    from tiktoken_ext.openai_public import ENCODING_CONSTRUCTORS

    recipe = ENCODING_CONSTRUCTORS.get(name.removesuffix("_harmony"))  # which only adds special tokens
    if recipe is None or "load_tiktoken_bpe" not in recipe.__code__.co_names:
        return None
    try:
        parts = FunctionType(recipe.__code__, {**recipe.__globals__, "load_tiktoken_bpe": _read_ranks})()
    except FileNotFoundError:
        return None
    return tiktoken.Encoding(**{**parts, "name": name}).encode_ordinary


def _read_ranks(url: str, expected_hash: str | None = None) -> dict[bytes, int]:
    """The tokens and their ranks, from the first undamaged copy of the file that is published at a URL."""
    name = sha1(url.encode(), usedforsecurity=False).hexdigest()  # what tiktoken calls the file in a cache
    for directory in _directories():
        path = directory / name
        data = path.read_bytes() if path.is_file() else b""
        if data and (expected_hash is None or sha256(data).hexdigest() == expected_hash):
            pairs = (line.split() for line in data.splitlines() if line)
            return {b64decode(token): int(rank) for token, rank in pairs}
    raise FileNotFoundError(url)


def _directories() -> list[Path]:
    """Where the files of encodings may be."""
    named = [os.environ.get("TIKTOKEN_CACHE_DIR"), os.environ.get("DATA_GYM_CACHE_DIR")]
    found = [Path(directory) for directory in named if directory]
    found.append(Path(tempfile.gettempdir()) / "data-gym-cache")
    spec = find_spec("llama_index")
    if spec is not None and spec.submodule_search_locations:
        found += [Path(parent) / "core" / "_static" / "tiktoken_cache" for parent in spec.submodule_search_locations]
    return found
