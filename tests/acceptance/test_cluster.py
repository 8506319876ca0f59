"""P1, P2, P3, P5 and P7 on a cluster: five processes on one PostgreSQL, under load, to which things happen.

``./dev cluster --runs 50000 --threads 1000`` is the long form.
"""

from __future__ import annotations

import os
from pathlib import Path

from cluster.trial import Trial
from postgres_cluster import PostgresCluster

SEED = int(os.environ.get("RUNLANE_ACCEPTANCE_SEED", "1"))


async def test_a_cluster_whose_nodes_network_and_database_fail_loses_and_repeats_nothing(
    tmp_path: Path, durable_cluster: PostgresCluster
) -> None:
    trial = Trial(runs=120, threads=20, seed=SEED, at_once=2)
    verdict = await trial.run(tmp_path, durable_cluster, "ledger")
    print(verdict)  # noqa: T201 - the figures of the run
    assert not verdict.found, verdict
    assert verdict.figures["rescues"], "nothing was taken over"
    assert verdict.figures["slots"], "no cron was fired"
