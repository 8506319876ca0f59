"""``runlane migrate``: the schema of a database is changed, and values that an earlier version stored whole."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click

from runlane.cli.backup import SQLITE
from runlane.cli.output import print_json
from runlane.cli.reporting import EXIT_FAILED, interruptible
from runlane.redaction import redact_text

if TYPE_CHECKING:
    from runlane.settings import Settings
    from runlane.store.compacting import Compacted
    from runlane.store.migrate_postgres import Migrated
    from runlane.store.statements import Driver


def migrate_sqlite(settings: Settings, *, compact: bool, as_json: bool) -> None:
    """Migrate an SQLite file, and print what was done."""
    path = settings.database.removeprefix(SQLITE)
    with interruptible("What was rewritten stays, and the rest reads as before. Repeat the command to go on."):
        rewritten, newer = asyncio.run(_migrate(settings))
    if not as_json:
        if rewritten:
            click.echo(f"{rewritten} large values share now what they have in common.")
        click.echo(_up_to_date(settings.database, newer=newer))
    with interruptible("The file is as it was. Repeat the command."):
        compacted = _compact(path) if compact else None
    if as_json:
        sizes = None if compacted is None else {"bytes_before": compacted.before, "bytes_after": compacted.after}
        print_json({"database": settings.database, "rewritten_values": rewritten, "compacted": sizes})
    elif compacted is not None:
        click.echo(f"{path} has {compacted.after / 1e6:.1f} MB, and had {compacted.before / 1e6:.1f} MB.")


async def _migrate(settings: Settings) -> tuple[int, bool]:
    """Migrate, and return how many values were rewritten, and whether the schema is a newer version's."""
    from runlane.store.backends import open_driver
    from runlane.store.migrate import has_newer_schema

    driver = await open_driver(settings)
    try:
        newer = has_newer_schema(settings.database.removeprefix(SQLITE))
        return 0 if find_spec("langgraph") is None else await _rewrite(driver), newer
    finally:
        await driver.aclose()


async def _rewrite(driver: Driver) -> int:
    from runlane.checkpoints.rewriting import rewrite_large_values

    with _bar("Rewriting large values") as show:
        return await rewrite_large_values(driver, show)


def _compact(path: str) -> Compacted:
    from runlane.store.compacting import compact_sqlite

    with _bar("Copying") as show:
        return compact_sqlite(path, show)


@contextmanager
def _bar(label: str) -> Iterator[Callable[[int, int], None]]:
    with click.progressbar(length=1000, label=label, file=sys.stderr) as bar:
        yield lambda done, total: bar.update(done * 1000 // max(1, total) - bar.pos)


def migrate_beside(settings: Settings, gone: tuple[str, ...], *, as_json: bool) -> None:
    """Migrate a PostgreSQL database as far as other processes allow, and print what is left.

    Exit with the code for a failure if processes of this version cannot start.
    """
    from runlane.store.backends import migrate_postgres_beside

    # Indexes are made under a lock of the session, which PgBouncer in transaction mode does not keep.
    url = settings.database_direct or settings.database
    with interruptible("Each change was made whole or not at all. Repeat the command to go on."):
        done = migrate_postgres_beside(url, settings.database_schema, gone=gone)
    name = redact_text(url.rpartition("@")[2])
    if as_json:
        left = {"left": done.left, "waits_for": done.stops, "needed": done.needed}
        print_json({"database": name, "applied": done.applied, **left})
    else:
        click.echo(_told(name, done))
    if done.needed:
        raise click.exceptions.Exit(EXIT_FAILED)


def _up_to_date(name: str, *, newer: bool) -> str:
    if newer:
        return f"{name} has the schema of a newer version, which this one can use."
    return f"{name} has the schema of this version."


def _told(name: str, done: Migrated) -> str:
    if not done.left:
        return _up_to_date(name, newer=done.newer)
    steps, those = ", ".join(done.left), ", ".join(done.stops)
    until = f"until these processes of an earlier version are gone: {those}"
    if done.needed:
        return (
            f"{name} does not have the schema of this version: {steps} cannot be applied {until}. Stop them, repeat "
            "`runlane migrate`, and start this version then."
        )
    return (
        f"{name} has what this version needs. {steps}, which removes what it does not use, is left {until}. Replace "
        "them, and repeat `runlane migrate` when it suits you."
    )
