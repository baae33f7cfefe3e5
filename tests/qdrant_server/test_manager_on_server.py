"""A memory whose long-term part is on a Qdrant server: the same as embedded, shared by processes, honest when it fails.

Each test runs over REST (by a URL alone), over gRPC, and against a server as Qdrant Cloud has them: with a key, and in
strict mode, which refuses filters on fields without an index.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from qdrant_client import models as m
from strategies import Clock, time_limit

from memory_integrations import (
    EmbeddingMismatchError,
    ManagementPlan,
    MemoryFilter,
    MemoryManager,
    Message,
    QdrantServer,
    ScopeError,
    ShortTermPolicy,
    StoreUnavailableError,
    ToolCall,
)
from memory_integrations.collection import COLLECTION
from memory_integrations.copying import PAGE
from memory_integrations.server import API_KEY
from qdrant_server.operations import Asked, Code
from qdrant_server.stand_in import StandIn
from qdrant_server.strict import CLOUD

pytestmark = pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")

NOON = datetime(2025, 5, 8, 12, tzinfo=UTC)
LONG = "\n\n".join(f"Paragraph {n}. {'The lighthouse stands by the sea. ' * 20}" for n in range(6))
KEY = "a key that is long enough"

Open = Callable[..., MemoryManager]


@pytest.fixture(params=["url", "grpc", "cloud"])
def way(request: pytest.FixtureRequest, qdrant_server: StandIn, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the memory is told of its server. Between two tries it waits for moments only."""
    monkeypatch.setattr("memory_integrations.server._FIRST_WAIT", 0.02)
    if request.param == "cloud":
        monkeypatch.setenv(API_KEY, KEY)
        qdrant_server.api_key = KEY
        qdrant_server.storage.strict_mode = CLOUD
    return str(request.param)


@pytest.fixture
def open_memory(qdrant_server: StandIn, way: str, tmp_path: Path) -> Iterator[Open]:
    """Opens a memory of its own on the one server, as another process or machine would."""
    opened: list[Any] = []

    def open_memory(scope: str = "user:ann", **options: Any) -> MemoryManager:
        qdrant = server_of(qdrant_server.url, qdrant_server.grpc_port, way)
        directory = tmp_path / f"memory {len(opened)}"
        opened.append(MemoryManager(scope, data_dir=directory, qdrant=qdrant, **{"clock": Clock(NOON)} | options))
        return opened[-1]

    yield open_memory
    for one in reversed(opened):
        one.close()


def server_of(url: str, grpc_port: int, way: str) -> str | QdrantServer:
    return url if way == "url" else QdrantServer(url, grpc_port=grpc_port)


@pytest.fixture
def memory(open_memory: Open) -> MemoryManager:
    return open_memory()


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[MemoryManager]:
    with MemoryManager("user:ann", data_dir=tmp_path / "embedded", clock=Clock(NOON)) as memory:
        yield memory


def tell(memory: MemoryManager) -> MemoryManager:
    """What Ann said in two sessions, what Bob said, and what holds for all."""
    said = [
        ("monday", "user", "I adopted a beagle called Toto."),
        ("monday", "assistant", "Congratulations! Does he sleep at night?"),
        ("monday", "user", "Not yet."),
        ("tuesday", "user", "Where did we walk by the lighthouse?"),
        ("tuesday", "assistant", "In Cascais, on a windy day."),
    ]
    memory.long_term.store_messages(
        Message(role, text, id=f"m{n}", session_id=session, created_at=NOON + timedelta(days=n), metadata={"n": n})
        for n, (session, role, text) in enumerate(said)
    )
    memory.long_term.store_messages([Message("user", LONG, id="long", session_id="tuesday", metadata={"n": 9})])
    memory.for_scope("user:bob").long_term.store_messages([Message("user", "My beagle is called Rex.", id="b")])
    memory.for_scope("global").long_term.store_file_summary("dogs.pdf", "A beagle needs a walk a day.", {"pages": 3})
    return memory


def texts(memory: MemoryManager, query: str, limit: int = 10, **options: Any) -> list[str]:
    return [hit.text for hit in memory.long_term.search(query, limit, **options)]


# The same as embedded


def test_what_is_found_is_what_the_embedded_engine_finds(memory: MemoryManager, embedded: MemoryManager) -> None:
    tell(memory), tell(embedded)
    since, until = NOON + timedelta(days=1), NOON + timedelta(days=4)
    for query, options in (
        ("what is the beagle called?", {}),
        ("lighthouse", {"explain": True}),
        ("the lighthouse", {"since": since, "until": until}),
        ("beagle", {"where": MemoryFilter(session_id=["monday", "tuesday"], role="user", kind="message")}),
        ("dogs", {"where": MemoryFilter(name="dogs.pdf")}),
        ("beagle", {"where": MemoryFilter(session_id="none")}),
        ("beagle", {"without": ["m0"], "distinct": False}),
    ):
        found, expected = memory.long_term.search(query, 5, **options), embedded.long_term.search(query, 5, **options)
        for hit, same in zip(found, expected, strict=True):
            assert (hit.id, hit.text, hit.message_ids) == (same.id, same.text, same.message_ids)
            assert hit.score == pytest.approx(same.score, abs=1e-6)
            assert {**hit.metadata, "order": 0} == {**same.metadata, "order": 0}


def test_p34_the_context_is_the_same_byte_for_byte(memory: MemoryManager, embedded: MemoryManager) -> None:
    for one in (memory, embedded):
        tell(one).set_fact("city", "Lisbon")
    context = memory.get_context("What is my beagle called?")
    assert context.combined == embedded.get_context("What is my beagle called?").combined
    assert "Toto" in context.combined


def test_everything_comes_back_in_order_and_as_it_was_said(memory: MemoryManager, embedded: MemoryManager) -> None:
    tell(memory), tell(embedded)
    for session in (None, "tuesday"):
        assert list(memory.long_term.messages(session)) == list(embedded.long_term.messages(session))
    assert [message.content for message in memory.long_term.messages("tuesday")][-1] == LONG
    assert memory.long_term.count() == embedded.long_term.count() == 6
    assert memory.get_stats()["long_term"] == {"memories": 6}


