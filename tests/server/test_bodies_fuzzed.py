"""Whatever a client sends to any route, it is answered and not with a defect; the server goes on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz_kit import fuzzed, json_texts, texts, values
from runlane.server.api import openapi_document
from server_kit import NOWHERE, NewDatabase, Server, running_server

ANSWER_S = 10.0
#: A graph that ends at once, whatever it is given.
GRAPH = "settings"
#: Fields that make a request wait for years, which would be right; and a stream that has no end.
SKIPPED_FIELDS = ("after_seconds",)
SKIPPED_PATHS = ("/threads/{thread_id}/stream/events",)


def _routes() -> list[tuple[str, str, tuple[str, ...]]]:
    """Return method, path and the names of the body's fields of every route that takes a body."""
    document = openapi_document()
    found = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {})
            if path in SKIPPED_PATHS or "application/json" not in content:
                continue
            schema = content["application/json"]["schema"]
            name = schema.get("items", schema)["$ref"].rpartition("/")[2]
            fields = document["components"]["schemas"][name].get("properties", {})
            found.append((method, path, tuple(field for field in fields if field not in SKIPPED_FIELDS)))
    return found


#: What fields often have, so that many requests are nearly right.
LIKELY = st.one_of(
    st.sampled_from([GRAPH, NOWHERE, "values", "enqueue", "2.0", "tools/call", "0 0 1 1 *", "https://example.org/"]),
    st.sampled_from([1, 0, True, [], {}, [{}], ["a"], {"configurable": {"a": 1}}, {"a": {"$eq": 1}}]),
)
#: What a client can send as a header's value.
SENDABLE = re.compile(rb"[!-~\x80-\xff]([\t -~\x80-\xff]*[!-~\x80-\xff])?")
ROUTES = _routes()


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, bytes]:
    method, path, fields = draw(st.sampled_from(ROUTES))
    named = st.tuples(st.sampled_from(fields or ("a",)), LIKELY | values)
    known = [st.tuples(st.just("assistant_id"), st.just(GRAPH))] if "assistant_id" in fields else []
    strange = st.tuples(texts.filter(lambda text: text not in SKIPPED_FIELDS), values)
    body = draw(json_texts(st.one_of(named, named, *known, strange)))
    return method, path, b"[" + body + b"]" if draw(st.integers(0, 9)) == 0 else body


@pytest.fixture(scope="module")
def server(new_database: NewDatabase) -> Iterator[Server]:
    """Give a server of this file's own, which is left in a strange state."""
    with running_server(new_database()) as running:
        yield running


@pytest.fixture(scope="module")
def fuzzer(server: Server) -> Iterator[httpx.Client]:
    """Give a client of it."""
    with httpx.Client(base_url=server.url, timeout=ANSWER_S) as client:
        yield client


@pytest.fixture(scope="module")
def known(fuzzer: httpx.Client) -> dict[str, str]:
    """Give the ids of things that exist, until a request deletes them."""
    thread = fuzzer.post("/threads", json={}).json()["thread_id"]
    run = fuzzer.post(f"/threads/{thread}/runs", json={"assistant_id": GRAPH, "input": {}}).json()["run_id"]
    fuzzer.get(f"/threads/{thread}/runs/{run}/join")
    assistant = fuzzer.post("/assistants", json={"graph_id": GRAPH}).json()["assistant_id"]
    return {"thread_id": thread, "run_id": run, "assistant_id": assistant}


# The server shares the process, and its loops draw random numbers while a request is made up.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@fuzzed(150)
@given(request=requests())
def test_no_body_meets_a_defect(request: tuple[str, str, bytes], fuzzer: httpx.Client, known: dict[str, str]) -> None:
    method, path, body = request
    filled = re.sub(r"{(\w+)}", lambda found: known.get(found[1], NOWHERE), path)
    _sound(fuzzer.request(method, filled, content=body), (method, path, body))


@fuzzed(50)
@given(
    header=texts.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=30),
    name=st.sampled_from(["last-event-id", "idempotency-key", "content-type", "accept", "x-api-key", "authorization"]),
)
def test_no_header_meets_a_defect(header: bytes, name: str, fuzzer: httpx.Client, known: dict[str, str]) -> None:
    path = f"/threads/{known['thread_id']}/runs/{known['run_id']}/stream"
    if SENDABLE.fullmatch(header):
        _sound(fuzzer.get(path, headers={name.encode(): header}), (name, header))


@fuzzed(50)
@given(query=st.lists(st.tuples(st.sampled_from(["limit", "select", "xray", "status", "include", "wait"]), texts)))
def test_no_query_meets_a_defect(query: list[tuple[str, str]], fuzzer: httpx.Client, known: dict[str, str]) -> None:
    text = "&".join(
        f"{name}={httpx.QueryParams({name: value.encode('utf-8', 'replace').decode()})[name]}" for name, value in query
    )
    raw = re.sub(r"[^!-~]|[#?]", lambda found: "".join(f"%{byte:02x}" for byte in found[0].encode()), text)
    for path in (f"/threads/{known['thread_id']}/runs", f"/assistants/{GRAPH}/graph", f"/threads/{known['thread_id']}"):
        _sound(fuzzer.get(f"{path}?{raw}"), (path, raw))


def _sound(answer: httpx.Response, request: Any) -> None:
    assert answer.status_code < 500, (request, answer.text)
    if answer.status_code >= 400 and not answer.headers["content-type"].startswith("text/"):
        assert answer.json(), request
