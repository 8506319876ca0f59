"""The audit of commands that change what operators may do: who called them, on which machine."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from runlane.cli.output import safe
from runlane.cli.project import CONFIG_NAME, database_settings
from runlane.cli.reporting import EXIT_FAILED
from runlane.errors import ConfigurationError, RunlaneError
from runlane.settings import ENV_PREFIX, Settings

if TYPE_CHECKING:
    from runlane.store.statements import T, Transaction

#: The statuses of what was done, and of what could not be.
_DONE: Final = 200
_FAILED: Final = 400

database = click.option(
    "--database",
    help="Record it in the audit of this database, or fail.  [default: RUNLANE_DATABASE or the database of the project "
    "in this folder, if it can be written]",
)


@contextmanager
def audited(given: str | None, action: str, route: str, subject: Mapping[str, str | list[str]]) -> Iterator[None]:
    """Record what the body does in the database *given*, else in that of the environment or of the project here.

    It is recorded before it begins. Where that cannot be, say so and do it; if a database was given, exit with the code
    for a failure, and do nothing.
    """
    audit_id = _begun(given, action, route, subject)
    try:
        yield
    except RunlaneError:
        _ended(given, audit_id, _FAILED)
        raise
    _ended(given, audit_id, _DONE)


def _begun(given: str | None, action: str, route: str, subject: Mapping[str, str | list[str]]) -> str | None:
    """Record that it begins, and return the id; ``None`` if it is done without."""
    from runlane.store.transactions.audit import Act, record

    act = Act(actor=_caller(), key_id=None, action=action, route=route, subject=subject, request_id=None, address=None)
    try:
        return asyncio.run(_write(_settings(given), record(act)))
    except RunlaneError as error:
        if given is None:
            click.echo(f"Not recorded in an audit: {safe(error)}", err=True)
            return None
        why = f"Nothing was done, as it cannot be recorded in an audit: {safe(error)}"
        click.echo(f"{click.style('error:', fg='red', bold=True)} {why}", err=True)
        raise click.exceptions.Exit(EXIT_FAILED) from None


def _ended(given: str | None, audit_id: str | None, status: int) -> None:
    from runlane.store.transactions.audit import complete

    if audit_id is None:
        return
    try:
        asyncio.run(_write(_settings(given), complete(audit_id, status, None)))
    except RunlaneError as error:
        click.echo(f"Recorded in the audit without its result: {safe(error)}", err=True)


def _settings(given: str | None) -> Settings:
    if given is None and f"{ENV_PREFIX}DATABASE" not in os.environ and not Path(CONFIG_NAME).is_file():
        raise ConfigurationError("No database is named. Name one with --database or RUNLANE_DATABASE.")
    return database_settings(Path(), None, given)


async def _write(settings: Settings, transaction: Transaction[T]) -> T:
    from runlane.doctor import open_ledger, other_schema

    async with open_ledger(settings) as ledger:
        if ledger.in_use is not None:
            raise ledger.in_use
        if await other_schema(ledger):
            raise ConfigurationError("The database has the schema of another version. Call runlane migrate before.")
        return await ledger.database.write(transaction)


def _caller() -> str:
    """Return the user of this process, as the system knows it, and the machine."""
    user = os.getuid()
    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:  # as in a container that is given a number only
        name = str(user)
    return f"{name}@{socket.gethostname()}"