def test_p29_there_is_no_end_at_a_page(memory: MemoryManager) -> None:
    said = [Message("user", f"Sentence number {n}", id=f"m{n}", session_id="s") for n in range(2 * PAGE + 5)]
    memory.long_term.store_messages(said)
    assert [message.id for message in memory.long_term.messages()] == [message.id for message in said]
    assert memory.long_term.count() == len(said)


def test_what_no_database_holds_exactly_is_stored_alike(memory: MemoryManager, embedded: MemoryManager) -> None:
    """Integers of any size and half characters are JSON to Python, and nothing that a server takes."""
    metadata = {"whole": 2**63 - 1, "beyond": 2**70, "half": "\ud800 a", "\ud800": ["\udfff", {"b": -(2**64)}]}
    for one in (memory, embedded):
        one.long_term.store_messages([Message("user", "Nul \0 and half \ud800", id="m", metadata=metadata)])
    [message] = memory.long_term.messages()
    assert message == next(iter(embedded.long_term.messages()))
    assert message.metadata["whole"] == 2**63 - 1
    assert message.metadata["beyond"] == pytest.approx(2**70)
    assert message.metadata["half"] == "\ufffd a"


def test_a_message_told_again_is_not_doubled_and_keeps_what_others_added(memory: MemoryManager) -> None:
    """P7 and P11."""
    tell(memory)
    order = [hit.metadata["order"] for hit in memory.long_term.search("beagle", 1)]
    memory.long_term.vectorstore.client.set_payload(
        COLLECTION, {"reviewed": True}, points=[memory.long_term.search("beagle", 1)[0].id], key="metadata"
    )
    tell(memory)
    assert memory.long_term.count() == 6
    [hit] = memory.long_term.search("beagle", 1)
    assert ([hit.metadata["order"]], hit.metadata["reviewed"]) == (order, True)


async def test_the_asynchronous_twins(memory: MemoryManager) -> None:
    await asyncio.gather(*(memory.aadd_turn(f"Fact {n} is about tea", "Noted", f"s{n}") for n in range(8)))
    assert len(await memory.asearch_long_term("tea", 20)) >= 8
    assert (await memory.aget_stats())["long_term"] == {"memories": 16}
    assert (await memory.aerase()).memories == 16


# Scopes


def test_p21_scopes_are_apart_and_global_is_inherited(memory: MemoryManager) -> None:
    bob = tell(memory).for_scope("user:bob")
    assert any("Toto" in text for text in texts(memory, "beagle"))
    assert any("dogs.pdf" in text for text in texts(memory, "beagle"))
    assert not any("Rex" in text for text in texts(memory, "beagle"))
    assert not any("Toto" in text for text in texts(bob, "beagle"))
    assert texts(memory.for_scope("global"), "beagle") == texts(memory.for_scope("session:kiosk"), "beagle")


def test_p23_every_filter_carries_the_scope_to_the_server(memory: MemoryManager, qdrant_server: StandIn) -> None:
    tell(memory)
    memory.get_context("What is my beagle called?")
    texts(memory, "beagle", since=NOON, where=MemoryFilter(session_id="monday"))
    list(memory.long_term.messages("monday"))
    memory.long_term.count()
    memory.long_term.erase("monday")
    memory.erase()
    asked = qdrant_server.asked_for("query", "query_batch", "scroll", "count", "delete", "set_payload")
    filtered = [one for one in asked if not isinstance(one.body, m.PointIdsList)]
    assert {one.operation for one in filtered} == {"query_batch", "scroll", "count", "delete"}
    assert [one for one in filtered if not scoped(one)] == []


def scoped(asked: Asked) -> bool:
    """Whether every filter allows some scopes, and only those; also the one that terms are rare by."""
    filters = list(asked.filters)
    for request in getattr(asked.body, "searches", []):
        if isinstance(request.query, m.NearestQuery | m.SparseVector) and request.using:
            filters.append(request.params.idf.corpus if request.params and request.params.idf else None)
    return all(
        one is not None
        and one.should
        and all(isinstance(part, m.FieldCondition) and part.key == "metadata.scope" for part in one.should)
        for one in filters
    )


def test_the_memory_speaks_what_its_client_speaks(memory: MemoryManager, qdrant_server: StandIn, way: str) -> None:
    tell(memory).get_context("beagle")
    asked = [one for one in qdrant_server.asked if one.operation != "version"]
    spoken = {one.protocol for one in asked}
    assert spoken == {"rest" if way == "url" else "grpc"}
    assert {one.key for one in asked} == {way == "cloud"}


def test_the_collection_is_created_for_many_tenants(memory: MemoryManager, qdrant_server: StandIn) -> None:
    memory.long_term.open()
    [created] = qdrant_server.asked_for("create_collection")
    assert created.body.metadata["embedding_size"] == created.body.vectors.size == 256
    indexes = {
        asked.body.field_name: asked.body.field_schema for asked in qdrant_server.asked_for("create_field_index")
    }
    assert indexes["metadata.scope"].is_tenant is True
    assert indexes["metadata.created_at"] == m.PayloadSchemaType.DATETIME


def test_a_collection_of_an_earlier_version_gets_the_indexes_that_filters_need(
    open_memory: Open, qdrant_server: StandIn
) -> None:
    tell(open_memory())
    engine = qdrant_server.storage.engine
    for field in ("metadata.piece", "metadata.session_id"):
        engine.delete_payload_index(COLLECTION, field)
    later = open_memory()
    assert len(list(later.long_term.messages("monday"))) == 3
    assert later.long_term.count() == 6


# Deleting


def stored(server: StandIn) -> str:
    """Everything that the server holds of the memory, as text."""
    points, _ = server.storage.engine.scroll(COLLECTION, limit=10_000, with_payload=True)
    return json.dumps([point.payload for point in points], ensure_ascii=False)


