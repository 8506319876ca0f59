"""Why a queued run waits for a worker, in words."""

from __future__ import annotations

from runlane.store.transactions.fleet import Executors, ShownWorker


def no_worker(graph_id: str, build: str | None) -> str:
    """Say that no live worker can execute runs of a graph, or of one build of it."""
    of_build = f" in build {build}, in which it began" if build else ""
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
