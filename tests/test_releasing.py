"""A server meets users and sessions without end: what was used longest ago is let go of, and nothing said is lost."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from strategies import Clock

from memory_integrations import (
    Compress,
    Delete,
    ManagementPlan,
    MemoryManager,
    Message,
    ShortTermMemory,
    StoreUnavailableError,
)
from memory_integrations.ranking import Conversations

KEPT = 5


@pytest.fixture
def memory(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryManager]:
    monkeypatch.setattr("memory_integrations.sessions._KEPT", KEPT)
    monkeypatch.setattr("memory_integrations.collection._ROWS_KEPT", 20)
    with MemoryManager(data_dir=tmp_path, clock=clock) as memory:
        yield memory


def alive(kind: type) -> int:
    gc.collect()
    return sum(type(one) is kind for one in gc.get_objects())


def others(memory: MemoryManager, count: int = 3 * KEPT) -> None:
    """Sessions that come after."""
    for number in range(count):
        memory.for_scope(f"user:other/session:{number}").add_turn(f"Hello {number}", "Hello")


def shown(memory: MemoryManager, scope: str) -> list[str]:
    return [entry.content for entry in memory.for_scope(scope).short_term.entries]


def test_sessions_without_end_take_no_memory_without_end(memory: MemoryManager) -> None:
    others(memory)
    before = alive(ShortTermMemory)
    others(memory, 60)
    for number in range(60):
        memory.for_scope(f"user:reader/session:{number}").get_context("Hello?")
    assert alive(ShortTermMemory) <= before + 1


def test_users_who_searched_long_ago_are_read_anew(memory: MemoryManager) -> None:
    before = alive(Conversations)
    for number in range(30):
        one = memory.for_scope(f"user:{number}")
        one.add_turn(f"My number is {number}.", "Noted.")
        assert str(number) in one.search_long_term("What is my number?")[0].text
    assert alive(Conversations) <= before + 11
    assert "3" in memory.for_scope("user:3").search_long_term("What is my number?")[0].text


def test_what_many_users_say_after_they_searched_takes_no_memory_without_end(memory: MemoryManager) -> None:
    users = [memory.for_scope(f"user:{number}") for number in range(10)]
    for user in users:
        user.add_turn("Hello there.", "Hello.")
        user.search_long_term("hello")
    for _ in range(3):
        for number, user in enumerate(users):
            user.long_term.store_messages([Message("user", f"Tree {n} of user {number}") for n in range(5)])
    gc.collect()
    tables = [one for one in gc.get_objects() if type(one) is Conversations]
    assert sum(map(len, tables)) <= 20 + 17  # what is allowed, or else two tables
    for number, user in enumerate(users):
        assert f"of user {number}" in user.search_long_term("Which tree?")[0].text


def test_what_was_said_is_there_when_a_session_goes_on(memory: MemoryManager) -> None:
    ann = memory.for_scope("user:ann/session:1")
    ann.add_turn("I play the oboe.", "Do you?")
    ann.follow([Message("user", "Yes.", id="m1"), Message("assistant", "For how long?", id="m2")])
    before = ann.short_term.entries
    del ann
    others(memory)
    assert memory.for_scope("user:ann/session:1").short_term.entries == before
    memory.for_scope("user:ann/session:1").follow([Message("user", "Yes.", id="m1"), Message("user", "Ten years.")])
    others(memory)
    assert shown(memory, "user:ann/session:1")[-2:] == ["For how long?", "Ten years."]


def test_it_is_as_it_was_managed(memory: MemoryManager) -> None:
    ann = memory.for_scope("user:ann/session:1")
    long = "The oboe is tuned to the orchestra, or the orchestra to the oboe, which is what most do."
    ann.follow([Message("user", "Hello!", id="m0"), Message("assistant", long, id="m1")])
    ann.follow([Message(role, f"{role} {n}") for n in range(4) for role in ("user", "assistant")])
    ann.apply(ManagementPlan((Delete("m0"), Compress("m1", "The oboe is tuned to the orchestra."))))
    before = [entry.content for entry in ann.short_term.entries]
    assert before[0] == "The oboe is tuned to the orchestra."
    del ann
    others(memory)
    assert shown(memory, "user:ann/session:1") == before


@pytest.mark.parametrize("what", ["unstored", "deleted", "cleared"])
def test_what_long_term_memory_tells_otherwise_stays(memory: MemoryManager, what: str) -> None:
    ann = memory.for_scope("user:ann/session:1")
    first, _ = ann.add_turn("I play the oboe.", "Do you?")
    if what == "unstored":
        ann.short_term.add("Between you and me.")
    elif what == "deleted":
        ann.short_term.delete(first)
    else:
        ann.short_term.clear()
    before = [entry.content for entry in ann.short_term.entries]
    del ann
    others(memory)
    assert shown(memory, "user:ann/session:1") == before


def test_a_session_that_was_cleared_comes_back_empty(memory: MemoryManager, clock: Clock) -> None:
    ann = memory.for_scope("user:ann/session:1")
    ann.add_turn("I play the oboe.", "Do you?")
    ann.clear_session()
    clock.advance(1)
    ann.add_turn("Forget it.", "Done.")
    del ann
    others(memory)
    assert shown(memory, "user:ann/session:1") == ["Forget it.", "Done."]


def test_opening_a_session_asks_no_store(memory: MemoryManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """A component is made on the event loop, and a server may be far away: it is asked at the first use."""
    memory.for_scope("user:ann/session:1").add_turn("I play the oboe.", "Do you?")
    others(memory)
    with monkeypatch.context() as patch:
        patch.setattr(memory._open.memories, "open", lambda: pytest.fail("the store was asked"))
        ann = memory.for_scope("user:ann/session:1")
        for number in range(2 * KEPT):
            memory.for_scope(f"user:ann/session:new {number}")
    assert [entry.content for entry in ann.short_term.entries] == ["I play the oboe.", "Do you?"]


def test_a_session_that_cannot_be_brought_back_now_is_not_shown_empty(
    memory: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.for_scope("user:ann/session:1").add_turn("I play the oboe.", "Do you?")
    others(memory)
    ann = memory.for_scope("user:ann/session:1")

    def away(*_: object) -> None:
        raise StoreUnavailableError("away")

    with monkeypatch.context() as patch:
        patch.setattr(memory._open.memories, "scroll", away)
        with pytest.raises(StoreUnavailableError):
            ann.get_context("What do I play?")
    assert len(ann.short_term) == 2


def test_whoever_holds_a_session_keeps_it(memory: MemoryManager) -> None:
    ann = memory.for_scope("user:ann/session:1")
    ann.add_turn("I play the oboe.", "Do you?")
    others(memory)
    assert memory.for_scope("user:ann/session:1").short_term is ann.short_term


def test_p24_a_session_that_was_released_is_erased_with_its_user(memory: MemoryManager) -> None:
    memory.for_scope("user:ann/session:1").add_turn("I play the oboe.", "Do you?")
    others(memory)
    memory.for_scope("user:ann").erase()
    assert shown(memory, "user:ann/session:1") == []
