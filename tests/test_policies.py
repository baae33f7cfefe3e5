"""What is kept and what is shown: properties over random conversations with tools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st
from strategies import START, calls, entry_lists, ids_of, latest_user_id, limited_policies, result

from memory_integrations import Entry, Message, PolicyError, ShortTermPolicy, View
from memory_integrations.policies import Selection, choose_evictions, evictable, expired, retention, select_view

NOW = START
ROOMY = 10**6
DAY = timedelta(days=1)

budgets = st.integers(0, 300)
policies = st.builds(ShortTermPolicy, max_age=st.none() | st.integers(1, 120).map(lambda s: timedelta(seconds=s)))
spans = st.integers(1, 10**7).map(lambda s: timedelta(seconds=s))


def numbered(messages: Sequence[Message], pinned: Sequence[int] = (), tokens: int = 10) -> list[Entry]:
    """Entries m0, m1, ... of the messages, all new."""
    return [
        Entry(f"m{i}", replace(message, id=f"m{i}"), tokens, NOW, pinned=i in pinned)
        for i, message in enumerate(messages)
    ]


def shown_ids(entries: Sequence[Entry], budget: int = ROOMY, policy: ShortTermPolicy | None = None) -> list[str]:
    """The ids of what a model sees, in order."""
    return ids_of(select_view(entries, budget, NOW, policy or ShortTermPolicy()).messages)


def exchanges(messages: Sequence[Message]) -> list[tuple[Message, list[Message]]]:
    """Every message that is no result, with the results directly after it."""
    grouped: list[tuple[Message, list[Message]]] = []
    for message in messages:
        if message.role == "tool":
            assert grouped, "a result comes first"
            grouped[-1][1].append(message)
        else:
            grouped.append((message, []))
    return grouped


def assert_calls_stand_with_their_results(messages: Sequence[Message], waiting_id: str | None) -> None:
    for message, results in exchanges(messages):
        made = Counter(call.id for call in message.tool_calls)
        answered = Counter(r.tool_call_id or "" for r in results)
        assert answered <= made, "a result without its call"
        if message.id != waiting_id:
            assert answered == made, "a call without its result"


def assert_is_over_only_for_what_is_required(entries: Sequence[Entry], messages: Sequence[Message]) -> None:
    """System and pinned messages, the exchanges they are in, the user's message before them, the latest of a user."""
    protected = {entry.id for entry in entries if entry.protected}
    latest = latest_user_id(entries)
    before_protected, last_user = set(), None
    for message, results in exchanges(messages):
        last_user = message.id if message.role == "user" else last_user
        if protected.intersection([message.id, *ids_of(results)]):
            before_protected.update([last_user, message.id, *ids_of(results)])
    assert set(ids_of(messages)) <= before_protected | {latest}


