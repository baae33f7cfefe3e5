"""The doctor names what is wrong in every store, and mends what can be mended without a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from strategies import Clock

from memory_integrations import Finding, MemoryManager

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
    assert mended([finding]) == [f"1 line set aside, in {path}.aside"]
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
    [finding] = opened("user:bob", journal_url=url).examine()
    assert "[1] of user:ann are missing" in finding.problem


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


def test_a_registry_that_cannot_be_read_is_named(opened: Open, tmp_path: Path) -> None:
    filled(opened()).close()
    (tmp_path / "data/vectors/collections.json").write_text("{")
    [finding] = opened().examine()
    assert "collections.json" in finding.problem


def test_another_embedding_is_named(opened: Open) -> None:
    filled(opened()).close()
    [finding] = opened(language="german").examine()
    assert "german" in finding.problem and "reembed" in finding.problem


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


def test_embedding_anew_that_was_interrupted_is_named(opened: Open) -> None:
    filled(opened()).close()
    memory = opened(language="german")

    def interrupt(done: int, whole: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        memory.long_term.reembed(interrupt)
    [finding] = opened().examine()
    assert "reembed` again" in finding.problem


async def test_p35_examining_has_its_async_form(opened: Open) -> None:
    assert await filled(opened()).aexamine() == []
