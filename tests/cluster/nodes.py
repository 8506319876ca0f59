"""The processes of a cluster, each behind a proxy of its own, and what machines and operators do to them."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from acceptance.kit import START_LIMIT_S, Program, env_of, free_port
from cluster.proxy import Proxy
from postgres_cluster import PostgresCluster

PROJECT = Path(__file__).parent / "project"
#: A pause before a process that did not start is started again.
AGAIN_S = 0.5


def settable_clock(folder: Path) -> Path | None:
    """Return a library whose wall clock a file sets; None without a C compiler, or on another system than Linux."""
    library = folder / "clock.so"
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    call = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(Path(__file__).parent / "clock.c")]
    subprocess.run(call, check=True)
    return library


class Node(Program):
    """A process of the cluster: one that answers requests, one that executes runs, or, by default, both.

    Args:
        role: ``api``, ``worker`` or ``both``.
        clock: A library that makes its wall clock settable.
    """

    def __init__(
        self, name: str, role: str, folder: Path, proxy: Proxy, database: str, *, clock: Path | None, **settings: Any
    ) -> None:
        self.name, self.proxy, self.role = name, proxy, role
        self.READY = "worker.ready" if role == "worker" else "server.ready"
        self.url = ""
        url = f"postgresql://runlane@127.0.0.1:{proxy.port}/{database}"
        call = [sys.executable, "-P", "-m", "runlane.cli.main", "worker" if role == "worker" else "serve", str(PROJECT)]
        if role != "worker":
            port = free_port()
            self.url = f"http://127.0.0.1:{port}"
            call += ["--port", str(port), *(["--no-worker"] if role == "api" else [])]
        env = env_of({"database": url, **settings})
        if clock is not None:
            env |= {"LD_PRELOAD": str(clock), "CLOCK_FILE": str(folder / f"clock-{name}")}
        super().__init__(call, env, effects=folder / "effects", takes_input=False)
        self.history: list[str] = []
        #: By how many seconds its wall clock is wrong.
        self.clock = folder / f"clock-{name}"
        self.clock.write_text("0")
        self.has_clock = clock is not None
        #: Held while something is done to it.
        self.lock = asyncio.Lock()

    async def come_back(self) -> None:
        """Start again, as often as a supervisor of processes would: without its database a process ends at once."""
        async with asyncio.timeout(START_LIMIT_S):
            while True:
                with suppress(AssertionError):
                    return await self.start()
                await asyncio.sleep(AGAIN_S)

    async def launch(self) -> None:
        self.history += self.lines  # what the process before this one said
        await super().launch()


@dataclass(frozen=True, slots=True)
class Fault:
    """What was done to a process, or (without one) to all: from when until when, in seconds since the epoch.

    Attributes:
        away_s: For how long the database was not there.
        back: When it was, at the earliest.
    """

    what: str
    node: str
    pid: int | None
    began: float
    ended: float
    away_s: float = 0.0
    back: float = 0.0


@dataclass
class Cluster:
    """The nodes, their database, and the faults they have suffered."""

    nodes: Sequence[Node]
    postgres: PostgresCluster
    database: str
    folder: Path
    faults: list[Fault] = field(default_factory=list)
    #: Held while something is done to the database.
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def dsn(self) -> str:
        return self.postgres.url(self.database)

    def any_url(self, rng: random.Random) -> str:
        """Return the address of some node that takes requests, as a load balancer would."""
        listening = [node for node in self.nodes if node.url]
        return rng.choice([node for node in listening if node.up.is_set()] or listening).url

    def effects(self) -> list[list[str]]:
        return effects_of(self.folder)


def effects_of(folder: Path) -> list[list[str]]:
    """Return the traces of steps: run, step, attempt, process, and seconds since the epoch."""
    epoch = time.time() - time.monotonic()
    lines = (line.split() for line in (folder / "effects").read_text().splitlines())
    return [[*trace, f"{float(at) + epoch:.4f}"] for *trace, at in lines]


@asynccontextmanager
async def running_cluster(
    folder: Path, postgres: PostgresCluster, database: str, *, roles: Sequence[str], **settings: Any
) -> AsyncIterator[Cluster]:
    """Give a cluster whose nodes are all ready; it is gone after the block, whatever state its nodes are in."""
    made: list[Node] = []
    clock = await asyncio.to_thread(settable_clock, folder)
    for number, role in enumerate(roles):
        proxy = Proxy(postgres.socket)
        await proxy.start()
        made.append(Node(f"{role}{number}", role, folder, proxy, database, clock=clock, **settings))
    try:
        await made[0].start()  # which makes the schema
        await asyncio.gather(*(node.start() for node in made[1:]))
        yield Cluster(made, postgres, database, folder)
    finally:
        for node in made:
            node.send(signal.SIGKILL) if node._process is not None else None
        await asyncio.gather(*(node.ended() for node in made), return_exceptions=True)
        await asyncio.gather(*(node.proxy.close() for node in made))
