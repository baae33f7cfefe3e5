"""P24: what is erased is in no byte of any file, and in no row of any table, whatever was done with it before."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import postgres
import pytest
from strategies import Clock, full_disk

from memory_integrations import (
    Compress,
    Delete,
    ManagementPlan,
    MemoryManager,
    Message,
    Promote,
    ShortTermPolicy,
    StoreCorruptedError,
    StoreUnavailableError,
    embeddings,
)
from memory_integrations.collection import MemoryCollection
from memory_integrations.qdrant_edge.store import Collection

PLANTED = 1000
_PLANTED = re.compile(rb"zq[0-9]{4}[b-z]{12}")
OTHERS = "the-others-own-words"


@pytest.fixture
def memory(tmp_path: Path, clock: Clock, journal_url: str | None) -> Iterator[MemoryManager]:
    policy = ShortTermPolicy(max_tokens=100_000, min_entries=0)
    data = tmp_path / "data"
    with MemoryManager(data_dir=data, clock=clock, journal_url=journal_url, short_term_policy=policy) as memory:
        yield memory


def planted() -> Iterator[str]:
    """Strings that occur nowhere by chance, and that no analysis of text changes."""
    letters = random.Random(7)
    for number in range(PLANTED):
        yield f"zq{number:04}" + "".join(letters.choices("bcdfghjklmnpqrstvwxz", k=12))


def plant(memory: MemoryManager) -> list[str]:
    """Put a thousand strings wherever text of a user comes to, a few of each kind, in several sessions."""
    strings = list(planted())
    left = iter(strings)

    def some(count: int) -> Iterable[str]:
        return [next(left) for _ in range(count)]

    for session in ("one", "two"):
        ann = memory.for_scope(f"user:ann/session:{session}")
        for word in some(40):
            ann.set_fact(f"key of {word}", {"value": word})
        for word in some(40):  # the versions before the last are in the history alone
            ann.set_fact("changing", word)
        for word in some(10):
            ann.set_fact("undone", word, source=word)
            ann.features.undo()
        for word in some(10):
            ann.set_fact("deleted", word)
            ann.features.delete("deleted")
        for word in some(60):
            ann.add_turn(f"I said {word}.", "Noted.")
        for word in some(60):
            ann.add_turn("What did I say?", f"You said {word}.")
        for number, word in enumerate(some(30)):
            ann.store_file_summary(f"{word}.pdf", f"Summary {number}")
        for word in some(30):
            ann.store_file_summary("the same file", f"It says {word}.")
        long = [f"It is a long story of {word}, and it goes on and on without an end in sight." for word in some(60)]
        ann.follow(Message("user", text, id=f"long {session} {number}") for number, text in enumerate(long))
        ann.follow([Message("assistant", "I see.")])
        shorter = some(30)
        ann.apply(
            ManagementPlan(
                tuple(
                    decision
                    for number, word in enumerate(shorter)
                    for decision in (
                        Compress(f"long {session} {number}", f"A long story: {long[number].split()[6]}", word),
                        Promote(f"long {session} {number}", f"story {number}", long[number].split()[6].strip(",")),
                    )
                )
                + tuple(Delete(f"long {session} {30 + number}", word) for number, word in enumerate(some(10)))
            )
        )
        for number, word in enumerate(some(30)):  # said otherwise: the text before is overwritten
            ann.follow([Message("user", f"First {word}.", id=f"edited {session} {number}"), Message("assistant", "?")])
            ann.follow([Message("user", "Then otherwise.", id=f"edited {session} {number}")], unanswered=True)
        for word in some(4):
            ann.add_turn(f"To be deleted: {word}.", "Noted.")
            [hit] = ann.search_long_term(word, 1)
            ann.long_term.delete([hit.id])
        ann.follow(Message("user", f"Still waiting for an answer: {word}.") for word in some(10))
    rest = list(left)
    bulk = memory.for_scope("user:ann/session:three")
    bulk.long_term.store_messages(Message("user", f"And then {word}. " * 40) for word in rest)
    assert len(rest) > 100
    return strings


def files_with(strings: Iterable[str], directory: Path) -> list[tuple[str, str]]:
    """The files under a directory in whose raw bytes a string is found."""
    found = []
    for path in directory.rglob("*"):
        if path.is_file():
            there = set(_PLANTED.findall(path.read_bytes()))  # once through a file, of which many are 32 MiB
            found += [(str(path.relative_to(directory)), one) for one in strings if one.encode() in there]
    return found


def files_saying(text: str, directory: Path) -> list[str]:
    """The files under a directory in whose raw bytes one text is found."""
    return [path.name for path in directory.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def rows(url: str) -> str:
    """Everything that the tables of a PostgreSQL database say."""
    import psycopg

    with psycopg.connect(url) as connection:
        return " ".join(
            str(row)
            for table in ("memory_journal_scopes", "memory_journal_events")
            for row in connection.execute(f"SELECT * FROM {table}").fetchall()
        )


@pytest.mark.parametrize("reopen", [False, True])
def test_p24_nothing_that_was_erased_is_left_in_any_byte(
    memory: MemoryManager, tmp_path: Path, journal_url: str | None, reopen: bool
) -> None:
    """P24: a thousand strings, planted wherever text comes to; the engine's log and its segments, files and tables."""
    strings = plant(memory)
    bob = memory.for_scope("user:bob/session:one")
    bob.add_turn(f"These are {OTHERS}.", "So they are.")
    bob.set_fact("words", OTHERS)
    assert len({string for _, string in files_with(strings, tmp_path)}) > PLANTED // 2
    if reopen:  # what is in the engine's log, and not in its segments yet
        memory.close()
    receipt = memory.for_scope("user:ann").erase()
    assert receipt.facts > 200 and receipt.memories > 500 and receipt.decisions > 60
    assert receipt.messages > 500
    assert files_with(strings, tmp_path) == []
    memory.close()
    assert files_with(strings, tmp_path) == []
    assert bob.get_fact("words") == OTHERS
    assert bob.long_term.count() == 2
    ann = memory.for_scope("user:ann/session:one")
    assert (ann.features.all(), ann.long_term.count(), ann.resume(), ann.receipts()) == ({}, 0, [], [])
    if journal_url is not None and journal_url.startswith("postgresql"):
        told = rows(journal_url)
        assert OTHERS in told
        assert [string for string in strings if string in told] == []


