"""``runlane migrate --from … --to …``: moving a ledger to another database."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import click

from runlane.errors import ConfigurationError
from runlane.extras import needs_extra
from runlane.settings import Settings


def move_ledger(source: str | None, target: str | None, *, database: str | None, compact: bool) -> None:
    """Move the ledger *source* to *target*, and print what was moved."""
    if source is None or target is None:
        raise ConfigurationError("--from and --to belong together: name the database to move, and where it goes.")
    if database is not None or compact:
        raise ConfigurationError("--from and --to name both databases; leave out --database and --compact.")
    with needs_extra("postgres", "Moving a ledger"):
        from runlane.moving.move import move
        from runlane.moving.opening import open_source, open_target

    schema = Settings.load().database_schema
    with bars() as progress:
        moved = move(open_source(source, schema), open_target(target, schema), progress)
    click.echo("".join(f"{number:>12,}  {name}\n" for name, number in moved.rows.items() if number), nl=False)
    resumed = ", going on where it was interrupted" if moved.resumed else ""
    click.echo(
        f"Moved {sum(moved.rows.values()):,} rows{resumed}; both databases have the same. Do not start a server on the "
        "old one any more."
    )


@contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar for each thing that is done, one after the other."""
    with ExitStack() as stack:
        bar: Any = None

        def show(label: str, done: int, total: int) -> None:
            nonlocal bar
            if bar is None or bar.label != label:
                stack.close()
                bar = stack.enter_context(click.progressbar(length=1000, label=label, file=sys.stderr))
            bar.update(done * 1000 // max(1, total) - bar.pos)

        yield show
