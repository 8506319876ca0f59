"""``runlane migrate --from … --to …`` and ``runlane import``: moving in, from another database or another server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from runlane.cli import options
from runlane.cli.output import counted, print_json
from runlane.cli.project import CONFIG_NAME, database_settings, find_project
from runlane.cli.reporting import interruptible, reporting
from runlane.errors import ConfigurationError
from runlane.extras import needs_extra
from runlane.settings import Settings

if TYPE_CHECKING:
    from runlane.moving.importing import ImportReport, Kind
    from runlane.moving.source import Source

#: Things that are left out, and named for each reason.
SHOWN: Final = 3


def move_ledger(source: str | None, target: str | None, *, database: str | None, compact: bool, as_json: bool) -> None:
    """Move the ledger *source* to *target*, and print what was moved."""
    if source is None or target is None:
        raise ConfigurationError("--from and --to belong together: name the database to move, and where it goes.")
    if database is not None or compact:
        raise ConfigurationError("--from and --to name both databases; leave out --database and --compact.")
    with needs_extra("postgres", "Moving a ledger"):
        from runlane.moving.move import move
        from runlane.moving.opening import open_source, open_target

    schema = Settings.load().database_schema
    with (
        interruptible("No server uses the target before all is there. Repeat the command to go on."),
        bars() as progress,
    ):
        moved = move(open_source(source, schema), open_target(target, schema), progress)
    if as_json:
        print_json({"moved": True, "rows": dict(moved.rows), "resumed": moved.resumed})
        return
    click.echo("".join(f"{number:>12,}  {name}\n" for name, number in moved.rows.items() if number), nl=False)
    resumed = ", going on where it was interrupted" if moved.resumed else ""
    click.echo(
        f"Moved {counted(sum(moved.rows.values()), 'row')}{resumed}; both databases have the same. Do not start a "
        "server on the old one any more."
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


@click.command(name="import")
@click.argument("kind", type=click.Choice(["aegra", "langgraph-postgres"]))
@options.project
@options.config
@options.database
@click.option("--from", "source", required=True, help="The database to read: postgresql://HOST/NAME.")
@click.option("--from-schema", default="public", show_default=True, help="Where its tables are.")
@click.option("--owner", default="", help="Whose is what belongs to nobody in particular.  [default: nobody's]")
@click.option("--graph", help="The graph of threads of which the source does not say it.")
@click.option("--dry-run", is_flag=True, help="Read and convert everything, and write nothing.")
@options.as_json
def import_(
    kind: Kind,
    project: Path,
    *,
    config: Path | None,
    database: str | None,
    source: str,
    from_schema: str,
    owner: str,
    graph: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Import threads with their checkpoints, and what else Aegra or LangGraph's PostgreSQL store has kept.

    Stop both servers before. The source is only read; what is in the ledger already stays as it is. It may be repeated.
    """
    with reporting():
        settings = database_settings(project, config, database)
        _check_graph(graph, project, config)
        with needs_extra("postgres", "Importing"):
            from runlane.moving.source import Source
        left = "What was imported stays, each thread whole. Repeat the command to import the rest."
        with interruptible(left), Source(source, from_schema) as opened, bars() as progress:
            report = asyncio.run(_import(kind, opened, settings, owner, graph, progress, dry_run=dry_run))
    if as_json:
        imported = {
            name: {"found": found, "written": report.written[name], "there": report.there[name]}
            for name, found in report.found.items()
        }
        print_json({"imported": imported, "notes": report.notes, "left_out": report.left_out})
    else:
        _show(report, dry_run=dry_run)


def _check_graph(graph: str | None, project: Path, config: Path | None) -> None:
    """Refuse a graph that the project does not have, if there is a project: a database can be named without one."""
    if graph is None:
        return
    if config is None and project == Path() and not (project / CONFIG_NAME).is_file():
        click.echo(f"No project was found, so it is not known whether it has a graph {graph!r}.", err=True)
        return
    graphs = find_project(project, config).file.graphs
    if graph not in graphs:
        raise ConfigurationError(f"The project has no graph {graph!r}; its graphs are: {', '.join(sorted(graphs))}.")


async def _import(
    kind: Kind,
    source: Source,
    settings: Settings,
    owner: str,
    graph: str | None,
    progress: Callable[[str, int, int], None],
    *,
    dry_run: bool,
) -> ImportReport:
    from runlane.moving.importing import Importer
    from runlane.store.backends import open_driver

    driver = None if dry_run else await open_driver(settings)
    try:
        importer = Importer(source, driver, owner=owner, graph_id=graph)
        await (importer.aegra if kind == "aegra" else importer.langgraph)(partial(progress, "Importing threads"))
        return importer.report
    finally:
        if driver is not None:
            await driver.aclose()


def _show(report: ImportReport, *, dry_run: bool) -> None:
    for name, found in report.found.items():
        written, there = report.written[name], report.there[name]
        told = "" if dry_run else f", {written} written{f', {there} there already' if there else ''}"
        click.echo(f"{name:<12} {found} found{told}")
    for title, reasons in (("Note", report.notes), ("Not imported", report.left_out)):
        for reason, names in reasons.items():
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            click.echo(f"{title}: {len(names)} {reason} ({', '.join(names[:SHOWN])}{more})")
    if dry_run:
        click.echo("Nothing was written.")
