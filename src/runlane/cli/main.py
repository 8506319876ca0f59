"""The command ``runlane``.

A command imports what it needs when it is called, so that help is instant and the client commands do not load a server.
"""

from __future__ import annotations

import asyncio
import os
import socket
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from runlane.cli import keys, runs
from runlane.cli.doctor import doctor
from runlane.cli.logs import LogLevel, configure_logging
from runlane.cli.project import find_config, find_project
from runlane.cli.reporting import reporting
from runlane.errors import ConfigurationError
from runlane.settings import ENV_PREFIX, Settings

app = typer.Typer(
    name="runlane",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # it would print local variables, which may be secrets
    add_completion=False,
)
app.add_typer(runs.app, name="runs")
app.add_typer(keys.app, name="keys")
app.command()(doctor)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("runlane"))
        raise typer.Exit


@app.callback()
def _main(
    *,
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Run AI agents: a run never lies and never loses work."""


ProjectArgument = Annotated[Path, typer.Argument(help="A folder with a langgraph.json, or the file.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="The langgraph.json, if it has another name.")]
HostOption = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every one.", envvar="RUNLANE_HOST")]
PortOption = Annotated[int, typer.Option(help="Port to listen on; 0 is any free one.", envvar="RUNLANE_PORT")]
DatabaseOption = Annotated[
    str | None,
    typer.Option(help="sqlite:///PATH, postgresql://HOST/NAME or memory://. [default: PROJECT/.runlane/runlane.db]"),
]
LevelOption = Annotated[LogLevel, typer.Option("--log-level", help="What is logged.", envvar="RUNLANE_LOG_LEVEL")]
ConcurrencyOption = Annotated[int | None, typer.Option("--max-concurrent-runs", help="Runs that execute at once.")]
TimeoutOption = Annotated[float | None, typer.Option("--run-timeout", help="Longest time of a run, in seconds.")]
GraceOption = Annotated[
    float | None,
    typer.Option(
        "--drain-grace", help="How long runs may go on after SIGTERM before they are handed back, in seconds."
    ),
]


@app.command()
def serve(
    project: ProjectArgument = Path(),
    *,
    config: ConfigOption = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 2024,
    database: DatabaseOption = None,
    log_level: LevelOption = LogLevel.INFO,
    max_concurrent_runs: ConcurrencyOption = None,
    run_timeout: TimeoutOption = None,
    drain_grace: GraceOption = None,
    pretty: Annotated[bool, typer.Option("--pretty", help="Coloured logs for a person to read.")] = False,
    fd: Annotated[int | None, typer.Option(hidden=True, help="A bound socket that was inherited.")] = None,
) -> None:
    """Serve the graphs of a project over HTTP.

    Every setting can also be given as RUNLANE_<NAME> in the environment. SIGTERM lets runs finish for the grace time,
    then stops the rest at a step's end; the next process continues them.
    """
    configure_logging(log_level, pretty=pretty)
    with reporting():
        found = find_project(project, config)
        settings = found.settings(
            database=database,
            max_concurrent_runs=max_concurrent_runs,
            run_timeout_s=run_timeout,
            drain_grace_s=drain_grace,
        )
        from runlane.server import process

        listener = None if fd is None else socket.socket(fileno=fd)
        code = process.serve(found.config, settings, host=host, port=port, listener=listener)
    process.exit_process(code)


@app.command()
def dev(
    project: ProjectArgument = Path(),
    *,
    config: ConfigOption = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 2024,
    database: DatabaseOption = None,
    log_level: LevelOption = LogLevel.INFO,
) -> None:
    """Serve a project while you work on it: the server starts anew when a file changes, and runs go on after that."""
    with reporting():
        path = find_config(project, config)
        options = ["--log-level", log_level.value, "--pretty"]
        if database is not None:
            options += ["--database", database]
        from runlane.cli.reload import serve_and_reload

        code = serve_and_reload(path, options, host=host, port=port)
    raise typer.Exit(code)


@app.command()
def migrate(
    project: ProjectArgument = Path(),
    *,
    config: ConfigOption = None,
    database: DatabaseOption = None,
) -> None:
    """Bring the schema of a database up to date. An SQLite file is also migrated when it is opened."""
    with reporting():
        given = database is not None or f"{ENV_PREFIX}DATABASE" in os.environ
        settings = Settings.load(database=database) if given else find_project(project, config).settings()
        if settings.database.startswith("memory://"):
            raise ConfigurationError("A database in memory has nothing to migrate.")
        asyncio.run(_migrate(settings))
    typer.echo(f"{settings.database.rpartition('@')[2]} has the schema of this version.")


async def _migrate(settings: Settings) -> None:
    from runlane.runtime import open_driver

    driver = await open_driver(settings)
    await driver.aclose()


if __name__ == "__main__":
    app()
