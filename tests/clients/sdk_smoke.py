"""What each version of the Python client has to manage; run in an environment that has nothing but that client."""

from __future__ import annotations

import asyncio
import sys
from importlib.metadata import version
from typing import Any

from langgraph_sdk import get_client, get_sync_client


async def assistants(client: Any) -> None:
    assert await client.assistants.search(graph_id="steps", limit=1)
    made = await client.assistants.create("settings", context={"mood": "a"}, name="mine")
    await client.assistants.update(made["assistant_id"], context={"mood": "b"})
    versions = await client.assistants.get_versions(made["assistant_id"])
    assert [one["version"] for one in versions] == [2, 1]
    await client.assistants.set_latest(made["assistant_id"], 1)
    assert (await client.runs.wait(None, made["assistant_id"], input={}))["mood"] == "a"
    assert (await client.assistants.get_schemas(made["assistant_id"]))["graph_id"] == "settings"
    assert (await client.assistants.get_graph("nested", xray=True))["nodes"]
    await client.assistants.delete(made["assistant_id"])


async def threads(client: Any) -> None:
    thread = await client.threads.create(metadata={"smoke": True})
    thread_id = thread["thread_id"]
    await client.runs.wait(thread_id, "steps", input={"steps": 2})
    history = await client.threads.get_history(thread_id, limit=10)
    assert len(history) == 4
    await client.threads.update_state(thread_id, {"done": [9]}, as_node="step", checkpoint=history[1]["checkpoint"])
    assert (await client.threads.get_state(thread_id))["values"]["done"] == [0, 9]
    assert await client.threads.search(metadata={"smoke": True}, values={"steps": 2})
    copy: Any = await client.threads.copy(thread_id)
    assert (await client.threads.get_state(copy["thread_id"]))["values"]["done"] == [0, 9]
    await client.threads.delete(copy["thread_id"])


async def runs(client: Any) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    run = await client.runs.create(thread_id, "steps", input={"steps": 2}, stream_mode=["values", "updates"])
    seen = [part async for part in client.runs.join_stream(thread_id, run["run_id"], last_event_id="-1")]
    assert [part.event for part in seen].count("updates") == 2
    modes = ["values", "updates", "messages-tuple", "custom", "tasks", "checkpoints", "debug", "events"]
    human = {"messages": [{"type": "human", "content": "hi"}]}
    parts = [part async for part in client.runs.stream(None, "chat", input=human, stream_mode=modes)]
    assert {"metadata", "values", "updates", "messages", "tasks"} <= {part.event for part in parts}
    paused = await client.runs.wait(thread_id, "approval", input={"topic": "x"})
    assert paused["__interrupt__"]
    assert (await client.runs.wait(thread_id, "approval", command={"resume": "yes"}))["answers"] == ["yes"]
    delayed = await client.runs.create(thread_id, "steps", input={"steps": 1}, after_seconds=3600)
    await client.runs.cancel(thread_id, delayed["run_id"], wait=True)
    assert (await client.runs.get(thread_id, delayed["run_id"]))["status"] == "interrupted"
    batch = await client.runs.create_batch([{"assistant_id": "steps", "input": {"steps": 1}}])
    assert len(batch) == 1


async def store(client: Any) -> None:
    await client.store.put_item(("smoke", "a"), "k", {"n": 1})
    assert (await client.store.get_item(("smoke", "a"), "k"))["value"] == {"n": 1}
    assert (await client.store.search_items(("smoke",), filter={"n": 1}))["items"]
    assert ["smoke", "a"] in (await client.store.list_namespaces(prefix=["smoke"]))["namespaces"]
    await client.store.delete_item(("smoke", "a"), "k")


async def crons(client: Any) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    yearly = {"schedule": "0 0 1 1 *", "input": {"steps": 1}, "metadata": {"smoke": version("langgraph-sdk")}}
    alone = await client.crons.create("steps", **yearly)
    await client.crons.create_for_thread(thread_id, "steps", **yearly)
    changed = await client.crons.update(alone["cron_id"], schedule="30 4 * * 1", enabled=False)
    assert (changed["schedule"], changed["enabled"]) == ("30 4 * * 1", False)
    [found] = await client.crons.search(thread_id=thread_id, limit=10)
    assert await client.crons.count(metadata=yearly["metadata"]) == 2
    for cron_id in (alone["cron_id"], found["cron_id"]):
        await client.crons.delete(cron_id)
    assert await client.crons.count(metadata=yearly["metadata"]) == 0


async def main(url: str) -> None:
    client = get_client(url=url, api_key=None)
    for part in (assistants, threads, runs, crons, store):
        await part(client)
    sync = get_sync_client(url=url, api_key=None)
    assert sync.runs.wait(None, "steps", input={"steps": 1})["done"] == [0]
    assert [part.event for part in sync.runs.stream(None, "steps", input={"steps": 1})][:2] == ["metadata", "values"]
    sys.stdout.write(version("langgraph-sdk"))


asyncio.run(main(sys.argv[1]))
