"""``runlane keys``: API keys for a server without an authentication of its own."""

from __future__ import annotations

from pathlib import Path

import click

from runlane.cli.options import PATH
from runlane.cli.reporting import reporting


@click.group(name="keys")
def app() -> None:
    """Manage API keys."""


@app.command()
@click.argument("owner")
@click.option(
    "--file",
    type=PATH,
    default=Path("runlane.keys"),
    show_default=True,
    envvar="RUNLANE_API_KEYS",
    show_envvar=True,
    help="The keys file; created if missing.",
)
def new(owner: str, *, file: Path) -> None:
    """Make an API key, print it once, and append its hash to the keys file.

    OWNER is whose things requests with the key see and make. A server that was started with RUNLANE_API_KEYS takes it
    at once. Remove its line from the file to revoke it.
    """
    with reporting():
        from runlane.server.auth.keys import new_key

        key = new_key(owner, file)
    click.echo(key)
    click.echo(f"Added to {file}. The key is shown only here.", err=True)
