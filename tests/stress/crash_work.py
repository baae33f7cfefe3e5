"""What :mod:`test_crashes` kills: mixed work that writes down what it is about to do, and what was done.

Every line is one ``write`` to a file that is opened to append, so that what was acknowledged is known to the byte. Work
is known by its number alone: its texts are made from it, here and by whoever checks.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import qdrant_client  # noqa: F401  what is loaded before a fork is not loaded in every round
import wordllama  # noqa: F401

import memory_integrations.qdrant_edge
import memory_integrations.ranking
import memory_integrations.sparse  # noqa: F401
from memory_integrations import Compress, Delete, MemoryManager, MemoryScope, Message, Promote, ShortTermPolicy
from memory_integrations.cli import main as program
from memory_integrations.collection import MemoryCollection
from memory_integrations.decisions import Decision
from memory_integrations.qdrant_edge.store import Collection

POLICY = ShortTermPolicy(max_tokens=1_000_000, compression_threshold=60, min_entries=1)
USERS, SESSIONS, KEYS, FILES = ("ann", "bob"), ("s1", "s2"), 6, 2
HUGE = 150_000  # characters: more pieces than the engine takes in one write


def said(number: int) -> str:
    """What a user says: now and then a fact, a greeting, a text of several pieces."""
    kind = number % 7
    token = f"token-{number}-of-what-was-said"
    if kind == 0:
        return f"My name is Name{number}. {token}."
    if kind == 1:
        return f"I live in City{number}. {token}."
    if kind == 2:
        return "Hello there"
    length = {3: 3_000, 4: 400, 5: 5_000}.get(kind, 60) if number % 50 else HUGE
    sentences = (f"Sentence {n} of {number} tells of boats and tea." for n in range(length // 40))
    return f"{token}. {' '.join(sentences)}"


def long_text(number: int) -> str:
    return " ".join(f"Sentence {n} of {number} tells of boats and tea." for n in range(20_000))


def answered(number: int) -> str:
    return f"Answer {number}: token-{number}-of-what-was-answered."


def summary(number: int) -> str:
    lines = (f"Line {n} of summary {number}." for n in range((number * 37) % 200 + 1))
    return f"token-{number}-of-a-summary. {' '.join(lines)}"


def fact(number: int) -> str:
    return f"token-{number}-of-a-fact"


def lines_of_file(number: int) -> dict[str, str]:
    """The messages of a file, by their ids."""
    return {f"file-{number}-{n}": f"Line {n} of file {number}: token-{number}-{n}-of-a-file." for n in range(120)}


def decided(decisions: Iterable[Decision]) -> dict[str, Any]:
    """Decisions as JSON: the facts in their order, the entries by their ids."""
    made = list(decisions)
    return {
        "facts": [(one.key, one.value) for one in made if isinstance(one, Promote)],
        "deleted": [one.entry_id for one in made if isinstance(one, Delete)],
        "shorter": {one.entry_id: one.content for one in made if isinstance(one, Compress)},
    }


class Worker:
    """Does one thing after the other to one directory, until it is killed.

    Args:
        data: The directory.
        url: The journal's URL; None for files.
        told: The file that says what is done.
        seed: Of its choices.
        number: Of the first thing it does.
    """

    def __init__(self, data: Path, url: str | None, told: Path, seed: int, number: int) -> None:
        self.data = data
        self.choice = random.Random(seed)
        self.told = os.open(told, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.number = number
        self.memory = MemoryManager("global", data_dir=data, journal_url=url, short_term_policy=POLICY)

    def tell(self, *fields: Any) -> None:
        os.write(self.told, json.dumps(fields).encode() + b"\n")

    def run(self) -> None:
        work: list[tuple[int, Callable[[MemoryManager, int], None]]] = [
            (20, self.set), (6, self.delete), (6, self.undo), (25, self.turn), (10, self.manage),
            (3, self.ingest), (4, self.summarise), (4, self.erase), (1, self.erase_user),
        ]  # fmt: skip
        while True:
            (do,) = self.choice.choices([one for _, one in work], [share for share, _ in work])
            user, session = self.choice.choice(USERS), self.choice.choice(SESSIONS)
            memory = self.memory.for_scope(MemoryScope(user, session))
            if not len(memory.short_term):
                memory.resume()
            do(memory, self.number)
            self.number += 1

    def begin(self, what: str, memory: MemoryManager, **fields: Any) -> None:
        scope = {"user": memory.scope.user_id, "session": memory.scope.session_id}
        self.tell("begin", self.number, {"do": what, **scope, **fields})

    def done(self, **fields: Any) -> None:
        self.tell("done", self.number, fields)

    def set(self, memory: MemoryManager, number: int) -> None:
        key = f"key {number % KEYS}"
        self.begin("set", memory, key=key)
        memory.set_fact(key, fact(number))
        self.done()

    def delete(self, memory: MemoryManager, number: int) -> None:
        key = f"key {number % KEYS}"
        self.begin("delete", memory, key=key)
        memory.features.delete(key)
        self.done()

    def undo(self, memory: MemoryManager, number: int) -> None:
        self.begin("undo", memory)
        memory.features.undo()
        self.done()

    def turn(self, memory: MemoryManager, number: int) -> None:
        self.begin("turn", memory)
        self.done(ids=memory.add_turn(said(number), answered(number)))

    def manage(self, memory: MemoryManager, number: int) -> None:
        plan = memory.manage_short_term(dry_run=True)
        self.begin("manage", memory, **decided(plan.decisions))
        self.done(**decided(memory.apply(plan).decisions))

    def ingest(self, memory: MemoryManager, number: int) -> None:
        file = self.data.parent.parent / f"file-{number}.jsonl"  # it is its owner's to delete
        with file.open("w") as lines:
            for id_, text in lines_of_file(number).items():
                lines.write(json.dumps({"role": "user", "content": text, "id": id_, "session_id": "files"}) + "\n")
        self.begin("ingest", memory)
        scope = str(MemoryScope(memory.scope.user_id))
        assert program(["ingest", str(file), "--scope", scope, "--data-dir", str(self.data)]) == 0
        self.done()

    def summarise(self, memory: MemoryManager, number: int) -> None:
        self.begin("summary", memory, name=f"notes {number % FILES}")
        memory.store_file_summary(f"notes {number % FILES}", summary(number))
        self.done()

    def erase(self, memory: MemoryManager, number: int) -> None:
        self.begin("erase", memory)
        memory.erase()
        self.done()

    def erase_user(self, memory: MemoryManager, number: int) -> None:
        self.begin("erase user", memory)
        self.memory.for_scope(MemoryScope(memory.scope.user_id)).erase()
        self.done()


def tell_at_length(data: str, told: str, number: int) -> None:
    """Store long messages one after the other, each of more pieces than the engine takes in one write."""
    file = os.open(told, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    memory = MemoryManager("user:ann/session:s", data_dir=data, short_term_policy=POLICY)
    while True:
        os.write(file, f"{number}\n".encode())
        memory.long_term.store_messages([Message("user", long_text(number), id=f"long-{number}")])
        os.write(file, f"{number}\n".encode())
        number += 1


def die_within(data: str, moment: str) -> None:
    """Die between two writes of what is one to its reader."""
    memory = MemoryManager("user:ann/session:s", data_dir=data, short_term_policy=POLICY)

    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == "a message":
        write, writes = Collection.write, itertools.count()
        memory.add_turn("before", "yes")
        Collection.write = lambda *args: die() if next(writes) == 3 else write(*args)  # type: ignore[method-assign]
        memory.long_term.store_messages([Message("user", long_text(1), id="long-1")])
    elif moment in ("the end of a summary", "the rest of a summary"):
        memory.store_file_summary("notes", long_text(1)[:9_000])
        memory.add_turn("between", "yes")
        if moment == "the end of a summary":
            MemoryCollection.delete = die  # type: ignore[method-assign]
        else:
            MemoryCollection.upsert = die  # type: ignore[method-assign]
        memory.store_file_summary("notes", long_text(2)[:3_000])
    else:
        memory.long_term.store_messages([Message("user", long_text(1)[:9_000], id="long-1")])
        MemoryCollection.delete = die  # type: ignore[method-assign]
        memory.erase()


def work(data: str, url: str | None, told: str, seed: int, number: int) -> None:
    """Work until killed. What it cannot do, it tells."""
    worker = Worker(Path(data), url, Path(told), seed, number)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        worker.run()
    except BaseException as error:
        worker.tell("failed", worker.number, f"{type(error).__name__}: {error}")
        raise
