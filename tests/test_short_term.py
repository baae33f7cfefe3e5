"""Short-term memory against a plain list, under random use; and what its users rely on, case by case."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule
from strategies import (
    START,
    Clock,
    any_text,
    calls,
    histories,
    ids_of,
    latest_user_id,
    limited_policies,
    result,
    sentences,
)

from memory_integrations import (
    BudgetError,
    Entry,
    ManagementError,
    Message,
    MessageError,
    ShortTermMemory,
    ShortTermPolicy,
    TokenCounter,
    ToolCall,
)
from memory_integrations.delimiters import delimit
from memory_integrations.policies import choose_evictions
from memory_integrations.views import BudgetWarning

DAY = timedelta(days=1)
ROOMY = ShortTermPolicy(max_tokens=10**9)


class CountingCounter(TokenCounter):
    """Counts how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def count(self, text: str) -> int:
        self.asked += 1
        return super().count(text)


def filled(*texts: str, policy: ShortTermPolicy = ROOMY, **options: Any) -> ShortTermMemory:
    """A memory in which a user and an assistant take turns."""
    memory = ShortTermMemory(policy, **options)
    for number, text in enumerate(texts):
        memory.add(text, ("user", "assistant")[number % 2], id=f"m{number}")
    return memory


def state(memory: ShortTermMemory) -> tuple[list[Entry], int]:
    """All that a change would change."""
    return memory.entries, memory.total_tokens


@contextmanager
def no_change(memory: ShortTermMemory) -> Iterator[None]:
    """Expects that the block leaves the memory as it is."""
    before = state(memory)
    yield
    assert state(memory) == before


@contextmanager
def no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# Random use

_half_minute = st.none() | st.just(timedelta(seconds=30))
_policies = limited_policies(
    max_tokens=st.sampled_from([5, 20, 60, 10**6]),
    target_tokens=st.none() | st.sampled_from([1, 10, 40]),
    max_entries=st.none() | st.sampled_from([1, 3, 6]),
    min_entries=st.sampled_from([0, 1, 2, 5]),
    max_age=_half_minute,
    half_life=_half_minute,
)


