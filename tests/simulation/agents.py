"""Agents of a simulation: they do steps, each once noted and once published, and misbehave as they are told."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from langgraph.checkpoint.base import empty_checkpoint

from runlane.agents.base import AgentCall
from runlane.agents.encode import encode
from runlane.outcomes import Drained, Snapshot
from runlane.testing.history import History
from runlane.testing.virtual_loop import LIFE

#: What agents do besides their steps. ``steps`` keeps its progress in the ledger and can be continued elsewhere;
#: ``calling`` also keeps that it began a step, as a tool call stands open in a conversation until it has a result.
WELL_BEHAVED: Final = ("steps", "steps", "calling", "calling", "plain", "pausing", "silent")
RAISING: Final = ("failing", "exiting", "break_key", "self_cancelling", "own_base")
MISBEHAVED: Final = (*RAISING, "deaf", "stone", "leaving", "dawdling")
#: Agents that may go on executing after they were told to stop.
DEAF: Final = ("deaf", "stone")
#: Agents that go on from their last checkpoint.
CONTINUED: Final = ("steps", "calling", "leaving", "dawdling")


class Meltdown(BaseException):
    """What an agent may raise although it should not."""


class StepAgent:
    """Does ``kwargs["steps"]`` steps of ``kwargs["pace_s"]`` seconds each.

    A checkpoint's number is twice that of the step that was done; between two of them a step has begun.
    """

    def __init__(self, behaviour: str, history: History, process: str) -> None:
        self.behaviour, self._history, self._process = behaviour, history, process
        self.continuable = behaviour in CONTINUED
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
        """Close the step that stands open, if one does."""
        if not self.continuable:
            return Snapshot()
        number = await self._progress(call)
        if number % 2:
            await self._save(call, number + 1)
        return Snapshot(values=_values(call))

    async def _steps(self, call: AgentCall) -> Snapshot:
        run = call.run
        steps = int(run.kwargs["steps"])
        first = await self._progress(call) // 2 + 1 if self.continuable else 1
        for step in range(first, steps + 1):
            if call.drain.requested and self.continuable:
                raise Drained
            self._misbehave(run.attempt, step)
            if self.behaviour == "calling":
                await self._save(call, 2 * step - 1)
            self._history.note("step", run=run.run_id, attempt=run.attempt, step=step)
            for part in range(2):
                if self.behaviour != "silent":
                    call.emit("step", encode({"attempt": run.attempt, "step": step, "part": part}))
                await self._sleep(float(run.kwargs["pace_s"]) / 2)
            if self.continuable:
                await self._save(call, 2 * step)
                self._history.note("told_saved", run=run.run_id, attempt=run.attempt, step=step)
        return Snapshot(values=_values(call), result=_values(call), paused=self.behaviour == "pausing")

    def _misbehave(self, attempt: int, step: int) -> None:
        if step < 2:
            return
        if self.behaviour == "leaving" and attempt < 3:
            raise Drained
        if self.behaviour == "failing":
            self._history.fault("exception raised")
            raise ValueError("as told")
        if self.behaviour in RAISING:
            self._history.fault("BaseException raised")
        if self.behaviour == "exiting":
            raise SystemExit(3)
        if self.behaviour == "break_key":
            raise KeyboardInterrupt
        if self.behaviour == "self_cancelling":
            raise asyncio.CancelledError
        if self.behaviour == "own_base":
            raise Meltdown

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
                self._history.fault("cancellation swallowed")

    async def _progress(self, call: AgentCall) -> int:
        found = await call.saver.aget_tuple(_place(call))
        return 0 if found is None else int(found.metadata["step"])

    async def _save(self, call: AgentCall, number: int) -> None:
        checkpoint = empty_checkpoint()
        checkpoint["id"] = f"{call.run.attempt:04}-{number:04}"
        metadata: Any = {"step": number, "source": "loop"}
        await call.saver.aput(_place(call), checkpoint, metadata, {})


def _values(call: AgentCall) -> bytes:
    return encode({"run": call.run.run_id, "attempt": call.run.attempt})


def _place(call: AgentCall) -> Any:
    return {"configurable": {"thread_id": call.run.thread_id, "checkpoint_ns": call.run.run_id}}
