"""Commands that look and change nothing: the tree of a run's graphs, and the states of a thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import orjson
from starlette.requests import HTTPConnection, Request

from runlane.lifecycle import RunStatus
from runlane.records import RunRecord, Thread
from runlane.server.http.requests import Body, Limit, checkpoint_uuid
from runlane.server.protocols.v2.events import RunEvents, Subscription
from runlane.server.protocols.v2.refusals import CommandRefused, converted
from runlane.server.routes.authorization import reach_thread, service_of
from runlane.streams.batches import EventBatch

#: How a graph's checkpoint namespace is made of its segments.
_SEPARATOR: Final = "|"


class GetTree(Body):
    """Parameters of ``agent.getTree``."""

    run_id: str | None = None


class StateGet(Body):
    """Parameters of ``state.get``."""

    namespace: list[str] | None = None
    keys: list[str] | None = None


class ListCheckpoints(Body):
    """Parameters of ``state.listCheckpoints``."""

    namespace: list[str] | None = None
    limit: Limit = 10
    before: str | None = None


async def get_tree(connection: HTTPConnection, thread_id: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the graphs of a run that executes, below each other, with what became of each."""
    wanted: GetTree = converted(connection, params, GetTree)
    _, thread = await reach_thread(cast(Request, connection), "read")
    store = service_of(connection).store
    runs = await store.runs.list(thread_id, owner=thread.owner, status=RunStatus.RUNNING, limit=1)
    if not runs or wanted.run_id not in (None, runs[0].run_id):
        raise CommandRefused("no_such_run", "No such run of this thread executes at the moment.")
    [run] = runs
    lifecycles = await _lifecycles(connection, run)
    root: dict[str, Any] = {"namespace": [], "status": "running", "graph_name": run.graph_id}
    nodes: dict[tuple[str, ...], dict[str, Any]] = {(): root}
    for data in lifecycles:
        namespace = tuple(data["namespace"])
        if namespace not in nodes:
            parent = nodes.get(namespace[:-1], root)
            nodes[namespace] = {"namespace": list(namespace), "graph_name": data.get("graph_name") or ""}
            parent.setdefault("children", []).append(nodes[namespace])
        nodes[namespace]["status"] = data["event"]
    return {"tree": root}


async def _lifecycles(connection: HTTPConnection, run: RunRecord) -> Sequence[Mapping[str, Any]]:
    store, found, after = service_of(connection).store, [], 0
    events = RunEvents(store, run, Subscription(channels=["lifecycle"]))
    while batch := await store.events.read(run.seq, after=after):
        found += [orjson.loads(event.text)["params"]["data"] for event in await events.of(EventBatch(batch))]
        after = batch[-1].seq
    return [data for data in found if data.get("namespace")]


async def get_state(connection: HTTPConnection, thread_id: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the newest state of the thread, or of one of its subgraphs."""
    wanted: StateGet = converted(connection, params, StateGet)
    service, (access, thread) = service_of(connection), await reach_thread(cast(Request, connection), "read")
    saver, graph_id = service.saver, _graph_of(connection, thread)
    states = await service.states_of(access, thread, graph_id)
    address = _address(wanted.namespace)
    state = orjson.loads(await service.on_agents(lambda: states.get(graph_id, saver, thread_id, address)))
    values = state["values"]
    if wanted.keys is not None and isinstance(values, dict):
        values = {name: value for name, value in values.items() if name in wanted.keys}
    checkpoint = state["checkpoint"] or {}
    if checkpoint.get("checkpoint_id") is None:
        return {"values": values}
    return {"values": values, "checkpoint": {"id": checkpoint["checkpoint_id"], "ns": checkpoint["checkpoint_ns"]}}


async def list_checkpoints(connection: HTTPConnection, thread_id: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the checkpoints of the thread, or of one of its subgraphs, newest first."""
    wanted: ListCheckpoints = converted(connection, params, ListCheckpoints)
    service, (access, thread) = service_of(connection), await reach_thread(cast(Request, connection), "read")
    saver, graph_id = service.saver, _graph_of(connection, thread)
    states = await service.states_of(access, thread, graph_id)
    before = None if wanted.before is None else checkpoint_uuid(wanted.before)
    address = _address(wanted.namespace)
    history = await service.on_agents(
        lambda: states.history(graph_id, saver, thread_id, limit=wanted.limit, before=before, checkpoint=address)
    )
    return {"checkpoints": [_summary(state) for state in orjson.loads(history)]}


def _summary(state: Mapping[str, Any]) -> dict[str, Any]:
    metadata = state["metadata"] or {}
    return {
        "id": state["checkpoint"]["checkpoint_id"],
        "timestamp": state["created_at"],
        "step": metadata.get("step"),
        "metadata": metadata,
    }


def _address(namespace: Sequence[str] | None) -> dict[str, str] | None:
    return {"checkpoint_ns": _SEPARATOR.join(namespace)} if namespace else None


def _graph_of(connection: HTTPConnection, thread: Thread) -> str:
    graph_id = service_of(connection).graph_of(thread)
    if graph_id is None:
        raise CommandRefused("no_such_run", "The thread has no state: nothing has run on it.")
    return graph_id
