"""``runlane store``: items of the long-term store of a running server. Namespaces are labels joined with periods."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click

from runlane.cli import options
from runlane.cli.connection import with_server
from runlane.cli.output import Column, age, print_json, print_rows
from runlane.cli.values import JSON, Finite
from runlane.errors import ConfigurationError, NotFound

if TYPE_CHECKING:
    from runlane.cli.client import Client

COLUMNS: Final = (
    Column("NAMESPACE", lambda item: ".".join(item["namespace"])),
    Column("KEY", lambda item: item["key"]),
    Column("CHANGED", lambda item: age(item["updated_at"])),
    Column("VALUE", lambda item: json.dumps(item["value"]), flexible=True),
)


@click.group(name="store", cls=options.Commands)
def app() -> None:
    """Read and write items of long-term memory of a running server."""


@app.command(epilog="Example: runlane store put notes.oslo weather '{\"rain\": true}'")
@click.argument("namespace")
@click.argument("key")
@click.argument("value", type=JSON)
@click.option("--ttl", type=Finite(), help="Minutes until the item is deleted.")
@options.as_json
@with_server
def put(namespace: str, key: str, value: Any, *, client: Client, ttl: float | None, as_json: bool) -> None:
    """Write an item. VALUE is a JSON object, @FILE, or - for stdin."""
    address = {"namespace": _labels(namespace), "key": key}
    client.send("PUT", "/store/items", body={**address, "value": value, **({} if ttl is None else {"ttl": ttl})})
    if as_json:
        print_json({"written": True, **address})


@app.command(epilog="Example: runlane store get notes.oslo weather")
@click.argument("namespace")
@click.argument("key")
@options.always_json
@with_server
def get(namespace: str, key: str, *, client: Client) -> None:
    """Print an item as JSON."""
    found = client.get("/store/items", "item", key, params={"namespace": namespace, "key": key})
    if found is None:
        raise NotFound("item", f"{namespace} {key}")
    print_json(found)


@app.command("ls", epilog="Example: runlane store ls notes")
@click.argument("prefix", default="")
@click.option("--depth", type=click.IntRange(1), help="Labels of a namespace that are told apart.")
@options.as_json
@with_server
def list_namespaces(prefix: str, *, client: Client, depth: int | None, as_json: bool) -> None:
    """List namespaces, of those below PREFIX."""
    found = client.post("/store/namespaces", prefix=_labels(prefix), max_depth=depth, limit=1000)["namespaces"]
    if as_json:
        print_json(found)
        return
    columns = (Column("NAMESPACE", lambda one: ".".join(one["labels"])),)
    print_rows([{"labels": labels} for labels in found], columns, as_json=False, none="No namespaces.")


@app.command(epilog="Example: runlane store search notes --limit 5")
@click.argument("prefix", default="")
@click.option("--query", help="Find by meaning, if the store has an index.")
@click.option("--filter", "wanted", type=JSON, help="Only items whose value has these fields.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Number of items.")
@options.as_json
@with_server
def search(prefix: str, *, client: Client, query: str | None, wanted: Any, limit: int, as_json: bool) -> None:
    """Find items below the namespace PREFIX."""
    body = {"namespace_prefix": _labels(prefix), "query": query, "filter": wanted, "limit": limit}
    found = client.post("/store/items/search", **body)["items"]
    print_rows(found, COLUMNS, as_json=as_json, none="No items.")


@app.command(epilog="Example: runlane store delete notes.oslo weather")
@click.argument("namespace")
@click.argument("key")
@options.as_json
@with_server
def delete(namespace: str, key: str, *, client: Client, as_json: bool) -> None:
    """Delete an item."""
    address = {"namespace": _labels(namespace), "key": key}
    client.send("DELETE", "/store/items", body=address)
    if as_json:
        print_json({"deleted": True, **address})


def _labels(namespace: str) -> list[str]:
    """Return the labels of a namespace; of none for an empty text.

    Raises:
        ConfigurationError: A label is empty.
    """
    labels = namespace.split(".") if namespace else []
    if not all(labels):
        raise ConfigurationError(
            f"The namespace {namespace!r} has an empty label; labels are joined with single periods, as in notes.oslo."
        )
    return labels
