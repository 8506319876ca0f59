"""The one connection of a process that sends and receives notifications; see :mod:`runlane.store.notifications`.

It is no part of the ledger's transactions: a notification inside them would cost most of their throughput, and a full
queue of notifications would fail them.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.conninfo import make_conninfo

from runlane.store.drivers.postgres_address import parts_of
from runlane.store.drivers.postgres_errors import connecting, one_line, translated
from runlane.store.drivers.postgres_link import Times, address
from runlane.store.notifications import Changes, Notifications, changes_in, channel_of
from runlane.supervised_loop import SupervisedLoop
from runlane.telemetry.emitter import SILENT, Telemetry

log = logging.getLogger("runlane.notifications")

#: How long a notification may take that shows whether any arrive.
PROBE_S: Final = 2.0
#: Where none arrive it is tried again so much later: a pooler may have been replaced.
PROBE_AGAIN_S: Final = 60.0
#: A lost connection is made again after so long at most.
LONGEST_RETRY_S: Final = 2.0
#: What PostgreSQL's lists of sessions call it.
APPLICATION: Final = "runlane notifications"
#: Nothing of it has to survive a crash of the server. For this transaction only: a pooler shares the session.
NOTIFY: Final = """SELECT set_config('synchronous_commit', 'off', true), pg_notify(%s, payload)
                   FROM unnest(CAST(%s AS text[])) AS payload"""


class NotificationConnection:
    """A connection that listens.

    Attributes:
        wake: Set when something has arrived, or is to be sent.
    """

    def __init__(self, connection: AsyncConnection[Any], channel: str, pid: int) -> None:
        self.wake = asyncio.Event()
        self._connection = connection
        self._channel = channel
        self._pid = pid
        self._arrived: list[bytes] = []
        connection.add_notify_handler(lambda found: self._hear(found.pid, found.payload.encode()))

    def _hear(self, pid: int, payload: bytes) -> None:
        if pid != self._pid:
            self._arrived.append(payload)

    async def ready(self) -> None:
        """Wait until something has arrived, or is to be sent."""
        loop, socket = asyncio.get_running_loop(), self._connection.fileno()
        loop.add_reader(socket, self.wake.set)
        try:
            await self.wake.wait()
        finally:
            loop.remove_reader(socket)
        self.wake.clear()

    def receive(self) -> Sequence[bytes]:
        """Return the payloads that have arrived, but for those that this connection has sent.

        Raises:
            OperationalError: The connection is lost.
        """
        server = self._connection.pgconn
        server.consume_input()
        while (found := server.notifies()) is not None:
            self._hear(found.be_pid, found.extra)
        arrived, self._arrived = self._arrived, []
        return arrived

    async def send(self, payloads: Sequence[bytes]) -> None:
        """Send *payloads* in one transaction."""
        await self._connection.execute(NOTIFY, (self._channel, [payload.decode() for payload in payloads]))


async def _connect(url: str) -> AsyncConnection[Any]:
    conninfo = make_conninfo(address(url, Times()), application_name=APPLICATION)
    with connecting():
        return await AsyncConnection.connect(conninfo, autocommit=True, prepare_threshold=None)


@asynccontextmanager
async def _listening(url: str, schema: str) -> AsyncIterator[NotificationConnection]:
    channel = channel_of(schema)
    async with await _connect(url) as connection:
        await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        cursor = await connection.execute("SELECT pg_backend_pid()")
        row = await cursor.fetchone()
        yield NotificationConnection(connection, channel, 0 if row is None else row[0])


async def _arrive(connection: NotificationConnection, ledger_url: str, schema: str) -> bool:
    """Return whether *connection* hears what another one, to *ledger_url*, sends while it waits.

    A pooler in transaction mode lends a session for one transaction, so that what arrives later reaches nobody.
    """
    probe = secrets.token_hex(8).encode()
    async with await _connect(ledger_url) as other:
        await other.execute(NOTIFY, (channel_of(schema), [probe.decode()]))
    try:
        async with asyncio.timeout(PROBE_S):
            while probe not in connection.receive():
                await connection.ready()
    except TimeoutError:
        return False
    return True


async def notifications_arrive(ledger_url: str, schema: str, *, url: str) -> bool:
    """Return whether a connection to *url* hears what one to *ledger_url* sends.

    Raises:
        StoreUnavailable: The database cannot be reached.
    """
    with translated():
        async with _listening(url, schema) as connection:
            return await _arrive(connection, ledger_url, schema)


class Listener:
    """Sends and receives notifications on one connection, which is made again whenever it is lost.

    A context manager, which is entered once notifications arrive, or it is known that they do not yet.

    Attributes:
        arriving: Whether notifications arrive now.
    """

    def __init__(
        self,
        ledger_url: str,
        schema: str,
        *,
        url: str,
        outgoing: Notifications,
        receive: Callable[[Changes], None],
        missed: Callable[[], None],
        telemetry: Telemetry = SILENT,
    ) -> None:
        """Args:
        ledger_url: Where the other connections of this process go.
        url: Where this one goes: the same, or past a pooler.
        receive: Is called with what others have told of, on the loop of the caller.
        missed: Is called when notifications may have been lost: the connection is new.

        Raises:
            ConfigurationError: *url* is no address of a database.
        """
        parts_of(url)
        self.arriving = False
        self._ledger_url = ledger_url
        self._url = url
        self._schema = schema
        self._outgoing = outgoing
        self._receive = receive
        self._missed = missed
        self._pause_s = 0.0
        self._tried = asyncio.Event()
        self._loop = SupervisedLoop(
            "notifications",
            self._listen,
            every_s=lambda: self._pause_s,
            longest_retry_s=LONGEST_RETRY_S,
            stop_grace_s=0.0,
            telemetry=telemetry,
        )

    async def __aenter__(self) -> Listener:
        self._loop.start()
        await self._tried.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._loop.stop()

    async def _listen(self) -> None:
        """Connect, and exchange notifications until the connection is lost."""
        try:
            with translated():
                async with _listening(self._url, self._schema) as connection:
                    await self._use(connection)
        finally:
            self.arriving = False
            self._tried.set()

    async def _use(self, connection: NotificationConnection) -> None:
        if not await _arrive(connection, self._ledger_url, self._schema):
            self._pause_s = PROBE_AGAIN_S
            log.warning("notifications.do_not_arrive polled=true again_in_s=%g", PROBE_AGAIN_S)
            return
        self._pause_s = 0.0
        log.info("notifications.arrive")
        try:
            await self._exchange(connection)
        except psycopg.Error as error:  # it worked: a new connection is made at once
            log.warning("notifications.lost why=%s", one_line(error))

    async def _exchange(self, connection: NotificationConnection) -> None:
        with self._outgoing.sent_when(connection.wake.set):
            self.arriving = True
            self._tried.set()
            self._missed()
            while True:
                payloads = self._outgoing.take()
                if payloads:
                    await connection.send(payloads)
                for payload in connection.receive():
                    self._receive(changes_in(payload))
                await connection.ready()
