"""The doctor names what is wrong in every store, and mends what can be mended without a loss."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from strategies import Clock

from memory_integrations import Finding, MemoryManager, Message, StoreCorruptedError, StoreUnavailableError
from memory_integrations.layout import point_id

Open = Callable[..., MemoryManager]


@pytest.fixture
def opened(tmp_path: Path, clock: Clock) -> Iterator[Open]:
    """Opens the one memory anew, as another process would."""
    last: list[MemoryManager] = []

    def opened(scope: str = "user:ann", **options: Any) -> MemoryManager:
        for one in last:
            one.close()
        last[:] = [MemoryManager(scope, data_dir=tmp_path / "data", clock=clock, **options)]
        return last[0]

    yield opened
    for one in last:
        one.close()


def filled(memory: MemoryManager) -> MemoryManager:
    memory.set_fact("city", "Lisbon")
    memory.set_fact("plays", "oboe")
    memory.for_scope("user:bob").set_fact("pet", "Xerxes")
    memory.add_turn("I play the oboe. " * 200, "So I hear.")
    return memory


def journal_of(memory: MemoryManager) -> Path:
    path: Path = memory._open.journal.path(memory.scope)  # type: ignore[attr-defined]
    return path


def mended(found: list[Finding]) -> list[str]:
    return [finding.repair() for finding in found if finding.repair]


def test_nothing_is_wrong_with_a_memory_that_is_used_as_it_should_be(opened: Open, journal_url: str | None) -> None:
    memory = filled(opened(journal_url=journal_url))
    assert memory.examine() == []
    memory.features.undo()
    memory.erase()
    assert opened(journal_url=journal_url).examine() == []


def test_nothing_is_wrong_with_an_empty_memory(opened: Open) -> None:
    assert opened().examine() == []


def test_a_line_that_is_no_event_is_set_aside(opened: Open) -> None:
    memory = filled(opened())
    path = journal_of(memory)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"garbage\n" + lines[2])
    memory = opened("user:bob")
    [finding] = memory.examine()
    assert finding.where == str(path)
    assert "garbage" in finding.problem and finding.serious
    [told] = mended([finding])
    assert told.startswith(f"1 line set aside, in {path}.aside; 1 lost event marked; `import` a backup")
    ann = memory.for_scope("user:ann")
    assert ann.features.all() == {"plays": "oboe"}
    [left] = memory.examine()
    assert (left.where, left.serious, left.repair) == (f"{path}.aside", False, None)


def test_a_file_that_says_nobodys_name_does_not_hide_the_others(opened: Open) -> None:
    memory = filled(opened())
    path = journal_of(memory)
    path.write_bytes(b"?" + path.read_bytes()[1:])
    other = journal_of(memory.for_scope("user:bob"))
    other.write_bytes(other.read_bytes() + b"garbage\n")
    found = opened("global").examine()
    assert {finding.where for finding in found} == {str(path), str(other)}


def test_a_journal_under_anothers_name_is_named(opened: Open) -> None:
    memory = filled(opened())
    path = journal_of(memory)
    path.rename(path.with_name("copy.jsonl"))
    [finding] = opened().examine()
    assert f"It is the journal of user:ann, whose file is named {path.name}" in finding.problem


def test_what_an_interrupted_call_left_is_cleared_away(opened: Open) -> None:
    memory = filled(opened())
    left = Path(f"{journal_of(memory)}.rewritten")
    left.write_text("half of a journal")
    [finding] = memory.examine()
    assert not finding.serious
    assert mended([finding]) == ["deleted"]
    assert not left.exists()
    assert memory.examine() == []


def test_a_directory_that_others_may_read_is_closed_to_them(opened: Open, tmp_path: Path) -> None:
    memory, data = filled(opened()), tmp_path / "data"
    assert [path.stat().st_mode & 0o777 for path in (data, data / "journal", data / "vectors")] == [0o700] * 3
    (data / "journal").chmod(0o755)
    assert memory.examine() == [], "the one around it is closed"
    data.chmod(0o755)
    [finding] = memory.examine()
    assert finding.where == str(data / "journal") and "mode 755" in finding.problem
    mended([finding])
    assert (data / "journal").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("free", "serious"), [(1 << 30, None), (200 << 20, False), (33 << 20, False), (31 << 20, True)]
)
def test_a_full_disk_is_told_of_early_and_where_the_engine_stops(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, serious: bool | None
) -> None:
    import shutil

    memory = filled(opened())
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free))
    found = memory.examine()
    assert [finding.serious for finding in found] == ([] if serious is None else [serious])
    assert all(f"{free >> 20} MiB are left" in finding.problem and "32 MiB" in finding.problem for finding in found)
    if serious:
        with pytest.raises(StoreUnavailableError, match="No space left"):
            memory.add_turn("Is there room?", "No.")
        assert "Free room outside of the memory" in found[0].problem
    else:
        memory.add_turn("Is there room?", "Yes.")


def test_a_row_that_is_no_event_is_named_and_left(opened: Open, tmp_path: Path) -> None:
    sqlite3 = pytest.importorskip("sqlite3")
    pytest.importorskip("sqlalchemy")
    url = f"sqlite:///{tmp_path}/journal.db"
    filled(opened(journal_url=url))
    with sqlite3.connect(tmp_path / "journal.db") as database:
        database.execute("UPDATE memory_journal_events SET line = 'garbage' WHERE number = 2")
    [finding] = opened("user:bob", journal_url=url).examine()
    assert "Row 2 of user:ann" in finding.problem
    assert finding.repair is None


def test_an_event_that_is_missing_is_noticed(opened: Open, tmp_path: Path) -> None:
    sqlite3 = pytest.importorskip("sqlite3")
    pytest.importorskip("sqlalchemy")
    url = f"sqlite:///{tmp_path}/journal.db"
    filled(opened(journal_url=url))
    with sqlite3.connect(tmp_path / "journal.db") as database:
        database.execute("DELETE FROM memory_journal_events WHERE number = 1")
    found = opened("user:bob", journal_url=url).examine()
    assert [finding.where for finding in found] == ["user:ann", "user:bob"]
    assert "[1] of user:ann are missing" in found[0].problem
    assert "[1] of user:bob are missing" in found[1].problem, "all that there was"


@pytest.mark.parametrize("lost", ["number = 2", "number IN (1, 3)", "number IN (4, 5)", "number < 6"])
def test_events_that_a_database_lost_come_back_from_a_backup(opened: Open, tmp_path: Path, lost: str) -> None:
    """As the doctor says: `--repair`, then `import` a backup. What was written since the backup stays."""
    sqlite3 = pytest.importorskip("sqlite3")
    pytest.importorskip("sqlalchemy")
    url = f"sqlite:///{tmp_path}/journal.db"
    ann = opened(journal_url=url)
    for key in "abcde":
        ann.set_fact(key, key)
    ann.export(tmp_path / "backup.jsonl")
    ann.set_fact("since", "then")
    before = ann.features.export()
    with sqlite3.connect(tmp_path / "journal.db") as database:
        database.execute(f"DELETE FROM memory_journal_events WHERE {lost}")
    ann = opened(journal_url=url)
    [finding] = ann.examine()
    assert "doctor --repair" in finding.problem and "`import` a backup" in finding.problem
    with pytest.raises(StoreCorruptedError, match="of user:ann are missing"):
        ann.export(tmp_path / "damaged.jsonl")
    assert [path.name for path in tmp_path.glob("*.jsonl")] == ["backup.jsonl"]
    with MemoryManager(data_dir=tmp_path / "other") as other, pytest.raises(StoreCorruptedError, match="are missing"):
        ann.migrate_to(other)
    with pytest.raises(StoreCorruptedError, match="of user:ann are missing"):
        ann.import_archive(tmp_path / "backup.jsonl")
    assert "import" in mended([finding])[0]
    assert ann.examine() == []
    ann.set_fact("sound", "again")
    ann.features.undo()
    ann.import_archive(tmp_path / "backup.jsonl")
    assert ann.features.all() == {**{key: key for key in "abcde"}, "since": "then"}
    assert opened(journal_url=url).features.export()["facts"] == {**before["facts"], **ann.features.export()["facts"]}
    assert opened(journal_url=url).examine() == []


def mended_after(damage: str, problem: str, opened: Open, tmp_path: Path) -> MemoryManager:
    """A memory in a database that a statement damaged, with that one problem found and mended."""
    sqlite3 = pytest.importorskip("sqlite3")
    pytest.importorskip("sqlalchemy")
    url = f"sqlite:///{tmp_path}/journal.db"
    filled(opened(journal_url=url))
    with sqlite3.connect(tmp_path / "journal.db") as database:
        database.execute(damage)
    ann = opened(journal_url=url)
    [finding] = ann.examine()
    assert problem in finding.problem
    mended([finding])
    assert ann.examine() == []
    return ann


def test_a_database_that_lost_its_latest_events_is_noticed(opened: Open, tmp_path: Path) -> None:
    damage = "DELETE FROM memory_journal_events WHERE number = 2"
    ann = mended_after(damage, "[2] of user:ann are missing", opened, tmp_path)
    assert ann.set_fact("plays", "the oboe") == 3, "the numbers of what was lost are not given again"


def test_a_database_that_counts_too_few_events_is_noticed(opened: Open, tmp_path: Path) -> None:
    damage = "UPDATE memory_journal_scopes SET latest = 1"
    ann = mended_after(damage, "user:ann has events after the latest", opened, tmp_path)
    ann.set_fact("sound", "again")
    assert ann.features.all() == {"city": "Lisbon", "plays": "oboe", "sound": "again"}


def test_a_line_that_was_set_aside_comes_back_from_a_backup(opened: Open, tmp_path: Path) -> None:
    memory = filled(opened())
    memory.export(tmp_path / "backup.jsonl")
    path = journal_of(memory)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"garbage\n" + lines[2])
    bob = opened("user:bob")
    mended(bob.examine())
    memory = bob.for_scope("user:ann")
    assert memory.features.all() == {"plays": "oboe"}
    memory.import_archive(tmp_path / "backup.jsonl")
    assert memory.features.all() == {"city": "Lisbon", "plays": "oboe"}


@pytest.mark.parametrize("garbage", [b"garbage", b"\0" * 4096, b'{"scope"="user:ann"'])
def test_a_journal_of_one_line_that_is_none_is_named(opened: Open, garbage: bytes) -> None:
    memory = filled(opened())
    path = journal_of(memory)
    path.write_bytes(garbage)
    [finding] = opened("user:bob").examine()
    assert finding.where == str(path) and f"{len(garbage):,} bytes are no journal" in finding.problem
    assert finding.serious


@pytest.mark.parametrize("torn", [b"", b'{"sco', b'{"scope":"user:an'])
def test_a_first_write_that_was_cut_off_is_no_damage(opened: Open, torn: bytes) -> None:
    memory = filled(opened())
    journal_of(memory).write_bytes(torn)
    assert opened("user:bob").examine() == []


def test_a_journal_that_does_not_answer_does_not_hide_the_memories(opened: Open, tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy")
    from memory_integrations.journal_sql import SqlJournal

    filled(opened()).close()
    memory = opened(language="german")
    (tmp_path / "away.db").mkdir()
    memory._open.journal = SqlJournal(f"sqlite:///{tmp_path}/away.db")
    found = memory.examine()
    assert [("away.db" in finding.where, "german" in finding.problem) for finding in found] == [
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize("left", [None, b""])
def test_a_table_of_ids_that_the_engine_does_not_miss_is_named(
    opened: Open, tmp_path: Path, left: bytes | None
) -> None:
    memory = filled(opened())
    for number in range(20):
        memory.add_turn(f"More of this, for the time {number}.", "Noted.")
    memory.close()
    [table] = (tmp_path / "data/vectors").rglob("mutable_id_tracker.mappings")
    table.unlink()
    if left is not None:
        table.write_bytes(left)
    for _ in range(2):  # also once the engine has opened it, and begun a new table
        [finding] = opened().examine()
        assert finding.where == str(table.parent) and finding.serious and finding.repair is None
        opened().long_term.count()


def test_a_pipe_among_the_journals_is_named_and_not_waited_for(opened: Open, tmp_path: Path) -> None:
    filled(opened())
    pipe = tmp_path / "data" / "journal" / "user-cleo.jsonl"
    os.mkfifo(pipe)
    [finding] = opened().examine()
    assert finding.where == str(pipe) and "is a pipe" in finding.problem


def test_events_whose_scope_a_database_lost_are_named_and_can_be_erased(
    opened: Open, tmp_path: Path, journal_url: str | None
) -> None:
    if journal_url is None:
        pytest.skip("a file says itself whose it is")
    sqlalchemy = pytest.importorskip("sqlalchemy")
    memory = filled(opened(journal_url=journal_url))
    journal = memory._open.journal
    assert journal.strays() == {}
    memory.export(tmp_path / "backup.jsonl")
    scopes = sqlalchemy.text("DELETE FROM memory_journal_scopes")
    with journal.writing() as database:  # type: ignore[attr-defined]
        database.execute(scopes)
    memory = opened(journal_url=journal_url)
    found = memory.examine()
    assert [
        f"{count} events have the key 'user-{name}" in one.problem
        for one, count, name in zip(found, (2, 1), ("ann", "bob"), strict=True)
    ] == [True, True]
    for scope in ("user:ann", "user:bob"):
        memory.for_scope(scope).features.erase()
    assert memory.examine() == [], "they go, though nothing names them"
    memory.import_archive(tmp_path / "backup.jsonl")
    assert memory.features.all() == {"city": "Lisbon", "plays": "oboe"}


def test_a_registry_that_cannot_be_read_is_named(opened: Open, tmp_path: Path) -> None:
    filled(opened()).close()
    (tmp_path / "data/vectors/collections.json").write_text("{")
    [finding] = opened().examine()
    assert "collections.json" in finding.problem


def test_examining_a_store_whose_files_are_of_two_moments_deletes_none(opened: Open, tmp_path: Path) -> None:
    """The registry of a backup names a directory that is gone, and what is there is the only copy."""
    registry = tmp_path / "data" / "vectors" / "collections.json"
    memory = filled(opened())
    earlier = registry.read_bytes()
    memory.long_term.delete([memory.search_long_term("oboe")[0].id])
    memory.add_turn("I moved to Porto.", "Noted.")
    memory.close()
    later, there = registry.read_bytes(), set(registry.parent.glob("shards/*/*/*"))
    registry.write_bytes(earlier)
    for _ in range(2):
        found = opened().examine()
        assert found and all("is recorded but missing" in one.problem for one in found)
        assert all("What else is in" in one.problem and "was kept" in one.problem for one in found)
    with pytest.raises(StoreCorruptedError):
        opened().add_turn("Hello", "Hello")
    assert there <= set(registry.parent.glob("shards/*/*/*"))
    opened().close()
    registry.write_bytes(later)
    memory = opened()
    assert memory.examine() == []
    assert [hit.text for hit in memory.search_long_term("Porto")]


def test_another_embedding_is_named(opened: Open) -> None:
    filled(opened()).close()
    [finding] = opened(language="german").examine()
    assert "german" in finding.problem and "reembed" in finding.problem


def write(memory: MemoryManager, id_: int, metadata: dict[str, Any]) -> None:
    """Write a point as another program might."""
    from qdrant_client import models

    collection = memory._open.memories
    payload = {"page_content": "?", "metadata": metadata}
    collection.open().upsert(collection.name, [models.PointStruct(id=id_, vector={}, payload=payload)])


def files(directory: Path) -> dict[Path, bytes]:
    """What is in a directory; but for what the engine keeps open, which opening it may write anew."""
    return {
        path.relative_to(directory): path.read_bytes() if path.is_file() else b""
        for path in directory.rglob("*")
        if "shards" not in path.parent.parts
    }


def test_examining_makes_nothing(opened: Open, tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy")
    assert opened(journal_url=f"sqlite:///{tmp_path}/journal.db").examine() == []
    assert not [*tmp_path.iterdir()]
    opened().set_fact("city", "Lisbon")
    before = files(tmp_path / "data")
    german = opened(language="german")
    assert german.examine() == []
    german.export(tmp_path / "all.jsonl", all_scopes=True, vectors=True)
    assert files(tmp_path / "data") == before
    opened().add_turn("I play the oboe.", "So I hear.")
    before = files(tmp_path / "data")
    assert ["german" in finding.problem for finding in opened(language="german").examine()] == [True]
    assert files(tmp_path / "data") == before
    assert opened().examine() == []


def test_memories_are_examined_whatever_they_were_embedded_with(opened: Open) -> None:
    memory = filled(opened())
    write(memory, 1, {})
    problems = [finding.problem for finding in opened(language="german").examine()]
    assert ["german" in problem for problem in problems] == [True, False]
    assert "1 say no scope" in problems[1]


@pytest.mark.parametrize(
    "metadata",
    [
        {"pieces": "3"},
        {"pieces": 2, "message_id": ["a"]},
        {"pieces": 2, "piece": "0"},
        {"pieces": None},
        {"session_id": {"a": 1}, "pieces": 2},
    ],
)
def test_what_other_programs_wrote_in_their_way_is_named(opened: Open, metadata: dict[str, Any]) -> None:
    memory = filled(opened())
    write(memory, 1, {"scope": "user:ann", **metadata})
    [finding] = memory.examine()
    assert finding.problem.startswith("1 have a") and not finding.serious


def test_pieces_scopes_and_times_that_are_missing_are_named(opened: Open) -> None:
    from qdrant_client import models

    memory = filled(opened())
    collection = memory._open.memories
    client, name = collection.open(), collection.name
    long = [point for point in collection.scroll(None) if point.payload["metadata"].get("piece") == 1]
    client.delete(name, models.PointIdsList(points=[point.id for point in long]))
    for id_, metadata in ((1, {}), (2, {"scope": "user:ann", "created_at": "yesterday"})):
        client.upsert(
            name, [models.PointStruct(id=id_, vector={}, payload={"page_content": "?", "metadata": metadata})]
        )
    problems = " ".join(finding.problem for finding in memory.examine())
    assert "2 of 3 pieces are there" in problems
    assert "1 say no scope" in problems
    assert "1 have a `created_at` that is no time" in problems


def interrupt(done: int, whole: int) -> None:
    raise KeyboardInterrupt


def test_embedding_anew_that_was_interrupted_is_named(opened: Open) -> None:
    filled(opened()).close()
    memory = opened(language="german")
    with pytest.raises(KeyboardInterrupt):
        memory.long_term.reembed(interrupt)
    [finding] = opened().examine()
    assert "reembed` again" in finding.problem


def test_embedding_anew_that_was_interrupted_is_gone_on_with(opened: Open) -> None:
    """As the doctor says: with what it was begun with."""
    filled(opened()).close()
    with pytest.raises(KeyboardInterrupt):
        opened(language="german").long_term.reembed(interrupt)
    assert "`--language` that it was begun with" in opened().examine()[0].problem
    german = opened(language="german")
    german.long_term.reembed()
    assert german.examine() == []
    assert german.long_term.count() == 2


def test_embedding_anew_that_was_interrupted_can_be_dropped(opened: Open) -> None:
    filled(opened()).close()
    with pytest.raises(KeyboardInterrupt):
        opened(language="german").long_term.reembed(interrupt)
    memory = opened()
    assert mended(memory.examine()) == ["what was begun is dropped"]
    assert opened().examine() == []
    assert opened().search_long_term("oboe")


def test_what_was_embedded_anew_is_examined(opened: Open) -> None:
    filled(opened()).close()
    opened(language="german").long_term.reembed()
    memory = opened(language="german")
    write(memory, 1, {})
    assert "1 say no scope" in opened(language="german").examine()[0].problem


async def test_p35_examining_has_its_async_form(opened: Open) -> None:
    assert await filled(opened()).aexamine() == []


@pytest.fixture
def damaged(opened: Open, tmp_path: Path) -> MemoryManager:
    """A memory whose index of scopes has nothing in it."""
    memory = filled(opened())
    memory.for_scope("user:bob").add_turn("I play chess.", "Do you?")
    memory.close()
    for index in (tmp_path / "data" / "vectors").rglob("*-metadata-map/tracker*.dat"):  # and its log
        index.write_bytes(bytes(index.stat().st_size))
    memory = opened()
    assert memory.long_term.count() == 0
    return memory


def test_memories_that_their_scope_does_not_find_are_named_and_indexed_anew(damaged: MemoryManager) -> None:
    [finding] = damaged.examine()
    assert finding.serious and "are not found by the scope that they say" in finding.problem
    assert mended([finding]) == ["all memories are written anew, with their indexes"]
    assert damaged.examine() == []
    assert damaged.long_term.count() == 2
    assert "oboe" in damaged.search_long_term("oboe")[0].text


@pytest.mark.parametrize("call", ["erase", "delete"])
def test_p24_what_no_index_finds_is_deleted_all_the_same(damaged: MemoryManager, tmp_path: Path, call: str) -> None:
    point, *_ = (point for point in damaged._open.memories.scroll(None) if "oboe" in str(point.payload))
    id_ = point_id("user:ann", None, point.payload["metadata"]["message_id"])
    if call == "erase":
        assert damaged.erase().memories == 2
    else:
        assert damaged.long_term.delete([id_]) == 1
    assert damaged.examine() == []
    damaged.close()
    files = [path for path in (tmp_path / "data" / "vectors").rglob("*") if path.is_file()]
    assert not [path for path in files if b"I play the oboe" in path.read_bytes()]


def test_p24_an_erasure_while_items_are_written_is_no_damage(opened: Open) -> None:
    pytest.importorskip("langgraph")
    from memory_integrations.langchain import MemoryStore

    memory = filled(opened())
    store, stop = MemoryStore(memory), threading.Event()

    def write() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            store.put(("notes",), f"note {number % 7}", {"text": "A note"})

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        for _ in range(3):
            memory.erase()
        stop.set()
        writing.result(30)
    memory.erase()
    assert memory.examine() == []
    assert store.search(()) == []


def test_nothing_is_wrong_while_others_write(opened: Open) -> None:
    memory = filled(opened())
    memory.long_term.store_messages(Message("user", f"Number {n} of tea") for n in range(2000))
    stop = threading.Event()

    def write() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            memory.long_term.store_messages([Message("user", f"Late number {number} of tea")])

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        found = [memory.examine() for _ in range(4)]
        stop.set()
        writing.result(30)
    assert found == [[]] * 4


@pytest.mark.parametrize("name", ["vectors", "journal"])
def test_what_is_no_directory_is_named(opened: Open, tmp_path: Path, name: str) -> None:
    filled(opened()).close()
    (tmp_path / "data" / name).rename(tmp_path / name)
    (tmp_path / "data" / name).write_text("what is this?")
    found = opened().examine()
    assert [f.problem.partition(".")[0] for f in found if f.where.endswith(name)] == ["It is no directory"]


def test_a_journal_that_is_a_link_to_nothing_is_named(opened: Open, tmp_path: Path) -> None:
    path = journal_of(filled(opened()))
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    [finding] = opened("user:bob").examine()
    assert finding.where == str(path) and "a link to nothing" in finding.problem


def test_what_a_writer_did_not_write_whole_is_named_and_set_aside(opened: Open) -> None:
    path = journal_of(filled(opened()))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"number":3,"at":"20')
    memory = opened()
    [finding] = memory.examine()
    assert (finding.where, finding.serious) == (str(path), False)
    assert "20 bytes of an event that was not written whole" in finding.problem
    assert mended([finding]) == [f"20 bytes of an event that was not written whole set aside, in {path}.torn"]
    assert path.read_bytes() == whole


def test_a_missing_directory_of_memories_is_named_once(opened: Open, tmp_path: Path) -> None:
    filled(opened()).close()
    [directory] = (tmp_path / "data" / "vectors" / "shards").iterdir()
    directory.rename(tmp_path / "elsewhere")
    assert len([finding for finding in opened().examine() if "missing" in finding.problem]) == 1
