"""Reading JSON bodies within bounds: bytes, values, depth, and text that can be stored."""

from __future__ import annotations

import re
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request

from runlane.errors import InvalidRequest

#: What is taken must fit, inside an answer, into the 254 levels that are written.
MAX_DEPTH = 200
#: Of a body, in all. A history of long texts has thousands, a matrix of vectors a million.
MAX_VALUES = 2_000_000
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


class PayloadTooLarge(InvalidRequest):
    """The body is larger than the server takes."""

    code = "payload_too_large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"The body is larger than {limit_bytes} bytes; see the setting max_body_bytes.")


class EncodedBody(InvalidRequest):
    """The body is compressed; it could be of any size."""

    code = "encoded_body"

    def __init__(self, encoding: str) -> None:
        super().__init__(f"The body has the content-encoding {encoding[:40]!r}; send it as it is, without one.")


async def read_json(request: Request, limit_bytes: int) -> Any:
    """Return the body as JSON, whatever the content type says; an empty body is ``{}``.

    Raises:
        PayloadTooLarge: It is larger than *limit_bytes*.
        InvalidRequest: It is not JSON, or a string in it has a NUL, or it nests deeper than ``MAX_DEPTH``.
    """
    length = request.headers.get("content-length")
    if length is not None and length.isdigit() and int(length) > limit_bytes:
        raise PayloadTooLarge(limit_bytes)
    if (encoding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        raise EncodedBody(encoding)
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit_bytes:
                raise PayloadTooLarge(limit_bytes)
            chunks.append(chunk)
    except ClientDisconnect:
        raise InvalidRequest("The client left before its request had arrived.") from None
    raw = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    return parse_json(raw) if raw.strip() else {}


def parse_json(raw: bytes, what: str = "body") -> Any:
    """Return the value of the JSON text *raw*, whose bytes are counted already.

    Args:
        what: What an error calls it.

    Raises:
        InvalidRequest: It is not JSON, has too many values, nests too deeply, or a string in it has a NUL.
    """
    _check_count(raw, what)
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The {what} is not valid JSON: {error}.") from None
    except RecursionError:
        raise InvalidRequest(f"The {what} is nested too deeply.") from None
    _check_storable(raw, value, what)
    return value


def _check_count(raw: bytes, what: str) -> None:
    """Refuse what becomes many times as large in memory, before it does: a pair of brackets is an object of 64 bytes.

    Raises:
        InvalidRequest: There are more than ``MAX_VALUES`` values.
    """
    if len(raw) < MAX_VALUES or _signs(raw) <= MAX_VALUES:
        return
    if _signs(_STRING.sub(b"", raw)) > MAX_VALUES:  # slow, and rare
        raise InvalidRequest(f"The {what} has more than {MAX_VALUES} values: arrays, objects and what is in them.")


def _signs(raw: bytes) -> int:
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{")


def _check_storable(raw: bytes, value: Any, what: str) -> None:
    if b"\\u0000" in raw and has_nul(value):
        raise InvalidRequest(f"A string in the {what} has a NUL character (\\u0000), which cannot be stored.")
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and nests_deeper(value, MAX_DEPTH):
        raise InvalidRequest(f"The {what} nests deeper than {MAX_DEPTH} levels.")


def nests_deeper(value: Any, depth: int) -> bool:
    """Return whether the JSON *value* has containers in containers more than *depth* deep."""
    level = [value]
    for _ in range(depth):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict | list):
                inner.extend(one.values() if isinstance(one, dict) else one)
        level = inner
    return any(isinstance(one, dict | list) for one in level)


def has_nul(value: Any) -> bool:
    """Return whether a string in the JSON *value* has a NUL."""
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, str):
            if "\x00" in one:
                return True
        elif isinstance(one, dict):
            stack.extend(one.keys())
            stack.extend(one.values())
        elif isinstance(one, list):
            stack.extend(one)
    return False