class ShortTermMachine(RuleBasedStateMachine):
    """A memory and a plain list of (id, text, role, pinned) that does the same."""

    ids = Bundle("ids")
    snapshots = Bundle("snapshots")

    @initialize(policy=_policies)
    def start(self, policy: ShortTermPolicy) -> None:
        self.clock = Clock()
        self.counter = TokenCounter()
        self.memory = ShortTermMemory(policy, session_id="s", counter=self.counter, clock=self.clock)
        self.model: list[Entry] = []

    # Writing

    @rule(target=ids, text=sentences, role=st.sampled_from(["user", "assistant", "system"]))
    def add(self, text: str, role: str) -> str:
        entry_id = self.memory.add(text, role)
        self._admitted(Entry(entry_id, Message(role, text), self.counter.count(text), self.clock.now))
        return entry_id

    @rule(
        target=ids,
        message_id=st.sampled_from(["x", "y", "z"]) | ids,
        text=sentences,
        role=st.sampled_from(["user", "assistant", "tool"]),
        age=st.none() | st.integers(0, 60),
    )
    def add_message(self, message_id: str, text: str, role: str, age: int | None) -> str:
        """P7: an id that is here already leaves one message, in its place."""
        created = None if age is None else self.clock.now - timedelta(seconds=age)
        message = Message(role, text, id=message_id, created_at=created)
        assert self.memory.add_message(message) == message_id
        known = self._known(message_id)
        tokens = self.counter.count(text)
        if known is None:
            self._admitted(Entry(message_id, message, tokens, created or self.clock.now))
        elif (known.role, known.content) != (role, text):
            original_again = known.original is not None and (known.original.role, known.original.text) == (role, text)
            if not original_again or self._kept(message_id).original is None:
                self._put(replace(known, message=message, tokens=tokens, original=None))
            self._settle()
        else:
            self._settle()
        return message_id

    @rule(target=ids, history=histories)
    def extend(self, history: list[Message]) -> Any:
        added = []
        for message in history:
            added.append(self.memory.add_message(message))
            tokens = self.counter.count(message.text) + sum(
                self.counter.count(call.name) + self.counter.count(json.dumps(dict(call.arguments)))
                for call in message.tool_calls
            )
            self._admitted(Entry(added[-1], message, tokens, self.clock.now))
        return multiple(*added)

    @rule(entry_id=consumes(ids))
    def delete(self, entry_id: str) -> None:
        assert self.memory.delete(entry_id) == (self._known(entry_id) is not None)
        self.model = [entry for entry in self.model if entry.id != entry_id]

    @rule(entry_id=ids, text=sentences | st.just(" "))
    def compress(self, entry_id: str, text: str) -> None:
        known = self._known(entry_id)
        tokens = self.counter.count(text)
        calls_cost = 0 if known is None else known.tokens - self.counter.count(known.content)
        if known is None or not text.strip() or tokens + calls_cost >= known.tokens:
            with no_change(self.memory), pytest.raises(ManagementError):
                self.memory.compress_entry(entry_id, text)
            return
        entry = self.memory.compress_entry(entry_id, text)
        assert entry.content == text
        assert entry.original is not None
        original = known.original or known.message
        assert entry.original.text == original.text, "what was said stays"
        message = replace(known.message, content=text)
        self._put(replace(known, message=message, tokens=tokens + calls_cost, original=original))

    @rule(entry_id=ids, pinned=st.booleans())
    def pin(self, entry_id: str, pinned: bool) -> None:
        known = self._known(entry_id)
        assert self.memory.pin(entry_id, pinned) == (known is not None)
        if known is not None:
            self._put(replace(known, pinned=pinned))

    @rule(entry_id=ids)
    def touch(self, entry_id: str) -> None:
        known = self._known(entry_id)
        assert self.memory.touch(entry_id) == (known is not None)
        if known is not None:
            self._put(replace(known, accesses=known.accesses + 1))

    @rule()
    def clear(self) -> None:
        assert self.memory.clear() == len(self.model)
        self.model = []

    @rule(target=snapshots)
    def snapshot(self) -> Any:
        return self.memory.entries, list(self.model)

    @rule(snapshot=snapshots)
    def restore(self, snapshot: tuple[list[Entry], list[Entry]]) -> None:
        self.memory.restore(snapshot[0])
        self.model = list(snapshot[1])
        assert self.memory.entries == snapshot[0]

    # Reading

    @rule(seconds=st.sampled_from([1, 20, 60]))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(budget=st.none() | st.integers(0, 80))
    def look(self, budget: int | None) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BudgetWarning)
            view = self.memory.get_context(budget)
            assert self.memory.get_context(budget) is view
        latest = latest_user_id(self.model)
        if latest is not None:
            assert latest in view.ids, "P2"
        assert sorted([*ids_of(view), *(d.id for d in view.dropped)]) == sorted(ids_of(self.model))

    # What always holds

    @invariant()
    def tokens_are_the_exact_sum(self) -> None:
        if hasattr(self, "memory"):
            entries = self.memory.entries
            assert self.memory.total_tokens == sum(entry.tokens for entry in entries)
            assert self.memory.total_tokens == sum(entry.tokens for entry in self.model)

    @invariant()
    def it_holds_what_the_list_holds(self) -> None:
        if hasattr(self, "memory"):
            entries = self.memory.entries
            assert [(e.id, e.content, e.role, e.pinned, e.accesses, e.tokens) for e in entries] == [
                (e.id, e.content, e.role, e.pinned, e.accesses, e.tokens) for e in self.model
            ]
            assert len(self.memory) == len(self.model)
            assert all(e.message.session_id == "s" and e.message.created_at for e in entries)
            assert all(self.memory.get(e.id) == e for e in entries)

    def _known(self, entry_id: str) -> Entry | None:
        return next((entry for entry in self.model if entry.id == entry_id), None)

    def _kept(self, entry_id: str) -> Entry:
        kept = self.memory.get(entry_id)
        assert kept is not None
        return kept

    def _put(self, new: Entry) -> None:
        self.model = [new if entry.id == new.id else entry for entry in self.model]

    def _admitted(self, entry: Entry) -> None:
        self.model.append(entry)
        self._settle()

    def _settle(self) -> None:
        """Take the evictions over, once they are what the policy allows."""
        policy, kept = self.memory.policy, ids_of(self.memory.entries)
        gone = [entry for entry in self.model if entry.id not in kept]
        latest = ids_of(self.model)[max(len(self.model) - policy.min_entries, 0) :]
        for entry in gone:
            assert not entry.protected, "a system or pinned entry was evicted"
            assert entry.id not in latest, "one of the latest was evicted"
        assert latest_user_id(self.model) not in ids_of(gone)
        rest = [entry for entry in self.model if entry.id in kept]
        over = sum(e.tokens for e in rest) > policy.max_tokens or (
            policy.max_entries is not None and len(rest) > policy.max_entries
        )
        stuck = [*latest, latest_user_id(self.model)]
        assert not over or all(entry.protected or entry.id in stuck for entry in rest), "the limits do not hold"
        self.model = rest


