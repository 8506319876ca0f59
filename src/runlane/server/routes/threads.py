"""Routes of threads and their states."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Final, Literal
from uuid import uuid4

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from runlane.agents.registry import system_assistant_id
from runlane.agents.state import StateFields
from runlane.checkpoints.staging import StagingSaver, draft
from runlane.errors import AlreadyExists, InvalidRequest, NotFound, ThreadChanged, UnsupportedOption
from runlane.journal.rows import put
from runlane.lifecycle import ThreadStatus
from runlane.outcomes import Snapshot
from runlane.records import Json, Owner, Thread, ThreadTtl
from runlane.server.auth.access import Access
from runlane.server.http import answers
from runlane.server.http.queries import QueryModel
from runlane.server.http.requests import (
    BadRequest,
    HistoryQuery,
    Limit,
    StateAt,
    StateUpdate,
    Superstep,
    ThreadCreate,
    ThreadPatch,
    ThreadSearch,
    Ttl,
    checkpoint_address,
    checkpoint_uuid,
    cursor_address,
)
from runlane.server.http.responses import json_response, raw_json, selected, thread_wire, ttl_wire
from runlane.server.http.route import Resource, Route
from runlane.server.routes.assistants import clean
from runlane.server.routes.extraction import Extraction
from runlane.server.routes.keyed_threads import is_keyed
from runlane.server.routes.routing import authorize, reach_thread, service_of
from runlane.server.service import Service
from runlane.store.statements import ExtraWrites
from runlane.store.transactions.thread_search import ThreadFilter

#: A state update is made again if something else came before it; each time it is as if it had come later.
UPDATE_TRIES = 10
#: A search counts what it finds up to this number; beyond that a count costs more than the search, and is not told.
MAX_TOTAL: Final = 1000
#: What clients may select though no thread has it.
_LEGACY: Final[Json] = {"context": {}}


class ThreadQuery(QueryModel):
    include: tuple[Literal["ttl"], ...] = ()


class StateQuery(QueryModel):
    subgraphs: bool = False
    select: tuple[str, ...] = ()


class HistoryPage(QueryModel):
    limit: Limit = 10
    before: Annotated[str, msgspec.Meta(extra_json_schema={"format": "uuid"})] | None = None
    select: tuple[str, ...] = ()


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
        state, extra_writes = await _drafted(service, access.owner, thread_id, graph_id, body.supersteps)
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


async def _drafted(
    service: Service, owner: str, thread_id: str, graph_id: str, supersteps: list[Superstep]
) -> tuple[Snapshot, ExtraWrites]:
    """Return what *supersteps* make of a new thread, and what makes the transaction that writes its checkpoints.

    Raises:
        InvalidRequest: One of them cannot be applied.
    """
    states = service.states(owner)
    if service.runtime.saver is None:
        raise UnsupportedOption("supersteps", "this database keeps no checkpoints yet.")
    writes = [clean(superstep) for superstep in supersteps]
    async with draft() as drafting:
        try:
            _, snapshot = await service.on_agents(lambda: states.bulk_update(graph_id, drafting, thread_id, writes))
        except InvalidRequest as error:
            raise InvalidRequest(f"supersteps cannot be applied: {error}") from error
        rows = await drafting.threads.rows(thread_id)
    return snapshot, lambda: put(rows)


async def search_threads(request: Request, body: ThreadSearch) -> Response:
    """Find threads, the last changed first; X-Pagination-Total counts them, unless there are very many."""
    service = service_of(request)
    owner, where = await _searched(request, body)
    extraction = None if body.extract is None else Extraction(body.extract)
    found = await service.store.threads.search(
        owner=owner,
        where=where,
        sort_by=body.sort_by or "updated_at",
        order=body.sort_order or "desc",
        limit=body.limit + 1,
        offset=body.offset,
    )
    counted = await service.store.threads.count(owner=owner, where=where, at_most=MAX_TOTAL + 1)
    rows: list[Any] = []
    for thread in found[: body.limit]:
        wire = thread_wire(thread)
        rows.append(selected(wire, body.select, legacy=_LEGACY))
        if extraction is not None:
            rows[-1]["extracted"] = extraction(wire)
    headers = {} if counted > MAX_TOTAL else {"X-Pagination-Total": str(counted)}
    if len(found) > body.limit:
        headers["X-Pagination-Next"] = str(body.offset + body.limit)
    return json_response(rows, headers=headers)


async def count_threads(request: Request, body: ThreadSearch) -> Response:
    """Count threads."""
    owner, where = await _searched(request, body)
    return json_response(await service_of(request).store.threads.count(owner=owner, where=where))


async def _searched(request: Request, body: ThreadSearch) -> tuple[Owner, ThreadFilter]:
    value: dict[str, Any] = {
        "metadata": body.metadata or {},
        "values": body.values or {},
        "status": body.status,
        "ids": body.ids,
        "limit": body.limit,
        "offset": body.offset,
    }
    access = await authorize(request, "threads", "search", value)
    return access.reads, ThreadFilter(
        ids=None if body.ids is None else tuple(body.ids),
        status=None if body.status is None else ThreadStatus(body.status),
        metadata=value["metadata"],
        values=value["values"],
        where=access.where,
    )


async def get_thread(request: Request, query: ThreadQuery) -> Response:
    """Return a thread."""
    _, thread = await reach_thread(request, "read")
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
    await service_of(request).delete_thread(thread.thread_id, access.reads)
    return Response(status_code=204)


async def _state(request: Request, checkpoint: Any, *, subgraphs: bool, select: list[str] | None) -> Response:
    fields = StateFields(select)
    service = service_of(request)
    access, thread = await reach_thread(request, "read")
    graph_id = service.graph_of(thread)
    if graph_id is None:
        return json_response(fields(_empty_state(thread, checkpoint)))
    states, saver = await service.states_of(access, thread, graph_id), service.runtime.saver
    return raw_json(
        await service.on_agents(
            lambda: states.get(graph_id, saver, thread.thread_id, checkpoint, subgraphs=subgraphs, fields=fields)
        )
    )


def _empty_state(thread: Thread, checkpoint: Any) -> dict[str, Any]:
    wanted = checkpoint if isinstance(checkpoint, str) else (checkpoint or {}).get("checkpoint_id")
    return {
        "values": {},
        "next": [],
        "tasks": [],
        "metadata": {},
        "created_at": None,
        "checkpoint": None
        if wanted is None
        else {"thread_id": thread.thread_id, "checkpoint_ns": "", "checkpoint_id": wanted},
        "parent_checkpoint": None,
        "interrupts": [],
        "checkpoint_id": wanted,
        "parent_checkpoint_id": None,
    }


async def get_state(request: Request, query: StateQuery) -> Response:
    """Return the thread's newest state."""
    return await _state(request, None, subgraphs=query.subgraphs, select=list(query.select))


