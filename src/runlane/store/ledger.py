"""RunStore: what the ledger can be asked. One method, one transaction, on any driver."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from runlane.errors import StoreUnavailable
from runlane.lifecycle import CancelAction, EndReason, RunStatus
from runlane.records import (
    Admission,
    Assistant,
    Cancelled,
    Claim,
    Finished,
    Head,
    Json,
    Lease,
    NewRun,
    Order,
    Outcome,
    Owner,
    PruneStrategy,
    Renewal,
    RunError,
    RunRecord,
    SeenLease,
    StreamEnd,
    StreamEvent,
    Thread,
    ThreadState,
    ThreadTtl,
    Usage,
    WaitingOn,
)
from runlane.store import assistant_transactions as assistants
from runlane.store import claim_transactions as claims
from runlane.store import event_transactions as events
from runlane.store import lease_transactions as owners
from runlane.store import protocol_transactions as protocol
from runlane.store import query_transactions as queries
from runlane.store import queue_transactions as queues
from runlane.store import rescue_transactions as rescues
from runlane.store import run_transactions as runs
from runlane.store import task_transactions as tasks
from runlane.store import thread_search
from runlane.store import thread_transactions as threads
from runlane.store.assistant_transactions import AssistantFilter, NewAssistant
from runlane.store.cron_ledger import CronLedger
from runlane.store.probe_transactions import probe
from runlane.store.queue_transactions import QueueStats
from runlane.store.retry import PersistenceRetryPolicy
from runlane.store.statements import Driver, Transaction
from runlane.store.thread_search import ThreadFilter
from runlane.store.thread_transactions import NewThread, Part
from runlane.store.webhook_ledger import WebhookLedger
from runlane.store.worker_ledger import WorkerLedger

T = TypeVar("T")

#: Segments of a log read at once, and their bytes; bounds the memory of one catching-up reader.
READ_SEGMENTS, READ_BYTES = 64, 1024 * 1024


class RunStore(CronLedger, WebhookLedger, WorkerLedger):
    """The ledger of threads, assistants, runs, crons and events.

    Every method is one transaction, repeated by the retry policy while the database is unavailable for a passing
    reason. All raise StoreUnavailable when it stays so: nothing was written, and nothing is reported as absent.
    Methods that take *owner* see that owner's rows only, unless it is ``ANY_OWNER``.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        retry: PersistenceRetryPolicy | None = None,
        thread_ttl: ThreadTtl | None = None,
        max_queued_runs: int = runs.MAX_QUEUED_RUNS,
    ) -> None:
        """Use *driver*'s database.

        Args:
            thread_ttl: When threads expire of which nothing else is said.
            max_queued_runs: How many runs may wait behind the head of their thread's lane.
        """
        self.driver, self._thread_ttl, self._max_queued_runs = driver, thread_ttl, max_queued_runs
        self._retry = retry or PersistenceRetryPolicy()
        self._read_now: Callable[..., Any] | None = getattr(driver, "read_now", None)

    async def _write(self, make: Callable[[], Transaction[T]]) -> T:
        return await self._retry.call(lambda: self.driver.write(make()))

    async def _read(self, make: Callable[[], Transaction[T]]) -> T:
        return await self._retry.call(lambda: self.driver.read(make()))

    async def _look(self, make: Callable[[], Transaction[T]]) -> T:
        """Read one small row, without handing it to another thread where the driver can do without."""
        if self._read_now is None:
            return await self._read(make)
        try:
            found: T = self._read_now(make(), snapshot=False)
        except StoreUnavailable:
            return await self._read(make)
        return found

    async def aclose(self) -> None:
        """Close the driver; a second call does nothing."""
        await self.driver.aclose()

    async def probe(self) -> None:
        """Write something that nobody reads, to tell whether the database takes writes."""
        await self._write(probe)

    # Runs: the operations that move a status.

    async def admit(self, new: NewRun) -> Admission:
        """Admit a run under its thread's lock. Repeating it with the same run id answers the same run.

        Raises:
            ConflictError: The strategy is ``reject`` and the thread has an active run.
            QueueFull: The strategy is ``enqueue`` and as many runs wait as may.
            NotFound: The thread does not exist (for this owner) and is not to be created.
        """
        return await self._write(lambda: runs.admit(new, self._thread_ttl, self._max_queued_runs))

    async def admit_all(self, news: Sequence[NewRun]) -> tuple[Admission, ...]:
        """Admit each of *news* as :meth:`admit` does, or none of them."""
        return await self._write(lambda: runs.admit_all(news, self._thread_ttl, self._max_queued_runs))

    async def claim(self, run_id: str, worker_id: str, *, lease_s: float, has_code: bool = True) -> Claim | None:
        """Start an attempt if the run is its lane's head, due, and nothing of its thread executes; else ``None``.

        Args:
            has_code: The caller executes the run's own code, so that the run is at home there from now on. Without it
                only a run without a home is claimed.
        """
        return await self._write(lambda: claims.claim(run_id, worker_id, lease_s, has_code))

    async def request_cancel(
        self, run_id: str, *, owner: Owner, action: CancelAction, reason: EndReason, by: str | None = None
    ) -> Cancelled:
        """Record a cancel; the first action wins. A pending run ends at once, a terminal one is returned as it is.

        Raises:
            NotFound: No such run for *owner*.
        """
        return await self._write(lambda: runs.request_cancel(run_id, owner, action, reason, by))

    async def finish(
        self, lease: Lease, outcome: Outcome, *, first: Callable[[], Transaction[None]] | None = None
    ) -> Finished:
        """End the attempt of *lease*, or hand its run back, and make the lane's next run claimable.

        *first* makes a transaction that is part of this one, such as the removal of checkpoints.

        Raises:
            LeaseLost: Another attempt has the run, or it is terminal; nothing was written.
            CancelRecorded: A cancel came first and *outcome* is not a stop; nothing was written.
        """
        return await self._write(lambda: runs.finish(lease, outcome, first))

    async def rescue(self, lost: SeenLease, *, max_rescues: int) -> Finished:
        """Take a run from its dead worker, back to its lane or to ``error``.

        Raises:
            LeaseLost: The run moved on since *lost* was read.
        """
        return await self._write(lambda: rescues.rescue(lost, max_rescues))

    async def give_up(
        self, run_id: str, reason: EndReason, error: RunError, *, home: str | None = None
    ) -> Finished | None:
        """End a pending run that nobody will start; ``None`` if it is no longer pending, or has not this *home*."""
        return await self._write(lambda: rescues.give_up(run_id, reason, error, home))

    # Runs: leases and discovery.

    async def renew(self, leases: Sequence[Lease], *, lease_s: float, worker_id: str | None = None) -> Renewal:
        """Extend *leases* in one transaction, report lost ones and cancels asked for meanwhile; *worker_id* beats."""
        return await self._write(lambda: owners.renew(leases, lease_s, worker_id))

    async def observe_cancel(self, lease: Lease, at_us: int) -> None:
        """Record that the worker saw the cancel at *at_us* (microseconds of UTC)."""
        await self._write(lambda: owners.observe_cancel(lease, at_us))

    async def leases(self) -> tuple[SeenLease, ...]:
        """Return the lease of every running run."""
        return await self._read(owners.leases)

    async def runnable(self, *, after_seq: int = 0, limit: int = 1000) -> tuple[tuple[Head, int], ...]:
        """Return the next heads of lanes in which nothing executes, and in how many µs each may start."""
        return await self._read(lambda: owners.runnable(after_seq, limit))

    # Runs: reading, and writes that move nothing.

    async def get_run(self, run_id: str, *, owner: Owner) -> RunRecord:
        """Return the run, or raise NotFound."""
        return await self._look(lambda: queries.get_run(run_id, owner))

    async def list_runs(
        self,
        thread_id: str | None,
        *,
        owner: Owner,
        status: RunStatus | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[RunRecord, ...]:
        """Return runs of a thread (``None``: of all), the newest admission first."""
        return await self._read(lambda: queries.list_runs(thread_id, owner, status, limit, offset))

    async def list_tasks(
        self, thread_id: str, *, owner: Owner, where: tasks.TaskFilter, before: tuple[int, int] | None, limit: int
    ) -> tuple[tuple[RunRecord, ...], int]:
        """Return a thread's runs after *before*, the newest status first, and how many match *where* in all."""
        return await self._read(lambda: tasks.list_tasks(thread_id, owner, where, before, limit))

    async def runs_with_events(self, thread_id: str, *, after_seq: int, limit: int = 50) -> tuple[RunRecord, ...]:
        """Return the next runs of a thread, in the order of admission, that have events or may get some."""
        return await self._read(lambda: protocol.runs_with_events(thread_id, after_seq, limit))

    async def waiting_on(self, run_ids: Sequence[str]) -> Mapping[str, WaitingOn]:
        """Return what each of *run_ids* waits for, without those that are not pending."""
        return await self._read(lambda: queries.waiting_on(run_ids))

    async def has_active(self, thread_id: str, *, owner: Owner) -> bool:
        """Return whether the thread has a pending or running run."""
        return await self._read(lambda: queries.has_active(thread_id, owner))

    async def active_runs(
        self,
        *,
        owner: Owner,
        status: RunStatus | None,
        where: Json | None = None,
        before_seq: int = 2**62,
        limit: int = 500,
    ) -> tuple[RunRecord, ...]:
        """Return active runs of all threads that match *where*, with *status* if given, newest admission first."""
        return await self._read(lambda: queries.active_runs(owner, where, status, before_seq, limit))

    async def started_runs(self, thread_id: str, *, from_order: int, limit: int) -> tuple[RunRecord, ...]:
        """Return runs of a thread from a ``start_order`` on: they started, or ended without having started."""
        return await self._read(lambda: queries.started_runs(thread_id, from_order, limit))

    async def last_started(self, thread_id: str) -> RunRecord | None:
        """Return the run of a thread that started last, or ended last without having started."""
        return await self._read(lambda: queries.last_started(thread_id))

    async def queue_stats(self) -> QueueStats:
        """Count active runs of all owners, and measure for how long they have waited."""
        return await self._read(queues.queue_stats)

    async def inflight_runs(self, *, after_seq: int = 0, limit: int = 500) -> tuple[RunRecord, ...]:
        """Return pending and running runs of all owners, oldest first."""
        return await self._read(lambda: queries.inflight_runs(after_seq, limit))

    async def run_result(
        self, run_id: str, *, owner: Owner
    ) -> tuple[RunStatus, bytes | None, Mapping[str, str] | None]:
        """Return a run's status, the JSON text that its waiters are answered, and its error."""
        return await self._read(lambda: queries.run_result(run_id, owner))

    async def set_model(self, run_id: str, model_name: str | None) -> RunRecord:
        """Record which model the run uses."""
        return await self._write(lambda: queries.set_model(run_id, model_name))

    async def set_progress(self, run_id: str, changes: Mapping[str, Any], *, attempt: int | None = None) -> bool:
        """Merge counters into those of an active run; ``False``, with nothing written, once it has ended.

        With *attempt* also once another attempt has the run.
        """
        return await self._write(lambda: queries.set_progress(run_id, changes, attempt))

    async def complete_usage(self, run_id: str, changes: Mapping[str, Any]) -> RunRecord:
        """Record final counters, for any kind of ending; a number never falls, a missing run is never made."""
        return await self._write(lambda: queries.complete_usage(run_id, changes))

    async def delete_run(self, run_id: str, *, owner: Owner) -> RunRecord:
        """Delete an ended run and its events; ConflictError while it is active."""
        return await self._write(lambda: queries.delete_run(run_id, owner))

    async def thread_usage(self, thread_id: str, *, owner: Owner) -> tuple[Usage, ...]:
        """Return the usage of each run of a thread, whatever its ending."""
        return await self._read(lambda: queries.thread_usage(thread_id, owner))

    async def forgettable(self, *, older_than_s: float, limit: int = 200) -> tuple[RunRecord, ...]:
        """Return runs that ended more than *older_than_s* ago."""
        return await self._read(lambda: queries.forgettable(older_than_s, limit))

    # Events.

    def submit_events(
        self,
        lease: Lease,
        batch: Sequence[StreamEvent],
        loop: asyncio.AbstractEventLoop,
        callback: Callable[[Any, BaseException | None], None],
    ) -> None:
        """Queue an append from any thread, in order; *callback(None, error)* runs on *loop* afterwards.

        It is not tried again.

        Raises:
            StoreUnavailable: The store is closed.
        """
        self.driver.submit(events.append_events(lease, batch), loop, callback)

    async def read_events(self, run_seq: int, *, after: int, max_bytes: int = READ_BYTES) -> tuple[StreamEvent, ...]:
        """Return the next events with numbers above *after*; a later first number means that retention removed some.

        Args:
            max_bytes: It stops once there is so much, as nearly as the segments of the log let it.
        """
        return await self._read(lambda: events.read_events(run_seq, after, READ_SEGMENTS, max_bytes))

    async def last_event(self, run_seq: int) -> int:
        """Return the number of the newest event in a run's log; 0 if there is none."""
        return await self._look(lambda: events.last_event(run_seq))

    async def stream_end(self, run_seq: int, *, thread_id: str | None = None) -> StreamEnd | None:
        """Return the end of a run's stream, or ``None`` while the run is active.

        A run of another thread than *thread_id*, if that is given, is as one that was deleted.
        """
        return await self._look(lambda: queries.stream_end(run_seq, thread_id))

    async def purge_events(self, *, older_than_s: float, limit: int = 100) -> int:
        """Remove the events of up to *limit* runs that ended long enough ago; return of how many."""
        return await self._write(lambda: events.purge_events(older_than_s, limit))

    # Threads.

    async def create_thread(
        self,
        thread_id: str,
        *,
        owner: str,
        metadata: Json,
        if_exists_return: bool = False,
        ttl: ThreadTtl | None = None,
        state: ThreadState | None = None,
        first: Part | None = None,
    ) -> Thread:
        """Create a thread; AlreadyExists if the id is taken (and not by this owner with *if_exists_return*).

        With a *state* it begins with a history, whose checkpoints *first* writes in the same transaction.
        """
        new = NewThread(
            thread_id=thread_id, owner=owner, metadata=metadata, ttl=ttl or self._thread_ttl, state=state, first=first
        )
        return await self._write(lambda: threads.create_thread(new, if_exists_return=if_exists_return))

    async def get_thread(self, thread_id: str, *, owner: Owner) -> Thread:
        """Return the thread, or raise NotFound."""
        return await self._read(lambda: threads.get_thread(thread_id, owner))

    async def patch_thread(
        self, thread_id: str, *, owner: Owner, metadata: Json, ttl: ThreadTtl | None = None
    ) -> Thread:
        """Merge *metadata* shallowly into the thread's; *ttl*, if given, is counted from now."""
        return await self._write(lambda: threads.patch_thread(thread_id, owner, metadata, ttl))

    async def idle_thread(self, thread_id: str, *, owner: Owner) -> Thread:
        """Return the thread if none of its runs is active; ConflictError otherwise."""
        return await self._write(lambda: threads.idle_thread(thread_id, owner))

    async def show_first_values(self, lease: Lease, values: bytes) -> bool:
        """Let a thread that has no values show *values* until the run of *lease* ends; return whether it does now.

        ``False``: it has values, or the attempt has lost its run.
        """
        return await self._write(lambda: threads.show_first_values(lease, values.decode()))

    async def set_thread_state(
        self,
        thread_id: str,
        *,
        owner: Owner,
        state: ThreadState,
        metadata: Json,
        seen: datetime | None = None,
        first: Part | None = None,
    ) -> Thread:
        """Record a state made outside of a run, after *first*, which writes its checkpoints.

        Args:
            seen: The thread's ``updated_at`` when that was begun; ``None``: whatever has happened since.

        Raises:
            ConflictError: A run is active; nothing was written.
            ThreadChanged: Something has happened on the thread since *seen*; nothing was written.
        """
        return await self._write(
            lambda: threads.set_thread_state(thread_id, owner, state, metadata, seen=seen, first=first)
        )

    async def change_idle_thread(self, thread_id: str, *, owner: Owner, first: Part) -> None:
        """Do *first*, which leaves the thread reading as before; ConflictError while a run is active."""
        await self._write(lambda: threads.change_idle_thread(thread_id, owner, first))

    async def copy_thread(
        self, source: str, target: str, *, reads: Owner, owner: str, metadata: Json, first: Part | None = None
    ) -> Thread:
        """Copy a thread without its runs; *first* copies the checkpoints. ConflictError while a run executes."""
        return await self._write(
            lambda: threads.copy_thread(source, target, reads=reads, owner=owner, metadata=metadata, first=first)
        )

    async def search_threads(
        self,
        *,
        owner: Owner,
        where: ThreadFilter,
        sort_by: str = "updated_at",
        order: Order = "desc",
        limit: int = 10,
        offset: int = 0,
    ) -> tuple[Thread, ...]:
        """Return threads that match *where*, sorted by one of ``SORT_KEYS``."""
        return await self._read(
            lambda: thread_search.search_threads(owner, where, sort_by=sort_by, order=order, limit=limit, offset=offset)
        )

    async def all_threads(
        self, *, owner: Owner, where: ThreadFilter, after: str = "", limit: int
    ) -> tuple[Thread, ...]:
        """Return threads that match *where*, those of stateless runs too, with ids above *after*, in their order."""
        return await self._read(lambda: thread_search.all_threads(owner, where, after, limit))

    async def count_threads(self, *, owner: Owner, where: ThreadFilter, at_most: int | None = None) -> int:
        """Return how many threads match *where*, or *at_most*."""
        return await self._read(lambda: thread_search.count_threads(owner, where, at_most=at_most))

    async def delete_thread(self, thread_id: str, *, owner: Owner, first: Part | None = None) -> None:
        """Delete a thread, its runs and their events, after *first*; ConflictError while a run is active."""
        await self._write(lambda: threads.delete_thread(thread_id, owner, first))

    async def expired_threads(self, *, limit: int, temporary: bool = False) -> tuple[tuple[str, PruneStrategy], ...]:
        """Return idle threads of all owners whose time is over, and what is to become of each.

        Those of stateless runs (*temporary*), or all others.
        """
        return await self._read(lambda: threads.expired_threads(limit, temporary=temporary))

    async def expire_thread(
        self, thread_id: str, strategy: PruneStrategy, *, first: Part | None = None
    ) -> Thread | None:
        """Delete an expired thread, or note that *first* has pruned it; ``None`` if that is not to be done any more."""
        return await self._write(lambda: threads.expire_thread(thread_id, strategy, first))

    # Assistants.

    async def create_assistant(self, new: NewAssistant, *, if_exists_return: bool = False) -> Assistant:
        """Create version 1 of an assistant; AlreadyExists if the id is taken."""
        return await self._write(lambda: assistants.create_assistant(new, if_exists_return=if_exists_return))

    async def get_assistant(self, assistant_id: str, *, owner: Owner) -> Assistant:
        """Return the assistant, or raise NotFound."""
        return await self._look(lambda: assistants.get_assistant(assistant_id, owner))

    async def update_assistant(self, assistant_id: str, *, owner: Owner, changes: Json) -> Assistant:
        """Make a new version with *changes*; metadata is merged."""
        return await self._write(lambda: assistants.update_assistant(assistant_id, owner, changes))

    async def set_latest(self, assistant_id: str, *, owner: Owner, version: int) -> Assistant:
        """Make an earlier version the current one."""
        return await self._write(lambda: assistants.set_latest(assistant_id, owner, version))

    async def list_versions(
        self, assistant_id: str, *, owner: Owner, metadata: Json | None = None, limit: int = 10, offset: int = 0
    ) -> tuple[Assistant, ...]:
        """Return the versions of an assistant, newest first."""
        return await self._read(lambda: assistants.list_versions(assistant_id, owner, metadata, limit, offset))

    async def search_assistants(
        self,
        *,
        owner: Owner,
        where: AssistantFilter,
        sort_by: str = "created_at",
        order: Order = "desc",
        limit: int = 10,
        offset: int = 0,
    ) -> tuple[Assistant, ...]:
        """Return assistants that match *where*, sorted by one of ``SORT_KEYS``."""
        return await self._read(
            lambda: assistants.search_assistants(owner, where, sort_by=sort_by, order=order, limit=limit, offset=offset)
        )

    async def count_assistants(self, *, owner: Owner, where: AssistantFilter) -> int:
        """Count assistants that match *where*."""
        return await self._read(lambda: assistants.count_assistants(owner, where))

    async def delete_assistant(self, assistant_id: str, *, owner: Owner) -> None:
        """Delete an assistant and its versions; its runs stay."""
        await self._write(lambda: assistants.delete_assistant(assistant_id, owner))
