"""``runlane keys``: API keys for a server without an authentication of its own."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runlane.cli import auditing, options
from runlane.cli.options import PATH
from runlane.cli.output import print_done, print_json
from runlane.cli.reporting import reporting
from runlane.cli.values import Finite

if TYPE_CHECKING:
    from runlane.server.auth.keys import ApiKey

_FILE = click.option(
    "--file",
    type=PATH,
    default=Path("runlane.keys"),
    show_default=True,
    envvar="RUNLANE_API_KEYS",
    show_envvar=True,
    help="The keys file; created if missing.",
)


@click.group(name="keys", cls=options.Commands)
def app() -> None:
    """Manage API keys."""


@app.command()
@click.argument("owner")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="Make a key for an operator, who sees the things of all owners: runs:read, runs:cancel, runs:retry, "
    "runs:answer, payload:read or admin. May be repeated; OWNER is then the operator's name.",
)
@click.option("--expires-in-days", type=Finite(min=0, min_open=True), help="Reject the key after so long.")
@_FILE
@auditing.database
@options.as_json
def new(
    owner: str,
    *,
    scopes: tuple[str, ...],
    expires_in_days: float | None,
    file: Path,
    database: str | None,
    as_json: bool,
) -> None:
    """Make an API key, print it once, and append its hash to the keys file.

    OWNER is whose things requests with the key see and make. A server that was started with RUNLANE_API_KEYS takes it
    at once.
    """
    with reporting():
        from runlane.server.auth.keys import append_key, make_key

        expires_in = None if expires_in_days is None else timedelta(days=expires_in_days)
        key = make_key(owner, scopes=scopes, expires_in=expires_in)
        made: dict[str, str | list[str]] = {
            "key_id": key.key_id,
            "identity": owner.strip(),
            "scopes": sorted(set(scopes)),
        }
        with auditing.audited(database, "key.new", "runlane keys new", made):
            append_key(key, file)
            print_json({"key": key.key, **made}) if as_json else click.echo(key.key)
            click.echo(f"Added to {file}. The key is shown only here.", err=True)


@app.command()
@_FILE
@options.as_json
def ls(*, file: Path, as_json: bool) -> None:
    """List the keys of the keys file: id, owner or operator, scopes, creation and expiry."""
    with reporting():
        from runlane.errors import ConfigurationError
        from runlane.server.auth.keys import read_keys

        try:
            keys = read_keys(file).values()
        except OSError as error:
            raise ConfigurationError(f"The keys file {file} cannot be read: {error.strerror}.") from error
    if as_json:
        print_json([_shown(key) for key in keys])
        return
    click.echo(f"{'ID':16}  {'CREATED':10}  {'EXPIRES':10}  {'SCOPES':36}  OWNER")
    for key in keys:
        created, expires = (f"{at:%Y-%m-%d}" if at else "-" for at in (key.created_at, key.expires_at))
        scopes = ",".join(_scopes(key)) or "-"
        click.echo(f"{key.key_id}  {created:10}  {expires:10}  {scopes:36}  {key.identity}")


def _scopes(key: ApiKey) -> list[str]:
    return [permission.partition(":")[2] for permission in key.permissions]


def _shown(key: ApiKey) -> dict[str, Any]:
    created, expires = (at.isoformat() if at else None for at in (key.created_at, key.expires_at))
    shown = {"key_id": key.key_id, "identity": key.identity, "scopes": _scopes(key)}
    return {**shown, "created_at": created, "expires_at": expires}


@app.command()
@click.argument("key_id")
@_FILE
@auditing.database
@options.as_json
def revoke(key_id: str, *, file: Path, database: str | None, as_json: bool) -> None:
    """Remove the key KEY_ID from the keys file. Servers reject it, and close its streams, within a second."""
    with reporting():
        from runlane.server.auth.keys import revoke_key

        with auditing.audited(database, "key.revoke", "runlane keys revoke", {"key_id": key_id}):
            revoke_key(key_id, file)
            print_done({"revoked": True, "key_id": key_id}, f"Removed {key_id} from {file}.", as_json=as_json)
