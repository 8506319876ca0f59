"""The servers that are compared: how each is installed, started and stopped, and what it leaves on disk.

Peers are installed into virtual environments of their own below the cache directory, and never into the project's.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import psutil
import psycopg
from client import Connection, Server, UnexpectedAnswer

HERE = Path(__file__).resolve().parent
PROJECT = HERE / "project"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "runlane-bench"
sys.path.insert(0, str(HERE.parent / "tests"))
from postgres_cluster import PostgresCluster  # noqa: E402  # the tests' own cluster, which a benchmark borrows

START_TIMEOUT_S, START_POLL_S, STOP_TIMEOUT_S = 90.0, 0.005, 60.0
#: What an installation takes at most.
INSTALL_TIMEOUT_S = 600


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Side:
    """A server of a kind. Each start has a folder, in which its data is; a second start finds that of the first."""

    name: ClassVar[str]
    label: ClassVar[str]
    #: It takes so long per run that fewer of them, and one round, have to do.
    slow: ClassVar[bool] = False
    #: It knows runs, which can be listed and cancelled.
    manages: ClassVar[bool] = True
    #: Its data outlives the process.
    stores: ClassVar[bool] = True
    #: It answers here once it can be used.
    health: ClassVar[str] = "/ok"
    _shared: Server | None = field(default=None, init=False)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack, init=False)

    def install(self) -> None:
        """Have everything there that a start needs."""

    def command(self, port: int, folder: Path) -> Sequence[str]:
        raise NotImplementedError

    def environment(self, folder: Path) -> Mapping[str, str]:
        return {}

    def disk_bytes(self, folder: Path) -> int:
        """Give the size of what is stored, while the server does not run."""
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

    def close(self) -> None:
        """Stop what all starts share."""

    async def shared(self) -> Server:
        """Give the server that a round's loads share; it is started for the first, and again if it has ended."""
        if self._shared is None or not psutil.pid_exists(self._shared.pid or os.getpid()):
            folder = await self._stack.enter_async_context(fresh_folder())
            self._shared = await self._stack.enter_async_context(self.serving(folder))
        return self._shared

    async def end_round(self) -> None:
        """Stop the server that the loads shared."""
        self._shared = None
        await self._stack.aclose()

    @asynccontextmanager
    async def serving(self, folder: Path, *, kill: bool = False, **settings: object) -> AsyncIterator[Server]:
        """Run a server until the block is left; what it logs goes to the file ``log`` beside *folder*.

        Args:
            kill: End it with SIGKILL.
            settings: Of Runlane only.

        Raises:
            UnexpectedAnswer: It ended, or did not answer in time.
        """
        port = free_port()
        variables = {f"RUNLANE_{name.upper()}": str(value) for name, value in settings.items()}
        with folder.with_suffix(".log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *self.command(port, folder),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env={**os.environ, **self.environment(folder), **variables},
                start_new_session=True,
            )
            server = Server(url=f"http://127.0.0.1:{port}", pid=process.pid)
            try:
                await _answers(server, self.health, process, Path(log.name))
                yield server
            finally:
                await _stop(process, kill=kill)


async def _answers(server: Server, health: str, process: asyncio.subprocess.Process, log: Path) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + START_TIMEOUT_S
    while process.returncode is None and loop.time() < deadline:
        try:
            async with Connection(server) as connection:
                await connection.call("GET", health)
            return
        except (OSError, EOFError, UnexpectedAnswer):
            await asyncio.sleep(START_POLL_S)
    end = (await asyncio.to_thread(log.read_text, errors="replace"))[-1000:]
    raise UnexpectedAnswer(f"{server.url} did not start; exit code {process.returncode}; the end of its log:\n{end}")


async def _stop(process: asyncio.subprocess.Process, *, kill: bool) -> None:
    if process.returncode is not None:
        return
    if not kill:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            kill = True
    if kill:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@dataclass
