"""Why a pending run has not started, in words. Pure."""

from __future__ import annotations

from datetime import datetime

from runlane.settings import Limits
from runlane.store.transactions.fleet import Executors, ShownWorker
from runlane.store.transactions.histories import RunHistory


def waiting_sentence(history: RunHistory, limits: Limits) -> str:
    """Return what the pending run of *history* waits for."""
    waiting, since = history.waiting, shown_time(_since(history))
    if waiting is None:
        return "It is pending."
    if waiting.reason == "delay":
        return f"It may not start before {shown_time(history.run.not_before)}."
    if waiting.reason == "run":
        return f"It waits for run {waiting.run_id} of its thread since {since}."
    if history.executors is not None and (why := why_no_worker(history.executors)) is not None:
        return f"It waits for a worker: {why} It has waited since {since}."
    return f"{_for_a_worker(history, limits)} It could start since {since}."


def _since(history: RunHistory) -> datetime:
    """Return since when it could have started, had nothing been in its way."""
    run = history.run
    due = max(run.created_at, run.not_before)
    return max(due, history.past[-1].ended_at) if history.past else due


def _for_a_worker(history: RunHistory, limits: Limits) -> str:
    executors = history.executors
    if executors is None:
        return "It waits for a worker."
    if (full := _full(history, limits)) is not None:
        return f"It waits, as {full}."
    free = [worker for worker in executors.able if worker.running < worker.capacity]
    if not free:
        slots = ", ".join(f"{worker.worker_id} ({worker.running} of {worker.capacity})" for worker in executors.able)
        return f"It waits for a free slot; all workers that can execute it are full: {slots}."
    if executors.home is not None:
        return f"It waits for process {executors.home} to attach its code and to start it."
    return f"It is about to start: worker {free[0].worker_id} can execute it."


def _full(history: RunHistory, limits: Limits) -> str | None:
    run, counts = history.run, history.counts
    kinds = (
        (f"owner {run.owner!r}", counts.owner, limits.per_owner),
        (f"assistant {run.assistant_id}", counts.assistant, limits.per_assistant),
        (f"graph {run.graph_id!r}", counts.graph, limits.per_graph),
    )
    for what, running, limit in kinds:
        if limit and running >= limit:
            return f"{what} has {running} running runs of at most {limit}"
    return None


def shown_time(at: datetime) -> str:
    """Return *at* as sentences have it."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def no_worker(graph_id: str, build: str | None) -> str:
    """Say that no live worker can execute runs of a graph, or of one build of it."""
    of_build = f" in build {build}, the only one in which it goes on" if build else ""
    return f"No live worker has graph {graph_id!r}{of_build}"


def why_no_worker(executors: Executors) -> str | None:
    """Say why no worker can execute a pending run, and which workers there are; ``None`` if one can.

    One that can may have no free slot, and other runs of the thread may go first: neither is looked at here.
    """
    if executors.able:
        return None
    if executors.home is not None:
        why = f"Only process {executors.home} has its code, which is attached to it"
    else:
        why = no_worker(executors.graph_id or "", executors.build)
    there = ", ".join(_described(worker) for worker in executors.others)
    return f"{why}. Workers: {there or 'none'}."


def _described(worker: ShownWorker) -> str:
    state = worker.state if worker.capacity else "executes nothing"
    return f"{worker.worker_id} (build {worker.build or 'unnamed'}, {state})"
