"""Running a LangGraph graph as an agent."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import aclosing, nullcontext
from typing import Any, Final

import orjson
from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphDrained
from langgraph.runtime import RunControl
from langgraph.types import Interrupt, StateSnapshot

from runlane.agents.base import AgentCall
from runlane.agents.continuing import left_to_apply, missed_breakpoint
from runlane.agents.documents import JsonDocuments
from runlane.agents.encode import Unserialisable, encode
from runlane.agents.events import INTERRUPT, Publisher
from runlane.agents.first_values import FirstState
from runlane.agents.invocation import run_config, run_context, run_input, thread_config
from runlane.agents.observer import GraphObserver
from runlane.agents.protocol_events import ProtocolPublisher, pump_protocol
from runlane.agents.registry import Graph, GraphUse, Registry, graph_name
from runlane.agents.repair import repair_thread
from runlane.agents.shown import observer_of
from runlane.agents.usage import counted_by
from runlane.agents.users import RunUsers
from runlane.documents.document import Encoded
from runlane.errors import NotFound
from runlane.outcomes import Drained, Snapshot

#: How many stopped attempts are remembered until their repair, which follows at once; a repair that never comes (the
#: lease was lost) must not keep its texts for ever.
_MAX_STOPPED: Final = 1024


class GraphAgent:
    """Runs one graph of a registry. All methods run on the agents' loop."""

    continuable = True

    def __init__(self, registry: Registry, graph_id: str, users: RunUsers | None = None) -> None:
        self._registry = registry
        self._graph_id = graph_id
        self._users = users or RunUsers()
        self._observers: dict[str, GraphObserver] = {}
        self._stopped: list[str] = []

    async def run(self, call: AgentCall) -> Snapshot:
        """Execute until the end or a pause, emitting events on the way.

        A continued run goes on from its own last checkpoint: neither its input nor its command is applied again.

        Raises:
            Drained: A drain was asked for and the graph stopped between two supersteps.
            Unserialisable: The state, or an event that was asked for, has no JSON form.
            Exception: The run failed; the exception is the graph's own.
        """
        meter, *others = call.callbacks or (None,)
        observer = self._observers[call.run.run_id] = GraphObserver(meter=meter)
        try:
            with nullcontext() if meter is None else counted_by(observer):  # in its place: a call counts once
                snapshot = await self._run(call, observer, [observer, *others])
        except GraphDrained as exc:
            self._observers.pop(call.run.run_id, None)
            raise Drained from exc
        except BaseException:
            self._remember_stopped(call.run.run_id)
            raise
        self._observers.pop(call.run.run_id, None)
        return snapshot

    async def repair(self, call: AgentCall) -> Snapshot:
        """Make the thread valid after the run was stopped or failed, and return what it looks like now.

        Only graphs with a ``messages`` channel are repaired. A pause is not: its open calls wait for an answer.
        """
        observer = self._observers.pop(call.run.run_id, None)
        if call.saver is None:
            return Snapshot()
        if observer is None and call.continued:
            observer = observer_of(await call.earlier())
        user = self._users.of(call.run)
        config = run_config(call.run, self._graph_id, user=user, fork=False)
        use = GraphUse(config=config, store=call.store, user=user)
        async with self._registry.open(self._graph_id, use) as shared:
            graph = bound(shared, call.saver, call.store)
            state = await repair_thread(graph, config, observer, touched=call.continued)
        try:
            return snapshot_of(state, call.documents)
        except Unserialisable:
            return Snapshot(unfinished=bool(state.next))

    async def _run(self, call: AgentCall, observer: GraphObserver, callbacks: Sequence[Any]) -> Snapshot:
        request = call.run.request
        publisher = _publisher(call, observer)
        left = await left_to_apply(call, run_input(request))
        value, continues = left.value, left.continues
        user = self._users.of(call.run)
        config = run_config(
            call.run, self._graph_id, user=user, fork=not continues, strict=not left.checked, callbacks=callbacks
        )
        use = GraphUse(config=config, context=request.context, store=call.store, user=user)
        if call.saver is not None and value is not None:
            await check_checkpoint(call.saver, config)
        async with self._registry.open(self._graph_id, use) as shared:
            self._registry.tell_replaced(self._graph_id, shared, store=call.store is not None)
            graph = bound(shared, call.saver, call.store)
            config.setdefault("run_name", graph_name(graph, self._graph_id))
            context = run_context(graph, request)
            if isinstance(context, dict):  # graphs of older LangGraph versions look for it in there
                config["configurable"] = {**context, **config["configurable"]}
            if call.continued and (paused_at := await missed_breakpoint(graph, call, continues=continues)) is not None:
                return snapshot_of(paused_at, call.documents)
            await _pump(graph, value, config, context, call, publisher)
            if observer.paused and call.saver is not None:
                state = await graph.aget_state(thread_config(call.run.thread_id))
                if state.next or state.interrupts:
                    if isinstance(publisher, ProtocolPublisher):
                        publisher.requested(state.interrupts)
                    return snapshot_of(state, call.documents)
        return Snapshot(values=publisher.values_data, result=publisher.values_data)

    def _remember_stopped(self, run_id: str) -> None:
        self._stopped.append(run_id)
        if len(self._stopped) > _MAX_STOPPED:
            self._observers.pop(self._stopped.pop(0), None)


