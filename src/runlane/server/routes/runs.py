"""Routes of runs: create, stream, wait, join, cancel, read, delete; on a thread and stateless."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from runlane.errors import NotFound
from runlane.lifecycle import FAILED, CancelAction, CancelSource, EndReason, RunStatus
from runlane.records import ANY_OWNER, RunRecord
from runlane.runs.submission import Admitted
from runlane.server.http import answers
from runlane.server.http.queries import Page, QueryModel
from runlane.server.http.requests import (
    RUN_EXAMPLE,
    RunCreate,
    StreamMode,
    path_uuid,
)
from runlane.server.http.responses import (
    HEARTBEAT,
    SSE_HEADERS,
    EventWriter,
    Last,
    Piece,
    StreamingBody,
    cost_wire,
    cursor_of,
    error_wire,
    json_response,
    run_wire,
    selected,
    waiting_wire,
)
from runlane.server.http.route import Resource, Route
from runlane.server.rollbacks import delete_rolled_back
from runlane.server.routes.authorization import canceller_of, reach_run, reach_thread, service_of
from runlane.server.routes.new_runs import admit, path_of_run, prepare_run, started
from runlane.server.service import Service
from runlane.streams.batches import EventBatch, LargeEvent, ends
from runlane.streams.live import Ending
from runlane.streams.watch import Watch


class RunsQuery(Page):
    status: RunStatus | None = None
    select: tuple[str, ...] = ()


class JoinQuery(QueryModel):
    cancel_on_disconnect: bool = False


class StreamQuery(JoinQuery):
    stream_mode: tuple[StreamMode, ...] = ()
    stream_modes: tuple[StreamMode, ...] = ()


class CancelQuery(QueryModel):
    wait: bool = False
    action: CancelAction = CancelAction.INTERRUPT


async def _admit(request: Request, body: RunCreate, thread_id: str | None, *, streamed: bool = False) -> Admitted:
    """Check the whole request, then admit its run: nothing is admitted that cannot be started."""
    return await admit(service_of(request), await prepare_run(request, body, thread_id, streamed=streamed))


def _leave(service: Service, run: RunRecord, *, cancel: bool) -> Callable[[], Awaitable[None]] | None:
    if not cancel:
        return None

    async def leave() -> None:
        try:
            await service.runs.cancel(
                run.run_id, reason=EndReason.DISCONNECT, source=CancelSource.CLIENT, owner=run.owner
            )
        except NotFound:
            return

    return leave


def _stream(
    service: Service, watch: Watch, path: str, *, after: int | None, modes: list[str], cancel: bool
) -> StreamingBody:
    run = watch.run
    location = f"{path_of_run(run)}/stream"
    headers = {**SSE_HEADERS, "content-location": path, "location": location}
    return StreamingBody(
        _RunPieces(watch.parts(after=after), EventWriter(run, modes), heartbeat_s=service.streams.heartbeat_s),
        media_type="text/event-stream; charset=utf-8",
        headers=headers,
        on_leave=_leave(service, run, cancel=cancel),
        on_close=watch.close,
    )


class _RunPieces:
    """The pieces of a run's stream. It is no generator, which would keep each piece until its client has taken it."""

    def __init__(
        self, parts: AsyncIterator[EventBatch | LargeEvent], write: EventWriter, *, heartbeat_s: float
    ) -> None:
        self._parts = parts
        self._write = write
        self._heartbeat_s = heartbeat_s
        self._time = asyncio.get_running_loop().time
        self._quiet_since: float | None = None

    def __aiter__(self) -> _RunPieces:
        return self

    async def __anext__(self) -> Piece:
        if self._quiet_since is None:
            self._quiet_since = self._time()
            return HEARTBEAT
        while True:
            part = await anext(self._parts)
            data = self._write(part)
            if isinstance(data, bytes) and ends(part):
                return Last(data)
            if data or self._time() - self._quiet_since >= self._heartbeat_s:  # all may be of modes not asked for
                self._quiet_since = self._time()
                return data or HEARTBEAT


