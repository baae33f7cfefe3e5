"""Export and import: everything of a scope, or of all, as one file, the same bytes whichever stores it is in."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from strategies import Clock, frequent_switches, time_limit

from memory_integrations import (
    EmbeddingMismatchError,
    HistoryError,
    ManagementPlan,
    MemoryFilter,
    MemoryManager,
    MemoryScope,
    Message,
    Promote,
    ScopeError,
    StoreCorruptedError,
    StoreUnavailableError,
)
from memory_integrations.archive import ArchiveReceipt
from memory_integrations.collection import MemoryCollection
from memory_integrations.decisions import Compress
from memory_integrations.items import ItemMemory, NewItem, item_id
from memory_integrations.journal import as_json_line, events_of
from memory_integrations.layout import point_id
from memory_integrations.namespaces import ItemScopes
from memory_integrations.qdrant_edge.store import Collection as EngineCollection

Open = Callable[..., MemoryManager]

LONG = "The oboe is tuned to the orchestra, or the orchestra to the oboe, which is what most of them do. " * 30


@pytest.fixture
def opened(tmp_path: Path, clock: Clock) -> Iterator[Open]:
    """Opens a memory in a directory of its own, by name."""
    open_: list[MemoryManager] = []

    def opened(name: str = "one", scope: str = "global", **options: Any) -> MemoryManager:
        open_.append(MemoryManager(scope, data_dir=tmp_path / name, clock=clock, **options))
        return open_[-1]

    yield opened
    for memory in open_:
        memory.close()


def filled(memory: MemoryManager, clock: Clock) -> MemoryManager:
    """A memory with something of every kind, of two users and of everybody."""
    ann = memory.for_scope("user:ann/session:monday")
    for step in range(3):
        ann.set_fact("city", f"City {step}")
        clock.advance(60)
    ann.features.undo()
    ann.set_fact("instruments", ["oboe", {"name": "violin, ½ \u2028", "kind": "strings"}])
    ann.features.delete("city")
    ann.follow([Message("user", "I play the oboe.", id="m1"), Message("assistant", LONG, id="m2")])
    ann.follow([Message("user", "And you?", id="m3"), Message("assistant", "I do not.", id="m4")])
    ann.apply(ManagementPlan((Compress("m2", "The oboe is tuned to the orchestra."), Promote("m1", "plays", "oboe"))))
    ann.store_file_summary("lease.pdf", "Pets need written consent.")
    memory.for_scope("user:bob").add_turn("My cat is Xerxes.", "What a name!")
    memory.for_scope("user:bob").set_fact("pet", "Xerxes")
    memory.set_fact("greeting", "Hello")
    return memory


def told(memory: MemoryManager, scope: str) -> Any:
    """Everything that a user would see of a scope."""
    of = memory.for_scope(scope)
    return (
        of.features.export(),
        [(message.id, message.text, message.created_at, message.session_id) for message in of.long_term.messages()],
        of.receipts(),
        of.long_term.count(),
        [(hit.id, round(hit.score, 5), hit.text) for hit in of.search_long_term("who plays the oboe?", 10)],
    )


SCOPES = ("user:ann/session:monday", "user:ann", "user:bob", "global")


def all_new(wrote: ArchiveReceipt) -> ArchiveReceipt:
    """The receipt of an import into stores that have nothing of it."""
    return replace(wrote, new_events=wrote.events, new_points=wrote.points)


def test_a_scope_goes_into_one_file_and_back(opened: Open, clock: Clock, tmp_path: Path) -> None:
    one = filled(opened(), clock)
    wrote = one.for_scope("user:ann").export(tmp_path / "ann.jsonl")
    two = opened("two")
    read = two.for_scope("user:ann").import_archive(tmp_path / "ann.jsonl")
    assert read == all_new(wrote)
    assert (wrote.scope, wrote.events) == ("user:ann", 9)
    assert told(two, "user:ann") == told(one, "user:ann")
    assert told(two, "user:ann/session:monday") == told(one, "user:ann/session:monday")
    assert told(two, "user:bob")[3] == 0
    assert two.get_fact("greeting") is None
    text = (tmp_path / "ann.jsonl").read_text("utf-8")
    assert "Xerxes" not in text and "Hello" not in text
    assert [*json.loads(text.splitlines()[0]).items()] == [
        ("archive", "memory_integrations"),
        ("format", 1),
        ("scope", "user:ann"),
    ]
    assert (tmp_path / "ann.jsonl").stat().st_mode & 0o777 == 0o600


def test_the_same_memory_gives_the_same_bytes_whichever_journal_it_has(
    opened: Open, clock: Clock, tmp_path: Path, journal_url: str | None
) -> None:
    """Exported, imported into other stores and exported again: not a byte differs, and none of a prompt."""
    one = filled(opened(), clock)
    one.export(tmp_path / "one.jsonl", all_scopes=True, vectors=True)
    two = opened("two", journal_url=journal_url)
    two.import_archive(tmp_path / "one.jsonl")
    clock.advance(1000)
    two.export(tmp_path / "two.jsonl", all_scopes=True, vectors=True)
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    prompts = [memory.for_scope("user:ann").features.to_prompt() for memory in (one, two)]
    assert prompts[0] == prompts[1] and one.migrate_to(two).events


@pytest.mark.parametrize("vectors", [False, True])
def test_everything_comes_back_from_a_backup(opened: Open, clock: Clock, tmp_path: Path, vectors: bool) -> None:
    one = filled(opened(), clock)
    one.export(tmp_path / "all.jsonl", all_scopes=True, vectors=vectors)
    two = opened("two")
    wrote = two.import_archive(tmp_path / "all.jsonl")
    assert (wrote.new_events, wrote.new_points) == (wrote.events, wrote.points)
    for scope in SCOPES:
        assert told(two, scope) == told(one, scope)
    two.for_scope("user:ann").add_turn("It rains.", "It does.")
    (cat,) = two.for_scope("user:bob").search_long_term("My cat", limit=1)
    two.for_scope("user:bob").long_term.delete([cat.id])
    wrote = two.import_archive(tmp_path / "all.jsonl")
    assert (wrote.new_events, wrote.new_points) == (0, 1)


def test_a_session_alone_takes_no_facts_and_no_other_session(opened: Open, clock: Clock, tmp_path: Path) -> None:
    one = filled(opened(), clock)
    one.for_scope("user:ann/session:tuesday").add_turn("It rains.", "It does.")
    wrote = one.for_scope("user:ann/session:monday").export(tmp_path / "monday.jsonl")
    text = (tmp_path / "monday.jsonl").read_text("utf-8")
    assert "I play the oboe." in text
    assert "It rains" not in text and "violin" not in text and "lease.pdf" not in text
    assert wrote.events == 2
    two = opened("two", "user:ann/session:monday")
    two.import_archive(tmp_path / "monday.jsonl")
    assert two.receipts() == one.for_scope("user:ann/session:monday").receipts()
    assert [message.id for message in two.long_term.messages()] == ["m1", "m2", "m3", "m4"]


def test_vectors_spare_the_embedding(opened: Open, clock: Clock, tmp_path: Path) -> None:
    one = filled(opened(), clock)
    one.export(tmp_path / "with.jsonl", all_scopes=True, vectors=True)
    two = opened("two")
    embeddings = two._open.memories.dense
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(embeddings), "embed_documents", lambda *_: pytest.fail("embedded"))
        two.import_archive(tmp_path / "with.jsonl")
    assert told(two, "user:ann") == told(one, "user:ann")


def test_a_memory_of_another_language_embeds_anew_what_it_imports(opened: Open, clock: Clock, tmp_path: Path) -> None:
    filled(opened(), clock).export(tmp_path / "with.jsonl", all_scopes=True, vectors=True)
    two = opened("two", language="german")
    two.import_archive(tmp_path / "with.jsonl")
    assert ("m1",) in [hit.message_ids for hit in two.for_scope("user:ann").search_long_term("oboe")]
    two.close()
    with pytest.raises(EmbeddingMismatchError):
        opened("two").search_long_term("oboe")


def test_importing_again_changes_nothing(opened: Open, clock: Clock, tmp_path: Path) -> None:
    one = filled(opened(), clock)
    before = [told(one, scope) for scope in SCOPES]
    one.export(tmp_path / "all.jsonl", all_scopes=True)
    one.import_archive(tmp_path / "all.jsonl")
    assert [told(one, scope) for scope in SCOPES] == before


def test_what_was_said_since_stays(opened: Open, clock: Clock, tmp_path: Path) -> None:
    one = filled(opened(), clock)
    one.export(tmp_path / "all.jsonl", all_scopes=True)
    bob = one.for_scope("user:bob")
    bob.set_fact("city", "Oslo")
    bob.add_turn("I moved.", "Where to?")
    one.import_archive(tmp_path / "all.jsonl")
    assert bob.features.all() == {"greeting": "Hello", "pet": "Xerxes", "city": "Oslo"}
    assert bob.long_term.count() == 4


def test_an_import_that_was_interrupted_goes_on(opened: Open, clock: Clock, tmp_path: Path) -> None:
    one = filled(opened(), clock)
    for number in range(600):
        one.for_scope("user:bob").long_term.store_conversation(f"Number {number}", "Noted.")
    one.export(tmp_path / "all.jsonl", all_scopes=True)
    two = opened("two")

    def interrupt(done: int, whole: int) -> None:
        if done > 500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        two.import_archive(tmp_path / "all.jsonl", progress=interrupt)
    assert two.for_scope("user:bob").long_term.count() < one.for_scope("user:bob").long_term.count()
    two.import_archive(tmp_path / "all.jsonl")
    for scope in SCOPES:  # but for what a search finds: of 600 that say the same it may be any
        assert told(two, scope)[:4] == told(one, scope)[:4]


def test_another_history_is_refused_and_nothing_is_written(opened: Open, clock: Clock, tmp_path: Path) -> None:
    filled(opened(), clock).for_scope("user:bob").export(tmp_path / "bob.jsonl")
    two = opened("two", "user:bob")
    two.set_fact("pet", "a dog")
    with pytest.raises(HistoryError, match="user:bob has another history here"):
        two.import_archive(tmp_path / "bob.jsonl")
    assert two.features.all() == {"pet": "a dog"}
    assert two.long_term.count() == 0


@pytest.mark.parametrize(("whose", "into"), [("user:ann", "user:bob"), ("user:ann", "global"), (None, "user:ann")])
def test_p21_nobody_imports_anothers_memory(
    opened: Open, clock: Clock, tmp_path: Path, whose: str | None, into: str
) -> None:
    one = filled(opened(), clock)
    one.for_scope(whose or "global").export(tmp_path / "some.jsonl", all_scopes=whose is None)
    with pytest.raises(ScopeError, match="is an archive of"):
        opened("two", into).import_archive(tmp_path / "some.jsonl")


def test_p24_what_was_erased_is_in_no_archive(opened: Open, clock: Clock, tmp_path: Path) -> None:
    one = filled(opened(), clock)
    one.for_scope("user:bob").erase()
    one.export(tmp_path / "all.jsonl", all_scopes=True)
    assert b"Xerxes" not in (tmp_path / "all.jsonl").read_bytes()
    two = opened("two", "user:bob")
    two.for_scope("global").import_archive(tmp_path / "all.jsonl")
    assert two.long_term.count() == 0


def test_p24_a_deleted_message_that_is_told_again_stays_deleted_after_a_backup(
    opened: Open, clock: Clock, tmp_path: Path
) -> None:
    one = filled(opened(), clock)
    ann = one.for_scope("user:ann")
    [hit] = [hit for hit in ann.search_long_term("oboe", 10) if hit.message_ids == ("m1",)]
    ann.long_term.delete([hit.id])
    one.export(tmp_path / "all.jsonl", all_scopes=True)
    two = opened("two", "user:ann/session:monday")
    two.for_scope("global").import_archive(tmp_path / "all.jsonl")
    two.follow([Message("user", "I play the oboe.", id="m1"), Message("assistant", "I see.", id="m9")])
    assert "m1" not in {message.id for message in two.long_term.messages()}


@pytest.mark.parametrize("damage", ["cut", "changed", "line", "later", "nothing", "other", "binary"])
def test_a_damaged_archive_is_refused_and_nothing_is_written(
    opened: Open, clock: Clock, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "all.jsonl"
    filled(opened(), clock).export(path, all_scopes=True)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(
        {
            "cut": whole[:-20],
            "changed": whole.replace(b"Xerxes", b"Xerxex", 1),
            "line": b"".join(lines[:3] + lines[4:]),
            "later": whole.replace(b'"format":1', b'"format":2', 1),
            "nothing": b"",
            "other": b'{"role":"user","content":"Hello"}\n',
            "binary": bytes(range(256)),
        }[damage]
    )
    two = opened("two")
    with pytest.raises(StoreCorruptedError, match=r"all\.jsonl is no archive .* Nothing was imported"):
        two.import_archive(path)
    assert (two.features.all(), two.for_scope("user:bob").long_term.count()) == ({}, 0)


def test_an_archive_that_is_not_there(opened: Open, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="cannot be read"):
        opened().import_archive(tmp_path / "none.jsonl")
    with pytest.raises(StoreUnavailableError, match="cannot be written"):
        opened("two").export(tmp_path / "nowhere" / "all.jsonl")


def test_an_export_replaces_files_and_nothing_else(opened: Open, clock: Clock, tmp_path: Path) -> None:
    one = filled(opened(), clock)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "kept").mkdir()
    for place in ("pipe", "kept", "/dev/null"):
        with pytest.raises(StoreUnavailableError, match=r"cannot be written .*no file that may be written"):
            one.export(tmp_path / place)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode) and stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    (tmp_path / "link.jsonl").symlink_to("kept/all.jsonl")
    one.export(tmp_path / "link.jsonl")
    one.export(tmp_path / "link.jsonl")
    assert (tmp_path / "link.jsonl").is_symlink() and (tmp_path / "kept" / "all.jsonl").is_file()


def test_an_export_that_fails_leaves_the_one_before(opened: Open, clock: Clock, tmp_path: Path) -> None:
    one = filled(opened(), clock)
    one.export(tmp_path / "all.jsonl", all_scopes=True)
    before = (tmp_path / "all.jsonl").read_bytes()

    def interrupt(done: int, whole: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one.export(tmp_path / "all.jsonl", all_scopes=True, progress=interrupt)
    assert (tmp_path / "all.jsonl").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if "unfinished" in path.name] == []


def test_a_backup_while_others_write_has_all_that_was_there_before(opened: Open, clock: Clock, tmp_path: Path) -> None:
    one = filled(opened(), clock)
    ann = one.for_scope("user:ann")
    for number in range(300):
        ann.long_term.store_conversation(f"Before {number}", "Noted.")
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            ann.add_turn(f"Meanwhile {number}", "Noted.")
            ann.set_fact("latest", number)
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(3):
            one.export(tmp_path / f"{number}.jsonl", all_scopes=True, vectors=True)
    finally:
        stop.set()
        writer.join()
    for number in range(3):
        two = opened(f"from {number}")
        two.import_archive(tmp_path / f"{number}.jsonl")
        said = {message.text for message in two.for_scope("user:ann").long_term.messages()}
        assert {f"Before {number}" for number in range(300)} <= said
        assert two.for_scope("user:ann").get_fact("plays") == "oboe"


# Crafted and damaged archives: whoever can write a file can write one whose checksum is right

Record = dict[str, Any]

AT = "2025-01-01T00:00:00+00:00"


def written(path: Path, *records: Any, scope: Any = "user:ann", end: Any = None, **header: Any) -> Path:
    """An archive of these records, with a checksum that is right and counts that are."""
    lines = [{"archive": "memory_integrations", "format": 1, "scope": scope, **header}, *records]
    body = b"".join(line if isinstance(line, bytes) else as_json_line(line) for line in lines)
    events, points = (sum(isinstance(one, dict) and key in one for one in records) for key in ("event", "payload"))
    end = {"events": events, "points": points} if end is None else end
    if isinstance(end, dict):
        end = {"sha256": sha256(body).hexdigest(), **end}
    path.write_bytes(body + as_json_line({"end": end}))
    return path


def fact(scope: str = "user:ann", number: Any = 1, **fields: Any) -> Record:
    event = {"at": AT, "kind": "set", "key": "iban", "value": "DE1", "source": "user", **fields}
    return {"scope": scope, "number": number, "event": event}


def point(scope: Any = "user:ann", id_: Any = None, session: Any = "s", text: Any = "Evil.", **fields: Any) -> Record:
    """A message, as this package writes it but for what is given."""
    metadata = {"scope": scope, "kind": "message", "session_id": session, "message_id": "m", "role": "user"}
    metadata |= {"created_at": AT, "order": 1, **fields}
    id_ = id_ or point_id(str(scope), session, str(metadata["message_id"]), metadata.get("piece", 0))
    return {"id": id_, "payload": {"page_content": text, "metadata": metadata}}


def foreign(scope: str, id_: Any, **fields: Any) -> Record:
    """A memory as langchain_qdrant's own class writes it, under an id that it makes up."""
    return {"id": id_, "payload": {"page_content": "Evil.", "metadata": {"scope": scope, **fields}}}