async def check_checkpoint(saver: Any, config: RunnableConfig) -> None:
    """Raise NotFound if *config* names a checkpoint that is not there.

    LangGraph would begin with an empty state instead, and what the thread had would be forgotten.
    """
    named = config["configurable"].get("checkpoint_id")
    if named and await saver.aget_tuple(config) is None:
        raise NotFound("checkpoint", named)


def bound(graph: Graph, saver: Any, store: Any) -> Graph:
    """Return *graph* with this attempt's saver and store; the graph itself, which other runs share, stays as it is."""
    own = copy.copy(graph)
    own.checkpointer = saver
    if store is not None:
        own.store = store
    return own


def _publisher(call: AgentCall, observer: GraphObserver) -> Publisher | ProtocolPublisher:
    if call.run.request.protocol is not None:
        return ProtocolPublisher(call.emit, observer, call.errors, FirstState(call.first_values), call.documents)
    modes = call.run.request.stream_mode or ("values",)
    return Publisher(call.emit, modes, observer, call.errors, FirstState(call.first_values), call.documents)


async def _pump(
    graph: Graph,
    value: Any,
    config: RunnableConfig,
    context: Any,
    call: AgentCall,
    publisher: Publisher | ProtocolPublisher,
) -> None:
    """Drive the graph to its end and publish every part of its stream."""
    request = call.run.request
    control = RunControl()
    call.drain.subscribe(control.request_drain)
    options: dict[str, Any] = {
        "context": context,
        "interrupt_before": request.interrupt_before or None,
        "interrupt_after": request.interrupt_after or None,
        "durability": (request.durability or "async") if call.saver is not None else None,
        "control": control,
    }
    if isinstance(publisher, ProtocolPublisher):
        await pump_protocol(graph, value, config, options, call, publisher)
        return
    subgraphs = request.stream_subgraphs
    options |= {"stream_mode": publisher.langgraph_modes, "subgraphs": subgraphs}
    if publisher.wants_events:
        await _pump_events(graph, value, config, options, call, publisher)
        return
    congested = call.congested
    async with aclosing(graph.astream(value, config, **options)) as parts:  # type: ignore[type-var]  # it is an async generator, declared as an iterator
        async for part in parts:
            if subgraphs:
                publisher.part(*part)
            else:
                publisher.part((), *part)
            if congested():
                await call.ready()


async def _pump_events(
    graph: Graph,
    value: Any,
    config: RunnableConfig,
    options: Mapping[str, Any],
    call: AgentCall,
    publisher: Publisher,
) -> None:
    """Drive the graph through LangChain's event stream; parts of the graph's own stream come as events of its root."""
    async with aclosing(graph.astream_events(value, config, version="v2", **options)) as events:  # type: ignore[type-var]  # as above
        async for event in events:
            if event["event"] == "on_chain_stream" and not event["parent_ids"]:
                *namespace, mode, payload = event["data"]["chunk"]
                publisher.part(namespace[0] if namespace else (), mode, payload)
            else:
                publisher.trace(event)
            if call.congested():
                await call.ready()


def snapshot_of(state: StateSnapshot, documents: JsonDocuments | None = None) -> Snapshot:
    """Return what *state* says of a thread; of a thread without checkpoints, nothing.

    Args:
        documents: Encodes it; by default with all parts.

    Raises:
        Unserialisable: The state has no JSON form.
    """
    if state.metadata is None:
        return Snapshot()
    interrupts = {
        task.id: orjson.loads(encode([asked(item) for item in task.interrupts]))
        for task in state.tasks
        if task.interrupts
    }
    documents = documents or JsonDocuments()
    values = documents.of(state.values)
    return Snapshot(
        values=values,
        result=_result(state, values, documents),
        interrupts=interrupts,
        paused=bool(state.next or interrupts),
        unfinished=bool(state.next),
    )


def asked(item: Interrupt) -> dict[str, Any]:
    """Return a question as a thread's row has it; the schema of its answer is ``None`` if the graph gives none."""
    return {"id": item.id, "value": item.value, "response_schema": getattr(item, "response_schema", None)}


def _result(state: StateSnapshot, values: Encoded, documents: JsonDocuments) -> Encoded:
    """Return what waiting for the run answers: the state with its one interrupt, or all of several interrupts alone."""
    if not state.interrupts:
        return values
    if len(state.interrupts) == 1 and isinstance(state.values, dict):
        return documents.of({**state.values, INTERRUPT: state.interrupts})
    return documents.of({INTERRUPT: state.interrupts})
