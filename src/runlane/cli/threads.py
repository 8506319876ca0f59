"""``runlane threads``: find, read, change, export and import threads of a running server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from runlane.cli import options
from runlane.cli.connection import with_server
from runlane.cli.options import PATH
from runlane.cli.output import (
    Column,
    age,
    counted,
    error_line,
    new_file,
    print_done,
    print_fields,
    print_json,
    print_rows,
    progress,
)
from runlane.cli.repairing import repair
from runlane.cli.reporting import confirm, interruptible
from runlane.cli.values import JSON, JSON_OBJECT
from runlane.errors import ConfigurationError

if TYPE_CHECKING:
    from runlane.cli.client import Client

Json = dict[str, Any]
STATUSES: Final = ("idle", "busy", "interrupted", "error")
#: Threads that one request prunes.
PRUNED: Final = 100
#: States of a thread that are exported.
HISTORY: Final = 1000
_GRAPH: Final = Column("GRAPH", lambda thread: thread["metadata"].get("graph_id"))
COLUMNS: Final = (
    Column("THREAD", lambda thread: thread["thread_id"]),
    Column("STATUS", lambda thread: thread["status"]),
    Column("CHANGED", lambda thread: age(thread["updated_at"])),
    Column("AGE", lambda thread: age(thread["created_at"])),
    _GRAPH,
    Column("ERROR", error_line, flexible=True),
)
STATES: Final = (
    Column("CHECKPOINT", lambda state: (state["checkpoint"] or {}).get("checkpoint_id")),
    Column("STEP", lambda state: (state["metadata"] or {}).get("step")),
    Column("AGE", lambda state: age(state["created_at"])),
    Column("SOURCE", lambda state: (state["metadata"] or {}).get("source")),
    Column("NEXT", lambda state: ", ".join(state["next"]), flexible=True),
)
#: What a list of threads reads: not their values, which can be large.
LISTED: Final = ("thread_id", "status", "created_at", "updated_at", "metadata", "error")


class _Thread(msgspec.Struct):
    thread_id: str
    metadata: dict[str, Any]
    values: Any


class _Exported(msgspec.Struct):
    """What a line of an exported file is read for."""

    thread: _Thread


_status = click.option("--status", type=click.Choice(STATUSES), help="Only threads with this status.")
_metadata = click.option("--metadata", type=JSON_OBJECT, help="Only threads whose metadata contains this JSON object.")
_graph = click.option("--graph", help="Only threads on which this graph ran last.")


def _where(status: str | None, metadata: Any, graph: str | None) -> Json:
    wanted = {**(metadata or {}), **({} if graph is None else {"graph_id": graph})}
    return {"status": status, "metadata": wanted or None}


@click.group(name="threads", cls=options.Commands)
def app() -> None:
    """Find, read, change, export, import and repair threads."""


app.add_command(repair)


@app.command("ls", epilog="Example: runlane threads ls --status error")
@_status
@_graph
@_metadata
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Number of threads.")
@options.as_json
@with_server
def list_threads(
    *, client: Client, status: str | None, graph: str | None, metadata: Any, limit: int, as_json: bool
) -> None:
    """List threads, the last changed first."""
    where = _where(status, metadata, graph)
    found = client.search("/threads/search", limit=limit, select=LISTED, **where)
    print_rows(found, COLUMNS, as_json=as_json, none="No threads.")


@app.command(epilog="Example: runlane threads show THREAD_ID")
@click.argument("thread_id")
@options.as_json
@with_server
def show(thread_id: str, *, client: Client, as_json: bool) -> None:
    """Show a thread, and the bytes that are stored of it. With --json also its values."""
    path = _path(thread_id)
    thread, storage = client.get(path, "thread", thread_id), client.get(f"{path}/storage", "thread", thread_id)
    if as_json:
        print_json({**thread, "storage": storage})
        return
    print_fields(
        {
            "thread": thread["thread_id"],
            "status": thread["status"],
            "created": thread["created_at"],
            "changed": thread["updated_at"],
            "error": thread["error"],
            "interrupts": thread["interrupts"] or None,
            "values": ", ".join(thread["values"]) if isinstance(thread["values"], dict) else None,
            "stored bytes": str(storage["total_bytes"]),
            "metadata": thread["metadata"],
        }
    )


@app.command(epilog="Example: runlane threads state THREAD_ID")
@click.argument("thread_id")
@click.option("--checkpoint", help="The state at this checkpoint.  [default: the newest]")
@click.option("--set", "values", type=JSON, help="First write these values (JSON, @FILE, or - for stdin).")
@click.option("--as-node", help="Write as if this node had returned them.")
@options.always_json
@with_server
def state(thread_id: str, *, client: Client, checkpoint: str | None, values: Any, as_node: str | None) -> None:
    """Print a thread's state as JSON, or change it."""
    path = f"{_path(thread_id)}/state"
    if values is not None:
        client.post(path, "thread", thread_id, values=values, as_node=as_node, checkpoint_id=checkpoint)
        checkpoint = None
    print_json(client.get(path if checkpoint is None else f"{path}/{checkpoint}", "thread", thread_id))


@app.command(epilog="Example: runlane threads history THREAD_ID --limit 5")
@click.argument("thread_id")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Number of states.")
@options.as_json
@with_server
def history(thread_id: str, *, client: Client, limit: int, as_json: bool) -> None:
    """List a thread's states, newest first."""
    found = client.get(f"{_path(thread_id)}/history", "thread", thread_id, params={"limit": limit})
    print_rows(found, STATES, as_json=as_json, none="No states.")