async def get_state_at(request: Request, body: StateAt) -> Response:
    """Return the state at a checkpoint."""
    return await _state(request, checkpoint_address(body.checkpoint), subgraphs=body.subgraphs, select=body.select)


async def get_state_of(request: Request, query: StateQuery) -> Response:
    """Return the state at a checkpoint."""
    checkpoint_id = checkpoint_uuid(request.path_params["checkpoint_id"])
    return await _state(request, checkpoint_id, subgraphs=query.subgraphs, select=list(query.select))


async def update_state(request: Request, body: StateUpdate) -> Response:
    """Write to the state of a thread on which nothing runs; what comes in between makes it start again, or conflict."""
    access, thread = await reach_thread(request, "update", {"values": body.values})
    for tries_left in reversed(range(UPDATE_TRIES)):
        try:
            address = await _updated(service_of(request), access, thread.thread_id, body)
            break
        except ThreadChanged:
            if not tries_left:
                raise
    service_of(request).streams.tell_thread(thread.thread_id)
    return json_response(
        {"checkpoint": address, "configurable": address, "checkpoint_id": address.get("checkpoint_id")}
    )


async def _updated(service: Service, access: Access, thread_id: str, body: StateUpdate) -> dict[str, Any]:
    """Make the update, and write it if nothing has happened on the thread meanwhile; return where it is.

    Raises:
        ConflictError: A run is active.
        ThreadChanged: Something has happened; nothing was written.
    """
    thread = await service.store.threads.get_idle(thread_id, owner=access.reads)
    graph_id = service.graph_of(thread)
    if graph_id is None:
        raise BadRequest(f"Thread {thread_id!r} has no assigned graph: run one on it, or set metadata.graph_id.")
    if service.runtime.saver is None:
        raise BadRequest("This database keeps no checkpoints yet.")
    checkpoint = checkpoint_address(body.checkpoint) or (body.checkpoint_id and checkpoint_uuid(body.checkpoint_id))
    states, staging = await service.states_of(access, thread, graph_id), StagingSaver(service.store.driver)
    try:
        address, snapshot = await service.on_agents(
            lambda: states.update(
                graph_id, staging, thread_id, body.values, as_node=body.as_node, checkpoint=checkpoint
            )
        )
    except InvalidRequest as error:
        raise BadRequest(str(error)) from error
    assistant_id = thread.metadata.get("assistant_id") or system_assistant_id(graph_id)
    await service.store.threads.set_state(
        thread_id,
        owner=access.reads,
        state=snapshot,
        metadata={"graph_id": graph_id, "assistant_id": assistant_id},
        seen=thread.updated_at,
        extra_writes=staging.transaction,
    )
    return address


