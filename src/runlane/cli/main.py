"""The command ``runlane``.

A command imports what it needs when it is called, so that help is instant and the client commands do not load a server.
"""

from __future__ import annotations

import gc
import socket
from pathlib import Path

import click

from runlane.cli import assistants, crons, interrupts, keys, options, runs, store, threads, webhooks, workers
from runlane.cli.backup import SQLITE, backup
from runlane.cli.bench import bench
from runlane.cli.completion import completion
from runlane.cli.doctor import doctor
from runlane.cli.logs import LogLevel, configure_logging, log_printed_lines
from runlane.cli.migrating import migrate_beside, migrate_sqlite
from runlane.cli.moving import import_, move_ledger
from runlane.cli.new import new
from runlane.cli.project import database_settings, find_config, find_project
from runlane.cli.report import failures, report
from runlane.cli.reporting import reporting
from runlane.cli.validate import validate
from runlane.cli.version import print_version
from runlane.cli.watching import status, top
from runlane.errors import ConfigurationError


@click.group(name="runlane", cls=options.Commands, context_settings={"max_content_width": 80})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=print_version,
    help="Print the version, and the build: a hash of Runlane's files.",
)
def app() -> None:
    """Run AI agents: a run never lies and never loses work."""


for group in (runs, threads, interrupts, assistants, crons, webhooks, store, keys, workers):
    app.add_command(group.app)
for command in (status, top, report, failures, doctor, backup, import_, bench, validate, new, completion):
    app.add_command(command)


@app.command()
@options.project
@options.config
@options.host
@options.port
@options.database
@options.log_level
@options.max_concurrent_runs
@options.run_timeout
@options.drain_grace
@click.option("--no-worker", is_flag=True, help="Execute no runs: processes of `runlane worker` do. PostgreSQL only.")
@options.log_format
@click.option("--fd", type=int, hidden=True, help="A bound socket that was inherited.")
def serve(
    project: Path,
    *,
    config: Path | None,
    host: str,
    port: int,
    database: str | None,
    log_level: str,
    max_concurrent_runs: int | None,
    run_timeout: float | None,
    drain_grace: float | None,
    no_worker: bool,
    log_format: str,
    fd: int | None,
) -> None:
    """Serve the graphs of a project over HTTP.

    PROJECT is a folder with a langgraph.json, or the file; by default the working directory.

    Every setting can also be given as RUNLANE_<NAME> in the environment. SIGTERM lets runs finish for the grace time,
    then stops the rest at a step's end; the next process continues them.
    """
    gc.disable()  # what is imported stays: a tenth of the start went into looking for garbage in it; see process.py
    configure_logging(LogLevel(log_level), style=log_format)
    log_printed_lines()
    with reporting():
        found = find_project(project, config)
        settings = found.settings(
            database=database,
            max_concurrent_runs=max_concurrent_runs,
            run_timeout_s=run_timeout,
            drain_grace_s=drain_grace,
            execute_runs=False if no_worker else None,
        )
        from runlane.server import process

        listener = None if fd is None else socket.socket(fileno=fd)
        code = process.serve(found.config, settings, host=host, port=port, listener=listener)
    process.exit_process(code)


@app.command()
@options.project
@options.config
@options.host
@options.probe_port
@options.database
@options.log_level
@options.max_concurrent_runs
@options.run_timeout
@options.drain_grace
@options.log_format
def worker(
    project: Path,
    *,
    config: Path | None,
    host: str,
    probe_port: int | None,
    database: str | None,
    log_level: str,
    max_concurrent_runs: int | None,
    run_timeout: float | None,
    drain_grace: float | None,
    log_format: str,
) -> None:
    """Execute runs of a project's graphs, admitted by other processes on the same PostgreSQL database.

    PROJECT is a folder with a langgraph.json, or the file; by default the working directory.

    It has no API, and listens on no port but the one of --probe-port. SIGTERM lets runs finish for the grace time, then
    hands the rest back at a step's end, for other workers to continue.
    """
    gc.disable()  # as for serve
    configure_logging(LogLevel(log_level), style=log_format)
    log_printed_lines()
    with reporting():
        found = find_project(project, config)
        settings = found.settings(
            database=database,
            max_concurrent_runs=max_concurrent_runs,
            run_timeout_s=run_timeout,
            drain_grace_s=drain_grace,
        )
        if not settings.on_postgres:
            raise ConfigurationError(
                "A worker shares its database with other processes, which only PostgreSQL allows. Set --database "
                "postgresql://..., or use `runlane serve`, which executes runs too."
            )
        from runlane.server import process

        code = process.work(found.config, settings, host=host, probe_port=probe_port)
    process.exit_process(code)


@app.command()
@options.project
@options.config
@options.host
@options.port
@options.database
@options.log_level
def dev(project: Path, *, config: Path | None, host: str, port: int, database: str | None, log_level: str) -> None:
    """Serve a project while you work on it: the server restarts when a file changes, and runs continue.

    PROJECT is a folder with a langgraph.json, or the file; by default the working directory.
    """
    with reporting():
        path = find_config(project, config)
        options = ["--log-level", log_level, "--log-format", "pretty"]
        if database is not None:
            options += ["--database", database]
        from runlane.cli.reload import serve_and_reload

        code = serve_and_reload(path, options, host=host, port=port)
    raise click.exceptions.Exit(code)


@app.command()
@options.project
@options.config
@options.database
@click.option("--compact", is_flag=True, help="Then copy the SQLite file without its free space.")
@click.option("--from", "source", help="Instead, move this database to the one of --to.")
@click.option("--to", "target", help="An empty database, or the one into which an interrupted move went.")
@click.option("--gone", multiple=True, metavar="WORKER", help="Take this process for gone, whatever its lease says.")
@options.as_json
def migrate(
    project: Path,
    *,
    config: Path | None,
    database: str | None,
    compact: bool,
    source: str | None,
    target: str | None,
    gone: tuple[str, ...],
    as_json: bool,
) -> None:
    """Migrate the schema of a database, and large values that an earlier version stored whole.

    On PostgreSQL other processes may run meanwhile: changes that would stop those of an earlier version are left until
    they are gone, and the command says so. Repeat it then.

    The schema of an SQLite file is also migrated when it is opened; old values read as before, and only this makes them
    smaller. It may be interrupted, and goes on where it was.

    --compact is for a file that an earlier version made: such a file does not shrink by itself. No server may use it
    meanwhile, and its folder needs free space for the copy.

    --from and --to move all of a ledger between SQLite and PostgreSQL, compare both, and print what was moved. Stop the
    servers before. Repeat it after an interruption.
    """
    with reporting():
        if source is not None or target is not None:
            move_ledger(source, target, database=database, compact=compact, as_json=as_json)
            return
        settings = database_settings(project, config, database)
        if settings.database.startswith("memory://"):
            raise ConfigurationError("A database in memory has nothing to migrate.")
        if compact and not settings.database.startswith(SQLITE):
            raise ConfigurationError("--compact copies an SQLite file; PostgreSQL reuses freed space by itself.")
        if gone and settings.database.startswith(SQLITE):
            raise ConfigurationError("--gone is for PostgreSQL; nobody else can use an SQLite file.")
        if settings.database.startswith(SQLITE):
            migrate_sqlite(settings, compact=compact, as_json=as_json)
        else:
            migrate_beside(settings, gone, as_json=as_json)


if __name__ == "__main__":
    app()
