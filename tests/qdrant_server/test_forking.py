"""A process that forks after it used its memory, as servers do that load before they fork their workers.

Nobody is shown what another process asked for, and no worker waits for what only its parent's threads can do.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qdrant_server.stand_in import StandIn

BEGIN = """
import json, os, sys, threading
url, grpc_port, protocol, directory = sys.argv[1:5]
sys.path[:0] = sys.argv[5:]
from qdrant_client import QdrantClient
from memory_integrations import MemoryManager, StoreUnavailableError
from memory_integrations.server import QdrantServer

server = QdrantServer(url, prefer_grpc=protocol == "grpc", grpc_port=int(grpc_port))
users = {name: f"user:{name}/session:s" for name in ("ann", "bob", "cleo", "dan")}


def fill(memory):
    for name, scope in users.items():
        memory.for_scope(scope).add_turn(f"The secret of {name}", f"Noted for {name}")


def told(memory, name):
    return [message.text for message in memory.for_scope(users[name]).long_term.messages()]


def in_children(work):
    # What the work of each child says, in processes that end as workers do: with their destructors.
    said = {}
    pipes = {name: os.pipe() for name in users}
    children = {}
    for name, (_, write) in pipes.items():
        children[name] = os.fork()
        if not children[name]:
            try:
                os.write(write, json.dumps(work(name)).encode())
            except BaseException as error:
                os.write(write, json.dumps(f"{type(error).__name__}: {error}").encode())
            sys.exit()
    for name, (read, write) in pipes.items():
        os.close(write)
        with open(read, "rb") as pipe:
            said[name] = json.loads(pipe.read() or b'"nothing"')
        said[name + " ended"] = os.waitpid(children[name], 0)[1]
    return said
"""


@pytest.fixture
def fork(qdrant_server: StandIn, protocol: str, tmp_path: Path) -> Any:
    """Runs a program that forks; what it prints as JSON comes back."""

    def fork(program: str) -> Any:
        url = qdrant_server.url
        if protocol == "rest":  # to servers named "localhost" or "127.0.0.1" qdrant-client keeps no connection open
            url = url.replace("127.0.0.1", "127.1")
        arguments = [url, str(qdrant_server.grpc_port), protocol, str(tmp_path), str(Path(__file__).parents[1])]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", BEGIN + program, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0
        return json.loads(done.stdout)

    return fork


def test_p21_workers_are_shown_their_own_users_memories(fork: Any) -> None:
    found = fork("""
memory = MemoryManager(data_dir=directory, qdrant=server)
fill(memory)

def read(name):
    shown = {text for _ in range(40) for text in told(memory, name)}
    memory.for_scope(users[name]).add_turn(f"More of {name}", f"Noted again for {name}")
    return sorted(shown)

for text in told(memory, "ann"):  # the connection is kept open
    pass
said = in_children(read)
said["parent"] = {name: told(memory, name) for name in users}
memory.close()
print(json.dumps(said))
""")
    for name in ("ann", "bob", "cleo", "dan"):
        before = [f"The secret of {name}", f"Noted for {name}"]
        assert found[name] == sorted(before)
        assert found[f"{name} ended"] == 0
        assert found["parent"][name] == [*before, f"More of {name}", f"Noted again for {name}"]


def test_workers_go_on_where_the_parents_threads_were_at_work_when_it_forked(fork: Any) -> None:
    """They held locks and were within calls; those threads do not live on in a worker."""
    found = fork("""
memory = MemoryManager(data_dir=directory, qdrant=server)
fill(memory)
ended = threading.Event()

def work(name):
    number = 0
    while not ended.is_set():
        number += 1
        with memory._open.memories.lock, memory._open.memories.turn(f"user:{name}").lock:
            told(memory, name)

threads = [threading.Thread(target=work, args=(name,)) for name in users]
for thread in threads:
    thread.start()

def use(name):
    memory.long_term.store_messages([])
    mine = memory.for_scope(users[name]).long_term
    mine.store_conversation(f"More of {name}", "Noted")
    return [f"More of {name}" in told(memory, name), any(name in hit.text for hit in mine.search(f"secret of {name}"))]

rounds = [in_children(use) for _ in range(3)]
ended.set()
for thread in threads:
    thread.join()
memory.close()
print(json.dumps(rounds))
""")
    assert len(found) == 3
    for said in found:
        for name in ("ann", "bob", "cleo", "dan"):
            assert said[name] == [True, True]
            assert said[f"{name} ended"] == 0


def test_a_worker_manages_in_the_background_though_its_parent_did(fork: Any) -> None:
    found = fork("""
memory = MemoryManager(data_dir=directory, qdrant=server, manage_in_background=True)
fill(memory)
memory.for_scope(users["ann"]).manage_in_background()
memory.flush()

def manage(name):
    mine = memory.for_scope(users[name])
    mine.add_turn(f"My name is {name.title()}.", "Hello")
    mine.manage_in_background()
    mine.flush()
    return mine.get_fact("name")

print(json.dumps(in_children(manage)))
""")
    assert [found[name] for name in ("ann", "bob", "cleo", "dan")] == ["Ann", "Bob", "Cleo", "Dan"]


def test_a_client_that_was_passed_in_is_refused_in_a_worker(fork: Any) -> None:
    found = fork("""
client = QdrantClient(url=url, grpc_port=int(grpc_port), prefer_grpc=protocol == "grpc", check_compatibility=False)
memory = MemoryManager(data_dir=directory, qdrant=client)
fill(memory)

def read(name):
    try:
        return told(memory, name)
    except StoreUnavailableError as error:
        return str(error)

said = in_children(read)
said["parent"] = told(memory, "ann")
print(json.dumps(said))
""")
    for name in ("ann", "bob", "cleo", "dan"):
        assert "Open the client and the memory after the fork" in found[name]
    assert found["parent"] == ["The secret of ann", "Noted for ann"]


def test_a_worker_may_close_what_its_parent_goes_on_using(fork: Any) -> None:
    found = fork("""
memory = MemoryManager(data_dir=directory, qdrant=server)
fill(memory)
said = in_children(lambda name: memory.close())
said["parent"] = told(memory, "ann")
print(json.dumps(said))
""")
    assert found["parent"] == ["The secret of ann", "Noted for ann"]
    assert [found[f"{name} ended"] for name in ("ann", "bob", "cleo", "dan")] == [0] * 4


def test_p24_what_waited_when_a_worker_was_forked_is_its_parents_to_store_or_erase(fork: Any) -> None:
    found = fork("""
from memory_integrations import Message

memory = MemoryManager(data_dir=directory, qdrant=server)
for name in ("ann", "bob"):
    memory.for_scope(users[name]).follow([Message("user", f"The secret of {name}", id=f"all that {name} said")])
read, write = os.pipe()
worker = os.fork()
if not worker:
    os.close(write)
    os.read(read, 1)  # until the parent has erased
    memory.close()
    sys.exit()
memory.for_scope("user:ann").erase()
os.close(write)
said = {"worker ended": os.waitpid(worker, 0)[1], "after it": [told(memory, name) for name in ("ann", "bob")]}
memory.close()
said["after the parent"] = [told(memory, name) for name in ("ann", "bob")]
print(json.dumps(said))
""")
    assert found == {"worker ended": 0, "after it": [[], []], "after the parent": [[], ["The secret of bob"]]}
