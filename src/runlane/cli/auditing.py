"""The audit of commands that change what operators may do: who called them, on which machine."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from runlane.cli.output import safe
from runlane.cli.project import CONFIG_NAME, database_settings
from runlane.cli.reporting import EXIT_FAILED
from runlane.errors import ConfigurationError, RunlaneError
from runlane.settings import ENV_PREFIX, Settings

#: The status of what was done.
_DONE: Final = 200

database = click.option(
    "--database",
    help="Record it in the audit of this database, or fail.  [default: RUNLANE_DATABASE or the database of the project "
    "in this folder, if it can be written]",
)


def audit(given: str | None, action: str, route: str, subject: Mapping[str, str | list[str]]) -> None:
    """Record what was done in the database *given*, else in that of the environment or of the project in this folder.

    Where that cannot be, say so; if a database was given, exit with the code for a failure.
    """
    try:
        asyncio.run(_record(_settings(given), action, route, subject))
    except RunlaneError as error:
        click.echo(f"Not recorded in an audit: {safe(error)}", err=True)
        if given is not None:
            raise click.exceptions.Exit(EXIT_FAILED) from None


def _settings(given: str | None) -> Settings:
    if given is None and f"{ENV_PREFIX}DATABASE" not in os.environ and not Path(CONFIG_NAME).is_file():
        raise ConfigurationError("No database is named. Name one with --database or RUNLANE_DATABASE.")
    return database_settings(Path(), None, given)


async def _record(settings: Settings, action: str, route: str, subject: Mapping[str, str | list[str]]) -> None:
    from runlane.doctor import open_ledger, other_schema
    from runlane.store.transactions.audit import Act, complete, record

    act = Act(actor=_caller(), key_id=None, action=action, route=route, subject=subject, request_id=None, address=None)
    async with open_ledger(settings) as ledger:
        if ledger.in_use is not None:
            raise ledger.in_use
        if await other_schema(ledger):
            raise ConfigurationError("The database has the schema of another version. Call runlane migrate before.")
        await ledger.database.write(complete(await ledger.database.write(record(act)), _DONE, None))


def _caller() -> str:
    """Return the user of this process, as the system knows it, and the machine."""
    user = os.getuid()
    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:  # as in a container that is given a number only
        name = str(user)
    return f"{name}@{socket.gethostname()}"
