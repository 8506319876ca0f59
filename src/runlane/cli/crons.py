"""``runlane crons``: schedules of a running server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from runlane.cli import options
from runlane.cli.connection import with_server
from runlane.cli.output import Column, age, print_done, print_fields, print_json, print_rows
from runlane.cli.reporting import confirm
from runlane.cli.values import JSON

if TYPE_CHECKING:
    from runlane.cli.client import Client

COLUMNS: Final = (
    Column("CRON", lambda cron: cron["cron_id"]),
    Column("SCHEDULE", lambda cron: cron["schedule"]),
    Column("TIMEZONE", lambda cron: cron["timezone"]),
    Column("STATE", lambda cron: "enabled" if cron["enabled"] else "paused"),
    Column("NEXT", lambda cron: cron["next_run_date"] and cron["next_run_date"][:19]),
    Column("LAST", lambda cron: age(cron["last_run_date"])),
    Column(
        "ERROR", lambda cron: cron["error"] and f"{cron['error']['error']}: {cron['error']['message']}", flexible=True
    ),
)


@click.group(name="crons", cls=options.Commands)
def app() -> None:
    """Manage crons of a running server: runs that start by the clock."""


@app.command("ls", epilog="Example: runlane crons ls")
@click.option("--thread", help="Only crons on this thread.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Number of crons.")
@options.as_json
@with_server
def list_crons(*, client: Client, thread: str | None, limit: int, as_json: bool) -> None:
    """List crons, newest first."""
    found = client.search("/runs/crons/search", limit=limit, thread_id=thread)
    print_rows(found, COLUMNS, as_json=as_json, none="No crons.")


@app.command(epilog="Example: runlane crons show CRON_ID")
@click.argument("cron_id")
@options.as_json
@with_server
def show(cron_id: str, *, client: Client, as_json: bool) -> None:
    """Show a cron."""
    found = client.get(_path(cron_id), "cron", cron_id)
    print_json(found) if as_json else print_fields(found)


@app.command(epilog="Example: runlane crons create '0 8 * * 1-5' steps --timezone Europe/Oslo")
@click.argument("schedule")
@click.argument("assistant")
@click.option("--input", "given", type=JSON, help="Input of its runs: JSON, @FILE, or - for stdin.")
@click.option("--thread", help="Run on this thread.  [default: each run on a new one]")
@click.option("--timezone", help="IANA name of the time zone.  [default: UTC]")
@click.option("--metadata", type=JSON, help="Metadata: JSON, @FILE, or - for stdin.")
@click.option("--paused", is_flag=True, help="Do not start runs before it is resumed.")
@options.as_json
@with_server
def create(
    schedule: str,
    assistant: str,
    *,
    client: Client,
    given: Any,
    thread: str | None,
    timezone: str | None,
    metadata: Any,
    paused: bool,
    as_json: bool,
) -> None:
    """Create a cron of an assistant. SCHEDULE has five fields, six with seconds, or is a word such as @daily."""
    from runlane.cli.client import path_id

    path = "/runs/crons" if thread is None else f"/threads/{path_id('thread', thread)}/runs/crons"
    made = client.post(
        path,
        "assistant or thread",
        assistant,
        schedule=schedule,
        assistant_id=assistant,
        input=given,
        timezone=timezone,
        metadata=metadata,
        enabled=not paused,
    )
    print_json(made) if as_json else click.echo(made["cron_id"])


@app.command(epilog="Example: runlane crons pause CRON_ID")
@click.argument("cron_id")
@options.as_json
@with_server
def pause(cron_id: str, *, client: Client, as_json: bool) -> None:
    """Start no more runs of a cron until it is resumed."""
    paused = client.send("PATCH", _path(cron_id), "cron", cron_id, body={"enabled": False})
    print_done(paused, f"Paused {cron_id}.", as_json=as_json)


@app.command(epilog="Example: runlane crons resume CRON_ID")
@click.argument("cron_id")
@options.as_json
@with_server
def resume(cron_id: str, *, client: Client, as_json: bool) -> None:
    """Start runs of a paused cron again, from its next time on."""
    resumed = client.send("PATCH", _path(cron_id), "cron", cron_id, body={"enabled": True})
    print_done(resumed, f"Resumed {cron_id}.", as_json=as_json)


@app.command(epilog="Example: runlane crons run CRON_ID")
@click.argument("cron_id")
@options.as_json
@with_server
def run(cron_id: str, *, client: Client, as_json: bool) -> None:
    """Start the run of a cron now, also if it is paused. Its next time stays as it is."""
    started = client.send("POST", f"{_path(cron_id)}/run", "cron", cron_id)
    print_json(started) if as_json else click.echo(f"{started['run_id']} on thread {started['thread_id']}")


@app.command(epilog="Example: runlane crons delete CRON_ID --yes")
@click.argument("cron_id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.as_json
@with_server
def delete(cron_id: str, *, client: Client, yes: bool, as_json: bool) -> None:
    """Delete a cron. Runs that it has started continue."""
    confirm(f"Delete cron {cron_id}?", yes=yes)
    client.send("DELETE", _path(cron_id), "cron", cron_id)
    print_done({"deleted": True, "cron_id": cron_id}, f"Deleted {cron_id}.", as_json=as_json)


def _path(cron_id: str) -> str:
    from runlane.cli.client import path_id

    return f"/runs/crons/{path_id('cron', cron_id)}"