def item(tag: str, id_: str | None = None, **fields: Any) -> Record:
    """An item as a store writes it, but for what is given; what is ``...`` is left out."""
    metadata = {"scope": tag, "kind": "item", "namespace": ["notes"], "within": ["", "notes"], "key": "k"}
    metadata |= {"value": "{}"}
    metadata |= {"created_at": AT, "updated_at": AT, "order": 1, **fields}
    kept = {name: value for name, value in metadata.items() if value is not ...}
    return {"id": id_ or item_id(tag, ("notes",), "k"), "payload": {"page_content": "", "metadata": kept}}


BOBS = point_id("user:bob", "s", "m")


def everything_of(memory: MemoryManager) -> Any:
    """All points and events of all scopes."""
    points = {one.id: one.payload for one in memory._open.memories.scroll(None)}
    return points, {str(scope): events_of(memory._open.journal, scope) for scope in memory._open.journal.scopes()}


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(fact("user:bob"), id="another's fact"),
        pytest.param(fact("global"), id="everybody's fact"),
        pytest.param(fact("user:bob/session:s"), id="another's session"),
        pytest.param(fact("user=ann"), id="a scope printed in another way"),
        pytest.param(point("user:bob"), id="another's message"),
        pytest.param(point("global"), id="everybody's message"),
        pytest.param(point("deleted", BOBS), id="a mark that another's message is deleted"),
        pytest.param(point(["user:ann", "user:bob"], BOBS), id="a message of two"),
        pytest.param(point("user:ann", BOBS), id="in the place of another's message"),
        pytest.param(point("user:ann", BOBS.upper()), id="in that place, written in another way"),
        pytest.param({"id": BOBS, "payload": {}}, id="of nobody, in that place"),
        pytest.param({"id": BOBS, "payload": {"metadata": [{"scope": "user:bob"}]}}, id="of a list"),
        pytest.param(item("store:user:bob"), id="another's store"),
        pytest.param(item("user:ann", item_id("user:bob", ("notes",), "k")), id="another's item"),
        pytest.param(item("user:ann", namespace=...), id="an item that no listing survives"),
        pytest.param(item("user:ann", kind="message", message_id="m"), id="an item in disguise"),
        pytest.param(item("user:ann", expires_at=AT[:19]), id="an item that no sweeping survives"),
        pytest.param(item("user:ann", within=["", "bob"]), id="an item that is listed elsewhere"),
        pytest.param(point(role="system"), id="a message of the system"),
        pytest.param(point(role=None), id="a message of nobody"),
        pytest.param(point(kind="file", role="user"), id="a file in disguise"),
        pytest.param(point(created_at=AT[:19]), id="a message without a time zone"),
    ],
)
@pytest.mark.parametrize("place", ["first", "last"])
def test_p21_an_archive_reaches_no_other_scope(opened: Open, tmp_path: Path, record: Record, place: str) -> None:
    """Its checksum has no key, so that anybody can write a file that says it is theirs."""
    memory = opened()
    bob = memory.for_scope("user:bob/session:s")
    bob.long_term.store_messages([Message("user", "My doctor is Dr. Real.", id="m")])
    before = everything_of(memory)
    honest = [fact(number=1), point("user:ann", session="t")]
    events, points = ([one for one in (record, *honest) if key in one] for key in ("event", "payload"))
    ordered = [*events, *points] if place == "first" else [*events[::-1], *points[::-1]]
    path = written(tmp_path / "ann.jsonl", *ordered)
    ann = memory.for_scope("user:ann")
    with pytest.raises(StoreCorruptedError, match=r"ann\.jsonl is no archive .* line \d, .* Nothing was imported"):
        ann.import_archive(path)
    assert everything_of(memory) == before


