"""The check before every route: which pages may change something here, and under which names the server is asked.

A browser sends requests of any page to any server that its machine reaches, with its cookies and from behind its
firewall. CORS only says which pages may read the answers; what a page may do is checked here.

Source: Fetch standard, HTTP header ``Origin``; RFC 6455, section 10.2; Model Context Protocol 2025-11-25, transports,
security warning; C. Jackson et al., "Protecting Browsers from DNS Rebinding Attacks" (2007).
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Collection
from typing import Final

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from runlane.server.config.http_section import CorsSection
from runlane.server.http.errors import error_response

log = logging.getLogger("runlane.server")

#: Methods that change nothing, so that a page may send them as long as it cannot read the answer.
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
#: The protocol asks to check every request.
_MCP: Final = ("/mcp", "/mcp/")
#: A name, or an address in brackets, and a port. Source: RFC 9110, section 7.2.
_HOST: Final = re.compile(r"(?:\[(?P<address>[0-9a-f:.]++)\]|(?P<name>[\w.\-]*+))(?::[0-9]{0,5})?")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


def host_name(host: str) -> str:
    """Return the name or address in a header ``Host``, without its port, in small letters; "" if it is neither."""
    found = _HOST.fullmatch(host.strip().lower())
    if found is None:
        return ""
    return found["address"] or found["name"].removesuffix(".")


def is_local_name(name: str, allowed: Collection[str]) -> bool:
    """Return whether a server on this machine's own addresses may be asked under *name*.

    Addresses are, since a name that was rebound is still a name; so are ``localhost``, and what *allowed* has: names,
    ``*.`` and a name for all below it, or ``*``.
    """
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return any(one in ("*", name) or (one.startswith("*.") and name.endswith(one[1:])) for one in allowed)
    return True


def is_same_origin(origin: str, host: str) -> bool:
    """Return whether a page of *origin* comes from the server that *host*, a header, names."""
    scheme, _, served_by = origin.lower().partition("://")
    default = _DEFAULT_PORTS.get(scheme)
    if default is None:
        return False
    return served_by.removesuffix(default) == host.strip().lower().removesuffix(default)


class OriginMiddleware:
    """Refuses what a page of another origin sends, unless ``http.cors`` allows that origin.

    That is so for WebSockets, for MCP, and for each method that is not safe, on the routes of an application beside the
    API too. Requests without ``Origin`` are not a page's, or change nothing. A server that listens on an address of
    this machine only and asks nobody who they are is also asked under no foreign name: its address is all that keeps
    others out, and a page can have its own name lead there (DNS rebinding).
    """

    def __init__(
        self, app: ASGIApp, api: Starlette, cors: CorsSection, *, loopback: bool, allowed_hosts: Collection[str]
    ) -> None:
        self._app = app
        self._api = api
        self._cors = cors
        self._loopback = loopback
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        hosts = headers.getlist("host") or [""]
        if self._checks_host() and not all(is_local_name(host_name(one), self._allowed_hosts) for one in hosts):
            log.warning("request.refused why=host host=%.100r", ",".join(hosts))
            detail = "The server has no such name: see the setting allowed_hosts."
            await _refuse(scope, receive, send, 421, detail, "host_not_allowed")
            return
        foreign = [one for one in headers.getlist("origin") if not self._permits(one, hosts[0])]
        if foreign and self._matters(scope):
            log.warning("request.refused why=origin origin=%.100r", foreign[0])
            detail = "Pages of this origin may not call this server: see http.cors.allow_origins."
            await _refuse(scope, receive, send, 403, detail, "origin_not_allowed")
            return
        await self._app(scope, receive, send)

    def _checks_host(self) -> bool:
        return self._loopback and self._api.state.service.authority is None

    def _permits(self, origin: str, host: str) -> bool:
        return self._cors.allows(origin) or is_same_origin(origin, host)

    def _matters(self, scope: Scope) -> bool:
        """Return whether the request may change something, or has to be checked by its protocol."""
        if scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS:
            return True
        path: str = scope["path"]
        return scope["method"] != "OPTIONS" and path.endswith(_MCP)


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, detail: str, code: str) -> None:
    if scope["type"] == "websocket":  # before it is accepted, which the server answers with 403
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    await error_response(status, detail, code)(scope, receive, send)
