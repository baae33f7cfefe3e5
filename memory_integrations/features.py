"""Facts about the user as JSON, with full history: folds over the journal, nothing else is stored."""

from __future__ import annotations

import copy
import math
import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import blake2b
from secrets import token_hex
from typing import Any, Protocol
from weakref import WeakSet, WeakValueDictionary

from memory_integrations.delimiters import as_json_data
from memory_integrations.errors import FactError
from memory_integrations.forks import inherited
from memory_integrations.journal import Event, Journal, ScopeJournal, removed
from memory_integrations.messages import as_unicode, as_utc
from memory_integrations.scopes import MemoryScope
from memory_integrations.tokens import TokenCounter, check_budget

Json = str | int | float | bool | None | list[Any] | dict[str, Any]

_MISSING: Any = object()
_DEEPEST = 100  # levels of lists and objects in a value
_LONGEST_INT = 1024  # bits
_ERASED = "erased"
_RENDERED = 32  # budgets for which the text of the facts is kept


@dataclass(frozen=True, slots=True)
class FactVersion:
    """One value that a fact had.

    Args:
        value: The value, as JSON.
        since: When it was set, in UTC.
        until: When it was replaced or deleted; None while it holds.
        source: Who set it: "user", "rule", "llm", "import", ...
        confidence: How sure the source was, in [0, 1].
        message_id: The message it was learnt from, or None.
    """

    value: Any
    since: datetime
    until: datetime | None = None
    source: str = "user"
    confidence: float = 1.0
    message_id: str | None = None


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact with every value that it had.

    Args:
        key: Its name.
        current: Its value now; None when it was deleted.
        history: Its versions, oldest first; the last one has no ``until`` while it holds.
    """

    key: str
    current: Any
    history: list[FactVersion]


@dataclass(slots=True)
class FactLog:
    """The fold over one scope's events; pure but for being filled."""

    events: dict[int, Event] = field(default_factory=dict)
    by_key: dict[str, list[Event]] = field(default_factory=dict)
    undone: dict[int, int] = field(default_factory=dict)
    """The changes that were taken back, each with the event that did it."""
    current: dict[str, Any] = field(default_factory=dict)
    """Values that hold; ``_MISSING`` for a key that was deleted."""
    touched: dict[str, datetime] = field(default_factory=dict)
    """When a key was last set, deleted or taken back."""
    erased: list[Event] = field(default_factory=list)
    """Marks of facts that were erased; see :func:`_mark`."""

    def add(self, event: Event) -> str | None:
        """Take in the next event; returns the key that it changed, None for an event that is not about facts."""
        self.events[event.number] = event
        if event.kind == "undo":
            number = event.data.get("of")
            undone = self.change(number) if isinstance(number, int) else None
            if undone is None:
                return None
            self.undone[undone.number] = event.number
            key: str = undone.data["key"]
            self.touched[key] = event.at
            last = next((e for e in reversed(self.by_key[key]) if e.number not in self.undone), None)
            if last is None:
                self.current.pop(key, None)
            else:
                self._hold(key, last)
            return key
        if event.kind == _ERASED:
            self.erased.append(event)
        if not _is_change(event):
            return None
        key = event.data["key"]
        self.touched[key] = event.at
        self.by_key.setdefault(key, []).append(event)
        self._hold(key, event)
        return key

    def _hold(self, key: str, event: Event) -> None:
        self.current[key] = event.data["value"] if event.kind == "set" else _MISSING

    def last(self) -> Event | None:
        """The latest event that set or deleted something and was not undone."""
        return next((event for number in reversed(self.events) if (event := self.change(number))), None)

    def change(self, number: int) -> Event | None:
        """The event of a number, where it set or deleted something and was not undone."""
        event = self.events.get(number)
        return event if event and number not in self.undone and _is_change(event) else None

    def versions(self, key: str) -> list[FactVersion]:
        """Every value that a key had, oldest first."""
        versions: list[FactVersion] = []
        for event in self.by_key.get(key, ()):
            if event.number in self.undone:
                continue
            if versions and versions[-1].until is None:
                # Clocks differ between machines and are set back: a version never ends before it began.
                versions[-1] = replace(versions[-1], until=max(event.at, versions[-1].since))
            if event.kind == "set":
                data = event.data
                versions.append(
                    FactVersion(
                        copy.deepcopy(data["value"]),
                        event.at,
                        None,
                        data.get("source", "user"),
                        data.get("confidence", 1.0),
                        data.get("message_id"),
                    )
                )
        return versions


