"""What commands print: tables for people, aligned text for pipes, JSON for programs; and texts made safe to show."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TextIO

import click

from runlane.errors import ConfigurationError

Json = dict[str, Any]
#: Control characters, surrogates, separators of lines and marks that change the direction of text: a terminal obeys
#: some of them, and others show a text as a different one.
_UNSAFE: Final = frozenset({"Cc", "Cs", "Zl", "Zp", "Cf"})
#: Between two columns, and how narrow a flexible column may be.
GAP: Final = 2
NARROWEST: Final = 12
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
        flexible: Shortened, or left out, where a terminal is too narrow.
    """

    title: str
    text: Callable[[Json], Any]
    flexible: bool = False


def safe(text: Any) -> str:
    """Return *text* with what a terminal would obey as escapes, such as ``\\x1b``."""
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _UNSAFE else char for char in str(text)
    )


def print_json(value: Any) -> None:
    """Print *value* as JSON, in ASCII."""
    click.echo(json.dumps(value, indent=2))


def print_done(facts: Any, sentence: str, *, as_json: bool) -> None:
    """Print what was done: *facts* as JSON, or a *sentence* on stderr."""
    print_json(facts) if as_json else click.echo(sentence, err=True)


def print_rows(rows: Sequence[Json], columns: Sequence[Column], *, as_json: bool, none: str) -> None:
    """Print *rows* as a table, or as JSON; *none* on stderr if there are none."""
    if as_json:
        print_json(rows)
    elif rows:
        print_table(columns, rows)
    else:
        click.echo(none, err=True)


def print_fields(fields: Json) -> None:
    """Print names and values below each other, without those that are ``None``."""
    shown = {name: value for name, value in fields.items() if value is not None}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        text = value if isinstance(value, str) else json.dumps(value)
        click.echo(f"{click.style(name.ljust(width), bold=True)}  {safe(text)}")


def print_table(columns: Sequence[Column], rows: Sequence[Json]) -> None:
    """Print a table: aligned and whole to a pipe, as wide as the terminal and with colours to a terminal."""
    if sys.stdout.isatty():
        _print_on_terminal(columns, rows)
        return
    lines = [[column.title for column in columns], *[cells(row, columns) for row in rows]]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _print_on_terminal(columns: Sequence[Column], rows: Sequence[Json]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    console.print(rich_table(columns, rows, console.width))


def rich_table(columns: Sequence[Column], rows: Sequence[Json], width: int) -> Any:
    """Return a table of Rich that is at most *width* wide; its cells are text and never markup."""
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    lines = [cells(row, columns) for row in rows]
    wanted = [
        max(cell_len(text) for text in (column.title, *[line[index] for line in lines]))
        for index, column in enumerate(columns)
    ]
    widths = fitted(wanted, [column.flexible for column in columns], width)
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for index in widths:
        table.add_column(columns[index].title, no_wrap=True, overflow="ellipsis", width=widths[index])
    for line in lines:
        table.add_row(*[Text(line[index], style=_COLOURS.get(line[index], "")) for index in widths])
    return table


def fitted(wanted: Sequence[int], flexible: Sequence[bool], width: int) -> dict[int, int]:
    """Return the widths of the columns that fit into *width*, by their indexes.

    Flexible columns get what the others leave, the first ones first; the last ones are left out if that is too little.
    """
    least = {index: min(size, NARROWEST) if flexible[index] else size for index, size in enumerate(wanted)}
    for index in reversed(range(len(wanted))):
        if flexible[index] and sum(least.values()) + GAP * (len(least) - 1) > width:
            del least[index]
    left = width - sum(least.values()) - GAP * (len(least) - 1)
    for index, size in least.items():
        more = max(0, min(left, wanted[index] - size))
        least[index] += more
        left -= more
    return least


def cells(row: Json, columns: Sequence[Column]) -> list[str]:
    """Return the texts of *row*, made safe; ``-`` for what there is not."""
    found = (column.text(row) for column in columns)
    return ["-" if cell is None or cell == "" else safe(cell) for cell in found]


def counted(number: int, noun: str) -> str:
    """Return *number* with a *noun* whose plural ends in ``s``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def error_line(row: Json) -> str | None:
    """Return the error of a run, a thread or a cron on one line; the message is ``None`` where payload is hidden."""
    error = row.get("error")
    if error is None or error["message"] is None:
        return error and str(error["error"])
    return f"{error['error']}: {error['message']}"


def age(instant: str | None) -> str | None:
    """Return how long ago *instant* was."""
    return None if instant is None else span((datetime.now(UTC) - datetime.fromisoformat(instant)).total_seconds())


def duration(row: Json) -> str | None:
    """Return how long a run executed, or has been executing."""
    if row.get("started_at") is None:
        return None
    end = datetime.fromisoformat(row["ended_at"]) if row.get("ended_at") else datetime.now(UTC)
    return span((end - datetime.fromisoformat(row["started_at"])).total_seconds())


def money(row: Json) -> str | None:
    """Return what something cost, with the digits that matter; ``None`` if there is no price."""
    cost = row.get("cost")
    return None if cost is None else f"{cost:,.2f}" if cost >= 1 or cost == 0 else f"{cost:.2g}"


COST: Final = Column("COST", money)


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
def new_file(path: Path) -> Iterator[TextIO]:
    """Give the body the new file *path* to write, or stdout for ``-``. A file that cannot be finished is removed.

    Raises:
        ConfigurationError: It exists, or cannot be written.
    """
    if str(path) == "-":
        yield sys.stdout
        return
    try:
        with open(path, "x", encoding="utf-8") as target, ExitStack() as undo:
            undo.callback(path.unlink)
            yield target
            target.flush()
            undo.pop_all()
    except OSError as error:
        hint = " Name another file." if isinstance(error, FileExistsError) else ""
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}.{hint}") from error


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on stderr, if that is a terminal; the body calls what it is given with each advance."""
    with click.progressbar(length=max(1, total), label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        yield bar.update
