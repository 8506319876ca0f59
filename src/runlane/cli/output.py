"""What commands print: tables for people, aligned text for pipes, JSON for programs; and texts made safe to show."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

Json = dict[str, Any]
#: Control characters, surrogates, separators of lines and marks that change the direction of text: a terminal obeys
#: some of them, and others show a text as a different one.
_UNSAFE: Final = frozenset({"Cc", "Cs", "Zl", "Zp", "Cf"})
_COLOURS: Final = {
    "success": "green",
    "delivered": "green",
    "idle": "green",
    "error": "red",
    "failed": "red",
    "timeout": "red",
    "running": "cyan",
    "busy": "cyan",
    "pending": "yellow",
    "interrupted": "yellow",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its title, and the text of a row.

    Args:
        fixed: Never shortened on a terminal, such as an id that is copied.
    """

    title: str
    text: Callable[[Json], Any]
    fixed: bool = False


def safe(text: Any) -> str:
    """Return *text* with what a terminal would obey as escapes, such as ``\\x1b``."""
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _UNSAFE else char for char in str(text)
    )


def print_json(value: Any) -> None:
    """Print *value* as JSON, in ASCII."""
    click.echo(json.dumps(value, indent=2))


def print_rows(rows: Sequence[Json], columns: Sequence[Column], *, as_json: bool, none: str) -> None:
    """Print *rows* as a table, or as JSON; *none* on stderr if there are none."""
    if as_json:
        print_json(rows)
    elif rows:
        print_table([column.title for column in columns], [cells(row, columns) for row in rows], _fixed(columns))
    else:
        click.echo(none, err=True)


def print_fields(fields: Json) -> None:
    """Print names and values below each other, without those that are ``None``."""
    shown = {name: value for name, value in fields.items() if value is not None}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        text = value if isinstance(value, str) else json.dumps(value)
        click.echo(f"{click.style(name.ljust(width), bold=True)}  {safe(text)}")


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]], fixed: Sequence[int] = ()) -> None:
    """Print a table: aligned and whole to a pipe, as wide as the terminal and with colours to a terminal."""
    if sys.stdout.isatty():
        _console_table(titles, rows, fixed)
        return
    lines = [list(titles), *[list(row) for row in rows]]
    widths = [max(len(line[index]) for line in lines) for index in range(len(titles))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _console_table(titles: Sequence[str], rows: Sequence[Sequence[str]], fixed: Sequence[int]) -> None:
    from rich.console import Console

    Console(highlight=False).print(rich_table(titles, rows, fixed))


def rich_table(titles: Sequence[str], rows: Sequence[Sequence[str]], fixed: Sequence[int] = ()) -> Any:
    """Return a table of Rich, whose cells are text and never markup."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, title in enumerate(titles):
        table.add_column(title, no_wrap=True, overflow="ellipsis", min_width=36 if index in fixed else None)
    for row in rows:
        table.add_row(*[Text(cell, style=_COLOURS.get(cell, "")) for cell in row])
    return table


def cells(row: Json, columns: Sequence[Column]) -> list[str]:
    """Return the texts of *row*, made safe; ``-`` for what there is not."""
    found = (column.text(row) for column in columns)
    return ["-" if cell is None or cell == "" else safe(cell) for cell in found]


def _fixed(columns: Sequence[Column]) -> list[int]:
    return [index for index, column in enumerate(columns) if column.fixed]


def age(instant: str | None) -> str | None:
    """Return how long ago *instant* was."""
    return None if instant is None else span((datetime.now(UTC) - datetime.fromisoformat(instant)).total_seconds())


def duration(row: Json) -> str | None:
    """Return how long a run executed, or has been executing."""
    if row.get("started_at") is None:
        return None
    end = datetime.fromisoformat(row["ended_at"]) if row.get("ended_at") else datetime.now(UTC)
    return span((end - datetime.fromisoformat(row["started_at"])).total_seconds())


def span(seconds: float) -> str:
    """Return a time in its largest units: ``0.4s``, ``12s``, ``3m05s``, ``2h10m``, ``4d3h``."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}s"
    whole = timedelta(seconds=int(seconds))
    hours, minutes = divmod(whole.seconds // 60, 60)
    if whole.days:
        return f"{whole.days}d{hours}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{whole.seconds % 60:02}s" if minutes else f"{whole.seconds}s"


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on stderr, if that is a terminal; the body calls what it is given with each advance."""
    with click.progressbar(length=max(1, total), label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        yield bar.update


def counted(things: Iterable[Any], singular: str) -> str:
    """Return how many *things* there are, such as ``1 run`` or ``2 runs``."""
    number = len(list(things))
    return f"{number} {singular}{'' if number == 1 else 's'}"
