"""The JSON Lines journal: the conformance suite, and what files bring with them: crashes, damage, modes, full disks."""

from __future__ import annotations

import gc
import json
import logging
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from journal_conformance import ANN, BOB, JournalConformance, Reader
from strategies import START, Clock, json_values, nasty_text, time_limit

from memory_integrations import FeatureMemory, MemoryScope, StoreCorruptedError, StoreError, StoreUnavailableError
from memory_integrations.features import open_shelves
from memory_integrations.journal import Event, Repair, events_of, merged, removed, restored, revised, utc_now
from memory_integrations.journal_files import JsonlJournal, JsonlScopeJournal


class TestJsonlJournal(JournalConformance):
    """The reference implementation."""

    def open_journal(self, place: Path, clock: Clock) -> JsonlJournal:
        return JsonlJournal(place, clock)


@pytest.fixture
def journal(tmp_path: Path, clock: Clock) -> Iterator[JsonlJournal]:
    journal = JsonlJournal(tmp_path / "journal", clock)
    yield journal
    journal.close()


def written(journal: JsonlJournal, *values: Any, scope: MemoryScope = ANN) -> Reader:
    """A reader that wrote values."""
    reader = Reader(journal, scope)
    for value in values:
        reader.append(value)
    return reader


def reopened(journal: JsonlJournal, scope: MemoryScope = ANN) -> list[Any]:
    """The values that another process would read."""
    other = JsonlJournal(journal.directory)
    try:
        return Reader(other, scope).values
    finally:
        other.close()


def lines_of(journal: JsonlJournal, scope: MemoryScope = ANN) -> list[bytes]:
    return journal.path(scope).read_bytes().splitlines()


def spoil(journal: JsonlJournal, line: int, replacement: bytes) -> bytes:
    """Put something else in the place of a line (the header is line 1); returns the file's bytes."""
    lines = journal.path(ANN).read_bytes().split(b"\n")
    lines[line - 1] = replacement
    journal.path(ANN).write_bytes(b"\n".join(lines))
    return journal.path(ANN).read_bytes()


@contextmanager
def disk_full_after(size: int) -> Iterator[None]:
    """No file grows beyond a size: what a full disk looks like to a writer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestFiles:
    def test_an_event_is_one_json_object_a_line(self, journal: JsonlJournal) -> None:
        written(journal, "a\nb\u2028c\x85d", "日本語")
        header, *events = map(json.loads, lines_of(journal))
        assert header["scope"] == "user:ann"
        assert [event["value"] for event in events] == ["a\nb\u2028c\x85d", "日本語"]
        assert "日本語" in journal.path(ANN).read_text(encoding="utf-8"), "readable by people"

    def test_only_the_owner_may_read_what_is_written(self, tmp_path: Path) -> None:
        """Files have mode 0600 and directories 0700, whatever the umask; also those that hold what was set aside."""
        before = os.umask(0)
        try:
            journal = JsonlJournal(tmp_path / "data" / "journal")
            reader = written(journal, 1, 2, 3)
            with journal.path(ANN).open("ab") as file:
                file.write(b'{"torn')
            reader.append(4)
            spoil(journal, 2, b"damage")
            journal.repair(ANN)
            journal.close()
        finally:
            os.umask(before)
        directories = [tmp_path / "data", journal.directory]
        files = list(journal.directory.iterdir())
        assert len(files) == 3
        assert {path.stat().st_mode & 0o777 for path in directories} == {0o700}
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}

    def test_the_scopes_of_a_directory_are_listed(self, journal: JsonlJournal) -> None:
        assert journal.scopes() == []
        scopes = {MemoryScope(), ANN, BOB, MemoryScope("a/session:b"), MemoryScope("İ\0\n{}")}
        for scope in scopes:
            written(journal, 1, scope=scope)
        assert set(journal.scopes()) == scopes
        assert len(journal.scopes()) == len(scopes)

    def test_three_hundred_scopes_do_not_hold_three_hundred_files_open(self, journal: JsonlJournal) -> None:
        before = len(os.listdir("/proc/self/fd"))
        readers = [written(journal, number, scope=MemoryScope(str(number))) for number in range(300)]
        assert len(os.listdir("/proc/self/fd")) - before <= min(journal.max_open_files, 200)
        for number, reader in enumerate(readers):
            reader.append("again")
            assert reader.values == [number, "again"]
        journal.close()
        assert len(os.listdir("/proc/self/fd")) <= before

    def test_a_journal_that_cannot_be_opened_keeps_no_file_open_when_closed(self, journal: JsonlJournal) -> None:
        written(journal, 1, 2)
        spoil(journal, 2, b"damage")
        journal.close()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            with pytest.raises(StoreCorruptedError):
                Reader(journal)
        journal.close()
        assert len(os.listdir("/proc/self/fd")) <= before

    def test_what_is_dropped_without_closing_leaves_no_file_open(self, tmp_path: Path) -> None:
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        for number in range(30):
            FeatureMemory(open_shelves(JsonlJournal(tmp_path)), ANN).set("k", number)
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) <= before

    def test_an_identifier_cannot_leave_the_directory(self, journal: JsonlJournal, tmp_path: Path) -> None:
        for identifier in ("../../escape", "/etc/x", "..", "a/b", "a\0b", "x" * 10_000):
            written(journal, 1, scope=MemoryScope(identifier))
        assert {path.parent for path in tmp_path.rglob("*") if path.is_file()} == {journal.directory}


class TestCrashes:
    WRITER = """
