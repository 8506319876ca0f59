"""One HTTP request to an address that was checked: resolved once, checked, and connected to as checked.

No redirect is followed, no proxy of the environment is used, no cookie is kept, and the answer's body is not read.
TLS verifies the name in the URL, whatever address it led to.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Final

import httpcore
import httpx

from runlane.store.shares import allowance
from runlane.webhooks.addresses import place_of
from runlane.webhooks.policy import DEFAULT_PORTS, Target

#: For looking up the name, for a free place at its address, and from connecting to the answer's status line.
TIMEOUT_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 10.0
MAX_ERROR_LENGTH: Final = 500
#: Names that are looked up at once: more than webhooks are on their way, as a lookup may outlast its webhook.
MAX_LOOKUPS: Final = 128
#: Webhooks on their way to one place on the network at once. An owner who is alone has half of it.
MAX_PER_PLACE: Final = 16
CROWDED: Final = "Too many webhooks are on their way to this host; it is sent later."
#: The one text for a host that there is not, and for one that is not permitted.
UNREACHABLE: Final = "The host was not found, or webhooks may not be sent to it."

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookResponse:
    """A receiver's answer, or why there is none. ``crowded``: it was not asked, as too many others are being."""

    status_code: int | None = None
    error: str | None = None
    retry_after: str | None = None
    crowded: bool = False

    def retry_after_s(self, now: datetime) -> float:
        """Return how long the receiver asks to be left alone: seconds or a date in ``Retry-After``, else 0."""
        text = (self.retry_after or "").strip()
        if text.isascii() and text.isdigit():
            return float(text[:9])
        try:
            return max(0.0, (parsedate_to_datetime(text) - now).total_seconds())
        except (ValueError, TypeError):  # no date, or one without a zone
            return 0.0


class PinnedBackend(httpcore.AsyncNetworkBackend):
    """Connects to addresses that were checked, whatever name they were found by, and to no others."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception | None = None
        for address in self._addresses:
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
        raise httpcore.ConnectError("Webhooks go over TCP only.")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Names:
    """Looks names up on threads of its own: an event loop has four to thirty for all, and a slow name keeps one."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(MAX_LOOKUPS, thread_name_prefix="webhook-names")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of *host*, each once, in the system's order of preference.

        Raises:
            OSError: There are none.
        """
        look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        return list(dict.fromkeys(str(info[4][0]) for info in found))

    def close(self) -> None:
        """Let the threads end once their lookups have."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Places:
    """Connections to one place on the network, by its resolved address, shared among owners.

    Names and ports are anybody's to make up, so that counting those alone would let one owner take everything.
    """

    def __init__(self, per_place: int) -> None:
        self._per_place = per_place
        self._taken: Counter[tuple[str, str]] = Counter()
        self._freed = asyncio.Condition()

    async def enter(self, owner: str, places: Collection[str]) -> None:
        """Wait until *owner* may have one more connection to all of *places*, and take it."""
        async with self._freed:
            await self._freed.wait_for(lambda: all(self._more(owner, place) > 0 for place in places))
            self._taken.update((owner, place) for place in places)

    async def leave(self, owner: str, places: Collection[str]) -> None:
        """Give back what :meth:`enter` took."""
        async with self._freed:
            self._taken.subtract((owner, place) for place in places)
            self._taken = +self._taken
            self._freed.notify_all()

    def _more(self, owner: str, place: str) -> int:
        mine = self._taken[owner, place]
        at_place = sum(count for (_, one), count in self._taken.items() if one == place)
        return allowance(self._per_place, mine=mine, others=at_place - mine)


class Sender:
    """Sends webhooks. Each has a connection of its own, so that what was checked is what is used."""

    def __init__(
        self,
        permits: Callable[[str], bool],
        *,
        places: Places | None = None,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._permits = permits
        self._tls = tls
        self._timeout_s = timeout_s
        self._names = Names()
        self._resolve = resolve or self._names
        self._places = places or Places(MAX_PER_PLACE)

    def close(self) -> None:
        """Release what it holds; a second call does nothing."""
        self._names.close()

    async def post(
        self, target: Target, headers: Sequence[tuple[str, str]], body: bytes, *, owner: str
    ) -> WebhookResponse:
        """Send *body* for *owner* and return the answer; whatever goes wrong on the way is part of it."""
        try:
            async with asyncio.timeout(self._timeout_s):
                addresses = await self._checked(target)
        except TimeoutError:
            addresses = ()
        if not addresses:
            return _unanswered(UNREACHABLE)
        places = frozenset(place_of(address) for address in addresses)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._places.enter(owner, places)
        except TimeoutError:
            return WebhookResponse(error=CROWDED, crowded=True)
        try:
            return await self._sent(target, headers, body, addresses)
        finally:
            await self._places.leave(owner, places)

    async def _checked(self, target: Target) -> Sequence[str]:
        """Return the addresses of the target's host if all of them are permitted, else none.

        Nobody is told which it was, nor where a name leads: that would be a map of what is inside.
        """
        try:
            port = target.port or DEFAULT_PORTS[target.scheme.decode()]
            addresses = await self._resolve(target.host.decode("ascii"), port)
        except (OSError, UnicodeError):
            return ()
        return addresses if all(self._permits(address) for address in addresses) else ()

    async def _sent(
        self, target: Target, headers: Sequence[tuple[str, str]], body: bytes, addresses: Sequence[str]
    ) -> WebhookResponse:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._post(target, headers, body, PinnedBackend(addresses))
        except TimeoutError:
            return _unanswered(f"There was no answer within {self._timeout_s:g} s.")
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
            return _unanswered(f"{type(error).__name__}: {error}")

    async def _post(
        self, target: Target, headers: Sequence[tuple[str, str]], body: bytes, backend: PinnedBackend
    ) -> WebhookResponse:
        if target.scheme == b"https" and self._tls is None:
            # Reading the authorities takes some milliseconds, which those who send nothing do not pay.
            self._tls = await asyncio.to_thread(httpx.create_ssl_context)
        url = httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.target)
        timeouts = dict.fromkeys(("read", "write"), self._timeout_s)
        async with (
            httpcore.AsyncHTTPConnection(url.origin, self._tls, network_backend=backend) as connection,
            connection.stream(
                "POST",
                url,
                headers=[(b"host", _authority(target)), *((name.encode(), value.encode()) for name, value in headers)],
                content=body,
                extensions={"timeout": {"connect": CONNECT_TIMEOUT_S, **timeouts}},
            ) as response,
        ):
            later = [value for name, value in response.headers if name.lower() == b"retry-after"]
            return WebhookResponse(
                status_code=response.status, retry_after=later[0].decode("latin-1")[:100] if later else None
            )


def _authority(target: Target) -> bytes:
    host = b"[%s]" % target.host if b":" in target.host else target.host
    return host if target.port is None else b"%s:%d" % (host, target.port)


def _unanswered(error: str) -> WebhookResponse:
    return WebhookResponse(error=error[:MAX_ERROR_LENGTH])
