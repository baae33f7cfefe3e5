"""The journal in files: one JSON object a line, one file a scope.

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
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any
from weakref import finalize

from memory_integrations.arrival import utc_now
from memory_integrations.errors import ScopeError, StoreCorruptedError, StoreUnavailableError
from memory_integrations.forks import inherited
from memory_integrations.journal import OWN, Event, OnEvent, OnReset, Repair, check_next, encode_event, lost
from memory_integrations.messages import as_utc
from memory_integrations.scopes import MemoryScope

_log = logging.getLogger("memory_integrations")

_MOST_MISSING = 1_000  # events before a line: more is believed only where the line beside it says so, too

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


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

    def exists(self) -> bool:
        """Whether its directory is there, which the first write makes."""
        return self.directory.is_dir()

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

    def removing(self) -> AbstractContextManager[None]:
        """Each removal writes its own file anew."""
        return nullcontext()

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
            if torn and lines and _is_event(torn, self.path) and _number(torn) is not None:
                lines, torn = [*lines, torn], b""  # it lacks its line end alone, which some editors leave out
                os.write(fd, b"\n")
            if torn:
                self._set_torn_line_aside(fd, sum(len(line) + 1 for line in lines))
            if not lines:
                return Repair(torn=len(torn))
            has_header = _is_header(lines[0], self.path, self.scope)
            is_headless = not has_header and _is_event(lines[0], self.path)
            aside = [] if has_header or is_headless else [lines[0]]
            events, strays = _in_place(lines if is_headless else lines[1:], self.path)
            aside += strays
            count = max(events, default=0)
            marks = [lost(place) for place in range(1, count + 1) if not events.get(place)]
            events |= {mark.number: _line(mark) for mark in marks}
            if aside:
                _append_to(f"{self.path}.aside", b"".join(line + b"\n" for line in aside))
            in_order = [events[place] for place in range(1, count + 1)]
            is_ordered = not has_header or in_order != lines[1:]
            if is_ordered:
                self._rewrite(fd, in_order)
            return Repair(len(aside), len(marks), len(torn), is_ordered)

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
    return Event(number, at, fields["kind"], {name: value for name, value in fields.items() if name not in OWN})


def _line(event: Event) -> bytes:
    """An event as its line in a file."""
    return f'{{"number":{event.number},{encode_event(event)[1:]}'.encode()


def _is_header(line: bytes, path: Path, scope: MemoryScope) -> bool:
    try:
        return bool(_parse(line, path, 1)["scope"] == str(scope))
    except StoreCorruptedError:
        return False


def _is_event(line: bytes, path: Path) -> bool:
    try:
        _event(1, {**_parse(line, path, 2), "number": 1}, path)
    except StoreCorruptedError:
        return False
    return True


def _in_place(lines: Sequence[bytes], path: Path) -> tuple[dict[int, bytes], list[bytes]]:
    """A damaged file's lines by their places, and those that have none.

    An event that says its number has that place. Those that say none, as files were written once, and those that cannot
    be read are where they stand, as far as there is room before the next number. Nothing is where one is lost.
    """
    are_events = [_is_event(line, path) for line in lines]
    said = [_number(line) if is_event else None for line, is_event in zip(lines, are_events, strict=True)]
    numbers = [number if _is_likely(said, at) else None for at, number in enumerate(said)]
    known = sorted({number for number in numbers if number is not None})
    places: dict[int, bytes] = {}
    aside: list[bytes] = []
    at = 0  # the place before
    for number, group in groupby(zip(lines, are_events, numbers, strict=True), key=itemgetter(2)):
        run = list(group)
        if number is not None:
            aside += [line for line, *_ in run if places.setdefault(number, line) != line]
            at = number
            continue
        later = bisect_right(known, at)
        room = known[later] - at - 1 if later < len(known) else len(run)
        is_room_for_all = len(run) <= room
        for line, is_event, _ in run:
            has_place = room > 0 and (is_event or is_room_for_all)
            if has_place:
                at, room = at + 1, room - 1
                places[at] = _numbered(line, at, path) if is_event else b""
            if not (has_place and is_event):
                aside.append(line)
    return places, aside


def _numbered(line: bytes, number: int, path: Path) -> bytes:
    """An event's line, which says this number or none."""
    if _number(line) is None:
        return line
    return _line(_event(number, {**_parse(line, path, 2), "number": number}, path))


def _number(line: bytes) -> int | None:
    number = json.loads(line).get("number")
    return number if type(number) is int and number > 0 else None


def _is_likely(said: Sequence[int | None], at: int) -> bool:
    """Whether a line's number is no damage: near the others, or with a neighbour that goes on from it."""
    number = said[at]
    if number is None or number <= len(said) + _MOST_MISSING:
        return number is not None
    around = said[max(at - 1, 0) : at + 2]
    return any(other is not None and abs(other - number) == 1 for other in around)


def _corrupted(path: Path, number: int, line: bytes) -> StoreCorruptedError:
    if number == 1 and _is_event(line, path):
        return StoreCorruptedError(
            f"The first line of {path}, which names the scope, is missing: it begins with an event. Nothing was "
            "changed. Run `memory-integrations facts repair --scope SCOPE`: the file's name begins as the scope's does."
        )
    return StoreCorruptedError(
        f"Line {number} of {path} is no journal event: {line[:60]!r}. Nothing was changed. "
        "Restore the line from a backup, or run `memory-integrations facts repair`, which moves such lines "
        "to a file beside it and keeps all others."
    )
