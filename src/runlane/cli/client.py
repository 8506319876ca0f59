"""The few calls of the HTTP API that the command line makes."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

import httpx

from runlane.cli.reporting import NoServer, ServerError, ServerRefused
from runlane.errors import ConfigurationError, NotFound
from runlane.headers import VERSION_HEADER
from runlane.lifecycle import ACTIVE

TIMEOUT_S: Final = 30.0
#: Longer than the server is silent on a stream, several heartbeats long.
SILENCE_S: Final = 60.0
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
#: Runs or threads of one request.
PAGE: Final = 200
#: Log records of one request, and how often those of a run that executes are asked for.
LOG_PAGE: Final = 1000
FOLLOW_EVERY_S: Final = 1.0
#: How often a stream that broke is taken up again without a new event.
RETRIES: Final = 5
#: Pause before the first of these tries; each later one is twice as long, so that a restart is waited for.
RETRY_AFTER_S: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEvent:
    """One event of a stream; ``data`` is JSON text."""

    name: str
    data: str
    id: str | None


class Client:
    """A server, seen from the command line. A context manager."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url = url.rstrip("/")
        self._http = httpx.Client(timeout=TIMEOUT_S, headers=headers)

    @property
    def url(self) -> str:
        return self._url

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, kind: str = "", key: str = "", *, params: Mapping[str, Any] = NOTHING) -> Any:
        """Return what the server answers to GET *path*, which is about the *kind* of thing named *key*.

        Raises:
            NotFound: No such thing.
            ServerError: The server cannot be reached.
            ServerRefused: It refused.
        """
        return self._call("GET", path, kind, key, params=_given(params))

    def post(self, path: str, kind: str = "", key: str = "", **body: Any) -> Any:
        """Return what the server answers to POST *path* with the fields of *body* that are not ``None``."""
        return self._call("POST", path, kind, key, json=_given(body))

    def send(self, method: str, path: str, kind: str = "", key: str = "", *, body: Any = None) -> Any:
        """Return what the server answers to another method."""
        return self._call(method, path, kind, key, **({} if body is None else {"json": body}))

    def runs(self, *, limit: int, **where: Any) -> list[dict[str, Any]]:
        """Return the newest runs of all threads that match *where*, the fields of ``POST /runs/search``."""
        found: list[dict[str, Any]] = []
        after: str | None = None
        while len(found) < limit:
            body = _given({**where, "limit": min(PAGE, limit - len(found)), "after": after})
            response = self._response("POST", "/runs/search", json=body)
            self._check(response, "", "")
            found += self._json(response)
            after = response.headers.get("x-pagination-next")
            if after is None:
                break
        return found

    def act_on_runs(self, **asked: Any) -> Iterator[list[dict[str, Any]]]:
        """Act on the runs that are *asked* for by ``POST /runs/bulk``, and yield the results of each page.

        A request that got no answer is repeated, which acts on no run twice.
        """
        after: str | None = None
        while True:
            page = self._patiently(partial(self.post, "/runs/bulk", **asked, after=after))
            yield page["results"]
            after = page["next"]
            if after is None:
                return

    def _patiently(self, call: Callable[[], Any]) -> Any:
        """Return what *call* gives, across lost connections."""
        for retry in range(RETRIES):
            try:
                return call()
            except NoServer:
                time.sleep(RETRY_AFTER_S * 2**retry)
        return call()

    def search(self, path: str, *, limit: int, **where: Any) -> list[dict[str, Any]]:
        """Return what matches *where*, from a route with ``limit`` and ``offset`` in its body."""
        found: list[dict[str, Any]] = []
        while len(found) < limit:
            size = min(PAGE, limit - len(found))
            page = self.post(path, limit=size, offset=len(found), **where)
            found += page
            if len(page) < size:
                break
        return found

    def run(self, run_id: str) -> Any:
        """Return a run as the API gives it.

        Raises:
            NotFound: No such run.
            ServerError: The server cannot be reached, or refused.
        """
        return self._call("GET", f"/runs/{path_id('run', run_id)}", "run", run_id)

    def events(self, run_id: str, *, after: str) -> Iterator[ServerEvent]:
        """Yield the run's events after the one whose id is *after* (``-1``: all), to its end, across lost connections.

        Raises:
            NotFound: No such run.
            ServerError: The server cannot be reached, or refused.
        """
        retries, ended = 0, False
        while not ended:
            try:
                for event in self._stream(f"/runs/{path_id('run', run_id)}/stream", run_id, after):
                    retries, after, ended = RETRIES, event.id or after, event.name == "end"
                    yield event
            except httpx.TransportError as error:
                if not retries:
                    raise self._unreachable(error) from error
            if not ended:
                if not retries:
                    raise ServerError(f"The stream of run {run_id} broke off before its end, after event {after}.")
                time.sleep(RETRY_AFTER_S * 2 ** (RETRIES - retries))
                retries -= 1

    def log_records(self, run_id: str, *, follow: bool) -> Iterator[dict[str, Any]]:
        """Yield the log records of a run that are kept; with *follow* also those that come until it has ended.

        Raises:
            NotFound: No such run.
            ServerError: The server cannot be reached, or refused.
        """
        path, params = f"/runs/{path_id('run', run_id)}/logs", {"limit": str(LOG_PAGE)}
        while True:
            is_last = not follow or self.run(run_id)["status"] not in ACTIVE
            page = self._patiently(lambda: self._call("GET", path, "run", run_id, params=params))
            yield from page
            if page:
                params["after"] = page[-1]["id"]
            elif is_last:
                return
            else:
                time.sleep(FOLLOW_EVERY_S)

    def cancel(self, run_id: str, *, action: str, wait: bool) -> str:
        """Ask for the run to be stopped and return what is known then: its status, or that it was asked to stop.

        A run that has ended by itself is left as it is.

        Raises:
            NotFound: No such run.
            ServerError: The server cannot be reached, or refused.
        """
        path = f"/runs/{path_id('run', run_id)}"
        # A run takes as long to stop as its code needs; the server says so if it does not stop.
        timeout = httpx.Timeout(TIMEOUT_S, read=None if wait else TIMEOUT_S)
        params = {"action": action, "wait": int(wait)}
        try:
            self._call("POST", f"{path}/cancel", "run", run_id, params=params, timeout=timeout)
        except NotFound:  # the API's answer for a run that has ended, too
            return f"had ended: {self.run(run_id)['status']}"
        if not wait:
            return "asked to stop"
        try:
            return str(self._call("GET", path, "run", run_id)["status"])
        except NotFound:
            return "rolled back"

    def join(self, run_id: str) -> Any:
        """Return the run's result once it has ended, across lost connections.

        Raises:
            NotFound: No such run.
            ServerError: The server cannot be reached, or refused.
        """
        path, timeout = f"/runs/{path_id('run', run_id)}/join", httpx.Timeout(TIMEOUT_S, read=SILENCE_S)
        return self._patiently(lambda: self._call("GET", path, "run", run_id, timeout=timeout))

    def _call(self, method: str, path: str, kind: str, key: str, **options: Any) -> Any:
        response = self._response(method, path, **options)
        self._check(response, kind, key)
        return self._json(response)

    def _response(self, method: str, path: str, **options: Any) -> httpx.Response:
        timeout = options.pop("timeout", httpx.USE_CLIENT_DEFAULT)
        try:
            request = self._http.build_request(method, self._url + path, timeout=timeout, **options)
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(f"The request cannot be written as JSON: {error}.") from error
        except httpx.InvalidURL as error:
            raise self._unreachable(error) from error
        try:
            return self._http.send(request)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _check(self, response: httpx.Response, kind: str, key: str) -> None:
        """Check that *response* is an answer of Runlane, and no refusal; a proxy before it may refuse, too."""
        missing = response.status_code == httpx.codes.NOT_FOUND
        if response.is_error and not missing:
            raise ServerRefused(f"The server refused ({response.status_code}): {_detail(response)}")
        if VERSION_HEADER not in response.headers or (missing and not key):
            raise self._strange()
        if missing:
            raise NotFound(kind, key)

    def _json(self, response: httpx.Response) -> Any:
        try:
            return response.json() if response.content else None
        except ValueError:
            raise self._strange() from None

    def _stream(self, path: str, run_id: str, after: str) -> Iterator[ServerEvent]:
        timeout = httpx.Timeout(TIMEOUT_S, read=SILENCE_S)
        headers = {"last-event-id": after}
        with self._http.stream("GET", self._url + path, headers=headers, timeout=timeout) as response:
            if response.is_error:
                response.read()
            self._check(response, "run", run_id)
            yield from parse_events(_lines(response.iter_bytes()))

    def _strange(self) -> ServerError:
        return ServerError(f"{self._url} does not answer like a Runlane server. Check the address.")

    def _unreachable(self, error: Exception) -> ServerError:
        if _is_of_tls(error):
            return ServerError(
                f"{self._url} cannot be reached over TLS ({error}). Name the file with its authority's certificate in "
                "$SSL_CERT_FILE, or check the address."
            )
        return NoServer(f"No server answers at {self._url} ({error}). Start one with `runlane serve`, or use --url.")