@pytest.mark.parametrize("is_there", [True, False])
def test_p21_what_another_program_wrote_takes_nobodys_place(opened: Open, tmp_path: Path, is_there: bool) -> None:
    """Its id tells nothing, and may be the one of a memory that another user has, or will have."""
    memory = opened()
    bob = memory.for_scope("user:bob/session:s")
    items = ItemMemory(memory._open.memories, ItemScopes(("{user_id}",)))

    def tell() -> None:
        bob.long_term.store_messages([Message("user", "My doctor is Dr. Real.", id="m")])
        items.put_many([NewItem(("bob",), "k", {"iban": "DE1"})])

    if is_there:
        tell()
    evil = {"namespace": ["bob"], "key": "k", "value": '{"iban": "EVIL"}', "created_at": AT, "updated_at": AT}
    ids = [BOBS, item_id("user:bob", ("bob",), "k"), 7]
    strange = [foreign("user:ann", id_, **evil, extra={"evil": True}, name="Eve", order=1) for id_ in ids]
    ann = memory.for_scope("user:ann")
    for _ in range(2):  # importing again doubles nothing
        ann.import_archive(written(tmp_path / "ann.jsonl", *strange))
        assert ann.long_term.count() == 3
    if not is_there:
        assert bob.long_term.recorded([Message("user", "My doctor is Dr. Real.", id="m")]) == {}
        assert items.get_many([(("bob",), "k")]) == [None]
        tell()
    [message] = bob.long_term.messages()
    assert (message.text, message.name, dict(message.metadata)) == ("My doctor is Dr. Real.", None, {})
    [found] = items.get_many([(("bob",), "k")])
    assert found is not None and found.value == {"iban": "DE1"}
    assert ann.long_term.count() == 3
    ann.export(tmp_path / "again.jsonl")
    before = everything_of(memory)
    ann.import_archive(tmp_path / "again.jsonl")
    assert everything_of(memory) == before, "what is here keeps its place"


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(fact("user:ann"), id="the user's facts"),
        pytest.param(fact("user:ann/session:tuesday"), id="another session's decisions"),
        pytest.param(point("user:ann", session="tuesday"), id="another session's message"),
        pytest.param(point("user:ann", session=None), id="a message of no session"),
        pytest.param(item("store:user:ann", session_id="monday"), id="an item of the store"),
    ],
)
def test_an_archive_of_a_session_reaches_no_other_session(opened: Open, tmp_path: Path, record: Record) -> None:
    monday = opened(scope="user:ann/session:monday")
    path = written(tmp_path / "monday.jsonl", record, scope="user:ann/session:monday")
    with pytest.raises(StoreCorruptedError, match=r"line 2, it is an? (event|memory) of"):
        monday.import_archive(path)
    assert monday.features.all() == {} and monday.for_scope("user:ann").long_term.count() == 0


