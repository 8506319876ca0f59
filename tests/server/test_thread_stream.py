"""The stream of a thread: all its runs, one after the other, with a cursor of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from server_kit import LONG_S, NOWHERE, PATIENCE_S, Frame, NewDatabase, Server, begun, ended, running_server, sdk

ONE_STEP = {"input": {"steps": 1, "delay_s": 0}}


class Reader:
    """One reader of a thread's stream."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()

    async def frame(self) -> Frame:
        """Return the next frame; a heartbeat is one."""
        fields: dict[str, str] = {}
        async for line in self._lines:
            if line:
                name, _, value = line.partition(": ") if not line.startswith(":") else (":", "", line)
                fields[name] = value
            elif ":" in fields:
                return Frame(":", None, None)
            else:
                return Frame(fields["event"], httpx.Response(200, text=fields["data"]).json(), fields.get("id"))
        raise EOFError

    async def event(self) -> Frame:
        """Return the next frame that is no heartbeat."""
        while (found := await self.frame()).name == ":":
            pass
        return found

    async def until_done(self, run: Any) -> list[Frame]:
        """Return the events up to the end of *run*."""
        seen = [await self.event()]
        while seen[-1].data != {"status": "run_done", "run_id": run["run_id"]}:
            seen.append(await self.event())
        return seen