def path_id(kind: str, text: str) -> str:
    """Return the id *text* in canonical form; what is none names nothing, and is not put into a path.

    Raises:
        NotFound: It is no UUID.
    """
    try:
        return str(UUID(text))
    except ValueError:
        raise NotFound(kind, text) from None


def _is_of_tls(error: BaseException | None) -> bool:
    """Return whether TLS failed, such as for a certificate that is not trusted."""
    return error is not None and (isinstance(error, ssl.SSLError) or _is_of_tls(error.__cause__ or error.__context__))


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _detail(response: httpx.Response) -> Any:
    try:
        return response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase


def _lines(pieces: Iterator[bytes]) -> Iterator[str]:
    """Yield the lines of a stream, which end with LF or CR LF; others split at U+2028 too, which JSON may contain."""
    held: list[bytes] = []
    for piece in pieces:
        first, *others = piece.split(b"\n")
        held.append(first)
        for other in others:
            yield b"".join(held).removesuffix(b"\r").decode(errors="replace")
            held = [other]


def parse_events(lines: Iterator[str]) -> Iterator[ServerEvent]:
    """Yield the events of a stream of server-sent events; comments and an unfinished last event are dropped.

    Source: WHATWG HTML, "Server-sent events", interpreting an event stream.
    """
    name, data, event_id = "message", list[str](), None
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield ServerEvent(name=name, data="\n".join(data), id=event_id)
            name, data, event_id = "message", [], None
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            event_id = value
