"""Ranking past messages for a question: a pure formula over what two engine queries found.

The relevance of a message is ``bm25 / top_bm25 + dense * cosine / top_cosine``. A message then inherits from the
conversation around it: an answer is worth finding because of its question, and a session because of its best
message. Tuned on five public conversations (LoCoMo) by leave-one-out; `tests/benchmarks/locomo.py` measures it.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

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
    candidates: int = 100


# The columns of a table of conversations.
_SESSION, _BEFORE, _AFTER, _SPEAKER, _ASKS, _ENDS_ASKING, _DAY = range(7)


class Conversations:
    """What ranking needs to know of a scope's messages besides their scores: a table, filled as they arrive.

    Rows are numbered in order of arrival; a row knows its neighbours in its session.
    """

    def __init__(self) -> None:
        self.row_of: dict[str, int] = {}
        self.ids: list[str] = []
        self.speakers: dict[str, int] = {}
        self._sessions: dict[str, int] = {}
        self._last_in_session: list[int] = []
        self._size = 0
        self._columns = np.zeros((_DAY + 1, 256), dtype=np.int32)

    def __len__(self) -> int:
        return self._size

    def __contains__(self, point_id: str) -> bool:
        return point_id in self.row_of

    def add(self, point_id: str, session: str | None, speaker: str, text: str, day: int) -> None:
        """Add a message after all others of its session; one that is known already stays where it is.

        Args:
            point_id: The id of its point.
            session: Its session; a message without one has no neighbours.
            speaker: Who said it.
            text: What was said.
            day: When, as a proleptic ordinal (``date.toordinal``).
        """
        if point_id in self.row_of:
            return
        row = self._size
        if row == self._columns.shape[1]:
            self._columns = np.concatenate([self._columns, np.zeros_like(self._columns)], axis=1)
        key = f"\0{point_id}" if session is None else session
        number = self._sessions.setdefault(key, len(self._sessions))
        if number == len(self._last_in_session):
            self._last_in_session.append(-1)
        before = self._last_in_session[number]
        asks = "?" in text or "？" in text
        self._columns[:, row] = (
            number,
            before,
            -1,
            self.speakers.setdefault(speaker.lower(), len(self.speakers)),
            asks,
            asks and bool(_TRAILING_QUESTION.search(text)),
            day,
        )
        if before >= 0:
            self._columns[_AFTER, before] = row
        self._last_in_session[number] = row
        self.row_of[point_id] = row
        self.ids.append(point_id)
        self._size += 1

    def column(self, index: int) -> np.ndarray[Any, np.dtype[np.int32]]:
        """One column, without its unused end."""
        return self._columns[index, : self._size]


def share_of_top(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores as shares of the highest; those that are not positive are left out."""
    top = max(scores.values(), default=0.0)
    return {point_id: score / top for point_id, score in scores.items() if score > 0}


def rank(
    sparse: Mapping[str, float],
    dense: Mapping[str, float],
    question: str,
    table: Conversations,
    weights: RankingWeights,
    limit: int,
) -> list[tuple[str, float]]:
    """The best messages for a question, best first.

    Args:
        sparse: BM25 as shares of the top score, by point id; what is missing counts 0.
        dense: Cosines, likewise.
        question: The question, which may name a speaker or a time.
        table: The scope's messages; every id of the scores is in it.
        weights: How the signals add up.
        limit: How many.

    Returns:
        Point ids and scores. A score is the share of the best that any message could reach: at most 1, and
        higher is better. Scores compare within one search.
    """
    relevance = np.zeros(len(table) + 1, dtype=np.float32)  # the last place (-1) stands for a missing neighbour
    for scores, weight in ((sparse, 1.0), (dense, weights.dense)):
        scored = [table.row_of[point_id] for point_id in scores]
        relevance[scored] += np.fromiter(scores.values(), np.float32, len(scores)) * np.float32(weight)
    found = np.flatnonzero(relevance)
    if not len(found):
        return []
    all_before, all_after = table.column(_BEFORE), table.column(_AFTER)
    # Only what was found and its neighbours can be relevant: the work does not grow with the scope.
    near = np.unique(np.concatenate([found, all_before[found], all_after[found]]))
    rows = near[near >= 0]
    before, after = all_before[rows], all_after[rows]
    two_before = np.where(before >= 0, all_before[before], -1)
    two_after = np.where(after >= 0, all_after[after], -1)
    after_question = (before >= 0) & table.column(_ASKS)[before].astype(bool)
    sessions = table.column(_SESSION)
    best = np.zeros(int(sessions.max()) + 1, dtype=np.float32)
    np.maximum.at(best, sessions[found], relevance[found])
    named = np.zeros(len(table.speakers), dtype=np.float32)
    named[[table.speakers[name] for name in named_speakers(question, list(table.speakers))]] = weights.speaker
    inherited = (
        relevance[rows]
        + weights.near * (relevance[before] + relevance[after] + relevance[two_before] + relevance[two_after])
        + weights.answer * after_question * relevance[before]
    )
    score = (
        inherited
        + weights.session * best[sessions[rows]]
        + named[table.column(_SPEAKER)[rows]]
        + weights.opener * (before < 0)
        - weights.asking * table.column(_ENDS_ASKING)[rows]
    )
    if period := named_period(question):
        score += weights.when * np.exp(-_days_after(table.column(_DAY)[rows], period) / weights.fade_days)
    score[inherited <= 0] = 0  # a bonus alone makes no message relevant
    order = np.lexsort((rows, -score))[:limit]
    possible = _highest(weights)
    return [(table.ids[rows[i]], float(score[i]) / possible) for i in order if score[i] > 0]


