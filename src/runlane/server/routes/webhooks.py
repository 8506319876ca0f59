"""Routes of webhook deliveries: what was sent, what waits, and sending again. A delivery has the id of its run.

Users who may read a thread may see the deliveries of its runs; those who may update it may send them again, and so may
operators who may retry runs.
"""

from __future__ import annotations

import re
from typing import Any, Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from runlane.errors import InvalidRequest, NotFound
from runlane.server.auth.access import Access
from runlane.server.http import answers
from runlane.server.http.queries import Page
from runlane.server.http.requests import check_begin, path_uuid
from runlane.server.http.responses import json_response
from runlane.server.http.route import Resource, Route
from runlane.server.routes.authorization import authorize, service_of
from runlane.store.rows import microseconds
from runlane.store.transactions.webhooks import NEWEST_DELIVERY, Attempted, Delivery, DeliveryStatus

#: A place in the list: in which microsecond a delivery was made, and its run.
_PLACE: Final = re.compile(r"([0-9]{1,18})\.([0-9a-f-]{36})")


class DeliveriesQuery(Page):
    run_id: UUID | None = None
    delivery_status: DeliveryStatus | None = None
    after: str | None = None


def _wire(delivery: Delivery) -> dict[str, Any]:
    return {
        "run_id": delivery.run_id,
        "thread_id": delivery.thread_id,
        "url": delivery.url,
        "status": delivery.status,
        "attempts": delivery.attempts,
        "next_attempt_at": delivery.next_at,
        "created_at": delivery.created_at,
        "ended_at": delivery.ended_at,
    }


def _attempt(attempted: Attempted) -> dict[str, Any]:
    return {
        "number": attempted.number,
        "sent_at": attempted.sent_at,
        "duration_s": attempted.duration_s,
        "status_code": attempted.status_code,
        "error": attempted.error,
    }


async def _found(request: Request, access: Access) -> tuple[Delivery, tuple[Attempted, ...]]:
    run_id = path_uuid(request, "run")
    delivery, attempts = await service_of(request).store.webhooks.get(run_id, owner=access.reads)
    if not access.permits(delivery.metadata):
        raise NotFound("webhook delivery", run_id)
    return delivery, attempts


async def list_deliveries(request: Request, query: DeliveriesQuery) -> Response:
    """List deliveries of webhooks, the newest first. X-Pagination-Next is the next page's ``after``."""
    after = _place(query)
    access = await authorize(request, "threads", "search", {})
    found = await service_of(request).store.webhooks.list(
        owner=access.reads,
        where=access.where,
        run_id=None if query.run_id is None else str(query.run_id),
        status=query.delivery_status,
        limit=query.limit,
        offset=query.offset,
        after=after,
    )
    headers = {}
    if len(found) == query.limit:
        headers["X-Pagination-Next"] = f"{microseconds(found[-1].created_at)}.{found[-1].run_id}"
    return json_response([_wire(delivery) for delivery in found], headers=headers)


def _place(query: DeliveriesQuery) -> tuple[int, str]:
    check_begin(query.after, query.offset)
    if query.after is None:
        return NEWEST_DELIVERY
    match = _PLACE.fullmatch(query.after)
    if match is None:
        raise InvalidRequest(f"Query parameter 'after' is {query.after!r}; it must be the X-Pagination-Next of a page.")
    return int(match[1]), match[2]


async def get_delivery(request: Request) -> Response:
    """Show what became of telling a run's end, attempt by attempt."""
    access = await authorize(request, "threads", "read", {"run_id": path_uuid(request, "run")})
    delivery, attempts = await _found(request, access)
    return json_response({**_wire(delivery), "history": [_attempt(one) for one in attempts]})


async def resend_delivery(request: Request) -> Response:
    """Send again, at once and with all tries before it, whatever became of it so far."""
    value = {"run_id": path_uuid(request, "run"), "action": "resend"}
    access = await authorize(request, "threads", "update", value)
    await _found(request, access)
    service = service_of(request)
    again = await service.store.webhooks.send_again(path_uuid(request, "run"))
    service.webhooks.wake()
    return json_response(_wire(again))


WEBHOOKS = Resource(
    tag="Webhooks",
    group="webhooks",
    routes=(
        Route("GET /webhooks", list_deliveries, answer=list[answers.WireDelivery]),
        Route("GET /webhooks/{run_id}", get_delivery, answer=answers.DeliveryWithHistory, errors=(404,)),
        Route("POST /webhooks/{run_id}/resend", resend_delivery, answer=answers.WireDelivery, errors=(404,)),
    ),
)
