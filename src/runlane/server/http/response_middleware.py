"""Headers that every response gets."""

from __future__ import annotations

from importlib.metadata import version

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runlane.headers import VERSION_HEADER
from runlane.server.config.http_section import CorsSection
from runlane.server.http.errors import on_defect


class ResponseMiddleware:
    """Completes every response: CORS, the server's version, the names of ignored fields, and the answer to a defect.

    Source: Fetch standard, CORS protocol; Private Network Access (WICG).
    """

    def __init__(self, app: ASGIApp, cors: CorsSection) -> None:
        self._app = app
        self._cors = cors
        self._version = version("runlane")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            await Response(status_code=200, headers=self._preflight(scope, headers))(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        answer, started = self._cors.answer(headers["origin"]) if "origin" in headers else {}, False

        async def send_on(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                answered = MutableHeaders(scope=message)
                answered[VERSION_HEADER] = self._version
                answered.update(answer)
                if "ignored" in state:
                    answered["runlane-ignored"] = _header_text(state["ignored"])
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        except Exception as error:  # supervisor: whatever a handler did, its client is told
            if started:
                raise
            await (await on_defect(Request(scope), error))(scope, receive, send_on)

    def _preflight(self, scope: Scope, headers: Headers) -> dict[str, str]:
        """Return the answer's headers. Pages from the internet reach a private network only if they are meant to.

        That is so where their origin is named, or where the server asks who they are.
        """
        guarded = scope["app"].state.service.authority is not None
        return self._cors.preflight(headers, private_network=guarded or self._cors.names(headers.get("origin", "")))


def _header_text(names: list[str]) -> str:
    """Return *names* in a form that a header can carry, however a client spelt them."""
    return ", ".join(name.encode("unicode_escape").decode() for name in names)[:1000].strip()
