"""The append-only journal of what was learnt and changed, one JSON object a line, one file a scope.

Acknowledged events survive the death of the process (kill -9): an event is in the operating system's hands
before ``append`` returns. Writers of several processes take turns by an advisory lock on the file, and each
reads what the others wrote before it writes, so that all agree on one order.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from weakref import finalize

from memory_integrations.arrival import utc_now
from memory_integrations.errors import ScopeError, StoreCorruptedError, StoreUnavailableError
from memory_integrations.forks import inherited
from memory_integrations.messages import as_utc
from memory_integrations.scopes import MemoryScope

_log = logging.getLogger("memory_integrations")

_EVENTS_A_WRITE = 1000
_LOST, _REMOVED, _REVISED = "lost", "removed", "revised"
_MOST_MISSING = 1_000_000  # events between two lines of a file: more is no number that we wrote
_OWN = ("number", "at", "kind")  # what an event says besides its data
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
    if not event.data.keys().isdisjoint(_OWN):
        raise ValueError(f"An event's data has the fields {sorted(event.data)}: {', '.join(_OWN)} are the event's own.")
    line = _encode({"at": event.at.isoformat(), "kind": event.kind, **event.data})
    line.encode()  # a lone surrogate is no Unicode
    return line


def as_json_line(value: Any) -> bytes:
    """JSON on one line, with the keys in order: the same bytes for what is equal."""
    return _encode_sorted(value).encode() + b"\n"


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
        StoreUnavailableError: This journal tells another history, so that the two cannot be one.
        StoreError: They could not be written.
    """
    _check_whole(events, 0, scope)
    journal.check(scope)
    there: list[Event] = []
    opened = journal.open(scope, there.append, partial(_replace, there))
    both = list(map(merged, there, events))
    if None in both:
        raise StoreUnavailableError(
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


class JsonlJournal:
    """Journals as JSON Lines files in a directory.

    Args:
        directory: Where the files are; made at the first write, for the owner only (0700).
        clock: Gives the time of events, aware.
    """

    max_open_files = 128

    def __init__(self, directory: str | Path, clock: Callable[[], datetime] = utc_now) -> None:
        self.directory = Path(directory)
        self.clock = clock
        self._open_files: OrderedDict[JsonlScopeJournal, None] = OrderedDict()
        self._lock = threading.Lock()
        inherited(self)

    @property
    def place(self) -> str:
        """The directory, absolute."""
        return str(self.directory.absolute())

    def open(self, scope: MemoryScope, on_event: OnEvent, on_reset: OnReset) -> JsonlScopeJournal:
        """The journal of a scope; see :class:`Journal`."""
        journal = JsonlScopeJournal(self, scope, on_event, on_reset)
        journal.refresh()
        return journal

    def path(self, scope: MemoryScope) -> Path:
        """The file of a scope, which need not exist."""
        return self.directory / f"{scope.storage_key}.jsonl"

    def scopes(self, owner: MemoryScope | None = None) -> list[MemoryScope]:
        """The scopes that have a file, in the order of the files' names; see :class:`Journal`."""
        # Of an owner only files that may be the owner's are read: another's may be damaged, and there may be many.
        files = [path for path in self.files() if owner is None or path.name.startswith(owner.storage_prefix)]
        found = [scope for path in files if (scope := self.scope_of(path)) is not None]
        return [scope for scope in found if owner is None or scope.owner == owner]

    def files(self) -> list[Path]:
        """The files of all scopes, in the order of their names."""
        return sorted(self.directory.glob("*.jsonl"))

    def scope_of(self, path: Path) -> MemoryScope | None:
        """Whose file it is; None where its first event was never acknowledged, or where it was erased meanwhile.

        Raises:
            StoreCorruptedError: It does not say so.
            StoreUnavailableError: It cannot be read.
        """
        try:
            if path.is_fifo():
                raise StoreUnavailableError(f"{path} is a pipe and no journal: who reads it waits for ever. Remove it.")
            with path.open("rb") as file:
                header = file.readline()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnavailableError(f"The journal {path} cannot be read ({error}).") from error
        if not header.endswith(b"\n"):
            return None
        try:
            return MemoryScope.parse(_parse(header, path, 1)["scope"])
        except ScopeError:
            raise _corrupted(path, 1, header) from None

    def check(self, scope: MemoryScope) -> None:
        """None is ever missing: a file's events are numbered by their lines."""

    def repair(self, scope: MemoryScope) -> Repair:
        """Move the lines that are no events to a file beside the scope's, and put the others in their order."""
        with self._unread(scope) as journal:
            return journal.repair() if journal.path.exists() else Repair()

    def torn(self, scope: MemoryScope) -> int:
        """How many bytes of an event that was not written whole the scope's file ends in.

        Raises:
            StoreUnavailableError: It cannot be read.
        """
        with self._unread(scope) as journal:
            return journal.torn()

    @contextmanager
    def _unread(self, scope: MemoryScope) -> Iterator[JsonlScopeJournal]:
        """A scope's journal of which nothing was read."""
        journal = JsonlScopeJournal(self, scope, lambda event: None, lambda events: None)
        try:
            yield journal
        finally:
            journal.close()

    def strays(self) -> Mapping[str, int]:
        """None: a file says itself whose it is."""
        return {}

    def close(self) -> None:
        """Close every file; a journal that is used again opens its own."""
        for journal in list(self._open_files):
            journal.close()

    def leave_to_parent(self) -> None:
        """In a forked process: the lock is the parent's, and each journal closes its own file."""
        self._lock = threading.Lock()
        self._open_files.clear()

    def note_use(self, journal: JsonlScopeJournal) -> None:
        """Keep a file open, and close the one that was opened longest ago where there are too many."""
        with self._lock:
            self._open_files[journal] = None
            oldest = next(iter(self._open_files)) if len(self._open_files) > self.max_open_files else None
        if oldest is not None:
            oldest.close(wait=False)

    def note_close(self, journal: JsonlScopeJournal) -> None:
        """Note that a file was closed."""
        with self._lock:
            self._open_files.pop(journal, None)


class JsonlScopeJournal:
    """One file. Its first line names the scope and the file itself; every other is an event.

    See :class:`ScopeJournal`.
    """

    def __init__(
        self,
        journal: JsonlJournal,
        scope: MemoryScope,
        on_event: OnEvent,
        on_reset: OnReset,
    ) -> None:
        self.path = journal.path(scope)
        self.scope = scope
        self._journal = journal
        self._on_event = on_event
        self._on_reset = on_reset
        self._mutex = threading.RLock()
        self._fd: int | None = None
        self._writable = False
        self._file_id: str | None = None  # tells this file from one that was made after an erasure
        self._offset = 0  # bytes read, all of them whole lines
        self._lines = 0
        self._torn = False
        self._void = False  # whether what was handed over holds no more, which is still to be said
        self._seen: tuple[int, int, int] | None = None  # what the file looked like when it was last read
        inherited(self)

    def append(self, kind: str, data: Mapping[str, Any]) -> Event:
        """Write an event; see :class:`ScopeJournal`.

        Raises:
            StoreUnavailableError: The file cannot be written: a read-only directory, a full disk.
            StoreCorruptedError: A line that others wrote is no event.
        """
        with self._locked(write=True) as fd:
            assert fd is not None
            self._read_new(fd)
            event = Event(max(self._lines, 1), as_utc(self._journal.clock()), kind, data)
            self._add(fd, [event])
            return event

    def extend(self, events: Sequence[Event]) -> None:
        """Write events as they are; see :class:`ScopeJournal`.

        Raises:
            StoreUnavailableError: The first is not the next, or the file cannot be written.
            StoreCorruptedError: A line that others wrote is no event.
        """
        if events:
            with self._locked(write=True) as fd:
                assert fd is not None
                self._read_new(fd)
                check_next(events, max(self._lines - 1, 0), self.scope)
                self._add(fd, events)

    def revise(self, revised: Callable[[Event], Event]) -> int:
        """Put other events in the place of some, physically; see :class:`ScopeJournal`.

        What was set aside from a damaged file stays until the scope is erased: nobody can say what it was about.

        Raises:
            StoreUnavailableError: The file cannot be written; it is as it was.
            StoreCorruptedError: A line is no event.
        """
        if not self.path.exists():
            return 0
        with self._locked(write=True) as fd:
            assert fd is not None
            self._read_new(fd)
            if self._torn:
                self._set_torn_line_aside(fd, self._offset)
            lines = _read_from(fd, 0).removesuffix(b"\n").split(b"\n")[1:]
            changes, events = 0, []
            for place, line in enumerate(lines):
                event = _event(place + 1, _parse(line, self.path, place + 2), self.path)
                events.append(revised(event))
                if events[-1] is not event:
                    lines[place] = _line(events[-1])
                    changes += 1
            if changes:
                file_id, stamp = self._rewrite(fd, lines)
                self._reset()
                self._file_id, self._lines = file_id, len(lines) + 1
                self._seen, self._offset = stamp, stamp[1]
                self._hand_over(events)
                self.close()  # it is another file now
        return changes

    def refresh(self) -> None:
        """Read what others wrote since; never changes the file.

        Raises:
            StoreUnavailableError: The file cannot be read.
            StoreCorruptedError: A line is no event. What to do is in the message.
        """
        if self._is_unchanged():
            return
        with self._locked(write=False) as fd:
            if fd is None:
                self._hand_over([])
            else:
                self._read_new(fd)
                self._look(fd)

    def erase(self) -> int:
        """Remove the file and what was set aside from it; returns how many events there were.

        Raises:
            StoreUnavailableError: A file cannot be removed.
        """
        with self._mutex:
            count = 0
            if self.path.exists():
                with self._locked(write=True) as fd:
                    assert fd is not None
                    count = max(_read_from(fd, 0).count(b"\n") - 1, 0)
                    # Other processes may hold the file open: empty it before it loses its name.
                    os.ftruncate(fd, 0)
                    self.path.unlink()
            try:
                for aside in self.path.parent.glob(f"{self.path.name}.*"):
                    aside.unlink(missing_ok=True)  # another erasure may be at it
            except OSError as error:
                raise self._unavailable(error) from error
            finally:
                self.close()
                self._reset()
                self._hand_over([])
        return count

    def repair(self) -> Repair:
        """Put every event in its place, a mark where one is lost, and what is no event into ``<file>.aside``.

        A torn last line was never acknowledged: it is set aside as a writer does it, and is no event that was lost.
        """
        with self._locked(write=True) as fd:
            assert fd is not None
            *lines, torn = _read_from(fd, 0).split(b"\n")
            if torn:
                self._set_torn_line_aside(fd, sum(len(line) + 1 for line in lines))
            if not lines:
                return Repair(torn=len(torn))
            aside: list[bytes] = []
            has_header = _is_header(lines[0], self.path, self.scope)
            if not has_header and _number_of(lines[0], self.path, 1) is None:
                aside.append(lines[0])
            events, number = dict[int, bytes](), 0
            for line in lines if not has_header and not aside else lines[1:]:
                place = _number_of(line, self.path, number + 1)
                if place is None or events.get(place, line) != line:
                    aside.append(line)
                    number += place is None  # an event that cannot be read has a place, too
                else:
                    events[place], number = line, place
            count = max([number, *events])
            marks = [lost(place) for place in range(1, count + 1) if place not in events]
            events |= {mark.number: _line(mark) for mark in marks}
            if aside:
                _append_to(f"{self.path}.aside", b"".join(line + b"\n" for line in aside))
            in_order = [events[place] for place in range(1, count + 1)]
            if not has_header or in_order != lines[1:]:
                self._rewrite(fd, in_order)
            return Repair(len(aside), len(marks), len(torn), is_ordered=not has_header or in_order != lines[1:])

    def torn(self) -> int:
        """How many bytes of an event that was not written whole the file ends in.

        Raises:
            StoreUnavailableError: It cannot be read.
        """
        with self._locked(write=False) as fd:
            return 0 if fd is None else len(_read_from(fd, 0).rpartition(b"\n")[2])

    def close(self, *, wait: bool = True) -> None:
        """Close the file; the next call opens it again.

        Args:
            wait: Whether to wait for another thread's call; without, a file in use stays open.
        """
        if self._mutex.acquire(blocking=wait):
            try:
                if self._fd is not None:
                    self._closing()  # closes it
                    self._fd = None
                    self._journal.note_close(self)
            finally:
                self._mutex.release()

    def leave_to_parent(self) -> None:
        """In a forked process: all is read anew, since a thread of the parent may have been half way.

        The file is opened anew as well: a lock on one that the parent opened is the parent's too.
        """
        self._mutex = threading.RLock()
        if self._fd is not None:
            self._closing()
            self._fd = None
        self._reset()

    # Inside

    def _is_unchanged(self) -> bool:
        try:
            return _stamp(os.stat(self.path)) == self._seen
        except FileNotFoundError:
            return self._seen is None and not self._void
        except OSError as error:
            raise self._unavailable(error) from error

    def _look(self, fd: int) -> None:
        self._seen = _stamp(os.fstat(fd))

    @contextmanager
    def _locked(self, *, write: bool) -> Iterator[int | None]:
        """The file's descriptor, under the lock; None when there is no file and nothing is to be written."""
        with self._mutex:
            try:
                fd = self._acquire(write)
                try:
                    yield fd
                finally:
                    if fd is not None and fd == self._fd:
                        fcntl.flock(fd, fcntl.LOCK_UN)
            except OSError as error:
                raise self._unavailable(error) from error

    def _acquire(self, write: bool) -> int | None:
        while True:
            opened = self._fd is None or (write and not self._writable)
            if opened:
                try:
                    self._open(write)
                except FileNotFoundError:
                    if write:
                        raise
                    self._reset()
                    return None
            assert self._fd is not None
            fcntl.flock(self._fd, fcntl.LOCK_EX if write else fcntl.LOCK_SH)
            try:
                if os.stat(self.path).st_ino == os.fstat(self._fd).st_ino:
                    if opened and self._read_file_id(self._fd) != self._file_id:
                        self._reset()
                    return self._fd
            except FileNotFoundError:
                pass
            # Erased or rewritten by somebody else while this one waited for the lock.
            self.close()

    def _open(self, write: bool) -> None:
        if write:
            for directory in (self.path.parent.parent, self.path.parent):  # parents=True would give the default mode
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = (os.O_RDWR | os.O_CREAT | os.O_APPEND) if write else os.O_RDONLY
        fd = os.open(self.path, flags | os.O_CLOEXEC, 0o600)
        self.close()
        self._closing = finalize(self, os.close, fd)  # also when it is dropped without closing
        self._fd, self._writable = fd, write
        self._journal.note_use(self)

    def _read_file_id(self, fd: int) -> str | None:
        header = os.pread(fd, 1 << 16, 0).partition(b"\n")[0]
        try:
            return _parse(header, self.path, 1).get("file")
        except StoreCorruptedError:  # reading on will say so
            return None

    def _reset(self) -> None:
        self._void |= self._offset > 0
        self._offset = self._lines = 0
        self._torn = False
        self._file_id = self._seen = None

    def _hand_over(self, events: Sequence[Event]) -> None:
        if self._void:
            self._void = False
            self._on_reset(events)
            return
        for event in events:
            self._on_event(event)

    def _read_new(self, fd: int) -> None:
        size = os.fstat(fd).st_size
        if size < self._offset:
            self._reset()
        events: list[Event] = []
        try:
            if size != self._offset:
                self._read_lines(fd, events)
        finally:  # what comes before a line that is none was read
            self._hand_over(events)

    def _read_lines(self, fd: int, events: list[Event]) -> None:
        *lines, rest = _read_from(fd, self._offset).split(b"\n")
        for line in lines:
            fields = _parse(line, self.path, self._lines + 1)
            if self._lines:
                events.append(_event(self._lines, fields, self.path))
            else:
                self._file_id = fields.get("file")
            self._offset += len(line) + 1
            self._lines += 1
        if rest and not self._torn:
            _log.warning("%s ends in %d bytes of an event that was not written whole", self.path, len(rest))
        self._torn = bool(rest)

    def _set_torn_line_aside(self, fd: int, end: int) -> None:
        """Keep what a writer wrote before it died beside the journal, and go on after the last whole line."""
        _append_to(f"{self.path}.torn", _read_from(fd, end) + b"\n")
        os.ftruncate(fd, end)
        self._torn = False

    def _add(self, fd: int, events: Sequence[Event]) -> None:
        """Write the next events, and hand them over."""
        lines = list(map(_line, events))
        if self._torn:
            self._set_torn_line_aside(fd, self._offset)
        if not self._lines:
            self._file_id, header = self._header()
            self._write(fd, [header])
        self._write(fd, lines)
        self._look(fd)
        for event in events:
            self._on_event(event)

    def _header(self) -> tuple[str, bytes]:
        """The first line of a new file, and the mark in it that tells the file from all others."""
        file_id = os.urandom(8).hex()
        return file_id, _encode({"scope": str(self.scope), "format": 1, "file": file_id}).encode()

    def _write(self, fd: int, lines: Sequence[bytes]) -> None:
        data = b"\n".join([*lines, b""])
        try:
            written = os.write(fd, data)
            if written < len(data):
                raise OSError(f"only {written} of {len(data)} bytes were written; is the disk full?")
        except OSError:
            os.ftruncate(fd, self._offset)
            raise
        self._offset += len(data)
        self._lines += len(lines)

    def _rewrite(self, fd: int, lines: Sequence[bytes]) -> tuple[str, tuple[int, int, int]]:
        """Put a new file with these events in the place of this one, in one step; its mark and its stamp."""
        fresh = f"{self.path}.rewritten"
        Path(fresh).unlink(missing_ok=True)  # of a call that was interrupted
        file_id, header = self._header()
        _append_to(fresh, b"\n".join([header, *lines, b""]), sync=True)
        stamp = _stamp(os.stat(fresh))
        os.replace(fresh, self.path)
        os.ftruncate(fd, 0)  # other processes may hold the old one open
        return file_id, stamp

    def _unavailable(self, error: OSError) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"The journal {self.path} cannot be read or written ({error}). Expected a directory that this user may "
            "write, with space left. Nothing was changed; make it writable or pass another data_dir."
        )


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _append_to(path: str, data: bytes, *, sync: bool = False) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with open(fd, "ab") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(fd)


