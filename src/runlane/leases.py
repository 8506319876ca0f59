"""Leases as values: what a worker shows of itself, and what others see of it and of the runs that it executes."""

from __future__ import annotations

from dataclasses import dataclass

from runlane.records import CancelReceipt, Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenLease:
    """A run in execution as others see it; ``beats`` are its worker's, ``None`` if that has no row."""

    run_id: str
    attempt: int
    worker_id: str
    lease_s: float
    beats: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """A worker as it shows itself: it is taken for dead, and its runs from it, some time after its last beat.

    Attributes:
        lease_s: How long after; it beats several times meanwhile.
        beats: Its beats so far, by its own count, which goes on even if others have forgotten it.
        build: Which code it executes; empty if nobody said.
        capacity: How many runs it executes at once.
        draining: It claims nothing more.
        groups: Groups of runs that it can execute; ``None``: all.
        host: The machine that it is on, as that calls itself.
        pid: Its process there.
        version: Its version of Runlane.
        lag_s: For how long the loop of its agents has kept the last call waiting.
    """

    worker_id: str
    lease_s: float
    beats: int = 1
    build: str = ""
    capacity: int = 0
    draining: bool = False
    groups: tuple[str, ...] | None = None
    host: str | None = None
    pid: int | None = None
    version: str | None = None
    lag_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenWorker:
    """A worker as others see it: each beat shows that it lives, and comes well within ``lease_s``."""

    worker_id: str
    beats: int
    lease_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedView:
    """What a process has to know of a ledger that others use too, as of one moment.

    Attributes:
        workers: Those that have not left, dead ones among them.
        leases: Runs in execution, but for those of workers that are known to live.
        cancelled: Runs that execute in the process, and whose cancel was recorded.
        has_heads: Lanes have heads that the process can execute, some of them perhaps not due yet.
        drain_asked: An operator wants it to drain.
    """

    workers: tuple[SeenWorker, ...]
    leases: tuple[SeenLease, ...]
    cancelled: tuple[str, ...]
    has_heads: bool
    drain_asked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """The answer to a renewal: which of the runs that are held are lost, and cancels asked for meanwhile."""

    lost: tuple[Lease, ...]
    cancelled: tuple[CancelReceipt, ...]
