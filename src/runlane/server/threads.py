"""Routes of threads and their states."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from runlane.agents.base import Snapshot
from runlane.agents.registry import system_assistant_id
from runlane.errors import AlreadyExists, InvalidRequest, NotFound, UnsupportedOption
from runlane.lifecycle import ThreadStatus
from runlane.records import Json, Owner, Thread, ThreadState
from runlane.server.access import Access
from runlane.server.assistants import clean, pagination
from runlane.server.requests import (
    BadRequest,
    HistoryQuery,
    StateAt,
    StateUpdate,
    Superstep,
    ThreadCreate,
    ThreadPatch,
    ThreadSearch,
    checkpoint_address,
    checkpoint_uuid,
    cursor_address,
    query_flag,
    query_int,
    read_body,
)
from runlane.server.responses import json_response, raw_json, selected, thread_wire
from runlane.server.routing import authorize, reach_thread, route, service_of
from runlane.server.service import Service
from runlane.store.thread_transactions import ThreadFilter

router = APIRouter(tags=["Threads"])


def _refuse_ttl(ttl: Any) -> None:
    if ttl is not None:
        raise UnsupportedOption("ttl", "threads do not expire in this version; leave it out.")


@route(router, "POST", "/threads", body=ThreadCreate, statuses=(404, 409))
async def create_thread(request: Request) -> Response:
    """Create a thread, with a history if ``supersteps`` are given."""
    service, body = service_of(request), await read_body(request, ThreadCreate)
    _refuse_ttl(body.ttl)
    value: dict[str, Any] = {
        "thread_id": str(body.thread_id or uuid4()),
        "metadata": body.metadata or {},
        "if_exists": body.if_exists,
    }
    access = await authorize(request, "threads", "create", value)
    metadata = value["metadata"]
    graph_id = metadata.get("graph_id")
    if body.supersteps and graph_id not in service.registry.graph_ids:
        raise InvalidRequest("supersteps need metadata.graph_id to name a graph.")
    thread = await _made(service, access, value["thread_id"], metadata, body.if_exists)
    if body.supersteps:
        thread = await _seed(service, thread, str(graph_id), body.supersteps)
    return json_response(thread_wire(thread))


async def _made(service: Service, access: Access, thread_id: str, metadata: Json, if_exists: str) -> Thread:
    try:
        return await service.store.create_thread(thread_id, owner=access.owner, metadata=metadata)
    except AlreadyExists:
        if if_exists != "do_nothing":
            raise
        try:
            thread = await service.store.get_thread(thread_id, owner=access.reads)
        except NotFound:
            raise AlreadyExists("thread", thread_id) from None
        if not access.permits(thread.metadata):
            raise
        return thread


async def _seed(service: Service, thread: Thread, graph_id: str, supersteps: list[Superstep]) -> Thread:
    """Write *supersteps* to a new thread; it is removed again if one cannot be applied."""
    states, saver = service.states(thread.owner), service.runtime.saver
    writes = [clean(superstep) for superstep in supersteps]
    try:
        _, snapshot = await service.on_agents(lambda: states.bulk_update(graph_id, saver, thread.thread_id, writes))
    except BaseException as error:  # whatever went wrong, a thread with half a history is not what was asked for
        await service.delete_thread(thread.thread_id, thread.owner)
        if isinstance(error, InvalidRequest):
            raise InvalidRequest(f"supersteps cannot be applied: {error}") from error
        raise
    return await _record(service, thread, graph_id, snapshot)


async def _record(service: Service, thread: Thread, graph_id: str, snapshot: Snapshot) -> Thread:
    state = ThreadState(
        values=snapshot.values, interrupts=snapshot.interrupts, unfinished=snapshot.unfinished or snapshot.paused
    )
    metadata = {
        "graph_id": graph_id,
        "assistant_id": thread.metadata.get("assistant_id") or system_assistant_id(graph_id),
    }
    return await service.store.set_thread_state(thread.thread_id, owner=thread.owner, state=state, metadata=metadata)


@route(router, "POST", "/threads/search", body=ThreadSearch)
async def search_threads(request: Request) -> Response:
    """Find threads, the last changed first."""
    service, body = service_of(request), await read_body(request, ThreadSearch)
    owner, where = await _searched(request, body)
    found = await service.store.search_threads(
        owner=owner,
        where=where,
        sort_by=body.sort_by or "updated_at",
        order=body.sort_order or "desc",
        limit=body.limit,
        offset=body.offset,
    )
    total = await service.store.count_threads(owner=owner, where=where)
    rows = [selected(thread_wire(thread), body.select) for thread in found]
    return json_response(rows, headers=pagination(total, body.offset, len(found)))


@route(router, "POST", "/threads/count", body=ThreadSearch)
async def count_threads(request: Request) -> Response:
    """Count threads."""
    body = await read_body(request, ThreadSearch)
    owner, where = await _searched(request, body)
    return json_response(await service_of(request).store.count_threads(owner=owner, where=where))


async def _searched(request: Request, body: ThreadSearch) -> tuple[Owner, ThreadFilter]:
    if body.extract is not None:
        raise UnsupportedOption("extract", "values cannot be extracted in this version; use select.")
    value: dict[str, Any] = {
        "metadata": body.metadata or {},
        "values": body.values or {},
        "status": body.status,
        "limit": body.limit,
        "offset": body.offset,
    }
    access = await authorize(request, "threads", "search", value)
    return access.reads, ThreadFilter(
        ids=None if body.ids is None else tuple(body.ids),
        status=None if body.status is None else ThreadStatus(body.status),
        metadata=value["metadata"],
        values=body.values,
        where=access.where,
    )


@route(router, "GET", "/threads/{thread_id}", statuses=(404,))
async def get_thread(request: Request) -> Response:
    """Return a thread."""
    if "include" in request.query_params:
        raise UnsupportedOption("include", "threads do not expire in this version; leave it out.")
    _, thread = await reach_thread(request, "read")
    return json_response(thread_wire(thread))


@route(router, "PATCH", "/threads/{thread_id}", body=ThreadPatch, statuses=(404,))
async def patch_thread(request: Request) -> Response:
    """Merge metadata into the thread's."""
    body = await read_body(request, ThreadPatch)
    _refuse_ttl(body.ttl)
    value: dict[str, Any] = {"metadata": body.metadata or {}}
    access, thread = await reach_thread(request, "update", value)
    thread = await service_of(request).store.patch_thread(
        thread.thread_id, owner=access.reads, metadata=value["metadata"]
    )
    if request.headers.get("prefer", "").lower() == "return=minimal":
        return Response(status_code=204)
    return json_response(thread_wire(thread))


