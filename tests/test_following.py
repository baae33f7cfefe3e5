"""Conversations that are kept elsewhere: what is taken in, what waits, what a model is given of them."""

from __future__ import annotations

import contextlib
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import Clock

from memory_integrations import (
    EmbeddingError,
    LongTermMemory,
    MemoryManager,
    Message,
    MessageError,
    ScopeError,
    ShortTermPolicy,
    StoreUnavailableError,
    ToolCall,
)
from memory_integrations.delimiters import delimit
from memory_integrations.embeddings import StaticEmbeddings
from memory_integrations.views import BudgetWarning

OpenManager = Callable[..., MemoryManager]


def talk(turns: int, words: int = 6) -> list[Message]:
    said = []
    for turn in range(turns):
        said.append(Message("user", f"Question {turn} " + "about tea " * words, id=f"q{turn}"))
        said.append(Message("assistant", f"Answer {turn}", id=f"a{turn}"))
    return said


def stored(memory: MemoryManager) -> list[str | None]:
    return [message.id for message in memory.long_term.messages()]


def held(memory: MemoryManager) -> list[str]:
    return [entry.id for entry in memory.short_term.entries]


# Taking in


def test_p7_only_what_is_new_is_taken_in(manager: OpenManager) -> None:
    memory, said = manager(), talk(3)
    assert memory.follow(said[:4]) == ["q0", "a0", "q1", "a1"]
    assert memory.follow(said) == ["q2", "a2"]
    assert memory.follow(said) == []
    assert stored(memory) == held(memory) == [message.id for message in said]


def thread(*texts: str, first: str = "") -> list[Message]:
    """What a checkpointer keeps of a thread, under ids that nobody else's messages have."""
    roles = ("user", "assistant")
    said = [Message(roles[n % 2], text, id=f"id-of-a-checkpointer-{n}") for n, text in enumerate(texts)]
    return [Message("system", first), *said] if first else said


PIN = thread("My PIN is 4711.", "Noted.")


