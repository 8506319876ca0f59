"""``runlane runs``: find, follow, explain, start and stop runs from a terminal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import click

from runlane.cli import options
from runlane.cli.bulk import Json, act, checked, is_one, on_many, run_filters
from runlane.cli.connection import with_server
from runlane.cli.output import (
    COST,
    Column,
    age,
    duration,
    error_line,
    money,
    print_fields,
    print_json,
    print_rows,
    safe,
)
from runlane.cli.reporting import exit_for
from runlane.cli.values import JSON
from runlane.errors import ConfigurationError

if TYPE_CHECKING:
    from runlane.cli.client import Client


@click.group(name="runs", cls=options.Commands)
def app() -> None:
    """Find, follow, explain, start and stop runs of a running server."""


def cause(run: Json) -> str | None:
    """Return why a run is where it is, in a few words."""
    waiting = run.get("waiting_on") or {}
    if waiting.get("reason") == "run":
        return f"waits for run {waiting['run_id']}"
    if waiting.get("reason") == "delay":
        return f"waits until {waiting['until'][:19]}"
    if waiting:
        return "waits for a worker"  # that is full, or is none with its graph; an explanation says which
    if run["status"] == "running" and run.get("cancel"):
        return f"{run['cancel']['reason']}, code not stopped"
    reason: str | None = run.get("end_reason")
    return reason


#: Colours of levels at a terminal.
LEVELS: Final = {"debug": "bright_black", "warning": "yellow", "error": "red", "critical": "red"}
COLUMNS: Final = (
    Column("RUN", lambda run: run["run_id"]),
    Column("STATUS", lambda run: run["status"]),
    Column("AGE", lambda run: age(run["created_at"])),
    Column("DURATION", duration),
    Column("GRAPH", lambda run: run["graph_id"] or run["assistant_id"]),
    Column("CAUSE", cause, flexible=True),
    Column("ERROR", error_line, flexible=True),
    Column("THREAD", lambda run: run["thread_id"], flexible=True),
)


@app.command("ls", epilog="Example: runlane runs ls --status error --since 1d --text RateLimit")
@run_filters
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Number of runs, newest first."
)
@options.as_json
@with_server
def list_runs(*, client: Client, where: Json, limit: int, as_json: bool) -> None:
    """List runs of all threads, newest first. There is a column for their cost if the server has prices."""
    found = client.runs(limit=limit, **checked(where))
    priced = any(run.get("cost") is not None for run in found)
    print_rows(found, (*COLUMNS, COST) if priced else COLUMNS, as_json=as_json, none="No runs.")


@app.command(epilog="Example: runlane runs show RUN_ID")
@click.argument("run_id")
@options.as_json
@with_server
def show(run_id: str, *, client: Client, as_json: bool) -> None:
    """Show a run: what happened to it, and what it used. With --json also its request."""
    run = client.run(run_id)
    if as_json:
        print_json(run)
        return
    usage = run.get("usage") or {}
    print_fields(
        {
            "run": run["run_id"],
            "status": run["status"],
            "cause": cause(run),
            "error": error_line(run),
            "thread": run["thread_id"],
            "assistant": run["assistant_id"],
            "graph": run["metadata"].get("graph_id"),
            "attempt": str(run["attempt"]),
            "admitted": run["created_at"],
            "started": run["started_at"],
            "ended": run["ended_at"],
            "duration": duration(run),
            "tokens": str(usage["total_tokens"]) if usage.get("total_tokens") else None,
            "cost": money(run),
            "model": run["model_name"],
            "cancel": run["cancel"],
            "metadata": run["metadata"],
        }
    )


@app.command(epilog="Example: runlane runs tail RUN_ID")
@click.argument("run_id")
@click.option("--after", default="-1", show_default=True, help="The id of the last event that you have seen.")
@options.as_json
@with_server
def tail(run_id: str, *, client: Client, after: str, as_json: bool) -> None:
    """Print a run's events from the first one, and follow it to its end.

    With --json each event is a line: an object with id, event and data.
    """
    for event in client.events(run_id, after=after):
        if as_json:
            click.echo(json.dumps({"id": event.id, "event": event.name, "data": json.loads(event.data or "null")}))
        else:
            name = click.style(safe(event.name), fg="cyan")
            click.echo(f"{click.style(safe(event.id or '-'), dim=True)} {name} {safe(event.data)}")


@app.command(epilog="Example: runlane runs logs RUN_ID --follow")
@click.argument("run_id")
@click.option("--follow", is_flag=True, help="Go on until the run has ended.")
@options.as_json
@with_server
def logs(run_id: str, *, client: Client, follow: bool, as_json: bool) -> None:
    """Print what a run has logged and printed, with tracebacks.

    The newest records of each attempt are kept. With --json each record is a line.
    """
    last = (0, 0)
    for record in client.log_records(run_id, follow=follow):
        if as_json:
            click.echo(json.dumps(record))
            continue
        attempt, number = record["attempt"], record["number"]
        missing = number - 1 - (last[1] if attempt == last[0] else 0)
        if missing:
            click.echo(click.style(f"... {missing} earlier records were not kept", dim=True))
        last = (attempt, number)
        level = click.style(f"{safe(record['level']).upper():<8}", fg=LEVELS.get(record["level"]))
        text = "(hidden)" if record["text"] is None else _lines(record["text"])
        click.echo(f"{click.style(safe(record['at'])[:23], dim=True)} {level} {safe(record['logger'])}  {text}")
        if record["exception"]:
            click.echo(_lines(record["exception"]))


def _lines(text: str) -> str:
    return "\n".join(safe(line) for line in text.split("\n"))


@app.command(epilog="Example: runlane runs explain RUN_ID")
@click.argument("run_id")
@options.as_json
@with_server
def explain(run_id: str, *, client: Client, as_json: bool) -> None:
    """Explain a run: who admitted it, what it waited for, who executed it, and why it ended."""
    from runlane.cli.client import path_id

    found = client.get(f"/runs/{path_id('run', run_id)}/explain", "run", run_id)
    if as_json:
        print_json(found)
        return
    click.echo(safe(found["sentence"]))
    for step in found["steps"]:
        click.echo(f"{click.style(safe(step['at'])[:19], dim=True)}  {safe(step['sentence'])}")
    for remedy in found["remedies"]:
        click.echo(safe(f"To change this: {remedy['does']} ({remedy['command']})"))


@app.command(epilog="Example: runlane runs cancel --graph agent --status pending --until 1h")
@click.argument("run_ids", nargs=-1, metavar="[RUN_ID]...")
@click.option(
    "--action",
    type=click.Choice(["interrupt", "rollback"]),
    default="interrupt",
    show_default=True,
    help="Keep what the run did so far, or undo it.",
)
@click.option(
    "--wait/--no-wait",
    default=True,
    show_default=True,
    help="Return once the run's code has stopped, if it is about one run.",
)
@on_many
@options.as_json
@with_server
def cancel(
    *,
    client: Client,
    run_ids: tuple[str, ...],
    where: Json,
    action: str,
    wait: bool,
    reason: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Cancel a run, or those that match the options, after a preview.

    Runs that have ended are left as they are.
    """
    if not is_one(run_ids, where) or reason is not None:
        wanted = "cancel" if action == "interrupt" else action
        act(client, wanted, run_ids, where, reason=reason, yes=yes, as_json=as_json)
        return
    status = client.cancel(run_ids[0], action=action, wait=wait)
    if as_json:
        print_json({"run_id": run_ids[0], "result": status})
    else:
        click.echo(f"{run_ids[0]} {safe(status)}")


