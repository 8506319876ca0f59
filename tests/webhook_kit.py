"""A receiver of webhooks: a real HTTP server that answers as it is told, or does not."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

PATIENCE_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One request, as it came."""

    line: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.time)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Behave = Callable[[asyncio.StreamWriter], Awaitable[None]]


def answers(status: int, *headers: str) -> Behave:
    """Answer with *status* and close."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} Because", "content-length: 2", *headers, "", "ok"]
        writer.write("\r\n".join(lines).encode())
        await writer.drain()

    return behave


async def closes(writer: asyncio.StreamWriter) -> None:
    """Say nothing."""


def stalls(until: asyncio.Event) -> Behave:
    """Answer with 200 once *until* is set."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        await until.wait()
        await answers(200)(writer)

    return behave


async def drips(writer: asyncio.StreamWriter) -> None:
    """Answer with 200 and a body that never ends."""
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    try:
        while True:
            writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0)
    except OSError:
        return


class Receiver:
    """Requests in the order in which they came; the next ones are answered by what *script* has, then with 200."""

    def __init__(self, *script: Behave) -> None:
        self.script = list(script)
        self.requests: list[Received] = []
        self._came = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self.address, self.port = "127.0.0.1", 0
        self.scheme = "http"

    def url(self, path: str = "/hook", host: str = "") -> str:
        return f"{self.scheme}://{host or self.address}:{self.port}{path}"

    async def got(self, count: int) -> list[Received]:
        """Return the requests once there are *count*."""
        async with asyncio.timeout(PATIENCE_S), self._came:
            await self._came.wait_for(lambda: len(self.requests) >= count)
            return self.requests[:count]

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *fields = head.strip().split("\r\n")
            headers = dict(_field(field) for field in fields)
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            behave = self.script.pop(0) if self.script else answers(200)
            async with self._came:
                self.requests.append(Received(line=line, headers=headers, body=body))
                self._came.notify_all()
            await behave(writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            return
        finally:
            self._tasks.discard(task)
            writer.close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(": ")
    return name.lower(), value


@asynccontextmanager
async def receiver(
    *script: Behave, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1"
) -> AsyncIterator[Receiver]:
    """Listen on a port of this machine, which has many addresses."""
    made = Receiver(*script)
    made.address = address
    server = await asyncio.start_server(made.connected, address, 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    made.scheme = "http" if tls is None else "https"
    try:
        yield made
    finally:
        server.close()
        await made.close()
