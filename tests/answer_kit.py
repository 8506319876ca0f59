"""Clients that compare each answer with what the server's own document says of it."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import httpx
import jsonschema_rs

from runlane.server.api import openapi_document


class CheckedClient(httpx.AsyncClient):
    """An HTTP client; JSON that does not have the documented shape fails the test that received it."""

    async def request(self, *args: Any, **kwargs: Any) -> httpx.Response:
        response = await super().request(*args, **kwargs)
        check_answer(response)
        return response


def check_answer(response: httpx.Response) -> None:
    """Compare a JSON answer with its schema; one of which the client selected parts has another shape."""
    request = response.request
    if not response.headers.get("content-type", "").startswith("application/json") or _selects(request):
        return
    validator = _validator_of(request.method.lower(), request.url.path.rstrip("/") or "/", response.status_code)
    if validator is None:
        return
    errors = [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(json.loads(response.text))]
    assert not errors, (request.method, request.url.path, response.status_code, errors, response.text[:2000])


def _selects(request: httpx.Request) -> bool:
    sent = request.content if request.headers.get("content-type") == "application/json" else b""
    return "select" in request.url.params or b'"select"' in sent


@cache
def documented() -> dict[str, Any]:
    """Return the server's document."""
    return openapi_document()


def _validator_of(method: str, path: str, status: int) -> Any:
    """Return what checks the answers of the route that *path* is; nothing if the document says nothing of them."""
    for template, pattern in _templates():
        if method in documented()["paths"][template] and pattern.fullmatch(path):
            validator = _validator(method, template, status)
            if validator is not None:
                return validator
    return None


@cache
def _templates() -> list[tuple[str, re.Pattern[str]]]:
    """Return the paths of the document and what fits each, those with fewer parameters first."""
    templates = sorted(documented()["paths"], key=lambda one: one.count("{"))
    return [(one, re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(one)))) for one in templates]


@cache  # by template: making one takes milliseconds, and memory
def _validator(method: str, template: str, status: int) -> Any:
    content = documented()["paths"][template][method]["responses"].get(str(status), {}).get("content", {})
    if "application/json" not in content:
        return None
    return jsonschema_rs.validator_for(
        {**content["application/json"]["schema"], "components": documented()["components"]},
        validate_formats=True,
    )
