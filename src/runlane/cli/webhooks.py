"""``runlane webhooks``: deliveries of webhooks by a running server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from runlane.cli import options
from runlane.cli.connection import with_server
from runlane.cli.output import Column, age, print_fields, print_json, print_rows, print_table

if TYPE_CHECKING:
    from runlane.cli.client import Client

COLUMNS: Final = (
    Column("RUN", lambda one: one["run_id"]),
    Column("STATUS", lambda one: one["status"]),
    Column("ATTEMPTS", lambda one: one["attempts"]),
    Column("AGE", lambda one: age(one["created_at"])),
    Column("NEXT", lambda one: one["next_attempt_at"] and one["next_attempt_at"][:19]),
    Column("URL", lambda one: one["url"], flexible=True),
)
ATTEMPTS: Final = (
    Column("ATTEMPT", lambda one: one["number"]),
    Column("SENT", lambda one: one["sent_at"][:19]),
    Column("SECONDS", lambda one: one["duration_s"]),
    Column("STATUS", lambda one: one["status_code"]),
    Column("ERROR", lambda one: one["error"], flexible=True),
)


@click.group(name="webhooks", cls=options.Commands)
def app() -> None:
    """See deliveries of webhooks by a running server, and send them again."""


@app.command("ls", epilog="Example: runlane webhooks ls --status failed")
@click.option(
    "--status", type=click.Choice(["pending", "delivered", "failed"]), help="Only deliveries with this status."
)
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Number of deliveries.")
@options.as_json
@with_server
def list_deliveries(*, client: Client, status: str | None, limit: int, as_json: bool) -> None:
    """List deliveries, newest first. A delivery has the id of its run."""
    found = client.get("/webhooks", params={"delivery_status": status, "limit": limit})
    print_rows(found, COLUMNS, as_json=as_json, none="No deliveries.")


@app.command(epilog="Example: runlane webhooks show RUN_ID")
@click.argument("run_id")
@options.as_json
@with_server
def show(run_id: str, *, client: Client, as_json: bool) -> None:
    """Show the delivery of a run's webhook, with each attempt."""
    found = client.get(_path(run_id), "webhook delivery", run_id)
    if as_json:
        print_json(found)
        return
    print_fields({name: value for name, value in found.items() if name != "history"})
    if found["history"]:
        print_table(ATTEMPTS, found["history"])


@app.command(epilog="Example: runlane webhooks resend RUN_ID")
@click.argument("run_id")
@options.as_json
@with_server
def resend(run_id: str, *, client: Client, as_json: bool) -> None:
    """Send a run's webhook again, at once."""
    found = client.post(f"{_path(run_id)}/resend", "webhook delivery", run_id)
    print_json(found) if as_json else click.echo(f"{run_id} is sent again.", err=True)


def _path(run_id: str) -> str:
    from runlane.cli.client import path_id

    return f"/webhooks/{path_id('webhook delivery', run_id)}"
