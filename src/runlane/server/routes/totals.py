"""Routes of reports: the overview, what runs took, and how they failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from runlane.records import ANY_OWNER, AnyOwner, Owner
from runlane.server.http.queries import QueryModel
from runlane.server.http.requests import Limit, Moment
from runlane.server.http.responses import json_response
from runlane.server.http.route import Resource, Route
from runlane.server.routes.authorization import administer, authorize, operates, service_of
from runlane.store.transactions.failure_queries import FailureFilter, FailureGroup
from runlane.store.transactions.overview import Overview
from runlane.store.transactions.total_queries import Amounts, By, Total, TotalFilter
from runlane.store.transactions.totals import TOKEN_SUMS
from runlane.telemetry.prices import Prices, cost_of

Text = Annotated[str, msgspec.Meta(max_length=512)]
#: A report has as many amounts as owners and days together: what they have is looked up once.
_AMOUNTS: Final = tuple(one.name for one in fields(Amounts))


class TotalsQuery(QueryModel):
    by: By = By.OWNER
    since: Moment | None = None
    until: Moment | None = None
    owner: Text | None = None
    graph: Text | None = None
    model: Text | None = None
    daily: bool = False
    limit: Limit = 100


class FailuresQuery(QueryModel):
    since: Moment | None = None
    graph: Text | None = None
    build: Text | None = None
    new_since_build: Text | None = None
    trend: Literal["hour", "day"] = "hour"
    limit: Limit = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedAmounts(Amounts):
    """Amounts with their cost by the setting ``prices``, of the models that have one; ``None`` if none of them has."""

    cost: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedTotal(PricedAmounts):
    """What runs of one owner, graph, build, status, day or model took; by day of UTC if ``daily`` was asked for."""

    name: str
    first_ended_at: datetime | None
    last_ended_at: datetime | None
    days: Mapping[str, PricedAmounts]


async def get_overview(request: Request) -> Response:
    """Return what waits and runs, what needs attention, the last 60 minutes, and endings of 24 hours."""
    await administer(request, "overview", "read", {})
    service = service_of(request)
    await service.store.totals.count()
    found = await service.store.totals.overview()
    runtime = service.runtime
    if not runtime.settings.on_postgres:  # it has its ledger alone, and renews its lease there only while it executes
        worker = runtime.worker
        found = replace(found, workers=1, slots=runtime.lease.worker.capacity, draining=int(worker.draining))
    return json_response(found)


async def list_totals(request: Request, query: TotalsQuery) -> Response:
    """Return what runs took that ended on some days of UTC, by default since yesterday; most tokens first.

    Operators are told of all owners, and owners of themselves. With ``model``, or by it, totals are of tokens only.
    """
    owner = await _reported(request, query.owner)
    if query.by is By.STATUS and query.model is not None:
        raise HTTPException(422, "by=status has no tokens by model: leave out model, or choose another by.")
    service = service_of(request)
    await service.store.totals.count()
    where = TotalFilter(
        owner=owner,
        since=_since(query.since),
        until=datetime.now(UTC) if query.until is None else query.until,
        graph_id=query.graph,
        model=query.model,
        daily=query.daily,
        limit=query.limit,
    )
    return json_response([_priced(one, service.prices) for one in await service.store.totals.list(query.by, where)])


async def list_failures(request: Request, query: FailuresQuery) -> Response:
    """Return failures since an hour, by default 24 hours ago, in groups of the same graph, error and message.

    ``new_since_build`` leaves out groups that were there before the first run of that build ended.
    """
    await administer(request, "failures", "read", {})
    totals = service_of(request).store.totals
    await totals.count()
    where = FailureFilter(
        since=_since(query.since),
        build=query.build,
        graph_id=query.graph,
        new_since_build=query.new_since_build,
        trend=query.trend,
        limit=query.limit,
    )
    return json_response(await totals.failures(where))


async def _reported(request: Request, wanted: str | None) -> Owner:
    """Return whose totals are asked for.

    Raises:
        HTTPException: They are not the sender's (403).
    """
    if operates(request):
        await administer(request, "totals", "read", {})
        return ANY_OWNER if wanted is None else wanted
    access = await authorize(request, "threads", "search", {})
    if access.where or isinstance(access.reads, AnyOwner):
        raise HTTPException(
            403, "Forbidden: totals are by owner, and this project decides by metadata who sees a thread."
        )
    if wanted not in (None, access.reads):
        raise HTTPException(403, "Forbidden: totals of other owners need an operator with the scope runs:read.")
    return access.reads


def _since(given: datetime | None) -> datetime:
    return datetime.now(UTC) - timedelta(days=1) if given is None else given


def _priced(total: Total, prices: Prices) -> PricedTotal:
    return PricedTotal(
        name=total.name,
        first_ended_at=total.first_ended_at,
        last_ended_at=total.last_ended_at,
        days={day: PricedAmounts(**_with_cost(amounts, prices)) for day, amounts in total.days.items()},
        **_with_cost(total.amounts, prices),
    )


def _with_cost(amounts: Amounts, prices: Prices) -> dict[str, Any]:
    used = {model: {name: getattr(spent, name) for name in TOKEN_SUMS} for model, spent in amounts.models.items()}
    return {**{name: getattr(amounts, name) for name in _AMOUNTS}, "cost": cost_of(prices.costs(used))}


TOTALS = Resource(
    tag="Operators",
    group=None,
    routes=(
        Route("GET /operator/overview", get_overview, answer=Overview, errors=(403,)),
        Route("GET /operator/totals", list_totals, answer=list[PricedTotal], errors=(403,)),
        Route("GET /operator/failures", list_failures, answer=list[FailureGroup], errors=(403, 404)),
    ),
)