def test_p22_memories_are_deleted_by_their_ids_and_only_ones_own(memory: MemoryManager, qdrant_server: StandIn) -> None:
    bob = tell(memory).for_scope("user:bob")
    [hit] = memory.long_term.search("beagle Toto", 1)
    assert bob.long_term.delete([hit.id]) == 0
    assert memory.long_term.delete([hit.id, "00000000-0000-4000-8000-000000000000"]) == 1
    assert memory.long_term.count() == 5
    assert "Toto" not in stored(qdrant_server)
    told_again = [Message("user", "I adopted a beagle called Toto.", id="m0"), Message("assistant", "Again?", id="x")]
    memory.for_scope("user:ann/session:monday").follow(told_again)
    assert "Toto" not in " ".join(texts(memory, "beagle"))


def test_a_long_text_is_deleted_with_all_its_pieces(memory: MemoryManager, qdrant_server: StandIn) -> None:
    [hit] = tell(memory).long_term.search("Paragraph 5. The lighthouse stands", 1)
    assert hit.message_ids == ("long",)
    assert memory.long_term.delete([hit.id]) == 1
    assert "Paragraph" not in stored(qdrant_server)


def test_p24_an_erasure_says_how_many_there_were_and_leaves_others(
    memory: MemoryManager, qdrant_server: StandIn
) -> None:
    tell(memory).set_fact("city", "Lisbon")
    assert memory.long_term.erase("monday") == 3
    assert memory.long_term.count() == 3
    receipt = memory.erase()
    assert (receipt.memories, receipt.facts) == (3, 1)
    assert memory.long_term.count() == 0
    assert not any(word in stored(qdrant_server) for word in ("Toto", "lighthouse", "user:ann"))
    assert memory.for_scope("user:bob").long_term.count() == memory.for_scope("global").long_term.count() == 1


# Another embedding


def test_p28_another_embedding_is_refused_until_memories_are_embedded_anew(
    open_memory: Open, qdrant_server: StandIn
) -> None:
    tell(open_memory())
    other = open_memory(embeddings=DeterministicFakeEmbedding(size=32), language="german")
    with pytest.raises(EmbeddingMismatchError, match=r"256 dimensions.*32 dimensions"):
        other.search_long_term("beagle")
    steps: list[tuple[int, int]] = []
    pieces = other.long_term.reembed(lambda done, total: steps.append((done, total)))
    assert steps[-1] == (pieces, pieces)
    assert any("Toto" in text for text in texts(other, "beagle"))
    assert other.long_term.count() == 6
    with pytest.raises(EmbeddingMismatchError):
        open_memory().search_long_term("beagle")
    engine = qdrant_server.storage.engine
    assert len(engine.get_collections().collections) == 1
    info = engine.get_collection(COLLECTION)
    assert info.payload_schema["metadata.scope"].params.is_tenant is True
    assert info.config.metadata is not None
    assert info.config.metadata["language"] == "german"


@pytest.mark.parametrize("operation", ["upsert", "update_aliases", "delete_collection", "create_field_index"])
def test_embedding_anew_goes_on_where_the_server_failed(
    open_memory: Open, qdrant_server: StandIn, operation: str
) -> None:
    tell(open_memory())
    other = open_memory(embeddings=DeterministicFakeEmbedding(size=32))
    qdrant_server.refuse(Code.UNAVAILABLE, times=1000, only=operation)
    with pytest.raises(StoreUnavailableError):
        other.long_term.reembed()
    qdrant_server.mend()
    other.long_term.reembed()
    assert any("Toto" in text for text in texts(other, "beagle"))
    assert other.long_term.count() == 6
    assert len(qdrant_server.storage.engine.get_collections().collections) == 1


class Interrupted(Exception):
    """In the midst of embedding anew."""


def interrupt(done: int, total: int) -> None:
    raise Interrupted


def test_what_is_erased_while_embedding_anew_is_interrupted_does_not_come_back(
    open_memory: Open, qdrant_server: StandIn
) -> None:
    memory, other = tell(open_memory()), open_memory(embeddings=DeterministicFakeEmbedding(size=32))
    with pytest.raises(Interrupted):
        other.long_term.reembed(interrupt)
    memory.erase()
    memory.long_term.store_messages([Message("user", "I like tea", id="tea")])
    other.long_term.reembed()
    assert [message.content for message in other.long_term.messages()] == ["I like tea"]
    assert not any(word in stored(qdrant_server) for word in ("Toto", "lighthouse"))


def test_an_erasure_by_another_memory_stops_embedding_anew(open_memory: Open, qdrant_server: StandIn) -> None:
    memory, other = tell(open_memory()), open_memory(embeddings=DeterministicFakeEmbedding(size=32))

    def erase(done: int, total: int) -> None:
        memory.erase()

    with pytest.raises(StoreUnavailableError, match="Call it again"):
        other.long_term.reembed(erase)
    other.long_term.reembed()
    assert list(other.long_term.messages()) == []
    assert not any(word in stored(qdrant_server) for word in ("Toto", "lighthouse"))


def test_what_is_changed_while_embedding_anew_is_interrupted_is_kept(open_memory: Open) -> None:
    memory, other = tell(open_memory()), open_memory(embeddings=DeterministicFakeEmbedding(size=32))
    with pytest.raises(Interrupted):
        other.long_term.reembed(interrupt)
    memory.for_scope("global").long_term.store_file_summary("dogs.pdf", "A beagle needs two walks a day.")
    other.long_term.reembed()
    assert any("two walks" in text for text in texts(other, "how many walks does a beagle need?"))


def test_p24_what_is_erased_is_in_no_file_while_embedding_anew_is_interrupted(
    embedded: MemoryManager, tmp_path: Path
) -> None:
    tell(embedded)
    client = embedded.long_term.vectorstore.client
    other = MemoryManager(data_dir=tmp_path / "other", qdrant=client, embeddings=DeterministicFakeEmbedding(size=32))
    with other, pytest.raises(Interrupted):
        other.long_term.reembed(interrupt)
    embedded.erase()
    embedded.close()
    assert [path for path in tmp_path.rglob("*") if path.is_file() and b"Toto" in path.read_bytes()] == []


# Moving

SCOPES = ("user:ann", "user:bob", "global")


