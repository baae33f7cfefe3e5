"""Counting tokens: exact with tiktoken where its encoding is on this machine, an estimate where it is not.

Nothing is loaded at import and nothing is ever downloaded.
"""

from __future__ import annotations

import functools
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha1
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from memory_integrations.errors import BudgetError

DEFAULT_ENCODING = "cl100k_base"
MEDIA_TOKENS = 765
"""What an image, audio or file block costs, whatever the length of its encoding: OpenAI's figure for a
1024 x 1024 image at high detail."""

_ENCODING_URL = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
_MEDIA_TYPES = frozenset(
    ("image", "image_url", "input_image", "audio", "input_audio", "video", "file", "input_file", "document", "media")
)
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

    @property
    def exact(self) -> bool:
        """Whether counts come from the encoding (loads it) and not from an estimate."""
        return self._loaded() is not estimate_tokens

    def count(self, text: str) -> int:
        """Tokens of a text. Special tokens in it count as the plain text they are."""
        return (self._count or self._loaded())(text)

    def count_content(self, content: str | Sequence[Mapping[str, Any]]) -> int:
        """Tokens of a message's content: its text, plus a fixed figure for every media block."""
        if isinstance(content, str):
            return self.count(content)
        return sum(self._count_block(block) for block in content)

    def _count_block(self, block: Mapping[str, Any]) -> int:
        if block.get("type") in _MEDIA_TYPES:
            return self.media_tokens
        text = block.get("text")
        return self.count(text if isinstance(text, str) else repr(block))

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
    name = _encoding_name(model)
    directory = _encoding_directory(name) or _encoding_directory(name := DEFAULT_ENCODING)
    if directory is None:
        _warn_of_estimate()
        return estimate_tokens
    encode = _encoding(name, directory).encode_ordinary
    return lambda text: len(encode(text))


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


def _encoding_directory(name: str) -> Path | None:
    """The first directory that holds the encoding's file under the name that tiktoken gives it."""
    file = sha1(_ENCODING_URL.format(name).encode(), usedforsecurity=False).hexdigest()
    candidates: list[Path] = []
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if os.environ.get(variable):
            candidates.append(Path(os.environ[variable]))
    candidates.append(Path(tempfile.gettempdir()) / "data-gym-cache")
    if (spec := find_spec("llama_index")) and spec.submodule_search_locations:
        candidates += [Path(p) / "core" / "_static" / "tiktoken_cache" for p in spec.submodule_search_locations]
    return next((directory for directory in candidates if (directory / file).is_file()), None)


def _encoding(name: str, directory: Path) -> Any:
    import tiktoken

    # tiktoken looks only where this variable points, and would download into it; the file is known to be there.
    before = os.environ.get("TIKTOKEN_CACHE_DIR")
    os.environ["TIKTOKEN_CACHE_DIR"] = str(directory)
    try:
        return tiktoken.get_encoding(name)
    finally:
        if before is None:
            del os.environ["TIKTOKEN_CACHE_DIR"]
        else:
            os.environ["TIKTOKEN_CACHE_DIR"] = before
