"""Threads and tasks at once."""

from __future__ import annotations

import asyncio
import gc
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from edge_helpers import points, small
from qdrant_client import models as m

from memory_integrations.qdrant_edge import QdrantEdgeClient

THREADS = 8


def run(*jobs):
    """Run jobs in threads that begin together; raise what any of them raised."""
    barrier = threading.Barrier(len(jobs))

    def start(job):
        barrier.wait()
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return [future.result(timeout=120) for future in [pool.submit(start, job) for job in jobs]]


def test_p26_eight_threads_write_and_read_at_once(directory):
    client = QdrantEdgeClient(directory)
    client.create_collection(
        "c", m.VectorParams(size=2, distance="Dot"), sparse_vectors_config={"s": m.SparseVectorParams(modifier="idf")}
    )
    client.create_payload_index("c", "user", m.KeywordIndexParams(type="keyword", is_tenant=True))
    each = 150

    def work(user):
        mine = m.Filter(must=[m.FieldCondition(key="user", match=m.MatchValue(value=f"u{user}"))])
        for number in range(each):
            client.upsert(
                "c",
                [
                    m.PointStruct(
                        id=user * 10_000 + number,
                        vector={"": [number, 1.0], "s": m.SparseVector(indices=[number % 7], values=[1.0])},
                        payload={"user": f"u{user}", "n": number},
                    )
                ],
            )
            if number % 5 == 0:
                found = client.query_points("c", [1.0, 0.0], query_filter=mine, limit=500).points
                assert len(found) == number + 1
                assert {point.payload["user"] for point in found} == {f"u{user}"}
            if number % 10 == 0:
                client.set_payload("c", {"seen": True}, [user * 10_000 + number])
            if number % 50 == 49:
                client.delete("c", [user * 10_000 + number])
                client.upsert(
                    "c", [m.PointStruct(id=user * 10_000 + number, vector=[1.0, 1.0], payload={"user": f"u{user}"})]
                )

    run(*[lambda user=user: work(user) for user in range(THREADS)])
    client.close()
    with QdrantEdgeClient(directory) as client:
        records = client.scroll("c", limit=100_000)[0]
        assert {record.id for record in records} == {u * 10_000 + n for u in range(THREADS) for n in range(each)}
        assert sum(record.payload.get("seen", False) for record in records) == THREADS * each / 10


def test_p26_first_calls_at_once_open_one_engine(directory):
    clients = [QdrantEdgeClient(directory) for _ in range(THREADS)]
    run(*[client.get_collections for client in clients])
    assert len({id(client._client._lease.store) for client in clients}) == 1
    outcomes = run(*[lambda c=client: _created(c) for client in clients])
    assert sorted(outcomes) == [False] * (THREADS - 1) + [True]
    run(*[client.close for client in clients])
    with QdrantEdgeClient(directory) as again:
        assert again.count("c").count == 0


def _created(client):
    try:
        small(client)
    except ValueError:
        return False
    return True


def test_p26_collections_come_and_go_while_others_are_used(client):
    small(client, "kept", count=50)
    stop = time.monotonic() + 1.5

    def churn(name):
        while time.monotonic() < stop:
            small(client, name, count=3)
            client.create_payload_index(name, "n", m.PayloadSchemaType.INTEGER)
            assert client.count(name).count == 3
            client.update_collection(name, metadata={"x": 1})
            client.delete_collection(name)

    def use():
        while time.monotonic() < stop:
            assert len(client.query_points("kept", [1.0, 1.0], limit=50).points) == 50
            client.get_collections()

    run(lambda: churn("a"), lambda: churn("b"), use, use)
    assert [each.name for each in client.get_collections().collections] == ["kept"]


def test_a_collection_deleted_under_a_reader_is_not_found(client):
    small(client, count=200)
    outcomes = []

    def read():
        try:
            while True:
                client.scroll("c", limit=200)
        except Exception as error:
            outcomes.append(str(error))

    def drop():
        time.sleep(0.1)
        client.delete_collection("c")

    run(read, read, drop)
    assert outcomes == ["Collection c not found"] * 2


def test_a_client_closed_under_a_reader_says_so(client):
    small(client, count=200)
    outcomes = []

    def read():
        try:
            while True:
                client.query_points("c", [1.0, 1.0], limit=50)
        except Exception as error:
            outcomes.append(type(error))

    run(read, read, lambda: (time.sleep(0.1), client.close()))
    assert [issubclass(kind, RuntimeError) for kind in outcomes] == [True] * 2


async def test_p26_gather_writes_and_reads_at_once(client):
    shared = client.as_async()
    await shared.create_collection("c", m.VectorParams(size=2, distance="Dot"))

    async def write(number):
        await shared.upsert("c", points([number]))
        found = await shared.retrieve("c", [number])
        assert found[0].payload["n"] == number

    await asyncio.gather(*[write(number) for number in range(300)], *[shared.count("c") for _ in range(50)])
    assert (await shared.count("c")).count == 300
    assert client.count("c").count == 300
    await shared.close()


async def test_the_loop_is_not_blocked_by_long_jobs(client):
    small(client)
    client.upload_points("c", points(range(20_000)))
    shared = client.as_async()
    pauses, done = [], asyncio.Event()

    async def tick():
        while not done.is_set():
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            pauses.append(time.perf_counter() - before - 0.005)

    ticker = asyncio.create_task(tick())
    await shared.scroll("c", limit=20_000)
    await shared.upsert("c", points(range(5_000)))
    await shared.purge("c")
    done.set()
    await ticker
    await shared.close()
    # the jobs take a second; what the loop waits for is one short call of the engine at a time
    assert len(pauses) > 10
    assert statistics.median(pauses) < 0.05


def test_p26_a_collection_of_garbage_within_a_call_is_no_obstacle_to_a_rebuild(directory):
    """It lets other threads run in the middle of a call of the engine, at an object that the call makes."""
    client = QdrantEdgeClient(directory)
    client.create_collection("c", m.VectorParams(size=2, distance="Dot"))
    client.upsert("c", [m.PointStruct(id=n, vector=[n, 1.0], payload={"n": n}) for n in range(50)])
    collection, inside, threshold = client._client._collection("c"), threading.Event(), gc.get_threshold()
    collected_within = []

    def wait(phase, info):
        if not inside.is_set():
            collected_within.append(phase)
            inside.set()
            time.sleep(0.4)  # until the rebuild wants to close the old shard

    def retrieve(shard):
        ids = list(range(50))
        kept = [[] for _ in range(500)]  # else the engine's list is one of those that Python keeps at hand
        gc.callbacks.append(wait)
        gc.set_threshold(1)
        try:
            return shard.retrieve(ids, True, True)
        finally:
            gc.set_threshold(*threshold)
            gc.callbacks.remove(wait)
            inside.set()
            kept.clear()

    reader = threading.Thread(target=lambda: collection.read(retrieve))
    reader.start()
    inside.wait()
    assert client.purge("c") == 50
    reader.join()
    assert collected_within == ["start"]