@app.command(epilog="Example: runlane threads delete THREAD_ID --yes")
@click.argument("thread_ids", metavar="THREAD_ID...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.as_json
@with_server
def delete(thread_ids: tuple[str, ...], *, client: Client, yes: bool, as_json: bool) -> None:
    """Stop the runs of threads, and delete the threads with all that they have."""
    threads = counted(len(thread_ids), "thread")
    confirm(f"Delete {threads}?", yes=yes)
    with progress("Deleting threads", len(thread_ids)) as advance:
        for thread_id in thread_ids:
            client.send("DELETE", _path(thread_id), "thread", thread_id)
            advance(1)
    print_done({"deleted": True, "thread_ids": thread_ids}, f"Deleted {threads}.", as_json=as_json)


@app.command(epilog="Example: runlane threads prune --status idle --strategy keep_latest --yes")
@_status
@_graph
@_metadata
@click.option(
    "--strategy",
    type=click.Choice(["delete", "keep_latest"]),
    default="keep_latest",
    show_default=True,
    help="Delete the threads, or only their history.",
)
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="Number of threads.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.as_json
@with_server
def prune(
    *,
    client: Client,
    status: str | None,
    graph: str | None,
    metadata: Any,
    strategy: str,
    limit: int,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete threads, or their history. Threads with an active run are left as they are."""
    where = _where(status, metadata, graph)
    found = client.search("/threads/search", limit=limit, select=("thread_id",), **where)
    ids = [thread["thread_id"] for thread in found]
    confirm(f"Prune {counted(len(ids), 'thread')} ({strategy})?", yes=yes)
    pruned, busy = 0, list[str]()
    with progress("Pruning threads", len(ids)) as advance:
        for first in range(0, len(ids), PRUNED):
            answer = client.post("/threads/prune", thread_ids=ids[first : first + PRUNED], strategy=strategy)
            pruned += answer["pruned_count"]
            busy += answer["busy"]
            advance(len(ids[first : first + PRUNED]))
    if as_json:
        print_json({"pruned_count": pruned, "busy": busy})
    else:
        click.echo(f"Pruned {counted(pruned, 'thread')}, and left {counted(len(busy), 'busy thread')}.")


@app.command(epilog="Example: runlane threads export threads.jsonl --status idle")
@click.argument("file", type=PATH)
@_status
@_graph
@_metadata
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="Number of threads.")
@options.as_json
@with_server
def export(
    file: Path, *, client: Client, status: str | None, graph: str | None, metadata: Any, limit: int, as_json: bool
) -> None:
    """Write threads with their states to FILE, one JSON object per line.

    FILE must not exist, or is - for stdout. If it cannot be written to its end, it is removed. --json tells how many.
    """
    to_stdout = str(file) == "-"
    if to_stdout and as_json:
        raise ConfigurationError("The threads go to stdout, where --json prints how many there are; name a file.")
    where = _where(status, metadata, graph)
    found = client.search("/threads/search", limit=limit, **where)
    left = "What stdout has is not all of it." if to_stdout else f"The unfinished file {file} was removed."
    with (
        interruptible(f"{left} Repeat the command."),
        new_file(file) as target,
        progress("Exporting threads", len(found)) as advance,
    ):
        for thread in found:
            path = f"{_path(thread['thread_id'])}/history"
            states = client.get(path, "thread", thread["thread_id"], params={"limit": HISTORY})
            target.write(json.dumps({"thread": thread, "history": states}) + "\n")
            advance(1)
    if as_json:
        print_json({"exported": len(found), "file": str(file)})
    else:
        click.echo(f"Exported {counted(len(found), 'thread')} to {file}.", err=to_stdout)


@app.command("import", epilog="Example: runlane threads import threads.jsonl")
@click.argument("file", type=PATH)
@options.as_json
@with_server
def import_(file: Path, *, client: Client, as_json: bool) -> None:
    """Create the threads of an exported FILE, with their metadata and newest values.

    Threads that exist are left as they are. Older states are in the file for reading, and are not created.
    """
    exported = _read(file)
    made = 0
    left = "Threads that were imported stay. Repeat the command to import the rest."
    with interruptible(left), progress("Importing threads", len(exported)) as advance:
        for one in exported:
            made += _import(client, one)
            advance(1)
    if as_json:
        print_json({"imported": made, "existed": len(exported) - made})
    else:
        click.echo(f"Imported {counted(made, 'thread')}; {len(exported) - made} existed.")


def _read(file: Path) -> list[_Thread]:
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}.") from error
    return [_exported(line, f"Line {number} of {file}") for number, line in enumerate(lines, 1) if line.strip()]


def _exported(line: bytes, where: str) -> _Thread:
    try:
        return msgspec.json.decode(line, type=_Exported).thread
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{where} is no thread as `runlane threads export` writes them: {error}.") from error


def _import(client: Client, thread: _Thread) -> bool:
    """Create *thread*, and return whether it did not exist."""
    thread_id, metadata = thread.thread_id, thread.metadata
    if client.search("/threads/search", limit=1, ids=[thread_id], select=("thread_id",)):
        return False
    body: Json = {"thread_id": thread_id, "metadata": metadata}
    if thread.values and metadata.get("graph_id"):
        body["supersteps"] = [{"updates": [{"values": thread.values, "as_node": "__start__"}]}]
    client.post("/threads", "graph", metadata.get("graph_id", ""), **body)
    return True


def _path(thread_id: str) -> str:
    from runlane.cli.client import path_id

    return f"/threads/{path_id('thread', thread_id)}"
