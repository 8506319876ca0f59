"""``runlane workers``: the processes that execute the runs of a PostgreSQL database."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click
import orjson

from runlane.cli import options
from runlane.cli.connection import with_server
from runlane.cli.output import counted, print_done, print_json
from runlane.cli.project import database_settings
from runlane.cli.reporting import reporting
from runlane.errors import ConfigurationError
from runlane.settings import Settings

if TYPE_CHECKING:
    from runlane.cli.client import Client
    from runlane.store.transactions.fleet import Fleet


@click.group(name="workers", cls=options.Commands)
def app() -> None:
    """See the processes that execute runs."""


@app.command()
@options.project
@options.config
@click.option("--database", help="The database, postgresql://HOST/NAME.  [default: the project's]")
@options.as_json
def ls(project: Path, *, config: Path | None, database: str | None, as_json: bool) -> None:
    """List workers with their builds, runs and states, and what waits for a worker that there is not.

    A worker is ready, draining, or silent: its lease is over, and others take its runs.
    """
    with reporting():
        settings = database_settings(project, config, database)
        if not settings.on_postgres:
            raise ConfigurationError(
                "Only processes on PostgreSQL share a database; one on SQLite has a single process, which `runlane "
                "runs ls` shows the runs of."
            )
        fleet = asyncio.run(_read(settings))
    if as_json:
        print_json(orjson.loads(orjson.dumps(fleet)))  # instants as the API has them
    else:
        _show(fleet)


@app.command(epilog="Example: runlane workers drain WORKER_ID")
@click.argument("worker_id")
@click.option("--undo", is_flag=True, help="Have it start runs again.")
@options.as_json
@with_server
def drain(worker_id: str, *, client: Client, undo: bool, as_json: bool) -> None:
    """Have a worker of a running server start no runs, finish what it executes, and hand back the rest.

    The process goes on. Needs the scope admin.
    """
    path = f"/operator/workers/{quote(worker_id, safe='')}/drain"
    asked = client.send("DELETE" if undo else "POST", path, "worker", worker_id)
    print_done(asked, f"{worker_id} {'starts runs again' if undo else 'drains'}.", as_json=as_json)


async def _read(settings: Settings) -> Fleet:
    from runlane.doctor import open_ledger, other_schema
    from runlane.store.transactions.fleet import fleet

    async with open_ledger(settings) as ledger:
        await other_schema(ledger)  # refuses a database that is no ledger; workers of another version are shown
        return await ledger.database.read(fleet())


def _show(fleet: Fleet) -> None:
    from runlane.runs.waiting import no_worker

    rows: list[tuple[Any, ...]] = [("WORKER", "BUILD", "RUNS", "CAPACITY", "STATE", "SCHEMA", "STARTED")]
    rows += [
        (
            worker.worker_id,
            worker.build or "-",
            worker.running,
            worker.capacity,
            worker.state,
            worker.revision or "-",
            worker.started_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        for worker in fleet.workers
    ]
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for stranded in fleet.stranded:
        oldest = stranded.oldest_at.strftime("%Y-%m-%dT%H:%M:%SZ")
        waiting = f"{counted(stranded.threads, 'thread')} waiting for one, the oldest run since {oldest}"
        click.echo(f"{no_worker(stranded.graph_id, stranded.build)}: {waiting}.")
