"""Threads that expire: what clients say about it, what langgraph.json does, and what the sweeper makes of both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import NotFoundError

from runlane.errors import ConfigurationError
from runlane.maintenance.retention import ThreadSweeper
from runlane.records import ThreadTtl
from runlane.server.config.expiry import Expiry, load_expiry
from runlane.server.startup import open_service
from runlane.settings import Settings
from runlane.store.statements import Transaction, statement
from server_kit import PROJECT, NewDatabase, Server, begun, ended, gone, running_server, sdk

OLDER = statement(
    "older",
    "UPDATE threads SET updated_at = updated_at - :us, swept_at = swept_at - :us WHERE thread_id = :thread_id",
)
HOUR_S = 3600.0


def age(server: Server, thread_id: str, seconds: float) -> None:
    """Let *seconds* pass for a thread."""

    def older() -> Transaction[None]:
        yield OLDER(thread_id=thread_id, us=int(seconds * 1_000_000))

    server.on_loop(server.app.state.service.store.driver.write(older()))


def sweep(server: Server) -> int:
    service = server.app.state.service
    return int(server.on_loop(ThreadSweeper(store=service.store, saver=service.runtime.saver).sweep()))


async def ttl_of(client: LangGraphClient, thread_id: str) -> Any:
    thread: Any = await client.threads.get(thread_id, include=["ttl"])
    return thread["ttl"]


async def exists(client: LangGraphClient, thread_id: str) -> bool:
    try:
        await client.threads.get(thread_id)
    except NotFoundError:
        return False
    return True


def project(folder: Path, checkpointer: Any) -> Path:
    """Write the configuration of the tests' project with a section ``checkpointer``."""
    config = json.loads(PROJECT.read_text())
    graphs = {name: where.replace("./", f"{PROJECT.parent}/") for name, where in config["graphs"].items()}
    path = folder / "langgraph.json"
    path.write_text(json.dumps({"graphs": graphs, "checkpointer": checkpointer}))
    return path


async def test_a_threads_time_is_given_answered_and_changed(client: LangGraphClient) -> None:
    made = await client.threads.create(ttl=60)
    assert "ttl" not in await client.threads.get(made["thread_id"])
    ttl = await ttl_of(client, made["thread_id"])
    assert (ttl["strategy"], ttl["ttl_minutes"]) == ("delete", 60)
    left = datetime.fromisoformat(ttl["expires_at"]) - datetime.fromisoformat(str(made["updated_at"]))
    assert left == timedelta(minutes=60)
    changed = await client.threads.update(made["thread_id"], metadata={}, ttl={"ttl": 0.5, "strategy": "keep_latest"})
    ttl = await ttl_of(client, made["thread_id"])
    assert (ttl["strategy"], ttl["ttl_minutes"]) == ("keep_latest", 0.5)
    left = datetime.fromisoformat(ttl["expires_at"]) - datetime.fromisoformat(str(changed["updated_at"]))
    assert left == timedelta(seconds=30)
    await client.threads.update(made["thread_id"], metadata={"a": 1})
    assert (await ttl_of(client, made["thread_id"]))["ttl_minutes"] == 0.5
    assert await ttl_of(client, (await client.threads.create())["thread_id"]) is None


async def test_an_expired_thread_goes_with_all_that_it_has(server: Server, client: LangGraphClient) -> None:
    thread_id = (await client.threads.create(ttl=60))["thread_id"]
    run = await client.runs.create(thread_id, "steps", input={"steps": 2})
    await client.runs.join(thread_id, run["run_id"])
    kept = (await client.threads.create())["thread_id"]
    age(server, thread_id, HOUR_S - 60)
    age(server, kept, 10 * HOUR_S)
    sweep(server)
    assert await exists(client, thread_id)
    age(server, thread_id, 60)
    assert sweep(server) == 1
    assert (await exists(client, thread_id), await exists(client, kept)) == (False, True)
    with pytest.raises(NotFoundError):
        await client.runs.get(thread_id, run["run_id"])
    service = server.app.state.service
    left = server.on_loop(service.runtime.saver.threads.storage(thread_id))
    assert (left.checkpoints.count, left.channels, left.writes.count) == (0, {}, 0)


async def test_a_run_starts_a_threads_time_again_and_a_busy_thread_stays(
    server: Server, client: LangGraphClient
) -> None:
    thread_id = (await client.threads.create(ttl=60))["thread_id"]
    age(server, thread_id, 2 * HOUR_S)
    run = await begun(client, thread_id)
    age(server, thread_id, 2 * HOUR_S)
    sweep(server)
    assert (await client.runs.get(thread_id, run["run_id"]))["status"] == "running"
    await client.runs.cancel(thread_id, run["run_id"], wait=True)
    sweep(server)
    assert (await client.runs.get(thread_id, run["run_id"]))["status"] == "interrupted"
    age(server, thread_id, HOUR_S)
    sweep(server)
    assert not await exists(client, thread_id)


async def test_a_thread_that_keeps_its_latest_state_loses_its_history_once(
    server: Server, client: LangGraphClient
) -> None:
    made = await client.threads.create(ttl={"ttl": 60, "strategy": "keep_latest"})
    thread_id = made["thread_id"]
    await client.runs.wait(thread_id, "approval", input={"topic": "x"})
    await client.threads.update_state(thread_id, {"topic": "y"})
    state, thread = await client.threads.get_state(thread_id), await client.threads.get(thread_id)
    age(server, thread_id, HOUR_S)
    assert sweep(server) == 1
    assert sweep(server) == 0
    [left] = await client.threads.get_history(thread_id, limit=10)
    assert (left["values"], left["checkpoint"]) == (state["values"], state["checkpoint"])
    after = await client.threads.get(thread_id)
    assert {**after, "updated_at": None} == {**thread, "updated_at": None}
    done: Any = await client.runs.wait(thread_id, "approval", command={"resume": "yes"})
    assert done["decided"] == "decided on 1"
    assert len(await client.threads.get_history(thread_id, limit=10)) > 1
    age(server, thread_id, HOUR_S)
    assert sweep(server) == 1
    assert len(await client.threads.get_history(thread_id, limit=10)) == 1


