"""Runs as the tasks of the Agent2Agent protocol: found, listed, and read as they are now."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from starlette.requests import Request

from runlane.errors import NotFound
from runlane.records import ANY_OWNER, Assistant, RunError, RunRecord
from runlane.server.protocols.a2a.wire import NO_TASK, STATES, Listing, Now, Words
from runlane.server.protocols.json_rpc import INVALID_PARAMS, RpcError
from runlane.server.routes.authorization import authorize, may_touch, service_of
from runlane.server.service import Service
from runlane.store.rows import microseconds
from runlane.store.transactions.tasks import TaskFilter

_TOKEN: Final = re.compile(r"(\d{1,18})-(\d{1,18})\Z")


async def find_task(request: Request, named: str, action: str, assistant: Assistant) -> RunRecord:
    """Return the run of the task *named*, of *assistant*, if *action* on its thread is allowed.

    Raises:
        RpcError: There is none that the request may touch.
    """
    thread_id, _, run_id = named.partition(":")
    access = await authorize(request, "threads", action, {"thread_id": thread_id, "run_id": run_id})
    store = service_of(request).store
    try:
        run = await store.runs.get(run_id, owner=access.reads)
        if not await may_touch(store, access, run.thread_id):
            raise NotFound("run", run_id)
    except NotFound:
        raise RpcError(NO_TASK, f"There is no task {named!r}.") from None
    if run.thread_id != thread_id or run.assistant_id != assistant.assistant_id:
        raise RpcError(NO_TASK, f"There is no task {named!r}.")
    return run


def since(run: RunRecord) -> datetime:
    """Return when *run* came into the status that it has."""
    return run.ended_at or run.started_at or run.created_at


async def now_of(service: Service, run: RunRecord) -> Now:
    """Return *run* as it is now, which is never half of before and half of after its end.

    Raises:
        NotFound: It has been deleted.
    """
    status, result, error = await service.store.runs.result(run.run_id, owner=ANY_OWNER)
    if status is not run.status:  # an ended run does not change any more
        run = await service.store.runs.get(run.run_id, owner=ANY_OWNER)
        status = run.status
    return Now(
        status=status,
        end_reason=run.end_reason,
        values=None if result is None else orjson.loads(result),
        error=None if error is None else RunError(**error),
        at=since(run),
    )


def brief(run: RunRecord) -> Now:
    """Return *run* as it was read, without what it left."""
    return Now(status=run.status, end_reason=run.end_reason, values=None, error=run.error, at=since(run))


async def list_tasks(request: Request, listing: Listing, assistant: Assistant) -> dict[str, Any]:
    """Return a page of the tasks that *assistant* has in a context, those whose state is newest first.

    Raises:
        RpcError: No context is named, or the page, or the state.
    """
    if not listing.context_id:
        raise RpcError(INVALID_PARAMS, "Tasks are listed by their context: give a contextId.")
    service = service_of(request)
    found: tuple[RunRecord, ...] = ()
    total = 0
    access = await authorize(request, "threads", "read", {"thread_id": listing.context_id})
    wanted, before = _filter(listing, assistant), _token(listing)
    try:
        thread = await service.store.threads.get(listing.context_id, owner=access.reads, with_values=False)
    except NotFound:
        thread = None
    if thread is not None and access.permits(thread.metadata):
        found, total = await service.store.runs.list_tasks(
            thread.thread_id, owner=access.reads, where=wanted, before=before, limit=listing.page_size + 1
        )
    page = found[: listing.page_size]
    return {
        "tasks": [await _listed(service, listing, run) for run in page],
        "nextPageToken": f"{microseconds(since(page[-1]))}-{page[-1].seq}" if len(found) > len(page) else "",
        "pageSize": listing.page_size,
        "totalSize": total,
    }


async def _listed(service: Service, listing: Listing, run: RunRecord) -> dict[str, Any]:
    now = brief(run)
    if listing.include_artifacts or listing.history_length or now.asks:
        with contextlib.suppress(NotFound):  # deleted since it was listed
            now = await now_of(service, run)
    task = Words("1.0", run).task(now, listing.history_length or 0)
    if not listing.include_artifacts:
        task.pop("artifacts", None)
    return task


def _filter(listing: Listing, assistant: Assistant) -> TaskFilter:
    statuses, paused = STATES.get(listing.status or "TASK_STATE_UNSPECIFIED", ((), None))
    if listing.status is not None and listing.status != "TASK_STATE_UNSPECIFIED" and not statuses:
        raise RpcError(
            INVALID_PARAMS, f"No task here has the status {listing.status!r}; there are {', '.join(STATES)}."
        )
    after = listing.status_timestamp_after
    return TaskFilter(
        assistant_id=assistant.assistant_id,
        statuses=statuses,
        paused=paused,
        after_us=None if after is None else microseconds(after.replace(tzinfo=after.tzinfo or UTC)),
    )


def _token(listing: Listing) -> tuple[int, int] | None:
    if not listing.page_token:
        return None
    match = _TOKEN.match(listing.page_token)
    if match is None:
        raise RpcError(INVALID_PARAMS, f"pageToken {listing.page_token!r} is none that a page has named.")
    return int(match[1]), int(match[2])
