"""Killed at random moments of mixed work, again and again on one directory: nothing that was acknowledged is lost.

``crash_work.py`` is what is killed. After each death another process opens the same stores and finds what was
acknowledged, what was under way either whole or not at all, and nothing of what was erased. Then the next one goes on.
"""

from __future__ import annotations

import json
import random
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import crash_work
import postgres
import pytest
from sparse import content

from memory_integrations import MemoryManager, MemoryScope, Message

TOKEN = re.compile(rb"token-[\d-]+-of-[a-z-]*[a-z]")
Scope = tuple[str, str]


@dataclass
class Known:
    """What was acknowledged, by the lines that the workers wrote."""

    acknowledged: int = 0
    number: int = 1
    facts: dict[str, list[tuple[str, str | None]]] = field(default_factory=dict)
    """Of each user, the changes that stand; None is a deletion."""
    said: dict[Scope, dict[str, str]] = field(default_factory=dict)
    """Of each session, the messages by their ids."""
    deleted: dict[Scope, set[str]] = field(default_factory=dict)
    shorter: dict[Scope, dict[str, str]] = field(default_factory=dict)
    summaries: dict[str, dict[str, int]] = field(default_factory=dict)
    erased: set[bytes] = field(default_factory=set)
    ever: dict[str, set[bytes]] = field(default_factory=dict)
    """Of each user the facts that were set since the last erasure, also those that were undone or overwritten."""

    def take(self, lines: list[list[Any]]) -> dict[str, Any] | None:
        """Take in what was acknowledged; returns what was under way."""
        begun: dict[str, Any] | None = None
        for kind, number, fields in lines:
            self.number = number + 1
            if kind == "begin":
                begun = {**fields, "number": number}
                continue
            assert kind == "done" and begun is not None, fields
            self.acknowledged += 1
            self.do({**begun, **fields})
            begun = None
        return begun

    def do(self, what: dict[str, Any]) -> None:
        """Take in what was done."""
        number, user, scope = what["number"], what["user"], (what["user"], what["session"])
        changes = self.facts.setdefault(user, [])
        match what["do"]:
            case "set":
                changes.append((what["key"], crash_work.fact(number)))
                self.ever.setdefault(user, set()).add(crash_work.fact(number).encode())
            case "delete":
                if what["key"] in current(changes):
                    changes.append((what["key"], None))
            case "undo":
                del changes[-1:]
            case "turn":
                said = (crash_work.said(number), crash_work.answered(number))
                self.said.setdefault(scope, {}).update(zip(what["ids"], said, strict=True))
            case "manage":
                changes += map(tuple, what["facts"])
                self.deleted.setdefault(scope, set()).update(what["deleted"])
                self.shorter.setdefault(scope, {}).update(what["shorter"])
            case "ingest":
                self.said.setdefault((user, "files"), {}).update(crash_work.lines_of_file(number))
            case "summary":
                self.summaries.setdefault(user, {})[what["name"]] = number
            case "erase":
                self.forget(scope)
            case "erase user":
                for one in [scope for scope in self.said if scope[0] == user]:
                    self.forget(one)
                self.erased |= self.ever.pop(user, set())
                texts = (crash_work.summary(number) for number in self.summaries.pop(user, {}).values())
                self.erased |= {token for text in texts for token in TOKEN.findall(text.encode())}
                changes.clear()

    def forget(self, scope: Scope) -> None:
        texts = self.said.pop(scope, {}).values()
        self.erased |= {token for text in texts for token in TOKEN.findall(text.encode())}
        self.deleted.pop(scope, None)
        self.shorter.pop(scope, None)


def current(changes: list[tuple[str, str | None]]) -> dict[str, str]:
    """The facts that hold after these changes."""
    return {key: value for key, value in dict(changes).items() if value is not None}


