"""What compressed entries said in full: events in the journal of their session, so that they can be brought back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from memory_integrations.journal import Event, Journal
from memory_integrations.messages import Message
from memory_integrations.scopes import MemoryScope

_KIND = "compress"


class Originals:
    """The messages of a session that were compressed, as they were said.

    Args:
        journal: Where they are kept.
        scope: The session.
    """

    def __init__(self, journal: Journal, scope: MemoryScope) -> None:
        self._said: dict[str, Mapping[str, Any]] = {}
        self._journal = journal.open(scope, self._on_event, self._said.clear)

    def keep(self, message: Message) -> None:
        """Write a message down before it is compressed, if it is not written down already.

        Raises:
            StoreError: It could not be written.
        """
        assert message.id is not None and message.created_at is not None  # an entry's message has arrived
        data = {
            "id": message.id,
            "role": message.role,
            "content": message.content,
            "name": message.name,
            "session_id": message.session_id,
            "said_at": message.created_at.isoformat(),
        }
        if self._said.get(message.id) != data:
            self._journal.append(_KIND, data)

    def get(self, entry_id: str) -> Message | None:
        """The message of an entry as it was said; None where it was never compressed."""
        self._journal.refresh()
        data = self._said.get(entry_id)
        if data is None:
            return None
        said_at = datetime.fromisoformat(data["said_at"])
        return Message(data["role"], data["content"], data["name"], data["id"], data["session_id"], said_at)

    def erase(self) -> None:
        """Remove them, physically."""
        self._journal.erase()

    def _on_event(self, event: Event) -> None:
        if event.kind == _KIND:
            self._said[event.data["id"]] = dict(event.data)
