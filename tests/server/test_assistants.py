"""Assistants, as the official client uses them."""

from __future__ import annotations

from uuid import uuid4

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import ConflictError, NotFoundError, UnprocessableEntityError

from server_kit import NOWHERE, begun, system_id

ASSISTANT_KEYS = {
    "assistant_id",
    "graph_id",
    "config",
    "context",
    "metadata",
    "name",
    "created_at",
    "updated_at",
    "version",
    "description",
}


async def test_a_graphs_own_assistant_has_the_id_that_every_client_can_compute(client: LangGraphClient) -> None:
    found = await client.assistants.get(system_id("chat"))
    assert set(found) == ASSISTANT_KEYS
    assert (found["graph_id"], found["name"], found["version"]) == ("chat", "chat", 1)
    assert found["metadata"] == {"created_by": "system"}


async def test_an_assistant_is_got_by_its_uuid_only(http: httpx.AsyncClient) -> None:
    named = await http.get("/assistants/chat")
    assert named.status_code == 422
    assert named.json()["detail"] == "Invalid assistant ID: must be a UUID"
    assert (await http.get(f"/assistants/{NOWHERE}")).status_code == 404
    assert (await http.get("/assistants/chat/schemas")).status_code == 422


async def test_search_pages_with_a_true_total(client: LangGraphClient, http: httpx.AsyncClient) -> None:
    mark = uuid4().hex
    for index in range(3):
        await client.assistants.create("chat", name=f"Page {mark} {index}", metadata={"mark": mark})
    first = await http.post("/assistants/search", json={"metadata": {"mark": mark}, "limit": 2})
    assert len(first.json()) == 2
    assert (first.headers["x-pagination-total"], first.headers["x-pagination-next"]) == ("3", "2")
    last = await http.post("/assistants/search", json={"metadata": {"mark": mark}, "limit": 2, "offset": 2})
    assert len(last.json()) == 1
    assert "x-pagination-next" not in last.headers
    assert await client.assistants.count(metadata={"mark": mark}) == 3
    by_name = await client.assistants.search(name=f"PAGE {mark[:8].upper()}", sort_by="name", sort_order="asc")
    assert [one["name"][-1] for one in by_name] == ["0", "1", "2"]
    some = await client.assistants.search(metadata={"mark": mark}, select=["assistant_id", "name"])
    assert set(some[0]) == {"assistant_id", "name"}
    page = await client.assistants.search(metadata={"mark": mark}, limit=2, response_format="object")
    assert page["next"] == "2"


async def test_search_for_a_graph_that_does_not_exist_is_404(client: LangGraphClient) -> None:
    with pytest.raises(NotFoundError):
        await client.assistants.search(graph_id="nothing")
    with pytest.raises(NotFoundError):
        await client.assistants.create("nothing")


async def test_a_taken_id_conflicts_or_is_returned(client: LangGraphClient) -> None:
    assistant_id = str(uuid4())
    made = await client.assistants.create("chat", assistant_id=assistant_id, name="mine")
    with pytest.raises(ConflictError):
        await client.assistants.create("chat", assistant_id=assistant_id)
    again = await client.assistants.create("chat", assistant_id=assistant_id, if_exists="do_nothing", name="other")
    assert again == made


async def test_versions_grow_with_each_change_and_can_be_chosen(client: LangGraphClient) -> None:
    made = await client.assistants.create("settings", context={"mood": "calm"}, metadata={"a": 1})
    assert made["config"]["configurable"] == {"mood": "calm"}
    changed = await client.assistants.update(made["assistant_id"], context={"mood": "wild"}, metadata={"b": 2})
    assert (changed["version"], changed["context"]) == (2, {"mood": "wild"})
    assert changed["metadata"] == {"a": 1, "b": 2}
    versions = await client.assistants.get_versions(made["assistant_id"])
    assert [one["version"] for one in versions] == [2, 1]
    back = await client.assistants.set_latest(made["assistant_id"], 1)
    assert (back["version"], back["context"], back["config"]["configurable"]) == (1, {"mood": "calm"}, {"mood": "calm"})
    await client.assistants.delete(made["assistant_id"])
    with pytest.raises(NotFoundError):
        await client.assistants.get(made["assistant_id"])
    with pytest.raises(NotFoundError):
        await client.assistants.delete(made["assistant_id"])
    with pytest.raises(NotFoundError):
        await client.assistants.get_versions(NOWHERE)


async def test_a_system_assistant_cannot_be_taken_from_everybody(client: LangGraphClient) -> None:
    with pytest.raises(UnprocessableEntityError):
        await client.assistants.delete(system_id("chat"))
    with pytest.raises(UnprocessableEntityError):
        await client.assistants.update(system_id("chat"), name="mine")
    assert (await client.assistants.get(system_id("chat")))["name"] == "chat"