def test_p24_a_database_that_is_vacuumed_has_nothing_left_in_its_files(
    tmp_path: Path, clock: Clock, postgresql: str
) -> None:
    """PostgreSQL keeps deleted rows until they are vacuumed away, and every write in its log; the page says so."""
    import psycopg

    url = postgres.new_database(postgresql)
    with MemoryManager(data_dir=tmp_path, clock=clock, journal_url=url) as memory:
        strings = list(planted())
        for number, string in enumerate(strings):
            memory.for_scope(f"user:ann {strings[number % 10]}").set_fact(string, string)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ANALYZE")  # as the server does by itself, now and then
        for string in strings[:10]:
            memory.for_scope(f"user:ann {string}").erase()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM FULL memory_journal_events, memory_journal_scopes")
        connection.execute("CHECKPOINT")
        oid = connection.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone()
    assert oid is not None
    cluster = Path(postgresql.partition("host=")[2]) / "data"
    assert files_with(strings, cluster / "base" / str(oid[0])) == []


def test_p24_no_cache_of_the_process_has_what_was_erased(memory: MemoryManager) -> None:
    ann = memory.for_scope("user:ann/session:1")
    ann.add_turn("My PIN is zq4711.", "Noted.")
    ann.get_context("zq4711")
    ann.for_scope("user:ann").erase()
    assert ann._open.counter.count_line.cache_info().currsize == 0
    assert embeddings._tokens.cache_info().currsize == 0


@pytest.mark.parametrize("scope", ["user:ann", "user:ann/session:1", "global", "session:1"])
def test_p24_a_fact_is_erased_whatever_scope_it_was_learnt_in(
    memory: MemoryManager, tmp_path: Path, scope: str
) -> None:
    of = memory.for_scope(scope)
    of.add_turn("I live in Lisbon.", "Nice.")
    of.manage_short_term()
    assert of.get_fact("city") == "Lisbon"
    assert of.erase_fact("city") == 1
    assert [
        d for receipt in of.receipts() for d in receipt.decisions if isinstance(d, Promote) and d.key == "city"
    ] == []
    memory.close()
    assert files_saying('"city"', tmp_path) == []


def test_p24_a_memory_that_was_deleted_is_not_written_down_again(memory: MemoryManager, tmp_path: Path) -> None:
    ann = memory.for_scope("user:ann/session:1")
    long = "My PIN is zq4711, " + "which I tell nobody, " * 20
    ann.follow([Message("user", long, id="m1"), Message("assistant", "Noted.", id="m2")])
    ann.add_turn("Hello", "Hello")
    assert ann.long_term.delete([ann.search_long_term("PIN")[0].id]) == 1
    assert "zq4711" not in ann.get_context("What is my PIN?").combined
    ann.apply(ManagementPlan((Compress("m1", "A PIN."),)))
    ann.follow([Message("user", long, id="m1")])
    memory.close()
    assert files_saying("zq4711", tmp_path) == []


