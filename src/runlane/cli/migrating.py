"""``runlane migrate`` on PostgreSQL: the schema is changed while other processes use the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from runlane.cli.reporting import EXIT_FAILED

if TYPE_CHECKING:
    from runlane.settings import Settings


def migrate_beside(settings: Settings, gone: tuple[str, ...]) -> int:
    """Migrate as far as other processes allow, say what is left, and return the exit code.

    It is 0 if processes of this version can start.
    """
    from runlane.store.backends import migrate_postgres_beside

    # Indexes are made under a lock of the session, which PgBouncer in transaction mode does not keep.
    url = settings.database_direct or settings.database
    done = migrate_postgres_beside(url, settings.database_schema, gone=gone)
    name = url.rpartition("@")[2]
    if not done.left:
        click.echo(f"{name} has the schema of this version.")
        return 0
    steps, those = ", ".join(done.left), ", ".join(done.stops)
    until = f"until these processes of an earlier version are gone: {those}"
    if done.needed:
        click.echo(
            f"{name} does not have the schema of this version: {steps} cannot be applied {until}. Stop them, repeat "
            "`runlane migrate`, and start this version then."
        )
        return EXIT_FAILED
    click.echo(
        f"{name} has what this version needs. {steps}, which removes what it does not use, is left {until}. Replace "
        "them, and repeat `runlane migrate` when it suits you."
    )
    return 0
