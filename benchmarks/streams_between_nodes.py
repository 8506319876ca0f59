"""How long an event takes from its publisher to a reader in another process, and what it costs, on PostgreSQL.

    python benchmarks/streams_between_nodes.py --streams 500 --rate 50 --seconds 20

Two processes share a private database, whose commits are on the disk: one has the attempts, as a worker does, and
publishes events of each at an even rate; the other one reads every stream. Nothing else of a server is between them.
The first fifth of the time is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import psycopg
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from postgres_cluster import PostgresCluster  # a helper of the tests
from runlane.journal.delays import Delays
from runlane.journal.journal import AttemptJournal
from runlane.lifecycle import MultitaskStrategy
from runlane.records import ANY_OWNER, NewRun, StreamEvent
from runlane.requests import RunRequest
from runlane.store.backends import migrate_postgres, open_postgres
from runlane.store.drivers.postgres_notifications import Listener
from runlane.store.ledger import RunStore
from runlane.store.notifications import Notifications
from runlane.streams.bridge import StreamBridge

SCHEMA: Final = "runlane"
NAME: Final = "messages"
#: About what a token of a model is in the stream mode "messages".
PADDING: Final = "x" * 200
WARM_UP: Final = 0.2
TICK_S: Final = 0.002
#: How long a reader waits for what was published last.
LATE_S: Final = 60.0


@dataclass(frozen=True, kw_only=True)
class Load:
    streams: int
    rate: float
    seconds: float

    @property
    def events(self) -> int:
        """How many events of each stream are published."""
        return int(self.rate * self.seconds)

    @property
    def counted(self) -> int:
        return int(self.streams * self.events * (1 - WARM_UP))


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def cpu_of_server_s(cluster: PostgresCluster) -> float:
    """Return the processor time of the server's processes, those that have ended included."""
    server = (cluster.directory / "data" / "postmaster.pid").read_text().split()[0]
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if fields[1] == server or stat.parent.name == server:
            own = 4 if stat.parent.name == server else 2
            ticks += sum(map(int, fields[11 : 11 + own]))
    return ticks / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def node(url: str) -> AsyncIterator[tuple[RunStore, StreamBridge]]:
    """Open what a process has that shares streams with others."""
    store, notifications = RunStore(await open_postgres(url)), Notifications()
    bridge = StreamBridge(store, notifications=notifications)
    listener = Listener(url, SCHEMA, url=url, outgoing=notifications, receive=bridge.hear, missed=bridge.look)
    async with bridge.following(), listener:
        yield store, bridge
    await store.aclose()


def tell(**said: Any) -> None:
    print(json.dumps(said), flush=True)


async def told() -> Any:
    return json.loads(await asyncio.to_thread(sys.stdin.readline))


async def write(url: str, load: Load) -> None:
    """Publish, once a reader is there."""
    async with node(url) as (store, bridge):
        delays = Delays()
        journals = [await begin(store, bridge, delays, number) for number in range(load.streams)]
        tell(runs=[journal.lease.run_id for journal in journals])
        await told()
        before = cpu_s()
        await publish(journals, load)
        for journal in journals:
            await journal.flush()
        tell(cpu_s=cpu_s() - before)
        await told()


async def begin(store: RunStore, bridge: StreamBridge, delays: Delays, number: int) -> AttemptJournal:
    new = NewRun(
        run_id=f"run-{number}",
        thread_id=f"thread-{number}",
        owner="",
        multitask_strategy=MultitaskStrategy.ENQUEUE,
        request=RunRequest.of({"graph_id": "g"}),
    )
    await store.runs.admit(new)
    claim = await store.attempts.claim(new.run_id, "writer", lease_s=3600, has_code=False)
    assert claim is not None
    return AttemptJournal(
        store.driver,
        claim.lease,
        events_end=claim.events_end,
        control=asyncio.get_running_loop(),
        readers=bridge.open(claim),
        delays=delays,
        on_failure=lambda failure: tell(failed=str(failure)),
    )


