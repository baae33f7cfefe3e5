"""Messages without ids are known again: what is told again is not new, and what is new is not lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("llama_index.core")

from memory_integrations import Message, ShortTermMemory
from memory_integrations.llama_index.known import Conversation

texts = st.lists(st.sampled_from("abcde"), max_size=12)


def told(texts: Any) -> list[Message]:
    return [Message("user" if i % 2 == 0 else "assistant", text) for i, text in enumerate(texts)]


def conversation(texts: Any) -> tuple[Conversation, list[str | None]]:
    made = Conversation()
    return made, [made.new(message, ShortTermMemory()).id for message in told(texts)]


def ids(made: Conversation, messages: list[Message]) -> list[str | None]:
    return [message.id for message in made.named(messages, ShortTermMemory())]


@given(texts=texts)
def test_the_whole_told_again_is_known(texts: list[str]) -> None:
    made, known = conversation(texts)
    assert ids(made, told(texts)) == known
    assert ids(made, told(texts)) == known


@given(texts=st.lists(st.integers(), unique=True, min_size=1, max_size=12), data=st.data())
def test_any_part_told_again_is_known(texts: list[int], data: st.DataObject) -> None:
    said = [str(text) for text in texts]
    made, known = conversation(said)
    begin = data.draw(st.integers(0, len(said) - 1))
    end = data.draw(st.integers(begin, len(said)))
    assert ids(made, told(said)[begin:end]) == known[begin:end]


@given(texts=texts, more=texts)
def test_what_follows_the_whole_is_new(texts: list[str], more: list[str]) -> None:
    """Also where it says what was said before."""
    made, known = conversation(texts)
    found = ids(made, told([*texts, *more]))
    if len(texts) >= 3:
        assert found[: len(texts)] == known
        assert not set(found[len(texts) :]) & set(known)
    assert len(set(found)) == len(found)


@given(texts=texts, more=texts)
def test_no_message_stands_for_two(texts: list[str], more: list[str]) -> None:
    made, _ = conversation(texts)
    found = ids(made, told(more))
    assert None not in found
    assert len(set(found)) == len(found)


@given(texts=st.lists(st.sampled_from("ab"), min_size=1, max_size=8), more=texts, data=st.data())
def test_what_follows_the_end_is_new_where_one_message_has_its_id(
    texts: list[str], more: list[str], data: st.DataObject
) -> None:
    """However short the end is that is told, and however often the same was said before."""
    made, known = conversation(texts)
    begin = data.draw(st.integers(0, len(texts) - 1))
    with_id = data.draw(st.sets(st.integers(begin, len(texts) - 1), min_size=1))
    messages = [
        replace(message, id=known[i] if i in with_id else None) for i, message in enumerate(told([*texts, *more]))
    ]
    found = ids(made, messages[begin:])
    assert found[: len(texts) - begin] == known[begin:]
    assert not set(found[len(texts) - begin :]) & set(known)
    assert len(set(found)) == len(found)


def test_a_changed_message_is_new_and_the_others_are_known() -> None:
    made, known = conversation(["one", "two", "three", "four"])
    found = ids(made, told(["one", "TWO", "three", "four"]))
    assert [a == b for a, b in zip(found, known, strict=True)] == [True, False, True, True]


def test_ids_of_ones_own_are_kept() -> None:
    made, known = conversation(["one", "two"])
    messages = [Message("user", "changed", id=known[0]), Message("assistant", "two")]
    assert ids(made, messages) == known


def test_what_others_said_in_the_session_is_known() -> None:
    memory = ShortTermMemory()
    id_ = memory.add("one")
    assert [message.id for message in Conversation().named(told(["one"]), memory)] == [id_]


def test_what_is_unknown_is_new() -> None:
    made, _ = conversation(["one", "two", "three"])
    memory = ShortTermMemory()
    assert [m.text for m in made.unknown(told(["one", "two", "three", "four"]), memory)] == ["four"]
    assert made.unknown(told(["one", "two", "three", "four"]), memory) == []


def test_what_was_forgotten_is_new() -> None:
    made, known = conversation(["one", "two"])
    made.forget(ShortTermMemory())
    assert not set(ids(made, told(["one", "two"]))) & set(known)


def test_a_long_conversation_told_again_is_known() -> None:
    """Thousands of messages, as an imported history has them, many of which say the same."""
    texts = [f"{number}" if number % 3 else "yes" for number in range(12_000)]
    made, known = conversation(texts)
    assert ids(made, told(texts)) == known
    assert ids(made, told([*texts, "new"]))[:-1] == known
    alike, known = conversation(["yes"] * 12_000)
    assert ids(alike, told(["yes"] * 12_000)) == known
    assert ids(alike, told([*["yes"] * 11_000, "no"]))[-1] not in known
