"""Which transaction is next, where several threads run them: one of each lane at a time, the urgent ones first.

A lane is what would wait for the same lock in the database. Waiting here takes no connection from the others, and those
that wait and begin alike share a commit: whoever runs the first of them takes the others along. Only so many reads run
at once, so that a burst of them keeps no write waiting.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from runlane.errors import LedgerClosed
from runlane.store.drivers.delivery import Submission
from runlane.store.statements import Query, Statement


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """A transaction to be run, which has been advanced to its first query.

    Attributes:
        begins_with: The statement of its first query.
        lane: No other job of this lane runs at the same time; ``None``: it waits for none.
        urgent: It keeps a lease, or takes over from those who do not: some threads run nothing else.
        behind: It waits for another job of its lane, and not for a thread.
    """

    submission: Submission
    begins_with: Statement
    writes: bool
    lane: str | None
    urgent: bool
    behind: bool = False
    state: str = "waiting"

    @property
    def is_read(self) -> bool:
        """Return whether it is one of those of which only so many run at once."""
        return not self.writes and not self.urgent


@dataclass(slots=True, eq=False)
class Server:
    """A thread that runs jobs, as far as they have to know of it."""

    urgent_only: bool
    inbox: SimpleQueue[Job | None] = field(default_factory=SimpleQueue)


class Lanes:
    """Jobs and who runs them. Thread-safe; nothing here waits but :meth:`take`."""

    def __init__(self, *, max_reads: int) -> None:
        """Args:
        max_reads: How many reads that are not urgent run at once; the other servers are for writes.
        """
        self._max_reads = max_reads
        self._reads = 0  # handed to a server, or next for one
        self._more_reads: deque[Job] = deque()
        self._lock = threading.Lock()
        self._closed = False
        self._ready: deque[Job] = deque()
        self._urgent: deque[Job] = deque()
        #: The lanes that have a job which runs or is ready, and who waits behind it.
        self._lanes: dict[str, deque[Job]] = {}
        # The last one to become idle is the first to work, so that few connections are open while little happens.
        self._idle: list[Server] = []

    def put(self, job: Job) -> None:
        """Run *job* once it is next.

        Raises:
            LedgerClosed: :meth:`close` has been called.
        """
        with self._lock:
            if self._closed:
                raise LedgerClosed
            if job.lane is not None:
                if job.lane in self._lanes:
                    self._lanes[job.lane].append(job)
                    job.behind = True
                    return
                self._lanes[job.lane] = deque()
            self._offer(job)

    def take(self, server: Server) -> Job | None:
        """Wait for the next job of *server*; ``None`` after the last one. Call :meth:`done` after it."""
        with self._lock:
            job = self._next(server)
            if job is None:
                if self._closed:
                    return None
                self._idle.append(server)
        return job or server.inbox.get()

    def begin(self, job: Job) -> bool:
        """Return whether *job* is to be run: nobody has dropped it."""
        with self._lock:
            dropped = job.state == "dropped"
            job.state = "running"
            return not dropped

    def join(self, job: Job) -> Job | None:
        """Begin the next job of *job*'s lane, if it can go into the transaction that *job* has begun; else ``None``.

        It can if it begins with the same statement: it waits for the lock that *job* has, and for no other one first.
        """
        if job.lane is None:
            return None
        with self._lock:
            behind = self._lanes[job.lane]
            while behind and behind[0].state == "dropped":
                behind.popleft()
            if not behind or behind[0].begins_with is not job.begins_with:
                return None
            following = behind.popleft()
            following.state = "running"
            return following

    def drop(self, job: Job) -> bool:
        """Take *job* back, unless it has begun; return whether it has not."""
        with self._lock:
            if job.state != "waiting":
                return False
            job.state = "dropped"
            return True

    def done(self, job: Job) -> None:
        """Let the next job of *job*'s lane go on, or the next read, behind those that are ready."""
        with self._lock:
            if job.is_read:
                self._reads -= 1
                if self._more_reads:
                    self._offer(self._more_reads.popleft())
            if job.lane is None:
                return
            behind = self._lanes[job.lane]
            if behind:
                self._hand(behind.popleft())
            else:
                del self._lanes[job.lane]

    def close(self) -> None:
        """Accept no more; servers leave when nothing is left for them."""
        with self._lock:
            self._closed = True
            for server in self._idle:
                server.inbox.put(None)
            self._idle.clear()

    def _offer(self, job: Job) -> None:
        if job.is_read:
            if self._reads == self._max_reads:
                self._more_reads.append(job)
                return
            self._reads += 1
        self._hand(job)

    def _hand(self, job: Job) -> None:
        job.behind = False
        # Urgent jobs go to the servers that run nothing else while one of these is idle: the others have enough to do.
        idle = [server for server in self._idle if job.urgent or not server.urgent_only]
        if not idle:
            (self._urgent if job.urgent else self._ready).append(job)
            return
        server = next((one for one in idle if one.urgent_only), idle[-1])
        self._idle.remove(server)
        server.inbox.put(job)

    def _next(self, server: Server) -> Job | None:
        if self._urgent:
            return self._urgent.popleft()
        return self._ready.popleft() if self._ready and not server.urgent_only else None


def lane_of(query: Query) -> str | None:
    """Return the lane of a transaction that begins with *query*: the thread, or else the run, that it names."""
    params: dict[str, Any] = query.params or {}
    lane: str | None = params.get("thread_id") or params.get("run_id")
    return lane
