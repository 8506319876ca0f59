"""The project's own application: keeps what is posted to it, and shows it."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

received: list[Any] = []


async def receive(request: Request) -> Response:
    received.append(await request.json())
    return Response(status_code=204)


async def show(_: Request) -> Response:
    return JSONResponse(received)


app = Starlette(routes=[Route("/received", receive, methods=["POST"]), Route("/received", show)])
