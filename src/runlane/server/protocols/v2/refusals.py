"""Commands of the protocol: reading and rejecting them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request

from runlane.errors import ConflictError, InvalidRequest, NoSuchInterrupt, UnsupportedOption
from runlane.redaction import shortened
from runlane.server.http.errors import MAX_DETAIL
from runlane.server.http.requests import convert_body


class CommandRefused(Exception):  # an answer to the client, not a failure
    """A command that cannot be done; *code* is one of the protocol's."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = shortened(message, MAX_DETAIL)
        super().__init__(message)


def refusal(error: Exception) -> CommandRefused:
    """Return *error* in the protocol's terms."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return CommandRefused(code, str(error))
    if isinstance(error, HTTPException):
        return CommandRefused(
            "permission_denied" if error.status_code in (401, 403) else "unknown_error", str(error.detail)
        )
    return CommandRefused("unknown_error", f"409: {error}" if isinstance(error, ConflictError) else str(error))


_CODES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (NoSuchInterrupt, "no_such_interrupt"),
    (UnsupportedOption, "not_supported"),
    (InvalidRequest, "invalid_argument"),
)


def converted(connection: HTTPConnection, params: Mapping[str, Any], model: type[Any]) -> Any:
    """Return *params* as *model*, a body of the API.

    Raises:
        InvalidRequest: They do not fit.
    """
    return convert_body(cast(Request, connection), dict(params), model)