async def test_nobody_can_pose_as_the_system(client: LangGraphClient) -> None:
    made = await client.assistants.create("chat", metadata={"created_by": "system"})
    assert made["metadata"].get("created_by") != "system"
    changed = await client.assistants.update(made["assistant_id"], metadata={"created_by": "system"})
    assert changed["metadata"].get("created_by") != "system"


async def test_a_claim_to_be_the_system_is_named(http: httpx.AsyncClient) -> None:
    body = {"graph_id": "chat", "metadata": {"created_by": "system"}}
    assert (await http.post("/assistants", json=body)).headers["runlane-ignored"] == "metadata.created_by"


async def test_who_created_an_assistant_is_kept(client: LangGraphClient) -> None:
    made = await client.assistants.create("chat", metadata={"created_by": "ann"})
    assert made["metadata"] == {"created_by": "ann"}
    changed = await client.assistants.update(made["assistant_id"], metadata={"created_by": "bob"})
    assert changed["metadata"] == {"created_by": "bob"}
    assert [one["assistant_id"] for one in await client.assistants.search(metadata={"created_by": "bob"})] == [
        made["assistant_id"]
    ]


async def test_a_change_of_the_configuration_alone_keeps_the_context(client: LangGraphClient) -> None:
    made = await client.assistants.create("settings", context={"mood": "good"})
    changed = await client.assistants.update(made["assistant_id"], config={"tags": ["x"]})
    assert (changed["config"], changed["context"]) == ({"tags": ["x"]}, {"mood": "good"})


async def test_config_and_context_exclude_each_other(client: LangGraphClient, http: httpx.AsyncClient) -> None:
    body = {"graph_id": "chat", "config": {"configurable": {"a": 1}}, "context": {"a": 2}}
    assert (await http.post("/assistants", json=body)).status_code == 400


@pytest.mark.parametrize("name", ["nested", system_id("nested")])
async def test_the_graph_is_drawn_by_name_or_id(client: LangGraphClient, name: str) -> None:
    flat = await client.assistants.get_graph(name)
    assert {node["id"] for node in flat["nodes"]} == {"__start__", "child", "__end__"}
    assert {"source", "target"} <= set(flat["edges"][0])
    assert all({"id", "type", "data"} <= set(node) for node in flat["nodes"])
    deep = await client.assistants.get_graph(name, xray=True)
    assert "child:answer" in {node["id"] for node in deep["nodes"]}
    assert deep == await client.assistants.get_graph(name, xray=1)


@pytest.mark.parametrize("xray", ["0", "-1", "maybe"])
async def test_a_depth_that_makes_no_sense_is_422(http: httpx.AsyncClient, xray: str) -> None:
    assert (await http.get(f"/assistants/nested/graph?xray={xray}")).status_code == 422


async def test_schemas_describe_what_goes_in_and_out(client: LangGraphClient) -> None:
    found = await client.assistants.get_schemas(system_id("settings"))
    assert set(found) == {
        "graph_id",
        "input_schema",
        "output_schema",
        "state_schema",
        "config_schema",
        "context_schema",
    }
    assert "mood" in found["input_schema"]["properties"]
    assert "mood" in found["context_schema"]["properties"]


async def test_subgraphs_are_described_by_name(client: LangGraphClient) -> None:
    found = await client.assistants.get_subgraphs(system_id("nested"))
    assert set(found) == {"child"}
    assert "messages" in found["child"]["input_schema"]["properties"]
    assert set(await client.assistants.get_subgraphs(system_id("nested"), namespace="child")) == {"child"}


async def test_an_assistant_goes_with_its_threads_if_asked(client: LangGraphClient) -> None:
    mine, other = [await client.assistants.create("steps", name=name) for name in ("mine", "other")]
    threads = [(await client.threads.create())["thread_id"] for _ in range(3)]
    ended, active, others = threads
    await client.runs.wait(ended, mine["assistant_id"], input={"steps": 1})
    await begun(client, active, assistant_id=mine["assistant_id"])
    await client.runs.wait(others, other["assistant_id"], input={"steps": 1})
    await client.assistants.delete(mine["assistant_id"], delete_threads=True)
    for gone in (ended, active):
        with pytest.raises(NotFoundError):
            await client.threads.get(gone)
    assert (await client.threads.get(others))["status"] == "idle"
    with pytest.raises(NotFoundError):
        await client.assistants.delete(mine["assistant_id"], delete_threads=True)
    with pytest.raises(UnprocessableEntityError):
        await client.assistants.delete(system_id("steps"), delete_threads=True)


async def test_a_search_for_a_name_longer_than_any_is_refused(http: httpx.AsyncClient) -> None:
    for name, status in (("%_\\" * 170, 200), ("a" * 60_000, 422)):
        assert (await http.post("/assistants/search", json={"name": name})).status_code == status
