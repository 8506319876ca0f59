"""The observer that counts for Prometheus. A new metric of the life of runs is three lines in :class:`RunMetrics`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from runlane.telemetry.events import (
    CancelStopped,
    JournalFlushed,
    LoopTurned,
    RunAdmitted,
    RunFinished,
    RunFirstEvent,
    RunLeaseLost,
    RunRejected,
    RunReleased,
    RunRescued,
    StoreOutageBegan,
    WebhookAttempted,
)
from runlane.telemetry.observers import Observer, on
from runlane.telemetry.prices import NO_PRICES, Prices

#: Runs wait and execute for milliseconds, or for an hour.
RUN_S: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 3600.0)
#: Transactions and turns of loops take milliseconds, unless the database is slow.
WORK_S: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0)
#: A cancel stops code within its grace times.
STOP_S: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)

#: Models that are told apart; providers make names for versions, and gateways for customers.
MAX_MODELS: Final = 100
OTHER: Final = "other"

M = TypeVar("M", Counter, Histogram)


class RunMetrics:
    """Counters and histograms of what the process does with runs; ``observers`` feeds them.

    Labels are graphs, statuses and names of loops, of which there are few; never owners, threads or runs.
    """

    def __init__(self, registry: CollectorRegistry, prices: Prices = NO_PRICES) -> None:
        self._registry = registry
        admitted = self._counter("runs_admitted", "Runs that were recorded as pending.", "graph")
        rejected = self._counter("runs_rejected", "Runs that were not admitted, by the error's code.", "code")
        finished = self._counter("runs_finished", "Runs that ended, by status and reason.", "graph", "status", "reason")
        released = self._counter("runs_released", "Runs that were handed back when a process stopped.", "graph")
        rescued = self._counter("runs_rescued", "Runs that were taken from a dead worker.", "graph")
        abandoned = self._counter("runs_abandoned", "Runs whose code did not stop and was abandoned.", "graph")
        first = self._histogram(
            "run_first_event_seconds", "Time from when a run could start to its first event.", RUN_S, "graph"
        )
        used = self._usage(prices)
        lost = self._counter("leases_lost", "Attempts that no longer owned their run.")
        queued = self._histogram("run_queued_seconds", "Time from when a run could start to its start.", RUN_S, "graph")
        executing = self._histogram("run_executing_seconds", "Time from a run's start to its end.", RUN_S, "graph")
        cancel = self._histogram("run_cancel_seconds", "Time from a cancel to the end of the run.", STOP_S)
        flush = self._histogram("flush_seconds", "Time in which events and checkpoints were committed.", WORK_S)
        written = self._counter("flushed_event_bytes", "Bytes of events that were committed.")
        outages = self._counter("store_outages", "Times that the database became unavailable.")
        turn = self._histogram("loop_turn_seconds", "Time that a turn of a periodic loop took.", WORK_S, "loop")
        failed = self._counter("loop_failures", "Turns of periodic loops that failed.", "loop", "error")
        webhooks = self._counter("webhook_attempts", "Webhooks that were sent, by their outcome.", "outcome")

        def on_finished(event: RunFinished) -> None:
            reason = "" if event.end_reason is None else event.end_reason.value
            finished(event.graph_id or "", event.status.value, reason).inc()
            used(event)
            queued(event.graph_id or "").observe(event.queued_s)
            executing(event.graph_id or "").observe(event.executing_s)

        def on_stopped(event: CancelStopped) -> None:
            cancel().observe(event.after_s)
            if event.blocked_at is not None:
                abandoned(event.graph_id or "").inc()

        def on_flushed(event: JournalFlushed) -> None:
            flush().observe(event.duration_s)
            written().inc(event.bytes)

        def on_turned(event: LoopTurned) -> None:
            turn(event.loop).observe(event.duration_s)
            if event.error is not None:
                failed(event.loop, event.error).inc()

        self.observers: tuple[Observer, ...] = (
            on(RunAdmitted, lambda event: admitted(event.graph_id or "").inc()),
            on(RunRejected, lambda event: rejected(event.code).inc()),
            on(RunFinished, on_finished),
            on(RunReleased, lambda event: released(event.graph_id or "").inc()),
            on(RunRescued, lambda event: rescued(event.graph_id or "").inc()),
            on(RunLeaseLost, lambda _: lost().inc()),
            on(RunFirstEvent, lambda event: first(event.graph_id or "").observe(event.after_s)),
            on(CancelStopped, on_stopped),
            on(JournalFlushed, on_flushed),
            on(StoreOutageBegan, lambda _: outages().inc()),
            on(LoopTurned, on_turned),
            on(WebhookAttempted, lambda event: webhooks(event.outcome).inc()),
        )

    def _usage(self, prices: Prices) -> Callable[[RunFinished], None]:
        """Return what counts the tokens of a run that ended, and what they cost if there is a price."""
        tokens = self._counter("tokens", "Tokens of runs that ended.", "graph", "model", "kind")
        calls = self._counter("model_calls", "Calls of models of runs that ended.", "graph", "model")
        cost = self._counter("cost", "Cost of runs that ended, by the file of prices.", "graph", "model")
        known: set[str] = set()

        def count(event: RunFinished) -> None:
            graph = event.graph_id or ""
            for name, counts in event.usage.by_model.items():
                if len(known) < MAX_MODELS:
                    known.add(name)
                model = name if name in known else OTHER
                for kind in ("input", "cached_input", "output"):
                    tokens(graph, model, kind).inc(counts.get(f"{kind}_tokens", 0))
                calls(graph, model).inc(counts.get("llm_calls", 0))
                price = prices.of(name)
                if price is not None:
                    cost(graph, model).inc(price.of(counts))

        return count

    def _counter(self, name: str, text: str, *labels: str) -> Callable[..., Counter]:
        return _series(Counter(f"runlane_{name}", text, labels, registry=self._registry))

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Callable[..., Histogram]:
        return _series(Histogram(f"runlane_{name}", text, labels, buckets=buckets, registry=self._registry))


class SizeMetrics:
    """Gauges of how large the database is, set when Prometheus asks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._database = Gauge("runlane_database_bytes", "Size of the database, without its log.", registry=registry)
        self._free = Gauge("runlane_database_free_bytes", "Free pages of the SQLite file.", registry=registry)
        self._log = Gauge("runlane_database_log_bytes", "Size of SQLite's write-ahead log.", registry=registry)
        self._tables = Gauge(
            "runlane_table_bytes", "Size of a table and its indexes when last measured.", ["table"], registry=registry
        )

    def show(self, database_bytes: float, free_bytes: float, log_bytes: float, tables: Mapping[str, int]) -> None:
        """Set the gauges."""
        self._database.set(database_bytes)
        self._free.set(free_bytes)
        self._log.set(log_bytes)
        self._tables.clear()
        for name, size in tables.items():
            self._tables.labels(name).set(size)

    def unknown(self) -> None:
        """The database is not available: no number is better than the last one that was true."""
        self.show(math.nan, math.nan, math.nan, {})


def _series(metric: M) -> Callable[..., M]:
    """Return what gives the series of *metric* for the values of its labels; Prometheus takes a lock to find it."""
    series: dict[tuple[str, ...], M] = {}

    def of(*values: str) -> M:
        found = series.get(values)
        if found is None:
            found = series[values] = metric.labels(*values) if values else metric
        return found

    return of
