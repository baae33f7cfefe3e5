"""A server meets users and sessions without end: what was used longest ago is let go of, and nothing said is lost."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from strategies import START, Clock

from memory_integrations import (
    Compress,
    Delete,
    ManagementPlan,
    MemoryManager,
    Message,
    ShortTermMemory,
    StoreUnavailableError,
    ToolCall,
)
from memory_integrations.journal_files import JsonlJournal
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


@contextmanager
def store_away(memory: MemoryManager) -> Iterator[None]:
    """A store that does not answer meanwhile."""

    def raise_it(*_: Any, **__: Any) -> Any:
        raise StoreUnavailableError("away")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory._open.memories, "scroll", raise_it)
        yield


def shown(memory: MemoryManager, scope: str) -> list[str]:
    return [entry.content for entry in memory.for_scope(scope).short_term.entries]


def test_sessions_without_end_take_no_memory_without_end(memory: MemoryManager) -> None:
    others(memory)
    before = alive(ShortTermMemory)
    others(memory, 60)
    for number in range(60):
        memory.for_scope(f"user:reader/session:{number}").get_context("Hello?")
    assert alive(ShortTermMemory) <= before + 1


def test_cleared_sessions_are_let_go_of_also_where_no_store_was_opened(memory: MemoryManager) -> None:
    before = alive(ShortTermMemory)
    for number in range(6 * KEPT):
        one = memory.for_scope(f"user:ann/session:{number}")
        one.short_term.add("Hello")
        one.clear_session()
        one.get_context()
        del one
    assert not memory._open.memories.is_open
    assert alive(ShortTermMemory) <= before + KEPT + 1


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


def test_a_session_that_is_held_goes_on_where_it_is(memory: MemoryManager) -> None:
    held = memory.for_scope("user:ann/session:1")
    assert len(held.short_term) == 0
    others(memory)
    first, _ = held.add_turn("I play the oboe.", "Do you?")
    others(memory)
    held.short_term.delete(first)
    held.follow([Message("user", "The latest question, not answered yet", id="m1")])
    others(memory)
    del held
    others(memory)
    assert shown(memory, "user:ann/session:1") == ["Do you?", "The latest question, not answered yet"]


@pytest.mark.parametrize("what", ["system", "image", "pin", "tool", "raw", "told again", "remembered", "attached"])
def test_what_would_come_back_otherwise_stays(memory: MemoryManager, what: str) -> None:
    ann = memory.for_scope("user:ann/session:1")
    first, _ = ann.add_turn("I play the oboe.", "Do you?")
    if what == "system":
        ann.short_term.add("You are a pirate.", "system")
    elif what == "image":
        ann.follow([Message("user", [{"type": "image_url", "image_url": {"url": "data:,"}}], id="m1")])
    elif what == "pin":
        ann.short_term.pin(first)
    elif what == "tool":
        ann.follow(
            [
                Message("assistant", "", id="m1", tool_calls=(ToolCall("c1", "weather"),)),
                Message("tool", "Sunny", id="m2", tool_call_id="c1"),
                Message("assistant", "It is sunny.", id="m3"),
            ]
        )
    elif what == "raw":
        ann.follow([Message("user", "Yes.", id="m1", raw=object()), Message("assistant", "Oh.", id="m2")])
    elif what == "told again":
        told = [
            Message("user", "Yes.", id="m1", created_at=START),
            Message("assistant", "Oh.", id="m2", created_at=START),
        ]
        ann.follow(told)
        ann.clear_session()
        ann.follow(told)
    elif what == "remembered":
        ann.remember([Message("user", "For long-term memory alone")])
    else:
        ann.attached["a component"] = "what it knows"
    before = ann.short_term.entries
    del ann
    others(memory)
    assert memory.for_scope("user:ann/session:1").short_term.entries == before
    assert what != "attached" or memory.for_scope("user:ann/session:1").attached == {"a component": "what it knows"}


@pytest.mark.parametrize("how", ["clear_session", "erase"])
def test_what_components_knew_goes_with_a_session_that_was_cleared(memory: MemoryManager, how: str) -> None:
    others(memory)
    before = alive(ShortTermMemory)
    for number in range(2 * KEPT):
        ann = memory.for_scope(f"user:ann/session:{number}")
        ann.add_turn("I play the oboe.", "Do you?")
        ann.attached["a component"] = "what it knows"
        getattr(ann, how)()
    del ann
    others(memory)
    assert alive(ShortTermMemory) <= before + 1
    assert memory.for_scope("user:ann/session:1").attached == {}


def test_what_is_told_again_at_each_turn_is_not_kept_between(memory: MemoryManager) -> None:
    """As with an agent, whose state has the conversation."""
    state = [
        Message("user", "How is the weather?", id="m0", created_at=START),
        Message("assistant", "", id="m1", tool_calls=(ToolCall("c1", "weather"),), created_at=START),
        Message("tool", "Sunny", id="m2", tool_call_id="c1", created_at=START),
        Message("assistant", "It is sunny.", id="m3", created_at=START),
    ]
    ann = memory.for_scope("user:ann/session:1")
    ann.short_term.told_again = frozenset(f"m{number}" for number in range(4))
    ann.follow(state)
    del ann
    before = alive(ShortTermMemory)
    others(memory)
    assert alive(ShortTermMemory) <= before + KEPT + 1
    assert shown(memory, "user:ann/session:1") == []
    memory.for_scope("user:ann/session:1").follow([*state, Message("user", "And tomorrow?", id="m4")])
    told = [entry.id for entry in memory.for_scope("user:ann/session:1").short_term.entries]
    assert told == ["m0", "m1", "m2", "m3", "m4"]
    assert memory.for_scope("user:ann/session:1").long_term.count() == 2, "nothing twice"


@pytest.mark.parametrize("how", ["said besides", "deleted by hand", "compressed by hand", "pinned"])
def test_of_a_conversation_that_is_told_again_what_was_done_besides_stays(memory: MemoryManager, how: str) -> None:
    """An agent's thread that a chat history is added to, or of which the user had something deleted."""
    state = [
        Message("user", "My PIN is 4711, which I chose long ago for a reason.", id="m0", created_at=START),
        Message("assistant", "Noted.", id="m1", tool_calls=(ToolCall("c1", "note"),), created_at=START),
        Message("tool", "Written", id="m2", tool_call_id="c1", created_at=START),
    ]
    ann = memory.for_scope("user:ann/session:1")
    ann.short_term.told_again = frozenset(("m0", "m1", "m2"))
    ann.follow(state)
    if how == "said besides":
        ann.add_turn("I play the oboe.", "Nice.")
    elif how == "deleted by hand":
        ann.short_term.delete("m0")
    elif how == "compressed by hand":
        ann.short_term.compress_entry("m0", "A PIN.")
    else:
        ann.short_term.pin("m0")
    before = ann.short_term.entries
    del ann
    others(memory)
    again = memory.for_scope("user:ann/session:1")
    again.follow(state)
    assert again.short_term.entries == before


