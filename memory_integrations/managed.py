"""What managing did to a session, as events in its journal: it outlives the process, and can be taken back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from types import UnionType
from typing import Any

from memory_integrations.decisions import Compress, Decision, Delete, Forget, Keep, Promote
from memory_integrations.journal import Event, Journal, removed, revised
from memory_integrations.messages import Message, as_utc
from memory_integrations.plans import ManagementReceipt
from memory_integrations.scopes import MemoryScope

_ORIGINAL, _RUN, _EXPANDED, _TAKEN_BACK, _CLEARED = "compress", "manage", "expand", "unmanage", "clear"
_DECISIONS: dict[str, type[Decision]] = {
    made.__name__.lower(): made for made in (Keep, Delete, Compress, Promote, Forget)
}

_FIELDS: Mapping[str, Mapping[str, type | UnionType]] = {
    _ORIGINAL: {
        "id": str, "role": str, "content": str | list, "name": str | None, "session_id": str | None, "said_at": str
    },
    _RUN: {"decisions": list, "facts": list, "tokens": list, "calls": int, "usage": dict},
    _EXPANDED: {"id": str},
    _TAKEN_BACK: {"of": int},
    _CLEARED: {"until": str},
}  # fmt: skip
"""What the events of managing say. Anybody may have made an archive: what says something else is no event of these."""


class ManagementLog:
    """The runs of managing a session, and what its compressed messages said in full.

    Args:
        journal: Where they are kept.
        scope: The session.
    """

    def __init__(self, journal: Journal, scope: MemoryScope) -> None:
        self._scope = str(scope)
        self._said: dict[str, Mapping[str, Any]] = {}
        self._events: list[Event] = []
        self._cleared: datetime | None = None
        self._journal = journal.open(scope, self._on_event, self._on_reset)

    # Writing

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
            self._journal.append(_ORIGINAL, data)

    def note(self, receipt: ManagementReceipt) -> ManagementReceipt:
        """Write down what a run did; returns the receipt with its number and time.

        Raises:
            StoreError: It could not be written.
        """
        data = {
            "decisions": [{"do": type(made).__name__.lower(), **asdict(made)} for made in receipt.decisions],
            "facts": list(receipt.fact_events),
            "tokens": [receipt.tokens_before, receipt.tokens_after],
            "calls": receipt.calls,
            "usage": dict(receipt.usage),
        }
        event = self._journal.append(_RUN, data)
        return replace(receipt, number=event.number, at=event.at)

    def take_back(self, number: int) -> None:
        """Note that a run was taken back.

        Raises:
            StoreError: It could not be written.
        """
        self._journal.append(_TAKEN_BACK, {"of": number})

    def note_expanded(self, entry_id: str) -> None:
        """Note that an entry is shown in full again.

        Raises:
            StoreError: It could not be written.
        """
        self._journal.append(_EXPANDED, {"id": entry_id})

    def clear(self, moment: datetime) -> None:
        """Note that the conversation was forgotten, and remove what was said in it, physically.

        What was decided of facts stays, without reasons: it is of the user's facts.

        Raises:
            StoreError: It could not be written.
        """
        self._journal.append(_CLEARED, {"until": moment.isoformat()})

        def without(event: Event) -> Event:
            if event.kind in (_CLEARED, _TAKEN_BACK) or event.kind not in _FIELDS:
                return event
            left = _deciding(event, lambda made: _without_reason(made) if "key" in made else None)
            return left if left.kind == _RUN and left.data["decisions"] else removed(event)

        self._revise(without)

    def erase(self) -> int:
        """Remove all of it, physically; returns how many events there were."""
        return self._journal.erase()

    def remove_said(self, ids: Collection[str]) -> None:
        """Remove what entries said, physically: in full, compressed, and in the reasons of what was decided.

        A fact is the user's, and stays.
        """

        def decided(made: dict[str, Any]) -> dict[str, Any] | None:
            is_told = made["do"] == "compress" and made["entry_id"] in ids
            return None if is_told else _without_reason(made)

        def without(event: Event) -> Event:
            is_told = event.kind == _ORIGINAL and event.data["id"] in ids
            return removed(event) if is_told else _deciding(event, decided)

        self._revise(without)

    def remove_fact(self, key: str) -> None:
        """Remove what was decided of a fact, physically, and the reasons of what was decided."""
        self._revise(
            lambda event: _deciding(event, lambda made: None if made.get("key") == key else _without_reason(made))
        )

    # Reading

    def original(self, entry_id: str) -> Message | None:
        """The message of an entry as it was said; None where it was never compressed."""
        self._journal.refresh()
        return self._original(entry_id)

    def receipts(self) -> list[ManagementReceipt]:
        """The runs that stand, oldest first; their ``entries_before`` are not kept."""
        return [self._receipt(event) for event in self._standing() if event.kind == _RUN]

    def cleared(self) -> datetime | None:
        """When the conversation was forgotten last; None where it never was."""
        self._journal.refresh()
        return self._cleared

    def deleted(self) -> set[str]:
        """The ids of the entries that managing deleted."""
        return {id_ for id_, decision in self._latest().items() if isinstance(decision, Delete)}

    def compressed(self) -> dict[str, tuple[Message, str]]:
        """What compressed entries said and what they are shown by, by their ids."""
        shorter = {id_: made.content for id_, made in self._latest().items() if isinstance(made, Compress)}
        originals = {id_: self._original(id_) for id_ in shorter}
        return {id_: (said, shorter[id_]) for id_, said in originals.items() if said is not None}

    # Inside

    def _revise(self, without: Callable[[Event], Event]) -> None:
        """Put events in the place of those that can be read; the others may say anything, and are removed."""
        self._journal.revise(
            lambda event: removed(event) if event.kind in _FIELDS and not _is_readable(event) else without(event)
        )

    def _original(self, entry_id: str) -> Message | None:
        data = self._said.get(entry_id)
        return None if data is None else _message(data)

    def _latest(self) -> dict[str, Decision]:
        """What stands of each entry that was deleted or compressed."""
        found: dict[str, Decision] = {}
        for event in self._standing():
            if event.kind == _EXPANDED:
                found.pop(event.data["id"], None)
                continue
            for decision in map(_read, event.data["decisions"]):
                if isinstance(decision, Delete | Compress):
                    found[decision.entry_id] = decision
        return found

    def _standing(self) -> list[Event]:
        self._journal.refresh()
        taken_back = {event.data["of"] for event in self._events if event.kind == _TAKEN_BACK}
        return [e for e in self._events if e.kind != _TAKEN_BACK and e.number not in taken_back]

    def _receipt(self, event: Event) -> ManagementReceipt:
        data = event.data
        return ManagementReceipt(
            decisions=tuple(map(_read, data["decisions"])),
            tokens_before=data["tokens"][0],
            tokens_after=data["tokens"][1],
            calls=data["calls"],
            usage=data["usage"],
            fact_events=tuple(data["facts"]),
            scope=self._scope,
            number=event.number,
            at=event.at,
        )

    def _on_event(self, event: Event) -> None:
        if not _is_readable(event):
            return
        if event.kind == _ORIGINAL:
            self._said[event.data["id"]] = dict(event.data)
        elif event.kind == _CLEARED:
            self._cleared = as_utc(datetime.fromisoformat(event.data["until"]))
        else:
            self._events.append(event)

    def _on_reset(self, events: Sequence[Event]) -> None:
        self._said.clear()
        self._events.clear()
        self._cleared = None
        for event in events:
            self._on_event(event)


def _deciding(event: Event, decided: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Event:
    """The event with other decisions in the place of its own; the same one where none changes."""
    if event.kind != _RUN:
        return event
    was = event.data["decisions"]
    now = [made for made in map(decided, was) if made is not None]
    return event if now == was else revised(event, {**event.data, "decisions": now})


def _without_reason(made: dict[str, Any]) -> dict[str, Any]:
    """A decision without its reason: a model gives it in its own words, and may quote whatever it saw."""
    return {**made, "reason": ""}


def _read(data: Mapping[str, Any]) -> Decision:
    fields = dict(data)
    return _DECISIONS[fields.pop("do")](**fields)


def _message(data: Mapping[str, Any]) -> Message:
    said_at = datetime.fromisoformat(data["said_at"])
    return Message(data["role"], data["content"], data["name"], data["id"], data["session_id"], said_at)


def _is_readable(event: Event) -> bool:
    """Whether an event is one of managing that says what such an event says."""
    fields, data = _FIELDS.get(event.kind), event.data
    if fields is None or not all(isinstance(data.get(name), kind) for name, kind in fields.items()):
        return False
    try:
        if event.kind == _ORIGINAL:
            _message(data)
        elif event.kind == _CLEARED:
            as_utc(datetime.fromisoformat(data["until"]))
        elif event.kind == _RUN:
            counts = [type(count) for count in data["tokens"]]
            are_numbers = counts == [int, int] and all(isinstance(number, int) for number in data["facts"])
            return are_numbers and all(map(_is_sound, map(_read, data["decisions"])))
    except (KeyError, TypeError, ValueError):
        return False
    return True


def _is_sound(decision: Decision) -> bool:
    """Whether what a decision says is text where it must be; a fact's value may be anything."""
    fields = asdict(decision)
    fields.pop("value", None)
    return isinstance(fields.pop("confidence", 1.0), int | float) and all(
        isinstance(one, str) for one in fields.values()
    )