@app.command(epilog="Example: runlane runs wait RUN_ID")
@click.argument("run_id")
@options.as_json
@with_server
def wait(run_id: str, *, client: Client, as_json: bool) -> None:
    """Wait until a run has ended, and print its result.

    Exit code 0: it succeeded, 6: it failed or timed out, 7: it was interrupted.
    """
    _wait(client, run_id, as_json=as_json)


def _wait(client: Client, run_id: str, *, as_json: bool) -> None:
    result = client.join(run_id)
    run = client.run(run_id)
    if as_json:
        print_json({"run_id": run_id, "status": run["status"], "end_reason": run["end_reason"], "result": result})
    else:
        print_json(result)
        click.echo(f"{run_id} {run['status']} ({run['end_reason']})", err=True)
    exit_for(run)


@app.command(epilog="Example: runlane runs start steps --input '{\"steps\": 2}' --wait")
@click.argument("assistant")
@click.option("--input", "given", type=JSON, help="Input of the graph: JSON, @FILE, or - for stdin.")
@click.option("--thread", help="Run on this thread; created if missing.  [default: a thread of its own]")
@click.option("--config", type=JSON, help="Configuration: JSON, @FILE, or - for stdin.")
@click.option("--context", type=JSON, help="Context: JSON, @FILE, or - for stdin.")
@click.option("--metadata", type=JSON, help="Metadata: JSON, @FILE, or - for stdin.")
@click.option("--resume", type=JSON, help="Answer the interrupt of the thread with this JSON.")
@click.option("--wait", "waits", is_flag=True, help="Wait for the end, and print the result; see runs wait.")
@options.as_json
@with_server
def start(
    assistant: str,
    *,
    client: Client,
    given: Any,
    thread: str | None,
    config: Any,
    context: Any,
    metadata: Any,
    resume: Any,
    waits: bool,
    as_json: bool,
) -> None:
    """Start a run of an assistant, which is named by its id or its graph."""
    from runlane.cli.client import path_id

    if resume is not None and thread is None:
        raise ConfigurationError("--resume answers the interrupt of a thread: name it with --thread.")
    body: Json = {
        "assistant_id": assistant,
        "input": given,
        "config": config,
        "context": context,
        "metadata": metadata,
        "command": None if resume is None else {"resume": resume},
    }
    path = f"/threads/{path_id('thread', thread or str(uuid4()))}/runs"
    started(client, client.post(path, "assistant", assistant, if_not_exists="create", **body), waits, as_json=as_json)


