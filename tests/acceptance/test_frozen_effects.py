"""P1: what a process that stood still past its lease does outside of Runlane when it goes on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from acceptance.kit import Program, env_of
from run_kit import ended, opened
from runlane.agents.base import AgentCall
from runlane.lifecycle import RunStatus
from runlane.outcomes import Snapshot
from runlane.records import ANY_OWNER

SCRIPT = Path(__file__).parent / "effects_process.py"
SETTINGS = {"lease_s": 2.0, "poll_s": 0.1}


class Ending:
    """Ends at once."""

    continuable = True

    async def run(self, call: AgentCall) -> Snapshot:
        return Snapshot()

    async def repair(self, call: AgentCall) -> Snapshot:
        return Snapshot()


async def test_an_agent_has_one_more_effect_at_most_after_its_process_was_frozen_past_its_lease(
    tmp_path: Path, new_postgres_ledger: Callable[[], str]
) -> None:
    url = new_postgres_ledger()
    env = env_of({"database": url, **SETTINGS})
    async with Program(
        [sys.executable, "-P", str(SCRIPT)], env, effects=tmp_path / "effects", takes_input=False
    ) as one:
        await one.launch()
        assert await one.said("effects.made")
        async with (
            opened(database=url, graph_agent=lambda _: Ending(), **SETTINGS) as other,
            one.frozen(),
        ):
            run = (await other.runs.list_by_thread("t", owner=ANY_OWNER))[0]
            assert (await ended(other, run)).status is RunStatus.SUCCESS
            made = one.effects.stat().st_size
        assert await one.said("run.lease_lost")
        assert one.effects.stat().st_size <= made + 1
