"""Runs: admitted, cancelled, read, annotated, deleted. Their executions are in ``attempts``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runlane.lifecycle import CancelAction, CancelSource, EndReason, RunStatus
from runlane.records import Admission, Cancelled, Claimant, Json, NewRun, Owner, RunRecord, ThreadTtl, Usage
from runlane.store.retrying import RetryingDriver
from runlane.store.transactions import (
    admissions,
    histories,
    protocol,
    run_queries,
    run_search,
    run_states,
    runs,
    selections,
    tasks,
)
from runlane.store.transactions.histories import RunHistory
from runlane.store.transactions.run_search import NEWEST, RunFilter, RunPage
from runlane.store.transactions.run_states import ChangedRuns, StreamedRun
from runlane.store.transactions.selections import SelectionPage
from runlane.store.transactions.tasks import TaskFilter


class Runs:
    """``store.runs``."""

    def __init__(self, database: RetryingDriver, *, thread_ttl: ThreadTtl | None, max_queued_runs: int) -> None:
        self._database = database
        self._thread_ttl = thread_ttl
        self._max_queued_runs = max_queued_runs

    async def admit(self, new: NewRun, claimant: Claimant | None = None) -> Admission:
        """Admit a run under its thread's lock. Repeating it with the same run id answers the same run.

        Args:
            claimant: Claims the run in the same transaction if it may start at once.

        Raises:
            ConflictError: The strategy is ``reject`` and the thread has an active run.
            QueueFull: The strategy is ``enqueue`` and as many runs wait as may.
            NotFound: The thread does not exist (for this owner) and is not to be created.
        """
        split = new.split()
        return await self._database.write(
            lambda: admissions.admit(split, self._thread_ttl, self._max_queued_runs, claimant)
        )

    async def admit_all(self, news: Sequence[NewRun]) -> tuple[Admission, ...]:
        """Admit each of *news* as :meth:`admit` does, or none of them."""
        split = [new.split() for new in news]
        return await self._database.write(lambda: admissions.admit_all(split, self._thread_ttl, self._max_queued_runs))

    async def request_cancel(
        self,
        run_id: str,
        *,
        owner: Owner,
        action: CancelAction,
        reason: EndReason,
        by: str | None = None,
        source: CancelSource | None = None,
    ) -> Cancelled:
        """Record a cancel; the first action wins. A pending run ends at once, a terminal one is returned as it is.

        Raises:
            NotFound: No such run for *owner*.
        """
        return await self._database.write(lambda: runs.request_cancel(run_id, owner, action, reason, by, source))

    async def get(self, run_id: str, *, owner: Owner) -> RunRecord:
        """Return the run, or raise NotFound."""
        return await self._database.fast_read(lambda: run_queries.get_run(run_id, owner))

    async def streamed(self, run_ids: Sequence[str], *, owner: Owner) -> tuple[StreamedRun, ...]:
        """Return those of the runs that *owner* has, as what reads their streams needs them."""
        return await self._database.read(lambda: run_states.run_states(run_ids, owner))

    async def changed(self, *, since_us: int, limit: int) -> ChangedRuns:
        """Return up to *limit* active runs of all owners, and as many ended ones, whose status changed lately."""
        return await self._database.read(lambda: run_states.changed_runs(since_us, limit))

    async def database_time(self) -> int:
        """Return the database's time, in microseconds of UTC."""
        return await self._database.read(run_states.database_time)

    async def history(self, run_id: str, *, owner: Owner) -> RunHistory:
        """Return what explains a run; NotFound if *owner* has none."""
        return await self._database.read(lambda: histories.history(run_id, owner))

    async def list(
        self,
        thread_id: str | None,
        *,
        owner: Owner,
        status: RunStatus | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[RunRecord, ...]:
        """Return runs of a thread (``None``: of all), the newest admission first."""
        return await self._database.read(lambda: run_queries.list_runs(thread_id, owner, status, limit, offset))

    async def search(self, *, owner: Owner, where: RunFilter, before_seq: int = NEWEST, limit: int) -> RunPage:
        """Return runs of all threads that match *where*, with a ``seq`` below *before_seq*, newest admission first."""
        return await self._database.read(lambda: run_search.search_runs(owner, where, before_seq, limit))

    async def select(self, *, owner: Owner, where: RunFilter, before_seq: int = NEWEST, limit: int) -> SelectionPage:
        """Return what decides whether an action can act on the runs that :meth:`search` finds."""
        return await self._database.read(lambda: selections.select_runs(owner, where, before_seq, limit))

    async def wrote_newest_checkpoint(self, run_id: str, thread_id: str) -> bool:
        """Return whether the newest checkpoint of the thread's graph is of the run."""
        return await self._database.read(lambda: selections.wrote_newest_checkpoint(run_id, thread_id))

    async def list_tasks(
        self, thread_id: str, *, owner: Owner, where: TaskFilter, before: tuple[int, int] | None, limit: int
    ) -> tuple[tuple[RunRecord, ...], int]:
        """Return a thread's runs after *before*, the newest status first, and how many match *where* in all."""
        return await self._database.read(lambda: tasks.list_tasks(thread_id, owner, where, before, limit))

    async def with_events(self, thread_id: str, *, after_seq: int, limit: int = 50) -> tuple[RunRecord, ...]:
        """Return the next runs of a thread, in the order of admission, that have events or may get some."""
        return await self._database.read(lambda: protocol.runs_with_events(thread_id, after_seq, limit))

    async def has_active(self, thread_id: str, *, owner: Owner) -> bool:
        """Return whether the thread has a pending or running run."""
        return await self._database.read(lambda: run_queries.has_active(thread_id, owner))

    async def active(
        self,
        *,
        owner: Owner,
        status: RunStatus | None,
        where: Json | None = None,
        before_seq: int = NEWEST,
        limit: int = 500,
    ) -> tuple[RunRecord, ...]:
        """Return active runs of all threads that match *where*, with *status* if given, newest admission first."""
        return await self._database.read(lambda: run_queries.active_runs(owner, where, status, before_seq, limit))

    async def inflight(self, *, after_seq: int = 0, limit: int = 500) -> tuple[RunRecord, ...]:
        """Return pending and running runs of all owners, oldest first."""
        return await self._database.read(lambda: run_queries.inflight_runs(after_seq, limit))

    async def started(self, thread_id: str, *, from_order: int, limit: int) -> tuple[RunRecord, ...]:
        """Return runs of a thread from a ``start_order`` on: they started, or ended without having started."""
        return await self._database.read(lambda: run_queries.started_runs(thread_id, from_order, limit))

    async def last_started(self, thread_id: str) -> RunRecord | None:
        """Return the run of a thread that started last, or ended last without having started."""
        return await self._database.read(lambda: run_queries.last_started(thread_id))

    async def rolled_back(self, *, within_s: float, limit: int) -> tuple[str, ...]:
        """Return runs that were rolled back in this time, the oldest first, and have not been deleted."""
        return await self._database.read(lambda: run_queries.rolled_back_runs(within_s, limit))

    async def purge(self, *, older_than_s: float, limit: int = 100) -> int:
        """Delete up to *limit* runs that ended more than *older_than_s* ago, with their events; return how many."""
        return await self._database.write(lambda: run_queries.purge_runs(older_than_s, limit))

    async def result(self, run_id: str, *, owner: Owner) -> tuple[RunStatus, bytes | None, Mapping[str, str] | None]:
        """Return a run's status, the JSON text that its waiters are answered, and its error."""
        return await self._database.read(lambda: run_queries.run_result(run_id, owner))

    async def thread_usage(self, thread_id: str, *, owner: Owner) -> tuple[Usage, ...]:
        """Return the usage of each run of a thread, however it ended."""
        return await self._database.read(lambda: run_queries.thread_usage(thread_id, owner))

    async def set_model(self, run_id: str, model_name: str | None) -> RunRecord:
        """Record which model the run uses."""
        return await self._database.write(lambda: run_queries.set_model(run_id, model_name))

    async def set_progress(self, run_id: str, changes: Mapping[str, Any], *, attempt: int | None = None) -> bool:
        """Merge counters into those of an active run; ``False``, with nothing written, once it has ended.

        With *attempt* also once another attempt has the run.
        """
        return await self._database.write(lambda: run_queries.set_progress(run_id, changes, attempt))

    async def complete_usage(self, run_id: str, changes: Mapping[str, Any]) -> RunRecord:
        """Record final counters, for any kind of ending; a number never falls, a missing run is never made."""
        return await self._database.write(lambda: run_queries.complete_usage(run_id, changes))

    async def delete(self, run_id: str, *, owner: Owner) -> RunRecord:
        """Delete an ended run and its events; ConflictError while it is active."""
        return await self._database.write(lambda: run_queries.delete_run(run_id, owner))
