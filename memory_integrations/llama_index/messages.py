"""LlamaIndex's messages as the neutral message and back, losing nothing."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llama_index.core.base.llms.types import (
    AudioBlock,
    ChatMessage,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)
from pydantic import PrivateAttr

from memory_integrations.messages import Content, Message, ToolCall, as_unicode

_ROLES = {
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.TOOL: "tool",
    MessageRole.FUNCTION: "tool",
}
_CALLS = frozenset(("tool_call", "invalid_tool_call", "tool_use", "function_call", "tool_result"))
"""Types of content blocks that say what ``tool_calls`` say too."""


class RememberedMessage(ChatMessage):
    """A chat message that knows what it is in memory: its id, and another framework's message where it came from there.

    Given back to a memory, it is known. It is equal to any ``ChatMessage`` that says the same.
    """

    _of: Message | None = PrivateAttr(None)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ChatMessage):
            return NotImplemented
        mine = self.role, self.blocks, self.additional_kwargs
        return mine == (other.role, other.blocks, other.additional_kwargs)

    __hash__ = None  # type: ignore[assignment]


_EMPTY = RememberedMessage(role=MessageRole.USER, blocks=[], additional_kwargs={})


def from_llama_index(message: ChatMessage) -> Message:
    """The neutral message; that of a :class:`RememberedMessage` where it still says the same."""
    remembered = message._of if isinstance(message, RememberedMessage) else None
    if remembered is not None and to_llama_index(remembered) == message:
        return remembered
    role = _ROLES[message.role]
    others = message.additional_kwargs
    name, call_id = others.get("name"), others.get("tool_call_id")
    return Message(
        role,
        _content(message.blocks),
        name=name if isinstance(name, str) and name else None,
        id=remembered.id if remembered is not None else None,
        tool_calls=_calls(message) if role == "assistant" else (),
        tool_call_id=str(call_id) if role == "tool" and call_id is not None else None,
        raw=own(message),
    )


def to_llama_index(message: Message) -> RememberedMessage:
    """LlamaIndex's message, which shares no block with memory: what it was read from, else one made of it."""
    raw = message.raw
    if not isinstance(raw, ChatMessage):
        return _remembered(message, *_built(message))
    if (
        len(raw.blocks) == 1
        and not raw.additional_kwargs
        and type(raw.blocks[0]) is TextBlock
        and _says(raw.blocks, message.content)
    ):
        return _remembered(message, [raw.blocks[0].__copy__()], {}, raw.role)  # most are
    blocks = [block.__copy__() for block in raw.blocks]
    others = _copied(raw.additional_kwargs)
    if not _says(raw.blocks, message.content):
        blocks = [*_blocks(message.content), *(block for block in blocks if isinstance(block, ToolCallBlock))]
    if message.role == "assistant" and len(message.tool_calls) < len(_calls(raw)):
        stay = Counter(call.id for call in message.tool_calls)
        blocks = [
            block for block in blocks if not isinstance(block, ToolCallBlock) or _take(stay, block.tool_call_id or "")
        ]
        if "tool_calls" in others:
            stay = Counter(call.id for call in message.tool_calls)
            others["tool_calls"] = [call for call in _sent_calls(others) if _take(stay, _sent_call(call).id)]
            if not others["tool_calls"]:  # an empty list would be sent, and refused
                del others["tool_calls"]
    return _remembered(message, blocks, others, raw.role)


def own(message: ChatMessage) -> ChatMessage:
    """A copy that shares no block and no argument with the message: frameworks change what they hold in their hands."""
    return ChatMessage.model_construct(
        role=message.role,
        blocks=[block.model_copy() for block in message.blocks],
        additional_kwargs=_copied(message.additional_kwargs),
    )


def before(message: ChatMessage, text: str) -> None:
    """Put a text in front of what a message says, as a block of its own: the last block stays the user's."""
    message.blocks = [TextBlock(text=text), *message.blocks]