class TestP1ToolCalls:
    """P1: a call is never split from its results, and a result stands directly after its call."""

    @given(entry_lists(), budgets, policies)
    def test_p1_a_call_is_never_split_from_its_results(
        self, entries: list[Entry], budget: int, policy: ShortTermPolicy
    ) -> None:
        messages = select_view(entries, budget, NOW, policy).messages
        event(f"{len(messages)} of {len(entries)} shown")
        # The calls of the very last message may still be under way.
        waiting = next((e.id for e in reversed(entries) if e.role != "tool"), None)
        assert_calls_stand_with_their_results(messages, waiting)

    def test_p1_parallel_calls_keep_all_their_results_in_the_calls_order(self) -> None:
        talk = [
            Message("user", "?"),
            calls("a", "b", "c"),
            result("c"),
            result("a"),
            result("b"),
            Message("assistant", "!"),
        ]
        view = select_view(numbered(talk), ROOMY, NOW, ShortTermPolicy()).messages
        assert [m.tool_call_id for m in view[2:5]] == ["a", "b", "c"]

    def test_p1_an_exchange_over_the_budget_goes_whole(self) -> None:
        talk = [
            Message("user", "?"),
            calls("a", "b"),
            result("a"),
            result("b"),
            Message("assistant", "."),
            Message("user", "!"),
        ]
        assert shown_ids(numbered(talk), budget=49) == ["m5"], "four of six would fit, but not without its call"
        assert shown_ids(numbered(talk), budget=60) == ["m0", "m1", "m2", "m3", "m4", "m5"]

    def test_p1_a_result_comes_directly_after_its_call_also_where_talk_came_between(self) -> None:
        talk = [Message("user", "?"), calls("a"), Message("user", "hurry"), result("a"), Message("assistant", "!")]
        assert shown_ids(numbered(talk)) == ["m0", "m1", "m3", "m2", "m4"]

    def test_p1_a_missing_result_takes_its_call_along(self) -> None:
        talk = [Message("user", "?"), calls("a", "b", content="let me see"), result("b"), Message("user", "and?")]
        view = select_view(numbered(talk), ROOMY, NOW, ShortTermPolicy()).messages
        assert [call.id for call in view[1].tool_calls] == ["b"]
        assert view[1].content == "let me see"

    def test_p1_a_call_without_any_result_is_left_out_with_its_reason(self) -> None:
        entries = numbered([Message("user", "?"), calls("a"), Message("user", "and?")])
        selection = select_view(entries, ROOMY, NOW, ShortTermPolicy())
        assert ids_of(selection.messages) == ["m0", "m2"]
        assert selection.reasons == {"m1": "unanswered tool call"}

    def test_p1_an_extra_result_is_left_out_with_its_reason(self) -> None:
        entries = numbered([Message("user", "?"), result("z"), calls("a"), result("a"), result("a"), result(None)])
        selection = select_view(entries, ROOMY, NOW, ShortTermPolicy())
        assert ids_of(selection.messages) == ["m0", "m2", "m3"]
        assert dict.fromkeys(["m1", "m4", "m5"], "tool result without its call") == selection.reasons

    def test_p1_a_reused_call_id_answers_the_latest_call(self) -> None:
        talk = [Message("user", "?"), calls("a"), result("a"), calls("a"), result("a"), Message("assistant", "!")]
        assert shown_ids(numbered(talk)) == ["m0", "m1", "m2", "m3", "m4", "m5"]

    def test_p1_parallel_calls_of_one_id_show_no_result_twice(self) -> None:
        """Some servers give every call the id "" or the same one."""
        talk = [Message("user", "?"), calls("", ""), result(""), result(""), Message("assistant", "!")]
        shown = shown_ids(numbered(talk))
        assert len(set(shown)) == len(shown)

    def test_p1_the_calls_of_the_last_message_may_be_under_way(self) -> None:
        talk = [Message("user", "?"), calls("a", "b"), result("a")]
        view = select_view(numbered(talk), ROOMY, NOW, ShortTermPolicy()).messages
        assert [call.id for call in view[1].tool_calls] == ["a", "b"]
        assert ids_of(view) == ["m0", "m1", "m2"]

    def test_p1_a_pinned_result_keeps_its_call_and_its_question(self) -> None:
        talk = [
            Message("user", "?"),
            calls("a"),
            result("a"),
            Message("user", "x"),
            Message("assistant", "y"),
            Message("user", "z"),
        ]
        assert shown_ids(numbered(talk, pinned=[2]), budget=1) == ["m0", "m1", "m2", "m5"]


class TestP2LatestUserMessage:
    """P2: the latest user message is always there, and the first non-system message is a user's."""

    @given(entry_lists(), budgets, policies)
    def test_p2_the_latest_user_message_is_always_there(
        self, entries: list[Entry], budget: int, policy: ShortTermPolicy
    ) -> None:
        assume(latest_user_id(entries) is not None)
        assert latest_user_id(entries) in shown_ids(entries, budget, policy)

    @given(entry_lists(), budgets, policies)
    def test_p2_the_first_message_that_is_not_a_systems_is_a_users(
        self, entries: list[Entry], budget: int, policy: ShortTermPolicy
    ) -> None:
        messages = select_view(entries, budget, NOW, policy).messages
        talk = [message.role for message in messages if message.role != "system"]
        assert talk[:1] in ([], ["user"])

    @given(entry_lists(), budgets)
    def test_p2_system_messages_are_always_there(self, entries: list[Entry], budget: int) -> None:
        shown = shown_ids(entries, budget)
        assert {entry.id for entry in entries if entry.role == "system"} <= set(shown)

    def test_p2_alone_over_the_budget_it_is_shown_all_the_same(self) -> None:
        entries = numbered([Message("user", "a"), Message("assistant", "b"), Message("user", "long")], tokens=500)
        assert shown_ids(entries, budget=10) == ["m2"]
        assert shown_ids(entries, budget=0) == ["m2"]

    def test_p2_it_is_shown_however_old(self) -> None:
        entries = [replace(e, created_at=NOW - 3 * DAY) for e in numbered([Message("user", "a"), Message("user", "b")])]
        assert shown_ids(entries, policy=ShortTermPolicy(max_age=DAY)) == ["m1"]

    def test_p2_an_answer_whose_question_is_gone_is_left_out(self) -> None:
        entries = numbered([Message("user", "a"), Message("assistant", "b"), Message("user", "c")])
        selection = select_view(entries, 20, NOW, ShortTermPolicy())
        assert ids_of(selection.messages) == ["m2"]
        assert selection.reasons == {"m1": "no user before it"}


