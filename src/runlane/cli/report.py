"""``runlane report`` and ``runlane failures``: what runs took, and how they failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from runlane.cli import options
from runlane.cli.connection import with_server
from runlane.cli.output import COST, Column, age, print_rows, span
from runlane.cli.values import MOMENT

if TYPE_CHECKING:
    from runlane.cli.client import Client

RUNS: Final = (
    Column("RUNS", lambda one: one["runs"]),
    Column("FAILED", lambda one: one["failed"]),
    Column("EXECUTED", lambda one: span(one["executing_s"])),
    Column("QUEUED", lambda one: span(one["queued_s"])),
)
TOKENS: Final = (
    Column("INPUT", lambda one: one["input_tokens"]),
    Column("OUTPUT", lambda one: one["output_tokens"]),
    Column("TOKENS", lambda one: one["total_tokens"]),
)
FAILURES: Final = (
    Column("RUNS", lambda group: group["runs"]),
    Column("THREADS", lambda group: f"{'~' if group['threads_estimated'] else ''}{group['threads']}"),
    Column("GRAPH", lambda group: group["graph_id"]),
    Column("FIRST", lambda group: age(group["first_at"])),
    Column("LAST", lambda group: age(group["last_at"])),
    Column("BUILD", lambda group: group["first_build"]),
    Column("LAST RUN", lambda group: group["run_id"]),
    Column("ERROR", lambda group: f"{group['error']}: {group['message']}", flexible=True),
)
limit = click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Number of rows.")
graph = click.option("--graph", help="Only runs of this graph.")


@click.command(epilog="Example: runlane report --by owner --since 7d")
@click.option(
    "--by",
    type=click.Choice(["owner", "graph", "build", "status", "day", "model"]),
    default="owner",
    show_default=True,
    help="What each row is about.",
)
@click.option(
    "--since",
    type=MOMENT,
    default="1d",
    show_default=True,
    help="From the day, in UTC, of this time or age, such as 7d.",
)
@click.option("--until", type=MOMENT, help="To the day, in UTC, of this time or age. Default: today.")
@click.option("--owner", help="Only runs of this owner.")
@graph
@click.option("--model", help="Only tokens of this model.")
@limit
@options.as_json
@with_server
def report(*, client: Client, by: str, as_json: bool, **params: Any) -> None:
    """Show time, tokens and cost of runs that ended, most tokens first.

    An operator's key is needed to see other owners. There is a column for the cost if the server has prices. By model,
    or of one model, there are tokens only.
    """
    found = client.get("/operator/totals", params={"by": by, **params})
    of_runs = by != "model" and params["model"] is None
    columns = (Column(by.upper(), _name), *(RUNS if of_runs else ()), *TOKENS)
    priced = any(one["cost"] is not None for one in found)
    print_rows(found, (*columns, COST) if priced else columns, as_json=as_json, none="No run ended in these days.")


def _name(one: dict[str, Any]) -> Any:
    return one["name"]


@click.command(epilog="Example: runlane failures --since 1d")
@click.option(
    "--since", type=MOMENT, default="1d", show_default=True, help="From the hour of this time or age, such as 7d."
)
@graph
@click.option("--build", help="Only runs of this build.")
@click.option("--new-since-build", help="Only failures that did not occur before the first run of this build ended.")
@limit
@options.as_json
@with_server
def failures(*, client: Client, as_json: bool, **params: Any) -> None:
    """Show failed runs of all owners in groups of the same graph, error and message, most failures first.

    Words with digits are shown as #, and do not tell messages apart. RUNS is counted since --since; the rest is of
    all failures of the group. BUILD is where it was first seen, LAST RUN the last run that failed so.
    """
    found = client.get("/operator/failures", "build with runs", params["new_since_build"] or "", params=params)
    print_rows(found, FAILURES, as_json=as_json, none="No failures.")
