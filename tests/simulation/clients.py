"""Clients of a simulated world: they admit, cancel, join, read, and leave at bad moments; what they hear is noted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec import structs

from runlane.errors import ConflictError, NotFound, RunlaneError, StoreUnavailable
from runlane.lifecycle import DisconnectMode, EndReason, MultitaskStrategy
from runlane.maintenance.totals import count
from runlane.records import ANY_OWNER, NewRun, StreamEnd, StreamEvent, StreamGap
from runlane.requests import RunRequest
from runlane.runtime import Runtime
from runlane.testing.history import History
from runlane.testing.process import FOR_EVER, Patience, Process, ProcessGone
from simulation.agents import MISBEHAVED

#: Steps of the loop within which a caller is cancelled, if it is.
STEPS = 60


@dataclass
class Crowd:
    """What clients of one world share.

    ``unruly`` is how likely an agent misbehaves; ``hasty`` how likely a client stops, overtakes or leaves its run.
    """

    seed: int
    history: History
    processes: list[Process]
    threads: list[str]
    behaviours: Sequence[str]
    unruly: float
    hasty: float
    busyness_s: float
    until_s: float
    flood: int
    running: Callable[[], list[str]]
    run_ids: list[str] = field(default_factory=list)
    readers: list[asyncio.Task[None]] = field(default_factory=list)
    ending: bool = False

    def serving(self) -> list[Process]:
        return [process for process in self.processes if process.serves]

    def told(self) -> list[str]:
        """Return the runs that some client knows of."""
        return [note.run for note in self.history.of("told_admitted")]

    def read(self, run_id: str, seed: int, process: Process) -> None:
        """Have a new reader read the run's stream to its end, beginning at *process*."""
        name = f"reader{len(self.readers)}"
        reader = Reader(self, name, run_id, random.Random(seed))
        self.readers.append(asyncio.get_running_loop().create_task(reader.read(process)))


