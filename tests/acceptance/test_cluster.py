"""P1, P2, P3, P5 and P7 on a cluster: five processes on one PostgreSQL, under load, to which things happen.

``./dev cluster --runs 50000 --threads 1000`` is the long form.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import pytest

from cluster.clients import KINDS, STRATEGIES
from cluster.nodes import settable_clock
from cluster.standby import PostgresPair
from cluster.trial import Trial
from postgres_cluster import chosen_binaries

SEED = int(os.environ.get("RUNLANE_ACCEPTANCE_SEED", "1"))


#: Each kind of fault, in two rows that go on at the same time: to a node, and to the database.
OF_NODES = ("kill", "hold", "clock", "terminate", "freeze", "swallow", "cut")
OF_ALL = ("outage", "slots", "failover", "disk", "crash")
SCRIPT = [what for pair in zip_longest(OF_NODES, OF_ALL) for what in pair if what is not None]


@pytest.fixture
def pair() -> Iterator[PostgresPair]:
    if not (chosen_binaries().place / "pg_basebackup").exists():
        pytest.skip("this PostgreSQL has no pg_basebackup, which makes the standby")
    with PostgresPair() as found:
        yield found


async def test_a_cluster_whose_nodes_network_and_database_fail_loses_and_repeats_nothing(
    tmp_path: Path, pair: PostgresPair
) -> None:
    trial = Trial(runs=100, threads=20, seed=SEED, at_once=2, script=SCRIPT, pause_s=(0.2, 1.0))
    verdict = await trial.run(tmp_path, pair, "ledger")
    print(verdict)  # noqa: T201 - the figures of the run
    assert not verdict.found, verdict
    assert verdict.figures["rescues"], "nothing was taken over"
    assert verdict.figures["slots"], "no cron was fired"
    impossible = {"disk": not pair.has_disk, "clock": settable_clock(tmp_path) is None}
    assert [what for what in SCRIPT if not verdict.figures[f"fault {what}"] and not impossible.get(what)] == []
    assert all(verdict.figures[f"asked: kind {kind}"] for kind in KINDS), "a kind of graph is missing"
    assert all(verdict.figures[f"asked: strategy {strategy}"] for strategy in STRATEGIES), "a strategy is missing"
    assert verdict.times_s["cancel until the code has stopped"], "nothing was cancelled"
    assert verdict.figures["asked: streams that were resumed"], "no reader came back"
