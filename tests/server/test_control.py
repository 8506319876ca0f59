"""The server answers while graphs block, while it drains, and to readers of a run that is taken away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from runlane.server.rollbacks import RollbackSweeper
from runlane.store.statements import Transaction, statement
from server_kit import LONG_S, NewDatabase, Server, begun, running_server, sdk


async def test_a_node_that_blocks_its_thread_blocks_nobody_else(
    http: httpx.AsyncClient, client: LangGraphClient, thread_id: str
) -> None:
    run = await client.runs.create(thread_id, "steps", input={"steps": 1, "block_s": 2.0})
    while (await client.runs.get(thread_id, run["run_id"]))["status"] == "pending":
        pass
    assert (await http.get("/ok")).status_code == 200
    other = await client.threads.create()
    queued = await client.runs.create(other["thread_id"], "steps", input={"steps": 1, "delay_s": LONG_S})
    await client.runs.cancel(other["thread_id"], queued["run_id"])
    await client.runs.cancel(thread_id, run["run_id"])
    assert len(await client.runs.list(thread_id)) == 1
    assert (await client.runs.get(thread_id, run["run_id"]))["status"] == "running"  # it still blocks
    await client.runs.cancel(thread_id, run["run_id"], wait=True)
    assert (await client.runs.get(thread_id, run["run_id"]))["status"] == "interrupted"


async def test_readers_of_a_run_that_is_rolled_back_by_the_next_are_told(
    http: httpx.AsyncClient, client: LangGraphClient, thread_id: str
) -> None:
    run = await begun(client, thread_id)
    path = f"/threads/{thread_id}/runs/{run['run_id']}"
    async with http.stream("GET", f"{path}/stream", headers={"Last-Event-ID": "-1"}) as stream:
        lines = stream.aiter_lines()
        while await anext(lines) != "event: tasks":
            pass
        async with http.stream("GET", f"{path}/join") as join:
            pieces = join.aiter_bytes()
            assert await anext(pieces) == b"\n"
            after = {"steps": 1, "delay_s": 0}
            values: Any = await client.runs.wait(thread_id, "steps", input=after, multitask_strategy="rollback")
            assert values == {**after, "done": [0]}
            told = b"".join([piece async for piece in pieces])
        assert b"__error__" in told
        rest = [line async for line in lines]
    assert rest.count("event: end") == 1
    assert any('"end_reason":"rolled_back"' in line for line in rest)


# What a process leaves that dies after it has ended a run, and before it has deleted it.
LEFT = statement("left", "UPDATE runs SET status = 'interrupted', end_reason = 'rolled_back' WHERE run_id = :run_id")


async def test_a_rolled_back_run_whose_process_died_before_it_was_deleted_is_deleted_by_another(
    server: Server, client: LangGraphClient, thread_id: str
) -> None:
    runs = [await client.runs.create(thread_id, "steps", input={"steps": 1}) for _ in range(2)]
    for run in runs:
        await client.runs.join(thread_id, run["run_id"])

    def die() -> Transaction[None]:
        yield LEFT(run_id=runs[0]["run_id"])

    store = server.app.state.service.store
    server.on_loop(store.driver.write(die()))
    sweeper = RollbackSweeper(store)
    server.on_loop(sweeper.sweep())
    assert [run["run_id"] for run in await client.runs.list(thread_id)] == [runs[1]["run_id"]]
    server.on_loop(sweeper.sweep())


@pytest.fixture
def draining(new_database: NewDatabase) -> Iterator[Server]:
    """Give a server that can be drained."""
    with running_server(new_database(), cancel_grace_s=0.2) as running:
        yield running


async def test_a_draining_server_admits_nothing_and_lets_readers_come_back(draining: Server) -> None:
    async with sdk(draining) as client, httpx.AsyncClient(base_url=draining.url) as http:
        thread_id = (await client.threads.create())["thread_id"]
        run = await begun(client, thread_id)
        path = f"/threads/{thread_id}/runs/{run['run_id']}"
        async with http.stream("GET", f"{path}/stream", headers={"Last-Event-ID": "-1"}) as stream:
            lines = stream.aiter_lines()
            while await anext(lines) != "event: tasks":
                pass
            draining.on_loop_soon(draining.app.state.service.drain(0.0))

            async def read_on() -> None:
                async for line in lines:
                    assert line != "event: end"

            with pytest.raises(httpx.RemoteProtocolError):  # a body that is whole would be taken for the whole stream
                await read_on()
        for way in ("", "/stream", "/wait"):
            refused = await http.post(f"/threads/{thread_id}/runs{way}", json={"assistant_id": "steps", "input": {}})
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) > 0
        assert (await client.runs.get(thread_id, run["run_id"]))["status"] == "pending"  # handed back
        assert len(await client.runs.list(thread_id)) == 1


async def test_a_server_without_a_database_file_does_the_same_until_it_ends() -> None:
    with running_server("memory://") as running:
        async with sdk(running) as client:
            thread_id = (await client.threads.create())["thread_id"]
            await client.runs.wait(thread_id, "approval", input={"topic": "x"})
            values: Any = await client.runs.wait(thread_id, "approval", command={"resume": "yes"})
            assert values["answers"] == ["yes"]
            assert len(await client.threads.get_history(thread_id, limit=100)) == 4
            parts = [part async for part in client.runs.stream(None, "steps", input={"steps": 1})]
            assert parts[-1].event == "end"
