"""LangChain's messages as the neutral message and back, losing nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    BaseMessage,
    BaseMessageChunk,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    message_chunk_to_message,
)

from memory_integrations.messages import SUMMARY, Message, ToolCall, as_unicode

_ROLES = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool"}
_SOURCE, _SUMMARIZATION = "lc_source", "summarization"
"""What LangChain marks its summaries by."""
_SUMMARY = "Here is a summary of the conversation to date:\n\n"
"""How they begin."""
_CALL_BLOCKS = frozenset(("tool_call", "invalid_tool_call", "tool_use", "function_call"))
"""Types of content blocks that are calls: LangChain's own, Anthropic's and OpenAI's."""


def from_langchain(message: BaseMessage) -> Message:
    """The neutral message; a chunk becomes a whole message.

    A summary that ``SummarizationMiddleware`` put in the place of older messages is read as a system message: nobody
    said it, and it stays.
    """
    if isinstance(message, BaseMessageChunk):
        message = message_chunk_to_message(message)
    role = message.role if isinstance(message, ChatMessage) else _ROLES.get(message.type, message.type)
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
        metadata={SUMMARY: True} if is_summary(message) else {},
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
    if message.id != raw.id and (raw.id is None or message.id != as_unicode(raw.id)):
        changes["id"] = message.id
    if isinstance(raw, AIMessage) and len(message.tool_calls) < len(raw.tool_calls) + len(raw.invalid_tool_calls):
        changes |= _with_calls(raw, message.tool_calls, changes.get("content", raw.content))
    return raw.model_copy(update=changes) if changes else raw


def all_to_langchain(messages: Iterable[Message]) -> list[BaseMessage]:
    """LangChain's messages."""
    return [to_langchain(message) for message in messages]


def is_summary(message: BaseMessage) -> bool:
    """Whether a message is marked as a summary of older ones, and so is nothing that the user said.

    By its mark alone: a user may say anything.
    """
    return isinstance(message, HumanMessage) and message.additional_kwargs.get(_SOURCE) == _SUMMARIZATION


def with_summary_marked(messages: Sequence[AnyMessage]) -> Sequence[AnyMessage]:
    """An agent's messages; where its first one reads as a summary, marked as that.

    For LangChain before 1.2.6, which does not mark its summaries. It puts them first.
    """
    first = messages[0] if messages else None
    if not isinstance(first, HumanMessage) or not str(first.content).startswith(_SUMMARY):
        return messages
    mark = {**first.additional_kwargs, _SOURCE: _SUMMARIZATION}
    return [first.model_copy(update={"additional_kwargs": mark}), *messages[1:]]


def extended(message: BaseMessage, text: str) -> BaseMessage:
    """A copy of a message with a text behind what it says."""
    content = message.content
    if isinstance(content, str):
        return message.model_copy(update={"content": f"{content}\n\n{text}" if content else text})
    return message.model_copy(update={"content": [*content, {"type": "text", "text": text}]})


def _is_content_of(message: Message, raw: BaseMessage) -> bool:
    content = message.content
    if content is raw.content or content == raw.content:
        return True
    return isinstance(raw.content, str) and content == as_unicode(raw.content)


def _content(message: Message) -> Any:
    return message.content if isinstance(message.content, str) else list(message.content)


def _with_calls(raw: AIMessage, calls: Sequence[ToolCall], content: Any) -> dict[str, Any]:
    """The fields of an assistant's message with these of its tool calls only, wherever a provider keeps them."""
    made = [call["id"] or "" for call in (*raw.tool_calls, *raw.invalid_tool_calls)]
    left: Counter[str | None] = Counter(call.id for call in calls)  # a server may give several calls one id, or none
    stays = _stay(made, made, left)
    fields: dict[str, Any] = {
        "tool_calls": list(compress(raw.tool_calls, stays)),
        "invalid_tool_calls": list(compress(raw.invalid_tool_calls, stays[len(raw.tool_calls) :])),
    }
    if isinstance(content, Sequence) and not isinstance(content, str):
        fields["content"] = list(compress(content, _stay(map(_call_id, content), made, left)))
    others = dict(raw.additional_kwargs)
    if sent := others.pop("tool_calls", None):
        kept = list(compress(sent, _stay((call.get("id") or "" for call in sent), made, left)))
        others |= {"tool_calls": kept} if kept else {}  # an empty list would be sent, and refused
    last = others.get("function_call")  # Gemini's last call, which is sent where there are no others
    if last and last.get("name") not in {call.name for call in calls}:
        del others["function_call"]
    return {**fields, "additional_kwargs": others}


def _stay(ids: Iterable[str | None], made: Sequence[str], stay: Counter[str | None]) -> list[bool]:
    """Which of some items stay, by the ids of the calls that they are: of each id so many; what is no call does."""
    left = Counter(stay)
    stays = []
    for call_id in ids:
        is_call = call_id is not None and call_id in made
        stays.append(not is_call or left[call_id] > 0)
        left[call_id] -= is_call
    return stays


def _call_id(block: Any) -> str | None:
    """The id of the call that a content block is; None where it is none."""
    if not isinstance(block, Mapping):
        return None
    found = block.get("call_id") or block.get("id") or ("" if block.get("type") in _CALL_BLOCKS else None)
    return found if isinstance(found, str) else None


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
