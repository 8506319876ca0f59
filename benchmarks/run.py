"""Measure Runlane against bare LangGraph: the same load on both, in turn, on this machine.

Each round starts both servers anew, Runlane on an empty SQLite file at its durable default, and gives every case to
each side, one after the other. Compare figures of one sitting only: wall times drift with the machine; processor time
per operation drifts least. A missed target is shown but is no error; a case that Runlane cannot do is one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from load import CASES, TINY, Connection, Figures, Server, Sizes, UnexpectedAnswer
from report import BARE, RUNLANE, summarize, table

HERE = Path(__file__).resolve().parent
OTHER = "other"
#: What bare LangGraph has an answer to; the other cases need a run manager.
BARE_CASES = ("wait", "ttfe", "stream", "fanout", "idle", "steps")
CASE_TIMEOUT_S = 300.0
START_TIMEOUT_S, START_POLL_S, STOP_TIMEOUT_S = 60.0, 0.05, 30.0
PACKAGES = ("runlane", "langgraph", "uvicorn")

Rounds = dict[str, dict[str, list[Figures]]]


def bare_command(port: int) -> list[str]:
    command = [sys.executable, "-m", "uvicorn", "bare:create_app", "--factory", "--app-dir", str(HERE)]
    return [*command, "--port", str(port), "--log-level", "warning"]


def runlane_command(port: int, folder: Path) -> list[str]:
    command = [sys.executable, "-m", "runlane.cli.main", "serve", str(HERE / "project"), "--port", str(port)]
    return [*command, "--database", f"sqlite:///{folder / 'runlane.db'}", "--log-level", "warning"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@asynccontextmanager
async def serving(command: Sequence[str], port: int) -> AsyncIterator[Server]:
    """Run a server from *command* until the block is left; what it logs goes to this process's standard error.

    Raises:
        UnexpectedAnswer: It ended, or did not answer in time.
    """
    # Its standard output must not mix with the table, and nothing reads it.
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    server = Server(url=f"http://127.0.0.1:{port}", pid=process.pid)
    try:
        await _answers(server, process)
        yield server
    finally:
        await _stop(process)


async def _answers(server: Server, process: asyncio.subprocess.Process) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + START_TIMEOUT_S
    while process.returncode is None and loop.time() < deadline:
        try:
            async with Connection(server) as connection:
                await connection.call("GET", "/ok")
            return
        except OSError:
            await asyncio.sleep(START_POLL_S)
    raise UnexpectedAnswer(f"{server.url} did not start; exit code {process.returncode}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()


@asynccontextmanager
async def all_sides(other: Server | None) -> AsyncIterator[dict[str, Server]]:
    """Run fresh servers of both sides, beside *other*, which is not ours."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="runlane-bench-")))
        bare_port, runlane_port = free_port(), free_port()
        sides = {
            BARE: await stack.enter_async_context(serving(bare_command(bare_port), bare_port)),
            RUNLANE: await stack.enter_async_context(serving(runlane_command(runlane_port, folder), runlane_port)),
        }
        yield sides if other is None else {**sides, OTHER: other}


async def measure(case: str, side: str, server: Server, sizes: Sizes) -> Figures | None:
    """Give the figures of one case on one server, or None, said on standard error, if it could not do it."""
    try:
        return await asyncio.wait_for(CASES[case](server, sizes), CASE_TIMEOUT_S)
    except Exception as exc:  # noqa: BLE001  # whatever a server answers is a result: the other sides and cases go on
        cause = exc.exceptions[0] if isinstance(exc, ExceptionGroup) else exc
        print(f"{case} failed on {side}: {type(cause).__name__}: {cause}", file=sys.stderr)
        return None


def turns(cases: Sequence[str], sides: Iterable[str], number: int) -> Iterator[tuple[str, str]]:
    """Give the cases of round *number*, each for all sides that can do it.

    Who comes first changes, so that nobody always meets a machine warmed up by the others.
    """
    ordered = list(sides)[:: -1 if number % 2 else 1]
    return ((case, side) for case in cases for side in ordered if side != BARE or case in BARE_CASES)


async def run_rounds(cases: Sequence[str], rounds: int, sizes: Sizes, other: Server | None) -> tuple[Rounds, set[str]]:
    """Give the figures by case and side, a list entry per round, and the cases that Runlane failed at."""
    results: Rounds = {case: {} for case in cases}
    failed: set[str] = set()
    for number in range(rounds):
        async with all_sides(other) as servers:
            for case, side in turns(cases, servers, number):
                print(f"round {number + 1}/{rounds} {case} {side}", file=sys.stderr, flush=True)
                figures = await measure(case, side, servers[side], sizes)
                if figures is not None:
                    results[case].setdefault(side, []).append(figures)
                elif side == RUNLANE:
                    failed.add(case)
    return results, failed


def machine() -> dict[str, Any]:
    return {
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def case_names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise argparse.ArgumentTypeError(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    return names


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (default: 3)")
    parser.add_argument("--only", type=case_names, default=list(CASES), metavar="CASE,...", help=", ".join(CASES))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of every round to this file")
    parser.add_argument("--url", help="a third side: a running server of benchmarks/project, such as `langgraph dev`")
    parser.add_argument("--pid", type=int, help="that server's process, for its processor time and memory")
    parser.add_argument("--tiny", action="store_true", help="show that the cases run; the figures mean nothing")
    arguments = parser.parse_args()
    if arguments.pid is not None and arguments.url is None:
        parser.error("--pid needs --url")
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    other = Server(url=arguments.url, pid=arguments.pid) if arguments.url else None
    sizes = TINY if arguments.tiny else Sizes()
    try:
        rounds, failed = asyncio.run(run_rounds(arguments.only, arguments.rounds, sizes, other))
    except UnexpectedAnswer as exc:
        sys.exit(f"bench: {exc}")
    print(", ".join(f"{name} {value}" for name, value in machine().items()), end="\n\n")
    print(table(list(summarize(rounds)), [BARE, RUNLANE, *([OTHER] if other else [])]))
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "rounds": rounds}, indent=1))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
