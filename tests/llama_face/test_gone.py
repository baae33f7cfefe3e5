"""What was erased, deleted, forgotten or left out stays away, whatever state or history is given; copies stay."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from weakref import ref

import pytest

pytest.importorskip("llama_index.core")

from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
from strategies import Clock

from memory_integrations import MemoryManager
from memory_integrations.llama_index import ManagedChatMemory

Open = Callable[..., MemoryManager]


@pytest.fixture
def opened(tmp_path: Path, clock: Clock) -> Iterator[Open]:
    """Opens managers as further processes would: each closes the one before."""
    last: list[MemoryManager] = []

    def opened(scope: str = "user:ann/session:s1", **options: Any) -> MemoryManager:
        clock.advance()
        for one in last:
            one.close()
        last[:] = [MemoryManager(scope, data_dir=tmp_path, clock=clock, **options)]
        return last[0]

    yield opened
    for one in last:
        one.close()


def texts(memory: ManagedChatMemory) -> list[str | None]:
    return [message.content for message in memory.get_all()]


def stored(memory: MemoryManager) -> list[str]:
    return [message.text for message in memory.long_term.messages(memory.scope.session_id)]


SECRET = [ChatMessage("My PIN is 1234."), ChatMessage("I shall not tell.", role="assistant")]
OTHER = [ChatMessage("I saw a whale."), ChatMessage("Noted.", role="assistant")]
WORK = [
    ChatMessage("Please read my PIN."),
    ChatMessage(role="assistant", blocks=[ToolCallBlock(tool_call_id="a", tool_name="read", tool_kwargs={})]),
    ChatMessage("1234", role="tool", additional_kwargs={"tool_call_id": "a"}),
    ChatMessage("It is 1234.", role="assistant"),
]


# A state that was written before


@pytest.mark.parametrize("scope", ["user:ann", "user:ann/session:s1"])
def test_p16_what_was_erased_does_not_come_back_with_a_state(opened: Open, scope: str) -> None:
    memory = ManagedChatMemory(opened())
    memory.put_messages([*SECRET, *WORK])
    state = json.loads(json.dumps(memory.to_dict()))
    memory.memory.for_scope(scope).erase()
    for _ in range(2):
        back = ManagedChatMemory.from_dict(state, memory=opened())
        assert texts(back) == []
        assert stored(back.memory) == []


def test_what_was_deleted_does_not_come_back_with_a_state(opened: Open) -> None:
    memory = ManagedChatMemory(opened())
    memory.put_messages([*SECRET, *WORK, *OTHER])
    state = json.loads(json.dumps(memory.to_dict()))
    gone = tuple(str(message.content) for message in (SECRET[0], WORK[0], WORK[3]))
    hits = memory.memory.long_term.search("PIN 1234", limit=10, distinct=False)
    memory.memory.long_term.delete([hit.id for hit in hits if hit.text.endswith(gone)])
    back = ManagedChatMemory.from_dict(state, memory=opened())
    assert texts(back) == ["I shall not tell.", "I saw a whale.", "Noted."]  # the tool's work goes with its question
    assert stored(back.memory) == texts(back)


def test_what_was_reset_does_not_come_back_with_a_state(opened: Open, clock: Clock) -> None:
    memory = ManagedChatMemory(opened())
    memory.put_messages([*SECRET, *WORK])
    state = json.loads(json.dumps(memory.to_dict()))
    clock.advance()
    memory.reset()
    clock.advance()
    memory.put_messages(OTHER)
    back = ManagedChatMemory.from_dict(state, memory=opened())
    assert texts(back) == ["I saw a whale.", "Noted."]
    assert back.memory.long_term.count() == 6


# Messages of another session, or of one that was reset


def test_a_conversation_copied_to_another_session_is_its_own(opened: Open, clock: Clock) -> None:
    source = ManagedChatMemory(opened())
    source.put_messages(OTHER)
    for scope in ("user:ann/session:copy", "user:bob/session:copy"):
        clock.advance()
        copied = ManagedChatMemory(source.memory, scope)
        copied.set(source.get_all())
        copied.set(copied.get_all())
        assert stored(copied.memory) == ["I saw a whale.", "Noted."]
    source.memory.erase()
    memory = opened()
    for scope in ("user:ann/session:copy", "user:bob/session:copy"):
        assert texts(ManagedChatMemory(memory, scope)) == ["I saw a whale.", "Noted."]


def test_a_history_that_is_set_after_a_reset_stays(opened: Open, clock: Clock) -> None:
    memory = ManagedChatMemory(opened())
    memory.put_messages(OTHER)
    history = memory.get_all()
    clock.advance()
    memory.reset()
    clock.advance()
    memory.set(history)
    assert texts(memory) == ["I saw a whale.", "Noted."]
    assert texts(ManagedChatMemory(opened())) == ["I saw a whale.", "Noted."]


@pytest.mark.parametrize("remember", [True, False])
def test_sessions_that_were_reset_are_let_go_of(opened: Open, monkeypatch: pytest.MonkeyPatch, remember: bool) -> None:
    monkeypatch.setattr("memory_integrations.sessions._KEPT", 3)
    memory = opened("user:ann")
    alive = []
    for number in range(12):
        one = ManagedChatMemory(memory, f"user:ann/session:{number}", recall=0, remember=remember)
        one.put_messages(OTHER)
        one.reset()
        alive.append(ref(one.memory.short_term))
    del one
    for number in range(12):
        ManagedChatMemory(memory, f"user:bob/session:{number}").put_messages(OTHER)
    gc.collect()
    assert [conversation() for conversation in alive] == [None] * 12
