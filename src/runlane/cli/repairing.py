"""``runlane threads repair``: the doctor's findings about one thread."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runlane.cli import options
from runlane.cli.output import safe
from runlane.cli.project import database_settings
from runlane.cli.reporting import EXIT_FAILED, reporting

if TYPE_CHECKING:
    from runlane.settings import Settings


@click.command(epilog="Example: runlane threads repair THREAD_ID --yes")
@click.argument("thread_id")
@options.project
@options.config
@options.database
@click.option("--yes", is_flag=True, help="Do not ask.")
def repair(thread_id: str, project: Path, *, config: Path | None, database: str | None, yes: bool) -> None:
    """Check a thread in the database, and repair it, as doctor --repair does with all of them.

    Stop the server of an SQLite database before. Exit code 0: nothing is wrong with the thread (any more), 1:
    something is, 3: there is no such thread.
    """
    with reporting():
        healthy = asyncio.run(_repair(database_settings(project, config, database), thread_id, yes=yes))
    if not healthy:
        raise click.exceptions.Exit(EXIT_FAILED)


async def _repair(settings: Settings, thread_id: str, *, yes: bool) -> bool:
    """Show the findings about a thread, repair what can be, and return whether none is left.

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
        for finding in found:
            click.echo(safe(finding.line))
        wanted = [finding for finding in found if finding.fix is not None]
        if not found:
            await ledger.database.read(get_thread(thread_id, ANY_OWNER, with_values=False))
            click.echo(f"Nothing is wrong with thread {safe(thread_id)}.")
        if not wanted:
            return not found
        if ledger.in_use is not None:
            raise ledger.in_use
        if not (yes or click.confirm(f"Make these {len(wanted)} repairs?")):
            return False
        repaired = [finding for finding in wanted if await apply_repair(ledger, finding)]
        click.echo(f"Repaired {len(repaired)} of {len(found)}.")
        return len(repaired) == len(found)
