"""What a message is given when it arrives in a memory, an id, a session, a time, and what is taken out of it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from memory_integrations.delimiters import strip_injected
from memory_integrations.errors import MessageError
from memory_integrations.forks import in_child
from memory_integrations.messages import Content, Message


def utc_now() -> datetime:
    """The default clock of every memory; each takes another as ``clock=``."""
    return datetime.now(UTC)


def arrived(message: Message, session_id: str | None, now: datetime) -> Message:
    """The message with an id, a session and a time, where it has none yet."""
    if message.id and message.created_at and (message.session_id or session_id is None):
        return message
    return Message(
        message.role,
        message.content,
        message.name,
        message.id or new_id(),
        message.session_id or session_id,
        message.created_at or now,
        message.metadata,
        message.tool_calls,
        message.tool_call_id,
        message.raw,
    )


def expect_message(message: Message) -> Message:
    """The message itself.

    Raises:
        MessageError: It is none.
    """
    if not isinstance(message, Message):
        raise MessageError(
            f"{type(message).__name__} {message!r:.60}: expected a memory_integrations.Message, such as "
            "Message('user', 'Hello')."
        )
    return message


def expect_text(name: str, text: str) -> str:
    """The text itself.

    Raises:
        MessageError: It is none.
    """
    if not isinstance(text, str):
        raise MessageError(f"{name}={text!r:.60}: expected text.")
    return text


def without_injected(message: Message) -> Message:
    """The message without blocks of injected memory: the same object where it has none.

    What a tool found in memory stays: it is no memory, and its call needs its result.
    """
    content = message.content
    if message.role == "tool":
        return message
    if isinstance(content, str):
        stripped: Content = strip_injected(content)
    else:
        stripped = [left for block in content if (left := _block_without_injected(block)) is not None]
    return message if len(stripped) == len(content) and stripped == content else replace(message, content=stripped)


def _block_without_injected(block: str | Mapping[str, Any]) -> str | Mapping[str, Any] | None:
    """The block without injected memory; None where it was nothing else."""
    text = block if isinstance(block, str) else block.get("text")
    if not isinstance(text, str) or (stripped := strip_injected(text)) == text:
        return block
    if not stripped:
        return None
    return stripped if isinstance(block, str) else {**block, "text": stripped}


def says_something(message: Message) -> bool:
    """Whether it has content."""
    return bool(message.content and (not isinstance(message.content, str) or message.content.strip()))


_prefix = os.urandom(10).hex()
_numbers = itertools.count()


def new_id() -> str:
    """A message id: 80 random bits a process and a number, which is a third of the cost of a UUID."""
    return f"m-{_prefix}-{next(_numbers)}"


def _renew_prefix() -> None:
    global _prefix
    _prefix = os.urandom(10).hex()


in_child(_renew_prefix)
