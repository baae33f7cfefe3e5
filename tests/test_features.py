"""Facts against plain dicts with history, under random use; and what is promised of them, case by case."""

from __future__ import annotations

import gc
import json
import math
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from strategies import START, Clock, any_text, frequent_switches, fresh_scope, json_values, nasty_text

from memory_integrations import (
    BudgetError,
    FactError,
    FeatureMemory,
    MemoryScope,
    MessageError,
    StoreCorruptedError,
    TokenCounter,
)
from memory_integrations.delimiters import as_json_data
from memory_integrations.features import open_shelves
from memory_integrations.journal_files import JsonlJournal

GLOBAL, ANN, BOB = MemoryScope(), MemoryScope("ann"), MemoryScope("bob")
OpenFacts = Callable[..., FeatureMemory]
GONE = object()

# Random use


@dataclass
class Change:
    """A line of the model's history."""

    number: int
    at: datetime
    key: str
    value: Any
    undone_at: datetime | None = None


class Model:
    """Facts as a list of changes per owner, replayed for every question."""

    def __init__(self) -> None:
        self.changes: dict[MemoryScope, list[Change]] = {GLOBAL: [], ANN: [], BOB: []}
        self.events = dict.fromkeys(self.changes, 0)

    def change(self, owner: MemoryScope, at: datetime, key: str, value: Any) -> int:
        self.events[owner] += 1
        self.changes[owner].append(Change(self.events[owner], at, key, value))
        return self.events[owner]

    def undo(self, owner: MemoryScope, at: datetime, number: int | None) -> str | None:
        standing = [c for c in self.changes[owner] if c.undone_at is None and number in (None, c.number)]
        if not standing:
            return None
        self.events[owner] += 1
        standing[-1].undone_at = at
        return standing[-1].key

    def erase(self, owner: MemoryScope) -> int:
        count = self.events[owner]
        self.changes[owner], self.events[owner] = [], 0
        return count

    def standing(self, owner: MemoryScope, moment: datetime | None = None) -> list[Change]:
        """The changes that hold, or held at a moment."""
        return [
            c
            for c in self.changes[owner]
            if (
                c.undone_at is None
                if moment is None
                else c.at <= moment and not (c.undone_at and c.undone_at <= moment)
            )
        ]

    def facts(self, owner: MemoryScope, moment: datetime | None = None) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        for scope in dict.fromkeys((GLOBAL, owner)):
            facts |= {c.key: c.value for c in self.standing(scope, moment)}
        return {key: value for key, value in facts.items() if value is not GONE}


keys = st.sampled_from(["name", "city", "日本", "<b>{x}", " "])


