"""Helpers of handlers: the service, and the threads and runs that the sender may access."""

from __future__ import annotations

from typing import Any, cast

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request

from runlane.errors import NotFound
from runlane.lifecycle import CancelSource
from runlane.records import RunRecord, Thread
from runlane.server.auth.access import OPEN, Access, Canceller, User
from runlane.server.auth.middleware import USER
from runlane.server.http.requests import path_uuid
from runlane.server.service import Service
from runlane.store.ledger import RunStore


def service_of(connection: HTTPConnection) -> Service:
    return cast(Service, connection.app.state.service)


def _known(connection: HTTPConnection) -> User:
    user = cast(User | None, connection.scope.get(USER))
    if user is None:  # a route that needs a user where the gate asks for none
        raise HTTPException(401, "Unauthorized")
    return user


async def authorize(
    connection: HTTPConnection, resource: str, action: str, value: dict[str, Any] | None = None
) -> Access:
    """Return what the request may touch of *resource* with *action*; a handler may change *value* in place.

    Resources and actions are those of ``langgraph_sdk.Auth``. A socket's handshake is authorised in the same way.

    Raises:
        HTTPException: Nothing (403), or what the application's handler raised.
    """
    authority = service_of(connection).authority
    if authority is None:
        return OPEN
    return await authority.access(_known(connection), resource, action, {} if value is None else value)


def canceller_of(connection: HTTPConnection) -> Canceller:
    """Return whom the receipt of a cancel names that the request asks for."""
    user = cast(User | None, connection.scope.get(USER))
    return {"by": "api" if user is None else user.identity, "source": CancelSource.OWNER}


async def reach_thread(
    request: Request, action: str, value: dict[str, Any] | None = None, *, with_values: bool = False
) -> tuple[Access, Thread]:
    """Return the thread that the path names, if *action* on it is allowed; a handler may change *value* in place.

    Raises:
        NotFound: There is none, or the request may not touch it.
        HTTPException: *action* is not allowed at all.
    """
    thread_id = path_uuid(request, "thread")
    given: dict[str, Any] = {} if value is None else value
    given["thread_id"] = thread_id
    access = await authorize(request, "threads", action, given)
    thread = await service_of(request).store.threads.get(thread_id, owner=access.reads, with_values=with_values)
    if not access.permits(thread.metadata):
        raise NotFound("thread", thread_id)
    return access, thread


async def reach_run(request: Request, action: str, value: dict[str, Any] | None = None) -> tuple[Access, RunRecord]:
    """Return the run that the path names, on the thread that it names, if *action* on that thread is allowed.

    Raises:
        NotFound: There is none, or the request may not touch its thread.
        HTTPException: *action* is not allowed at all.
    """
    run_id, store = path_uuid(request, "run"), service_of(request).store
    given: dict[str, Any] = {} if value is None else value
    given["run_id"] = run_id
    if "thread_id" in request.path_params:
        given["thread_id"] = path_uuid(request, "thread")
    access = await authorize(request, "threads", action, given)
    run = await store.runs.get(run_id, owner=access.reads)
    if "thread_id" in request.path_params and run.thread_id != path_uuid(request, "thread"):
        raise NotFound("run", run_id)
    if not await may_touch(store, access, run.thread_id):
        raise NotFound("run", run_id)
    return access, run


async def may_touch(store: RunStore, access: Access, thread_id: str) -> bool:
    """Return whether the filter of *access* lets it touch a thread.

    Raises:
        NotFound: There is no such thread.
    """
    if not access.where:
        return True
    return access.permits((await store.threads.get(thread_id, owner=access.reads, with_values=False)).metadata)
