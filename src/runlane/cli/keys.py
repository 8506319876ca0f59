"""``runlane keys``: API keys for a server without an authentication of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runlane.cli.reporting import reporting

app = typer.Typer(help="API keys.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep ``new`` a command of its own while it is the only one."""


@app.command()
def new(
    owner: Annotated[str, typer.Argument(help="Whose things requests with the key see and make.")],
    *,
    file: Annotated[Path, typer.Option(help="The keys file; it is made if missing.", envvar="RUNLANE_API_KEYS")] = Path(
        "runlane.keys"
    ),
) -> None:
    """Make an API key, print it once, and append its hash to the keys file.

    A server that was started with RUNLANE_API_KEYS takes it at once. Remove its line from the file to revoke it.
    """
    with reporting():
        from runlane.server.auth.keys import new_key

        key = new_key(owner, file)
    typer.echo(key)
    typer.echo(f"Added to {file}. The key is shown only here.", err=True)