class FactsMachine(RuleBasedStateMachine):
    """Two sessions of Ann's, each with its own handle on one directory; Bob; and everybody."""

    @initialize()
    def start(self) -> None:
        self.directory = TemporaryDirectory()
        self.clock = Clock()
        self.journals = [JsonlJournal(Path(self.directory.name, "journal"), self.clock) for _ in range(2)]
        shelves = [open_shelves(journal) for journal in self.journals]
        self.memories = {
            "ann, monday": FeatureMemory(shelves[0], MemoryScope("ann", "monday")),
            "ann, tuesday": FeatureMemory(shelves[1], MemoryScope("ann", "tuesday")),
            "bob": FeatureMemory(shelves[0], BOB),
            "everybody": FeatureMemory(shelves[1], GLOBAL),
        }
        self.model = Model()
        self.moments = [START - timedelta(seconds=1)]

    who = st.sampled_from(["ann, monday", "ann, tuesday", "bob", "everybody"])

    @rule(who=who, key=keys, value=json_values)
    def set(self, who: str, key: str, value: Any) -> None:
        memory = self.memories[who]
        assert memory.set(key, value) == self.model.change(memory.scope, self._now(), key, value)
        assert memory.get(key) == value

    @rule(who=who, key=keys)
    def delete(self, who: str, key: str) -> None:
        memory = self.memories[who]
        known = key in self.model.facts(memory.scope)
        assert memory.delete(key) == known
        if known:
            self.model.change(memory.scope, self._now(), key, GONE)

    @rule(who=who, number=st.none() | st.integers(0, 12))
    def undo(self, who: str, number: int | None) -> None:
        memory = self.memories[who]
        assert memory.undo(number) == self.model.undo(memory.scope, self._now(), number)

    @rule(who=who)
    def erase(self, who: str) -> None:
        memory = self.memories[who]
        assert memory.erase() == self.model.erase(memory.scope)

    @rule(which=st.integers(0, 1))
    def close(self, which: int) -> None:
        self.journals[which].close()

    @rule(seconds=st.integers(0, 3))
    def wait(self, seconds: int) -> None:
        self.moments.append(self.clock.now)
        self.clock.advance(seconds)

    @rule(who=who, data=st.data())
    def look_back(self, who: str, data: st.DataObject) -> None:
        """As of any moment the facts are what a replay gives."""
        moment = data.draw(st.sampled_from([*self.moments, self.clock.now]))
        memory = self.memories[who]
        memory.refresh()
        assert memory.as_of(moment) == self.model.facts(memory.scope, moment)

    @rule(who=who, key=keys)
    def look_at_history(self, who: str, key: str) -> None:
        memory = self.memories[who]
        memory.refresh()
        fact = memory.get_with_history(key)
        own = [c for c in self.model.standing(memory.scope) if c.key == key]
        if any(c.value is not GONE for c in own):
            assert fact is not None
            assert [v.value for v in fact.history] == [c.value for c in own if c.value is not GONE]
            assert [v.since for v in fact.history] == [c.at for c in own if c.value is not GONE]
            assert (fact.history[-1].until is None) == (own[-1].value is not GONE)
            assert all(v.until for v in fact.history[:-1])
        if fact is not None:
            assert fact.current == self.model.facts(memory.scope).get(key)

    @precondition(lambda self: hasattr(self, "model"))
    @invariant()
    def every_memory_says_what_the_model_says(self) -> None:
        for memory in self.memories.values():
            memory.refresh()
            expected = self.model.facts(memory.scope)
            assert memory.all() == expected
            assert sorted(memory.keys()) == sorted(expected)
            assert len(memory) == len(expected)
            assert all(memory.get(key) == value and key in memory for key, value in expected.items())
            assert json.loads(memory.to_prompt()) == expected

    @precondition(lambda self: hasattr(self, "model"))
    @invariant()
    def the_next_process_gives_the_same_prompt(self) -> None:
        journal = JsonlJournal(self.journals[0].directory)
        shelves = open_shelves(journal)
        for memory in self.memories.values():
            assert FeatureMemory(shelves, memory.scope).to_prompt(True) == memory.to_prompt(True), "P34"
        journal.close()

    def _now(self) -> datetime:
        self.moments.append(self.clock.now)
        return self.clock.now

    def teardown(self) -> None:
        if hasattr(self, "directory"):
            for journal in self.journals:
                journal.close()
            self.directory.cleanup()


TestRandomUse = FactsMachine.TestCase


class TestReading:
    def test_what_was_set_is_there(self, open_facts: OpenFacts) -> None:
        facts = open_facts()
        facts.set("language", "Python")
        assert facts.get("language") == "Python"
        assert facts.get("editor") is None
        assert facts.get("editor", "vim") == "vim"
        assert "language" in facts
        assert "editor" not in facts

    def test_null_is_a_value(self, open_facts: OpenFacts) -> None:
        facts = open_facts()
        facts.set("middle_name", None)
        assert facts.get("middle_name", "unknown") is None
        assert facts.keys() == ["middle_name"]

    @given(json_values)
    def test_values_of_every_json_kind_come_back(self, open_facts: OpenFacts, value: Any) -> None:
        scope = fresh_scope()
        facts = open_facts(scope)
        facts.set("k", value)
        for memory in (facts, open_facts(scope)):
            got = memory.get("k")
            assert got == value
            assert type(got) is type(value)
            assert json.loads(memory.to_prompt()) == {"k": value}

    @given(nasty_text.filter(bool), nasty_text)
    def test_any_text_is_a_key_and_a_value(self, open_facts: OpenFacts, key: str, value: str) -> None:
        scope = fresh_scope()
        open_facts(scope).set(key, value)
        assert open_facts(scope).get(key) == value

    def test_what_is_given_out_is_a_copy(self, open_facts: OpenFacts) -> None:
        facts = open_facts()
        given_value = {"cats": ["Tom"]}
        facts.set("pets", given_value)
        given_value["cats"].append("changed after set")
        before = facts.to_prompt(include_history=True)
        for copied in (
            facts.get("pets"),
            facts.all()["pets"],
            facts.as_of(START)["pets"],
            facts.get_with_history("pets").current,  # type: ignore[union-attr]
            facts.get_with_history("pets").history[0].value,  # type: ignore[union-attr]
            facts.export()["facts"]["pets"]["current"],
        ):
            copied["cats"].append("Jerry")
        assert facts.get("pets") == {"cats": ["Tom"]}
        assert facts.to_prompt(include_history=True) == before

    def test_keys_come_in_the_order_they_were_learnt_in_global_ones_first(self, open_facts: OpenFacts) -> None:
        facts, everybody = open_facts(), open_facts("global")
        facts.set("b", 1)
        facts.set("a", 1)
        everybody.set("z", 1)
        facts.set("b", 2)
        facts.refresh()
        assert facts.keys() == ["z", "b", "a"]

    def test_a_reader_sees_another_process_after_refreshing(self, open_facts: OpenFacts) -> None:
        writer, reader = open_facts(), open_facts("user:ann/session:x")
        writer.set("city", "Lisbon")
        assert reader.get("city") is None
        reader.refresh()
        assert reader.get("city") == "Lisbon"
        writer.set("city", "Porto")
        assert '"Porto"' in reader.to_prompt(), "a prompt reads first"

    def test_sessions_of_a_user_in_one_open_memory_see_each_other_at_once(self, tmp_path: Path) -> None:
        shelves = open_shelves(JsonlJournal(tmp_path))
        monday, tuesday = (FeatureMemory(shelves, MemoryScope("ann", day)) for day in ("monday", "tuesday"))
        monday.set("city", "Lisbon")
        assert tuesday.get("city") == "Lisbon"

    @pytest.mark.parametrize("key", [None, "", 5, 1.5, b"k", [], {}, ("a",), "\ud800", True])
    def test_keys_that_are_no_text_raise_and_change_nothing(self, open_facts: OpenFacts, key: Any) -> None:
        facts = open_facts()
        for attempt in (facts.get, lambda k: facts.set(k, 1), facts.delete, facts.get_with_history):
            with pytest.raises(FactError, match="key=") as raised:
                attempt(key)
            assert isinstance(raised.value, ValueError)
        assert open_facts().export()["facts"] == {}


