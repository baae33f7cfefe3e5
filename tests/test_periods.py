"""The time that a question names."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import time_limit

from memory_integrations.periods import named_periods, without_relative_times

TODAY = date(2025, 6, 18)  # a Wednesday
YEARS = [2023, 2024]


def days(*period: str) -> tuple[int, int]:
    first, last = (date.fromisoformat(day).toordinal() for day in period)
    return first, last


@pytest.mark.parametrize(
    ("question", "periods"),
    [
        ("on 8 May 2023", [("2023-05-08", "2023-05-08")]),
        ("on the 8th of May, 2023", [("2023-05-08", "2023-05-08")]),
        ("on 2023-05-08?", [("2023-05-08", "2023-05-08")]),
        ("on May 8th", [("2023-05-08", "2023-05-08"), ("2024-05-08", "2024-05-08")]),
        ("in July?", [("2023-07-01", "2023-07-31"), ("2024-07-01", "2024-07-31")]),
        ("in July 2022", [("2022-07-01", "2022-07-31")]),
        ("during May", [("2023-05-01", "2023-05-31"), ("2024-05-01", "2024-05-31")]),
        ("MAY 2021", [("2021-05-01", "2021-05-31")]),
        ("on 3rd of march 2024", [("2024-03-03", "2024-03-03")]),
        ("on 30 February 2024", []),
        ("what may I do", []),
        ("what was said in 2022?", [("2022-01-01", "2022-12-31")]),
        ("the 2022 model", []),
        ("yesterday", [("2025-06-17", "2025-06-17")]),
        ("what did I say today", [("2025-06-18", "2025-06-18")]),
        ("last week", [("2025-06-09", "2025-06-15")]),
        ("this week", [("2025-06-16", "2025-06-18")]),
        ("last month", [("2025-05-01", "2025-05-31")]),
        ("this month", [("2025-06-01", "2025-06-18")]),
        ("last year", [("2024-01-01", "2024-12-31")]),
        ("this year", [("2025-01-01", "2025-06-18")]),
        ("two weeks ago", [("2025-06-01", "2025-06-07")]),
        ("a day ago", [("2025-06-17", "2025-06-17")]),
        ("700000 days ago", [("0108-12-05", "0108-12-05")]),
        ("999999999 days ago", []),
        pytest.param("9" * 5000 + " days ago", [], id="more digits than Python makes a number of"),
        ("no time at all", []),
    ],
)
def test_named_periods(question: str, periods: list[tuple[str, str]]) -> None:
    assert named_periods(question, TODAY, YEARS) == [days(*period) for period in periods]


words = st.sampled_from(
    ["may", "May", "31", "0", "99", "2023", "february", "last", "week", "year", "9999", "ago", "1000000"]
)


@given(question=st.one_of(st.text(max_size=60), st.lists(words, max_size=8).map(" ".join)), today=st.dates())
def test_any_question_is_read(question: str, today: date) -> None:
    for first, last in named_periods(question, today, YEARS):
        assert first <= last


@pytest.mark.parametrize("piece", ["may ", "may", "in ", "1 ", "9", "a week ", "last ", " ", "in 19"])
def test_the_work_grows_with_the_length_of_a_question(piece: str) -> None:
    question = piece * (1_000_000 // len(piece))
    with time_limit(10):
        named_periods(question, TODAY, YEARS)
        without_relative_times(question)