GOOD = [fact(), point()]


@pytest.mark.parametrize(
    ("records", "options", "told"),
    [
        pytest.param(GOOD, {"scope": 5}, "line 1, 5 is no scope", id="whose"),
        pytest.param(GOOD, {"scope": "user=ann"}, "line 1, 'user=ann' is no scope", id="whose, printed otherwise"),
        pytest.param(GOOD, {"end": ["x"]}, "cut off", id="an end that is a list"),
        pytest.param(GOOD, {"end": {"events": 0}}, "other counts than 1 events and 1 points", id="too few events"),
        pytest.param(GOOD, {"end": {"points": 12}}, "other counts", id="too many points"),
        pytest.param(GOOD, {"end": {"events": "1"}}, "other counts", id="a count that is text"),
        pytest.param([["event"]], {}, "line 2, .* no whole line with an object", id="a list"),
        pytest.param([fact(), {"end": {}}, point()], {}, "line 4, it is after the end", id="an end in between"),
        pytest.param([{"note": 1}], {}, "line 2, it is neither", id="neither"),
        pytest.param([{**fact(), **point()}], {"end": {"events": 1, "points": 1}}, "line 2, it is neither", id="both"),
        pytest.param([point(), fact()], {}, "line 3, it is neither an event nor a point here", id="an event late"),
        pytest.param([b"[" * 200_000 + b"\n"], {}, "line 2", id="very deep"),
        pytest.param(
            [fact(value=[[]]), b'{"id":1,"payload":{"a":' + b"[" * 300 + b"]" * 300 + b"}}\n"],
            {"end": {"events": 1, "points": 1}},
            "line 3, .* levels",
            id="deeper than the engine reads",
        ),
        pytest.param([fact(value="\ud800")], {}, "line 2", id="half a character")
        if False
        else pytest.param(
            [b'{"scope":"user:ann","number":1,"event":{"at":"' + AT.encode() + b'","kind":"\\ud800"}}\n'],
            {"end": {"events": 1, "points": 0}},
            "line 2",
            id="half a character",
        ),
        pytest.param(
            [b'{"id":1,"payload":{"a":NaN}}\n'], {"end": {"events": 0, "points": 1}}, "line 2", id="no number"
        ),
        pytest.param([fact(number=2)], {}, "line 2, it is event 2 of user:ann, where event 1", id="a late beginning"),
        pytest.param([fact(), fact(number=3)], {}, "line 3, it is event 3 .* where event 2", id="a gap"),
        pytest.param([fact(), fact(number=1)], {}, "line 3, it is event 1 .* where event 2", id="twice"),
        pytest.param(
            [fact(), fact("user:ann/session:z", 7)], {}, "line 3, it is event 7 of user:ann/session:z", id="a later gap"
        ),
        pytest.param(
            [fact(), fact("user:ann/session:z"), fact(number=2)], {}, "line 4, it is event 2", id="in between"
        ),
        pytest.param([fact(number=True)], {}, "line 2, it is no event", id="a number that is none"),
        pytest.param([fact(number="1")], {}, "line 2, it is no event", id="a number that is text"),
        pytest.param([fact(kind=3)], {}, "line 2, it is no event", id="a kind that is none"),
        pytest.param([fact(at=3)], {}, "line 2, it is no event", id="a time that is none"),
        pytest.param([fact(at="2025-01-01")], {}, "line 2, time", id="a time without a zone"),
        pytest.param([{**fact(), "event": "set"}], {}, "line 2, it is no event", id="an event that is text"),
        pytest.param([{**point(), "payload": ["x"]}], {}, "line 2, it is no point", id="a payload that is a list"),
        pytest.param([{**point(), "id": "m"}], {}, "line 2, 'm' is no point's id", id="an id that is none"),
        pytest.param([{**point(), "id": -1}], {}, "line 2, -1 is no point's id", id="an id below 0"),
        pytest.param([point(text=["x"])], {}, "line 2, it is no memory", id="a text that is none"),
        pytest.param([point(created_at="yesterday")], {}, "its created_at 'yesterday'", id="a day that is none"),
        pytest.param([point(message_id=["a"])], {}, "its message_id", id="an id of a message that is a list"),
        pytest.param([point(pieces="3")], {}, "its pieces '3'", id="pieces that are text"),
        pytest.param([point(pieces=10**12)], {}, "its pieces", id="more pieces than anybody can delete"),
        pytest.param([point(pieces=2, piece=2)], {}, "it is piece 2 of 2", id="a piece too many"),
        pytest.param([point(order=None)], {}, "its order None", id="no order"),
        pytest.param([{**point(), "dense": "AAAA"}], {}, "does not say of which embedding", id="vectors of none"),
        pytest.param(
            [{**point(), "dense": "AACAPw=="}], {"embedding": "e", "embedding_size": 3}, "of 3 numbers", id="too short"
        ),
        pytest.param(
            [{**point(), "dense": "?"}], {"embedding": "e", "embedding_size": 3}, "line 2", id="a vector that is none"
        ),
        pytest.param(
            [{**point(), "dense": "AADAfwAAwH8AAMB/"}],
            {"embedding": "e", "embedding_size": 3},
            "a vector that is none",
            id="a vector without numbers",
        ),
        pytest.param(
            [{**point(), "sparse": [[1, 1], "AACAPwAAgD8="]}],
            {"embedding": "e", "embedding_size": 3},
            "a sparse vector that is none",
            id="a term twice",
        ),
        pytest.param(GOOD, {"embedding": "e", "embedding_size": "3"}, "line 1, .* how many", id="a size that is text"),
    ],
)
def test_a_crafted_archive_is_refused_and_nothing_is_written(
    opened: Open, tmp_path: Path, records: list[Any], options: dict[str, Any], told: str
) -> None:
    ann = opened(scope="user:ann")
    path = written(tmp_path / "ann.jsonl", *records, **options)
    with pytest.raises(StoreCorruptedError, match=rf"ann\.jsonl is no archive .*{told}.* Nothing was imported"):
        ann.import_archive(path)
    assert (ann.features.all(), ann.long_term.count()) == ({}, 0)
    assert ann._open.journal.scopes() == []


