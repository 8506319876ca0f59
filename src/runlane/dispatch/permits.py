"""Permits between processes, carried by Procrastinate: "heads of this group can be claimed".

A permit is a hint, as all of dispatch is: the ledger decides what starts, and each process asks it every second. So a
permit may be lost, late or repeated. One job stands for all heads of a group that wait, however many there are: while
it is in the queue, another one is refused by its queueing lock. A process that takes it claims as many heads as it has
free slots, and if that fills them, passes it on.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, Final

import psycopg
from procrastinate import App
from procrastinate.app import WorkerOptions
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException

from runlane.dispatch.permit_jobs import HeardJobs, ListeningConnector
from runlane.dispatch.shared import SharedDispatch
from runlane.errors import StoreUnavailable
from runlane.store.drivers.postgres_errors import translated
from runlane.supervised_loop import SupervisedLoop
from runlane.telemetry.emitter import SILENT, Telemetry

TASK: Final = "runlane.claim"
#: Connections beside the listener's: for taking jobs and for deferring them.
CONNECTIONS: Final = 2
#: Procrastinate asks for jobs this often if no notification arrives. The ledger is looked at far more often.
JOBS_POLL_S: Final = 60.0
CONNECT_TIMEOUT_S: Final = 5.0
#: Jobs of processes that died while they had them. Their permits were repeated since, by the poll of the ledger.
FORGET_JOBS: Final = "DELETE FROM procrastinate_jobs WHERE status <> 'todo' AND worker_id IS NULL"


class Permits:
    """Offers heads to other processes, and takes their offers."""

    def __init__(self, url: str, schema: str, dispatch: SharedDispatch, telemetry: Telemetry = SILENT) -> None:
        """Args:
        schema: Where the tables of Procrastinate are.
        dispatch: What this process offers, and is told of offers.
        """
        connector = ListeningConnector(
            conninfo=url,
            min_size=1,
            max_size=CONNECTIONS,
            timeout=CONNECT_TIMEOUT_S,
            configure=partial(_configure, schema),
        )
        self._app = App(connector=connector)
        self._app.job_manager = HeardJobs(connector)
        self._app.task(name=TASK)(self._claim)
        self._dispatch = dispatch
        self._offered: set[str] = set()
        self._groups: Collection[str] | None = ()
        loop = partial(SupervisedLoop, every_s=0.0, stop_grace_s=0.0, telemetry=telemetry)
        self._sending = loop("permits", self._send)
        self._taking = loop("offers", self._take)
        self._wanted = asyncio.Event()

    @asynccontextmanager
    async def running(self, groups: Collection[str] | None, *, executes: bool) -> AsyncIterator[None]:
        """Offer and take permits, until the block is left.

        Args:
            groups: Whose heads this process can claim; ``None``: all.
            executes: Whether it claims any.
        """
        self._groups = groups
        with _translated():
            await self._app.open_async()
        try:
            self._dispatch.offer = self.offer
            self._sending.start()
            if executes:
                self._taking.start()
            yield
        finally:
            self._dispatch.offer = None
            await self._taking.stop()
            await self._sending.stop()
            await self._send_rest()
            await self._app.close_async()

    def offer(self, groups: Collection[str]) -> None:
        """Offer heads of *groups* to other processes, soon."""
        self._offered.update(groups)
        self._wanted.set()

    async def _send(self) -> None:
        """Defer a job for each group that was offered meanwhile."""
        await self._wanted.wait()
        self._wanted.clear()
        await self._send_offered()

    async def _send_offered(self) -> None:
        groups, self._offered = self._offered, set()
        for group in sorted(groups):
            with _translated():
                await self._defer(group)

    async def _send_rest(self) -> None:
        """Tell of what a drain has handed back a moment ago."""
        with suppress(StoreUnavailable):  # others find it when they poll
            await self._send_offered()

    async def _defer(self, group: str) -> None:
        queue = queue_of(group)
        try:
            await self._app.configure_task(TASK, queue=queue, queueing_lock=queue).defer_async(group=group)
        except AlreadyEnqueued:
            return  # it tells of these heads, too

    async def _take(self) -> None:
        """Take offers until it is stopped."""
        options: WorkerOptions = {
            "concurrency": 1,
            "install_signal_handlers": False,
            "delete_jobs": "always",
            "fetch_job_polling_interval": JOBS_POLL_S,
            "shutdown_graceful_timeout": 0.0,
        }
        if self._groups is not None:
            options["queues"] = [queue_of(group) for group in self._groups]
        with _translated():
            await self._app.connector.execute_query_async(FORGET_JOBS)
            await self._app.run_worker_async(**options)

    async def _claim(self, group: str) -> None:
        await self._dispatch.take_permit(group)


def queue_of(group: str) -> str:
    """Return the queue of a group's permits: a name that is short enough to be one of PostgreSQL's channels."""
    return f"heads-{hashlib.sha256(group.encode()).hexdigest()[:16]}"


async def _configure(schema: str, connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.set_autocommit(True)
    await connection.execute(
        "SELECT set_config('search_path', quote_ident(%s), false), set_config('synchronous_commit', 'off', false)",
        (schema,),
    )


@contextmanager
def _translated() -> Iterator[None]:
    """Raise an outage as what it is to Runlane, also one that Procrastinate reports."""
    with translated():
        try:
            yield
        except ConnectorException as error:
            if not isinstance(error.__cause__, psycopg.Error):
                raise
            raise error.__cause__ from None
