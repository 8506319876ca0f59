"""Runs whose code is a block of the application's: claimed, fenced, drained and ended like those of agents."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar, Unpack

from runlane.agents.base import AgentCall
from runlane.agents.sources import AgentLike, RunAgents
from runlane.documents.document import Encoded
from runlane.errors import (
    AdmissionClosed,
    IllegalTransition,
    LeaseLost,
    NotFound,
    RunlaneError,
    StoreUnavailable,
)
from runlane.lifecycle import CancelAction, EndReason, RunEvent, move
from runlane.outcomes import Snapshot
from runlane.records import Counters, RunRecord
from runlane.store.ledger import RunStore
from runlane.store.retry import patiently
from runlane.streams.bridge import StreamBridge
from runlane.work import WORK, Work, outlast, own_task

log = logging.getLogger("runlane.application")
T = TypeVar("T")

#: Records counters of a run: its id, its owner, the counters.
RecordProgress = Callable[..., Awaitable[bool]]


class ApplicationAttempt:
    """A run while the application executes it, in the block of ``async with runtime.runs.attempt(run)``.

    To be used on the loop of the block. ``abort_event`` is set, and the block cancelled, once the run has to stop: by
    a cancel, its deadline, a drain, or the loss of its lease.
    """

    def __init__(self, call: AgentCall, block: _Block, record_progress: RecordProgress) -> None:
        self._call = call
        self._block = block
        self._record_progress = record_progress
        #: How the run ended; known once the block has been left.
        self.ended: RunRecord | None = None

    @property
    def run(self) -> RunRecord:
        """The run as it was claimed."""
        return self._call.run

    @property
    def abort_event(self) -> asyncio.Event:
        """Set once the run has to stop."""
        return self._block.abort_event

    @property
    def abort_action(self) -> CancelAction | None:
        """The action of the cancel that stops the block; ``None`` until it is stopped.

        ``rollback`` removes what the run wrote through :attr:`checkpointer`; other effects are the block's to undo.
        """
        if not self.abort_event.is_set():
            return None
        cancel = self._call.cancelled()
        return CancelAction.INTERRUPT if cancel is None else cancel.action

    @property
    def checkpointer(self) -> Any:
        """LangGraph's checkpointer for this attempt, which writes nothing once the lease is lost; or ``None``."""
        return self._call.saver

    @property
    def store(self) -> Any:
        """LangGraph's long-term store for the run's owner, or ``None``."""
        return self._call.store

    def emit(self, name: str, payload: Any) -> None:
        """Publish an event. See :meth:`publish`, which also waits if readers' log cannot keep up.

        Raises:
            Unserialisable: The payload has no JSON form.
        """
        self._call.emit(name, self._call.documents.of(payload))

    async def publish(self, name: str, payload: Any) -> None:
        """Publish an event; wait while too much of the stream is uncommitted.

        Raises:
            Unserialisable: The payload has no JSON form.
        """
        self.emit(name, payload)
        if self._call.congested():
            await self._call.ready()

    def set_result(self, result: Any) -> None:
        """Set what ``join`` answers, and the thread's values, if the run succeeds; the last one counts.

        Raises:
            Unserialisable: It has no JSON form.
        """
        self._block.result = self._call.documents.of(result)

    async def record_progress(self, **counters: Unpack[Counters]) -> bool:
        """Record counters of the run; ``False`` if it has ended.

        Raises:
            InvalidRequest: A name is not one of Usage's fields, or its value is of another kind.
        """
        return await self._record_progress(self.run.run_id, owner=self.run.owner, **counters)


