"""Measure Runlane against bare LangGraph and other servers: the same load on all, in turn, on this machine.

Each round starts all sides anew, Runlane on an empty SQLite file at its durable default; cases of sizes start servers
of their own. Compare figures of one sitting only: wall times drift with the machine, processor time per operation
less, and sizes not at all. A missed target is shown but is no error; a case that Runlane cannot do is one. Every
figure is kept as soon as it is there: `--resume` goes on where a sitting was interrupted, and `--publish` draws the
charts and writes the table into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cases import CASES
from client import Figures, Server
from publishing import publish
from report import RUNLANE, summarize, table
from sides import CACHE, SIDES, BeforeSide, RunningSide, Side, fresh_folder
from sizes import TINY, Sizes

PACKAGES = ("runlane", "langgraph", "uvicorn")
SITTING = CACHE / "sitting.json"


@dataclass
class Sitting:
    """The figures by case and side, a list entry per round, kept in a file."""

    file: Path
    rounds: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def resumed(cls, file: Path) -> Sitting:
        return cls(file, json.loads(file.read_text())["rounds"])

    def has(self, case: str, side: str, number: int) -> bool:
        return len(self.rounds.get(case, {}).get(side, [])) > number

    def add(self, case: str, side: str, figures: Figures) -> None:
        self.rounds.setdefault(case, {}).setdefault(side, []).append(figures)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"machine": machine(), "rounds": self.rounds}, indent=1)
        partial = self.file.with_suffix(".partial")
        partial.write_text(text + "\n")
        partial.replace(self.file)


async def measure(case: str, side: Side, sizes: Sizes, sitting: Sitting) -> None:
    """Add the figures of one case on one side; if it could not do it, say so on standard error."""
    try:
        async with fresh_folder() as folder:
            own = sizes.for_slow() if side.slow else sizes
            figures = await asyncio.wait_for(CASES[case].measure(side, own, folder), CASES[case].timeout_s)
    except Exception as exc:  # noqa: BLE001  # whatever a server answers is a result: the other sides and cases go on
        cause = exc.exceptions[0] if isinstance(exc, ExceptionGroup) else exc
        sitting.failed[f"{case} {side.name}"] = f"{type(cause).__name__}: {cause}"
        print(f"{case} failed on {side.name}: {type(cause).__name__}: {cause}", file=sys.stderr)
    else:
        sitting.add(case, side.name, figures)


def turns(cases: Sequence[str], sides: Sequence[Side], number: int) -> Iterator[tuple[str, Side]]:
    """Give the cases of round *number*, each for all sides that can do it.

    The order of the sides alternates, so that none is always measured on a warm machine. A slow side has one round.
    """
    ordered = list(sides)[:: -1 if number % 2 else 1]
    for case in cases:
        for side in ordered:
            if CASES[case].can(side) and not (side.slow and number):
                yield case, side


async def run_rounds(cases: Sequence[str], sides: Sequence[Side], rounds: int, sizes: Sizes, sitting: Sitting) -> None:
    """Measure what the sitting does not have; in each round first what shares servers, which are stopped then."""
    loads = [case for case in cases if CASES[case].is_load]
    others = [case for case in cases if not CASES[case].is_load]
    for number in range(rounds):
        for group in (loads, others):
            try:
                for case, side in turns(group, sides, number):
                    if not sitting.has(case, side.name, number):
                        print(f"round {number + 1}/{rounds} {case} {side.name}", file=sys.stderr, flush=True)
                        await measure(case, side, sizes, sitting)
            finally:
                for side in sides:
                    await side.end_round()


def machine() -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def installed(names: Sequence[str], other: Server | None, before: Path | None) -> list[Side]:
    """Give the sides that can be installed; of others, say why not."""
    found: list[Side] = []
    for name in names:
        side = BeforeSide(before) if name == BeforeSide.name and before else SIDES[name]()
        try:
            side.install()
        except Exception as exc:  # noqa: BLE001  # a package that cannot be had must not keep the others from being measured
            print(f"bench: {name} cannot be installed, and is left out: {exc}", file=sys.stderr)
        else:
            found.append(side)
    return found if other is None else [*found, RunningSide(other)]


def names_of(known: Sequence[str], what: str) -> Any:
    def parse(text: str) -> list[str]:
        names = list(known) if text == "all" else text.split(",")
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"no {what} {', '.join(unknown)}; there are {', '.join(known)}")
        return names

    return parse


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./dev bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    peers = [name for name in SIDES if name != BeforeSide.name]
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (default: 3)")
    parser.add_argument(
        "--only", type=names_of(list(CASES), "case"), default=list(CASES), metavar="CASE,...", help=", ".join(CASES)
    )
    parser.add_argument(
        "--sides",
        type=names_of(peers, "side"),
        default=["bare", RUNLANE],
        metavar="SIDE,...",
        help=f"all, or some of {', '.join(peers)} (default: bare,runlane); peers are installed into {CACHE}",
    )
    parser.add_argument("--before", type=Path, metavar="TREE", help="one more side: Runlane of another tree")
    parser.add_argument("--scale", type=int, help="finished runs of `growth`, and threads of `search` (default: 20000)")
    parser.add_argument(
        "--json", type=Path, default=SITTING, metavar="FILE", help=f"keep the figures in it ({SITTING})"
    )
    parser.add_argument("--resume", action="store_true", help="keep what is in that file, and measure what is missing")
    parser.add_argument("--publish", action="store_true", help="write docs/benchmarks.md and its charts")
    parser.add_argument("--url", help="one more side: a running server of benchmarks/project")
    parser.add_argument("--pid", type=int, help="that server's process, for its processor time and memory")
    parser.add_argument("--tiny", action="store_true", help="show that the cases run; the figures mean nothing")
    arguments = parser.parse_args()
    if arguments.pid is not None and arguments.url is None:
        parser.error("--pid needs --url")
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    if arguments.resume and not arguments.json.exists():
        parser.error(f"there is no {arguments.json} to resume")
    if arguments.before and not (arguments.before / "src" / "runlane").is_dir():
        parser.error(f"--before {arguments.before} has no src/runlane")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    other = Server(url=arguments.url, pid=arguments.pid) if arguments.url else None
    sizes = TINY if arguments.tiny else Sizes()
    if arguments.scale:
        sizes = replace(sizes, scale=arguments.scale)
    names = [*arguments.sides, BeforeSide.name] if arguments.before else arguments.sides
    sides = installed(names, other, arguments.before)
    sitting = Sitting.resumed(arguments.json) if arguments.resume else Sitting(arguments.json)
    # A sitting that is told to stop stops its servers; one in the background does not hear SIGINT otherwise.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        asyncio.run(run_rounds(arguments.only, sides, arguments.rounds, sizes, sitting))
    except KeyboardInterrupt:
        sys.exit("bench: interrupted; --resume goes on")
    finally:
        for side in sides:
            side.close()
    shown = [name for name in (*SIDES, RunningSide.name) if any(name in found for found in sitting.rounds.values())]
    rows = list(summarize(sitting.rounds))
    print(", ".join(f"{name} {value}" for name, value in machine().items()), end="\n\n")
    print(table(rows, shown))
    if arguments.publish:
        publish(rows, shown, machine())
    return 1 if any(name.endswith(f" {RUNLANE}") for name in sitting.failed) else 0


if __name__ == "__main__":
    sys.exit(main())