def _is_change(event: Event) -> bool:
    """Whether an event set or deleted a fact; what else a journal holds says nothing of facts."""
    complete = event.kind == "delete" or (event.kind == "set" and "value" in event.data)
    return complete and isinstance(event.data.get("key"), str)


class FactShelf:
    """One scope's facts, open once and shared by every memory that reads them."""

    def __init__(self, journal: Journal, scope: MemoryScope) -> None:
        self.scope = scope
        self._log = FactLog()
        self._readers: WeakSet[FeatureMemory] = WeakSet()
        self._lock = threading.RLock()  # held while the log is filled or read
        inherited(self)
        self.journal: ScopeJournal = journal.open(scope, self._on_event, self._on_reset)

    def leave_to_parent(self) -> None:
        """In a forked process: the lock is the parent's; the journal hands all over anew."""
        self._lock = threading.RLock()

    def notify(self, reader: FeatureMemory) -> None:
        """Tell a memory of every change from now on, as long as it lives."""
        with self._lock:
            self._readers.add(reader)

    def current(self) -> dict[str, Any]:
        """The values that hold, ``_MISSING`` for keys that were deleted; a copy, but for lists and objects."""
        with self._lock:
            return dict(self._log.current)

    def current_of(self, key: str) -> tuple[bool, Any]:
        """Whether a key was ever set or deleted here, and its value or ``_MISSING``."""
        with self._lock:
            return key in self._log.current, self._log.current.get(key, _MISSING)

    def known_keys(self) -> list[str]:
        """Every key that was ever set or deleted."""
        with self._lock:
            return list(self._log.by_key)

    def events(self) -> list[Event]:
        """Every event."""
        with self._lock:
            return list(self._log.events.values())

    def versions(self, key: str) -> list[FactVersion]:
        """Every value that a key had, oldest first."""
        with self._lock:
            return self._log.versions(key)

    def change(self, number: int | None) -> Event | None:
        """A change that can be undone: the one of a number, or the latest."""
        with self._lock:
            return self._log.last() if number is None else self._log.change(number)

    def undone_by(self, change: int) -> int | None:
        """The number of the event that took a change back; None where it stands."""
        with self._lock:
            return self._log.undone.get(change)

    def last_change(self, key: str) -> tuple[datetime, int] | None:
        """When a key was last set or deleted, changes that were undone aside, and the event's number."""
        with self._lock:
            standing = (e for e in reversed(self._log.by_key.get(key, ())) if e.number not in self._log.undone)
            return next(((event.at, event.number) for event in standing), None)

    def touched(self) -> dict[str, datetime]:
        """When keys were last set, deleted or taken back."""
        with self._lock:
            return dict(self._log.touched)

    def erased_at(self, key: str) -> datetime | None:
        """When a key was last erased; None where it never was."""
        with self._lock:
            marks = list(self._log.erased)
        return max((mark.at for mark in marks if mark.data == _mark(key, str(mark.data.get("salt")))), default=None)

    def _on_event(self, event: Event) -> None:
        with self._lock:
            key = self._log.add(event)
        if key is not None:
            self._tell(key)

    def _on_reset(self, events: Sequence[Event]) -> None:
        fresh = FactLog()
        for event in events:
            fresh.add(event)
        with self._lock:
            self._log = fresh
        self._tell(None)

    def _tell(self, key: str | None) -> None:
        with self._lock:
            readers = list(self._readers)
        for reader in readers:
            reader.changed(key)


class ShelfSource(Protocol):
    """Gives the one open shelf of a scope."""

    def __call__(self, scope: MemoryScope) -> FactShelf:
        """The shelf of a scope."""


