"""Thousands of hostile worlds keep the promises; the same seed is the same world; and the worlds are hostile."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from runlane.testing.faults import KINDS
from runlane.testing.virtual_loop import Deadlock, run_virtual
from simulation import __main__ as command
from simulation import runs
from simulation.runs import Result, Tally, export, regressions, simulate, simulate_all, workers
from simulation.world import run_world

ONE_SEED = os.environ.get("RUNLANE_SIM_SEED")
SEEDS = range(int(os.environ.get("RUNLANE_SIM_SEEDS", "500")))
#: Seeds of one test.
PART = 100
#: Seeds within which a world has to show all that worlds can do.
ENOUGH = 80


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with workers() as pool:
        yield pool


@pytest.fixture(scope="module")
def total() -> Tally:
    """What came of all seeds of this session."""
    return Tally()


def parts() -> list[list[int]]:
    """Return the seeds to run, in parts none of which takes long."""
    if ONE_SEED is not None:
        return [[int(ONE_SEED)]]
    seeds = [*regressions(), *SEEDS]
    return [seeds[at : at + PART] for at in range(0, len(seeds), PART)]


@pytest.mark.parametrize("seeds", parts(), ids=lambda seeds: f"{seeds[0]} to {seeds[-1]}")
def test_no_seed_breaks_a_promise(seeds: list[int], pool: ProcessPoolExecutor, total: Tally) -> None:
    tally = Tally()
    for result in simulate_all(seeds, pool):
        tally.add(result)
        total.add(result)
    assert not tally.failing, f"replay with ./dev simulate SEED\n{tally.replays()}"


def test_every_kind_of_fault_happened(total: Tally, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        sys.stdout.write(f"\n{total.line()}\n{total.table()}\n")
    missing = [kind for kind in KINDS if not total.faults[kind]]
    assert not missing or total.seeds < PART
    assert set(total.faults) <= set(KINDS)


def test_the_worlds_are_not_idle() -> None:
    ends = {"success", "error", "interrupted", "timeout", "rolled_back", "superseded", "user_cancel", "paused"}
    missing = ends | {"disconnect", "conflict", "reconnect", "gap", "rescued", "released", "told_ending"}
    for seed in range(ENOUGH):
        world = run_world(seed)
        missing -= {run["status"] for run in world.runs} | {run["end_reason"] for run in world.runs}
        missing -= {note.kind for note in world.history.notes}
        missing -= {"rescued" for run in world.runs if run["rescues"]}
        missing -= {"released" for run in world.runs if run["attempt"] > run["rescues"] + 1}
        if not missing:
            return
    assert not missing


def fingerprint(seed: int) -> str:
    world = run_world(seed)
    text = f"{world.history.text()}\n{world.runs}\n{world.threads}\n{world.faults}"
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("hash_seed", ["1", "4711"])
def test_a_seed_has_one_history_in_every_interpreter(hash_seed: str) -> None:
    seeds = (3, 8, 11)
    code = f"from simulation.test_simulation import fingerprint; print([fingerprint(seed) for seed in {seeds}])"
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path}
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str([fingerprint(seed) for seed in seeds])


def test_a_wait_for_nothing_is_a_deadlock() -> None:
    async def wait_for_ever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        run_virtual(wait_for_ever)


# The command.


def test_a_failing_seed_becomes_a_regression_test(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runs, "REGRESSIONS", tmp_path / "regressions.txt")
    runs.REGRESSIONS.write_text("# why not\n3 rest: r1 is running\n")
    for _ in range(2):
        assert export(Result(17, ["one_lane: r2 began\ntwice"], Tally().faults)) == "17 one_lane: r2 began twice"
    assert regressions() == {3: "rest: r1 is running", 17: "one_lane: r2 began twice"}


def test_the_command_finds_prints_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    failing = Result(18, ["rest: r1 is running at rest"], Tally().faults)
    assert command.search([simulate(17), failing]) == 1
    said = capsys.readouterr().out
    assert "seed 18 (./dev simulate 18): rest: r1 is running at rest (1 in all)" in said
    assert "2 seeds in" in said
    assert all(kind in said for kind in KINDS)
    assert command.main(["17"]) == 0
    assert "admit" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["x"], ["1", "--for", "1m"], ["--for", "soon"]])
def test_the_command_refuses_what_it_does_not_know(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(arguments)


def test_a_search_takes_the_time_it_is_given(pool: ProcessPoolExecutor) -> None:
    assert command.seconds("90") == command.seconds("1.5m") == 90
    assert [result.seed for result in runs.simulate_for(0.001, 100, pool, width=2)] == [100, 101]
    assert not list(runs.simulate_for(0, 100, pool))
