"""``runlane backup``: a consistent copy of an SQLite database in use, or the command that makes one of PostgreSQL."""

from __future__ import annotations

import os
import shlex
import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import click

from runlane.cli import options
from runlane.cli.options import PATH
from runlane.cli.output import print_json, progress
from runlane.cli.project import database_settings
from runlane.cli.reporting import interruptible, reporting
from runlane.errors import ConfigurationError, StoreUnavailable

SQLITE: Final = "sqlite:///"
#: Instructions of SQLite's virtual machine between two looks at how far it is.
STEPS: Final = 100_000
BUSY_TIMEOUT_S: Final = 30.0


@click.command(epilog="Example: runlane backup --to backup.db")
@options.project
@options.config
@options.database
@click.option("--to", "target", type=PATH, required=True, help="File to write; it must not exist.")
@options.as_json
def backup(project: Path, *, config: Path | None, database: str | None, target: Path, as_json: bool) -> None:
    """Back up an SQLite database, also while a server uses it.

    For PostgreSQL it prints the pg_dump command, and ends with exit code 2, as nothing was backed up.
    """
    with reporting(), interruptible("No copy is left. Repeat the command."):
        url = database_settings(project, config, database).database
        if not url.startswith(SQLITE):
            raise ConfigurationError(_hint(url, target))
        size = back_up_sqlite(Path(url.removeprefix(SQLITE)), target)
    if as_json:
        print_json({"file": str(target), "bytes": size})
    else:
        click.echo(f"{target} has {size / 1e6:.1f} MB. Check it: runlane doctor --database {SQLITE}{target}")


def _hint(url: str, target: Path) -> str:
    if not url.startswith("postgres"):
        raise ConfigurationError("A database in memory cannot be backed up.")
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    name = user.partition(":")[0]
    options = [one for one in parts.query.split("&") if not one.startswith("password=")]
    bare = urlunsplit(parts._replace(netloc=f"{name}@{host}" if name else host, query="&".join(options)))
    command = f"pg_dump --format=custom --file={shlex.quote(str(target))} {shlex.quote(bare)}"
    password = " (its password is in PGPASSWORD, or in ~/.pgpass)" if ":" in user or "password=" in parts.query else ""
    return f"PostgreSQL is backed up by its own tool{password}: {command}"


def back_up_sqlite(source: Path, target: Path) -> int:
    """Copy the database *source* to the new file *target* in one transaction, and return the size of the copy.

    Raises:
        ConfigurationError: There is no such database, or *target* exists or cannot be written.
        StoreUnavailable: The database cannot be read; no file is left.
    """
    if not source.is_file():
        raise ConfigurationError(f"There is no database {source}.")
    if target.exists():
        raise ConfigurationError(f"{target} exists. A backup does not overwrite: name another file.")
    with ExitStack() as undo:
        undo.callback(target.unlink, missing_ok=True)
        try:
            _copy(source, target)
        except sqlite3.Error as error:
            if error.sqlite_errorname == "SQLITE_INTERRUPT":  # Ctrl-C within the progress
                raise KeyboardInterrupt from None
            raise _failed(source, target, error) from error
        except OSError as error:
            raise _failed(source, target, error) from error
        undo.pop_all()
    return target.stat().st_size


def _failed(source: Path, target: Path, error: Exception) -> StoreUnavailable:
    from runlane.store.drivers.sqlite import CHECK_DAMAGE, is_damage

    why = f"{source} could not be backed up to {target}: {error}"
    return StoreUnavailable(why, remedy=CHECK_DAMAGE if is_damage(error) else "No copy was left.")


def _copy(source: Path, target: Path) -> None:
    total = source.stat().st_size
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S)) as connection,
        progress("Backing up", total) as advance,
    ):
        seen = 0

        def look() -> int:
            nonlocal seen
            written = min(total, target.stat().st_size if target.exists() else 0)
            advance(written - seen)
            seen = written
            return 0

        connection.set_progress_handler(look, STEPS)
        connection.execute("VACUUM INTO ?", (str(target),))
    with open(target, "rb") as copy:
        os.fsync(copy.fileno())
