"""Errors as HTTP answers: the status of each, and the one shape that all routes answer with."""

from __future__ import annotations

import logging
from typing import Final

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from runlane.agents.encode import Unserialisable
from runlane.errors import (
    AdmissionClosed,
    AlreadyExists,
    CheckpointUnreadable,
    ConflictError,
    CronChanged,
    CronRunActive,
    EmbeddingFailed,
    IllegalTransition,
    InvalidRequest,
    KeyReused,
    NoSuchInterrupt,
    NotFound,
    NotRetryable,
    OwnerUnknown,
    QueueFull,
    RequestUnreadable,
    RunlaneError,
    StateUnreadable,
    StoreUnavailable,
    ThreadChanged,
    ViewChanged,
)
from runlane.redaction import shortened
from runlane.server.http.json_bodies import EncodedBody, PayloadTooLarge
from runlane.server.http.requests import BadRequest

log = logging.getLogger("runlane.server")

#: The first class that fits decides; its texts are written for clients.
STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (PayloadTooLarge, 413),
    (EncodedBody, 415),
    (BadRequest, 400),
    (NoSuchInterrupt, 409),
    (InvalidRequest, 422),
    (NotFound, 404),
    (ConflictError, 409),
    (AlreadyExists, 409),
    (CronChanged, 409),
    (CronRunActive, 409),
    (ThreadChanged, 409),
    (ViewChanged, 409),
    (IllegalTransition, 409),
    (NotRetryable, 409),
    (OwnerUnknown, 409),
    (KeyReused, 409),
    (QueueFull, 429),
    (AdmissionClosed, 503),
    (StoreUnavailable, 503),
    (Unserialisable, 422),
    (StateUnreadable, 409),
    (CheckpointUnreadable, 409),
    (RequestUnreadable, 409),
    (EmbeddingFailed, 502),
)
RETRY_AFTER_S = "1"
MAX_REASON_BYTES: Final = 123
#: Characters of an error's text: it may repeat what was sent.
MAX_DETAIL: Final = 4096
#: What a client may try again as it is.
PASSING: Final = (429, 503)
#: Of an outage: what a database says names its address, its role or its file, which are no client's business.
UNAVAILABLE: Final = (
    "The ledger is unavailable, or was busy for too long; the server's log has the cause. "
    "Nothing was written; try again."
)


def error_response(status: int, detail: str, code: str, headers: dict[str, str] | None = None) -> Response:
    """Return an error as every route answers it."""
    body = orjson.dumps({"detail": shortened(detail, MAX_DETAIL), "code": code})
    return Response(body, status, headers, "application/json")


async def on_error(request: Request, error: Exception) -> Response:
    for kind, status in STATUSES:
        if isinstance(error, kind):
            code = error.code if isinstance(error, RunlaneError) else "unserialisable"
            headers = {"Retry-After": RETRY_AFTER_S} if status in PASSING else None
            detail = UNAVAILABLE if isinstance(error, StoreUnavailable) else str(error)
            return error_response(status, detail, code, headers)
    return await on_defect(request, error)


async def on_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_response(error.status_code, str(error.detail), "http", dict(error.headers or {}))


async def on_defect(request: Request, error: Exception) -> Response:
    log.error("request.failed method=%s path=%s", request.method, request.url.path, exc_info=error)
    return error_response(500, "Internal server error; the server's log has the cause.", "internal")


def close_reason(text: str) -> str:
    """Return *text* as the reason for which a WebSocket is closed: 123 bytes at most. Source: RFC 6455, section 5.5."""
    return text.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore")