TestRandomUse = ShortTermMachine.TestCase


class TestEvictionOnArrival:
    @given(
        st.lists(
            st.tuples(st.sampled_from(["user", "assistant", "system"]), st.integers(1, 12), st.integers(0, 60)),
            max_size=12,
        ),
        _policies,
    )
    def test_what_is_kept_is_what_choose_evictions_leaves(
        self, talk: list[tuple[str, int, int]], policy: ShortTermPolicy
    ) -> None:
        clock = Clock()
        memory = ShortTermMemory(policy, clock=clock)
        for number, (role, size, age) in enumerate(talk):
            created = clock.advance(5) - timedelta(seconds=age)
            message = Message(role, " tea" * size, id=f"m{number}", created_at=created)
            before = memory.entries
            memory.add_message(message)
            entries = [*before, Entry(f"m{number}", message, size, created)]
            over = sum(e.tokens for e in entries) > policy.max_tokens or len(entries) > (policy.max_entries or 10**9)
            if over:
                gone = choose_evictions(entries, clock.now, policy)
                assert ids_of(memory.entries) == [e.id for e in entries if e.id not in gone]

    def test_target_tokens_are_reached_also_around_a_protected_entry(self) -> None:
        memory = ShortTermMemory(ShortTermPolicy(max_tokens=100, target_tokens=50, min_entries=1))
        for size, role in ((30, "user"), (10, "system"), (30, "user"), (35, "user")):
            memory.add(" tea" * size, role)
        assert memory.total_tokens <= 50

    def test_p2_a_long_run_of_tools_does_not_evict_the_question(self) -> None:
        memory = ShortTermMemory(ShortTermPolicy(max_tokens=60, min_entries=2))
        memory.add("What is the weather in Paris?", id="question")
        for number in range(6):
            memory.add_message(calls(f"c{number}"))
            memory.add_message(result(f"c{number}", "sunny and warm " * 10))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BudgetWarning)
            assert "question" in memory.get_context().ids

    def test_p2_the_only_message_stays_however_long(self) -> None:
        memory = ShortTermMemory(ShortTermPolicy(max_tokens=5, min_entries=0))
        memory.add("tea " * 100)
        with pytest.warns(BudgetWarning):
            assert len(memory.get_context()) == 1

    def test_fewer_than_min_entries_are_never_evicted(self) -> None:
        memory = filled(*["hello there my friend"] * 4, policy=ShortTermPolicy(max_tokens=3, min_entries=6))
        assert len(memory) == 4


ARGUMENTS = {"query": "東京の今日の天気と明日の天気を教えてください" * 20}


