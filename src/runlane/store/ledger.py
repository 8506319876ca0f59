"""RunStore: the ledger, with one object per kind of row that it holds."""

from __future__ import annotations

from runlane.records import ThreadTtl
from runlane.store.resources.assistants import Assistants
from runlane.store.resources.attempts import Attempts
from runlane.store.resources.audit import Audit
from runlane.store.resources.crons import Crons
from runlane.store.resources.events import Events
from runlane.store.resources.parts import Parts
from runlane.store.resources.queue import RunQueue
from runlane.store.resources.run_logs import RunLogs
from runlane.store.resources.runs import Runs
from runlane.store.resources.saved_views import SavedViews
from runlane.store.resources.sizes import Sizes
from runlane.store.resources.threads import Threads
from runlane.store.resources.totals import Totals
from runlane.store.resources.webhooks import Webhooks
from runlane.store.resources.workers import Workers
from runlane.store.retry import PersistenceRetryPolicy
from runlane.store.retrying import RetryingDriver
from runlane.store.statements import Driver
from runlane.store.transactions.admissions import MAX_QUEUED_RUNS
from runlane.store.transactions.probe import probe
from runlane.telemetry.emitter import SILENT, Telemetry


class RunStore:
    """The ledger of threads, assistants, runs, crons, webhooks and events.

    Every method of its parts is one transaction, retried while the database is unavailable for a passing reason. All
    raise StoreUnavailable when it stays unavailable: nothing was written, and nothing is reported as absent.
    Methods that take *owner* see only that owner's rows, unless it is ``ANY_OWNER``.

    Attributes:
        runs: Admit, cancel, read, annotate and delete runs.
        queue: What waits, and what may start.
        attempts: Claim a run, keep its lease, end it; take it from a dead worker.
        events: The durable log behind every stream.
        run_logs: The log records of runs.
        threads: Threads, their state, search and expiry.
        assistants: Assistants and their versions.
        crons: Schedules, and the runs that they start.
        webhooks: The outbox of deliveries.
        workers: The processes that share the ledger.
        audit: What operators did.
        totals: Totals of runs that ended.
        saved_views: Queries of the console's pages.
        parts: The parts of large values that nothing refers to any more.
        sizes: How much space all of it takes.
        driver: The database, for what has transactions of its own, such as checkpoints.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        retry: PersistenceRetryPolicy | None = None,
        thread_ttl: ThreadTtl | None = None,
        max_queued_runs: int = MAX_QUEUED_RUNS,
        telemetry: Telemetry = SILENT,
    ) -> None:
        """Use *driver*'s database.

        Args:
            thread_ttl: When threads expire for which nothing else is set.
            max_queued_runs: How many runs may wait behind the head of their thread's lane.
        """
        self.driver = driver
        self._database = RetryingDriver(driver, retry, telemetry)
        self.runs = Runs(self._database, thread_ttl=thread_ttl, max_queued_runs=max_queued_runs)
        self.queue = RunQueue(self._database)
        self.attempts = Attempts(self._database)
        self.events = Events(self._database)
        self.run_logs = RunLogs(self._database)
        self.threads = Threads(self._database, thread_ttl=thread_ttl)
        self.assistants = Assistants(self._database)
        self.crons = Crons(self._database, thread_ttl=thread_ttl, max_queued_runs=max_queued_runs)
        self.webhooks = Webhooks(self._database)
        self.workers = Workers(self._database)
        self.audit = Audit(self._database)
        self.totals = Totals(self._database)
        self.saved_views = SavedViews(self._database)
        self.parts = Parts(self._database)
        self.sizes = Sizes(self._database)

    async def probe(self) -> None:
        """Write a row that nobody reads, to find out whether the database takes writes."""
        await self._database.write(probe)

    async def aclose(self) -> None:
        """Close the driver; a second call does nothing."""
        await self.driver.aclose()
