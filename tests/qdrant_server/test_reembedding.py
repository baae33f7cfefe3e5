"""Embedding a collection anew: killed at any call, and with others at work between any two of its calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient
from qdrant_client import models as m

from memory_integrations import (
    EmbeddingMismatchError,
    MemoryManager,
    Message,
    QdrantServer,
    StoreError,
    StoreUnavailableError,
)
from memory_integrations.collection import COLLECTION
from memory_integrations.qdrant_edge import QdrantEdgeClient
from memory_integrations.reembedding import finish
from qdrant_server.operations import Code
from qdrant_server.stand_in import StandIn

CALLS = (
    "collection_exists get_collection get_collections get_aliases create_collection delete_collection "
    "update_collection update_collection_aliases create_payload_index scroll retrieve count upsert"
).split()
SAID = [f"Sentence number {number} about bridges" for number in range(4)]
NEW = "german"


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory_integrations.copying.PAGE", 2)


Connect = Callable[[], QdrantClient]


@pytest.fixture(params=["embedded", "rest"])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connect]:
    """Opens clients on one store: what another process would have on a server."""
    opened: list[QdrantClient] = []
    server: StandIn | None = None
    if request.param == "rest":
        server = request.getfixturevalue("qdrant_server")

    def connect() -> QdrantClient:
        if server is None:
            opened.append(QdrantEdgeClient(tmp_path / "vectors"))
        else:
            opened.append(QdrantClient(url=server.url, check_compatibility=False))
        return opened[-1]

    yield connect
    for client in opened:
        client.close()


class Killed(BaseException):
    """The process ended."""


@contextmanager
def stepped(client: QdrantClient, step: Callable[[int, str], None], *, after: bool = False) -> Iterator[None]:
    """Do something before each call of a client, or after it; never within what is done."""
    count, within = 0, False

    def wrapped(name: str) -> Callable[..., Any]:
        real = getattr(client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count, within
            if within:
                return real(*args, **kwargs)
            within = True
            try:
                count += 1
                number = count
                if not after:
                    step(number, name)
                result = real(*args, **kwargs)
                if after:
                    step(number, name)
                return result
            finally:
                within = False

        return call

    for name in CALLS:
        setattr(client, name, wrapped(name))
    try:
        yield
    finally:
        for name in CALLS:
            delattr(client, name)


class World:
    """A store that is filled anew for each try, and memories that are opened on it."""

    def __init__(self, connect: Connect, directory: Path) -> None:
        self.client, self.other = connect(), connect()
        self.directory = directory

    @contextmanager
    def memory(self, language: str = NEW, client: QdrantClient | None = None) -> Iterator[MemoryManager]:
        with MemoryManager("user:a", data_dir=self.directory, qdrant=client or self.other, language=language) as memory:
            yield memory

    def fill(self, again: bool) -> None:
        """What was said, in a collection that was never embedded anew, or was."""
        for one in self.other.get_collections().collections:
            self.other.delete_collection(one.name)
        with self.memory("french" if again else "english") as memory:
            memory.long_term.store_messages(
                Message("user", text, id=f"m{n}", session_id="s") for n, text in enumerate(SAID)
            )
        if again:
            with self.memory("english") as memory:
                memory.long_term.reembed()

    def reembed(self) -> None:
        with self.memory(NEW, self.client) as memory:
            memory.long_term.reembed()

    def settled(self, expected: list[str], language: str = NEW) -> None:
        """When nobody disturbs it, it goes on to its end, with nothing lost and nothing left over."""
        with self.memory(language) as memory:
            memory.long_term.reembed()
            assert [message.content for message in memory.long_term.messages()] == expected
            hits = memory.long_term.search("Which sentence or news is about bridges?", 20, distinct=False)
            assert len(hits) == len(expected)
        assert len(self.other.get_collections().collections) == 1
        assert len(self.other.get_aliases().aliases) == 1


@pytest.fixture
def world(connect: Connect, tmp_path: Path) -> World:
    return World(connect, tmp_path / "data")


@pytest.fixture
def moments(world: World, again: bool, long_run: bool) -> range:
    """Every call that embedding anew is; over HTTP, which takes ten times as long, in a short run every third."""
    counted: list[int] = []
    world.fill(again)
    with stepped(world.client, lambda number, name: counted.append(number)):
        world.reembed()
    world.settled(SAID)
    is_remote = not isinstance(world.client, QdrantEdgeClient)
    return range(1, len(counted) + 1, 3 if is_remote and not long_run else 1)


FROM = pytest.mark.parametrize(
    ("connect", "again"),
    [("embedded", False), ("embedded", True), ("rest", False)],
    ids=["embedded", "embedded again", "rest"],
    indirect=["connect"],
)


@FROM
def test_a_death_at_any_call_loses_nothing(world: World, again: bool, moments: range) -> None:
    for at in moments:
        world.fill(again)

        def kill(number: int, name: str, at: int = at) -> None:
            if number == at:
                raise Killed

        with stepped(world.client, kill, after=True), suppress(Killed):
            world.reembed()
        seen = []
        for language in ("english", NEW):  # whoever opens it sees all of it, or is told
            with world.memory(language) as memory, suppress(EmbeddingMismatchError):
                seen.append([message.content for message in memory.long_term.messages()])
        assert seen == [SAID]
        world.settled(SAID)


def opens(world: World, language: str) -> None:
    with world.memory(language) as memory, suppress(EmbeddingMismatchError):
        assert [message.content for message in memory.long_term.messages()] == SAID


def embeds(world: World, language: str) -> None:
    with world.memory(language) as memory, suppress(StoreUnavailableError):
        memory.long_term.reembed()
        assert [message.content for message in memory.long_term.messages()] == SAID


@FROM
@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda world: opens(world, "english"),
        lambda world: opens(world, NEW),
        lambda world: embeds(world, NEW),
        lambda world: embeds(world, "italian"),
        lambda world: embeds(world, "english"),
    ],
    ids=["opens it as it was", "opens it as it will be", "does the same", "embeds it otherwise", "wants it as it is"],
)
def test_what_others_do_between_two_calls_loses_nothing(
    world: World, again: bool, moments: range, meanwhile: Callable[[World], None]
) -> None:
    for at in moments:
        world.fill(again)

        def between(number: int, name: str, at: int = at) -> None:
            if number == at:
                meanwhile(world)

        with stepped(world.client, between), suppress(StoreUnavailableError):
            world.reembed()
        world.settled(SAID)


@FROM
@pytest.mark.parametrize("reopened", [True, False], ids=["another process", "a process that had it open"])
def test_p24_what_is_deleted_between_two_calls_does_not_come_back(
    world: World, again: bool, moments: range, reopened: bool
) -> None:
    for at in moments:
        world.fill(again)
        expected = SAID
        with world.memory("english") as memory:
            [doomed] = memory.long_term.search(SAID[2], 1, distinct=False)
            assert doomed.text.endswith(SAID[2])
            if reopened:
                memory.close()

            def between(
                number: int, name: str, at: int = at, memory: MemoryManager = memory, id_: str = doomed.id
            ) -> None:
                nonlocal expected
                if number != at:
                    return
                try:
                    memory.long_term.delete([id_])
                except (StoreError, EmbeddingMismatchError):
                    return  # not acknowledged
                except ValueError:  # the embedded engine's word for a collection that is just being replaced
                    return
                expected = [text for text in SAID if text != SAID[2]]

            with stepped(world.client, between), suppress(StoreUnavailableError):
                world.reembed()
        if expected == SAID:  # it may be gone all the same
            with world.memory() as memory:
                memory.long_term.reembed()
                expected = [message.content for message in memory.long_term.messages()]
                assert len(expected) >= len(SAID) - 1
        world.settled(expected)


def test_p24_an_unfinished_one_is_dropped_where_nothing_is_to_be_embedded(world: World) -> None:
    world.fill(again=False)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with world.memory() as memory, pytest.raises(KeyboardInterrupt):
        memory.long_term.reembed(interrupt)
    assert len(world.other.get_collections().collections) == 2
    with world.memory("english") as memory:
        assert memory.long_term.reembed() == len(SAID)
        assert [one.name for one in world.other.get_collections().collections] == [COLLECTION]
        assert world.other.get_aliases().aliases == []
        assert [message.content for message in memory.long_term.messages()] == SAID


def test_p24_what_was_changed_before_it_goes_on_is_in_no_file_as_it_was(tmp_path: Path) -> None:
    """P24: the second collection has the first text already when the other one is copied over it."""

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    def summarised(text: str) -> None:
        with MemoryManager("user:a", data_dir=tmp_path, language="english") as memory:
            memory.long_term.store_file_summary("pins.txt", text)

    summarised("The PIN is 4711.")
    with MemoryManager("user:a", data_dir=tmp_path, language=NEW) as memory, pytest.raises(KeyboardInterrupt):
        memory.long_term.reembed(interrupt)
    summarised("The PIN is a secret.")
    with MemoryManager("user:a", data_dir=tmp_path, language=NEW) as memory:
        assert memory.long_term.reembed() == 1
        assert [message.content for message in memory.long_term.messages()] == ["The PIN is a secret."]
    files = b"".join(path.read_bytes() for path in (tmp_path / "vectors").rglob("*") if path.is_file())
    assert b"a secret" in files
    assert b"4711" not in files


def test_collections_and_aliases_of_others_are_left_alone(world: World) -> None:
    world.fill(again=False)
    names = [f"{COLLECTION}.backup", f"{COLLECTION}.reembedded", "c0ffee" * 6, f"x{COLLECTION}.{'0' * 32}"]
    for name in names:
        world.other.create_collection(name, m.VectorParams(size=2, distance=m.Distance.DOT))
    alias = m.CreateAlias(collection_name=names[0], alias_name=f"{COLLECTION}.latest")
    world.other.update_collection_aliases([m.CreateAliasOperation(create_alias=alias)])
    world.reembed()
    with world.memory() as memory:
        memory.long_term.erase()
    left = {one.name for one in world.other.get_collections().collections}
    assert left > set(names)
    assert len(left) == len(names) + 1
    assert f"{COLLECTION}.latest" in {one.alias_name for one in world.other.get_aliases().aliases}


def test_an_operators_alias_stands_for_the_collection_as_it_is(world: World) -> None:
    world.fill(again=False)
    alias = m.CreateAlias(collection_name=COLLECTION, alias_name="production")
    world.other.update_collection_aliases([m.CreateAliasOperation(create_alias=alias)])
    for language in (NEW, "french"):
        with world.memory(language) as memory:
            memory.long_term.reembed()
        assert world.other.get_collection("production").config.metadata["language"] == language
        assert len(world.other.get_collections().collections) == 1


def test_what_is_stored_meanwhile_is_embedded_too(world: World) -> None:
    world.fill(again=False)

    def store(done: int, total: int) -> None:
        if done == len(SAID):
            with world.memory("english") as other:
                other.long_term.store_messages([Message("user", "Late news", id="late", session_id="s")])

    with world.memory(NEW, world.client) as memory:
        assert memory.long_term.reembed(store) == len(SAID) + 1
    world.settled([*SAID, "Late news"])


def test_what_is_stored_before_another_try_puts_it_in_place_is_embedded_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything was copied, and then the server failed: whoever has the memory open goes on storing."""
    world.fill(again=False)

    def refuse(client: QdrantClient, name: str) -> str | None:
        if any(one.alias_name == f"{name}.ready" for one in client.get_aliases().aliases):
            raise StoreUnavailableError("ordered by the test")
        return finish(client, name)

    with world.memory("english") as other:
        other.long_term.count()
        monkeypatch.setattr(other._open.memories, "_look_again_at", math.inf)
        with monkeypatch.context() as broken:
            broken.setattr("memory_integrations.reembedding.finish", refuse)
            with pytest.raises(StoreUnavailableError, match="ordered by the test"):
                world.reembed()
        other.long_term.store_messages([Message("user", "Late news", id="late", session_id="s")])
    world.settled([*SAID, "Late news"])