class TestToolCalls:
    @pytest.mark.parametrize(
        "block",
        [
            None,
            {"type": "text", "text": ""},
            {"type": "tool_use", "id": "c1", "name": "search", "input": ARGUMENTS},
            {
                "type": "function_call",
                "call_id": "c1",
                "name": "search",
                "arguments": json.dumps(ARGUMENTS, ensure_ascii=False),
            },
            {"type": "tool_call", "id": "c1", "name": "search", "args": ARGUMENTS},
        ],
        ids=lambda block: block and block["type"],
    )
    def test_p4_a_call_is_counted_once_as_it_is_sent(self, counter: TokenCounter, block: Any) -> None:
        """Anthropic's and OpenAI's messages say in their blocks what their calls say."""
        memory = ShortTermMemory(counter=counter)
        call = ToolCall("c1", "search", ARGUMENTS)
        memory.add_message(Message("assistant", [block] if block else "", tool_calls=(call,)))
        assert memory.total_tokens == pytest.approx(counter.count(ARGUMENTS["query"]), abs=25)

    @pytest.mark.parametrize("kind", ["function_call", "text"])
    def test_p4_a_call_counts_whatever_its_block_is_taken_for(self, counter: TokenCounter, kind: str) -> None:
        """A long text without spaces in a block counts as the data of an image would."""
        code = "".join(f"x{n}=f({n});" for n in range(2000))
        memory, call = ShortTermMemory(counter=counter), ToolCall("c1", "run", {"code": code})
        block = {"type": kind, "id": "c1", "arguments": json.dumps({"code": code}), "text": ""}
        memory.add_message(Message("assistant", [block], tool_calls=(call,)))
        assert memory.total_tokens == pytest.approx(counter.count(code), rel=0.01)

    def test_p4_a_call_that_no_block_says_is_counted_beside_the_blocks(self, counter: TokenCounter) -> None:
        told = {"type": "tool_use", "id": "c1", "name": "search", "input": ARGUMENTS}
        memory = ShortTermMemory(counter=counter)
        both = tuple(ToolCall(id_, "search", ARGUMENTS) for id_ in ("c1", "c2"))
        memory.add_message(Message("assistant", [told], tool_calls=both))
        assert memory.total_tokens == pytest.approx(2 * counter.count(ARGUMENTS["query"]), abs=30)


class TestP7Ids:
    """P7: ids are given on arrival and kept; the same id twice leaves one message."""

    def test_p7_ids_are_given_on_arrival(self) -> None:
        memory = ShortTermMemory()
        ids = {memory.add("hello"), memory.add("hello"), memory.add_message(Message("user", "hello"))}
        assert len(ids) == 3
        assert ids == set(ids_of(memory.entries)) == {entry.message.id for entry in memory.entries}

    def test_p7_given_ids_survive(self) -> None:
        memory = ShortTermMemory()
        assert memory.add("hello", id="mine") == "mine"
        assert memory.add_message(Message("assistant", "hi", id="run-1")) == "run-1"
        assert ids_of(memory.get_context()) == ["mine", "run-1"]

    def test_p7_the_same_message_again_changes_nothing(self, clock: Clock) -> None:
        memory = ShortTermMemory(clock=clock)
        message = Message("user", "hello", id="x")
        memory.add_message(message)
        clock.advance(3600)
        with no_change(memory):
            memory.add_message(message)

    def test_p8_the_same_message_again_leaves_it_compressed_and_as_old_as_it_is(self, clock: Clock) -> None:
        """P8: frameworks hand over the whole conversation each turn, and their messages have no time."""
        memory = ShortTermMemory(clock=clock)
        message = Message("user", "a long story " * 20, id="x")
        memory.add_message(message)
        memory.compress_entry("x", "a story")
        clock.advance(3600)
        with no_change(memory):
            memory.add_message(message)
        assert memory.entries[0].content == "a story"
        assert memory.entries[0].created_at == START

    def test_p7_a_longer_version_of_a_message_takes_its_place(self) -> None:
        """Message chunks arrive under one id."""
        memory = filled("one", "two")
        memory.add_message(Message("user", "one and a half", id="m0"))
        assert [entry.content for entry in memory.entries] == ["one and a half", "two"]
        assert memory.total_tokens == sum(map(memory.counter.count, ["one and a half", "two"]))

    def test_p7_pins_and_uses_survive_a_new_version(self) -> None:
        memory = filled("one")
        memory.pin("m0")
        memory.touch("m0")
        memory.add_message(Message("user", "one more", id="m0"))
        assert (memory.entries[0].pinned, memory.entries[0].accesses) == (True, 1)

    def test_p7_ids_of_forked_processes_differ(self, run_python: Any) -> None:
        done = run_python(
            "import os, sys\n"
            "from memory_integrations import ShortTermMemory\n"
            "memory = ShortTermMemory(); memory.add('x')\n"
            "if child := os.fork(): os.waitpid(child, 0)\n"
            "print(memory.add('y'), flush=True); os._exit(0)\n"
        )
        assert len(set(done.stdout.split())) == 2

    def test_everything_that_a_message_carries_comes_back(self, clock: Clock) -> None:
        memory = ShortTermMemory(session_id="mine", clock=clock)
        message = Message(
            "tool", [{"type": "text", "text": "found"}], "search", "t1", "theirs", START - DAY, {"k": [1]}, (), "c1"
        )
        memory.add_message(message)
        assert memory.entries[0].message == message

    def test_a_message_without_a_session_or_a_time_gets_them(self, clock: Clock) -> None:
        memory = ShortTermMemory(session_id="mine", clock=clock)
        memory.add_message(Message("user", "hello"))
        message = memory.entries[0].message
        assert (message.session_id, message.created_at) == ("mine", START)


