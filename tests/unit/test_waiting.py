"""Why a queued run waits for a worker, in words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from runlane.runs.waiting import why_no_worker
from runlane.store.transactions.fleet import Executors, ShownWorker


def worker(worker_id: str, **values: Any) -> ShownWorker:
    told = {
        "build": "b2",
        "running": 0,
        "capacity": 4,
        "state": "ready",
        "graphs": ("g",),
        "revision": "0001",
        **values,
    }
    return ShownWorker(worker_id=worker_id, started_at=datetime(2026, 1, 1, tzinfo=UTC), **told)


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"able": (worker("w"),)}, None),
        ({"others": ()}, "No live worker has graph 'g'. Workers: none."),
        (
            {"build": "b1", "others": (worker("w"), worker("api", build="", capacity=0))},
            "No live worker has graph 'g' in build b1, in which it began. Workers: w (build b2, ready), "
            "api (build unnamed, executes nothing).",
        ),
        (
            {"home": "app", "others": (worker("app", state="silent"),)},
            "Only process app has its code, which is attached to it. Workers: app (build b2, silent).",
        ),
    ],
)
def test_it_is_said_why_no_worker_can_execute_a_run(facts: dict[str, Any], why: str | None) -> None:
    executors = Executors(**{"graph_id": "g", "build": None, "home": None, "able": (), "others": (), **facts})
    assert why_no_worker(executors) == why