def test_a_conversation_that_is_told_again_goes_as_it_was_managed(memory: MemoryManager) -> None:
    """What managing did is in its journal, and holds when it is told again."""
    state = [Message("user", f"This is said for the time number {n}. " * 9, id=f"m{n}") for n in range(6)]
    ann = memory.for_scope("user:ann/session:1")
    ann.short_term.told_again = frozenset(message.id or "" for message in state)
    ann.follow(state)
    decisions = (Delete("m0", "old"), Compress("m1", "Said."))
    assert len(ann.apply(ManagementPlan(decisions=decisions, source="llm")).decisions) == 2
    del ann
    before = alive(ShortTermMemory)
    others(memory)
    assert alive(ShortTermMemory) <= before + KEPT
    again = memory.for_scope("user:ann/session:1")
    again.follow(state)
    assert [entry.content for entry in again.short_term.entries][:1] == ["Said."]
    assert len(again.short_term) == 5


def test_who_only_searches_begins_no_conversation(memory: MemoryManager) -> None:
    before = alive(ShortTermMemory)
    for number in range(30):
        memory.for_scope(f"user:ann/session:{number}").search_long_term("oboe")
        memory.for_scope(f"user:ann/session:{number}").set_fact("number", number)
    assert alive(ShortTermMemory) == before


def test_letting_go_opens_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory_integrations.sessions._KEPT", KEPT)
    with MemoryManager(data_dir=tmp_path) as memory:
        for number in range(3 * KEPT):
            memory.for_scope(f"user:ann/session:{number}").follow([Message("user", "Hello")], remember=False)
        assert not (tmp_path / "vectors").exists()
        assert shown(memory, "user:ann/session:0") == ["Hello"]


def test_a_turn_in_a_session_that_cannot_be_brought_back_now_is_not_stored(memory: MemoryManager) -> None:
    memory.for_scope("user:ann/session:1").add_turn("I play the oboe.", "Do you?")
    others(memory)
    ann = memory.for_scope("user:ann/session:1")
    with store_away(memory), pytest.raises(StoreUnavailableError):
        ann.add_turn("I moved.", "Where to?")
    ann.add_turn("I moved.", "Where to?")
    assert [message.content for message in ann.long_term.messages()][2:] == ["I moved.", "Where to?"]
    assert shown(memory, "user:ann/session:1")[2:] == ["I moved.", "Where to?"]


def test_p24_an_erasure_while_a_session_comes_back_leaves_nothing_of_it(
    memory: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.for_scope("user:ann/session:1").add_turn("My PIN is 4711.", "Noted.")
    others(memory)
    ann = memory.for_scope("user:ann/session:1")
    erasing = threading.Thread(target=lambda: memory.for_scope("user:ann").erase())
    scroll = memory._open.memories.scroll

    def meanwhile(*args: Any, **options: Any) -> Iterator[Any]:
        read = list(scroll(*args, **options))
        if threading.current_thread() is not erasing:
            erasing.start()
            erasing.join(0.2)
        return iter(read)

    with monkeypatch.context() as patch:
        patch.setattr(memory._open.memories, "scroll", meanwhile)
        assert len(ann.short_term) in (0, 2)
        erasing.join()
    assert "4711" not in ann.get_context("PIN").combined
    assert shown(memory, "user:ann/session:1") == []


def test_opening_a_session_asks_no_store(memory: MemoryManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """A component is made on the event loop, and a server may be far away: it is asked at the first use."""
    memory.for_scope("user:ann/session:1").add_turn("I play the oboe.", "Do you?")
    others(memory)
    with monkeypatch.context() as patch:
        patch.setattr(memory._open.memories, "open", lambda: pytest.fail("the store was asked"))
        patch.setattr(JsonlJournal, "open", lambda *_: pytest.fail("a journal was read"))
        ann = memory.for_scope("user:ann/session:1")
        for number in range(2 * KEPT):
            memory.for_scope(f"user:new {number}/session:1")
    assert [entry.content for entry in ann.short_term.entries] == ["I play the oboe.", "Do you?"]


def test_a_session_that_cannot_be_brought_back_now_is_not_shown_empty(memory: MemoryManager) -> None:
    memory.for_scope("user:ann/session:1").add_turn("I play the oboe.", "Do you?")
    others(memory)
    ann = memory.for_scope("user:ann/session:1")

    with store_away(memory), pytest.raises(StoreUnavailableError):
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
