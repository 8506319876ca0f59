"""``runlane interrupts``: what graphs ask people, on all threads of a running server, and answers to it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click

from runlane.cli import options
from runlane.cli.bulk import Json
from runlane.cli.connection import with_server
from runlane.cli.output import Column, age, print_rows
from runlane.cli.runs import started
from runlane.cli.values import JSON
from runlane.errors import ConfigurationError

if TYPE_CHECKING:
    from runlane.cli.client import Client

COLUMNS: Final = (
    Column("THREAD", lambda asked: asked["thread_id"]),
    Column("INTERRUPT", lambda asked: asked["id"]),
    Column("AGE", lambda asked: age(asked["since"])),
    Column("GRAPH", lambda asked: asked["graph_id"]),
    Column("OWNER", lambda asked: asked["owner"], flexible=True),
    Column("QUESTION", lambda asked: json.dumps(asked["value"]), flexible=True),
)


@click.group(name="interrupts", cls=options.Commands)
def app() -> None:
    """See what graphs ask people, and answer it."""


@app.command("ls", epilog="Example: runlane interrupts ls")
@click.option("--thread", help="Only of this thread.")
@click.option("--owner", help="Only of threads of this owner.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Number of threads.")
@options.as_json
@with_server
def list_interrupts(*, client: Client, thread: str | None, owner: str | None, limit: int, as_json: bool) -> None:
    """List open interrupts, those that have waited the longest first."""
    print_rows(
        _open(client, thread_id=thread, owner=owner, limit=limit), COLUMNS, as_json=as_json, none="Nothing is asked."
    )


@app.command(epilog="Example: runlane interrupts answer THREAD_ID '\"yes\"'")
@click.argument("thread_id")
@click.argument("value", type=JSON, metavar="ANSWER")
@click.option("--interrupt", help="Its id, if the thread has more than one open interrupt.")
@click.option("--wait", "waits", is_flag=True, help="Wait for the end, and print the result; see runs wait.")
@options.as_json
@with_server
def answer(thread_id: str, value: Any, *, client: Client, interrupt: str | None, waits: bool, as_json: bool) -> None:
    """Answer the open interrupt of a thread with JSON (@FILE, or - for stdin), and start the run that goes on.

    An interrupt takes one answer. With an operator's key the run is for the owner of the run that asked. A tool call is
    approved with '{"decisions": [{"type": "approve"}]}'.
    """
    from runlane.cli.client import path_id

    path = f"/threads/{path_id('thread', thread_id)}/interrupts/answer"
    if interrupt is None:
        interrupt = _only(thread_id, [asked["id"] for asked in _open(client, thread_id=thread_id)])
    run = client.post(path, "thread", thread_id, answers={interrupt: value})
    started(client, run, waits, as_json=as_json)


def _open(client: Client, **where: Any) -> list[Json]:
    """Return the open interrupts of the threads that are found, each with the thread that asks."""
    threads = client.post("/interrupts/search", **where)
    return [{**thread, **asked} for thread in threads for asked in thread["interrupts"]]


def _only(thread_id: str, interrupt_ids: list[str]) -> str:
    if not interrupt_ids:
        raise ConfigurationError(
            f"Thread {thread_id} asks nothing now; see what is asked with `runlane interrupts ls`."
        )
    if len(interrupt_ids) > 1:
        ids = ", ".join(interrupt_ids)
        raise ConfigurationError(
            f"Thread {thread_id} asks {len(interrupt_ids)} things; choose one with --interrupt: {ids}."
        )
    return interrupt_ids[0]