class TestInheritance:
    def test_the_nearest_scope_wins(self, open_facts: OpenFacts) -> None:
        everybody, ann, bob = open_facts("global"), open_facts("user:ann"), open_facts("user:bob")
        everybody.set("language", "English")
        ann.set("language", "Portuguese")
        for memory, language in ((everybody, "English"), (ann, "Portuguese"), (bob, "English")):
            memory.refresh()
            assert memory.get("language") == language

    def test_a_deleted_fact_is_gone_also_where_everybody_has_it(self, open_facts: OpenFacts) -> None:
        everybody, ann, bob = open_facts("global"), open_facts("user:ann"), open_facts("user:bob")
        everybody.set("greeting", "Hello")
        assert ann.delete("greeting")
        assert ann.get("greeting") is None
        assert ann.to_prompt() == "{}"
        bob.refresh()
        assert bob.get("greeting") == "Hello"
        assert ann.undo() == "greeting"
        assert ann.get("greeting") == "Hello", "taking the deletion back gives it back"

    def test_a_fact_that_was_inherited_and_deleted_does_not_hold_any_more(
        self, open_facts: OpenFacts, clock: Clock
    ) -> None:
        open_facts("global").set("greeting", "Hello")
        ann = open_facts("user:ann")
        clock.advance(60)
        ann.delete("greeting")
        fact = ann.get_with_history("greeting")
        assert fact is None or (fact.current is None and fact.history[-1].until == clock.now)

    def test_p21_users_do_not_see_each_other(self, open_facts: OpenFacts) -> None:
        open_facts("user:ann").set("secret", "hidden")
        for other in ("user:Ann", "user:bob", "session:ann", "global", "user:ann/session:x"):
            memory = open_facts(other)
            assert (memory.get("secret") == "hidden") == (other == "user:ann/session:x")

    def test_a_session_without_a_user_has_facts_of_its_own(self, open_facts: OpenFacts) -> None:
        open_facts("session:s1").set("topic", "boats")
        assert open_facts("session:s1").get("topic") == "boats"
        assert open_facts("session:s2").get("topic") is None


