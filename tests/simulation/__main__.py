"""``python -m simulation SEED`` prints a seed's history; ``python -m simulation FIRST-LAST`` looks for failing ones."""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor

from simulation.checker import violations
from simulation.virtual_loop import Livelock
from simulation.world import run_world


def broken_promises(seed: int) -> tuple[int, list[str]]:
    """Simulate *seed* and return what it broke."""
    try:
        return seed, violations(run_world(seed))
    except (Exception, Livelock) as error:  # noqa: BLE001 - of many seeds one may not end; the others are looked at too
        return seed, [f"{type(error).__name__}: {error}"]


def main(argument: str) -> int:
    """Do what the module says; return the number of failing seeds."""
    write = sys.stdout.write
    first, dash, last = argument.partition("-")
    if not dash:
        simulated = run_world(int(first))
        write(simulated.history.text() + "\n")
        broken = violations(simulated)
        write("\n".join(broken) + "\n")
        return int(bool(broken))
    failing = 0
    with ProcessPoolExecutor() as pool:
        for seed, broken in pool.map(broken_promises, range(int(first), int(last) + 1), chunksize=4):
            if broken:
                failing += 1
                write(f"seed {seed}: " + "; ".join(broken[:3]) + f" ({len(broken)} in all)\n")
    return failing


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1]), 100))
