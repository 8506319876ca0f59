"""Metrics of requests, the queue, workers and the process, for Prometheus or as JSON."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Any, Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runlane.errors import StoreUnavailable
from runlane.server.http import answers
from runlane.server.http.queries import QueryModel
from runlane.server.http.responses import json_response
from runlane.server.http.route import ROUTE, Resource, Route
from runlane.server.routes.authorization import service_of
from runlane.server.service import Service
from runlane.store.transactions.queue import Backlog, QueueStats
from runlane.telemetry.context import owner_hash
from runlane.telemetry.prices import NO_PRICES, Prices
from runlane.telemetry.prometheus import OTHER, RunMetrics, SizeMetrics

#: Routes answer within milliseconds, or wait for a run.
BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
#: The path of a request that no route took: its own would be another series for each guess of a client.
NO_ROUTE: Final = "other"
#: Those that are told apart, as clients may send any.
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
#: Owners whose pending runs are shown: those with the most.
MAX_OWNERS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSizes:
    """The size of the database, and of its tables when they were last measured."""

    database_bytes: int
    free_bytes: int
    log_bytes: int
    tables: Mapping[str, int]
    tables_measured_at: datetime | None


class Metrics:
    """Metrics of one application: its requests and, as an observer of telemetry, its runs.

    A request costs a look into a dict and two additions. Gauges are read when Prometheus asks.
    """

    def __init__(self, prices: Prices = NO_PRICES) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        #: Called with the events of runs.
        self.observers = RunMetrics(self.registry, prices).observers
        self._sizes = SizeMetrics(self.registry)
        self._requests = Counter(
            "runlane_http_requests",
            "Requests that were answered.",
            ["method", "path", "status"],
            registry=self.registry,
        )
        self._latency = Histogram(
            "runlane_http_requests_latency_seconds",
            "Time until the answer began.",
            ["method", "path"],
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self._series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._up = self._gauge("ledger_up", "Whether the ledger could be read.")
        runs = Gauge("runlane_runs", "Runs that are pending or running.", ["status"], registry=self.registry)
        #: In the order of the fields of QueueStats.
        self._queue = (
            runs.labels("pending"),
            runs.labels("running"),
            self._gauge("queue_wait_max_seconds", "The longest wait of a pending run."),
            self._gauge("queue_wait_median_seconds", "The median wait of pending runs."),
            self._gauge("queue_wait_unblocked_max_seconds", "The longest wait of a run that waits for a worker only."),
            self._gauge("queue_wait_no_build_max_seconds", "The longest wait for a build that no worker has."),
        )
        self._slots = self._gauge("worker_slots", "Runs that this process may execute at once.")
        self._active = self._gauge("worker_slots_active", "Runs that this process executes.")
        self._blocked = Counter(
            "runlane_agents_loop_blocked_seconds",
            "Time in which code blocked the agents' loop.",
            registry=self.registry,
        )
        self._blocked_s = 0.0
        self._streams = self._gauge("streams_open", "Readers of streams of runs and threads in this process.")
        self._late = (
            self._gauge("webhooks_late_seconds", "How long the webhook that is due the longest is late."),
            self._gauge("crons_late_seconds", "How long the cron that is due the longest is late."),
        )
        self._owners = Gauge(
            "runlane_owner_pending_runs",
            "Pending runs of the owners with the most, by the hashes of their names, and of all others.",
            ["owner"],
            registry=self.registry,
        )
        self._abandoned = self._gauge("abandoned", "Code of ended runs that did not stop and still goes on.")

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"runlane_{name}", text, registry=self.registry)

    def count(self, method: str, path: str, status: int, latency_s: float) -> None:
        """Count a request."""
        found = self._series.get((method, path, status))
        if found is None:
            found = self._requests.labels(method, path, str(status)), self._latency.labels(method, path)
            self._series[method, path, status] = found
        found[0].inc()
        found[1].observe(latency_s)

    def show_storage(self, storage: DatabaseSizes | None) -> None:
        """Set the gauges of sizes; without *storage* the ledger is unavailable."""
        if storage is None:
            self._sizes.unknown()
        else:
            self._sizes.show(storage.database_bytes, storage.free_bytes, storage.log_bytes, storage.tables)

    def show_backlog(self, backlog: Backlog | None, pending: int) -> None:
        """Set the gauges of what waits, of *pending* runs in all; without *backlog* the ledger is unavailable."""
        values = (math.nan, math.nan) if backlog is None else (backlog.webhooks_late_s, backlog.crons_late_s)
        for gauge, value in zip(self._late, values, strict=True):
            gauge.set(value)
        self._owners.clear()
        for owner, runs in () if backlog is None else backlog.owners:
            self._owners.labels(owner_hash(owner) or "").set(runs)
        if backlog is not None:
            self._owners.labels(OTHER).set(max(0, pending - sum(runs for _, runs in backlog.owners)))

    def show_process(self, *, slots: int, active: int, abandoned: int, blocked_s: float, streams: int) -> None:
        """Set what the process says of itself."""
        self._slots.set(slots)
        self._active.set(active)
        self._abandoned.set(abandoned)
        self._streams.set(streams)
        self._blocked.inc(max(0.0, blocked_s - self._blocked_s))
        self._blocked_s = max(self._blocked_s, blocked_s)

    def text(self, queue: QueueStats | None) -> bytes:
        """Return everything as Prometheus reads it; without *queue* the ledger is unavailable."""
        self._up.set(queue is not None)
        # No number is better than the last one that was true.
        values = (math.nan,) * len(self._queue) if queue is None else astuple(queue)
        for gauge, value in zip(self._queue, values, strict=True):
            gauge.set(value)
        return generate_latest(self.registry)

    def requests(self) -> dict[str, int]:
        """Return how many requests were answered with each status."""
        found: dict[str, int] = {}
        for sample in next(iter(self._requests.collect())).samples:
            if sample.name.endswith("_total"):
                status = sample.labels["status"]
                found[status] = found.get(status, 0) + int(sample.value)
        return found


class MetricsMiddleware:
    """Counts every request of the application, by its route, when its answer begins."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s = time.perf_counter()

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = scope.get(ROUTE)
                method = scope["method"] if path is not None and scope["method"] in METHODS else NO_ROUTE
                self._metrics.count(method, path or NO_ROUTE, message["status"], time.perf_counter() - began_s)
            await send(message)

        await self._app(scope, receive, send_on)


