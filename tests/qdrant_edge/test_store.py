"""The directory: what survives, who may open it, and what is gone after a purge."""

from __future__ import annotations

import gc
import json
import os
import random
import re
import shutil
import signal
import stat
import sys
import threading
import time
from pathlib import Path

import pytest
import qdrant_edge
from edge_helpers import bytes_under, points, small
from hypothesis import given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient
from qdrant_client import models as m

from memory_integrations.errors import StoreCorruptedError, StoreLockedError, StoreUnavailableError
from memory_integrations.qdrant_edge import QdrantEdgeClient
from memory_integrations.qdrant_edge import shard as shard_module
from memory_integrations.qdrant_edge.store import Store, directory_name

ROUNDS = 20 if os.environ.get("HYPOTHESIS_PROFILE") == "benchmark" else 3
HOLD = """
    import sys
    from memory_integrations.qdrant_edge import QdrantEdgeClient
    client = QdrantEdgeClient(sys.argv[1])
    client.get_collections()
    print("open", flush=True)
    sys.stdin.readline()
"""
WRITE = """
    import sys
    from qdrant_client import models as m
    from memory_integrations.qdrant_edge import QdrantEdgeClient
    client = QdrantEdgeClient(sys.argv[1])
    if not client.collection_exists("c"):
        client.create_collection("c", m.VectorParams(size=2, distance=m.Distance.DOT))
    number = int(sys.argv[2])
    while True:
        batch = [m.PointStruct(id=number + n, vector=[1.0, 2.0], payload={"n": number + n}) for n in range(7)]
        client.upsert("c", batch)
        number += 7
        print(number, flush=True)
"""