def test_what_the_crafted_ones_are_made_of_is_imported(opened: Open, tmp_path: Path) -> None:
    """Else they would be refused for another reason."""
    ann = opened(scope="user:ann")
    records = [fact(), fact(number=2), fact("user:ann/session:z"), point(), foreign("user:ann", 7, name=None)]
    records += [item("user:ann"), item("store:user:ann")]
    assert ann.import_archive(written(tmp_path / "ann.jsonl", *records)).points == 4
    assert ann.get_fact("iban") == "DE1"
    monday = ann.for_scope("user:ann/session:monday")
    of_monday = [fact(str(monday.scope)), point(session="monday"), foreign("user:ann", 8, session_id="monday")]
    monday.import_archive(written(tmp_path / "monday.jsonl", *of_monday, scope=str(monday.scope)))
    assert ann.long_term.count() == 5
    assert ann.examine() == []
    before = everything_of(ann)
    for memory, told_again in ((ann, records), (monday, of_monday)):
        memory.import_archive(written(tmp_path / "again.jsonl", *told_again, scope=str(memory.scope)))
    assert everything_of(ann) == before, "importing again changes nothing"


ORIGINAL = {"id": "m", "role": "user", "content": "Evil.", "name": None, "session_id": "s", "said_at": AT}
RUN = {"decisions": [], "facts": [], "tokens": [1, 1], "calls": 0, "usage": {}}


def decided(**fields: Any) -> Record:
    return {**RUN, "decisions": [{"do": "delete", "entry_id": "m", "reason": "", **fields}]}


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        pytest.param("compress", {}, id="an original of nothing"),
        pytest.param("compress", {**ORIGINAL, "id": ["m"]}, id="an original whose id is a list"),
        pytest.param("compress", {**ORIGINAL, "said_at": "2025"}, id="an original of no time"),
        pytest.param("compress", {**ORIGINAL, "role": ""}, id="an original of no role"),
        pytest.param("manage", {}, id="a run of nothing"),
        pytest.param("manage", {**RUN, "tokens": []}, id="a run without counts"),
        pytest.param("manage", {**RUN, "facts": ["1"]}, id="a run with facts that are text"),
        pytest.param("manage", {**RUN, "decisions": ["m"]}, id="a decision that is text"),
        pytest.param("manage", decided(do="destroy"), id="a decision of no kind"),
        pytest.param("manage", decided(entry_id={}), id="a decision about an object"),
        pytest.param("manage", decided(more="m"), id="a decision that says too much"),
        pytest.param("manage", decided(do="compress"), id="a compression without a text"),
        pytest.param("unmanage", {"of": ["1"]}, id="of a run whose number is a list"),
        pytest.param("expand", {}, id="of no entry"),
        pytest.param("clear", {"until": 7}, id="of a time that is none"),
        pytest.param("clear", {"until": "2025-01-01"}, id="of a time without a zone"),
    ],
)
def test_what_managing_never_wrote_breaks_nobody_who_reads_it(
    opened: Open, tmp_path: Path, kind: str, data: Record
) -> None:
    event = {"scope": "user:ann/session:s", "number": 1, "event": {"at": AT, "kind": kind, **data}}
    ann = opened(scope="user:ann")
    ann.import_archive(written(tmp_path / "ann.jsonl", event, point(text="It rains."), point(message_id="n")))
    session = ann.for_scope("user:ann/session:s")
    assert "It rains." in [entry.content for entry in session.resume()]
    assert session.receipts() == []
    session.add_turn("I live in Lisbon.", "Nice.")
    session.manage_short_term()
    session.get_context("rain", max_tokens=100)
    session.set_fact("plays", "oboe")
    ann.erase_fact("plays")
    (rain,) = ann.search_long_term("It rains.", limit=1)
    ann.long_term.delete([rain.id])
    assert b"Evil" not in b"".join(path.read_bytes() for path in tmp_path.rglob("journal/*"))
    session.clear_session()
    assert session.short_term.entries == []


def test_every_archive_of_a_scope_is_one_that_it_may_import(opened: Open, clock: Clock, tmp_path: Path) -> None:
    """Of whatever there is: long messages, files, items in every namespace, and what other programs wrote."""
    pytest.importorskip("langgraph")
    from langchain_core.documents import Document

    from memory_integrations.langchain import MemoryStore

    one = filled(opened(), clock)
    ann = one.for_scope("user:ann")
    for memory, template in ((one, ("users", "{user_id}", "{session_id}")), (ann, ("memories", "{user_id}"))):
        store = MemoryStore(memory, namespace=template)
        store.put(("memories", "ann"), "k", {"instrument": "oboe"})
        store.put(("users", "ann", "monday"), "k", {"instrument": "oboe"})
        store.put(("notes",), "k", {"instrument": "oboe"})
    documents = [Document("Written by another class.", metadata={"scope": "user:ann", "source": "x"})]
    ann.long_term.vectorstore.add_documents(documents)
    for scope in SCOPES:
        for vectors in (False, True):
            path = tmp_path / "archive.jsonl"
            wrote = one.for_scope(scope).export(path, vectors=vectors)
            two = opened(f"{scope} {vectors}".replace("/", " "), scope)
            assert two.import_archive(path) == all_new(wrote)
            two.export(tmp_path / "again.jsonl", vectors=vectors)
            strange = 1 if scope == "user:ann" else 0  # which has an id of its scope's own now
            lines, again = (set(file.read_bytes().splitlines()[:-1]) for file in (path, tmp_path / "again.jsonl"))
            assert len(lines - again) == len(again - lines) == strange


