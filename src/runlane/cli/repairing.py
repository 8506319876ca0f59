"""``runlane threads repair``: the doctor's findings about one thread."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runlane.cli import options
from runlane.cli.doctor import finding_fields
from runlane.cli.output import counted, print_json, safe
from runlane.cli.project import database_settings
from runlane.cli.reporting import EXIT_FAILED, reporting
from runlane.errors import ConfigurationError

if TYPE_CHECKING:
    from runlane.doctor import Finding
    from runlane.settings import Settings


@click.command(epilog="Example: runlane threads repair THREAD_ID --yes")
@click.argument("thread_id")
@options.project
@options.config
@options.database
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.as_json
def repair(
    thread_id: str, project: Path, *, config: Path | None, database: str | None, yes: bool, as_json: bool
) -> None:
    """Check a thread in the database, and repair it, as doctor --repair does with all of them.

    Stop the server of an SQLite database before. Exit code 0: nothing is wrong with the thread (any more), 1:
    something is, 3: there is no such thread.
    """
    with reporting():
        if as_json and not yes:
            raise ConfigurationError("--json cannot ask before it repairs; add --yes.")
        settings = database_settings(project, config, database)
        found, repaired = asyncio.run(_repair(settings, thread_id, yes=yes, as_json=as_json))
    if as_json:
        shown = {
            "findings": [finding_fields(one) for one in found],
            "repaired": [finding_fields(one) for one in repaired],
        }
        print_json({"thread_id": thread_id, **shown})
    elif found:
        click.echo(f"Repaired {len(repaired)} of {len(found)}.")
    if len(repaired) < len(found):
        raise click.exceptions.Exit(EXIT_FAILED)


async def _repair(
    settings: Settings, thread_id: str, *, yes: bool, as_json: bool
) -> tuple[list[Finding], list[Finding]]:
    """Repair what can be of a thread, after asking; return the findings about it, and those that were repaired.

    Raises:
        NotFound: There is no such thread, and nothing is left of one.
    """
    from runlane.doctor import examine, open_ledger
    from runlane.doctor import repair as apply_repair
    from runlane.records import ANY_OWNER
    from runlane.store.transactions.threads import get_thread

    async with open_ledger(settings) as ledger:
        report = await examine(ledger)
        found = [finding for finding in report.findings if finding.subject.get("thread") == thread_id]
        if not found:
            await ledger.database.read(get_thread(thread_id, ANY_OWNER, with_values=False))
        if not as_json:
            click.echo("\n".join(safe(one.line) for one in found) or f"Nothing is wrong with thread {safe(thread_id)}.")
        wanted = [finding for finding in found if finding.fix is not None]
        if wanted and ledger.in_use is not None:
            raise ledger.in_use
        if not wanted or not (yes or click.confirm(f"Make {counted(len(wanted), 'repair')}?")):
            return found, []
        return found, [finding for finding in wanted if await apply_repair(ledger, finding)]
