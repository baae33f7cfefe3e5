"""What several commands show: tables, hits, progress, JSON, and text that cannot steer the terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
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

# Control characters but tab and new line.
_CONTROLS = dict.fromkeys(set(range(32)) - {9, 10} | set(range(127, 160)))


def console(*, stderr: bool = False) -> Console:
    """Where everything is shown, as wide as the terminal, or 80 columns where there is none."""
    # What people said is no markup, and a number in it is nothing to be coloured.
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def table(*columns: str) -> Table:
    """A table with a header and no lines; what is too long is folded."""
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def print_json(value: Any) -> None:
    """Print JSON; a time in it is ISO 8601."""
    print(visible_json(json.dumps(value, ensure_ascii=False, indent=2, default=_json_default)))


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
    grid = Table.grid(padding=(0, 1))
    grid.add_column(justify="right", style="cyan")
    grid.add_column(style="green")
    grid.add_column()
    room = (screen.width - 10) * lines
    for hit in hits:
        text = Text(shortened(hit.text, room))
        speaker = hit.metadata.get("name") or hit.metadata.get("role") or ""
        text.highlight_regex(rf"^\d+ \w+ \d+ {re.escape(speaker)}:", "bold")
        grid.add_row(f"{hit.score:.2f}", "✓" if evidence.intersection(hit.message_ids) else " ", text)
        if ids:
            grid.add_row("", "", Text(hit.id, "dim"))
        if hit.explanation is not None:
            parts = ((name, f"{part:.2f}") for name, part in hit.explanation.items())
            told = "  ".join(f"{name} {part}" for name, part in parts if part.strip("-0."))
            grid.add_row("", "", Text(told, "dim"))
    screen.print(grid)


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
