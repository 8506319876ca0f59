"""``runlane status`` and ``runlane top``: a running server at a glance."""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from runlane.cli import options
from runlane.cli.connection import with_server
from runlane.cli.output import (
    Column,
    age,
    duration,
    error_line,
    print_fields,
    print_json,
    print_table,
    rich_table,
    safe,
    span,
)
from runlane.cli.reporting import EXIT_FAILED, ServerError, ServerRefused
from runlane.cli.runs import cause
from runlane.cli.terminal import pressed_keys
from runlane.cli.values import Finite
from runlane.lifecycle import FAILED, RunStatus

if TYPE_CHECKING:
    from runlane.cli.client import Client

Json = dict[str, Any]
#: Runs that a screen shows of each kind.
SHOWN: Final = 20
#: Failed runs that are counted; more are "1000+".
MAX_FAILED: Final = 1000
COLUMNS: Final = (
    Column("RUN", lambda run: run["run_id"]),
    Column("STATUS", lambda run: run["status"]),
    Column("AGE", lambda run: age(run["created_at"])),
    Column("DURATION", duration),
    Column("GRAPH", lambda run: run["graph_id"] or run["assistant_id"]),
    Column("OWNER", lambda run: run["owner"]),
    Column("CAUSE OR ERROR", lambda run: error_line(run) or cause(run), flexible=True),
)


@click.command(epilog="Example: runlane status")
@options.as_json
@with_server
def status(*, client: Client, as_json: bool) -> None:
    """Show whether a server and its database work, its queue, and what failed in the last hour.

    Exit code 0: both work, 1: the database does not accept writes.
    """
    found = _status(client)
    if as_json:
        print_json(found)
    else:
        print_fields(_fields(found))
    if not found["healthy"]:
        raise click.exceptions.Exit(EXIT_FAILED)


def _status(client: Client) -> Json:
    found: Json = {"url": client.url, "version": client.get("/info")["version"], "healthy": True}
    try:
        client.get("/ok", params={"check_db": "true"})
        metrics = client.get("/metrics", params={"format": "json"})
        found |= {"queue": metrics["queue"], "workers": metrics["workers"], "storage": metrics["storage"]}
        since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
        found["failed_last_hour"] = len(client.runs(limit=MAX_FAILED, status=sorted(FAILED), since=since))
    except ServerRefused as error:
        found |= {"healthy": False, "problem": str(error)}
    return found


def _fields(found: Json) -> Json:
    shown: Json = {"server": f"{found['url']} (Runlane {found['version']})"}
    if not found["healthy"]:
        return {**shown, "database": found["problem"]}
    queue, workers, storage = found["queue"], found["workers"], found["storage"]
    failed = found["failed_last_hour"]
    return {
        **shown,
        "database": f"works; {storage['database_bytes'] / 1e6:,.1f} MB",
        "running": f"{queue['n_running']} runs; {_slots(workers)}",
        "waiting": f"{queue['n_pending']} runs, the longest for {_seconds(queue, 'pending_runs_wait_time_max_secs')}",
        "no worker": f"the longest wait for a worker is {_seconds(queue, 'pending_unblocked_runs_wait_time_max_secs')}",
        "failed": f"{failed}{'+' if failed == MAX_FAILED else ''} runs of the last hour",
    }


def _slots(workers: Json) -> str:
    if not workers["max"]:
        return "this process executes none"
    return f"{workers['active']} of {workers['max']} slots of this process"


def _seconds(queue: Json, name: str) -> str:
    return span(queue[name] or 0)


@click.command(epilog="Example: runlane top --once")
@click.option("--interval", type=Finite(0.5, 3600), default=2.0, show_default=True, help="Seconds between two looks.")
@click.option("--once", is_flag=True, help="Print what there is now, and end; so it is without a terminal.")
@options.as_json
@with_server
def top(*, client: Client, interval: float, once: bool, as_json: bool) -> None:
    """Watch the runs that execute and wait, and those that failed last. ``q`` and Ctrl-C end it.

    While no server answers, it shows what it saw last, and asks again. --json prints what there is now, and ends.
    """
    if as_json:
        print_json(_look(client))
        return
    if once or not sys.stdout.isatty():
        _print(client)
        return
    try:
        _watch(client, interval)
    except KeyboardInterrupt:
        return


def _look(client: Client) -> Json:
    """Return the server's queue, and the runs to show."""
    queue = client.get("/metrics", params={"format": "json"})["queue"]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    active = [run for one in (RunStatus.RUNNING, RunStatus.PENDING) for run in client.runs(limit=SHOWN, status=[one])]
    failed = client.runs(limit=SHOWN // 2, status=sorted(FAILED))
    return {"url": client.url, "as_of": now, "queue": queue, "runs": active + failed}


def _line(seen: Json) -> str:
    queue, at = seen["queue"], seen["as_of"][11:19]
    return f"{seen['url']}  {queue['n_running']} running, {queue['n_pending']} waiting  as of {at} UTC"


def _print(client: Client) -> None:
    seen = _look(client)
    click.echo(_line(seen))
    print_table(COLUMNS, seen["runs"])


def _watch(client: Client, interval: float) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    def drawn(lost: str = "") -> Group:
        table = rich_table(COLUMNS, seen["runs"], shutil.get_terminal_size().columns)
        return Group(Text(_line(seen), style="bold"), Text(lost, style="red"), table)

    seen = _look(client)
    with pressed_keys() as wait, Live(drawn(), screen=True, auto_refresh=False) as live:
        while wait(interval) != "q":
            try:
                seen = _look(client)
            except (
                ServerError,
                ServerRefused,
            ) as error:  # it may be restarting; what was seen last stays, with its time
                live.update(drawn(f"Asked again each {span(interval)}: {safe(error)}"), refresh=True)
            else:
                live.update(drawn(), refresh=True)