@pytest.fixture
def looked_through(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Of each time that what others said is looked through, what was looked for."""
    asked: list[Any] = []
    users_of = LongTermMemory.users_of
    monkeypatch.setattr(LongTermMemory, "users_of", lambda self, said: asked.append(said) or users_of(self, said))
    return asked


@pytest.mark.parametrize("more", [["Hello"], ["And what is it now?", "4711.", "Hello"]])
@pytest.mark.parametrize("first", ["", "You are helpful."])
def test_p21_a_thread_in_which_another_user_spoke_raises_in_every_process(
    manager: OpenManager, looked_through: list[Any], more: list[str], first: str
) -> None:
    """P21: of what came in later, the other process may have stored nothing yet."""
    manager().follow(PIN)
    elsewhere = manager("user:bob/session:s1")
    for _ in range(3):
        with pytest.raises(ScopeError, match="threads of their own"):
            elsewhere.follow(thread("My PIN is 4711.", "Noted.", *more, first=first))
    elsewhere.flush()
    assert stored(elsewhere) == held(elsewhere) == []
    assert len(looked_through) == 1
    elsewhere.for_scope("user:ann/session:s1").follow(PIN)  # to whom it belongs
    elsewhere.for_scope("user:bob/session:s2").follow(thread("My PIN is 4711.", "Noted.", "Hello"))


@pytest.mark.parametrize("why", ["short ids", "erased", "deleted", "of everybody", "of another text", "a greeting"])
def test_p21_what_is_no_proof_of_another_user_raises_nothing(manager: OpenManager, why: str) -> None:
    said = thread("My PIN is 4711.", "Noted.")
    if why == "short ids":
        said = [replace(message, id=f"{n}") for n, message in enumerate(said)]
    ann = manager("session:s1" if why == "of everybody" else "user:ann/session:s1")
    ann.follow(said)
    if why == "erased":
        ann.erase()
    elif why == "deleted":
        ann.long_term.delete([hit.id for hit in ann.search_long_term("My PIN is noted", 9)])
    elif why == "a greeting":  # which an application shows to everybody, under an id of its own
        said = said[1:]
    elif why == "of another text":
        said = [replace(message, content=f"Otherwise: {message.text[::-1]}") for message in said]
    bob = manager("user:bob/session:s1")
    bob.follow([*said, Message("user", "Hello", id="id-of-a-checkpointer-9")], unanswered=True)
    assert len(stored(bob)) == len(said) + 1


def test_p21_a_users_own_thread_goes_on_without_a_look_through_what_others_said(
    manager: OpenManager, looked_through: list[Any]
) -> None:
    manager("user:bob/session:s1").follow(PIN)
    said = thread(*(f"Line {n}" for n in range(8)))
    for text in said:
        said_anew = manager()  # in another process each time, with tools at work
        call = Message("assistant", "", tool_calls=(ToolCall("c", "f"),), id="id-of-the-message-of-a-call")
        said_anew.follow([*said[: said.index(text)], text], unanswered=True)
        said_anew.follow([*said[: said.index(text) + 1], call, Message("tool", "5", id="id-of-a-tools-result")])
    assert stored(said_anew) == [message.id for message in said]
    assert looked_through == []


def test_p8_what_was_evicted_does_not_come_back(manager: OpenManager) -> None:
    memory = manager(short_term_policy=ShortTermPolicy(max_tokens=60))
    said = talk(10)
    for end in range(2, 21, 2):
        memory.follow(said[:end])
    assert held(memory)[-1] == "a9" and len(held(memory)) < 10
    before = memory.short_term.revision
    assert memory.follow(said) == []
    assert memory.short_term.revision == before
    assert stored(memory) == [message.id for message in said]


def test_p8_what_was_deleted_stays_deleted_and_what_was_compressed_compressed(manager: OpenManager) -> None:
    memory, said = manager(), talk(2)
    memory.follow(said)
    memory.short_term.delete("a0")
    memory.short_term.compress_entry("q1", "On tea?")
    assert memory.follow(said) == []
    assert [(entry.id, entry.content) for entry in memory.short_term.entries][1:] == [
        ("q1", "On tea?"),
        ("a1", "Answer 1"),
    ]
    assert "a0" in stored(memory)


def test_a_message_that_changed_takes_the_place_of_what_it_was(manager: OpenManager) -> None:
    memory = manager()
    memory.follow([Message("user", "Call me at 555-1234", id="q"), Message("assistant", "I will", id="a")])
    memory.follow([Message("user", "Call me at [REDACTED]", id="q"), Message("assistant", "I will", id="a")])
    assert [message.content for message in memory.long_term.messages()] == ["Call me at [REDACTED]", "I will"]
    assert [entry.content for entry in memory.short_term.entries] == ["Call me at [REDACTED]", "I will"]


def test_p7_a_conversation_of_more_messages_than_are_known_is_not_taken_in_again(
    manager: OpenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not where its first messages, told again after the last, would evict what was said just now."""
    monkeypatch.setattr("memory_integrations.short_term._GONE_KNOWN", 10)
    memory, said = manager(short_term_policy=ShortTermPolicy(max_entries=10)), talk(40)
    for turn in range(0, 80, 2):
        assert memory.follow(said[: turn + 2]) == [f"q{turn // 2}", f"a{turn // 2}"]
    before = held(memory)
    changed = Message("assistant", "Answer 39, corrected", id="a39")
    assert memory.follow([*said[:-1], changed]) == ["a39"]
    assert held(memory) == before
    assert stored(memory) == [message.id for message in said]
    memory.clear_session()
    assert memory.follow(said[:4]) == ["q0", "a0", "q1", "a1"], "said anew"


def test_messages_without_ids_are_all_new(manager: OpenManager) -> None:
    memory = manager()
    memory.follow([Message("user", "Hello"), Message("assistant", "Hello")])
    memory.follow([Message("user", "Hello"), Message("assistant", "Hello")])
    assert len(held(memory)) == len(stored(memory)) == 4


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (f"{delimit('recalled', 'x')}\nAnd you?", "And you?"),
        ([{"type": "text", "text": f"See\n{delimit('facts', '{}')}"}, {"type": "image", "url": "u"}], "See"),
        ([delimit("recalled", "x"), "And you?"], "And you?"),
        (delimit("recalled", "x"), None),
        ([{"type": "text", "text": delimit("recalled", "x")}], None),
    ],
)
def test_p10_injected_memory_is_not_taken_in(manager: OpenManager, content: Any, kept: str | None) -> None:
    memory = manager()
    memory.follow([Message("user", content, id="q"), Message("assistant", "Fine", id="a")])
    expected = [kept] if kept else []
    assert [entry.content for entry in memory.short_term.entries] == [*expected, "Fine"]
    assert [message.text for message in memory.long_term.messages()] == [*expected, "Fine"]