def test_a_backup_may_have_what_other_programs_wrote_in_their_way(opened: Open, clock: Clock, tmp_path: Path) -> None:
    from qdrant_client import models

    one = filled(opened(), clock)
    memories = one._open.memories
    odd = {"page_content": "?", "metadata": {"created_at": "yesterday", "pieces": "3"}}
    memories.open().upsert(memories.name, [models.PointStruct(id=1, vector={}, payload=odd)])
    one.export(tmp_path / "with.jsonl", all_scopes=True, vectors=True)
    two = opened("two")
    two.import_archive(tmp_path / "with.jsonl")
    assert everything_of(two) == everything_of(one)
    one.export(tmp_path / "without.jsonl", all_scopes=True)
    opened("embedded anew").import_archive(tmp_path / "without.jsonl")
    odd["page_content"] = ["?"]
    memories.open().upsert(memories.name, [models.PointStruct(id=1, vector={}, payload=odd)])
    one.export(tmp_path / "without.jsonl", all_scopes=True)
    three = opened("three")
    with pytest.raises(StoreCorruptedError, match=r"the point 1 cannot be embedded .* Nothing was imported"):
        three.import_archive(tmp_path / "without.jsonl")
    assert everything_of(three) == ({}, {})


@pytest.mark.parametrize("kind", [["mail"], {"is": "mail"}, 5, None, "mail"], ids=str)
def test_what_other_programs_call_a_kind_may_be_anything(opened: Open, tmp_path: Path, kind: Any) -> None:
    one = opened(scope="user:ann")
    one.long_term.vectorstore.add_texts(["It rains."], metadatas=[{"scope": "user:ann", "kind": kind}])
    wrote = one.export(tmp_path / "ann.jsonl")
    two = opened("two", scope="user:ann")
    assert two.import_archive(tmp_path / "ann.jsonl") == all_new(wrote)
    assert two.import_archive(tmp_path / "ann.jsonl").new_points == 0
    assert [message.text for message in two.long_term.messages()] == ["It rains."]
    two.store_file_summary("weather.txt", "It rained.")
    assert two.long_term.erase() == 2


@pytest.mark.parametrize("kind", ["mail", "message"])
def test_more_pieces_than_anybody_has_cost_an_import_nothing(opened: Open, tmp_path: Path, kind: str) -> None:
    one = opened()
    ids = [point_id("user:ann", "s", str(number)) for number in range(20)]
    for at, pieces in (("2025-01-01T00:00:00+00:00", 2_000_000), ("2025-01-02T00:00:00+00:00", 1)):
        fields = {"kind": kind, "pieces": pieces, "created_at": at, "session_id": "s"}
        records = [foreign("user:ann", id_, **fields, message_id=str(n)) for n, id_ in enumerate(ids)]
        with time_limit(10):
            assert one.import_archive(written(tmp_path / "all.jsonl", *records, scope=None)).new_points == 20