@route(router, "DELETE", "/threads/{thread_id}", statuses=(404, 409))
async def delete_thread(request: Request) -> Response:
    """Stop the thread's runs, wait for their ends, and delete the thread."""
    access, thread = await reach_thread(request, "delete")
    await service_of(request).delete_thread(thread.thread_id, access.reads)
    return Response(status_code=204)


async def _state(request: Request, checkpoint: Any, *, subgraphs: bool) -> Response:
    service = service_of(request)
    access, thread = await reach_thread(request, "read")
    graph_id = service.graph_of(thread)
    if graph_id is None:
        return json_response(_empty_state(thread, checkpoint))
    states, saver = service.states(access.owner), service.runtime.saver
    return raw_json(
        await service.on_agents(lambda: states.get(graph_id, saver, thread.thread_id, checkpoint, subgraphs=subgraphs))
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


@route(router, "GET", "/threads/{thread_id}/state", statuses=(404,), query=("subgraphs",))
async def get_state(request: Request) -> Response:
    """Return the thread's newest state."""
    return await _state(request, None, subgraphs=query_flag(request, "subgraphs"))


@route(router, "POST", "/threads/{thread_id}/state/checkpoint", body=StateAt, statuses=(404,))
async def get_state_at(request: Request) -> Response:
    """Return the state at a checkpoint."""
    body = await read_body(request, StateAt)
    return await _state(request, checkpoint_address(body.checkpoint), subgraphs=body.subgraphs)


@route(router, "GET", "/threads/{thread_id}/state/{checkpoint_id}", statuses=(404,), query=("subgraphs",))
async def get_state_of(request: Request) -> Response:
    """Return the state at a checkpoint."""
    checkpoint_id = checkpoint_uuid(request.path_params["checkpoint_id"])
    return await _state(request, checkpoint_id, subgraphs=query_flag(request, "subgraphs"))


@route(router, "POST", "/threads/{thread_id}/state", body=StateUpdate, statuses=(404, 409))
async def update_state(request: Request) -> Response:
    """Write to the state of a thread on which nothing runs."""
    body = await read_body(request, StateUpdate)
    service = service_of(request)
    access, found = await reach_thread(request, "update")
    thread = await service.store.idle_thread(found.thread_id, owner=access.reads)
    graph_id = service.graph_of(thread)
    if graph_id is None:
        raise BadRequest(f"Thread {thread.thread_id!r} has no assigned graph: run one on it, or set metadata.graph_id.")
    checkpoint = checkpoint_address(body.checkpoint) or (body.checkpoint_id and checkpoint_uuid(body.checkpoint_id))
    states, saver = service.states(access.owner), service.runtime.saver
    try:
        address, snapshot = await service.on_agents(
            lambda: states.update(
                graph_id, saver, thread.thread_id, body.values, as_node=body.as_node, checkpoint=checkpoint
            )
        )
    except InvalidRequest as error:
        raise BadRequest(str(error)) from error
    await _record(service, thread, graph_id, snapshot)
    return json_response(
        {"checkpoint": address, "configurable": address, "checkpoint_id": address.get("checkpoint_id")}
    )


@route(router, "POST", "/threads/{thread_id}/history", body=HistoryQuery, statuses=(404,))
async def post_history(request: Request) -> Response:
    """Return the thread's states, newest first."""
    return await _history(request, await read_body(request, HistoryQuery))


@route(router, "GET", "/threads/{thread_id}/history", statuses=(404,), query=("limit", "before"))
async def get_history(request: Request) -> Response:
    """Return the thread's states, newest first."""
    limit = query_int(request, "limit", 10, low=1)
    return await _history(request, HistoryQuery(limit=limit, before=request.query_params.get("before")))


async def _history(request: Request, query: HistoryQuery) -> Response:
    service = service_of(request)
    access, thread = await reach_thread(request, "read")
    graph_id = service.graph_of(thread)
    if graph_id is None:
        return json_response([])
    states, saver = service.states(access.owner), service.runtime.saver
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
            )
        )
    )