class MetricsQuery(QueryModel):
    format: Literal["prometheus", "json"] = "prometheus"


async def metrics(request: Request, query: MetricsQuery) -> Response:
    """Return what the process counts, for Prometheus; with ``format=json`` the queue and the workers as JSON."""
    service, counts = service_of(request), request.app.state.metrics
    slots, active = service.runtime.settings.slots, service.runtime.worker.executing
    if query.format == "json":
        workers = {"max": slots, "active": active, "available": max(0, slots - active)}
        return json_response(
            {
                "queue": await _queue(service),
                "api": {"requests": counts.requests()},
                "workers": workers,
                "storage": await _storage(service),
            }
        )
    try:
        queue = await service.store.queue.stats()
        counts.show_backlog(await service.store.queue.backlog(owners=MAX_OWNERS), queue.pending)
        counts.show_storage(await _storage(service))
    except StoreUnavailable:  # what the process says of itself is all the more wanted then
        queue = None
        counts.show_backlog(None, 0)
        counts.show_storage(None)
    counts.show_process(
        slots=slots,
        active=active,
        abandoned=len(service.runtime.host.abandoned),
        blocked_s=service.agents_blocked_s,
        streams=service.streams.readers,
    )
    return Response(counts.text(queue), media_type=CONTENT_TYPE_PLAIN_0_0_4)


async def _queue(service: Service) -> dict[str, Any]:
    queue = await service.store.queue.stats()
    return {
        "n_pending": queue.pending,
        "n_running": queue.running,
        "pending_runs_wait_time_max_secs": queue.wait_max_s,
        "pending_runs_wait_time_med_secs": queue.wait_median_s,
        "pending_unblocked_runs_wait_time_max_secs": queue.unblocked_wait_max_s,
    }


async def _storage(service: Service) -> DatabaseSizes:
    database, measured = await service.store.sizes.database(), service.table_sizes.latest
    return DatabaseSizes(
        database_bytes=database.bytes,
        free_bytes=database.free_bytes,
        log_bytes=service.store.sizes.log_bytes(),
        tables={} if measured is None else measured.tables,
        tables_measured_at=None if measured is None else measured.at,
    )


METRICS = Resource(
    tag="System",
    group="meta",
    routes=(Route("GET /metrics", metrics, answer=answers.Numbers, texts=("text/plain",), public=True),),
)
