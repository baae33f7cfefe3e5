"""What several commands show: tables, hits, progress, JSON, and text that cannot steer the terminal."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from memory_integrations.delimiters import as_data, visible, visible_json

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

    from memory_integrations.layout import MemoryHit

_UNBOUNDED = 1_000_000  # columns of an output that is no terminal
_NARROWEST = 20
_COLUMN = 12  # so wide a column of a table must be for what is in it to be read
_INDENT = 7  # of what stands under a hit's score
# Control characters but tab and new line.
_CONTROLS = dict.fromkeys(set(range(32)) - {9, 10} | set(range(127, 160)))


def console(*, stderr: bool = False, as_page: bool = False) -> Console:
    """Where everything is shown, as wide as the terminal.

    Where there is none another program reads, such as grep: lines are as long as what they say.

    Args:
        stderr: Whether it is the output for what goes beside the result.
        as_page: Whether to keep to a page's width also where there is no terminal.
    """
    # What people said is no markup, and a number in it is nothing to be coloured.
    made = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not (made.is_terminal or as_page):
        made.width = _UNBOUNDED
    elif made.width < _NARROWEST:  # the terminal wraps what is too wide, and the layout would cut it off
        made.width = _NARROWEST
    return made


def show_grid(screen: Console, grid: Table) -> None:
    """Show a table; its last column is padded at a terminal alone."""
    if screen.is_terminal:
        screen.print(grid)
        return
    with screen.capture() as shown:
        screen.print(grid)
    screen.out(*(line.rstrip(" ") for line in shown.get().rstrip("\n").split("\n")), sep="\n")


def show_rows(screen: Console, columns: Sequence[str], rows: Iterable[Sequence[Text]]) -> None:
    """Show rows under a header, what is too long folded; at a narrow terminal each cell on lines of its own."""
    if screen.width < _COLUMN * len(columns):
        for first, *others in rows:
            if first:
                screen.print(Text.assemble(first, style="bold"), soft_wrap=True)
            for column, cell in zip(columns[1:], others, strict=True):
                if cell:
                    screen.print(Text.assemble((f"  {column:<8}", "dim"), cell), soft_wrap=True)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    show_grid(screen, table)


def print_json(value: Any) -> None:
    """Print JSON; a time in it is ISO 8601. Where the output's encoding lacks a character, all but ASCII is escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=2, default=_json_default)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, default=_json_default)
    print(visible_json(text))


def plain(text: str) -> Text:
    """What somebody said or named, as data."""
    return Text(as_data(text))


def printable(text: str) -> str:
    """The text without what, printed, would steer the terminal or show the text in another order."""
    return visible(text).translate(_CONTROLS)


def counted(count: int, what: str) -> str:
    """So many of something: "1 event", "2,000 events"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def shortened(text: str, room: int) -> str:
    """The text on one line of at most so many characters."""
    text = " ".join(text.split())
    return text if len(text) <= room else f"{text[: room - 1]}…"


def show_hits(
    screen: Console, hits: Sequence[MemoryHit], evidence: frozenset[str] = frozenset(), *, lines: int, ids: bool = False
) -> None:
    """Show hits, and under a hit that is explained what each signal gave to its score.

    Args:
        screen: Where.
        hits: Best first.
        evidence: Messages whose hits get a tick.
        lines: About how many lines a hit's text is shortened to.
        ids: Whether to show their ids.
    """
    room = (screen.width - 10) * lines
    for hit in hits:
        grid = Table.grid(padding=(0, 1))
        grid.add_column(justify="right", style="cyan")
        grid.add_column(style="green")
        grid.add_column()
        text = Text(shortened(hit.text, room))
        speaker = hit.metadata.get("name") or hit.metadata.get("role") or ""
        text.highlight_regex(rf"^\d+ \w+ \d+ {re.escape(speaker)}:", "bold")
        grid.add_row(f"{hit.score:.2f}", "✓" if evidence.intersection(hit.message_ids) else " ", text)
        if hit.explanation is not None:
            parts = ((name, f"{part:.2f}") for name, part in hit.explanation.items())
            told = "  ".join(f"{name} {part}" for name, part in parts if part.strip("-0."))
            grid.add_row("", "", Text(told, "dim"))
        show_grid(screen, grid)
        if ids:  # on a line of its own, and nearer to the edge before it would be cut in two
            indent = max(min(_INDENT, screen.width - len(hit.id)), 0)
            screen.print(Text(" " * indent + hit.id, "dim"), soft_wrap=True)


@contextmanager
def progress(screen: Console, doing: str, amount: ProgressColumn) -> Iterator[Callable[[int, int], None]]:
    """A bar, where there is a terminal to show it.

    Args:
        screen: Where.
        doing: What is going on.
        amount: How the amount that is done is shown.

    Yields:
        What moves the bar: called with how much is done, and how much there is.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(doing), BarColumn(), amount, TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bars:
        bar = bars.add_task("", total=None)
        yield lambda done, whole: bars.update(bar, completed=done, total=whole or None)


def _json_default(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)
