"""Search at 10,000 and at 100,000 messages, beside the raw engine calls and beside qdrant-client's own local mode.

    python tests/benchmarks/scale.py [--users 100] [--local]

Each user has a hundredth of the messages. ``--local`` also fills a ``QdrantClient(path=...)``, which takes some ten
minutes, and times the dense half of a search on it. Peak memory is the whole process's, the model's vectors included.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import qdrant_edge as edge

from memory_integrations import MemoryManager, Message
from memory_integrations.cli.replay import sample_messages

WORDS = [word for message in sample_messages() for word in message.text.split()]
QUERIES = 100


def messages(count: int, seed: int) -> Iterator[Message]:
    choice = random.Random(seed)
    for i in range(count):
        role = "user" if i % 2 == 0 else "assistant"
        yield Message(role, " ".join(choice.choices(WORDS, k=25)), session_id=f"s{i // 20}")


def questions() -> list[str]:
    choice = random.Random(0)
    return [" ".join(choice.choices(WORDS, k=8)) for _ in range(QUERIES)]


def p50(call: Callable[[int], object], times: int = QUERIES) -> float:
    """Milliseconds."""
    call(0)
    taken = []
    for i in range(times):
        started = time.perf_counter()
        call(i)
        taken.append(time.perf_counter() - started)
    return median(taken) * 1000


def measure(total: int, users: int, directory: Path) -> tuple[float, float]:
    asked = questions()
    with MemoryManager("user:0", data_dir=directory) as memory:
        started = time.perf_counter()
        for user in range(users):
            memory.for_scope(f"user:{user}").long_term.store_messages(messages(total // users, user))
        stored = time.perf_counter() - started
        search = p50(lambda i: memory.search_long_term(asked[i]))
        raw = p50(raw_queries(memory, asked))
    started = time.perf_counter()
    with MemoryManager("user:0", data_dir=directory) as memory:
        memory.search_long_term(asked[0])
        reopened = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(
        f"{total:>9,} messages, {users} users: stored {total / stored:,.0f}/s, search p50 {search:.2f} ms, "
        f"the two raw queries {raw:.2f} ms (ratio {search / raw:.1f}), reopened and searched in {reopened:.2f} s, "
        f"peak memory {peak:.2f} GiB"
    )
    return search, raw


def raw_queries(memory: MemoryManager, asked: list[str]) -> Callable[[int], object]:
    """The two engine calls of a search, with everything around them made before."""
    collection = memory.long_term._collection
    shard = collection.open()._client._collection(collection.name)._shard  # type: ignore[attr-defined]
    tags = ("user:0", "global")
    mine = edge.Filter(should=[edge.FieldCondition("metadata.scope", edge.MatchValue(tag)) for tag in tags])
    limit, nearest = collection.weights.candidates, edge.Query.Nearest
    idf = edge.SearchParams(idf=edge.IdfParams(corpus=mine))
    requests = []
    for question in asked:
        terms = edge.SparseVector(*collection.sparse.embed_query(question))
        vector = collection.dense.embed_query(question)
        requests.append(
            (
                edge.QueryRequest(limit, query=nearest(vector, ""), filter=mine, with_payload=False),
                edge.QueryRequest(
                    limit, query=nearest(terms, "langchain-sparse"), filter=mine, params=idf, with_payload=False
                ),
            )
        )

    def query(i: int) -> object:
        return [shard.query(request) for request in requests[i]]

    return query


def local_mode(total: int, users: int, directory: Path) -> float:
    """Milliseconds of the dense half of a search on ``QdrantClient(path=...)``."""
    from qdrant_client import QdrantClient, models

    client = QdrantClient(path=str(directory), force_disable_check_same_thread=True)
    client.create_collection("c", models.VectorParams(size=256, distance=models.Distance.COSINE))
    vectors = np.random.default_rng(0).normal(size=(total, 256)).astype(np.float32)
    for start in range(0, total, 1000):
        client.upsert(
            "c",
            models.Batch(
                ids=list(range(start, start + 1000)),
                vectors=vectors[start : start + 1000].tolist(),
                payloads=[{"scope": f"user:{i % users}"} for i in range(start, start + 1000)],
            ),
        )
    mine = models.Filter(must=[models.FieldCondition(key="scope", match=models.MatchValue(value="user:0"))])
    taken = p50(lambda i: client.query_points("c", vectors[i].tolist(), query_filter=mine, limit=100), times=5)
    client.close()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--local", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        small, small_raw = measure(10_000, options.users, Path(directory, "small"))
        large, large_raw = measure(100_000, options.users, Path(directory, "large"))
        growth, raw_growth = large / small, large_raw / small_raw
        print(f"growth from 10,000 to 100,000: search x {growth:.1f}, the raw queries x {raw_growth:.1f}")
        if options.local:
            slow = local_mode(100_000, options.users, Path(directory, "local"))
            print(
                f"qdrant-client's local mode, the dense half alone: {slow:,.0f} ms ({slow / large:,.0f} times a search)"
            )


if __name__ == "__main__":
    main()
