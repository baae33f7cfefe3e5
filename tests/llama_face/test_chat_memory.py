"""The chat memory by itself: writing, setting, serialising, failing, and the other framework beside it."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

pytest.importorskip("llama_index.core")

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from llama_helpers import simple
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock, ToolCallBlock
from llama_index.core.memory.types import BaseMemory
from llama_strategies import messages as any_message
from strategies import Clock, fresh_scope, sentences
from test_llama_messages import both_can_express

from memory_integrations import (
    BudgetError,
    LongTermMemory,
    MemoryIntegrationError,
    MemoryManager,
    MessageError,
    ScopeError,
    ShortTermPolicy,
    StoreError,
    StoreUnavailableError,
)
from memory_integrations.langchain import ShortTermChatMessageHistory
from memory_integrations.llama_index import ManagedChatMemory
from memory_integrations.llama_index.messages import RememberedMessage
from memory_integrations.qdrant_edge import QdrantEdgeClient
from memory_integrations.testing import StandInLLM

Open = Callable[..., MemoryManager]


@pytest.fixture
def opened(tmp_path: Path, clock: Clock) -> Iterator[Open]:
    """Opens managers as further processes would: each closes the one before."""
    last: list[MemoryManager] = []

    def opened(scope: str = "user:ann/session:s1", **options: Any) -> MemoryManager:
        for one in last:
            one.close()
        last[:] = [MemoryManager(scope, data_dir=tmp_path, clock=clock, **options)]
        return last[0]

    yield opened
    for one in last:
        one.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MemoryManager]:
    """One open memory for many examples, each with a user of its own."""
    policy = ShortTermPolicy(max_tokens=1_000_000)
    with MemoryManager(data_dir=tmp_path_factory.mktemp("shared"), short_term_policy=policy) as memory:
        yield memory


def texts(memory: BaseMemory) -> list[str | None]:
    return [message.content for message in memory.get_all()]


def turn(number: int) -> list[ChatMessage]:
    return [ChatMessage(f"I saw ship {number}."), ChatMessage(f"Noted, {number}.", role="assistant")]


# Writing


@given(said=st.lists(any_message, max_size=6))
def test_p7_everything_put_is_there_as_it_was(shared: MemoryManager, said: list[ChatMessage]) -> None:
    memory = ManagedChatMemory(shared, fresh_scope().with_session("s"))
    memory.put_messages(said)
    for message, back in zip(said, memory.get_all(), strict=True):
        assert back == message
        assert back.model_dump() == message.model_dump()


@given(said=st.lists(any_message, max_size=6), times=st.integers(1, 3))
def test_a_history_set_again_is_one_history(shared: MemoryManager, said: list[ChatMessage], times: int) -> None:
    scope = fresh_scope().with_session("s")
    memory = ManagedChatMemory(shared, scope)
    memory.put_messages(said)
    stored = shared.for_scope(scope).long_term.count()
    for _ in range(times):
        memory.set(said)
    assert memory.get_all() == said
    memory.set([ChatMessage.model_validate(message.model_dump()) for message in said])
    assert memory.get_all() == said
    assert shared.for_scope(scope).long_term.count() == stored


def test_the_same_text_put_twice_is_two_messages(opened: Open) -> None:
    memory = ManagedChatMemory(opened())
    for _ in range(3):
        memory.put(ChatMessage("Yes."))
        memory.put(ChatMessage("Go on.", role="assistant"))
    assert texts(memory) == ["Yes.", "Go on."] * 3
    assert memory.memory.long_term.count() == 6
    memory.set(memory.get_all())
    assert memory.memory.long_term.count() == 6


@given(said=st.lists(st.sampled_from(["Next?", "Done."]), max_size=6), data=st.data())
def test_whatever_history_is_set_is_the_conversation(
    shared: MemoryManager, said: list[str], data: st.DataObject
) -> None:
    """Messages as the memory gave them out, copies of them, and new ones that say the same, in any order."""
    scope = fresh_scope().with_session("s")
    memory = ManagedChatMemory(shared, scope)
    memory.put_messages([ChatMessage(text) for text in said])
    plain = [ChatMessage(text) for text in ("Next?", "Done.")]
    history = data.draw(st.lists(st.sampled_from([*memory.get_all(), *plain]), max_size=10))
    stored = {message.id for message in shared.for_scope(scope).long_term.messages()}
    memory.set(history)
    back = memory.get_all()
    assert [message.content for message in back] == [message.content for message in history]
    told = [message._of and message._of.id for message in history if isinstance(message, RememberedMessage)]
    ids = [message._of and message._of.id for message in back]
    assert set(told) <= set(ids)
    assert {message.id for message in shared.for_scope(scope).long_term.messages()} == stored.union(ids)


def test_an_exchange_after_the_latest_ones_is_new_though_it_says_the_same(opened: Open) -> None:
    memory = ManagedChatMemory(opened())
    exchange = [ChatMessage("Next question?"), ChatMessage("Done.", role="assistant")]
    memory.put_messages([*exchange, *exchange])
    window = memory.get_all()[-2:]
    memory.set([*window, *exchange])
    assert memory.get_all() == [*exchange, *exchange]
    assert memory.memory.long_term.count() == 6
    memory.set([*memory.get_all()[-2:], exchange[0]])
    assert memory.get_all() == [*exchange, exchange[0]]
    assert memory.get()[-1].blocks[-1] == exchange[0].blocks[0]  # the model is asked it
    assert memory.memory.long_term.count() == 7


def test_set_makes_the_conversation_what_is_given(opened: Open) -> None:
    memory = ManagedChatMemory(opened())
    memory.put_messages([*turn(1), *turn(2), *turn(3)])
    memory.set([*turn(1), *turn(2)])  # the last turn is taken back,
    assert texts(memory) == [message.content for message in [*turn(1), *turn(2)]]
    memory.set([turn(1)[0], ChatMessage("Another answer.", role="assistant"), *turn(2)])  # an answer edited,
    assert texts(memory) == ["I saw ship 1.", "Another answer.", "I saw ship 2.", "Noted, 2."]
    memory.set([])  # or all of it
    assert texts(memory) == []
    assert memory.memory.long_term.count() == 7


def test_a_set_history_keeps_to_its_order_after_a_restart(opened: Open) -> None:
    """Long-term memory kept no tool calls: they come back with the history, in their places."""
    call = ToolCallBlock(tool_call_id="a", tool_name="tide", tool_kwargs={})
    history = [
        ChatMessage("When is the tide?"),
        ChatMessage(role="assistant", blocks=[call]),
        ChatMessage("At four.", role="tool", additional_kwargs={"tool_call_id": "a"}),
        ChatMessage("At four.", role="assistant"),
    ]
    ManagedChatMemory(opened()).put_messages(history)
    memory = ManagedChatMemory(opened())
    assert texts(memory) == ["When is the tide?", "At four."]
    memory.set(history)
    assert memory.get_all() == history
    assert memory.memory.long_term.count() == 2


def test_what_is_not_to_be_remembered_is_not(opened: Open) -> None:
    memory = ManagedChatMemory(opened(), remember=False)
    memory.put_messages(turn(1))
    assert texts(memory) == ["I saw ship 1.", "Noted, 1."]
    assert memory.memory.long_term.count() == 0


@pytest.mark.parametrize("forget", ["reset", "erase"])
def test_what_is_forgotten_while_it_is_read_is_not_asked_for(
    opened: Open, monkeypatch: pytest.MonkeyPatch, forget: str
) -> None:
    memory = opened()
    memory.set_fact("city", "Oslo")
    chat = ManagedChatMemory(memory)
    chat.put(ChatMessage("Which tea do I drink?"))
    real = MemoryManager.get_context

    def forgotten(of: MemoryManager, *args: Any, **options: Any) -> Any:
        chat.reset() if forget == "reset" else memory.erase()
        return real(of, *args, **options)

    monkeypatch.setattr(MemoryManager, "get_context", forgotten)
    (shown,) = chat.get("Which tea do I drink?")
    assert shown.role == "system"
    assert (
        "Oslo" in str(shown.content) and "tea" not in str(shown.content).split("</memory:facts>")[0].split("facts>")[1]
    )


def test_a_write_that_fails_raises_and_is_done_by_the_next(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = ManagedChatMemory(opened())
    memory.put_messages(turn(1))
    real = LongTermMemory.store_messages

    def refuse(*given: Any, **options: Any) -> Any:
        raise StoreUnavailableError("The disk is full.")

    monkeypatch.setattr(LongTermMemory, "store_messages", refuse)
    with pytest.raises(StoreError):
        memory.put(turn(2)[0])
    with pytest.raises(StoreError):
        memory.set([*turn(1), *turn(2), *turn(3)])
    assert texts(memory) == [message.content for n in (1, 2, 3) for message in turn(n)]
    monkeypatch.setattr(LongTermMemory, "store_messages", real)
    memory.put_messages(turn(4))
    assert [m.text for m in memory.memory.long_term.messages()] == [m.content for n in (1, 2, 3, 4) for m in turn(n)]


def test_images_are_kept_and_shown(opened: Open) -> None:
    memory = ManagedChatMemory(opened())
    said = ChatMessage(blocks=[TextBlock(text="Which ship is this?"), ImageBlock(image=b"\x89PNG\r\n\x1a\n1234")])
    memory.put(said)
    assert memory.get_all() == [said]
    assert memory.get()[-1].blocks[-1] == said.blocks[-1]
    assert memory.memory.long_term.count() == 1


def test_what_managing_compressed_is_given_short_and_kept_whole(opened: Open) -> None:
    memory = ManagedChatMemory(opened())
    long = "The flight to Lisbon leaves on the fourth of May at nine in the morning from gate seven of the terminal."
    memory.put_messages([ChatMessage(long), ChatMessage("Noted.", role="assistant"), ChatMessage("When?")])
    entry = memory.memory.short_term.entries[0]
    memory.memory.short_term.compress_entry(entry.id, "The flight to Lisbon leaves on the fourth of May.")
    assert memory.get()[0].content == "The flight to Lisbon leaves on the fourth of May."
    assert memory.get_all()[0].content == long
    memory.set(memory.get_all())  # told again it stays as it was managed
    assert memory.get()[0].content == "The flight to Lisbon leaves on the fourth of May."


# The two frameworks in one session


def as_told(message: BaseMessage) -> BaseMessage:
    return message.model_copy(update={"id": None})


@given(said=st.lists(both_can_express, max_size=6))
def test_a_conversation_carried_over_and_back_keeps_every_message(
    shared: MemoryManager, said: list[BaseMessage]
) -> None:
    """LangChain, then LlamaIndex, which sets all it was given, then LangChain again."""
    scope = fresh_scope().with_session("s")
    session = shared.for_scope(scope)
    ShortTermChatMessageHistory(session, "s").add_messages(said)
    before = [entry.message.raw for entry in session.short_term.entries]
    there = ManagedChatMemory(shared, scope)
    there.set(there.get_all())
    there.set([ChatMessage.model_validate(json.loads(message.model_dump_json())) for message in there.get_all()])
    after = [entry.message.raw for entry in session.short_term.entries]
    assert [as_told(message) for message in before] == list(map(as_told, said))
    from memory_integrations.langchain.messages import to_langchain

    back = [to_langchain(entry.message) for entry in session.short_term.entries]
    assert list(map(as_told, back)) == list(map(as_told, said))
    assert len(after) == len(said)


@given(said=st.lists(any_message, max_size=5))
@example(
    said=[
        ChatMessage(role="user", content="When is the tide?"),
        ChatMessage(role="assistant", blocks=[ToolCallBlock(tool_name="tide", tool_kwargs={})]),
        ChatMessage(role="function", content="At four."),
    ]
)
def test_what_llamaindex_said_is_unchanged_by_langchain(shared: MemoryManager, said: list[ChatMessage]) -> None:
    scope = fresh_scope().with_session("s")
    memory = ManagedChatMemory(shared, scope)
    memory.put_messages(said)
    history = ShortTermChatMessageHistory(shared.for_scope(scope), "s")
    history.add_messages(history.messages)
    assert memory.get_all() == said


def test_a_user_met_through_the_other_framework(opened: Open) -> None:
    memory = opened()
    ShortTermChatMessageHistory(memory, "s1").add_messages(
        [
            HumanMessage("When is the tide?"),
            AIMessage("", tool_calls=[{"type": "tool_call", "name": "tide", "args": {"at": "x"}, "id": "a"}]),
            ToolMessage("At four.", tool_call_id="a"),
            AIMessage("At four."),
        ]
    )
    messages = ManagedChatMemory(memory).get("And where?")
    assert [message.role.value for message in messages] == ["user", "assistant", "tool", "assistant"]
    assert messages[1].blocks == [ToolCallBlock(tool_call_id="a", tool_name="tide", tool_kwargs={"at": "x"})]
    assert messages[2].additional_kwargs == {"tool_call_id": "a"}


# Making and serialising


def test_it_is_made_as_llamaindex_makes_its_own(opened: Open) -> None:
    memory = ManagedChatMemory.from_defaults(chat_history=turn(1), memory=opened(), token_limit=500, llm=StandInLLM())
    assert isinstance(memory, BaseMemory)
    assert memory.max_tokens == 500
    assert texts(memory) == ["I saw ship 1.", "Noted, 1."]
    with pytest.raises(TypeError, match="needs a memory"):
        ManagedChatMemory.from_defaults(chat_history=turn(1))


def test_what_is_wrong_is_said_at_once(opened: Open) -> None:
    memory = opened()
    with pytest.raises(ScopeError):
        ManagedChatMemory(memory, "nobody")
    with pytest.raises(BudgetError):
        ManagedChatMemory(memory, max_tokens=-1)
    with pytest.raises(ValueError, match="MemoryManager"):
        ManagedChatMemory("data")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="recal"):
        ManagedChatMemory(memory, recal=3)


def test_p37_it_is_read_back_in_its_own_process_and_in_another(opened: Open) -> None:
    call = ToolCallBlock(tool_call_id="a", tool_name="tide", tool_kwargs={"at": "x"})
    history = [
        ChatMessage(blocks=[TextBlock(text="See:"), ImageBlock(image=b"\x89PNG\r\n\x1a\n1234")]),
        ChatMessage(role="assistant", blocks=[call]),
        ChatMessage("At four.", role="tool", additional_kwargs={"tool_call_id": "a"}),
        ChatMessage("At four.", role="assistant"),
    ]
    policy = ShortTermPolicy(max_tokens=3000)
    memory = ManagedChatMemory(opened(short_term_policy=policy), max_tokens=900, recall=3)
    memory.put_messages(history)
    data = json.loads(json.dumps(memory.to_dict()))
    assert data["class_name"] == "ManagedChatMemory"
    for back in (ManagedChatMemory.from_dict(data), pickle.loads(pickle.dumps(memory)), copy.deepcopy(memory)):
        assert back.memory.short_term is memory.memory.short_term
        assert (back.max_tokens, back.recall, texts(back)) == (900, 3, texts(memory))
    later = opened()
    back = ManagedChatMemory.from_dict(data, memory=later)
    assert back.get_all() == history  # the tools too, which long-term memory does not have
    assert later.long_term.count() == 2
    assert str(back.memory.scope) == "user:ann/session:s1"


def test_p37_read_back_it_has_what_was_said_since(opened: Open) -> None:
    memory = ManagedChatMemory(opened())
    memory.put_messages(turn(1))
    data = memory.to_dict()
    memory.put_messages(turn(2))
    back = ManagedChatMemory.from_dict(data, memory=opened())
    assert texts(back) == [message.content for n in (1, 2) for message in turn(n)]
    assert back.memory.long_term.count() == 4


def test_it_opens_its_memory_by_plain_options(tmp_path: Path) -> None:
    policy = ShortTermPolicy(max_tokens=3000)
    with MemoryManager("user:ann/session:s1", data_dir=tmp_path, short_term_policy=policy, language=None) as memory:
        chat_memory = ManagedChatMemory(memory)
        chat_memory.put_messages(turn(1))
        data = chat_memory.to_dict()
    del memory, chat_memory
    back = ManagedChatMemory.from_dict(data)
    try:
        assert texts(back) == ["I saw ship 1.", "Noted, 1."]
        assert back.memory.short_term.policy == policy
        assert back.memory.options["language"] is None
    finally:
        back.memory.close()


def test_what_had_objects_of_its_own_must_be_open(tmp_path: Path, clock: Clock) -> None:
    with MemoryManager("user:ann/session:s1", data_dir=tmp_path, clock=clock) as memory:
        data = ManagedChatMemory(memory).to_dict()
    del memory
    with pytest.raises(MemoryIntegrationError, match="clock"):
        ManagedChatMemory.from_dict(data)


def test_p21_it_is_read_back_into_its_own_tenants_memory_and_no_other(tmp_path: Path) -> None:
    """Two tenants of one directory: each has a client and a database of its own, and a user of the same name."""

    def tenant(name: str) -> MemoryManager:
        client = QdrantEdgeClient(tmp_path / name)
        return MemoryManager(data_dir=tmp_path, qdrant=client, journal_url=f"sqlite:///{tmp_path}/{name}.db")

    one, two = tenant("one"), tenant("two")
    two.for_scope("user:ann").set_fact("secret", "the second tenant's")
    memory = ManagedChatMemory(one, "user:ann/session:s")
    memory.put(ChatMessage("I am the first tenant's."))
    data = memory.to_dict()
    for back in (pickle.loads(pickle.dumps(memory)), ManagedChatMemory.from_dict(data)):
        back.put(ChatMessage("My PIN is 1234."))
        assert "the second tenant's" not in str(back.get())
    assert two.for_scope("user:ann").long_term.count() == 0
    assert one.for_scope("user:ann").long_term.count() == 3
    one.close()
    with pytest.raises(MemoryIntegrationError, match="none on the same stores is open"):
        ManagedChatMemory.from_dict(data)
    two.close()


@pytest.mark.parametrize("what", ["journal", "memories"])
def test_p21_a_memory_of_files_is_not_mistaken_for_one_of_a_server(tmp_path: Path, what: str) -> None:
    elsewhere: dict[str, Any] = (
        {"journal_url": f"sqlite:///{tmp_path}/facts.db"}
        if what == "journal"
        else {"qdrant": QdrantEdgeClient(tmp_path / "elsewhere")}
    )
    with MemoryManager(data_dir=tmp_path) as files, MemoryManager(data_dir=tmp_path, **elsewhere):
        memory = ManagedChatMemory(files, "user:ann/session:s")
        back = ManagedChatMemory.from_dict(memory.to_dict())
        found = MemoryManager.opened(tmp_path, "user:ann/session:s")
        assert found is not None
        assert memory.memory.short_term is back.memory.short_term is found.short_term
    assert MemoryManager.opened(tmp_path) is None


# LlamaIndex's models where the core takes one


class Letters(BaseEmbedding):
    """How often a text has each letter."""

    def _get_text_embedding(self, text: str) -> list[float]:
        return [float(text.lower().count(letter)) + 0.01 for letter in "abcdefghijklmnopqrstuvwxyz"]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def test_a_llamaindex_embedding_is_taken(opened: Open) -> None:
    memory = opened(embeddings=Letters(model_name="letters"))
    memory.add_turn("The quick brown fox.", "It jumps.")
    assert memory.search_long_term("quick fox")[0].text.endswith("The quick brown fox.")
    with pytest.raises(MemoryIntegrationError, match="'letters' of 26 dimensions"):
        opened().search_long_term("fox")
    with pytest.raises(TypeError, match="LlamaIndex BaseEmbedding"):
        opened(embeddings=object())


def test_a_llamaindex_llm_manages(opened: Open) -> None:
    """It is asked; that the stand-in's answer is no plan is said, and nothing is lost."""
    llm = StandInLLM()
    memory = opened(llm_client=llm, short_term_policy=ShortTermPolicy(manage_above_tokens=0))
    engine = simple(StandInLLM(), ManagedChatMemory(memory))
    engine.chat("I saw a whale.")
    receipt = memory.manage_short_term()
    assert "You keep the short-term memory" in str(llm.seen[0][0].content)
    assert receipt.failed
    assert len(memory.short_term) == 2


