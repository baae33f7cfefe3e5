"""The program: its commands put together, and what became of a run as an exit code.

Commands are plain functions. What takes long to import is imported by the command that needs it, so that help answers
at once.
"""

from __future__ import annotations

import io
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from memory_integrations import __version__
from memory_integrations.cli.chat import chat
from memory_integrations.cli.demo import demo
from memory_integrations.cli.facts import delete_fact, fact_history, list_facts, repair_facts, set_fact, undo_fact
from memory_integrations.cli.ingestion import ingest
from memory_integrations.cli.managing import manage
from memory_integrations.cli.moving import export, import_archive, migrate
from memory_integrations.cli.options import INTERRUPTED, PROGRAM, TERMINATED, Settings, complain, settings
from memory_integrations.cli.search import context, search
from memory_integrations.cli.upkeep import doctor, erase, optimize, reembed, stats
from memory_integrations.errors import (
    EmbeddingMismatchError,
    ManagementError,
    MemoryIntegrationError,
    StoreLockedError,
)

_HELP = """Memory for LangChain and LlamaIndex applications, from the command line.

No key, no server and no network is needed. Begin with: memory-integrations demo"""
_EXIT_CODES = "Exit codes: 0 done, 1 not done or not all of it, 2 wrong usage, 130 interrupted, 143 terminated."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What stands behind the program's name; None means ``sys.argv``.

    Returns:
        The exit code; see ``--help``.
    """
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what an encoding does not have becomes ?, and ends nothing
    settings.set(Settings())
    with _ended_as_interrupted():
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    # typer exports no name for it, and in its older releases it is click's.
    usage_error: Any = typer.BadParameter.__base__
    with warnings.catch_warnings():
        warnings.showwarning = _note
        try:
            code: int = app(args=arguments, prog_name=PROGRAM, standalone_mode=False) or 0
        except usage_error as error:
            complain(f"{error.format_message()} (--help says more)")
            return 2
        except typer.Abort:  # how older releases of typer say that ctrl-C was pressed
            code = INTERRUPTED
        except (MemoryIntegrationError, OSError) as error:
            if settings.get().debug:
                raise
            complain(_advice(error))
            return _code_of(error)
    if code == INTERRUPTED:
        complain("interrupted")
    return code


@contextmanager
def _ended_as_interrupted() -> Iterator[None]:
    """Lets SIGTERM, by which services are stopped, end the program as Ctrl-C does, which leaves nothing half done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def build_app() -> typer.Typer:
    """Put the commands together."""
    app = _group(_HELP, epilog=_EXIT_CODES)
    app.callback(invoke_without_command=True)(_options)
    for command in (
        demo, ingest, search, context, chat, manage, stats, doctor, reembed, optimize, export, migrate, erase
    ):  # fmt: skip
        _add(app, command.__name__, command)
    _add(app, "import", import_archive)
    facts = _group("What is known of the user: see it, set it, see how it changed, take it back.")
    facts.callback(invoke_without_command=True)(_show_help_alone)
    _add(facts, "list", list_facts)
    _add(facts, "set", set_fact)
    _add(facts, "history", fact_history)
    _add(facts, "delete", delete_fact)
    _add(facts, "undo", undo_fact)
    _add(facts, "repair", repair_facts)
    app.add_typer(facts, name="facts")
    return app


def _add(app: typer.Typer, name: str, command: Callable[..., None]) -> None:
    # typer keeps the line ends of a docstring, which are not those of the terminal.
    paragraphs = (command.__doc__ or "").split("\n\n")
    app.command(name, help="\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs))(command)


def _group(text: str, epilog: str | None = None) -> typer.Typer:
    return typer.Typer(
        help=text,
        epilog=epilog,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _options(
    ctx: typer.Context,
    qdrant: Annotated[
        str | None,
        typer.Option(
            envvar="MEMORY_INTEGRATIONS_QDRANT",
            help="A Qdrant server's URL, in the place of the embedded engine; its key is read from QDRANT_API_KEY.",
        ),
    ] = None,
    journal_url: Annotated[
        str | None,
        typer.Option(
            envvar="MEMORY_INTEGRATIONS_JOURNAL_URL",
            help="A database's URL, in the place of the journal's files: postgresql://... or sqlite:///file.db.",
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    settings.set(Settings(debug, qdrant or None, journal_url or None, ctx.invoked_subcommand))
    if version:
        print(__version__)
        raise typer.Exit
    _show_help_alone(ctx)


def _show_help_alone(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def _advice(error: Exception) -> str:
    if isinstance(error, EmbeddingMismatchError):
        language = "" if settings.get().command == migrate.__name__ else "--language, or "
        return f"{error} Here that is {language}`{PROGRAM} reembed`."
    if isinstance(error, StoreLockedError):
        from memory_integrations.qdrant_edge.lock import SERVER_HINT

        return str(error).replace(SERVER_HINT, f"run a Qdrant server and name it ({PROGRAM} --qdrant http://...)")
    return str(error)


def _code_of(error: Exception) -> int:
    if isinstance(error, OSError | EmbeddingMismatchError):  # the output cannot be written, a file vanished
        return 1
    # A ValueError: what was typed is wrong; a ManagementError: the model that was named cannot be had.
    return 2 if isinstance(error, ValueError | ManagementError) else 1


def _note(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"note: {' '.join(str(message).split())}", file=sys.stderr)


app = build_app()
