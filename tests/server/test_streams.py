"""Streams of runs: frames, modes, order, endings, and going on after a break."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from server_kit import (
    LONG_S,
    NOWHERE,
    Frame,
    NewDatabase,
    Server,
    begun,
    ended,
    gone,
    lines_until,
    parse_frames,
    read_frames,
    running_server,
    sdk,
)

HI = {"messages": [{"type": "human", "content": "hi there you"}]}


def named(frames: list[Frame], name: str) -> list[Any]:
    return [frame.data for frame in frames if frame.name == name]


async def stream(http: httpx.AsyncClient, thread_id: str, assistant: str, **body: Any) -> list[Frame]:
    return await read_frames(
        http, "POST", f"/threads/{thread_id}/runs/stream", json={"assistant_id": assistant, "input": {}, **body}
    )


async def test_a_stream_has_the_headers_and_bytes_of_the_protocol(http: httpx.AsyncClient, thread_id: str) -> None:
    body = {"assistant_id": "steps", "input": {"steps": 1}}
    answer = await http.post(f"/threads/{thread_id}/runs/stream", json=body)
    [run] = (await http.get(f"/threads/{thread_id}/runs")).json()
    path = f"/threads/{thread_id}/runs/{run['run_id']}"
    assert (answer.headers["content-location"], answer.headers["location"]) == (path, f"{path}/stream")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"
    frames = [frame for frame in parse_frames(answer.text) if frame.name != ":"]
    assert frames[0].name == "metadata"
    assert frames[0].data == {"run_id": run["run_id"], "attempt": 1}
    assert [frame.name for frame in frames] == ["metadata", "values", "values", "end"]
    assert named(frames, "values") == [{"steps": 1, "done": []}, {"steps": 1, "done": [0]}]


async def test_ids_strictly_grow_as_text(http: httpx.AsyncClient, thread_id: str) -> None:
    frames = await stream(http, thread_id, "steps", input={"steps": 12}, stream_mode=["values", "updates", "debug"])
    ids = [frame.id for frame in frames]
    assert all(ids)
    assert ids == sorted(set(ids))  # type: ignore[type-var]


async def test_a_stream_answers_before_its_run_starts(
    http: httpx.AsyncClient, client: LangGraphClient, thread_id: str
) -> None:
    first = await begun(client, thread_id)
    body = {"assistant_id": "steps", "input": {"steps": 1, "delay_s": 0}}
    async with http.stream("POST", f"/threads/{thread_id}/runs/stream", json=body) as answer:
        assert answer.status_code == 200
        run_id = answer.headers["content-location"].rpartition("/")[2]
        assert (await client.runs.get(thread_id, run_id))["status"] == "pending"
        lines = answer.aiter_lines()
        comments = [line for line in [await anext(lines) for _ in range(6)] if line]
        assert comments == [": heartbeat"] * 3  # the first at once, the others while the run waits
        await client.runs.cancel(thread_id, first["run_id"])
        assert any(["event: end" in line async for line in lines])


async def test_values_and_updates_come_step_by_step_in_order(http: httpx.AsyncClient, thread_id: str) -> None:
    frames = await stream(http, thread_id, "steps", input={"steps": 2}, stream_mode=["values", "updates"])
    names = [frame.name for frame in frames]
    assert names == ["metadata", "values", "updates", "values", "updates", "values", "end"]
    assert named(frames, "updates") == [{"step": {"done": [0]}}, {"step": {"done": [1]}}]


async def test_tokens_come_as_tuples_of_chunk_and_metadata(http: httpx.AsyncClient, thread_id: str) -> None:
    frames = await stream(http, thread_id, "chat", input=HI, stream_mode=["messages-tuple", "values"])
    names = [frame.name for frame in frames]
    assert names[:2] == ["metadata", "values"]
    assert names[-2:] == ["values", "end"]
    tuples = named(frames, "messages")
    assert "".join(chunk["content"] for chunk, _ in tuples) == "echo: hi there you"
    assert {chunk["type"] for chunk, _ in tuples} == {"AIMessageChunk"}
    assert len({chunk["id"] for chunk, _ in tuples}) == 1
    assert tuples[0][0]["id"].startswith("lc_run--")
    assert tuples[0][0]["id"] == named(frames, "values")[-1]["messages"][1]["id"]
    [run] = (await http.get(f"/threads/{thread_id}/runs")).json()
    metadata = tuples[0][1]
    assert (metadata["langgraph_node"], metadata["langgraph_step"], metadata["thread_id"]) == ("answer", 1, thread_id)
    assert (metadata["run_id"], metadata["graph_id"]) == (run["run_id"], "chat")
    assert {"assistant_id", "langgraph_checkpoint_ns", "langgraph_triggers", "run_attempt"} <= set(metadata)


async def test_messages_mode_accumulates(http: httpx.AsyncClient, thread_id: str) -> None:
    frames = await stream(http, thread_id, "chat", input=HI, stream_mode=["messages"])
    names = [frame.name for frame in frames]
    assert names[:2] == ["metadata", "messages/metadata"]
    [announced] = named(frames, "messages/metadata")
    texts = [data[0]["content"] for data in named(frames, "messages/partial")]
    assert texts[0] == "echo:"
    assert texts[-1] == "echo: hi there you"
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    message = named(frames, "messages/partial")[-1][0]
    assert message["type"] == "ai"
    assert list(announced) == [message["id"]]
    assert announced[message["id"]]["metadata"]["langgraph_node"] == "answer"


async def test_a_tool_call_streams_its_arguments_and_its_result(http: httpx.AsyncClient, thread_id: str) -> None:
    ask = {"messages": [{"type": "human", "content": "add"}]}
    frames = await stream(http, thread_id, "tools", input=ask, stream_mode=["messages-tuple", "values"])
    chunks = [chunk for chunk, _ in named(frames, "messages")]
    assert any(chunk.get("tool_call_chunks") for chunk in chunks)
    tool = next(chunk for chunk in chunks if chunk["type"] == "tool")
    assert (tool["content"], tool["tool_call_id"]) == ("3", "call-1")
    final = named(frames, "values")[-1]["messages"]
    assert [message["type"] for message in final] == ["human", "ai", "tool", "ai"]
    assert final[1]["tool_calls"][0]["args"] == {"a": 1, "b": 2}


async def test_custom_payloads_come_as_they_were_written(http: httpx.AsyncClient, thread_id: str) -> None:
    frames = await stream(http, thread_id, "writer", stream_mode="custom")
    assert named(frames, "custom") == [{"progress": 1}, "half"]
    assert {frame.name for frame in frames} == {"metadata", "custom", "end"}


async def test_tasks_checkpoints_and_debug_have_their_fields(http: httpx.AsyncClient, thread_id: str) -> None:
    modes = ["tasks", "checkpoints", "debug"]
    frames = await stream(http, thread_id, "steps", input={"steps": 1}, stream_mode=modes)
    started, finished = named(frames, "tasks")
    assert set(started) >= {"id", "name", "input", "triggers"}
    assert set(finished) >= {"id", "name", "error", "result", "interrupts"}
    assert (started["id"], finished["result"]) == (finished["id"], {"done": [0]})
    checkpoint = named(frames, "checkpoints")[-1]
    assert set(checkpoint) >= {"config", "parent_config", "values", "metadata", "next", "tasks"}
    assert checkpoint["values"] == {"steps": 1, "done": [0]}
    debug = named(frames, "debug")
    assert {event["type"] for event in debug} == {"checkpoint", "task", "task_result"}
    assert all(set(event) == {"step", "timestamp", "type", "payload"} for event in debug)
    last = [event["payload"] for event in debug if event["type"] == "checkpoint"][-1]
    assert last["checkpoint"]["checkpoint_id"] == checkpoint["config"]["configurable"]["checkpoint_id"]
    assert last["parent_checkpoint"]["thread_id"] == thread_id


async def test_events_are_those_of_langchain_and_other_modes_ride_along(
    http: httpx.AsyncClient, thread_id: str
) -> None:
    frames = await stream(http, thread_id, "chat", input=HI, stream_mode=["events", "values"])
    events = named(frames, "events")
    assert {"on_chain_start", "on_chat_model_stream", "on_chat_model_end", "on_chain_end"} <= {
        event["event"] for event in events
    }
    assert all({"event", "name", "run_id", "data", "metadata", "tags", "parent_ids"} <= set(event) for event in events)
    assert named(frames, "values")[-1]["messages"][1]["content"] == "echo: hi there you"


async def test_a_subgraphs_parts_are_named_by_their_namespace(http: httpx.AsyncClient, thread_id: str) -> None:
    modes = ["values", "updates", "messages-tuple"]
    frames = await stream(http, thread_id, "nested", input=HI, stream_mode=modes, stream_subgraphs=True)
    names = {frame.name.partition(":")[0] for frame in frames}
    assert {"values|child", "updates|child", "messages|child", "values", "updates"} <= names
    quiet = await stream(http, thread_id, "nested", input=HI, stream_mode=modes)
    assert not any("|" in frame.name for frame in quiet)


async def test_an_interrupt_is_in_the_last_values_and_updates(http: httpx.AsyncClient, thread_id: str) -> None:
    modes = ["values", "updates"]
    frames = await stream(http, thread_id, "approval", input={"topic": "x"}, stream_mode=modes)
    [pending] = named(frames, "values")[-1]["__interrupt__"]
    assert pending["value"]["question"] == "approve?"
    assert named(frames, "updates")[-1] == {"__interrupt__": [pending]}
    assert frames[-1].data == {"status": "success", "end_reason": "paused"}
    broken = await stream(
        http, thread_id, "steps", input={"steps": 1}, stream_mode="updates", interrupt_before=["step"]
    )
    assert named(broken, "updates") == [{"__interrupt__": []}]


async def test_a_failure_is_an_error_event_and_then_the_end(http: httpx.AsyncClient, thread_id: str) -> None:
    frames = await stream(http, thread_id, "failing", stream_mode=["updates"])
    assert [frame.name for frame in frames[-2:]] == ["error", "end"]
    assert named(frames, "error") == [{"error": "ValueError", "message": "boom"}]
    assert frames[-1].data == {"status": "error", "end_reason": "failed"}
    secret = await stream(http, thread_id, "failing", input={"kind": "custom"})
    assert named(secret, "error") == [{"error": "ProviderError", "message": "An internal error occurred"}]


@pytest.mark.parametrize("kind", ["object", "function"])
async def test_a_state_without_a_json_form_fails_its_run_and_nothing_else(
    http: httpx.AsyncClient, client: LangGraphClient, thread_id: str, kind: str
) -> None:
    frames = await stream(http, thread_id, "odd", input={"kind": kind})
    [error] = named(frames, "error")
    assert frames[-1].data["status"] == "error"
    assert error["message"]
    assert (await http.get("/ok")).status_code == 200
    assert (await client.threads.get(thread_id))["status"] == "error"
    answer = await http.get(f"/threads/{thread_id}/state")
    assert answer.status_code < 500
    other = (await client.threads.create())["thread_id"]
    assert (await client.runs.wait(other, "steps", input={"steps": 1}))["done"] == [0]  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("action", "reason", "kept"), [("interrupt", "user_cancel", True), ("rollback", "rolled_back", False)]
)
async def test_a_cancelled_run_ends_its_stream(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str, action: Any, reason: str, kept: bool
) -> None:
    run = await begun(client, thread_id)
    path = f"/threads/{thread_id}/runs/{run['run_id']}"
    async with http.stream("GET", f"{path}/stream", headers={"Last-Event-ID": "-1"}) as answer:
        lines = answer.aiter_lines()
        while await anext(lines) != "event: tasks":
            pass
        await client.runs.cancel(thread_id, run["run_id"], action=action)
        rest = [line async for line in lines]
    ends = [line for before, line in pairwise(rest) if before == "event: end"]
    assert len(ends) == 1
    assert f'"end_reason":"{reason}"' in ends[0]
    if kept:
        assert (await http.get(path)).status_code == 200
    else:
        await gone(client, path)


async def test_a_superseded_run_ends_its_stream(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    run = await begun(client, thread_id)
    await client.runs.wait(thread_id, "steps", input={"steps": 1, "delay_s": 0}, multitask_strategy="interrupt")
    frames = await read_frames(
        http, "GET", f"/threads/{thread_id}/runs/{run['run_id']}/stream", headers={"Last-Event-ID": "-1"}
    )
    assert frames[-1].data == {"status": "interrupted", "end_reason": "superseded"}
    assert [frame.name for frame in frames].count("end") == 1


class TestAfterABreak:
    """A reader comes back with what it saw last."""

    @pytest.fixture
    async def run(self, client: LangGraphClient, thread_id: str) -> Any:
        run = await client.runs.create(thread_id, "steps", input={"steps": 3}, stream_mode=["values", "updates"])
        return await ended(client, run)

    async def _read(self, http: httpx.AsyncClient, run: Any, last: str | None, query: str = "") -> list[Frame]:
        path = f"/threads/{run['thread_id']}/runs/{run['run_id']}/stream{query}"
        return await read_frames(http, "GET", path, headers={} if last is None else {"Last-Event-ID": last})

    async def test_each_spelling_of_the_beginning_gives_everything(self, http: httpx.AsyncClient, run: Any) -> None:
        whole = await self._read(http, run, "-1")
        assert [frame.name for frame in whole] == ["metadata", "values", *["updates", "values"] * 3, "end"]
        for beginning in ("0", "-"):
            assert await self._read(http, run, beginning) == whole

    async def test_each_id_gives_what_came_after_it(self, http: httpx.AsyncClient, run: Any) -> None:
        whole = await self._read(http, run, "-1")
        for index, frame in enumerate(whole[:-1]):
            assert await self._read(http, run, frame.id) == whole[index + 1 :]

    async def test_the_end_comes_again_to_who_saw_it(self, http: httpx.AsyncClient, run: Any) -> None:
        whole = await self._read(http, run, "-1")
        assert await self._read(http, run, whole[-1].id) == whole[-1:]

    async def test_what_retention_has_removed_is_told_by_a_gap_without_an_id(
        self, server: Server, http: httpx.AsyncClient, run: Any
    ) -> None:
        whole = await self._read(http, run, "-1")
        purge = server.app.state.service.store.events.purge(older_than_s=-3600, limit=1_000_000)
        await asyncio.get_running_loop().run_in_executor(None, server.on_loop, purge)
        gap = Frame("gap", {"resumes_at": whole[-1].id}, None)
        for seen in ("-1", whole[0].id):
            assert await self._read(http, run, seen) == [gap, whole[-1]]
        assert await self._read(http, run, whole[-2].id) == whole[-1:]

    async def test_no_id_means_from_now_on(self, http: httpx.AsyncClient, run: Any) -> None:
        assert [frame.name for frame in await self._read(http, run, None)] == ["end"]

    @pytest.mark.parametrize("bad", ["garbage", "1", "12-", "-5", "1-2-3", "9" * 40, "1-" + "9" * 19, "é"])
    async def test_an_id_that_is_none_of_this_run_is_422(self, http: httpx.AsyncClient, run: Any, bad: str) -> None:
        path = f"/threads/{run['thread_id']}/runs/{run['run_id']}/stream"
        answer = await http.get(path, headers={"Last-Event-ID": bad.encode()})  # type: ignore[dict-item]
        assert answer.status_code == 422, answer.text
        assert "Last-Event-ID" in answer.json()["detail"]

    async def test_another_runs_id_is_422(self, http: httpx.AsyncClient, client: LangGraphClient, run: Any) -> None:
        other = await ended(client, await client.runs.create(run["thread_id"], "steps", input={"steps": 1}))
        [first, *_] = await self._read(http, other, "-1")
        path = f"/threads/{run['thread_id']}/runs/{run['run_id']}/stream"
        assert (await http.get(path, headers={"Last-Event-ID": str(first.id)})).status_code == 422

    @pytest.mark.parametrize(
        "query",
        [
            "?stream_mode=updates&stream_mode=custom",
            '?stream_mode=["updates","custom"]',
            "?stream_modes=updates,custom",
            "?stream_mode=updates",
        ],
    )
    async def test_a_filter_of_modes_applies_to_the_replay(self, http: httpx.AsyncClient, run: Any, query: str) -> None:
        frames = await self._read(http, run, "-1", query)
        assert [frame.name for frame in frames] == ["updates", "updates", "updates", "end"]

    async def test_several_modes_are_all_given_by_the_sdk(self, client: LangGraphClient, run: Any) -> None:
        parts = client.runs.join_stream(
            run["thread_id"], run["run_id"], stream_mode=["values", "updates"], last_event_id="-1"
        )
        assert {part.event async for part in parts} == {"values", "updates", "end"}

    async def test_an_unknown_mode_is_422(self, http: httpx.AsyncClient, run: Any) -> None:
        path = f"/threads/{run['thread_id']}/runs/{run['run_id']}/stream"
        for query in ("?stream_mode=nothing", "?stream_mode=[1]", "?stream_mode=[", "?cancel_on_disconnect=x"):
            assert (await http.get(path + query)).status_code == 422

    async def test_an_unknown_run_is_404(self, http: httpx.AsyncClient, run: Any) -> None:
        assert (await http.get(f"/threads/{run['thread_id']}/runs/{NOWHERE}/stream")).status_code == 404


async def test_a_live_reader_that_comes_back_misses_nothing(
    http: httpx.AsyncClient, client: LangGraphClient, thread_id: str
) -> None:
    body = {"assistant_id": "steps", "input": {"steps": 60, "delay_s": 0.005}, "config": {"recursion_limit": 100}}
    seen: list[str] = []
    async with http.stream("POST", f"/threads/{thread_id}/runs/stream", json=body) as answer:
        location = answer.headers["location"]
        seen += [line[4:] for line in await lines_until(answer, "0007") if line.startswith("id: ")]
    for _ in range(3):
        async with http.stream("GET", location, headers={"Last-Event-ID": seen[-1]}) as answer:
            got = 0
            async for line in answer.aiter_lines():
                if line.startswith("id: "):
                    seen.append(line[4:])
                    got += 1
                    if got == 10:
                        break
    rest = await read_frames(http, "GET", location, headers={"Last-Event-ID": seen[-1]})
    seen += [str(frame.id) for frame in rest]
    whole = await read_frames(http, "GET", location, headers={"Last-Event-ID": "-1"})
    assert seen == [frame.id for frame in whole]


async def test_the_sdk_goes_on_by_itself_after_a_broken_connection(
    server: Server, client: LangGraphClient, thread_id: str
) -> None:
    numbers: list[int] = []
    broken = False

    class Breaking(httpx.AsyncByteStream):
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        async def __aiter__(self) -> Any:
            async for piece in self._inner:
                yield piece
                if b'"done":[0,1,2]' in piece:
                    raise httpx.RemoteProtocolError("cut")

        async def aclose(self) -> None:
            await self._inner.aclose()

    async def cut(response: httpx.Response) -> None:
        nonlocal broken
        if response.request.method == "POST" and "stream" in str(response.request.url) and not broken:
            broken = True
            response.stream = Breaking(response.stream)

    client.http.client.event_hooks["response"].append(cut)
    last = ""
    async for part in client.runs.stream(
        thread_id, "steps", input={"steps": 6, "delay_s": 0.01}, stream_mode="values", stream_resumable=True
    ):
        last = part.event
        if part.event == "values":
            numbers.append(len(part.data["done"]))
    assert broken
    assert numbers == [0, 1, 2, 3, 4, 5, 6]
    assert last == "end"


@pytest.fixture(scope="module")
def hurried(new_database: NewDatabase) -> Iterator[Server]:
    """Give a server whose runs may take a moment only."""
    database = new_database()
    with running_server(database, run_timeout_s=0.2, strict=True) as running:
        yield running


async def test_a_run_that_takes_too_long_says_so_everywhere(hurried: Server) -> None:
    slow = {"steps": 1, "delay_s": LONG_S}
    async with sdk(hurried) as client, httpx.AsyncClient(base_url=hurried.url) as http:
        thread_id = (await client.threads.create())["thread_id"]
        frames = await stream(http, thread_id, "steps", input=slow)
        assert [frame.name for frame in frames[-2:]] == ["error", "end"]
        assert frames[-1].data == {"status": "timeout", "end_reason": "deadline"}
        answer: Any = await client.runs.wait(thread_id, "steps", input=slow, raise_error=False)
        assert answer["__error__"]["error"] == "TimeoutError"
        assert {run["status"] for run in await client.runs.list(thread_id)} == {"timeout"}
        assert (await client.threads.get(thread_id))["status"] == "error"


async def test_a_strict_server_refuses_fields_that_no_version_has(hurried: Server) -> None:
    async with httpx.AsyncClient(base_url=hurried.url) as http:
        for given, named in (({"colour": "red"}, "colour"), ({"config": {"colour": "red"}}, "config.colour")):
            answer = await http.post("/runs", json={"assistant_id": "steps", "input": {}, **given})
            assert answer.status_code == 422
            assert named in answer.json()["detail"]
