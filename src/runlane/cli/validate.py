"""``runlane validate``: everything of a project that a start would refuse, at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click

from runlane.cli import options
from runlane.cli.output import print_json, safe
from runlane.cli.project import Project, find_project
from runlane.cli.reporting import EXIT_FAILED, reporting, user_traceback
from runlane.errors import GraphLoadError, RunlaneError

#: What is checked, and what checks it.
Check = tuple[str, Callable[[], Any]]


@click.command(epilog="Example: runlane validate")
@options.project
@options.config
@options.as_json
def validate(project: Path, *, config: Path | None, as_json: bool) -> None:
    """Check a project without starting it: its langgraph.json, settings, graphs, authentication, store and app.

    The project's code is imported. No database is opened, and no port. Exit code 1: something is wrong.
    """
    with reporting():
        found = find_project(project, config)
    results = [(name, _problem(check)) for name, check in _checks(found)]
    if as_json:
        print_json([{"check": name, "error": None if error is None else str(error)} for name, error in results])
    else:
        for name, error in results:
            _print(name, error)
    if any(error is not None for _, error in results):
        raise click.exceptions.Exit(EXIT_FAILED)


def _checks(project: Project) -> Iterator[Check]:
    from runlane.agents.registry import check_graph
    from runlane.server.auth.handlers import load_authority
    from runlane.server.config.expiry import load_expiry
    from runlane.server.config.http_section import http_section
    from runlane.server.config.long_term import load_store
    from runlane.server.http.custom_app import load_custom_app

    config, file = project.config, project.file
    yield "settings", project.settings
    for graph_id in file.graphs:
        yield f"graph {graph_id}", partial(check_graph, file, graph_id)
    yield "auth", lambda: load_authority(config, project.settings())
    yield "http", lambda: load_custom_app(file, http_section(file))
    yield "store", lambda: load_store(config)
    yield "checkpointer", lambda: load_expiry(config)


def _problem(check: Callable[[], Any]) -> RunlaneError | None:
    try:
        check()
    except RunlaneError as error:
        return error
    return None


def _print(name: str, error: RunlaneError | None) -> None:
    if error is None:
        click.echo(f"{click.style('ok', fg='green')}     {safe(name)}")
        return
    click.echo(f"{click.style('error', fg='red')}  {safe(name)}: {safe(error)}")
    if isinstance(error, GraphLoadError) and error.__cause__ is not None:
        for line in user_traceback(error.__cause__).splitlines():
            click.echo(f"       {safe(line)}")
