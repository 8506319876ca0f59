"""Acting on many runs from a terminal: the options that select them, a preview, and a page at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from runlane.cli.output import Column, print_json, print_table, progress, safe
from runlane.cli.reporting import confirm
from runlane.cli.values import MOMENT, Finite
from runlane.errors import ConfigurationError
from runlane.lifecycle import EndReason, RunStatus

if TYPE_CHECKING:
    from runlane.cli.client import Client

Json = dict[str, Any]
#: Options that select runs, and the fields of a search that they are.
_FILTERS: Final = (
    (
        "status",
        click.option(
            "--status",
            multiple=True,
            type=click.Choice([status.value for status in RunStatus]),
            help="Status; may be repeated.",
        ),
    ),
    (
        "end_reason",
        click.option(
            "--cause",
            "end_reason",
            multiple=True,
            metavar="REASON",
            type=click.Choice([reason.value for reason in EndReason]),
            help="End reason; may be repeated.",
        ),
    ),
    ("graph_id", click.option("--graph", "graph_id", help="Only runs of this graph.")),
    ("assistant_id", click.option("--assistant", "assistant_id", help="Only runs of the assistant with this id.")),
    ("thread_id", click.option("--thread", "thread_id", help="Only runs of this thread.")),
    ("owner", click.option("--owner", help="Only runs of this owner, if you may see them.")),
    ("build", click.option("--build", help="Only runs whose last attempt was of a worker of this build.")),
    ("worker_id", click.option("--worker", "worker_id", help="Only runs whose last attempt was of this worker.")),
    ("min_tokens", click.option("--min-tokens", type=click.IntRange(min=1), help="Only runs that used as many.")),
    (
        "min_cost",
        click.option("--min-cost", type=Finite(min=0, min_open=True), help="Only runs that cost as much, or more."),
    ),
    (
        "waits_for",
        click.option(
            "--waits-for",
            type=click.Choice(["run", "delay", "slots"]),
            help="Only runs that wait for a run of their thread, the end of a delay, or free slots.",
        ),
    ),
    ("since", click.option("--since", type=MOMENT, help="Admitted since: a time, or an age such as 2h.")),
    ("until", click.option("--until", type=MOMENT, help="Admitted before: a time, or an age such as 2h.")),
    ("text", click.option("--text", help="Text in ids, metadata or the error.")),
)
_REFUSED: Final = (Column("RUN", lambda one: one["run_id"]), Column("WHY", lambda one: one["sentence"]))


def run_filters(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that select runs to *command*, which gets those that are given as ``where``."""

    @functools.wraps(command)
    def called(*arguments: Any, **options: Any) -> None:
        given = {name: options.pop(name) for name, _ in _FILTERS}
        where = {name: list(one) if isinstance(one, tuple) else one for name, one in given.items() if one != ()}
        command(*arguments, where={name: one for name, one in where.items() if one is not None}, **options)

    for _, option in reversed(_FILTERS):
        called = option(called)
    return called


def on_many(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a command that can act on many runs."""
    for option in (
        click.option("--reason", help="Why, for the audit, if it is about several runs."),
        click.option("--yes", is_flag=True, help="Do not ask before acting on several runs."),
        run_filters,
    ):
        command = option(command)
    return command


def checked(where: Json) -> Json:
    """Return *where* as the server takes it.

    Raises:
        NotFound: The thread's id names nothing.
    """
    from runlane.cli.client import path_id

    return {**where, "thread_id": path_id("thread", where["thread_id"])} if "thread_id" in where else where


def is_one(run_ids: tuple[str, ...], where: Json) -> bool:
    """Return whether a command is about one run, which it names.

    Raises:
        ConfigurationError: It selects no runs at all.
    """
    if not run_ids and not where:
        raise ConfigurationError("Name the runs, or select them by options such as --status.")
    return len(run_ids) == 1 and not where


def act(
    client: Client,
    action: str,
    run_ids: tuple[str, ...],
    where: Json,
    *,
    from_start: bool | None = None,
    reason: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Show what *action* would do with the runs, ask, and do it."""
    from runlane.cli.client import path_id

    if as_json and not yes:
        raise ConfigurationError("--json cannot ask before it acts on several runs; add --yes.")
    selected = {**checked(where), **({"run_ids": [path_id("run", one) for one in run_ids]} if run_ids else {})}
    asked: Json = {"action": action, "filter": selected, "from_start": from_start}
    preview = client.post("/runs/bulk/preview", **asked)
    if not as_json:
        click.echo(safe(preview["sentence"]), err=True)
    results: list[Json] = []
    if preview["acted"]:
        confirm("Go on?", yes=yes)
        with progress(action.capitalize(), preview["matched"]) as advance:
            for page in client.act_on_runs(**asked, bound=preview["bound"], reason=reason):
                results += page
                advance(len(page))
    if as_json:
        print_json({"preview": preview, "results": results})
        return
    if refused := [one for one in results if one["outcome"] == "refused"]:
        print_table(_REFUSED, refused)
    counts = {
        outcome: sum(one["outcome"] == outcome for one in results) for outcome in ("done", "refused", "not_found")
    }
    click.echo(f"{counts['done']} done, {counts['refused']} refused, {counts['not_found']} not found")