class Client:
    """One client, who does one thing after another at any process that serves."""

    def __init__(self, crowd: Crowd, name: str) -> None:
        self._crowd, self._name, self._history = crowd, name, crowd.history
        self._dice = random.Random(f"client {crowd.seed} {name}")

    async def live(self) -> None:
        acts = (
            *(self._admit, self._admit, self._admit, self._stream, self._cancel, self._cancel),
            *(self._watch, self._join, self._maintain, self._flood),
        )
        loop, dice = asyncio.get_running_loop(), self._dice
        while loop.time() < self._crowd.until_s:
            await asyncio.sleep(dice.random() * self._crowd.busyness_s * 2)
            serving = self._crowd.serving()
            if not serving:
                continue
            try:
                await dice.choice(acts)(dice.choice(serving))
            except (ProcessGone, TimeoutError, RunlaneError) as error:
                self._history.note("refused", client=self._name, error=type(error).__name__)

    def _hasty(self) -> bool:
        return self._dice.random() < self._crowd.hasty

    def _patience(self, longest_s: float | None = 2.0) -> Patience:
        dice = self._dice
        if not self._hasty():
            return Patience(seconds=longest_s or 30.0)
        if longest_s is None and dice.random() < 0.5:
            return FOR_EVER
        kind = dice.random()
        if kind < 0.4:
            return Patience(steps=dice.randint(0, STEPS))
        return Patience(seconds=dice.random() * 0.1 if kind < 0.7 else longest_s)

    def _new_run(self) -> NewRun:
        dice = self._dice
        strategy = dice.choice(list(MultitaskStrategy)) if self._hasty() else MultitaskStrategy.ENQUEUE
        unruly = dice.random() < self._crowd.unruly
        new = NewRun(
            run_id=self._new_id(),
            thread_id=dice.choice(self._crowd.threads),
            owner="",
            multitask_strategy=strategy,
            on_disconnect=dice.choice(list(DisconnectMode)) if self._hasty() else DisconnectMode.CONTINUE,
            delay_s=dice.choice((0.0,) * 6 + (0.7, 3.0)),
            idempotency_key=dice.choice((None, None, None, f"key{dice.randint(0, 3)}")),
            request=RunRequest(
                graph_id=dice.choice(MISBEHAVED if unruly else self._crowd.behaviours),
                extra={"steps": dice.randint(0, 6), "pace_s": dice.choice((0.0, 0.02, 0.1, 0.5, 1.5))},
            ),
            streamed=dice.random() < 0.5,
        )
        return self._asked(new)

    def _new_id(self) -> str:
        self._crowd.run_ids.append(f"r{len(self._crowd.run_ids)}")
        return self._crowd.run_ids[-1]

    def _asked(self, new: NewRun) -> NewRun:
        self._history.note("ask", run=new.run_id, thread=new.thread_id, key=new.idempotency_key)
        return new

    async def _flood(self, process: Process) -> None:
        """Queue many short runs on one thread, once in a world."""
        number, self._crowd.flood = self._crowd.flood, 0
        if not number:
            return
        thread_id = self._dice.choice(self._crowd.threads)
        graph_id = self._dice.choice(self._crowd.behaviours)
        request = RunRequest(graph_id=graph_id, extra={"steps": 1, "pace_s": 0.0})
        enqueue = {"multitask_strategy": MultitaskStrategy.ENQUEUE, "on_disconnect": DisconnectMode.CONTINUE}
        news = [
            self._asked(NewRun(run_id=self._new_id(), thread_id=thread_id, owner="", request=request, **enqueue))
            for _ in range(number)
        ]
        self._history.fault("lane flooded")

        async def admit(runtime: Runtime) -> Any:
            admitted = await runtime.submitter.admit_all(news)
            for one in admitted:
                one.watch.close()
            return admitted

        for one, new in zip(await process.ask(admit, self._patience()), news, strict=True):
            self._told(one, new)

    async def _maintain(self, process: Process) -> None:
        """Have two processes look after the ledger at the same time."""
        self._history.fault("maintenance")

        async def maintain(runtime: Runtime) -> None:
            await asyncio.gather(
                runtime.runs.reconcile_orphaned_inflight_runs(),
                runtime.rescuer.rescue_lost(),
                runtime.purger.purge(),
                runtime.rescuer.dispatch_runnable(),
                count(runtime.store.totals),
            )

        others = [other for other in self._crowd.serving() if other is not process]
        both = [process, self._dice.choice(others)] if others else [process]
        asked = [one.ask(maintain, self._patience()) for one in both]
        for failure in await asyncio.gather(*asked, return_exceptions=True):
            if failure is not None and not isinstance(failure, ProcessGone | TimeoutError | RunlaneError):
                raise failure

    async def _admit(self, process: Process) -> None:
        new = self._new_run()

        async def admit(runtime: Runtime) -> Any:
            admitted = await runtime.submitter.admit(new)
            admitted.watch.close()
            return admitted

        try:
            admitted = await process.ask(admit, self._patience(None))
        except ConflictError as conflict:
            self._history.note("conflict", run=new.run_id, by=conflict.active_run_id)
            return
        except (ProcessGone, TimeoutError, StoreUnavailable):
            serving = self._crowd.serving()
            if new.idempotency_key is None or not serving:
                raise
            self._history.fault("request repeated")
            new = self._asked(structs.replace(new, run_id=self._new_id()))
            admitted = await self._dice.choice(serving).ask(admit)
        self._told(admitted, new)
        for _ in range(self._dice.choice((0, 1, 1, 2))):
            self._crowd.read(admitted.run.run_id, self._dice.getrandbits(32), process)

    def _told(self, admitted: Any, new: NewRun) -> None:
        self._history.note("told_admitted", run=admitted.run.run_id, reused=admitted.reused, asked=new.run_id)

    async def _stream(self, process: Process) -> None:
        """Admit a run and read its stream in one request, as the server does; leaving it may cancel the run."""
        new, left = self._new_run(), [""]

        async def stream(runtime: Runtime) -> None:
            admitted = await runtime.submitter.admit(new)
            self._told(admitted, new)
            run = admitted.run
            try:
                async for _ in admitted.watch.batches():
                    pass
            except asyncio.CancelledError:
                left[0] = run.on_disconnect.value
                if run.on_disconnect is DisconnectMode.CANCEL:
                    await runtime.runs.cancel(run.run_id, reason=EndReason.DISCONNECT)
                raise
            finally:
                admitted.watch.close()

        try:
            await process.ask(stream, self._patience())
        except ConflictError as conflict:
            self._history.note("conflict", run=new.run_id, by=conflict.active_run_id)
        finally:
            if left[0]:
                self._history.fault("client disconnected" + (" for good" if left[0] == "continue" else ""))

    async def _cancel(self, process: Process) -> None:
        dice, history = self._dice, self._history
        if not self._crowd.run_ids or not self._hasty():
            return
        running = self._crowd.running() if dice.random() < 0.5 else []
        run_id = dice.choice(running or self._crowd.run_ids[-6:])
        action, wait = dice.choice(("interrupt", "rollback")), dice.random() < 0.3

        async def cancel(runtime: Runtime) -> Any:
            return await runtime.runs.cancel(run_id, action=action, wait=wait)

        for _ in range(dice.choice((1, 1, 2))):
            asked_at = len(history.notes)
            try:
                receipt = await process.ask(cancel, self._patience())
            except NotFound:
                history.note("told_absent", run=run_id, asked_at=asked_at)
                continue
            facts: dict[str, Any] = {"action": None}
            if receipt is not None:
                facts = {
                    "action": receipt.action.value,
                    "stopped": receipt.stopped_at is not None,
                    "blocked": receipt.blocked_at is not None,
                }
            history.note("told_cancel", run=run_id, wait=wait, **facts)

    async def _watch(self, process: Process) -> None:
        if told := self._crowd.told():
            self._crowd.read(self._dice.choice(told[-8:]), self._dice.getrandbits(32), process)

    async def _join(self, process: Process) -> None:
        told = self._crowd.told()
        if not told:
            return
        run_id = self._dice.choice(told[-4:])

        async def join(runtime: Runtime) -> Any:
            return await runtime.runs.join(run_id)

        ending = await process.ask(join, self._patience())
        self._history.note("told_ending", run=run_id, status=ending.status.value)


