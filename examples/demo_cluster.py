"""Demo of a cluster: two servers on one PostgreSQL; one of them is killed in the middle of a run that a client watches.

``./dev demo --cluster`` runs it; it needs no key, no database server and no network, and exits 0 only if everything
happened. ``--postgres URL`` uses an empty database of yours instead of a private server.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import psycopg
from demo import HALF_A_STEP_S, KEYS, PROJECT, STEP_S, ms, read, research
from demo_kit import ChatPrinter, DemoError, Reader, Report, ServerProcess
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from rich.console import Console

from postgres_cluster import PostgresCluster, PostgresUnavailable, chosen_binaries

LEASE_S = 2
#: A lease, and the time until the other node has seen that it was not renewed.
TAKEOVER_LIMIT_S = LEASE_S + 3.0
STEPS = 12
TIME_LIMIT_S = 120.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A server of the cluster, and a client of it."""

    server: ServerProcess
    client: LangGraphClient


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """What every part of the demo works with."""

    report: Report
    first: Node
    second: Node


@contextmanager
def database(report: Report, url: str | None) -> Iterator[str]:
    """Give the address of an empty database."""
    if url is not None:
        yield url
        return
    report.say(f"{chosen_binaries()}")
    with PostgresCluster() as postgres:
        with psycopg.connect(postgres.dsn, autocommit=True) as connection:
            connection.execute("CREATE DATABASE demo")
        yield postgres.url("demo")


async def log_of(client: LangGraphClient, thread_id: str) -> list[dict[str, Any]]:
    state: Any = await client.threads.get_state(thread_id)
    log: list[dict[str, Any]] = state["values"].get("log", [])
    return log


async def chat_anywhere(cluster: Cluster) -> None:
    report, first, second = cluster.report, cluster.first.client, cluster.second.client
    thread_id = (await first.threads.create())["thread_id"]
    printer = ChatPrinter(report)
    question: dict[str, Any] = {"messages": [{"role": "user", "content": "What is the weather in Oslo?"}]}
    report.token("   you   > What is the weather in Oslo?\n")
    run = await first.runs.create(
        thread_id, "chat", input=question, stream_mode=["messages-tuple", "values"], stream_resumable=True
    )
    async with Reader(second.runs.join_stream(thread_id, run["run_id"], last_event_id="-1")) as seen:
        async for part in seen:
            printer.show(part)
    report.check("asked at one node, watched at the other: the stream ended as success", ok=seen.ending == "success")
    state: Any = await second.threads.get_state(thread_id)
    report.check("the thread has its messages at both", ok=len(state["values"]["messages"]) >= 4)


async def begin(cluster: Cluster, topic: str) -> tuple[str, Any]:
    """Ask for a run of all steps at the first node, and return its thread and the run."""
    client = cluster.first.client
    thread_id = (await client.threads.create())["thread_id"]
    run = await client.runs.create(
        thread_id,
        "research",
        input=research(topic, steps=STEPS, seconds=STEP_S),
        stream_mode=["custom", "values"],
        stream_resumable=True,
    )
    return thread_id, run


async def kill_one(cluster: Cluster) -> None:
    """Kill the node that executes a run, while a client watches at the other."""
    report = cluster.report
    thread_id, run = await begin(cluster, "tides")
    behind = await cluster.second.client.runs.create(
        thread_id, "research", input=research("owls", steps=2, seconds=0.05), multitask_strategy="enqueue"
    )
    victim, other = await executing(cluster, thread_id)
    dead, killed, went_on = victim.server.pid, 0.0, 0.0
    async with Reader(other.client.runs.join_stream(thread_id, run["run_id"], last_event_id="-1")) as viewer:
        async for part in viewer:
            if part.event == "values" and part.data.get("done") == 5 and not killed:
                await asyncio.sleep(HALF_A_STEP_S)
                await victim.server.kill()
                killed = time.monotonic()
                report.say(f"kill -9 of the node that executes it, process {dead}, in the middle of step 6 of {STEPS}")
            elif killed and not went_on and part.event == "metadata":
                went_on = time.monotonic() - killed
                report.say(f"the other node, process {other.server.pid}, goes on after {ms(went_on)}")
    report.check(
        f"its run went on within {TAKEOVER_LIMIT_S:.0f} s: a lease of {LEASE_S} s, and the time to see that it is over",
        ok=0 < went_on <= TAKEOVER_LIMIT_S,
        got=went_on,
    )
    report.check("the stream of the client was never cut, and ended as success", ok=viewer.ending == "success")
    whole = await read(other.client.runs.join_stream(thread_id, run["run_id"], last_event_id="-1"))
    report.check(
        f"the client saw each of the {len(whole.ids)} events once, in order",
        ok=viewer.ids == whole.ids and len(set(viewer.ids)) == len(viewer.ids),
        got=(len(viewer.ids), len(whole.ids)),
    )
    await other.client.runs.join(thread_id, behind["run_id"])
    log = await log_of(other.client, thread_id)
    steps = [(entry["topic"], entry["step"]) for entry in log]
    report.check(
        f"each of the {STEPS} steps is recorded once, in order, and then those of the run that waited behind it",
        ok=steps == [("tides", n) for n in range(1, STEPS + 1)] + [("owls", 1), ("owls", 2)],
        got=steps,
    )
    shares = [(pid, len(list(entries))) for pid, entries in groupby(entry["pid"] for entry in log)]
    report.check(
        "done by two processes: " + ", then ".join(f"{count} steps by {pid}" for pid, count in shares),
        ok=[pid for pid, _ in shares] == [dead, other.server.pid],
        got=shares,
    )
    took = await victim.server.start()
    report.say(f"the dead node is back: process {victim.server.pid} answers after {ms(took)}")


