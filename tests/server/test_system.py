"""What a client asks of the server itself, and what a browser asks before it asks anything."""

from __future__ import annotations

import re

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from server_kit import NOWHERE


async def test_health_and_description_have_the_fields_that_clients_look_for(http: httpx.AsyncClient) -> None:
    for path in ("/ok", "/"):
        assert (await http.get(path)).json() == {"ok": True, "services": {}}
    probed = (await http.get("/ok?check_db=1")).json()
    assert probed["ok"]
    assert set(probed["services"].values()) == {"healthy"}
    info = (await http.get("/info")).json()
    assert info["flags"]["assistants"] is True
    assert set(info["host"]) == {"kind", "project_id", "host_revision_id", "revision_id", "tenant_id"}
    assert {"version", "langgraph_py_version"} <= set(info)


async def test_a_real_answer_to_another_origin_exposes_what_the_sdks_read(
    http: httpx.AsyncClient, thread_id: str
) -> None:
    answer = await http.post(
        f"/threads/{thread_id}/runs/stream", json={"assistant_id": "steps", "input": {}}, headers={"Origin": "http://a"}
    )
    assert answer.headers["access-control-allow-origin"] == "*"
    exposed = {name.strip().lower() for name in answer.headers["access-control-expose-headers"].split(",")}
    assert {"content-location", "location", "x-pagination-total", "x-pagination-next"} <= exposed


async def test_an_error_is_readable_for_another_origin(http: httpx.AsyncClient) -> None:
    for answer in (
        await http.get(f"/threads/{NOWHERE}", headers={"Origin": "http://a"}),
        await http.get("/nothing", headers={"Origin": "http://a"}),
        await http.post("/threads", content=b"{", headers={"Origin": "http://a"}),
    ):
        assert answer.status_code >= 400
        assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("path", ["/threads", f"/threads/{NOWHERE}/runs/stream", "/info"])
async def test_a_preflight_allows_every_header(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.options(
        path,
        headers={
            "Origin": "https://chat.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type,last-event-id,x-api-key,x-mine",
        },
    )
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-headers"] == "content-type,last-event-id,x-api-key,x-mine"
    assert {"GET", "POST", "PUT", "PATCH", "DELETE"} <= set(
        re.split(", *", answer.headers["access-control-allow-methods"])
    )
    assert int(answer.headers["access-control-max-age"]) > 0


async def test_a_path_or_method_that_does_not_exist_is_said_plainly(http: httpx.AsyncClient) -> None:
    missing = await http.get("/nothing/here")
    assert (missing.status_code, missing.json()["detail"]) == (404, "Not Found")
    wrong = await http.put(f"/threads/{NOWHERE}")
    assert (wrong.status_code, wrong.json()["detail"]) == (405, "Method Not Allowed")
    assert "GET" in wrong.headers["allow"]


async def test_the_document_names_every_route_that_the_sdk_calls_and_resolves(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.")
    for path in (
        "/threads/{thread_id}/runs/stream",
        "/assistants/search",
        "/threads/{thread_id}/history",
        "/runs/wait",
    ):
        assert path in document["paths"]
    schemas = document["components"]["schemas"]
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', httpx.Response(200, json=document).text))
    assert references
    assert references <= set(schemas)
    operations = [op for methods in document["paths"].values() for op in methods.values()]
    ids = [op["operationId"] for op in operations]
    assert len(ids) == len(set(ids))
    for path, methods in document["paths"].items():
        for operation in methods.values():
            declared = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}
            assert declared == set(re.findall(r"{(\w+)}", path)), path


async def test_the_document_has_the_parameters_of_queries(http: httpx.AsyncClient) -> None:
    paths = (await http.get("/openapi.json")).json()["paths"]

    def query(path: str, method: str) -> set[str]:
        return {one["name"] for one in paths[path][method]["parameters"] if one["in"] == "query"}

    assert query("/threads/{thread_id}/runs", "get") == {"limit", "offset", "status", "select"}
    assert query("/threads/{thread_id}/runs/{run_id}/stream", "get") == {
        "stream_mode",
        "stream_modes",
        "cancel_on_disconnect",
    }
    assert query("/threads/{thread_id}/runs/{run_id}/cancel", "post") == {"wait", "action"}


async def test_the_page_of_the_document_loads_nothing_from_elsewhere(http: httpx.AsyncClient) -> None:
    page = await http.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", page.text)
    assert "@import" not in page.text
    assert "openapi.json" in page.text


async def test_the_client_finds_one_system_assistant_per_graph(client: LangGraphClient) -> None:
    found = await client.assistants.search(metadata={"created_by": "system"}, limit=100)
    assert {one["graph_id"] for one in found} >= {"chat", "steps", "approval", "nested"}