def test_what_a_tool_found_in_memory_stays_with_its_call(manager: OpenManager) -> None:
    memory = manager()
    found = delimit("recalled", "8 May 2025 user: tea")
    memory.follow(
        [
            Message("user", "What do I drink?", id="q"),
            Message("assistant", "", id="c", tool_calls=(ToolCall("1", "search_memory"),)),
            Message("tool", found, id="r", tool_call_id="1"),
            Message("assistant", "Tea.", id="a"),
        ]
    )
    assert [m.content for m in memory.short_term.get_context()] == ["What do I drink?", "", found, "Tea."]
    assert stored(memory) == ["q", "a"]


def test_what_is_no_message_raises_and_nothing_is_taken_in(manager: OpenManager) -> None:
    memory = manager()
    with pytest.raises(MessageError):
        memory.follow([Message("user", "Hello"), "Hello"])  # type: ignore[list-item]
    assert held(memory) == stored(memory) == []


def test_following_manages_when_it_is_due(manager: OpenManager) -> None:
    memory = manager(short_term_policy=ShortTermPolicy(manage_every_n_turns=2))
    memory.follow([Message("user", "My name is Ann."), Message("assistant", "Hello Ann")])
    assert memory.get_fact("name") is None
    memory.follow([Message("user", "And I like tea."), Message("assistant", "Good")])
    assert memory.get_fact("name") == "Ann"


# Waiting


def test_an_exchange_is_remembered_once_its_answer_is_there(manager: OpenManager) -> None:
    memory = manager()
    memory.follow([Message("user", "What is tea?", id="q")])
    assert (held(memory), stored(memory)) == (["q"], [])
    memory.follow([Message("assistant", "A drink", id="a"), Message("user", "Of what?", id="q2")])
    assert stored(memory) == ["q", "a"]
    memory.follow([Message("user", "Anybody?", id="q3")], unanswered=True)
    assert stored(memory) == ["q", "a", "q2", "q3"]


def test_what_waits_is_stored_by_flush_and_on_closing(manager: OpenManager) -> None:
    memory = manager()
    memory.follow([Message("user", "First", id="q1")])
    memory.flush()
    assert stored(memory) == ["q1"]
    memory.follow([Message("user", "Second", id="q2")])
    memory.for_scope("user:bob/session:x").follow([Message("user", "Third", id="q3")])
    memory.close()
    assert stored(memory) == ["q1", "q2"]
    assert stored(memory.for_scope("user:bob")) == ["q3"]