def test_who_stores_all_the_time_is_told(world: World) -> None:
    world.fill(again=False)

    def store(number: int, name: str) -> None:
        if name == "count":
            with world.memory("english") as memory:
                memory.long_term.store_messages([Message("user", "News", id=f"n{number}", session_id="s")])

    with stepped(world.client, store), pytest.raises(StoreUnavailableError, match="all the time"):
        world.reembed()
    with world.memory("english") as memory:
        told = [message.content for message in memory.long_term.messages()]
    world.settled(told)


def test_what_another_program_deletes_is_not_kept(world: World) -> None:
    world.fill(again=False)

    def delete(number: int, name: str) -> None:
        counted.append(name)
        if name == "count" and counted.count("count") == 2:  # when all are copied
            ids = [point.id for point in world.other.scroll(COLLECTION, limit=1)[0]]
            world.other.delete(COLLECTION, m.PointIdsList(points=ids))

    counted: list[str] = []

    with stepped(world.client, delete), pytest.raises(StoreUnavailableError, match="Call it again"):
        world.reembed()
    with world.memory() as memory:
        assert memory.long_term.reembed() == len(SAID) - 1


# A server alone


@pytest.fixture(params=["rest", "grpc"])
def server(request: pytest.FixtureRequest, qdrant_server: StandIn) -> QdrantServer:
    return QdrantServer(
        qdrant_server.url,
        prefer_grpc=request.param == "grpc",
        grpc_port=qdrant_server.grpc_port,
        shard_number=6,
        replication_factor=3,
    )


