"""Damaged storage: each kind of file in turn, cut short, emptied, with bits flipped, full of garbage, or gone.

What is damaged says so by an error of ours that names it and what to do, nothing is reset, and the other scopes go on.
Damage that nothing can notice, such as another number in a vector, may be read as what it is.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

import damage_work
import pytest
from sparse import copied

Damage = Callable[[Path], None]


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    """A bit in every 64th byte of what is not empty."""
    content = bytearray(path.read_bytes())
    chance = random.Random(path.name)
    for place in range(0, len(content), 64):
        if content[place]:
            content[place] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def garbage(path: Path) -> None:
    path.write_bytes(random.Random(path.name).randbytes(max(min(path.stat().st_size, 1 << 16), 64)))


def remove(path: Path) -> None:
    path.unlink()


DAMAGES: list[Damage] = [cut, empty, flip, garbage, remove]


def looked(workers: ForkServerContext, data: Path, url: str | None, told: Path) -> dict[str, list[str]]:
    """What another process finds; a process that died, or never ended, found nothing."""
    told.unlink(missing_ok=True)
    process = workers.Process(target=damage_work.look, args=(str(data), url, str(told)))
    process.start()
    process.join(60)
    assert process.exitcode == 0, f"it died of signal {-(process.exitcode or 0)}"
    found: dict[str, list[str]] = json.loads(told.read_text())
    return found


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory, workers: ForkServerContext) -> Path:
    """A directory of memories, to be copied."""
    place = tmp_path_factory.mktemp("filled")
    for args in ((place / "files", None), (place / "database", f"sqlite:///{place}/database.db")):
        process = workers.Process(target=damage_work.fill, args=args)
        process.start()
        process.join(60)
        assert process.exitcode == 0
    return place


def kinds(data: Path) -> dict[str, Path]:
    """One file of each kind below a directory, by its name without the ids in it."""
    found: dict[str, Path] = {}
    for path in sorted(data.rglob("*")):
        if path.is_file() and path.name != ".lock":
            name = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-z]{24}-|\.[0-9a-f]{32}", "", str(path.relative_to(data)))
            found.setdefault(name.removeprefix("vectors/shards/memory_integrations/").replace("//", "/"), path)
    return found


def is_owned_by(kind: str, user: str) -> bool:
    return kind.startswith(f"journal/user-{user}")


def check(kind: str, damaged: Path, before: bytes | None, found: dict[str, list[str]], data: Path) -> None:
    """What holds whatever was damaged."""
    for what, (came, message) in found.items():
        assert came != "BARE", f"{what}: {message}"
        assert came == "done" or str(data.parent) in message, f"{what} does not say where: {message}"
        assert came != "StoreCorruptedError" or "estore" in message or "repair" in message, message
    refused = {what for what, (came, _) in found.items() if came != "done"}
    if not kind.startswith("database"):
        others = {what for what in found if "fact" in what and not is_owned_by(kind, what.rpartition(" ")[2])}
        assert not refused & others, "other scopes go on"
    if kind.startswith("journal/"):
        assert not refused & {"messages", "search", "turn", "count"} or is_owned_by(kind, "bob")
    if "messages" in found and "messages" not in refused:
        assert found["messages"][1] == "['I am Bob.', 'Hello Bob.']"
    noticed = {"facts of ann", "facts of bob"} if kind.startswith("journal/") else {"messages"}
    if refused & noticed and kind.startswith(("journal/", "vectors/collections")) and before is not None:
        assert damaged.read_bytes() == before, "it was reset"


# In the short profile these; in the long one every kind of file, damaged in every way.
SHORT = [
    ("journal/user-ann.jsonl", garbage),
    ("journal/user-ann-session-s.jsonl", flip),
    ("vectors/collections.json", garbage),
    ("segments/payload_storage/page_0.dat", flip),
    ("segments/segment.json", remove),
    ("wal/open-1", flip),
    ("database.db", flip),
]


def test_damage_is_named_and_nothing_is_reset(
    filled: Path, tmp_path: Path, workers: ForkServerContext, long_run: bool
) -> None:
    files = {**kinds(filled / "files"), "database.db": filled / "database.db"}
    assert {kind for kind, _ in SHORT} <= files.keys()
    cases = [(kind, damage) for kind in files for damage in DAMAGES] if long_run else SHORT
    noticed = 0
    for kind, damage in cases:
        place = tmp_path / "place"
        shutil.copytree(filled, place, copy_function=copied)
        database = kind.startswith("database")
        data, url = (place / "database", f"sqlite:///{place}/database.db") if database else (place / "files", None)
        damaged = place / files[kind].relative_to(filled)
        damage(damaged)
        before = damaged.read_bytes() if damaged.exists() else None
        try:
            found = looked(workers, data, url, tmp_path / "told")
            check(kind, damaged, before, found, data)
        except AssertionError as error:
            raise AssertionError(f"{kind}, {damage.__name__}: {error}") from error
        noticed += any(came != "done" for came, _ in found.values())
        shutil.rmtree(place)
    print(f"\n{len(cases)} damages, {noticed} noticed")
    assert noticed >= (60 if long_run else len(cases))
