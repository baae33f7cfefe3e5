"""A conversation as LangChain's chat history, alone and under the real ``RunnableWithMessageHistory``."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from agent_helpers import Scripted, texts
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.chat_history import BaseChatMessageHistory, InMemoryChatMessageHistory
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    messages_from_dict,
    messages_to_dict,
)
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_strategies import messages as any_message
from strategies import Clock, fresh_scope, sentences

from memory_integrations import (
    BudgetError,
    Delete,
    LongTermMemory,
    ManagementPlan,
    MemoryManager,
    ScopeError,
    ShortTermPolicy,
    StoreError,
    StoreUnavailableError,
)
from memory_integrations.collection import MemoryCollection
from memory_integrations.delimiters import delimit
from memory_integrations.langchain import ShortTermChatMessageHistory

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainDeprecationWarning")

SESSION = "s"


@pytest.fixture
def memory(tmp_path: Path, clock: Clock) -> Iterator[MemoryManager]:
    with MemoryManager("user:ann/session:s", data_dir=tmp_path, clock=clock) as memory:
        yield memory


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MemoryManager]:
    """One open memory for many examples, each with a user of its own."""
    with MemoryManager("global", data_dir=tmp_path_factory.mktemp("shared")) as memory:
        yield memory


def history_of(memory: MemoryManager, **options: Any) -> ShortTermChatMessageHistory:
    return ShortTermChatMessageHistory(memory, SESSION, **options)


def remembered(memory: MemoryManager) -> list[str]:
    """What long-term memory holds, in the order in which it was said."""
    return [message.text for message in memory.long_term.messages()]


def shown(memory: MemoryManager) -> list[str]:
    return [message.text for message in memory.short_term.get_context()]


# Backings


class TextFile(BaseChatMessageHistory):
    """A history in a file that keeps who said what, and no ids; it knows only sync methods."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]
        assert_not_in_a_loop()
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        found = messages_from_dict([json.loads(line) for line in lines])
        return [message.model_copy(update={"id": None}) for message in found]

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        assert_not_in_a_loop()
        with self.path.open("a") as file:
            file.writelines(f"{json.dumps(entry)}\n" for entry in messages_to_dict(messages))

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)


class OneByOne(TextFile):
    """An old one: keeps ids, and takes one message at a time."""

    add_messages = BaseChatMessageHistory.add_messages

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return messages_from_dict([json.loads(line) for line in lines])

    def add_message(self, message: BaseMessage) -> None:
        TextFile.add_messages(self, [message])


def assert_not_in_a_loop() -> None:
    """A backing that blocks must be called in a thread."""
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


Backing = Callable[[], BaseChatMessageHistory]


def in_memory(tmp_path: Path) -> Backing:
    kept = InMemoryChatMessageHistory()
    return lambda: kept


def text_file(tmp_path: Path) -> Backing:
    return lambda: TextFile(tmp_path / "history.jsonl")


def one_by_one(tmp_path: Path) -> Backing:
    return lambda: OneByOne(tmp_path / "old.jsonl")


BACKINGS = [in_memory, text_file, one_by_one]


@pytest.fixture(params=BACKINGS, ids=lambda make: make.__name__)
def backing(request: pytest.FixtureRequest, tmp_path: Path) -> Backing:
    """Makes the history that keeps the whole conversation, anew for each call as a server would."""
    made: Backing = request.param(tmp_path)
    return made


@pytest.fixture(params=BACKINGS[:2], ids=lambda make: make.__name__)
def either_backing(request: pytest.FixtureRequest, tmp_path: Path) -> Backing:
    """One that keeps ids and one that does not, where there is much to be tried with each."""
    made: Backing = request.param(tmp_path)
    return made


# Alone


# A block that is empty may be left out: a memory looks for injected ones, of which nothing may be left.
_full = any_message.filter(lambda message: isinstance(message.content, str) or all(message.content))


@settings(max_examples=40)
@given(said=st.lists(_full, max_size=4), answer=sentences)
def test_p7_every_kind_of_message_comes_back_as_it_was(
    shared: MemoryManager, said: list[BaseMessage], answer: str
) -> None:
    """But for the id that is given on arrival, and what no view shows, such as a tool's result without its call."""
    memory = shared.for_scope(fresh_scope().with_session("s"))
    memory.short_term.policy = ShortTermPolicy(max_tokens=1_000_000)  # images count for much
    # Messages with ids of their own: the same twice is one message, which another test is about.
    said = [message.model_copy(update={"id": f"own {i}" if message.id else None}) for i, message in enumerate(said)]
    said = [HumanMessage("Hello"), *said, AIMessage(answer)]
    before = [message.model_copy(deep=not isinstance(message, ToolMessage)) for message in said]
    ShortTermChatMessageHistory(memory, remember=False).add_messages(said)
    assert said == before  # the caller's own are left as they were
    found = {message.id: message for message in ShortTermChatMessageHistory(memory, remember=False).messages}
    ids = [entry.id for entry in memory.short_term.entries]
    kept = [(id_, message) for id_, message in zip(ids, said, strict=True) if id_ in found]
    for id_, message in kept:
        if not getattr(message, "tool_calls", None) and not getattr(message, "invalid_tool_calls", None):
            assert found[id_] == message.model_copy(update={"id": id_})
    hidden = (ToolMessage, AIMessage)
    assert all(isinstance(m, hidden) or m.type == "tool" for id_, m in zip(ids, said, strict=True) if id_ not in found)


