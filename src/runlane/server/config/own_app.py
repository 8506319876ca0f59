"""Webhooks with a relative URL, which reach the project's own application within the process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import httpx
from starlette.applications import Starlette
from starlette.routing import Match
from starlette.types import Scope

from runlane.webhooks.policy import Target
from runlane.webhooks.sender import Answer

TIMEOUT_S: Final = 30.0
#: What the application sees as its own address; nothing resolves it.
_BASE_URL: Final = "http://localhost"


class OwnApp:
    """Posts to routes of *app* and to nothing else: behind them stands the API, which asks who calls."""

    def __init__(self, app: Starlette) -> None:
        self._app = app

    async def post(self, target: Target, headers: Sequence[tuple[str, str]], body: bytes) -> Answer:
        """Call the application and return its answer; whatever goes wrong is part of it."""
        path = target.target.partition(b"?")[0].decode("ascii")
        scope: Scope = {"type": "http", "method": "POST", "path": path, "root_path": ""}
        if not any(route.matches(scope)[0] is Match.FULL for route in self._app.routes):
            return Answer(error="The project's own application takes no POST under this path.")
        transport = httpx.ASGITransport(app=self._app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=_BASE_URL) as client:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    answer = await client.post(target.target.decode("ascii"), content=body, headers=list(headers))
            except TimeoutError:
                return Answer(error=f"There was no answer within {TIMEOUT_S:g} s.")
        return Answer(status_code=answer.status_code, retry_after=answer.headers.get("retry-after", "")[:100] or None)