class TestViews:
    @given(entry_lists(), budgets, policies)
    def test_p3_the_budget_is_kept_unless_what_must_be_shown_exceeds_it(
        self, entries: list[Entry], budget: int, policy: ShortTermPolicy
    ) -> None:
        selection = select_view(entries, budget, NOW, policy)
        tokens = {entry.id: entry.tokens for entry in entries}
        used = sum(tokens[message.id or ""] for message in selection.messages)
        assert used == selection.tokens
        if used > budget:
            assert_is_over_only_for_what_is_required(entries, selection.messages)

    @given(entry_lists(), budgets, policies)
    def test_the_order_is_kept(self, entries: list[Entry], budget: int, policy: ShortTermPolicy) -> None:
        messages = select_view(entries, budget, NOW, policy).messages
        order = ids_of(entries)
        places = [order.index(message.id or "") for message, _ in exchanges(messages)]
        assert places == sorted(places)

    @given(entry_lists(), budgets, policies)
    def test_every_entry_is_shown_or_left_out_for_a_reason_and_never_both(
        self, entries: list[Entry], budget: int, policy: ShortTermPolicy
    ) -> None:
        view = View(select_view(entries, budget, NOW, policy), entries)
        dropped = [left_out.id for left_out in view.dropped]
        assert sorted([*ids_of(view.messages), *dropped]) == sorted(ids_of(entries))
        assert all(left_out.reason and left_out.kind == "message" for left_out in view.dropped)
        assert {d.id: d.tokens for d in view.dropped} == {e.id: e.tokens for e in entries if e.id in dropped}

    @given(entry_lists(), budgets, policies)
    def test_p34_the_same_entries_give_the_same_view(
        self, entries: list[Entry], budget: int, policy: ShortTermPolicy
    ) -> None:
        first, second = (select_view(list(entries), budget, NOW, policy) for _ in range(2))
        assert first == second
        assert View(first).text == View(second).text

    @given(entry_lists(), budgets)
    def test_a_view_of_a_view_is_the_view(self, entries: list[Entry], budget: int) -> None:
        selection = select_view(entries, budget, NOW, ShortTermPolicy())
        by_id = {entry.id: entry for entry in entries}
        again = [replace(by_id[message.id or ""], message=message) for message in selection.messages]
        assert select_view(again, budget, NOW, ShortTermPolicy()).messages == selection.messages

    @given(entry_lists(), budgets, budgets)
    def test_a_larger_budget_shows_no_less(self, entries: list[Entry], one: int, other: int) -> None:
        less, more = sorted([one, other])
        assert set(shown_ids(entries, less)) <= set(shown_ids(entries, more))

    @given(entry_lists())
    def test_nothing_is_left_out_for_the_budget_where_all_fits(self, entries: list[Entry]) -> None:
        view = View(select_view(entries, ROOMY, NOW, ShortTermPolicy()), entries)
        assert "budget" not in {left_out.reason for left_out in view.dropped}

    @given(entry_lists(), budgets, spans)
    def test_p30_what_is_past_its_age_is_not_shown(self, entries: list[Entry], budget: int, max_age: timedelta) -> None:
        policy = ShortTermPolicy(max_age=max_age)
        selection = select_view(entries, budget, NOW, policy)
        old = {entry.id for entry in entries if expired(entry, NOW, policy)} - {latest_user_id(entries)}
        assert not old & set(ids_of(selection.messages))
        assert all(selection.reasons[entry_id] == "expired" for entry_id in old)

    def test_nothing_gives_nothing(self) -> None:
        assert select_view([], 100, NOW, ShortTermPolicy()) == Selection((), 0, {})


