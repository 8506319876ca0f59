"""Threads whose graphs cannot read their states. Only graphs know, so this executes the project's code."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final, cast

from runlane.agents.graph import bound
from runlane.agents.invocation import thread_config
from runlane.agents.registry import Graph, GraphUse, Registry
from runlane.checkpoints.saver import LedgerSaver
from runlane.checkpoints.staging import StagingSaver
from runlane.doctor.findings import Finding
from runlane.doctor.opening import OpenLedger
from runlane.doctor.values import IS_SETTLED
from runlane.errors import NotFound, RunlaneError
from runlane.store.statements import Driver, Transaction, statement

_NEXT: Final = statement(
    "doctor.next_checkpointed",
    "SELECT thread_id FROM checkpoints WHERE thread_id > :after AND checkpoint_ns = '' ORDER BY thread_id LIMIT 1",
)


async def unreadable(ledger: OpenLedger, registry: Registry, checked: dict[str, int]) -> AsyncIterator[Finding]:
    """Read the state of each thread that no run works on, and yield what is said of those that cannot be read."""
    checked["states"] = 0
    saver, after = LedgerSaver(cast(Driver, ledger.database)), ""
    while (found := await ledger.database.read(_next(after))) is not None:
        after, settled = found
        saved = await saver.aget_tuple(thread_config(after)) if settled else None
        graph_id = "" if saved is None else str(saved.metadata.get("graph_id") or "")
        try:
            async with registry.open(graph_id, GraphUse(access="threads.read")) as graph:
                cause = await _cause(bound(graph, saver, None), after)
        except NotFound:  # it is no graph of this project
            continue
        checked["states"] += 1
        if cause is not None:
            yield Finding(
                code="thread.state",
                subject={"thread": after, "graph": graph_id},
                meaning=f"Its graph cannot read its state ({cause}), so no run of it can work.",
                repair="what its last runs wrote is taken back, as far as the newest state that can be read. If there "
                "is none, nothing is changed: delete the thread, or restore it from a backup.",
                fix=partial(_repair, registry, graph_id, after),
            )


def _next(after: str) -> Transaction[tuple[str, bool] | None]:
    rows = yield _NEXT(after=after)
    if not rows:
        return None
    thread_id: str = rows[0]["thread_id"]
    return thread_id, bool((yield IS_SETTLED(thread_id=thread_id)))


async def _cause(graph: Graph, thread_id: str) -> str | None:
    """Return why *graph* cannot read a thread; ``None`` if it can."""
    try:
        await graph.aget_state(thread_config(thread_id))
    except RunlaneError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - channels and schemas are user code
        return f"{type(error).__name__}: {error}"
    return None


async def _repair(registry: Registry, graph_id: str, thread_id: str, ledger: OpenLedger) -> bool:
    saver = StagingSaver(cast(Driver, ledger.database))
    changed = False
    async with registry.open(graph_id, GraphUse(access="threads.read")) as shared:
        graph = bound(shared, saver, None)
        while await _cause(graph, thread_id) is not None:
            if not await _take_back_newest(saver, thread_id):
                return False
            changed = True
    await ledger.database.write(saver.transaction())
    return changed


async def _take_back_newest(saver: Any, thread_id: str) -> bool:
    saved = await saver.aget_tuple(thread_config(thread_id))
    if saved is None:
        return False
    written = await saver.written(thread_id, "", saved.checkpoint["id"])
    run_id = written[-1].run_id if written else str(saved.metadata.get("run_id") or "")
    taken: bool = await saver.take_back(thread_id, "", run_id)
    return taken
