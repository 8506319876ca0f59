"""``runlane doctor``: what is wrong in a ledger, what it means, and its repair."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from runlane.cli.project import find_project
from runlane.cli.reporting import EXIT_FAILED, reporting
from runlane.errors import ConfigurationError
from runlane.settings import ENV_PREFIX, Settings


def doctor(
    project: Annotated[Path, typer.Argument(help="A folder with a langgraph.json, or the file.")] = Path(),
    *,
    config: Annotated[Path | None, typer.Option(help="The langgraph.json, if it has another name.")] = None,
    database: Annotated[str | None, typer.Option(help="The database. [default: the project's]")] = None,
    states: Annotated[
        bool, typer.Option("--states", help="Load the project's graphs, and read each thread's state with its graph.")
    ] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Repair what needs no judgement, after asking.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a ledger for what must not be, and say what each finding means and how it is repaired.

    A database that a server uses is checked beside it; an SQLite file can then be read only. Exit code 0: nothing is
    wrong (any more), 1: something is.
    """
    with reporting():
        if repair and as_json and not yes:
            raise ConfigurationError("--json cannot ask before it repairs; add --yes.")
        given = database is not None or f"{ENV_PREFIX}DATABASE" in os.environ
        settings = Settings.load(database=database) if given else find_project(project, config).settings()
        graphs = None
        if states:
            from runlane.agents.registry import load_registry

            graphs = load_registry(find_project(project, config).config)
        healthy = asyncio.run(_doctor(settings, graphs, repair=repair, yes=yes, as_json=as_json))
    raise typer.Exit(0 if healthy else EXIT_FAILED)


async def _doctor(settings: Settings, graphs: Any, *, repair: bool, yes: bool, as_json: bool) -> bool:
    """Examine, show, and repair if that is wanted; return whether nothing is wrong in the end."""
    from runlane.doctor import examine, open_ledger
    from runlane.doctor import repair as apply_repair

    async with open_ledger(settings) as ledger:
        report = await examine(ledger, graphs=graphs)
        wanted = [finding for finding in report.findings if finding.fix is not None] if repair else []
        if not as_json:
            _show(report, ledger.in_use)
        if wanted and ledger.in_use is not None:
            raise ledger.in_use
        if not wanted or not (yes or typer.confirm(f"Make these {len(wanted)} repairs?")):
            _dump(report, (), as_json=as_json)
            return not report.findings
        repaired = [finding for finding in wanted if await apply_repair(ledger, finding)]
        left = await examine(ledger, graphs=graphs)
        if as_json:
            _dump(left, repaired, as_json=True)
        else:
            typer.echo(f"Repaired {len(repaired)} of {len(wanted)}. Checked again:")
            _show(left, None)
        return not left.findings


def _show(report: Any, in_use: Exception | None) -> None:
    for finding in report.findings:
        typer.echo(finding.line)
    if in_use is not None:
        typer.echo("Checked beside the process that uses the file; nothing can be repaired while it does.")
    counts = [f"{count} {name}" for name, count in report.checked.items() if count]
    checked = ", ".join(counts) or "the file and its schema"
    repairable = sum(finding.fix is not None for finding in report.findings)
    typer.echo(f"Checked {checked}{'' if report.complete else ', not all'}.")
    if report.findings:
        typer.echo(f"Findings: {len(report.findings)}, of which --repair repairs {repairable}.")
    else:
        typer.echo("Nothing is wrong.")


def _dump(report: Any, repaired: Any, *, as_json: bool) -> None:
    if not as_json:
        return
    told = {
        "checked": report.checked,
        "complete": report.complete,
        "findings": [_fields(finding) for finding in report.findings],
        "repaired": [_fields(finding) for finding in repaired],
    }
    typer.echo(json.dumps(told, indent=2))


def _fields(finding: Any) -> dict[str, Any]:
    return {
        "code": finding.code,
        "subject": dict(finding.subject),
        "meaning": finding.meaning,
        "repair": finding.repair,
        "repairable": finding.fix is not None,
    }
