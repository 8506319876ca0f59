"""The sender of a request: who they are to the server, and what a page can offer them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from runlane.server.auth.access import Authority, User
from runlane.server.auth.keys import ApiKeys
from runlane.server.auth.scopes import OperatorScope, everything, owners_actions, permitted
from runlane.server.http.responses import json_response
from runlane.server.http.route import Resource, Route
from runlane.server.routes.authorization import known_user, sees_logs, service_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Me:
    """Who sends a request.

    Attributes:
        authentication: Who knows them: the file of API keys, the project's own code, or nobody, as all may do all.
        identity: Their name; ``None`` if nobody is asked for one.
        owner: Whose things they make and see; ``None`` for operators, who own nothing, and without authentication.
        sees_payload: Whether answers have what users and graphs wrote.
        sees_logs: Whether they may read what runs log.
        may: What is allowed, as ``<resource>.<action>``. With a project's own authentication, what its handlers are
            asked about: they decide by each request.
    """

    authentication: Literal["none", "keys", "project"]
    identity: str | None
    owner: str | None
    operator: bool
    scopes: tuple[OperatorScope, ...]
    sees_payload: bool
    sees_logs: bool
    may: tuple[str, ...]


async def get_me(request: Request) -> Response:
    """Return who sends the request and what they may do, so that a page offers that; every route checks it again."""
    authority = service_of(request).authority
    if authority is None:
        return json_response(_everyone())
    return json_response(_me(known_user(request), authority, logs=sees_logs(request)))


def _everyone() -> Me:
    return Me(
        authentication="none",
        identity=None,
        owner=None,
        operator=True,
        scopes=tuple(sorted(OperatorScope)),
        sees_payload=True,
        sees_logs=True,
        may=everything(),
    )


def _me(user: User, authority: Authority, *, logs: bool) -> Me:
    operator = bool(user.scopes)
    return Me(
        authentication="keys" if isinstance(authority, ApiKeys) else "project",
        identity=user.identity,
        owner=None if operator else user.identity,
        operator=operator,
        scopes=tuple(sorted(user.scopes)),
        sees_payload=user.sees_payload,
        sees_logs=logs,
        may=permitted(user.scopes) if operator else owners_actions(authority.allows),
    )


ME = Resource(tag="Operators", group=None, routes=(Route("GET /me", get_me, answer=Me),))
