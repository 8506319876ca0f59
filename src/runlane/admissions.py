"""Admissions that are carried through, whatever becomes of their callers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from runlane.admission import check_new
from runlane.agents.sources import AgentLike, RunAgents
from runlane.dispatch.base import Dispatch
from runlane.errors import AdmissionClosed, NotFound, RunlaneError, StoreUnavailable
from runlane.lifecycle import DisconnectMode
from runlane.records import Admission, Cancelled, Head, NewRun, RunRecord
from runlane.store.ledger import RunStore
from runlane.store.retry import patiently
from runlane.streams.bridge import StreamBridge, Watch
from runlane.work import own_task

log = logging.getLogger("runlane.manager")


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A run that was admitted, with a reader of its stream; ``reused`` says that an idempotency key found it."""

    run: RunRecord
    watch: Watch
    reused: bool


class Admissions:
    """Admits runs, attaches their code, and dispatches those that may start."""

    def __init__(
        self,
        *,
        store: RunStore,
        bridge: StreamBridge,
        dispatch: Dispatch,
        source: RunAgents,
        tell: Callable[[Cancelled], None],
        cancel: Callable[[RunRecord], Awaitable[object]],
        worker_id: str,
        closing: asyncio.Event,
    ) -> None:
        """Args:
        worker_id: This process, the home of runs that are not of a graph.
        tell: Passes on what an admission did to the runs before it.
        cancel: Cancels a run whose caller is gone.
        closing: Set once this process drains.
        """
        self._store = store
        self._bridge = bridge
        self._dispatch = dispatch
        self._source = source
        self._tell = tell
        self._cancel = cancel
        self._worker_id = worker_id
        self._closing = closing
        self._abandoned: set[asyncio.Task[None]] = set()

    async def admit(self, new: NewRun, agent: AgentLike | None) -> Admitted:
        """Admit *new*; see :meth:`RunManager.admit`."""
        return (await self._carry_through(self._admit(new, agent), new))[0]

    async def admit_all(self, news: Sequence[NewRun]) -> list[Admitted]:
        """Admit each of *news*; see :meth:`RunManager.admit_all`."""
        return await self._carry_through(self._admit_all(news), *news)

    async def _carry_through(self, admitting: Coroutine[Any, Any, list[Admitted]], *news: NewRun) -> list[Admitted]:
        try:
            if self._closing.is_set():
                raise AdmissionClosed
            for new in news:
                check_new(new)
        except BaseException:
            admitting.close()
            raise
        admission = own_task(admitting)
        try:
            return await asyncio.shield(admission)
        except asyncio.CancelledError:
            abandoned = own_task(self._abandon(admission))
            self._abandoned.add(abandoned)
            abandoned.add_done_callback(self._abandoned.discard)
            raise

    async def _abandon(self, admission: asyncio.Future[list[Admitted]]) -> None:
        """Settle an admission whose caller was cancelled."""
        try:
            found = await admission
        except RunlaneError:
            return  # nothing was admitted, and nobody is left to be told
        for admitted in found:
            admitted.watch.close()
        for run in (admitted.run for admitted in found if not admitted.reused):
            if self._unwanted(run):
                try:
                    await patiently(partial(self._cancel, run))
                except (NotFound, StoreUnavailable) as error:  # it was deleted, or this process has closed the ledger
                    log.warning("run.unwanted_not_cancelled run_id=%s why=%s", run.run_id, error)

    def _unwanted(self, run: RunRecord) -> bool:
        """Return whether *run* is to be cancelled, as its caller is gone."""
        return run.on_disconnect is DisconnectMode.CANCEL or not self._source.can_execute(run.run_id, run.home)

    async def _admit(self, new: NewRun, agent: AgentLike | None) -> list[Admitted]:
        if agent is not None:
            self._source.attach(new.run_id, agent)
        try:
            admission = await self._store.runs.admit(self._at_home(new, agent))
        except BaseException:
            self._source.forget(new.run_id)
            raise
        return [self.admitted(new, admission)]

    def _at_home(self, new: NewRun, agent: AgentLike | None = None) -> NewRun:
        """Return *new* with this process as its home, unless every process that has its graph can execute it."""
        names_graph = bool(new.request.graph_id)
        return new if names_graph and agent is None else replace(new, home=self._worker_id)

    async def _admit_all(self, news: Sequence[NewRun]) -> list[Admitted]:
        admissions = await self._store.runs.admit_all([self._at_home(new) for new in news])
        return [self.admitted(*pair) for pair in zip(news, admissions, strict=True)]

    def admitted(self, new: NewRun, admission: Admission) -> Admitted:
        """Tell of an admission that was committed, and watch its run; the caller closes the watch."""
        run = admission.run
        watch = self._bridge.watch(run, admitted_now=not admission.reused)
        for cancelled in admission.cancelled:
            self._tell(cancelled)
        if admission.reused:
            self._source.forget(new.run_id)
        elif self._source.can_execute(run.run_id, run.home) and (admission.runnable or new.delay_s > 0):
            self._dispatch.submit(Head.of(run), delay_s=new.delay_s)
        return Admitted(run=run, watch=watch, reused=admission.reused)
