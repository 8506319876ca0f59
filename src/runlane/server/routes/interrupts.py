"""Routes of interrupts: what graphs ask people on all threads, answers to it, and the newest ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import structs
from starlette.requests import Request
from starlette.responses import Response

from runlane.errors import NoSuchInterrupt, NotFound
from runlane.records import ANY_OWNER, Json, NewRun, Owner, RunRecord
from runlane.requests import json_bytes
from runlane.server.http import answers
from runlane.server.http.requests import Body, Limit, canonical_uuid
from runlane.server.http.responses import json_response
from runlane.server.http.route import Resource, Route
from runlane.server.routes.authorization import authorize, operates, reach_thread, seen_owner, service_of
from runlane.server.routes.later_runs import asked_of, going_on, later_run
from runlane.server.routes.new_runs import admit, started
from runlane.server.service import Service
from runlane.store.filters import contains
from runlane.store.transactions.interrupts import Answer, InterruptedThread, Permits


class AnsweredSearch(Body):
    thread_id: str | None = None
    owner: Annotated[str, msgspec.Meta(max_length=1024)] | None = None
    limit: Limit = 10


class InterruptSearch(AnsweredSearch):
    #: Where the next page begins, as ``X-Pagination-Next`` says.
    after: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,18}\.[^.]{1,64}$")] | None = None


class InterruptAnswers(Body):
    """Answers by the ids of the interrupts; other interrupts of the thread stay open."""

    answers: Annotated[
        dict[Annotated[str, msgspec.Meta(max_length=64)], Any], msgspec.Meta(min_length=1, max_length=100)
    ]


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


async def answer_interrupts(request: Request, body: InterruptAnswers) -> Response:
    """Answer open interrupts of a thread, each of which takes one answer, and return the run that goes on.

    It has the configuration and the context of the run that asked. If an operator answers, it is for that run's owner.
    """
    run = await _reach_asker(request, tuple(body.answers))
    return started(await admit(service_of(request), await _answering(request, run, body.answers)))


async def _reach_asker(request: Request, interrupt_ids: tuple[str, ...]) -> RunRecord:
    """Return the run that has asked on the thread that the path names.

    Raises:
        NotFound: There is no such thread, or the request may not touch it.
        NoSuchInterrupt: No run has asked anything there.
    """
    action, act = "read", dict[str, Any]()
    if operates(request):
        action, act = "update", {"action": "answer", "interrupt_ids": interrupt_ids}
    _, thread = await reach_thread(request, action, act)
    run = await _asker(service_of(request), thread.thread_id)
    if run is None:
        raise NoSuchInterrupt(interrupt_ids[0], "no run of this thread has asked it")
    return run


async def _asker(service: Service, thread_id: str) -> RunRecord | None:
    """Return the run whose questions the thread has; if it has none, the newest one, by which admission says why."""
    page = await service.store.threads.asking(
        owner=ANY_OWNER, permits=None, thread_id=thread_id, after=(0, ""), limit=1
    )
    for thread in page.threads:
        if thread.run_id is not None:
            return await service.store.runs.get(thread.run_id, owner=ANY_OWNER)
    return next(iter(await service.store.runs.list(thread_id, owner=ANY_OWNER, limit=1)), None)


async def _answering(request: Request, run: RunRecord, given: Mapping[str, Any]) -> NewRun:
    """Return the run that goes on after *run* with the answers *given*.

    Raises:
        NotFound: This server does not have its graph.
        OwnerUnknown, HTTPException: As :func:`later_run` does.
    """
    if run.graph_id is None or run.graph_id not in service_of(request).registry.graph_ids:
        raise NotFound("graph", run.graph_id or "")
    asked = structs.replace(going_on(asked_of(run)), command={"resume": dict(given)}, answers=tuple(given))
    return await later_run(
        request,
        run,
        asked,
        why={"interrupt_ids": list(given)},
        metadata={},
        key=request.headers.get("idempotency-key"),
        sent=f"answer {run.thread_id} {json_bytes(given).decode()}",
    )


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
        Route(
            "POST /threads/{thread_id}/interrupts/answer",
            answer_interrupts,
            answer=answers.Run,
            errors=(404, 409, 429),
            example={"answers": {"5b14a3c2f0e94d7f8c1d2e3f4a5b6c7d": "yes"}},
        ),
    ),
)
