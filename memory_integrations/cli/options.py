"""What commands share on their way in and out: options, the open memory, complaints and exit codes."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from memory_integrations.delimiters import visible
from memory_integrations.errors import StoreError
from memory_integrations.journal import Journal
from memory_integrations.manager import DEFAULT_DATA_DIR, MemoryManager, directory_of
from memory_integrations.scopes import MemoryScope

PROGRAM = "memory-integrations"
SCOPE = "user:me"
DATA_DIR = Path(DEFAULT_DATA_DIR)
LANGUAGE = "english"
INTERRUPTED, TERMINATED = 130, 143
"""What a program that ctrl-C or SIGTERM ended exits with, by convention."""

SCOPE_HELP = "Whose memory: global, user:ID, session:ID or user:ID/session:ID."
Scope = Annotated[str, typer.Option(help=SCOPE_HELP)]
DataDir = Annotated[Path, typer.Option(envvar="MEMORY_INTEGRATIONS_DATA_DIR", help="Where the memory is kept.")]
Language = Annotated[
    str,
    typer.Option(
        envvar="MEMORY_INTEGRATIONS_LANGUAGE",
        help='The language that the memory is embedded for (its stems and stop words), or "none".',
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]
Model = Annotated[
    str | None,
    typer.Option(
        envvar="MEMORY_INTEGRATIONS_MODEL", help="Any model of LangChain's init_chat_model, such as openai:gpt-5-mini."
    ),
]
MaxTokens = Annotated[int, typer.Option(help="The budget of the whole, in tokens.")]
Query = Annotated[str, typer.Argument(metavar="QUERY", help="A question, or any text.")]


@dataclass(frozen=True, slots=True)
class Settings:
    """What stands before the command.

    Attributes:
        debug: Whether to show where an error comes from.
        qdrant: A Qdrant server's URL; None for the embedded engine.
        journal_url: A database's URL; None for files.
        command: The command that follows.
    """

    debug: bool = False
    qdrant: str | None = None
    journal_url: str | None = None
    command: str | None = None


_NONE_GIVEN = Settings()
settings: ContextVar[Settings] = ContextVar("settings", default=_NONE_GIVEN)
"""Those of this run."""


@contextmanager
def opened(
    scope: str | MemoryScope, data_dir: Path, language: str = LANGUAGE, *, to_read: bool = False, **options: Any
) -> Iterator[MemoryManager]:
    """The open memory.

    Args:
        scope: Whose memory.
        data_dir: Where it is kept.
        language: As it was typed; commands that only touch facts need none.
        to_read: Whether it must be there: a wrong path must not look like an empty memory.
        options: What else the manager takes.
    """
    parsed, given = MemoryScope.parse(scope), settings.get()
    if to_read:
        expect_memory(data_dir)
    stores = {"data_dir": data_dir, "qdrant": given.qdrant, "journal_url": given.journal_url, **options}
    with closing(MemoryManager(parsed, language=_known(language), **stores)) as memory:
        yield memory


def stores_in(data_dir: Path) -> list[Path]:
    """The directories of a memory's files that are there: of the facts, and of the memories, where these are files."""
    given, directory = settings.get(), directory_of(data_dir)
    stores = {"journal": given.journal_url, "vectors": given.qdrant}
    return [directory / name for name, url in stores.items() if not url and (directory / name).is_dir()]


def expect_memory(data_dir: Path) -> None:
    """Fail where there is no memory: what was mistyped would pass for one that is empty."""
    given = settings.get()
    is_elsewhere, place, option = bool(given.qdrant or stores_in(data_dir)), str(data_dir), "--data-dir"
    if given.journal_url:
        from memory_integrations.journal_sql import SqlJournal

        journal = SqlJournal(given.journal_url)
        if _may_have_facts(journal):
            return
        if is_elsewhere:
            warnings.warn(f"no facts were ever written to {journal.place}, the --journal-url", stacklevel=2)
        place, option = f"{place} or {journal.place}", "--journal-url"
    if not is_elsewhere:
        raise failure(
            f"there is no memory in {place}. Store something with `ingest`, `chat` or `facts set`, or name another "
            f"{option}."
        )


def _may_have_facts(journal: Journal) -> bool:
    """Whether a journal is there; one that does not answer may be, and whoever reads it says what is wrong."""
    try:
        return journal.exists()
    except StoreError:
        return True
    finally:
        journal.close()


def agreed(question: str) -> bool:
    """Whether a person says yes. Whatever else is answered is a no, and so is the end of the input."""
    try:
        answer = input(f"{question} [y/N] ")
    except EOFError:
        answer = None
    if answer is None or not sys.stdin.isatty():  # no return key ended the line
        print()
    return answer is not None and answer.strip().lower() in ("y", "yes")


def complain(message: str) -> None:
    """Say in one line what is wrong."""
    print(f"{PROGRAM}: {' '.join(visible(message).split())}", file=sys.stderr)


def failure(message: str, code: int = 1) -> typer.Exit:
    """Say why a command did not do what was asked; to be raised."""
    complain(message)
    return typer.Exit(code)


def interruption(done: str) -> typer.Exit:
    """Say that a command which ctrl-C stopped goes on when it is run again; to be raised.

    Args:
        done: What it did of something until then, such as "stored".
    """
    print(f"What was {done} stays: run the same command again to go on.", file=sys.stderr)
    return typer.Exit(INTERRUPTED)


def _known(language: str) -> str | None:
    """The language as the engine knows it. Asked before anything is stored: a memory records it when it is made."""
    language = language.lower()
    if language in (LANGUAGE, "none"):
        return None if language == "none" else language
    from memory_integrations.sparse import SparseEncoder

    try:
        SparseEncoder(language)
    except ValueError as error:
        expected = "expected one such as english, german or french, or none"
        raise typer.BadParameter(f"{error}: {expected}.", param_hint="--language") from error
    return language