async def post_history(request: Request, body: HistoryQuery) -> Response:
    """Return the thread's states, newest first."""
    return await _history(request, body)


async def get_history(request: Request, query: HistoryPage) -> Response:
    """Return the thread's states, newest first."""
    return await _history(request, HistoryQuery(limit=query.limit, before=query.before, select=list(query.select)))


async def _history(request: Request, query: HistoryQuery) -> Response:
    service, fields = service_of(request), StateFields(query.select)
    access, thread = await reach_thread(request, "read")
    graph_id = service.graph_of(thread)
    if graph_id is None:
        return json_response([])
    states, saver = await service.states_of(access, thread, graph_id), service.runtime.saver
    checkpoint, before = checkpoint_address(query.checkpoint), cursor_address(query.before)
    return raw_json(
        await service.on_agents(
            lambda: states.history(
                graph_id,
                saver,
                thread.thread_id,
                limit=query.limit,
                before=before,
                metadata=query.metadata,
                checkpoint=checkpoint,
                fields=fields,
            )
        )
    )


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
        Route("GET /threads/{thread_id}/state", get_state, answer=answers.WireThreadState, errors=(404,)),
        Route(
            "POST /threads/{thread_id}/state/checkpoint",
            get_state_at,
            answer=answers.WireThreadState,
            errors=(404,),
            example={"checkpoint": {"checkpoint_id": "1f0c8a52-7b6e-6f10-8002-5d9a3c1e7f44"}},
        ),
        Route(
            "GET /threads/{thread_id}/state/{checkpoint_id}",
            get_state_of,
            answer=answers.WireThreadState,
            errors=(404,),
        ),
        Route(
            "POST /threads/{thread_id}/state",
            update_state,
            answer=answers.StateUpdated,
            errors=(400, 404, 409),
            example={"values": {"messages": [{"role": "user", "content": "Never mind."}]}},
        ),
        Route(
            "POST /threads/{thread_id}/history",
            post_history,
            answer=list[answers.WireThreadState],
            errors=(404,),
            example={"limit": 10},
        ),
        Route("GET /threads/{thread_id}/history", get_history, answer=list[answers.WireThreadState], errors=(404,)),
    ),
)