class RunlaneSide(Side):
    """Runlane of this tree on an SQLite file at its durable default."""

    name = "runlane"
    label = "Runlane"
    #: Of another tree, whose code is run with this one's environment.
    source: Path = HERE.parent

    def command(self, port: int, folder: Path) -> Sequence[str]:
        command = [sys.executable, "-m", "runlane.cli.main", "serve", str(PROJECT), "--port", str(port)]
        return [*command, "--database", f"sqlite:///{self.file(folder)}", "--log-level", "warning"]

    def file(self, folder: Path) -> Path:
        return folder / "runlane.db"

    def environment(self, folder: Path) -> Mapping[str, str]:
        return {"PYTHONPATH": str(self.source / "src")}


@dataclass
class BeforeSide(RunlaneSide):
    """Runlane of another tree, such as a clone at an older commit."""

    name = "before"
    label = "Runlane before"


@dataclass
class BareSide(Side):
    """LangGraph behind a minimal handler."""

    name = "bare"
    label = "bare, in memory"
    manages = False
    stores = False

    def python(self) -> str:
        return sys.executable

    def command(self, port: int, folder: Path) -> Sequence[str]:
        command = [self.python(), "-m", "uvicorn", "bare:create_app", "--factory", "--app-dir", str(HERE)]
        return [*command, "--port", str(port), "--log-level", "warning"]


@dataclass
class BareSqliteSide(BareSide):
    name = "bare-sqlite"
    label = "bare, SQLite"
    stores = True

    def install(self) -> None:
        # The same versions as here, so that the saver is the difference.
        same = (
            "langgraph",
            "langgraph-checkpoint",
            "langchain-core",
            "starlette",
            "uvicorn",
            "uvloop",
            "httptools",
            "orjson",
        )
        savers = ("langgraph-checkpoint-sqlite", "langgraph-checkpoint-postgres", "psycopg[binary,pool]")
        install("savers", *(f"{name}=={version(name)}" for name in same), *savers)

    def python(self) -> str:
        return str(CACHE / "savers" / "bin" / "python")

    def environment(self, folder: Path) -> Mapping[str, str]:
        return {"BARE_SAVER": f"sqlite:{folder / 'bare.db'}"}


@dataclass
class Postgres:
    """One cluster for all starts, with a database for each folder."""

    _stack: ExitStack = field(default_factory=ExitStack)
    _cluster: PostgresCluster | None = None
    _databases: dict[Path, str] = field(default_factory=dict)

    def url(self, folder: Path) -> str:
        cluster = self._cluster = self._cluster or self._stack.enter_context(PostgresCluster(durable=True))
        if folder not in self._databases:
            self._databases[folder] = f"bench_{uuid4().hex}"
            self._execute(f'CREATE DATABASE "{self._databases[folder]}"')
        return cluster.url(self._databases[folder])

    def disk_bytes(self, folder: Path) -> int:
        self._execute("CHECKPOINT")
        found = self._execute(f"SELECT pg_database_size('{self._databases[folder]}')")
        empty = self._execute("SELECT pg_database_size('template1')")
        return int(found) - int(empty)

    def _execute(self, sql: str) -> Any:
        assert self._cluster is not None
        with psycopg.connect(self._cluster.dsn, autocommit=True) as connection:
            cursor = connection.execute(sql)  # type: ignore[arg-type]
            return cursor.fetchone()[0] if cursor.description else None  # type: ignore[index]

    def close(self) -> None:
        self._stack.close()


@dataclass
class BarePostgresSide(BareSqliteSide):
    name = "bare-postgres"
    label = "bare, PostgreSQL"
    postgres: Postgres = field(default_factory=Postgres)

    def environment(self, folder: Path) -> Mapping[str, str]:
        return {"BARE_SAVER": self.postgres.url(folder)}

    def disk_bytes(self, folder: Path) -> int:
        return self.postgres.disk_bytes(folder)

    def close(self) -> None:
        self.postgres.close()


