"""A real server process that tests stop and start again, and readers that survive that."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

PROJECT = Path(__file__).parent / "project"
START_LIMIT_S = 60.0  # a cold start, with everything else that a busy machine does
STOP_LIMIT_S = 30.0
RUN_LIMIT_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def env_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return *settings* as Runlane reads them from the environment."""
    return {f"RUNLANE_{name.upper()}": str(value) for name, value in settings.items()}


class Program:
    """A process that is started, stopped and read by a test. A context manager that leaves none behind."""

    #: What it says in its log once it does its work.
    READY = "ready"

    def __init__(self, command: Sequence[str], env: Mapping[str, str], *, effects: Path, takes_input: bool) -> None:
        self.effects = effects
        self.effects.touch()
        self._command, self._stdin = [*command], PIPE if takes_input else None
        self._env = {**os.environ, "EFFECTS": str(effects), "COLUMNS": "200", **env}
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._news = asyncio.Condition()
        self.lines: list[str] = []
        self.up = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if failure is not None:
            sys.stdout.write(f"{self.log}\n")  # pytest shows it with the failure
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):  # it ended by itself a moment ago
                os.killpg(self._process.pid, signal.SIGKILL)
        await self.ended()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def run_code_in(self, src: Path) -> None:
        """Start the next process with Runlane's code in this folder, of another version."""
        self._env["PYTHONPATH"] = str(src)

    async def launch(self) -> None:
        """Start the process, and do not wait for it to answer."""
        self.lines = []
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=self._stdin,
            stdout=PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._env,
            start_new_session=True,
        )
        self._reading = asyncio.create_task(self._read(self._process))

    async def start(self) -> None:
        await self.launch()
        await self.said(self.READY, limit_s=START_LIMIT_S)
        self.up.set()

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            await self._tell(line.decode(errors="replace").rstrip())
        await process.wait()
        await self._tell(None)

    async def _tell(self, line: str | None) -> None:
        async with self._news:
            if line is not None:
                self.lines.append(line)
            self._news.notify_all()

    async def said(self, event: str, *, times: int = 1, limit_s: float = STOP_LIMIT_S) -> bool:
        """Wait until *event* is in the log; ``False`` if the process ended without."""

        def found() -> bool:
            return sum(event in line for line in self.lines) >= times

        async with asyncio.timeout(limit_s), self._news:
            await self._news.wait_for(
                lambda: found() or (self._process is not None and self._process.returncode is not None)
            )
        assert found() or event != self.READY, self.log
        return found()

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self.up.clear()
        with suppress(ProcessLookupError):  # a further signal may come too late
            self._process.send_signal(number)

    @asynccontextmanager
    async def frozen(self) -> AsyncIterator[None]:
        """Stop the process as a paused machine does, for as long as the block lasts."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    async def ended(self) -> int | None:
        """Wait for the process to end and return its exit code."""
        self.up.clear()
        if self._process is None or self._reading is None:
            return None
        async with asyncio.timeout(STOP_LIMIT_S):
            await asyncio.shield(self._reading)
        return self._process.returncode

    async def kill(self) -> None:
        self.send(signal.SIGKILL)
        await self.ended()


class Server(Program):
    """``runlane serve`` on one port and one database."""

    READY = "server.ready"

    def __init__(
        self,
        folder: Path,
        *,
        project: Path = PROJECT,
        port: int | None = None,
        command: str = "serve",
        log_level: str = "info",
        database: str | None = None,
        flags: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        database = database or f"sqlite:///{folder / 'runlane.db'}"
        call = [
            *(sys.executable, "-P", "-m", "runlane.cli.main", command, str(project), *flags),
            *("--port", str(self.port), "--database", database, "--log-level", log_level),
        ]
        super().__init__(call, env_of(settings), effects=folder / "effects", takes_input=False)

    def run_with_open_files(self, soft: int, hard: int) -> None:
        """Start the next process with these limits of open files."""
        self._command = ["prlimit", f"--nofile={soft}:{hard}", *self._command]

    def run_without_privileges(self) -> None:
        """Start the next process so that permissions of files bind it, if this one is root."""
        if os.geteuid() == 0:
            self._command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *self._command]

    def starts_of(self, name: str) -> Counter[int]:
        """Return how often each step of the run *name* was started, from outside of Runlane."""
        lines = (line.split() for line in self.effects.read_text().splitlines())
        return Counter(int(step) for run, step, _ in lines if run == name)


class Worker(Program):
    """``runlane worker`` on one database."""

    READY = "worker.ready"

    def __init__(
        self, folder: Path, database: str, *, project: Path = PROJECT, flags: Sequence[str] = (), **settings: Any
    ) -> None:
        call = [sys.executable, "-P", "-m", "runlane.cli.main", "worker", str(project), "--database", database, *flags]
        super().__init__(call, env_of(settings), effects=folder / "effects", takes_input=False)


@asynccontextmanager
async def servers_and_workers(
    folder: Path, url: str, **settings: Any
) -> AsyncIterator[tuple[tuple[Server, Server], tuple[Worker, Worker]]]:
    """Run two servers that execute nothing, and two workers, on one database."""

    def server() -> Server:
        return Server(folder, database=url, flags=["--no-worker"], **settings)

    async with (
        server() as first,
        server() as second,
        Worker(folder, url, **settings) as one,
        Worker(folder, url, **settings) as other,
    ):
        await first.start()
        await asyncio.gather(second.start(), one.start(), other.start())
        yield (first, second), (one, other)


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream; a ``gap`` has no id."""

    id: str
    name: str
    data: Any


