"""Acting on many runs at once: what an action would do, and the action itself, a page of runs at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from runlane.errors import AdmissionClosed, ConflictError, NotFound, RunlaneError, StoreUnavailable
from runlane.lifecycle import MultitaskStrategy, RunStatus
from runlane.records import Owner
from runlane.runs.bulk import CANCELS, BulkAction, Preview, Refusal, preview, refusal, refused_sentence
from runlane.server.auth.access import Access
from runlane.server.http.requests import Body
from runlane.server.http.responses import json_response
from runlane.server.http.route import Resource, Route
from runlane.server.routes.authorization import authorize, canceller_of, record_result, seen_owner, service_of
from runlane.server.routes.new_runs import admit
from runlane.server.routes.retries import new_retry
from runlane.server.routes.run_search import Cursor, RunWhere, conditions, run_filter
from runlane.store.ledger import RunStore
from runlane.store.transactions.run_search import MAX_IDS, NEWEST, RunFilter
from runlane.store.transactions.selections import RETRY_KEY, SelectedRun, SelectionPage

#: Runs that a preview counts, and pages that it reads: each compares a bounded number of runs.
MAX_COUNTED: Final = 10_000
_MAX_PAGES: Final = 20
_PAGE: Final = 1_000
#: Runs that one request acts on.
MAX_ACTED: Final = 100
#: Runs that are read whole at the same time, with their inputs, to be retried.
_READ_AT_ONCE: Final = 10


class RunsToActOn(Body):
    """An action, and the runs that it is for: those that match ``filter``, which may be a list of ids."""

    action: BulkAction
    filter: RunWhere
    #: What a retry asks for; see :class:`RunRetry`.
    from_start: bool | None = None


class RunsAction(RunsToActOn, kw_only=True):
    """The next page of an action; ``after`` is the ``next`` of the page before, ``bound`` that of the preview."""

    bound: Cursor
    after: Cursor | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_ACTED)] = MAX_ACTED
    reason: Annotated[str, msgspec.Meta(max_length=512)] | None = None


class BulkOutcome(StrEnum):
    """What became of a run."""

    DONE = "done"
    REFUSED = "refused"
    NOT_FOUND = "not_found"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What became of one run.

    ``reason`` is why it was refused, one of the preview's or the code of an error; ``status`` is that of the run
    before. ``retry_run_id`` is the run that retries it, made now or before.
    """

    run_id: str
    thread_id: str | None
    outcome: BulkOutcome
    status: RunStatus | None
    reason: str | None = None
    sentence: str | None = None
    retry_run_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionPage:
    """What became of the runs of one page; without ``next`` it was the last one."""

    action: BulkAction
    done: int
    refused: int
    not_found: int
    results: tuple[RunResult, ...]
    next: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Selection:
    """The runs that a request is about, of those that it may touch; none with *owner* ``None``."""

    access: Access
    owner: Owner | None
    where: RunFilter

    async def page(self, store: RunStore, before: int, limit: int) -> SelectionPage:
        if self.owner is None:
            return SelectionPage(runs=(), next_before=None)
        return await store.runs.select(owner=self.owner, where=self.where, before_seq=before, limit=limit)

    async def newest(self, store: RunStore) -> tuple[list[SelectedRun], bool]:
        """Return the runs, the newest first, and whether there may be more."""
        found, before = list[SelectedRun](), NEWEST
        for _ in range(_MAX_PAGES):
            page = await self.page(store, before, _PAGE)
            found += page.runs
            if page.next_before is None:
                return found, False
            if len(found) >= MAX_COUNTED:
                break
            before = page.next_before
        return found[:MAX_COUNTED], True

    async def not_found(self, store: RunStore) -> list[str]:
        """Return the ids that name no run, or none that may be touched."""
        run_ids = self.where.run_ids
        if run_ids is None:
            return []
        where = RunFilter(run_ids=run_ids, where=self.where.where)
        page = await store.runs.select(owner=self.access.reads, where=where, limit=MAX_IDS)
        return sorted(run_ids - {run.run_id for run in page.runs})


async def preview_action(request: Request, body: RunsToActOn) -> Response:
    """Return how many runs an action would act on, and why not on the others. It changes nothing.

    Up to 10,000 runs are counted, and up to 200,000 compared; ``capped`` says that there may be more.
    """
    service, selection = service_of(request), await _select(request, body)
    runs, capped = await selection.newest(service.store)
    missing = await selection.not_found(service.store)
    graphs = service.registry.graph_ids
    return json_response(preview(body.action, runs, graphs, capped=capped, not_found=len(missing)))


async def act_on_runs(request: Request, body: RunsAction) -> Response:
    """Act on the next runs that match, the newest first, and say of each what became of it.

    Send it again with ``next`` as ``after`` until there is none. A request whose answer was lost may be repeated: a run
    is cancelled once, and retried once. Runs that were admitted after the preview are left alone.
    """
    service, selection = service_of(request), await _select(request, body)
    before = int(body.bound) + 1 if body.after is None else min(int(body.after), int(body.bound) + 1)
    page = await selection.page(service.store, before, body.limit)
    results = await _act_on_all(request, body, page.runs)
    if body.after is None:
        results += [
            RunResult(run_id=run_id, thread_id=None, outcome=BulkOutcome.NOT_FOUND, status=None)
            for run_id in await selection.not_found(service.store)
        ]
    counts = Counter(result.outcome for result in results)
    found = ActionPage(
        action=body.action,
        done=counts[BulkOutcome.DONE],
        refused=counts[BulkOutcome.REFUSED],
        not_found=counts[BulkOutcome.NOT_FOUND],
        results=tuple(results),
        next=None if page.next_before is None else str(page.next_before),
    )
    record_result(request, {"done": found.done, "refused": found.refused, "not_found": found.not_found})
    return json_response(found)


