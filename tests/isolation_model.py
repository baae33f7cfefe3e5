"""What memory is expected to hold, as plain dictionaries by scope: the other side of ``test_isolation``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from memory_integrations import MemoryScope
from memory_integrations.scopes import GLOBAL

MISSING: Any = object()


@dataclass
class Change:
    """An event of a scope's journal: a fact set or deleted, a change taken back, a conversation cleared."""

    number: int
    at: datetime
    kind: str
    key: str = ""
    value: Any = None
    of: int = 0


@dataclass
class Memory:
    """Something that long-term memory holds: a message, a file's summary, an item."""

    text: str
    role: str
    created: datetime
    kind: str = "message"
    hit_id: str | None = None
    """The id by which it is deleted, once it is known."""


@dataclass
class Said:
    """A message of a conversation."""

    id: str
    role: str
    text: str


Place = tuple[str | None, str]
"""A message's session and its id."""


@dataclass
class Model:
    """Three memories of every scope. Each is a dictionary of its own, so that nothing here can leak."""

    changes: dict[MemoryScope, list[Change]] = field(default_factory=dict)
    memories: dict[MemoryScope, dict[Place, Memory]] = field(default_factory=dict)
    items: dict[MemoryScope, dict[tuple[tuple[str, ...], str], Memory]] = field(default_factory=dict)
    own_items: dict[MemoryScope, dict[tuple[tuple[str, ...], str], Memory]] = field(default_factory=dict)
    """What a scope's store keeps for itself, and no search finds."""
    buried: dict[MemoryScope, set[Place]] = field(default_factory=dict)
    """Messages that a conversation which is told again does not bring back."""
    said: dict[MemoryScope, dict[str, Said]] = field(default_factory=dict)
    gone: dict[MemoryScope, set[str]] = field(default_factory=dict)
    """Messages that were taken out of a conversation of this process."""
    waiting: dict[MemoryScope, list[Said]] = field(default_factory=dict)

    # Facts

    def change(self, owner: MemoryScope, at: datetime, kind: str, **fields: Any) -> int:
        log = self.changes.setdefault(owner, [])
        log.append(Change(len(log) + 1, at, kind, **fields))
        return len(log)

    def standing(self, owner: MemoryScope, until: datetime | None = None) -> list[Change]:
        """What set or deleted a fact and was not taken back, by a moment."""
        log = [change for change in self.changes.get(owner, []) if until is None or change.at <= until]
        undone = {change.of for change in log if change.kind == "undo"}
        return [change for change in log if change.kind in ("set", "delete") and change.number not in undone]

    def facts(self, scope: MemoryScope, until: datetime | None = None) -> dict[str, Any]:
        """What a scope knows: what everybody knows, and its own over it."""
        known: dict[str, Any] = {}
        for owner in reversed(scope.lineage):
            for change in self.standing(owner, until):
                known[change.key] = change.value if change.kind == "set" else MISSING
            # What was set here and taken back again is as if it had never been set.
        return {key: value for key, value in known.items() if value is not MISSING}

    def history(self, scope: MemoryScope, key: str) -> list[tuple[Any, datetime, datetime | None]]:
        """The values of a key, from when until when, of the nearest scope that has any."""
        deleted: datetime | None = None
        for owner in scope.lineage:
            changes = [change for change in self.standing(owner) if change.key == key]
            ends = [*(change.at for change in changes[1:]), None]
            found = [(c.value, c.at, end) for c, end in zip(changes, ends, strict=bool(changes)) if c.kind == "set"]
            if found:
                value, since, until = found[-1]
                found[-1] = (value, since, deleted and max(deleted, since) if until is None else until)
                return found
            deleted = deleted or (changes[-1].at if changes else None)
        return []

    # Long-term memory

    def of(self, owner: MemoryScope) -> list[Memory]:
        """Everything that a search of an owner's may find, and its count counts."""
        return [*self.memories.get(owner, {}).values(), *self.items.get(owner, {}).values()]

    def store(self, owner: MemoryScope, session: str | None, one: Said, at: datetime) -> None:
        """A message that is known already keeps its place and its time."""
        self.buried.get(owner, set()).discard((session, one.id))
        place = session, one.id
        if place not in self.memories.setdefault(owner, {}):
            self.memories[owner][place] = Memory(one.text, one.role, at)

    def delete(self, owner: MemoryScope, ids: list[str]) -> int:
        """Delete what an owner has of these ids."""
        count = 0
        for place, memory in list(self.memories.get(owner, {}).items()):
            if memory.hit_id in ids:
                count += 1
                del self.memories[owner][place]
                if memory.kind == "message":
                    self.buried.setdefault(owner, set()).add(place)
                    session = owner.with_session(place[0])
                    if self.said.get(session, {}).pop(place[1], None) is not None:
                        self.gone.setdefault(session, set()).add(place[1])
        for name, memory in list(self.items.get(owner, {}).items()):
            if memory.hit_id in ids:
                count += 1
                del self.items[owner][name]
        return count

    # Conversations

    def hear(self, scope: MemoryScope, one: Said) -> None:
        self.said.setdefault(scope, {}).setdefault(one.id, one)

    def knows(self, scope: MemoryScope, message_id: str) -> bool:
        return message_id in self.said.get(scope, {}) or message_id in self.gone.get(scope, set())

    def clear(self, scope: MemoryScope) -> int:
        self.gone.pop(scope, None)
        return len(self.said.pop(scope, {}))

    def view(self, scope: MemoryScope) -> list[str]:
        """The ids of what a model is shown: the conversation from the first thing on that the user said."""
        ids = list(self.said.get(scope, {}))
        roles = [one.role for one in self.said.get(scope, {}).values()]
        return ids[roles.index("user") :] if "user" in roles else []

    def store_waiting(self, scope: MemoryScope, at: datetime, *, unanswered: bool) -> None:
        """Put what waits into long-term memory: whole exchanges, or all of it."""
        waiting = self.waiting.pop(scope, [])
        answers = [place for place, one in enumerate(waiting) if one.role == "assistant"]
        ready = len(waiting) if unanswered else (answers[-1] + 1 if answers else 0)
        for one in waiting[:ready]:
            self.store(scope.owner, scope.session_id, one, at)
        if waiting[ready:]:
            self.waiting[scope] = waiting[ready:]

    # All of it

    def conversations(self, scope: MemoryScope) -> list[MemoryScope]:
        """The conversations that go when a scope is erased: of a user every one, of a session its own."""
        if scope != scope.owner:
            return [scope]
        known = [*self.said, *self.waiting, *self.gone]
        return list(dict.fromkeys([scope, *(one for one in known if one.owner == scope)]))

    def erase(self, scope: MemoryScope) -> tuple[int, int, int]:
        """Forget a scope; returns how many events, memories and messages that were."""
        owner, whole = scope.owner, scope == scope.owner
        mine = self.conversations(scope)
        told = [(one.session_id, id_) for one in mine for id_ in self.said.get(one, {})]
        told += [(one.session_id, waiting.id) for one in mine for waiting in self.waiting.pop(one, [])]
        gone = [
            place for place in self.memories.get(owner, {}) if whole or place[0] == scope.session_id
        ]  # fmt: skip
        memories = len(gone)
        buried = [place for place in gone if self.memories[owner][place].kind == "message"]
        for place in gone:
            del self.memories[owner][place]
        if whole:
            memories += len(self.items.pop(owner, {})) + len(self.own_items.pop(owner, {}))
        self.buried.setdefault(owner, set()).update(told, buried)
        messages = sum(self.clear(one) for one in mine)
        if not whole:
            self.changes.pop(scope, None)
            return 0, memories, messages
        for session in [one for one in self.changes if one.owner == scope and one != scope]:
            del self.changes[session]
        return len(self.changes.pop(scope, [])), memories, messages

    def reopen(self) -> None:
        """What ends with a process: conversations. What waits is stored first."""
        self.said.clear()
        self.gone.clear()

    def everyone(self) -> Iterator[MemoryScope]:
        """Every scope that anything is known of."""
        yield from dict.fromkeys([GLOBAL, *self.changes, *self.memories, *self.items, *self.said, *self.waiting])
