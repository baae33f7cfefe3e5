"""The code disposes: what a plan may change, and that it can be taken back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import (
    START,
    calls,
    entry_lists,
    ids_of,
    json_values,
    latest_user_id,
    nasty_text,
    result,
    sentences,
    time_limit,
)

from memory_integrations import (
    Compress,
    Delete,
    Entry,
    Keep,
    Message,
    Promote,
    ShortTermMemory,
    ShortTermPolicy,
    TokenCounter,
)
from memory_integrations.decisions import Decision, states, undone, validate
from memory_integrations.delimiters import delimit

COUNT = TokenCounter().count
ROOMY = ShortTermPolicy(max_tokens=10**9, min_entries=0)

_ids = st.integers(0, 12).map("m{}".format)
decisions = st.lists(
    st.builds(Keep, _ids)
    | st.builds(Delete, _ids)
    | st.builds(Compress, _ids, st.sampled_from(["", " ", "tea", "walked home"]) | sentences)
    | st.builds(Promote, _ids, nasty_text, json_values),
    max_size=12,
)
policies = st.integers(0, 5).map(lambda least: replace(ROOMY, min_entries=least))


def exact(entries: Sequence[Entry]) -> list[Entry]:
    """The entries with their true tokens."""
    return [replace(e, tokens=COUNT(e.content) + 5 * len(e.message.tool_calls)) for e in entries]


histories = entry_lists().map(exact)


def memory_of(entries: Sequence[Entry], policy: ShortTermPolicy = ROOMY) -> ShortTermMemory:
    memory = ShortTermMemory(policy)
    memory.restore(entries)
    return memory


def carry_out(memory: ShortTermMemory, accepted: Sequence[Decision]) -> None:
    for decision in accepted:
        if isinstance(decision, Delete):
            assert memory.delete(decision.entry_id)
        elif isinstance(decision, Compress):
            memory.compress_entry(decision.entry_id, decision.content)


def why_refused(decision: Decision, entries: Sequence[Entry], policy: ShortTermPolicy = ROOMY) -> str | None:
    """Why one decision is refused; None when it is accepted."""
    accepted, skipped = validate([decision], entries, policy, COUNT)
    assert len(accepted) + len(skipped) == 1
    return skipped[0].why if skipped else None


TALK = [
    Entry("m0", Message("system", "Be kind.", id="m0"), 3, START),
    Entry("m1", Message("user", "I like green tea a lot.", id="m1"), 7, START),
    Entry("m2", Message("assistant", "So do I, my friend.", id="m2"), 7, START, pinned=True),
    Entry("m3", replace(calls("a", content="Let me look."), id="m3"), 9, START),
    Entry("m4", Message("user", [{"type": "text", "text": "and this picture here"}], id="m4"), 4, START),
    Entry("m5", Message("assistant", "The last answer so far.", id="m5"), 6, START),
    Entry("m6", Message("user", "What next?", id="m6"), 3, START),
]


class TestValidation:
    @given(decisions, histories, policies)
    def test_every_decision_is_accepted_or_skipped_with_a_reason(
        self, plan: list[Decision], entries: list[Entry], policy: ShortTermPolicy
    ) -> None:
        accepted, skipped = validate(plan, entries, policy, COUNT)
        remaining = list(plan)
        for decision in [*accepted, *(s.decision for s in skipped)]:
            remaining.remove(decision)
        assert remaining == []
        assert all(s.why for s in skipped)
        places = [plan.index(d) for d in accepted if plan.count(d) == 1]
        assert places == sorted(places), "in the order in which they were proposed"

    @given(decisions, histories, policies)
    def test_nothing_protected_is_deleted_or_compressed(
        self, plan: list[Decision], entries: list[Entry], policy: ShortTermPolicy
    ) -> None:
        accepted, _ = validate(plan, entries, policy, COUNT)
        changed = [d.entry_id for d in accepted if isinstance(d, Delete | Compress)]
        assert len(set(changed)) == len(changed), "an entry is changed once"
        assert set(changed) <= set(ids_of(entries))
        latest = ids_of(entries)[max(len(entries) - policy.min_entries, 0) :]
        assert not set(changed) & {*latest, *(e.id for e in entries if e.protected)}
        assert latest_user_id(entries) not in changed, "P2 must hold after managing"

    @given(decisions, histories, policies)
    def test_an_accepted_plan_can_be_carried_out_and_never_grows(
        self, plan: list[Decision], entries: list[Entry], policy: ShortTermPolicy
    ) -> None:
        accepted, _ = validate(plan, entries, policy, COUNT)
        memory = memory_of(entries, policy)
        carry_out(memory, accepted)
        assert memory.total_tokens <= sum(e.tokens for e in entries)
        assert len(memory) == len(entries) - sum(isinstance(d, Delete) for d in accepted)
        assert validate(accepted, entries, policy, COUNT) == (accepted, []), "an accepted plan stays acceptable"

    @given(decisions)
    def test_p14_unknown_entries_are_skipped_and_the_others_stand(self, plan: list[Decision]) -> None:
        entry = Entry("known", Message("assistant", "some words here", id="known"), 3, START)
        accepted, skipped = validate([*plan, Delete("known")], [entry], ROOMY, COUNT)
        assert accepted == [Delete("known")]
        assert {s.why for s in skipped} <= {"there is no such entry"}

    @pytest.mark.parametrize(
        ("decision", "why"),
        [
            (Delete("m0"), "protected"), (Delete("m1"), None), (Delete("m2"), "protected"), (Delete("m6"), "protected"),
            (Compress("m0", "Be"), "protected"), (Compress("m1", "tea"), None), (Compress("m2", "so"), "protected"),
            (Compress("m1", "I like green tea a lot."), "not shorter"),
            (Compress("m1", " "), "empty"), (Compress("m1", ""), "empty"),
            (Compress("m1", delimit("facts", "tea")), "empty"),
            (Compress("m3", "look"), "plain text"), (Compress("m4", "x"), "plain text"),
            (Compress("nobody", "x"), "no such entry"),
            (Keep("m0"), None), (Keep("nobody"), "no such entry"),
            (Promote("m1", "tea", "green"), None), (Promote("m6", "a", 0), None), (Promote("m6", "a", False), None),
            (Promote("m1", "", 1), "key and a value"), (Promote("m1", "  ", 1), "key and a value"),
            (Promote("m1", "a", None), "key and a value"), (Promote("m1", "a", ""), "key and a value"),
            (Promote("m1", "a", []), "key and a value"), (Promote("m1", "a", {}), "key and a value"),
            (Promote("nobody", "a", 1), "no such entry"),
            (Promote("m1", "a", json.loads("[" * 100 + "1" + "]" * 100)), None),
            (Promote("m1", "a", json.loads("[" * 600 + "1" + "]" * 600)), "nested"),
        ],
    )  # fmt: skip
    def test_what_is_refused_and_why(self, decision: Decision, why: str | None) -> None:
        policy = replace(ROOMY, min_entries=1)
        found = why_refused(decision, TALK, policy)
        assert found is None if why is None else found is not None and why in found

    def test_an_entry_is_changed_once_and_may_be_promoted_as_well(self) -> None:
        plan: list[Decision] = [
            Promote("m1", "tea", "green"),
            Delete("m1"),
            Compress("m1", "tea"),
            Promote("m1", "x", 1),
        ]
        accepted, skipped = validate(plan, TALK, ROOMY, COUNT)
        assert accepted == [plan[0], plan[1], plan[3]]
        assert "already" in skipped[0].why

    def test_fewer_entries_than_min_entries_are_all_protected(self) -> None:
        policy = replace(ROOMY, min_entries=10)
        accepted, skipped = validate([Delete(e.id) for e in TALK], TALK, policy, COUNT)
        assert accepted == []
        assert len(skipped) == 7

    def test_the_work_grows_with_the_number_of_decisions(self) -> None:
        entries = [Entry("m0", calls("a"), 5, START), Entry("m1", result("a"), 5, START), *TALK[2:]]
        kept: list[Decision] = [Keep("m1", str(i)) for i in range(50_000)]
        with time_limit(10):
            accepted, skipped = validate([Delete("m0"), *kept], entries, ROOMY, COUNT)
        assert (accepted, [one.decision for one in skipped]) == (kept, [Delete("m0")])

    def test_a_list_of_many_texts_is_looked_for_in_a_long_one(self) -> None:
        with time_limit(10):
            assert not states(["tea"] * 10_000 + ["unheard"], "tea and bread " * 10_000)

    def test_an_empty_plan_is_no_failure(self) -> None:
        assert validate([], TALK, ROOMY, COUNT) == ([], [])


class TestUndo:
    @given(decisions, histories, policies)
    def test_undoing_restores_exactly_what_was(
        self, plan: list[Decision], entries: list[Entry], policy: ShortTermPolicy
    ) -> None:
        memory = memory_of(entries, policy)
        before, tokens = memory.entries, memory.total_tokens
        accepted, _ = validate(plan, before, policy, COUNT)
        carry_out(memory, accepted)
        memory.restore(undone(before, memory.entries, accepted))
        assert memory.entries == before
        assert memory.total_tokens == tokens

    @given(decisions, histories, st.lists(sentences, max_size=3), st.data())
    def test_what_happened_since_stays(
        self, plan: list[Decision], entries: list[Entry], said: list[str], data: st.DataObject
    ) -> None:
        memory = memory_of(entries)
        before = memory.entries
        accepted, _ = validate(plan, before, ROOMY, COUNT)
        carry_out(memory, accepted)
        changed = {d.entry_id for d in accepted if isinstance(d, Delete | Compress)}
        untouched = [e.id for e in before if e.id not in changed]
        gone = data.draw(st.lists(st.sampled_from(untouched), unique=True) if untouched else st.just([]))
        new = [memory.add(text) for text in said]
        for entry_id in gone:
            memory.delete(entry_id)
        memory.restore(undone(before, memory.entries, accepted))
        assert ids_of(memory.entries) == [e.id for e in before if e.id not in gone] + new
        assert [e for e in memory.entries if e.id not in new] == [e for e in before if e.id not in gone]
        assert [e.content for e in memory.entries if e.id in new] == said

    @pytest.mark.parametrize("decision", [Compress("m1", "tea"), Promote("m1", "tea", "green"), Keep("m1")])
    def test_a_pin_that_was_set_since_stays(self, decision: Decision) -> None:
        memory = memory_of(TALK)
        before = memory.entries
        carry_out(memory, [decision])
        memory.pin("m1")
        memory.restore(undone(before, memory.entries, [decision]))
        assert memory.get("m1") == replace(before[1], pinned=True)

    @pytest.mark.parametrize("decision", [Compress("m1", "tea"), Delete("m1")])
    def test_what_was_said_anew_under_the_same_id_stays(self, decision: Decision) -> None:
        memory = memory_of(TALK)
        before = memory.entries
        carry_out(memory, [decision])
        memory.add_message(Message("user", "I have come to like coffee.", id="m1"))
        memory.restore(undone(before, memory.entries, [decision]))
        assert [e.content for e in memory.entries if e.id == "m1"] == ["I have come to like coffee."]

    def test_undoing_twice_is_undoing_once(self) -> None:
        memory = memory_of(TALK)
        before = memory.entries
        plan: list[Any] = [Delete("m1"), Compress("m5", "last")]
        carry_out(memory, plan)
        once = undone(before, memory.entries, plan)
        assert undone(before, once, plan) == once == before
