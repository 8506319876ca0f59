"""A run whose request a newer version stored: it is refused instead of guessed at, and its lane goes on.

A rolling upgrade can leave such a row to a process of the older version.
"""

from __future__ import annotations

import pytest

from run_kit import FaultyDriver, Stepper, ended, graph_run, opened
from runlane.errors import RequestUnreadable
from runlane.lifecycle import RunStatus
from runlane.requests import VERSION
from runlane.runtime import Runtime
from runlane.store.statements import Transaction, statement

NEWER = f'{{"runlane_request":{VERSION + 1},"request":{{"graph_id":"g","asks":"for more"}}}}'
STORE = statement("store_newer", "UPDATE runs SET kwargs = :kwargs WHERE run_id = :run_id")


async def left_by_a_newer_version(runtime: Runtime, driver: FaultyDriver, run_id: str) -> None:
    def stored() -> Transaction[None]:
        yield STORE(run_id=run_id, kwargs=NEWER)

    await driver.write(stored())


async def test_it_ends_as_an_error_that_says_so_and_the_next_run_of_its_lane_starts() -> None:
    driver, stepper = FaultyDriver(), Stepper()
    async with opened(driver, graphs={"g": stepper.graph()}) as runtime:
        first = await runtime.runs.create("t", kwargs=graph_run())
        await stepper.started.wait()
        newer = await runtime.runs.create("t", kwargs=graph_run())
        last = await runtime.runs.create("t", kwargs=graph_run())
        await left_by_a_newer_version(runtime, driver, newer.run_id)
        stepper.go.set()
        assert (await ended(runtime, first)).status is RunStatus.SUCCESS
        refused = await ended(runtime, newer)
        assert (refused.status, refused.error and refused.error.error) == (RunStatus.ERROR, "RequestUnreadable")
        assert (await ended(runtime, last)).status is RunStatus.SUCCESS


async def test_it_is_listed_and_its_request_is_not_read() -> None:
    driver = FaultyDriver()
    async with opened(driver) as runtime:
        run = await runtime.runs.create("t", kwargs={"input": 1})
        await left_by_a_newer_version(runtime, driver, run.run_id)
        [found] = await runtime.runs.list_by_thread("t")
        assert found.status is RunStatus.PENDING
        with pytest.raises(RequestUnreadable, match=f"version {VERSION + 1}"):
            _ = found.request
