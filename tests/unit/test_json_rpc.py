"""JSON-RPC 2.0 over HTTP: what is a request, what wants no answer, and how the rest is refused."""

from __future__ import annotations

import json
from typing import Any

import httpx
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runlane.server.protocols.json_rpc import RpcError, RpcRequest, json_bytes, serve
from runlane.settings import Settings


class Sum(msgspec.Struct):
    a: int
    b: int = 0


async def answer(rpc: RpcRequest) -> Response:
    if rpc.method == "sum":
        given = rpc.params_as(Sum)
        return json_bytes(rpc.result(given.a + given.b))
    raise RpcError(-32601, f"There is no method {rpc.method!r}.")


async def exchange(body: str, *, notifications: bool = True) -> httpx.Response:
    """Return how an endpoint that adds answers *body*."""

    async def endpoint(request: Request) -> Response:
        return await serve(request, answer, malformed_status=400, notifications=notifications)

    app = Starlette(routes=[Route("/", endpoint, methods=["POST"])])
    app.state.settings = Settings()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://rpc") as client:
        return await client.post("/", content=body)


def message(**fields: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", **fields})


@pytest.mark.parametrize("rpc_id", [0, 7, -1, "", "a"])
async def test_a_request_is_answered_under_its_id(rpc_id: int | str) -> None:
    response = await exchange(message(id=rpc_id, method="sum", params={"a": 1, "b": 2}))
    assert (response.status_code, response.json()) == (200, {"jsonrpc": "2.0", "id": rpc_id, "result": 3})


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"method": "sum"}, -32602),
        ({"method": "sum", "params": {"a": "1"}}, -32602),
        ({"method": "sum", "params": [1, 2]}, -32602),
        ({"method": "sum", "params": None}, -32602),
        ({"method": "product"}, -32601),
    ],
)
async def test_a_request_that_cannot_be_done_is_refused_under_its_id(fields: dict[str, Any], code: int) -> None:
    response = await exchange(message(id=7, **fields))
    refused = response.json()
    assert (response.status_code, refused["id"], refused["error"]["code"]) == (200, 7, code)
    assert refused.keys() == {"jsonrpc", "id", "error"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("{", -32700),
        ('"\\u0000"', -32700),
        ("1", -32600),
        ("[]", -32600),
        (f"[{message(id=1, method='sum')}]", -32600),
        ("{}", -32600),
        (json.dumps({"jsonrpc": "1.0", "id": 1, "method": "sum"}), -32600),
        (message(id=None, method="sum"), -32600),
        (message(id=True, method="sum"), -32600),
        (message(id=1.5, method="sum"), -32600),
        (message(id=1, method=1), -32600),
        (message(id=1), -32600),
    ],
)
async def test_what_is_no_message_is_refused_under_no_id(body: str, code: int) -> None:
    response = await exchange(body)
    refused = response.json()
    assert (response.status_code, refused["id"], refused["error"]["code"]) == (400, None, code)


@pytest.mark.parametrize(
    "body", [message(method="sum", params={"a": 1}), message(id=1, result={}), message(id=1, error={"code": 1})]
)
async def test_a_notification_or_a_response_wants_no_answer(body: str) -> None:
    taken = await exchange(body)
    assert (taken.status_code, taken.content) == (202, b"")
    refused = await exchange(body, notifications=False)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, -32600)
