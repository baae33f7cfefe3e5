"""A process that forks while its threads are at work in a memory: no child waits for what only they can give up.

How workers get at a Qdrant server is in ``qdrant_server/test_forking.py``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BEGIN = """
import json, os, signal, sys, threading
from contextlib import ExitStack
from datetime import UTC, datetime
from memory_integrations import MemoryManager

directory, kind = sys.argv[1:3]
journal_url = f"sqlite:///{directory}/facts.db" if kind == "sqlite" else None
held, may_go_on = threading.Event(), threading.Event()


def opened(clock=lambda: datetime.now(UTC)):
    return MemoryManager("user:ann/session:s", data_dir=directory, journal_url=journal_url, clock=clock)


def in_child(work):
    # What it gives, in a process that ends as workers do; one that hangs is ended.
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(40)
        try:
            os.write(write, json.dumps(work()).encode())
        except BaseException as error:
            os.write(write, json.dumps(f"{type(error).__name__}: {error}").encode())
        sys.exit()
    may_go_on.set()
    os.close(write)
    with open(read, "rb") as pipe:
        said = json.loads(pipe.read() or b'"nothing"')
    return [said, os.waitpid(child, 0)[1]]


def held_up():
    # Where a thread of this name comes to a stop; others pass.
    if threading.current_thread().name == "writer":
        held.set()
        may_go_on.wait()


def begun(work):
    thread = threading.Thread(target=work, name="writer")
    thread.start()
    held.wait()
    return thread
"""


@pytest.fixture(params=["files", "sqlite"])
def fork(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Runs a program that forks; what it prints as JSON comes back."""
    if request.param == "sqlite":
        pytest.importorskip("sqlalchemy")

    def fork(program: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", BEGIN + program, str(tmp_path), request.param],
            stdout=subprocess.PIPE,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0
        return json.loads(done.stdout)

    return fork


def test_a_child_uses_facts_though_a_thread_of_its_parent_was_writing_one(fork: Any) -> None:
    said, ended, in_parent = fork("""
def clock():
    held_up()  # within the write
    return datetime.now(UTC)

memory = opened(clock)
memory.set_fact("city", "Lisbon")
thread = begun(lambda: memory.set_fact("pet", "Xerxes"))

def use():
    memory.set_fact("plays", "oboe")
    memory.features.refresh()
    return [memory.get_fact("city"), memory.get_fact("plays"), len(memory.features.get_with_history("city").history)]

found = in_child(use)
thread.join()
memory.features.refresh()
print(json.dumps([*found, memory.features.all()]))
""")
    assert (said, ended) == (["Lisbon", "oboe", 1], 0)
    assert in_parent == {"city": "Lisbon", "pet": "Xerxes", "plays": "oboe"}


def test_a_child_reads_what_a_thread_of_its_parent_had_half_read(fork: Any) -> None:
    assert fork("""
class Stop:
    def __enter__(self): held_up()
    def __exit__(self, *error): pass

memory = opened()
memory.set_fact("city", "Lisbon")
memory.features._own._lock = Stop()
thread = begun(lambda: memory.set_fact("pet", "Xerxes"))  # it is written, and not yet taken in

def use():
    memory.features.refresh()
    return [memory.get_fact("pet"), len(memory.features.get_with_history("pet").history)]

found = in_child(use)
thread.join()
print(json.dumps(found))
""") == [["Xerxes", 1], 0]


def test_a_child_forgets_facts_that_its_parent_erases_before_it_looks(fork: Any) -> None:
    assert fork("""
memory = opened()
memory.set_fact("pet", "Xerxes")
erased, tell = os.pipe()

def use():
    os.read(erased, 1)
    memory.features.refresh()
    return memory.get_fact("pet")

threading.Thread(target=lambda: (may_go_on.wait(), memory.features.erase(), os.write(tell, b"."))).start()
print(json.dumps(in_child(use)))
""") == [None, 0]


def test_a_child_goes_on_though_threads_of_its_parent_held_every_lock(fork: Any) -> None:
    said, ended = fork("""
from memory_integrations.llama_index.known import conversation_of

memory = opened()
memory.set_fact("city", "Lisbon")
facts, open_ = memory.features, memory._open
locks = [
    memory.short_term.held(), conversation_of(memory).lock, facts._lock, facts._own._lock, facts._own.journal._mutex,
    open_._lock, open_.sessions._lock, open_.shelf._lock, open_.journal._lock, open_.memories._making,
]

def hold():
    with ExitStack() as all_of_them:
        for lock in locks:
            all_of_them.enter_context(lock)
        held_up()

thread = begun(hold)

def use():
    memory.set_fact("plays", "oboe")
    memory.for_scope("user:bob").set_fact("city", "Porto")
    memory.add_turn("Where do I live?", "In Lisbon.")
    conversation_of(memory).recollect(memory)
    return [len(memory.short_term.entries), memory.features.all(), len(memory.search_long_term("Lisbon"))]

print(json.dumps(in_child(use)))
thread.join()
""")
    assert said == [2, {"city": "Lisbon", "plays": "oboe"}, 2]
    assert ended == 0


def test_a_conversation_that_a_thread_was_changing_adds_up_in_a_child(fork: Any) -> None:
    assert fork("""
memory = opened()
memory.short_term.add("Hello there")
with memory.short_term.held():
    memory.short_term._tokens += 1000  # half of a change

    def use():
        return memory.short_term.total_tokens == sum(entry.tokens for entry in memory.short_term.entries)

    print(json.dumps(in_child(use)))
""") == [True, 0]


def test_children_write_facts_while_the_threads_of_their_parent_do(fork: Any) -> None:
    """Wherever these are at that moment; also within SQLite, whose locks a child would take for its own."""
    found = fork("""
memory = opened()
ended = threading.Event()

def work(name):
    mine, number = memory.for_scope(f"user:{name}"), 0
    while not ended.is_set():
        number += 1
        mine.set_fact(f"fact {number % 50}", number)
        memory.set_fact(f"{name} {number % 50}", number)

threads = [threading.Thread(target=work, args=(name,)) for name in ("bob", "cleo")]
for thread in threads:
    thread.start()

def use():
    memory.set_fact(f"of {os.getpid()}", True)
    memory.for_scope("user:dan").set_fact("city", "Porto")
    return "done"

rounds = [in_child(use) for _ in range(6)]
ended.set()
for thread in threads:
    thread.join()
memory.features.refresh()
print(json.dumps([rounds, sum(key.startswith("of ") for key in memory.features.all())]))
""")
    assert found == [[["done", 0]] * 6, 6]