def test_a_memory_moves_to_a_server_and_back(open_memory: Open, embedded: MemoryManager, tmp_path: Path) -> None:
    for number in range(PAGE + 10):
        tell(embedded).for_scope("user:bob").long_term.store_conversation(f"Number {number}", f"Noted {number}.")
    here, server = embedded.for_scope("global"), open_memory("global")
    receipt = here.migrate_to(server)
    assert receipt.points > 2 * (PAGE + 10)
    assert here.migrate_to(server) == receipt
    with MemoryManager(data_dir=tmp_path / "back", clock=Clock(NOON)) as back:
        assert server.migrate_to(back).points_sha256 == receipt.points_sha256
        for one in (server, back):
            for scope in SCOPES:
                there, was = one.for_scope(scope).long_term, here.for_scope(scope).long_term
                assert list(there.messages()) == list(was.messages())
                assert [hit.id for hit in there.search("beagle", 1)] == [hit.id for hit in was.search("beagle", 1)]


def test_a_move_to_a_server_that_fails_goes_on(
    open_memory: Open, embedded: MemoryManager, qdrant_server: StandIn
) -> None:
    tell(embedded)
    server = open_memory("global")
    qdrant_server.refuse(Code.INTERNAL, times=1, only="upsert")
    with pytest.raises(StoreUnavailableError, match="ordered by the test"):
        embedded.migrate_to(server)
    embedded.migrate_to(server)
    assert server.for_scope("user:ann").long_term.count() == embedded.long_term.count()


def test_a_move_whose_new_collection_was_not_acknowledged_goes_on(
    open_memory: Open, embedded: MemoryManager, qdrant_server: StandIn
) -> None:
    tell(embedded).long_term.vectorstore.client.create_payload_index(COLLECTION, "metadata.extra.n", "integer")
    qdrant_server.cut("after", only="create_collection")
    embedded.migrate_to(open_memory("global"))
    assert "metadata.extra.n" in qdrant_server.storage.schema(COLLECTION)


def test_a_move_that_ended_before_its_indexes_were_made_makes_them_when_it_goes_on(
    open_memory: Open, embedded: MemoryManager, qdrant_server: StandIn
) -> None:
    tell(embedded).long_term.vectorstore.client.create_payload_index(COLLECTION, "metadata.extra.n", "integer")
    server = open_memory("global")
    qdrant_server.refuse(Code.INTERNAL, times=1, only="create_field_index")
    with pytest.raises(StoreUnavailableError, match="ordered by the test"):
        embedded.migrate_to(server)
    embedded.migrate_to(server)
    assert {"metadata.scope", "metadata.created_at", "metadata.extra.n"} <= set(
        qdrant_server.storage.schema(COLLECTION)
    )
    assert qdrant_server.storage.schema(COLLECTION)["metadata.scope"].params.is_tenant is True


def test_a_new_collection_that_somebody_else_made_otherwise_is_not_taken(
    open_memory: Open, embedded: MemoryManager, qdrant_server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(embedded)
    server = open_memory("global")
    client = server._open.memories.client()
    create = client.create_collection

    def beaten(name: str, **options: Any) -> Any:
        create(name, vectors_config=m.VectorParams(size=3, distance=m.Distance.DOT))
        return create(name, **options)

    monkeypatch.setattr(client, "create_collection", beaten)
    with pytest.raises(StoreUnavailableError, match="already exists"):
        embedded.migrate_to(server)
    assert qdrant_server.storage.engine.count(COLLECTION).count == 0


def test_what_an_operator_set_goes_along_from_server_to_server(qdrant_server: StandIn, tmp_path: Path) -> None:
    """But for how a cluster spreads it, and for what the target's memory says itself."""
    with StandIn() as second, MemoryManager(data_dir=tmp_path / "one", qdrant=QdrantServer(qdrant_server.url)) as one:
        tell(one)
        strict = m.StrictModeConfig(enabled=True, max_query_limit=777, unindexed_filtering_retrieve=False)
        one._open.memories.client().update_collection(
            COLLECTION,
            hnsw_config=m.HnswConfigDiff(m=24, payload_m=24),
            optimizers_config=m.OptimizersConfigDiff(deleted_threshold=0.05),
            quantization_config=m.ScalarQuantization(scalar=m.ScalarQuantizationConfig(type=m.ScalarType.INT8)),
            strict_mode_config=strict,
        )
        with MemoryManager(data_dir=tmp_path / "two", qdrant=QdrantServer(second.url, shard_number=6)) as two:
            one.migrate_to(two)
            before, after = (one_of._open.memories.client().get_collection(COLLECTION) for one_of in (one, two))
    assert after.config.params.shard_number == 6
    assert after.config.strict_mode_config.max_query_limit == 777
    params = after.config.params.model_copy(update={"shard_number": before.config.params.shard_number})
    assert after.config.model_copy(update={"params": params}) == before.config
    assert before.config.hnsw_config.m == 24


def test_a_server_under_two_names_is_not_moved_onto_itself(
    open_memory: Open, qdrant_server: StandIn, way: str, tmp_path: Path
) -> None:
    one = tell(open_memory("global"))
    before = stored(qdrant_server)
    client = QdrantServer(qdrant_server.url, prefer_grpc=way != "url", grpc_port=qdrant_server.grpc_port).connect()
    with MemoryManager(data_dir=tmp_path / "other", qdrant=client) as other:
        other.set_fact("city", "Lisbon")
        with pytest.raises(StoreUnavailableError, match="the same, under two names"):
            one.migrate_to(other)
        qdrant_server.refuse(Code.INTERNAL, times=1, only="retrieve")
        with pytest.raises(StoreUnavailableError, match="ordered by the test"):
            one.migrate_to(other)
        one.set_fact("country", "Portugal")
        with pytest.raises(StoreUnavailableError, match="the same, under two names"):
            one.migrate_to(other)
        assert other.get_fact("country") is None
    assert stored(qdrant_server) == before
    client.close()


def test_an_archive_of_a_server_is_the_same_as_of_the_embedded_engine(
    open_memory: Open, embedded: MemoryManager, tmp_path: Path
) -> None:
    tell(embedded).for_scope("global").export(tmp_path / "one.jsonl", all_scopes=True, vectors=True)
    server = open_memory("global")
    server.import_archive(tmp_path / "one.jsonl")
    server.export(tmp_path / "two.jsonl", all_scopes=True)
    embedded.for_scope("global").export(tmp_path / "three.jsonl", all_scopes=True)
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "three.jsonl").read_bytes()
    assert server.examine() == []


