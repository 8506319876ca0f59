"""Agents stop before others may take their runs, though the loop that renews their lease stands still."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import uvloop

from run_kit import FaultyDriver, ended, opened, soon, until
from runlane.agents.base import AgentCall
from runlane.agents.host import ThreadHost
from runlane.agents.isolation import GraphHosts
from runlane.agents.watchdog import WatchedLease
from runlane.lifecycle import RunStatus
from runlane.outcomes import Snapshot
from runlane.records import RunRecord
from runlane.runtime import Runtime

LEASE_S, EFFECT_S, PATIENCE_S = 2.0, 0.05, 30.0
#: Of an attempt that ends: so many that effects of another one would be among them.
EFFECTS = 10


class Effects:
    """Has one effect after the other outside of Runlane: the first attempt until it is stopped, later ones a few.

    ``made`` has the number of the attempt for each.
    """

    continuable = True

    def __init__(self) -> None:
        self.made: list[int] = []
        self.started, self.stopped = threading.Event(), threading.Event()

    async def run(self, call: AgentCall) -> Snapshot:
        attempt = call.run.attempt
        try:
            while attempt == 1 or self.made.count(attempt) < EFFECTS:
                self.made.append(attempt)
                self.started.set()
                await asyncio.sleep(EFFECT_S)
        finally:
            self.stopped.set()
        return Snapshot()

    async def repair(self, call: AgentCall) -> Snapshot:
        return Snapshot()


def process(effects: Effects, new_host: Any, **options: Any) -> AbstractAsyncContextManager[Runtime]:
    """Open the runtime of a process that shares a ledger with others."""
    agent = {"graph_agent": lambda _: effects, "new_host": new_host}
    return opened(lease_s=LEASE_S, poll_s=0.1, max_rescues=100, exclusive=False, **agent, **options)


class Owner:
    """A process on a thread of its own: it executes a run, and its control loop is blocked until :meth:`go_on`."""

    def __init__(self, url: str, effects: Effects, new_host: Any) -> None:
        self._url, self._effects, self._new_host = url, effects, new_host
        self._blocked, self._go_on = threading.Event(), threading.Event()
        self._run: RunRecord | None = None

    async def blocked(self) -> RunRecord:
        """Wait until the control loop is blocked, and return the run that executes."""
        assert await asyncio.to_thread(self._blocked.wait, PATIENCE_S)
        assert self._run is not None
        return self._run

    def go_on(self) -> None:
        self._go_on.set()

    def live(self) -> None:
        asyncio.run(self._live())

    async def _live(self) -> None:
        async with process(self._effects, self._new_host, database=self._url) as runtime:
            self._run = await runtime.runs.create("t", kwargs={"graph_id": "g"})
            assert await asyncio.to_thread(self._effects.started.wait, PATIENCE_S)
            self._block()

    def _block(self) -> None:
        self._blocked.set()
        self._go_on.wait(2 * PATIENCE_S)


@pytest.mark.parametrize("new_host", [ThreadHost, lambda: GraphHosts(uvloop.new_event_loop)], ids=["one", "per_graph"])
async def test_agents_stop_before_another_process_takes_their_runs_though_the_control_loop_is_blocked(
    new_host: Any, new_postgres_ledger: Callable[[], str], caplog: pytest.LogCaptureFixture
) -> None:
    url, effects = new_postgres_ledger(), Effects()
    owner = Owner(url, effects, new_host)
    living = asyncio.create_task(asyncio.to_thread(owner.live))
    try:
        run = await owner.blocked()
        async with process(effects, new_host, database=url) as heir:
            assert (await ended(heir, run)).status is RunStatus.SUCCESS
        assert effects.made == sorted(effects.made)
        assert effects.made.count(effects.made[-1]) == EFFECTS
    finally:
        owner.go_on()
        await soon(living)
    assert any("test_watchdog.py" in line and "agents.lease_over" in line for line in caplog.messages), caplog.messages
    assert any(line.startswith("run.lease_lost") for line in caplog.messages), caplog.messages


async def test_a_run_that_was_stopped_while_the_control_loop_was_blocked_goes_on_in_its_next_attempt() -> None:
    effects = Effects()
    async with process(effects, ThreadHost, driver=FaultyDriver()) as runtime:
        run = await runtime.runs.create("t", kwargs={"graph_id": "g"})
        assert await asyncio.to_thread(effects.started.wait, PATIENCE_S)
        assert effects.stopped.wait(PATIENCE_S)  # blocks the control loop
        over = await ended(runtime, run)
    assert over.status is RunStatus.SUCCESS
    assert over.attempt > 1
    assert effects.made == sorted(effects.made)


async def test_attempts_hear_that_the_lease_is_over_before_what_was_stopped_reports_it() -> None:
    left_s, heard = [3600.0], list[str]()
    host = ThreadHost()
    host.watch(WatchedLease(left_s=lambda: left_s[0], lapse=lambda: heard.append("lapse")))
    go_on = asyncio.Event()
    try:
        leased = host.start(asyncio.Event().wait, name="leased", leased=True)
        repair = host.start(go_on.wait, name="repair")
        leased.done.add_done_callback(lambda _: heard.append("stopped"))
        left_s[0] = -3600.0
        await until(lambda: "stopped" in heard)
        assert leased.done.cancelled()
        assert heard == ["lapse", "stopped"]
        assert not repair.done.done()
        host.call(go_on.set)
        assert await soon(repair.done)
    finally:
        await host.aclose()