import sys
from memory_integrations.journal import removed
from memory_integrations.journal_files import JsonlJournal
from memory_integrations.scopes import MemoryScope
journal = JsonlJournal(sys.argv[1]).open(MemoryScope("ann"), lambda event: None, lambda events: None)
while True:
    event = journal.append("set", {"key": "k", "value": "x" * 200})
    sys.stdout.write(f"{event.number}\\n")
    sys.stdout.flush()
"""

    def test_every_acknowledged_event_survives_kill_9(self, journal: JsonlJournal) -> None:
        """P27's other half: killed at any moment, again and again, on one file."""
        chance = random.Random(7)
        last = 0
        for _ in range(5):
            writer = subprocess.Popen(
                [sys.executable, "-c", self.WRITER, str(journal.directory)], stdout=subprocess.PIPE, text=True
            )
            assert writer.stdout is not None
            first = writer.stdout.readline()
            assert int(first) in (last + 1, last + 2), "the event under way at the kill may be there"
            time.sleep(chance.uniform(0, 0.05))
            writer.send_signal(signal.SIGKILL)
            acknowledged = [
                int(line) for line in [first, *writer.stdout.read().splitlines(keepends=True)] if line.endswith("\n")
            ]
            writer.wait()
            writer.stdout.close()
            assert acknowledged == list(range(acknowledged[0], acknowledged[-1] + 1))
            last = acknowledged[-1]
            assert len(reopened(journal)) in (last, last + 1)
            last = max(last, len(reopened(journal)))

    @given(st.lists(nasty_text, min_size=1, max_size=5), st.data())
    def test_a_torn_last_line_costs_no_acknowledged_event(
        self, tmp_path_factory: pytest.TempPathFactory, values: list[str], data: st.DataObject
    ) -> None:
        """Whatever byte a crash stopped at, the whole lines are there and writing goes on."""
        journal = JsonlJournal(tmp_path_factory.mktemp("torn"))
        written(journal, *values)
        journal.close()
        path = journal.path(ANN)
        whole = path.read_bytes()
        cut = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:cut])
        complete = max(whole[:cut].count(b"\n") - 1, 0)
        assert reopened(journal) == values[:complete]
        assert path.read_bytes() == whole[:cut], "reading changes nothing"
        assert written(journal, "next").values == reopened(journal) == [*values[:complete], "next"]
        journal.close()
        shutil.rmtree(journal.directory)

    def test_a_torn_line_is_set_aside_and_reported(
        self, journal: JsonlJournal, caplog: pytest.LogCaptureFixture
    ) -> None:
        written(journal, "kept")
        journal.close()
        with journal.path(ANN).open("ab") as file:
            file.write(b'{"at":"2024-05-01T12:00:00+00:00","kind":"set","key":"k","val')
        with caplog.at_level(logging.WARNING, "memory_integrations"):
            reader = Reader(journal)
            reader.refreshed()
        assert len(caplog.records) == 1, "once, not at every look"
        assert str(journal.path(ANN)) in caplog.text
        assert '"key"' not in caplog.text, "never what it says"
        reader.append("new")
        assert reopened(journal) == ["kept", "new"]
        (aside,) = (path for path in journal.directory.iterdir() if path != journal.path(ANN))
        assert b'"key":"k","val' in aside.read_bytes()

    def test_a_torn_line_is_no_event_that_a_repair_calls_lost(self, journal: JsonlJournal) -> None:
        written(journal, "kept", "damaged", "kept too")
        journal.close()
        path = journal.path(ANN)
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([*lines[:2], b"garbage\n", lines[3], b'{"at":"2024-05-01T12:00:00+00:00","ki']))
        assert journal.repair(ANN) == Repair(aside=1, lost=1, torn=37, is_ordered=True)
        assert [event.kind for event in events_of(journal, ANN)] == ["set", "lost", "set"]
        assert Path(f"{path}.torn").read_bytes() == b'{"at":"2024-05-01T12:00:00+00:00","ki\n'
        assert Path(f"{path}.aside").read_bytes() == b"garbage\n"

    def test_a_reader_notices_that_another_went_on_after_a_torn_line(self, journal: JsonlJournal) -> None:
        written(journal, "kept")
        with journal.path(ANN).open("ab") as file:
            file.write(b'{"torn')
        one, other = Reader(journal), Reader(JsonlJournal(journal.directory))
        other.append("new")
        assert [event.data["value"] for event in one.refreshed()] == ["kept", "new"]
        one.append("newer")
        assert reopened(journal) == ["kept", "new", "newer"]

    def test_a_journal_that_another_program_cut_short_is_read_anew(self, journal: JsonlJournal) -> None:
        reader = written(journal, "one", "two")
        whole = journal.path(ANN).read_bytes()
        journal.path(ANN).write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
        assert [event.data["value"] for event in reader.refreshed()] == ["one"]
        assert reader.append("three").number == 2
        assert reopened(journal) == ["one", "three"]

    def test_a_crash_before_the_first_event_leaves_an_empty_journal(self, journal: JsonlJournal) -> None:
        journal.directory.mkdir()
        for content in (b"", b'{"scope":"us', b'{"scope":"user:ann","format":1}\n'):
            journal.path(ANN).write_bytes(content)
            assert reopened(journal) == []
        journal.path(ANN).write_bytes(b"")
        assert journal.scopes() == []
        assert written(journal, "first").values == reopened(journal) == ["first"]


