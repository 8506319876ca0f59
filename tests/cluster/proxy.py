"""A TCP proxy before a database's Unix socket, whose cable can be cut, or can lose everything without a word."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

CHUNK = 65_536
COMMIT = b"COMMIT\0"


class Proxy:
    """Listens on a port of this machine. One per node, so that one node alone can be cut off."""

    def __init__(self, socket: Path) -> None:
        #: Where new connections lead to.
        self.socket = socket
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._refuses = False
        self._at_commit: asyncio.Future[asyncio.Event] | None = None
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._drop()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    def cut(self) -> None:
        """Reset all connections, and refuse new ones."""
        self._refuses = True
        self._drop()

    def swallow(self) -> None:
        """Let connections live, and nothing through: neither side hears of it."""
        self._flows.clear()

    def heal(self, *, late: bool = False) -> None:
        """Let new connections through, and with *late* all that was swallowed; without, its connections are reset."""
        if not self._flows.is_set() and not late:
            self._drop()
        self._flows.set()
        self._refuses = False

    async def at_commit(self, act: Callable[[], Awaitable[None]], *, within_s: float) -> None:
        """Act while the next COMMIT is held back, if one comes *within_s*, and otherwise without."""
        self._at_commit = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(within_s):
                passes = await self._at_commit
        except TimeoutError:
            passes = asyncio.Event()
        finally:
            self._at_commit = None
        try:
            await act()
        finally:
            passes.set()

    def _drop(self) -> None:
        for pipe in self._pipes:
            pipe.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            writer.transport.abort()
            return
        pipe = asyncio.ensure_future(self._join(reader, writer))
        self._pipes.add(pipe)
        pipe.add_done_callback(self._pipes.discard)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back, forth = await asyncio.open_unix_connection(str(self.socket))
        except OSError:
            writer.transport.abort()
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, forth, self._hold))
                group.create_task(self._pump(back, writer))
        except* (OSError, EOFError):
            pass
        finally:
            for end in (writer, forth):
                end.transport.abort()

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        hold: Callable[[bytes, asyncio.StreamWriter], Awaitable[bytes]] | None = None,
    ) -> None:
        while data := await source.read(CHUNK):
            await self._flows.wait()
            _write(sink, data if hold is None else await hold(data, sink))
            await sink.drain()
        raise EOFError  # one side has closed: so does the other

    async def _hold(self, data: bytes, sink: asyncio.StreamWriter) -> bytes:
        """Send what comes before a COMMIT that is to be held back, and return the rest once it may pass."""
        at = data.find(COMMIT)
        if self._at_commit is None or self._at_commit.done() or at < 0:
            return data
        passes = asyncio.Event()
        self._at_commit.set_result(passes)
        at -= 5 if data[at - 5 : at - 4] == b"Q" else 6  # what comes before its text: Query has no name, Parse has one
        _write(sink, data[:at])
        await passes.wait()
        return data[at:]


def _write(sink: asyncio.StreamWriter, data: bytes) -> None:
    """Write to *sink*, which may have been closed while the data was held back.

    Raises:
        EOFError: It was; uvloop would raise a RuntimeError.
    """
    if sink.transport.is_closing():
        raise EOFError
    sink.write(data)