# Several at once


SPEAK = """
import sys
sys.path[:0] = sys.argv[6:]
from qdrant_server.test_manager_on_server import server_of
from memory_integrations import MemoryManager

url, grpc_port, way, directory, name = sys.argv[1:6]
qdrant = server_of(url, int(grpc_port), way)
with MemoryManager("user:ann", data_dir=directory, qdrant=qdrant) as memory:
    for n in range(10):
        memory.for_scope(f"user:ann/session:{name}").add_turn(f"I am {name} and plant tree {n}", "Good")
    found = memory.search_long_term(f"which tree plants {name}?", 60)
    assert sum(name in hit.text for hit in found) > 5, found
"""


def test_two_memories_of_this_process_and_one_of_another_share_a_server(
    open_memory: Open, qdrant_server: StandIn, way: str, tmp_path: Path
) -> None:
    one, two = open_memory(), open_memory()
    tests = str(Path(__file__).parents[1])
    arguments = [qdrant_server.url, str(qdrant_server.grpc_port), way, str(tmp_path / "third"), "Third", tests]
    third = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SPEAK, *arguments], stderr=subprocess.PIPE, text=True
    )

    def plant(memory: MemoryManager, name: str) -> None:
        for n in range(10):
            memory.for_scope(f"user:ann/session:{name}").add_turn(f"I am {name} and plant tree {n}", "Good")

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(plant, one, "First"), pool.submit(plant, two, "Second")]:
            done.result()
    _, errors = third.communicate(timeout=120)
    assert third.returncode == 0, errors
    for memory in (one, two):
        assert memory.long_term.count() == 3 * 10 * 2
        for name in ("First", "Second", "Third"):
            assert any(name in text for text in texts(memory, f"Which tree plants {name}?"))
    third_session = one.long_term.messages("Third")
    assert [message.content for message in third_session if message.role == "user"] == [
        f"I am Third and plant tree {n}" for n in range(10)
    ]


def test_what_is_said_through_several_memories_by_turns_stays_in_order(open_memory: Open) -> None:
    """Also to a memory that was opened before the others."""
    one, two = (open_memory("user:ann/session:s") for _ in range(2))
    said = [f"Remark {number} about tea" for number in range(6)]
    for number, text in enumerate(said):
        (two, one)[number % 2].add_turn(text, f"Noted {number}")
    third = open_memory("user:ann/session:s")
    assert [message.content for message in third.long_term.messages() if message.role == "user"] == said
    assert [message.content for message in third.resume() if message.role == "user"] == said


def test_threads_that_begin_at_once_share_one_client(memory: MemoryManager, monkeypatch: pytest.MonkeyPatch) -> None:
    start, connect = threading.Barrier(8), QdrantServer.connect
    connected: list[Any] = []

    def slowly(server: QdrantServer) -> Any:
        connected.append(connect(server))
        time.sleep(0.05)
        return connected[-1]

    def begin(_: int) -> int:
        start.wait()
        return id(memory._open.memories.client())

    monkeypatch.setattr(QdrantServer, "connect", slowly)
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(begin, range(8)))) == len(connected) == 1


def test_many_open_a_new_server_at_once(open_memory: Open, qdrant_server: StandIn) -> None:
    memories = [open_memory() for _ in range(8)]
    start = threading.Barrier(len(memories))

    def first_word(memory: MemoryManager) -> int:
        start.wait()
        memory.add_turn("Hello, I like tea", "Noted")
        return memory.long_term.count()

    with ThreadPoolExecutor(len(memories)) as pool:
        assert min(pool.map(first_word, memories)) >= 2
    assert memories[0].long_term.count() == 16
    created = qdrant_server.asked_for("create_collection")
    assert [asked.answer for asked in created].count("OK") == 1


def test_what_another_memory_erased_is_not_found(open_memory: Open) -> None:
    one, two = tell(open_memory()), open_memory()
    assert any("Toto" in text for text in texts(two, "beagle"))
    one.erase()
    assert [text for text in texts(two, "beagle") if "dogs.pdf" not in text] == []


WORDS = "garden fence tomato balcony novel whale chess printer sourdough river boat violin bakery winter".split()


@pytest.mark.parametrize("clock", [Clock(NOON), lambda: datetime.now(UTC)], ids=["told", "of now"])
def test_what_another_memory_wrote_is_ranked_as_there(open_memory: Open, clock: Callable[[], datetime]) -> None:
    """Also where this one searched before: an answer is found by the question before it."""
    choice = random.Random(1)
    here, there = open_memory(clock=clock), open_memory(clock=clock)
    here.add_turn("Hello there", "Hi", "first")

    def found(memory: MemoryManager, word: str) -> list[str]:
        return [hit.text for hit in memory.search_long_term(f"{word} secret of grandmother", 3)]

    found(here, "none")
    for word in WORDS:
        there.add_turn(
            f"What is the {word} secret of grandmother?", f"It is {' '.join(choice.sample(WORDS, 6))}", "talk"
        )
    here.add_turn("The garden is large", "It is", "talk")
    there.add_turn("And the fence?", "It is green", "talk")
    fresh = open_memory(clock=clock)
    assert [found(here, word) for word in WORDS] == [found(fresh, word) for word in WORDS]
    there.long_term.delete([hit.id for hit in there.search_long_term("What is the violin secret?", 1)])
    found(here, "violin")  # which notices it
    assert [found(here, word) for word in WORDS] == [found(fresh, word) for word in WORDS]


