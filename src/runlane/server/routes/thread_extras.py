"""Routes of threads that copy, prune and measure."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import uuid4

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from runlane.errors import ConflictError, NotFound, ThreadChanged
from runlane.records import PruneStrategy
from runlane.server.http import answers
from runlane.server.http.requests import Body, canonical_uuid
from runlane.server.http.responses import json_response, thread_wire
from runlane.server.http.route import Resource, Route
from runlane.server.routes.authorization import authorize, reach_thread, service_of
from runlane.store.transactions.sizes import total

_ACTIONS: dict[PruneStrategy, str] = {"delete": "delete", "keep_latest": "update"}


class ThreadsPrune(Body):
    thread_ids: Annotated[list[str], msgspec.Meta(max_length=1000)]
    strategy: PruneStrategy = "delete"


async def copy_thread(request: Request) -> Response:
    """Make a new thread with the state and history of this one, and no runs."""
    service = service_of(request)
    reading, source = await reach_thread(request, "read")
    value: dict[str, Any] = {"thread_id": str(uuid4()), "metadata": dict(source.metadata), "if_exists": "raise"}
    access = await authorize(request, "threads", "create", value)
    copied = await service.store.threads.copy(
        source.thread_id,
        value["thread_id"],
        reads=reading.reads,
        owner=access.owner,
        metadata=value["metadata"],
        extra_writes=service.copy_checkpoints(source.thread_id, value["thread_id"]),
    )
    return json_response(thread_wire(copied))


async def prune_threads(request: Request, body: ThreadsPrune) -> Response:
    """Delete threads, or the checkpoints that their newest ones do without; busy threads are left alone, and named."""
    thread_ids = dict.fromkeys(canonical_uuid("thread", thread_id) for thread_id in body.thread_ids)
    pruned, busy = 0, []
    for thread_id in thread_ids:
        try:
            await _prune(request, thread_id, body.strategy)
        except NotFound:
            continue
        except ConflictError:
            busy.append(thread_id)
        else:
            pruned += 1
    return json_response({"pruned_count": pruned, "busy": busy})


async def _prune(request: Request, thread_id: str, strategy: PruneStrategy) -> None:
    """Treat one thread.

    Raises:
        NotFound: There is no such thread, or the request may not touch it.
        ConflictError: A run is active.
    """
    store, saver = service_of(request).store, service_of(request).saver
    access = await authorize(request, "threads", _ACTIONS[strategy], {"thread_id": thread_id})
    thread = await store.threads.get(thread_id, owner=access.reads, with_values=False)
    if not access.permits(thread.metadata):
        raise NotFound("thread", thread_id)
    if strategy == "delete":
        extra_writes = service_of(request).remove_checkpoints(thread_id)
        await store.threads.delete(thread_id, owner=access.reads, extra_writes=extra_writes)
        return
    while True:
        try:
            await store.threads.change_idle(
                thread_id, owner=access.reads, extra_writes=await saver.threads.pruning(thread_id)
            )
        except ThreadChanged:  # a checkpoint came between looking and deleting: look again
            continue
        return


async def thread_storage(request: Request) -> Response:
    """Return how many bytes the thread takes: its checkpoints, runs, events and logs, and the parts that they share."""
    _, thread = await reach_thread(request, "read")
    service = service_of(request)
    ledger = await service.store.sizes.thread(thread.thread_id)
    kept = await service.saver.threads.storage(thread.thread_id)
    values = total(kept.channels.values())
    parts = {
        "checkpoints": kept.checkpoints,
        "channel_values": values,
        "pending_writes": kept.writes,
        "runs": ledger.runs,
        "events": ledger.events,
        "logs": ledger.logs,
        "parts": ledger.parts,
    }
    return json_response(
        {
            "thread_id": thread.thread_id,
            "total_bytes": total(parts.values()).bytes,
            **parts,
            "channel_values": {"count": values.count, "bytes": values.bytes, "by_channel": kept.channels},
        }
    )


THREAD_EXTRAS = Resource(
    tag="Threads",
    group="threads",
    routes=(
        Route("POST /threads/{thread_id}/copy", copy_thread, answer=answers.WireThread, errors=(404, 409)),
        Route("POST /threads/prune", prune_threads, answer=answers.Pruned),
        Route("GET /threads/{thread_id}/storage", thread_storage, answer=answers.ThreadStorage, errors=(404,)),
    ),
)