def _result(service: Service, watch: Watch, path: str, *, cancel: bool) -> StreamingBody:
    async def pieces() -> AsyncIterator[bytes]:
        async for ending in watch.ending():
            yield b"\n" if ending is None else Last(await _answer(service, watch.run, ending))

    return StreamingBody(
        pieces(),
        media_type="application/json",
        headers={"content-location": path, "location": f"/threads/{watch.run.thread_id}/runs/{watch.run.run_id}/join"},
        on_leave=_leave(service, watch.run, cancel=cancel),
        on_close=watch.close,
    )


async def _answer(service: Service, run: RunRecord, ending: Ending) -> bytes:
    """Return what a waiter is told: the run's own result, or its error, which is never dressed up as a result."""
    if ending.status in FAILED or ending.end_reason is EndReason.ROLLED_BACK:
        error = error_wire(ending.error) or {"error": "Error"}
        return orjson.dumps({"__error__": error})
    if ending.result is not None:
        return ending.result
    try:
        thread = await service.store.threads.get(run.thread_id, owner=ANY_OWNER)
    except NotFound:
        return b"null"
    return orjson.dumps(thread.values)


async def _create_stream(request: Request, body: RunCreate, thread_id: str | None) -> StreamingBody:
    admitted = await _admit(request, body, thread_id, streamed=True)
    path = path_of_run(admitted.run, stateless=thread_id is None)
    cancel = body.on_disconnect == "cancel"
    return _stream(service_of(request), admitted.watch, path, after=0, modes=[], cancel=cancel)


async def stream_run(request: Request, body: RunCreate) -> StreamingBody:
    """Create a run on a thread and stream what happens."""
    return await _create_stream(request, body, path_uuid(request, "thread"))


async def stream_stateless_run(request: Request, body: RunCreate) -> StreamingBody:
    """Create a stateless run and stream what happens."""
    return await _create_stream(request, body, None)


async def _create_wait(request: Request, body: RunCreate, thread_id: str | None) -> StreamingBody:
    admitted = await _admit(request, body, thread_id)
    path = path_of_run(admitted.run, stateless=thread_id is None)
    return _result(service_of(request), admitted.watch, path, cancel=body.on_disconnect == "cancel")


async def wait_run(request: Request, body: RunCreate) -> StreamingBody:
    """Create a run on a thread and answer its result."""
    return await _create_wait(request, body, path_uuid(request, "thread"))


async def wait_stateless_run(request: Request, body: RunCreate) -> StreamingBody:
    """Create a stateless run and answer its result."""
    return await _create_wait(request, body, None)


async def _create(request: Request, body: RunCreate, thread_id: str | None) -> Response:
    admitted = await _admit(request, body, thread_id)
    return started(admitted, stateless=thread_id is None)


async def create_run(request: Request, body: RunCreate) -> Response:
    """Create a run on a thread, in the background."""
    return await _create(request, body, path_uuid(request, "thread"))


async def create_stateless_run(request: Request, body: RunCreate) -> Response:
    """Create a stateless run, in the background."""
    return await _create(request, body, None)


async def list_runs(request: Request, query: RunsQuery) -> Response:
    """Return the thread's runs, newest first."""
    access, thread = await reach_thread(request, "read")
    found = await service_of(request).store.runs.list(
        thread.thread_id, owner=access.reads, status=query.status, limit=query.limit, offset=query.offset
    )
    return json_response([selected(run, query.select) for run in await _described(service_of(request), found)])


async def get_run(request: Request) -> Response:
    """Return a run."""
    _, run = await reach_run(request, "read")
    return json_response((await _described(service_of(request), [run]))[0])