def test_a_turn_with_tools_comes_back_in_order(memory: MemoryManager) -> None:
    calls: list[Any] = [{"name": "add", "args": {"a": 1}, "id": c} for c in ("c1", "c2")]
    said = [
        SystemMessage("Be brief", id="0"),
        HumanMessage([{"type": "text", "text": "Add"}, {"type": "image_url", "image_url": {"url": "data:,"}}], id="1"),
        AIMessage(
            "", tool_calls=calls, id="2", usage_metadata={"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
        ),
        ToolMessage("2", tool_call_id="c1", artifact={"sum": 2}, id="3"),
        ToolMessage("no", tool_call_id="c2", status="error", id="4"),
        AIMessage("It is 2.", id="5", response_metadata={"model": "m"}),
    ]
    history_of(memory).add_messages(said)
    assert history_of(memory).messages == said


def test_p1_p2_a_view_begins_with_a_user_and_has_the_latest_question(memory: MemoryManager) -> None:
    memory.short_term.policy = ShortTermPolicy(max_tokens=60, min_entries=0)
    history = history_of(memory)
    for i in range(12):
        calls: list[Any] = [{"name": "look_up", "args": {"page": i}, "id": f"c{i}"}]
        history.add_messages(
            [
                HumanMessage(f"What is on page {i} of the long book?"),
                AIMessage("", tool_calls=calls),
                ToolMessage(f"page {i}", tool_call_id=f"c{i}"),
                AIMessage(f"Page {i} has words"),
            ]
        )
        view = history.messages
        assert isinstance(view[0], HumanMessage)
        assert f"What is on page {i} of the long book?" in texts(view)
        called = {call["id"] for message in view if isinstance(message, AIMessage) for call in message.tool_calls}
        assert called == {message.tool_call_id for message in view if isinstance(message, ToolMessage)}
    history.add_message(HumanMessage("A very long question indeed. " * 60))
    with pytest.warns(UserWarning, match="over the budget"):
        assert texts(history.messages) == ["A very long question indeed. " * 60]


def test_p7_the_same_id_twice_leaves_one_message(memory: MemoryManager, backing: Backing) -> None:
    for options in ({}, {"backing": backing()}):
        history = history_of(memory, **options)
        for _ in range(2):
            history.add_messages([HumanMessage("Hello there", id="1"), AIMessage("Good day", id="2")])
        history.add_messages([HumanMessage("And you?", id="3")] * 2)
        assert texts(history.messages) == texts(history_of(memory).messages) == ["Hello there", "Good day", "And you?"]
        assert remembered(memory) == ["Hello there", "Good day"]
        history.clear()


@pytest.mark.parametrize("kept", [False, True], ids=["alone", "backing"])
def test_p7_the_same_id_with_another_text_takes_its_place(memory: MemoryManager, kept: bool) -> None:
    history = history_of(memory, backing=InMemoryChatMessageHistory() if kept else None)
    history.add_messages([HumanMessage("Helo", id="1"), AIMessage("Good day", id="2")])
    history.add_messages([HumanMessage("Hello", id="1")])
    assert texts(history.messages) == texts(history.messages) == ["Hello", "Good day"]
    assert remembered(memory) == ["Hello", "Good day"]


def test_p7_chunks_are_kept_as_whole_messages(memory: MemoryManager, backing: Backing) -> None:
    chunk = AIMessageChunk("Hel") + AIMessageChunk("lo")
    history = history_of(memory, backing=backing())
    history.add_messages([HumanMessage("Hi"), chunk])
    for found in (history.messages, backing().messages, history_of(memory).messages):
        assert [type(message) for message in found] == [HumanMessage, AIMessage]
        assert texts(found) == ["Hi", "Hello"]


def test_what_is_given_out_is_the_callers_to_change(memory: MemoryManager) -> None:
    """Providers' integrations write their cache marks into the messages that they are given."""
    said = HumanMessage([{"type": "text", "text": "Hi"}], id="1", additional_kwargs={"tags": ["a"]})
    history = history_of(memory)
    history.add_messages([said])
    said.content[0]["text"] = "changed"  # type: ignore[index]
    view = history.messages[0]
    view.content[0]["cache_control"] = {"type": "ephemeral"}  # type: ignore[index]
    view.additional_kwargs["tags"].append("b")
    view.additional_kwargs["more"] = 1
    original = HumanMessage([{"type": "text", "text": "Hi"}], id="1", additional_kwargs={"tags": ["a"]})
    assert history.messages == history_of(memory).messages == [original]


async def test_sync_and_async_show_the_same(memory: MemoryManager, backing: Backing) -> None:
    history = history_of(memory, backing=backing())
    await history.aadd_messages([HumanMessage("Hello there"), AIMessage("Good day")])
    assert texts(await history.aget_messages()) == ["Hello there", "Good day"]
    assert await asyncio.to_thread(lambda: history.messages) == await history.aget_messages()
    await history.aclear()
    assert await history.aget_messages() == []
    assert await asyncio.to_thread(lambda: backing().messages) == []


def test_two_histories_and_the_memory_show_one_conversation(memory: MemoryManager, backing: Backing) -> None:
    first, second = history_of(memory, backing=backing()), history_of(memory, backing=backing())
    for i in range(3):
        first.add_user_message(f"Question {i}")
        second.add_ai_message("Noted.")  # the same again and again
    expected = [text for i in range(3) for text in (f"Question {i}", "Noted.")]
    assert texts(first.messages) == texts(second.messages) == expected
    assert texts(history_of(memory).messages) == shown(memory) == expected
    assert shown(memory.for_scope("user:ann/session:s")) == expected
    assert shown(memory.for_scope("user:bob/session:s")) == []


def test_a_session_that_is_not_named_is_the_memorys(memory: MemoryManager) -> None:
    ShortTermChatMessageHistory(memory).add_user_message("Here")
    assert texts(history_of(memory).messages) == ["Here"]
    assert ShortTermChatMessageHistory(memory, "other").messages == []
    with pytest.raises(ScopeError, match="session_id=''"):
        ShortTermChatMessageHistory(memory, "")


def test_a_budget_of_its_own(memory: MemoryManager, backing: Backing) -> None:
    history_of(memory, backing=backing()).add_messages([HumanMessage(f"Sentence number {i}") for i in range(20)])
    for options in ({}, {"backing": backing()}):
        view = history_of(memory, max_tokens=12, **options).messages
        assert texts(view) == ["Sentence number 17", "Sentence number 18", "Sentence number 19"]
    with pytest.raises(BudgetError):
        history_of(memory, max_tokens=-1)


def test_p10_what_was_injected_is_not_kept_again(memory: MemoryManager) -> None:
    echo = delimit("recalled", "8 May 2025 user: the old secret")
    history_of(memory).add_messages(
        [HumanMessage(f"What did I say?\n\n{echo}"), AIMessage(echo), AIMessage("Nothing.")]
    )
    assert texts(history_of(memory).messages) == remembered(memory) == ["What did I say?", "Nothing."]


# Long-term memory


def test_an_exchange_is_remembered_once_its_answer_is_there(memory: MemoryManager) -> None:
    history = history_of(memory)
    history.add_user_message("I play the oboe")
    assert remembered(memory) == []
    assert texts(history.messages) == ["I play the oboe"]
    history.add_ai_message("Lovely")
    assert remembered(memory) == ["I play the oboe", "Lovely"]
    assert [m.session_id for m in memory.long_term.messages()] == ["s", "s"]
    assert "oboe" in memory.for_scope("user:ann/session:later").search_long_term("Which instrument?")[0].text


def test_what_waits_for_an_answer_is_remembered_at_the_end(tmp_path: Path) -> None:
    with MemoryManager("user:ann", data_dir=tmp_path) as memory:
        history_of(memory).add_user_message("I play the oboe")
    with MemoryManager("user:ann", data_dir=tmp_path) as memory:
        assert remembered(memory) == ["I play the oboe"]


def test_what_is_not_to_be_remembered_is_not(memory: MemoryManager) -> None:
    history = history_of(memory, remember=False)
    history.add_messages([HumanMessage("I play the oboe"), AIMessage("Lovely")])
    assert texts(history.messages) == ["I play the oboe", "Lovely"]
    memory.flush()
    assert memory.long_term.count() == 0


def test_clearing_drops_what_waits_and_keeps_what_was_remembered(memory: MemoryManager, backing: Backing) -> None:
    history = history_of(memory, backing=backing())
    history.add_messages([HumanMessage("I play the oboe"), AIMessage("Lovely"), HumanMessage("My PIN is 1234")])
    history.clear()
    memory.flush()
    assert (history.messages, shown(memory), backing().messages) == ([], [], [])
    assert remembered(memory) == ["I play the oboe", "Lovely"]


def test_a_conversation_is_cut_by_clearing_and_adding_again(memory: MemoryManager, backing: Backing) -> None:
    """What LangChain's guides do to shorten a history."""
    history = history_of(memory, backing=backing())
    history.add_messages([HumanMessage("One"), AIMessage("1"), HumanMessage("Two"), AIMessage("2")])
    before = history.messages
    history.clear()
    history.add_messages([HumanMessage("They counted."), *before[-2:]])
    assert texts(history.messages) == texts(backing().messages) == shown(memory) == ["They counted.", "Two", "2"]


# Backings


def test_two_machines_over_one_backing_see_one_conversation_under_the_policy(tmp_path: Path, backing: Backing) -> None:
    policy = ShortTermPolicy(max_entries=4, min_entries=1)
    with (
        MemoryManager("user:ann", data_dir=tmp_path / "1", short_term_policy=policy) as first,
        MemoryManager("user:ann", data_dir=tmp_path / "2", short_term_policy=policy) as second,
    ):
        said: list[str] = []
        for _ in range(4):
            for memory in (first, second):
                history = history_of(memory, backing=backing())
                view = history.messages
                assert texts(view) == said[-4:] or texts(view) == said
                history.add_messages([HumanMessage(f"Question {len(said)}"), AIMessage("Noted.")])
                said += [f"Question {len(said)}", "Noted."]
        assert texts(backing().messages) == said
        for memory in (first, second):
            assert texts(history_of(memory, backing=backing()).messages)[-4:] == said[-4:]
            assert shown(memory.for_scope("user:ann/session:s")) == said[-4:]
            # Each remembers what was said on it; together that is the whole.
            assert len(remembered(memory)) == 8
        assert sorted([*remembered(first), *remembered(second)]) == sorted(said)


def test_a_conversation_outlives_the_process(tmp_path: Path, backing: Backing) -> None:
    for i in range(3):
        with MemoryManager("user:ann", data_dir=tmp_path / "memory") as memory:
            history = history_of(memory, backing=backing())
            assert len(history.messages) == 2 * i
            history.add_messages([HumanMessage(f"Question {i}"), AIMessage("Noted.")])
            assert len(remembered(memory)) == 2 * i + 2
            assert shown(memory.for_scope("user:ann/session:s")) == texts(history.messages)


def test_adding_to_a_conversation_that_was_not_read_yet(tmp_path: Path, backing: Backing) -> None:
    with MemoryManager("user:ann", data_dir=tmp_path / "1") as memory:
        history_of(memory, backing=backing()).add_messages([HumanMessage("Hello"), AIMessage("Hello")])
    with MemoryManager("user:ann", data_dir=tmp_path / "2") as memory:
        history = history_of(memory, backing=backing())
        history.add_user_message("Hello")
        assert texts(history.messages) == shown(memory.for_scope("user:ann/session:s")) == ["Hello"] * 3
        assert [message.type for message in history.messages] == ["human", "ai", "human"]


def test_a_long_backing_gives_the_policys_view(memory: MemoryManager, backing: Backing) -> None:
    memory.short_term.policy = ShortTermPolicy(max_tokens=50)
    said = [(HumanMessage, AIMessage)[i % 2](f"Sentence number {i}", id=f"m{i}") for i in range(500)]
    backing().add_messages(said)
    for _ in range(2):  # the second time all of it is known
        history = history_of(memory, backing=backing())
        view = texts(history.messages)
        assert view == texts(said)[-len(view) :]
        assert 6 <= len(view) <= 16
        assert isinstance(history.messages[0], HumanMessage)
        assert shown(memory) == view
    history.add_messages([HumanMessage("Sentence number 500"), AIMessage("Noted.")])
    assert len(backing().messages) == 502
    assert texts(history.messages)[-2:] == shown(memory)[-2:] == ["Sentence number 500", "Noted."]
    assert remembered(memory) == ["Sentence number 500", "Noted."]


def test_what_was_deleted_or_compressed_here_stays_so_over_a_backing(memory: MemoryManager, backing: Backing) -> None:
    history = history_of(memory, backing=backing())
    history.add_messages(
        [HumanMessage("A very long story of gardens and walls. " * 5), AIMessage("I see"), HumanMessage("Never mind")]
    )
    story, answer, _ = memory.short_term.entries
    memory.short_term.compress_entry(story.id, "A garden, a wall.")
    memory.short_term.delete(answer.id)
    for _ in range(2):
        assert texts(history_of(memory, backing=backing()).messages) == ["A garden, a wall.", "Never mind"]
    assert len(backing().messages) == 3


def test_p30_what_expired_is_not_shown_again_from_a_backing(
    memory: MemoryManager, clock: Clock, backing: Backing
) -> None:
    memory.short_term.policy = ShortTermPolicy(max_age=timedelta(minutes=1))
    history = history_of(memory, backing=backing())
    history.add_messages([HumanMessage("Old"), AIMessage("Older")])
    clock.advance(120)
    history.add_messages([HumanMessage("New"), AIMessage("Newer"), HumanMessage("Newest"), AIMessage("!")])
    for _ in range(2):
        assert texts(history_of(memory, backing=backing()).messages) == ["New", "Newer", "Newest", "!"]


def test_something_that_is_said_again_and_again_is_not_lost(memory: MemoryManager, backing: Backing) -> None:
    """A backing without ids gives the same message in the same place the same one."""
    memory.short_term.policy = ShortTermPolicy(max_entries=6)
    for i in range(1, 8):
        history = history_of(memory, backing=backing())
        history.add_messages([HumanMessage("ok", id=f"u{i}"), AIMessage("ok")])
        assert len(backing().messages) == 2 * i
        assert len(remembered(memory)) == 2 * i
        assert len(memory.short_term) == min(2 * i, 6)
        assert texts(history.messages) == ["ok"] * 2 * i


def test_p21_two_users_say_the_same_in_sessions_of_one_name(memory: MemoryManager, tmp_path: Path) -> None:
    """Over backings that keep no ids, which are made of what is said then."""
    for user in ("ann", "bob"):
        backing = TextFile(tmp_path / user)
        backing.add_messages([HumanMessage("Hello"), AIMessage("Hi")])
        history = history_of(memory.for_scope(f"user:{user}"), backing=backing)
        assert texts(history.messages) == ["Hello", "Hi"]
        history.add_messages([HumanMessage("How are you?"), AIMessage("Fine")])
        assert remembered(history.memory) == ["How are you?", "Fine"]


def test_p26_the_same_text_written_twice_at_once_is_two_messages(memory: MemoryManager, tmp_path: Path) -> None:
    """Another run writes between this one's reading and writing; the file keeps no ids to tell them apart."""

    class Interrupted(TextFile):
        interrupted = False

        def add_messages(self, messages: Sequence[BaseMessage]) -> None:
            if not self.interrupted:
                self.interrupted = True
                history_of(memory, backing=self).add_messages([HumanMessage("ok"), AIMessage("Noted.")])
            super().add_messages(messages)

    history = history_of(memory, backing=Interrupted(tmp_path / "history.jsonl"))
    history.add_messages([HumanMessage("ok"), AIMessage("Noted.")])
    for _ in range(2):
        assert texts(history.messages) == ["ok", "Noted."] * 2
        assert sorted(shown(memory)) == sorted(["ok", "Noted."] * 2)


async def test_p35_no_store_is_opened_or_written_in_the_loop(
    memory: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_loop: list[bool] = []
    for method in ("open", "store_messages"):
        real = getattr(LongTermMemory, method)

        def noting(*given: Any, _real: Any = real) -> Any:
            in_loop.append(threading.current_thread() is threading.main_thread())
            return _real(*given)

        monkeypatch.setattr(LongTermMemory, method, noting)
    history = history_of(memory)
    await history.aadd_messages([HumanMessage("Hello"), AIMessage("Good day")])
    await history.aget_messages()
    assert in_loop
    assert not any(in_loop)


async def test_p35_the_loop_waits_for_no_conversation_that_is_being_managed(memory: MemoryManager) -> None:
    """Managing holds the conversation while it writes to a journal, which may be far away."""
    backing = InMemoryChatMessageHistory()
    history = ShortTermChatMessageHistory(memory, "s", backing=backing)
    await history.aadd_messages([HumanMessage("One", id="m1")])
    is_held, go_on = threading.Event(), threading.Event()
    came_to_it: list[bool] = []

    def manage() -> None:
        with history.memory.short_term.held():
            is_held.set()
            came_to_it.append(go_on.wait(5))

    managing = threading.Thread(target=manage)
    managing.start()
    assert is_held.wait(10)
    adding = asyncio.create_task(history.aadd_messages([HumanMessage("Two", id="m2")]))
    asyncio.get_running_loop().call_later(0.2, go_on.set)  # a loop that waits never comes to this
    await adding
    managing.join()
    assert came_to_it == [True]
    assert texts(backing.messages) == texts(history.messages) == ["One", "Two"]


async def test_p35_a_session_of_long_ago_is_brought_back_outside_the_loop(
    memory: MemoryManager, backing: Backing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory_integrations.sessions._KEPT", 1)

    def long_ago() -> None:
        memory.for_scope(memory.scope).add_turn("Hello", "Good day")
        for number in range(4):
            memory.for_scope(f"user:other/session:{number}").add_turn("Hello", "Good day")

    await asyncio.to_thread(long_ago)
    readers: list[int] = []
    scroll = MemoryCollection.scroll

    def noting(*given: Any, **options: Any) -> Any:
        readers.append(threading.get_ident())
        return scroll(*given, **options)

    monkeypatch.setattr(MemoryCollection, "scroll", noting)
    await history_of(memory, backing=backing()).aget_messages()
    await history_of(memory, backing=backing()).aadd_messages([HumanMessage("Are you there?")])
    assert readers
    assert threading.get_ident() not in readers


# Under RunnableWithMessageHistory


def config() -> Any:
    return {"configurable": {"session_id": SESSION}}


def invoke(chain: Runnable[Any, Any], given: Any) -> Any:
    return chain.invoke(given, config())


def ainvoke(chain: Runnable[Any, Any], given: Any) -> Any:
    return asyncio.run(chain.ainvoke(given, config()))


def stream(chain: Runnable[Any, Any], given: Any) -> Any:
    return list(chain.stream(given, config()))


def astream(chain: Runnable[Any, Any], given: Any) -> Any:
    async def run() -> Any:
        return [part async for part in chain.astream(given, config())]

    return asyncio.run(run())


MODES = [invoke, ainvoke, stream, astream]
Mode = Callable[[Runnable[Any, Any], Any], Any]
Factory = Callable[[str], BaseChatMessageHistory]


class Chain:
    """A conversation through ``RunnableWithMessageHistory``, with a model that does what a test says meanwhile."""

    def __init__(self, kind: str, factory: Factory, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.kind = kind
        self.model = Scripted(reply=self._reply)
        self.meanwhile = meanwhile
        runnable: Runnable[Any, Any] = self.model
        keys: dict[str, Any] = {}
        if kind == "keys":
            prompt = ChatPromptTemplate([MessagesPlaceholder("history"), ("human", "{input}")])
            runnable = prompt | self.model | StrOutputParser()
            keys = {"input_messages_key": "input", "history_messages_key": "history"}
        elif kind == "one key":
            runnable, keys = RunnableLambda(lambda given: given["input"]) | self.model, {"input_messages_key": "input"}
        elif kind == "messages":
            runnable = RunnableLambda(list) | self.model
        self.runnable = RunnableWithMessageHistory(runnable, factory, **keys)

    def _reply(self, messages: list[BaseMessage]) -> str:
        self.meanwhile()
        return f"Answer to {messages[-1].text}"

    def say(self, text: str, mode: Mode = invoke) -> Any:
        given: Any = {"messages": [HumanMessage(text)], "model": [HumanMessage(text)]}.get(self.kind, {"input": text})
        return mode(self.runnable, given)


KINDS = ["messages", "keys"]
"""Without a key for the history it is put before the input, and LangChain must cut it off again; with one it is not."""


def in_every_way(test: Any, kinds: Sequence[str] = KINDS) -> Any:
    """By every method of a runnable."""
    modes = pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.__name__)
    return pytest.mark.parametrize("kind", kinds)(modes(test))


def exchanges(*questions: str) -> list[str]:
    return [text for question in questions for text in (question, f"Answer to {question}")]


def stripped(found: list[str]) -> list[str]:
    return [text.strip() for text in found]


@partial(in_every_way, kinds=[*KINDS, "one key", "model"])
def test_a_conversation_goes_on(memory: MemoryManager, kind: str, mode: Mode, backing: Backing) -> None:
    chain = Chain(kind, lambda session: ShortTermChatMessageHistory(memory, session, backing=backing()))
    for question in ("One", "Two", "Three"):
        chain.say(question, mode)
    said = exchanges("One", "Two", "Three")
    assert stripped(texts(chain.model.last)) == said[:-1]
    assert stripped(remembered(memory)) == stripped(shown(memory)) == stripped(texts(backing().messages)) == said
    assert {type(message) for message in backing().messages} == {HumanMessage, AIMessage}


def shrink_by_expiry(memory: MemoryManager, clock: Clock) -> None:
    clock.advance(3600)


def shrink_by_eviction(memory: MemoryManager, clock: Clock) -> None:
    memory.follow([], remember=False)
    memory.short_term.policy = ShortTermPolicy(max_entries=2)
    memory.short_term.add("Be brief", "system", id="note")


def shrink_by_deletion(memory: MemoryManager, clock: Clock) -> None:
    for entry in memory.short_term.entries[:3]:
        memory.short_term.delete(entry.id)


def change_by_compression(memory: MemoryManager, clock: Clock) -> None:
    """What was compressed before is compressed again."""
    for entry in memory.short_term.entries:
        if entry.original is None and entry.tokens > 12:
            memory.short_term.compress_entry(entry.id, f"Gardens, walls: {entry.role}")
        elif entry.original is not None:
            memory.short_term.compress_entry(entry.id, f"{entry.role}s")


SHRINKING = [shrink_by_expiry, shrink_by_eviction, shrink_by_deletion, change_by_compression]
LONG = "A very long story of gardens and walls, and of what grew there."


@in_every_way
@pytest.mark.parametrize(("cached", "backed"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("shrink", SHRINKING, ids=lambda shrink: shrink.__name__)
def test_p8_a_view_that_shrinks_during_a_run_loses_nothing_new_and_stores_nothing_old(
    memory: MemoryManager, clock: Clock, kind: str, mode: Mode, shrink: Any, cached: bool, backed: bool
) -> None:
    """P8: whether the history is made for each call or, as in LangChain's guides, kept."""
    memory.short_term.policy = ShortTermPolicy(max_age=timedelta(minutes=30))
    kept = InMemoryChatMessageHistory() if backed else None
    one = history_of(memory, backing=kept)
    chain = Chain(kind, lambda session: one if cached else history_of(memory, backing=kept))
    chain.say(LONG, mode)
    for question in ("Two", "Three"):
        chain.meanwhile = lambda: shrink(memory, clock)
        chain.say(question, mode)
        chain.meanwhile = lambda: None
        now = [text for text in stripped(texts(one.messages)) if text != "Be brief"]
        assert now[-2:] == exchanges(question)
        assert len(now) == len(set(now))
    said = exchanges(LONG, "Two", "Three")
    assert stripped(remembered(memory)) == said
    assert kept is None or stripped(texts(kept.messages)) == said
    assert len(memory.short_term) <= len(said) + 1


@in_every_way
@pytest.mark.parametrize("cached", [False, True], ids=["fresh", "cached"])
def test_p8_a_conversation_that_grows_during_a_run_loses_nothing(
    memory: MemoryManager, kind: str, mode: Mode, cached: bool, either_backing: Backing
) -> None:
    """P8: another tab of the same session."""
    backing = either_backing
    one = history_of(memory, backing=backing())
    chain = Chain(kind, lambda session: one if cached else history_of(memory, backing=backing()))
    chain.say("One", mode)

    def elsewhere() -> None:
        if mode in (ainvoke, astream):  # a backing that blocks is for threads
            thread = threading.Thread(target=add)
            thread.start()
            thread.join()
        else:
            add()

    def add() -> None:
        history_of(memory, backing=backing()).add_messages([HumanMessage("Meanwhile"), AIMessage("Yes?")])

    chain.meanwhile = elsewhere
    chain.say("Two", mode)
    chain.meanwhile = lambda: None
    said = [*exchanges("One"), "Meanwhile", "Yes?", *exchanges("Two")]
    assert stripped(texts(one.messages)) == stripped(shown(memory)) == said
    assert stripped(texts(backing().messages)) == stripped(remembered(memory)) == said


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cached", [False, True], ids=["fresh", "cached"])
@pytest.mark.parametrize("ends_first", ["first", "second"])
def test_p8_two_runs_of_a_session_at_once(memory: MemoryManager, kind: str, cached: bool, ends_first: str) -> None:
    one = history_of(memory)
    both_asked = threading.Barrier(2, timeout=20)
    done = {"First": threading.Event(), "Second": threading.Event()}
    chain = Chain(kind, lambda session: one if cached else history_of(memory))
    chain.say("One")

    def reply(messages: list[BaseMessage]) -> str:
        asked = messages[-1].text
        both_asked.wait()
        other = "First" if asked == "Second" else "Second"
        if other.lower() == ends_first:
            assert done[other].wait(20)
        return f"Answer to {asked}"

    chain.model.reply = reply

    def run(question: str) -> None:
        chain.say(question)
        done[question].set()

    threads = [threading.Thread(target=run, args=(question,)) for question in done]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    order = ["First", "Second"] if ends_first == "first" else ["Second", "First"]
    assert texts(one.messages) == remembered(memory) == exchanges("One", *order)


async def test_p8_many_runs_of_a_session_in_one_loop(memory: MemoryManager) -> None:
    one = history_of(memory)
    chain = Chain("messages", lambda session: one)
    runs = (chain.runnable.ainvoke([HumanMessage(f"Question {i}")], config()) for i in range(12))
    await asyncio.gather(*runs)
    said = sorted(exchanges(*(f"Question {i}" for i in range(12))))
    assert sorted(remembered(memory)) == sorted(texts(await one.aget_messages())) == said


@in_every_way
def test_p8_clearing_during_a_run_brings_nothing_back(memory: MemoryManager, kind: str, mode: Mode) -> None:
    chain = Chain(kind, lambda session: history_of(memory))
    chain.say("One", mode)
    chain.meanwhile = history_of(memory).clear
    chain.say("Two", mode)
    assert stripped(texts(history_of(memory).messages)) == exchanges("Two")


@in_every_way
def test_p8_a_run_that_fails_leaves_a_cached_history_as_it_was(memory: MemoryManager, kind: str, mode: Mode) -> None:
    one = history_of(memory)
    chain = Chain(kind, lambda session: one)
    chain.say("One", mode)

    def fail() -> None:
        raise RuntimeError("rate limit")

    chain.meanwhile = fail
    with pytest.raises(RuntimeError, match="rate limit"):
        chain.say("Two", mode)
    history_of(memory).add_messages([HumanMessage("Meanwhile"), AIMessage("Yes?")])
    chain.meanwhile = lambda: None
    chain.say("Three", mode)
    assert stripped(texts(chain.model.last)) == [*exchanges("One"), "Meanwhile", "Yes?", "Three"]
    assert stripped(remembered(memory)) == [*exchanges("One"), "Meanwhile", "Yes?", *exchanges("Three")]


@pytest.mark.parametrize("kind", KINDS)
def test_p8_an_edited_message_of_the_history_takes_its_place(memory: MemoryManager, kind: str) -> None:
    """The same id with another text is an edit, also when it comes in through a run."""
    history = history_of(memory)
    history.add_messages([HumanMessage("Helo", id="1"), AIMessage("Good day", id="2")])
    chain = Chain(kind, lambda session: history_of(memory))
    edited: Any = [HumanMessage("Hello", id="1")]
    chain.runnable.invoke({"input": edited} if kind == "keys" else edited, config())
    assert texts(history.messages)[:2] == ["Hello", "Good day"]
    assert remembered(memory)[:2] == ["Hello", "Good day"]


def test_a_chain_that_reads_its_own_history_sees_what_is_there(memory: MemoryManager) -> None:
    history = history_of(memory)
    history.add_messages([HumanMessage("Hello"), AIMessage("Good day")])
    seen: list[int] = []
    chain = Chain("messages", lambda session: history, lambda: seen.append(len(history.messages)))
    chain.say("And now?")
    assert seen == [2]
    assert texts(history.messages) == ["Hello", "Good day", *exchanges("And now?")]


# Writes that fail


@in_every_way
@pytest.mark.parametrize("cached", [False, True], ids=["fresh", "cached"])
def test_p8_what_long_term_memory_did_not_take_is_stored_by_the_next_call(
    memory: MemoryManager,
    kind: str,
    mode: Mode,
    cached: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """P8: the framework only logs what a history raises, so nothing may depend on the caller's seeing it."""
    one = history_of(memory)
    chain = Chain(kind, lambda session: one if cached else history_of(memory))
    chain.say("One", mode)

    def refuse(*_: object) -> list[str]:
        raise StoreUnavailableError("no disk")

    with monkeypatch.context() as broken:
        broken.setattr(LongTermMemory, "store_messages", refuse)
        with caplog.at_level(logging.WARNING, logger="langchain_core"):
            chain.say("Two", mode)
        assert "no disk" in caplog.text
        asked = len(chain.model.seen)
        with pytest.raises(StoreUnavailableError, match="no disk"):
            chain.say("Three", mode)
        assert len(chain.model.seen) == asked  # nobody answers a question that would be lost
    chain.say("Four", mode)
    said = exchanges("One", "Two", "Four")
    assert stripped(remembered(memory)) == stripped(texts(one.messages)) == said


async def test_a_write_that_is_cancelled_is_in_the_backing_once(memory: MemoryManager, tmp_path: Path) -> None:
    """LangChain writes in a thread, which goes on when whoever waits for it is cancelled."""
    begun, may_go_on = threading.Event(), threading.Event()

    class Slow(TextFile):
        def add_messages(self, messages: Sequence[BaseMessage]) -> None:
            begun.set()
            assert may_go_on.wait(30)
            super().add_messages(messages)

    history = ShortTermChatMessageHistory(memory, backing=Slow(tmp_path / "backing.jsonl"))
    memory.search_long_term("what opens it, so that nothing later waits for that")
    adding = asyncio.create_task(history.aadd_messages([HumanMessage("Hello"), AIMessage("Hi")]))
    assert await asyncio.to_thread(begun.wait, 30)
    adding.cancel()
    threading.Timer(0.5, may_go_on.set).start()  # while the next exchange would be written already
    with pytest.raises(asyncio.CancelledError):
        await adding
    await history.aadd_messages([HumanMessage("More"), AIMessage("Yes")])
    assert [message.text for message in await history.aget_messages()] == ["Hello", "Hi", "More", "Yes"]
    assert len((tmp_path / "backing.jsonl").read_text().splitlines()) == 4


class Flaky(BaseChatMessageHistory):
    """A backing that is written as far as it is told to be, and then fails."""

    def __init__(self, inner: BaseChatMessageHistory) -> None:
        self.inner = inner
        self.writes: int | None = None

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]
        return self.inner.messages

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        if self.writes is None:
            return self.inner.add_messages(messages)
        self.inner.add_messages(messages[: self.writes])
        raise ConnectionError("connection reset")

    def clear(self) -> None:
        self.inner.clear()


@in_every_way
@pytest.mark.parametrize("writes", [0, 1, 2])
def test_p8_what_the_backing_did_not_take_is_written_by_the_next_call(
    memory: MemoryManager, kind: str, mode: Mode, writes: int, either_backing: Backing, caplog: pytest.LogCaptureFixture
) -> None:
    """P8: also where part of it was written before the connection broke, and the same was said before."""
    flaky = Flaky(either_backing())
    chain = Chain(kind, lambda session: history_of(memory, backing=flaky))
    chain.say("Again", mode)
    flaky.writes = writes
    chain.say("Again", mode)
    assert "connection reset" in caplog.text
    flaky.writes = 0
    asked = len(chain.model.seen)
    if writes < 2:
        with pytest.raises(StoreError, match=r"Flaky.*connection reset"):
            chain.say("Three", mode)
        assert len(chain.model.seen) == asked
    flaky.writes = None
    chain.say("Four", mode)
    said = exchanges("Again", "Again", "Four")
    assert stripped(texts(flaky.messages)) == said
    assert stripped(texts(history_of(memory, backing=flaky).messages)) == stripped(shown(memory)) == said
    assert stripped(remembered(memory)) == said


def test_p8_what_the_backing_did_not_take_is_in_the_conversation_all_the_same(memory: MemoryManager) -> None:
    flaky = Flaky(InMemoryChatMessageHistory())
    flaky.writes = 0
    history = history_of(memory, backing=flaky)
    with pytest.raises(StoreError, match="connection reset") as raised:
        history.add_messages([HumanMessage("I play the oboe"), AIMessage("Lovely")])
    assert isinstance(raised.value.__cause__, ConnectionError)
    assert shown(memory) == remembered(memory) == ["I play the oboe", "Lovely"]
    flaky.writes = None
    history_of(memory, backing=flaky).add_user_message("And the cello")
    assert texts(flaky.messages) == ["I play the oboe", "Lovely", "And the cello"]
    flaky.writes = 0
    with pytest.raises(StoreError):
        history.add_ai_message("I see")
    history.clear()  # forgets what was not written, too
    flaky.writes = None
    assert history.messages == flaky.messages == []


def test_p8_a_call_that_comes_in_while_another_fails_loses_nothing(
    memory: MemoryManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one call left undone another may take up only once it is part of the conversation."""
    flaky = Flaky(InMemoryChatMessageHistory())
    flaky.writes = 0
    follow = MemoryManager.follow

    def interrupted(*given: Any, **more: Any) -> list[str]:
        if flaky.writes is not None:
            flaky.writes = None
            history_of(memory, backing=flaky).add_messages([HumanMessage("Second"), AIMessage("2")])
        return follow(*given, **more)

    monkeypatch.setattr(MemoryManager, "follow", interrupted)
    with pytest.raises(StoreError):
        history_of(memory, backing=flaky).add_messages([HumanMessage("First"), AIMessage("1")])
    assert sorted(texts(history_of(memory, backing=flaky).messages)) == ["1", "2", "First", "Second"]
    assert sorted(texts(flaky.inner.messages)) == sorted(remembered(memory)) == ["1", "2", "First", "Second"]


def erase_elsewhere(memory: MemoryManager) -> None:
    with MemoryManager("user:ann", data_dir=memory.options["data_dir"]) as worker:
        worker.erase()


def delete_memories(memory: MemoryManager) -> None:
    memory.long_term.delete([hit.id for hit in memory.long_term.search("PIN", distinct=False)])


@pytest.mark.parametrize("forget", [MemoryManager.erase, MemoryManager.clear_session, erase_elsewhere, delete_memories])
@pytest.mark.parametrize("writes", [0, 1])
def test_what_was_erased_meanwhile_is_not_written_any_more(memory: MemoryManager, forget: Any, writes: int) -> None:
    flaky = Flaky(InMemoryChatMessageHistory())
    flaky.writes = writes
    with pytest.raises(StoreError):
        history_of(memory, backing=flaky).add_messages([HumanMessage("My PIN is 1234"), AIMessage("I see your PIN")])
    forget(memory)
    flaky.writes = None
    history_of(memory, backing=flaky).add_user_message("Hello")
    assert texts(flaky.messages) == ["My PIN is 1234", "Hello"][1 - writes :]
    assert texts(history_of(memory, backing=flaky).messages)[-1] == "Hello"


def test_what_managing_deleted_meanwhile_is_written_all_the_same(memory: MemoryManager) -> None:
    """It is gone from what a model sees, not from what keeps the whole conversation."""
    flaky = Flaky(InMemoryChatMessageHistory())
    flaky.writes = 0
    history = history_of(memory, backing=flaky)
    with pytest.raises(StoreError):
        history.add_messages([HumanMessage("Hello"), AIMessage("Hi"), HumanMessage("Where is the key?")])
    memory.apply(ManagementPlan(tuple(Delete(entry.id) for entry in memory.short_term.entries[:2])))
    flaky.writes = None
    assert texts(history.messages) == ["Where is the key?"]
    assert texts(flaky.messages) == ["Hello", "Hi", "Where is the key?"]


def test_a_backing_that_cannot_be_read_says_so_before_the_model_is_asked(memory: MemoryManager) -> None:
    class Unreadable(InMemoryChatMessageHistory):
        def __getattribute__(self, name: str) -> Any:
            if name == "messages":
                raise ConnectionError("connection refused")
            return super().__getattribute__(name)

    for mode in MODES:
        chain = Chain("messages", lambda session: history_of(memory, backing=Unreadable()))
        with pytest.raises(StoreError, match="connection refused"):
            chain.say("Hello", mode)
        assert chain.model.seen == []


# Deprecation


def test_only_the_users_own_use_of_what_is_deprecated_warns(run_python: Any, tmp_path: Path) -> None:
    code = """
import sys, warnings
import langchain_core  # which wants its warnings to be seen, and says so at its import
warnings.simplefilter("error")
from memory_integrations import MemoryManager
from memory_integrations.langchain import ShortTermChatMessageHistory
from langchain_core.messages import HumanMessage
memory = MemoryManager("user:ann", data_dir=sys.argv[1])
history = ShortTermChatMessageHistory(memory, "s")
history.add_user_message("Hello"); history.add_messages([HumanMessage("There")])
assert [message.text for message in history.messages] == ["Hello", "There"]
print(history)
history.clear()
memory.close()
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory
try:
    RunnableWithMessageHistory(RunnableLambda(lambda x: x), lambda s: history)
except DeprecationWarning as warning:
    print("warned:", warning)
"""
    printed = run_python(code, tmp_path).stdout
    assert "Human: Hello" in printed
    deprecated = tuple(map(int, version("langchain-core").split(".")[:3])) >= (1, 3, 3)
    assert ("warned: RunnableWithMessageHistory" in printed) == deprecated


def test_p21_a_history_of_nobody_refuses_a_run_that_names_a_user(tmp_path: Path) -> None:
    """P21: else everybody's sessions of one name would be one conversation."""
    with MemoryManager(data_dir=tmp_path) as memory:
        chain = RunnableWithMessageHistory(
            RunnableLambda(lambda messages: "fine"), lambda session: ShortTermChatMessageHistory(memory, session)
        )
        with pytest.raises(ScopeError, match="'ann'"):
            chain.invoke("My PIN is 4711.", {"configurable": {"session_id": "monday", "user_id": "ann"}})
        assert memory.for_scope("session:monday").long_term.count() == 0