async def executing(cluster: Cluster, thread_id: str) -> tuple[Node, Node]:
    """Return the node that executes the thread's run, by the process of its first step, and the other one."""
    while not (log := await log_of(cluster.first.client, thread_id)):  # noqa: ASYNC110 - another process works on it
        await asyncio.sleep(HALF_A_STEP_S)
    nodes = (cluster.first, cluster.second)
    return nodes if log[-1]["pid"] == cluster.first.server.pid else nodes[::-1]


async def hand_over(cluster: Cluster) -> None:
    """Stop the node that executes a run as an update of the program would."""
    report = cluster.report
    thread_id, run = await begin(cluster, "whales")
    stopped, other = await executing(cluster, thread_id)
    began, stopping = time.monotonic(), asyncio.ensure_future(stopped.server.terminate())
    viewer = await read(other.client.runs.join_stream(thread_id, run["run_id"], last_event_id="-1"))
    code = await stopping
    report.check(f"SIGTERM of the node that executes it: exit code 0, in {ms(time.monotonic() - began)}", ok=code == 0)
    report.check("the client at the other node saw the run end as success", ok=viewer.ending == "success")
    log = await log_of(other.client, thread_id)
    report.check(
        f"each of the {STEPS} steps was made once, by two processes",
        ok=viewer.steps == [entry["step"] for entry in log] == list(range(1, STEPS + 1))
        and len({entry["pid"] for entry in log}) == 2,
        got=viewer.steps,
    )


async def drive(cluster: Cluster) -> None:
    async with cluster.report.section("Ask at one node, watch at the other"):
        await chat_anywhere(cluster)
    async with cluster.report.section("kill -9 of the node that executes a run"):
        await kill_one(cluster)
    async with cluster.report.section("Rolling restart"):
        await hand_over(cluster)


async def run_demo(report: Report, args: argparse.Namespace) -> None:
    report.title("Runlane: two nodes, one PostgreSQL")
    async with AsyncExitStack() as stack:
        url = stack.enter_context(database(report, args.postgres))
        workdir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="runlane-demo-")))
        environment = {name: value for name, value in os.environ.items() if name not in KEYS}
        environment |= {"RUNLANE_LEASE_S": str(LEASE_S), "RUNLANE_DRAIN_GRACE_S": "0.1"}
        nodes: list[Node] = []
        for name in ("first", "second"):
            server = ServerProcess(PROJECT, workdir, env=environment, database=url, name=name)
            await stack.enter_async_context(server)
            took = await server.start()
            report.say(f"{name} node: {server.url}, process {server.pid}, ready after {ms(took)}")
            client = await stack.enter_async_context(get_client(url=server.url))
            nodes.append(Node(server=server, client=client))
        async with asyncio.timeout(TIME_LIMIT_S):
            await drive(Cluster(report=report, first=nodes[0], second=nodes[1]))
        if not report.ok:
            for node in nodes:
                report.title(f"The last log lines of {node.server.url}")
                report.token(f"{node.server.log_tail()}\n")


async def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev demo --cluster", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--postgres", metavar="URL", help="an empty database to use")
    args, console = parser.parse_args(), Console(width=None if sys.stdout.isatty() else 100)
    report = Report(console)
    try:
        await run_demo(report, args)
    except (DemoError, PostgresUnavailable) as exc:
        console.print(f"\n[bold red]The demo cannot continue:[/] {exc}", markup=True, highlight=False)
        return 1
    report.summary()
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
