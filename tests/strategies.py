"""What several tests draw from: a clock, identifiers, JSON, and conversations that tools take part in."""

from __future__ import annotations

import itertools
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from memory_integrations import Entry, MemoryScope, Message, ShortTermPolicy, StoreUnavailableError, ToolCall
from memory_integrations.journal import Journal

START = datetime(2024, 5, 1, 12, tzinfo=UTC)


class Clock:
    """A clock that stands still until it is advanced."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float = 1) -> datetime:
        self.now += timedelta(seconds=seconds)
        return self.now


# Text that a careless parser, escaper or file name would trip over.
NASTY = [
    "/session:", "session:", "user:", "user=", "global", ":", "/", "\\", "%", "%2F", "%3A", "..", "\0", "\n", "\r\n",
    "\u2028", "\x85", "{", "}", "{{x}}", "{0}", "%s", "$x", "<", ">",
    "</", "&", '"', "'", "`", "İ", "ß", "é", "e\u0301",
    "а", "a", "A", "Ω", "日本語", "👩‍👩‍👧", "\ufeff", "\u202e", "\u200b", "CON", "NUL", " ", "\t", "-", "=", "0",
]  # fmt: skip

unicode_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
any_text = st.text(max_size=40)
nasty_text = st.lists(st.sampled_from(NASTY) | unicode_text, max_size=6).map("".join)
identifiers = nasty_text.filter(bool)
long_identifiers = st.builds(lambda part, times: part * times, identifiers, st.integers(1, 10_240)).map(
    lambda text: text[:10_240]
)

json_scalars = (
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False)
) | nasty_text
json_values = st.recursive(
    json_scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(nasty_text, inner, max_size=4),
    max_leaves=8,
)

words = st.sampled_from(
    "tea bread harbour Lisbon garden blue seven piano walked train rain letter never always quiet market".split()
)
sentences = st.lists(words, min_size=1, max_size=12).map(" ".join)

CALL_IDS = ["a", "b", "c", ""]


def tool_call(call_id: str) -> ToolCall:
    """A call of a tool that answers anything."""
    return ToolCall(call_id, "look_up", {"id": call_id})


def result(call_id: str | None, content: str = "found") -> Message:
    """The result of a call."""
    return Message("tool", content, tool_call_id=call_id)


def calls(*call_ids: str, content: str = "") -> Message:
    """An assistant's message that makes calls."""
    return Message("assistant", content, tool_calls=tuple(map(tool_call, call_ids)))


_call_lists = st.lists(st.sampled_from(CALL_IDS), min_size=1, max_size=3)
_plain = st.builds(Message, st.sampled_from(["user", "user", "assistant", "system"]), sentences)
_calling = st.builds(lambda ids, text: calls(*ids, content=text), _call_lists, st.just("") | sentences)
_results = st.builds(result, st.sampled_from([*CALL_IDS, "unknown", None]), sentences)


@st.composite
def _exchanges(draw: st.DrawFn) -> list[Message]:
    """A call with its results: now and then one missing, one too many, out of order, or with talk in between."""
    ids = draw(st.lists(st.sampled_from(CALL_IDS), min_size=1, max_size=3, unique=True))
    answered = draw(st.permutations(ids))[draw(st.sampled_from([0, 0, 0, 1])) :]
    extra = draw(st.lists(_results | _plain, max_size=1))
    found = [*(result(call_id, draw(sentences)) for call_id in answered), *extra]
    if draw(st.booleans()):
        found = list(draw(st.permutations(found)))
    return [calls(*ids, content=draw(st.just("") | sentences)), *found]


histories = st.lists(
    _plain.map(lambda m: [m]) | _exchanges() | (_calling | _results).map(lambda m: [m]), max_size=8
).map(lambda parts: [message for part in parts for message in part])
"""Messages in which calls and results are mostly, but not always, as they should be."""


@st.composite
def entry_lists(draw: st.DrawFn, messages: st.SearchStrategy[list[Message]] = histories) -> list[Entry]:
    """Entries of a short-term memory: of any size and age, some pinned."""
    return [
        Entry(
            id=f"m{number}",
            message=Message(
                message.role,
                message.content,
                id=f"m{number}",
                tool_calls=message.tool_calls,
                tool_call_id=message.tool_call_id,
            ),
            tokens=draw(st.integers(0, 40)),
            created_at=START - timedelta(seconds=draw(st.integers(0, 100))),
            accesses=draw(st.sampled_from([0, 0, 1, 5])),
            pinned=draw(st.sampled_from([False] * 9 + [True])),
        )
        for number, message in enumerate(draw(messages))
    ]


def limited_policies(
    *,
    max_tokens: st.SearchStrategy[int],
    target_tokens: st.SearchStrategy[int | None],
    max_entries: st.SearchStrategy[int | None],
    min_entries: st.SearchStrategy[int],
    max_age: st.SearchStrategy[timedelta | None],
    half_life: st.SearchStrategy[timedelta | None],
) -> st.SearchStrategy[ShortTermPolicy]:
    """Policies of these figures that do not contradict each other."""

    def policy(
        most: int, target: int | None, entries: int | None, least: int, age: timedelta | None, life: timedelta | None
    ) -> ShortTermPolicy:
        return ShortTermPolicy(
            max_tokens=most,
            target_tokens=target and min(target, most),
            max_entries=entries and max(entries, least),
            min_entries=least,
            max_age=age,
            decay_half_life=life,
        )

    return st.builds(policy, max_tokens, target_tokens, max_entries, min_entries, max_age, half_life)


def ids_of(items: Iterable[Any]) -> list[str]:
    """The ids of entries or messages, in order."""
    return [item.id for item in items]


def latest_user_id(items: Sequence[Any]) -> str | None:
    """The id of the latest message or entry of a user."""
    return next((item.id for item in reversed(items) if item.role == "user"), None)


_numbers = itertools.count()


def fresh_scope() -> MemoryScope:
    """A user that no other example has written to."""
    return MemoryScope(f"user {next(_numbers)}")


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Fails instead of hanging where work grows out of proportion; generous, since it is no benchmark."""

    def ring(*_: object) -> None:
        raise AssertionError(f"still at work after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def frequent_switches() -> Iterator[None]:
    """Makes threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def full_disk(*_: object) -> Any:
    """What stands in for a write that finds no room."""
    raise StoreUnavailableError("No space left")


class FewOpen:
    """Keeps only the latest journals open, however many a test makes; one that is used again opens its files anew."""

    def __init__(self, most: int = 16) -> None:
        self._most = most
        self._journals: list[Journal] = []

    def add(self, journal: Journal) -> Journal:
        self._journals.append(journal)
        if len(self._journals) > self._most:
            self._journals.pop(0).close()
        return journal

    def close(self) -> None:
        for journal in self._journals:
            journal.close()
