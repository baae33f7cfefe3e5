"""Ranking past messages for a question: a pure formula over what two engine queries found.

The relevance of a message is ``bm25 / top_bm25 + dense * cosine / top_cosine``. A message then inherits from the
conversation around it: an answer is worth finding because of its question, and a session because of its best
message. Tuned on five public conversations (LoCoMo) by leave-one-out; `tests/benchmarks/locomo.py` measures it.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import repeat
from math import ceil, log
from typing import Any

import numpy as np

from memory_integrations.periods import Period

PointKey = int
"""A point, by the number that ``layout.key_of`` gives it."""
Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class RankingWeights:
    """How the signals add up. All are shares of a relevance, whose best possible value is ``1 + dense``.

    Args:
        dense: The cosine against BM25, each divided by its top score.
        near: What a message inherits of each message one or two away in its session.
        answer: What it inherits besides of the message before it, when that one asks something.
        session: What it inherits of the best message of its session.
        speaker: The bonus when the question names its speaker.
        opener: The bonus of a session's first message: people open with their news.
        asking: The malus of a message that ends by asking: it asks, it does not tell.
        when: The bonus of a message from the time that the question names; it fades afterwards.
        fade_days: Days in which that bonus falls to 1/e.
        candidates: How many messages each of the two queries brings.
    """

    dense: float = 1.0
    near: float = 0.3
    answer: float = 0.3
    session: float = 0.4
    speaker: float = 1.0
    opener: float = 0.4
    asking: float = 0.2
    when: float = 0.6
    fade_days: float = 15.0
    candidates: int = 150


# The columns of a table of conversations.
_SESSION, _BEFORE, _AFTER, _SPEAKER, _ASKS, _ENDS_ASKING, _DAY = range(7)


class Conversations:
    """What ranking needs to know of a scope's messages besides their scores: a table, filled as they arrive.

    Rows are numbered in order of arrival; a row knows its neighbours in its session.
    """

    def __init__(self) -> None:
        self.row_of: dict[PointKey, int] = {}
        self.points: list[PointKey] = []
        self.speakers: dict[str, int] = {}
        self.frequency: Counter[int] = Counter()
        """In how many messages a term of the sparse encoder occurs."""
        self._sessions: dict[str, int] = {}
        self._last_in_session: list[int] = []
        self._orders = array("d")
        self.latest = 0.0
        """The highest order of a message."""
        self._size = 0
        self._first_year, self._last_year = 10_000, 0
        self._columns = np.zeros((_DAY + 1, 16), dtype=np.int32)  # most users say little

    def __len__(self) -> int:
        return self._size

    @property
    def years(self) -> range:
        """The years in which its messages were said; a month without a year may be of each."""
        return range(self._first_year, self._last_year + 1)

    def __contains__(self, point: PointKey) -> bool:
        return point in self.row_of

    def add(
        self,
        point: PointKey,
        session: str | None,
        speaker: str,
        text: str,
        day: int,
        terms: Iterable[int] = (),
        order: float = 0,
    ) -> None:
        """Add a message in its place in its session; one that is known already stays where it is.

        Args:
            point: Its point.
            session: Its session; a message without one has no neighbours.
            speaker: Who said it.
            text: What was said.
            day: When, as a proleptic ordinal (``date.toordinal``).
            terms: Its terms, by the sparse encoder's numbers, each once.
            order: A number that is higher for what was said later; among equals the last comes last.
        """
        if point in self.row_of:
            return
        row = self._size
        if row == self._columns.shape[1]:
            self._columns = np.concatenate([self._columns, np.zeros_like(self._columns)], axis=1)
        key = f"\0{point}" if session is None else session
        number = self._sessions.setdefault(key, len(self._sessions))
        if number == len(self._last_in_session):
            self._last_in_session.append(-1)
        self._orders.append(order)
        order = self._orders[row]  # rounded as all others, of which some are a nanosecond apart
        self.latest = max(self.latest, order)
        before, after = self._last_in_session[number], -1
        while before >= 0 and self._orders[before] > order:  # somebody else said it before what is known
            before, after = int(self._columns[_BEFORE, before]), before
        asks = "?" in text or "？" in text
        self._columns[:, row] = (
            number,
            before,
            after,
            self.speakers.setdefault(speaker.lower(), len(self.speakers)),
            asks,
            asks and _ends_asking(text),
            day,
        )
        if before >= 0:
            self._columns[_AFTER, before] = row
        if after >= 0:
            self._columns[_BEFORE, after] = row
        else:
            self._last_in_session[number] = row
        self.row_of[point] = row
        self.points.append(point)
        if day > 0:
            year = date.fromordinal(day).year
            self._first_year, self._last_year = min(self._first_year, year), max(self._last_year, year)
        self.frequency.update(terms)
        self._size += 1

    def column(self, index: int) -> np.ndarray[Any, np.dtype[np.int32]]:
        """One column, without its unused end."""
        return self._columns[index, : self._size]


@dataclass(frozen=True, slots=True)
class Ranked:
    """A message that was ranked.

    Args:
        point: Its point.
        score: The share of the best that any message could reach: at most 1, and higher is better. Scores compare
            within one search.
        parts: What each signal gave, by the names of :class:`RankingWeights` and "bm25"; they add up to the score.
            Only when asked for.
    """

    point: PointKey
    score: float
    parts: dict[str, float] | None = None


def rank(
    sparse: Mapping[PointKey, float],
    dense: Mapping[PointKey, float],
    question: str,
    table: Conversations,
    weights: RankingWeights,
    limit: int,
    periods: Sequence[Period] = (),
    explain: bool = False,
) -> list[Ranked]:
    """The best messages for a question, best first.

    Args:
        sparse: BM25 scores by point; they count by their share of the highest. What is missing counts 0.
        dense: Cosines, likewise.
        question: The question, which may name a speaker.
        table: The scope's messages; scores of other points are passed over.
        weights: How the signals add up.
        limit: How many.
        periods: The times that the question may mean.
        explain: Whether to say what each signal gave.
    """
    bm25, cosine = _by_row(sparse, table), weights.dense * _by_row(dense, table)
    relevance = bm25 + cosine
    found = np.flatnonzero(relevance)
    if not len(found):
        return []
    all_before, all_after = table.column(_BEFORE), table.column(_AFTER)
    # Only what was found and its neighbours can be relevant.
    near = np.zeros(len(table) + 1, dtype=bool)
    near[found] = near[all_before[found]] = near[all_after[found]] = True
    rows = np.flatnonzero(near[:-1])
    before, after = all_before[rows], all_after[rows]
    two_before = np.where(before >= 0, all_before[before], -1)
    two_after = np.where(after >= 0, all_after[after], -1)
    after_question = (before >= 0) & table.column(_ASKS)[before].astype(bool)
    sessions = table.column(_SESSION)
    best = np.zeros(int(sessions.max()) + 1, dtype=np.float32)
    np.maximum.at(best, sessions[found], relevance[found])
    named = np.zeros(len(table.speakers), dtype=np.float32)
    for name in named_speakers(question, list(table.speakers)):
        named[table.speakers[name]] = weights.speaker
    parts = {
        "bm25": bm25[rows],
        "dense": cosine[rows],
        "near": weights.near * (relevance[before] + relevance[after] + relevance[two_before] + relevance[two_after]),
        "answer": weights.answer * after_question * relevance[before],
        "session": weights.session * best[sessions[rows]],
        "speaker": named[table.column(_SPEAKER)[rows]],
        "opener": weights.opener * (before < 0),
        "asking": -weights.asking * table.column(_ENDS_ASKING)[rows],
    }
    if periods:
        away = _days_away(table.column(_DAY)[rows], periods)
        parts["when"] = weights.when * np.exp(-away / weights.fade_days)
    score = sum(parts.values())
    # A bonus alone makes no message relevant.
    score = np.where(parts["bm25"] + parts["dense"] + parts["near"] + parts["answer"] > 0, score, 0)
    order = np.argsort(-score, kind="stable")[:limit]  # equals in order of arrival
    possible = _highest(weights)
    return [
        Ranked(
            table.points[rows[i]],
            float(score[i]) / possible,
            {name: float(part[i]) / possible for name, part in parts.items()} if explain else None,
        )
        for i in order
        if score[i] > 0
    ]


def _ends_asking(text: str) -> bool:
    """Whether a text ends in a question, which an [attachment] behind it does not hide."""
    text = text.rstrip()
    if text.endswith("]"):
        text = text[: max(text.rfind("["), 0)].rstrip()
    return text.endswith(("?", "？"))


def _by_row(scores: Mapping[PointKey, float], table: Conversations) -> Floats:
    """Shares of the highest score by the rows of a table; the last place (-1) stands for a missing neighbour."""
    by_row = np.zeros(len(table) + 1, dtype=np.float32)
    if scores:
        values = np.fromiter(scores.values(), np.float32, len(scores))
        by_row[list(map(table.row_of.get, scores, repeat(-1)))] = np.maximum(values, 0) / max(float(values.max()), 1e-9)
    by_row[-1] = 0
    return by_row


def _days_away(days: np.ndarray[Any, np.dtype[np.int32]], periods: Sequence[Period]) -> Floats:
    """Days from the nearest period to each message: 0 inside; before it they count three times, news comes after."""
    away = [np.maximum(np.maximum(days - last, 3 * (first - days)), 0) for first, last in periods]
    nearest: Floats = np.minimum.reduce(away).astype(np.float32)
    return nearest


def _highest(weights: RankingWeights) -> float:
    """The score of a message that has every signal in full."""
    relevance = 1 + weights.dense
    inherited = 4 * weights.near + weights.answer + weights.session
    return relevance * (1 + inherited) + weights.speaker + weights.opener + weights.when


def rarity(term_frequencies: Iterable[int], messages: int) -> float:
    """How much a word of a question counts: the idf of its rarest term, as BM25 weighs it; 0 for a word of no term.

    Robertson and Spärck Jones' weight in the form that is never negative: ``ln(1 + (N - df + 0.5) / (df + 0.5))``.
    """
    return max((log(1 + (messages - df + 0.5) / (df + 0.5)) for df in term_frequencies), default=0.0)


class Distinct:
    """Texts that were seen; says which of them another says again.

    It does in the same words; and as an assistant's echo of what somebody said, where the words of one stand in the
    other as they are, and are ``least`` or more of its words: "Noted: I live in Lisbon." Whoever else says a word more
    ("never", "only", another thousand) makes another statement, however alike the two are.
    """

    def __init__(self, least: float = 0.8) -> None:
        self._least = least
        self._by_size: dict[int, list[tuple[str, bool, Any]]] = {}

    def twin_of(self, words: Sequence[str], role: str | None, key: Any) -> Any | None:
        """The key of a text seen before that says the same as this one; None where there is none.

        Then this one is seen from now on, under its key. A text of no words has no twin.
        """
        count, texts = len(words), [f" {' '.join(reading)} " for reading in _readings(words, role)]
        is_answer = role == "assistant"
        if not count:
            return None
        for size in range(ceil(self._least * count), int(count / self._least) + 1):
            for seen, was_answer, twin in self._by_size.get(size, ()):
                if seen in texts or (is_answer != was_answer and any(seen in text or text in seen for text in texts)):
                    return twin
        self._by_size.setdefault(count, []).extend((text, is_answer, key) for text in texts)
        return None


_OF_THE_OTHER = {"you": "i", "i": "you", "me": "you", "your": "my", "my": "your", "yours": "mine", "mine": "yours"}


def _readings(words: Iterable[str], role: str | None) -> list[list[str]]:
    """Words as they are; of an assistant's "You live in Lisbon" also as the user says the same, "I live in Lisbon".

    In English; elsewhere an echo in other persons is another text.
    """
    told = ["are" if word == "am" else word for word in words]
    return [told] if role != "assistant" else [told, [_OF_THE_OTHER.get(word, word) for word in told]]


def named_speakers(question: str, speakers: Sequence[str]) -> list[str]:
    """The speakers whom a question is about: the one named first, or all that it names if it says "and" or "both".

    Args:
        question: The question.
        speakers: The speakers' names, in lower case.
    """
    text = question.lower()
    said = (name for name in speakers if name in text)
    found = sorted((match.start(), name) for name in said if (match := re.search(rf"\b{re.escape(name)}\b", text)))
    if not found:
        return []
    names = [name for _, name in found]
    return names if re.search(r"\b(?:and|both)\b", text) else names[:1]


def without_speakers(question: str, speakers: Sequence[str]) -> str:
    """The question without the names of its speakers; the question itself where nothing else is left."""
    if not speakers:
        return question
    names = "|".join(re.escape(name) for name in speakers)
    rest = re.sub(rf"\b(?:{names})\b(?:['’]s)?", " ", question, flags=re.IGNORECASE)
    return rest if re.search(r"\w", rest) else question
