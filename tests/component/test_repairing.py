"""P8: a repair that hangs is abandoned, and one that only stood still with its process is not."""

from __future__ import annotations

import asyncio
from typing import Any

from run_kit import on_jumping_time, opened
from runlane.agents.base import AgentCall
from runlane.agents.host import InlineHost
from runlane.execution.repair import repaired
from runlane.outcomes import Snapshot

LIMIT_S = 0.7


class Repairing:
    """An agent whose repair takes *seconds*."""

    continuable = True

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def run(self, call: AgentCall) -> Snapshot:
        raise NotImplementedError

    async def repair(self, call: AgentCall) -> Snapshot:
        await asyncio.sleep(self.seconds)
        return Snapshot(values=b"{}")


async def repair(agent: Repairing, stands_still_s: float) -> Snapshot | None:
    loop: Any = asyncio.get_running_loop()
    async with opened(poll_s=3600) as runtime:
        call = AgentCall(run=await runtime.runs.create("t"), emit=lambda name, data: None)
        repairing = repaired(agent, call, host=InlineHost(), limit_s=LIMIT_S, held=lambda: True)
        task = asyncio.create_task(repairing)
        await asyncio.sleep(0.05)
        loop.jumped_s += stands_still_s
        return await task


@on_jumping_time
async def test_a_repair_goes_on_after_its_process_stood_still() -> None:
    assert await repair(Repairing(0.1), stands_still_s=60) == Snapshot(values=b"{}")


@on_jumping_time
async def test_a_repair_that_hangs_is_abandoned() -> None:
    assert await repair(Repairing(3600), stands_still_s=0) is None