class _Block:
    """Stands for a block of the application's as an agent: it runs from the claim until the block has been left.

    ``run`` is called on the agents' loop, everything else on the block's.
    """

    continuable = False

    def __init__(self) -> None:
        self.abort_event = asyncio.Event()
        self.called: asyncio.Future[AgentCall] = asyncio.get_running_loop().create_future()
        self.result: Encoded | None = None
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._over: concurrent.futures.Future[BaseException | None] = concurrent.futures.Future()
        self._cancels: int | None = None  # sent to the block; None: it is not entered
        self._outer = 0
        self._work: Work | None = None
        self._work_before: Work | None = None

    # Agent

    async def run(self, call: AgentCall) -> Snapshot:
        """Have the block entered, and wait until it has been left.

        Raises:
            CancelledError: It was stopped.
            BaseException: What it raised.
        """
        self._loop.call_soon_threadsafe(self._call, call)
        over = asyncio.wrap_future(self._over)
        here = asyncio.get_running_loop() is self._loop
        self._work = WORK.get() if here else None  # tasks of another loop cannot be waited for
        waited: set[asyncio.Future[Any]] = {over, self._task} if here else {over}  # its task tells where it is
        stopped = False
        while not over.done():
            try:
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                stopped = True
                self._loop.call_soon_threadsafe(self._abort)
            if here and self._task.done() and not over.done():
                raise RuntimeError("The task that executed this run ended without leaving its attempt.")
        if stopped:
            raise asyncio.CancelledError
        failure = over.result()
        if failure is not None:
            raise failure
        return Snapshot(values=self.result, result=self.result)

    async def repair(self, call: AgentCall) -> Snapshot:
        """Return nothing: what the block keeps is the application's own affair."""
        return Snapshot()

    # The block

    def enter(self) -> None:
        """Begin the block: from now on it is cancelled if the run has to stop, and what it starts is the run's."""
        self._work_before = WORK.get()
        WORK.set(self._work)
        self._outer = self._task.cancelling()
        self._cancels = 0

    def exit(self) -> None:
        """End the block: what cancelled it because of the run is no cancel of its task."""
        WORK.set(self._work_before)
        for _ in range(self._cancels or 0):
            self._task.uncancel()
        self._cancels = None

    def leave(self, failure: BaseException | None) -> None:
        """Let :meth:`run` end as the block did, or as if it had; a second call does nothing."""
        if not self._over.done():
            closed = isinstance(failure, GeneratorExit)  # of the generator in which the block is
            self._over.set_result(asyncio.CancelledError() if closed else failure)

    @property
    def cancelled_from_outside(self) -> bool:
        """Return whether somebody else than this run cancelled the block's task, once it has been left."""
        return self._task.cancelling() > self._outer

    def _call(self, call: AgentCall) -> None:
        if not self.called.done():
            self.called.set_result(call)

    def _abort(self) -> None:
        self.abort_event.set()
        if self._cancels is not None:
            self._cancels += 1
            self._task.cancel()


async def _settled(call: AgentCall) -> RunRecord | None:
    """Wait until the run's ending is recorded; ``None`` if the run has been lost, and goes on or ends elsewhere."""
    if call.over is None:
        return None
    try:
        ended = await asyncio.shield(call.over)
    except asyncio.CancelledError:
        return None
    return ended if ended.status.terminal else None