async def publish(journals: list[AttemptJournal], load: Load) -> None:
    """Append events to one journal after the other, as many as are due at each tick."""
    began, done, total = time.monotonic(), 0, load.streams * load.events
    while done < total:
        elapsed = time.monotonic() - began
        due = min(total, int(elapsed * load.rate * load.streams) + 1)
        for number in range(done, due):
            said = {"at": time.monotonic(), "counts": elapsed >= WARM_UP * load.seconds, "text": PADDING}
            journals[number % load.streams].append_event(NAME, orjson.dumps(said))
        done = due
        await asyncio.sleep(TICK_S)


async def read(url: str, load: Load) -> None:
    """Read all streams to their last event, and tell how late events were."""
    async with node(url) as (store, bridge):
        waits: list[float] = []

        async def follow(run_id: str) -> None:
            left = load.events
            with bridge.watch(await store.runs.get(run_id, owner=ANY_OWNER)) as watch:
                async for batch in watch.batches():
                    now = time.monotonic()
                    published = [item for item in batch if isinstance(item, StreamEvent) and item.name == NAME]
                    for event in published:
                        said = orjson.loads(event.data)
                        if said["counts"]:
                            waits.append(now - said["at"])
                    left -= len(published)
                    if not left:
                        return

        runs = await told()
        readers = [asyncio.create_task(follow(run_id)) for run_id in runs]
        await asyncio.sleep(2)
        before = cpu_s()
        tell(ready=True)
        async with asyncio.timeout(load.seconds + LATE_S):
            await asyncio.gather(*readers)
        waits.sort()
        tell(cpu_s=cpu_s() - before, events=len(waits), **{f"p{part}": at(waits, part) for part in (50, 99)})


def at(waits: list[float], percent: int) -> float:
    return waits[min(len(waits) - 1, len(waits) * percent // 100)] * 1000


async def start(work: str, url: str, load: Load) -> asyncio.subprocess.Process:
    call = [sys.executable, __file__, "--work", work, "--database", url]
    call += ["--streams", str(load.streams), "--rate", str(load.rate), "--seconds", str(load.seconds)]
    return await asyncio.create_subprocess_exec(
        *call, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**22
    )


async def heard(process: asyncio.subprocess.Process) -> Mapping[str, Any]:
    assert process.stdout is not None
    line = await process.stdout.readline()
    found: Mapping[str, Any] = json.loads(line)
    return found


def say(process: asyncio.subprocess.Process, what: object) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(what).encode() + b"\n")


async def measure(load: Load) -> str:
    with PostgresCluster(durable=True) as cluster:
        with psycopg.connect(cluster.dsn, autocommit=True) as admin:
            admin.execute("CREATE DATABASE streams")
        url = cluster.url("streams")
        migrate_postgres(url, SCHEMA)
        writer = await start("write", url, load)
        reader = await start("read", url, load)
        say(reader, (await heard(writer))["runs"])
        await heard(reader)
        server_before = cpu_of_server_s(cluster)
        say(writer, "go")
        wrote, got = await heard(writer), await heard(reader)
        server_s = cpu_of_server_s(cluster) - server_before
        with psycopg.connect(url) as admin:
            row = admin.execute("SELECT count(*) FROM runlane.events").fetchone()
        segments = row[0] if row else 0
        say(writer, "done")
        await asyncio.gather(writer.wait(), reader.wait())
    events = load.streams * load.events
    costs = {"writer": wrote["cpu_s"], "reader": got["cpu_s"], "PostgreSQL": server_s}
    each = ", ".join(f"{name} {seconds / events * 1e6:.0f}" for name, seconds in costs.items())
    return (
        f"{load.streams} streams x {load.rate:g}/s: p50 {got['p50']:.0f} ms, p99 {got['p99']:.0f} ms of {got['events']}"
        f" events; {events / segments:.1f} events per segment\nprocessor time per event, us: {each};"
        f" in all {sum(costs.values()) / events * 1e6:.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--rate", type=float, default=50, help="events per second of each stream")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--work", choices=("write", "read"), help=argparse.SUPPRESS)
    parser.add_argument("--database", help=argparse.SUPPRESS)
    given = parser.parse_args()
    load = Load(streams=given.streams, rate=given.rate, seconds=given.seconds)
    if given.work is None:
        print(asyncio.run(measure(load)))
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as `runlane serve` has
        runner.run({"write": write, "read": read}[given.work](given.database, load))


if __name__ == "__main__":
    main()
