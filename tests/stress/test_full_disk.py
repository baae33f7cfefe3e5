"""A full disk and one that is read-only: the real thing, a small disk that a subprocess mounts for itself alone.

What every kind of work must do there is in ``disk_work.py``: raise a ``StoreError`` or be done, leave what was
acknowledged as it was, and go on when there is space again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
from load_work import write_as_nobody

from memory_integrations import MemoryManager

WORK = Path(__file__).with_name("disk_work.py")
# What needs space, and what the engine writes: refused on a full disk whatever is left of a file's last block.
REFUSED = {"turn", "ingest", "other turn", "erase", "other user", "erase a user", "reembed"}
WRITES = {"set", "delete", "undo", "turn", "ingest", "erase", "erase a user", "purge", "reembed", "manage", "clear"}


def namespace() -> list[str]:
    """The command that gives a subprocess mounts of its own."""
    for flags in (["--mount"], ["--mount", "--map-root-user"]):
        if shutil.which("unshare") and not subprocess.run(["unshare", *flags, "true"], capture_output=True).returncode:
            return ["unshare", *flags]
    pytest.skip("this process may not mount a small disk (Linux: needs root, or user namespaces)")


def outcomes(directory: Path, *arguments: object) -> list[list[Any]]:
    """What ``disk_work.py`` tried, and what came of it."""
    command = [*namespace(), sys.executable, "-X", "faulthandler", WORK, arguments[0], directory, *arguments[1:]]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-3000:]}\n{done.stdout[-3000:]}"
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert found.pop()[0] == "finished"
    return found


def test_a_full_disk_refuses_what_it_cannot_hold_and_loses_nothing(tmp_path: Path, long_run: bool) -> None:
    """Without a look at what is free first, the engine ends the whole process here (SIGBUS)."""
    # Nothing left; enough for the engine to begin, too little to end.
    rooms = [0, 33_700_000, 200_000, 5_000_000, 12_000_000, 33_000_000, 34_000_000, 35_000_000]
    for journal in ("sqlite", "jsonl") if long_run else ("sqlite",):  # files alone: test_journal.py
        (tmp_path / journal).mkdir()
        check_full_disk(tmp_path / journal, journal, rooms if long_run else rooms[:2])


def check_full_disk(place: Path, journal: str, rooms: list[int]) -> None:
    tried: dict[int, dict[str, Any]] = {}
    for what, came, message in outcomes(place, "full", journal, *rooms):
        if what == "room":
            room = tried.setdefault(int(came), {})
        elif tried and what not in room:
            room[what] = came
            assert came in ("done", "read") or "space" in message or "full" in message, message
    for left, work in tried.items():
        refused = {what for what, came in work.items() if came == "StoreUnavailableError"}
        if left < 32 << 20:
            assert refused >= REFUSED - ({"other user"} if left else set())
        if left == 0:
            assert "set" in refused
        assert refused and work.get("close") == "done"


def test_a_read_only_disk_refuses_every_write_and_facts_are_read_from_it(tmp_path: Path) -> None:
    tried = dict[str, str]()
    for what, came, message in outcomes(tmp_path, "read-only", "jsonl"):
        if what not in tried:
            tried[what] = came
            assert came in ("done", "StoreUnavailableError", ""), message
    assert {what for what, came in tried.items() if came == "StoreUnavailableError"} >= WRITES


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_files_of_another_user_can_be_read_and_not_written(tmp_path: Path, workers: ForkServerContext) -> None:
    """Files that may be read, in directories that may be listed, and nothing else."""
    data = tmp_path / "data"
    with MemoryManager("user:ann", data_dir=data) as memory:
        memory.set_fact("city", "Lisbon")
        memory.add_turn("I live in Lisbon.", "Noted.")
    for path in (data, *data.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for parent in data.parents:
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
    process = workers.Process(target=write_as_nobody, args=(str(data), str(tmp_path / "other")))
    process.start()
    process.join(100)
    assert process.exitcode == 0
    with MemoryManager("user:ann", data_dir=data) as memory:
        assert memory.get_fact("city") == "Lisbon"
        assert memory.search_long_term("Where?")
        memory.add_turn("I moved.", "Where to?")


ON_TMPFS = """
import subprocess, sys
from pathlib import Path
place = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120m", "tmpfs", place], check=True)
from memory_integrations import MemoryManager, StoreUnavailableError
with MemoryManager("user:ann", data_dir=place / "memory") as memory:
    for number in range(100):
        memory.add_turn(f"Number {number} is about tangerines.", "I see.")
free = int(subprocess.check_output(["df", "--output=avail", "-B1", place]).split()[1])
(place / "fill").write_bytes(bytes(free - (38 << 20)))
with MemoryManager("user:ann", data_dir=place / "memory") as memory:
    try:
        memory.long_term.count()
    except StoreUnavailableError as error:
        print(error)
(place / "fill").unlink()
with MemoryManager("user:ann", data_dir=place / "memory") as memory:
    print(memory.long_term.count())
"""


def test_a_small_tmpfs_is_no_death_of_the_process(tmp_path: Path) -> None:
    """Of memory, the engine's opening takes all of its sparse files: without a look at that, it ends the process."""
    command = [*namespace(), sys.executable, "-c", ON_TMPFS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-3000:]}"
    refused, count = done.stdout.splitlines()
    assert "No space left" in refused
    assert count == "200"
