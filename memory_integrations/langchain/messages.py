"""LangChain's messages as the neutral message and back, losing nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    BaseMessageChunk,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    message_chunk_to_message,
)

from memory_integrations.messages import Message, ToolCall, as_unicode

_ROLES = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool"}
_SUMMARY = "Here is a summary of the conversation to date:"  # older releases of LangChain mark theirs by this alone


def from_langchain(message: BaseMessage) -> Message:
    """The neutral message; a chunk becomes a whole message.

    A summary that ``SummarizationMiddleware`` put in the place of older messages is read as a system message: nobody
    said it, and it stays.
    """
    if isinstance(message, BaseMessageChunk):
        message = message_chunk_to_message(message)
    role = getattr(message, "role", None) or _ROLES.get(message.type, message.type)
    if is_summary(message):
        role = "system"
    calls: tuple[ToolCall, ...] = ()
    if isinstance(message, AIMessage):
        calls = tuple(ToolCall(call["id"] or "", call["name"], call["args"]) for call in message.tool_calls)
        # The framework answers calls that could not be read, too.
        calls += tuple(ToolCall(call["id"] or "", call["name"] or "") for call in message.invalid_tool_calls)
    return Message(
        role,
        message.content,
        name=message.name,
        id=message.id,
        tool_calls=calls,
        tool_call_id=message.tool_call_id if isinstance(message, ToolMessage) else None,
        raw=message,
    )


def to_langchain(message: Message) -> BaseMessage:
    """LangChain's message: the one that it was read from, where that says the same, else one made of it."""
    if not isinstance(message.raw, BaseMessage):
        return _built(message)
    raw: BaseMessage = message.raw
    changes: dict[str, Any] = {}
    if not _is_content_of(message, raw):
        changes["content"] = _content(message)
    if raw.id != message.id:
        changes["id"] = message.id
    if isinstance(raw, AIMessage) and len(message.tool_calls) < len(raw.tool_calls) + len(raw.invalid_tool_calls):
        changes |= _with_calls(raw, {call.id for call in message.tool_calls}, changes.get("content", raw.content))
    return raw.model_copy(update=changes) if changes else raw


def all_to_langchain(messages: Iterable[Message]) -> list[BaseMessage]:
    """LangChain's messages."""
    return [to_langchain(message) for message in messages]


def is_summary(message: BaseMessage) -> bool:
    """Whether a message is a summary of older ones, and nothing that the user said."""
    if not isinstance(message, HumanMessage):
        return False
    marked = message.additional_kwargs.get("lc_source") == "summarization"
    return marked or (isinstance(message.content, str) and message.content.startswith(_SUMMARY))


def _is_content_of(message: Message, raw: BaseMessage) -> bool:
    content = message.content
    if content is raw.content or content == raw.content:
        return True
    return isinstance(raw.content, str) and content == as_unicode(raw.content)


def _content(message: Message) -> Any:
    return message.content if isinstance(message.content, str) else list(message.content)


def _with_calls(raw: AIMessage, ids: Collection[str], content: Any) -> dict[str, Any]:
    """The fields of an assistant's message with these of its tool calls only, wherever a provider keeps them."""
    fields: dict[str, Any] = {
        "tool_calls": [call for call in raw.tool_calls if call["id"] in ids],
        "invalid_tool_calls": [call for call in raw.invalid_tool_calls if call["id"] in ids],
    }
    dropped = {call["id"] for call in (*raw.tool_calls, *raw.invalid_tool_calls)} - set(ids)
    if isinstance(content, Sequence) and not isinstance(content, str):
        fields["content"] = [block for block in content if not _mentions(block, dropped)]
    if "tool_calls" in raw.additional_kwargs:
        kept = [call for call in raw.additional_kwargs["tool_calls"] if not _mentions(call, dropped)]
        fields["additional_kwargs"] = {**raw.additional_kwargs, "tool_calls": kept}
    return fields


def _mentions(block: Any, ids: Collection[str | None]) -> bool:
    return isinstance(block, dict) and (block.get("id") in ids or block.get("call_id") in ids) and "type" in block


def _built(message: Message) -> BaseMessage:
    """A message that did not come from LangChain."""
    content, name, id_ = _content(message), message.name, message.id
    if message.role == "user":
        return HumanMessage(content=content, name=name, id=id_)
    if message.role == "system":
        return SystemMessage(content=content, name=name, id=id_)
    if message.role == "tool":
        return ToolMessage(content=content, name=name, id=id_, tool_call_id=message.tool_call_id or "")
    if message.role == "assistant":
        calls: list[Any] = [
            {"type": "tool_call", "id": call.id, "name": call.name, "args": dict(call.arguments)}
            for call in message.tool_calls
        ]
        return AIMessage(content=content, name=name, id=id_, tool_calls=calls)
    return ChatMessage(content=content, name=name, id=id_, role=message.role)
