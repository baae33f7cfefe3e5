"""What memory finds for a question: ``search``, and ``context``, which makes a prompt of it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer

from memory_integrations.cli.options import (
    DATA_DIR,
    LANGUAGE,
    SCOPE,
    AsJson,
    DataDir,
    Language,
    MaxTokens,
    Query,
    Scope,
    opened,
)
from memory_integrations.cli.prompt import show_context
from memory_integrations.cli.show import console, print_json, printable, show_hits
from memory_integrations.filters import MemoryFilter
from memory_integrations.messages import as_aware


def _moment(text: str) -> datetime:
    """A time as it was typed; the day alone is its beginning."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r}: expected ISO 8601, such as 2025-05-06 or 2025-05-06T18:30.") from None
    return as_aware(moment)


def search(
    query: Query,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many at most.")] = 5,
    since: Annotated[
        datetime | None,
        typer.Option(parser=_moment, metavar="DATE", help="Only what was said then or later, as ISO 8601 (UTC)."),
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(parser=_moment, metavar="DATE", help="Only what was said before then.")
    ] = None,
    session: Annotated[
        list[str] | None, typer.Option(help="Only what was said in this session; may be given several times.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say what each signal gave to a score.")] = False,
    ids: Annotated[bool, typer.Option("--ids", help="Show each memory's id, which `erase` takes.")] = False,
    scope: Scope = SCOPE,
    data_dir: DataDir = DATA_DIR,
    language: Language = LANGUAGE,
    as_json: AsJson = False,
) -> None:
    """Find what was said, best first, each with its score (0 to 1)."""
    where = MemoryFilter(session_id=session) if session else None
    with opened(scope, data_dir, language, to_read=True) as memory:
        hits = memory.long_term.search(query, limit, since=since, until=until, where=where, explain=explain)
    if as_json:
        print_json([asdict(hit) for hit in hits])
    elif hits:
        show_hits(console(), hits, lines=4, ids=ids)
    else:
        console(stderr=True).print(printable(f"Nothing found in {scope}."))


def context(
    query: Query,
    max_tokens: MaxTokens = 2000,
    scope: Scope = SCOPE,
    data_dir: DataDir = DATA_DIR,
    language: Language = LANGUAGE,
    as_json: AsJson = False,
) -> None:
    """See what a model would be given for a question: the text, what it costs, and what was left out."""
    with opened(scope, data_dir, language, to_read=True) as memory:
        found = memory.get_context(query, max_tokens)
    if as_json:
        fields = ("combined", "token_usage", "dropped")
        print_json({name: value for name, value in asdict(found).items() if name in fields})
    else:
        show_context(console(), found)
