"""The checker can see: every planted bug is found, by the check that is there for it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor

import pytest

from runlane.store.statements import run
from runlane.store.transactions import purges, totals
from runlane.testing.virtual_loop import Livelock
from simulation.checker import CHECKS, violations
from simulation.mutants import ENOUGH, MUTANTS, planted
from simulation.runs import workers
from simulation.seams import NeverReached, applied, finding, transaction
from simulation.world import run_world


def seed_that_finds(name: str) -> int | None:
    """Return the first seed in which the bug is found."""
    mutant = MUTANTS[name]
    with planted(mutant) as scenario:
        for seed in range(ENOUGH):
            try:
                broken = violations(run_world(seed, scenario))
            except (Exception, Livelock):  # noqa: BLE001 - it may be found first by what nobody checks for
                continue
            if any(one.startswith(mutant.found_by + ":") for one in broken):
                return seed
    return None


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with workers() as pool:
        yield pool


@pytest.fixture(scope="module")
def searches() -> dict[str, Future[int | None]]:
    """The searches that have begun, by mutant."""
    return {}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(
    name: str, pool: ProcessPoolExecutor, searches: dict[str, Future[int | None]], request: pytest.FixtureRequest
) -> None:
    for item in request.session.items:  # those that are run anyway are looked for while others are waited for
        wanted = getattr(item, "callspec", None)
        if wanted is not None and wanted.params.get("name") in MUTANTS and wanted.params["name"] not in searches:
            searches[wanted.params["name"]] = pool.submit(seed_that_finds, wanted.params["name"])
    assert searches[name].result() is not None, f"{MUTANTS[name].found_by} did not see it in {ENOUGH} seeds"


def test_every_check_finds_a_bug() -> None:
    assert {check.__name__ for check in CHECKS} == {mutant.found_by for mutant in MUTANTS.values()}


@pytest.mark.parametrize("times", [0, 1], ids=["not called", "asks another statement"])
def test_a_patch_that_makes_no_difference_is_told(times: int) -> None:
    patch = transaction(purges.purges_alone, lambda _: finding(totals.TAKE_ENDED, []))
    with pytest.raises(NeverReached, match="purges_alone"), applied([patch]):
        assert all(run(purges.purges_alone("totals"), lambda query: ()) for _ in range(times))