class TestHistory:
    def test_every_value_has_its_time_and_its_source(self, open_facts: OpenFacts, clock: Clock) -> None:
        facts = open_facts()
        facts.set("city", "Lisbon", source="rule", confidence=0.9, message_id="m1")
        clock.advance(60)
        facts.set("city", "Porto")
        for memory in (facts, open_facts()):
            fact = memory.get_with_history("city")
            assert fact is not None
            first, second = fact.history
            assert (first.value, first.since, first.until) == ("Lisbon", START, clock.now)
            assert (first.source, first.confidence, first.message_id) == ("rule", 0.9, "m1")
            assert (second.value, second.since, second.until) == ("Porto", clock.now, None)
            assert (second.source, second.confidence, second.message_id) == ("user", 1.0, None)
            assert (fact.key, fact.current) == ("city", "Porto")

    def test_what_was_never_set_has_no_history(self, open_facts: OpenFacts) -> None:
        assert open_facts().get_with_history("city") is None

    def test_a_deleted_fact_keeps_its_history(self, open_facts: OpenFacts, clock: Clock) -> None:
        facts = open_facts()
        facts.set("city", "Lisbon")
        clock.advance(60)
        assert facts.delete("city")
        assert not facts.delete("city")
        fact = facts.get_with_history("city")
        assert fact is not None
        assert (fact.current, fact.history[-1].until) == (None, clock.now)

    def test_undo_walks_back_change_by_change(self, open_facts: OpenFacts) -> None:
        facts = open_facts()
        facts.set("a", 1)
        facts.set("b", 1)
        facts.set("a", 2)
        facts.delete("b")
        seen = []
        while key := facts.undo():
            seen.append((key, facts.all()))
        assert seen == [("b", {"a": 2, "b": 1}), ("a", {"a": 1, "b": 1}), ("b", {"a": 1}), ("a", {})]
        assert facts.undo() is None
        assert open_facts().all() == {}

    def test_undo_of_one_change_leaves_the_later_ones(self, open_facts: OpenFacts) -> None:
        facts = open_facts()
        first = facts.set("a", 1)
        facts.set("b", 1)
        second = facts.set("a", 2)
        assert facts.undo(first) == "a"
        assert facts.all() == {"a": 2, "b": 1}
        assert facts.undo(first) is None, "once is enough"
        assert facts.undo(second) == "a"
        assert facts.all() == {"b": 1}
        assert facts.undo(99) is None

    def test_undo_takes_back_what_another_process_did_last(self, open_facts: OpenFacts) -> None:
        one, other = open_facts(), open_facts()
        one.set("a", 1)
        other.set("a", 2)
        assert one.undo() == "a"
        assert one.get("a") == 1

    def test_p15_a_change_by_another_process_can_be_deleted_without_having_been_read(
        self, open_facts: OpenFacts
    ) -> None:
        one, other = open_facts(), open_facts()
        one.set("secret", "hidden")
        assert other.delete("secret")
        assert open_facts().all() == {}

    def test_as_of_is_the_past(self, open_facts: OpenFacts, clock: Clock) -> None:
        facts = open_facts()
        facts.set("city", "Lisbon")
        facts.set("city", "Porto")
        clock.advance(10)
        facts.undo()
        clock.advance(10)
        facts.delete("city")
        assert facts.as_of(START - timedelta(seconds=1)) == {}
        assert facts.as_of(START) == {"city": "Porto"}
        assert facts.as_of(START + timedelta(seconds=10)) == {"city": "Lisbon"}
        assert facts.as_of(clock.now) == {}

    @pytest.mark.parametrize("moment", [datetime(2024, 5, 1), "2024-05-01", None, 5])
    def test_p30_a_moment_without_a_zone_raises(self, open_facts: OpenFacts, moment: Any) -> None:
        with pytest.raises(MessageError, match="time zone"):
            open_facts().as_of(moment)

    def test_p30_a_clock_that_was_set_back_confuses_neither_the_past_nor_the_history(
        self, open_facts: OpenFacts, clock: Clock
    ) -> None:
        facts = open_facts()
        facts.set("city", "Lisbon")
        clock.advance(-3600)
        facts.set("city", "Porto")
        facts.undo()
        facts.set("city", "Faro")
        for memory in (facts, open_facts()):
            for hours in range(-2, 3):
                memory.as_of(START + timedelta(hours=hours))
            assert memory.as_of(START + timedelta(hours=2)) == {"city": "Faro"}
            fact = memory.get_with_history("city")
            assert fact is not None
            assert all(version.until is None or version.since <= version.until for version in fact.history)

    def test_the_export_is_json_and_says_all(self, open_facts: OpenFacts, clock: Clock) -> None:
        facts = open_facts("user:ann/session:x")
        open_facts("global").set("greeting", "Hello")
        facts.set("city", "Lisbon", source="import", confidence=0.5, message_id="m1")
        clock.advance()
        facts.set("city", ["Porto"])
        facts.delete("city")
        exported = json.loads(json.dumps(facts.export()))
        assert exported["scope"] == "user:ann"
        assert exported["facts"]["city"]["current"] is None
        assert [version["value"] for version in exported["facts"]["city"]["history"]] == ["Lisbon", ["Porto"]]
        assert exported["facts"]["city"]["history"][0] == {
            "value": "Lisbon", "since": START.isoformat(), "until": clock.now.isoformat(),
            "source": "import", "confidence": 0.5, "message_id": "m1",
        }  # fmt: skip
        assert "greeting" not in exported["facts"], "everybody's facts are not the scope's own"

    def test_p29_an_export_of_two_hundred_and_fifty_facts_is_whole(self, open_facts: OpenFacts) -> None:
        facts = open_facts()
        for number in range(250):
            facts.set(f"k{number}", number)
        assert len(facts.export()["facts"]) == len(facts.keys()) == len(json.loads(facts.to_prompt())) == 250