@dataclass(slots=True)
class Reader:
    """Follows one run from its creation to its end, over as many connections as that takes."""

    server: Server
    http: httpx.AsyncClient
    thread_id: str
    name: str
    run_id: str = ""
    events: list[Event] = field(default_factory=list)
    connections: int = 0
    accepted: asyncio.Event = field(default_factory=asyncio.Event)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def step(self) -> int:
        """The last step that was seen to start."""
        return max((event.data["step"] for event in self.events if event.name == "custom"), default=0)

    @property
    def ended(self) -> bool:
        return bool(self.events) and self.events[-1].name == "end"

    async def follow(self, payload: dict[str, Any]) -> None:
        """Create the run and read its stream to its end; wait for the server whenever it is down."""
        body = {"assistant_id": "steps", "stream_mode": ["custom", "values"], "stream_resumable": True, **payload}
        await self._connect("POST", f"/threads/{self.thread_id}/runs/stream", json=body)
        async with asyncio.timeout(RUN_LIMIT_S):
            while not self.ended:
                await self.server.up.wait()
                path = f"/threads/{self.thread_id}/runs/{self.run_id}/stream"
                await self._connect("GET", path, headers={"last-event-id": self.events[-1].id if self.events else "-1"})

    async def _connect(self, method: str, path: str, **options: Any) -> None:
        self.connections += 1
        try:
            async with self.http.stream(method, self.server.url + path, **options) as response:
                assert response.status_code == 200, (await response.aread(), path)
                if method == "POST":
                    self.run_id = response.headers["content-location"].rpartition("/")[2]
                    self.accepted.set()
                async for event in events_of(response):
                    await self._take(event)
        except httpx.TransportError:
            assert self.run_id, "the run was never accepted"

    async def _take(self, event: Event) -> None:
        async with self.news:
            self.events.append(event)
            self.news.notify_all()

    async def reaches(self, step: int) -> None:
        async with asyncio.timeout(RUN_LIMIT_S), self.news:
            await self.news.wait_for(lambda: self.step >= step or self.ended)

    async def replay(self) -> list[Event]:
        """Return the run's whole stream, read anew."""
        path = f"{self.server.url}/threads/{self.thread_id}/runs/{self.run_id}/stream"
        async with self.http.stream("GET", path, headers={"last-event-id": "-1"}) as response:
            return [event async for event in events_of(response)]


async def events_of(response: httpx.Response) -> Any:
    """Yield the events of a response; an event that was cut off is dropped."""
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        key, _, value = line.partition(": ")
        if line and key:
            fields[key] = value
        elif not line and "event" in fields:
            yield Event(fields.get("id", ""), fields["event"], json.loads(fields["data"]))
            fields = {}


async def create_run(
    http: httpx.AsyncClient,
    server: Server,
    thread_id: str,
    graph: str,
    *,
    stream_mode: tuple[str, ...] = ("values",),
    **state: Any,
) -> str:
    """Admit a run to the thread, behind what it has."""
    body = {
        "stream_mode": stream_mode,
        "assistant_id": graph,
        "input": {"name": "run", "steps": 5, "seconds": 0.05, "done": 0, "log": [], **state},
        "multitask_strategy": "enqueue",
    }
    response = await http.post(f"{server.url}/threads/{thread_id}/runs", json=body)
    run_id: str = response.raise_for_status().json()["run_id"]
    return run_id


async def ended_run(http: httpx.AsyncClient, server: Server, thread_id: str, run_id: str) -> Any:
    """Wait for the run and return it."""
    await http.get(f"{server.url}/threads/{thread_id}/runs/{run_id}/join")
    return await get(http, f"{server.url}/threads/{thread_id}/runs/{run_id}")


async def new_thread(http: httpx.AsyncClient, url: str) -> str:
    response = await http.post(f"{url}/threads", json={})
    thread_id: str = response.raise_for_status().json()["thread_id"]
    return thread_id


async def get(http: httpx.AsyncClient, url: str) -> Any:
    return (await http.get(url)).raise_for_status().json()
