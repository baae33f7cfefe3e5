"""Moving to other stores and back: everything arrives, is read back and compared, and an interruption costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from qdrant_client import models
from strategies import Clock, full_disk

from memory_integrations import (
    Delete,
    EmbeddingMismatchError,
    ManagementPlan,
    MemoryManager,
    MemoryScope,
    Message,
    StoreCorruptedError,
    StoreUnavailableError,
)
from memory_integrations.collection import COLLECTION
from memory_integrations.layout import DENSE, vectors_of
from memory_integrations.qdrant_edge.store import Collection as EngineCollection

Open = Callable[..., MemoryManager]
ODD = [MemoryScope("Ann"), MemoryScope("ann"), MemoryScope("../x", "%2F\0"), MemoryScope(None, "s"), MemoryScope()]


@pytest.fixture
def opened(tmp_path: Path, clock: Clock) -> Iterator[Open]:
    """Opens a memory in a directory of its own, by name."""
    open_: list[MemoryManager] = []

    def opened(name: str = "one", **options: Any) -> MemoryManager:
        open_.append(MemoryManager(data_dir=tmp_path / name, clock=clock, **options))
        return open_[-1]

    yield opened
    for memory in open_:
        memory.close()


def filled(memory: MemoryManager, clock: Clock, turns: int = 3) -> MemoryManager:
    for number, scope in enumerate(ODD):
        of = memory.for_scope(scope)
        for value in (0.1, number, "ü\u2028😀", None, [{"a": 1e300}]):
            of.set_fact("fact", value, source="import", confidence=0.5)
            clock.advance(61)
        of.features.undo()
        for turn in range(turns):
            of.add_turn(f"Turn {turn} of scope {number}. " + "It was long. " * 200 * (turn == 0), f"Noted {turn}.")
    return memory


def bytes_of(place: Path) -> bytes:
    """All that is in the files of a directory."""
    return b"".join(path.read_bytes() for path in place.rglob("*") if path.is_file())


def told(memory: MemoryManager) -> list[Any]:
    """Everything that is known in every scope."""
    return [
        (
            of.features.export(),
            [(message.id, message.text, message.created_at) for message in of.long_term.messages()],
            [(hit.id, hit.text) for hit in of.search_long_term("which of them was long?", 1)],
        )
        for of in map(memory.for_scope, ODD)
    ]


def test_files_to_a_database_and_back(opened: Open, clock: Clock, journal_url: str | None, tmp_path: Path) -> None:
    one = filled(opened(), clock)
    there = opened("two", journal_url=journal_url)
    receipt = one.migrate_to(there)
    assert (receipt.scopes, receipt.events) == (5, 30)
    assert told(there) == told(one)
    back = opened("three")
    assert there.migrate_to(back) == receipt
    assert told(back) == told(one)
    files = {path.name: path.read_bytes().partition(b"\n")[2] for path in (tmp_path / "one/journal").iterdir()}
    assert {
        path.name: path.read_bytes().partition(b"\n")[2] for path in (tmp_path / "three/journal").iterdir()
    } == files


def test_only_what_differs_moves(opened: Open, clock: Clock, tmp_path: Path) -> None:
    one = filled(opened(), clock)
    receipt = one.migrate_to(opened(journal_url=f"sqlite:///{tmp_path}/journal.db"))
    assert (receipt.events, receipt.points, receipt.points_sha256) == (30, 0, "")
    with pytest.raises(StoreUnavailableError, match="nothing to move"):
        one.migrate_to(one.for_scope("user:x"))


def test_one_history_is_equal_in_whatever_order_its_keys_are(opened: Open) -> None:
    one, two = opened(), opened("two")
    one.set_fact("prefs", {"zebra": 1, "apple": 2})
    two.set_fact("prefs", {"apple": 2, "zebra": 1})
    assert one.migrate_to(two) == two.migrate_to(one)


def test_nothing_is_deleted_where_it_came_from(opened: Open, clock: Clock) -> None:
    one = filled(opened(), clock)
    before = told(one)
    one.migrate_to(opened("two"))
    assert told(one) == before


def test_it_goes_on_after_an_interruption_and_after_what_was_said_since(opened: Open, clock: Clock) -> None:
    one = filled(opened(), clock, turns=60)
    steps: list[tuple[str, int]] = []

    def interrupt(what: str, done: int, whole: int) -> None:
        steps.append((what, done))
        if what == "points" and done > 300:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one.migrate_to(opened("two"), interrupt)
    assert [done for what, done in steps if what == "scopes"] == [1, 2, 3, 4, 5]
    one.for_scope(ODD[0]).set_fact("fact", "since")
    one.for_scope(ODD[0]).add_turn("Said since.", "Noted.")
    there = opened("three", journal_url=None)
    two = opened("two")
    one.migrate_to(two)
    assert told(two) == told(one)
    one.migrate_to(there)
    assert told(there) == told(one)


def test_a_target_that_goes_on_is_not_called_equal(opened: Open, clock: Clock) -> None:
    one, two = filled(opened("one"), clock), opened("two")
    one.migrate_to(two)
    one.migrate_to(two)
    two.for_scope("user:ann").set_fact("city", "Faro")
    with pytest.raises(StoreUnavailableError, match="user:ann goes on in the target, with events that are not here"):
        one.migrate_to(two)
    assert two.for_scope("user:ann").get_fact("city") == "Faro"


@pytest.mark.parametrize("reason", ["PIN-4711", "she told her PIN, which is PIN-4711"])
def test_p24_what_was_deleted_since_is_deleted_in_the_target_and_comes_back_by_no_archive(
    opened: Open, clock: Clock, journal_url: str | None, tmp_path: Path, reason: str
) -> None:
    """P24: a reason that was removed may have been shorter than the mark that says so."""
    one = opened(scope="user:ann/session:s")
    two = opened("two", scope="user:ann/session:s", journal_url=journal_url)
    one.follow([Message("user" if n % 2 else "assistant", f"Thing {n} was said.", id=f"m{n}") for n in range(1, 9)])
    one.apply(ManagementPlan(decisions=(Delete("m1", reason),), source="llm"))
    one.export(tmp_path / "old.jsonl")
    one.migrate_to(two)
    [hit] = [hit for hit in one.search_long_term("Thing 1", 10) if hit.message_ids == ("m1",)]
    one.long_term.delete([hit.id])
    one.migrate_to(two)
    for memory in (one, two):
        memory.import_archive(tmp_path / "old.jsonl")
        [receipt] = memory.receipts()
        assert [made.reason for made in receipt.decisions] == [""]
    for directory in ("one", "two"):
        journals = (path for path in (tmp_path / directory).glob("journal/*") if path.is_file())
        assert not any(b"PIN-4711" in path.read_bytes() for path in journals)


def test_p24_what_was_deleted_or_changed_since_is_in_no_file_of_the_target(
    opened: Open, clock: Clock, tmp_path: Path
) -> None:
    """P24: a move that goes on overwrites what the first one copied."""
    one, two = opened(scope="user:ann"), opened("two")
    said = {"a": "The first PIN is 4711.", "b": "The second PIN is 8282.", "c": "The kettle is red."}
    places = one.long_term.store_messages(Message("user", text, id=id_) for id_, text in said.items())
    one.migrate_to(two)
    one.long_term.delete(places[:1])
    one.long_term.store_messages([Message("user", "The second PIN is a secret.", id="b")])
    one.migrate_to(two)
    files = bytes_of(tmp_path / "two/vectors")
    assert [text for text in (b"4711", b"8282", b"is a secret", b"kettle") if text in files] == [
        b"is a secret",
        b"kettle",
    ]


def test_p24_pieces_of_what_was_deleted_or_became_shorter_since_are_deleted_in_the_target(
    opened: Open, tmp_path: Path
) -> None:
    one, two = opened(scope="user:ann"), opened("two", scope="user:ann")
    for id_ in ("deleted", "shorter"):
        one.long_term.store_messages([Message("user", "a long text. " * 300 + f"zq-{id_}", id=id_)])
    one.migrate_to(two)
    one.long_term.delete([one.search_long_term("zq-deleted", 50)[0].id])
    one.long_term.store_messages([Message("user", "a short text", id="shorter")])
    one.migrate_to(two)
    assert [message.text for message in two.long_term.messages()] == ["a short text"]
    two.close()
    assert b"zq-" not in bytes_of(tmp_path / "two/vectors")


@pytest.mark.parametrize("known", ["facts", "memories"])
def test_p24_who_was_erased_since_is_named_and_not_called_moved(
    opened: Open, journal_url: str | None, known: str
) -> None:
    one, two = opened(), opened("two", journal_url=journal_url)
    ann = one.for_scope("user:ann")
    ann.set_fact("pin", "4711") if known == "facts" else ann.add_turn("My PIN is 4711.", "Noted.")
    one.migrate_to(two)
    one.for_scope("user:ann").erase()
    with pytest.raises(StoreUnavailableError, match="user:ann"):
        one.migrate_to(two)
    two.for_scope("user:ann").erase()
    one.migrate_to(two)


@pytest.mark.parametrize("fails", ["the comparison", "rebuild"])
def test_p24_a_move_that_failed_after_it_overwrote_leaves_nothing_when_it_goes_on(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    one, two = opened(scope="user:ann"), opened("two")
    one.long_term.store_messages([Message("user", "My PIN is zq4711.", id="1")])
    one.migrate_to(two)
    one.long_term.store_messages([Message("user", "I have a PIN.", id="1")])
    with monkeypatch.context() as broken:
        if fails == "rebuild":
            broken.setattr(EngineCollection, "rebuild", full_disk)
        else:
            broken.setattr("memory_integrations.migration._compared", full_disk)
        with pytest.raises(StoreUnavailableError, match="No space left"):
            one.migrate_to(two)
    one.migrate_to(two)
    two.close()
    assert b"zq4711" not in bytes_of(tmp_path / "two/vectors")


def test_facts_that_do_not_read_back_as_they_were_written_are_named(
    opened: Open, clock: Clock, journal_url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = filled(opened(), clock), opened("two", journal_url=journal_url)
    kind: Any = type(two._open.journal.open(MemoryScope("x"), lambda event: None, lambda events: None))
    real = kind.extend
    monkeypatch.setattr(
        kind,
        "extend",
        lambda self, events: real(self, [replace(event, at=event.at.replace(year=1999)) for event in events]),
    )
    with pytest.raises(StoreCorruptedError, match="does not read back"):
        one.migrate_to(two)


def test_a_move_that_goes_on_writes_the_target_anew_once_and_only_where_something_is_overwritten(
    opened: Open, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory_integrations.copying.PAGE", 2)
    one, two = opened(scope="user:ann"), opened("two")
    one.long_term.store_messages(Message("user", f"Thing {number}.", id=f"{number}") for number in range(9))
    rebuilt: list[str] = []
    real = EngineCollection.rebuild
    monkeypatch.setattr(EngineCollection, "rebuild", lambda self, *a: rebuilt.append(str(self.path)) or real(self, *a))
    one.migrate_to(two)
    one.long_term.store_messages([Message("user", "Thing 10.", id="10")])
    one.migrate_to(two)
    assert rebuilt == []
    one.long_term.store_messages(
        Message("user", f"Thing {number}, which is new.", id=f"{number}") for number in range(9)
    )
    one.migrate_to(two)
    assert len([path for path in rebuilt if "/two/" in path]) == 1


def test_another_history_in_the_target_is_refused_before_anything_is_written(opened: Open, clock: Clock) -> None:
    one, two = filled(opened(), clock), opened("two")
    two.for_scope(ODD[-1]).set_fact("fact", "mine")
    with pytest.raises(StoreUnavailableError, match="another history"):
        one.migrate_to(two)
    assert two.for_scope(ODD[0]).features.export()["facts"] == {}


def test_points_in_the_target_that_the_source_has_not_are_left_and_named(opened: Open, clock: Clock) -> None:
    one, two = filled(opened(), clock), opened("two")
    two.for_scope("user:stranger").add_turn("I was here before.", "So you were.")
    with pytest.raises(StoreUnavailableError, match=r"The others are of user:stranger: .* the target's own"):
        one.migrate_to(two)
    assert two.for_scope("user:stranger").long_term.count() == 2


def test_p28_a_target_of_another_embedding_is_refused(opened: Open, clock: Clock) -> None:
    """P28: both are named, and nothing is recreated silently."""
    one, two = filled(opened(), clock), opened("two", language="german")
    two.add_turn("Guten Tag", "Hallo")
    with pytest.raises(EmbeddingMismatchError, match=r"german.*english"):
        one.migrate_to(two)
    assert two.long_term.count() == 2


def test_an_embedding_that_is_not_at_hand_is_no_obstacle(opened: Open, clock: Clock) -> None:
    """The command line moves a memory whatever it was embedded with."""
    one = filled(opened(language="german"), clock)
    before = told(one)
    one.close()
    opened().migrate_to(opened("two"))
    assert told(opened("two", language="german")) == before


def test_what_does_not_read_back_as_it_was_written_is_named(
    opened: Open, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = filled(opened(), clock), opened("two")
    client = two._open.memories.client()
    write = client.upsert

    def lossy(name: str, points: list[Any], **options: Any) -> Any:
        points[0].payload["page_content"] = "something else"
        return write(name, points=points, **options)

    monkeypatch.setattr(client, "upsert", lossy)
    with pytest.raises(StoreCorruptedError, match="does not read back"):
        one.migrate_to(two)
    monkeypatch.undo()
    one.migrate_to(two)
    assert told(two) == told(one)


def test_vectors_that_were_lost_on_the_way_are_noticed(
    opened: Open, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = filled(opened(), clock), opened("two")
    client = two._open.memories.client()
    write = client.upsert

    def lossy(name: str, points: list[Any], **options: Any) -> Any:
        points[0].vector = {}
        return write(name, points=points, **options)

    monkeypatch.setattr(client, "upsert", lossy)
    with pytest.raises(StoreCorruptedError, match="does not read back"):
        one.migrate_to(two)


def test_a_vector_that_differs_in_the_target_is_written_anew(opened: Open, clock: Clock) -> None:
    one, two = filled(opened(), clock), opened("two")
    receipt = one.migrate_to(two)
    client = two._open.memories.client()
    [point], _ = client.scroll(COLLECTION, limit=1, with_vectors=True)
    dense = vectors_of(point)[DENSE]
    client.update_vectors(COLLECTION, [models.PointVectors(id=point.id, vector={DENSE: dense[::-1]})])
    assert one.migrate_to(two) == receipt
    [mended] = client.retrieve(COLLECTION, [point.id], with_vectors=True)
    assert vectors_of(mended)[DENSE] == pytest.approx(dense, abs=1e-5)


def test_a_payload_that_differs_by_the_kind_of_a_number_is_written_anew(opened: Open, clock: Clock) -> None:
    one, two = opened(), opened("two")
    one.long_term.store_messages([Message("user", "I like tea", id="m", metadata={"cups": 1})])
    one.migrate_to(two)
    client = two._open.memories.client()
    [point], _ = client.scroll(COLLECTION, limit=1)
    client.set_payload(COLLECTION, {"cups": 1.0}, points=[point.id], key="metadata.extra")
    one.migrate_to(two)
    [message] = two.long_term.messages()
    assert [type(value) for value in message.metadata.values()] == [int]


# A store under two names


def test_a_directory_and_a_link_to_it_are_one_store(opened: Open, clock: Clock, tmp_path: Path) -> None:
    one = filled(opened(), clock)
    (tmp_path / "link").symlink_to(tmp_path / "one")
    before = told(one)
    with pytest.raises(StoreUnavailableError, match="nothing to move"):
        one.migrate_to(opened("link"))
    assert told(one) == before


def test_a_database_by_another_name_is_the_same(opened: Open, clock: Clock, tmp_path: Path) -> None:
    one = filled(opened(journal_url=f"sqlite:///{tmp_path}/journal.db"), clock)
    (tmp_path / "link.db").symlink_to(tmp_path / "journal.db")
    scopes, before = one._open.journal.scopes(), told(one)
    with pytest.raises(StoreUnavailableError, match=r"journal\.db.*link\.db.*the same, under two names"):
        one.migrate_to(opened("two", journal_url=f"sqlite:///{tmp_path}/link.db"))
    assert (one._open.journal.scopes(), told(one)) == (scopes, before)
    assert not (tmp_path / "two/vectors").exists()


def test_how_the_embedded_engine_was_tuned_goes_along(opened: Open, clock: Clock) -> None:
    one, two = filled(opened(), clock), opened("two")
    one._open.memories.client().update_collection(COLLECTION, hnsw_config=models.HnswConfigDiff(m=24))
    one.migrate_to(two)
    before, after = (memory._open.memories.client().get_collection(COLLECTION).config for memory in (one, two))
    assert after == before and after.hnsw_config.m == 24


def test_what_shows_that_two_stores_are_two_is_gone_afterwards(opened: Open, clock: Clock) -> None:
    one, two = filled(opened(), clock), opened("two")
    one.migrate_to(two)
    scopes = set(one._open.journal.scopes())
    one.migrate_to(two)
    assert set(one._open.journal.scopes()) == set(two._open.journal.scopes()) == scopes
    assert told(two) == told(one)
    assert two.examine() == []


def test_what_an_interrupted_call_left_to_show_that_two_stores_are_two_is_cleared(
    opened: Open, clock: Clock, journal_url: str | None
) -> None:
    """Only that: what somebody wrote in a session of such a name is theirs."""
    one, two = filled(opened(), clock), opened("two", journal_url=journal_url)
    name = f"mark {UUID(int=1)}"
    two.for_scope(MemoryScope(session_id=name)).set_fact("mine", 1)
    left = MemoryScope(session_id=f"mark {UUID(int=2)}")
    two._open.journal.open(left, lambda event: None, lambda events: None).append("mark", {})
    one.migrate_to(two)
    assert left not in two._open.journal.scopes()
    assert two.for_scope(MemoryScope(session_id=name)).get_fact("mine") == 1


async def test_p35_migrating_has_its_async_form(opened: Open, clock: Clock) -> None:
    one, two = filled(opened(), clock), opened("two")
    assert (await one.amigrate_to(two)).scopes == 5
