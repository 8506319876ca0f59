"""Routes of threads and their states."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Any, Final, Literal
from uuid import UUID, uuid4

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from runlane.agents.registry import system_assistant_id
from runlane.errors import AlreadyExists, InvalidRequest, NotFound
from runlane.lifecycle import ThreadStatus
from runlane.outcomes import Snapshot
from runlane.records import Json, Owner, PruneStrategy, Thread, ThreadTtl
from runlane.server.auth.access import Access
from runlane.server.config.expiry import Minutes
from runlane.server.http import answers
from runlane.server.http.queries import QueryModel
from runlane.server.http.requests import (
    Body,
    Limit,
    Object,
    Offset,
    SortOrder,
    check_begin,
)
from runlane.server.http.responses import json_response, selected, thread_wire, ttl_wire
from runlane.server.http.route import Resource, Route
from runlane.server.routes.authorization import authorize, canceller_of, reach_thread, seen_owner, service_of
from runlane.server.routes.extraction import Extraction
from runlane.server.routes.keyed_threads import is_keyed
from runlane.server.routes.state_updates import Superstep, draft_history
from runlane.server.service import Service
from runlane.store.statements import ExtraWrites
from runlane.store.transactions.thread_search import ThreadFilter, ThreadPlace, place_of

#: A search counts what it finds up to this number; beyond that a count costs more than the search, and is not told.
MAX_TOTAL: Final = 1000
#: What clients may select though no thread has it.
_LEGACY: Final[Json] = {"context": {}}


#: What threads are sorted by; instants are microseconds in a page's ``after``.
ThreadKey = Literal["thread_id", "status", "created_at", "updated_at", "state_updated_at"]
_INSTANT: Final = re.compile(r"[0-9]{1,18}")


class Ttl(msgspec.Struct, kw_only=True):
    ttl: Minutes
    strategy: PruneStrategy = "delete"


class ThreadCreate(Body):
    thread_id: UUID | None = None
    metadata: Object | None = None
    if_exists: Literal["raise", "do_nothing"] = "raise"
    ttl: Ttl | Minutes | None = None
    supersteps: Annotated[list[Superstep], msgspec.Meta(max_length=10_000)] | None = None


class ThreadPatch(Body):
    metadata: Object | None = None
    ttl: Ttl | Minutes | None = None


class ThreadSearch(Body):
    ids: Annotated[list[str], msgspec.Meta(max_length=1000)] | None = None
    metadata: Object | None = None
    values: Object | None = None
    status: Literal["idle", "busy", "interrupted", "error"] | None = None
    owner: Annotated[str, msgspec.Meta(max_length=1024)] | None = None
    limit: Limit = 10
    offset: Offset = 0
    after: Annotated[str, msgspec.Meta(max_length=1024)] | None = None
    sort_by: ThreadKey | None = None
    sort_order: SortOrder | None = None
    select: list[str] | None = None
    extract: Annotated[dict[str, str], msgspec.Meta(max_length=10)] | None = None


class ThreadQuery(QueryModel):
    include: tuple[Literal["ttl"], ...] = ()


def _ttl(given: Ttl | float | None) -> ThreadTtl | None:
    if given is None:
        return None
    if isinstance(given, Ttl):
        return ThreadTtl(ttl_s=given.ttl * 60, strategy=given.strategy)
    return ThreadTtl(ttl_s=given * 60)


async def create_thread(request: Request, body: ThreadCreate) -> Response:
    """Create a thread, with a history if ``supersteps`` are given: all of them are written, or there is no thread."""
    thread_id, ttl = str(body.thread_id or uuid4()), _ttl(body.ttl)
    if is_keyed(thread_id):
        raise InvalidRequest("thread_id has the form of the threads of runs with an Idempotency-Key; choose another.")
    value: dict[str, Any] = {
        "thread_id": thread_id,
        "metadata": body.metadata or {},
        "if_exists": body.if_exists,
        "ttl": None if ttl is None else {"ttl": ttl.ttl_s / 60, "strategy": ttl.strategy},
    }
    access = await authorize(request, "threads", "create", value)
    return json_response(thread_wire(await _created(service_of(request), access, body, thread_id, value["metadata"])))


async def _created(service: Service, access: Access, body: ThreadCreate, thread_id: str, metadata: Json) -> Thread:
    state: Snapshot | None = None
    extra_writes: ExtraWrites | None = None
    if body.supersteps:
        graph_id = metadata.get("graph_id")
        if graph_id not in service.registry.graph_ids:
            raise InvalidRequest("supersteps need metadata.graph_id to name a graph.")
        metadata = {"assistant_id": system_assistant_id(graph_id), **metadata}
        state, extra_writes = await draft_history(service, access.owner, thread_id, graph_id, body.supersteps)
    create = partial(
        service.store.threads.create,
        thread_id,
        owner=access.owner,
        metadata=metadata,
        ttl=_ttl(body.ttl),
        state=state,
        extra_writes=extra_writes,
    )
    try:
        return await create()
    except AlreadyExists:
        if body.if_exists != "do_nothing":
            raise
        try:
            thread = await service.store.threads.get(thread_id, owner=access.reads)
        except NotFound:
            raise AlreadyExists("thread", thread_id) from None
        if not access.permits(thread.metadata):
            raise
        return thread


async def search_threads(request: Request, body: ThreadSearch) -> Response:
    """Find threads, the last changed first; X-Pagination-Total counts them, unless there are very many.

    X-Pagination-Next is the next page's ``offset``; where ``after`` is given, empty for the first page, the next page's
    ``after``, and only the first page is counted. The threads before a page are then not read again.
    """
    service = service_of(request)
    sort_by: ThreadKey = body.sort_by or "updated_at"
    after = _place(body, sort_by)
    owner, where = await _searched(request, body)
    if owner is None:
        return json_response([], headers={"X-Pagination-Total": "0"})
    extraction = None if body.extract is None else Extraction(body.extract)
    page = await service.store.threads.page(
        owner=owner,
        where=where,
        sort_by=sort_by,
        order=body.sort_order or "desc",
        limit=body.limit + 1,
        offset=body.offset,
        after=after,
        count_at_most=MAX_TOTAL + 1,
        with_values=not body.select
        or "values" in body.select
        or (extraction is not None and extraction.reads("values")),
    )
    rows: list[Any] = []
    for thread in page.threads[: body.limit]:
        wire = thread_wire(thread)
        rows.append(selected(wire, body.select, legacy={**_LEGACY, "owner": thread.owner}))
        if extraction is not None:
            rows[-1]["extracted"] = extraction(wire)
    headers = {} if after or page.total > MAX_TOTAL else {"X-Pagination-Total": str(page.total)}
    if len(page.threads) > body.limit:
        following = place_of(page.threads[body.limit - 1], sort_by)
        by_place = f"{following.key}.{following.thread_id}"
        headers["X-Pagination-Next"] = str(body.offset + body.limit) if body.after is None else by_place
    return json_response(rows, headers=headers)


def _place(body: ThreadSearch, sort_by: ThreadKey) -> ThreadPlace | None:
    """Return where the page begins that *body* asks for; ``None``: at the first thread, or at its offset."""
    check_begin(body.after, body.offset)
    if not body.after:
        return None
    key, _, thread_id = body.after.partition(".")
    of_texts = sort_by in ("thread_id", "status")
    if not thread_id or not (of_texts or _INSTANT.fullmatch(key)):
        raise InvalidRequest(
            f"after is {body.after!r}; it must be the X-Pagination-Next of a page that was sorted by {sort_by}."
        )
    return ThreadPlace(key=key if of_texts else int(key), thread_id=thread_id)


async def count_threads(request: Request, body: ThreadSearch) -> Response:
    """Count threads."""
    owner, where = await _searched(request, body)
    if owner is None:
        return json_response(0)
    return json_response(await service_of(request).store.threads.count(owner=owner, where=where))


async def _searched(request: Request, body: ThreadSearch) -> tuple[Owner | None, ThreadFilter]:
    """Return whose threads are wanted, and which; no owner: those of somebody whose threads may not be seen."""
    value: dict[str, Any] = {
        "metadata": body.metadata or {},
        "values": body.values or {},
        "status": body.status,
        "ids": body.ids,
        "limit": body.limit,
        "offset": body.offset,
    }
    access = await authorize(request, "threads", "search", value)
    return seen_owner(access, body.owner), ThreadFilter(
        ids=None if body.ids is None else tuple(body.ids),
        status=None if body.status is None else ThreadStatus(body.status),
        metadata=value["metadata"],
        values=value["values"],
        where=access.where,
    )


async def get_thread(request: Request, query: ThreadQuery) -> Response:
    """Return a thread."""
    _, thread = await reach_thread(request, "read", with_values=True)
    return json_response({**thread_wire(thread), "ttl": ttl_wire(thread)} if query.include else thread_wire(thread))


async def patch_thread(request: Request, body: ThreadPatch) -> Response:
    """Merge metadata into the thread's, and say when it expires."""
    value: dict[str, Any] = {"metadata": body.metadata or {}}
    access, thread = await reach_thread(request, "update", value)
    thread = await service_of(request).store.threads.patch(
        thread.thread_id, owner=access.reads, metadata=value["metadata"], ttl=_ttl(body.ttl)
    )
    if request.headers.get("prefer", "").lower() == "return=minimal":
        return Response(status_code=204)
    return json_response(thread_wire(thread))


async def delete_thread(request: Request) -> Response:
    """Stop the thread's runs, wait for their ends, and delete the thread."""
    access, thread = await reach_thread(request, "delete")
    await service_of(request).delete_thread(thread.thread_id, access.reads, canceller_of(request))
    return Response(status_code=204)


THREADS = Resource(
    tag="Threads",
    group="threads",
    routes=(
        Route("POST /threads", create_thread, answer=answers.WireThread, errors=(404, 409)),
        Route("POST /threads/search", search_threads, answer=list[answers.WireThread]),
        Route("POST /threads/count", count_threads, answer=int),
        Route("GET /threads/{thread_id}", get_thread, answer=answers.WireThread, errors=(404,)),
        Route(
            "PATCH /threads/{thread_id}",
            patch_thread,
            answer=answers.WireThread,
            success=(200, 204),
            errors=(404,),
            example={"metadata": {"team": "billing"}},
        ),
        Route("DELETE /threads/{thread_id}", delete_thread, success=(204,), errors=(404, 409)),
    ),
)
