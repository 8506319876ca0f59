"""``runlane runs``: what runs on a server, seen and stopped from a terminal."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runlane.cli.reporting import reporting

if TYPE_CHECKING:
    from runlane.cli.client import Client

app = typer.Typer(help="See and stop runs of a running server.", no_args_is_help=True)

UrlOption = Annotated[str, typer.Option(help="Where the server is.", envvar="RUNLANE_URL")]
KeyOption = Annotated[str | None, typer.Option("--api-key", help="Who you are.", envvar="RUNLANE_API_KEY")]
RunArgument = Annotated[str, typer.Argument(help="The run's id.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_URL = "http://127.0.0.1:2024"


class Action(StrEnum):
    """What is left of a cancelled run: what it did so far, or nothing."""

    INTERRUPT = "interrupt"
    ROLLBACK = "rollback"


@app.command("ls")
def list_runs(
    *,
    thread: Annotated[str | None, typer.Option("--thread", help="Only the runs of this thread.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the newest first.")] = 20,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List recent runs."""
    with reporting(), _client(url, api_key) as client:
        runs = client.runs(thread, limit=limit)
    if as_json:
        typer.echo(json.dumps(runs, indent=2))
        return
    for run in runs:
        typer.echo(_line(run))
    if not runs:
        typer.echo("No runs.", err=True)


@app.command()
def show(run_id: RunArgument, *, url: UrlOption = DEFAULT_URL, api_key: KeyOption = None) -> None:
    """Print a run as JSON."""
    with reporting(), _client(url, api_key) as client:
        typer.echo(json.dumps(client.run(run_id), indent=2))


@app.command()
def tail(
    run_id: RunArgument,
    *,
    after: Annotated[str, typer.Option("--after", help="The id of the last event that you have seen.")] = "-1",
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
) -> None:
    """Print a run's events from its first one on, and follow it to its end."""
    with reporting(), _client(url, api_key) as client:
        for event in client.events(run_id, after=after):
            typer.echo(f"{typer.style(event.id or '-', dim=True)} {typer.style(event.name, fg='cyan')} {event.data}")


@app.command()
def cancel(
    run_id: RunArgument,
    *,
    action: Annotated[Action, typer.Option(help="Keep what the run did so far, or undo it.")] = Action.INTERRUPT,
    wait: Annotated[bool, typer.Option(help="Return once the run's code has stopped.")] = True,
    url: UrlOption = DEFAULT_URL,
    api_key: KeyOption = None,
) -> None:
    """Stop a run."""
    with reporting(), _client(url, api_key) as client:
        status = client.cancel(run_id, action=action.value, wait=wait)
    typer.echo(f"{run_id} {status}")


def _client(url: str, api_key: str | None) -> Client:
    from runlane.cli.client import Client

    return Client(url, api_key)


def _line(run: dict[str, Any]) -> str:
    colour = {"success": "green", "error": "red", "timeout": "red", "running": "cyan"}.get(run["status"], "yellow")
    graph = (run.get("metadata") or {}).get("graph_id") or run["assistant_id"]
    status = typer.style(f"{run['status']:<11}", fg=colour)
    return f"{run['run_id']}  {status}  {run['created_at'][:19]}  {graph:<20}  thread {run['thread_id']}"