@dataclass
class Round:
    """What is there after a death, held against what was acknowledged."""

    known: Known
    under_way: dict[str, Any]
    memory: MemoryManager

    def is_under_way(self, *what: str, user: str | None = None, session: str | None = None) -> bool:
        here = self.under_way
        return (
            here.get("do") in what
            and user in (None, here["user"])
            and (session in (None, here["session"]) or here["do"] == "erase user")
        )

    def check(self) -> None:
        for user in crash_work.USERS:
            self.check_facts(user)
            self.check_messages(user)
        for user in crash_work.USERS:
            for session in crash_work.SESSIONS:
                self.check_session(user, session)
        if self.is_under_way("erase", "erase user"):  # again, it goes on where it stopped
            session = self.under_way["session"] if self.is_under_way("erase") else None
            self.memory.for_scope(MemoryScope(self.under_way["user"], session)).erase()
            self.known.do(self.under_way)

    def check_facts(self, user: str) -> None:
        """The facts are as they were acknowledged, or with what was under way; of a run the first ones may be."""
        before = self.known.facts.setdefault(user, [])
        possible = [before]
        if self.is_under_way("set", "delete", "undo", "manage", "erase user", user=user):
            facts = [tuple(fact) for fact in self.under_way.get("facts", ())]
            if facts:
                possible = [[*before, *facts[:count]] for count in range(len(facts) + 1)]
            else:
                after = Known(facts={user: list(before)})
                after.do({**self.under_way, "deleted": (), "shorter": {}, "facts": ()})
                possible.append(after.facts[user])
        there = self.memory.for_scope(MemoryScope(user)).features.all()
        fitting = [changes for changes in possible if current(changes) == there]
        assert fitting, (user, there, [current(changes) for changes in possible], self.under_way)
        self.known.facts[user] = list(fitting[-1])

    def check_messages(self, user: str) -> None:
        """Every message is whole; none is missing that was acknowledged, and none is there that was erased."""
        memory = self.memory.for_scope(MemoryScope(user))
        there: dict[Scope, dict[str, str]] = {}
        summaries: dict[str, str] = {}
        for message in memory.long_term.messages():
            if message.role == "file":
                summaries[str(message.name)] = str(message.content)
            else:
                there.setdefault((user, str(message.session_id)), {})[str(message.id)] = str(message.content)
        number = self.under_way.get("number", 0)
        for scope in there.keys() | {scope for scope in self.known.said if scope[0] == user}:
            acknowledged, found = self.known.said.get(scope, {}), there.get(scope, {})
            lost = acknowledged.keys() - found.keys()
            erasing = self.is_under_way("erase", "erase user", user=user, session=scope[1])
            assert not lost or erasing, (scope, lost, self.under_way)
            for id_ in acknowledged.keys() & found.keys():
                assert found[id_] == acknowledged[id_], f"{id_} of {scope} is not what was said: {self.under_way}"
            more = {id_: text for id_, text in found.items() if id_ not in acknowledged}
            new: list[str] = []
            if self.is_under_way("turn", user=user, session=scope[1]):
                new = [crash_work.said(number), crash_work.answered(number)]
            elif self.is_under_way("ingest", user=user) and scope[1] == "files":
                new = list(crash_work.lines_of_file(number).values())
            assert set(more.values()) <= set(new), (scope, [text[:90] for text in more.values()], self.under_way)
            if more:
                self.known.said.setdefault(scope, {}).update(more)
        for name, acknowledged_summary in self.known.summaries.get(user, {}).items():
            possible = {crash_work.summary(acknowledged_summary)}
            if self.is_under_way("summary", user=user) and self.under_way["name"] == name:
                possible.add(crash_work.summary(number))
            assert summaries.pop(name, None) in possible or self.is_under_way("erase user", user=user), name
        if self.is_under_way("summary", user=user):
            name = self.under_way["name"]
            assert summaries.pop(name, crash_work.summary(number)) == crash_work.summary(number)
            mine = self.known.summaries.setdefault(user, {})
            if memory.long_term.search(f"token-{number}-of-a-summary", 1):
                text = next((str(m.content) for m in memory.long_term.messages() if m.name == name), None)
                if text == crash_work.summary(number):
                    mine[name] = number
        assert not summaries or self.is_under_way("erase user", user=user), summaries

    def check_session(self, user: str, session: str) -> None:
        """A resumed conversation is as it was managed: what was deleted stays away, what was compressed is short."""
        scope, memory = (user, session), self.memory.for_scope(MemoryScope(user, session))
        if self.is_under_way("erase", "erase user", user=user, session=session):
            return
        memory.resume()
        entries = {entry.id: entry for entry in memory.short_term.entries}
        deleted, shorter = self.known.deleted.get(scope, set()), self.known.shorter.get(scope, {})
        if self.is_under_way("manage", user=user, session=session):
            done = [id_ not in entries for id_ in self.under_way["deleted"]]
            done += [entries[id_].content == text for id_, text in self.under_way["shorter"].items()]
            assert len(set(done)) <= 1, f"a run that was half written down: {self.under_way}"
            if done and done[0]:
                self.known.deleted[scope] = deleted = deleted | set(self.under_way["deleted"])
                self.known.shorter[scope] = shorter = {**shorter, **self.under_way["shorter"]}
        said = self.known.said.get(scope, {})
        assert entries.keys() == said.keys() - deleted, (scope, self.under_way)
        for id_, entry in entries.items():
            assert entry.content == shorter.get(id_, said[id_])
            assert (entry.original or entry.message).text == said[id_], "what was said in full is kept"
        if said:
            last, text = list(said.items())[-1]
            found = memory.long_term.search(text[:200], 1000, distinct=False)
            assert last in {id_ for hit in found for id_ in hit.message_ids}, text[:60]