def test_a_write_that_failed_waits_and_is_done_next_time(manager: OpenManager, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, said = manager(), talk(3)

    def fail(*args: Any) -> Any:
        raise StoreUnavailableError("away")

    with monkeypatch.context() as broken:
        broken.setattr(memory.long_term._collection, "encode", fail)
        for end in (2, 4):
            with pytest.raises(StoreUnavailableError):
                memory.follow(said[:end])
        with pytest.raises(StoreUnavailableError):
            memory.flush()
        with pytest.raises(StoreUnavailableError):
            memory.close()
    assert held(memory) == ["q0", "a0", "q1", "a1"]
    memory.follow(said)
    assert stored(memory) == [message.id for message in said]


class Filtered(StaticEmbeddings):
    """A service that does not take every text, not too much at once, and may be away."""

    away, refused, asked = False, "knife", 0
    most: int | None = None  # characters a call

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked += 1
        if self.away:
            raise ConnectionError("no route to host")
        if self.most is not None and sum(map(len, texts)) > self.most:
            raise ValueError("429 tokens per minute")
        if any(self.refused in text for text in texts):
            raise ValueError("400 content_filter")
        return super().embed_documents(texts)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets seconds pass."""
    passed = [time.monotonic()]
    monkeypatch.setattr("memory_integrations.sessions.time.monotonic", lambda: passed[0])

    def later(seconds: float) -> None:
        passed[0] += seconds

    return later


def test_p8_a_message_that_no_embedding_takes_keeps_no_other_from_being_remembered(
    manager: OpenManager, later: Callable[[float], None]
) -> None:
    service = Filtered()
    memory = manager(embeddings=service)
    said = ["Hello.", "Where is my bread knife?", "I live in Lisbon.", "I play the oboe.", "I swim.", "I read."]
    errors = []
    for number, text in enumerate(said):
        try:
            memory.follow([Message("user", text, id=f"q{number}"), Message("assistant", "Yes.", id=f"a{number}")])
        except EmbeddingError as error:
            errors.append(str(error))
    expected = [f"{side}{number}" for number in range(6) for side in "qa" if (side, number) != ("q", 1)]
    assert stored(memory) == expected
    assert len(errors) == 1, "it is not tried at each turn"
    with pytest.raises(EmbeddingError, match="content_filter"):
        memory.flush()
    later(60)
    asked = service.asked
    memory.follow([Message("user", "And I sing.", id="q6"), Message("assistant", "Yes.", id="a6")])
    assert service.asked - asked < 4, "the pause is longer each time"
    service.refused = "nothing any more"
    memory.close()
    assert stored(memory) == [*expected, "q6", "a6", "q1"]


def test_p8_a_limited_rate_loses_nothing_and_is_not_stormed(
    manager: OpenManager, later: Callable[[float], None]
) -> None:
    service = Filtered()
    memory = manager(embeddings=service)
    memory.long_term.open()
    service.most = 20
    said = talk(100)
    asked = service.asked
    for call in (lambda: memory.follow(said), memory.flush, lambda: memory.follow(said)):
        with contextlib.suppress(EmbeddingError):
            call()
        later(3600)
    assert service.asked - asked < 120
    service.most = None
    memory.flush()
    assert sorted(map(str, stored(memory))) == sorted(str(message.id) for message in said)


def test_p24_a_message_that_waits_is_stored_as_it_was_told_last(manager: OpenManager) -> None:
    service = Filtered()
    memory = manager(embeddings=service)
    secret, edited = (Message("user", f"My card is {text}", id="u") for text in ("4111, by the knife", "[removed]"))
    with pytest.raises(EmbeddingError):
        memory.follow([secret, Message("assistant", "Noted.", id="a")])
    memory.follow([edited, Message("user", "And now?", id="u2"), Message("assistant", "Yes.", id="a2")])
    service.refused = "nothing any more"
    memory.flush()
    texts = {message.id: message.text for message in memory.long_term.messages()}
    assert texts["u"] == "My card is [removed]"


def test_p8_nothing_is_given_up_while_the_embedding_is_away(manager: OpenManager) -> None:
    service = Filtered()
    memory = manager(embeddings=service)
    memory.long_term.open()
    service.away = True
    said = talk(6)
    for turn in range(0, 12, 2):
        with pytest.raises(EmbeddingError, match="no route to host"):
            memory.follow(said[turn : turn + 2])
    service.away = False
    memory.flush()
    assert stored(memory) == [message.id for message in said]


def test_p8_a_message_that_is_no_json_is_told_once_and_keeps_no_other_from_being_remembered(
    manager: OpenManager,
) -> None:
    memory = manager()
    bad = Message("user", "Hi", id="bad", metadata={"x": object()})
    with pytest.raises(MessageError, match=r"'bad' of user:ann/session:s1 stays out of long-term memory. .* not JSON"):
        memory.follow([bad, Message("assistant", "Yes.", id="a")])
    memory.flush()
    assert memory.follow([bad, *talk(1)]) == ["q0", "a0"]
    assert stored(memory) == ["a", "q0", "a0"]


def test_p35_who_only_reads_waits_for_nobody_who_writes(manager: OpenManager) -> None:
    """A chat history tells what its backing keeps at each reading."""
    slow = Slow()
    memory = manager(embeddings=slow)
    slow.go_on.set()
    memory.follow(talk(1))
    slow.begun.clear()
    slow.go_on.clear()
    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(memory.for_scope("user:ann/session:other").add_turn, "Hello", "Good day")
        assert slow.begun.wait(10)
        assert pool.submit(memory.follow, talk(1), remember=False).result(5) == []
        slow.go_on.set()
        writing.result(10)


def test_remember_false_stores_nothing_ever(manager: OpenManager) -> None:
    memory = manager()
    memory.follow(talk(1), remember=False)
    memory.flush()
    assert (len(held(memory)), stored(memory)) == (2, [])


@pytest.mark.parametrize("forget", ["erase", "clear_session"])
@pytest.mark.parametrize("scope", ["user:ann", "user:ann/session:s1"])
def test_p24_what_waits_is_erased_too(manager: OpenManager, forget: str, scope: str) -> None:
    memory = manager()
    memory.follow([Message("user", "Forget this", id="q")])
    if forget == "clear_session":
        memory.clear_session()
    else:
        memory.for_scope(scope).erase()
    memory.flush()
    memory.close()
    assert stored(memory) == []


# What was deleted


def test_p24_a_deleted_memory_does_not_come_back_when_the_conversation_is_told_again(manager: OpenManager) -> None:
    """P24: an agent's checkpoints still hold it, and go on being told, also after a restart."""
    memory, said = (
        manager(),
        [Message("user", "My code is xyzzy " * 200, id="q"), Message("assistant", "I see", id="a")],
    )
    memory.follow(said)
    [hit] = [hit for hit in memory.search_long_term("code") if hit.message_ids == ("q",)]
    assert memory.long_term.delete([hit.id]) == 1
    assert stored(memory) == ["a"] and memory.long_term.count() == 1
    memory.close()
    again = manager()
    again.follow([*said, Message("user", "And now?", id="q2")], unanswered=True)
    assert stored(again) == ["a", "q2"]
    assert held(again) == ["a", "q2"]


@pytest.mark.parametrize("scope", ["user:ann", "user:ann/session:s1"])
def test_p24_what_was_erased_does_not_come_back_either(manager: OpenManager, scope: str) -> None:
    memory = manager(short_term_policy=ShortTermPolicy(manage_every_n_turns=1))
    said = [Message("user", "My name is Ann.", id="q"), Message("assistant", "Hello Ann", id="a")]
    memory.follow(said)
    memory.for_scope(scope).erase()
    memory.for_scope("user:ann").features.erase()
    memory.follow([*said, Message("user", "Who am I?", id="q2"), Message("assistant", "I do not know", id="a2")])
    assert stored(memory) == ["q2", "a2"]
    assert memory.get_fact("name") is None


@pytest.mark.parametrize("scope", ["user:ann", "user:ann/session:s1"])
def test_p24_what_was_erased_does_not_come_back_to_a_conversation_that_is_not_remembered(
    manager: OpenManager, scope: str
) -> None:
    memory, said = manager(), talk(2)
    memory.follow(said, remember=False)
    memory.for_scope(scope).erase()
    memory.follow([*said, Message("user", "Who am I?", id="q")], remember=False)
    assert (held(memory), stored(memory)) == (["q"], [])


@pytest.mark.parametrize("scope", ["user:ann", "user:ann/session:s1"])
def test_p24_what_was_never_stored_does_not_come_back_either(manager: OpenManager, scope: str) -> None:
    """The answer that an exchange waited for comes after the erasure, with the conversation told again."""
    memory = manager()
    said = [Message("user", "My name is Ann.", id="q")]
    memory.follow(said)  # waits
    memory.for_scope(scope).erase()
    memory.follow([*said, Message("assistant", "Hello", id="a")])
    assert stored(memory) == held(memory) == ["a"]
    memory.close()
    again = manager()
    again.follow([*said, Message("user", "Who am I?", id="q2")], unanswered=True)
    assert stored(again) == ["a", "q2"]


@pytest.mark.parametrize(("turns", "points"), [(150, 1), (700, 17)])
@pytest.mark.parametrize("restarted", [False, True])
def test_p24_an_erasure_leaves_few_points_and_knows_all_that_was_said(
    manager: OpenManager, restarted: bool, turns: int, points: int
) -> None:
    """A server forgets users without end: a point for each message would make every later erasure slower."""
    memory, said = manager(), talk(turns)
    for part in (said[:200], said[200:]):
        memory.follow(part)
        memory.for_scope("user:ann").erase()
        if restarted:
            memory.close()
            memory = manager()
    assert len(list(memory._open.memories.scroll(None))) == points
    memory.follow([*said, Message("user", "Who am I?", id="new")], unanswered=True)
    assert stored(memory) == held(memory) == ["new"]
    other = memory.for_scope("user:bob/session:s1")
    other.follow(talk(1))
    assert stored(other) == ["q0", "a0"], "another's messages of the same ids are others"


class Slow(StaticEmbeddings):
    """Says that it is at work, and waits until it may go on."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.begun.set()
        assert self.go_on.wait(10)
        return super().embed_documents(texts)


@pytest.mark.parametrize("scope", ["user:ann", "user:ann/session:s1"])
def test_p24_an_erasure_waits_for_a_write_under_way(manager: OpenManager, scope: str) -> None:
    slow = Slow()
    memory = manager(embeddings=slow)
    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(memory.follow, talk(1))
        assert slow.begun.wait(10)
        erasing = pool.submit(memory.for_scope(scope).erase)
        slow.go_on.set()
        writing.result(10)
        assert erasing.result(10).memories == 2
    assert stored(memory) == []


@pytest.mark.parametrize("call", ["follow", "remember", "flush"])
@pytest.mark.parametrize("how", ["erase", "erase the session", "delete"])
def test_p24_what_is_removed_while_the_conversation_is_told_again_stays_away(
    manager: OpenManager, monkeypatch: pytest.MonkeyPatch, call: str, how: str
) -> None:
    """It was seen that the messages are not deleted; another thread's deletion comes before they are written."""
    memory, said = manager(), talk(1)
    memory.follow(said)
    ids = [hit.id for hit in memory.search_long_term("Question about tea", 9)]
    memory.close()
    memory = manager()  # it knows nothing of the conversation
    if call == "flush":
        memory._open.sessions.wait(memory.scope, said)

    def remove() -> None:
        if how == "delete":
            memory.for_scope("user:ann").long_term.delete(ids)
        else:
            memory.for_scope("user:ann" if how == "erase" else "user:ann/session:s1").erase()

    removing = threading.Thread(target=remove)
    owner, name = (memory._open.sessions, "waiting") if call == "flush" else (memory, "_as_recorded")
    real = getattr(owner, name)

    def meanwhile(*args: Any, **options: Any) -> Any:
        found = real(*args, **options)
        if threading.current_thread() is not removing and removing.ident is None:
            removing.start()
            removing.join(0.3)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, meanwhile)
        if call == "flush":
            memory.flush()
        else:
            getattr(memory, call)(said)
    removing.join(10)
    assert stored(memory) == []
    memory.flush()
    assert stored(memory) == []


