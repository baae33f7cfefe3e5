"""The journal in a database: the conformance suite on SQLite and on a real PostgreSQL, and what databases bring."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import re
import sqlite3
import traceback
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import postgres
import pytest
from journal_conformance import ANN, BOB, JournalConformance, Reader
from strategies import Clock, time_limit

pytest.importorskip("sqlalchemy")
pytest.importorskip("psycopg")

from memory_integrations import (
    FeatureMemory,
    MemoryManager,
    MemoryScope,
    StoreCorruptedError,
    StoreUnavailableError,
    journal_sql,
)
from memory_integrations.features import open_shelves
from memory_integrations.journal import Repair, removed
from memory_integrations.journal_sql import SqlJournal


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/journal.db"
    return postgres.new_database(request.getfixturevalue("postgresql"))


class TestOnSqlite(JournalConformance):
    def open_journal(self, place: Path, clock: Clock) -> SqlJournal:
        return SqlJournal(f"sqlite:///{place}.db", clock)


class TestOnPostgreSQL(JournalConformance):
    """Each place is a database of its own."""

    @pytest.fixture(autouse=True)
    def _databases(self, postgresql: str) -> None:
        self._server = postgresql
        self._made: dict[Path, str] = {}

    def open_journal(self, place: Path, clock: Clock) -> SqlJournal:
        if place not in self._made:
            self._made[place] = postgres.new_database(self._server)
        return SqlJournal(self._made[place], clock)


@pytest.fixture
def journal(url: str, clock: Clock) -> Iterator[SqlJournal]:
    journal = SqlJournal(url, clock)
    yield journal
    journal.close()


# Several machines: P27


def write_facts(url: str, worker: int, count: int) -> None:
    journal = SqlJournal(url)
    features = FeatureMemory(open_shelves(journal), MemoryScope("ann"))
    for number in range(count):
        features.set(f"{worker}-{number}", number)
    journal.close()


def test_p27_processes_that_set_facts_at_once_lose_none(url: str, long_run: bool) -> None:
    context = multiprocessing.get_context("spawn")
    processes, each = (8, 1000) if long_run else (4, 25)
    workers = [context.Process(target=write_facts, args=(url, worker, each)) for worker in range(processes)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(300)
        assert worker.exitcode == 0
    journal = SqlJournal(url)
    try:
        reader = Reader(journal)
        assert [event.number for event in reader.events] == list(range(1, each * processes + 1))
        for worker in range(processes):
            mine = [e.data["value"] for e in reader.events if e.data["key"].startswith(f"{worker}-")]
            assert mine == list(range(each)), "each one's order is kept"
    finally:
        journal.close()


def test_two_that_undo_at_once_take_back_two_changes(url: str) -> None:
    one, two = SqlJournal(url), SqlJournal(url)
    ours, others = (FeatureMemory(open_shelves(journal), ANN) for journal in (one, two))
    first, *_ = [ours.set(key, 1) for key in "abc"]
    now, told = one.clock, []

    def meanwhile() -> datetime:
        """The other one is between our look and our write."""
        one.clock = now
        told.append(others.undo())
        return now()

    one.clock = meanwhile
    assert (ours.undo(), told) == ("b", ["c"])
    one.clock = meanwhile
    assert (ours.undo(first), told) == (None, ["c", "a"])
    assert ours.all() == {}
    for journal in (one, two):
        journal.close()


def test_an_undo_of_what_is_erased_meanwhile_takes_back_nothing_else(url: str) -> None:
    one, two = SqlJournal(url), SqlJournal(url)
    ours, others = (FeatureMemory(open_shelves(journal), ANN) for journal in (one, two))
    ours.set("name", "Ann")
    ours.set("city", "Paris")
    now = one.clock

    def meanwhile() -> datetime:
        one.clock = now
        others.erase("city")
        return now()

    one.clock = meanwhile
    assert ours.undo() is None
    assert ours.all() == {"name": "Ann"}
    for journal in (one, two):
        journal.close()


def test_a_schema_that_may_not_be_used_is_no_empty_journal(postgresql: str) -> None:
    with contextlib.closing(SqlJournal(postgres.new_database(postgresql))) as journal:
        Reader(journal).append("one")
        with journal.writing() as database:
            database.exec_driver_sql("ALTER SCHEMA public RENAME TO elsewhere")
        journal.close()
        with pytest.raises(StoreUnavailableError, match="schema"):
            Reader(journal)


def test_many_threads_begin_on_an_empty_database_at_once(url: str) -> None:
    journals = [SqlJournal(url) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda journal: Reader(journal).append().number, journals))
    assert sorted(numbers) == list(range(1, 9))
    for journal in journals:
        journal.close()


def test_a_forked_process_connects_anew(url: str) -> None:
    journal = SqlJournal(url)
    reader = Reader(journal)
    reader.append("parent")
    child = multiprocessing.get_context("fork").Process(target=reader.append, args=("child",))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    reader.append("parent again")
    assert reader.values == ["parent", "child", "parent again"]
    journal.close()


# Faults


def test_a_connection_that_was_cut_is_made_again(postgresql: str) -> None:
    url = postgres.new_database(postgresql)
    journal = SqlJournal(url)
    reader = Reader(journal)
    reader.append("before")
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
            "AND datname = current_database()"
        )
    assert reader.append("after").number == 2
    assert [event.data["value"] for event in reader.refreshed()] == ["before", "after"]
    journal.close()


def test_a_server_that_was_restarted_is_connected_to_anew(postgresql: str) -> None:
    journal = SqlJournal(postgres.new_database(postgresql))
    reader = Reader(journal)
    reader.append("before")
    postgres.restart(postgresql)
    assert reader.append("after").number == 2
    journal.close()


def test_nobody_waits_for_ever_for_a_machine_that_vanished(postgresql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg

    monkeypatch.setattr(journal_sql, "_WAIT", 1)
    url = postgres.new_database(postgresql)
    journal = SqlJournal(url)
    reader = Reader(journal)
    reader.append("before")
    with psycopg.connect(url) as vanished:
        vanished.execute("SELECT * FROM memory_journal_scopes FOR UPDATE")
        with time_limit(20), pytest.raises(StoreUnavailableError, match="lock timeout"):
            reader.append("in vain")
    assert reader.append("after").number == 2
    journal.close()


def test_writers_see_each_other_whatever_the_servers_default_is(postgresql: str) -> None:
    import psycopg

    url = postgres.new_database(postgresql)
    with psycopg.connect(url, autocommit=True) as database:
        name = database.info.dbname
        database.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'".encode())
    journal = SqlJournal(url)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(write_facts, url, worker, 20) for worker in range(4)]:
            done.result()
    assert len(Reader(journal).events) == 80
    journal.close()


def test_more_threads_than_connections_wait_for_their_turns(postgresql: str) -> None:
    journal = SqlJournal(postgres.new_database(postgresql))
    with ThreadPoolExecutor(40) as pool:
        list(pool.map(lambda user: Reader(journal, MemoryScope(f"{user}")).append("said"), range(80)))
    assert len(journal.scopes()) == 80
    journal.close()


def test_a_write_that_is_refused_tells_nothing_of_what_was_to_be_written(tmp_path: Path) -> None:
    """Whoever logs an error with its traceback writes no fact into a log."""
    journal = SqlJournal(f"sqlite:///{tmp_path}/journal.db")
    reader = Reader(journal)
    reader.append("before")
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.db")) as database:
        database.execute(
            "CREATE TRIGGER no BEFORE INSERT ON memory_journal_events BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
    with pytest.raises(StoreUnavailableError, match="refused") as caught:
        reader.append("-".join(["4", "7", "1", "1"]))  # else this line itself would be found
    assert "4-7-1-1" not in "".join(traceback.format_exception(caught.value))
    journal.close()


def test_an_sqlite_file_is_its_owners_alone(tmp_path: Path) -> None:
    journal = SqlJournal(f"sqlite:///{tmp_path}/journal.db")
    Reader(journal).append("before")
    journal.close()
    assert (tmp_path / "journal.db").stat().st_mode & 0o777 == 0o600


def test_a_row_that_names_no_scope_is_damage(url: str, journal: SqlJournal, tmp_path: Path) -> None:
    Reader(journal).append("before")
    with journal.writing() as database:
        database.exec_driver_sql("UPDATE memory_journal_scopes SET scope = 'none'")
    with pytest.raises(StoreCorruptedError, match="names no scope: 'none'"):
        journal.scopes()
    with MemoryManager("user:ann", journal_url=url, data_dir=tmp_path / "data") as memory:
        assert any("names no scope" in finding.problem for finding in memory.examine())


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://nobody:hunter2@/nothing?host=/tmp/there-is-no-such-directory",
        "sqlite:////proc/no/such/directory/journal.db",
    ],
)
def test_a_database_that_does_not_answer_is_named_without_its_password(url: str) -> None:
    with pytest.raises(StoreUnavailableError) as caught:
        Reader(SqlJournal(url))
    assert "hunter2" not in str(caught.value)
    assert "Nothing was written" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense", "mysql://x/y", "sqlite://", "sqlite:///:memory:", "", "postgresql://ann:hunter2@host:port/x",
        "sqlite:///q\udcff.db", "sqlite:///q.db?timeout=abc", "sqlite:///q.db?cached_statements=x", "sqlite+x:///q.db",
        "sqlite+aiosqlite:///q.db", Path("q.db"),
    ],
)  # fmt: skip
def test_what_is_no_url_of_ours_is_refused_at_once(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreUnavailableError, match="Expected postgresql://"):
        MemoryManager(journal_url=url, data_dir=tmp_path)


@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1252", "SQL_ASCII"])
def test_a_database_that_has_not_all_characters_is_refused_at_once(postgresql: str, encoding: str) -> None:
    with pytest.raises(StoreUnavailableError, match=f"encoding is {encoding}.*ENCODING 'UTF8'"):
        Reader(SqlJournal(postgres.new_database(postgresql, encoding)))


def test_what_is_written_is_utf8_whatever_else_a_connection_is_told(
    postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.new_database(postgresql)
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    for given in (url, f"{url}&client_encoding=latin1"):
        with contextlib.closing(SqlJournal(given)) as journal:
            Reader(journal).append("Łódź 🙂")
    with contextlib.closing(SqlJournal(url)) as journal:
        assert Reader(journal).values == ["Łódź 🙂"] * 2


def test_a_write_that_fails_changes_nothing(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "journal.db"
    journal = SqlJournal(f"sqlite:///{path}", clock)
    reader = Reader(journal)
    reader.append("before")
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(
            "CREATE TRIGGER full BEFORE INSERT ON memory_journal_events "
            "BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END"
        )
        database.commit()
        with pytest.raises(StoreUnavailableError, match="disk I/O error"):
            reader.append("lost")
        database.execute("DROP TRIGGER full")
        database.commit()
    assert reader.append("after").number == 2
    assert reader.values == ["before", "after"]
    journal.close()


@pytest.mark.parametrize("damage", ["no database", "a page of zeros"])
def test_a_damaged_file_says_so(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "journal.db"
    journal = SqlJournal(f"sqlite:///{path}")
    for number in range(50):
        Reader(journal).append("x" * number)
    journal.close()
    content = bytearray(path.read_bytes())
    at = 0 if damage == "no database" else 4096
    content[at : at + 4096] = b"\0" * 4096 if at else b"nonsense" * 512
    path.write_bytes(content)
    with pytest.raises(StoreCorruptedError, match=r"journal\.db is damaged.*Restore it from a backup"):
        Reader(journal)
    assert path.read_bytes() == content
    journal.close()


def test_a_commit_whose_answer_is_lost_is_not_said_to_have_failed(postgresql: str) -> None:
    from sqlalchemy import event

    journal = SqlJournal(postgres.new_database(postgresql))
    reader = Reader(journal)
    reader.append("before")
    engine = journal._connected()

    def cut(connection: Any) -> None:
        mine = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        with engine.connect() as other:
            other.exec_driver_sql(f"SELECT pg_terminate_backend({mine}, 5000)")

    event.listen(engine, "commit", cut)
    with pytest.raises(StoreUnavailableError, match=r"lost while it committed.*not known"):
        reader.append("perhaps")
    event.remove(engine, "commit", cut)
    assert reader.append("after").number == 2
    assert reader.values == ["before", "after"]
    journal.close()


def test_what_is_written_while_nothing_is_erased_stays(postgresql: str) -> None:
    from sqlalchemy import event

    url = postgres.new_database(postgresql)
    one, other = SqlJournal(url), SqlJournal(url)
    eraser = Reader(one)

    def write_first(_: Any, __: Any, statement: str, *more: Any) -> None:
        if "FOR UPDATE" in statement:
            Reader(other).append("first")

    event.listen(one._connected(), "after_cursor_execute", write_first)
    assert eraser.journal.erase() == 0
    event.remove(one._connected(), "after_cursor_execute", write_first)
    assert [set_to.data["value"] for set_to in eraser.refreshed()] == ["first"]
    assert Reader(other).append("second").number == 2
    one.close()
    other.close()


def test_a_row_that_is_no_event_is_named_and_nothing_is_changed(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "journal.db"
    journal = SqlJournal(f"sqlite:///{path}", clock)
    reader = Reader(journal)
    for value in range(3):
        reader.append(value)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE memory_journal_events SET line = '{half' WHERE number = 2")
        database.commit()
    other = SqlJournal(f"sqlite:///{path}", clock)
    with pytest.raises(StoreCorruptedError, match="Row 2 of user:ann"):
        Reader(other)
    other.close()
    journal.close()


# Erasing: P24


def test_p24_nothing_erased_is_left_in_an_sqlite_file(tmp_path: Path, clock: Clock) -> None:
    journal = SqlJournal(f"sqlite:///{tmp_path}/journal.db", clock)
    secrets = [f"secret-{uuid.uuid4()}" for _ in range(200)]
    reader, other = Reader(journal), Reader(journal, BOB)
    for secret in secrets:
        reader.append(secret)
        other.append("stays")
    assert reader.journal.erase() == 200
    journal.close()
    left = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert not [secret for secret in secrets if secret.encode() in left]
    assert b"stays" in left


@pytest.mark.parametrize("seed", [0, 2, 4, 6])
def test_p24_what_sqlite_moved_about_in_its_pages_is_gone_too(tmp_path: Path, clock: Clock, seed: int) -> None:
    """It leaves copies of rows behind when it balances its pages, which its ``secure_delete`` does not see."""
    chance, scopes = random.Random(seed), [MemoryScope(user, session) for user in "ab" for session in "123"]
    there = {scope: set[bytes]() for scope in scopes}
    journal = SqlJournal(f"sqlite:///{tmp_path}/journal.db", clock)
    readers = {scope: Reader(journal, scope) for scope in there}
    for number in range(1500):
        scope = chance.choice(scopes)
        if chance.random() < 0.97:
            readers[scope].append(f"token-{number}-" + "y" * chance.choice([100, 150, 300, 800, 3_000, 6_000]))
            there[scope].add(str(number).encode())
            continue
        one = readers[scope].journal
        one.erase() if chance.random() < 0.7 else one.revise(removed)
        there[scope].clear()
        found = set(re.findall(rb"token-(\d+)-", (tmp_path / "journal.db").read_bytes()))
        assert found == set().union(*there.values())
    journal.close()


@pytest.fixture
def parted(tmp_path: Path) -> Iterator[SqlJournal]:
    """Holds what is to be removed, and a copy of it that SQLite left."""
    path = tmp_path / "journal.db"
    journal = SqlJournal(f"sqlite:///{path}")
    Reader(journal).append("goes")
    Reader(journal, BOB).append("stays")
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA secure_delete=OFF")
        database.execute("INSERT INTO memory_journal_events SELECT 'copy', 1, line FROM memory_journal_events LIMIT 1")
        database.execute("DELETE FROM memory_journal_events WHERE scope_key = 'copy'")
        # Another program's tables stand in the same file, with what only that program knows.
        database.create_collation("theirs", lambda one, other: (one > other) - (one < other))
        database.execute("CREATE TABLE others (name TEXT COLLATE theirs UNIQUE)")
        database.execute("INSERT INTO others VALUES ('a'), ('b')")
        database.commit()
    yield journal
    journal.close()


def assert_gone(place: Path) -> None:
    left = b"".join(path.read_bytes() for path in place.iterdir() if path.is_file())
    assert b"goes" not in left and b"stays" in left


@pytest.mark.parametrize("how", ["erase", "revise"])
def test_p24_a_removal_takes_what_is_between_the_pages(parted: SqlJournal, tmp_path: Path, how: str) -> None:
    journal = Reader(parted).journal
    assert (journal.erase() if how == "erase" else journal.revise(removed)) == 1
    assert_gone(tmp_path)
    assert parted.repair(BOB) == Repair(), "all is as it was"
    assert Reader(parted, BOB).append("more").number == 2


def test_p24_a_removal_that_dies_before_the_file_is_written_anew_is_finished_by_the_next(
    parted: SqlJournal, tmp_path: Path
) -> None:
    def erase_and_die() -> None:
        with parted.removing():
            assert Reader(parted).journal.erase() == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        erase_and_die()
    assert b"goes" in (tmp_path / "journal.db").read_bytes(), "else this tests nothing"
    with contextlib.closing(SqlJournal(f"sqlite:///{tmp_path}/journal.db")) as journal:
        assert journal.scopes() == [BOB]
    assert_gone(tmp_path)


def test_p24_a_file_that_cannot_be_written_anew_is_told_and_done_again(
    parted: SqlJournal, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = f"sqlite:///{tmp_path}/journal.db?timeout=0"
    reader = Reader(SqlJournal(impatient))
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("BEGIN")
        other.execute("SELECT * FROM memory_journal_events").fetchall()  # who reads keeps the former pages
        monkeypatch.setattr(journal_sql, "_WAIT", 0)
        with pytest.raises(StoreUnavailableError, match=r"is in no table .* any more, but these could not"):
            reader.journal.erase()
        assert reader.events == [] and parted.scopes() == [BOB]
        with contextlib.closing(SqlJournal(impatient)) as journal:
            assert journal.scopes() == [BOB], "it can be read"
        assert "these could not be written anew" in caplog.text
        other.execute("COMMIT")
        monkeypatch.undo()
        assert reader.journal.erase() == 0
        assert_gone(tmp_path)


@pytest.mark.parametrize(
    ("lost", "told"), [("2", "[2]"), ("1, 2", "[1 to 2]"), ("2, 4, 5", "[2, 4 to 5]"), ("1, 2, 3, 4, 5", "[1 to 5]")]
)
def test_rows_that_are_missing_are_named_and_marked(url: str, journal: SqlJournal, lost: str, told: str) -> None:
    reader, other = Reader(journal), Reader(journal, BOB)
    for value in range(1, 6):
        reader.append(value)
        other.append(value)
    with journal.writing() as database:
        database.exec_driver_sql(
            f"DELETE FROM memory_journal_events WHERE number IN ({lost}) AND scope_key = '{ANN.storage_key}'"
        )
    journal.check(BOB)
    with pytest.raises(StoreCorruptedError) as raised:
        journal.check(ANN)
    assert f"events {told} of user:ann are missing (latest: 5)" in str(raised.value)
    places = {int(number) for number in lost.split(", ")}
    assert journal.repair(ANN).lost == len(places)
    journal.check(ANN)
    kinds = ["lost" if number in places else "set" for number in range(1, 6)]
    assert [event.kind for event in reader.refreshed()] == kinds, "who has it open learns of it"
    assert [event.kind for event in Reader(journal).events] == kinds
    assert reader.append("next").number == 6
    assert other.refreshed() == Reader(journal, BOB).events


def test_p24_facts_whose_scope_lost_its_row_are_shown_no_more(url: str, journal: SqlJournal) -> None:
    reader = Reader(journal)
    reader.append("secret")
    with journal.writing() as database:
        database.exec_driver_sql("DELETE FROM memory_journal_scopes")
    assert reader.refreshed() == Reader(journal).events == []
    assert reader.journal.erase() == 1
    assert reader.refreshed() == []


@pytest.mark.parametrize("name", ["{}/facts.db", "//{}/facts.db", "facts.db", "an%20old.db"])
def test_a_file_may_be_named_by_a_uri(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///file:{name.format(tmp_path)}?mode=rwc&uri=true"
    for city in ("Oslo", "Lisbon"):
        with MemoryManager("user:ann", journal_url=url, data_dir=tmp_path / "data") as memory:
            memory.set_fact(city, True)
    with MemoryManager("user:ann", journal_url=url, data_dir=tmp_path / "data") as memory:
        assert memory.features.keys() == ["Oslo", "Lisbon"]
    [file] = tmp_path.glob("*.db*")
    assert file.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {file.name}


def test_a_table_that_is_missing_hides_nothing(tmp_path: Path, clock: Clock) -> None:
    """An earlier version made fewer tables."""
    place = tmp_path / "facts.db"
    with contextlib.closing(SqlJournal(f"sqlite:///{place}", clock)) as journal:
        Reader(journal).append("one")
    with contextlib.closing(sqlite3.connect(place)) as database:
        database.execute("DROP TABLE memory_journal_unswept")
    with contextlib.closing(SqlJournal(f"sqlite:///{place}", clock)) as journal:
        reader = Reader(journal)
        assert reader.values == ["one"]
        assert reader.journal.erase() == 1


def test_p24_nothing_erased_is_left_in_a_table(url: str, journal: SqlJournal) -> None:
    reader, other = Reader(journal), Reader(journal, BOB)
    reader.append("secret")
    other.append("stays")
    assert journal.scopes() == sorted([ANN, BOB], key=lambda scope: scope.storage_key)
    reader.journal.erase()
    with journal.reading() as database:
        rows = str(list(database.exec_driver_sql("SELECT * FROM memory_journal_events")))
        scopes = str(list(database.exec_driver_sql("SELECT * FROM memory_journal_scopes")))
    assert "secret" not in rows and "stays" in rows
    assert "ann" not in scopes
    assert journal.scopes() == [BOB]


# The manager on it


def test_a_manager_keeps_its_facts_in_the_database(url: str, tmp_path: Path, clock: Clock) -> None:
    options: dict[str, Any] = {"journal_url": url, "data_dir": tmp_path / "data", "clock": clock}
    with MemoryManager("user:ann/session:s1", **options) as memory:
        memory.set_fact("city", "Oslo")
        memory.set_fact("city", "Lisbon")
        memory.add_turn("My name is Ann.", "Hello Ann.")
        memory.manage_short_term()
        assert len(memory.receipts()) == 1
    with MemoryManager("user:ann/session:s1", **options) as memory:
        assert memory.features.all() == {"city": "Lisbon", "name": "Ann"}
        assert [version.value for version in memory.features.get_with_history("city").history] == ["Oslo", "Lisbon"]  # type: ignore[union-attr]
        memory.undo(memory.receipts()[-1])
        assert memory.get_fact("name") is None
        memory.for_scope("user:ann").erase()
        assert memory.features.all() == {}
    assert not (tmp_path / "data" / "journal").exists()


def test_two_managers_on_two_machines_see_each_others_facts(url: str, tmp_path: Path) -> None:
    with (
        MemoryManager("user:ann", journal_url=url, data_dir=tmp_path / "one") as one,
        MemoryManager("user:ann", journal_url=url, data_dir=tmp_path / "other") as other,
    ):
        one.set_fact("city", "Oslo")
        assert '"city": "Oslo"' in other.features.to_prompt()
        other.set_fact("city", "Lisbon")
        assert one.get_context().features == '{\n"city": "Lisbon"\n}'


def test_a_password_is_in_nothing_that_is_serialised(tmp_path: Path) -> None:
    memory = MemoryManager(
        "user:ann",
        journal_url="postgresql://ann:hunter2@/nothing?host=/tmp/there-is-no-such-directory",
        qdrant="http://ann:hunter3@localhost:1",
        data_dir=tmp_path,
    )
    assert "hunter" not in repr(memory.options) + repr(memory)


def test_a_password_is_not_written_down(tmp_path: Path) -> None:
    url = "postgresql://ann:hunter2@/nothing?host=/tmp/there-is-no-such-directory"
    with pytest.raises(StoreUnavailableError) as caught:
        MemoryManager("user:ann", journal_url=url, data_dir=tmp_path).get_fact("city")
    assert "hunter2" not in str(caught.value)
    journal = SqlJournal(url)
    assert "hunter2" not in repr(journal.__dict__["_url"])


def test_a_password_among_the_parameters_of_a_url_is_shown_nowhere(tmp_path: Path) -> None:
    url = "postgresql://localhost/nothing?user=ann&password=hunter2&host=/tmp/there-is-no-such-directory"
    assert "hunter2" not in SqlJournal(url).place
    assert SqlJournal(url).place != SqlJournal(url.replace("such", "other")).place
    with pytest.raises(StoreUnavailableError) as caught:
        MemoryManager("user:ann", journal_url=url, data_dir=tmp_path).get_fact("city")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(StoreUnavailableError) as caught:
        SqlJournal(url.replace("postgresql", "mysql"))
    assert "hunter2" not in str(caught.value)