class TestOpening:
    def test_p25_the_constructor_touches_nothing(self, directory):
        client = QdrantEdgeClient(directory)
        assert client.path == directory
        assert not directory.exists()
        client.get_collections()
        assert directory.is_dir()
        client.close()

    def test_the_path_is_read_only(self, directory):
        with pytest.raises(AttributeError):
            QdrantEdgeClient(directory).path = Path("elsewhere")

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
    def test_only_the_user_may_look_inside(self, client, directory):
        small(client, count=3)
        client.create_snapshot("c")
        for path in [directory, *directory.iterdir()]:
            if path.is_dir():
                assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert stat.S_IMODE((directory / "collections.json").stat().st_mode) == 0o600

    def test_a_relative_path_and_a_home_path_are_resolved(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert QdrantEdgeClient("here").path == tmp_path / "here"
        assert QdrantEdgeClient("~/there").path == tmp_path / "there"

    def test_it_comes_back_as_it_was(self, directory):
        with QdrantEdgeClient(directory) as client:
            client.create_collection(
                "c",
                {"a": m.VectorParams(size=2, distance=m.Distance.EUCLID)},
                sparse_vectors_config={"s": m.SparseVectorParams(modifier=m.Modifier.IDF)},
                metadata={"embedding": "static", "size": 2},
            )
            client.create_payload_index("c", "tenant", m.KeywordIndexParams(type="keyword", is_tenant=True))
            client.upsert(
                "c",
                [
                    m.PointStruct(
                        id=1,
                        vector={"a": [1.0, 2.0], "s": m.SparseVector(indices=[5, 2], values=[1.0, 2.0])},
                        payload={"tenant": "x", "deep": [{"y": None}]},
                    )
                ],
            )
            client.update_collection_aliases(
                [m.CreateAliasOperation(create_alias=m.CreateAlias(collection_name="c", alias_name="nick"))]
            )
            before = client.retrieve("nick", [1], with_vectors=True), client.get_collection("c")
        with QdrantEdgeClient(directory) as client:
            after = client.retrieve("nick", [1], with_vectors=True), client.get_collection("c")
            assert after == before
            assert after[1].config.metadata == {"embedding": "static", "size": 2}
            assert after[1].payload_schema["tenant"].params.is_tenant

    def test_in_memory_is_a_temporary_directory_that_goes(self):
        client = QdrantEdgeClient(":memory:")
        assert client.path is None
        small(client, count=3)
        path = client._client._lease.store.path
        assert path.is_dir()
        client.close()
        assert not path.exists()
        with pytest.raises(RuntimeError, match="closed"):
            client.count("c")

    def test_two_in_memory_clients_are_two_stores(self):
        with QdrantEdgeClient() as one, QdrantEdgeClient() as other:
            small(one)
            assert not other.collection_exists("c")

    def test_what_nothing_names_is_kept_while_something_is_missing(self, directory):
        with QdrantEdgeClient(directory) as client:
            small(client, "a")
            small(client, "b")
        shards = directory / "shards"
        lost = next(path for path in shards.iterdir() if path.name.startswith("a."))
        lost.rename(shards / directory_name("a"))
        before = {path.name for path in shards.iterdir()}
        with QdrantEdgeClient(directory) as client:
            with pytest.raises(StoreCorruptedError, match=f"missing or empty.*{shards} was kept"):
                client.count("a")
            client.delete("b", [1])
            client.purge("b")
            after = {path.name for path in shards.iterdir()}
            assert {name for name in after if name.startswith("a.")} < before
            assert len(after) == 2, "what this one replaced is gone"
            client.delete_collection("a")
        with QdrantEdgeClient(directory) as client:
            client.get_collections()
            assert [path.name[:2] for path in shards.iterdir()] == ["b."]

    def test_local_mode_s_own_directory_is_named_as_such(self, directory):
        local = QdrantClient(path=str(directory))
        local.create_collection("c", m.VectorParams(size=2, distance=m.Distance.DOT))
        local.close()
        with pytest.raises(StoreCorruptedError, match=r"local mode.*migrate"):
            QdrantEdgeClient(directory).get_collections()

    def test_local_mode_migrates(self, directory):
        local = QdrantClient(":memory:")
        small(local, count=30)
        with QdrantEdgeClient(directory) as client:
            local.migrate(client)
            assert client.scroll("c", limit=50) == local.scroll("c", limit=50)
            with QdrantEdgeClient() as other:
                client.migrate(other)
                assert other.count("c").count == 30


class TestLocking:
    def test_p25_another_process_gets_a_typed_error(self, directory, python):
        holder = python(HOLD, directory)
        assert holder.stdout.readline() == "open\n"
        client = QdrantEdgeClient(directory)
        with pytest.raises(StoreLockedError) as caught:
            client.get_collections()
        for part in (str(directory), str(holder.pid), "another process", "QdrantClient(url="):
            assert part in str(caught.value)
        holder.communicate("\n", timeout=30)
        assert client.get_collections().collections == []  # the same client, once the other process has gone
        client.close()

    def test_p25_the_lock_dies_with_its_process(self, directory, python):
        holder = python(HOLD, directory)
        assert holder.stdout.readline() == "open\n"
        holder.kill()
        holder.communicate()
        with QdrantEdgeClient(directory) as client:
            assert client.get_collections().collections == []

    def test_p25_one_engine_per_directory_counted_and_closed(self, directory):
        one, other = QdrantEdgeClient(directory), QdrantEdgeClient(str(directory))
        link = directory.with_name("link")
        small(one, count=2)
        link.symlink_to(directory)
        third = QdrantEdgeClient(link)
        assert other.count("c").count == third.count("c").count == 2
        assert one._client._lease.store is other._client._lease.store is third._client._lease.store
        one.close()
        one.close()
        with pytest.raises(RuntimeError, match="closed"):
            one.count("c")
        other.upsert("c", points([7]))
        other.close()
        assert third.count("c").count == 3
        third.close()
        with QdrantEdgeClient(directory) as again:
            assert again.count("c").count == 3

    def test_p25_closing_lets_another_process_in(self, directory, python):
        with QdrantEdgeClient(directory) as client:
            small(client)
        holder = python(HOLD, directory)
        assert holder.stdout.readline() == "open\n"
        holder.communicate("\n", timeout=30)
        assert holder.returncode == 0

    def test_the_engine_s_own_lock_is_translated(self, client, directory):
        small(client, count=1)
        collection = client._client._collection("c")
        with pytest.raises(StoreLockedError, match="another process"):
            shard_module.load(collection.path)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_forked_child_may_not_use_its_parent_s_engine(self, client, directory):
        small(client, count=5)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:  # report by pipe, and leave without running pytest's own exit
            told = []
            for each in (client, QdrantEdgeClient(directory)):
                try:
                    each.count("c")
                    told.append("no error")
                except StoreLockedError as error:
                    told.append(
                        f"locked {directory in Path(str(error).split()[0]).parents or str(directory) in str(error)}"
                    )
                except BaseException as error:  # whatever it is, the parent must hear of it
                    told.append(repr(error))
            client.close()
            del client
            gc.collect()
            os.write(writer, json.dumps(told).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            assert json.loads(pipe.read()) == ["locked True", "locked True"]
        os.waitpid(child, 0)
        client.upsert("c", points([9]))
        assert client.count("c").count == 6

    def test_a_child_that_outlives_its_parent_does_not_keep_the_lock(self, directory, python):
        parent = python(
            """
            import os, sys, time
            from memory_integrations.qdrant_edge import QdrantEdgeClient
            client = QdrantEdgeClient(sys.argv[1])
            client.get_collections()
            if os.fork() == 0:
                for stream in (0, 1, 2):
                    os.close(stream)
                time.sleep(30)
                os._exit(0)
            os.kill(os.getpid(), 9)
            """,
            directory,
        )
        parent.communicate(timeout=30)
        with QdrantEdgeClient(directory) as client:
            assert client.get_collections().collections == []


class TestDurability:
    @pytest.mark.parametrize("round_", range(ROUNDS))
    def test_kill_9_loses_no_acknowledged_point(self, directory, python, round_):
        acknowledged = 0
        for start in (0, 1):
            writer = python(WRITE, directory, acknowledged)
            until = time.monotonic() + random.Random(round_ * 2 + start).uniform(0.05, 0.4)
            while time.monotonic() < until or not acknowledged:
                acknowledged = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            rest, _ = writer.communicate()
            # what was printed before the death was acknowledged; a last line may be torn
            acknowledged = max([acknowledged, *(int(line) for line in rest.split("\n")[:-1])])
        with QdrantEdgeClient(directory) as client:
            found = {record.id for record in client.scroll("c", limit=1_000_000, with_payload=False)[0]}
            assert set(range(acknowledged)) <= found

    def test_a_directory_that_was_deleted_meanwhile_is_closed_all_the_same(self, directory):
        client = QdrantEdgeClient(directory)
        client.create_collection("c", m.VectorParams(size=2, distance="Dot"))
        shutil.rmtree(directory)
        with pytest.raises(StoreUnavailableError):
            client.upsert("c", [m.PointStruct(id=1, vector=[1.0, 1.0])])
        client.close()

    def test_a_forgotten_close_flushes_at_exit(self, directory, python):
        script = """
            import sys
            from edge_helpers import points, small
            from memory_integrations.qdrant_edge import QdrantEdgeClient
            client = QdrantEdgeClient(sys.argv[1])
            small(client, count=100)
        """
        process = python(
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n" + _dedent(script), directory
        )
        _, errors = process.communicate(timeout=60)
        assert errors == ""
        # the flushed log has an index of where to go on; an unflushed one has not
        assert list(directory.glob("shards/*/wal/first-index"))
        with QdrantEdgeClient(directory) as client:
            assert client.count("c").count == 100

    def test_a_dropped_client_gives_the_directory_back(self, directory, python):
        client = QdrantEdgeClient(directory)
        small(client, count=3)
        del client
        gc.collect()
        holder = python(HOLD, directory)
        assert holder.stdout.readline() == "open\n"
        holder.communicate("\n", timeout=30)

    def test_an_operation_that_failed_does_not_spoil_the_log(self, directory, python):
        process = python(
            """
            import os, sys
            import qdrant_edge
            from qdrant_client import models as m
            from memory_integrations.qdrant_edge import QdrantEdgeClient
            client = QdrantEdgeClient(sys.argv[1])
            client.create_collection("c", m.VectorParams(size=2, distance=m.Distance.DOT))
            client.upsert("c", [m.PointStruct(id=1, vector=[1.0, 1.0])])
            try:
                client.set_payload("c", {"a": 1}, [1, 99])
            except KeyError as error:
                print(error, flush=True)
            client.upsert("c", [m.PointStruct(id=2, vector=[1.0, 1.0])])
            os.kill(os.getpid(), 9)
            """,
            directory,
        )
        out, _ = process.communicate(timeout=60)
        assert out == "99\n"
        with QdrantEdgeClient(directory) as client:
            assert client.retrieve("c", [1])[0].payload == {"a": 1}
            assert client.count("c").count == 2

    def test_flush_leaves_nothing_to_replay(self, client):
        small(client, count=10)
        client.flush("c")
        client.flush()
        assert client._client._collection("c")._unflushed == 0


def _dedent(script: str) -> str:
    import textwrap

    return textwrap.dedent(script)


class TestPurge:
    def planted(self, directory):
        """Return the planted strings that any file still holds."""
        contents = (path.read_bytes() for path in directory.rglob("*") if path.is_file())
        return {found for content in contents for found in re.findall(rb"secret-\d{4}", content)}

    def test_p24_no_byte_of_what_was_deleted_stays(self, client, directory):
        secrets = [f"secret-{number:04d}-{random.getrandbits(64):x}" for number in range(1_000)]
        client.create_collection(
            "c",
            m.VectorParams(size=2, distance=m.Distance.DOT),
            sparse_vectors_config={"s": m.SparseVectorParams(modifier=m.Modifier.IDF)},
        )
        client.create_payload_index("c", "scope", m.KeywordIndexParams(type="keyword", is_tenant=True))
        client.create_payload_index("c", "text", m.TextIndexParams(type="text"))
        client.upsert(
            "c",
            [
                m.PointStruct(id=n, vector={"": [n, 1.0]}, payload={"text": secret, "scope": f"scope-{secret}"})
                for n, secret in enumerate(secrets)
            ],
        )
        client.upsert(
            "c",
            [m.PointStruct(id=n, vector={"": [n, 2.0]}, payload={"text": f"kept-{n}"}) for n in range(5_000, 5_100)],
        )
        client.flush()
        assert len(self.planted(directory)) == 1_000
        client.delete("c", list(range(400)))
        client.overwrite_payload("c", {"text": "replaced"}, list(range(400, 600)))
        client.upsert(
            "c", [m.PointStruct(id=n, vector={"": [n, 3.0]}, payload={"text": "again"}) for n in range(600, 800)]
        )
        client.delete("c", m.Filter(must=[m.HasIdCondition(has_id=list(range(800, 1_000)))]))
        seen = []
        assert client.purge("c", seen.append) == 500
        assert seen[-1] == 500
        assert seen == sorted(seen)
        assert self.planted(directory) == set()
        assert bytes_under(directory, b"kept-5000")
        assert client.count("c").count == 500
        assert client.get_collection("c").payload_schema["scope"].params.is_tenant
        assert len(list((directory / "shards").iterdir())) == 1
        client.close()
        assert self.planted(directory) == set()

    def test_p24_a_deleted_collection_leaves_nothing(self, client, directory):
        small(client, count=0)
        client.upsert("c", points([1], text="very secret words"))
        client.delete_collection("c")
        assert not bytes_under(directory, b"secret words")

    def test_purging_keeps_everything_else(self, client):
        client.create_collection(
            "c",
            {
                "d": m.VectorParams(size=2, distance=m.Distance.COSINE),
                "mv": m.VectorParams(
                    size=2,
                    distance=m.Distance.DOT,
                    multivector_config=m.MultiVectorConfig(comparator=m.MultiVectorComparator.MAX_SIM),
                ),
            },
            sparse_vectors_config={"s": m.SparseVectorParams(modifier=m.Modifier.IDF)},
            metadata={"kept": True},
        )
        rng = random.Random(1)
        client.upsert(
            "c",
            [
                m.PointStruct(
                    id=n,
                    vector={
                        "d": [rng.random(), rng.random()],
                        "mv": [[rng.random(), 1.0]] * (1 + n % 3),
                        **({"s": m.SparseVector(indices=[n, 500], values=[1.0, rng.random()])} if n % 2 else {}),
                    },
                    payload={"n": n, "nothing": None, "deep": {"list": [1, 2.5, "x"]}},
                )
                for n in range(300)
            ],
        )
        client.delete("c", list(range(0, 300, 3)))
        before = client.scroll("c", limit=500, with_vectors=True)[0]
        assert client.purge("c") == 200
        after = client.scroll("c", limit=500, with_vectors=True)[0]
        assert [(r.id, r.payload) for r in after] == [(r.id, r.payload) for r in before]
        for one, other in zip(after, before, strict=True):
            assert one.vector.keys() == other.vector.keys()
            assert one.vector["d"] == pytest.approx(other.vector["d"], abs=1e-6)
            assert one.vector["mv"] == other.vector["mv"]
            assert one.vector.get("s") == other.vector.get("s")
        assert client.get_collection("c").config.metadata == {"kept": True}

    def test_an_empty_and_a_missing_collection(self, client):
        small(client)
        assert client.purge("c") == 0
        with pytest.raises(ValueError, match="Collection nope not found"):
            client.purge("nope")

    @pytest.mark.parametrize("error", [KeyboardInterrupt, StoreUnavailableError("full")])
    @pytest.mark.parametrize("reached_the_disk", [True, False])
    def test_a_swap_that_failed_keeps_the_old_files(self, client, directory, monkeypatch, error, reached_the_disk):
        small(client, count=200)
        client.delete("c", list(range(100)))
        write, attempts = Store._write, []

        def fail_once(self):
            attempts.append(1)
            if reached_the_disk or len(attempts) > 1:
                write(self)
            if len(attempts) == 1:
                raise error

        monkeypatch.setattr(Store, "_write", fail_once)
        with pytest.raises(error if isinstance(error, type) else type(error)):
            client.purge("c")
        monkeypatch.undo()
        assert client.count("c").count == 100
        assert len(list((directory / "shards").iterdir())) == 1
        client.close()
        with QdrantEdgeClient(directory) as again:
            assert again.count("c").count == 100
            assert again.purge("c") == 100

    def test_while_the_registry_cannot_be_written_nothing_is_removed(self, client, directory, monkeypatch):
        small(client, count=200)
        monkeypatch.setattr(Store, "_write", _raiser(StoreUnavailableError("full")))
        with pytest.raises(StoreUnavailableError):
            client.purge("c")
        assert len(list((directory / "shards").iterdir())) == 2
        client.upsert("c", points([500]))
        monkeypatch.undo()
        assert client.purge("c") == 201
        assert len(list((directory / "shards").iterdir())) == 1

    def test_a_full_disk_while_copying_keeps_the_old_files(self, client, directory, monkeypatch):
        small(client, count=200)
        monkeypatch.setattr(shard_module, "copy_points", _raiser(OSError(28, "No space left on device")))
        with pytest.raises(StoreUnavailableError, match="No space left"):
            client.purge("c")
        monkeypatch.undo()
        assert client.count("c").count == 200
        assert len(list((directory / "shards").iterdir())) == 1

    def test_a_purge_that_cannot_be_done_stays_due(self, client, directory, monkeypatch):
        small(client, count=200)
        monkeypatch.setattr(shard_module, "copy_points", _raiser(OSError(28, "No space left on device")))
        with pytest.raises(StoreUnavailableError, match="No space left"), client.purging("c"):
            client.delete("c", [7])
        assert client.purge_is_due("c")
        client.close()
        with QdrantEdgeClient(directory) as full:
            assert full.count("c").count == 199, "it opens all the same"
            assert full.purge_is_due("c")
        monkeypatch.undo()
        with QdrantEdgeClient(directory) as opened:
            assert opened.count("c").count == 199
            assert not opened.purge_is_due("c")
        assert not bytes_under(directory, b'text 7"')

    def test_a_change_that_cannot_be_recorded_after_an_overdue_purge_loses_nothing(
        self, client, directory, monkeypatch
    ):
        """The purge is done at the first call, and names other files than those that were there before it."""
        small(client, count=200)
        with monkeypatch.context() as full:
            full.setattr(shard_module, "copy_points", _raiser(OSError(28, "No space left on device")))
            with pytest.raises(StoreUnavailableError, match="No space left"), client.purging("c"):
                client.delete("c", [7])
            client.close()
        write, attempts = Store._write, []

        def fail_second(self):
            attempts.append(1)
            if len(attempts) == 2:
                raise StoreUnavailableError("full")
            write(self)

        with QdrantEdgeClient(directory) as again:
            with monkeypatch.context() as full:
                full.setattr(Store, "_write", fail_second)
                with pytest.raises(StoreUnavailableError, match="full"):
                    again.create_payload_index("c", "tag", "keyword")
            again.create_collection("other", vectors_config=m.VectorParams(size=2, distance=m.Distance.DOT))
            again.delete_collection("other")
            assert again.count("c").count == 199
        with QdrantEdgeClient(directory) as opened:
            assert opened.count("c").count == 199

    def test_a_purge_is_due_until_the_last_removal_is_done(self, client):
        small(client, count=20)
        with client.purging("c"):
            client.delete("c", [1])
            with client.purging("c"):
                client.delete("c", [2])
            assert client.purge_is_due("c")
        assert not client.purge_is_due("c")
        with pytest.raises(KeyError), client.purging("c"):
            raise KeyError("of the body")
        assert client.purge_is_due("c")

    def test_what_a_killed_process_deleted_is_gone_after_the_next_opening(self, directory, python):
        process = python(
            """
            import os, signal, sys
            from qdrant_client import models as m
            from memory_integrations.qdrant_edge import QdrantEdgeClient
            client = QdrantEdgeClient(sys.argv[1])
            client.create_collection("c", m.VectorParams(size=2, distance=m.Distance.DOT))
            secrets = [{"text": f"secret {n}"} for n in range(9)]
            client.upsert("c", [m.PointStruct(id=n, vector=[n, 1.0], payload=secrets[n]) for n in range(9)])
            with client.purging("c"):
                client.delete("c", [7])
                os.kill(os.getpid(), signal.SIGKILL)
            """,
            directory,
        )
        process.communicate(timeout=60)
        assert bytes_under(directory, b"secret 7")
        with QdrantEdgeClient(directory) as client:
            assert client.count("c").count == 8
        assert not bytes_under(directory, b"secret 7")

    @pytest.mark.parametrize("moment", ["copied", "named", "half removed"])
    def test_what_a_kill_during_a_purge_leaves_is_resolved_at_the_next_opening(self, directory, python, moment):
        process = python(_purge_script(), directory, moment)
        out, errors = process.communicate(timeout=60)
        assert (out, process.returncode) == (f"{moment}\n", -signal.SIGKILL), errors
        with QdrantEdgeClient(directory) as client:
            found = client.scroll("c", limit=1_000)[0]
            assert [record.id for record in found] == list(range(100, 300))
            assert all(record.payload["text"] == f"text {record.id}" for record in found)
            assert len(list((directory / "shards").iterdir())) == 1
            client.purge("c")
        assert not bytes_under(directory, b"secret")

    @pytest.mark.parametrize("round_", range(ROUNDS))
    def test_kill_9_at_any_moment_of_a_purge_loses_nothing(self, directory, python, round_):
        process = python(
            """
            import sys
            from qdrant_client import models as m
            from memory_integrations.qdrant_edge import QdrantEdgeClient
            client = QdrantEdgeClient(sys.argv[1])
            if not client.collection_exists("c"):
                client.create_collection("c", m.VectorParams(size=2, distance=m.Distance.DOT))
                client.upsert("c", [m.PointStruct(id=n, vector=[n, 1.0], payload={"n": n}) for n in range(500)])
            print("ready", flush=True)
            while True:
                client.purge("c")
            """,
            directory,
        )
        assert process.stdout.readline() == "ready\n"
        time.sleep(random.Random(round_).uniform(0.0, 0.25))
        process.kill()
        process.communicate()
        with QdrantEdgeClient(directory) as client:
            assert client.count("c").count == 500
            assert len(list((directory / "shards").iterdir())) == 1

    def test_reads_and_writes_go_on_while_it_is_purged(self, client):
        small(client, count=400)
        stop, failures, written = threading.Event(), [], []

        def read():
            while not stop.is_set():
                try:
                    assert len(client.query_points("c", [1.0, 1.0], limit=1_000).points) >= 400
                    assert client.retrieve("c", [399])[0].payload["n"] == 399
                except BaseException as error:
                    failures.append(error)
                    return

        def write():
            number = 1_000
            while not stop.is_set():
                client.upsert("c", points([number]))
                written.append(number)
                number += 1

        threads = [threading.Thread(target=read) for _ in range(4)] + [threading.Thread(target=write)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            client.purge("c")
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        assert written
        assert client.count("c").count == 400 + len(written)


def _raiser(error):
    def fail(*args, **kwargs):
        raise error

    return fail


def _purge_script() -> str:
    return """
    import os, sys
    from qdrant_client import models as m
    from memory_integrations.qdrant_edge import QdrantEdgeClient, shard, store
    client = QdrantEdgeClient(sys.argv[1])
    client.create_collection("c", m.VectorParams(size=2, distance=m.Distance.DOT))
    text = lambda n: "secret" if n < 100 else f"text {n}"
    client.upsert("c", [m.PointStruct(id=n, vector=[n, 1.0], payload={"text": text(n)}) for n in range(300)])
    client.delete("c", list(range(100)))

    def die(*args, **kwargs):
        print(sys.argv[2], flush=True)
        os.kill(os.getpid(), 9)

    if sys.argv[2] == "copied":
        store.Store._write = die
    elif sys.argv[2] == "named":
        store.Store.clean = die
    else:
        def half(path):
            for file in sorted(path.rglob("*"))[::2]:
                if file.is_file():
                    file.unlink()
            die()
        shard.remove = half
    client.purge("c")
    """


class TestWhatIsOnDisk:
    def test_a_damaged_registry_is_named_and_kept(self, directory):
        with QdrantEdgeClient(directory) as client:
            small(client, count=3)
        registry = directory / "collections.json"
        whole = registry.read_text()
        for damage in (
            "",
            "{",
            "[]",
            '{"format": 99, "collections": {}, "aliases": {}}',
            whole.replace('"directory": "c', '"directory": "../c'),
        ):
            registry.write_text(damage)
            with pytest.raises(StoreCorruptedError, match="collections"):
                QdrantEdgeClient(directory).get_collections()
            assert registry.read_text() == damage
        registry.unlink()
        with pytest.raises(StoreCorruptedError, match="missing"):
            QdrantEdgeClient(directory).get_collections()
        registry.write_text(whole)
        with QdrantEdgeClient(directory) as client:
            assert client.count("c").count == 3

    def test_a_missing_shard_is_named(self, directory):
        with QdrantEdgeClient(directory) as client:
            small(client, count=3)
            small(client, "d", count=2)
            path = client._client._collection("c").path
        path.rename(directory / "elsewhere")
        with QdrantEdgeClient(directory) as client:
            with pytest.raises(StoreCorruptedError, match=path.name):
                client.count("c")
            assert client.count("d").count == 2

    @pytest.mark.parametrize("damage", ["segment.json", "edge_config.json", "segments"])
    def test_a_damaged_shard_is_named(self, directory, damage):
        with QdrantEdgeClient(directory) as client:
            small(client, count=3)
            path = client._client._collection("c").path
        for file in path.rglob(damage):
            if file.is_dir():
                file.rename(file.with_name("gone"))
            else:
                file.write_text("{")
        with QdrantEdgeClient(directory) as client, pytest.raises(StoreCorruptedError, match=path.name):
            client.count("c")

    def test_a_file_where_the_directory_should_be(self, tmp_path):
        (tmp_path / "file").write_text("x")
        with pytest.raises(StoreUnavailableError, match="file"):
            QdrantEdgeClient(tmp_path / "file").get_collections()
        with pytest.raises(StoreUnavailableError, match="file"):
            QdrantEdgeClient(tmp_path / "file" / "below").get_collections()

    def test_what_is_not_the_store_s_is_left_alone(self, directory):
        (directory / "shards").mkdir(parents=True)
        (directory / "notes.txt").write_text("mine")
        client = QdrantEdgeClient(directory)
        small(client)
        client.close()
        (directory / "shards" / "mine").mkdir()
        leftover = directory / "shards" / directory_name("x")
        leftover.mkdir()
        with QdrantEdgeClient(directory) as client:
            assert client.count("c").count == 0
        assert (directory / "shards" / "mine").is_dir()
        assert (directory / "notes.txt").exists()
        assert not leftover.exists()

    def test_a_failed_creation_changes_nothing(self, client, directory, monkeypatch):
        client.get_collections()
        monkeypatch.setattr(Store, "_write", _raiser(StoreUnavailableError("full")))
        with pytest.raises(StoreUnavailableError):
            small(client)
        monkeypatch.undo()
        assert not client.collection_exists("c")
        small(client)
        client._client._store().clean()
        assert len(list((directory / "shards").iterdir())) == 1

    def test_a_failed_deletion_changes_nothing(self, client, monkeypatch):
        small(client, count=2)
        monkeypatch.setattr(Store, "_write", _raiser(StoreUnavailableError("full")))
        with pytest.raises(StoreUnavailableError):
            client.delete_collection("c")
        monkeypatch.undo()
        assert client.count("c").count == 2

    def test_an_index_that_the_registry_missed_is_settled_at_opening(self, directory):
        with QdrantEdgeClient(directory) as client:
            small(client, count=3)
            client.create_payload_index("c", "n", m.PayloadSchemaType.INTEGER)
            collection = client._client._collection("c")
            collection.write(
                qdrant_edge.UpdateOperation.create_field_index("extra", qdrant_edge.PayloadSchemaType.Keyword)
            )
            collection.write(qdrant_edge.UpdateOperation.delete_field_index("n"))
        with QdrantEdgeClient(directory) as client:
            client.count("c")
            found = client._client._collection("c")._shard.info().payload_schema
            assert set(found) == {"n"}

    names = st.one_of(
        st.sampled_from(
            ["CON", "nul", "a" * 255, "ä" * 127, ".hidden", "a.b", "%2e%2e", "~", " ", "A", "a", "名前", "🙂", "-"]
        ),
        st.text(min_size=1, max_size=40).filter(
            lambda name: not set(name) & set('<>:"/\\|?*\0\x1f') and name not in (".", "..")
        ),
    )

    @settings(max_examples=60, deadline=None)
    @given(name=names)
    def test_names_cannot_leave_the_directory_nor_meet(self, name):
        made = directory_name(name)
        assert made != directory_name(name)
        assert os.sep not in made
        assert made.isascii()
        assert len(made) <= 80
        assert made.strip(". ") == made or made.startswith(".")

    @pytest.mark.parametrize("name", ["../up", "a/b", "..", ".", "", "a\\b", "a\0b", "c:", "x" * 256])
    def test_names_the_server_refuses_are_refused(self, client, name):
        with pytest.raises(ValueError, match="Collection name"):
            small(client, name)
        assert client.get_collections().collections == []

    def test_odd_names_work_and_stay_apart(self, directory):
        odd = ["a", "A", "名前", "🙂", " ", ".hidden", "%2e%2e", "CON", "\u00e9", "e\u0301"]
        with QdrantEdgeClient(directory) as client:
            for number, name in enumerate(odd):
                small(client, name)
                client.upsert(name, points([number]))
        with QdrantEdgeClient(directory) as client:
            assert {each.name for each in client.get_collections().collections} == set(odd)
            for number, name in enumerate(odd):
                assert [record.id for record in client.scroll(name)[0]] == [number]
        assert all(path.parent == directory / "shards" for path in (directory / "shards").iterdir())


if sys.platform == "win32":  # signals and forks below are POSIX's
    collect_ignore = ["test_store.py"]
