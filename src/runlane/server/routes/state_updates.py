"""Changes of a thread's state outside of runs: one update, or the history of a new thread."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec

from runlane.agents.registry import system_assistant_id
from runlane.checkpoints.staging import StagingSaver, draft
from runlane.errors import InvalidRequest, ThreadChanged
from runlane.journal.rows import put
from runlane.outcomes import Snapshot
from runlane.server.auth.access import Access
from runlane.server.http.requests import (
    BadRequest,
    Body,
    CheckpointConfig,
    Command,
    checkpoint_address,
    checkpoint_uuid,
    clean,
)
from runlane.server.service import Service
from runlane.store.statements import ExtraWrites

#: A state update is made again if something else came before it; each time it is as if it had come later.
UPDATE_TRIES = 10


class SuperstepUpdate(msgspec.Struct, kw_only=True):
    values: Any = None
    command: Command | None = None
    as_node: str | None = None


class Superstep(msgspec.Struct, kw_only=True):
    updates: Annotated[list[SuperstepUpdate], msgspec.Meta(min_length=1)]


class StateUpdate(Body):
    nullable: ClassVar[frozenset[str]] = frozenset({"checkpoint_id"})

    values: Any = None
    as_node: str | None = None
    checkpoint: CheckpointConfig | None = None
    checkpoint_id: str | None = None


async def draft_history(
    service: Service, owner: str, thread_id: str, graph_id: str, supersteps: list[Superstep]
) -> tuple[Snapshot, ExtraWrites]:
    """Return what *supersteps* make of a new thread, and what makes the transaction that writes its checkpoints.

    Raises:
        InvalidRequest: One of them cannot be applied.
    """
    states = service.states(owner)
    writes = [clean(superstep) for superstep in supersteps]
    async with draft() as drafting:
        try:
            _, snapshot = await service.on_agents(lambda: states.bulk_update(graph_id, drafting, thread_id, writes))
        except InvalidRequest as error:
            raise InvalidRequest(f"supersteps cannot be applied: {error}") from error
        rows = await drafting.threads.rows(thread_id)
    return snapshot, lambda: put(rows)


async def apply_update(service: Service, access: Access, thread_id: str, update: StateUpdate) -> dict[str, Any]:
    """Write to the state of a thread on which nothing runs, and return the new checkpoint's address.

    Raises:
        ConflictError: A run is active.
        ThreadChanged: The thread changed during each of ``UPDATE_TRIES`` tries; nothing was written.
    """
    for tries_left in reversed(range(UPDATE_TRIES)):
        try:
            address = await _update_once(service, access, thread_id, update)
            break
        except ThreadChanged:
            if not tries_left:
                raise
    service.streams.tell_thread(thread_id)
    return address


async def _update_once(service: Service, access: Access, thread_id: str, update: StateUpdate) -> dict[str, Any]:
    """Make the update, and write it if nothing has happened on the thread meanwhile; return where it is.

    Raises:
        ConflictError: A run is active.
        ThreadChanged: Something has happened; nothing was written.
    """
    thread = await service.store.threads.get_idle(thread_id, owner=access.reads)
    graph_id = service.graph_of(thread)
    if graph_id is None:
        raise BadRequest(f"Thread {thread_id!r} has no assigned graph: run one on it, or set metadata.graph_id.")
    checkpoint = checkpoint_address(update.checkpoint) or (
        update.checkpoint_id and checkpoint_uuid(update.checkpoint_id)
    )
    states, staging = await service.states_of(access, thread, graph_id), StagingSaver(service.store.driver)
    try:
        address, snapshot = await service.on_agents(
            lambda: states.update(
                graph_id, staging, thread_id, update.values, as_node=update.as_node, checkpoint=checkpoint
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
