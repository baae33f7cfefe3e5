"""The append-only journal of what was learnt and changed: its events, what every journal does, and merging two.

Where they are kept: :mod:`memory_integrations.journal_files` and :mod:`memory_integrations.journal_sql`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, Protocol

from memory_integrations.arrival import utc_now
from memory_integrations.errors import HistoryError, StoreCorruptedError, StoreUnavailableError
from memory_integrations.messages import as_utc
from memory_integrations.scopes import MemoryScope

_EVENTS_A_WRITE = 1000
_LOST, _REMOVED, _REVISED = "lost", "removed", "revised"
OWN = ("number", "at", "kind")  # what an event says besides its data
_APART = object()

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_encode_sorted = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, sort_keys=True).encode


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was learnt or changed.

    Args:
        number: Its place in its scope's journal, from 1.
        at: When, in UTC.
        kind: What happened: "set", "delete", "undo".
        data: What the kind needs, as JSON.
    """

    number: int
    at: datetime
    kind: str
    data: Mapping[str, Any]


class Repair(NamedTuple):
    """What was mended of a journal.

    Attributes:
        aside: Lines that are no events, and were moved to a file beside it.
        lost: Events that are missing, and have a mark in their place.
        torn: Bytes of an event that was not written whole, which were moved to a file beside it.
        is_ordered: Whether lines were put in another order, or below a new first line.
    """

    aside: int = 0
    lost: int = 0
    torn: int = 0
    is_ordered: bool = False

    def told(self, path: object) -> str:
        """What was done, in words; lines were set aside beside this path."""
        events = "events" if self.lost > 1 else "event"
        told = [
            (self.aside, f"{self.aside} {'lines' if self.aside > 1 else 'line'} set aside, in {path}.aside"),
            (self.torn, f"{self.torn} bytes of an event that was not written whole set aside, in {path}.torn"),
            (self.lost, f"{self.lost} lost {events} marked; `import` a backup, which puts back what it has"),
            (self.is_ordered and not (self.aside or self.lost), "lines put in order"),
        ]
        return "; ".join(text for is_so, text in told if is_so) or "nothing to repair"


def encode_event(event: Event) -> str:
    """The event as a line of JSON, without its number; what every journal keeps.

    Raises:
        TypeError, ValueError: Its data are no JSON, or have a field of the event's own.
    """
    if not event.data.keys().isdisjoint(OWN):
        raise ValueError(f"An event's data has the fields {sorted(event.data)}: {', '.join(OWN)} are the event's own.")
    line = _encode({"at": event.at.isoformat(), "kind": event.kind, **event.data})
    line.encode()  # a lone surrogate is no Unicode
    return line


def as_json_line(value: Any, *, sort_keys: bool = True) -> bytes:
    """JSON on one line; with its keys sorted it is the same bytes for what is equal."""
    return (_encode_sorted if sort_keys else _encode)(value).encode() + b"\n"


def decode_event(number: int, line: str) -> Event:
    """The event that :func:`encode_event` made a line of.

    Raises:
        ValueError, KeyError, TypeError: It is none.
    """
    fields = json.loads(line)
    at, kind = as_utc(datetime.fromisoformat(fields.pop("at"))), fields.pop("kind")
    return Event(number, at, kind, fields)


def removed(event: Event) -> Event:
    """What stands in the place of an event that was removed: events are known by their place, so the place stays."""
    return Event(event.number, event.at, _REMOVED, {})


def revised(event: Event, data: Mapping[str, Any]) -> Event:
    """What stands in the place of an event of which a part was removed."""
    return replace(event, data={**data, _REVISED: True})


def merged(one: Event, other: Event) -> Event | None:
    """What stands in the place of what two journals of a scope have under one number.

    What was lost in one comes back from the other; what was removed in one, or a part of it, stays removed. Where parts
    were removed in both, what both have left stands.

    Returns:
        It, as the very event that is given where it is equal; None where these are two events, so that the journals
        are two histories.
    """
    if one == other or other.kind == _LOST:
        return one
    if one.kind == _LOST:
        return other
    stands = _left(one, other) if one.at == other.at else None
    return next((event for event in (one, other) if event == stands), stands)