def _cycle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


NOT_JSON = {
    "not a number": math.nan,
    "infinity in a list": [-math.inf],
    "not a number in an object": {"x": math.nan},
    "an object": object(),
    "bytes": b"bytes",
    "a set": {1, 2},
    "a time": datetime(2024, 5, 1),
    "an object in a list": [object()],
    "bytes inside": {"x": {"y": b""}},
    "a list in itself": _cycle(),
    "two names that JSON would make one": {1: 2, "1": 3},
    "a name that is null": {None: 1},
    "a name that is a tuple": {("a",): 1},
    "a number as a name inside": [{2: 1}],
    "a complex number": 1j,
    "a function": lambda: 1,
    "an endless number": 10**5000,
    "an endless number in a list": [10**5000],
}


class TestBadInput:
    @pytest.mark.parametrize("value", NOT_JSON.values(), ids=NOT_JSON.keys())
    def test_values_that_are_not_json_raise_and_change_nothing(self, open_facts: OpenFacts, value: Any) -> None:
        facts = open_facts()
        facts.set("k", "before")
        with pytest.raises(FactError, match="'k'") as raised:
            facts.set("k", value)
        assert isinstance(raised.value, ValueError)
        assert len(str(raised.value)) < 1000
        assert facts.get("k") == open_facts().get("k") == "before"
        assert len(facts.get_with_history("k").history) == 1  # type: ignore[union-attr]

    @pytest.mark.parametrize("depth", [50, 90, 300, 600, 5000])
    def test_a_value_is_refused_or_can_be_read_however_deep(self, open_facts: OpenFacts, depth: int) -> None:
        facts = open_facts()
        facts.set("other", 1)
        try:
            facts.set("k", _nested(depth))
        except FactError:
            assert depth > 64, "as deep as any JSON in use"
        else:
            assert facts.get("k") == _nested(depth)
        assert facts.get("other") == json.loads(facts.to_prompt())["other"] == 1
        assert open_facts().get("other") == 1

    @given(
        st.recursive(any_text, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3))
    )
    def test_lone_surrogates_are_refused_or_replaced(self, open_facts: OpenFacts, value: Any) -> None:
        facts = open_facts(fresh_scope())
        try:
            facts.set("k", value)
        except FactError:
            return
        facts.to_prompt().encode()
        assert open_facts(facts.scope).get("k") == facts.get("k")

    @pytest.mark.parametrize(
        "arguments",
        [
            {"confidence": 1.1}, {"confidence": -0.1}, {"confidence": math.nan},
            {"confidence": "high"}, {"confidence": None},
            {"source": 5}, {"source": None}, {"source": b"x"}, {"message_id": 5}, {"message_id": b"x"},
        ],
        ids=str,
    )  # fmt: skip
    def test_other_arguments_out_of_range_raise_and_change_nothing(
        self, open_facts: OpenFacts, arguments: dict[str, Any]
    ) -> None:
        facts = open_facts()
        with pytest.raises(FactError, match=next(iter(arguments))):
            facts.set("k", 1, **arguments)
        assert facts.all() == open_facts().all() == {}

    @pytest.mark.parametrize("text", ["\ud800", "a\ud83d\ude00\udfff"])
    def test_surrogates_in_what_says_where_a_fact_is_from_do_no_harm(self, open_facts: OpenFacts, text: str) -> None:
        facts = open_facts()
        facts.set("k", 1, source=text, message_id=text)
        assert open_facts().export() == facts.export()

    def test_tuples_are_lists(self, open_facts: OpenFacts) -> None:
        facts = open_facts()
        facts.set("k", ("a", ("b",)))  # type: ignore[arg-type]
        assert facts.get("k") == open_facts().get("k") == ["a", ["b"]]

    def test_text_and_numbers_of_other_classes_are_stored_as_plain_ones(self, open_facts: OpenFacts) -> None:
        class Name(str):
            __slots__ = ()

        facts = open_facts()
        facts.set("k", Name("Ann"))
        assert type(facts.get("k")) is str

    def test_a_megabyte_is_stored(self, open_facts: OpenFacts) -> None:
        text = "{日\0" * 200_000
        open_facts().set("k", text)
        assert open_facts().get("k") == text

    @pytest.mark.parametrize(
        "event",
        [
            {"kind": "set", "value": 1}, {"kind": "set", "key": "k"}, {"kind": "set", "key": 5, "value": 1},
            {"kind": "set", "key": [], "value": 1}, {"kind": "delete"},
            {"kind": "delete", "key": None}, {"kind": "undo"},
            {"kind": "undo", "of": 99}, {"kind": "undo", "of": "1"},
            {"kind": "undo", "of": [1]}, {"kind": "undo", "of": 2},
            {"kind": "of a later version", "key": "k"},
        ],
        ids=str,
    )  # fmt: skip
    def test_events_that_say_nothing_sound_of_facts_do_no_harm(
        self, open_facts: OpenFacts, tmp_path: Path, clock: Clock, event: dict[str, Any]
    ) -> None:
        open_facts().set("a", 1)
        data = {name: value for name, value in event.items() if name != "kind"}
        JsonlJournal(tmp_path, clock).open(ANN, lambda event: None, lambda: None).append(event["kind"], data)
        try:
            facts = open_facts()
        except StoreCorruptedError:
            return
        assert facts.all() == {"a": 1}
        facts.set("b", 2)
        assert open_facts().all() == {"a": 1, "b": 2}
        assert json.loads(facts.to_prompt(True)) == facts.as_of(START) == {"a": 1, "b": 2}
        assert facts.undo() == "b"