def memory_on(server: Any, directory: Path, language: str = "english") -> MemoryManager:
    return MemoryManager("user:a", data_dir=directory, qdrant=server, language=language)


def test_what_an_operator_set_stays(qdrant_server: StandIn, server: QdrantServer, tmp_path: Path) -> None:
    with memory_on(server, tmp_path) as memory:
        memory.long_term.store_messages([Message("user", "Häuser", id="m", metadata={"topic": "x"})])
    client = qdrant_server.storage.engine
    client.create_payload_index(COLLECTION, "metadata.extra.topic", m.PayloadSchemaType.KEYWORD)
    operator = server.connect()
    operator.update_collection(
        COLLECTION,
        hnsw_config=m.HnswConfigDiff(m=24, payload_m=24),
        optimizers_config=m.OptimizersConfigDiff(deleted_threshold=0.05, vacuum_min_vector_number=100),
        quantization_config=m.ScalarQuantization(scalar=m.ScalarQuantizationConfig(type=m.ScalarType.INT8)),
        strict_mode_config=m.StrictModeConfig(enabled=True, max_query_limit=777, unindexed_filtering_retrieve=False),
    )
    before = operator.get_collection(COLLECTION)
    with memory_on(qdrant_server.url, tmp_path, "german") as memory:  # as the command line does, which has no options
        memory.long_term.reembed()
        assert memory.search_long_term("Haus")
    after = operator.get_collection(COLLECTION)
    operator.close()
    assert set(after.payload_schema) == set(before.payload_schema) >= {"metadata.extra.topic", "metadata.scope"}
    assert after.payload_schema["metadata.scope"].params.is_tenant is True
    assert (after.config.params.shard_number, after.config.params.replication_factor) == (6, 3)
    assert after.config.hnsw_config.m == 24
    assert after.config.optimizer_config.deleted_threshold == 0.05
    assert after.config.strict_mode_config.max_query_limit == 777
    changed = {"metadata": {**before.config.metadata, "language": "german"}}
    assert after.config == before.config.model_copy(update=changed)


