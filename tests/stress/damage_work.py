"""What :mod:`test_damage` runs in another process: damage to a memory-mapped file can end a process."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memory_integrations import MemoryManager, ShortTermPolicy, StoreError

POLICY = ShortTermPolicy(compression_threshold=30)


def fill(data: Path, url: str | None) -> None:
    """Two users' memories, with every kind of file that there can be."""
    with MemoryManager("user:ann/session:s", data_dir=data, journal_url=url, short_term_policy=POLICY) as ann:
        for number in range(20):
            ann.set_fact(f"fact {number}", f"value {number}")
            ann.add_turn(f"I live in City{number}. " + f"Boats and tea, line {number}. " * 20, f"Noted {number}.")
        ann.manage_short_term()
        bob = ann.for_scope("user:bob/session:s")
        bob.set_fact("name", "Bob")
        bob.add_turn("I am Bob.", "Hello Bob.")


def look(data: str, url: str | None, told: str) -> None:
    """Try everything; write down what was done, or by which error it was refused."""
    found: dict[str, tuple[str, str]] = {}

    def attempt(what: str, work: Callable[[], Any]) -> None:
        try:
            found[what] = ("done", str(work()))
        except StoreError as error:
            found[what] = (type(error).__name__, str(error))
        except BaseException as error:  # a panic of the engine is no Exception
            found[what] = ("BARE", f"{type(error).__name__}: {error}"[:500])

    def memory(user: str) -> MemoryManager:
        scope = f"user:{user}/session:s"
        return MemoryManager(scope, data_dir=data, journal_url=url, short_term_policy=POLICY)

    for user in ("bob", "ann"):
        attempt(f"facts of {user}", lambda user=user: memory(user).features.all())  # type: ignore[misc]
        attempt(f"new fact of {user}", lambda user=user: memory(user).set_fact("new", 1))  # type: ignore[misc]
    attempt("runs", lambda: len(memory("ann").receipts()))
    bob = None
    with contextlib.suppress(StoreError):  # a database is one file
        bob = memory("bob")
    if bob is not None:
        attempt("messages", lambda: [message.content for message in bob.long_term.messages()])
        attempt("search", lambda: bob.search_long_term("Who am I?"))
        attempt("turn", lambda: bob.add_turn("Once more.", "Yes."))
        attempt("count", bob.long_term.count)
        attempt("close", bob.close)
    with open(told, "w") as file:
        json.dump(found, file)
    os._exit(0)  # what is open was not to be closed