def _left(one: Event, other: Event) -> Event | None:
    """What is left of two events of one moment, by the marks of what was removed; None where there are none."""
    if _REMOVED in (one.kind, other.kind):
        return removed(one)
    are_revised = [_REVISED in event.data for event in (one, other)]
    if one.kind != other.kind or not any(are_revised):
        return None
    if not all(are_revised):
        return one if are_revised[0] else other
    both = _common(dict(one.data), dict(other.data))
    return None if both is _APART else replace(one, data=both)


def _common(one: Any, other: Any) -> Any:
    """What two revisions of one JSON value both have left; :data:`_APART` where they are no such two."""
    if one == other:
        return one
    if isinstance(one, str) and isinstance(other, str):
        return _APART if one and other else ""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        both = {key: _common(value, other[key]) for key, value in one.items()}
        return _APART if any(value is _APART for value in both.values()) else both
    if isinstance(one, list) and isinstance(other, list):
        # Whichever was given first: the order of two journals may change nothing.
        return _with_partners(*sorted((one, other), key=lambda items: (len(items), _encode_sorted(items))))
    return _APART


def _with_partners(items: list[Any], others: list[Any]) -> list[Any]:
    """What is left of those items that have a partner among the others, in order."""
    kept, after = [], 0
    for item in items:
        for place in range(after, len(others)):
            both = _common(item, others[place])
            if both is not _APART:
                kept.append(both)
                after = place + 1
                break
    return kept


def lost(number: int) -> Event:
    """What stands in the place of an event that cannot be read any more; :func:`restored` puts it back."""
    return Event(number, utc_now(), _LOST, {})


def gaps(numbers: Iterable[int], latest: int) -> list[range]:
    """The numbers from 1 to the latest that are not among these, which are in order."""
    found, expected = [], 1
    for number in (*numbers, latest + 1):
        if number > expected:
            found.append(range(expected, number))
        expected = max(expected, number + 1)
    return found


def check_next(events: Sequence[Event], latest: int, scope: MemoryScope) -> None:
    """See that events go on where a journal ends.

    Raises:
        StoreCorruptedError: Some are missing among them.
        StoreUnavailableError: They do not: somebody else wrote to the journal meanwhile.
    """
    _check_whole(events, events[0].number - 1, scope)
    if events[0].number != latest + 1:
        raise StoreUnavailableError(
            f"The journal of {scope} has {latest} events, and event {events[0].number} cannot be the next. Somebody "
            "else wrote to it meanwhile. Nothing was written; try again when nobody does."
        )


OnEvent = Callable[[Event], None]
OnReset = Callable[[Sequence[Event]], None]


class ScopeJournal(Protocol):
    """The journal of one scope. Every implementation passes ``tests/journal_conformance.py``."""

    def append(self, kind: str, data: Mapping[str, Any]) -> Event:
        """Write an event; when this returns, the event survives the process.

        Events that other processes wrote first are handed to the subscriber before it.
        """

    def extend(self, events: Sequence[Event]) -> None:
        """Write events as they are: those of another journal, which go on where this one ends.

        Raises:
            StoreError: The first is not the next event of this journal, which then stays as it was.
        """

    def revise(self, revised: Callable[[Event], Event]) -> int:
        """Put other events in the place of some, physically: of what they said nothing is left in the journal.

        Whoever reads the journal starts over, as after an erasure.

        Args:
            revised: Gives an event of the same number, the same one where nothing is to change; see :func:`removed`.

        Returns:
            How many events were changed.
        """

    def refresh(self) -> None:
        """Hand the events that others wrote to the subscriber."""

    def erase(self) -> int:
        """Remove every event of the scope, physically; returns how many there were."""


