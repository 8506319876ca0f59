"""``runlane doctor``: find invariant violations of a database, explain and repair them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import click

from runlane.cli import options
from runlane.cli.output import counted
from runlane.cli.project import database_settings, find_project
from runlane.cli.reporting import EXIT_FAILED, reporting
from runlane.errors import ConfigurationError
from runlane.settings import Settings

#: Tables and threads that are named.
SHOWN = 5


@click.command()
@options.project
@options.config
@click.option("--database", help="The database.  [default: the project's]")
@click.option("--states", is_flag=True, help="Load the project's graphs, and read each thread's state with its graph.")
@click.option("--repair", is_flag=True, help="Apply automatic repairs, after asking.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.as_json
def doctor(
    project: Path,
    *,
    config: Path | None,
    database: str | None,
    states: bool,
    repair: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Check a database for invariant violations, explain each finding and its repair, and repair it if asked.

    A database that a server uses is checked beside it; an SQLite file can then be read only. Exit code 0: nothing is
    wrong (any more), 1: something is.
    """
    with reporting():
        if repair and as_json and not yes:
            raise ConfigurationError("--json cannot ask before it repairs; add --yes.")
        settings = database_settings(project, config, database)
        graphs = None
        if states:
            from runlane.agents.registry import load_registry

            graphs = load_registry(find_project(project, config).config)
        healthy = asyncio.run(_doctor(settings, graphs, repair=repair, yes=yes, as_json=as_json))
    raise click.exceptions.Exit(0 if healthy else EXIT_FAILED)


async def _doctor(settings: Settings, graphs: Any, *, repair: bool, yes: bool, as_json: bool) -> bool:
    """Examine, show, and repair if that is wanted; return whether nothing is wrong in the end."""
    from runlane.doctor import examine, open_ledger
    from runlane.doctor import repair as apply_repair

    async with open_ledger(settings) as ledger:
        report = await examine(ledger, graphs=graphs)
        storage = await _measured(ledger, report)
        arrive = None if ledger.notifications_arrive is None else await ledger.notifications_arrive()
        security = await _row_security(ledger)
        wanted = [finding for finding in report.findings if finding.fix is not None] if repair else []
        if not as_json:
            _show(report, storage, ledger.in_use)
            _show_notifications(arrive)
            _show_bypassed(security)
        if wanted and ledger.in_use is not None:
            raise ledger.in_use
        if not wanted or not (yes or click.confirm(f"Make {counted(len(wanted), 'repair')}?")):
            _dump(report, (), storage, arrive, security, as_json=as_json)
            return not report.findings
        repaired = [finding for finding in wanted if await apply_repair(ledger, finding)]
        left = await examine(ledger, graphs=graphs)
        if as_json:
            _dump(left, repaired, await _measured(ledger, left), arrive, security, as_json=True)
        else:
            click.echo(f"Repaired {len(repaired)} of {len(wanted)}. Checked again:")
            _show(left, None, None)
        return not left.findings


async def _measured(ledger: Any, report: Any) -> Any:
    """Return the sizes in *ledger*; ``None`` if the file is damaged or its schema is not this version's."""
    from runlane.doctor import measure

    return await measure(ledger) if report.checked else None


async def _row_security(ledger: Any) -> Any:
    from runlane.doctor import row_security

    return None if ledger.sqlite else await ledger.database.read(row_security())


def _show(report: Any, storage: Any, in_use: Exception | None) -> None:
    for finding in report.findings:
        click.echo(finding.line)
    if in_use is not None:
        click.echo("Checked beside the process that uses the file; nothing can be repaired while it does.")
    counts = [f"{name} {count}" for name, count in report.checked.items() if count]
    checked = ", ".join(counts) or "the file and its schema"
    repairable = sum(finding.fix is not None for finding in report.findings)
    click.echo(f"Checked: {checked}{'' if report.complete else ', not all'}.")
    _show_storage(storage)
    if report.findings:
        click.echo(f"Findings: {len(report.findings)}, of which --repair repairs {repairable}.")
    else:
        click.echo("Nothing is wrong.")


def _show_storage(storage: Any) -> None:
    if storage is None:
        return
    space, log = storage.database, storage.log_bytes
    click.echo(f"Size: {_mb(space.bytes)}, of which {_mb(space.free_bytes)} are free; write-ahead log: {_mb(log)}.")
    for what, sizes in (("tables", storage.tables), ("threads", storage.threads)):
        if sizes:
            shown = [f"{name} {_mb(size)}" for name, size in list(sizes.items())[:SHOWN]]
            click.echo(f"Largest {what}: {', '.join(shown)}.")
    if space.page_bytes > 1 and not space.shrinkable:
        click.echo("The file does not shrink by itself: stop the server once, and run `runlane migrate --compact`.")


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _show_notifications(arrive: bool | None) -> None:
    if arrive is not None:
        how = "arrive" if arrive else "do not arrive, so processes poll; see the setting database_direct"
        click.echo(f"Notifications between processes {how}.")


def _show_bypassed(security: Any) -> None:
    if security is not None and security.bypassed:
        click.echo(
            f"The role {security.role} bypasses the row-level security of {', '.join(security.bypassed)}, as Runlane"
            " has to: its statements carry the owner, and policies are for other roles."
        )


def _dump(report: Any, repaired: Any, storage: Any, arrive: bool | None, security: Any, *, as_json: bool) -> None:
    if not as_json:
        return
    told = {
        "checked": report.checked,
        "complete": report.complete,
        "findings": [finding_fields(finding) for finding in report.findings],
        "repaired": [finding_fields(finding) for finding in repaired],
        "storage": None if storage is None else _sizes(storage),
        "notifications_arrive": arrive,
        "row_security_bypassed": [] if security is None else security.bypassed,
    }
    click.echo(json.dumps(told, indent=2))


def _sizes(storage: Any) -> dict[str, Any]:
    return {
        "database_bytes": storage.database.bytes,
        "free_bytes": storage.database.free_bytes,
        "log_bytes": storage.log_bytes,
        "shrinkable": storage.database.shrinkable,
        "tables": storage.tables,
        "largest_threads": storage.threads,
    }


def finding_fields(finding: Any) -> dict[str, Any]:
    """Return a finding as JSON."""
    return {
        "code": finding.code,
        "subject": dict(finding.subject),
        "meaning": finding.meaning,
        "repair": finding.repair,
        "repairable": finding.fix is not None,
    }
