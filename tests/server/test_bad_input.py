"""What cannot be honoured is refused with a 4xx that says why; nothing is admitted, nothing is lost, nothing breaks."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from runlane.records import ANY_OWNER
from runlane.store.transactions.thread_search import ThreadFilter
from server_kit import MAX_BODY_BYTES, NOWHERE, PATIENCE_S, Server

RUN = {"assistant_id": "steps", "input": {"steps": 1, "delay_s": 0}}


async def _counts(server: Server) -> tuple[int, int, int]:
    store = server.app.state.service.store
    runs = len(server.on_loop(store.runs.list(None, owner=ANY_OWNER, limit=1000)))
    threads = server.on_loop(store.threads.count(owner=ANY_OWNER, where=ThreadFilter()))
    return runs, threads, len(server.on_loop(store.runs.list(None, owner=ANY_OWNER, limit=1000)))


@pytest.fixture
async def nothing_admitted(server: Server, thread_id: str) -> AsyncIterator[str]:
    """Give a thread, and check that afterwards there are as many runs and threads as before."""
    before = await _counts(server)
    yield thread_id
    assert await _counts(server) == before


def _refused(answer: httpx.Response, *statuses: int) -> str:
    assert answer.status_code in (statuses or (422,)), (answer.status_code, answer.text[:300])
    detail = answer.json()["detail"]
    assert isinstance(detail, str)
    assert detail
    return detail


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"   ",
        b"[]",
        b'"text"',
        b"null",
        b"12",
        b"{'assistant_id': 'steps'}",
        b'{"assistant_id": "steps",}',
        b'{"assistant_id": "steps", "input": NaN}',
        b'{"assistant_id": "steps", "input": Infinity}',
        b'{"assistant_id": "\xff\xfe", "input": 1}',
        b'{"assistant_id": "steps", "input": "\\ud800"}',
        b'{"assistant_id": "steps", "input": {"a": "\\u0000"}}',
        b'{"assistant_id": "steps", "metadata": {"\\u0000": 1}}',
        b'{"assistant_id": "steps"} {"assistant_id": "steps"}',
        b'\xef\xbb\xbf{"assistant_id": "steps"}',
        b'{"assistant_id": "steps", "input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"assistant_id": "steps", "metadata": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b"}",
        b'{"assistant_id": "steps\x00"}',
        b"--boundary\r\nContent-Disposition: form-data",
        b"assistant_id=steps",
    ],
)
async def test_a_body_that_is_no_json_object_is_refused(
    http: httpx.AsyncClient, nothing_admitted: str, body: bytes
) -> None:
    for path in (
        f"/threads/{nothing_admitted}/runs",
        "/runs",
        "/runs/stream",
        f"/threads/{nothing_admitted}/runs/wait",
    ):
        _refused(await http.post(path, content=body))


@pytest.mark.parametrize("number", ["1e400", "-1e400", str(2**64), str(-(2**63) - 1), "1" * 5000, "1e-400", "-0"])
async def test_a_number_beyond_64_bits_is_refused_or_carried(
    http: httpx.AsyncClient, thread_id: str, number: str
) -> None:
    body = f'{{"assistant_id": "steps", "input": {{"steps": 1, "delay_s": 0}}, "metadata": {{"n": {number}}}}}'
    answer = await http.post(f"/threads/{thread_id}/runs/wait", content=body)
    assert answer.status_code in (200, 422), answer.text
    listed = await http.get(f"/threads/{thread_id}/runs")
    assert len(listed.json()) == (1 if answer.status_code == 200 else 0)
    if answer.status_code == 200:
        assert "__error__" not in answer.json()


@pytest.mark.parametrize("field", ["metadata", "input", "context", "config"])
async def test_what_nests_as_deep_as_allowed_comes_back_and_deeper_is_refused(
    http: httpx.AsyncClient, field: str
) -> None:
    def nested(depth: int) -> str:
        value = '{"a":' * depth + "1" + "}" * depth
        return f'{{"configurable": {value}}}' if field == "config" else value

    def body(depth: int) -> str:
        return f'{{"assistant_id": "odd", "if_not_exists": "create", "{field}": {nested(depth)}}}'

    thread_id = uuid4()
    most = 198 if field == "config" else 199
    assert (await http.post(f"/threads/{thread_id}/runs", content=body(most))).status_code == 200
    listed = await http.get(f"/threads/{thread_id}/runs")
    assert listed.status_code == 200
    assert len(listed.json()) == 1
    for depth in (most + 1, 252, 300, 900):
        assert "deep" in _refused(await http.post(f"/threads/{thread_id}/runs", content=body(depth)))


async def test_the_last_of_duplicate_keys_counts(http: httpx.AsyncClient, thread_id: str) -> None:
    answer = await http.post(
        f"/threads/{thread_id}/runs/wait",
        content=b'{"assistant_id": "nothing", "input": {"steps": 9}, "assistant_id": "steps", "input": {"steps": 1}}',
    )
    assert answer.json()["steps"] == 1


#: For each field of a run, values of every other type.
_TEXT = (0, 1.5, True, [], {})
_OBJECT = (0, 1.5, True, [], "x")
RUN_FIELDS: dict[str, tuple[Any, ...]] = {
    "assistant_id": (*_TEXT, "", "x" * 300, "nothing", "é"),
    "command": (
        *_OBJECT,
        *({"goto": goto} for goto in (5, True, [1], {"x": 1}, {"node": 1}, [["a"]])),
        *({"update": update} for update in (5, "x", [1], [[1, 2]], [["a"]], [["a", 1, 2]])),
    ),
    "config": (
        *_OBJECT,
        {"configurable": 1},
        {"tags": "x"},
        {"recursion_limit": 0},
        {"recursion_limit": "x"},
    ),
    "context": _OBJECT,
    "metadata": _OBJECT,
    "interrupt_before": (0, {}, [1], "step", True),
    "interrupt_after": (0, {}, [1], "step", True),
    "stream_mode": (0, {}, [1], "nothing", ["values", "nothing"], True, ["tools"], "lifecycle"),
    "stream_subgraphs": (0, "yes", [], {}),
    "stream_resumable": (0, "yes", [], {}),
    "multitask_strategy": (0, "nothing", [], {}),
    "if_not_exists": (0, "nothing", [], {}),
    "after_seconds": (-1, "x", [], {}, 1e300, -1e-9),
    "checkpoint": (0, "x", [], {"checkpoint_id": "x"}, {"checkpoint_id": 1}, {"checkpoint_ns": 1}),
    "checkpoint_id": (*_TEXT, "x", ""),
    "checkpoint_during": (0, "x", [], {}),
    "durability": (0, "nothing", [], {}),
    "on_disconnect": (0, "nothing", [], {}),
    "on_completion": (0, "nothing", [], {}),
    "strict_resume": (0, "yes", [], {}),
}


@pytest.mark.parametrize("field", RUN_FIELDS)
async def test_a_field_of_the_wrong_type_is_named(http: httpx.AsyncClient, nothing_admitted: str, field: str) -> None:
    for value in RUN_FIELDS[field]:
        for path in (f"/threads/{nothing_admitted}/runs", "/runs"):
            detail = _refused(await http.post(path, json={**RUN, field: value}))
            name = field.removesuffix("_id") if field in ("assistant_id", "checkpoint_id") else field
            assert name in detail, (value, detail)
    nullable = ("input", "command", "checkpoint", "checkpoint_id", "on_completion")
    if field not in nullable:
        assert field in _refused(await http.post("/runs", json={**RUN, field: None}))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("feedback_keys", ["a"]),
        ("langsmith_tracer", {"project_name": "p"}),
    ],
)
async def test_an_option_of_a_run_that_is_not_honoured_is_named(
    http: httpx.AsyncClient, nothing_admitted: str, option: str, value: Any
) -> None:
    for path in (f"/threads/{nothing_admitted}/runs/stream", "/runs/wait"):
        assert option in _refused(await http.post(path, json={**RUN, option: value}))


async def test_what_a_thread_cannot_have_is_named(http: httpx.AsyncClient, nothing_admitted: str) -> None:
    for ttl in (0, -1, "soon", {"ttl": 5, "strategy": "forget"}, {"strategy": "delete"}, 1e300):
        assert "ttl" in _refused(await http.post("/threads", json={"ttl": ttl}))
        assert "ttl" in _refused(await http.patch(f"/threads/{nothing_admitted}", json={"ttl": ttl}))
    for path in ("", ".", "values.", "values[x]", "values[0", "[0]", "values..a", "values[99999999999]"):
        assert "extract" in _refused(await http.post("/threads/search", json={"extract": {"a": path}}))
    assert "extract" in _refused(await http.post("/threads/search", json={"extract": {str(n): "a" for n in range(11)}}))
    assert "everything" in _refused(await http.get(f"/threads/{nothing_admitted}?include=ttl,everything"))


async def test_a_field_that_no_version_has_is_ignored_and_named(http: httpx.AsyncClient, thread_id: str) -> None:
    body = {**RUN, "future": True, "é\n": 1}
    answer = await http.post(f"/threads/{thread_id}/runs", json=body)
    assert answer.status_code == 200
    assert "future" in answer.headers["runlane-ignored"]
    assert answer.headers["content-location"]
    for path, given in (
        ("/threads", {"colour": 1}),
        ("/threads/search", {"colour": 1}),
        (f"/threads/{thread_id}/history", {"colour": 1}),
        ("/assistants/search", {"colour": 1}),
    ):
        answer = await http.post(path, json=given)
        assert (answer.status_code, answer.headers["runlane-ignored"]) == (200, next(iter(given)))


async def test_a_field_that_no_version_has_is_named_where_it_lies_in_an_option(
    http: httpx.AsyncClient, thread_id: str
) -> None:
    body = {**RUN, "config": {"recursion_limt": 5, "tags": []}, "command": {"goTo": "step"}, "checkpoint": {"id": 1}}
    answer = await http.post(f"/threads/{thread_id}/runs", json=body)
    assert answer.status_code == 200
    assert answer.headers["runlane-ignored"] == "checkpoint.id, command.goTo, config.recursion_limt"


async def test_a_checkpoints_id_is_a_uuid_in_the_config_too(http: httpx.AsyncClient, nothing_admitted: str) -> None:
    for named in ("x", 5, {}):
        body = {**RUN, "config": {"configurable": {"checkpoint_id": named}}}
        assert "checkpoint" in _refused(await http.post(f"/threads/{nothing_admitted}/runs", json=body))


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/runs", {**RUN, "config": {"colour": 1, "configurable": {"colour": 1}}}, "config.colour"),
        ("/runs", {**RUN, "command": {"update": {"steps": 1}, "graph": None, "colour": None}}, None),
        ("/threads", {"ttl": {"ttl": 60, "colour": 1}}, "ttl.colour"),
        (
            "/threads",
            {
                "metadata": {"graph_id": "steps", "colour": 1},
                "supersteps": [{"updates": [{"values": {}, "as_node": "__start__", "colour": 1}] * 2, "shape": 1}] * 2,
            },
            "supersteps.shape, supersteps.updates.colour",
        ),
    ],
)
async def test_a_field_within_a_field_that_no_version_has_is_named_with_its_path(
    http: httpx.AsyncClient, path: str, body: Any, named: str | None
) -> None:
    answer = await http.post(path, json=body)
    assert (answer.status_code, answer.headers.get("runlane-ignored")) == (200, named), answer.text


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_beyond_the_limit_is_413(http: httpx.AsyncClient, nothing_admitted: str, chunked: bool) -> None:
    huge = b'{"assistant_id": "steps", "input": {"x": "' + b"x" * MAX_BODY_BYTES + b'"}}'

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(huge), 1 << 20):
            yield huge[start : start + (1 << 20)]

    content: Any = pieces() if chunked else huge
    _refused(await http.post(f"/threads/{nothing_admitted}/runs", content=content), 413)
    assert (await http.get("/ok")).status_code == 200


async def test_a_megabyte_of_metadata_is_kept(http: httpx.AsyncClient) -> None:
    metadata = {"text": "x" * 1_000_000, "more": list(range(1000))}
    made = await http.post("/threads", json={"metadata": metadata})
    assert made.status_code == 200
    path = f"/threads/{made.json()['thread_id']}"
    assert (await http.get(path)).json()["metadata"] == metadata
    assert (await http.patch(path, json={"metadata": {"b": 1}})).status_code == 200
    _refused(await http.post("/threads/search", json={"metadata": metadata}), 422)  # filters are small


IDS = ("nonsense", "1", "%00", "é", NOWHERE[:-1], f"{NOWHERE}0", "%20", "..%2f", "'; DROP TABLE runs; --", "\U0001f600")


@pytest.mark.parametrize("bad", IDS)
async def test_an_id_that_is_no_uuid_is_refused_on_every_route(
    http: httpx.AsyncClient, nothing_admitted: str, bad: str
) -> None:
    document = (await http.get("/openapi.json")).json()
    for path, methods in document["paths"].items():
        for parameter in re.findall(r"{(\w+_id)}", path):
            filled = re.sub(r"{(\w+)}", lambda found, p=parameter: bad if found[1] == p else NOWHERE, path)
            for method in methods:
                answer = await http.request(method, filled, json=RUN | {"values": {}} if method != "get" else None)
                if path == "/a2a/{assistant_id}" and method == "post":
                    assert answer.json()["error"]["code"], answer.text
                    continue
                assert 400 <= answer.status_code < 500, (method, filled, answer.status_code, answer.text)
                assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize("limit", ["-1", "0", "x", "", "1001", str(10**30), "1.5", "\u0661", "1_0", "%00"])
async def test_a_limit_out_of_range_is_refused(http: httpx.AsyncClient, thread_id: str, limit: str) -> None:
    for path in ("runs", "history"):
        _refused(await http.get(f"/threads/{thread_id}/{path}?limit={limit}"), 400, 422)
    if limit not in ("0", "1001"):
        _refused(await http.get(f"/threads/{thread_id}/runs?offset={limit}"), 400, 422)


@pytest.mark.parametrize("field", ["limit", "offset"])
async def test_a_page_out_of_range_is_refused_in_bodies(http: httpx.AsyncClient, thread_id: str, field: str) -> None:
    paths = ["/threads/search", "/assistants/search"]
    if field == "limit":
        paths.append(f"/threads/{thread_id}/history")
    for path in paths:
        for value in (-1, 2**60, 10**30, "1", 1.5, True, None, [], 0 if field == "limit" else -5):
            assert field in _refused(await http.post(path, json={field: value})) or value == 10**30


@pytest.mark.parametrize("name", ["last-event-id", "idempotency-key", "x-api-key", "content-type", "origin"])
async def test_a_strange_header_breaks_nothing(http: httpx.AsyncClient, thread_id: str, name: str) -> None:
    run = (await http.post(f"/threads/{thread_id}/runs", json=RUN)).json()
    for value in (b"\xff\xfe", b"x" * 5000, "é".encode(), b"", b"%00", b"\x01"):
        for method, path, body in (
            ("GET", f"/threads/{thread_id}/runs/{run['run_id']}/stream", None),
            ("POST", f"/threads/{thread_id}/runs", RUN),
        ):
            answer = await http.request(method, path, json=body, headers={name.encode(): value})  # type: ignore[misc]
            assert answer.status_code < 500, (name, value, answer.text)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /threads/\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /ok HTTP/1.1\r\nHost: x\r\nLast-Event-ID: a\x00b\r\n\r\n",
        b"POST /threads HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n{}",
        b"POST /threads HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n{}",
        b"POST /threads HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
        b"NONSENSE\r\n\r\n",
    ],
)
async def test_a_request_that_is_no_http_is_refused_and_the_server_lives(
    server: Server, http: httpx.AsyncClient, head: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as connection:
        connection.sendall(head)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(65536)
    assert not answer.startswith(b"HTTP/1.1 5"), answer
    assert (await http.get("/ok")).status_code == 200


async def test_a_client_that_leaves_in_the_middle_of_its_body_admits_nothing(
    server: Server, http: httpx.AsyncClient, nothing_admitted: str
) -> None:
    head = f"POST /threads/{nothing_admitted}/runs HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as connection:
        connection.sendall(head.encode() + b'{"assistant_id": "steps"')
    assert (await http.get("/ok")).status_code == 200


async def test_values_that_do_not_fit_a_graph_fail_their_run_only(http: httpx.AsyncClient) -> None:
    for value in (1, "text", [1], {"done": 5}, {"done": {"a": 1}}, {"nothing": 1}, {}, [], True):
        body = {"assistant_id": "steps", "input": value, "if_not_exists": "create"}
        answer = await http.post(f"/threads/{uuid4()}/runs/wait", json=body)
        assert answer.status_code == 200
        listed = await http.get(answer.headers["content-location"])
        assert listed.json()["status"] in ("error", "success")
        assert ("__error__" in answer.json()) is (listed.json()["status"] == "error")


@pytest.mark.parametrize(
    "command",
    [
        {},
        {"goto": "nowhere"},
        {"goto": {"node": "nowhere"}},
        {"update": {"nothing": 1}},
        {"resume": {"x": 1}},
        {"colour": 1},
    ],
)
async def test_a_command_that_makes_no_sense_here_does_nothing_or_fails_its_run(
    http: httpx.AsyncClient, thread_id: str, command: Any
) -> None:
    answer = await http.post(f"/threads/{thread_id}/runs/wait", json={"assistant_id": "steps", "command": command})
    assert answer.status_code in (200, 400, 422), answer.text
    assert (await http.get(f"/threads/{thread_id}")).json()["status"] != "busy"


async def test_a_state_update_with_nonsense_is_4xx_and_changes_nothing(
    http: httpx.AsyncClient, client: LangGraphClient, thread_id: str
) -> None:
    await client.runs.wait(thread_id, "steps", input=RUN["input"])  # type: ignore[arg-type]
    before = await client.threads.get_state(thread_id)
    for body in (
        {"values": 5, "as_node": "step"},
        {"values": {"nothing": 1}, "as_node": "nowhere"},
        {"values": {"done": 5}, "as_node": "step"},
        {"values": {"done": [1]}, "as_node": 5},
        {"values": {"done": [1]}, "checkpoint_id": "x"},
        {"values": {"done": [1]}, "checkpoint": {"checkpoint_id": "x"}},
        {"values": {"done": [1]}, "checkpoint": 5},
        {"values": {"done": ["\x00"]}},
    ):
        _refused(await http.post(f"/threads/{thread_id}/state", json=body), 400, 422)
    assert await client.threads.get_state(thread_id) == before


async def test_supersteps_that_make_no_sense_leave_no_thread(http: httpx.AsyncClient, nothing_admitted: str) -> None:
    for supersteps in (
        [{}],
        [{"updates": 5}],
        [{"updates": []}],
        [{"updates": [5]}],
        [{"updates": [{"values": 5}]}],
        [{"updates": [{"values": {"done": 5}, "as_node": "step"}]}],
        [{"updates": [{"command": 5}]}],
        [{"updates": [{"values": {}, "as_node": ["x"]}]}],
        5,
        [5],
    ):
        body = {"metadata": {"graph_id": "steps"}, "supersteps": supersteps}
        _refused(await http.post("/threads", json=body), 400, 422)


async def test_a_history_query_with_nonsense_is_4xx_or_empty(
    http: httpx.AsyncClient, client: LangGraphClient, thread_id: str
) -> None:
    await client.runs.wait(thread_id, "steps", input=RUN["input"])  # type: ignore[arg-type]
    for body in (
        {"before": "x"},
        {"before": {"configurable": 5}},
        {"before": {"checkpoint_id": 5}},
        {"before": {"configurable": {"checkpoint_id": {"a": 1}}}},
        {"before": 5},
        {"checkpoint": {"checkpoint_ns": "nowhere"}},
        {"checkpoint": {"checkpoint_id": "x"}},
        {"checkpoint": {"checkpoint_map": 5}},
        {"metadata": {"source": {"a": [1]}}},
        {"metadata": 5},
    ):
        answer = await http.post(f"/threads/{thread_id}/history", json=body)
        assert answer.status_code in (200, 400, 404, 422), (body, answer.text)


NONSENSE: tuple[Any, ...] = (0, -1, 2**70, 1e308, "x", "\u202e", "a" * 5000, NOWHERE, [None], {"": [[]]}, {"$eq": 1})
QUERIES = ("?limit=x&offset=y", "?wait=z", "?select=%00", "?select=x&status=", "?xray=%ff", "?" + "a" * 9999)


#: Parts of the API, each of which is a test of its own; a path belongs to the first that it begins with.
RESOURCES = (
    "/assistants",
    "/runs/crons",
    "/runs/",
    "/runs",
    "/threads/{thread_id}/runs/crons",
    "/threads/{thread_id}/runs/",
    "/threads/{thread_id}/runs",
    "/threads",
    "/",
)


@pytest.mark.parametrize("resource", RESOURCES)
async def test_no_route_breaks_on_any_nonsense(server: Server, http: httpx.AsyncClient, resource: str) -> None:
    document = (await http.get("/openapi.json")).json()
    before = await _counts(server)
    for path, methods in document["paths"].items():
        ours = next(one for one in RESOURCES if path.startswith(one))
        for method, operation in methods.items() if ours == resource else ():
            for request in _requests(path, operation, document["components"]["schemas"]):
                answer = await http.request(method, **request)
                assert answer.status_code < 500, (method, request, answer.text)
                if answer.status_code >= 400:
                    said = answer.json()
                    assert isinstance(said["error"]["message"] if "jsonrpc" in said else said["detail"], str)
    assert (await _counts(server))[0] == before[0]


def _requests(path: str, operation: Any, schemas: Any) -> Iterator[dict[str, Any]]:
    """Yield requests of which each has one thing that is wrong or strange, and that can create no run."""
    url = re.sub(r"{(\w+)}", NOWHERE, path)
    content = operation.get("requestBody", {}).get("content")
    if content is None:
        for query in QUERIES:
            yield {"url": url + query}
        return
    schema = content["application/json"]["schema"]
    fields = schemas[schema.get("items", schema)["$ref"].rpartition("/")[2]]["properties"]
    base = {"assistant_id": "nothing", "graph_id": "nothing", "version": 1, "checkpoint": {}}
    for field in fields:
        for value in NONSENSE:
            body = {key: item for key, item in base.items() if key in fields} | {field: value}
            yield {"url": url, "content": json.dumps([body] if "items" in schema else body)}
