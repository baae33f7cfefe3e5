"""Any of LangChain's messages, for tests of what must lose nothing of them."""

from __future__ import annotations

from hypothesis import strategies as st
from langchain_core.messages import AIMessage, ChatMessage, FunctionMessage, HumanMessage, SystemMessage, ToolMessage
from strategies import json_values, nasty_text

# Lone surrogates too: they come out of models that were cut off in the middle of an emoji.
texts = st.text(st.characters(), max_size=30) | nasty_text | st.sampled_from(["", "漢字と仮名", "👩‍👩‍👧", "\ud83d"])
ids = st.none() | texts.filter(bool)
objects = st.dictionaries(nasty_text.filter(lambda key: key != "tool_calls"), json_values, max_size=3)

blocks = st.one_of(
    texts,
    st.builds(lambda text: {"type": "text", "text": text}, texts),
    st.builds(lambda text: {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}, texts),
    st.just({"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}),
    st.just({"type": "image", "source_type": "base64", "mime_type": "image/png", "data": "iVBORw0KGgo="}),
    st.just({"type": "audio", "base64": "UklGRg==", "mime_type": "audio/wav"}),
    st.just({"type": "file", "file_id": "file-1"}),
    st.just({"type": "reasoning", "id": "rs_1", "summary": []}),
    st.just({"type": "thinking", "thinking": "hm", "signature": "c2ln"}),
    st.builds(lambda fields: {**fields, "type": "not_yet_invented"}, objects),
    st.just({"no_type": 1}),
)
contents = texts | st.lists(blocks, max_size=4)
common = {
    "content": contents,
    "name": ids,
    "id": ids,
    "additional_kwargs": objects,
    "response_metadata": objects,
}
tool_calls = st.builds(
    lambda name, args, id_: {"name": name, "args": args, "id": id_, "type": "tool_call"}, texts, objects, ids
)
invalid_tool_calls = st.builds(
    lambda name, args, id_, error: {"name": name, "args": args, "id": id_, "error": error, "type": "invalid_tool_call"},
    st.none() | texts,
    st.none() | texts,
    ids,
    st.none() | texts,
)
usages = st.none() | st.builds(
    lambda a, b: {
        "input_tokens": a,
        "output_tokens": b,
        "total_tokens": a + b,
        "input_token_details": {"cache_read": a},
    },
    st.integers(0, 9),
    st.integers(0, 9),
)
human = st.builds(HumanMessage, **common)
ai = st.builds(
    AIMessage,
    **common,
    tool_calls=st.lists(tool_calls, max_size=3),
    invalid_tool_calls=st.lists(invalid_tool_calls, max_size=2),
    usage_metadata=usages,
)
tool = st.builds(
    ToolMessage,
    **common,
    tool_call_id=texts,
    artifact=json_values | st.builds(object),
    status=st.sampled_from(["success", "error"]),
)
others = st.one_of(
    st.builds(SystemMessage, **common),
    st.builds(ChatMessage, **common, role=texts.filter(bool)),
    st.builds(FunctionMessage, **{**common, "name": texts.filter(bool)}),
)
messages = human | ai | tool | others