class FeatureMemory:
    """Facts about a scope's owner; what the owner does not have is read from the global scope.

    Args:
        shelf: Gives the shelf of a scope; :func:`open_shelves` makes one from a journal.
        scope: Whose facts.
        counter: Counts tokens for :meth:`to_prompt`.

    Reading sees this process's fold; :meth:`refresh` and :meth:`to_prompt` first read what other processes wrote.
    """

    def __init__(self, shelf: ShelfSource, scope: MemoryScope, counter: TokenCounter | None = None) -> None:
        self.scope = scope.owner
        self.counter = counter or TokenCounter()
        self._shelves = [shelf(s) for s in scope.lineage]  # nearest first
        self._own = self._shelves[0]
        self._lock = threading.Lock()
        # Values that cannot be changed in place are read straight from here; lists and objects are copied on
        # their way out, so that a caller who changes what it was given changes no fact.
        self._scalars: dict[str, Any] = {}
        self._containers: dict[str, Any] = {}
        self._rendered: dict[tuple[bool, int | None], tuple[str, list[str]]] = {}
        inherited(self)
        for s in self._shelves:
            s.notify(self)
        self.changed(None)

    def leave_to_parent(self) -> None:
        """In a forked process: the lock is the parent's."""
        self._lock = threading.Lock()

    # Reading

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a fact, or the default. Lists and objects are copies.

        Raises:
            FactError: The key is no string.
        """
        try:
            return self._scalars[key]
        except (KeyError, TypeError):
            return self._get_other(key, default)

    def get_with_history(self, key: str) -> Fact | None:
        """A fact with every value that it had; None when the key was never set.

        The history is the nearest scope's that knows the key.
        """
        _check_key(key)
        deleted: tuple[datetime, int] | None = None  # here, what a farther scope has
        for shelf in self._shelves:
            if versions := shelf.versions(key):
                if deleted and versions[-1].until is None:
                    versions[-1] = replace(versions[-1], until=max(deleted[0], versions[-1].since))
                return Fact(key, self.get(key), versions)
            deleted = deleted or shelf.last_change(key)
        return None

    def as_of(self, moment: datetime) -> dict[str, Any]:
        """The facts that held at a moment, by key.

        Raises:
            MessageError: The moment has no time zone.
        """
        moment = as_utc(moment)
        facts: dict[str, Any] = {}
        for shelf in reversed(self._shelves):
            log = FactLog()
            for event in shelf.events():
                if event.at <= moment:
                    log.add(event)
            _inherit(facts, log.current)
        return copy.deepcopy(facts)

    def keys(self) -> list[str]:
        """The keys that have a value, in the order in which they were first learnt; global ones first."""
        return list(self.all())

    def all(self) -> dict[str, Any]:
        """Every fact, by key, in the order of :meth:`keys`; a copy."""
        facts: dict[str, Any] = {}
        for shelf in reversed(self._shelves):
            _inherit(facts, shelf.current())
        return copy.deepcopy(facts)

    def to_prompt(self, include_history: bool = False, max_tokens: int | None = None) -> str:
        """The facts as JSON for a prompt, one a line; ``{}`` when there are none.

        ``<``, ``>``, ``&``, what looks like a delimiter and what is not seen are escaped, so that no value can close a
        delimiter around it. The text is the same, byte for byte, while no fact changes.

        Args:
            include_history: Give ``{"current": ..., "history": [...]}`` for a fact that had other values before.
            max_tokens: The budget in tokens; the facts that were learnt longest ago are left out first. None
                means no limit.

        Raises:
            BudgetError: The budget is negative or not an integer.
        """
        return self.render(include_history, max_tokens)[0]

    def render(self, include_history: bool = False, max_tokens: int | None = None) -> tuple[str, list[str]]:
        """What :meth:`to_prompt` gives, and the keys that it left out."""
        check_budget(max_tokens)
        self.refresh()
        cache = self._rendered  # a change replaces it: what is rendered meanwhile goes into the old one
        rendered = cache.get((include_history, max_tokens))
        if rendered is None:
            if len(cache) >= _RENDERED:
                cache.clear()
            rendered = cache[include_history, max_tokens] = self._render(include_history, max_tokens)
        return rendered[0], list(rendered[1])

    def export(self) -> dict[str, Any]:
        """Everything known of the scope's own facts, as JSON: current values and every version."""
        self.refresh()
        current, own = self._own.current(), self._own
        return {
            "scope": str(self.scope),
            "facts": {
                key: {
                    "current": None if current.get(key, _MISSING) is _MISSING else copy.deepcopy(current[key]),
                    "history": [_version_as_json(version) for version in versions],
                }
                for key in own.known_keys()
                if (versions := own.versions(key))
            },
        }

    def changes(self) -> dict[str, datetime]:
        """When facts were last set, deleted or taken back, by key."""
        found: dict[str, datetime] = {}
        for shelf in reversed(self._shelves):
            found |= shelf.touched()
        return found

    def erased_at(self, key: str) -> datetime | None:
        """When a fact of the scope was last erased; None where it never was."""
        return self._own.erased_at(key)

    def refresh(self) -> None:
        """Read what other processes, or other managers of this one, wrote since."""
        for shelf in self._shelves:
            shelf.journal.refresh()

    def __len__(self) -> int:
        return len(self._scalars) + len(self._containers)

    def __contains__(self, key: object) -> bool:
        return key in self._scalars or key in self._containers

    # Writing

    def set(
        self,
        key: str,
        value: Json,
        source: str = "user",
        confidence: float = 1.0,
        message_id: str | None = None,
    ) -> int:
        """Set a fact. The value before it goes to the history. On return it survives the process.

        Args:
            key: The fact's name.
            value: Anything that JSON can say.
            source: Who says so.
            confidence: How sure the source is, in [0, 1].
            message_id: The message it was learnt from.

        Returns:
            The number of the change, which :meth:`undo` takes.

        Raises:
            FactError: The key is no text, the value is not JSON, the confidence is out of range.
            StoreError: It could not be written; nothing changed.
        """
        _check_key(key)
        if not isinstance(confidence, int | float) or not 0 <= confidence <= 1:
            raise FactError(f"confidence={confidence!r}: expected a number from 0 to 1.")
        if not isinstance(source, str) or not isinstance(message_id, str | None):
            raise FactError(f"source={source!r}, message_id={message_id!r}: expected text.")
        data: dict[str, Any] = {"key": key, "value": _as_json(key, value), "source": as_unicode(source)}
        if confidence != 1:
            data["confidence"] = confidence
        if message_id is not None:
            data["message_id"] = as_unicode(message_id)
        return self._own.journal.append("set", data).number

    def delete(self, key: str) -> bool:
        """Delete a fact: from now on it has no value, also where the global scope has one. Its history stays.

        Returns:
            False when there is no such fact.

        Raises:
            StoreError: It could not be written; nothing changed.
        """
        return self.retract(key) is not None

    def retract(self, key: str, source: str = "user", message_id: str | None = None) -> int | None:
        """Delete a fact, saying who says so; see :meth:`delete`.

        Returns:
            The number of the change, which :meth:`undo` takes; None when there is no such fact.
        """
        _check_key(key)
        self.refresh()
        if key not in self:
            return None
        said = {"message_id": as_unicode(message_id)} if message_id is not None else {}
        return self._own.journal.append("delete", {"key": key, "source": as_unicode(source), **said}).number

    def undo(self, change: int | None = None) -> str | None:
        """Take a change back: the latest, and called again the one before it; or the one of a number.

        Returns:
            The key of the fact that changed; None when there is nothing to undo.
        """
        self._own.journal.refresh()
        while (event := self._own.change(change)) is not None:
            undo = self._own.journal.append("undo", {"of": event.number})
            taken_back_by = self._own.undone_by(event.number)
            if taken_back_by is None:  # it was erased meanwhile
                return None
            if taken_back_by == undo.number:  # else somebody else took it back meanwhile
                key: str = event.data["key"]
                return key
        return None

    def learnt_from(self, change: int) -> str | None:
        """The message that a change was learnt from; None where it was from none, or was undone or erased."""
        self._own.journal.refresh()
        event = self._own.change(change)
        return None if event is None else event.data.get("message_id")

    def erase(self, key: str | None = None) -> int:
        """Remove every fact of the scope, or one, with its history, physically; it cannot be undone.

        What the managing of sessions decided of a fact goes with :meth:`MemoryManager.erase_fact`. Of one fact a mark
        stays, a salted hash of its name, by which it is not learnt again from what was said before.

        Returns:
            How many events there were.

        Raises:
            StoreError: They could not be removed.
        """
        journal = self._own.journal
        if key is None:
            return journal.erase()
        _check_key(key)
        journal.refresh()
        if key in self._own.known_keys():
            journal.append(_ERASED, _mark(key, token_hex(8)))
        return journal.revise(lambda event: removed(event) if _is_change(event) and event.data["key"] == key else event)

    # Inside

    def _get_other(self, key: str, default: Any) -> Any:
        _check_key(key)
        with self._lock:  # a value may be on its way from the one to the other
            value = self._scalars.get(key, self._containers.get(key, _MISSING))
        return default if value is _MISSING else copy.deepcopy(value)

    def changed(self, key: str | None) -> None:
        """Take in that a fact changed; None means that all may have."""
        with self._lock:
            self._rendered = {}
            if key is None:
                facts: dict[str, Any] = {}
                for shelf in reversed(self._shelves):
                    _inherit(facts, shelf.current())
                scalars = {k: v for k, v in facts.items() if not isinstance(v, list | dict)}
                self._containers = {k: v for k, v in facts.items() if isinstance(v, list | dict)}
                self._scalars = scalars
                return
            held = (shelf.current_of(key) for shelf in self._shelves)
            value = next((value for known, value in held if known), _MISSING)
            holder, other = self._scalars, self._containers
            if isinstance(value, list | dict):
                holder, other = other, holder
            if value is not _MISSING:
                holder[key] = value
            else:
                holder.pop(key, None)
            other.pop(key, None)

    def _render(self, include_history: bool, max_tokens: int | None) -> tuple[str, list[str]]:
        lines = self._lines(include_history)
        text = _as_object(lines.values())
        dropped: list[str] = []
        if max_tokens is not None and self.counter.count(text) > max_tokens:
            # A fact that alone is too long must not take all others with it.
            alone = {key: self.counter.count(_as_object([line])) > max_tokens for key, line in lines.items()}
            order = sorted(lines, key=lambda key: (not alone[key], self._last_change(key)))

            def without(count: int) -> str:
                left_out = set(order[:count])
                return _as_object(line for key, line in lines.items() if key not in left_out)

            # Fewer facts are fewer tokens: thousands of facts are counted a dozen times, and not once for each.
            fits = bisect_left(range(len(order)), True, key=lambda n: self.counter.count(without(n)) <= max_tokens)
            text, dropped = without(fits), order[:fits]
        return text, dropped

    def _last_change(self, key: str) -> tuple[datetime, int]:
        return next(change for shelf in self._shelves if (change := shelf.last_change(key)))

    def _lines(self, include_history: bool) -> dict[str, str]:
        lines = {}
        for key, value in self.all().items():
            shown = value
            if include_history and (fact := self.get_with_history(key)) and len(fact.history) > 1:
                shown = {
                    "current": value,
                    "history": [_version_as_json(version, brief=True) for version in fact.history[:-1]],
                }
            lines[key] = f"{as_json_data(key)}: {as_json_data(shown)}"
        return lines