async def _described(service: Service, runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Return *runs* with what each of them waits for, and has cost."""
    pending = [run.run_id for run in runs if run.status is RunStatus.PENDING]
    waiting = await service.store.queue.waiting_on(pending) if pending else {}
    return [
        {
            **run_wire(run),
            **cost_wire(service.prices, run.usage),
            "waiting_on": waiting_wire(waiting.get(run.run_id)),
        }
        for run in runs
    ]


async def _joined(request: Request, *, cancel: bool) -> RunRecord:
    """Return the run to be joined; who cancels it by leaving has to be allowed to cancel it."""
    _, run = await reach_run(request, "read")
    if cancel:
        await reach_run(request, "update", {"action": CancelAction.INTERRUPT})
    return run


async def join_stream(request: Request, query: StreamQuery) -> StreamingBody:
    """Stream a run's events after ``Last-Event-ID``, or from now on without one."""
    service, cancel = service_of(request), query.cancel_on_disconnect
    run = await _joined(request, cancel=cancel)
    after = cursor_of(run, request.headers.get("last-event-id"))
    path = path_of_run(run, stateless="thread_id" not in request.path_params)
    return _stream(
        service,
        service.streams.watch(run),
        path,
        after=after,
        modes=[*query.stream_mode, *query.stream_modes],
        cancel=cancel,
    )


async def join_run(request: Request, query: JoinQuery) -> StreamingBody:
    """Answer a run's own result once it has ended."""
    service, cancel = service_of(request), query.cancel_on_disconnect
    run = await _joined(request, cancel=cancel)
    path = path_of_run(run, stateless="thread_id" not in request.path_params)
    return _result(service, service.streams.watch(run), path, cancel=cancel)


async def cancel_run(request: Request, query: CancelQuery) -> Response:
    """Cancel a run. With ``wait`` the answer comes once it has ended; a second cancel is harmless."""
    service, action, wait = service_of(request), query.action, query.wait
    _, run = await reach_run(request, "update", {"action": action})
    if run.status.terminal and run.cancel is None:
        raise NotFound("active run", run.run_id)
    receipt = await service.runs.cancel(run.run_id, action=action, wait=wait, owner=run.owner, **canceller_of(request))
    if receipt is None:
        raise NotFound("active run", run.run_id)
    if wait and receipt.action is CancelAction.ROLLBACK:
        await delete_rolled_back(service.store, run.run_id)
    return json_response({}) if wait else Response(status_code=202)


async def delete_run(request: Request) -> Response:
    """Stop a run if it is active, wait until it has ended, and delete it with its events."""
    _, run = await reach_run(request, "delete")
    service = service_of(request)
    await service.runs.cancel(run.run_id, wait=True, owner=run.owner, **canceller_of(request))
    await service.store.runs.delete(run.run_id, owner=run.owner)
    return Response(status_code=204)


RUNS = Resource(
    tag="Runs",
    group="runs",
    routes=(
        Route(
            "POST /threads/{thread_id}/runs/stream",
            stream_run,
            answer=answers.Event,
            errors=(400, 404, 409, 429),
            example=RUN_EXAMPLE,
        ),
        Route("POST /runs/stream", stream_stateless_run, answer=answers.Event, errors=(400, 404)),
        Route(
            "POST /threads/{thread_id}/runs/wait",
            wait_run,
            answer=Any,
            errors=(400, 404, 409, 429),
            example={**RUN_EXAMPLE, "if_not_exists": "create"},
        ),
        Route("POST /runs/wait", wait_stateless_run, answer=Any, errors=(400, 404)),
        Route(
            "POST /threads/{thread_id}/runs",
            create_run,
            answer=answers.Run,
            errors=(400, 404, 409, 429),
            example={**RUN_EXAMPLE, "multitask_strategy": "rollback"},
        ),
        Route("POST /runs", create_stateless_run, answer=answers.Run, errors=(400, 404)),
        Route("GET /threads/{thread_id}/runs", list_runs, answer=list[answers.Run], errors=(404,)),
        Route("GET /threads/{thread_id}/runs/{run_id}", get_run, answer=answers.Run, errors=(404,)),
        Route("GET /runs/{run_id}", get_run, answer=answers.Run, errors=(404,)),
        Route("GET /threads/{thread_id}/runs/{run_id}/stream", join_stream, answer=answers.Event, errors=(404,)),
        Route("GET /runs/{run_id}/stream", join_stream, answer=answers.Event, errors=(404,)),
        Route("GET /threads/{thread_id}/runs/{run_id}/join", join_run, answer=Any, errors=(404,)),
        Route("GET /runs/{run_id}/join", join_run, answer=Any, errors=(404,)),
        Route(
            "POST /threads/{thread_id}/runs/{run_id}/cancel",
            cancel_run,
            answer=dict[str, Any],
            success=(200, 202),
            errors=(404,),
        ),
        Route("POST /runs/{run_id}/cancel", cancel_run, answer=dict[str, Any], success=(200, 202), errors=(404,)),
        Route("DELETE /threads/{thread_id}/runs/{run_id}", delete_run, success=(204,), errors=(404, 409)),
    ),
)
