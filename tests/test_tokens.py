"""Counting tokens: exact where an encoding is on the machine, an estimate where not, never the network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import any_text, nasty_text

from memory_integrations import BudgetError, TokenCounter
from memory_integrations.tokens import MEDIA_TOKENS, check_budget, estimate_tokens

JAPANESE = "私は毎朝七時に起きて、近くの公園を散歩します。昨日は雨が降っていたので、家で本を読みました。"
CHINESE = "我每天早上七点起床，然后去附近的公园散步。昨天下雨了，所以我在家看书。"
KOREAN = "저는 매일 아침 일곱 시에 일어나서 근처 공원을 산책합니다. 어제는 비가 와서 집에서 책을 읽었습니다."

# What a fresh interpreter does before counting: no socket can connect, and no encoding is within reach.
BLOCK_SOCKETS = """
import socket
def refuse(*args, **kwargs):
    raise AssertionError("the network was asked")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
"""
HIDE_ENCODINGS = "import sys; sys.modules['llama_index'] = None\n"


@pytest.fixture
def nowhere(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine without any encoding."""
    return {"TIKTOKEN_CACHE_DIR": str(tmp_path), "DATA_GYM_CACHE_DIR": str(tmp_path), "TMPDIR": str(tmp_path)}


@pytest.fixture(scope="module")
def cl100k() -> Any:
    """tiktoken's own encoding, from the files that llama-index-core carries."""
    core = pytest.importorskip("llama_index.core")
    tiktoken = pytest.importorskip("tiktoken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(Path(core.__file__).parent / "_static" / "tiktoken_cache"))
        return tiktoken.get_encoding("cl100k_base")


class TestExact:
    def test_counts_are_exact_here(self, counter: TokenCounter) -> None:
        assert counter.exact
        assert counter.count("tiktoken is great!") == 6

    @given(nasty_text | any_text)
    def test_a_count_is_the_number_of_tokens_that_tiktoken_makes(
        self, counter: TokenCounter, cl100k: Any, text: str
    ) -> None:
        assert counter.count(text) == len(cl100k.encode_ordinary(text))

    @pytest.mark.parametrize("space", [" ", "\n", "\t", "\u3000"])
    def test_a_run_of_millions_of_spaces_is_counted(self, counter: TokenCounter, space: str) -> None:
        assert counter.count(f"a{space * 2_000_000}b") > counter.count(f"a{space * 1_000_000}b") > 1_000
        assert counter.count("word " * 100_000) == 100_000 + 1  # the last space

    @given(st.sampled_from(["<|endoftext|>", "<|fim_prefix|>", "<|im_start|>"]), nasty_text)
    def test_special_tokens_in_a_text_are_plain_text(self, counter: TokenCounter, special: str, text: str) -> None:
        assert counter.count(special + text) >= 4

    def test_nothing_is_nothing(self, counter: TokenCounter) -> None:
        assert counter.count("") == 0

    @pytest.mark.parametrize("character", ["a", " ", "\n", "\0", "{", "日", "👩", "^"])
    def test_a_message_of_a_megabyte_is_counted(self, counter: TokenCounter, character: str) -> None:
        assert 0 < counter.count(character * (1_000_000 // len(character.encode()))) <= 1_000_000


class TestP5AnyModel:
    """P5: any model name gives a count, nothing is loaded at import, and nothing needs the network."""

    @pytest.mark.parametrize(
        "model",
        [
            "gpt2", "r50k_base", "p50k_base", "o200k_harmony", "text-embedding-3-small",
            None, "", "gpt-4o", "gpt-4", "gpt-5-mini", "openai:gpt-5-mini", "openai/gpt-4o", "claude-sonnet-4-5",
            "anthropic:claude-opus-4", "gemini-2.5-pro", "meta-llama/Llama-3-8b",
            "qwen3:8b", "cl100k_base", "o200k_base",
            "no such model", "text-davinci-003", "../../etc/passwd",
            "ft:gpt-3.5-turbo:org::id", "日本語", "\0", ":", "/",
        ],
    )  # fmt: skip
    def test_p5_any_model_name_gives_a_count(self, model: str | None) -> None:
        count = TokenCounter(model).count("Hello, how are you today?")
        assert isinstance(count, int)
        assert 4 <= count <= 12

    @given(st.text(max_size=30))
    def test_p5_any_text_as_a_model_name_gives_a_count(self, model: str) -> None:
        assert TokenCounter(model).count("Hello") == 1

    def test_p5_nothing_is_loaded_before_the_first_count(self, run_python: Callable[..., Any]) -> None:
        run_python(
            "import sys, memory_integrations\n"
            "counter = memory_integrations.TokenCounter('gpt-4o')\n"
            "memory_integrations.ShortTermMemory()\n"
            "assert 'tiktoken' not in sys.modules, 'loaded at import'\n"
            "counter.count('x')\n"
            "assert 'tiktoken' in sys.modules\n"
        )

    def test_p5_without_an_encoding_counting_works_and_warns_once(
        self, run_python: Callable[..., Any], nowhere: dict[str, str]
    ) -> None:
        done = run_python(
            BLOCK_SOCKETS + HIDE_ENCODINGS + "import json, warnings\n"
            "warnings.simplefilter('always')\n"
            "from memory_integrations import ShortTermMemory, TokenCounter\n"
            "with warnings.catch_warnings(record=True) as caught:\n"
            "    warnings.simplefilter('always')\n"
            "    counters = [TokenCounter(model) for model in (None, 'gpt-4o', 'unheard-of')]\n"
            "    counts = [counter.count('Hello, how are you today?') for counter in counters for _ in range(3)]\n"
            "    memory = ShortTermMemory(); memory.add('hello there'); memory.get_context(0)\n"
            "said = [str(w.message) for w in caught if w.category.__name__ == 'TokenEstimateWarning']\n"
            "print(json.dumps([counts, said, counters[0].exact]))\n",
            env=nowhere,
        )
        counts, said, exact = json.loads(done.stdout)
        assert len(set(counts)) == 1
        assert 4 <= counts[0] <= 12
        assert not exact
        assert len(said) == 1
        assert "TIKTOKEN_CACHE_DIR" in said[0], "it says what to do"

    def test_p5_with_sockets_blocked_counts_stay_exact(self, run_python: Callable[..., Any]) -> None:
        run_python(
            BLOCK_SOCKETS + "from memory_integrations import TokenCounter\n"
            "for model in ('gpt-4o', None, 'claude-sonnet-4-5', 'o200k_base'):\n"
            "    counter = TokenCounter(model)\n"
            "    assert counter.count('tiktoken is great!') == 6 and counter.exact\n"
        )

    def test_p5_a_damaged_encoding_file_is_neither_downloaded_anew_nor_deleted(
        self, run_python: Callable[..., Any], nowhere: dict[str, str], tmp_path: Path
    ) -> None:
        damaged = tmp_path / "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"  # where tiktoken keeps cl100k_base
        damaged.write_bytes(b"IQ== 0\n")
        run_python(
            BLOCK_SOCKETS + HIDE_ENCODINGS + "import warnings; warnings.simplefilter('ignore')\n"
            "from memory_integrations import TokenCounter\n"
            "assert TokenCounter().count('Hello, how are you today?') > 3\n",
            env=nowhere,
        )
        assert damaged.exists()

    def test_p5_the_first_counts_of_many_threads_leave_the_environment_alone(
        self, run_python: Callable[..., Any]
    ) -> None:
        run_python(
            "import os, sys, threading\n"
            "from concurrent.futures import ThreadPoolExecutor\n"
            "from memory_integrations import TokenCounter\n"
            "sys.setswitchinterval(1e-6)\n"
            "before = dict(os.environ)\n"
            "ready = threading.Barrier(8)\n"
            "def count(_):\n"
            "    ready.wait()\n"
            "    return TokenCounter().count('tiktoken is great!')\n"
            "with ThreadPoolExecutor(8) as pool:\n"
            "    assert set(pool.map(count, range(8))) == {6}\n"
            "assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())\n"
        )

    def test_p5_the_files_of_a_cache_directory_are_used(
        self, run_python: Callable[..., Any], nowhere: dict[str, str], cl100k: Any, tmp_path: Path
    ) -> None:
        core = pytest.importorskip("llama_index.core")
        name = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
        shutil.copy(Path(core.__file__).parent / "_static" / "tiktoken_cache" / name, tmp_path / name)
        run_python(
            BLOCK_SOCKETS + HIDE_ENCODINGS + "from memory_integrations import TokenCounter\n"
            "counter = TokenCounter('gpt-4o')\n"
            "assert counter.exact and counter.count('tiktoken is great!') == 6\n",
            env=nowhere,
        )


class TestP4MediaAndWideText:
    """P4: media cost a fixed figure; Chinese, Japanese and Korean count about a token a character."""

    @pytest.mark.parametrize("text", [JAPANESE, CHINESE, KOREAN], ids=["japanese", "chinese", "korean"])
    def test_p4_wide_text_counts_about_a_token_a_character(self, counter: TokenCounter, text: str) -> None:
        assert 0.7 <= counter.count(text) / len(text) <= 1.5
        assert 0.7 <= estimate_tokens(text) / len(text) <= 1.3

    @given(any_text | nasty_text)
    def test_p4_an_estimate_is_an_int_for_any_text(self, text: str) -> None:
        assert isinstance(estimate_tokens(text), int)
        assert (estimate_tokens(text) > 0) == bool(text)

    @given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200), st.text(max_size=5))
    def test_p4_an_estimate_grows_with_the_text(self, text: str, more: str) -> None:
        assert estimate_tokens(text) <= estimate_tokens(text + more) <= estimate_tokens(text) + estimate_tokens(more)

    @pytest.mark.parametrize(
        "block",
        [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,{}"}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "{}"}},
            {"type": "image", "base64": "{}", "mime_type": "image/png"},
            {"type": "input_image", "image_url": "data:image/png;base64,{}"},
            {"type": "audio", "base64": "{}", "mime_type": "audio/wav"},
            {"type": "input_audio", "input_audio": {"data": "{}", "format": "wav"}},
            {"type": "video", "base64": "{}"},
            {"type": "file", "file": {"file_data": "{}", "filename": "a.pdf"}},
            {"type": "input_file", "file_data": "{}"},
            {"type": "document", "source": {"type": "base64", "data": "{}"}},
            {"type": "media", "data": "{}", "mime_type": "image/png"},
        ],
        ids=lambda block: block["type"],
    )
    def test_p4_a_media_block_costs_a_fixed_figure(self, counter: TokenCounter, block: dict[str, Any]) -> None:
        assert counter.count_content([_filled(block, "A" * 200_000)]) == MEDIA_TOKENS
        assert TokenCounter(media_tokens=85).count_content([_filled(block, "A")]) == 85

    @pytest.mark.parametrize(
        "block",
        [
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image", "source": {"data": "{}"}}]},
            {"type": "image_generation_call", "id": "i", "result": "{}"},
            {"image": {"format": "png", "source": {"bytes": "{}"}}},
            {
                "type": "computer_call_output",
                "output": {"type": "input_image", "image_url": "data:image/png;base64,{}"},
            },
        ],
        ids=["inside a tool's result", "generated", "untyped", "screenshot"],
    )
    def test_p4_media_never_cost_the_length_of_their_encoding(
        self, counter: TokenCounter, block: dict[str, Any]
    ) -> None:
        assert counter.count_content([_filled(block, "A" * 200_000)]) <= 2 * MEDIA_TOKENS

    def test_p4_text_and_media_add_up(self, counter: TokenCounter) -> None:
        text, image = {"type": "text", "text": "hello world"}, {"type": "image", "base64": "A" * 9000}
        assert counter.count_content([text, image, text]) == 2 * counter.count("hello world") + MEDIA_TOKENS

    def test_p4_content_without_blocks_costs_nothing(self, counter: TokenCounter) -> None:
        assert counter.count_content([]) == 0

    @pytest.mark.parametrize(
        "block",
        [
            {"type": "thinking", "thinking": "{}"},
            {"type": "reasoning", "reasoning": "{}"},
            {"type": "tool_use", "id": "t", "name": "write", "input": {"text": "{}"}},
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "{}"}]},
            {"type": "text", "text": "{}"},
        ],
        ids=lambda block: block["type"],
    )
    def test_p4_long_texts_in_other_blocks_are_not_taken_for_media(
        self, counter: TokenCounter, block: dict[str, Any]
    ) -> None:
        """A budget that leaves out most of what a model thought or wrote is no budget."""
        assert 5000 <= counter.count_content([_filled(block, "tea " * 5000)]) <= 5100

    @pytest.mark.parametrize("text", [JAPANESE, CHINESE, KOREAN], ids=["japanese", "chinese", "korean"])
    def test_p4_wide_text_in_other_blocks_is_not_taken_for_media(self, counter: TokenCounter, text: str) -> None:
        block = {"type": "thinking", "thinking": text * 60}
        assert counter.count_content([block]) == pytest.approx(counter.count(text * 60), abs=20)

    def test_p4_numbers_and_lists_in_other_blocks_are_counted(self, counter: TokenCounter) -> None:
        block = {"type": "tool_use", "input": {"rows": [[1, 2.5, None], [True, "tea"]]}}
        assert 10 <= counter.count_content([block, "and plain text"]) <= 40

    def test_p4_other_blocks_cost_about_what_they_say(self, counter: TokenCounter) -> None:
        block = {"type": "tool_use", "id": "t", "name": "search", "input": {"query": "weather in Lisbon"}}
        assert 10 <= counter.count_content([block]) <= 60


class TestBudgets:
    @pytest.mark.parametrize("budget", [None, 0, 1, 10**9])
    def test_a_budget_is_given_back(self, budget: int | None) -> None:
        assert check_budget(budget) == budget

    @pytest.mark.parametrize("budget", [-1, -(10**9), 1.5, "100", True, float("nan"), [1]])
    def test_what_is_no_budget_raises_and_says_so(self, budget: Any) -> None:
        with pytest.raises(BudgetError, match="expected a whole number of tokens") as raised:
            check_budget(budget, "limit")
        assert f"limit={budget!r}" in str(raised.value)
        assert isinstance(raised.value, ValueError)


def _filled(block: Any, data: str) -> Any:
    """The block with the data in the place of every "{}"."""
    if isinstance(block, dict):
        return {key: _filled(value, data) for key, value in block.items()}
    if isinstance(block, list):
        return [_filled(value, data) for value in block]
    return block.replace("{}", data)