def _mark(key: str, salt: str) -> dict[str, str]:
    """What stays of a fact that was erased: nobody reads its name in it, and who asks for that name finds it."""
    return {"salt": salt, "of": blake2b(key.encode("utf-8", "surrogatepass"), key=salt.encode()[:64]).hexdigest()}


def open_shelves(journal: Journal) -> ShelfSource:
    """A source of shelves that opens each scope once, for as long as somebody uses it."""
    return _OpenShelves(journal)


class _OpenShelves:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._shelves: WeakValueDictionary[MemoryScope, FactShelf] = WeakValueDictionary()
        self._lock = threading.Lock()
        inherited(self)

    def __call__(self, scope: MemoryScope) -> FactShelf:
        with self._lock:
            found = self._shelves.get(scope)
        made = FactShelf(self._journal, scope) if found is None else found  # it reads: others go on
        with self._lock:
            return self._shelves.setdefault(scope, made)

    def leave_to_parent(self) -> None:
        self._lock = threading.Lock()


def _inherit(facts: dict[str, Any], nearer: Mapping[str, Any]) -> None:
    """Lay a nearer scope's facts over the ones collected so far; what it deleted is gone."""
    for key, value in nearer.items():
        if value is _MISSING:
            facts.pop(key, None)
        else:
            facts[key] = value


