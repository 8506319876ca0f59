"""Making a thread valid again once an attempt is over, whatever the ledger does meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from runlane.agents.base import Agent, AgentCall
from runlane.agents.host import AgentHost, Handle
from runlane.errors import LeaseLost
from runlane.outcomes import Snapshot

log = logging.getLogger("runlane.repairing")


async def repaired(
    agent: Agent, call: AgentCall, *, host: AgentHost, limit_s: float, held: Callable[[], bool]
) -> Snapshot | None:
    """Have *agent* repair its thread.

    While the ledger is unavailable or slow this waits, for as long as the lease is *held*: a thread that is left as it
    is would refuse its next run. Only code that hangs by itself is abandoned after *limit_s*.

    Returns:
        What the thread looks like; ``None`` if it could not be repaired, which does not keep the run from ending.

    Raises:
        LeaseLost: Another attempt has the run.
    """
    name = f"run_id={call.run.run_id} attempt={call.run.attempt} repair=true"
    handle = host.start(lambda: _repair(agent, call), name=name)
    watch = _Watch(handle, call, limit_s, held)
    try:
        return await handle.done
    except LeaseLost:
        raise
    except BaseException as error:  # the ending is written all the same
        if not held():  # whoever takes the run over repairs the thread
            raise LeaseLost(call.run.run_id, call.run.attempt) from error
        log.error("thread.repair_failed run_id=%s", call.run.run_id, exc_info=error)
        return None
    finally:
        watch.stop()


class _Watch:
    """Abandons a repair that takes too long, unless it is the ledger that does, or the process stood still.

    It looks twice in that time: after a pause, or an answer of the ledger, the code has half of it to go on.
    """

    def __init__(self, handle: Handle[Snapshot], call: AgentCall, limit_s: float, held: Callable[[], bool]) -> None:
        self._handle = handle
        self._call = call
        self._every_s = limit_s / 2
        self._held = held
        self._seen = False
        self._wait()

    def stop(self) -> None:
        self._timer.cancel()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._every_s, self._look)

    def _look(self) -> None:
        waits = self._call.saver is not None and self._call.saver.waiting and self._held()
        if self._seen and not waits:
            self._handle.abandon()
            return
        self._seen = not waits
        self._wait()


async def _repair(agent: Agent, call: AgentCall) -> Snapshot:
    """Repair the thread on a stage that is committed with the ending.

    Were it committed before, a crash in between would have the next attempt find a run with nothing left to do.
    """
    if call.saver is None:
        return await agent.repair(call)
    async with call.saver.staged() as staging:
        return await agent.repair(replace(call, saver=staging))
