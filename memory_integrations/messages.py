"""The neutral message that both framework faces convert to and from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from memory_integrations.errors import MessageError

Content = str | Sequence[str | Mapping[str, Any]]
"""Plain text, or a list of texts and content blocks such as ``{"type": "text", "text": "..."}``."""

DEEPEST = 100
"""Levels of lists and objects in what is stored."""

SUMMARY = "summary"
"""Marks, in the metadata of a system message, that it stands in the place of older messages of a conversation."""

_ALIASES = {"human": "user", "ai": "assistant", "chatbot": "assistant", "model": "assistant"}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool that an assistant's message asks for.

    Args:
        id: Its id, by which its result names it.
        name: The tool's name.
        arguments: An object of JSON; a value of another type is read as the text that ``str`` makes of it.

    Raises:
        MessageError: The arguments are no such object, hold themselves, or are nested more than 100 deep.
    """

    id: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            arguments = dict(self.arguments)
            json.dumps(arguments, default=str)
            if is_deeper(arguments, DEEPEST):
                raise ValueError("they are too deep")
        except (TypeError, ValueError, RecursionError) as error:
            raise MessageError(
                f"The arguments of the tool call {self.name!r:.60} are no object of JSON ({error}): expected a mapping "
                f"with text as keys, and values that JSON has, at most {DEEPEST} deep."
            ) from error


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    Args:
        role: "user", "assistant", "system", "tool", or any other role; "human" and "ai" are read as the first two.
        content: Text, or a list of content blocks.
        name: Who speaks, where the role does not say it.
        id: Given on arrival in a memory where it is None, and kept for good.
        session_id: The session it was said in; given on arrival.
        created_at: When it was said, with its time zone; kept as UTC. Given on arrival.
        metadata: Anything else; kept untouched.
        tool_calls: The calls that an assistant's message asks for.
        tool_call_id: For a tool's result, the call that it answers.
        raw: The framework's own message that this one was read from, so that nothing of it is lost; kept in the
            process, never stored.

    Raises:
        MessageError: The role is empty, the content is neither text nor blocks, or nested more than 100 deep, or the
            time has no zone.
    """

    role: str
    content: Content
    name: str | None = None
    id: str | None = None
    session_id: str | None = None
    created_at: datetime | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    raw: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        role, content, moment = self.role, self.content, self.created_at
        if not isinstance(role, str) or not role:
            raise MessageError(f"role={role!r}: expected text such as 'user', 'assistant', 'system' or 'tool'.")
        if role in _ALIASES:
            object.__setattr__(self, "role", _ALIASES[role])
        if isinstance(content, str):
            if not content.isascii():
                object.__setattr__(self, "content", as_unicode(content))
        elif not isinstance(content, list | tuple) or not all(isinstance(block, str | Mapping) for block in content):
            raise MessageError(f"content={content!r:.80}: expected text, or a list of texts and content blocks.")
        elif is_deeper(content, DEEPEST):
            raise MessageError(f"The content is nested more than {DEEPEST} deep: expected blocks that JSON has.")
        for name in ("name", "id", "session_id"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise MessageError(f"{name}={value!r}: expected text, or None.")
            if value is not None and not value.isascii():
                object.__setattr__(self, name, as_unicode(value))
        if moment is not None and getattr(moment, "tzinfo", None) is not UTC:
            object.__setattr__(self, "created_at", as_utc(moment))

    @property
    def text(self) -> str:
        """The content as plain text: the text blocks joined by new lines, media left out."""
        if isinstance(self.content, str):
            return self.content
        texts = (block if isinstance(block, str) else block.get("text") for block in self.content)
        joined = "\n".join(text for text in texts if isinstance(text, str) and text)
        return joined if joined.isascii() else as_unicode(joined)

    @property
    def speaker(self) -> str:
        """The name where there is one, else the role."""
        return self.name or self.role


def as_unicode(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates replaced by U+FFFD, so that it can be stored."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def with_unicode(value: Any) -> Any:
    """What lists and objects hold, with every text in it as :func:`as_unicode` gives it."""
    if isinstance(value, str):
        return as_unicode(value)
    if isinstance(value, list | tuple):
        return [with_unicode(item) for item in value]
    if isinstance(value, dict):
        return {with_unicode(name): with_unicode(item) for name, item in value.items()}
    return value


def is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects stand in each other in more levels: an engine that took them may not read them back."""
    level = [value]
    for _ in range(levels + 1):
        level = [one for one in level if isinstance(one, dict | list | tuple)]
        if not level:
            return False
        level = [part for one in level for part in (one.values() if isinstance(one, dict) else one)]
    return True


def as_aware(moment: datetime) -> datetime:
    """The moment as it is, or in UTC where it has no time zone."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def as_utc(moment: datetime) -> datetime:
    """The moment in UTC.

    Raises:
        MessageError: It is not a datetime with a time zone.
    """
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise MessageError(
            f"time {moment!r}: expected a datetime with a time zone, such as datetime.now(timezone.utc)."
        )
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise MessageError(f"time {moment!r} is before the year 1 or after 9999 in UTC.") from None


def transcript(messages: Sequence[Message]) -> str:
    """The messages as lines ``speaker: text``, tool calls and results included."""
    return "\n".join(transcript_line(message) for message in messages)


def transcript_line(message: Message) -> str:
    """One message as ``speaker: text``; an assistant's tool calls follow its text."""
    calls = "".join(f" [calls {call.name}({dict(call.arguments)})]" for call in message.tool_calls)
    return f"{message.speaker}: {message.text}{calls}"
