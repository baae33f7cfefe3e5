"""LlamaIndex's messages as neutral ones and back, and over LangChain's."""

from __future__ import annotations

import base64
import copy
import io
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("llama_index.core")

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from llama_index.core.base.llms.types import (
    AudioBlock,
    ChatMessage,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_strategies import messages as any_message
from strategies import nasty_text, sentences

from memory_integrations import Message, ShortTermMemory, ToolCall
from memory_integrations.langchain.messages import from_langchain, to_langchain
from memory_integrations.llama_index.messages import RememberedMessage, from_llama_index, own, to_llama_index


@given(message=any_message)
def test_p7_any_message_comes_back_as_it_was(message: ChatMessage) -> None:
    before = copy.deepcopy(message)
    back = to_llama_index(from_llama_index(message))
    assert back == message == before
    assert back.model_dump() == message.model_dump()


@given(message=any_message)
def test_p7_any_message_comes_back_from_a_conversation_as_it_was(message: ChatMessage) -> None:
    memory = ShortTermMemory()
    added = memory.add_message(from_llama_index(message))
    entry = memory.get(added)
    assert entry is not None
    back = to_llama_index(entry.message)
    assert back == message
    again = from_llama_index(back)
    assert again.id == added
    assert again == entry.message


@given(message=any_message)
def test_what_is_given_shares_nothing_with_what_is_kept(message: ChatMessage) -> None:
    kept = from_llama_index(message)
    for block in message.blocks:
        if isinstance(block, TextBlock):
            block.text += " changed by its owner"
    before = to_llama_index(kept).model_dump()
    given = to_llama_index(kept)
    given.blocks.append(TextBlock(text="more"))
    given.additional_kwargs["more"] = 1
    for block in given.blocks:
        if isinstance(block, TextBlock):
            block.text += " changed by an engine"
    assert to_llama_index(kept).model_dump() == before


@given(message=any_message)
def test_a_message_that_was_changed_is_read_anew(message: ChatMessage) -> None:
    memory = ShortTermMemory()
    added = memory.add_message(from_llama_index(message))
    entry = memory.get(added)
    assert entry is not None
    given = to_llama_index(entry.message)
    given.blocks = [*given.blocks, TextBlock(text="A new end.")]
    again = from_llama_index(given)
    assert again.id == added
    assert again.text.endswith("A new end.")


def test_a_remembered_message_is_equal_to_what_says_the_same() -> None:
    said = ChatMessage("Hi")
    back = to_llama_index(from_llama_index(said))
    assert isinstance(back, RememberedMessage)
    assert back == said and said == back
    assert back != ChatMessage("Ho") and ChatMessage("Ho") != back
    assert back != "Hi"
    for copied in (copy.copy(back), copy.deepcopy(back), pickle.loads(pickle.dumps(back)), back.model_copy()):
        assert copied == back
        assert from_llama_index(copied).text == "Hi"


def test_roles_are_kept_and_read() -> None:
    roles = {role: from_llama_index(ChatMessage("x", role=role)).role for role in MessageRole}
    assert roles == {
        MessageRole.SYSTEM: "system",
        MessageRole.DEVELOPER: "system",
        MessageRole.USER: "user",
        MessageRole.ASSISTANT: "assistant",
        MessageRole.CHATBOT: "assistant",
        MessageRole.MODEL: "assistant",
        MessageRole.TOOL: "tool",
        MessageRole.FUNCTION: "tool",
    }


class Sent:
    """A tool call as a provider's client has it."""

    def __init__(self, id: str, name: str, arguments: str) -> None:
        self.id = id
        self.function = type("Function", (), {"name": name, "arguments": arguments})()


@pytest.mark.parametrize(
    "message",
    [
        ChatMessage(
            role="assistant", blocks=[ToolCallBlock(tool_call_id="a", tool_name="look_up", tool_kwargs={"x": 1})]
        ),
        ChatMessage(
            role="assistant", blocks=[ToolCallBlock(tool_call_id="a", tool_name="look_up", tool_kwargs='{"x": 1}')]
        ),
        ChatMessage(role="assistant", additional_kwargs={"tool_calls": [Sent("a", "look_up", '{"x": 1}')]}),
        ChatMessage(
            role="assistant",
            additional_kwargs={"tool_calls": [{"id": "a", "function": {"name": "look_up", "arguments": '{"x": 1}'}}]},
        ),
    ],
)
def test_p36_tool_calls_are_read_wherever_they_are(message: ChatMessage) -> None:
    assert from_llama_index(message).tool_calls == (ToolCall("a", "look_up", {"x": 1}),)


@pytest.mark.parametrize("junk", [7, "junk", {"a": 1}, [5, None, "x", {}], True])
def test_what_is_no_tool_call_asks_for_nothing(junk: Any) -> None:
    call = ToolCallBlock(tool_call_id="a", tool_name="look_up", tool_kwargs={})
    message = ChatMessage("Hello", role="assistant", additional_kwargs={"tool_calls": junk})
    read = from_llama_index(message)
    assert read.tool_calls == ()
    assert to_llama_index(read) == message
    message.blocks.append(call)
    read = from_llama_index(message)
    assert [call.id for call in read.tool_calls] == ["a"]
    assert to_llama_index(replace(read, tool_calls=())).content == "Hello"


def test_p36_a_result_names_its_call() -> None:
    message = ChatMessage("found", role="tool", additional_kwargs={"tool_call_id": "a", "name": "look_up"})
    read = from_llama_index(message)
    assert (read.role, read.tool_call_id, read.name) == ("tool", "a", "look_up")


def test_p1_a_call_whose_result_is_missing_is_taken_out_everywhere() -> None:
    blocks = [ToolCallBlock(tool_call_id=name, tool_name="look_up", tool_kwargs={}) for name in "ab"]
    sent = [{"id": name, "function": {"name": "look_up", "arguments": "{}"}} for name in "ab"]
    message = ChatMessage(role="assistant", blocks=[TextBlock(text="Let me see."), *blocks])
    message.additional_kwargs["tool_calls"] = sent
    read = from_llama_index(message)
    fewer = Message(
        "assistant", read.content, tool_calls=tuple(call for call in read.tool_calls if call.id == "b"), raw=read.raw
    )
    back = to_llama_index(fewer)
    assert [block.tool_call_id for block in back.blocks if isinstance(block, ToolCallBlock)] == ["b"]
    assert [call["id"] for call in back.additional_kwargs["tool_calls"]] == ["b"]
    none = to_llama_index(Message("assistant", read.content, raw=read.raw))
    assert "tool_calls" not in none.additional_kwargs
    assert none.content == "Let me see."
    assert len(message.blocks) == 3


def test_p4_media_costs_a_fixed_figure() -> None:
    memory = ShortTermMemory()
    small = memory.add_message(from_llama_index(ChatMessage(blocks=[ImageBlock(image=b"iVBORw0KGgo=")])))
    large = memory.add_message(from_llama_index(ChatMessage(blocks=[ImageBlock(image=b"\x89PNG" + bytes(900_000))])))
    tokens = {entry.id: entry.tokens for entry in memory.entries}
    assert tokens[small] == tokens[large] == memory.counter.media_tokens


def test_files_are_read_for_the_other_framework(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"hello")
    blocks = [
        ImageBlock(path=path),
        AudioBlock(audio=io.BytesIO(b"hello"), format="wav"),
        DocumentBlock(path=str(path)),
    ]
    content: Any = from_llama_index(ChatMessage(blocks=blocks)).content
    assert content[0]["url"] == content[2]["url"] == path.as_uri()
    assert base64.b64decode(content[1]["base64"]) == b"hello"


# Between the frameworks

lc_texts = sentences | nasty_text.filter(str.strip)
lc_images = st.sampled_from(
    [
        {"type": "image", "base64": "iVBORw0KGgo=", "mime_type": "image/png"},
        {"type": "image", "url": "https://example.org/a.png", "mime_type": "image/png"},
    ]
)
lc_calls = st.builds(
    lambda name, args, id_: {"type": "tool_call", "name": name, "args": args, "id": id_},
    st.sampled_from(["look_up", "search"]),
    st.dictionaries(st.sampled_from("abc"), st.integers() | sentences, max_size=2),
    st.uuids().map(str),
)
both_can_express = st.one_of(
    st.builds(HumanMessage, lc_texts, name=st.none() | st.just("ann")),
    st.builds(SystemMessage, lc_texts),
    st.builds(AIMessage, lc_texts, tool_calls=st.lists(lc_calls, max_size=2)),
    st.builds(lambda calls: AIMessage("", tool_calls=calls), st.lists(lc_calls, min_size=1, max_size=2)),
    st.builds(ToolMessage, lc_texts, tool_call_id=st.uuids().map(str), name=st.none() | st.just("look_up")),
    st.builds(
        lambda text, images: HumanMessage([{"type": "text", "text": text}, *images]),
        lc_texts,
        st.lists(lc_images, min_size=1, max_size=2),
    ),
)


@given(message=both_can_express)
def test_what_both_can_express_goes_over_and_back_by_its_fields_alone(message: BaseMessage) -> None:
    """Also where nothing is known of where it came from: LlamaIndex's message went through JSON."""
    there = to_llama_index(from_langchain(message))
    anew = ChatMessage.model_validate(json.loads(there.model_dump_json()))
    assert to_langchain(from_llama_index(anew)) == message


@given(message=any_message)
def test_any_message_goes_over_langchain_and_back(message: ChatMessage) -> None:
    there = to_langchain(from_llama_index(message))
    assert isinstance(there, BaseMessage)
    memory = ShortTermMemory()
    entry = memory.get(memory.add_message(from_llama_index(message)))
    assert entry is not None
    to_langchain(entry.message)  # shown to the other framework,
    assert to_llama_index(entry.message) == message  # it is as it was


def test_what_llamaindex_cannot_express_is_left_out_there_and_survives() -> None:
    said = HumanMessage(
        [
            "Look: ",
            {"type": "image_url", "image_url": {"url": "https://x.org/a.png"}},
            {"type": "file", "file_id": "1"},
        ],
        id="1",
    )
    read = from_langchain(said)
    shown = to_llama_index(read)
    assert [type(block) for block in shown.blocks] == [TextBlock, ImageBlock]
    assert to_langchain(from_llama_index(shown)) == said
    thought = AIMessage([{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "Yes."}])
    assert [type(block) for block in to_llama_index(from_langchain(thought)).blocks] == [ThinkingBlock, TextBlock]
    called = AIMessage(
        [{"type": "tool_use", "id": "a", "name": "look_up", "input": {}}],
        tool_calls=[{"type": "tool_call", "id": "a", "name": "look_up", "args": {}}],
    )
    assert [type(block) for block in to_llama_index(from_langchain(called)).blocks] == [ToolCallBlock]


@given(message=any_message)
def test_a_copy_of_ones_own_is_equal(message: ChatMessage) -> None:
    assert own(message).model_dump() == message.model_dump()