class TestP30ExpiryAndDecay:
    """P30: expiry is hard, decay is soft; one says nothing of the other."""

    @given(spans, st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 50), st.floats(0, 5))
    def test_p30_retention_falls_with_age_and_rises_with_use(
        self, half_life: timedelta, age: int, more: int, accesses: int, boost: float
    ) -> None:
        policy = ShortTermPolicy(decay_half_life=half_life, access_boost=boost)

        def kept(seconds: int, used: int) -> float:
            created = NOW - timedelta(seconds=seconds)
            return retention(Entry("x", Message("user", "x"), 1, created, used), NOW, policy)

        assert 0 <= kept(age + more, accesses) <= kept(age, accesses) <= 1
        assert kept(age, accesses) <= kept(age, accesses + 1)
        assert kept(0, accesses) == 1

    @given(spans)
    def test_p30_after_a_half_life_half_is_left(self, half_life: timedelta) -> None:
        policy = ShortTermPolicy(decay_half_life=half_life)
        entry = Entry("x", Message("user", "x"), 1, NOW - half_life)
        assert retention(entry, NOW, policy) == pytest.approx(0.5)
        assert retention(replace(entry, created_at=NOW - 2 * half_life), NOW, policy) == pytest.approx(0.25)
        assert not expired(entry, NOW, policy), "decay alone never expires"

    @given(spans, st.integers(0, 10**8))
    def test_p30_without_a_half_life_nothing_is_forgotten(self, max_age: timedelta, age: int) -> None:
        entry = Entry("x", Message("user", "x"), 1, NOW - timedelta(seconds=age))
        assert retention(entry, NOW, ShortTermPolicy(max_age=max_age)) == 1

    def test_p30_an_entry_expires_after_its_age_and_not_before(self) -> None:
        entry, policy = Entry("x", Message("user", "x"), 1, NOW), ShortTermPolicy(max_age=DAY)
        assert not expired(entry, NOW + DAY, policy)
        assert expired(entry, NOW + DAY + timedelta(microseconds=1), policy)
        assert not expired(entry, NOW + 1000 * DAY, ShortTermPolicy())

    def test_p30_a_message_from_the_future_is_new(self) -> None:
        entry = Entry("x", Message("user", "x"), 1, NOW + DAY)
        assert retention(entry, NOW, ShortTermPolicy(decay_half_life=DAY)) == 1
        assert not expired(entry, NOW, ShortTermPolicy(max_age=DAY))

    @given(entry_lists(), spans)
    def test_p30_protected_entries_never_expire(self, entries: list[Entry], max_age: timedelta) -> None:
        policy = ShortTermPolicy(max_age=max_age)
        assert not [e for e in entries if e.protected and expired(e, NOW + 1000 * DAY, policy)]


_seconds = st.none() | st.integers(1, 120).map(lambda s: timedelta(seconds=s))
limits = limited_policies(
    max_tokens=st.integers(1, 200),
    target_tokens=st.none() | st.integers(1, 200),
    max_entries=st.none() | st.integers(1, 10),
    min_entries=st.integers(0, 6),
    max_age=_seconds,
    half_life=_seconds,
)


