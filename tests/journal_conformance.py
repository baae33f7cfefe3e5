"""What every journal promises, as tests that a new backend inherits.

A backend passes with twenty lines::

    class TestMyJournal(JournalConformance):
        def open_journal(self, place: Path, clock: Clock) -> Journal:
            return MyJournal(f"mydb://{place}", clock)

Each call of ``open_journal`` with the same place opens the same store anew, as another process would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import START, Clock, FewOpen, frequent_switches, fresh_scope, json_values, nasty_text

from memory_integrations import MemoryScope
from memory_integrations.errors import StoreCorruptedError, StoreError, StoreUnavailableError
from memory_integrations.journal import Event, Journal, Repair, ScopeJournal, lost, removed, restored, revised

ANN, BOB = MemoryScope("ann"), MemoryScope("bob", "s1")


class Reader:
    """A subscriber to a scope's journal: what it was handed, and how often it had to start over."""

    def __init__(self, journal: Journal, scope: MemoryScope = ANN) -> None:
        self.events: list[Event] = []
        self.resets = 0
        self.journal: ScopeJournal = journal.open(scope, self.events.append, self._reset)

    def _reset(self, events: Sequence[Event]) -> None:
        self.events[:] = events
        self.resets += 1

    def append(self, value: Any = 1, key: str = "k") -> Event:
        return self.journal.append("set", {"key": key, "value": value})

    def refreshed(self) -> list[Event]:
        self.journal.refresh()
        return self.events

    @property
    def values(self) -> list[Any]:
        return [event.data["value"] for event in self.events]


OpenReader = Callable[..., Reader]


def set_to(value: Any, number: int) -> Event:
    return Event(number, START, "set", {"key": "k", "value": value})


def decided(*reasons: str) -> Event:
    """An event of a list of which parts may be removed."""
    made = [{"do": "delete", "entry_id": f"m{number}", "reason": reason} for number, reason in enumerate(reasons)]
    return Event(1, START, "manage", {"decisions": made})


def without_reason(event: Event, number: int) -> Event:
    made = [{**one, "reason": ""} if one["entry_id"] == f"m{number}" else one for one in event.data["decisions"]]
    return revised(event, {**event.data, "decisions": made})


def with_odd_ones_negated(event: Event) -> Event:
    value = event.data["value"]
    return replace(event, data={**event.data, "value": -value}) if value % 2 else event


