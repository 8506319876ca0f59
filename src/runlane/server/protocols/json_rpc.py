"""JSON-RPC 2.0 over HTTP: one message a request, never a batch.

Source: JSON-RPC 2.0 Specification (2013); Model Context Protocol 2025-11-25, transports; Agent2Agent 0.3, section 3.2.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
import orjson
from starlette.requests import Request
from starlette.responses import Response

from runlane.errors import InvalidRequest
from runlane.redaction import shortened
from runlane.server.http.errors import MAX_DETAIL
from runlane.server.http.json_bodies import PayloadTooLarge, read_json

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602

RpcId: TypeAlias = int | str
T = TypeVar("T")
_NO_REQUEST: Final = "A request has a method and an id, a number or a text."


class RpcError(Exception):  # an answer to the client, not a failure
    """A request is answered with an error; *code* is one of the specification's or of the protocol's."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        self.message = shortened(message, MAX_DETAIL)
        super().__init__(message)


class MalformedMessage(RpcError):
    """The body is not a JSON-RPC message, so there is no id to answer to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcRequest:
    """A request that wants an answer."""

    id: RpcId
    method: str
    params: Mapping[str, Any]

    def result(self, value: Any) -> bytes:
        """Return the answer that has *value*."""
        return orjson.dumps({"jsonrpc": "2.0", "id": self.id, "result": value})

    def params_as(self, model: type[T]) -> T:
        """Return the parameters as *model*.

        Raises:
            RpcError: They do not fit.
        """
        try:
            return msgspec.convert(self.params, model)
        except msgspec.ValidationError as error:
            raise RpcError(INVALID_PARAMS, f"Invalid params: {error}.") from None


async def serve(
    request: Request, answer: Callable[[RpcRequest], Awaitable[Response]], *, malformed_status: int, notifications: bool
) -> Response:
    """Read one message and return the response to it: *answer*'s, or an error.

    Args:
        malformed_status: HTTP status of the answer to what is no message; all other errors are answered with 200.
        notifications: Whether messages that want no answer are taken, with 202; else they are malformed.

    Raises:
        PayloadTooLarge: The body is larger than the server takes.
    """
    try:
        message = await _read(request)
        if message is None and not notifications:
            raise MalformedMessage(INVALID_REQUEST, _NO_REQUEST)
    except MalformedMessage as error:
        return error_response(None, error, status=malformed_status)
    if message is None:
        return Response(status_code=202)
    try:
        if not isinstance(message.params, dict):
            raise RpcError(INVALID_PARAMS, "'params' must be an object.")
        return await answer(message)
    except RpcError as error:
        return error_response(message.id, error)


def json_bytes(data: bytes, status: int = 200) -> Response:
    """Return an answer that is JSON already."""
    return Response(data, status, media_type="application/json")


def error_response(rpc_id: RpcId | None, error: RpcError, status: int = 200) -> Response:
    """Return *error* as the answer to the request *rpc_id*; ``None`` if that could not be told."""
    answered = {"code": error.code, "message": error.message}
    return json_bytes(orjson.dumps({"jsonrpc": "2.0", "id": rpc_id, "error": answered}), status)


async def _read(request: Request) -> RpcRequest | None:
    """Return the request that was sent; ``None`` for a notification or a response, which want no answer."""
    try:
        value = await read_json(request, request.app.state.settings.max_body_bytes)
    except PayloadTooLarge:
        raise
    except InvalidRequest as error:
        raise MalformedMessage(PARSE_ERROR, str(error)) from None
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        raise MalformedMessage(INVALID_REQUEST, "Send one JSON-RPC 2.0 message.")
    if "id" not in value or ("method" not in value and ("result" in value or "error" in value)):
        return None
    rpc_id, method = value["id"], value.get("method")
    if not isinstance(method, str) or not isinstance(rpc_id, int | str) or isinstance(rpc_id, bool):
        raise MalformedMessage(INVALID_REQUEST, _NO_REQUEST)
    return RpcRequest(id=rpc_id, method=method, params=value.get("params", {}))
