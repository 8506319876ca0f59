"""The client of the load: a bare HTTP/1.1 reader, so that on a small machine it is not itself what is measured.

It also reads what a server's process and its children use, if its pid is known: processor time, memory, and bytes
written.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import psutil

Figures = dict[str, float]
T = TypeVar("T")

MARK = b"event:"


class UnexpectedAnswer(Exception):
    """A server did not do what the case asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where a server listens and, if known, which process it is."""

    url: str
    pid: int | None = None

    def processes(self) -> list[psutil.Process]:
        if self.pid is None:
            return []
        root = psutil.Process(self.pid)
        return [root, *root.children(recursive=True)]

    def cpu_s(self) -> float:
        times = [process.cpu_times() for process in self.processes()]
        return float(sum(each.user + each.system for each in times))

    def fine_cpu_s(self) -> float:
        """Give the processor time of the threads that live, which the system counts in nanoseconds."""
        total_ns = 0
        for process in self.processes():
            for task in Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
                with suppress(OSError):
                    total_ns += int(task.read_text().split()[0])
        return total_ns / 1e9

    def written_bytes(self) -> int:
        """Give what was written to disks, in whole pages; nothing where files are in memory."""
        return int(sum(process.io_counters().write_bytes for process in self.processes()))  # type: ignore[union-attr]

    def memory_bytes(self) -> int:
        return int(sum(process.memory_info().rss for process in self.processes()))


class Meter:
    """The time, and the server's processor time, since it was made."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._cpu_s, self._start_s = server.cpu_s(), time.perf_counter()

    def wall_s(self) -> float:
        return time.perf_counter() - self._start_s

    def cpu(self, figure: str, scale: float) -> Figures:
        """Give the processor time in seconds times *scale*, under the name *figure*."""
        return {} if self._server.pid is None else {figure: (self._server.cpu_s() - self._cpu_s) * scale}


class Connection:
    """One keep-alive connection, opened by the first request; for one request at a time."""

    def __init__(self, server: Server) -> None:
        self._address = urlsplit(server.url)
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open is not None:
            self._open[1].close()

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """Give the decoded answer.

        Raises:
            UnexpectedAnswer: The status is not a success.
        """
        return json.loads(await self.read(method, path, body) or b"null")

    async def read(self, method: str, path: str, body: Any = None) -> bytes:
        """Give the answer as it came, a stream to its end.

        Raises:
            UnexpectedAnswer: The status is not a success.
        """
        return b"".join([piece async for piece in self._exchange(method, path, body)])

    async def stream(self, path: str, body: Any = None, method: str = "POST") -> tuple[float, int]:
        """Read a stream to its end; give the seconds to its first event and the number of events.

        Raises:
            UnexpectedAnswer: The status is not a success, or an event says that the run failed.
        """
        start_s, first_s, count, tail = time.perf_counter(), 0.0, 0, b""
        async for piece in self._exchange(method, path, body):
            window = tail + piece
            seen = window.count(MARK)
            if seen and not count:
                first_s = time.perf_counter() - start_s
            if b"event: error" in window:
                raise UnexpectedAnswer(f"{path}: {window[-300:]!r}")
            count += seen
            tail = window[-len(MARK) + 1 :]  # too short to hold a mark, so that none is counted twice
        return first_s, count

    async def _exchange(self, method: str, path: str, body: Any) -> AsyncIterator[bytes]:
        reader, writer = await self._streams()
        payload = b"" if body is None else json.dumps(body).encode()
        writer.write(
            f"{method} {path} HTTP/1.1\r\nhost: {self._address.netloc}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(payload)}\r\n\r\n".encode()
            + payload
        )
        await writer.drain()
        status, headers = await _read_head(reader)
        async for piece in _read_body(reader, headers):
            if status >= 300:
                raise UnexpectedAnswer(f"{method} {path}: {status} {piece[:300]!r}")
            yield piece
        if status >= 300:
            raise UnexpectedAnswer(f"{method} {path}: {status}")
        if headers.get("connection") == "close":
            writer.close()
            self._open = None

    async def _streams(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._open is None:
            self._open = await asyncio.open_connection(self._address.hostname, self._address.port, limit=2**24)
        return self._open


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(first.split()[1]), {name.lower(): value.strip().lower() for name, _, value in pairs}


async def _read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    if headers.get("transfer-encoding") != "chunked":
        yield await reader.readexactly(int(headers.get("content-length", "0")))
        return
    while True:
        size = int((await reader.readline()).partition(b";")[0], 16)
        piece = await reader.readexactly(size + 2)
        if size == 0:
            return
        yield piece[:-2]


def expect(held: bool, what: str) -> None:
    if not held:
        raise UnexpectedAnswer(what)


async def together(clients: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Give what all *clients* return; if one fails, none goes on."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(client) for client in clients]
    return [task.result() for task in tasks]


def run_of(graph: str, values: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {"assistant_id": graph, "input": values, **options}


async def new_thread(connection: Connection) -> str:
    return str((await connection.call("POST", "/threads", {}))["thread_id"])


def latencies(times_s: list[float]) -> Figures:
    ordered = sorted(times_s)
    p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return {"p50_ms": 1e3 * statistics.median(ordered), "p99_ms": 1e3 * p99}