class ApplicationRuns:
    """Executes runs in blocks of the application's. To the executor a block is the run's agent."""

    def __init__(
        self,
        *,
        store: RunStore,
        bridge: StreamBridge,
        source: RunAgents,
        start: Callable[[RunRecord, AgentLike], None],
        cancel: Callable[[RunRecord, EndReason], Awaitable[object]],
        record_progress: RecordProgress,
        closing: asyncio.Event,
    ) -> None:
        """Args:
        closing: Set once this process drains.
        """
        self._store = store
        self._bridge = bridge
        self._source = source
        self._start = start
        self._cancel = cancel
        self._record_progress = record_progress
        self._closing = closing

    @asynccontextmanager
    async def attempt(self, run: RunRecord) -> AsyncIterator[ApplicationAttempt]:
        """Execute *run* in the block; see :meth:`RunManager.attempt`."""
        block = _Block()
        await self._attach(run, block)
        call = await self._turn(run, block)
        attempt = ApplicationAttempt(call, block, self._record_progress)
        if block.abort_event.is_set():  # between the claim and the block: it is not begun
            await outlast(self._leave(attempt, call, block, asyncio.CancelledError()))
            move(run.run_id, self._ended(attempt).status, RunEvent.CLAIM)
        failure: BaseException | None = None
        with call.counting():
            block.enter()
            try:
                yield attempt
            except BaseException as error:  # noqa: BLE001 - the run ends by it, and it is raised again below
                failure = error
            block.exit()
        await outlast(self._leave(attempt, call, block, failure))
        stopped = isinstance(failure, asyncio.CancelledError) and attempt.abort_event.is_set()
        if failure is not None and (not stopped or block.cancelled_from_outside):
            raise failure
        self._ended(attempt)

    async def _attach(self, run: RunRecord, block: _Block) -> None:
        """Attach the block to the run, which may start from now on."""

        async def attach() -> None:
            current = await self._store.runs.get(run.run_id, owner=run.owner)
            move(run.run_id, current.status, RunEvent.CLAIM)
            if self._source.attached(run.run_id):
                raise IllegalTransition(run.run_id, current.status.value, "attempt while other code is attached")
            self._start(run, block)

        attaching = own_task(attach())
        try:
            await asyncio.shield(attaching)
        except asyncio.CancelledError:
            with suppress(RunlaneError):  # then the run is not this block's
                await outlast(attaching)
                await outlast(self._withdraw(run, block, EndReason.DISCONNECT))
            raise

    async def _turn(self, run: RunRecord, block: _Block) -> AgentCall:
        """Wait until the worker has claimed the run."""
        ended = own_task(patiently(partial(self._bridge.ended, run)))
        closing = own_task(self._closing.wait())
        try:
            first: set[asyncio.Future[Any]] = {block.called, ended, closing}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if block.called.done():
                return block.called.result()
            if ended.done():
                move(run.run_id, ended.result().status, RunEvent.CLAIM)
        except BaseException:
            await outlast(self._withdraw(run, block, EndReason.DISCONNECT))
            raise
        finally:
            ended.cancel()
            closing.cancel()
            await outlast(asyncio.gather(ended, closing, return_exceptions=True))
        await outlast(self._withdraw(run, block, EndReason.DRAINED_OVER))
        raise AdmissionClosed

    async def _withdraw(self, run: RunRecord, block: _Block, reason: EndReason) -> None:
        """End a run whose block will never be entered."""
        await self._try_to_cancel(run, reason)
        block.leave(asyncio.CancelledError())
        with suppress(RunlaneError):  # it was deleted, or this process has closed the ledger
            await self._bridge.ended(run)

    async def _leave(
        self, attempt: ApplicationAttempt, call: AgentCall, block: _Block, failure: BaseException | None
    ) -> None:
        """Have the run end as the block did, and wait until that is recorded."""
        left = isinstance(failure, asyncio.CancelledError) and block.cancelled_from_outside
        if not block.abort_event.is_set() and (left or isinstance(failure, GeneratorExit)):
            await self._try_to_cancel(attempt.run, EndReason.DISCONNECT)
        block.leave(failure)
        attempt.ended = await _settled(call)

    async def _try_to_cancel(self, run: RunRecord, reason: EndReason) -> None:
        try:
            await patiently(partial(self._cancel, run, reason))
        except (NotFound, StoreUnavailable) as error:  # it was deleted, or this process has closed the ledger
            log.warning("run.unwanted_not_cancelled run_id=%s why=%s", run.run_id, error)

    @staticmethod
    def _ended(attempt: ApplicationAttempt) -> RunRecord:
        if attempt.ended is None:
            raise LeaseLost(attempt.run.run_id, attempt.run.attempt)
        return attempt.ended
