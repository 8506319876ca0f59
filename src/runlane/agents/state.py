"""Reading and writing threads through their graph, and describing graphs, in the wire shapes of the LangGraph Server.

Everything here touches user code (channels, edges, schemas), so it runs on the agents' loop and gives JSON text.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import InvalidUpdateError
from langgraph.graph.state import CompiledStateGraph
from langgraph.pregel import Pregel
from langgraph.types import PregelTask, StateSnapshot, StateUpdate
from langgraph_sdk.runtime import AccessContext

from runlane.agents.encode import Unserialisable, encode
from runlane.agents.events import checkpoint_address, checkpoint_keys
from runlane.agents.graph import bound, check_checkpoint, snapshot_of
from runlane.agents.invocation import command_of, thread_config
from runlane.agents.registry import Graph, GraphUse, Registry
from runlane.error_texts import MASKED
from runlane.errors import InvalidRequest, RunlaneError, StateUnreadable
from runlane.outcomes import Snapshot

Checkpoint = Mapping[str, Any] | str | None
#: In how many of the newest checkpoints of a damaged thread one is looked for that can be read.
_LOOKED_AT: Final = 20
_NO_VALUES: Final[Mapping[str, Any]] = {}
#: The fields of a ThreadState.
_FIELDS: Final = frozenset(
    {
        "values",
        "next",
        "tasks",
        "metadata",
        "created_at",
        "checkpoint",
        "parent_checkpoint",
        "interrupts",
        "checkpoint_id",
        "parent_checkpoint_id",
    }
)
_VALUE: Final = "values."


class StateFields:
    """The selected parts of a ThreadState: some fields, with ``values.<key>`` some of its values; by default all."""

    def __init__(self, select: Sequence[str] | None = None) -> None:
        """Take the names of fields, as clients send them.

        Raises:
            InvalidRequest: There is no such field.
        """
        chosen = dict.fromkeys(select or ())
        if unknown := [name for name in chosen if name not in _FIELDS and not name.startswith(_VALUE)]:
            known = ", ".join(sorted(_FIELDS))
            raise InvalidRequest(f"Cannot select {', '.join(unknown)}; there are {known} and values.<key>.")
        self._fields = [name for name in chosen if name in _FIELDS] if chosen else None
        self._keys = [name.removeprefix(_VALUE) for name in chosen if name not in _FIELDS]

    def __call__(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return what of *state* is answered; a key that its values do not have is left out."""
        if self._fields is None:
            return state
        found = {name: state[name] for name in self._fields}
        values = state["values"]
        if self._keys and "values" not in found:
            known = values if isinstance(values, Mapping) else _NO_VALUES
            found["values"] = {key: known[key] for key in self._keys if key in known}
        return found


ALL_FIELDS: Final = StateFields()