def _remembered(message: Message, blocks: list[Any], others: dict[str, Any], role: MessageRole) -> RememberedMessage:
    made = _EMPTY.__copy__()  # a third of what making one costs
    made.__dict__.update(role=role, blocks=blocks, additional_kwargs=others)
    object.__setattr__(made, "__pydantic_private__", {"_of": message})  # as an assignment does in ten times the time
    return made


def _says(blocks: Sequence[Any], content: Content) -> bool:
    """Whether blocks, calls aside, are a content."""
    return _is_text(blocks[0], content) if len(blocks) == 1 else _content(blocks) == content


def _is_text(block: Any, content: Content) -> bool:
    if not isinstance(block, TextBlock):
        return _content([block]) == content
    return block.text == content or as_unicode(block.text) == content


def _copied(value: Any) -> Any:
    if type(value) is list:
        return [_copied(item) for item in value]
    return {key: _copied(item) for key, item in value.items()} if type(value) is dict else value


def _take(left: Counter[str], name: str) -> bool:
    """Whether there is one left of a name; it is taken."""
    left[name] -= 1
    return left[name] >= 0


# Content: LangChain's standard blocks, which are plain dictionaries, are the neutral ones.


def _content(blocks: Iterable[Any]) -> Content:
    """What blocks say, calls aside: text where that is all, else a list of content blocks."""
    told = [block for block in blocks if not isinstance(block, ToolCallBlock)]
    if not told:
        return ""
    if len(told) == 1 and isinstance(told[0], TextBlock):
        return as_unicode(told[0].text)
    return list(map(_as_dict, told))


def _as_dict(block: Any) -> dict[str, Any]:
    if isinstance(block, TextBlock):
        return {"type": "text", "text": as_unicode(block.text)}
    if isinstance(block, ImageBlock):
        return _media("image", block.image, block.url, block.path, block.image_mimetype)
    if isinstance(block, AudioBlock):
        return _media("audio", block.audio, block.url, block.path, block.format and f"audio/{block.format}")
    if isinstance(block, VideoBlock):
        return _media("video", block.video, block.url, block.path, block.video_mimetype)
    if isinstance(block, DocumentBlock):
        return _media("file", block.data, block.url, block.path, block.document_mimetype, filename=block.title)
    if isinstance(block, ThinkingBlock):
        return {"type": "reasoning", "reasoning": block.content or ""}
    return {"type": "non_standard", "value": block.model_dump(mode="json")}


def _media(kind: str, data: Any, url: Any, path: Any, mime_type: str | None, **others: str | None) -> dict[str, Any]:
    made: dict[str, Any] = {"type": kind}
    if data is not None:
        made["base64"] = _base64(data)
    elif url is not None:
        made["url"] = str(url)
    elif path is not None:
        made["url"] = Path(path).absolute().as_uri()
    return made | {name: value for name, value in {"mime_type": mime_type, **others}.items() if value}


def _base64(data: Any) -> str:
    """LlamaIndex keeps bytes as base64 already, most of the time; a file is read."""
    if isinstance(data, bytes) and data.isascii():
        return data.decode("ascii")
    if not isinstance(data, bytes):
        data.seek(0)
        data = data.read()
    return base64.b64encode(data).decode("ascii")


def _blocks(content: Content) -> list[Any]:
    """LlamaIndex's blocks of a content. What it has no block for is left out: it stays in the message it came from."""
    if isinstance(content, str):
        return [TextBlock(text=content)] if content else []
    return [made for block in content if (made := _as_block(block)) is not None]


def _as_block(block: str | Mapping[str, Any]) -> Any:
    if isinstance(block, str):
        return TextBlock(text=block)
    kind = block.get("type")
    if kind in _CALLS:
        return None
    if kind in ("reasoning", "thinking"):
        return ThinkingBlock(content=str(block.get("reasoning") or block.get("thinking") or ""))
    if kind == "non_standard":
        return _of_its_own(block.get("value"))
    source = _source(block)
    if source is not None:
        return _media_block(str(kind), source, block)
    return TextBlock(text=block["text"]) if isinstance(block.get("text"), str) else None


