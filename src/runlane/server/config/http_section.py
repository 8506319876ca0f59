"""The key ``http`` of langgraph.json: which routes there are, for whom, under which path, and beside which others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final, Literal

import msgspec
from starlette.datastructures import Headers

from runlane.agents.langgraph_json import GraphsFile
from runlane.errors import ConfigurationError
from runlane.redaction import is_secret

#: Groups of routes that can be disabled.
Group = Literal["assistants", "threads", "runs", "store", "mcp", "a2a", "meta", "webhooks", "event_streaming", "ui"]
#: Headers that never become part of a run, since what runs are made of is stored and returned.
SECRET_HEADERS: Final = frozenset({"authorization", "cookie", "proxy-authorization", "x-api-key"})
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
EXPOSED: Final = (
    "content-location",
    "location",
    "x-pagination-total",
    "x-pagination-next",
    "x-request-id",
    "runlane-ignored",
)
DEFAULT_MAX_AGE_S: Final = 600
#: Origins that nobody means to allow. Source: RFC 2606, names that are reserved.
_NOBODYS: Final = ("https://any.invalid", "http://other.invalid:8080")


class CorsSection(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """Origins that may call from a browser. Source: Fetch standard, CORS protocol."""

    allow_origins: tuple[str, ...] = ("*",)
    allow_origin_regex: str | None = None
    allow_methods: tuple[str, ...] = METHODS
    allow_headers: tuple[str, ...] = ("*",)
    allow_credentials: bool = False
    expose_headers: tuple[str, ...] = ()
    max_age: int = DEFAULT_MAX_AGE_S

    def allows(self, origin: str) -> bool:
        """Return whether a page of *origin* may read answers, and send what changes something."""
        return "*" in self.allow_origins or self.names(origin)

    def names(self, origin: str) -> bool:
        """Return whether *origin* itself is configured, and not only every one."""
        if origin in self.allow_origins:
            return True
        return self.allow_origin_regex is not None and re.fullmatch(self.allow_origin_regex, origin) is not None

    @property
    def allows_every(self) -> bool:
        """Return whether pages of every origin are allowed, by ``*`` or by a pattern that is as wide."""
        return all(self.allows(origin) for origin in _NOBODYS)

    def answer(self, origin: str) -> dict[str, str]:
        """Return the headers of every answer to a page of *origin*."""
        if not self.allows(origin):
            return {"vary": "origin"}
        exposed = ", ".join((*EXPOSED, *self.expose_headers))
        if "*" in self.allow_origins and not self.allow_credentials:
            return {"access-control-allow-origin": "*", "access-control-expose-headers": exposed}
        found = {"access-control-allow-origin": origin, "access-control-expose-headers": exposed, "vary": "origin"}
        return {**found, "access-control-allow-credentials": "true"} if self.allow_credentials else found

    def preflight(self, asked: Headers, *, private_network: bool) -> dict[str, str]:
        """Return the headers of the answer to a preflight request.

        Args:
            private_network: Whether a page from the internet may call a server in a private network.
        """
        methods = METHODS if "*" in self.allow_methods else self.allow_methods
        every = "*" in self.allow_headers
        allowed = {
            **self.answer(asked.get("origin", "")),
            "access-control-allow-methods": ", ".join(methods),
            "access-control-allow-headers": asked.get("access-control-request-headers", "*")
            if every
            else ", ".join(self.allow_headers),
            "access-control-max-age": str(self.max_age),
        }
        if private_network and asked.get("access-control-request-private-network") == "true":
            allowed["access-control-allow-private-network"] = "true"
        return allowed


class HeadersSection(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """Request headers that are copied into ``config.configurable``: patterns with ``*``; those excluded never.

    One that is called like a secret has to be named: no pattern means it.
    """

    includes: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()

    def passed(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the chosen headers under their names in small letters; those that carry secrets never."""
        if not self.includes:
            return {}
        return {
            name: value
            for name, value in ((name.lower(), value) for name, value in headers.items())
            if self._includes(name, value) and not any(fnmatchcase(name, pattern.lower()) for pattern in self.excludes)
        }

    def _includes(self, name: str, value: str) -> bool:
        if name in SECRET_HEADERS:
            return False
        patterns = [pattern.lower() for pattern in self.includes]
        return name in patterns or (not is_secret(name, value) and any(fnmatchcase(name, one) for one in patterns))


class HttpSection(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """The key ``http`` of langgraph.json. There is no UI that could be disabled."""

    app: str | None = None
    cors: CorsSection = CorsSection()
    configurable_headers: HeadersSection = HeadersSection()
    middleware_order: Literal["auth_first", "middleware_first"] = "middleware_first"
    enable_custom_route_auth: bool = False
    mount_prefix: str = ""
    disable_assistants: bool = False
    disable_threads: bool = False
    disable_runs: bool = False
    disable_store: bool = False
    disable_mcp: bool = False
    disable_a2a: bool = False
    disable_meta: bool = False
    disable_ui: bool = False
    disable_webhooks: bool = False
    disable_event_streaming: bool = False

    @property
    def disabled(self) -> frozenset[Group]:
        """The groups of routes that are not there."""
        groups: dict[Group, bool] = {
            "assistants": self.disable_assistants,
            "threads": self.disable_threads,
            "runs": self.disable_runs,
            "store": self.disable_store,
            "mcp": self.disable_mcp,
            "a2a": self.disable_a2a,
            "meta": self.disable_meta,
            "webhooks": self.disable_webhooks,
            "event_streaming": self.disable_event_streaming,
            "ui": self.disable_ui,
        }
        return frozenset(group for group, disabled in groups.items() if disabled)


def http_section(file: GraphsFile | None) -> HttpSection:
    """Return the section of *file*, or the defaults.

    Raises:
        ConfigurationError: A key is unknown or cannot be honoured.
    """
    section = None if file is None else file.section("http", HttpSection)
    if section is None or file is None:
        return HttpSection()
    prefix = section.mount_prefix
    if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
        raise ConfigurationError(f"{file.path}: http.mount_prefix is {prefix!r}; it must be like '/prefix'.")
    secret = sorted(SECRET_HEADERS & {pattern.lower() for pattern in section.configurable_headers.includes})
    if secret:
        raise ConfigurationError(
            f"{file.path}: http.configurable_headers names {secret[0]!r}: what runs are configured with is stored, and "
            "secrets are not. Use the authentication handler, whose user a graph knows."
        )
    try:
        re.compile(section.cors.allow_origin_regex or "")
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigurationError(f"{file.path}: http.cors.allow_origin_regex: {error}.") from error
    if section.cors.allow_credentials and section.cors.allows_every:
        raise ConfigurationError(
            f"{file.path}: http.cors.allow_credentials needs allow_origins that name origins: with every origin "
            "allowed, any page could act as whoever is logged in."
        )
    return section
