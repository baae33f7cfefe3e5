"""Memories on the move: ``export``, ``import`` and ``migrate``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from memory_integrations import archive as archives
from memory_integrations.archive import ArchiveReceipt
from memory_integrations.cli.options import (
    DATA_DIR,
    LANGUAGE,
    SCOPE,
    DataDir,
    Language,
    Scope,
    failure,
    interruption,
    opened,
    settings,
)
from memory_integrations.cli.show import console, counted, plain, progress
from memory_integrations.errors import ScopeError
from memory_integrations.manager import MemoryManager
from memory_integrations.scopes import GLOBAL

Archive = Annotated[Path, typer.Argument(metavar="FILE", help="The archive, a JSON Lines file.")]
Everything = Annotated[bool, typer.Option("--all", help="Of all scopes, and not of one.")]


def export(
    file: Archive,
    everything: Everything = False,
    vectors: Annotated[
        bool, typer.Option("--vectors", help="Write the vectors too, so that the import embeds nothing.")
    ] = False,
    scope: Scope = SCOPE,
    data_dir: DataDir = DATA_DIR,
    language: Language = LANGUAGE,
) -> None:
    """Write everything of a scope to a file: facts with their history, messages, decisions.

    A user's scope takes all of the user's sessions with it. `--all --vectors` makes a backup, also while others write.
    """
    with opened(scope, data_dir, language, to_read=True) as memory, _bar("exporting") as advance:
        receipt = memory.export(file, all_scopes=everything, vectors=vectors, progress=advance)
    whose = receipt.scope or "all scopes"
    told = f"{whose}: {_told(receipt.events, receipt.points)} in {file}"
    console().print(plain(told), soft_wrap=True)


def import_archive(
    file: Archive,
    everything: Everything = False,
    scope: Scope = SCOPE,
    data_dir: DataDir = DATA_DIR,
    language: Language = LANGUAGE,
) -> None:
    """Write what an archive has into a memory. What is there already is not doubled.

    It may be interrupted: run again, it goes on. Memories that were deleted here come back, and events that were lost.
    """
    started = time.perf_counter()
    try:
        with opened(GLOBAL if everything else scope, data_dir, language) as memory, _bar("importing") as advance:
            receipt = _imported(memory, file, everything, advance)
    except KeyboardInterrupt:
        raise interruption("imported") from None
    seconds = time.perf_counter() - started
    told = f"{receipt.scope or 'all scopes'}: {_told(receipt.events, receipt.points)} imported in {seconds:.1f} s; "
    is_new = receipt.new_events or receipt.new_points
    told += f"new here: {_told(receipt.new_events, receipt.new_points) if is_new else 'nothing'}"
    if receipt.embedded_anew:
        told += "; its vectors are of another embedding or language, so that all was embedded anew"
    console().print(plain(told), soft_wrap=True)
    if receipt.left_out:
        raise failure(
            f"the facts of {', '.join(receipt.left_out)} have another history here, and were left out. Erase those "
            "scopes first, or import into another --data-dir and compare."
        )


def migrate(
    to_data_dir: Annotated[
        Path | None, typer.Option(help="A directory for what moves to the embedded engine and to files.")
    ] = None,
    to_qdrant: Annotated[str | None, typer.Option(help="A Qdrant server's URL, for the memories.")] = None,
    to_journal_url: Annotated[str | None, typer.Option(help="A database's URL, for the facts.")] = None,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Copy the memory of all scopes to other stores, and read it back to compare it.

    From the stores that this command is otherwise told to use (`--qdrant`, `--journal-url`, `--data-dir`). With
    `--to-qdrant` or `--to-journal-url` alone the rest stays where it is. Nothing is deleted. It may be interrupted: run
    again, it goes on. Let nobody write meanwhile.
    """
    if not (to_data_dir or to_qdrant or to_journal_url):
        raise failure("say where to: --to-qdrant, --to-journal-url, or --to-data-dir.", 2)
    given = settings.get()
    moved = to_data_dir is not None
    target: dict[str, Any] = {
        "data_dir": to_data_dir or data_dir,
        "qdrant": to_qdrant or (None if moved else given.qdrant),
        "journal_url": to_journal_url or (None if moved else given.journal_url),
    }
    started = time.perf_counter()
    try:
        with opened(GLOBAL, data_dir, to_read=True) as memory, MemoryManager(**target) as there, _bars() as advance:
            receipt = memory.migrate_to(there, advance)
    except KeyboardInterrupt:
        raise interruption("copied") from None
    lines = [f"copied, read back and found equal in {time.perf_counter() - started:.1f} s"]
    if receipt.events_sha256:
        count = f"{counted(receipt.events, 'event')} of {counted(receipt.scopes, 'scope')}"
        lines.append(f"facts     {count}, sha256 {receipt.events_sha256}")
    if receipt.points_sha256:
        lines.append(f"memories  {counted(receipt.points, 'piece')} of text, sha256 {receipt.points_sha256}")
    console().print("\n".join(lines), soft_wrap=True)


def _imported(memory: MemoryManager, file: Path, everything: bool, advance: Any) -> ArchiveReceipt:
    try:
        return memory.import_archive(file, advance)
    except ScopeError as error:  # its advice is for who writes Python
        whose = archives.Archive(file).receipt.scope
        wanted = "--all" if whose is None else f"--scope {quote(whose)}{', without --all' if everything else ''}"
        told = f"{file} is an archive of {whose or 'all scopes'}. Say {wanted}. Nothing was written."
        raise failure(told, 2) from error


def _told(events: int, points: int) -> str:
    return f"{counted(events, 'event')} and {counted(points, 'piece')} of text"


@contextmanager
def _bar(doing: str) -> Iterator[Any]:
    from rich.progress import MofNCompleteColumn

    with progress(console(stderr=True), doing, MofNCompleteColumn()) as advance:
        yield advance


@contextmanager
def _bars() -> Iterator[Any]:
    """One bar after the other: of the scopes' facts, and of the memories."""
    with _bar("copying facts") as scopes, _bar("copying memories") as points:
        bars = {"scopes": scopes, "points": points}
        yield lambda what, done, whole: bars[what](done, whole)
