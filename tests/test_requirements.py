"""Requirements that only the parts together can meet, and a count of those that tests claim by number."""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import Clock, nasty_text

from memory_integrations import MemoryManager, Message, ShortTermPolicy
from memory_integrations.delimiters import strip_injected

TESTS = Path(__file__).parent
# What is promised, by the numbers of the list of requirements.
PROMISED = [f"P{number}" for number in range(1, 39)]

OpenManager = Callable[..., MemoryManager]


@functools.cache
def claimed() -> set[str]:
    """The numbers in the names and docstrings of all tests."""
    found = set()
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name.lower().startswith(
                "test"
            ):
                words = f"{node.name} {ast.get_docstring(node) or ''}"
                found |= {
                    f"P{number}" for number in re.findall(r"(?<![A-Za-z0-9])[pP](\d+)(?!\d)", words.replace("_", " "))
                }
                found |= {f"P{number}" for number in re.findall(r"TestP(\d+)", node.name)}
    return found


@pytest.mark.parametrize("requirement", PROMISED)
def test_every_promised_requirement_has_a_test_by_its_number(requirement: str) -> None:
    assert requirement in claimed()


class TestTogether:
    """Short-term memory and facts through the manager; long-term memory has its own tests."""

    def test_p34_a_context_is_the_same_bytes_while_nothing_changed(self, manager: OpenManager, clock: Clock) -> None:
        """P34, over time and for every sibling of the same scope."""
        memory = manager()
        memory.set_fact("city", "Lisbon")
        memory.short_term.add("Where do I live?")
        before = memory.get_context(max_tokens=500).combined
        clock.advance(10**6)
        assert memory.get_context(max_tokens=500).combined == before
        assert memory.for_scope("user:ann/session:s1").get_context(max_tokens=500).combined == before
        assert memory.for_scope("user:ann/session:s2").get_context(max_tokens=500).combined != before

    def test_p10_a_context_that_comes_back_is_neither_kept_nor_mined(self, manager: OpenManager) -> None:
        """P10: the echo of a context in a message is left out, and no fact is learnt from it."""
        memory = manager()
        memory.set_fact("city", "Lisbon")
        memory.short_term.add("My name is Ann.")
        echoed = memory.get_context(max_tokens=500).combined
        other = memory.for_scope("user:bob/session:s1")
        other.add_messages([Message("user", f"{echoed}\nWhat do you know of me?")])
        assert [entry.content for entry in other.short_term.entries] == ["What do you know of me?"]
        other.manage_short_term()
        assert other.features.all() == {}

    @given(st.text(max_size=30) | nasty_text)
    def test_p10_a_context_is_known_whatever_was_said(self, manager: OpenManager, text: str) -> None:
        memory = manager("session:x")
        memory.set_fact("said", text)
        if text.strip():
            memory.short_term.add(text)
        assert strip_injected(memory.get_context(max_tokens=10_000).combined) == ""
        memory.clear_session()

    def test_p3_reserved_tokens_are_left_free_of_the_whole(self, manager: OpenManager) -> None:
        """P3: the system prompt, the tools and the answer have their tokens reserved."""
        memory = manager(short_term_policy=ShortTermPolicy(reserved_tokens=400))
        for turn in range(30):
            memory.short_term.add(f"This is turn {turn} of a talk about tea.", ("user", "assistant")[turn % 2])
        assert memory.get_context(max_tokens=500).token_usage["total"] <= 100

    def test_p32_facts_are_always_bound(self, manager: OpenManager) -> None:
        """P32: empty is "{}", and what is set comes back as it was, braces and all."""
        memory = manager()
        assert memory.get_context(max_tokens=500).features == "{}"
        memory.set_fact("note", '{a: "b"}\n{{c}}')
        assert json.loads(memory.get_context(max_tokens=500).features) == {"note": '{a: "b"}\n{{c}}'}

    def test_p30_expiry_hides_and_decay_only_ranks(self, manager: OpenManager, clock: Clock) -> None:
        """P30: an expired entry is not shown; a decayed one is, until managing deletes it."""
        policy = ShortTermPolicy(decay_half_life=timedelta(hours=1), min_entries=1)
        memory = manager(short_term_policy=policy)
        memory.short_term.add("I like green tea.")
        memory.short_term.add("And boats.")
        clock.advance(86_400)
        assert len(memory.get_context(max_tokens=500).messages) == 2
        memory.manage_short_term()
        assert [m.content for m in memory.get_context(max_tokens=500).messages] == ["And boats."]

    def test_p21_users_of_one_open_memory_see_nothing_of_each_other(self, manager: OpenManager) -> None:
        """P21: one shared instance, many users interleaved."""
        root = manager("global")
        users = {name: root.for_scope(f"user:{name}/session:s") for name in ("ann", "bob", "Ann", "ann/x", "ann ")}
        for turn in range(3):
            for name, memory in users.items():
                memory.short_term.add(f"I am {name!r}, turn {turn}.")
                memory.set_fact("who", name)
        for name, memory in users.items():
            context = memory.get_context(max_tokens=1000)
            assert [m.content for m in context.messages] == [f"I am {name!r}, turn {turn}." for turn in range(3)]
            assert json.loads(context.features) == {"who": name}