def test_an_open_memory_learns_of_another_embedding(
    qdrant_server: StandIn, server: QdrantServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vectors are of the same size, so that no server would refuse them."""
    with memory_on(server, tmp_path / "one") as memory, memory_on(server, tmp_path / "two", "german") as other:
        memory.add_turn("Hello", "Hello to you")
        other.long_term.reembed()
        asked = len(qdrant_server.asked_for("get_collection"))
        memory.long_term.count()
        assert len(qdrant_server.asked_for("get_collection")) == asked  # it does not look at every call
        now = memory._open.memories._look_again_at
        monkeypatch.setattr("memory_integrations.collection.time.monotonic", lambda: now + 1)
        for call in (lambda: memory.search_long_term("hello"), lambda: memory.long_term.store_conversation("a", "b")):
            with pytest.raises(EmbeddingMismatchError, match="german"):
                call()
        asked = len(qdrant_server.asked_for("get_collection"))
        for _ in range(3):
            assert other.long_term.count() == 2
        assert len(qdrant_server.asked_for("get_collection")) == asked + 1


def test_a_collection_that_is_not_there_for_a_moment_is_found_again(
    qdrant_server: StandIn, server: QdrantServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that died between the first and the second collection leaves it to whoever looks next."""
    with memory_on(server, tmp_path / "one") as memory, memory_on(server, tmp_path / "two", "german") as other:
        memory.add_turn("Hello", "Hello to you")

        def kill(number: int, name: str) -> None:
            if name == "delete_collection":
                raise Killed

        client = other._open.memories.client()
        with stepped(client, kill, after=True), pytest.raises(Killed):
            other.long_term.reembed()
        with pytest.raises(StoreUnavailableError):
            memory.long_term.count()
        now = memory._open.memories._look_again_at
        monkeypatch.setattr("memory_integrations.collection.time.monotonic", lambda: now + 1)
        with pytest.raises(StoreUnavailableError):
            memory.long_term.count()
        with pytest.raises(EmbeddingMismatchError, match="german"):
            memory.long_term.count()
        assert other.long_term.count() == 2


def test_a_new_collection_is_looked_at_once(qdrant_server: StandIn, server: QdrantServer, tmp_path: Path) -> None:
    with memory_on(server, tmp_path) as memory:
        memory.long_term.open()
    assert len(qdrant_server.asked_for("get_collection")) == 1
    assert len(qdrant_server.asked_for("create_field_index")) == 9


@pytest.mark.parametrize("operation", ["create_collection", "update_aliases", "get_aliases", "retrieve", "count"])
@pytest.mark.parametrize("fault", ["refused", "cut before", "cut after"])
def test_a_server_that_fails_once_leaves_something_to_go_on_with(
    qdrant_server: StandIn, server: QdrantServer, tmp_path: Path, operation: str, fault: str, long_run: bool
) -> None:
    once = QdrantServer(server.url, prefer_grpc=server.prefer_grpc, grpc_port=server.grpc_port, retries=0)
    with memory_on(once, tmp_path / "one") as memory:
        memory.add_turn("Hello", "Hello to you")
    for times in range(1, 5 if long_run else 3):
        with memory_on(once, tmp_path / "two", "german" if times % 2 else "french") as other:
            held = [0]
            done = qdrant_server._next_fault

            def fail(asked: str, times: int = times, held: list[int] = held, done: Any = done) -> Any:
                held[0] += asked == operation
                if asked == operation and held[0] == times:
                    order = qdrant_server.refuse if fault == "refused" else qdrant_server.cut
                    given = Code.INTERNAL if fault == "refused" else fault.removeprefix("cut ")
                    order(given, only=operation)
                return done(asked)

            qdrant_server._next_fault = fail  # type: ignore[method-assign]
            with suppress(StoreUnavailableError):
                other.long_term.reembed()
            qdrant_server._next_fault = done  # type: ignore[method-assign]
            qdrant_server.mend()
            other.long_term.reembed()
            assert [message.content for message in other.long_term.messages()] == ["Hello", "Hello to you"]
        assert len(qdrant_server.storage.engine.get_collections().collections) == 1
