"""Helpers of handlers: the service, and the threads and runs that the sender may access."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, cast

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request

from runlane.errors import NotFound
from runlane.lifecycle import CancelSource
from runlane.records import ANY_OWNER, Owner, RunRecord, Thread
from runlane.server.auth.access import OPEN, Access, Canceller, User
from runlane.server.auth.acts import act_of_request
from runlane.server.auth.middleware import ACTS, RESULT, USER
from runlane.server.auth.scopes import WITHOUT_PAYLOAD, act_of, needs_payload, required_scope
from runlane.server.http.payload import HIDES_PAYLOAD
from runlane.server.http.requests import path_uuid
from runlane.server.service import Service
from runlane.store.ledger import RunStore
from runlane.store.transactions.run_states import StreamedRun

#: Of what a handler says of a request, what the audit keeps: ids, and names of keys.
_SUBJECTS: Final = (
    "thread_id",
    "run_id",
    "run_ids",
    "assistant_id",
    "cron_id",
    "interrupt_ids",
    "checkpoint_id",
    "status",
    "key_id",
    "name",
    "scopes",
    "where",
    "bound",
    "after",
    "reason",
    "findings",
)


def service_of(connection: HTTPConnection) -> Service:
    return cast(Service, connection.app.state.service)


def known_user(connection: HTTPConnection) -> User:
    """Return who sends the request.

    Raises:
        HTTPException: Nobody was asked (401).
    """
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
    service, given = service_of(connection), {} if value is None else value
    if service.authority is None:
        return OPEN
    user = known_user(connection)
    if user.scopes:
        return await _operate(connection, user, resource, action, given)
    return await service.authority.access(user, resource, action, given)


def operates(connection: HTTPConnection) -> bool:
    """Return whether the request is of an operator, or of anybody if nobody is asked."""
    return service_of(connection).authority is None or bool(known_user(connection).scopes)


def sees_logs(connection: HTTPConnection) -> bool:
    """Return whether the caller may read what runs log: it has the texts of exceptions, which may be masked."""
    return operates(connection) or not service_of(connection).runtime.settings.mask_errors


async def administer(connection: HTTPConnection, resource: str, action: str, value: dict[str, Any]) -> Access:
    """Return the access of whoever may do *action* on the server itself: operators, or all if nobody is asked.

    Raises:
        HTTPException: They are no operator with the scope that it needs (403).
    """
    if service_of(connection).authority is None:
        return OPEN
    return await _operate(connection, known_user(connection), resource, action, value)


async def authorize_own(connection: HTTPConnection, act: str | None) -> Access:
    """Return the access of the sender to what they keep for themselves, about which no handler is asked.

    Args:
        act: What the audit calls it if an operator does it; ``None``: it is not recorded.
    """
    if service_of(connection).authority is None:
        return OPEN
    user = known_user(connection)
    if user.scopes and act is not None:
        await _record(connection, user, act, {})
    return Access(owner=user.identity, reads=user.identity, user=user)


async def _operate(
    connection: HTTPConnection, user: User, resource: str, action: str, value: Mapping[str, Any]
) -> Access:
    """Return what an operator may touch, which is what all owners have; an act of theirs is recorded before it begins.

    Raises:
        HTTPException: Their scopes do not allow it (403).
        StoreUnavailable: The act could not be recorded, so that it must not begin.
    """
    needed = required_scope(resource, action, value)
    if needed is None or needed not in user.scopes:
        why = "no operator may do it" if needed is None else f"it needs the scope {needed.value}"
        raise HTTPException(403, f"Forbidden: {resource}.{action}: {why}.")
    hides = bool(connection.scope.get(HIDES_PAYLOAD)) or not user.sees_payload
    if hides and (connection.scope["type"] == "websocket" or needs_payload(value)):
        raise HTTPException(403, f"Forbidden: {resource}.{action} by payload needs the scope payload:read.")
    about_payload = not hides and resource not in WITHOUT_PAYLOAD
    if (act := act_of(action, value, shows_payload=about_payload)) is not None:
        await _record(connection, user, act, value)
    return Access(owner=user.identity, reads=ANY_OWNER, user=user)


async def _record(connection: HTTPConnection, user: User, act: str, value: Mapping[str, Any]) -> None:
    subject = {name: value[name] for name in _SUBJECTS if value.get(name) is not None}
    recorded = await service_of(connection).store.audit.record(act_of_request(connection, user, act, subject))
    connection.scope.setdefault(ACTS, []).append(recorded)


def record_result(connection: HTTPConnection, result: Mapping[str, int]) -> None:
    """Have the audit keep *result* beside the status of the answer, if the request is recorded."""
    connection.scope[RESULT] = result


def seen_owner(access: Access, wanted: str | None) -> Owner | None:
    """Return whose things are searched if those of *wanted* are asked for; ``None`` if they may not be seen."""
    if wanted is None or access.reads == wanted:
        return access.reads
    return wanted if access.reads is ANY_OWNER else None


def canceller_of(connection: HTTPConnection) -> Canceller:
    """Return whom the receipt of a cancel names that the request asks for."""
    user = cast(User | None, connection.scope.get(USER))
    source = CancelSource.OPERATOR if user is not None and user.scopes else CancelSource.OWNER
    return {"by": "api" if user is None else user.identity, "source": source}


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


async def reach_runs(request: Request, run_ids: Sequence[str]) -> list[StreamedRun]:
    """Return those of the runs whose thread may be read; what may not be read is as what is not there.

    Raises:
        HTTPException: The sender may read no runs at all, or who they are is not known.
    """
    store, user = service_of(request).store, cast(User | None, request.scope.get(USER))
    operates = user is not None and bool(user.scopes)
    of_all = await authorize(request, "threads", "read", {"run_ids": list(run_ids)}) if operates else None
    found = await store.runs.streamed(run_ids, owner=ANY_OWNER)
    accesses: dict[str, Access] = {}
    for thread_id in {run.thread_id for run in found}:
        with suppress(NotFound):
            accesses[thread_id] = of_all or await _reader_of(request, thread_id)
    filtered = [thread_id for thread_id, access in accesses.items() if access.where]
    metadata = await store.threads.metadata(filtered) if filtered else {}
    seen = {
        thread_id
        for thread_id, access in accesses.items()
        if not access.where or (thread_id in metadata and access.permits(metadata[thread_id]))
    }
    return [run for run in found if run.thread_id in seen and accesses[run.thread_id].reads in (ANY_OWNER, run.owner)]


async def _reader_of(request: Request, thread_id: str) -> Access:
    """Return the access of who may read a thread.

    Raises:
        NotFound: The application's handler does not let them.
        HTTPException: It cannot tell, or does not know them.
    """
    try:
        return await authorize(request, "threads", "read", {"thread_id": thread_id})
    except HTTPException as error:
        if error.status_code in (403, 404):
            raise NotFound("thread", thread_id) from None
        raise