async def test_a_copy_expires_as_its_source_does(client: LangGraphClient) -> None:
    made = await client.threads.create(ttl={"ttl": 7, "strategy": "keep_latest"})
    copy: Any = await client.threads.copy(made["thread_id"])
    ttl = await ttl_of(client, copy["thread_id"])
    assert (ttl["strategy"], ttl["ttl_minutes"]) == ("keep_latest", 7)


@pytest.fixture(scope="module")
def expiring(tmp_path_factory: pytest.TempPathFactory, new_database: NewDatabase) -> Iterator[Server]:
    """Give a server whose langgraph.json says when threads expire."""
    folder = tmp_path_factory.mktemp("expiring")
    ttl = {"strategy": "keep_latest", "default_ttl": 90, "sweep_interval_minutes": 0.001, "sweep_limit": 5}
    with running_server(new_database(), project(folder, {"ttl": ttl})) as running:
        yield running


async def test_every_way_to_make_a_thread_gives_it_the_configured_time(expiring: Server) -> None:
    async with sdk(expiring) as client:
        made = (await client.threads.create())["thread_id"]
        own = (await client.threads.create(ttl=5))["thread_id"]
        by_run = "6b7c3b1e-0000-4000-8000-00000000bbbb"
        await client.runs.wait(by_run, "steps", input={"steps": 1}, if_not_exists="create")
        payload: Any = {"assistant_id": "steps", "input": {"steps": 1}, "on_completion": "keep"}
        stateless = await client.runs.create(None, "steps", input={"steps": 1}, on_completion="keep")
        batch = await client.runs.create_batch([payload])
        for run in (stateless, batch[0]):
            await ended(client, run)
        for thread_id in (made, by_run, stateless["thread_id"], batch[0]["thread_id"]):
            ttl = await ttl_of(client, thread_id)
            assert (ttl["strategy"], ttl["ttl_minutes"]) == ("keep_latest", 90)
        assert (await ttl_of(client, own))["strategy"] == "delete"


async def test_the_server_sweeps_by_itself(expiring: Server) -> None:
    async with sdk(expiring) as client:
        thread_id = (await client.threads.create(ttl=5))["thread_id"]
        age(expiring, thread_id, HOUR_S)
        await gone(client, f"/threads/{thread_id}")


def test_the_section_says_when_threads_expire(tmp_path: Path) -> None:
    assert load_expiry(None) == load_expiry(PROJECT) == Expiry()
    for section in ({}, {"backend": "default"}, {"ttl": {}}, {"ttl": {"strategy": "keep_latest"}}):
        assert load_expiry(project(tmp_path, section)) == Expiry()
    whole = {"default_ttl": 2, "strategy": "keep_latest", "sweep_interval_minutes": 3, "sweep_limit": 4}
    assert load_expiry(project(tmp_path, {"backend": "default", "ttl": whole})) == Expiry(
        default=ThreadTtl(ttl_s=120, strategy="keep_latest"), every_s=180, limit=4
    )


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"path": "./saver.py:make"}, "'checkpointer.path' is not supported: Runlane keeps checkpoints in its own"),
        ({"serde": {"pickle_fallback": True}}, "'checkpointer.serde' is not supported: Runlane keeps"),
        ({"backend": "mongo"}, "'checkpointer.backend' is not supported: Runlane keeps"),
        ({"ttl": {"default_ttl": "soon"}}, "checkpointer.ttl.default_ttl"),
        ({"ttl": {"default_ttl": -1}}, "checkpointer.ttl.default_ttl"),
        ({"ttl": {"strategy": "forget"}}, "checkpointer.ttl.strategy"),
        ({"ttl": {"sweep_limit": 0}}, "checkpointer.ttl.sweep_limit"),
        ({"ttl": {"refresh_on_read": True}}, "refresh_on_read"),
        ([], "checkpointer"),
    ],
)
def test_what_the_section_cannot_have_is_named(tmp_path: Path, section: Any, named: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_expiry(project(tmp_path, section))
    assert named in str(refused.value)
    assert "langgraph.json" in str(refused.value)


async def test_a_server_that_is_told_what_it_cannot_do_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="serde"):
        async with open_service(project(tmp_path, {"serde": {}}), Settings(database="memory://")):
            pass


async def test_ended_runs_are_forgotten_after_their_time_and_their_threads_stay(new_database: NewDatabase) -> None:
    with running_server(new_database(), run_retention_s=0.001) as server:
        async with sdk(server) as client, httpx.AsyncClient(base_url=server.url) as http:
            thread_id = (await client.threads.create())["thread_id"]
            run = await client.runs.create(thread_id, "steps", input={"steps": 2})
            await client.runs.join(thread_id, run["run_id"])
            before = await client.threads.get(thread_id)
            server.on_loop(server.app.state.service.runtime.purger.purge())
            assert (await http.get(f"/threads/{thread_id}/runs/{run['run_id']}")).status_code == 404
            assert await client.threads.get(thread_id) == before
            assert (await client.threads.get_state(thread_id))["values"]["done"] == [0, 1]