class TestPrompt:
    def test_p32_no_facts_are_an_empty_object(self, open_facts: OpenFacts) -> None:
        """P32: always bound; empty is "{}"."""
        facts = open_facts()
        assert facts.to_prompt() == facts.to_prompt(True) == facts.to_prompt(max_tokens=0) == "{}"
        facts.set("a", 1)
        facts.delete("a")
        assert facts.to_prompt() == "{}"

    @given(st.dictionaries(nasty_text.filter(bool), json_values, max_size=5))
    def test_p18_a_prompt_is_json_that_can_close_no_delimiter(
        self, open_facts: OpenFacts, values: dict[str, Any]
    ) -> None:
        facts = open_facts(fresh_scope())
        for key, value in values.items():
            facts.set(key, value)
        text = facts.to_prompt()
        assert json.loads(text) == values
        assert not set("<>&") & set(text)

    def test_a_fact_is_a_line_and_scripts_are_readable(self, open_facts: OpenFacts) -> None:
        facts = open_facts()
        facts.set("city", "リスボン")
        facts.set("pets", ["Tom", {"name": "a\nb"}])
        assert facts.to_prompt() == '{\n"city": "リスボン",\n"pets": ["Tom", {"name": "a\\nb"}]\n}'

    def test_p34_unchanged_facts_give_the_same_bytes(self, open_facts: OpenFacts, clock: Clock) -> None:
        """P34: byte-identical while unchanged, also over time, in another process, and around a change taken back."""
        facts = open_facts()
        facts.set("b", {"z": 1, "a": 2})
        facts.set("a", "x")
        text = facts.to_prompt()
        clock.advance(10**6)
        assert facts.to_prompt() == open_facts().to_prompt() == text
        facts.set("a", "y")
        assert facts.to_prompt() != text
        facts.undo()
        assert facts.to_prompt() == text

    def test_history_is_shown_where_there_is_one(self, open_facts: OpenFacts, clock: Clock) -> None:
        facts = open_facts()
        facts.set("city", "Lisbon")
        facts.set("name", "Ann")
        clock.advance(86_400)
        facts.set("city", "Porto")
        shown = json.loads(facts.to_prompt(include_history=True))
        assert shown["name"] == "Ann"
        assert shown["city"]["current"] == "Porto"
        assert shown["city"]["history"] == [{"value": "Lisbon", "until": "2024-05-02"}]

    @given(st.dictionaries(nasty_text.filter(bool), nasty_text, max_size=8), st.integers(0, 120))
    def test_a_budget_is_kept(
        self, open_facts: OpenFacts, counter: TokenCounter, values: dict[str, str], budget: int
    ) -> None:
        facts = open_facts(fresh_scope())
        for key, value in values.items():
            facts.set(key, value)
        text, left_out = facts.render(max_tokens=budget)
        shown = json.loads(text)
        assert counter.count(text) <= budget or text == "{}"
        assert sorted([*shown, *left_out]) == sorted(values), "shown or left out, and never both"
        assert shown.items() <= values.items()
        whole = {key: f"{{\n{as_json_data(key)}: {as_json_data(value)}\n}}" for key, value in values.items()}
        first = sorted(values, key=lambda key: counter.count(whole[key]) <= budget)  # what is too long even alone
        assert left_out == first[: len(left_out)], "then the oldest first"
        if left_out:
            with_one_more = {key: values[key] for key in [left_out[-1], *shown]}
            lines = ",\n".join(f"{as_json_data(key)}: {as_json_data(value)}" for key, value in with_one_more.items())
            assert counter.count(f"{{\n{lines}\n}}") > budget, "no more than needed"

    def test_a_fact_that_is_too_long_hides_no_other(self, open_facts: OpenFacts) -> None:
        facts = open_facts()
        facts.set("allergy", "peanuts")
        facts.set("notes", "word " * 3000)
        text, left_out = facts.render(max_tokens=500)
        assert json.loads(text) == {"allergy": "peanuts"}
        assert left_out == ["notes"]

    @pytest.mark.parametrize("step", [0, 60], ids=["within an instant", "over time"])
    def test_what_changed_longest_ago_is_left_out_first(
        self, open_facts: OpenFacts, clock: Clock, counter: TokenCounter, step: int
    ) -> None:
        facts = open_facts()
        for key, value in (("a", "x"), ("b", "x"), ("c", "x"), ("a", "y")):
            facts.set(key, value)
            clock.advance(step)
        whole = counter.count(facts.to_prompt())
        assert facts.render(max_tokens=whole)[1] == []
        assert facts.render(max_tokens=whole - 1)[1] == ["b"]
        assert facts.render(max_tokens=0)[1] == ["b", "c", "a"]

    def test_a_hidden_change_makes_a_fact_no_younger(
        self, open_facts: OpenFacts, clock: Clock, counter: TokenCounter
    ) -> None:
        facts, everybody = open_facts(), open_facts("global")
        facts.set("city", "Lisbon")
        clock.advance(60)
        facts.set("name", "Ann")
        clock.advance(60)
        everybody.set("city", "Everywhere")
        assert facts.render(max_tokens=counter.count(facts.to_prompt()) - 1)[1] == ["city"]

    def test_p34_a_change_taken_back_leaves_the_text_within_a_budget_as_it_was(
        self, open_facts: OpenFacts, clock: Clock, counter: TokenCounter
    ) -> None:
        facts = open_facts()
        for key in ("a", "b", "c"):
            facts.set(key, "x")
            clock.advance(60)
        budget = counter.count(facts.to_prompt()) - 1
        before = facts.render(max_tokens=budget)
        facts.set("a", "y")
        facts.undo()
        assert facts.render(max_tokens=budget) == before

    def test_a_fact_set_while_a_prompt_is_made_is_in_the_next_one(self, open_facts: OpenFacts) -> None:
        facts = open_facts()
        facts.set("a", 1)

        class SlowCounter(TokenCounter):
            def count(self, text: str) -> int:
                if "late" not in facts:
                    facts.set("late", 1)
                return super().count(text)

        facts.counter = SlowCounter()
        facts.to_prompt(max_tokens=100)
        assert json.loads(facts.to_prompt(max_tokens=100)) == {"a": 1, "late": 1}

    def test_texts_within_any_number_of_budgets_take_little_memory(self, open_facts: OpenFacts) -> None:
        """Of a user whom nobody changes anything of, in a process that runs for months."""
        facts = open_facts()
        facts.set("notes", "x" * 10_000)
        tracemalloc.start()
        try:
            for budget in range(10_000, 11_000):
                facts.to_prompt(max_tokens=budget)
            assert tracemalloc.get_traced_memory()[0] < 2_000_000  # a text each would take 10 MB
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("budget", [-1, 1.5, "100", True])
    def test_a_budget_that_is_none_raises(self, open_facts: OpenFacts, budget: Any) -> None:
        with pytest.raises(BudgetError):
            open_facts().to_prompt(max_tokens=budget)

    @given(st.dictionaries(nasty_text.filter(bool), nasty_text | json_values, max_size=4))
    def test_p32_facts_pass_a_chat_prompt_template_verbatim(
        self, open_facts: OpenFacts, values: dict[str, Any]
    ) -> None:
        """P32: passed as a variable, braces, quotes and newlines come through."""
        prompts = pytest.importorskip("langchain_core.prompts")
        facts = open_facts(fresh_scope())
        for key, value in values.items():
            facts.set(key, value)
        template = prompts.ChatPromptTemplate.from_messages([("system", "Known:\n{facts}\nEnd."), ("human", "{input}")])
        system, human = template.format_messages(facts=facts.to_prompt(), input='{"a": "{b}"}\n')
        assert system.content == f"Known:\n{facts.to_prompt()}\nEnd."
        assert json.loads(system.content.removeprefix("Known:\n").removesuffix("\nEnd.")) == values
        assert human.content == '{"a": "{b}"}\n'