class ThreadStates:
    """The state of threads, as their graphs see it. A thread is a ``thread_id``; *saver* is any checkpointer.

    Args:
        config: What a factory is given to make the graph.
    """

    def __init__(
        self, registry: Registry, *, store: Any = None, user: Any = None, config: RunnableConfig | None = None
    ) -> None:
        self._registry = registry
        self._store = store
        self._user = user
        self._config = config

    async def get(
        self,
        graph_id: str,
        saver: Any,
        thread_id: str,
        checkpoint: Checkpoint = None,
        *,
        subgraphs: bool = False,
        fields: StateFields = ALL_FIELDS,
    ) -> bytes:
        """Return a ThreadState: the newest, or that of *checkpoint* (its id, or its address).

        An empty thread has no values, and an unknown checkpoint neither.

        Args:
            subgraphs: Whether the tasks carry the states of their subgraphs.

        Raises:
            NotFound: There is no such graph.
            StateUnreadable: The graph cannot read it.
            Unserialisable: The state has no JSON form.
        """
        async with self._open(graph_id, "threads.read", saver) as graph:
            async with _reading(graph, thread_id):
                state = await graph.aget_state(thread_config(thread_id, checkpoint), subgraphs=subgraphs)
            return encode(fields(thread_state(state)))

    async def history(
        self,
        graph_id: str,
        saver: Any,
        thread_id: str,
        *,
        limit: int,
        before: Checkpoint = None,
        metadata: Mapping[str, Any] | None = None,
        checkpoint: Checkpoint = None,
        fields: StateFields = ALL_FIELDS,
    ) -> bytes:
        """Return an array of ThreadStates, newest first.

        Args:
            before: Only states older than this checkpoint: its id, its address, or a config that holds the address.
            metadata: Only states whose checkpoint metadata has these values.
            checkpoint: Its ``checkpoint_ns`` chooses a subgraph; its ``checkpoint_id``, if any, one checkpoint.

        Raises:
            NotFound: There is no such graph.
            StateUnreadable: The graph cannot read one of them.
            Unserialisable: A state has no JSON form.
        """
        async with self._open(graph_id, "threads.read", saver) as graph:
            states = graph.aget_state_history(
                thread_config(thread_id, checkpoint),
                filter=dict(metadata) if metadata else None,
                before=_before(thread_id, before),
                limit=limit,
            )
            async with _reading(graph, thread_id):
                found = [state async for state in states]
            return encode([fields(thread_state(state)) for state in found])

    async def update(
        self, graph_id: str, saver: Any, thread_id: str, values: Any, *, as_node: str | None, checkpoint: Checkpoint
    ) -> tuple[dict[str, Any], Snapshot]:
        """Write *values* as if the node *as_node* had returned them, on top of *checkpoint* or the newest state.

        Returns:
            The address of the checkpoint that was written, and what the thread looks like now.

        Raises:
            NotFound: There is no such graph or checkpoint.
            InvalidRequest: There is no such node, or it must be named, or the values do not fit the state.
        """
        config = thread_config(thread_id, checkpoint)
        return await self._write(graph_id, saver, config, [[StateUpdate(values, as_node)]])

    async def bulk_update(
        self, graph_id: str, saver: Any, thread_id: str, supersteps: Sequence[Mapping[str, Any]]
    ) -> tuple[dict[str, Any], Snapshot]:
        """Write supersteps of ``{"updates": [{"values", "command", "as_node"}]}`` one after the other.

        Returns:
            As :meth:`update`; the supersteps before one that fails stay written.

        Raises:
            NotFound: There is no such graph.
            InvalidRequest: An update cannot be made.
        """
        writes = [[_state_update(item) for item in superstep["updates"]] for superstep in supersteps]
        return await self._write(graph_id, saver, thread_config(thread_id), writes)

    async def snapshot(self, graph_id: str, saver: Any, thread_id: str) -> Snapshot:
        """Return what the thread looks like now, as after a run.

        Raises:
            NotFound: There is no such graph.
            StateUnreadable: The graph cannot read it.
            Unserialisable: The state has no JSON form.
        """
        async with self._open(graph_id, "threads.read", saver) as graph:
            async with _reading(graph, thread_id):
                state = await graph.aget_state(thread_config(thread_id))
            return snapshot_of(state)

    async def draw(self, graph_id: str, *, xray: bool | int = False) -> bytes:
        """Return the graph's nodes and edges; *xray* shows subgraphs, to that depth.

        Raises:
            NotFound: There is no such graph.
        """
        async with self._open(graph_id, "assistants.read", None) as graph:
            drawn = (await graph.aget_graph(xray=xray)).to_json()
        nodes = [
            {**node, "type": node.get("type", "schema"), "data": {"name": _node_name(node)}} for node in drawn["nodes"]
        ]
        return encode({"nodes": nodes, "edges": drawn["edges"]})

    async def schemas(self, graph_id: str) -> bytes:
        """Return the JSON Schemas of the graph; one that cannot be expressed is ``null``.

        Raises:
            NotFound: There is no such graph.
        """
        async with self._open(graph_id, "assistants.read", None) as graph:
            return encode({"graph_id": graph_id, **_schemas(graph)})

    async def subgraphs(self, graph_id: str, *, namespace: str | None = None, recurse: bool = False) -> bytes:
        """Return the schemas of the graph's subgraphs by namespace.

        Raises:
            NotFound: There is no such graph.
        """
        async with self._open(graph_id, "assistants.read", None) as graph:
            found = graph.aget_subgraphs(namespace=namespace, recurse=recurse)
            return encode({name: _schemas(sub) async for name, sub in found if isinstance(sub, Pregel)})

    async def _write(
        self, graph_id: str, saver: Any, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]
    ) -> tuple[dict[str, Any], Snapshot]:
        async with self._open(graph_id, "threads.update", saver) as graph:
            await check_checkpoint(saver, config)
            config["metadata"] = {"graph_id": graph_id}
            try:
                written = await graph.abulk_update_state(config, supersteps)
                newest = await graph.aget_state(thread_config(config["configurable"]["thread_id"]))
            except (RunlaneError, Unserialisable):
                raise
            except Exception as exc:  # what LangGraph, reducers and schemas raise about values that do not fit
                of_class = "" if isinstance(exc, InvalidUpdateError) else f"{type(exc).__name__}: "
                why = of_class + MASKED.message(exc)
                raise InvalidRequest(f"The state cannot be updated: {why}") from exc
            return checkpoint_keys(written) or {}, snapshot_of(newest)

    @asynccontextmanager
    async def _open(self, graph_id: str, access: AccessContext, saver: Any) -> AsyncIterator[Graph]:
        use = GraphUse(access=access, config=self._config, store=self._store, user=self._user)
        async with self._registry.open(graph_id, use) as graph:
            yield bound(graph, saver, self._store)


