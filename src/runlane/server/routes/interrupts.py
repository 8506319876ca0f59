"""Routes of interrupts: what graphs ask people on all threads, and the newest answers."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from runlane.records import Json, Owner
from runlane.server.http import answers
from runlane.server.http.requests import Body, Limit, canonical_uuid
from runlane.server.http.responses import json_response
from runlane.server.http.route import Resource, Route
from runlane.server.routes.authorization import authorize, seen_owner, service_of
from runlane.store.filters import contains
from runlane.store.transactions.interrupts import Answer, InterruptedThread, Permits


class AnsweredSearch(Body):
    thread_id: str | None = None
    owner: Annotated[str, msgspec.Meta(max_length=1024)] | None = None
    limit: Limit = 10


class InterruptSearch(AnsweredSearch):
    #: Where the next page begins, as ``X-Pagination-Next`` says.
    after: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,18}\.[^.]{1,64}$")] | None = None


async def search_interrupts(request: Request, body: InterruptSearch) -> Response:
    """Find threads whose graphs wait for answers, those that have asked the longest first, with what they ask.

    While there may be more, X-Pagination-Next is the next page's ``after``. A page that compares very many threads
    with the filter of the application's authorisation ends early, also with none.
    """
    owner, permits, thread_id = await _asked(request, body)
    if owner is None:
        return json_response([])
    at, _, after = (body.after or "0.").partition(".")
    page = await service_of(request).store.threads.asking(
        owner=owner, permits=permits, thread_id=thread_id, after=(int(at), after), limit=body.limit
    )
    headers = {} if page.following is None else {"X-Pagination-Next": "{}.{}".format(*page.following)}
    return json_response([_asking_wire(thread) for thread in page.threads], headers=headers)


async def search_answers(request: Request, body: AnsweredSearch) -> Response:
    """Find runs that answer interrupts, the newest first, among the 2,000 newest runs, with who gave each answer."""
    owner, permits, thread_id = await _asked(request, body)
    if owner is None:
        return json_response([])
    found = await service_of(request).store.threads.answers(
        owner=owner, permits=permits, thread_id=thread_id, limit=body.limit
    )
    return json_response(found)


async def _asked(request: Request, body: AnsweredSearch) -> tuple[Owner | None, Permits | None, str | None]:
    """Return whose threads are searched (``None``: of nobody), which of them may be seen, and which one is meant."""
    thread_id = None if body.thread_id is None else canonical_uuid("thread", body.thread_id)
    value: dict[str, Any] = {"metadata": {}, "thread_id": thread_id, "limit": body.limit}
    access = await authorize(request, "threads", "search", value)
    wanted = value["metadata"]  # a handler narrows a search by it

    def permits(metadata: Json) -> bool:
        return access.permits(metadata) and contains(metadata, wanted)

    return seen_owner(access, body.owner), permits if access.where or wanted else None, thread_id


def _asking_wire(thread: InterruptedThread) -> dict[str, Any]:
    return {
        "thread_id": thread.thread_id,
        "owner": thread.owner,
        "run_id": thread.run_id,
        "graph_id": thread.metadata.get("graph_id"),
        "metadata": thread.metadata,
        "since": thread.since,
        "interrupts": [
            {"task_id": task_id, **asked} for task_id, asking in thread.interrupts.items() for asked in asking
        ],
    }


INTERRUPTS = Resource(
    tag="Interrupts",
    group="threads",
    routes=(
        Route("POST /interrupts/search", search_interrupts, answer=list[answers.AskingThread]),
        Route("POST /interrupts/answered", search_answers, answer=list[Answer]),
    ),
)
