"""Routes of operators: what they did, and the API keys that there are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from runlane.server.auth.keys import ApiKeys
from runlane.server.auth.scopes import scopes_of
from runlane.server.http.queries import QueryModel
from runlane.server.http.requests import Limit, Moment
from runlane.server.http.responses import json_response
from runlane.server.http.route import Resource, Route
from runlane.server.routes.authorization import administer, service_of
from runlane.store.transactions.audit import NEWEST_ACT, ActFilter, RecordedAct

Text = Annotated[str, msgspec.Meta(max_length=512)]


class AuditQuery(QueryModel):
    limit: Limit = 100
    before: Text = NEWEST_ACT
    actor: Text | None = None
    action: Text | None = None
    since: Moment | None = None
    until: Moment | None = None


async def list_audit(request: Request, query: AuditQuery) -> Response:
    """Return what operators did, the newest first. X-Pagination-Next is the next page's ``before``."""
    await administer(request, "audit", "read", {})
    found = await service_of(request).store.audit.list(
        before=query.before,
        where=ActFilter(actor=query.actor, action=query.action, since=query.since, until=query.until),
        limit=query.limit,
    )
    headers = {"X-Pagination-Next": found[-1].audit_id} if len(found) == query.limit else {}
    return json_response(found, headers=headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownKey:
    """An API key of the keys file; ``last_used_at`` is true to the hour, and ``None`` if it was never used."""

    key_id: str
    identity: str
    scopes: tuple[str, ...]
    created_at: datetime | None
    expires_at: datetime | None
    last_used_at: datetime | None


async def list_keys(request: Request) -> Response:
    """Return the API keys of the keys file, none of them with its secret; none if the project authenticates users."""
    await administer(request, "keys", "read", {})
    service = service_of(request)
    keys = service.authority.keys() if isinstance(service.authority, ApiKeys) else ()
    uses = await service.store.audit.key_uses()
    shown = [
        ShownKey(
            key_id=key.key_id,
            identity=key.identity,
            scopes=tuple(sorted(scopes_of(key.permissions))),
            created_at=key.created_at,
            expires_at=key.expires_at,
            last_used_at=uses.get(key.key_id),
        )
        for key in keys
    ]
    return json_response(shown)


OPERATORS = Resource(
    tag="Operators",
    group=None,
    routes=(
        Route("GET /audit", list_audit, answer=list[RecordedAct], errors=(403,)),
        Route("GET /keys", list_keys, answer=list[ShownKey], errors=(403,)),
    ),
)
