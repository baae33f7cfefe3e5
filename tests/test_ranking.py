"""The ranking formula: what each signal does, and what must hold for any input."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import time_limit

from memory_integrations.periods import named_periods
from memory_integrations.ranking import (
    Conversations,
    RankingWeights,
    named_speakers,
    rank,
    without_speakers,
)

NONE = replace(
    RankingWeights(), **{f.name: 0.0 for f in fields(RankingWeights) if f.name not in ("candidates", "fade_days")}
)
DAY = date(2023, 5, 8).toordinal()


def table(*messages: tuple[str, str, str, str, int]) -> Conversations:
    """Rows of id, session, speaker, text and days after 8 May 2023."""
    conversations = Conversations()
    for point, session, speaker, text, days in messages:
        conversations.add(point, session, speaker, text, DAY + days)
    return conversations


CHAT = table(
    ("q", "s1", "Ann", "Where do you go climbing?", 0),
    ("a", "s1", "Bob", "In the gorge.", 0),
    ("b", "s1", "Ann", "Nice.", 0),
    ("c", "s1", "Bob", "Yes.", 0),
    ("d", "s2", "Bob", "New start.", 40),
    ("e", "s2", "Ann", "Sure.", 40),
)


def order(weights: RankingWeights, sparse: dict[str, float], question: str = "climbing") -> list[str]:
    periods = named_periods(question, date(2023, 7, 1), CHAT.years)
    return [found.point for found in rank(sparse, {}, question, CHAT, weights, 10, periods)]


def test_without_any_other_signal_the_order_is_bm25() -> None:
    assert order(NONE, {"c": 0.2, "a": 1.0, "e": 0.5}) == ["a", "e", "c"]


@given(st.permutations(range(12)))
def test_what_was_said_before_what_is_known_takes_its_place(arrived: list[int]) -> None:
    """Whoever else wrote it: a table is the same in whatever order it is filled."""

    def filled(numbers: list[int]) -> Conversations:
        made = Conversations()
        for n in numbers:
            text = f"Number {n}?" if n % 2 else f"Number {n}"
            made.add(n, f"s{n % 3}", "Ann", text, DAY, order=n * 1000 + 1_795_960_250_922_852_862)
        return made

    sparse, weights = {n: 1.0 + n / 7 for n in (1, 4, 6)}, RankingWeights()
    scores = [
        {found.point: pytest.approx(found.score) for found in rank(sparse, {}, "x", filled(numbers), weights, 12)}
        for numbers in (list(range(12)), arrived)
    ]
    assert scores[0] == {point: score.expected for point, score in scores[1].items()}


def test_what_is_said_in_one_nanosecond_after_the_other_stays_in_order() -> None:
    near = replace(NONE, near=0.5)
    said = Conversations()
    for n in range(300):
        said.add(n, "s", "Ann", "Tea", DAY, order=1_795_960_250_922_852_862 + n)
    for n in range(1, 299):
        assert {found.point for found in rank({n: 1.0}, {}, "x", said, near, 9)} == {n - 1, n, n + 1}


def test_an_answer_inherits_from_the_question_before_it() -> None:
    assert order(replace(NONE, answer=0.5), {"q": 1.0, "b": 0.4}) == ["q", "a", "b"]


@pytest.mark.parametrize(
    ("text", "is_asked"),
    [
        ("Where to?", True), ("Where to？ ", True), ("Where to? [a photo]", True), ("Why? [a photo] \n", True),
        ("? [", False), ("Where to? Home.", False), ("[what?]", False), ("]", False), ("Why?]", False),
        ("Why? [a] [b]", False), ("", False),
        ("?" + " " * 500_000 + "!", False), ("?[" * 500_000, False), ("? " * 500_000 + "]", False),
    ],
    ids=range(14),
)  # fmt: skip
def test_who_ends_by_asking_tells_less(text: str, is_asked: bool) -> None:
    asking = replace(NONE, asking=0.5)
    with time_limit(5):
        said = table(("a", "s1", "Ann", text, 0))
    plain, ends_asking = (
        rank({"a": 1.0}, {}, "x", said, weights, 1)[0].score for weights in (replace(asking, asking=0.0), asking)
    )
    assert (ends_asking < plain) == is_asked


def test_neighbours_two_away_inherit_only_inside_their_session() -> None:
    assert set(order(replace(NONE, near=0.5), {"c": 1.0})) == {"c", "b"}
    assert set(order(replace(NONE, near=0.5), {"b": 1.0})) == {"b", "a", "c"}


def test_a_session_lifts_what_was_found_in_it() -> None:
    assert order(replace(NONE, session=0.5), {"a": 1.0, "b": 0.3, "e": 0.4})[1] == "b"


def test_the_named_speaker_is_preferred() -> None:
    weights = replace(NONE, speaker=1.0)
    assert order(weights, {"a": 0.5, "b": 1.0}, "What does Bob climb?") == ["a", "b"]


def test_a_named_month_prefers_its_messages() -> None:
    weights = replace(NONE, when=1.0)
    assert order(weights, {"a": 0.6, "e": 0.8}, "climbing in May 2023") == ["a", "e"]
    assert order(weights, {"a": 0.8, "e": 0.6}, "climbing in June") == ["e", "a"]


def test_named_speakers() -> None:
    assert named_speakers("What did Bob tell Ann?", ["ann", "bob"]) == ["bob"]
    assert named_speakers("What do Bob and Ann like?", ["ann", "bob"]) == ["bob", "ann"]
    assert named_speakers("What about Bobby?", ["bob"]) == []
    assert without_speakers("What is Bob's dog called?", ["bob"]).split() == ["What", "is", "dog", "called?"]
    assert without_speakers("Bob?", ["bob"]) == "Bob?"


def test_scores_count_by_their_share_of_the_highest_and_negative_ones_not_at_all() -> None:
    assert order(NONE, {"a": 40.0, "c": 10.0, "e": -5.0}) == ["a", "c"]
    best = rank({"a": 40.0}, {}, "x", CHAT, NONE, 1)[0]
    assert best.score == rank({"a": 0.1}, {}, "x", CHAT, NONE, 1)[0].score
    assert rank({"a": -1.0}, {"a": 0.0}, "x", CHAT, NONE, 1) == []
    assert rank({"of another scope": 1.0}, {}, "x", CHAT, NONE, 1) == []


shares = st.floats(0.01, 1.0)
scored = st.dictionaries(st.sampled_from(sorted(CHAT.row_of)), shares)


@given(
    sparse=scored, dense=scored, limit=st.integers(1, 8), question=st.sampled_from(["x", "Bob in May?", "Ann and Bob"])
)
def test_for_any_scores(sparse: dict[str, float], dense: dict[str, float], limit: int, question: str) -> None:
    periods = named_periods(question, date(2023, 7, 1), CHAT.years)
    found = rank(sparse, dense, question, CHAT, RankingWeights(), limit, periods, explain=True)
    scores = [ranked.score for ranked in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= 1 for score in scores)
    assert len(found) == len({ranked.point for ranked in found}) <= limit
    assert [sum((ranked.parts or {}).values()) for ranked in found] == pytest.approx(scores, abs=1e-5)
    plain = rank(sparse, dense, question, CHAT, RankingWeights(), limit, periods)
    assert [(ranked.point, ranked.score) for ranked in plain] == [(ranked.point, ranked.score) for ranked in found]


def test_a_table_grows_past_its_first_allocation_and_knows_each_id_once() -> None:
    conversations = Conversations()
    for i in [*range(1000), *range(1000)]:
        conversations.add(f"p{i}", f"s{i % 7}", "user", "text?", DAY)
    assert len(conversations) == 1000
    assert rank({"p999": 1.0}, {}, "x", conversations, RankingWeights(), 1)[0].point == "p999"