def check_files(place: Path, erased: set[bytes]) -> None:
    """Nothing of what was erased is in any file."""
    for path in place.rglob("*"):
        if path.is_file():
            back = erased.intersection(TOKEN.findall(content(path)))
            assert not back, f"erased, and in {path}: {sorted(back)[:5]}"


class Place:
    """A directory and a journal's URL."""

    def __init__(self, directory: Path, journal: str, server: str | None) -> None:
        self.directory = directory / "place"
        self.directory.mkdir()
        self.url: str | None = None
        if journal == "sqlite":
            self.url = f"sqlite:///{self.directory}/journal.db"
        elif journal == "postgresql":
            assert server is not None
            self.url = postgres.new_database(server)

    def settle(self) -> None:
        """Wait until a server has noticed the death: it may commit what it was told in the last moment."""
        if self.url is None or not self.url.startswith("postgresql"):
            return
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            while connection.execute(f"SELECT count(*) {others}").fetchone() != (0,):
                time.sleep(0.01)

    @contextmanager
    def opened(self) -> Iterator[MemoryManager]:
        data = self.directory / "data"
        with MemoryManager(data_dir=data, journal_url=self.url, short_term_policy=crash_work.POLICY) as memory:
            yield memory


def lines_of(told: Path) -> list[list[Any]]:
    """What a worker wrote, but for a last line that it did not end."""
    if not told.exists():
        return []
    return [json.loads(line) for line in told.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def killed(workers: ForkServerContext, place: Place, told: Path, seed: int, number: int, most: int) -> None:
    """Let a worker work, and kill it: mostly some moments after so many of its lines, now and then while it opens."""
    chance = random.Random(seed)
    arguments = (str(place.directory / "data"), place.url, str(told), seed, number)
    worker = workers.Process(target=crash_work.work, args=arguments, daemon=True)
    worker.start()
    lines = 0 if seed % 5 == 4 else chance.randint(1, most)
    while len(lines_of(told)) < lines:
        assert worker.is_alive(), f"it died by itself: {lines_of(told)[-1:]}"
        time.sleep(0.005)
    time.sleep(chance.uniform(0, 0.3 if lines == 0 else 0.03))
    worker.kill()
    worker.join()


@pytest.mark.parametrize("journal", ["jsonl", "sqlite", "postgresql"])
def test_killed_at_any_moment_nothing_acknowledged_is_lost(
    tmp_path: Path, journal: str, workers: ForkServerContext, long_run: bool, request: pytest.FixtureRequest
) -> None:
    """P27, for the whole of it: facts, turns, managing, files, erasures."""
    place = Place(tmp_path, journal, request.getfixturevalue("postgresql") if journal == "postgresql" else None)
    known, rounds = Known(), 50 if long_run else 3
    for round_ in range(rounds):
        told = tmp_path / f"told-{round_}"
        killed(workers, place, told, round_, known.number, 200 if long_run else 30)
        place.settle()
        under_way = known.take(lines_of(told)) or {}
        with place.opened() as memory:
            Round(known, under_way, memory).check()
        check_files(place.directory, known.erased)
        told.unlink(missing_ok=True)
    assert known.acknowledged > rounds * 3
    print(f"\n{journal}: {rounds} rounds, {known.acknowledged} acknowledged, {len(known.erased)} erased, 0 lost")


@pytest.mark.parametrize(
    ("moment", "left"),
    [
        ("a message", ["before", "yes"]),
        ("the end of a summary", ["between", "yes", crash_work.long_text(2)[:3_000]]),
        ("the rest of a summary", [crash_work.long_text(1)[:9_000], "between", "yes"]),
        ("an erasure", [crash_work.long_text(1)[:9_000]]),
    ],
)
def test_what_died_between_two_writes_is_never_shown_by_half(
    tmp_path: Path, workers: ForkServerContext, moment: str, left: list[str]
) -> None:
    worker = workers.Process(target=crash_work.die_within, args=(str(tmp_path), moment))
    worker.start()
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
    with MemoryManager("user:ann/session:s", data_dir=tmp_path) as memory:
        assert [message.content for message in memory.long_term.messages()] == left
        said = left if moment == "an erasure" else [text for text in left if len(text) < 10]
        assert [message.content for message in memory.resume()] == said
        if "summary" in moment:  # put anew it is there
            memory.store_file_summary("notes", "Of boats alone.")
            assert [message.content for message in memory.long_term.messages()] == ["between", "yes", "Of boats alone."]
            assert not any("tells of" in hit.text for hit in memory.long_term.search("boats and tea", 50))
        memory.erase()
        memory.for_scope("user:ann").erase()
        assert list(memory.long_term.messages()) == [] and memory.long_term.count() == 0
    assert not any(b"tells of boats" in content(path) for path in tmp_path.rglob("*") if path.is_file())


def test_a_long_message_is_whole_or_it_is_not_there(tmp_path: Path, workers: ForkServerContext, long_run: bool) -> None:
    """Its pieces are more than one write of the engine: a death between two leaves some of them."""
    data, told, chance = tmp_path / "data", tmp_path / "told", random.Random(1)
    number = 0
    for _ in range(40 if long_run else 1):
        worker = workers.Process(target=crash_work.tell_at_length, args=(str(data), str(told), number), daemon=True)
        begun = len(lines_of(told))
        worker.start()
        while len(lines_of(told)) <= begun + 1:
            assert worker.is_alive()
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.1))
        worker.kill()
        worker.join()
        lines = lines_of(told)
        acknowledged = {line for line in lines if lines.count(line) > 1}
        number = int(lines[-1]) + 1  # type: ignore[call-overload]
        with MemoryManager("user:ann/session:s", data_dir=data) as memory:
            there = {str(message.id): str(message.content) for message in memory.long_term.messages()}
            assert there.keys() >= {f"long-{n}" for n in acknowledged}
            for id_, text in there.items():
                assert text == crash_work.long_text(int(id_.removeprefix("long-"))), f"half of {id_}"
            cut = number - 1
            memory.long_term.store_messages([Message("user", crash_work.long_text(cut), id=f"long-{cut}")])
            assert crash_work.long_text(cut) in {message.content for message in memory.long_term.messages()}
            assert memory.long_term.count() == number, "told again it is there once"
