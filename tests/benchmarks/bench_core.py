"""The operations of the core, each beside a floor measured in the same run.

    pytest tests/benchmarks/bench_core.py -o addopts= --benchmark-group-by=group --benchmark-columns=min,median,ops

A floor does the least that any implementation must: the dictionary look-up, the token count, the write, the raw
engine calls. Machines are noisy: compare within a group, by the ratio in brackets.
"""

from __future__ import annotations

import itertools
import json
import os
import random
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import qdrant_edge
from pytest_benchmark.fixture import BenchmarkFixture

from memory_integrations import FeatureMemory, MemoryManager, Message, ShortTermMemory, ShortTermPolicy, TokenCounter
from memory_integrations.journal_files import JsonlJournal

WORDS = (
    "the quick brown fox jumps over lazy dogs while running through green fields and meadows near old houses today "
    "market bread coffee train river mountain garden winter summer music guitar lesson doctor office project deadline "
    "holiday flight hotel beach museum painting kitchen recipe dinner friend sister brother mother birthday present "
    "bicycle repair window table letter phone message answer question morning evening weather rain snow cloud island"
).split()
_random = random.Random(7)


def sentence(words: int) -> str:
    return " ".join(_random.choices(WORDS, k=words))


EIGHT_WORDS = [sentence(8) for _ in range(20_000)]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[MemoryManager]:
    with MemoryManager("user:bench/session:1", data_dir=tmp_path) as memory:
        yield memory


def run(benchmark: BenchmarkFixture, group: str, call: Callable[[], Any], number: int, rounds: int = 20) -> None:
    benchmark.group = group
    benchmark.pedantic(call, rounds=rounds, iterations=number, warmup_rounds=2)


# features


class PlainMethod:
    def __init__(self) -> None:
        self.facts = {f"key{i}": f"value {i}" for i in range(100)}

    def get(self, key: str, default: Any = None) -> Any:
        return self.facts.get(key, default)


def filled(features: FeatureMemory, keys: int) -> FeatureMemory:
    for i in range(keys):
        features.set(f"key{i}", f"value {i}")
    return features


def test_feature_get_floor(benchmark: BenchmarkFixture) -> None:
    floor = PlainMethod()
    run(benchmark, "feature get", lambda: floor.get("key50"), 20_000)


def test_feature_get(benchmark: BenchmarkFixture, manager: MemoryManager) -> None:
    features = filled(manager.features, 100)
    run(benchmark, "feature get", lambda: features.get("key50"), 20_000)