@asynccontextmanager
async def _reading(graph: Graph, thread_id: str) -> AsyncIterator[None]:
    """Return the error for a state that *graph* cannot read, with its cause and remedy.

    Raises:
        StateUnreadable: A channel or a schema, which are user code, raised an exception.
    """
    try:
        yield
    except RunlaneError:
        raise
    except Exception as exc:  # whatever user code raises about what is stored
        cause = f"{type(exc).__name__}: {MASKED.message(exc)}"
        raise StateUnreadable(thread_id, cause, await _newest_readable(graph, thread_id)) from exc


async def _newest_readable(graph: Graph, thread_id: str) -> str | None:
    """Return the newest checkpoint of a thread that its graph can read, if that is among the newest ones."""
    saver = cast(BaseCheckpointSaver[Any], graph.checkpointer)
    async for saved in saver.alist(thread_config(thread_id), limit=_LOOKED_AT):
        checkpoint_id = str(saved.checkpoint["id"])
        try:
            await graph.aget_state(thread_config(thread_id, checkpoint_id))
        except RunlaneError:
            raise
        except Exception:  # noqa: BLE001 - as above; an older one may be readable
            continue
        return checkpoint_id
    return None


def thread_state(state: StateSnapshot) -> dict[str, Any]:
    """Return *state* in the shape of a ThreadState."""
    checkpoint, parent = checkpoint_keys(state.config), checkpoint_keys(state.parent_config)
    return {
        "values": state.values if state.metadata is not None else _NO_VALUES,
        "next": state.next,
        "tasks": [_task(task) for task in state.tasks],
        "metadata": _metadata(state),
        "created_at": state.created_at,
        "checkpoint": checkpoint,
        "parent_checkpoint": parent,
        "interrupts": state.interrupts,
        "checkpoint_id": checkpoint and checkpoint["checkpoint_id"],
        "parent_checkpoint_id": parent and parent["checkpoint_id"],
    }


def _metadata(state: StateSnapshot) -> dict[str, Any] | None:
    """Return the checkpoint's metadata with its thread, which is not stored with each checkpoint again."""
    if state.metadata is None:
        return None
    return {**state.metadata, "thread_id": state.config["configurable"]["thread_id"]}


def _state_update(item: Mapping[str, Any]) -> StateUpdate:
    values = command_of(item["command"]) if item.get("command") else item.get("values")
    return StateUpdate(cast(dict[str, Any] | None, values), item.get("as_node"))


def _task(task: PregelTask) -> dict[str, Any]:
    nested = task.state if isinstance(task.state, StateSnapshot) else None
    config = nested.config if nested is not None else task.state
    return {
        "id": task.id,
        "name": task.name,
        "path": task.path,
        "error": task.error,
        "interrupts": task.interrupts,
        "checkpoint": None if config is None else checkpoint_address(cast(RunnableConfig, config)),
        "state": thread_state(nested) if nested is not None else None,
        "result": task.result,
    }


def _before(thread_id: str, before: Checkpoint) -> RunnableConfig | None:
    if not before:
        return None
    address = before if isinstance(before, str) else before.get("configurable", before)
    return thread_config(thread_id, address)


def _node_name(node: Mapping[str, Any]) -> str:
    return str(node.get("data", {}).get("name", node["id"]))


def _schemas(graph: Graph) -> dict[str, Any]:
    context = _schema(graph.get_context_jsonschema)
    return {
        "input_schema": _schema(graph.get_input_jsonschema, lambda: _of_channels(graph, _input_channels(graph))),
        "output_schema": _schema(graph.get_output_jsonschema, lambda: _of_channels(graph, graph.output_channels)),
        "state_schema": _schema(lambda: _of_channels(graph, graph.stream_channels_asis)),
        "config_schema": context,
        "context_schema": context,
    }


def _schema(*ways: Callable[[], Any]) -> Any:
    """Return the schema that the first of *ways* to make it gives."""
    for make in ways:
        try:
            return make()
        except Exception:  # noqa: BLE001 - user types that have no JSON Schema fail in many ways; the answer is null
            continue
    return None


def _of_channels(graph: Graph, channels: str | Sequence[str]) -> Any:
    """Return the schema of the state's channels, which exists where that of the state's own type does not: pydantic
    refuses ``typing.TypedDict`` before Python 3.12."""
    state = copy.copy(graph)
    state.output_channels = channels
    return Pregel.get_output_jsonschema(state)


def _input_channels(graph: Graph) -> list[str]:
    builder = cast(CompiledStateGraph[Any, Any, Any, Any], graph).builder
    return [name for name in builder.schemas[builder.input_schema] if name in graph.stream_channels_list]