class TestViews:
    def test_p34_the_same_view_comes_back_while_nothing_changed(self) -> None:
        memory = filled("one", "two", "three")
        assert memory.get_context(100) is memory.get_context(100)
        assert memory.get_context() is memory.get_context()
        before = memory.get_context(100)
        memory.add("four")
        assert memory.get_context(100) is not before
        assert memory.get_context(100).text == f"{before.text}\nuser: four"

    @pytest.mark.parametrize("change", ["delete", "compress", "pin", "clear", "restore"])
    def test_a_change_is_seen_in_the_next_view(self, change: str) -> None:
        memory = filled("a first rather long message", "two", "three")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BudgetWarning)
            before = memory.get_context(4).text
            {
                "delete": lambda: memory.delete("m2"),
                "compress": lambda: memory.compress_entry("m0", "first"),
                "pin": lambda: memory.pin("m0"),
                "clear": memory.clear,
                "restore": lambda: memory.restore(memory.entries[:1]),
            }[change]()
            assert memory.get_context(4).text != before

    def test_p3_overflow_degrades_and_never_raises(self) -> None:
        """P3: ``reserved_tokens`` are counted; with nothing left the latest user message is shown, with a warning."""
        policy = ShortTermPolicy(max_tokens=50, reserved_tokens=5000)
        memory = filled("first", "second", "what now?", policy=policy)
        with pytest.warns(BudgetWarning, match="over the budget of 0"):
            assert ids_of(memory.get_context()) == ["m2"]
        with pytest.warns(BudgetWarning):
            assert ids_of(filled("first", "second", "what now?").get_context(0)) == ["m2"]

    def test_p3_reserved_tokens_are_taken_off_the_policys_budget(self) -> None:
        texts = ["tea " * 9] * 10
        roomy = filled(*texts, policy=ShortTermPolicy(max_tokens=100))
        tight = filled(*texts, policy=ShortTermPolicy(max_tokens=100, reserved_tokens=60))
        assert roomy.get_context().tokens > 40 >= tight.get_context().tokens > 0

    def test_p2_only_what_is_over_the_budget_warns(self) -> None:
        memory = filled("hello", "hi")
        with no_warning():
            memory.get_context(100)
            memory.get_context(1)
            ShortTermMemory().get_context(0)

    @pytest.mark.parametrize("budget", [-1, 1.5, "100", [1], float("nan")])
    def test_a_budget_that_is_none_raises(self, budget: Any) -> None:
        with pytest.raises((BudgetError, TypeError), match=r"whole number|unhashable"):
            filled("hello").get_context(budget)

    def test_p30_a_view_ages_with_the_clock(self, clock: Clock) -> None:
        memory = filled("one", "two", "three", policy=ShortTermPolicy(max_age=DAY), clock=clock)
        assert len(memory.get_context()) == 3
        clock.advance(DAY.total_seconds())
        assert len(memory.get_context()) == 3
        clock.advance(1)
        assert ids_of(memory.get_context()) == ["m2"], "the latest user message stays"
        assert {left_out.reason for left_out in memory.get_context().dropped} == {"expired"}

    def test_p30_decay_alone_hides_nothing(self, clock: Clock) -> None:
        memory = filled("one", "two", policy=ShortTermPolicy(decay_half_life=DAY), clock=clock)
        clock.advance(10**8)
        assert len(memory.get_context()) == 2

    def test_p30_an_age_without_end_is_never_reached(self, clock: Clock) -> None:
        memory = filled("one", policy=ShortTermPolicy(max_age=timedelta.max), clock=clock)
        assert len(memory.get_context()) == 1

    def test_a_view_reads_like_a_list(self) -> None:
        view = filled("one", "two").get_context()
        assert view[0].content == "one"
        assert [message.content for message in view[0:]] == ["one", "two"]
        assert str(view) == view.text == "user: one\nassistant: two"
        assert repr(view) == f"View(2 messages, {view.tokens} tokens)"

    def test_an_empty_memory_gives_an_empty_view(self) -> None:
        view = ShortTermMemory().get_context()
        assert (len(view), view.text, view.tokens, view.dropped, view.ids) == (0, "", 0, [], frozenset())


