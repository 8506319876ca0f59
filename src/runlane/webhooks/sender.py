"""One HTTP request to an address that was checked: resolved once, checked, and connected to as checked.

No redirect is followed, no proxy of the environment is used, no cookie is kept, and the answer's body is not read.
TLS verifies the name in the URL, whatever address it led to.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpcore
import httpx

from runlane.webhooks.policy import Target

#: From looking up the name to the answer's status line.
TIMEOUT_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 10.0
MAX_ERROR_LENGTH: Final = 500

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a receiver answered, or why it did not."""

    status_code: int | None = None
    error: str | None = None
    retry_after: str | None = None

    def retry_after_s(self, now: datetime) -> float:
        """Return how long the receiver asks to be left alone: seconds or a date in ``Retry-After``, else 0."""
        text = (self.retry_after or "").strip()
        if text.isascii() and text.isdigit():
            return float(text[:9])
        try:
            return max(0.0, (parsedate_to_datetime(text) - now).total_seconds())
        except (ValueError, TypeError):  # no date, or one without a zone
            return 0.0


class AddressRefused(Exception):
    """The host has an address that is not allowed. The text names none: what a name leads to inside is nobody's."""


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects to addresses that were permitted, and to no others: a name is resolved once for check and use."""

    def __init__(self, permits: Callable[[str], bool], resolve: Resolve) -> None:
        self._permits, self._resolve = permits, resolve
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await self._resolve(host, port)
        except OSError as error:
            raise httpcore.ConnectError(f"the host cannot be found: {error.strerror or error}") from error
        if not addresses or not all(self._permits(address) for address in addresses):
            raise AddressRefused("The host leads to an address that is not allowed.")
        failure: Exception | None = None
        for address in addresses:
            try:
                return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        assert failure is not None
        raise failure

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise AddressRefused("Webhooks go over TCP only.")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of *host*, each once, in the system's order of preference."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


class Sender:
    """Sends webhooks. Each has a connection of its own, so that what was checked is what is used."""

    def __init__(
        self,
        permits: Callable[[str], bool],
        *,
        resolve: Resolve = resolve,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._backend, self._tls, self._timeout_s = CheckedBackend(permits, resolve), tls, timeout_s

    async def post(self, target: Target, headers: Sequence[tuple[str, str]], body: bytes) -> Answer:
        """Send *body* and return the answer; whatever goes wrong on the way is part of it."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._post(target, headers, body)
        except TimeoutError:
            return _unanswered(f"There was no answer within {self._timeout_s:g} s.")
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
            return _unanswered(f"{type(error).__name__}: {error}")
        except AddressRefused as error:
            return _unanswered(str(error))

    async def _post(self, target: Target, headers: Sequence[tuple[str, str]], body: bytes) -> Answer:
        if target.scheme == b"https" and self._tls is None:
            # Reading the authorities takes some milliseconds, which those who send nothing do not pay.
            self._tls = await asyncio.to_thread(httpx.create_ssl_context)
        url = httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.target)
        timeouts = dict.fromkeys(("read", "write"), self._timeout_s)
        async with (
            httpcore.AsyncHTTPConnection(url.origin, self._tls, network_backend=self._backend) as connection,
            connection.stream(
                "POST",
                url,
                headers=[(b"host", _authority(target)), *((name.encode(), value.encode()) for name, value in headers)],
                content=body,
                extensions={"timeout": {"connect": CONNECT_TIMEOUT_S, **timeouts}},
            ) as response,
        ):
            later = [value for name, value in response.headers if name.lower() == b"retry-after"]
            return Answer(status_code=response.status, retry_after=later[0].decode("latin-1")[:100] if later else None)


def _authority(target: Target) -> bytes:
    host = b"[%s]" % target.host if b":" in target.host else target.host
    return host if target.port is None else b"%s:%d" % (host, target.port)


def _unanswered(error: str) -> Answer:
    return Answer(error=error[:MAX_ERROR_LENGTH])
