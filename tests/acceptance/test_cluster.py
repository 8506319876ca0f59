"""P1, P2, P3, P5 and P7 on a cluster: five processes on one PostgreSQL, under load, to which things happen.

``./dev cluster --runs 50000 --threads 1000`` is the long form.
"""

from __future__ import annotations

import os
from pathlib import Path

from cluster.clients import KINDS, STRATEGIES
from cluster.trial import Trial
from postgres_cluster import PostgresCluster

SEED = int(os.environ.get("RUNLANE_ACCEPTANCE_SEED", "1"))


#: Each kind of fault, in two rows that go on at the same time.
SCRIPT = ("kill", "hold", "outage", "terminate", "freeze", "slots", "cut", "crash", "swallow", "kill")


async def test_a_cluster_whose_nodes_network_and_database_fail_loses_and_repeats_nothing(
    tmp_path: Path, durable_cluster: PostgresCluster
) -> None:
    trial = Trial(runs=100, threads=20, seed=SEED, at_once=2, script=SCRIPT, pause_s=(0.2, 1.0))
    verdict = await trial.run(tmp_path, durable_cluster, "ledger")
    print(verdict)  # noqa: T201 - the figures of the run
    assert not verdict.found, verdict
    assert verdict.figures["rescues"], "nothing was taken over"
    assert verdict.figures["slots"], "no cron was fired"
    assert all(verdict.figures[f"fault {what}"] for what in SCRIPT)
    assert all(verdict.figures[f"asked: kind {kind}"] for kind in KINDS), "a kind of graph is missing"
    assert all(verdict.figures[f"asked: strategy {strategy}"] for strategy in STRATEGIES), "a strategy is missing"
    assert verdict.times_s["cancel until the code has stopped"], "nothing was cancelled"
    assert verdict.figures["asked: streams that were resumed"], "no reader came back"