class Reader:
    """Reads one run's stream to its end, going away now and then and coming back to any process."""

    def __init__(self, crowd: Crowd, name: str, run_id: str, dice: random.Random) -> None:
        self._crowd, self._name, self._run_id, self._dice = crowd, name, run_id, dice
        self._history, self._cursor = crowd.history, 0
        self._slow_s = dice.choice((0.0, 0.0, 0.3))

    async def read(self, process: Process) -> None:
        dice, history = self._dice, self._history
        who = {"reader": self._name, "run": self._run_id}
        while self._cursor >= 0:
            try:
                await process.ask(self._follow, self._patience())
            except (ProcessGone, TimeoutError):
                history.note("reconnect", **who)
            except NotFound:
                history.note("told_absent", run=self._run_id, asked_at=len(history.notes))
            except RunlaneError as error:
                history.note("reconnect", **who, error=type(error).__name__)
            if self._cursor >= 0:
                history.fault("reader reconnected")
                await asyncio.sleep(0.05 + dice.random() * 0.2)
                serving = self._crowd.serving()
                process = dice.choice(serving) if serving else process

    def _patience(self) -> Patience:
        dice = self._dice
        if self._crowd.ending:
            return FOR_EVER
        steps = Patience(steps=dice.randint(0, STEPS))
        return dice.choice((FOR_EVER, Patience(seconds=30.0), Patience(seconds=dice.random()), steps))

    async def _follow(self, runtime: Runtime) -> None:
        async for item in runtime.streams.subscribe(self._run_id, after=self._cursor, owner=ANY_OWNER):
            self._take(item)
            if self._slow_s and not self._crowd.ending:
                await asyncio.sleep(self._dice.random() * self._slow_s)

    def _take(self, item: Any) -> None:
        who = {"reader": self._name, "run": self._run_id}
        if isinstance(item, StreamGap):
            self._history.note("gap", **who, after=self._cursor, resumes_at=item.resumes_at)
        elif isinstance(item, StreamEvent):
            self._cursor = item.seq
            self._history.note("read", **who, seq=item.seq, name=item.name, data=item.data)
        elif isinstance(item, StreamEnd):
            self._cursor = -1
            self._history.note("end", **who, seq=item.seq, status=item.status.value)