def started(client: Client, run: Json, waits: bool, *, as_json: bool) -> None:
    """Print *run*, which was started; if the caller *waits*, its result once it has ended."""
    if waits:
        _wait(client, run["run_id"], as_json=as_json)
    elif as_json:
        print_json(run)
    else:
        click.echo(f"{run['run_id']} {run['status']} on thread {run['thread_id']}")


@app.command(epilog="Example: runlane runs retry --status error --since 1h --text RateLimit")
@click.argument("run_ids", nargs=-1, metavar="[RUN_ID]...")
@click.option(
    "--from-start", is_flag=True, help="Send the same input again, also if the run got as far as its first checkpoint."
)
@click.option("--wait", "waits", is_flag=True, help="Wait for the end of one run, and print the result; see runs wait.")
@on_many
@options.as_json
@with_server
def retry(
    *,
    client: Client,
    run_ids: tuple[str, ...],
    where: Json,
    from_start: bool,
    waits: bool,
    reason: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Start a new run in place of one that ended, or of those that match the options, after a preview.

    It goes on from the newest checkpoint of the thread if that is of the run, else it sends the same input again.
    Secrets of the first run's configuration are not kept, and not sent again.
    """
    from runlane.cli.client import path_id

    again = True if from_start else None
    if not is_one(run_ids, where) or reason is not None:
        if waits:
            raise ConfigurationError("--wait waits for one run: name one, and leave out the options that select runs.")
        act(client, "retry", run_ids, where, from_start=again, reason=reason, yes=yes, as_json=as_json)
        return
    path = f"/runs/{path_id('run', run_ids[0])}/retry"
    started(client, client.post(path, "run", run_ids[0], from_start=again), waits, as_json=as_json)
