"""What short-term memory keeps and what a model sees of it: pure functions, no clock and no I/O.

Retention is the usual exponential forgetting curve, ``0.5 ** (age / half_life)``, lifted by use:
``1 + access_boost * ln(1 + accesses)``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Reversible, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from memory_integrations.errors import PolicyError
from memory_integrations.messages import SUMMARY, Message


@dataclass(frozen=True, slots=True)
class ShortTermPolicy:
    """How much of a conversation stays in short-term memory, and for how long.

    Args:
        max_tokens: Above this many tokens entries are evicted (an evicted exchange is still in long-term memory).
        target_tokens: Down to this many; None means down to ``max_tokens``, that is, no more than needed.
        max_entries: The same limit in entries; None means no limit.
        min_entries: So many of the latest entries are never evicted, managed away or compressed.
        max_age: Expiry, hard: an older entry is no longer shown; None means never.
        decay_half_life: Decay, soft: after this long an entry's retention is half. With it the entry of lowest
            retention is evicted first; without it the oldest.
        access_boost: How much an entry's use lifts its retention.
        min_retention: Managing deletes entries whose retention, in (0, 1], fell below this; needs a half-life.
        compression_threshold: Managing compresses an entry of more tokens; None means never.
        manage_every_n_turns: Manage after so many turns that were added, never in the middle of an agent's; None means
            only when asked.
        manage_above_tokens: A language model manages only more tokens than this; None means half of ``max_tokens``.
        reserved_tokens: Tokens of a context that are spoken for by the system prompt, tools and the answer.

    Raises:
        PolicyError: A figure is out of range, or two contradict each other.
    """

    max_tokens: int = 4000
    target_tokens: int | None = None
    max_entries: int | None = None
    min_entries: int = 2
    max_age: timedelta | None = None
    decay_half_life: timedelta | None = None
    access_boost: float = 0.5
    min_retention: float = 0.05
    compression_threshold: int | None = 300
    manage_every_n_turns: int | None = None
    manage_above_tokens: int | None = None
    reserved_tokens: int = 0

    def __post_init__(self) -> None:
        _at_least(1, max_tokens=self.max_tokens)
        _at_least(
            0,
            min_entries=self.min_entries,
            reserved_tokens=self.reserved_tokens,
            manage_above_tokens=self.manage_above_tokens,
        )
        _at_least(
            1,
            target_tokens=self.target_tokens,
            max_entries=self.max_entries,
            compression_threshold=self.compression_threshold,
            manage_every_n_turns=self.manage_every_n_turns,
        )
        for name, span in (("max_age", self.max_age), ("decay_half_life", self.decay_half_life)):
            if span is not None and (not isinstance(span, timedelta) or span <= timedelta(0)):
                raise PolicyError(f"{name}={span!r}: expected a positive timedelta, or None for never.")
        if self.target_tokens is not None and self.target_tokens > self.max_tokens:
            raise PolicyError(
                f"target_tokens={self.target_tokens} is over max_tokens={self.max_tokens}: eviction must end below it."
            )
        if self.max_entries is not None and self.min_entries > self.max_entries:
            raise PolicyError(f"min_entries={self.min_entries} is over max_entries={self.max_entries}.")
        for name, most in (("access_boost", math.inf), ("min_retention", 1)):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value <= most or value == math.inf:
                raise PolicyError(f"{name}={value!r}: expected a number, 0 or more, and at most {most}.")

    @property
    def threshold(self) -> int:
        """Tokens above which a language model manages."""
        return self.max_tokens // 2 if self.manage_above_tokens is None else self.manage_above_tokens


def _at_least(least: int, **figures: int | None) -> None:
    for name, value in figures.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise PolicyError(f"{name}={value!r}: expected a whole number, {least} or more.")


@dataclass(frozen=True, slots=True)
class Entry:
    """A message in short-term memory, with what the policy needs to know of it."""

    id: str
    message: Message
    tokens: int
    created_at: datetime
    accesses: int = 0
    pinned: bool = False
    original: Message | None = None
    """The message as it was said, where ``message`` is a compressed one."""

    @property
    def content(self) -> str:
        """The text of the message."""
        return self.message.text

    @property
    def role(self) -> str:
        """The role of the message."""
        return self.message.role

    @property
    def protected(self) -> bool:
        """Whether it is pinned or a system message, and so never evicted, managed away or compressed."""
        return self.pinned or self.message.role == "system"


def retention(entry: Entry, now: datetime, policy: ShortTermPolicy) -> float:
    """How well an entry is still remembered: 1 when new, towards 0 with age, lifted by use (capped at 1).

    Without a half-life nothing is ever forgotten: 1.
    """
    if policy.decay_half_life is None:
        return 1.0
    age = max((now - entry.created_at) / policy.decay_half_life, 0.0)
    return min(1.0, math.pow(0.5, age) * (1 + policy.access_boost * math.log1p(entry.accesses)))


def expired(entry: Entry, now: datetime, policy: ShortTermPolicy) -> bool:
    """Whether an entry is past ``max_age``; a protected one never is."""
    return policy.max_age is not None and not entry.protected and now - entry.created_at > policy.max_age


def evictable(entries: Sequence[Entry], policy: ShortTermPolicy) -> list[Entry]:
    """The entries that may go, oldest first.

    None of the latest ``min_entries``, no protected one, and not the latest user message.
    """
    latest = latest_user(entries)
    older = entries[: max(len(entries) - policy.min_entries, 0)]
    return [entry for entry in older if not entry.protected and entry.id != latest]


def latest_user(entries: Reversible[Entry]) -> str | None:
    """The id of the latest user message, without which no model knows what to answer."""
    return next((entry.id for entry in reversed(entries) if entry.message.role == "user"), None)


def over_limits(tokens: int, count: int, policy: ShortTermPolicy) -> bool:
    """Whether so many tokens in so many entries are more than the policy holds."""
    return tokens > policy.max_tokens or (policy.max_entries is not None and count > policy.max_entries)


def at_target(tokens: int, count: int, policy: ShortTermPolicy) -> bool:
    """Whether an eviction that has begun may end."""
    target = policy.max_tokens if policy.target_tokens is None else policy.target_tokens
    return tokens <= target and (policy.max_entries is None or count <= policy.max_entries)


def choose_evictions(
    entries: Sequence[Entry], now: datetime, policy: ShortTermPolicy, *, begun: bool = False
) -> list[str]:
    """The ids to evict, in order, so that the entries come back under the policy's limits.

    Expired entries go first, then by retention, the least first, and by age among equals. When only protected
    entries are left, nothing more goes: the limits then stay exceeded.

    Args:
        entries: The whole memory, oldest first.
        now: For expiry and retention.
        policy: The limits.
        begun: Whether an eviction is under way already, and goes on down to the target.
    """
    tokens, count = sum(entry.tokens for entry in entries), len(entries)
    begun = begun or over_limits(tokens, count, policy)
    candidates = evictable(entries, policy)
    going = [entry for entry in candidates if expired(entry, now, policy)]
    tokens -= sum(entry.tokens for entry in going)
    count -= len(going)
    if begun:
        gone = {entry.id for entry in going}
        staying = [entry for entry in candidates if entry.id not in gone]
        if policy.decay_half_life is not None:
            staying.sort(key=lambda entry: (retention(entry, now, policy), entry.created_at))
        for entry in staying:
            if at_target(tokens, count, policy):
                break
            going.append(entry)
            tokens -= entry.tokens
            count -= 1
    return [entry.id for entry in going]


DropReason = Literal[
    "budget", "expired", "deleted", "unanswered tool call", "tool result without its call", "no user before it"
]


@dataclass(frozen=True, slots=True)
class Selection:
    """What a model is shown of some entries, and why not the rest."""

    messages: tuple[Message, ...]
    tokens: int
    reasons: Mapping[str, DropReason]
    """Why an entry was left out, by id, where it was not for the budget."""


@dataclass(frozen=True, slots=True)
class _Exchange:
    """A tool call and its results: shown together, the results directly after the call, or not at all.

    Read like the :class:`Entry` of a plain message, which needs no wrapping.
    """

    message: Message
    results: tuple[Entry, ...]
    tokens: int
    protected: bool

    @property
    def ids(self) -> tuple[str, ...]:
        return (self.message.id or "", *(result.id for result in self.results))


def select_view(entries: Sequence[Entry], max_tokens: int, now: datetime, policy: ShortTermPolicy) -> Selection:
    """Choose what a model sees within a budget; see :func:`selecting`."""
    return selecting(entries, now, policy)(max_tokens)


def selecting(entries: Sequence[Entry], now: datetime, policy: ShortTermPolicy) -> Callable[[int], Selection]:
    """What a model sees within budgets: system and pinned entries, the latest user message, then the newest that fit.

    A tool call stays with its results, which stand directly after it; the first message that is not a system
    one is a user's, or follows a summary. The latest user message is there even where it alone is over the budget.

    Args:
        entries: The whole memory, oldest first.
        now: For expiry.
        policy: Gives ``max_age``.

    Returns:
        A function that chooses within a budget, in tokens of the entries' contents.
    """
    known: dict[str, DropReason] = {}
    waiting = _waiting(entries)
    if policy.max_age is not None:
        entries = _unexpired(entries, now, policy, known)
    units = _units(entries, waiting, known)
    required = _required(units)
    needed = sum(units[i].tokens for i in required)

    def select(max_tokens: int) -> Selection:
        reasons, chosen, left = dict(known), set(required), max_tokens - needed
        # The newest first and no gaps: a conversation with holes misleads more than a shorter one.
        for i in range(len(units) - 1, -1, -1):
            if i in required:
                continue
            left -= units[i].tokens
            if left < 0:
                break
            chosen.add(i)
        shown = [units[i] for i in sorted(chosen)]
        first = next((i for i, unit in enumerate(shown) if _opens(unit.message)), len(shown))
        for unit in shown[:first]:
            if unit.message.role != "system":
                reasons.update(dict.fromkeys(_ids(unit), "no user before it"))
        shown = [unit for i, unit in enumerate(shown) if i >= first or unit.message.role == "system"]
        return _selected(shown, reasons)

    return select


def select_whole(entries: Sequence[Entry]) -> Selection:
    """All of some entries, whatever their age and their tokens: of tool calls and results only what is torn goes."""
    reasons: dict[str, DropReason] = {}
    return _selected(_units(entries, _waiting(entries), reasons), reasons)


def _selected(shown: Sequence[Entry | _Exchange], reasons: Mapping[str, DropReason]) -> Selection:
    return Selection(
        messages=tuple(message for unit in shown for message in _messages(unit)),
        tokens=sum(unit.tokens for unit in shown),
        reasons=reasons,
    )


def _waiting(entries: Sequence[Entry]) -> str | None:
    """The id of the last message: its calls may still be under way, and are shown without their results."""
    return next((entry.id for entry in reversed(entries) if entry.message.role != "tool"), None)


def _opens(message: Message) -> bool:
    """Whether a conversation may begin with a message: a model is given a summary as what the user says."""
    return message.role == "user" or SUMMARY in message.metadata


def _unexpired(
    entries: Sequence[Entry], now: datetime, policy: ShortTermPolicy, reasons: dict[str, DropReason]
) -> Sequence[Entry]:
    """The entries not past their age; the latest user message never is."""
    latest = latest_user(entries)
    gone = {entry.id for entry in entries if entry.id != latest and expired(entry, now, policy)}
    reasons.update(dict.fromkeys(gone, "expired"))
    return [entry for entry in entries if entry.id not in gone]


def _required(units: Sequence[Entry | _Exchange]) -> set[int]:
    """The places of what must be shown: protected units, each with the user message before it, and the latest one."""
    latest = next((i for i in range(len(units) - 1, -1, -1) if units[i].message.role == "user"), None)
    required = set() if latest is None else {latest}
    for i, unit in enumerate(units):
        if unit.protected:
            required.add(i)
            if unit.message.role != "system":
                required.add(max((h for h in range(i + 1) if units[h].message.role == "user"), default=i))
    return required


def _units(
    entries: Sequence[Entry], waiting: str | None, reasons: dict[str, DropReason]
) -> Sequence[Entry | _Exchange]:
    """The entries with every tool call joined to its results, in the calls' order."""
    if not any(entry.message.role == "tool" or entry.message.tool_calls for entry in entries):
        return entries
    grouped: list[tuple[Entry, dict[str, list[Entry]]]] = []
    open_calls: dict[str, list[Entry]] = {}  # by call id, the results of the latest message that made it
    expected: dict[str, int] = {}
    for entry in entries:
        message = entry.message
        if message.role != "tool":
            results: dict[str, list[Entry]] = {call.id: [] for call in message.tool_calls}
            grouped.append((entry, results))
            open_calls.update(results)
            expected.update(Counter(call.id for call in message.tool_calls))  # a server may give all calls one id
            continue
        call_id = message.tool_call_id or ""
        if len(open_calls.get(call_id, ())) < expected.get(call_id, 0):
            open_calls[call_id].append(entry)
        else:
            reasons[entry.id] = "tool result without its call"
    units: list[Entry | _Exchange] = []
    for entry, results in grouped:
        if not entry.message.tool_calls:
            units.append(entry)
        elif exchange := _exchange(entry, results, waiting=entry.id == waiting):
            units.append(exchange)
        else:
            reasons[entry.id] = "unanswered tool call"
    return units


def _exchange(entry: Entry, results: Mapping[str, Sequence[Entry]], *, waiting: bool) -> _Exchange | None:
    """A call with its results, without the calls that were never answered; None when nothing is left of it."""
    message = entry.message
    left = {call_id: list(answers) for call_id, answers in results.items()}
    calls = [(call, left[call.id].pop(0) if left[call.id] else None) for call in message.tool_calls]
    answers = tuple(answer for _, answer in calls if answer is not None)
    if not waiting and len(answers) < len(calls):
        if not answers and not message.text:
            return None
        message = replace(message, tool_calls=tuple(call for call, answer in calls if answer is not None))
    return _Exchange(
        message=message,
        results=answers,
        tokens=entry.tokens + sum(answer.tokens for answer in answers),
        protected=any(part.protected for part in (entry, *answers)),
    )


def _messages(unit: Entry | _Exchange) -> tuple[Message, ...]:
    if isinstance(unit, Entry):
        return (unit.message,)
    return (unit.message, *(result.message for result in unit.results))


def _ids(unit: Entry | _Exchange) -> tuple[str, ...]:
    return (unit.id,) if isinstance(unit, Entry) else unit.ids