class TestP6Work:
    """P6: tokens are counted once a message; a view of an unchanged memory costs nothing."""

    def test_p6_a_view_counts_no_tokens_again(self) -> None:
        counter = CountingCounter()
        memory = ShortTermMemory(ROOMY, counter=counter)
        for number in range(1000):
            memory.add("tea " * 200, ("user", "assistant")[number % 2])
        assert counter.asked == 1000
        assert memory.total_tokens >= 200_000
        for budget in (None, 500, 10_000, 200_000):
            memory.get_context(budget)
        assert counter.asked == 1000
        memory.add("more")
        memory.get_context(500)
        assert counter.asked == 1001

    def test_p6_eviction_counts_no_tokens_again(self) -> None:
        counter = CountingCounter()
        memory = ShortTermMemory(ShortTermPolicy(max_tokens=500, decay_half_life=DAY, max_age=DAY), counter=counter)
        for _ in range(300):
            memory.add("tea " * 50)
        assert counter.asked == 300
        assert memory.total_tokens <= 500

    def test_p6_a_thousand_messages_of_two_hundred_thousand_tokens_are_shown(self) -> None:
        memory = ShortTermMemory(ROOMY)
        for number in range(1000):
            memory.add("tea " * 200, ("user", "assistant")[number % 2])
        view = memory.get_context(100_000)
        assert 99_000 <= view.tokens <= 100_000
        assert len(memory.get_context(10**9)) == 1000


class TestThreads:
    def test_eight_threads_add_at_once_and_lose_nothing(self) -> None:
        memory = ShortTermMemory(ROOMY)

        def talk(thread: int) -> list[str]:
            ids = []
            for number in range(150):
                ids.append(memory.add(f"message {number} of {thread}", ("user", "assistant")[number % 2]))
                memory.touch(ids[-1])
                memory.get_context(100)
            return ids

        with ThreadPoolExecutor(8) as pool:
            added = [entry_id for ids in pool.map(talk, range(8)) for entry_id in ids]
        assert sorted(added) == sorted(ids_of(memory.entries))
        assert memory.total_tokens == sum(memory.counter.count(entry.content) for entry in memory.entries)
        assert {entry.accesses for entry in memory.entries} == {1}

    def test_eight_threads_under_a_limit_keep_the_sum_exact(self) -> None:
        memory = ShortTermMemory(ShortTermPolicy(max_tokens=200))

        def talk(thread: int) -> None:
            for number in range(150):
                entry_id = memory.add(f"message {number} of {thread}")
                if number % 3 == 0:
                    memory.delete(entry_id)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    assert memory.get_context(20).tokens <= 20

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(talk, range(8)))
        assert memory.total_tokens == sum(entry.tokens for entry in memory.entries) <= 200