def _source(block: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Where a media block's data is: in base64 or at a URL, as LangChain, OpenAI or Anthropic say it."""
    if "base64" in block or "url" in block:
        return block
    inside = block.get("image_url") or block.get("input_audio") or block.get("file") or block.get("source")
    if isinstance(inside, str):
        return {"url": inside}
    if not isinstance(inside, Mapping):
        return None
    data, url = inside.get("data") or inside.get("file_data"), inside.get("url")
    mime_type = inside.get("media_type") or (inside.get("format") and f"audio/{inside['format']}")
    if isinstance(data, str):
        return {"base64": data, "mime_type": mime_type}
    return {"url": url} if isinstance(url, str) else None


def _media_block(kind: str, source: Mapping[str, Any], block: Mapping[str, Any]) -> Any:
    data = source["base64"].encode() if isinstance(source.get("base64"), str) else None
    url = source.get("url") if data is None else None
    mime_type = block.get("mime_type") or source.get("mime_type")
    if "image" in kind:
        return ImageBlock(image=data, url=url, image_mimetype=mime_type)
    if "audio" in kind:
        return AudioBlock(audio=data, url=url, format=mime_type.partition("/")[2] if mime_type else None)
    if "video" in kind:
        return VideoBlock(video=data, url=url, video_mimetype=mime_type)
    return DocumentBlock(data=data, url=url, document_mimetype=mime_type, title=block.get("filename"))


def _of_its_own(value: Any) -> Any:
    """A block that only LlamaIndex has, as it was; None for another framework's."""
    if not isinstance(value, Mapping) or "block_type" not in value:
        return None
    return ChatMessage.model_validate({"blocks": [value]}).blocks[0]


# Tool calls


def _calls(message: ChatMessage) -> tuple[ToolCall, ...]:
    """The calls that a message asks for: its blocks, or what older integrations keep beside them."""
    calls = tuple(
        ToolCall(block.tool_call_id or "", block.tool_name, _arguments(block.tool_kwargs))
        for block in message.blocks
        if isinstance(block, ToolCallBlock)
    )
    return calls or tuple(map(_sent_call, _sent_calls(message.additional_kwargs)))


def _sent_calls(others: Mapping[str, Any]) -> list[Any]:
    """The calls that are kept beside the blocks; what is none, whoever put it there, asks for nothing."""
    sent = others.get("tool_calls")
    if not isinstance(sent, list | tuple):
        return []
    return [call for call in sent if any(_field(call, name) for name in ("id", "function", "name"))]


def _sent_call(call: Any) -> ToolCall:
    """A call as a provider's client has it: an object or a dictionary."""
    function = _field(call, "function") or call
    return ToolCall(
        str(_field(call, "id") or ""), str(_field(function, "name") or ""), _arguments(_field(function, "arguments"))
    )


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _arguments(given: Any) -> Mapping[str, Any]:
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            return {}
    return given if isinstance(given, Mapping) else {}


def _built(message: Message) -> tuple[list[Any], dict[str, Any], MessageRole]:
    """Blocks, further arguments and role of a message that did not come from LlamaIndex."""
    blocks = _blocks(message.content)
    others: dict[str, Any] = {"name": message.name} if message.name else {}
    if message.role == "tool":
        others["tool_call_id"] = message.tool_call_id or ""
    blocks += [
        ToolCallBlock(tool_call_id=call.id, tool_name=call.name, tool_kwargs=dict(call.arguments))
        for call in message.tool_calls
    ]
    role = message.role if message.role in ("assistant", "system", "tool") else "user"
    return blocks, others, MessageRole(role)