def _highest(weights: RankingWeights) -> float:
    """The score of a message that has every signal in full."""
    relevance = 1 + weights.dense
    inherited = 4 * weights.near + weights.answer + weights.session
    return relevance * (1 + inherited) + weights.speaker + weights.opener + weights.when


def named_speakers(question: str, speakers: Sequence[str]) -> list[str]:
    """The speakers whom a question is about: the one named first, or all that it names if it says "and" or "both".

    Args:
        question: The question.
        speakers: The speakers' names, in lower case.
    """
    text = question.lower()
    found = sorted((match.start(), name) for name in speakers if (match := re.search(rf"\b{re.escape(name)}\b", text)))
    names = [name for _, name in found]
    return names if re.search(r"\b(?:and|both)\b", text) else names[:1]


def without_speakers(question: str, speakers: Sequence[str]) -> str:
    """The question without the names of its speakers; the question itself where nothing else is left."""
    if not speakers:
        return question
    names = "|".join(re.escape(name) for name in speakers)
    rest = re.sub(rf"\b(?:{names})\b(?:['’]s)?", " ", question, flags=re.IGNORECASE)
    return rest if re.search(r"\w", rest) else question


Period = tuple[int | None, int, int | None]
"""Year, month and day; a year or a day that was not named is None."""

_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_name) if name}
_DATED = re.compile(
    rf"(?:\b(?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?: of)? )?\b(?P<month>{'|'.join(_MONTHS)})\b"
    r"(?: (?P<day_after>\d{1,2})(?:st|nd|rd|th)?\b)?(?P<year>,? \d{4}\b)?",
    re.IGNORECASE,
)
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")
_BEFORE_MAY = re.compile(r"\b(?:in|of|since|by|until|early|late|mid|during|last|this) $", re.IGNORECASE)
_TRAILING_QUESTION = re.compile(r"[?？]\s*(?:\[[^\]]*\])?\s*$")  # a trailing [attachment] does not hide it


def named_period(question: str) -> Period | None:
    """The time that "8 May 2023", "May 8th" or "in July" names; None when no month is named. English."""
    for match in _DATED.finditer(question):
        day = match["day"] or match["day_after"]
        plain = not day and not match["year"]
        if match["month"].lower() == "may" and plain and not _BEFORE_MAY.search(question[: match.start()]):
            continue
        year = _YEAR.search(question)
        number = int(day) if day else 0
        return int(year[0]) if year else None, _MONTHS[match["month"].lower()], number if 0 < number < 32 else None
    return None


def _days_after(days: np.ndarray[Any, np.dtype[np.int32]], period: Period) -> Floats:
    """Days from a period to each message: 0 inside it; before it they count three times, since news comes after."""
    year, month, day = period
    first, last = date.fromordinal(max(1, int(days.min()))).year, date.fromordinal(max(1, int(days.max()))).year
    best = np.full(len(days), 1e6, dtype=np.float32)
    for y in [year] if year else range(first - 1, last + 1):
        try:
            start = date(y, month, day or 1).toordinal()
        except ValueError:  # 30 February, or a year out of range
            continue
        end = start if day else start + calendar.monthrange(y, month)[1] - 1
        away = np.where(days > end, days - end, np.where(days < start, 3 * (start - days), 0))
        best = np.minimum(best, away)
    return best.astype(np.float32)
