"""Cancels that another process recorded, of runs that execute here: looked for more often than leases are renewed."""

from __future__ import annotations

from typing import Final

from runlane.dispatch.base import Dispatch
from runlane.store.ledger import RunStore
from runlane.supervised_loop import SupervisedLoop
from runlane.telemetry.emitter import SILENT, Telemetry

#: A cancel is seen this much after it was recorded, at the latest.
LOOK_S: Final = 1.0


class CancelWatch:
    """Tells the dispatch of each cancel of a run of this process once."""

    def __init__(self, *, store: RunStore, dispatch: Dispatch, worker_id: str, telemetry: Telemetry = SILENT) -> None:
        self._store = store
        self._dispatch = dispatch
        self._worker_id = worker_id
        self._told: frozenset[str] = frozenset()
        self._loop = SupervisedLoop("cancel watch", self._look, every_s=LOOK_S, telemetry=telemetry)

    async def __aenter__(self) -> CancelWatch:
        self._loop.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._loop.stop()

    async def _look(self) -> None:
        cancelled = frozenset(await self._store.attempts.cancelled(self._worker_id))
        for run_id in cancelled - self._told:
            self._dispatch.cancel(run_id)
        self._told = cancelled