@given(said=st.lists(sentences, max_size=5))
async def test_p35_async_twins_do_the_same(shared: MemoryManager, said: list[str]) -> None:
    one = ManagedChatMemory(shared, fresh_scope().with_session("s"))
    other = ManagedChatMemory(shared, fresh_scope().with_session("s"))
    messages = [ChatMessage(text, role="assistant" if i % 2 else "user") for i, text in enumerate(said)]
    one.put_messages(messages)
    await other.aput_messages(messages)
    assert await other.aget_all() == one.get_all()
    assert [m.content for m in await other.aget()] == [m.content for m in one.get()]
    await other.aset(messages[:2])
    one.set(messages[:2])
    assert await other.aget_all() == one.get_all()
    await other.areset()
    one.reset()
    assert await other.aget_all() == one.get_all() == []


def test_a_call_whose_arguments_are_no_json_is_refused_whole(opened: Open) -> None:
    manager = opened()
    memory = ManagedChatMemory(manager, "user:ann/session:s1")
    call = ToolCallBlock(tool_call_id="1", tool_name="look_up", tool_kwargs={"a": {(1, 2): 3}})
    with pytest.raises(MessageError, match="look_up"):
        memory.set([ChatMessage(role="user", content="Look it up."), ChatMessage(role="assistant", blocks=[call])])
    assert memory.get_all() == []
    assert manager.for_scope("user:ann/session:s1").long_term.count() == 0