def test_p24_an_erasure_that_is_refused_leaves_what_waits(
    manager: OpenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = manager()
    memory.follow([Message("user", "Hello", id="q")])

    def refuse(*given: Any) -> int:
        raise StoreUnavailableError("locked")

    with monkeypatch.context() as patch:
        patch.setattr(LongTermMemory, "erase", refuse)
        with pytest.raises(StoreUnavailableError):
            memory.erase()
    memory.flush()
    assert stored(memory) == ["q"]


def test_what_is_stored_on_purpose_comes_back(manager: OpenManager) -> None:
    memory, said = manager(), talk(1)
    memory.follow(said)
    memory.for_scope("user:ann").erase()
    memory.long_term.store_messages(said)
    assert stored(memory) == ["q0", "a0"]
    memory.follow([*said, *talk(2)[2:]])
    assert stored(memory) == ["q0", "a0", "q1", "a1"]


# What a model is given


def test_the_latest_question_is_not_recalled_to_itself(manager: OpenManager) -> None:
    memory = manager()
    memory.for_scope("user:ann/session:before").add_turn("I drink oolong tea", "Good choice")
    said = [Message("user", "Which tea do I drink, oolong tea?", id="q")]
    memory.follow(said, unanswered=True)
    context = memory.get_context_of(said)
    assert "I drink oolong tea" in context.long_term
    assert "Which tea" not in context.long_term
    assert [message.id for message in context.messages] == ["q"]


def test_the_same_id_in_another_session_is_another_message(manager: OpenManager) -> None:
    memory = manager()
    memory.for_scope("user:ann/session:before").follow(
        [Message("user", "I drink oolong tea", id="1"), Message("assistant", "Good", id="2")]
    )
    context = memory.get_context_of([Message("user", "Which tea do I drink?", id="1")])
    assert "I drink oolong tea" in context.long_term


def test_the_conversation_is_shown_under_the_policy_and_the_turn_whole(manager: OpenManager) -> None:
    memory = manager(short_term_policy=ShortTermPolicy(max_tokens=150))
    said = [
        *talk(30),
        Message("user", "Look it up", id="q"),
        *(
            part
            for i in range(5)
            for part in (
                Message("assistant", "", id=f"c{i}", tool_calls=(ToolCall(f"{i}", "look"),)),
                Message("tool", "long result " * 40, id=f"r{i}", tool_call_id=f"{i}"),
            )
        ),
    ]
    shown = [message.id for message in memory.get_context_of(said, recall=0).messages]
    turn = [message.id for message in said[60:]]
    assert shown[-len(turn) :] == turn
    before = [message.id for message in memory.get_context_of(said[:61], recall=0).messages]
    assert shown[: -len(turn) + 1] == before  # the agent's work takes nothing from what it was given at first
    assert 1 < len(before) < 30


def test_a_call_keeps_its_result_whatever_is_said_between_them(manager: OpenManager) -> None:
    """A tool that shows an image as a user's message; a human who speaks before a call is approved."""
    memory = manager()
    said = [
        *talk(2),
        Message("user", "Buy it", id="q"),
        Message("assistant", "", id="c", tool_calls=(ToolCall("1", "screenshot"), ToolCall("2", "pay"))),
        Message("tool", "see below", id="r1", tool_call_id="1"),
        Message("user", "the image", id="i"),
        Message("tool", "paid", id="r2", tool_call_id="2"),
    ]
    shown = [message.id for message in memory.get_context_of(said, recall=0).messages]
    assert shown == ["q0", "a0", "q1", "a1", "q", "c", "r1", "r2", "i"], "in the order that providers ask for"
    later = [*said, Message("assistant", "Bought", id="a"), Message("user", "And that", id="q2")]
    again = [
        Message("assistant", "", id="c2", tool_calls=(ToolCall("2", "pay"),)),
        Message("tool", "ok", id="r3", tool_call_id="2"),
    ]
    shown = [message.id for message in memory.get_context_of([*later, *again], 15, recall=0).messages]
    assert shown == ["q2", "c2", "r3"], "an id that a provider gave again is the later call's"


def test_p30_what_is_past_its_age_stays_hidden_also_when_it_is_told_again(manager: OpenManager, clock: Clock) -> None:
    memory = manager(short_term_policy=ShortTermPolicy(max_age=timedelta(minutes=5)))
    said = talk(2)
    memory.follow(said[:2])
    clock.advance(600)
    memory.follow(said)
    context = memory.get_context_of(said, recall=0)
    assert [message.id for message in context.messages] == ["q1", "a1"]
    assert {(dropped.id, dropped.reason) for dropped in context.dropped} == {("q0", "expired"), ("a0", "expired")}


def test_what_was_deleted_is_dropped_with_its_reason(manager: OpenManager) -> None:
    memory, said = manager(), talk(2)
    memory.follow(said)
    memory.short_term.delete("a0")
    context = memory.get_context_of(said, recall=0)
    assert [message.id for message in context.messages] == ["q0", "q1", "a1"]
    assert [(dropped.id, dropped.reason) for dropped in context.dropped] == [("a0", "deleted")]


def test_nothing_said_gives_the_facts_alone(manager: OpenManager) -> None:
    memory = manager()
    memory.set_fact("city", "Lisbon")
    context = memory.get_context_of([])
    assert (context.messages, context.long_term, "Lisbon" in context.features) == ((), "", True)


@given(st.lists(st.sampled_from(["user", "assistant", "system"]), max_size=12), st.integers(0, 200))
def test_p2_the_latest_user_message_is_always_there(manager: OpenManager, roles: list[str], budget: int) -> None:
    memory = manager("session:x")
    said = [Message(role, f"{role} {i} " * (i + 1), id=f"m{i}") for i, role in enumerate(roles)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BudgetWarning)
        shown = [message.id for message in memory.get_context_of(said, budget, recall=0).messages]
    users = [message.id for message in said if message.role == "user"]
    if users:
        assert users[-1] in shown
        first = next(message for message in said if message.id in shown and message.role != "system")
        assert first.role == "user"


async def test_the_async_twins_do_the_same(manager: OpenManager) -> None:
    memory, said = manager(), talk(2)
    assert await memory.afollow(said) == [message.id for message in said]
    context = await memory.aget_context_of(said)
    assert context.messages == memory.get_context_of(said).messages
    await memory.afollow([Message("user", "Wait", id="w")])
    await memory.aflush()
    assert stored(memory)[-1] == "w"