def test_p24_a_deletion_whose_files_could_not_be_written_anew_is_finished_later(
    memory: MemoryManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = memory.for_scope("user:ann/session:1")
    ann.add_turn("My PIN is zq4711.", "Noted.")
    found = ann.search_long_term("PIN")[0].id
    with monkeypatch.context() as patch:
        patch.setattr(Collection, "rebuild", full_disk)
        with pytest.raises(StoreUnavailableError, match="No space left"):
            ann.long_term.delete([found])
    assert files_saying("zq4711", tmp_path)
    assert ann.long_term.delete([found]) == 0, "it is gone, but for the files"
    memory.close()
    assert files_saying("zq4711", tmp_path) == []


@pytest.mark.parametrize("now", ["I have a PIN.", ""])
@pytest.mark.parametrize("broken", [(Collection, "rebuild"), (MemoryCollection, "delete")])
def test_p24_what_is_taken_out_of_a_message_goes_when_it_is_told_again_after_a_failure(
    memory: MemoryManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: tuple[type, str], now: str
) -> None:
    ann = memory.for_scope("user:ann/session:1").long_term
    long = "I have a PIN. " * 200 + "It is zq4711."
    ann.store_messages([Message("user", long, id="m1"), Message("assistant", "Noted.", id="m2")])
    changed = [Message("user", now, id="m1")]
    with monkeypatch.context() as patch:
        patch.setattr(*broken, full_disk)
        with pytest.raises(StoreUnavailableError, match="No space left"):
            ann.store_messages(changed)
    ann.store_messages(changed)
    assert "zq4711" not in "".join(hit.text for hit in ann.search("PIN zq4711", 50, distinct=False))
    memory.close()
    assert files_saying("zq4711", tmp_path) == []


def test_p24_anothers_damaged_journal_stops_no_erasure(tmp_path: Path) -> None:
    with MemoryManager(data_dir=tmp_path) as memory:
        for user in ("ann", "bob"):
            of = memory.for_scope(f"user:{user}/session:1")
            of.add_turn("I live in Lisbon.", "Nice.")
            of.manage_short_term()
        journal = tmp_path / "journal"
        for path in journal.glob("user-bob*"):
            path.write_bytes(b"garbage\n" + path.read_bytes())
        ann = memory.for_scope("user:ann")
        receipt = ann.erase()
        assert (receipt.facts, receipt.memories, receipt.messages, receipt.decisions) == (1, 2, 2, 1)
        assert list(journal.glob("user-ann*")) == []
        # One that may be the user's own stops it before anything is gone.
        ann.add_turn("I live in Lisbon.", "Nice.")
        (journal / "user-ann-session-2.0123456789abcdef0123456789abcdef.jsonl").write_bytes(b"garbage\n")
        with pytest.raises(StoreCorruptedError, match="user-ann-session-2"):
            ann.erase()
        assert ann.long_term.count() == len(ann.short_term) == 2


def test_two_erasures_at_once_are_one(tmp_path: Path) -> None:
    with MemoryManager("user:ann", data_dir=tmp_path) as memory:
        for number in range(30):
            memory.set_fact("number", number)
            path = next((tmp_path / "journal").glob("user-ann*.jsonl"))
            for aside in range(20):
                Path(f"{path}.{aside}").write_text("set aside")
            with ThreadPoolExecutor(4) as pool:
                facts = list(pool.map(lambda _: memory.for_scope("user:ann").features.erase(), range(4)))
            assert sorted(facts) == [0, 0, 0, 1]
            assert list((tmp_path / "journal").iterdir()) == []


def counts(memory: MemoryManager) -> dict[str, tuple[int, int]]:
    """How many facts and memories scopes have."""
    scopes = ("user:ann", "user:Ann", "user:bob", "global")
    return {one: (len(memory.for_scope(one).features), memory.for_scope(one).long_term.count()) for one in scopes}


def test_p22_erasing_one_scope_moves_no_other_count(memory: MemoryManager) -> None:
    """P22: the numbers are the true ones, and nobody else's move."""
    for user in ("ann", "Ann", "bob"):
        for session in ("1", "2"):
            of = memory.for_scope(f"user:{user}/session:{session}")
            of.set_fact(f"fact {session}", user)
            of.add_turn(f"I am {user} in {session}.", "Hello")
    before = counts(memory)
    receipt = memory.for_scope("user:ann/session:1").erase()
    assert (receipt.facts, receipt.memories, receipt.messages) == (0, 2, 2)
    receipt = memory.for_scope("user:ann").erase()
    assert (receipt.facts, receipt.memories, receipt.messages) == (2, 2, 2)
    assert counts(memory) == {**before, "user:ann": (0, 0)}
