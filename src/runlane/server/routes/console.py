"""The console's page: built files of ``console/``, which have no data. What they show, they ask of the API's routes."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

import runlane
from runlane.server.http.route import Handler, Resource, Route

FILES: Final = Path(runlane.__file__).parent / "console"
PAGE: Final = "index.html"
#: Nothing of other hosts, no inline code, no markup from text. Source: Content Security Policy Level 3; Trusted Types.
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True, slots=True)
class _BuiltFile:
    content: bytes
    compressed: bytes
    etag: str
    media_type: str


@cache
def _read(name: str) -> _BuiltFile:
    content = (FILES / name).read_bytes()
    return _BuiltFile(
        content,
        gzip.compress(content, mtime=0),
        hashlib.sha256(content).hexdigest()[:32],
        mimetypes.guess_type(name)[0] or "application/octet-stream",
    )


def _answer(request: Request, file: _BuiltFile) -> Response:
    packed = "gzip" in request.headers.get("accept-encoding", "")
    etag = f'"{file.etag}{"-gzip" if packed else ""}"'
    headers = {**_HEADERS, "ETag": etag}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if packed:
        headers["Content-Encoding"] = "gzip"
    return Response(file.compressed if packed else file.content, headers=headers, media_type=file.media_type)


async def page(request: Request) -> Response:
    """Return the console's page, whose links are relative to a path that ends with a slash."""
    if not request.scope["path"].endswith("/"):
        return RedirectResponse("console/", 307)
    return _answer(request, _read(PAGE))


def _serving(name: str) -> Handler:
    async def file(request: Request) -> Response:
        return _answer(request, _read(name))

    return file


def _built() -> list[str]:
    return sorted(file.name for file in FILES.iterdir() if file.suffix in (".css", ".js", ".svg"))


CONSOLE: Final = Resource(
    tag="Console",
    group="ui",
    routes=(
        Route("GET /console", page, public=True, documented=False),
        *(Route(f"GET /console/{name}", _serving(name), public=True, documented=False) for name in _built()),
    ),
)