def test_what_another_memory_adds_is_read_alone(
    open_memory: Open, qdrant_server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the whole of a scope anew."""
    here, there = (open_memory(clock=lambda: datetime.now(UTC)) for _ in range(2))
    long_ago = datetime.now(UTC) - timedelta(days=2)
    with monkeypatch.context() as patch:
        patch.setattr("memory_integrations.collection.time.time_ns", lambda: int(long_ago.timestamp() * 1e9))
        here.add_messages([Message("user", f"Tea number {n}", created_at=long_ago) for n in range(PAGE)])
    texts(here, "tea")
    there.add_turn("I like coffee", "Noted")
    before = len(qdrant_server.asked_for("scroll"))
    assert any("coffee" in text for text in texts(here, "coffee"))
    assert all("metadata.order" in str(asked.body) for asked in qdrant_server.asked_for("scroll")[before:])


LATER = "memory_integrations.sessions._LOOKS_AGAIN_AFTER"  # seconds; it is asked once a minute


@pytest.fixture(params=["context", "chat history", "chat memory", "agent"])
def shown(request: pytest.FixtureRequest) -> Callable[[MemoryManager], str]:
    """All that a model is shown of a conversation in this process."""
    if request.param == "context":
        return lambda memory: memory.get_context().combined
    if request.param == "chat history":
        chat_history = pytest.importorskip("memory_integrations.langchain").ShortTermChatMessageHistory
        return lambda memory: "\n".join(message.text for message in chat_history(memory).messages)
    if request.param == "chat memory":
        pytest.importorskip("llama_index.core")
        from memory_integrations.llama_index import ManagedChatMemory

        return lambda memory: "\n".join(str(message.content) for message in ManagedChatMemory(memory).get())
    # An agent's state is kept by its checkpointer, and told again.
    told = [*TOLD, Message("user", "And now?", id="m6")]
    return lambda memory: "\n".join(message.text for message in memory.get_context_of(told, recall=0).messages)


TOLD = [
    Message("user", "I adopted a beagle called Toto.", id="m0"),
    Message("assistant", "", id="m1", tool_calls=(ToolCall("c", "buy", {"what": "food for Toto"}),)),
    Message("tool", "Toto has food.", id="m2", tool_call_id="c"),
    Message("assistant", "Toto is a good name.", id="m3"),
    Message("user", "The oven is broken.", id="m4"),
    Message("assistant", "I call somebody.", id="m5"),
]


def delete_of_toto(memory: MemoryManager) -> None:
    memory.long_term.delete([hit.id for hit in memory.search_long_term("Toto", 10) if "Toto" in hit.text])


@pytest.mark.parametrize("forget", [MemoryManager.erase, delete_of_toto], ids=["erased", "deleted"])
def test_p24_what_another_worker_erased_is_shown_no_longer_than_a_minute(
    open_memory: Open,
    shown: Callable[[MemoryManager], str],
    forget: Callable[[MemoryManager], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, there = (open_memory("user:ann/session:s") for _ in range(2))
    here.short_term.add("Talk like a pirate.", "system")
    here.follow(TOLD)
    assert "Toto" in shown(here)
    forget(there)
    monkeypatch.setattr(LATER, 0)
    if forget is delete_of_toto:
        assert "Toto" not in shown(here)
        assert "oven" in shown(here)
    else:
        assert "Toto" not in here.get_context().combined
    assert "Toto" not in " ".join(entry.content for entry in here.short_term.entries)
    assert here.short_term.entries[0].content == "Talk like a pirate."
    assert here.follow(TOLD) == []  # told again, it brings nothing back
    assert "Toto" not in here.get_context().combined


def test_what_another_worker_erased_of_many_conversations_is_not_kept_in_mind(
    open_memory: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = open_memory("user:ann/session:s"), open_memory("user:ann")
    here.follow(TOLD)
    there.erase()
    monkeypatch.setattr(LATER, 0)
    here.get_context()
    assert here.short_term.is_blank


def test_an_opening_stays_and_a_pinned_message_goes_with_what_was_erased_elsewhere(
    open_memory: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = (open_memory("user:ann/session:s") for _ in range(2))
    here.short_term.add("Welcome to our shop!", "assistant")
    here.follow(TOLD[:1] + TOLD[3:4])
    here.short_term.pin("m0")
    there.erase()
    monkeypatch.setattr(LATER, 0)
    here.get_context()
    assert [entry.content for entry in here.short_term.entries] == ["Welcome to our shop!"]


def test_p24_what_was_deleted_stays_away_where_the_server_cannot_say_who_else_has_it(
    open_memory: Open, qdrant_server: StandIn
) -> None:
    told = [replace(message, id=f"message-number-{n:020}") for n, message in enumerate(TOLD)]
    here = open_memory("user:ann/session:s")
    here.follow(told[1:])
    here.follow([Message("user", "My PIN is 4711", id="message-number-the-pin"), *told[3:4]], unanswered=True)
    here.long_term.delete([hit.id for hit in here.search_long_term("PIN", 10) if "PIN" in hit.text])
    there = open_memory("user:ann/session:s")
    there.long_term.open()
    qdrant_server.refuse(Code.UNAVAILABLE, times=20, only="scroll")
    there.follow([*told[:1], Message("user", "My PIN is 4711", id="message-number-the-pin"), *told[4:5]])
    assert "PIN" not in there.short_term.get_context().text


def test_what_was_cleared_and_is_told_again_stays(open_memory: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its times are those of when it was said first, before it was cleared."""
    clock = Clock(NOON)
    here = open_memory("user:ann/session:s", clock=clock)
    here.follow(TOLD)
    clock.advance()
    here.clear_session()
    clock.advance()
    here.follow(TOLD)
    monkeypatch.setattr(LATER, 0)
    assert "Toto" in here.get_context().combined


def test_managing_writes_nothing_down_that_another_worker_erased(
    qdrant_server: StandIn, way: str, tmp_path: Path
) -> None:
    """Also within the minute."""
    server, policy = server_of(qdrant_server.url, qdrant_server.grpc_port, way), ShortTermPolicy(min_entries=1)
    with (
        MemoryManager("user:ann/session:s", data_dir=tmp_path, qdrant=server, short_term_policy=policy) as here,
        MemoryManager("user:ann", data_dir=tmp_path, qdrant=server) as there,
    ):
        here.add_turn("My name is Annabel. I live in Lisbon.", "Nice to meet you.")
        rooms = (f"In room {n} of Rua {n * 7} I keep {n} clocks, repaired in {1900 + n} in Lisbon." for n in range(30))
        here.add_turn(" ".join(rooms), "That is a lot of clocks.")
        here.add_turn("What is the weather?", "Sunny.")
        plan = here.manage_short_term(dry_run=True)
        assert isinstance(plan, ManagementPlan)
        assert {type(decision).__name__ for decision in plan.decisions} >= {"Promote", "Compress"}
        there.erase()
        here.apply(plan)
        here.manage_short_term()
        there.features.refresh()
        assert there.features.keys() == []
        assert not any(b"Lisbon" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.parametrize("before", ["a failure", "closing"])
def test_a_worker_asks_again_what_was_erased_after(
    open_memory: Open, qdrant_server: StandIn, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = (open_memory("user:ann/session:s") for _ in range(2))
    here.follow(TOLD)
    there.erase()
    monkeypatch.setattr(LATER, 0)
    if before == "closing":
        here.close()
    else:
        qdrant_server.refuse(Code.UNAVAILABLE, times=10_000)
        assert "Toto" in here.get_context().combined  # what it has, while the server does not answer
        qdrant_server.mend()
    assert "Toto" not in here.get_context().combined


def test_a_server_that_does_not_answer_is_asked_once_a_minute_for_all_conversations(
    open_memory: Open, qdrant_server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = open_memory("user:ann")
    sessions = [memory.for_scope(f"user:ann/session:{n}") for n in range(3)]
    for session in sessions:
        session.add_turn("I like tea", "Noted")
        session.get_context()
    qdrant_server.refuse(Code.INTERNAL, times=10_000)  # which is not tried again
    later = time.monotonic() + 61
    monkeypatch.setattr("memory_integrations.sessions.time.monotonic", lambda: later)
    before = len(qdrant_server.asked)
    for session in sessions * 2:
        assert "tea" in session.get_context().combined
    assert len(qdrant_server.asked) - before <= 2  # how its vectors were made, and what was erased


def test_a_server_is_asked_once_a_minute_what_was_erased(
    memory: MemoryManager, qdrant_server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.add_turn("I like tea", "Noted")
    memory.get_context()
    now = time.monotonic()
    for minutes in (0, 1.1, 2.2):
        asked = len(qdrant_server.asked_for("retrieve"))
        with monkeypatch.context() as patch:
            patch.setattr("memory_integrations.sessions.time.monotonic", lambda then=now + minutes * 60: then)
            for _ in range(3):
                assert "tea" in memory.get_context().combined
        assert len(qdrant_server.asked_for("retrieve")) == asked + (minutes > 0)


def test_what_is_said_does_not_wait_for_what_was_erased(
    memory: MemoryManager, qdrant_server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.add_turn("I like tea", "Noted")
    monkeypatch.setattr(LATER, 0)
    qdrant_server.refuse(Code.UNAVAILABLE, times=10_000)
    with pytest.raises(StoreUnavailableError):
        memory.follow([Message("user", "And coffee", id="m9")], unanswered=True)
    qdrant_server.mend()
    memory.flush()
    assert [message.content for message in memory.long_term.messages()] == ["I like tea", "Noted", "And coffee"]


def test_p26_threads_of_one_memory(memory: MemoryManager) -> None:
    def talk(number: int) -> None:
        user = memory.for_scope(f"user:u{number}/session:s")
        for n in range(5):
            user.add_turn(f"Remark {n} of u{number} about tea", "Noted")
        found = texts(user, "tea", 20)
        assert found
        assert all(f"u{number} " in text for text in found if "Remark" in text)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(talk, range(8)))
    assert [memory.for_scope(f"user:u{number}").long_term.count() for number in range(8)] == [10] * 8


# The ecosystem


def test_the_ecosystems_own_class_reads_and_writes_the_same_collection(memory: MemoryManager) -> None:
    store = tell(memory).long_term.vectorstore
    anns = m.Filter(must=[m.FieldCondition(key="metadata.scope", match=m.MatchValue(value="user:ann"))])
    [document, *_] = store.similarity_search("beagle called Toto", k=3, filter=anns)
    assert document.page_content == "I adopted a beagle called Toto."
    assert document.metadata["session_id"] == "monday"
    [added] = store.add_texts(["Ann's beagle likes cheese."], metadatas=[{"scope": "user:ann"}])
    assert any("likes cheese" in text for text in texts(memory, "beagle cheese"))
    assert memory.long_term.delete([added]) == 1


def test_a_langchain_agent_remembers(open_memory: Open) -> None:
    pytest.importorskip("langchain")
    from langchain.agents import create_agent

    from memory_integrations.langchain import MemoryMiddleware
    from memory_integrations.testing import StandInChatModel

    def ask(memory: MemoryManager, user: str, thread: str, text: str) -> str:
        agent = create_agent(StandInChatModel(), middleware=[MemoryMiddleware(memory)])
        run: Any = {"configurable": {"user_id": user, "thread_id": thread}}
        return str(agent.invoke({"messages": [("user", text)]}, run)["messages"][-1].text)

    ask(open_memory("global"), "ann", "monday", "I live in Lisbon and play the oboe.")
    elsewhere = open_memory("global")  # another machine: the server alone is shared
    assert "Lisbon" in ask(elsewhere, "ann", "tuesday", "Where do I live?")
    assert "Lisbon" not in ask(elsewhere, "bob", "friday", "Where do I live?")


def test_a_llama_index_chat_engine_remembers(open_memory: Open) -> None:
    pytest.importorskip("llama_index.core")
    from llama_index.core.chat_engine import SimpleChatEngine

    from memory_integrations.llama_index import ManagedChatMemory
    from memory_integrations.testing import StandInLLM

    def chat(memory: MemoryManager, session: str, text: str) -> str:
        chat_memory = ManagedChatMemory(memory, f"user:cleo/session:{session}")
        return str(SimpleChatEngine.from_defaults(llm=StandInLLM(), memory=chat_memory).chat(text))

    chat(open_memory("global"), "monday", "I play the oboe.")
    assert "oboe" in chat(open_memory("global"), "tuesday", "Which instrument do I play?")


def test_a_langgraph_store_keeps_items(open_memory: Open) -> None:
    pytest.importorskip("langgraph")
    from memory_integrations.langchain import MemoryStore

    memory = open_memory()
    store, elsewhere = MemoryStore(memory), MemoryStore(open_memory())
    assert elsewhere.search(("notes",)) == []  # before anything is there
    store.put(("notes", "work"), "one", {"text": "Buy tea", "number": 2**80, "share": 1.0})
    store.put(("notes",), "two", {"text": "Walk the beagle"}, ttl=5)
    found = elsewhere.get(("notes", "work"), "one")
    assert found is not None
    assert found.value == {"text": "Buy tea", "number": 2**80, "share": 1.0}
    assert elsewhere.search(("notes",), query="beagle")[0].key == "two"
    assert [item.key for item in elsewhere.search(("notes",), filter={"text": "Buy tea"})] == ["one"]
    assert elsewhere.list_namespaces() == [("notes",), ("notes", "work")]
    assert elsewhere.get(("notes",), "two") is not None  # begins its time anew
    store.delete(("notes", "work"), "one")
    assert elsewhere.get(("notes", "work"), "one") is None
    memory._open.clock.advance(600)  # type: ignore[attr-defined]
    assert store.sweep_ttl() == 1


# Failing


CALLS: list[Callable[[MemoryManager], Any]] = [
    lambda memory: memory.add_turn("I like tea", "Noted"),
    lambda memory: memory.search_long_term("tea"),
    lambda memory: memory.get_context("tea"),
    lambda memory: memory.long_term.count(),
    lambda memory: list(memory.long_term.messages()),
    lambda memory: memory.long_term.delete(["00000000-0000-4000-8000-000000000000"]),
    lambda memory: memory.long_term.erase(),
    lambda memory: memory.long_term.reembed(),
    lambda memory: memory.get_stats(),
]


@pytest.mark.parametrize("opened", [True, False], ids=["opened", "not opened"])
def test_a_server_that_refuses_is_an_error_of_ours(memory: MemoryManager, qdrant_server: StandIn, opened: bool) -> None:
    if opened:
        memory.long_term.open()
    for code in (Code.UNAVAILABLE, Code.TOO_MANY_REQUESTS, Code.INTERNAL, Code.FORBIDDEN):
        qdrant_server.mend()
        qdrant_server.refuse(code, times=10_000)
        for call in CALLS:
            with pytest.raises(StoreUnavailableError, match="ordered by the test"):
                call(memory)


def test_a_limited_rate_is_an_error_of_ours(memory: MemoryManager, qdrant_server: StandIn) -> None:
    memory.long_term.open()
    qdrant_server.refuse(Code.TOO_MANY_REQUESTS, times=10_000, retry_after=1)
    with pytest.raises(StoreUnavailableError):
        memory.long_term.count()


def answers(memory: MemoryManager) -> bool:
    try:
        memory.long_term.count()
    except StoreUnavailableError:
        return False
    return True


def test_a_server_that_is_gone_is_an_error_of_ours_until_it_is_back(
    memory: MemoryManager, qdrant_server: StandIn
) -> None:
    memory.add_turn("I like tea", "Noted")
    qdrant_server.stop()
    with pytest.raises(StoreUnavailableError):
        memory.search_long_term("tea")
    with pytest.raises(StoreUnavailableError):
        memory.add_turn("I like coffee too", "Noted")
    assert "coffee" not in memory.get_context(None).combined  # both memories or neither
    qdrant_server.start()
    with time_limit(60):
        while not answers(memory):  # gRPC tries to connect again now and then
            time.sleep(0.05)
    assert any("tea" in text for text in texts(memory, "tea"))
    memory.add_turn("I like coffee too", "Noted")
    assert memory.long_term.count() == 4


def test_a_wrong_key_is_an_error_of_ours(memory: MemoryManager, qdrant_server: StandIn) -> None:
    qdrant_server.api_key = "another key than the memory's"
    with pytest.raises(StoreUnavailableError, match="API key"):
        memory.search_long_term("tea")


def test_p21_a_thread_in_which_another_user_spoke_raises_on_every_machine(
    open_memory: Open, qdrant_server: StandIn
) -> None:
    said = [Message("user", LONG, id="id-of-a-checkpointer-0"), Message("assistant", "Ok", id="id-of-a-checkpointer-1")]
    open_memory("user:ann/session:s").follow(said)
    elsewhere = open_memory("user:bob/session:s")
    question = Message("user", "Hello", id="id-of-a-checkpointer-2")
    with pytest.raises(ScopeError, match="threads of their own"):
        elsewhere.follow([*said, question])
    assert elsewhere.long_term.count() == 0
    ann = open_memory("user:ann/session:s")
    before = len(qdrant_server.asked_for("scroll"))
    ann.follow([*said, question], unanswered=True)
    assert len(qdrant_server.asked_for("scroll")) == before
    assert ann.long_term.count() == 3


def test_what_could_not_be_stored_waits(memory: MemoryManager, qdrant_server: StandIn) -> None:
    ann = memory.for_scope("user:ann/session:s")
    qdrant_server.refuse(Code.UNAVAILABLE, times=10_000, only="upsert")
    said = [Message("user", "I like tea", id="m0"), Message("assistant", "Noted", id="m1")]
    with pytest.raises(StoreUnavailableError):
        ann.follow(said)
    qdrant_server.mend()
    ann.flush()
    assert [message.id for message in ann.long_term.messages()] == ["m0", "m1"]


def test_a_write_whose_answer_was_lost_is_not_doubled(memory: MemoryManager, qdrant_server: StandIn) -> None:
    ann = memory.for_scope("user:ann/session:s")
    ann.long_term.open()
    qdrant_server.cut("after", times=10_000, only="upsert")
    said = [Message("user", "I like tea", id="m0"), Message("assistant", "Noted", id="m1")]
    with pytest.raises(StoreUnavailableError):
        ann.follow(said)
    qdrant_server.mend()
    ann.flush()
    assert ann.long_term.count() == 2
