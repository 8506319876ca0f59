"""Sends the same requests to two servers of one API, and says in what their answers differ.

An answer is made comparable first: ids, instants, versions and addresses are replaced by their kinds. What is left is
status, headers that clients read, the JSON body, or the sequence of a stream's events with their data.
"""

from __future__ import annotations

import difflib
import json
import re
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

ABSENT: Final = "<absent>"
#: For how long the answer to a step is asked for again until it is there.
PATIENCE_S: Final = 15.0
_HEADERS: Final = (
    "cache-control",
    "content-location",
    "content-type",
    "location",
    "x-pagination-next",
    "x-pagination-total",
)
_KINDS: Final = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<uuid>"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)"), "<instant>"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "<hash>"),
)
_VERSIONS: Final = frozenset({"langgraph_version", "langgraph_api_version", "langgraph_py_version", "langchain-core"})
_MILLISECONDS: Final = frozenset({"timestamp", "__request_start_time_ms__"})
_ENDED: Final = ("completed", "failed", "interrupted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One request. In *path* and *body* ``{name}`` stands for what an earlier step kept under that name.

    Attributes:
        keep: Names for parts of the answer, each with the keys that lead there.
        again: Whether the request is repeated until the answer is more than an empty list.
        raw: A body that is not JSON.
    """

    name: str
    method: str
    path: str
    body: Any = ABSENT
    headers: Mapping[str, str] = field(default_factory=dict)
    keep: Mapping[str, Sequence[str | int]] = field(default_factory=dict)
    again: bool = False
    raw: str | None = None


Scenarios = Mapping[str, Sequence[Step]]
Answers = dict[str, dict[str, Any]]


def ask(client: httpx.Client, scenarios: Scenarios) -> Answers:
    """Send every request in order and return the comparable answers by ``scenario/step``."""
    return {
        f"{name}/{step.name}": answer
        for name, steps in scenarios.items()
        for step, answer in zip(steps, _played(client, steps), strict=True)
    }


def _played(client: httpx.Client, steps: Sequence[Step]) -> Iterator[dict[str, Any]]:
    kept: dict[str, Any] = {}
    for step in steps:
        status, headers, body = _sent(client, step, kept)
        for name, keys in step.keep.items():
            kept[name] = _at(body, keys)
        shown = {name: _comparable(headers[name], client) for name in _HEADERS if name in headers}
        yield {"status": status, "headers": shown, **_content(body, client)}


def _at(body: Any, keys: Sequence[str | int]) -> Any:
    for key in keys:
        body = body[key]
    return body


def _sent(client: httpx.Client, step: Step, kept: Mapping[str, Any]) -> tuple[int, httpx.Headers, Any]:
    given_up_at = time.monotonic() + PATIENCE_S
    while True:
        status, headers, body = _once(client, step, kept)
        if not step.again or body or time.monotonic() > given_up_at:
            return status, headers, body


def _once(client: httpx.Client, step: Step, kept: Mapping[str, Any]) -> tuple[int, httpx.Headers, Any]:
    content = step.raw
    headers = {"content-type": "application/json"} if content is not None else {}
    if step.body is not ABSENT:
        content, headers = json.dumps(_filled(step.body, kept)), {"content-type": "application/json"}
    path = _filled(step.path, kept)
    with client.stream(step.method, path, content=content, headers={**headers, **step.headers}) as response:
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            return response.status_code, response.headers, Frames(_frames(response.iter_lines()))
        text = response.read().decode()
    if response.headers.get("content-type", "").startswith("application/json"):
        return response.status_code, response.headers, json.loads(text) if text.strip() else None
    return response.status_code, response.headers, text


class Frames(list[tuple[str, Any]]):
    """The events of a stream, with their data."""


def _frames(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """Yield the events until the stream ends, or tells of the end of the run that it was opened for."""
    name, data = "", ABSENT
    for line in lines:
        kind, _, text = line.partition(": ")
        if kind == "event":
            name = text
        elif kind == "data":
            data = json.loads(text)
        elif not line and name:
            yield name, data
            if name == "lifecycle" and not data["params"]["namespace"] and data["params"]["data"]["event"] in _ENDED:
                return
            name, data = "", ABSENT


def _filled(value: Any, kept: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        whole = re.fullmatch(r"{(\w+)}", value)
        if whole is not None:
            return kept[whole[1]]
        return re.sub(r"{(\w+)}", lambda match: str(kept[match[1]]), value)
    if isinstance(value, dict):
        return {_filled(key, kept): _filled(item, kept) for key, item in value.items()}
    return [_filled(item, kept) for item in value] if isinstance(value, list) else value


def _content(body: Any, client: httpx.Client) -> dict[str, Any]:
    if isinstance(body, Frames):
        return {"events": [[_comparable(name, client), _comparable(data, client)] for name, data in body]}
    return {"body": _comparable(body, client)}


def _comparable(value: Any, client: httpx.Client) -> Any:
    if isinstance(value, str):
        value = value.replace(str(client.base_url).rstrip("/"), "<server>")
        for pattern, kind in _KINDS:
            value = pattern.sub(kind, value)
        return value
    if isinstance(value, list):
        return [_comparable(item, client) for item in value]
    if not isinstance(value, dict):
        return value
    found: dict[str, Any] = {}
    for key, item in value.items():
        if key == "langchain":  # a version, of a package that is installed here and was not at the recording
            continue
        shown = _comparable(key, client)
        while shown in found:
            shown += "'"
        if key in _VERSIONS:
            found[shown] = "<version>"
        elif key in _MILLISECONDS and isinstance(item, int | float):
            found[shown] = "<milliseconds>"
        else:
            found[shown] = _comparable(item, client)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Where two answers differ: ``scenario/step: place``, what the reference has there, and what Runlane has."""

    where: str
    reference: Any
    runlane: Any


def differences(reference: Answers, runlane: Answers) -> list[Difference]:
    """Return every place in which *runlane* answers differently, each once."""
    found: dict[str, Difference] = {}
    for step, expected in reference.items():
        for place, one, other in _compared("", expected, runlane[step]):
            where = f"{step}: {place[1:]}"
            found.setdefault(where, Difference(where=where, reference=one, runlane=other))
    return list(found.values())


def _compared(place: str, one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    if place == ".events" and isinstance(one, list) and isinstance(other, list):
        yield from _compared_events(one, other)
    elif isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            yield from _compared(f"{place}.{key}", one.get(key, ABSENT), other.get(key, ABSENT))
    elif isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            yield f"{place}[]", one, other
        for left, right in zip(one, other, strict=False):
            yield from _compared(f"{place}[]", left, right)
    elif one != other or type(one) is not type(other):
        yield place, one, other


def _compared_events(one: list[Any], other: list[Any]) -> Iterator[tuple[str, Any, Any]]:
    """Align the events by their names, and compare the data of those that both have."""
    left, right = [event[0] for event in one], [event[0] for event in other]
    for kind, low, high, from_, to in difflib.SequenceMatcher(a=left, b=right, autojunk=False).get_opcodes():
        if kind == "equal":
            for (name, data), (_, answered) in zip(one[low:high], other[from_:to], strict=True):
                yield from _compared(f".events({name})", data, answered)
            continue
        for name, data in one[low:high]:
            yield f".events -{name}", data, ABSENT
        for name, data in other[from_:to]:
            yield f".events +{name}", ABSENT, data


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A difference that is known, with the places where it shows; ``only`` names the side that has something there."""

    what: str
    reference: str
    runlane: str
    why: str
    where: tuple[str, ...]
    only: str | None = None

    def shows(self, pattern: str, found: Difference) -> bool:
        """Return whether *found* is this difference, in a place that *pattern* names."""
        absent = {None: ABSENT, "reference": found.runlane, "runlane": found.reference}[self.only]
        return absent == ABSENT and _named(pattern, found.where)


def listed() -> list[Listed]:
    """Return the differences that are known."""
    rows = tomllib.loads((Path(__file__).parent / "differences.toml").read_text())["difference"]
    return [Listed(**{**row, "where": tuple(row["where"])}) for row in rows]


def _named(pattern: str, where: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), where) is not None
