"""Routes of threads' states: read, update, history."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from runlane.agents.state import StateFields
from runlane.records import Thread
from runlane.server.http import answers
from runlane.server.http.queries import QueryModel
from runlane.server.http.requests import (
    Body,
    CheckpointConfig,
    Limit,
    Object,
    checkpoint_address,
    checkpoint_uuid,
    cursor_address,
)
from runlane.server.http.responses import json_response, raw_json
from runlane.server.http.route import Resource, Route
from runlane.server.routes.authorization import reach_thread, service_of
from runlane.server.routes.state_updates import StateUpdate, apply_update


class StateAt(Body):
    checkpoint: CheckpointConfig
    subgraphs: bool = False
    select: list[str] | None = None


class HistoryQuery(Body):
    nullable: ClassVar[frozenset[str]] = frozenset({"select"})

    limit: Limit = 1
    before: str | Object | None = None
    metadata: Object | None = None
    checkpoint: CheckpointConfig | None = None
    select: list[str] | None = None


class StateQuery(QueryModel):
    subgraphs: bool = False
    select: tuple[str, ...] = ()


class HistoryPage(QueryModel):
    limit: Limit = 10
    before: Annotated[str, msgspec.Meta(extra_json_schema={"format": "uuid"})] | None = None
    select: tuple[str, ...] = ()


async def _state(request: Request, checkpoint: Any, *, subgraphs: bool, select: list[str] | None) -> Response:
    fields = StateFields(select)
    service = service_of(request)
    access, thread = await reach_thread(request, "read")
    graph_id = service.graph_of(thread)
    if graph_id is None:
        return json_response(fields(_empty_state(thread, checkpoint)))
    states, saver = await service.states_of(access, thread, graph_id), service.saver
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
    address = await apply_update(service_of(request), access, thread.thread_id, body)
    return json_response(
        {"checkpoint": address, "configurable": address, "checkpoint_id": address.get("checkpoint_id")}
    )


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
    states, saver = await service.states_of(access, thread, graph_id), service.saver
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


THREAD_STATES = Resource(
    tag="Threads",
    group="threads",
    routes=(
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