@dataclass
class LanggraphDevSide(Side):
    """``langgraph dev``, in memory; it writes what it has into files when it stops."""

    name = "langgraph-dev"
    label = "langgraph dev"
    slow = True

    def install(self) -> None:
        install(self.name, "langgraph-cli[inmem]")

    def command(self, port: int, folder: Path) -> Sequence[str]:
        shutil.copytree(PROJECT, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        options = ["--no-browser", "--no-reload", "--allow-blocking", "--n-jobs-per-worker", "500", "--port", str(port)]
        return [str(CACHE / self.name / "bin" / "langgraph"), "dev", *options]

    def environment(self, folder: Path) -> Mapping[str, str]:
        return {"LANGSMITH_TRACING": "false", "LANGGRAPH_CLI_NO_ANALYTICS": "1", "LOG_LEVEL": "WARNING"}

    def disk_bytes(self, folder: Path) -> int:
        return super().disk_bytes(folder / ".langgraph_api")


@dataclass
class AegraSide(Side):
    """Aegra on PostgreSQL."""

    name = "aegra"
    label = "Aegra"
    slow = True
    health = "/live"
    postgres: Postgres = field(default_factory=Postgres)

    def install(self) -> None:
        install(self.name, "aegra-api", "greenlet")  # which it needs, and does not require

    def command(self, port: int, folder: Path) -> Sequence[str]:
        shutil.copytree(PROJECT, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        # It runs a file that is no module, whose annotations LangGraph then cannot resolve.
        names = json.loads((PROJECT / "langgraph.json").read_text())["graphs"]
        (folder / "loaded.py").write_text(f"import sys\nsys.path.insert(0, {str(folder)!r})\nfrom graphs import *\n")
        (folder / "aegra.json").write_text(json.dumps({"graphs": {name: f"./loaded.py:{name}" for name in names}}))
        command = [str(CACHE / self.name / "bin" / "python"), "-m", "uvicorn", "aegra_api.main:app"]
        return [*command, "--port", str(port), "--log-level", "warning"]

    def environment(self, folder: Path) -> Mapping[str, str]:
        url = self.postgres.url(folder)
        return {"DATABASE_URL": url, "AEGRA_CONFIG": "aegra.json", "LOG_LEVEL": "WARNING", "AUTH_TYPE": "noop"}

    def disk_bytes(self, folder: Path) -> int:
        return self.postgres.disk_bytes(folder)

    def close(self) -> None:
        self.postgres.close()


@dataclass
class RunningSide(Side):
    """A server that somebody else has started; it is not stopped, and cannot be started again."""

    name = "other"
    label = "other"
    stores = False
    server: Server = field(default_factory=lambda: Server(url=""))

    @asynccontextmanager
    async def serving(self, folder: Path, *, kill: bool = False, **settings: object) -> AsyncIterator[Server]:
        yield self.server


def install(name: str, *packages: str) -> None:
    """Have *packages* in the virtual environment *name*, as of the first time; delete its folder for newer ones."""
    place = CACHE / name
    stamp = place / "stamp"
    wanted = " ".join(packages)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"bench: installing {wanted} into {place}", file=sys.stderr)
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    target = str(place / "bin" / "python")
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(place)],
        [uv, "pip", "install", "--quiet", "--python", target, *packages],
    ):
        subprocess.run(command, check=True, timeout=INSTALL_TIMEOUT_S, stdout=sys.stderr)
    stamp.write_text(wanted)


def installed(name: str, *packages: str) -> dict[str, str]:
    """Give the versions of *packages* in the virtual environment *name*."""
    code = f"import importlib.metadata as m; print(*(m.version(p) for p in {packages}))"
    done = subprocess.run([CACHE / name / "bin" / "python", "-c", code], check=True, capture_output=True, text=True)
    return dict(zip(packages, done.stdout.split(), strict=True))


SIDES: dict[str, type[Side]] = {
    side.name: side
    for side in (BareSide, BareSqliteSide, BarePostgresSide, LanggraphDevSide, AegraSide, BeforeSide, RunlaneSide)
}


@asynccontextmanager
async def fresh_folder() -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(prefix="runlane-bench-") as folder:
        place = Path(folder) / "data"
        place.mkdir()
        yield place