class JournalConformance:
    """Inherit, and say how a journal is opened."""

    def open_journal(self, place: Path, clock: Clock) -> Journal:
        """A journal on the store at a place; another call opens the same store anew."""
        raise NotImplementedError

    @pytest.fixture
    def reader(self, tmp_path: Path, clock: Clock) -> Iterator[OpenReader]:
        """Opens readers; each has its own handle on the one store."""
        journals = FewOpen()

        def reader(scope: MemoryScope = ANN, clock: Any = clock) -> Reader:
            return Reader(journals.add(self.open_journal(tmp_path / "store", clock)), scope)

        yield reader
        journals.close()

    @pytest.fixture
    def store(self, tmp_path: Path, clock: Clock) -> Iterator[Journal]:
        """The journals of the readers' store."""
        journal = self.open_journal(tmp_path / "store", clock)
        yield journal
        journal.close()

    # Writing and reading

    def test_reading_makes_nothing(self, store: Journal) -> None:
        reader = Reader(store)
        store.check(ANN)
        assert (reader.values, store.scopes(), dict(store.strays()), store.exists()) == ([], [], {}, False)
        reader.append()
        assert store.exists()

    def test_events_are_numbered_from_one_and_handed_over_in_order(self, reader: OpenReader) -> None:
        one = reader()
        written = [one.append(value) for value in range(5)]
        assert [event.number for event in written] == [1, 2, 3, 4, 5]
        assert one.events == written
        assert one.values == [0, 1, 2, 3, 4]

    def test_whoever_opens_it_later_is_handed_every_event(self, reader: OpenReader, clock: Clock) -> None:
        one = reader()
        for value in range(5):
            one.append(value)
            clock.advance()
        assert reader().events == one.events

    @given(nasty_text, st.dictionaries(nasty_text.filter(bool).map("x".__add__), json_values, max_size=3))
    def test_kinds_and_data_come_back_as_they_were(self, reader: OpenReader, kind: str, data: dict[str, Any]) -> None:
        scope = fresh_scope()
        event = reader(scope).journal.append(f"note {kind}", data)
        assert reader(scope).events == [event]
        assert event.data == data

    @pytest.mark.parametrize("name", ["at", "kind", "number", "n", "scope", "format", "file"])
    def test_names_in_the_data_never_change_the_event_itself(self, reader: OpenReader, name: str) -> None:
        one = reader()
        try:
            event = one.journal.append("set", {"key": "k", "value": 1, name: "mine"})
        except ValueError:
            assert reader().events == one.events == []
            return
        assert reader().events == [event]
        assert event.data[name] == "mine"
        assert event.kind == "set"

    def test_opening_and_refreshing_write_nothing(self, reader: OpenReader, tmp_path: Path) -> None:
        assert reader().refreshed() == []
        assert not (tmp_path / "store").exists()

    def test_refreshing_again_hands_nothing_over_twice(self, reader: OpenReader) -> None:
        one, other = reader(), reader()
        one.append()
        assert len(other.refreshed()) == len(other.refreshed()) == 1
        assert len(one.refreshed()) == 1

    def test_data_that_are_no_json_write_nothing(self, reader: OpenReader) -> None:
        one = reader()
        one.append("before")
        for bad in (object(), float("nan"), {1, 2}, "\ud800"):
            with pytest.raises((TypeError, ValueError)):
                one.append(bad)
        assert one.append("after").number == 2
        assert one.values == reader().values == ["before", "after"]

    # Several at once

    def test_what_others_wrote_first_is_handed_over_before(self, reader: OpenReader) -> None:
        one, other = reader(), reader()
        one.append("first")
        other.append("second")
        one.append("third")
        assert one.values == ["first", "second", "third"]
        assert one.events == other.refreshed() == reader().events

    def test_p27_threads_on_several_handles_lose_nothing(self, reader: OpenReader) -> None:
        """P27, within a process: unique numbers, and one order for all."""
        readers = [reader() for _ in range(3)]

        def write(thread: int) -> list[int]:
            return [readers[thread % 3].append([thread, turn]).number for turn in range(40)]

        with frequent_switches(), ThreadPoolExecutor(8) as pool:
            numbers = [number for written in pool.map(write, range(8)) for number in written]
        assert sorted(numbers) == list(range(1, 321))
        assert readers[0].refreshed() == readers[1].refreshed() == readers[2].refreshed() == reader().events
        for thread in range(8):
            assert [v[1] for v in readers[0].values if v[0] == thread] == list(range(40)), "each one's order is kept"

    @settings(max_examples=30)
    @given(
        st.lists(
            st.tuples(
                st.integers(0, 2),
                st.sampled_from(["append"] * 6 + ["extend", "revise", "refresh", "close", "erase"]),
            ),
            max_size=20,
        )
    )
    def test_all_handles_agree_whatever_they_did(self, reader: OpenReader, steps: Sequence[tuple[int, str]]) -> None:
        scope = fresh_scope()
        readers = [reader(scope) for _ in range(3)]
        expected: list[int] = []
        for number, (which, what) in enumerate(steps):
            if what == "append":
                expected.append(number)
                readers[which].append(number)
            elif what == "extend":
                readers[which].journal.extend([set_to(number, len(expected) + n) for n in (1, 2)])
                expected += [number, number]
            elif what == "revise":
                assert readers[which].journal.revise(with_odd_ones_negated) == sum(v % 2 for v in expected)
                expected = [-value if value % 2 else value for value in expected]
            elif what == "erase":
                assert readers[which].journal.erase() == len(expected)
                expected.clear()
            else:
                getattr(readers[which].journal, what)()
        for one in [*readers, reader(scope)]:
            assert [(event.number, event.data["value"]) for event in one.refreshed()] == list(enumerate(expected, 1))

    # Scopes

    def test_scopes_are_apart(self, reader: OpenReader) -> None:
        ann, bob = reader(ANN), reader(BOB)
        ann.append("ann's")
        bob.append("bob's")
        assert ann.refreshed()[0].number == bob.refreshed()[0].number == 1
        assert (ann.values, bob.values) == (["ann's"], ["bob's"])
        assert ann.journal.erase() == 1
        assert reader(BOB).values == bob.values == ["bob's"]

    # Erasing

    def test_erasing_leaves_nothing_and_says_how_much_there_was(self, reader: OpenReader) -> None:
        one = reader()
        for value in range(3):
            one.append(value)
        assert one.journal.erase() == 3
        assert (one.events, one.resets) == ([], 1)
        assert reader().events == []
        assert one.journal.erase() == 0

    def test_erasing_what_was_never_written_is_no_error(self, reader: OpenReader) -> None:
        assert reader().journal.erase() == 0

    def test_erasing_reaches_what_was_not_read_yet(self, reader: OpenReader) -> None:
        one, other = reader(), reader()
        one.append("secret")
        assert other.journal.erase() == 1
        assert one.refreshed() == reader().events == []

    def test_removals_that_are_one_are_all_done(self, reader: OpenReader, store: Journal) -> None:
        ann, bob = Reader(store, ANN), Reader(store, BOB)
        for value in ("secret", "open"):
            ann.append(value)
            bob.append(value)
        with store.removing(), store.removing():
            assert ann.journal.erase() == 2
            assert bob.journal.revise(lambda event: removed(event) if event.data["value"] == "secret" else event) == 1
        assert reader(ANN).events == ann.events == []
        assert [event.kind for event in reader(BOB).events] == ["removed", "set"]

    def test_p24_another_handle_sees_an_empty_journal_and_goes_on(self, reader: OpenReader) -> None:
        one, other = reader(), reader()
        one.append("old")
        other.refreshed()
        one.journal.erase()
        assert (other.refreshed(), other.resets) == ([], 1)
        assert other.append("new").number == 1
        assert one.refreshed() == other.events == reader().events

    def test_p24_another_handle_that_appends_at_once_goes_on_from_one(self, reader: OpenReader) -> None:
        one, other = reader(), reader()
        one.append("old")
        other.refreshed()
        one.journal.erase()
        assert other.append("new").number == 1
        assert (other.values == one.refreshed() and other.values) or other.values == ["new"]
        assert [event.data["value"] for event in one.refreshed()] == ["new"]

    def test_p24_a_closed_handle_learns_of_an_erasure(self, reader: OpenReader) -> None:
        one = reader()
        one.append("old")
        one.journal.close()  # type: ignore[attr-defined]
        reader().journal.erase()
        assert one.refreshed() == []

    def test_p24_a_closed_handle_tells_a_new_journal_from_the_old_one(self, reader: OpenReader) -> None:
        one = reader()
        one.append("old")
        one.journal.close()  # type: ignore[attr-defined]
        other = reader()
        other.journal.erase()
        other.append("new")
        assert [event.data["value"] for event in one.refreshed()] == ["new"]

    # Removing some, and writing another journal's

    def test_p24_what_is_removed_leaves_its_place_and_nothing_else(self, reader: OpenReader) -> None:
        one, other = reader(), reader()
        for value in ("kept", "secret", "also kept"):
            one.append(value)
        other.refreshed()
        changed = one.journal.revise(lambda event: removed(event) if event.data["value"] == "secret" else event)
        assert changed == 1
        assert one.events == other.refreshed() == reader().events
        assert [(event.number, event.kind) for event in one.events] == [(1, "set"), (2, "removed"), (3, "set")]
        assert one.events[1].data == {}
        assert other.append("new").number == 4
        assert one.refreshed() == other.events

    def test_p24_a_closed_handle_learns_of_a_removal(self, reader: OpenReader) -> None:
        one = reader()
        one.append("secret")
        one.journal.close()  # type: ignore[attr-defined]
        reader().journal.revise(removed)
        assert [event.kind for event in one.refreshed()] == ["removed"]

    def test_who_starts_over_is_handed_all_at_once(self, reader: OpenReader) -> None:
        one, other = reader(), reader()
        for value in range(5):
            one.append(value)
        other.refreshed()
        seen: list[int] = []
        for each in (one, other):
            taken = each._reset
            each.journal._on_reset = lambda events, taken=taken: (seen.append(len(events)), taken(events))  # type: ignore[attr-defined]
        one.journal.revise(lambda event: removed(event) if event.number == 2 else event)
        assert other.refreshed() == one.events
        assert [event.kind for event in one.events] == ["set", "removed", "set", "set", "set"]
        other.journal.erase()
        assert one.refreshed() == []
        assert seen == [5, 5, 0, 0]

    def test_the_journals_of_an_owner_are_its_own(self, journal: Journal) -> None:
        users = ["ann", "Ann", "an", "ann b", "ann/session:x", "änn", "x" * 60, "ann-session-s"]
        scopes = {MemoryScope(user, session) for user in users for session in (None, "s", "/session:", "ü")}
        for scope in scopes | {MemoryScope(), MemoryScope(None, "s")}:
            Reader(journal, scope).append()
        for user in users:
            found = journal.scopes(MemoryScope(user))
            assert set(found) == {scope for scope in scopes if scope.user_id == user}, user
            assert len(found) == 4

    def test_revising_nothing_starts_nobody_over(self, reader: OpenReader) -> None:
        one, other = reader(), reader()
        assert one.journal.revise(removed) == 0
        other.append()
        assert one.journal.revise(lambda event: event) == 0
        assert len(one.refreshed()) == len(other.refreshed()) == 1
        assert one.resets == other.resets == 0

    def test_what_is_revised_by_what_is_no_json_stays(self, reader: OpenReader) -> None:
        one = reader()
        one.append("before")
        with pytest.raises((TypeError, ValueError)):
            one.journal.revise(lambda event: replace(event, data={"value": object()}))
        assert one.append("after").number == 2
        assert one.values == reader().values == ["before", "after"]

    def test_another_journals_events_are_written_as_they_are(self, reader: OpenReader, clock: Clock) -> None:
        source = reader(BOB)
        for value in range(3):
            source.append(value)
            clock.advance()
        target = reader()
        target.journal.extend(source.events[:2])
        target.journal.extend(source.events[2:])
        target.journal.extend([])
        assert target.events == reader().events == source.events
        assert target.append("next").number == 4

    @pytest.mark.parametrize("first", [1, 3])
    def test_events_that_do_not_go_on_where_a_journal_ends_are_refused(self, reader: OpenReader, first: int) -> None:
        one, other = reader(), reader()
        one.append("mine")
        with pytest.raises(StoreError, match="1 events"):
            other.journal.extend([set_to("theirs", first)])
        assert one.refreshed() == other.refreshed() == reader().events
        assert one.values == ["mine"]

    def test_events_with_a_gap_among_them_are_refused(self, reader: OpenReader) -> None:
        one = reader()
        with pytest.raises(StoreCorruptedError, match="Event 3 of user:ann follows event 1"):
            one.journal.extend([set_to("theirs", 1), set_to("theirs", 3)])
        assert one.refreshed() == reader().events == []

    def test_nothing_is_missing_from_a_journal_that_is_used_as_it_should_be(
        self, reader: OpenReader, store: Journal
    ) -> None:
        def expect_whole() -> None:
            store.check(ANN)
            assert store.repair(ANN) == Repair()

        expect_whole()
        one = reader()
        one.append(1)
        one.journal.extend([set_to(2, 2), set_to(3, 3)])
        expect_whole()
        one.journal.revise(with_odd_ones_negated)
        expect_whole()
        assert (one.refreshed(), one.resets) == (reader().events, 1), "a repair of what is whole starts nobody over"
        one.journal.erase()
        expect_whole()
        one.append(1)
        expect_whole()

    @pytest.mark.parametrize("kept", [0, 1, 3])
    def test_what_a_journal_has_of_another_is_not_written_twice(
        self, reader: OpenReader, store: Journal, kept: int
    ) -> None:
        events = [set_to(number, number) for number in range(1, 4)]
        one = reader()
        one.journal.extend(events[:kept])
        assert restored(store, ANN, events, dry_run=True) == 3 - kept
        assert len(one.refreshed()) == kept
        assert restored(store, ANN, events) == 3 - kept
        assert restored(store, ANN, events) == 0
        assert one.refreshed() == reader().events == events

    def test_what_was_lost_is_put_back(self, reader: OpenReader, store: Journal) -> None:
        events = [set_to(number, number) for number in range(1, 5)]
        one = reader()
        one.journal.extend(events)
        one.journal.revise(lambda event: lost(event.number) if event.number in (1, 3) else event)
        assert restored(store, ANN, events[:2], dry_run=True) == 1
        assert [event.kind for event in one.refreshed()] == ["lost", "set", "lost", "set"]
        assert restored(store, ANN, events[:2]) == 1
        assert [event.kind for event in one.refreshed()] == ["set", "set", "lost", "set"]
        assert restored(store, ANN, events) == 1
        assert one.refreshed() == reader().events == events

    @pytest.mark.parametrize("reason", ["", "x", "PIN-4711", "a reason of more than fifteen characters"])
    def test_p24_what_was_removed_from_an_event_stays_removed_however_short_it_was(
        self, reader: OpenReader, store: Journal, reason: str
    ) -> None:
        """P24: the mark of what was removed may be longer than it."""
        told = decided(reason, "another")
        left = without_reason(told, 0)
        one = reader()
        one.journal.extend([left])
        assert restored(store, ANN, [told]) == 0, "nothing comes back"
        assert one.refreshed() == reader().events == [left]
        one.journal.erase()
        one.journal.extend([told])
        assert restored(store, ANN, [left]) == 1, "it is removed here too"
        assert one.refreshed() == reader().events == [left]

    def test_p24_of_what_was_removed_here_and_what_was_removed_there_nothing_is_left(
        self, reader: OpenReader, store: Journal
    ) -> None:
        told = decided("first", "second", "third")
        here, there = without_reason(told, 0), without_reason(told, 2)
        one = reader()
        one.journal.extend([here])
        assert restored(store, ANN, [there]) == 1
        assert [made["reason"] for made in one.refreshed()[0].data["decisions"]] == ["", "second", ""]
        assert restored(store, ANN, [there]) == restored(store, ANN, [here]) == restored(store, ANN, [told]) == 0
        assert restored(store, ANN, [removed(told)]) == 1
        assert restored(store, ANN, [there]) == 0
        assert reader().events == [removed(told)]

    def test_two_events_of_which_parts_were_removed_are_two_histories(self, reader: OpenReader, store: Journal) -> None:
        one = reader()
        one.journal.extend([revised(set_to("mine", 1), {"key": "k", "value": "mine"})])
        with pytest.raises(StoreUnavailableError, match="another history"):
            restored(store, ANN, [revised(set_to("theirs", 1), {"key": "k", "value": "theirs"})])
        assert reader().values == ["mine"]

    @pytest.mark.parametrize("dry_run", [True, False])
    def test_another_history_or_one_with_a_gap_is_refused(
        self, reader: OpenReader, store: Journal, dry_run: bool
    ) -> None:
        events = [set_to(number, number) for number in range(1, 4)]
        one = reader()
        one.append("mine")
        with pytest.raises(StoreUnavailableError, match="another history"):
            restored(store, ANN, events, dry_run=dry_run)
        with pytest.raises(StoreCorruptedError, match="some are missing"):
            restored(store, ANN, [*one.events, events[2]], dry_run=dry_run)
        assert one.refreshed() == reader().events
        assert one.values == ["mine"]

    # Closing

    def test_what_is_used_after_closing_opens_again(self, reader: OpenReader) -> None:
        one = reader()
        one.append("before")
        one.journal.close()  # type: ignore[attr-defined]
        assert one.append("after").number == 2
        assert reader().values == one.values == ["before", "after"]

    # Time

    def test_p30_times_are_the_injected_clocks_in_utc(self, reader: OpenReader) -> None:
        """P30: all times are UTC and the clock is injectable."""
        local = START.astimezone(timezone(timedelta(hours=5, minutes=30)))
        event = reader(clock=lambda: local).append()
        assert (event.at, event.at.tzinfo) == (START, UTC)
        assert reader().events[0].at.tzinfo is UTC

    def test_p30_a_clock_without_a_zone_raises_and_writes_nothing(self, reader: OpenReader) -> None:
        with pytest.raises(ValueError, match="time zone"):
            reader(clock=lambda: datetime(2024, 5, 1)).append()
        assert reader().events == []

    def test_p30_a_clock_that_was_set_back_changes_no_order(self, reader: OpenReader, clock: Clock) -> None:
        """P30: events keep the clock's time, whatever it said before; their order is the journal's."""
        one = reader()
        moments = []
        for step in (10, -3600, 5, 7200, -1):
            moments.append(clock.now)
            one.append()
            clock.advance(step)
        other = reader()
        assert [event.at for event in other.events] == moments
        assert [event.number for event in other.events] == [1, 2, 3, 4, 5]
