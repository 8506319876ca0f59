"""Records that an application makes of its runs, while they execute and afterwards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Unpack

from runlane.admission import check_counters, check_model
from runlane.errors import CancelRecorded, IllegalTransition
from runlane.records import Counters, Owner, RunRecord
from runlane.store.ledger import RunStore


class RunUpdates:
    """Records models and counters of runs."""

    def __init__(self, store: RunStore) -> None:
        self._store = store

    async def model(self, run_id: str, model_name: str | None, *, owner: Owner) -> RunRecord:
        """Record which model the run uses."""
        check_model(model_name)
        await self._store.runs.get(run_id, owner=owner)
        return await self._store.runs.set_model(run_id, model_name)

    async def progress(self, run_id: str, *, owner: Owner, **counters: Unpack[Counters]) -> bool:
        """Record counters of an active run; ``False``, with nothing written, once it has ended.

        Raises:
            InvalidRequest: A name is not one of Usage's fields, or its value is of another kind.
        """
        await self._store.runs.get(run_id, owner=owner)
        return await self._store.runs.set_progress(run_id, check_counters(counters))

    async def completion(
        self, run_id: str, counters: Counters, end: Callable[[], Awaitable[object]] | None
    ) -> RunRecord:
        """Record final *counters*, after *end*; also if the run cannot end like that, which is then raised."""
        checked = check_counters(counters)
        try:
            if end is not None:
                await end()
        except (IllegalTransition, CancelRecorded):
            if checked:
                await self._store.runs.complete_usage(run_id, checked)
            raise
        return await self._store.runs.complete_usage(run_id, checked)
