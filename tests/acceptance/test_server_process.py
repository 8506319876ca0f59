"""What one server process does with signals, with agents that harm it, and with a place that is taken."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client

from acceptance.kit import PROJECT, Reader, Server, create_run, ended_run, get, new_thread
from runlane.server.auth.keys import new_key


async def test_a_draining_server_answers_but_admits_nothing_and_lets_runs_finish(
    tmp_path: Path, http: httpx.AsyncClient
) -> None:
    async with Server(tmp_path, drain_grace_s=60) as server:
        await server.start()
        reader = Reader(server, http, await new_thread(http, server.url), "run")
        state = {"name": "run", "steps": 10, "seconds": 0.1, "done": 0, "log": []}
        following = asyncio.create_task(reader.follow({"input": state}))
        await reader.reaches(1)
        server.send(signal.SIGTERM)
        await server.said("server.draining")
        assert (await http.get(f"{server.url}/ok")).status_code == 200
        refused = await http.post(
            f"{server.url}/threads/{reader.thread_id}/runs", json={"assistant_id": "steps", "input": state}
        )
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
        await following
        assert reader.connections == 1
        assert [event.data["attempt"] for event in reader.events if event.name == "metadata"] == [1]
        assert reader.events[-1].data["status"] == "success"
        assert await server.ended() == 0


async def test_a_node_that_nothing_can_stop_does_not_hold_the_process_back(
    tmp_path: Path, http: httpx.AsyncClient
) -> None:
    async with Server(tmp_path, drain_grace_s=0, cancel_grace_s=0.1, abandon_after_s=0.1) as server:
        await server.start()
        thread_id = await new_thread(http, server.url)
        run_id = await create_run(http, server, thread_id, "blocker", seconds=600)
        await server.said("blocking")
        server.send(signal.SIGTERM)
        assert await server.ended() == 0, server.log
        await server.start()
        run = await get(http, f"{server.url}/threads/{thread_id}/runs/{run_id}")
        assert run["status"] in ("pending", "running"), "it was handed back, and goes on"


async def test_a_run_that_kills_its_process_ends_as_error_after_max_rescues(
    tmp_path: Path, http: httpx.AsyncClient
) -> None:
    max_rescues = 1
    async with Server(tmp_path, max_rescues=max_rescues) as server:
        await server.start()
        thread_id = await new_thread(http, server.url)
        run_id = await create_run(http, server, thread_id, "killer")
        assert await server.ended() == 7
        for _ in range(max_rescues):
            await server.launch()  # it may die before it says that it is ready
            assert await server.ended() == 7
        await server.start()
        assert (await ended_run(http, server, thread_id, run_id))["status"] == "error"
        assert (await get(http, f"{server.url}/threads/{thread_id}"))["status"] == "error"
        assert server.starts_of("run") == {1: 1 + max_rescues}
        late = Reader(server, http, thread_id, "run", run_id=run_id)
        assert [event.name for event in await late.replay()][-1] == "end"
        again = await create_run(http, server, thread_id, "steps")
        assert (await ended_run(http, server, thread_id, again))["status"] == "success"


async def test_a_cancel_that_was_accepted_outlives_its_process(tmp_path: Path, http: httpx.AsyncClient) -> None:
    async with Server(tmp_path) as server:
        await server.start()
        thread_id = await new_thread(http, server.url)
        run_id = await create_run(http, server, thread_id, "blocker", seconds=600)
        behind = await create_run(http, server, thread_id, "steps", name="behind")
        await server.said("run.started")
        cancelled = await http.post(f"{server.url}/threads/{thread_id}/runs/{run_id}/cancel")
        assert cancelled.status_code == 202
        await server.kill()
        await server.start()
        assert (await ended_run(http, server, thread_id, run_id))["status"] == "interrupted"
        assert (await ended_run(http, server, thread_id, behind))["status"] == "success"
        assert sum(server.starts_of("run").values()) <= 1, "a cancelled run is not started again"


async def test_a_node_that_exits_fails_its_run_and_the_server_goes_on(tmp_path: Path, http: httpx.AsyncClient) -> None:
    async with Server(tmp_path) as server:
        await server.start()
        busy = await new_thread(http, server.url)
        other = await create_run(http, server, busy, "steps", name="other")
        thread_id = await new_thread(http, server.url)
        run_id = await create_run(http, server, thread_id, "leaver")
        assert (await ended_run(http, server, thread_id, run_id))["status"] == "error"
        assert (await ended_run(http, server, busy, other))["status"] == "success"
        assert server.starts_of("other") == dict.fromkeys(range(1, 6), 1)
        server.send(signal.SIGINT)
        assert await server.ended() == 0


async def test_a_second_server_on_the_same_database_is_refused_and_told_by_whom(
    tmp_path: Path, http: httpx.AsyncClient
) -> None:
    async with Server(tmp_path) as first, Server(tmp_path) as second:
        await first.start()
        await second.launch()
        assert await second.ended() == 1
        assert len(second.lines) == 1, second.log
        assert f"(pid {first.pid})" in second.log
        assert (await http.get(f"{first.url}/ok")).status_code == 200


async def test_a_port_in_use_is_told_in_one_line_before_the_database_is_touched(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    async with Server(tmp_path) as first, Server(tmp_path / "other", port=first.port) as second:
        await first.start()
        await second.launch()
        assert await second.ended() == 2
        assert len(second.lines) == 1, second.log
        assert f"Port {first.port} on 127.0.0.1 is in use" in second.log
        assert not (tmp_path / "other" / "runlane.db").exists()


async def test_a_graph_that_does_not_import_is_told_with_the_users_frames_only(tmp_path: Path) -> None:
    (tmp_path / "langgraph.json").write_text(json.dumps({"graphs": {"broken": "./broken.py:graph"}}))
    (tmp_path / "broken.py").write_text("def make():\n    raise LookupError('no such flow')\n\n\ngraph = make()\n")
    async with Server(tmp_path, project=tmp_path) as server:
        await server.launch()
        assert await server.ended() == 2
        assert "Graph 'broken' (./broken.py:graph) could not be loaded: LookupError: no such flow" in server.lines[0]
        frames = [line for line in server.lines if line.lstrip().startswith("File ")]
        assert len(frames) == 2, server.log
        assert all("broken.py" in line for line in frames)


async def test_a_signal_while_graphs_are_imported_ends_the_process_cleanly(tmp_path: Path) -> None:
    (tmp_path / "langgraph.json").write_text(json.dumps({"graphs": {"slow": "./slow.py:graph"}}))
    (tmp_path / "slow.py").write_text("import time\n\nprint('importing', flush=True)\ntime.sleep(600)\n")
    async with Server(tmp_path, project=tmp_path) as server:
        await server.launch()
        assert await server.said("importing")
        server.send(signal.SIGTERM)
        assert await server.ended() == 0, server.log
        assert not (tmp_path / "runlane.db").exists()


async def test_dev_starts_anew_when_a_file_changes_and_the_run_goes_on(tmp_path: Path, http: httpx.AsyncClient) -> None:
    project = Path(shutil.copytree(PROJECT, tmp_path / "project"))
    async with Server(tmp_path, project=project, command="dev") as server:
        await server.start()
        assert f"Console  {server.url}/console/" in server.log
        assert (await http.get(f"{server.url}/console/")).status_code == 200
        reader = Reader(server, http, await new_thread(http, server.url), "run")
        state = {"name": "run", "steps": 30, "seconds": 0.1, "done": 0, "log": []}
        following = asyncio.create_task(reader.follow({"input": state}))
        await reader.reaches(2)
        (project / "graphs.py").write_text((project / "graphs.py").read_text() + "\n# changed\n")
        await following
        assert reader.events[-1].data["status"] == "success"
        assert await reader.replay() == reader.events
        assert server.starts_of("run") == dict.fromkeys(range(1, 31), 1)
        pids = {line.split()[2] for line in server.effects.read_text().splitlines()}
        assert len(pids) == 2, "two processes did the steps"
        assert "changed: graphs.py" in server.log
        server.send(signal.SIGINT)
        assert await server.ended() == 0, server.log


@pytest.mark.filterwarnings("ignore:Request failed, attempting reconnect")
async def test_a_client_that_waits_for_a_result_gets_the_runs_own_across_a_restart(
    tmp_path: Path, http: httpx.AsyncClient
) -> None:
    """An answer that the process cannot give any more is cut off, so that the official client asks again."""
    async with Server(tmp_path, drain_grace_s=0) as server, get_client(url=server.url) as client:
        await server.start()
        thread_id = await new_thread(http, server.url)
        state = {"name": "run", "steps": 5, "seconds": 0.2, "done": 0, "log": []}
        waiting = asyncio.create_task(client.runs.wait(thread_id, "steps", input=state))
        await server.said("run.started")
        server.send(signal.SIGTERM)
        assert await server.ended() == 0
        assert "without completing" not in server.log
        await server.start()
        result = await waiting
        assert [entry["step"] for entry in result["log"]] == [1, 2, 3, 4, 5]
        assert server.starts_of("run") == dict.fromkeys(range(1, 6), 1)


@pytest.mark.filterwarnings("ignore:Request failed, attempting reconnect")
async def test_streams_of_stateless_runs_go_on_across_a_restart(tmp_path: Path) -> None:
    async with Server(tmp_path, drain_grace_s=0) as server, get_client(url=server.url) as client:
        await server.start()
        begun: asyncio.Queue[str] = asyncio.Queue()

        async def read(name: str) -> list[Any]:
            state = {"name": name, "steps": 5, "seconds": 0.2, "done": 0, "log": []}
            parts = []
            async for part in client.runs.stream(None, "steps", input=state, stream_mode="updates"):
                parts.append(part)
                if len(parts) == 2:  # after its first step
                    begun.put_nowait(name)
            return parts

        names = [f"run-{number}" for number in range(5)]
        reading = [asyncio.create_task(read(name)) for name in names]
        for _ in names:
            await begun.get()
        server.send(signal.SIGTERM)
        assert await server.ended() == 0
        await server.start()
        for name, parts in zip(names, await asyncio.gather(*reading), strict=True):
            assert [part.event for part in parts if part.event != "metadata"] == ["updates"] * 5 + ["end"]
            assert server.starts_of(name) == dict.fromkeys(range(1, 6), 1)


async def test_a_server_that_everybody_reaches_warns_and_names_its_address(tmp_path: Path) -> None:
    async with Server(tmp_path, host="0.0.0.0") as server:
        await server.start()
        assert f"server.open_to_everyone address=0.0.0.0:{server.port}" in server.log
        assert f"url={server.url} address=0.0.0.0:{server.port}" in server.log
    key_file = tmp_path / "keys"
    new_key("ann", key_file)
    async with Server(tmp_path, host="0.0.0.0", api_keys=str(key_file)) as server:
        await server.start()
        assert "open_to_everyone" not in server.log