@asynccontextmanager
async def reading(
    http: httpx.AsyncClient, thread_id: str, after: str | None = None, **query: Any
) -> AsyncIterator[Reader]:
    """Open the thread's stream; it has begun when this has entered."""
    headers = {} if after is None else {"Last-Event-ID": after}
    async with http.stream("GET", f"/threads/{thread_id}/stream", params=query, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        reader = Reader(response)
        assert (await reader.frame()).name == ":", "a heartbeat comes at once"
        yield reader


def _started(frames: list[Frame]) -> list[str]:
    return [frame.data["run_id"] for frame in frames if frame.name == "metadata" and "attempt" in frame.data]


async def test_every_run_of_the_thread_comes_with_its_events_and_its_end(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    await client.runs.wait(thread_id, "steps", **ONE_STEP)
    async with reading(http, thread_id) as reader:
        runs = [await client.runs.create(thread_id, "steps", stream_mode=["updates"], **ONE_STEP) for _ in range(2)]
        frames = [await reader.until_done(run) for run in runs]
    for run, seen in zip(runs, frames, strict=True):
        assert [frame.name for frame in seen] == ["metadata", "updates", "metadata"]
        assert _started(seen) == [run["run_id"]]


async def test_ids_of_all_runs_strictly_grow_and_each_is_a_place_to_go_on_from(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    runs = [await client.runs.create(thread_id, "steps", **ONE_STEP) for _ in range(3)]
    async with reading(http, thread_id, "-") as reader:
        whole = [frame for run in runs for frame in await reader.until_done(run)]
    ids = [frame.id or "" for frame in whole]
    assert ids == sorted(set(ids))
    assert _started(whole) == [run["run_id"] for run in runs]
    for index in range(len(whole) - 1):
        async with reading(http, thread_id, whole[index].id) as reader:
            assert await reader.until_done(runs[-1]) == whole[index + 1 :]


async def test_without_an_id_a_reader_begins_now_even_in_the_middle_of_a_run(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    run = await begun(client, thread_id)
    async with reading(http, thread_id) as reader:
        await client.runs.cancel(thread_id, run["run_id"])
        assert _started(await reader.until_done(run)) == []


async def test_lifecycle_has_starts_and_ends_only(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    async with reading(http, thread_id, stream_modes="lifecycle") as reader:
        run = await client.runs.create(thread_id, "steps", input={"steps": 3}, stream_mode=["values", "debug"])
        seen = await reader.until_done(run)
    assert [frame.data for frame in seen] == [
        {"run_id": run["run_id"], "attempt": 1},
        {"status": "run_done", "run_id": run["run_id"]},
    ]


async def test_a_run_that_is_cancelled_before_it_starts_is_told(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    async with reading(http, thread_id) as reader:
        run = await client.runs.create(thread_id, "steps", after_seconds=LONG_S, **ONE_STEP)
        await client.runs.cancel(thread_id, run["run_id"])
        assert len(await reader.until_done(run)) == 1


async def test_a_delayed_run_holds_no_later_one_back(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    delayed = await client.runs.create(thread_id, "steps", after_seconds=LONG_S, **ONE_STEP)
    async with reading(http, thread_id, "-") as reader:
        run = await client.runs.create(thread_id, "steps", **ONE_STEP)
        assert _started(await reader.until_done(run)) == [run["run_id"]]
    await client.runs.cancel(thread_id, delayed["run_id"])


async def test_a_rolled_back_run_ends_too_and_the_stream_goes_on(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    async with reading(http, thread_id) as reader:
        first = await begun(client, thread_id)
        second = await client.runs.create(thread_id, "steps", multitask_strategy="rollback", **ONE_STEP)
        await reader.until_done(first)
        assert _started(await reader.until_done(second)) == [second["run_id"]]


async def test_a_state_that_is_written_from_outside_is_told(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    await client.runs.wait(thread_id, "steps", **ONE_STEP)
    async with reading(http, thread_id, stream_mode=["state_update", "lifecycle"]) as reader:
        await client.threads.update_state(thread_id, {"done": [7]})
        told = await reader.event()
        assert told.name == "state_update"
        assert told.data["thread_id"] == thread_id
        assert told.data["state"]["values"]["done"] == [0, 7]
        run = await client.runs.create(thread_id, "steps", input={"steps": 3})
        after = await reader.until_done(run)
        assert [frame.name for frame in after] == ["metadata", "metadata"]
        following = await client.runs.create(thread_id, "steps", input={"steps": 4})
        seen = await reader.until_done(following)
        assert [frame.name for frame in seen] == ["metadata", "metadata"], "what a run writes is no state update"
    async with reading(http, thread_id, told.id, stream_mode="lifecycle,state_update") as reader:
        assert await reader.until_done(run) == after
    await client.threads.update_state(thread_id, {"done": [8]})
    async with reading(http, thread_id, seen[-1].id, stream_modes='["state_update"]') as reader:
        assert (await reader.event()).data["state"]["values"]["done"][-1] == 8, "a reader that was away is told too"


async def test_run_modes_alone_has_no_state_updates(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    await client.runs.wait(thread_id, "steps", **ONE_STEP)
    async with reading(http, thread_id) as reader:
        await client.threads.update_state(thread_id, {"done": [7]})
        run = await client.runs.create(thread_id, "steps", input={"steps": 3})
        assert "state_update" not in {frame.name for frame in await reader.until_done(run)}


async def test_the_sdk_joins_a_thread(client: LangGraphClient, thread_id: str) -> None:
    runs = [await client.runs.create(thread_id, "steps", **ONE_STEP) for _ in range(2)]
    done = []
    parts: Any = client.threads.join_stream(thread_id, last_event_id="-", stream_mode=["run_modes", "lifecycle"])
    async for part in await parts:
        if part.event == "metadata" and part.data.get("status") == "run_done":
            done.append(part.data["run_id"])
        if len(done) == len(runs):
            break
    assert done == [run["run_id"] for run in runs]


async def test_heartbeats_come_while_nothing_happens(http: httpx.AsyncClient, thread_id: str) -> None:
    async with reading(http, thread_id) as reader:
        assert [(await reader.frame()).name for _ in range(3)] == [":"] * 3


async def test_news_do_not_wait_for_the_next_heartbeat(new_database: NewDatabase) -> None:
    with running_server(new_database(), heartbeat_s=LONG_S) as server:
        web = httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S)
        async with sdk(server) as client, web as http:
            thread_id = (await client.threads.create())["thread_id"]
            async with reading(http, thread_id, stream_mode="lifecycle,state_update") as reader:
                first = await client.runs.create(thread_id, "steps", **ONE_STEP)
                await reader.until_done(first)
                delayed = await client.runs.create(thread_id, "steps", after_seconds=0.3, **ONE_STEP)
                assert _started(await reader.until_done(delayed)) == [delayed["run_id"]]
                await client.threads.update_state(thread_id, {"done": [7]})
                assert (await reader.event()).name == "state_update"
                waiting = await client.runs.create(thread_id, "steps", after_seconds=LONG_S, **ONE_STEP)
                await client.runs.cancel(thread_id, waiting["run_id"])
                assert len(await reader.until_done(waiting)) == 1


async def test_a_missing_thread_is_404_and_nonsense_is_422(http: httpx.AsyncClient, thread_id: str) -> None:
    assert (await http.get(f"/threads/{NOWHERE}/stream")).status_code == 404
    bad_mode = await http.get(f"/threads/{thread_id}/stream", params={"stream_mode": "values"})
    assert (bad_mode.status_code, "'values'" in bad_mode.text) == (422, True)
    for bad_id in ("garbage", "1", "1-2-3", "9" * 30 + "-1"):
        answer = await http.get(f"/threads/{thread_id}/stream", headers={"Last-Event-ID": bad_id})
        assert answer.status_code == 422, bad_id


async def test_the_stream_ends_when_its_thread_is_deleted(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    async with reading(http, thread_id) as reader:
        await client.threads.delete(thread_id)
        with pytest.raises(EOFError):
            await reader.event()


async def test_a_reader_that_does_not_read_holds_nobody_up(
    server: Server, client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    async with reading(http, thread_id, "-"), reading(http, thread_id) as other:  # the first never reads on
        for _ in range(3):
            run = await client.runs.create(thread_id, "steps", input={"steps": 1, "done": list(range(40_000))})
            assert (await ended(client, run))["status"] == "success"
            await other.until_done(run)
        live = server.app.state.service.streams
        assert run["run_id"] not in vars(live)["_live"], "an ended run that all have read is not in memory"


async def test_a_cursor_outlives_its_server(new_database: NewDatabase) -> None:
    database = new_database()
    with running_server(database) as server:
        async with sdk(server) as client, httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http:
            thread_id = (await client.threads.create())["thread_id"]
            first = await client.runs.create(thread_id, "steps", **ONE_STEP)
            async with reading(http, thread_id, "-") as reader:
                cursor = (await reader.until_done(first))[-1].id
            second = await client.runs.create(thread_id, "steps", **ONE_STEP)
            await ended(client, second)
    with running_server(database) as server:
        web = httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S)
        async with sdk(server) as client, web as http, reading(http, thread_id, cursor) as reader:
            third = await client.runs.create(thread_id, "steps", **ONE_STEP)
            assert _started(await reader.until_done(third)) == [second["run_id"], third["run_id"]]


async def test_a_draining_server_lets_readers_go(new_database: NewDatabase) -> None:
    with running_server(new_database()) as server:
        async with sdk(server) as client, httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http:
            thread_id = (await client.threads.create())["thread_id"]
            async with reading(http, thread_id) as reader:
                server.on_loop_soon(server.app.state.service.drain(0))
                with pytest.raises(httpx.RemoteProtocolError):  # a body that is whole says that the thread is deleted
                    await reader.event()


async def test_many_readers_of_a_thread_all_see_the_same(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    runs = [await client.runs.create(thread_id, "steps", **ONE_STEP) for _ in range(3)]

    async def read() -> list[Frame]:
        async with reading(http, thread_id, "-1") as reader:
            return [frame for run in runs for frame in await reader.until_done(run)]

    first, *others = await asyncio.gather(*(read() for _ in range(8)))
    assert all(seen == first for seen in others)
