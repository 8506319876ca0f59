"""Routes of webhook deliveries: what was sent, what waits, and sending again. A delivery has the id of its run.

Who may read a thread may see what its runs' webhooks were told; who may update it may have it told again.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from runlane.errors import InvalidRequest, NotFound
from runlane.server.auth.access import Access
from runlane.server.http import answers
from runlane.server.http.requests import path_uuid, query_choice, query_int
from runlane.server.http.responses import json_response
from runlane.server.routes.routing import authorize, route, service_of
from runlane.store.transactions.webhooks import Attempted, Delivery, DeliveryStatus

router = APIRouter(tags=["Webhooks"])


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


@route(
    router, "GET", "/webhooks", answer=list[answers.Delivery], query=("run_id", "delivery_status", "limit", "offset")
)
async def list_deliveries(request: Request) -> Response:
    """List deliveries of webhooks, the newest first."""
    access = await authorize(request, "threads", "search", {})
    found = await service_of(request).store.webhooks.list(
        owner=access.reads,
        where=access.where,
        run_id=_run_id(request),
        status=query_choice(request, "delivery_status", DeliveryStatus, None),
        limit=query_int(request, "limit", 10, low=1),
        offset=query_int(request, "offset", 0, high=2**53),
    )
    return json_response([_wire(delivery) for delivery in found])


def _run_id(request: Request) -> str | None:
    text = request.query_params.get("run_id")
    try:
        return None if text is None else str(UUID(text))
    except ValueError:
        raise InvalidRequest(f"Query parameter 'run_id' is {text!r}; it must be a UUID.") from None


@route(router, "GET", "/webhooks/{run_id}", answer=answers.DeliveryWithHistory, statuses=(404,))
async def get_delivery(request: Request) -> Response:
    """Show what became of telling a run's end, attempt by attempt."""
    access = await authorize(request, "threads", "read", {"run_id": path_uuid(request, "run")})
    delivery, attempts = await _found(request, access)
    return json_response({**_wire(delivery), "history": [_attempt(one) for one in attempts]})


@route(router, "POST", "/webhooks/{run_id}/resend", answer=answers.Delivery, statuses=(404,))
async def resend_delivery(request: Request) -> Response:
    """Send again, at once and with all tries before it, whatever became of it so far."""
    access = await authorize(request, "threads", "update", {"run_id": path_uuid(request, "run")})
    await _found(request, access)
    service = service_of(request)
    again = await service.store.webhooks.send_again(path_uuid(request, "run"))
    service.webhooks.wake()
    return json_response(_wire(again))
