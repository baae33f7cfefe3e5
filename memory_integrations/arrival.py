"""What a message is given when it arrives in a memory: an id, a session, a time."""

from __future__ import annotations

import itertools
import os
from datetime import UTC, datetime

from memory_integrations.messages import Message


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


_prefix = os.urandom(10).hex()
_numbers = itertools.count()


def new_id() -> str:
    """A message id: 80 random bits a process and a number, which is a third of the cost of a UUID."""
    return f"m-{_prefix}-{next(_numbers)}"


def _renew_prefix() -> None:
    global _prefix
    _prefix = os.urandom(10).hex()


os.register_at_fork(after_in_child=_renew_prefix)
