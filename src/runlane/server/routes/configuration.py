"""Routes of what configures the server: its limits, with how much of each is used, and its settings."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from starlette.requests import Request
from starlette.responses import Response

from runlane.runtime import Runtime, utc_now
from runlane.server.http.responses import json_response
from runlane.server.http.route import Resource, Route
from runlane.server.routes.authorization import administer, service_of
from runlane.settings import ShownSetting, shown_settings
from runlane.store.transactions.usage_of_limits import Kind, LimitUse, Used

Scope = Literal["process", "owner", "assistant", "graph", "thread", "run", "request"]
#: Limits by their settings, with what each is a limit of, and its unit.
_LIMITS: Final[tuple[tuple[str, Scope, str], ...]] = (
    ("max_concurrent_runs", "process", "running runs"),
    ("max_runs_per_owner", "owner", "running runs"),
    ("max_runs_per_assistant", "assistant", "running runs"),
    ("max_runs_per_graph", "graph", "running runs"),
    ("max_queued_runs", "thread", "waiting runs"),
    ("run_timeout_s", "run", "seconds"),
    ("max_rescues", "run", "lost workers"),
    ("max_body_bytes", "request", "bytes"),
    ("request_timeout_s", "request", "seconds"),
    ("max_connections", "process", "connections"),
    ("database_connections", "process", "connections"),
)
#: Settings whose 0 is no limit.
_UNLIMITED: Final = frozenset({"max_runs_per_owner", "max_runs_per_assistant", "max_runs_per_graph"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownLimit:
    """A limit.

    Attributes:
        setting: The setting that says it.
        scope: What it is a limit of: a process, each owner, each assistant, and so on.
        limit: ``None``: there is none.
        use: How much of it is used, by whatever uses most; ``None`` where nobody counts that.
        most: Those that use most of it, of whatever kind *scope* is.
        complete: Whether all that use it were counted.
    """

    setting: str
    scope: Scope
    unit: str
    limit: float | None
    use: int | None
    most: tuple[Used, ...] = ()
    complete: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownLimits:
    as_of: datetime
    limits: tuple[ShownLimit, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """The settings of the process that answers; others may have other ones."""

    as_of: datetime
    settings: tuple[ShownSetting, ...]


async def list_limits(request: Request) -> Response:
    """Return each limit with its setting, and how much of it is used now, where the ledger knows that."""
    await administer(request, "limits", "read", {})
    runtime = service_of(request).runtime
    used = await runtime.store.queue.limit_use()
    limits = tuple(_limit(name, scope, unit, runtime, used) for name, scope, unit in _LIMITS)
    return json_response(ShownLimits(as_of=utc_now(), limits=limits))


def _limit(name: str, scope: Scope, unit: str, runtime: Runtime, used: LimitUse) -> ShownLimit:
    value = getattr(runtime.settings, name)
    limit = None if name in _UNLIMITED and not value else value
    if name == "max_concurrent_runs":
        return ShownLimit(setting=name, scope=scope, unit=unit, limit=limit, use=runtime.worker.executing)
    kinds: dict[Scope, Kind] = {"owner": "owner", "assistant": "assistant", "graph": "graph", "thread": "thread"}
    if scope not in kinds:
        return ShownLimit(setting=name, scope=scope, unit=unit, limit=limit, use=None)
    most = used.most[kinds[scope]]
    return ShownLimit(
        setting=name,
        scope=scope,
        unit=unit,
        limit=limit,
        use=most[0].use if most else 0,
        most=most,
        complete=used.complete or scope != "thread",
    )


async def list_settings(request: Request) -> Response:
    """Return the settings of this process, and where each came from. Secrets are hidden, passwords left out."""
    await administer(request, "settings", "read", {})
    shown = shown_settings(service_of(request).runtime.settings, os.environ)
    return json_response(ServerSettings(as_of=utc_now(), settings=shown))


CONFIGURATION = Resource(
    tag="Operators",
    group=None,
    routes=(
        Route("GET /operator/limits", list_limits, answer=ShownLimits, errors=(403,)),
        Route("GET /operator/settings", list_settings, answer=ServerSettings, errors=(403,)),
    ),
)