@pytest.mark.parametrize("how", ["replaced", "overwritten"])
def test_what_is_imported_is_what_was_looked_at(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A file that is changed between the two writes into no other scope."""
    ann = opened(scope="user:ann")
    path = written(tmp_path / "ann.jsonl", fact(), point())
    evil = written(tmp_path / "evil.jsonl", fact("user:bob"), point("user:bob"))

    def swap(self: Any, *args: Any) -> Any:
        evil.replace(path) if how == "replaced" else path.write_bytes(evil.read_bytes())
        monkeypatch.undo()
        return self.open()

    monkeypatch.setattr(MemoryCollection, "open", swap)
    if how == "replaced":
        ann.import_archive(path)
        assert ann.get_fact("iban") == "DE1"
    else:
        with pytest.raises(StoreCorruptedError, match="line 2, it is an event of user:bob"):
            ann.import_archive(path)
    bob = ann.for_scope("user:bob")
    assert (bob.features.all(), bob.long_term.count()) == ({}, 0)


def test_facts_alone_make_no_collection(opened: Open, tmp_path: Path) -> None:
    one = opened(scope="user:ann")
    one.set_fact("city", "Lisbon")
    one.export(tmp_path / "ann.jsonl", vectors=True)
    two = opened("two", "user:ann")
    two.import_archive(tmp_path / "ann.jsonl")
    assert two.get_fact("city") == "Lisbon"
    assert [path for name in ("one", "two") for path in (tmp_path / name).glob("vectors*")] == []


def test_two_exports_to_one_path_leave_one_that_is_whole(opened: Open, clock: Clock, tmp_path: Path) -> None:
    one, path = filled(opened(), clock), tmp_path / "all.jsonl"
    both = threading.Barrier(2, timeout=30)

    def export(number: int) -> ArchiveReceipt:
        return one.export(path, all_scopes=True, vectors=True, progress=lambda done, whole: both.wait() and None)

    with ThreadPoolExecutor(2) as threads:
        receipts = list(threads.map(export, range(2)))
    assert receipts[0] == receipts[1]
    assert opened("two").import_archive(path) == all_new(receipts[0])
    assert [found.name for found in tmp_path.iterdir() if found.is_file()] == ["all.jsonl"]


def test_an_import_says_when_the_vectors_were_of_no_use(opened: Open, clock: Clock, tmp_path: Path) -> None:
    one = filled(opened(), clock)
    assert not one.export(tmp_path / "with.jsonl", all_scopes=True, vectors=True).embedded_anew
    one.export(tmp_path / "without.jsonl", all_scopes=True)
    assert not opened("two").import_archive(tmp_path / "with.jsonl").embedded_anew
    assert opened("three", language="german").import_archive(tmp_path / "with.jsonl").embedded_anew
    assert not opened("four", language="german").import_archive(tmp_path / "without.jsonl").embedded_anew


async def test_p35_archives_have_their_async_form(opened: Open, clock: Clock, tmp_path: Path) -> None:
    one = filled(opened(), clock)
    wrote = await one.aexport(tmp_path / "all.jsonl", all_scopes=True)
    assert await opened("two").aimport_archive(tmp_path / "all.jsonl") == all_new(wrote)


def test_what_waits_in_the_sessions_of_a_user_is_in_the_archive(opened: Open, tmp_path: Path) -> None:
    memory = opened()
    memory.for_scope("user:ann/session:s").follow([Message("user", "I moved to Porto")])
    memory.for_scope("user:bob/session:s").follow([Message("user", "I moved to Faro")])
    memory.for_scope("user:ann").export(tmp_path / "ann.jsonl")
    text = (tmp_path / "ann.jsonl").read_text()
    assert "Porto" in text and "Faro" not in text


def test_what_was_written_since_a_backup_stays(opened: Open, clock: Clock, tmp_path: Path) -> None:
    pytest.importorskip("langgraph")
    from memory_integrations.langchain import MemoryStore

    one, path = opened(), tmp_path / "all.jsonl"
    store, ann = MemoryStore(one), one.for_scope("user:ann/session:s")
    store.put(("notes",), "theme", {"is": "light"})
    ann.store_file_summary("lease.pdf", LONG)
    ann.long_term.store_messages([Message("user", "My password is hunter2.", id="m")])
    one.export(path, all_scopes=True, vectors=True)
    clock.advance(60)
    store.put(("notes",), "theme", {"is": "dark"})
    ann.store_file_summary("lease.pdf", "Pets are welcome.")
    ann.long_term.store_messages([Message("user", "My password is [removed].", id="m")])
    now = everything_of(one)
    assert one.import_archive(path).new_points == 0
    assert everything_of(one) == now
    one.export(tmp_path / "later.jsonl", all_scopes=True)
    two = opened("two")
    two.import_archive(path)
    assert two.import_archive(tmp_path / "later.jsonl").new_points == 3, "what is older there is replaced"
    found = [of.long_term.search("pets", 1, where=MemoryFilter(kind="file")) for of in (ann, two.for_scope(ann.scope))]
    assert [hit.text for hit in found[0]] == [hit.text for hit in found[1]] != []
    assert {key: value for key, value in everything_of(two)[0].items() if LONG[:20] in str(value)} == {}
    assert MemoryStore(two).get(("notes",), "theme").value == {"is": "dark"}  # type: ignore[union-attr]


def test_what_is_written_while_an_import_has_looked_and_not_written_yet_stays(
    opened: Open, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import and a writer of one scope take turns, as any two writers do."""
    one, two = opened(scope="user:ann"), opened("two", scope="user:ann")

    def tell(memory: MemoryManager, text: str) -> None:
        memory.long_term.store_messages([Message("user", text, id="m")])

    tell(one, "My doctor is Dr. Old.")
    tell(two, "My doctor is Dr. Old.")
    clock.advance(60)
    tell(one, "My doctor is Dr. Later.")
    one.export(tmp_path / "ann.jsonl")
    clock.advance(60)
    writer = threading.Thread(target=tell, args=(two, "My doctor is Dr. New."))
    put = MemoryCollection.put

    def put_late(self: MemoryCollection, points: Any) -> None:
        writer.start()
        writer.join(0.5)
        put(self, points)

    monkeypatch.setattr(MemoryCollection, "put", put_late)
    assert two.import_archive(tmp_path / "ann.jsonl").new_points == 1
    writer.join()
    assert [message.text for message in two.long_term.messages()] == ["My doctor is Dr. New."]


def test_two_imports_at_once_do_not_wait_for_each_other(opened: Open, clock: Clock, tmp_path: Path) -> None:
    """Their batches have the points of several users, in whatever order."""
    users = [f"user:{number}" for number in range(6)]
    records = [point(user, text=f"{user} said it.", order=n) for n, user in enumerate(users)]
    paths = [written(tmp_path / f"{n}.jsonl", *said, scope=None) for n, said in enumerate((records, records[::-1]))]
    one = opened()
    with ThreadPoolExecutor(2) as pool, frequent_switches(), time_limit(60):
        for _ in range(20):
            list(pool.map(one.import_archive, paths))
            for user in users:
                one.for_scope(user).long_term.erase()


def files_with(directory: Path, *texts: str) -> list[str]:
    """Those of the texts that are in any file under a directory."""
    files = b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())
    return [text for text in texts if text.encode() in files]


@pytest.mark.parametrize("vectors", [False, True])
def test_a_message_that_was_changed_since_is_newer_in_either_direction(
    opened: Open, clock: Clock, tmp_path: Path, vectors: bool
) -> None:
    """An answer that was stored half is whole in a later archive; it keeps the time at which it was said."""
    one, two = opened(scope="user:ann"), opened("two", scope="user:ann")
    said = {"half": "It leaves at nine", "whole": "It leaves at nine from gate seven."}
    for name, text in said.items():
        one.long_term.store_messages([Message("assistant", text, id="m")])
        one.export(tmp_path / f"{name}.jsonl", vectors=vectors)
        clock.advance(60)
    assert two.import_archive(tmp_path / "half.jsonl").new_points == 1
    assert two.import_archive(tmp_path / "whole.jsonl").new_points == 1
    for memory in (one, two):
        for name in said:
            assert memory.import_archive(tmp_path / f"{name}.jsonl").new_points == 0
        [message] = memory.long_term.messages()
        assert message.text == said["whole"]
        assert (clock.now - message.created_at).seconds == 120  # type: ignore[operator]
    assert everything_of(one) == everything_of(two)


