"""Any of LlamaIndex's messages, for tests of what must lose nothing of them."""

from __future__ import annotations

from hypothesis import strategies as st
from llama_index.core.base.llms.types import (
    AudioBlock,
    CacheControl,
    CachePoint,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)
from strategies import json_values, nasty_text

texts = st.text(st.characters(), max_size=30) | nasty_text | st.sampled_from(["", "漢字と仮名", "👩‍👩‍👧", "\ud83d"])
arguments = st.dictionaries(nasty_text, json_values, max_size=3)

text_blocks = st.builds(TextBlock, text=texts)
images = st.one_of(
    st.just(ImageBlock(image=b"iVBORw0KGgo=", image_mimetype="image/png", detail="low")),
    st.just(ImageBlock(url="https://example.org/a.png")),
)
media = images | st.sampled_from(
    [
        AudioBlock(audio=b"UklGRg==", format="wav"),
        VideoBlock(url="https://example.org/a.mp4"),
        DocumentBlock(data=b"aGVsbG8=", title="letter.txt", document_mimetype="text/plain"),
        DocumentBlock(url="https://example.org/a.pdf"),
    ]
)
calls = st.builds(
    ToolCallBlock,
    tool_call_id=st.none() | texts,
    tool_name=texts,
    tool_kwargs=arguments | st.sampled_from(["", "{}", '{"a": 1}', "no JSON"]),
)
own = st.sampled_from(
    [
        CachePoint(cache_control=CacheControl(type="ephemeral")),
        ThinkingBlock(content="hm", num_tokens=3, additional_information={"signature": "c2ln"}),
        ThinkingBlock(),
        CitableBlock(title="t", source="s", content=[TextBlock(text="cited")]),
        CitationBlock(cited_content=TextBlock(text="c"), source="s", title="t", additional_location_info={"page": 1}),
    ]
)
blocks = text_blocks | media | calls | own
others = st.dictionaries(nasty_text.filter(lambda key: key not in ("tool_calls", "images")), json_values, max_size=2)
messages = st.builds(
    ChatMessage,
    role=st.sampled_from(list(MessageRole)),
    blocks=st.lists(blocks, max_size=4),
    additional_kwargs=others,
)