def _read_from(fd: int, offset: int) -> bytes:
    parts = []
    while part := os.pread(fd, 1 << 20, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


def _parse(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        fields = None
    if isinstance(fields, dict) and isinstance(fields.get("kind" if number > 1 else "scope"), str):
        return fields
    raise _corrupted(path, number, line)


def _event(number: int, fields: dict[str, Any], path: Path) -> Event:
    try:
        at = as_utc(datetime.fromisoformat(fields["at"]))
    except (KeyError, ValueError, TypeError):
        raise _corrupted(path, number + 1, _encode(fields).encode()) from None
    if fields.get("number", number) != number:  # files were written without it once
        raise StoreCorruptedError(
            f"Line {number + 1} of {path} is event {fields['number']!r:.20}, where event {number} is to follow: lines "
            "are missing, doubled or in another order. Nothing was changed. Run `memory-integrations doctor --repair`, "
            "which puts them in order and marks what is missing, and `import` a backup, which puts back what it has."
        )
    return Event(number, at, fields["kind"], {name: value for name, value in fields.items() if name not in _OWN})


def _line(event: Event) -> bytes:
    """An event as its line in a file."""
    return f'{{"number":{event.number},{encode_event(event)[1:]}'.encode()


def _is_header(line: bytes, path: Path, scope: MemoryScope) -> bool:
    try:
        return bool(_parse(line, path, 1)["scope"] == str(scope))
    except StoreCorruptedError:
        return False


def _number_of(line: bytes, path: Path, expected: int) -> int | None:
    """The number of the event that a line is; the expected one where it says none; None where it is no event."""
    try:
        fields = _parse(line, path, 2)
        number = fields.pop("number", expected)
        _event(expected, fields, path)
    except StoreCorruptedError:
        return None
    return number if type(number) is int and 0 < number <= expected + _MOST_MISSING else None


def _corrupted(path: Path, number: int, line: bytes) -> StoreCorruptedError:
    if number == 1 and _number_of(line, path, 1) is not None:
        return StoreCorruptedError(
            f"The first line of {path}, which names the scope, is missing: it begins with an event. Nothing was "
            "changed. Run `memory-integrations facts repair --scope SCOPE`: the file's name begins as the scope's does."
        )
    return StoreCorruptedError(
        f"Line {number} of {path} is no journal event: {line[:60]!r}. Nothing was changed. "
        "Restore the line from a backup, or run `memory-integrations facts repair`, which moves such lines "
        "to a file beside it and keeps all others."
    )