def _check_key(key: object) -> None:
    if not isinstance(key, str) or not key or key != as_unicode(key):
        raise FactError(f"key={key!r}: expected a non-empty string, such as 'language'.")


def _as_json(key: str, value: Any, depth: int = 0) -> Json:
    """The value as JSON would give it back."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return as_unicode(str.__str__(value))
    if isinstance(value, int) and value.bit_length() <= _LONGEST_INT:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if depth < _DEEPEST:
        if isinstance(value, list | tuple):
            return [_as_json(key, item, depth + 1) for item in value]
        if isinstance(value, dict) and all(isinstance(name, str) for name in value):
            return {as_unicode(str.__str__(name)): _as_json(key, item, depth + 1) for name, item in value.items()}
    raise FactError(
        f"The value of {key!r} holds {_described(value)}, which is not JSON. Expected text, "
        f"finite numbers, true, false, None, or lists and objects of these with text as keys, at most {_DEEPEST} deep."
    )


def _described(value: Any) -> str:
    """The value for an error's message; of what may be endless only the type."""
    name = type(value).__name__
    return name if isinstance(value, int | list | tuple | dict) else f"{name} {value!r:.60}"


def _as_object(lines: Iterable[str]) -> str:
    joined = ",\n".join(lines)
    return f"{{\n{joined}\n}}" if joined else "{}"


def _version_as_json(version: FactVersion, *, brief: bool = False) -> dict[str, Any]:
    until = version.until
    if brief:
        return {"value": version.value, "until": until and until.date().isoformat()}
    return {
        "value": version.value,
        "since": version.since.isoformat(),
        "until": until and until.isoformat(),
        "source": version.source,
        "confidence": version.confidence,
        "message_id": version.message_id,
    }