def test_p24_what_an_import_puts_something_newer_in_the_place_of_is_in_no_file(
    opened: Open, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P24: and the files are written anew once, however much there is to import."""
    monkeypatch.setattr("memory_integrations.archive.PAGE", 2)
    one, two = opened(scope="user:ann"), opened("two", scope="user:ann")
    secrets = [f"The PIN number {number} is {number}4711" for number in range(5)]
    one.long_term.store_messages(Message("user", text, id=text[:16]) for text in secrets)
    one.store_file_summary("pins.txt", f"{LONG} 9999-8888")
    one.export(tmp_path / "before.jsonl")
    clock.advance(60)
    one.long_term.store_messages(Message("user", f"{text[:16]} is none of yours", id=text[:16]) for text in secrets)
    one.store_file_summary("pins.txt", "Nothing.")
    one.export(tmp_path / "after.jsonl")
    rebuilt: list[Any] = []
    real = EngineCollection.rebuild
    monkeypatch.setattr(EngineCollection, "rebuild", lambda self, *a: rebuilt.append(self) or real(self, *a))
    two.import_archive(tmp_path / "before.jsonl")
    two.import_archive(tmp_path / "before.jsonl")
    assert rebuilt == [], "nothing was overwritten"
    assert files_with(tmp_path / "two/vectors", *secrets, "9999-8888") == [*secrets, "9999-8888"]
    two.import_archive(tmp_path / "after.jsonl")
    assert len(rebuilt) == 1
    assert files_with(tmp_path / "two/vectors", *secrets, "9999-8888", "none of yours") == ["none of yours"]
    assert everything_of(two) == everything_of(one)


@pytest.mark.parametrize("lost", [False, True])
def test_a_backup_from_before_an_erasure_brings_back_all_but_that(
    opened: Open, clock: Clock, tmp_path: Path, lost: bool
) -> None:
    one = filled(opened(), clock)
    one.export(tmp_path / "before.jsonl", all_scopes=True)
    monday = one.for_scope("user:ann/session:monday")
    one.for_scope("user:ann").erase_fact("plays")
    (oboe,) = [hit for hit in monday.search_long_term("oboe", 9) if hit.message_ids == ("m2",)]
    monday.long_term.delete([oboe.id])
    if lost:
        bobs = one._open.journal.path(MemoryScope(user_id="bob"))  # type: ignore[attr-defined]
        head, _, *rest = bobs.read_bytes().splitlines(keepends=True)
        bobs.write_bytes(b"".join([head, b"\n", *rest]))
        for finding in one.examine():
            if finding.repair:
                finding.repair()
    receipts = monday.receipts()
    one.export(tmp_path / "after.jsonl", all_scopes=True)
    one.import_archive(tmp_path / "before.jsonl")
    assert one.for_scope("user:bob").get_fact("pet") == "Xerxes"
    assert one.for_scope("user:ann").features.get("plays") is None
    assert monday.receipts() == receipts
    two = opened("two")
    two.import_archive(tmp_path / "before.jsonl")
    assert two.for_scope("user:ann").get_fact("plays") == "oboe"
    two.import_archive(tmp_path / "after.jsonl")
    assert two.for_scope("user:ann").features.get("plays") is None, "what was erased there is erased here"
    assert two.for_scope("user:ann/session:monday").receipts() == receipts
    journals = b"".join(path.read_bytes() for path in (tmp_path / "two" / "journal").iterdir())
    assert b"tuned to the orchestra" not in journals


@pytest.mark.parametrize("role", ["system", "tool", None])
def test_what_others_wrote_into_a_session_is_no_part_of_the_conversation(
    opened: Open, tmp_path: Path, role: str | None
) -> None:
    session = opened(scope="user:ann/session:s")
    said = [point(text="It rains.", order=1), foreign("user:ann", 7, session_id="s", role=role, message_id="n")]
    session.for_scope("user:ann").import_archive(written(tmp_path / "ann.jsonl", *said))
    assert [(message.role, message.text) for message in session.resume()] == [("user", "It rains.")]
    assert all("Evil" not in entry.content for entry in session.short_term.entries)


def test_a_scope_that_went_on_otherwise_keeps_no_other_from_a_backup(tmp_path: Path, clock: Clock) -> None:
    """The end of one journal was lost, and something was written since."""
    with MemoryManager(data_dir=tmp_path / "here", clock=clock) as memory:
        for user in ("ann", "bob"):
            memory.for_scope(f"user:{user}").add_turn(f"I am {user}.", "Hello.")
            memory.for_scope(f"user:{user}").set_fact("name", user)
        memory.export(tmp_path / "backup", all_scopes=True)
        memory.for_scope("user:ann").export(tmp_path / "ann")
    with MemoryManager(data_dir=tmp_path / "there", clock=clock) as memory:
        memory.for_scope("user:ann").set_fact("pet", "cat")
        receipt = memory.import_archive(tmp_path / "backup")
        assert receipt.left_out == ("user:ann",)
        assert memory.for_scope("user:bob").features.all() == {"name": "bob"}
        assert memory.for_scope("user:ann").features.all() == {"pet": "cat"}
        assert [memory.for_scope(f"user:{user}").long_term.count() for user in ("ann", "bob")] == [2, 2]
        with pytest.raises(HistoryError, match="user:ann has another history here"):
            memory.for_scope("user:ann").import_archive(tmp_path / "ann")
        memory.for_scope("user:ann").erase()
        assert memory.import_archive(tmp_path / "backup").left_out == ()
        assert memory.for_scope("user:ann").features.all() == {"name": "ann"}


def test_p24_what_is_deleted_while_it_is_exported_is_in_no_archive(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its mark is nobody's memory, and no archive of a scope may have it."""
    with MemoryManager("user:ann", data_dir=tmp_path / "here", clock=clock) as memory:
        memory.add_turn("My PIN is 4711.", "Noted.")
        ids = [hit.id for hit in memory.search_long_term("PIN")]
        retrieve = MemoryCollection.retrieve

        def deleted_first(*given: Any, **options: Any) -> Any:
            monkeypatch.setattr(MemoryCollection, "retrieve", retrieve)
            memory.long_term.delete(ids[:1])
            return retrieve(*given, **options)

        monkeypatch.setattr(MemoryCollection, "retrieve", deleted_first)
        assert memory.export(tmp_path / "ann").points == 1
        assert b"4711" not in (tmp_path / "ann").read_bytes()
    with MemoryManager("user:ann", data_dir=tmp_path / "there", clock=clock) as memory:
        assert memory.import_archive(tmp_path / "ann").new_points == 1


def test_p24_what_was_erased_here_and_what_was_erased_there_stays_erased(tmp_path: Path, clock: Clock) -> None:
    """A conversation that is told again after a backup was read back: an agent's checkpoints still hold it."""
    one, other = ([Message("user", f"{name} {n}", id=f"{name}{n}") for n in range(20)] for name in ("one", "other"))
    with MemoryManager("user:ann/session:s", data_dir=tmp_path / "here", clock=clock) as memory:
        memory.follow(one, unanswered=True)
        memory.for_scope("user:ann").erase()
        memory.for_scope("global").export(tmp_path / "all", all_scopes=True)
    with MemoryManager("user:ann/session:s", data_dir=tmp_path / "there", clock=clock) as memory:
        memory.follow(other, unanswered=True)
        memory.for_scope("user:ann").erase()
        assert memory.for_scope("global").import_archive(tmp_path / "all").new_points > 0
        assert memory.for_scope("global").import_archive(tmp_path / "all").new_points == 0
        memory.follow([*one, *other, Message("user", "Hello", id="new")], unanswered=True)
        assert [message.id for message in memory.long_term.messages()] == ["new"]


def test_p24_what_is_erased_while_marks_are_imported_stays_erased(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both write the marks of one scope, of which an archive does not say whose they are."""
    theirs, ours = ([Message("user", f"{name} said", id=f"{name}")] for name in ("theirs", "ours"))
    with MemoryManager("user:ann/session:s", data_dir=tmp_path / "there", clock=clock) as memory:
        memory.follow(theirs, unanswered=True)
        memory.for_scope("user:ann").erase()
        memory.for_scope("global").export(tmp_path / "all", all_scopes=True)
    put = MemoryCollection.put
    with MemoryManager("user:ann/session:s", data_dir=tmp_path / "here", clock=clock) as memory:
        memory.follow(ours, unanswered=True)
        erasing = threading.Thread(target=memory.for_scope("user:ann").erase)

        def put_later(*given: Any) -> None:
            erasing.start()
            erasing.join(0.5)  # as long as it would take; it waits for its turn
            put(*given)

        monkeypatch.setattr(MemoryCollection, "put", put_later)
        with time_limit(30):
            memory.for_scope("global").import_archive(tmp_path / "all")
            erasing.join()
        memory.follow([*theirs, *ours], unanswered=True)
        assert list(memory.long_term.messages()) == []
