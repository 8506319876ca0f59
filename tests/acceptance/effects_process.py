"""A process whose agent has effects outside of Runlane, a byte in a file each, on a loop of its own, without end."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import uvloop

from runlane import open_runtime
from runlane.agents.base import AgentCall
from runlane.agents.host import ThreadHost
from runlane.outcomes import Snapshot
from runlane.settings import Settings

EFFECT_S, MANY = 0.05, 5
log = logging.getLogger("effects")


class Effects:
    """Appends to the file until it is stopped."""

    continuable = True

    async def run(self, call: AgentCall) -> Snapshot:
        """Have one effect after the other; say so after some."""
        made = 0
        with open(os.environ["EFFECTS"], "ab", buffering=0) as file:  # noqa: ASYNC230 - a byte
            while True:
                file.write(b".")
                made += 1
                if made == MANY:
                    log.info("effects.made run_id=%s", call.run.run_id)
                await asyncio.sleep(EFFECT_S)

    async def repair(self, call: AgentCall) -> Snapshot:
        """Return nothing."""
        return Snapshot()


async def main() -> None:
    """Admit a run and execute it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stdout)
    async with open_runtime(
        settings=Settings.load(),
        graph_agent=lambda _: Effects(),
        new_host=lambda: ThreadHost(uvloop.new_event_loop),
    ) as runtime:
        await runtime.runs.create("t", kwargs={"graph_id": "g"})
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
