"""What Procrastinate hears of jobs, made complete: a worker that misses a job looks for it a minute later."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any, Final

import psycopg
from procrastinate import PsycopgConnector
from procrastinate.connector import LISTEN_TIMEOUT, Notify
from procrastinate.jobs import Job, Notification
from procrastinate.manager import JobManager, NotificationCallback

_A_JOB: Final = json.dumps({"type": "job_inserted", "job_id": 0})


class ListeningConnector(PsycopgConnector):
    """A connector that has its worker look for jobs whenever it has begun to listen.

    A worker looks for jobs when it starts, and listens only then; a lost connection is made again.
    """

    async def _loop_notify(
        self, on_notification: Notify, connection: psycopg.AsyncConnection[Any], timeout: float = LISTEN_TIMEOUT
    ) -> None:
        await on_notification(channel="", payload=_A_JOB)
        await super()._loop_notify(on_notification, connection, timeout)


class HeardJobs(JobManager):
    """A manager of jobs that tells a worker of none while the worker looks for one: it would forget that."""

    def __init__(self, connector: ListeningConnector) -> None:
        super().__init__(connector)
        self._fetching = asyncio.Lock()

    async def fetch_job(self, queues: Iterable[str] | None, worker_id: int) -> Job | None:
        async with self._fetching:
            return await super().fetch_job(queues, worker_id)

    async def listen_for_jobs(
        self, *, on_notification: NotificationCallback, queues: Iterable[str] | None = None
    ) -> None:
        async def hear(*, channel: str, notification: Notification) -> None:
            async with self._fetching:
                await on_notification(channel=channel, notification=notification)

        await super().listen_for_jobs(on_notification=hear, queues=queues)
