"""Why a queued run waits for a worker, in words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import structs

from agent_kit import run_record
from runlane.records import WaitingOn
from runlane.runs.waiting import waiting_sentence, why_no_worker
from runlane.settings import Limits
from runlane.store.transactions.fleet import Executors, ShownWorker
from runlane.store.transactions.histories import RunHistory, RunningCounts


def worker(worker_id: str, **values: Any) -> ShownWorker:
    told = {
        "build": "b2",
        "running": 0,
        "capacity": 4,
        "state": "ready",
        "graphs": ("g",),
        "revision": "0001",
        "renewed_at": datetime(2026, 1, 1, 12, tzinfo=UTC),
        "renewed_s": 1.0,
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
            "No live worker has graph 'g' in build b1, the only one in which it goes on. Workers: w (build b2, ready), "
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


NOW = datetime(2026, 1, 1, 12, 4, 10, tzinfo=UTC)
SINCE = "It could start since 2026-01-01 12:04:10 UTC."


def executors(*able: ShownWorker, home: str | None = None) -> Executors:
    return Executors(graph_id="g", build=None, home=home, able=able, others=())


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"waiting": WaitingOn(reason="delay", until=NOW)}, "It may not start before 2026-01-01 12:04:10 UTC."),
        (
            {"waiting": WaitingOn(reason="run", run_id="first")},
            "It waits for run first of its thread since 2026-01-01 12:04:10 UTC.",
        ),
        (
            {"executors": executors()},
            "It waits for a worker: No live worker has graph 'g'. Workers: none. It has waited since 2026-01-01 "
            "12:04:10 UTC.",
        ),
        (
            {"executors": executors(worker("w")), "counts": RunningCounts(owner=2)},
            f"It waits, as owner 'acme' has 2 running runs of at most 2. {SINCE}",
        ),
        (
            {"executors": executors(worker("w")), "counts": RunningCounts(graph=3)},
            f"It waits, as graph 'g' has 3 running runs of at most 3. {SINCE}",
        ),
        (
            {"executors": executors(worker("v", running=4), worker("w", running=5))},
            f"It waits for a free slot; all workers that can execute it are full: v (4 of 4), w (5 of 4). {SINCE}",
        ),
        (
            {"executors": executors(worker("w"), home="w")},
            f"It waits for process w to attach its code and to start it. {SINCE}",
        ),
        (
            {"executors": executors(worker("v", running=4), worker("w")), "counts": RunningCounts(owner=1)},
            f"It is about to start: worker w can execute it. {SINCE}",
        ),
    ],
)
def test_it_is_said_what_a_run_waits_for(facts: dict[str, Any], says: str) -> None:
    run = structs.replace(run_record(run_id="r"), owner="acme", graph_id="g", created_at=NOW, not_before=NOW)
    history = RunHistory(run=run, now=NOW, **{"waiting": WaitingOn(reason="slots"), **facts})
    assert waiting_sentence(history, Limits(per_owner=2, per_graph=3)) == says