class TestP27Processes:
    WRITER = """
import json, sys, time
from pathlib import Path
from memory_integrations import FeatureMemory, MemoryScope
from memory_integrations.features import open_shelves
from memory_integrations.journal import removed
from memory_integrations.journal_files import JsonlJournal
directory, me, facts, processes = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
memory = FeatureMemory(open_shelves(JsonlJournal(directory)), MemoryScope("ann"))
Path(directory, f"ready-{me}").touch()
while len(list(Path(directory).glob("ready-*"))) < processes:
    time.sleep(0.002)
numbers = [memory.set(f"fact {me} {number}", [me, number]) for number in range(facts)]
deadline = time.monotonic() + 60
while len(memory) < facts * processes and time.monotonic() < deadline:
    memory.refresh()
    time.sleep(0.01)
print(json.dumps({"numbers": numbers, "keys": memory.keys()}))
"""

    def test_p27_eight_processes_set_many_facts_each_at_once(self, tmp_path: Path, long_run: bool) -> None:
        """P27: N processes setting facts at once: N facts, unique numbers, and one order for all readers."""
        processes, facts = 8, 1000 if long_run else 200
        command = [sys.executable, "-c", self.WRITER, str(tmp_path)]
        running = [
            subprocess.Popen([*command, str(me), str(facts), str(processes)], stdout=subprocess.PIPE, text=True)
            for me in range(processes)
        ]
        answers = [json.loads(process.communicate(timeout=120)[0]) for process in running]
        memory = FeatureMemory(open_shelves(JsonlJournal(tmp_path)), ANN)
        assert len(memory) == processes * facts
        assert all(memory.get(f"fact {me} {n}") == [str(me), n] for me in range(processes) for n in range(facts))
        numbers = sorted(number for answer in answers for number in answer["numbers"])
        assert numbers == list(range(1, processes * facts + 1))
        assert all(answer["keys"] == memory.keys() for answer in answers)

    FORKER = """
import json, os, sys
from memory_integrations import FeatureMemory, MemoryScope
from memory_integrations.features import open_shelves
from memory_integrations.journal import removed
from memory_integrations.journal_files import JsonlJournal
memory = FeatureMemory(open_shelves(JsonlJournal(sys.argv[1])), MemoryScope("ann"))
memory.set("before", 1)
children = []
for me in range(4):
    child = os.fork()
    if not child:
        memory.get("before")
        numbers = [memory.set(f"fact {me} {number}", "x" * number) for number in range(300)]
        os._exit(0 if len(set(numbers)) == 300 else 1)
    children.append(child)
memory.set("meanwhile", 1)
failed = [os.waitpid(child, 0)[1] for child in children]
memory.refresh()
print(json.dumps({"failed": failed, "facts": len(memory)}))
"""

    def test_p27_children_forked_from_one_process_take_turns(
        self, run_python: Callable[..., Any], tmp_path: Path
    ) -> None:
        """What is open before a fork is open in every child; a server that loads before it forks must lose nothing."""
        answer = json.loads(run_python(self.FORKER, tmp_path).stdout)
        assert answer == {"failed": [0, 0, 0, 0], "facts": 1202}
        assert len(FeatureMemory(open_shelves(JsonlJournal(tmp_path)), ANN)) == 1202

    HOLDER = """
import sys
from memory_integrations import FeatureMemory, MemoryScope
from memory_integrations.features import open_shelves
from memory_integrations.journal import removed
from memory_integrations.journal_files import JsonlJournal
memory = FeatureMemory(open_shelves(JsonlJournal(sys.argv[1])), MemoryScope("ann"))
print(memory.get("secret"), flush=True)
sys.stdin.readline()
memory.refresh()
print(memory.get("secret"), memory.set("new", 1), flush=True)
"""

    def test_p24_erasing_while_another_process_holds_the_file(self, tmp_path: Path) -> None:
        journal = JsonlJournal(tmp_path)
        memory = FeatureMemory(open_shelves(journal), ANN)
        memory.set("secret", "hidden")
        holder = subprocess.Popen(
            [sys.executable, "-c", self.HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "hidden\n"
        assert memory.erase() == 1
        assert holder.communicate("go on\n", timeout=60)[0] == "None 1\n"
        memory.refresh()
        assert memory.all() == {"new": 1}
        assert not any(b"hidden" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


DAMAGE = {
    "garbage": b"garbage",
    "nothing": b"",
    "another JSON value": b"[1, 2]",
    "null": b"null",
    "an object that is no event": b"{}",
    "no time": b'{"kind":"set","key":"k","value":1}',
    "a time that is a number": b'{"at":5,"kind":"set","key":"k","value":1}',
    "a time that is none": b'{"at":"yesterday","kind":"set","key":"k","value":1}',
    "no kind": b'{"at":"2024-05-01T12:00:00+00:00","key":"k","value":1}',
    "a kind that is no text": b'{"at":"2024-05-01T12:00:00+00:00","kind":5}',
    "bytes that are no text": b"\xff\xfe\x00\x01",
    "null bytes": b"\0" * 40,
    "half a line": b'{"at":"2024-05-01T12:00:00+00:00","kind":"set","ke',
    "two lines in one": b"{}{}",
    "brackets without end": b"[" * 200_000,
}
damages = pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())


class TestCorruption:
    @damages
    def test_p27_a_corrupt_line_is_named_and_nothing_is_changed(self, journal: JsonlJournal, damage: bytes) -> None:
        """P27: a corrupt file is named, never reset."""
        written(journal, "one", "two", "three")
        before = spoil(journal, 3, damage)
        for attempt in (lambda: Reader(journal), lambda: FeatureMemory(open_shelves(journal), ANN)):
            with pytest.raises(StoreCorruptedError) as raised:
                attempt()
            assert str(journal.path(ANN)) in str(raised.value)
            assert "ine 3 " in str(raised.value)
            assert "repair" in str(raised.value), "it says what to do"
            assert len(str(raised.value)) < 1000
        assert journal.path(ANN).read_bytes() == before

    @damages
    def test_p27_repair_moves_the_line_aside_and_keeps_all_others(self, journal: JsonlJournal, damage: bytes) -> None:
        written(journal, "one", "two", "three")
        spoil(journal, 3, damage)
        assert journal.repair(ANN) == Repair(aside=1, lost=1, is_ordered=True)
        reader = Reader(JsonlJournal(journal.directory))
        assert [event.data.get("value") for event in reader.events if event.kind == "set"] == ["one", "three"]
        asides = [path for path in journal.directory.iterdir() if path != journal.path(ANN)]
        assert any(damage in path.read_bytes() for path in asides)
        assert journal.repair(ANN) == Repair()
        reader.append("four")

    def test_p27_repair_keeps_every_event_in_its_place(self, journal: JsonlJournal) -> None:
        """An undo names the number of the event that it undoes."""
        memory = FeatureMemory(open_shelves(journal), ANN)
        memory.set("a", 1)
        memory.set("b", 1)
        memory.undo(memory.set("b", 2))
        memory.set("c", 1)
        spoil(journal, 2, b"damage")
        journal.repair(ANN)
        assert FeatureMemory(open_shelves(JsonlJournal(journal.directory)), ANN).all() == {"b": 1, "c": 1}

    def test_p27_an_undo_of_what_was_lost_does_nothing(self, journal: JsonlJournal) -> None:
        memory = FeatureMemory(open_shelves(journal), ANN)
        memory.set("a", 1)
        memory.undo(memory.set("a", 2))
        memory.set("b", 1)
        spoil(journal, 3, b"damage")
        journal.repair(ANN)
        assert FeatureMemory(open_shelves(JsonlJournal(journal.directory)), ANN).all() == {"a": 1, "b": 1}

    @pytest.mark.parametrize("damage", [b"damage", b"", b"{}", b'{"scope":5}', b'{"scope":"nobody knows"}', b"\xff"])
    def test_p27_repair_writes_a_damaged_header_anew(self, journal: JsonlJournal, damage: bytes) -> None:
        written(journal, "one", "two")
        spoil(journal, 1, damage)
        journal.repair(ANN)
        assert reopened(journal) == ["one", "two"]
        assert journal.scopes() == [ANN]

    def test_p27_repair_of_a_journal_that_lost_its_first_line_keeps_the_numbers(self, journal: JsonlJournal) -> None:
        memory = FeatureMemory(open_shelves(journal), ANN)
        memory.undo(memory.set("a", 1))
        memory.set("b", 1)
        path = journal.path(ANN)
        path.write_bytes(path.read_bytes().partition(b"\n")[2])
        with pytest.raises(StoreCorruptedError, match=r"first line of .* is missing: .*facts repair --scope SCOPE"):
            journal.scopes()
        assert journal.repair(ANN) == Repair(is_ordered=True)
        assert journal.repair(ANN) == Repair()
        assert FeatureMemory(open_shelves(JsonlJournal(journal.directory)), ANN).all() == {"b": 1}
        assert journal.scopes() == [ANN]

    @pytest.mark.parametrize(
        ("disorder", "left", "lost"),
        [
            (lambda lines: [*lines[:2], *lines[3:]], ["one", "three", "four"], 1),
            (lambda lines: [*lines[:3], *lines[2:]], ["one", "two", "three", "four"], 0),
            (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], ["one", "two", "three", "four"], 0),
            (lambda lines: [lines[0], *lines[2:4]], ["two", "three"], 1),
        ],
        ids=["a line is missing", "a line is doubled", "two lines are swapped", "the first is missing"],
    )
    def test_p27_lines_that_are_missing_or_in_disorder_are_named_and_mended(
        self, journal: JsonlJournal, disorder: Callable[[list[bytes]], list[bytes]], left: list[str], lost: int
    ) -> None:
        written(journal, "one", "two", "three", "four")
        whole = events_of(journal, ANN)
        path = journal.path(ANN)
        path.write_bytes(b"".join(disorder(path.read_bytes().splitlines(keepends=True))))
        with pytest.raises(StoreCorruptedError, match=r"is event \d, where event \d is to follow: .*doctor --repair"):
            events_of(JsonlJournal(journal.directory), ANN)
        assert journal.repair(ANN) == Repair(lost=lost, is_ordered=True)
        fresh = JsonlJournal(journal.directory)
        assert [event.data["value"] for event in events_of(fresh, ANN) if event.kind == "set"] == left
        assert [event.number for event in events_of(fresh, ANN)] == list(range(1, len(left) + lost + 1))
        restored(fresh, ANN, whole)
        assert events_of(fresh, ANN) == whole, "a backup puts back what was lost"
        Reader(fresh).append("five")
        assert [event.number for event in events_of(fresh, ANN)] == [1, 2, 3, 4, 5]

    @pytest.mark.parametrize("junk", [b"", b"garbage", None], ids=["an empty line", "garbage", "a doubled line"])
    @pytest.mark.parametrize("at", [2, 3])
    def test_p27_what_says_its_number_is_kept_behind_what_says_none(
        self, journal: JsonlJournal, junk: bytes | None, at: int
    ) -> None:
        """A file of the former format that was written on."""
        written(journal, *"abcdef")
        path = journal.path(ANN)
        lines = path.read_bytes().splitlines()
        lines[1:6] = [re.sub(rb'"number":\d+,', b"", line) for line in lines[1:6]]
        lines.insert(at, lines[at - 1] if junk is None else junk)
        path.write_bytes(b"\n".join([*lines, b""]))
        journal.repair(ANN)
        left = [event.data.get("value") for event in events_of(JsonlJournal(journal.directory), ANN)]
        assert left[5:] == ["f"]
        assert junk is None or left == list("abcdef")

    def test_p27_a_damaged_number_is_believed_by_nobody(self, journal: JsonlJournal) -> None:
        written(journal, *"abcd")
        path = journal.path(ANN)
        path.write_bytes(path.read_bytes().replace(b'"number":2,', b'"number":222222,'))
        assert journal.repair(ANN).lost == 0
        assert reopened(journal) == list("abcd")

    def test_p27_a_last_event_that_lacks_its_line_end_alone_is_kept(self, journal: JsonlJournal) -> None:
        """Some editors leave it out."""
        written(journal, *"abc")
        path = journal.path(ANN)
        path.write_bytes(path.read_bytes().removesuffix(b"\n"))
        assert journal.repair(ANN).torn == 0
        assert reopened(journal) == list("abc")

    def test_lines_that_say_no_number_are_read(self, journal: JsonlJournal) -> None:
        written(journal, "one", "two")
        path = journal.path(ANN)
        path.write_bytes(re.sub(rb'"number":\d+,', b"", path.read_bytes()))
        assert reopened(journal) == ["one", "two"]
        assert journal.repair(ANN) == Repair()

    @pytest.mark.parametrize("scope", [5, "nobody knows", "user:a/session:b/session:c", None])
    def test_p27_a_header_that_names_no_scope_is_named_when_scopes_are_listed(
        self, journal: JsonlJournal, scope: Any
    ) -> None:
        written(journal, "one")
        spoil(journal, 1, json.dumps({"scope": scope, "format": 1}).encode())
        with pytest.raises(StoreCorruptedError, match="Line 1"):
            journal.scopes()

    def test_repairing_what_is_whole_or_absent_changes_nothing(self, journal: JsonlJournal) -> None:
        assert journal.repair(BOB) == Repair()
        assert not journal.path(BOB).exists()
        written(journal, "one")
        before = journal.path(ANN).read_bytes()
        assert journal.repair(ANN) == Repair()
        assert journal.path(ANN).read_bytes() == before

    def test_an_open_reader_goes_on_after_a_repair(self, journal: JsonlJournal) -> None:
        reader = written(journal, "one", "two")
        spoil(journal, 2, b"damage")
        JsonlJournal(journal.directory).repair(ANN)
        reader.append("three")
        kept = [event.data["value"] for event in reader.refreshed() if event.kind == "set"]
        assert kept == ["two", "three"]

    @given(st.data())
    def test_any_damaged_byte_is_read_or_reported(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        """No damage ends in another error than a StoreError, and repair always gets through."""
        journal = JsonlJournal(tmp_path_factory.mktemp("damaged"))
        memory = FeatureMemory(open_shelves(journal), ANN)
        memory.set("a", {"b": [1, None]}, confidence=0.5)
        memory.set("a", "<é>")
        memory.undo()
        memory.delete("a")
        journal.close()
        path = journal.path(ANN)
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content)
        try:
            FeatureMemory(open_shelves(JsonlJournal(journal.directory)), ANN).to_prompt(include_history=True)
        except StoreError:
            assert path.read_bytes() == content
        journal.repair(ANN)
        FeatureMemory(open_shelves(JsonlJournal(journal.directory)), ANN).set("a", 1)
        shutil.rmtree(journal.directory)

    def test_p30_a_time_without_a_zone_is_never_read_as_local(
        self, journal: JsonlJournal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written(journal, "one")
        spoil(journal, 2, b'{"at":"2024-05-01T12:00:00","kind":"set","key":"k","value":1}')
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        try:
            assert Reader(journal).events[0].at.hour == 12
        except StoreCorruptedError:
            pass
        finally:
            monkeypatch.undo()
            time.tzset()


class TestUnavailable:
    def test_a_directory_below_a_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        journal = JsonlJournal(tmp_path / "file" / "journal")
        with pytest.raises(StoreUnavailableError) as raised:
            Reader(journal)
        assert str(journal.path(ANN)) in str(raised.value)
        assert "data_dir" in str(raised.value), "it says what to do"

    def test_a_directory_that_is_a_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(StoreUnavailableError, match="file"):
            Reader(JsonlJournal(tmp_path / "file")).append()
        assert (tmp_path / "file").read_text() == "x"

    def test_a_directory_replaced_by_a_file_is_noticed(self, journal: JsonlJournal) -> None:
        reader = written(journal, "one")
        shutil.rmtree(journal.directory)
        journal.directory.write_text("x")
        for attempt in (reader.append, reader.refreshed):
            with pytest.raises(StoreUnavailableError):
                attempt()
        assert reader.values == ["one"]

    def test_a_journal_replaced_by_a_directory_is_noticed(self, journal: JsonlJournal) -> None:
        journal.path(ANN).mkdir(parents=True)
        with pytest.raises(StoreUnavailableError):
            written(journal, "one")

    def test_a_directory_that_was_removed_is_made_again(self, journal: JsonlJournal) -> None:
        reader = written(journal, "one")
        shutil.rmtree(journal.directory)
        assert reader.append("two").number == 1
        assert reader.values == reopened(journal) == ["two"]

    @pytest.mark.parametrize("room", range(0, 60, 7))
    def test_on_a_full_disk_nothing_is_half_written(self, journal: JsonlJournal, room: int) -> None:
        reader = written(journal, "one")
        before = journal.path(ANN).read_bytes()
        with disk_full_after(len(before) + room), pytest.raises(StoreUnavailableError, match="space"):
            reader.append("x" * 200)
        assert journal.path(ANN).read_bytes() == before
        assert reader.values == reopened(journal) == ["one"]
        reader.append("two")
        assert reader.values == reopened(journal) == ["one", "two"]

    @pytest.mark.parametrize("size", [0, 10, 60, 130])
    def test_a_full_disk_at_the_first_write_leaves_no_trace(self, journal: JsonlJournal, size: int) -> None:
        reader = Reader(journal)
        with disk_full_after(size), pytest.raises(StoreUnavailableError):
            reader.append("x" * 200)
        assert reader.values == reopened(journal) == []
        assert set(journal.scopes()) <= {ANN}
        reader.append("one")
        assert reader.values == reopened(journal) == ["one"]
        assert journal.scopes() == [ANN]

    def test_a_fact_that_could_not_be_written_did_not_change(self, journal: JsonlJournal) -> None:
        memory = FeatureMemory(open_shelves(journal), ANN)
        memory.set("city", "Lisbon")
        before = memory.to_prompt()
        with disk_full_after(journal.path(ANN).stat().st_size + 5):
            for change in (lambda: memory.set("city", "Porto"), lambda: memory.delete("city"), memory.undo):
                with pytest.raises(StoreUnavailableError):
                    change()
        assert memory.get("city") == "Lisbon"
        assert memory.to_prompt() == before

    def test_setting_a_torn_line_aside_on_a_full_disk_loses_nothing(self, journal: JsonlJournal) -> None:
        written(journal, "one")
        with journal.path(ANN).open("ab") as file:
            file.write(b'{"torn')
        before = journal.path(ANN).read_bytes()
        reader = Reader(journal)
        with disk_full_after(3), pytest.raises(StoreUnavailableError):
            reader.append("two")
        assert journal.path(ANN).read_bytes() == before
        reader.append("two")
        assert reopened(journal) == ["one", "two"]

    def test_a_repair_on_a_full_disk_loses_nothing(self, journal: JsonlJournal) -> None:
        written(journal, "one", "x" * 300, "three")
        before = spoil(journal, 2, b"damage")
        with disk_full_after(100), pytest.raises(StoreUnavailableError):
            journal.repair(ANN)
        assert journal.path(ANN).read_bytes() == before
        journal.repair(ANN)
        assert FeatureMemory(open_shelves(JsonlJournal(journal.directory)), ANN).get("k") == "three"


class TestP24Erasing:
    def test_p24_no_byte_stays_in_any_file_beside_the_journal(self, journal: JsonlJournal) -> None:
        """P24: after an erasure the text is in no file: not in what was torn, set aside or being rewritten."""
        reader = written(journal, "secret one", "secret two")
        with journal.path(ANN).open("ab") as file:
            file.write(b'{"value":"secret three')
        reader.append("secret four")
        spoil(journal, 2, b"secret five")
        journal.repair(ANN)
        assert len(list(journal.directory.iterdir())) == 3
        for suffix in (".rewritten", ".torn", ".aside"):  # as a crash in the middle of each would leave them
            Path(f"{journal.path(ANN)}{suffix}").write_text("secret six")
        written(journal, "kept", scope=BOB)
        Reader(journal).journal.erase()
        assert {path.name for path in journal.directory.iterdir()} == {journal.path(BOB).name}

    def test_p24_whoever_holds_the_file_open_reads_nothing_more(self, journal: JsonlJournal) -> None:
        reader = written(journal, "secret")
        with journal.path(ANN).open("rb") as held:
            reader.journal.erase()
            assert held.read() == b""

    def test_p24_what_was_removed_is_read_by_nobody_who_holds_the_file_open(self, journal: JsonlJournal) -> None:
        reader = written(journal, "secret", "kept")
        with journal.path(ANN).open("rb") as held:
            reader.journal.revise(lambda event: removed(event) if event.data["value"] == "secret" else event)
            assert held.read() == b""
        assert b"secret" not in b"".join(path.read_bytes() for path in journal.directory.iterdir())
        assert b"kept" in journal.path(ANN).read_bytes()

    def test_a_torn_line_is_set_aside_before_others_are_removed(self, journal: JsonlJournal) -> None:
        reader = written(journal, "one", "two")
        with journal.path(ANN).open("ab") as file:
            file.write(b'{"torn')
        reader.journal.revise(lambda event: removed(event) if event.number == 1 else event)
        assert [event.kind for event in reader.events] == ["removed", "set"]
        assert Path(f"{journal.path(ANN)}.torn").read_bytes() == b'{"torn\n'

    def test_p24_a_corrupt_journal_can_be_erased(self, journal: JsonlJournal) -> None:
        reader = written(journal, "secret")
        spoil(journal, 1, b"damaged secret")
        assert reader.journal.erase() == 1
        assert not list(journal.directory.iterdir())

    def test_p24_a_journal_that_cannot_even_be_opened_can_be_erased(self, journal: JsonlJournal) -> None:
        written(journal, "secret", "secret")
        spoil(journal, 2, b"damage")
        JsonlScopeJournal(JsonlJournal(journal.directory), ANN, lambda event: None, lambda events: None).erase()
        assert not list(journal.directory.iterdir())

    def test_the_default_clock_is_utc(self, tmp_path: Path) -> None:
        before = utc_now()
        event = written(JsonlJournal(tmp_path), 1).events[0]
        assert before <= event.at <= utc_now()


# Two journals of one scope


def texts_in(value: Any) -> set[str]:
    """Every text that a JSON value says, but for the empty one."""
    if isinstance(value, dict):
        return set().union(*map(texts_in, value.values()))
    if isinstance(value, list):
        return set().union(*map(texts_in, value))
    return {value} - {""} if isinstance(value, str) else set()


def revisions(value: Any) -> st.SearchStrategy[Any]:
    """What may be left of a JSON value: texts may be blank, and items may be missing."""
    if isinstance(value, str):
        return st.sampled_from([value, ""])
    if isinstance(value, dict):
        return st.fixed_dictionaries({key: revisions(inner) for key, inner in value.items()})
    if isinstance(value, list):
        kept = st.tuples(*(st.tuples(st.booleans(), revisions(item)) for item in value))
        return kept.map(lambda items: [item for is_kept, item in items if is_kept])
    return st.just(value)


def versions(event: Event) -> st.SearchStrategy[Event]:
    """What a journal may have of an event."""
    part = revisions(dict(event.data)).map(lambda data: revised(event, data))
    return st.sampled_from(["told", "removed", *["part"] * 4]).flatmap(
        lambda what: part if what == "part" else st.just(event if what == "told" else removed(event))
    )


of_decisions = st.integers(2, 4).map(
    lambda count: {"decisions": [{"entry_id": number, "reason": f"reason {number}"} for number in range(count)]}
)
of_anything = st.dictionaries(st.sampled_from("abc"), json_values, max_size=3)


def two_versions(data: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Event, Event]]:
    events = data.map(lambda data: Event(1, START, "manage", data))
    return events.flatmap(lambda event: st.tuples(versions(event), versions(event)))


@given(two_versions(of_decisions) | two_versions(of_anything))
def test_p24_two_journals_together_say_what_both_say_whichever_comes_first(both: tuple[Event, Event]) -> None:
    """P24: merging is commutative and idempotent, and holds no text that either side lacks."""
    one, other = both
    together = merged(one, other)
    assert together is not None
    assert together == merged(other, one)
    assert merged(one, one) is one
    assert merged(together, together) is together
    assert texts_in(dict(together.data)) <= texts_in(dict(one.data)) & texts_in(dict(other.data))


@given(two_versions(of_decisions))
def test_what_two_journals_say_together_is_not_changed_by_either_of_them(both: tuple[Event, Event]) -> None:
    one, other = both
    together = merged(one, other)
    assert together is not None
    assert merged(together, one) is merged(together, other) is together


def test_lists_in_lists_are_compared_once() -> None:
    """Anybody may have made an archive."""
    one, other = "one", "other"
    for _ in range(110):
        one, other = [one], [other]  # type: ignore[assignment]
    first, second = (revised(Event(1, START, "manage", {}), {"decisions": value}) for value in (one, other))
    with time_limit(5):
        assert merged(first, second) is not None
