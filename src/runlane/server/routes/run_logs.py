"""The log records of a run, on its thread and by its id."""

from __future__ import annotations

import re
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from runlane.errors import InvalidRequest
from runlane.server.http import answers
from runlane.server.http.queries import QueryModel
from runlane.server.http.requests import Limit
from runlane.server.http.responses import json_response
from runlane.server.http.route import Resource, Route
from runlane.server.routes.authorization import reach_run, sees_logs, service_of
from runlane.store.transactions.run_logs import LogPlace
from runlane.telemetry.run_log import RunLogRecord

_ID: Final = re.compile(r"([0-9]{1,9})\.([0-9]{1,18})", re.ASCII)


class RunLogsQuery(QueryModel):
    after: str | None = None
    limit: Limit = 100


async def list_logs(request: Request, query: RunLogsQuery) -> Response:
    """Return what a run has logged, attempt by attempt, the oldest first: from its first record on, or after a record.

    ``after`` is the id of a record; while there is more, X-Pagination-Next is the next page's. The newest records of
    an attempt are kept, as many as the setting ``run_log_bytes`` lets; a number that is missing is of a record that is
    not kept. Those of a run that executes appear some seconds after they were logged. They have texts of exceptions,
    so they are for operators; for owners too if ``mask_errors`` is off, or if nobody is asked who they are.
    """
    _, run = await reach_run(request, "read")
    if not sees_logs(request):
        raise HTTPException(403, "Forbidden: what runs log is for operators, as it has the texts of exceptions.")
    page = await service_of(request).store.run_logs.read(run.seq, after=_place(query.after), limit=query.limit)
    headers = {"X-Pagination-Next": _id(page.records[-1])} if page.more else {}
    return json_response([_wire(record) for record in page.records], headers=headers)


def _place(after: str | None) -> LogPlace:
    if after is None:
        return LogPlace()
    match = _ID.fullmatch(after)
    if match is None:
        raise InvalidRequest(f"Query parameter 'after' is {after!r}; it must be the id of a log record, such as 1.20.")
    return LogPlace(attempt=int(match[1]), number=int(match[2]))


def _id(record: RunLogRecord) -> str:
    return f"{record.attempt}.{record.number}"


def _wire(record: RunLogRecord) -> dict[str, Any]:
    return {
        "id": _id(record),
        "attempt": record.attempt,
        "number": record.number,
        "at": record.at,
        "level": record.level,
        "logger": record.logger,
        "text": record.text,
        "exception": record.exception,
    }


RUN_LOGS = Resource(
    tag="Runs",
    group="runs",
    routes=(
        Route(
            "GET /threads/{thread_id}/runs/{run_id}/logs", list_logs, answer=list[answers.LogRecord], errors=(403, 404)
        ),
        Route("GET /runs/{run_id}/logs", list_logs, answer=list[answers.LogRecord], errors=(403, 404)),
    ),
)