class TestBadInput:
    @pytest.mark.parametrize("content", ["", " ", "\n\t ", [], None], ids=repr)
    def test_empty_content_raises_and_adds_nothing(self, content: Any) -> None:
        memory = filled("one")
        with no_change(memory), pytest.raises(MessageError, match="expected something said"):
            memory.add(content)

    @pytest.mark.parametrize(
        "arguments",
        [{"content": 5}, {"content": b"x"}, {"content": "x", "role": ""}, {"content": "x", "role": None}],
        ids=str,
    )
    def test_what_is_no_message_raises_and_adds_nothing(self, arguments: dict[str, Any]) -> None:
        memory = filled("one")
        with no_change(memory), pytest.raises(MessageError):
            memory.add(**arguments)

    def test_a_clock_without_a_zone_raises_and_adds_nothing(self) -> None:
        memory = ShortTermMemory(clock=lambda: datetime(2024, 5, 1))
        with no_change(memory), pytest.raises(MessageError, match="time zone"):
            memory.add("hello")

    @pytest.mark.parametrize(
        "text",
        [
            "x" * 1_000_000,
            "日" * 300_000,
            "\0",
            "a\0b",
            "{name} {{x}} %s",
            "\u202e",
            "👩‍👩‍👧",
            "<|endoftext|>",
            "\ud83d\ude00",
        ],
        ids=lambda text: repr(text[:10]),
    )
    def test_text_of_any_kind_and_length_works(self, text: str) -> None:
        memory = ShortTermMemory(ROOMY)
        memory.add(text)
        shown = memory.get_context(10**9)[0].text
        assert shown == text.encode("utf-16", "surrogatepass").decode("utf-16")

    @given(any_text.filter(str.strip))
    def test_any_text_can_be_added(self, text: str) -> None:
        memory = ShortTermMemory()
        memory.add(text)
        assert memory.get_context().text.encode(), "lone surrogates are gone"
        assert memory.total_tokens == memory.counter.count(memory.entries[0].content)

    def test_an_unknown_entry_is_told_from_a_known_one(self) -> None:
        memory = filled("one")
        with no_change(memory):
            assert not memory.delete("nobody")
            assert not memory.pin("nobody")
            assert not memory.touch("nobody")
            with pytest.raises(ManagementError, match="no such entry"):
                memory.compress_entry("nobody", "x")
        assert memory.get("nobody") is None

    @pytest.mark.parametrize("text", ["", "  ", "\n", "one and even more words than before", "one two"])
    def test_p16_a_compression_that_is_empty_or_not_shorter_changes_nothing(self, text: str) -> None:
        memory = filled("one two")
        with no_change(memory), pytest.raises(ManagementError, match="expected a shorter text"):
            memory.compress_entry("m0", text)

    def test_p18_a_compression_holds_no_block_of_memory(self) -> None:
        memory = filled("I live in Lisbon. " * 20)
        assert memory.compress_entry("m0", f"{delimit('facts', '{}')}\nLisbon").content == "Lisbon"
        with no_change(memory), pytest.raises(ManagementError, match="not empty"):
            memory.compress_entry("m0", delimit("facts", "{}"))

    def test_p16_what_was_said_stays_over_two_compressions(self) -> None:
        memory = filled("one two three four five")
        memory.compress_entry("m0", "one two three")
        memory.compress_entry("m0", "one")
        entry = memory.entries[0]
        assert (entry.content, entry.original and entry.original.content) == ("one", "one two three four five")
        assert memory.total_tokens == 1

    def test_the_revision_grows_with_every_change_and_with_nothing_else(self) -> None:
        memory = filled("one two three")
        seen = [memory.revision]
        for change in (
            lambda: memory.add("two"),
            lambda: memory.pin("m0"),
            lambda: memory.touch("m0"),
            lambda: memory.compress_entry("m0", "one"),
            lambda: memory.delete("m0"),
            lambda: memory.restore([]),
            memory.clear,
        ):
            change()
            seen.append(memory.revision)
        assert seen == sorted(set(seen))
        memory.get_context()
        memory.delete("nobody")
        assert memory.revision == seen[-1]

    def test_entries_are_a_snapshot(self) -> None:
        memory = filled("one")
        memory.entries.clear()
        assert len(memory) == 1
