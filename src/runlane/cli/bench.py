"""``runlane bench``: a short load on a running server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import click

from runlane.cli import options
from runlane.cli.connection import with_server
from runlane.cli.output import print_fields, print_json, progress
from runlane.cli.reporting import EXIT_FAILED
from runlane.cli.values import JSON
from runlane.errors import RunlaneError

if TYPE_CHECKING:
    from runlane.cli.client import Client

PERCENTILES: Final = (50, 95, 99)


@click.command(epilog="Example: runlane bench steps --input '{\"steps\": 1}' --runs 20")
@click.argument("assistant")
@click.option("--input", "given", type=JSON, help="Input of each run: JSON, @FILE, or - for stdin.")
@click.option("--runs", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Number of runs.")
@click.option("--concurrency", type=click.IntRange(1, 200), default=8, show_default=True, help="Runs at once.")
@options.as_json
@with_server
def bench(assistant: str, *, client: Client, given: Any, runs: int, concurrency: int, as_json: bool) -> None:
    """Start stateless runs of an assistant, wait for each, and print how long that took.

    Each run is executed and charged like any other. Exit code 1: a run failed.
    """
    body = {"assistant_id": assistant, "input": given}
    _once(client, body)  # a wrong name is told before the load, and what is made once is not measured
    with progress("Running", runs) as advance:
        found = _load(lambda: _once(client, body), runs, concurrency, advance)
    if as_json:
        print_json(found)
    else:
        print_fields({name.replace("_", " "): str(value) for name, value in found.items() if value is not None})
    if found["failed"]:
        raise click.exceptions.Exit(EXIT_FAILED)


def _once(client: Client, body: dict[str, Any]) -> str | None:
    """Make one run, and return its error."""
    answer = client.post("/runs/wait", "assistant", body["assistant_id"], **body)
    error = answer.get("__error__") if isinstance(answer, dict) else None
    return None if error is None else f"{error['error']}: {error['message']}"


def _load(
    once: Callable[[], str | None], runs: int, concurrency: int, advance: Callable[[int], None]
) -> dict[str, Any]:
    lock, latencies, errors = threading.Lock(), list[float](), list[str]()

    def timed(_: int) -> None:
        begun = time.perf_counter()
        try:
            error = once()
        except RunlaneError as refused:
            error = str(refused)
        with lock:
            latencies.append(time.perf_counter() - begun)
            errors.extend([error] if error else ())
            advance(1)

    begun = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as pool:
        for _ in pool.map(timed, range(runs)):
            pass
    elapsed = time.perf_counter() - begun
    latencies.sort()
    return {
        "runs": runs,
        "failed": len(errors),
        "first_error": errors[0] if errors else None,
        "runs_per_second": round(runs / elapsed, 1),
        **{f"p{percent}_ms": round(_percentile(latencies, percent) * 1000, 1) for percent in PERCENTILES},
        "max_ms": round(latencies[-1] * 1000, 1),
    }


def _percentile(latencies: Sequence[float], percent: int) -> float:
    """Return the smallest latency that *percent* of all do not exceed."""
    return latencies[max(0, -(-len(latencies) * percent // 100) - 1)]
