"""Looking after a memory: ``stats``, ``reembed``, ``optimize``, and ``erase``, which removes from it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from memory_integrations.cli.options import (
    DATA_DIR,
    LANGUAGE,
    SCOPE,
    AsJson,
    DataDir,
    Language,
    Scope,
    agreed,
    failure,
    interruption,
    opened,
    settings,
    stores_in,
)
from memory_integrations.cli.show import console, counted, plain, print_json, progress, show_grid
from memory_integrations.doctor import Finding
from memory_integrations.manager import MemoryManager


def stats(
    scope: Scope = SCOPE, data_dir: DataDir = DATA_DIR, language: Language = LANGUAGE, as_json: AsJson = False
) -> None:
    """Count what a memory holds."""
    with opened(scope, data_dir, language, to_read=True) as memory:
        counts = memory.get_stats()
    size = sum(map(_on_disk, stores_in(data_dir)))
    if as_json:
        print_json({**counts, "data_dir": str(data_dir), "bytes": size})
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column()
    table.add_row("scope", plain(counts["scope"]))
    table.add_row("facts", f"{counts['features']['facts']:,}")
    table.add_row("memories", f"{counts['long_term']['memories']:,}")
    table.add_row("on disk", Text(_told_size(size, data_dir)))
    show_grid(console(), table)


def _told_size(size: int, data_dir: Path) -> str:
    """What the files take, and what is not in files."""
    given = settings.get()
    places = {"the facts are in a database": given.journal_url, "the memories are on a server": given.qdrant}
    elsewhere = [told for told, url in places.items() if url]
    here = "nothing" if len(elsewhere) == len(places) else f"{size / 1e6:,.1f} MB in {data_dir}, of all scopes"
    return "; ".join([here, *elsewhere])


def _on_disk(directory: Path) -> int:
    """The bytes that a directory takes. Blocks and not lengths: the engine's files are mostly holes."""
    blocks = 0
    for path in directory.rglob("*"):
        with suppress(FileNotFoundError):  # others write meanwhile
            blocks += path.lstat().st_blocks
    return 512 * blocks


def reembed(data_dir: DataDir = DATA_DIR, language: Language = LANGUAGE) -> None:
    """Embed the memories of all scopes anew, by the bundled embedding, for a language.

    For a memory that was written with another embedding or for another language. It may be interrupted: run again, it
    goes on. Until it is done, the memory is as it was.
    """
    from rich.progress import MofNCompleteColumn

    started = time.perf_counter()
    try:
        with (
            opened("global", data_dir, language, to_read=True) as memory,
            progress(console(stderr=True), "embedding", MofNCompleteColumn()) as advance,
        ):
            count = memory.long_term.reembed(advance)
    except KeyboardInterrupt:
        raise interruption("embedded") from None
    seconds = time.perf_counter() - started
    pieces = f"{counted(count, 'piece')} of text embedded" if count else "nothing to embed"
    console().print(f"{pieces}, language {language.lower()}, in {seconds:.1f} s", soft_wrap=True)


def optimize(data_dir: DataDir = DATA_DIR, language: Language = LANGUAGE) -> None:
    """Build the search graphs of the embedded engine, for all scopes.

    Worth it above some 10,000 memories in one scope. It takes about 30 s at 100,000 memories, less when run again.
    """
    started = time.perf_counter()
    with opened("global", data_dir, language, to_read=True) as memory:
        done = memory.long_term.optimize()
    seconds = time.perf_counter() - started
    console().print(f"graphs built in {seconds:.1f} s" if done else "nothing to do")


def doctor(
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended without a loss.")] = False,
    data_dir: DataDir = DATA_DIR,
    language: Language = LANGUAGE,
    as_json: AsJson = False,
) -> None:
    """Look at every store of a memory: what is wrong, and what to do.

    It reads everything of all scopes, and without --repair makes and changes nothing.
    """
    with opened("global", data_dir, language, to_read=True) as memory:
        found = memory.examine()
        done = [finding.repair() if repair and finding.repair else None for finding in found]
    ill = any(finding.serious and not mended for finding, mended in zip(found, done, strict=True))
    if as_json:
        print_json(
            [
                {"where": one.where, "problem": one.problem, "serious": one.serious, "repaired": mended}
                for one, mended in zip(found, done, strict=True)
            ]
        )
    else:
        _show_findings(found, done)
    if ill:
        raise typer.Exit(1)


def _show_findings(found: Sequence[Finding], done: Sequence[str | None]) -> None:
    screen = console()
    for finding, mended in zip(found, done, strict=True):
        screen.print(
            Text("!" if finding.serious else "·", "red" if finding.serious else "yellow"), plain(finding.where)
        )
        told = f"repaired: {mended}" if mended else finding.problem
        if finding.repair and not mended:
            told += " `doctor --repair` mends it."
        screen.print(Padding(plain(told), (0, 0, 0, 2), expand=False))
    if not found:
        screen.print("nothing is wrong")


def erase(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[MEMORY]...", help="Ids of memories, as `search --ids` shows them.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    scope: Scope = SCOPE,
    data_dir: DataDir = DATA_DIR,
    language: Language = LANGUAGE,
) -> None:
    """Remove memories, or everything of a scope, from every file. It cannot be undone.

    Without ids all that is known of the scope goes: facts with their history, and memories. Of a user's session
    (user:ID/session:ID) those are its memories: facts are the user's.
    """
    with opened(scope, data_dir, language, to_read=True) as memory:
        if not yes:
            what = f"{len(ids)} of the memories" if ids else _everything(memory)
            if not agreed(f"Remove {what} of {memory.scope} for good?"):
                raise failure("nothing was removed.")
        if ids:
            count = memory.long_term.delete(ids)
            console().print(f"{count:,} of {len(ids):,} memories removed", soft_wrap=True)
            if count < len(ids):
                raise failure(f"{memory.scope} has no such memories: {len(ids) - count} of the ids given.")
            return
        receipt = memory.erase()
        told = f"{receipt.memories:,} memories and {receipt.facts:,} events of facts removed from {memory.scope}"
        console().print(plain(told), soft_wrap=True)


def _everything(memory: MemoryManager) -> str:
    """What an erasure of a whole scope removes."""
    if memory.scope == memory.scope.owner:
        return f"all {memory.long_term.count():,} memories and all facts"
    return f"all {memory.long_term.count(memory.scope.session_id):,} memories"
