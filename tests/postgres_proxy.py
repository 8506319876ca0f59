"""Stands between a driver and a PostgreSQL server, and loses answers to commits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

#: Every transaction that writes begins with one.
WROTE = b"INSERT 0 1\0"
#: The server is done, and no transaction is open.
READY = b"Z\0\0\0\5I"


class Proxy:
    """Passes everything on, but for the answers to the next ``losses`` commits of transactions that write.

    Attributes:
        losses: How many answers are still to be lost.
        lost: How many were.
        late_s: How much later than its connection is lost a commit reaches the server.
        committed: Awaited after a commit whose answer is lost, before its connection is.
    """

    def __init__(self, url: str, directory: Path) -> None:
        self._target = str(Path(parse_qs(urlsplit(url).query)["host"][0]) / ".s.PGSQL.5432")
        self._socket = str(directory / ".s.PGSQL.5432")
        self._sessions: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.url = f"postgresql://runlane@{urlsplit(url).path}?host={directory}"
        self.losses = self.lost = 0
        self.late_s = 0.0
        self.committed: Callable[[], Awaitable[object]] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with await asyncio.start_unix_server(self._accept, self._socket):
            yield
            for session in self._sessions:
                session.cancel()
            await asyncio.gather(*self._sessions, return_exceptions=True)
            for writer in self._writers:  # also of a session that was cancelled before it began
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        session = asyncio.create_task(self._serve(reader, writer))
        self._sessions.add(session)
        session.add_done_callback(self._sessions.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):  # the server is gone, and so is the session
            server_reader, server_writer = await asyncio.open_unix_connection(self._target)
            self._writers.append(server_writer)
            try:
                await _Session(self, reader, writer, server_reader, server_writer).run()
            finally:
                server_writer.close()
        writer.close()


class _Session:
    def __init__(
        self,
        proxy: Proxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        server_reader: asyncio.StreamReader,
        server_writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._reader, self._writer = reader, writer
        self._server_reader, self._server_writer = server_reader, server_writer
        self._wrote = self._loses = False

    async def run(self) -> None:
        there = asyncio.create_task(self._to_server())
        back = asyncio.create_task(self._to_client())
        try:
            await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
        finally:
            there.cancel()
            back.cancel()
            await asyncio.gather(there, back, return_exceptions=True)

    async def _to_server(self) -> None:
        while data := await self._reader.read(65536):
            if b"COMMIT\0" in data:
                if self._wrote and self._proxy.losses:
                    self._proxy.losses -= 1
                    self._loses = True
                    if self._proxy.late_s:
                        self._writer.close()
                        await asyncio.sleep(self._proxy.late_s)  # the fault itself
                self._wrote = False
            self._server_writer.write(data)
            await self._server_writer.drain()
        if self._loses:  # the answer is on its way
            await asyncio.Event().wait()

    async def _to_client(self) -> None:
        while data := await self._server_reader.read(65536):
            self._wrote = self._wrote or WROTE in data
            if not self._loses:
                self._writer.write(data)
                await self._writer.drain()
            elif data.endswith(READY):
                self._proxy.lost += 1
                if self._proxy.committed is not None:
                    await self._proxy.committed()
                return