class TestThreads:
    def test_p26_eight_threads_write_and_read_at_once(self, open_facts: OpenFacts) -> None:
        """P26: nothing lost, nothing corrupted, and no reader trips over a writer."""
        facts = open_facts()
        readers = [facts, open_facts("user:ann/session:x")]
        done = threading.Event()

        def write(thread: int) -> None:
            for number in range(60):
                facts.set(f"fact {thread} {number}", [thread, number])

        def read(thread: int) -> int:
            memory, rounds = readers[thread % 2], 0
            while not done.is_set() or not rounds:
                for look in (memory.all, memory.keys, memory.to_prompt, memory.export, lambda: memory.as_of(START)):
                    look()
                rounds += 1
            return rounds

        with frequent_switches(), ThreadPoolExecutor(8) as pool:
            reading = [pool.submit(read, thread) for thread in range(4)]
            writing = [pool.submit(write, thread) for thread in range(4)]
            try:
                _wait(writing)
            finally:
                done.set()
            _wait(reading)
        expected = {f"fact {thread} {number}": [thread, number] for thread in range(4) for number in range(60)}
        assert facts.all() == open_facts().all() == expected

    def test_p26_a_fact_is_never_missing_while_its_value_changes(self, open_facts: OpenFacts) -> None:
        facts = open_facts()
        facts.set("k", 0)
        done = threading.Event()

        def read() -> int:
            misses = 0
            while not done.is_set():
                misses += sum(facts.get("k", "missing") == "missing" for _ in range(100))
            return misses

        with frequent_switches(), ThreadPoolExecutor(3) as pool:
            reading = [pool.submit(read) for _ in range(3)]
            try:
                for number in range(12_000):
                    facts.set("k", [number] if number % 2 else number)
            finally:
                done.set()
            assert [future.result(timeout=60) for future in reading] == [0, 0, 0]

    def test_a_memory_that_nobody_uses_any_more_is_freed(self, tmp_path: Path) -> None:
        """A server makes one for every request; the shelves that they share must not keep them."""
        shelves = open_shelves(JsonlJournal(tmp_path))
        keeper = FeatureMemory(shelves, ANN)
        gone = weakref.ref(FeatureMemory(shelves, MemoryScope("ann", "x")))
        gc.collect()
        assert gone() is None
        keeper.set("a", 1)


