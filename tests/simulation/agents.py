"""Agents of a simulation: they do steps, each once noted and once published, and misbehave as they are told."""

from __future__ import annotations

import asyncio
from typing import Any

from langgraph.checkpoint.base import empty_checkpoint

from runlane.agents.base import AgentCall, Drained, Snapshot
from runlane.agents.encode import encode
from simulation.history import History
from simulation.virtual_loop import LIFE

#: What agents do besides their steps. ``steps`` keeps its progress in the ledger and can be continued elsewhere.
WELL_BEHAVED = ("steps", "steps", "steps", "steps", "plain", "pausing", "silent")
MISBEHAVED = ("failing", "exiting", "deaf", "stone", "leaving", "self_cancelling", "dawdling")
#: Agents that may go on executing after they were told to stop.
DEAF = ("deaf", "stone")


class StepAgent:
    """Does ``kwargs["steps"]`` steps of ``kwargs["pace_s"]`` seconds each."""

    def __init__(self, behaviour: str, history: History, process: str) -> None:
        self.behaviour, self._history, self._process = behaviour, history, process
        self.continuable = behaviour in ("steps", "leaving", "dawdling")
        self._cancels = 0

    async def run(self, call: AgentCall) -> Snapshot:
        run, life = call.run, LIFE.get()
        who = {"run": run.run_id, "attempt": run.attempt}
        self._history.note("begin", **who, thread=run.thread_id, process=self._process, behaviour=self.behaviour)
        try:
            return await self._steps(call)
        finally:
            if life is None or life.alive:
                self._history.note("stop", **who)

    async def repair(self, call: AgentCall) -> Snapshot:
        return Snapshot()

    async def _steps(self, call: AgentCall) -> Snapshot:
        run = call.run
        steps = int(run.kwargs["steps"])
        first = await self._progress(call) + 1 if self.continuable else 1
        for step in range(first, steps + 1):
            if call.drain.requested and self.continuable:
                raise Drained
            self._misbehave(run.attempt, step)
            self._history.note("step", run=run.run_id, attempt=run.attempt, step=step)
            for part in range(2):
                if self.behaviour != "silent":
                    call.emit("step", encode({"attempt": run.attempt, "step": step, "part": part}))
                await self._sleep(float(run.kwargs["pace_s"]) / 2)
            if self.continuable:
                await self._save(call, step)
        result = encode({"steps": steps})
        return Snapshot(values=result, result=result, paused=self.behaviour == "pausing")

    def _misbehave(self, attempt: int, step: int) -> None:
        if step < 2:
            return
        if self.behaviour == "failing":
            raise ValueError("as told")
        if self.behaviour == "exiting":
            raise SystemExit(3)
        if self.behaviour == "self_cancelling":
            raise asyncio.CancelledError
        if self.behaviour == "leaving" and attempt < 3:
            raise Drained

    async def _sleep(self, delay_s: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + (delay_s * 40 if self.behaviour == "dawdling" else delay_s)
        while (left_s := until - loop.time()) > 0:
            try:
                await asyncio.sleep(left_s)
            except asyncio.CancelledError:
                self._cancels += 1
                if self.behaviour not in DEAF or (self.behaviour == "deaf" and self._cancels > 1):
                    raise

    async def _progress(self, call: AgentCall) -> int:
        found = await call.saver.aget_tuple(_place(call))
        return 0 if found is None else int(found.metadata["step"])

    async def _save(self, call: AgentCall, step: int) -> None:
        checkpoint = empty_checkpoint()
        checkpoint["id"] = f"{call.run.attempt:04}-{step:04}"
        metadata: Any = {"step": step, "source": "loop"}
        await call.saver.aput(_place(call), checkpoint, metadata, {})


def _place(call: AgentCall) -> Any:
    return {"configurable": {"thread_id": call.run.thread_id, "checkpoint_ns": call.run.run_id}}
