"""``./dev cluster``: the long form of the cluster's test."""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import tempfile
from pathlib import Path

import uvloop

from cluster.figures import QUICK, Size, report
from cluster.standby import PostgresPair
from cluster.trial import Trial

#: How long PostgreSQL is away each time, mostly short, since nothing else happens meanwhile.
OUTAGES_S = (1.0,) * 8 + (15.0,) * 2 + (60.0,)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev cluster", description="Try a cluster under load and faults.")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=50)
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="no new runs after so long, however few there were"
    )
    parser.add_argument("--api", type=int, default=2, help="processes that answer requests")
    parser.add_argument("--workers", type=int, default=3, help="processes that execute runs")
    parser.add_argument("--both", type=int, default=0, help="processes that do both")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=1, help="faults at the same time")
    parser.add_argument(
        "--clients", type=int, default=64, help="at most so many threads are worked on at the same time"
    )
    parser.add_argument("--steps", type=int, default=3, help="a run has at most so many")
    parser.add_argument("--pause", type=float, default=3.0, help="seconds between two faults, at most")
    parser.add_argument("--script", help="faults to do once each instead of random ones, such as kill,failover")
    parser.add_argument("--calm", action="store_true", help="without faults")
    parser.add_argument("--figures", action="store_true", help="measure what a cluster can do, in about 7 minutes")
    parser.add_argument("--quick", action="store_true", help="measure less of each figure, in about 3 minutes")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--keep", type=Path, help="a directory for the logs of the nodes")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    if given.figures:
        return report(QUICK if given.quick else Size(), given.out)
    with PostgresPair() as postgres, tempfile.TemporaryDirectory(prefix="runlane-cluster-") as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        trial = Trial(
            runs=given.runs,
            threads=given.threads,
            roles=("api",) * given.api + ("worker",) * given.workers + ("both",) * given.both,
            seed=given.seed,
            clients=given.clients,
            at_once=0 if given.calm else given.at_once,
            script=given.script.split(",") if given.script else None,
            steps=given.steps,
            outages_s=OUTAGES_S,
            pause_s=(0.2, given.pause),
            webhooks_s=150.0,
            longest_s=given.minutes * 60,
            tells=True,
        )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # all traffic goes through this process
            verdict = runner.run(trial.run(folder, postgres, "ledger"))
    sys.stdout.write(f"{verdict}\n")
    return 1 if verdict.found else 0


if __name__ == "__main__":
    sys.exit(main())