class TestEviction:
    @given(entry_lists(), limits)
    def test_what_may_go_is_neither_protected_nor_among_the_latest(
        self, entries: list[Entry], policy: ShortTermPolicy
    ) -> None:
        may_go = ids_of(evictable(entries, policy))
        latest = ids_of(entries)[len(entries) - min(policy.min_entries, len(entries)) :]
        assert not set(may_go) & set(latest)
        assert not set(may_go) & {entry.id for entry in entries if entry.protected}
        assert latest_user_id(entries) not in may_go, "P2 must hold of what is kept"

    @pytest.mark.parametrize("count", range(8))
    def test_fewer_entries_than_min_entries_all_stay(self, count: int) -> None:
        entries = numbered([Message("assistant", "x")] * count)
        assert len(evictable(entries, ShortTermPolicy(min_entries=4))) == max(count - 4, 0)

    @given(entry_lists(), limits)
    def test_eviction_ends_under_the_limits_unless_the_rest_is_protected(
        self, entries: list[Entry], policy: ShortTermPolicy
    ) -> None:
        gone = choose_evictions(entries, NOW, policy)
        assert len(set(gone)) == len(gone)
        assert set(gone) <= set(ids_of(evictable(entries, policy)))
        rest = [entry for entry in entries if entry.id not in gone]
        if _over(rest, policy):
            assert not [entry for entry in evictable(entries, policy) if entry.id not in gone]
        assert not [e for e in evictable(rest, policy) if expired(e, NOW, policy) and e in evictable(entries, policy)]

    @given(entry_lists(), limits)
    def test_no_more_is_evicted_than_needed(self, entries: list[Entry], policy: ShortTermPolicy) -> None:
        gone = choose_evictions(entries, NOW, policy)
        alive = [entry_id for entry_id in gone if not expired(_by_id(entries, entry_id), NOW, policy)]
        assert _over(entries, policy) or not alive
        if alive:
            spared = [entry for entry in entries if entry.id not in gone or entry.id == alive[-1]]
            target = policy.target_tokens or policy.max_tokens
            assert _over(spared, replace(policy, max_tokens=target, target_tokens=None)), "the last one was not needed"

    @given(entry_lists(), limits)
    def test_p30_expired_entries_go_first_then_the_least_remembered(
        self, entries: list[Entry], policy: ShortTermPolicy
    ) -> None:
        gone = [_by_id(entries, entry_id) for entry_id in choose_evictions(entries, NOW, policy)]
        order = [(not expired(e, NOW, policy), retention(e, NOW, policy)) for e in gone]
        if policy.decay_half_life is None:
            assert [e.id for e in gone if not expired(e, NOW, policy)] == [
                e.id for e in entries if e in gone and not expired(e, NOW, policy)
            ], "the oldest first"
        else:
            alive = [rank for rank in order if rank[0]]
            assert alive == sorted(alive)
        assert [rank[0] for rank in order] == sorted(rank[0] for rank in order)

    def test_p30_a_used_entry_outlives_an_unused_one(self) -> None:
        entries = numbered([Message("user", "used"), Message("user", "unused"), Message("user", "new")])
        entries = [replace(e, created_at=NOW - DAY, accesses=3 if e.id == "m0" else 0) for e in entries]
        policy = ShortTermPolicy(max_tokens=20, min_entries=1, decay_half_life=DAY)
        assert choose_evictions(entries, NOW, policy) == ["m1"]
        assert choose_evictions(entries, NOW, replace(policy, decay_half_life=None)) == ["m0"]


class TestPolicies:
    @pytest.mark.parametrize(
        "figures",
        [
            {"max_tokens": 0}, {"max_tokens": -5}, {"max_tokens": 1.5}, {"max_tokens": "100"}, {"max_tokens": True},
            {"min_entries": -1}, {"reserved_tokens": -1}, {"target_tokens": 0}, {"max_entries": 0},
            {"compression_threshold": 0}, {"manage_every_n_turns": 0}, {"max_age": timedelta(0)}, {"max_age": -DAY},
            {"max_age": 60}, {"decay_half_life": timedelta(0)}, {"decay_half_life": "1 day"},
            {"access_boost": -0.1}, {"access_boost": float("nan")},
            {"access_boost": float("inf")}, {"access_boost": "x"},
            {"min_retention": -0.1}, {"min_retention": 1.1}, {"min_retention": float("nan")}, {"min_retention": None},
            {"max_tokens": 100, "target_tokens": 101}, {"max_entries": 3, "min_entries": 4},
        ],
        ids=str,
    )  # fmt: skip
    def test_figures_out_of_range_raise_and_are_named(self, figures: dict[str, Any]) -> None:
        with pytest.raises(PolicyError) as raised:
            ShortTermPolicy(**figures)
        assert isinstance(raised.value, ValueError)
        name, value = list(figures.items())[-1]
        assert name in str(raised.value)
        assert repr(value) in str(raised.value)

    def test_the_default_is_valid_and_cannot_be_changed(self) -> None:
        policy = ShortTermPolicy()
        with pytest.raises(AttributeError):
            policy.max_tokens = 5  # type: ignore[misc]
        assert replace(policy, reserved_tokens=10**9).reserved_tokens == 10**9


def _over(entries: Sequence[Entry], policy: ShortTermPolicy) -> bool:
    return sum(entry.tokens for entry in entries) > policy.max_tokens or (
        policy.max_entries is not None and len(entries) > policy.max_entries
    )


def _by_id(entries: Sequence[Entry], entry_id: str) -> Entry:
    return next(entry for entry in entries if entry.id == entry_id)