def test_feature_set_floor_one_write(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "floor", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    numbers = itertools.count()

    def write() -> None:
        line = {"at": "2026-01-01T00:00:00+00:00", "kind": "set", "key": "key5", "value": f"value {next(numbers)}"}
        os.write(fd, json.dumps(line).encode() + b"\n")

    run(benchmark, "feature set", write, 1_000)
    os.close(fd)


@pytest.mark.parametrize("keys", [100, 10_000])
def test_feature_set(benchmark: BenchmarkFixture, manager: MemoryManager, keys: int) -> None:
    features = filled(manager.features, keys)
    numbers = itertools.count()

    def write() -> None:
        number = next(numbers)
        features.set(f"key{number % keys}", f"value {number}")

    run(benchmark, "feature set", write, 1_000)


def test_journal_read_ten_thousand_events(benchmark: BenchmarkFixture, manager: MemoryManager, tmp_path: Path) -> None:
    filled(manager.features, 10_000)
    scope = manager.scope.owner
    journal = JsonlJournal(tmp_path / "journal")
    run(benchmark, "journal", lambda: journal.open(scope, lambda event: None, lambda events: None), 1, rounds=5)


# short-term


def test_short_term_add_floor_count_and_append(benchmark: BenchmarkFixture) -> None:
    count, entries, texts = TokenCounter().count, deque[tuple[str, int]](maxlen=100), itertools.cycle(EIGHT_WORDS)

    def add() -> None:
        text = next(texts)
        entries.append((text, count(text)))

    run(benchmark, "short-term add, limit reached", add, 5_000)


def test_short_term_add(benchmark: BenchmarkFixture) -> None:
    memory, texts = ShortTermMemory(ShortTermPolicy(max_tokens=1_000)), itertools.cycle(EIGHT_WORDS)
    for _ in range(200):
        memory.add(next(texts))
    run(benchmark, "short-term add, limit reached", lambda: memory.add(next(texts), "user"), 5_000)


def conversation() -> tuple[ShortTermMemory, Iterator[str]]:
    memory, texts = ShortTermMemory(ShortTermPolicy(max_entries=100)), itertools.cycle(EIGHT_WORDS)
    for role in ["user", "assistant"] * 50:
        memory.add(next(texts), role)
    return memory, texts


def test_short_term_context_floor(benchmark: BenchmarkFixture) -> None:
    views = {500: object()}
    run(benchmark, "short-term get_context(500), unchanged", lambda: views.get(500), 20_000)


def test_short_term_context_unchanged(benchmark: BenchmarkFixture) -> None:
    memory, _ = conversation()
    run(benchmark, "short-term get_context(500), unchanged", lambda: memory.get_context(500), 20_000)


def test_short_term_context_after_add_floor_newest_that_fit(benchmark: BenchmarkFixture) -> None:
    count, texts = TokenCounter().count, itertools.cycle(EIGHT_WORDS)
    entries = deque[tuple[str, int]](maxlen=100)
    for _ in range(100):
        text = next(texts)
        entries.append((text, count(text)))

    def add_and_view() -> None:
        text = next(texts)
        entries.append((text, count(text)))
        left, shown = 500, []
        for entry in reversed(entries):
            left -= entry[1]
            if left < 0:
                break
            shown.append(entry)

    run(benchmark, "short-term get_context(500), after one add", add_and_view, 1_000)


def test_short_term_context_after_add(benchmark: BenchmarkFixture) -> None:
    memory, texts = conversation()
    roles = itertools.cycle(["user", "assistant"])

    def add_and_view() -> None:
        memory.add(next(texts), next(roles))
        memory.get_context(500)

    run(benchmark, "short-term get_context(500), after one add", add_and_view, 1_000)


def test_short_term_view_of_200_000_tokens(benchmark: BenchmarkFixture) -> None:
    memory = ShortTermMemory(ShortTermPolicy(max_tokens=300_000))
    for role in ["user", "assistant"] * 500:
        memory.add(sentence(200), role)
    roles = itertools.cycle(["user", "assistant"])

    def add_and_view() -> None:
        memory.add("one more", next(roles))
        memory.get_context(200_000)

    run(benchmark, "short-term view of 1,000 messages, 200,000 tokens, after one add", add_and_view, 1)


# long-term


def stored(memory: MemoryManager, messages: int) -> None:
    memory.long_term.store_messages(
        Message("user" if i % 2 else "assistant", sentence(20), session_id=f"s{i // 20}") for i in range(messages)
    )


@pytest.fixture(scope="module", params=["one user", "ten users"])
def ten_thousand(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MemoryManager]:
    with MemoryManager("user:0", data_dir=tmp_path_factory.mktemp("long-term")) as memory:
        users = 1 if request.param == "one user" else 10
        for user in range(users):
            stored(memory.for_scope(f"user:{user}"), 10_000 // users)
        memory.search_long_term("warm up")
        yield memory


def test_search_floor_two_engine_queries(benchmark: BenchmarkFixture, ten_thousand: MemoryManager) -> None:
    store = ten_thousand.long_term._collection
    shard = store.open()._client._collection(store.name)._shard  # type: ignore[attr-defined]
    dense, sparse = store.dense, store.sparse
    mine = qdrant_edge.Filter(
        must=[qdrant_edge.FieldCondition("metadata.scope", qdrant_edge.MatchValue(ten_thousand.scope.tag))]
    )
    questions = itertools.cycle([(dense.embed_query(q), sparse.embed_query(q)) for q in EIGHT_WORDS[:50]])
    limit = store.weights.candidates

    def query() -> None:
        vector, (indices, values) = next(questions)
        nearest = qdrant_edge.Query.Nearest
        request = qdrant_edge.QueryRequest
        terms = qdrant_edge.SparseVector(indices, values)
        idf = qdrant_edge.SearchParams(idf=qdrant_edge.IdfParams(corpus=mine))
        shard.query(request(limit, query=nearest(vector, ""), filter=mine, with_payload=False))
        shard.query(
            request(limit, query=nearest(terms, "langchain-sparse"), filter=mine, params=idf, with_payload=False)
        )

    run(benchmark, "search at 10,000 messages", query, 50, rounds=10)


def test_search(benchmark: BenchmarkFixture, ten_thousand: MemoryManager) -> None:
    questions = itertools.cycle(EIGHT_WORDS[:50])
    run(benchmark, "search at 10,000 messages", lambda: ten_thousand.search_long_term(next(questions)), 50, rounds=10)


def test_store_conversation_floor_engine_upsert(benchmark: BenchmarkFixture, manager: MemoryManager) -> None:
    stored(manager, 2)
    store = manager.long_term._collection
    shard = store.open()._client._collection(store.name)._shard  # type: ignore[attr-defined]
    sparse = store.sparse
    terms = qdrant_edge.SparseVector(*sparse.embed_query(sentence(20)))
    vector = {"": [0.1] * 256, "langchain-sparse": terms}
    numbers = itertools.count(1)

    def upsert() -> None:
        payload = {"page_content": sentence(20), "metadata": {"scope": "user:floor"}}
        points = [qdrant_edge.Point(next(numbers), vector, payload) for _ in range(2)]
        shard.update(qdrant_edge.UpdateOperation.upsert_points(points))

    run(benchmark, "store_conversation, one by one", upsert, 100)


def test_store_conversation(benchmark: BenchmarkFixture, manager: MemoryManager) -> None:
    texts = itertools.cycle([sentence(20) for _ in range(5_000)])
    manager.long_term.store_conversation("warm", "up")

    def store() -> None:
        manager.long_term.store_conversation(next(texts), next(texts))

    run(benchmark, "store_conversation, one by one", store, 100)


def test_get_context_at_10_000_messages(benchmark: BenchmarkFixture, ten_thousand: MemoryManager) -> None:
    session = ten_thousand.for_scope(ten_thousand.scope.with_session("bench"))
    filled(session.features, 20)
    for role in ["user", "assistant"] * 20:
        session.short_term.add(sentence(20), role)
    questions = itertools.cycle(EIGHT_WORDS[:50])
    run(benchmark, "get_context(2000), all three memories", lambda: session.get_context(next(questions)), 20, rounds=10)
