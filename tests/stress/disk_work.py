"""What :mod:`test_full_disk` runs with mounts of its own: a memory on a small disk that fills up or is read-only.

    unshare --mount python disk_work.py full|read-only DIRECTORY jsonl|sqlite ROOM...

``ROOM`` is how many bytes are left on the full disk, one attempt after the other. Every line that it prints is the JSON
of something that was tried and what came of it; what must hold is asserted here, so that a failure shows where.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sparse import content

from memory_integrations import MemoryManager, Message, ShortTermPolicy, StoreError

SIZE = 80 << 20
ROOM_NEEDED = 40 << 20  # of the disk, after the ballast is gone: more than any write here takes
POLICY = ShortTermPolicy(compression_threshold=40)
LONG = " ".join(f"Sentence {n} tells of boats, tea and rain in the harbour of Lisbon." for n in range(30))


def mounted(directory: Path) -> Path:
    """A small disk of its own: with a real file system where that can be, in memory otherwise."""
    disk, image = directory / "disk", directory / "image"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(SIZE)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", image, disk], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "stress", disk], check=True)
    return disk


def remount(disk: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", disk], check=True)


@contextlib.contextmanager
def full(disk: Path, room: int) -> Iterator[None]:
    """Fill the disk up to ``room`` bytes, and give the space back at the end."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass
        os.sync()
        file.truncate(max(file.tell() - room, 0))
    try:
        yield
    finally:
        ballast.unlink()


def tried(what: str, attempt: Callable[[], Any]) -> bool:
    """Whether an attempt was done; where it was not, it was refused by an error of ours that says what to do."""
    try:
        attempt()
    except StoreError as error:
        print(json.dumps([what, type(error).__name__, str(error)]), flush=True)
        return False
    print(json.dumps([what, "done", ""]), flush=True)
    return True


class Work:
    """A memory, and what of it was acknowledged."""

    def __init__(self, disk: Path, journal: str) -> None:
        self.disk, self.data = disk, disk / "data"
        self.options: dict[str, Any] = {"data_dir": self.data, "short_term_policy": POLICY}
        if journal == "sqlite":
            self.options["journal_url"] = f"sqlite:///{disk}/journal.db"
        self.facts: dict[str, Any] = {}
        self.said: set[str] = set()
        self.erased: list[str] = []
        self.number = 0

    def open(self, scope: str = "user:ann/session:s", **options: Any) -> MemoryManager:
        return MemoryManager(scope, **{**self.options, **options})

    def everything(self, memory: MemoryManager) -> dict[str, bool]:
        """Try each kind of work once; note what was acknowledged."""
        self.number += 1
        n = self.number
        done: dict[str, bool] = {}

        def attempt(what: str, work: Callable[[], Any]) -> bool:
            done[what] = tried(what, work)
            return done[what]

        value = f"value {n} " * 2000
        if attempt("set", lambda: memory.set_fact(f"fact {n}", value)):
            self.facts[f"fact {n}"] = value
        if attempt("delete", lambda: memory.features.delete("old")):
            self.facts.pop("old", None)
        if attempt("undo", memory.features.undo):
            self.facts = memory.features.all()  # whichever was the last; that it was done is asked by the caller
        said = f"My dog is called Rex{n}. {LONG} {n}."
        if attempt("turn", lambda: memory.add_turn(said, f"Rex{n} it is.")):
            self.said |= {said, f"Rex{n} it is."}
        memory.short_term.add(f"I live in Town{n}. {LONG}")
        if attempt("manage", memory.manage_short_term):
            self.facts = memory.features.all()
        many = [Message("user", f"Line {line} of file {n}: {LONG[:400]}", id=f"{n}-{line}") for line in range(200)]
        before = {message.content for message in memory.long_term.messages()}
        if attempt("ingest", lambda: memory.long_term.store_messages(many)):
            self.said |= {message.text for message in many}
        else:  # a message is there or it is not
            now = {message.content for message in memory.long_term.messages()}
            assert now - before <= {message.content for message in many}
            self.said |= set(map(str, now - before))
        other = memory.for_scope("user:ann/session:other")
        secret = f"secret-{n}-{os.urandom(8).hex()}"
        if attempt("other turn", lambda: other.add_turn(secret, "I keep it.")):
            self.erased.append(secret)
        attempt("erase", other.erase)
        bob = memory.for_scope("user:bob")
        if attempt("other user", lambda: (bob.set_fact("k", secret), bob.add_turn(secret, "Yes."))):
            self.erased.append(secret)
        attempt("erase a user", bob.erase)
        attempt("purge", lambda: memory.long_term.delete(memory.long_term.store_messages([Message("user", "gone")])))
        return done

    def check(self, memory: MemoryManager) -> None:
        """What was acknowledged is there."""
        memory.features.refresh()
        for key, value in self.facts.items():
            assert memory.get_fact(key) == value, (key, value, memory.get_fact(key))
        there = {str(message.content) for message in memory.long_term.messages()}
        for text in self.said:
            assert text in there, text[:80]
        if self.said:
            assert memory.search_long_term("boats and tea in the harbour", 3)

    def check_erased(self) -> None:
        """What was erased is in no file."""
        files = [path for path in self.data.parent.rglob("*") if path.is_file()]
        for secret in self.erased:
            assert not [path for path in files if secret.encode() in content(path)], secret