class Journal(Protocol):
    """Journals by scope."""

    @property
    def place(self) -> str:
        """Where they are kept: the same for two that are one."""

    def exists(self) -> bool:
        """Whether anything was ever written. Nothing is made to find out, as by nothing else that only reads."""

    def open(self, scope: MemoryScope, on_event: OnEvent, on_reset: OnReset) -> ScopeJournal:
        """The journal of a scope, having handed all its events to ``on_event``, oldest first.

        Args:
            scope: Whose journal.
            on_event: Called once for every event, in order, also for those that this process appends.
            on_reset: Called when the journal was erased or revised, with the events that it has now: all that was
                handed over before is void. In one call, so that nobody sees half of them.
        """

    def scopes(self, owner: MemoryScope | None = None) -> list[MemoryScope]:
        """The scopes that have a journal; with ``owner`` those that are the owner's."""

    def removing(self) -> AbstractContextManager[None]:
        """For several removals: what each would cost anew is done once, at the end, and only then they are physical.

        A removal outside it is physical when it returns.
        """

    def check(self, scope: MemoryScope) -> None:
        """See that no event of a scope is missing.

        Raises:
            StoreCorruptedError: Some are.
        """

    def repair(self, scope: MemoryScope) -> Repair:
        """Put a mark in the place of every event that is lost, so that the others keep theirs."""

    def strays(self) -> Mapping[str, int]:
        """How many events there are of scopes that are not known any more, by their storage keys."""

    def close(self) -> None:
        """Release what is open."""


def events_of(journal: Journal, scope: MemoryScope) -> list[Event]:
    """Every event of a scope.

    Raises:
        StoreCorruptedError: Some are missing.
    """
    journal.check(scope)
    events: list[Event] = []
    journal.open(scope, events.append, partial(_replace, events))
    return events


def restored(journal: Journal, scope: MemoryScope, events: Sequence[Event], *, dry_run: bool = False) -> int:
    """Write those events of another journal of a scope that this one does not have yet, or has lost.

    What was removed there is removed here too; see :func:`merged`.

    Args:
        journal: Where to.
        scope: Whose.
        events: All of the other's, from the first.
        dry_run: Only see whether it can be done.

    Returns:
        How many were written or removed, or would be.

    Raises:
        StoreCorruptedError: Events are missing, of these or of the journal's.
        HistoryError: This journal tells another history, so that the two cannot be one.
        StoreError: They could not be written.
    """
    _check_whole(events, 0, scope)
    journal.check(scope)
    there: list[Event] = []
    opened = journal.open(scope, there.append, partial(_replace, there))
    both = list(map(merged, there, events))
    if None in both:
        raise HistoryError(
            f"{scope} has another history here than what is to be written: {len(there)} events against {len(events)}, "
            "which do not begin alike. Nothing was written. Erase the scope first, or write to another data_dir or "
            "database."
        )
    changes = sum(now is not was for was, now in zip(there, both, strict=False))
    missing = events[len(both) :]
    if not dry_run:
        if changes:
            opened.revise(lambda was: merged(was, events[was.number - 1]) or was if was.number <= len(events) else was)
        for start in range(0, len(missing), _EVENTS_A_WRITE):
            opened.extend(missing[start : start + _EVENTS_A_WRITE])
    return len(missing) + changes


def _check_whole(events: Sequence[Event], before: int, scope: MemoryScope) -> None:
    """See that events which follow a number are numbered without a gap."""
    for number, event in enumerate(events, before + 1):
        if event.number != number:
            raise StoreCorruptedError(
                f"Event {event.number} of {scope} follows event {number - 1} in what is to be written: some are "
                "missing. Nothing was written. Where they come from, `memory-integrations doctor` says what to do."
            )


def _replace(events: list[Event], now: Sequence[Event]) -> None:
    events[:] = now
