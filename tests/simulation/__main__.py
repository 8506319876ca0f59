"""``./dev simulate``: look for seeds that break a promise, see one, and keep it."""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections.abc import Iterable

from simulation.checker import violations
from simulation.runs import REGRESSIONS, Result, Tally, export, simulate, simulate_all, simulate_for, workers
from simulation.world import run_world

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
#: How often a long search says where it is, in seeds.
EVERY = 500


def seconds(text: str) -> float:
    """Parse a time such as 90s, 10m or 2h."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90s, 10m or 2h")
    return float(match[1]) * _UNITS[match[2] or "s"]


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev simulate", description=__doc__)
    parser.add_argument("seeds", nargs="?", help="one seed, whose history is printed; or FIRST-LAST")
    parser.add_argument("--for", dest="time_s", type=seconds, metavar="TIME", help="as many seeds as fit: 90s, 10m, 2h")
    parser.add_argument("--from", dest="first", type=int, help="with --for: the first seed; a random one by default")
    parser.add_argument("--export", action="store_true", help=f"with one seed: have {REGRESSIONS.name} name it")
    found = parser.parse_args(arguments)
    if (found.seeds is None) == (found.time_s is None):
        parser.error("name a seed or FIRST-LAST, or give --for TIME")
    if found.seeds is not None and re.fullmatch(r"\d+(-\d+)?", found.seeds) is None:
        parser.error(f"{found.seeds!r} is neither a seed nor FIRST-LAST")
    return found


def show(seed: int) -> int:
    """Print a seed's history and what it broke."""
    world = run_world(seed)
    broken = violations(world)
    sys.stdout.write(world.history.text() + "\n" + "\n".join(broken) + "\n")
    return int(bool(broken))


def search(results: Iterable[Result]) -> int:
    """Print failing seeds as they are found, then what was done; return how many there were."""
    tally = Tally()
    for result in results:
        tally.add(result)
        if result.broken:
            sys.stdout.write(f"seed {result.seed}: {'; '.join(result.broken[:3])} ({len(result.broken)} in all)\n")
        elif tally.seeds % EVERY == 0:
            sys.stdout.write(f"{tally.line()}; at seed {result.seed}\n")
        sys.stdout.flush()
    sys.stdout.write(f"\n{tally.table()}\n\n{tally.line()}\n{tally.replays()}\n")
    return len(tally.failing)


def main(arguments: list[str]) -> int:
    """Do what *arguments* say; return the number of failing seeds."""
    wanted = parse(arguments)
    if wanted.time_s is not None:
        first = random.SystemRandom().randrange(10**9) if wanted.first is None else wanted.first
        sys.stdout.write(f"from seed {first}\n")
        with workers() as pool:
            return search(simulate_for(wanted.time_s, first, pool))
    first, dash, last = wanted.seeds.partition("-")
    if dash:
        with workers() as pool:
            return search(simulate_all(range(int(first), int(last) + 1), pool))
    if wanted.export:
        sys.stdout.write(f"{REGRESSIONS}: {export(simulate(int(first)))}\n")
        return 0
    return show(int(first))


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 100))