async def _select(request: Request, body: RunsToActOn) -> _Selection:
    """Return the runs that *body* is about, if its action on them is allowed; a handler may change the filter."""
    value: dict[str, Any] = {
        **conditions(body.filter),
        "action": CANCELS.get(body.action, body.action).value,
        "where": _recorded(body.filter),
    }
    if isinstance(body, RunsAction):
        value |= {"reason": body.reason, "after": body.after, "bound": body.bound}
    else:
        value["preview"] = True
    access = await authorize(request, "threads", "update", value)
    where = run_filter(access, body.filter, value["metadata"], service_of(request).prices)
    return _Selection(access=access, owner=seen_owner(access, body.filter.owner), where=where)


def _recorded(where: RunWhere) -> str:
    """Return a filter as the audit keeps it beside its ids: without what it compares with payload."""
    given = msgspec.to_builtins(where)
    given.pop("run_ids", None)
    return msgspec.json.encode({**given, **{name: "..." for name in ("text", "metadata") if name in given}}).decode()


async def _act_on_all(request: Request, body: RunsAction, runs: Sequence[SelectedRun]) -> list[RunResult]:
    """Act on *runs* at the same time, so that they share commits, and return once all of them are settled."""
    reading = asyncio.Semaphore(_READ_AT_ONCE)
    found = await asyncio.gather(*(_act(request, body, run, reading) for run in runs), return_exceptions=True)
    results = []
    for one in found:
        if isinstance(one, BaseException):
            raise one
        results.append(one)
    return results


async def _act(request: Request, body: RunsAction, run: SelectedRun, reading: asyncio.Semaphore) -> RunResult:
    why = refusal(body.action, run, service_of(request).registry.graph_ids)
    if why is not None:
        return _refused(body.action, run, why)
    try:
        if body.action is BulkAction.RETRY:
            async with reading:
                return await _retry(request, body, run)
        return await _cancel(request, body.action, run)
    except NotFound:  # it was deleted meanwhile
        return RunResult(run_id=run.run_id, thread_id=None, outcome=BulkOutcome.NOT_FOUND, status=None)


async def _cancel(request: Request, action: BulkAction, run: SelectedRun) -> RunResult:
    wanted = CANCELS[action]
    receipt = await service_of(request).runs.cancel(run.run_id, action=wanted, owner=run.owner, **canceller_of(request))
    if receipt is None:
        return _refused(action, run, Refusal.ENDED)
    return _done(run) if receipt.action is wanted else _refused(action, run, Refusal.CANCELLED)


async def _retry(request: Request, body: RunsAction, run: SelectedRun) -> RunResult:
    service = service_of(request)
    whole = await service.store.runs.get(run.run_id, owner=run.owner)
    try:
        new = await new_retry(
            request,
            whole,
            from_start=body.from_start,
            key=f"{RETRY_KEY}{run.run_id}",
            multitask_strategy=MultitaskStrategy.REJECT,
        )
        admitted = await admit(service, new)
    except HTTPException as error:
        if error.status_code != 403:
            raise
        return _refused(body.action, run, Refusal.FORBIDDEN)
    except ConflictError:
        return _refused(body.action, run, Refusal.BUSY)
    except (NotFound, AdmissionClosed, StoreUnavailable):
        raise
    except RunlaneError as error:
        return _refused(body.action, run, error.code)
    admitted.watch.close()
    if admitted.reused:
        return _refused(body.action, replace(run, retry_run_id=admitted.run.run_id), Refusal.RETRIED)
    return _done(run, retry_run_id=admitted.run.run_id)


def _done(run: SelectedRun, retry_run_id: str | None = None) -> RunResult:
    return RunResult(
        run_id=run.run_id,
        thread_id=run.thread_id,
        outcome=BulkOutcome.DONE,
        status=run.status,
        retry_run_id=retry_run_id,
    )


def _refused(action: BulkAction, run: SelectedRun, why: Refusal | str) -> RunResult:
    return RunResult(
        run_id=run.run_id,
        thread_id=run.thread_id,
        outcome=BulkOutcome.REFUSED,
        status=run.status,
        reason=why,
        sentence=refused_sentence(action, why),
        retry_run_id=run.retry_run_id,
    )


_FILTER: Final = {"status": "running", "graph_id": "agent"}
BULK: Final = Resource(
    tag="Runs",
    group="runs",
    routes=(
        Route(
            "POST /runs/bulk/preview",
            preview_action,
            answer=Preview,
            example={"action": "cancel", "filter": _FILTER},
        ),
        Route(
            "POST /runs/bulk",
            act_on_runs,
            answer=ActionPage,
            example={"action": "cancel", "filter": _FILTER, "bound": "1200", "reason": "The deploy is rolled back."},
        ),
    ),
)
