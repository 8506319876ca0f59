"""``runlane runs``: list, show, follow and cancel runs from a terminal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from runlane.cli import options
from runlane.cli.reporting import reporting

if TYPE_CHECKING:
    from runlane.cli.client import Client


@click.group(name="runs")
def app() -> None:
    """List, show, follow and cancel runs of a running server."""


url_option = click.option(
    "--url",
    default="http://127.0.0.1:2024",
    show_default=True,
    envvar="RUNLANE_URL",
    show_envvar=True,
    help="Address of the server.",
)
key_option = click.option("--api-key", envvar="RUNLANE_API_KEY", show_envvar=True, help="Your API key.")


@app.command("ls")
@click.option("--thread", help="Only the runs of this thread.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Number of runs, newest first."
)
@url_option
@key_option
@options.as_json
def list_runs(*, thread: str | None, limit: int, url: str, api_key: str | None, as_json: bool) -> None:
    """List recent runs."""
    with reporting(), _client(url, api_key) as client:
        runs = client.runs(thread, limit=limit)
    if as_json:
        click.echo(json.dumps(runs, indent=2))
        return
    for run in runs:
        click.echo(_line(run))
    if not runs:
        click.echo("No runs.", err=True)


@app.command()
@click.argument("run_id")
@url_option
@key_option
def show(run_id: str, *, url: str, api_key: str | None) -> None:
    """Print a run as JSON."""
    with reporting(), _client(url, api_key) as client:
        click.echo(json.dumps(client.run(run_id), indent=2))


@app.command()
@click.argument("run_id")
@click.option("--after", default="-1", show_default=True, help="The id of the last event that you have seen.")
@url_option
@key_option
def tail(run_id: str, *, after: str, url: str, api_key: str | None) -> None:
    """Print a run's events from the first one, and follow it to its end."""
    with reporting(), _client(url, api_key) as client:
        for event in client.events(run_id, after=after):
            click.echo(f"{click.style(event.id or '-', dim=True)} {click.style(event.name, fg='cyan')} {event.data}")


@app.command()
@click.argument("run_id")
@click.option(
    "--action",
    type=click.Choice(["interrupt", "rollback"]),
    default="interrupt",
    show_default=True,
    help="Keep what the run did so far, or undo it.",
)
@click.option("--wait/--no-wait", default=True, show_default=True, help="Return once the run's code has stopped.")
@url_option
@key_option
def cancel(run_id: str, *, action: str, wait: bool, url: str, api_key: str | None) -> None:
    """Cancel a run."""
    with reporting(), _client(url, api_key) as client:
        status = client.cancel(run_id, action=action, wait=wait)
    click.echo(f"{run_id} {status}")


def _client(url: str, api_key: str | None) -> Client:
    from runlane.cli.client import Client

    return Client(url, api_key)


def _line(run: dict[str, Any]) -> str:
    colour = {"success": "green", "error": "red", "timeout": "red", "running": "cyan"}.get(run["status"], "yellow")
    graph = (run.get("metadata") or {}).get("graph_id") or run["assistant_id"]
    status = click.style(f"{run['status']:<11}", fg=colour)
    return f"{run['run_id']}  {status}  {run['created_at'][:19]}  {graph:<20}  thread {run['thread_id']}"
