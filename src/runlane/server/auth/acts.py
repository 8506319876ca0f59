"""What the audit keeps of an operator's request, and which refusals it keeps."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

from starlette.requests import HTTPConnection

from runlane.server.auth.access import User
from runlane.server.http.route import ROUTE
from runlane.store.transactions.audit import Act
from runlane.telemetry.context import REQUEST_ID

_MAX_USER_AGENT: Final = 200
#: Of the refusals of an operator on a route, one is kept in this time.
REFUSED_EVERY_S: Final = 60.0
#: Operators and routes that are told apart; of more, the first ones are forgotten.
_MAX_TOLD_APART: Final = 1_000


def act_of_request(connection: HTTPConnection, user: User, action: str, subject: Mapping[str, str | list[str]]) -> Act:
    """Return *action*, which *user* asks for by this request, about the ids in its path and *subject*."""
    method = connection.scope.get("method", "WS")
    return Act(
        actor=user.identity,
        key_id=user.key_id,
        action=action,
        route=f"{method} {connection.scope.get(ROUTE, '')}",
        subject={**connection.path_params, **subject},
        request_id=REQUEST_ID.get() or None,
        address=None if connection.client is None else connection.client.host,
        user_agent=connection.headers.get("user-agent", "")[:_MAX_USER_AGENT] or None,
    )


class Refusals:
    """Counts refusals, so that who asks in a loop fills no table: one in a while is kept, with the number since."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._last: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def count(self, actor: str, route: str) -> int | None:
        """Count a refusal; return how many there were since the last one that was kept, if this one is to be kept."""
        key, now = (actor, route), self._now()
        last, since = self._last.get(key, (now - REFUSED_EVERY_S, 0))
        keep = now - last >= REFUSED_EVERY_S
        self._last[key] = (now, 0) if keep else (last, since + 1)
        if len(self._last) > _MAX_TOLD_APART:
            self._last.popitem(last=False)
        return since + 1 if keep else None
