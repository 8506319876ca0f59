"""``runlane assistants``: assistants of a running server, and their versions."""

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
    Column("ASSISTANT", lambda one: one["assistant_id"]),
    Column("GRAPH", lambda one: one["graph_id"]),
    Column("NAME", lambda one: one["name"], flexible=True),
    Column("VERSION", lambda one: one["version"]),
    Column("CHANGED", lambda one: age(one["updated_at"])),
)


@click.group(name="assistants", cls=options.Commands)
def app() -> None:
    """Manage assistants of a running server: graphs with a configuration, in versions."""


@app.command("ls", epilog="Example: runlane assistants ls")
@click.option("--graph", help="Only assistants of this graph.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Number of assistants.")
@options.as_json
@with_server
def list_assistants(*, client: Client, graph: str | None, limit: int, as_json: bool) -> None:
    """List assistants."""
    found = client.search("/assistants/search", limit=limit, graph_id=graph)
    print_rows(found, COLUMNS, as_json=as_json, none="No assistants.")


@app.command(epilog="Example: runlane assistants show ASSISTANT_ID")
@click.argument("assistant_id")
@options.as_json
@with_server
def show(assistant_id: str, *, client: Client, as_json: bool) -> None:
    """Show an assistant."""
    found = client.get(_path(assistant_id), "assistant", assistant_id)
    print_json(found) if as_json else print_fields(found)


@app.command(epilog="Example: runlane assistants versions ASSISTANT_ID")
@click.argument("assistant_id")
@click.option("--set", "version", type=int, help="Make this version the newest one again.")
@options.as_json
@with_server
def versions(assistant_id: str, *, client: Client, version: int | None, as_json: bool) -> None:
    """List the versions of an assistant, newest first."""
    if version is not None:
        client.post(f"{_path(assistant_id)}/latest", "assistant", assistant_id, version=version)
    found = client.post(f"{_path(assistant_id)}/versions", "assistant", assistant_id, limit=1000)
    print_rows(found, COLUMNS, as_json=as_json, none="No versions.")


@app.command(epilog="Example: runlane assistants create steps --name Careful")
@click.argument("graph")
@click.option("--name", help="Its name.")
@click.option("--description", help="Its description.")
@click.option("--config", type=JSON, help="Its configuration: JSON, @FILE, or - for stdin.")
@click.option("--context", type=JSON, help="Its context: JSON, @FILE, or - for stdin.")
@click.option("--metadata", type=JSON, help="Its metadata: JSON, @FILE, or - for stdin.")
@options.as_json
@with_server
def create(graph: str, *, client: Client, as_json: bool, **fields: Any) -> None:
    """Create an assistant of a graph."""
    made = client.post("/assistants", "graph", graph, graph_id=graph, **fields)
    print_json(made) if as_json else click.echo(made["assistant_id"])


@app.command(epilog="Example: runlane assistants schemas ASSISTANT_ID")
@click.argument("assistant_id")
@options.always_json
@with_server
def schemas(assistant_id: str, *, client: Client) -> None:
    """Print the JSON Schemas of an assistant's input, output, state, configuration and context."""
    print_json(client.get(f"{_path(assistant_id)}/schemas", "assistant", assistant_id))


@app.command(epilog="Example: runlane assistants delete ASSISTANT_ID --yes")
@click.argument("assistant_id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.as_json
@with_server
def delete(assistant_id: str, *, client: Client, yes: bool, as_json: bool) -> None:
    """Delete an assistant with its versions. Its threads and runs stay."""
    confirm(f"Delete assistant {assistant_id}?", yes=yes)
    client.send("DELETE", _path(assistant_id), "assistant", assistant_id)
    print_done({"deleted": True, "assistant_id": assistant_id}, f"Deleted {assistant_id}.", as_json=as_json)


def _path(assistant_id: str) -> str:
    from runlane.cli.client import path_id

    return f"/assistants/{path_id('assistant', assistant_id)}"
