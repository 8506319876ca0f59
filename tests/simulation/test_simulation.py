"""Hundreds of hostile worlds keep the promises; the same seed is the same world; and the checker can see."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import pytest

from runlane.store.statements import Query, Rows, Transaction
from simulation.__main__ import broken_promises
from simulation.checker import violations
from simulation.ledger import FaultyDriver
from simulation.virtual_loop import Deadlock, simulate
from simulation.world import SETTINGS, Scenario, run_world

ONE_SEED = os.environ.get("RUNLANE_SIM_SEED")
SEEDS = range(int(os.environ.get("RUNLANE_SIM_SEEDS", "300")))
#: Seeds within which a planted bug has to be found.
ENOUGH = 40


def test_no_seed_breaks_a_promise() -> None:
    if ONE_SEED is not None:
        found = [broken_promises(int(ONE_SEED))]
    else:
        # Fresh interpreters: a fork of this one might inherit the lock of a thread that it does not have.
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            found = list(pool.map(broken_promises, SEEDS, chunksize=5))
    failing = {seed: broken for seed, broken in found if broken}
    seeds = ", ".join(map(str, failing))
    assert not failing, f"replay with RUNLANE_SIM_SEED=n ./dev test tests/simulation; seeds {seeds}: {failing}"


@pytest.mark.parametrize("seed", [3, 8])
def test_a_seed_has_one_history(seed: int) -> None:
    first, second = run_world(seed), run_world(seed)
    assert first.history.text() == second.history.text()
    assert (first.runs, first.threads) == (second.runs, second.threads)


def test_the_worlds_are_not_idle() -> None:
    ends = {"success", "error", "interrupted", "timeout", "rolled_back", "superseded", "user_cancel", "paused"}
    missing = ends | {"killed", "cut_off", "stopping", "reconnect", "conflict", "rescued", "released"}
    for seed in range(ENOUGH):
        world = run_world(seed)
        missing -= {run["status"] for run in world.runs} | {run["end_reason"] for run in world.runs}
        missing -= {note.kind for note in world.history.notes}
        missing -= {"rescued" for run in world.runs if run["rescues"]}
        missing -= {"released" for run in world.runs if run["attempt"] > run["rescues"] + 1}
        if not missing:
            return
    assert not missing


def test_a_wait_for_nothing_is_a_deadlock() -> None:
    async def wait_for_ever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        simulate(wait_for_ever)


# Planted bugs. Each is a driver that changes what one statement asks or answers.

Change = Callable[[Query], Transaction[Rows]]


def tampered(transaction: Transaction[Any], change: Change) -> Transaction[Any]:
    """Run *transaction* with the rows that *change* makes of each of its queries."""
    try:
        query = next(transaction)
        while True:
            query = transaction.send((yield from change(query)))
    except StopIteration as stop:
        return stop.value


def no_fence(query: Query) -> Transaction[Rows]:
    """Whoever appends or saves is told that it holds the lease."""
    if query.statement.name in ("holds_lease", "checkpoints.fence"):
        return [{"held": 1}]
    return (yield query)


def no_lane(query: Query) -> Transaction[Rows]:
    """A run may start before those that were admitted earlier."""
    if query.statement.name in ("claim_run", "runnable"):
        free = query.statement.sqlite.replace("other.seq < runs.seq", "0")
        query = replace(query, statement=replace(query.statement, sqlite=free))
    return (yield query)


def no_memory_of_cancels(query: Query) -> Transaction[Rows]:
    """The guard of an ending does not see that a cancel was recorded."""
    rows = yield query
    if query.statement.name == "lock_run":
        return [{**dict(row), "cancel_requested_at": None} for row in rows]
    return rows


def no_patience(query: Query) -> Transaction[Rows]:
    """Every run that executes is taken for lost."""
    if query.statement.name == "lost_runs" and query.params is not None:
        query = replace(query, params={**query.params, "grace_us": -(10**12)})
    return (yield query)


def no_last_event(query: Query) -> Transaction[Rows]:
    """An attempt numbers its events from 1 again."""
    rows = yield query
    return [{"last_seq": None}] if query.statement.name == "last_event" else rows


def planted(change: Change) -> Scenario:
    class Tampering(FaultyDriver):
        def apply(self, transaction: Transaction[Any]) -> Any:
            return super().apply(tampered(transaction, change))

    return Scenario(driver=Tampering)


def found_by(check: str, scenario: Scenario) -> bool:
    """Return whether *check* finds what is planted in *scenario* within some seeds."""
    return any(
        broken.startswith(check + ":") for seed in range(ENOUGH) for broken in violations(run_world(seed, scenario))
    )


@pytest.mark.parametrize(
    ("check", "scenario"),
    [
        ("fencing", planted(no_fence)),
        ("one_lane", planted(no_lane)),
        ("one_lane", planted(no_patience)),
        ("honest_cancel", planted(no_memory_of_cancels)),
        ("log_numbers", planted(no_last_event)),
        ("whole_streams", Scenario(repeat_ends=True)),
        ("rest", Scenario(settings=replace(SETTINGS, poll_s=3600))),
    ],
    ids=["fence", "order", "hasty rescue", "cancel", "numbers", "two ends", "lost hint without polling"],
)
def test_the_checker_sees_a_planted_bug(check: str, scenario: Scenario) -> None:
    assert found_by(check, scenario)
