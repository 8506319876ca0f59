"""HTTP/1.1 with bounds on what a client may send and how long it may take: neither the parser nor uvicorn has them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from runlane.settings import Settings
from runlane.streams.budget import UNTAKEN_BYTES

#: Request line and headers together; proxies and other servers take from 8 to 64 KiB. Trailers have the same bound.
MAX_HEAD_BYTES: Final = 64 * 1024
#: Each is compared with names that are looked for; other servers take from 100 to 256.
MAX_HEADERS: Final = 256
#: How long a client that was refused with its connection is asked to stay away.
RETRY_AFTER_S: Final = 1
#: Open files that are not left to connections: the database's, the event loops', those of graphs and webhooks.
OTHER_FILES: Final = 256
#: How long a connection is kept to read what its client still sends, and how many beyond the limit are kept so.
_LINGER_S: Final = 2.0
_MAX_LINGERING: Final = 100

_REASONS: Final = {
    400: b"Bad Request",
    408: b"Request Timeout",
    431: b"Request Header Fields Too Large",
    503: b"Service Unavailable",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Limits of one client: ``max_connections`` of the process, and time to send a request."""

    max_connections: int
    request_timeout_s: float


def bounded_http(limits: HttpLimits) -> type[asyncio.Protocol]:
    """Return the protocol with *limits*, as uvicorn takes one."""
    return cast(type[asyncio.Protocol], partial(BoundedHttp, limits=limits))


def limits_of(settings: Settings, max_open_files: int) -> HttpLimits:
    """Return the limits of *settings*; not every file that the process may open is a connection's."""
    possible = max(1, max_open_files - OTHER_FILES) if max_open_files > 0 else settings.max_connections
    return HttpLimits(
        max_connections=min(settings.max_connections, possible), request_timeout_s=settings.request_timeout_s
    )


class _Refused(Exception):  # a way out of the parser
    pass


class BoundedHttp(HttpToolsProtocol):
    """Refuses what is too large as soon as it is, what takes too long when it has, and connections beyond the limit.

    A request without one header ``Host`` is refused too: a proxy and this server could take different ones of two.
    """

    def __init__(self, *args: Any, limits: HttpLimits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        # _loose is what has arrived of a head, or since the last piece of a body: of what is between the pieces.
        self._in_head = True
        self._loose = 0
        self._arrived = 0
        self._moved = False
        self._refusal: tuple[int, str, str] | None = None
        self._refused = False
        #: When what is on its way has to be there; None: nothing is.
        self._due: float | None = None
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=UNTAKEN_BYTES)
        if len(self.connections) > self._limits.max_connections:
            limit = self._limits.max_connections
            self._refuse(503, "too_many_connections", f"The server has {limit} connections; see max_connections.")
            return
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:  # what else comes is nobody's
            return
        if self._due is None and self._is_idle():
            self._expect()
        self._arrived, self._moved = len(data), False
        super().data_received(data)
        self._loose = 0 if self._moved else self._loose + len(data)
        if self._loose > MAX_HEAD_BYTES and self._due is not None:
            self._refuse(*_too_large())

    def handle_websocket_upgrade(self) -> None:
        self._expect_nothing()
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        self._in_head, self._loose = True, 0
        if self._due is None:  # a request that came together with the one before
            self._expect()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if len(self.headers) > MAX_HEADERS:
            self._refusal = 431, "headers_too_large", f"The request has more than {MAX_HEADERS} headers."
            raise _Refused
        if self._loose + self._arrived > MAX_HEAD_BYTES and self._size() > MAX_HEAD_BYTES:
            self._refusal = _too_large()
            raise _Refused
        if self.parser.get_http_version() != "1.0" and sum(name == b"host" for name, _ in self.headers) != 1:
            self._refusal = 400, "host_not_single", "A request has one header Host (RFC 9112, section 3.2)."
            raise _Refused
        self._in_head, self._moved = False, True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._due, self._moved = None, True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if self._refusal is None:
            super().send_400_response(msg)
        else:
            self._refuse(*self._refusal)

    def _size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _expect(self) -> None:
        """Give what is on its way the time that a request has. One timer serves all requests of a connection."""
        self._due = self.loop.time() + self._limits.request_timeout_s
        if self._watch is None:
            self._watch = self.loop.call_at(self._due, self._look)

    def _expect_nothing(self) -> None:
        self._due = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _look(self) -> None:
        self._watch = None
        if self._due is None or self.transport.is_closing():
            return
        if self.flow.read_paused:  # it is the application that takes its time
            self._expect()
        elif self.loop.time() < self._due:
            self._watch = self.loop.call_at(self._due, self._look)
        elif self._in_head and self._loose == 0:  # nothing was asked
            self.transport.close()
        else:
            limit = f"{self._limits.request_timeout_s:g}"
            self._refuse(408, "request_timeout", f"The request did not arrive in {limit} s; see request_timeout_s.")

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Answer, if it is this request's turn, and close the connection once the client has had time to read that."""
        self._refused = True
        self._expect_nothing()
        if not self._may_answer():
            self.transport.close()
            return
        body = orjson.dumps({"detail": detail, "code": code})
        lines = [
            b"HTTP/1.1 %d %s" % (status, _REASONS[status]),
            b"content-type: application/json",
            b"content-length: %d" % len(body),
            b"connection: close",
            *([b"retry-after: %d" % RETRY_AFTER_S] if status == 503 else ()),
        ]
        self.transport.write(b"\r\n".join([*lines, b"", body]))
        if len(self.connections) > self._limits.max_connections + _MAX_LINGERING:
            self.transport.close()
            return
        # A close with unread bytes would be a reset, which makes the client's system forget what was answered.
        self.transport.write_eof()
        self.flow.resume_reading()
        self._watch = self.loop.call_later(_LINGER_S, self.transport.close)

    def _is_idle(self) -> bool:
        """Return whether no request is being answered."""
        cycle = cast(RequestResponseCycle | None, self.cycle)
        return cycle is None or cycle.response_complete

    def _may_answer(self) -> bool:
        """Return whether what is written next is the answer to what is refused; its handler writes no more then."""
        cycle = self.cycle
        if self._in_head:
            return self._is_idle()
        if cycle.response_started:
            return False
        cycle.disconnected = True
        cycle.message_event.set()
        return True


def _too_large() -> tuple[int, str, str]:
    detail = f"The request's line and headers, or its trailers, are larger than {MAX_HEAD_BYTES} bytes."
    return 431, "headers_too_large", detail
