"""The time that a question names, in days: pure, English."""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterable
from datetime import date, timedelta

Period = tuple[int, int]
"""First and last day, as proleptic ordinals (``date.toordinal``)."""

_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_name) if name}
_DATED = re.compile(
    rf"(?:\b(?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?: of)? )?\b(?P<month>{'|'.join(_MONTHS)})\b"
    r"(?: (?P<day_after>\d{1,2})(?:st|nd|rd|th)?\b)?(?P<year>,? \d{4}\b)?",
    re.IGNORECASE,
)
_ISO = re.compile(r"\b(\d{4})-(\d\d)-(\d\d)\b")
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")
_IN_YEAR = re.compile(r"\b(?:in|during|of|since|by|before|after|from) ((?:19|20)\d\d)\b", re.IGNORECASE)
_BEFORE_MAY = re.compile(r"\b(?:in|of|since|by|until|early|late|mid|during|last|this|next) $", re.IGNORECASE)
_BEFORE = len(" during ")  # characters that tell, whatever stands before them
# So many digits as days have that there were; of more Python would refuse to make a number.
_AGO = re.compile(r"\b(\d{1,6}|a|an|one|two|three|four|five|six) (day|week|month|year)s? ago\b", re.IGNORECASE)
_LAST = re.compile(r"\b(yesterday|today|this morning|tonight|(?:last|this|past) (?:week|month|year))\b", re.IGNORECASE)
_NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
_DAYS = {"day": 1, "week": 7, "month": 30, "year": 365}


def named_periods(question: str, today: date, years: Iterable[int]) -> list[Period]:
    """The periods that a question may mean; none when it names no time.

    Args:
        question: "What did I do on 8 May 2023", "in July", "last week", "two months ago".
        today: What "yesterday" is measured from.
        years: The years that a month without one may mean.
    """
    if iso := _ISO.search(question):
        return _days(int(iso[1]), int(iso[2]), int(iso[3]))
    for match in _DATED.finditer(question):
        day = match["day"] or match["day_after"]
        month = _MONTHS[match["month"].lower()]
        undated = not day and not match["year"]
        just_before = question[max(match.start() - _BEFORE, 0) : match.start()]
        if match["month"].lower() == "may" and undated and not _BEFORE_MAY.search(just_before):
            continue
        named = _YEAR.search(question)
        number = int(day) if day and 0 < int(day) < 32 else None
        return [period for y in ([int(named[0])] if named else years) for period in _days(y, month, number)]
    if ago := _AGO.search(question):
        count = int(ago[1]) if ago[1].isdigit() else _NUMBERS[ago[1].lower()]
        length = _DAYS[ago[2].lower()]
        if count * length < today.toordinal():
            around = today.toordinal() - count * length
            return [(around - length // 2, around + length // 2)]
    if last := _LAST.search(question):
        return [_relative(last[1].lower(), today)]
    if year := _IN_YEAR.search(question):
        return _days(int(year[1]), None, None)
    return []


def without_relative_times(question: str) -> str:
    """The question without "yesterday" or "two weeks ago", which as words say nothing of what was said then."""
    rest = _LAST.sub(" ", _AGO.sub(" ", question))
    return rest if re.search(r"\w", rest) else question


def _days(year: int, month: int | None, day: int | None) -> list[Period]:
    """The days of a year, a month or a date; none for a date that does not exist."""
    try:
        first = date(year, month or 1, day or 1).toordinal()
    except ValueError:
        return []
    if day:
        return [(first, first)]
    if month:
        return [(first, first + calendar.monthrange(year, month)[1] - 1)]
    return [(first, date(year, 12, 31).toordinal())]


def _relative(words: str, today: date) -> Period:
    day = today.toordinal()
    if words in ("today", "this morning", "tonight"):
        return day, day
    if words == "yesterday":
        return day - 1, day - 1
    which, unit = words.split()
    if unit == "week":
        monday = day - today.weekday()
        return (monday, day) if which == "this" else (monday - 7, day - 1 if which == "past" else monday - 1)
    if unit == "month":
        first = today.replace(day=1)
        before = first - timedelta(days=1)
        return (first.toordinal(), day) if which == "this" else (before.replace(day=1).toordinal(), before.toordinal())
    year = today.year if which == "this" else today.year - 1
    return date(year, 1, 1).toordinal(), min(date(year, 12, 31).toordinal(), day)