class TestErase:
    def test_p24_an_erased_fact_is_in_no_file_and_in_no_answer(self, open_facts: OpenFacts, tmp_path: Path) -> None:
        """P24: also the versions that were replaced, deleted and undone."""
        facts, bob = open_facts(), open_facts("user:bob")
        bob.set("kept", "bob's")
        facts.set("a", "secret one")
        facts.set("a", "secret two")
        facts.undo()
        facts.delete("a")
        assert facts.erase() == 4
        assert facts.all() == facts.export()["facts"] == facts.as_of(START) == {}
        assert facts.get_with_history("a") is None
        assert facts.undo() is None
        assert not any(b"secret" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        assert open_facts("user:bob").all() == {"kept": "bob's"}
        assert facts.set("a", 1) == 1

    def test_p22_what_everybody_has_is_not_a_users_to_erase(self, open_facts: OpenFacts) -> None:
        open_facts("global").set("greeting", "Hello")
        facts = open_facts("user:ann/session:x")
        assert facts.erase() == 0
        assert facts.get("greeting") == "Hello"


def _wait(futures: Iterable[Any]) -> None:
    for future in futures:
        future.result(timeout=60)


def test_readers_never_see_a_history_being_erased(open_facts: OpenFacts) -> None:
    ann = open_facts(ANN)
    ann.set("typo", 1)
    for value in range(2000):
        ann.set("city", value)
    seen: set[Any] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(ann.get("city"))

    reader = threading.Thread(target=read)
    with frequent_switches():
        reader.start()
        assert ann.erase("typo") == 1
        stop.set()
        reader.join()
    assert seen == {1999}