READER = """
import sys
from pathlib import Path
from memory_integrations import MemoryManager, StoreError
with MemoryManager("user:ann/session:s", **eval(sys.argv[1])) as memory:
    assert memory.get_fact("kept") == 1
    try:
        assert len(list(memory.long_term.messages())) > 0
        print("read")
    except StoreError as error:
        print(type(error).__name__, error)
"""


def read_elsewhere(work: Work) -> None:
    """Another process opens the stores as they are: its facts are there, its memories too or an error says why not."""
    options = {"data_dir": str(work.data), "journal_url": work.options.get("journal_url")}
    done = subprocess.run([sys.executable, "-c", READER, repr(options)], capture_output=True, text=True)
    print(json.dumps(["another process", *(done.stdout.strip() + " ").split(" ", 1)]), flush=True)
    assert done.returncode == 0, done.stderr


def begin(work: Work) -> MemoryManager:
    (work.disk / "new" / "vectors" / "shards").mkdir(parents=True)
    memory = work.open()
    memory.set_fact("kept", 1)
    memory.set_fact("old", 1)
    work.facts = {"kept": 1, "old": 1}
    memory.add_turn("We drank tea in the harbour.", "With boats around us.")
    work.said = {"We drank tea in the harbour."}
    return memory


def go_on(work: Work, memory: MemoryManager) -> None:
    """With space again everything is done, and what was erased is gone."""
    memory.for_scope("user:ann/session:other").erase()
    memory.for_scope("user:bob").erase()
    assert all(work.everything(memory).values())
    work.check(memory)
    work.check_erased()


def full_disk(disk: Path, journal: str, rooms: list[int]) -> None:
    work = Work(disk, journal)
    memory = begin(work)
    for room in rooms:
        with full(disk, room):
            print(json.dumps(["room", room, ""]), flush=True)
            done = work.everything(memory)
            assert room >= ROOM_NEEDED or not all(done.values())
            work.check(memory)
            other = work.open(language=None)
            tried("reembed", other.long_term.reembed)
            other.close()
            new = MemoryManager("user:ann", data_dir=disk / "new")
            tried("a new store", lambda: new.add_turn("said", "answered"))  # noqa: B023
            new.close()
            assert tried("close", memory.close)
            if room == rooms[0]:
                read_elsewhere(work)
            memory = work.open()
            tried("reopen", lambda: memory.long_term.count())  # noqa: B023
        # With space again; the collection may be the new language's by now.
        memory.close()
        if tried("open again", lambda: work.open().long_term.open()):
            memory = work.open()
        work.check(memory)
    go_on(work, memory)
    memory.close()
    with work.open() as again:
        work.check(again)


def read_only(disk: Path, journal: str) -> None:
    work = Work(disk, journal)
    begin(work).close()
    remount(disk, "ro")
    memory = work.open()
    assert memory.get_fact("kept") == 1
    tried("count", memory.long_term.count)
    for what, attempt in {
        "set": lambda: memory.set_fact("k", 1),
        "delete": lambda: memory.features.delete("old"),
        "undo": memory.features.undo,
        "turn": lambda: memory.add_turn("said", "answered"),
        "ingest": lambda: memory.long_term.store_messages([Message("user", "said")]),
        "erase": memory.erase,
        "erase a user": memory.for_scope("user:ann").erase,
        "purge": lambda: memory.long_term.delete(["00000000-0000-4000-8000-000000000000"]),
        "reembed": memory.long_term.reembed,
        "manage": lambda: (memory.short_term.add("My name is Ann."), memory.manage_short_term()),
        "clear": memory.clear_session,
        "close": memory.close,
    }.items():
        tried(what, attempt)
    assert memory.features.all() == {"kept": 1, "old": 1}
    memory.close()
    remount(disk, "rw")
    with work.open() as again:
        work.check(again)
        go_on(work, again)


def main() -> None:
    """Run what the command line says."""
    what, directory, journal, *rooms = sys.argv[1:]
    disk = mounted(Path(directory))
    if what == "full":
        full_disk(disk, journal, list(map(int, rooms)))
    else:
        read_only(disk, journal)
    print(json.dumps(["finished", "", ""]))


if __name__ == "__main__":
    main()
