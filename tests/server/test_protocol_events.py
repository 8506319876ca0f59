"""Events of the streaming protocol as they are on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from protocol_kit import EVERY_CHANNEL, Wire, human, of, up_to_end
from runlane.server.protocols.v2.thread import PAUSE_DELAY_S
from server_kit import LONG_S, NewDatabase, Server, begun, running_server, sdk

PROJECT = Path(__file__).parent / "protocol_project" / "langgraph.json"


@pytest.fixture(scope="module")
def server(new_database: NewDatabase) -> Iterator[Server]:
    """Give a server of the protocol's graphs."""
    with running_server(new_database(), PROJECT) as running:
        yield running


@pytest.fixture
async def client(server: Server) -> AsyncIterator[LangGraphClient]:
    async with sdk(server) as made:
        yield made


@pytest.fixture
async def thread(http: httpx.AsyncClient) -> AsyncIterator[Wire]:
    """Give a thread that does not exist yet, and stop what is left of it."""
    made = Wire(http)
    yield made
    await http.delete(f"/threads/{made.thread_id}")


def seqs(events: list[Any]) -> list[int]:
    return [event["seq"] for event in events]


def states(events: list[Any]) -> list[str]:
    return [data["event"] for data in of(events, "lifecycle")]


# What the channels have


async def test_every_channel_delivers(thread: Wire) -> None:
    first = await thread.until(await thread.start("tools", input=human("add")))
    second = await thread.until(await thread.start("journey", input={}), since=first[-1]["seq"])
    methods = {event["method"] for event in first + second}
    assert methods == {*EVERY_CHANNEL, "input.requested"} - {"input"}


async def test_the_lifecycle_is_the_first_and_the_last_of_a_runs_events(thread: Wire) -> None:
    events = await thread.until(await thread.start("chat", input=human("hello")))
    assert [event["method"] for event in (events[0], events[-1])] == ["lifecycle", "lifecycle"]
    assert states(events) == ["running", "completed"]
    assert events[0]["params"]["data"]["graph_name"] == "chat"
    assert seqs(events) == sorted(set(seqs(events)))


async def test_a_message_has_its_id_in_every_event(thread: Wire) -> None:
    events = await thread.until(await thread.start("chat", input=human("hello")), "messages", "values", "lifecycle")
    message = of(events, "messages")
    assert [part["event"] for part in message] == [
        "message-start",
        "content-block-start",
        *["content-block-delta"] * 2,
        "content-block-finish",
        "message-finish",
    ]
    assert {part["id"] for part in message} == {of(events, "values")[-1]["messages"][-1]["id"]}
    assert message[0]["role"] == "ai"
    assert message[0]["metadata"]["langgraph_node"] == "answer"


async def test_a_checkpoint_comes_before_its_values(thread: Wire) -> None:
    events = await thread.until(await thread.start("chat", input=human("x")), "checkpoints", "values", "lifecycle")
    assert [event["method"] for event in events[-3:]] == ["checkpoints", "values", "lifecycle"]
    checkpoints = of(events, "checkpoints")
    assert [checkpoint["step"] for checkpoint in checkpoints] == [-1, 0, 1]
    assert [checkpoint.get("parent_id") for checkpoint in checkpoints[1:]] == [one["id"] for one in checkpoints[:-1]]


async def test_a_message_in_a_state_has_only_what_it_says(thread: Wire) -> None:
    events = await thread.until(await thread.start("chat", input=human("x")), "values", "lifecycle")
    assert set(of(events, "values")[-1]["messages"][0]) == {"type", "content", "id"}


async def test_a_question_is_asked_before_its_run_is_interrupted(thread: Wire) -> None:
    run_id = await thread.start("journey", input={})
    events = await thread.until(run_id)
    assert [event["method"] for event in events[-2:]] == ["input.requested", "lifecycle"]
    [question] = of(events, "input.requested")
    assert question["payload"] == question["value"] == "go on?"
    assert events[-2]["event_id"] == f"synth:{run_id}:input||{question['interrupt_id']}"
    assert states(events) == ["running", "interrupted"]


@pytest.mark.parametrize(("graph", "last"), [("journey", "input.requested"), ("chat", "lifecycle")])
async def test_who_only_listens_for_questions_and_ends_hears_of_them_last(thread: Wire, graph: str, last: str) -> None:
    heard: list[str] = []

    async def listen(name: str, *channels: str) -> None:
        async with thread.events(*channels, since=since) as events:
            async for event in events:
                if event["method"] == last and event["params"]["data"].get("event") != "running":
                    heard.append(name)
                    return

    since = (await thread.until(await thread.start("steps", input={})))[-1]["seq"]
    listening = [asyncio.ensure_future(listen("control", "lifecycle", "input"))]
    listening.append(asyncio.ensure_future(listen("data", "values", "lifecycle", "input")))
    await thread.start(graph, input={"messages": []})
    await asyncio.gather(*listening)
    assert heard == ["data", "control"]


async def test_a_question_has_the_schema_of_its_answer_however_the_run_was_started(thread: Wire) -> None:
    native = await thread.until(await thread.start("counted", input={}), "input", "lifecycle")
    other = Wire(thread.http)
    path = f"/threads/{other.thread_id}/runs/wait"
    body = {"assistant_id": "counted", "input": {}, "if_not_exists": "create"}
    assert (await thread.http.post(path, json=body)).status_code == 200
    async with other.events("input") as events:
        shared = [await anext(events)]
    for [question] in (of(native, "input.requested"), of(shared, "input.requested")):
        assert (question["value"], question["response_schema"]) == ("how many?", {"type": "integer"})


async def test_a_new_stream_tells_the_end_of_the_newest_run_a_moment_later(thread: Wire) -> None:
    """Clients replace a stream by a wider one; an end that comes meanwhile ends what waits for the wider one."""
    time = asyncio.get_running_loop().time
    last = await thread.start("chat", input=human("hello"))
    await thread.until(last)
    opened_at = time()
    async with thread.events("values", "lifecycle") as events:
        await up_to_end(events, last)
    assert time() - opened_at >= PAUSE_DELAY_S


async def test_a_question_names_the_subgraph_that_asks(thread: Wire) -> None:
    events = await thread.until(await thread.start("nested_approval", input={"topic": "x"}))
    [question] = [event for event in events if event["method"] == "input.requested"]
    assert [segment.partition(":")[0] for segment in question["params"]["namespace"]] == ["child"]


async def test_a_run_that_answers_says_so_to_every_viewer(thread: Wire) -> None:
    events = await thread.until(await thread.start("journey", input={}))
    [question] = of(events, "input.requested")
    await thread.command("input.respond", interrupt_id=question["interrupt_id"], response="yes")
    async with thread.events("input", "lifecycle", since=events[-1]["seq"]) as later:
        methods = [(await anext(later))["method"] for _ in range(2)]
    assert methods == ["lifecycle", "input.answered"]


async def test_a_question_that_was_answered_is_not_asked_again(thread: Wire) -> None:
    first = await thread.start("journey", input={})
    asked = await thread.until(first)
    await thread.command("input.respond", interrupt_id=of(asked, "input.requested")[0]["interrupt_id"], response="yes")
    again = await thread.until(first)
    assert [event for event in asked if event["method"] != "input.requested"] == again


async def test_a_subgraph_has_a_lifecycle_of_its_own(thread: Wire) -> None:
    events = await thread.until(await thread.start("nested", input=human("hi")))
    inner = [event["params"] for event in events if event["method"] == "lifecycle" and event["params"]["namespace"]]
    assert [params["data"]["event"] for params in inner] == ["started", "completed"]
    assert inner[0]["data"]["graph_name"] == "child"
    assert inner[0]["namespace"] == inner[0]["data"]["namespace"] == inner[1]["namespace"]


# Numbers


async def test_numbers_and_ids_are_the_same_for_every_reader(thread: Wire) -> None:
    run_id = await thread.start("nested", input=human("hi"))
    live, late = await thread.until(run_id), await thread.until(run_id)
    assert live == late
    values = await thread.until(run_id, "values", "lifecycle")
    assert values == [event for event in live if event["method"] in ("values", "lifecycle")]


async def test_a_reader_goes_on_after_any_number(thread: Wire) -> None:
    run_id = await thread.start("journey", input={})
    events = await thread.until(run_id)
    for place, event in enumerate(events[:-1]):
        assert await thread.until(run_id, since=event["seq"]) == events[place + 1 :]


async def test_a_reader_that_has_seen_a_run_sees_only_the_next(thread: Wire) -> None:
    first = await thread.until(await thread.start("chat", input=human("one")))
    second = await thread.start("chat", input=human("two"))
    assert (await thread.until(second, since=first[-1]["seq"]))[0]["event_id"] == f"synth:{second}:lc||running"


async def test_a_stream_goes_on_over_runs(thread: Wire) -> None:
    first = await thread.start("chat", input=human("one"))
    async with thread.events("lifecycle") as events:
        before = await up_to_end(events, first)
        second = await thread.start("chat", input=human("two"))
        after = await up_to_end(events, second)
    assert states(before + after) == ["running", "completed"] * 2
    assert await thread.until(second, "lifecycle") == before + after


async def test_a_silent_stream_has_a_heartbeat(thread: Wire) -> None:
    await thread.until(await thread.start("chat", input=human("one")))
    body = {"channels": ["input"]}
    async with thread.http.stream("POST", f"/threads/{thread.thread_id}/stream/events", json=body) as response:
        comments = [line async for line in _some(response.aiter_lines(), 6)]
    assert comments == [": heartbeat", ""] * 3


async def _some(lines: AsyncIterator[str], count: int) -> AsyncIterator[str]:
    for _ in range(count):
        yield await anext(lines)


async def test_a_reader_that_is_too_late_is_told_of_the_gap(thread: Wire, server: Server) -> None:
    first = await thread.until(await thread.start("chat", input=human("one")))
    second = await thread.until(await thread.start("chat", input=human("two")), since=first[-1]["seq"])
    store = server.app.state.service.store
    await asyncio.get_running_loop().run_in_executor(None, server.on_loop, store.events.purge(older_than_s=-3600))
    third = await thread.start("chat", input=human("three"))
    late = await thread.until(third, since=second[3]["seq"])
    assert (late[0]["method"], late[0]["params"]["data"]) == ("gap", {"resumes_at": second[-1]["seq"] + 1})
    assert late[1]["event_id"] == f"synth:{third}:lc||running"
    assert await thread.until(third) == await thread.until(third, since=second[-1]["seq"]) == late[1:]


# Filters


@pytest.mark.parametrize(
    ("wanted", "namespaces"),
    [
        ({}, {0, 1}),
        ({"namespaces": [[]]}, {0, 1}),
        ({"namespaces": [[]], "depth": 0}, {0}),
        ({"namespaces": [[]], "depth": 1}, {0, 1}),
        ({"namespaces": [["child"]]}, {1}),
        ({"namespaces": [["other"]]}, set()),
        ({"namespaces": [["child:other"]]}, set()),
        ({"namespaces": [["other"], []], "depth": 0}, {0}),
    ],
)
async def test_namespaces_match_by_prefix_and_depth(thread: Wire, wanted: Any, namespaces: set[int]) -> None:
    run_id = await thread.start("nested", input=human("hi"))
    await thread.until(run_id)
    second = await thread.start("chat", input=human("end"))
    every = await thread.until(second)
    async with thread.events("values", "custom", "lifecycle", **wanted) as events:
        seen: set[int] = set()
        matching = [event for event in every if event["method"] in ("values", "lifecycle")]
        for _ in [event for event in matching if len(event["params"]["namespace"]) in namespaces]:
            seen.add(len((await anext(events))["params"]["namespace"]))
    assert seen == namespaces


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"channels": []},
        {"channels": "values"},
        {"channels": ["debug"]},
        {"channels": ["custom:"]},
        {"channels": ["values"], "depth": -1},
        {"channels": ["values"], "since": "1"},
        {"channels": ["values"], "namespaces": ["a"]},
        [],
    ],
)
async def test_a_filter_that_makes_no_sense_is_refused(thread: Wire, body: Any) -> None:
    await thread.until(await thread.start("chat", input=human("x")))
    answer = await thread.http.post(f"/threads/{thread.thread_id}/stream/events", json=body)
    assert answer.status_code == 400
    assert "detail" in answer.json()


async def test_a_stream_of_a_thread_that_does_not_exist_yet_waits_for_its_first_run(thread: Wire) -> None:
    async with thread.events("values", "lifecycle") as events:
        waiting = asyncio.ensure_future(anext(events))
        async with thread.events("lifecycle"):  # answered after the one before it
            assert not waiting.done()
        run_id = await thread.start("chat", input=human("hello"))
        assert [await waiting, *await up_to_end(events, run_id)] == await thread.until(run_id, "values", "lifecycle")


async def test_a_waiting_stream_has_heartbeats_and_is_not_listed_as_a_thread(thread: Wire) -> None:
    path, body = f"/threads/{thread.thread_id}", {"channels": ["lifecycle"]}
    async with thread.http.stream("POST", f"{path}/stream/events", json=body) as response:
        assert [line async for line in _some(response.aiter_lines(), 6)] == [": heartbeat", ""] * 3
        assert (await thread.http.get(path)).status_code == 404


async def test_a_reader_that_comes_back_to_a_deleted_thread_is_told(thread: Wire) -> None:
    last = (await thread.until(await thread.start("chat", input=human("x"))))[-1]["seq"]
    path = f"/threads/{thread.thread_id}"
    await thread.http.delete(path)
    answer = await thread.http.post(f"{path}/stream/events", json={"channels": ["values"], "since": last})
    assert answer.status_code == 404


async def test_a_number_of_another_threads_event_says_nothing_about_that_thread(thread: Wire) -> None:
    other = Wire(thread.http)
    theirs = await other.until(await other.start("chat", input=human("x")))
    await thread.until(await thread.start("chat", input=human("y")))
    third = await thread.start("chat", input=human("z"))
    assert (await thread.until(third, "lifecycle", since=theirs[0]["seq"]))[0]["method"] == "lifecycle"


async def test_a_thread_that_is_deleted_ends_its_streams(thread: Wire) -> None:
    await thread.until(await thread.start("chat", input=human("x")))
    body = {"channels": ["input"]}
    async with thread.http.stream("POST", f"/threads/{thread.thread_id}/stream/events", json=body) as response:
        await thread.http.delete(f"/threads/{thread.thread_id}")
        lines = [line async for line in response.aiter_lines() if line.startswith(("event", "data"))]
    assert lines[0] == "event: error"
    assert "no_such_thread" in lines[1]


# Cancels


async def test_a_run_that_is_cancelled_is_interrupted(thread: Wire, client: LangGraphClient) -> None:
    run_id = await thread.start("steps", input={"delay_s": LONG_S})
    async with thread.events("lifecycle") as events:
        assert (await anext(events))["params"]["data"]["event"] == "running"
        await client.runs.cancel(thread.thread_id, run_id)
        assert states(await up_to_end(events, run_id)) == ["interrupted"]


async def test_what_was_said_before_a_cancel_stays_on_the_thread(thread: Wire, client: LangGraphClient) -> None:
    run_id = await thread.start("stuck", input=human("go on"))
    async with thread.events("messages", "lifecycle") as events:
        said = [await anext(events) for _ in range(5)]
        await client.runs.cancel(thread.thread_id, run_id, wait=True)
        assert states(await up_to_end(events, run_id)) == ["interrupted"]
    state: Any = await client.threads.get_state(thread.thread_id)
    message = state["values"]["messages"][-1]
    assert (message["content"], message["id"]) == ("so far", said[-1]["params"]["data"]["id"])


async def test_a_run_that_is_cancelled_while_pending_has_a_lifecycle(thread: Wire, client: LangGraphClient) -> None:
    first = await thread.start("steps", input={"delay_s": LONG_S})
    pending = await thread.start("steps", input={})
    async with thread.events("lifecycle") as events:
        await client.runs.cancel(thread.thread_id, pending)
        await client.runs.cancel(thread.thread_id, first)
        assert [event["event_id"].split(":")[1] for event in await up_to_end(events, pending)] == [
            first,
            first,
            pending,
        ]
    assert states(await thread.until(pending, "lifecycle")) == ["running", "interrupted", "interrupted"]


async def test_a_run_that_is_rolled_back_is_interrupted_and_numbers_stay(thread: Wire, client: LangGraphClient) -> None:
    first = await thread.until(await thread.start("steps", input={}))
    rolled_back = await thread.start("steps", input={"delay_s": LONG_S})
    async with thread.events("lifecycle", since=first[-1]["seq"]) as events:
        await anext(events)
        last = await thread.start("steps", input={"delay_s": 0}, multitask_strategy="rollback")
        assert states(await up_to_end(events, rolled_back)) == ["interrupted"]
        after = await up_to_end(events, last)
    await asyncio.gather(*(client.runs.join(thread.thread_id, one) for one in (last,)))
    again = await thread.until(last, "lifecycle", since=first[-1]["seq"])
    assert after == again[-2:]


# Runs of the run API


async def test_a_run_of_the_run_api_is_on_the_stream(thread: Wire, client: LangGraphClient) -> None:
    await client.threads.create(thread_id=thread.thread_id)
    run = await client.runs.create(
        thread.thread_id, "journey", input={}, stream_mode=["values", "updates", "custom", "tasks", "checkpoints"]
    )
    run_id = run["run_id"]
    events = await thread.until(run_id)
    assert {event["method"] for event in events} == {
        *("lifecycle", "values", "updates", "custom", "tasks", "checkpoints", "input.requested")
    }
    assert events[-2]["params"]["data"]["value"] == "go on?"
    assert states(events) == ["running", "interrupted"]
    assert await thread.until(run_id) == events
    named = await thread.until(run_id, "custom:progress", "lifecycle")
    assert of(named, "custom") == [{"name": "progress", "stop": "set_out"}]
    for place, event in enumerate(events[:-1]):
        assert await thread.until(run_id, since=event["seq"]) == events[place + 1 :]


async def test_the_run_api_shows_a_run_of_the_protocol_in_its_stream_modes(
    thread: Wire, client: LangGraphClient
) -> None:
    run_id = await thread.start("nested", input=human("hi"))
    await thread.until(run_id)
    parts = [part async for part in client.runs.join_stream(thread.thread_id, run_id, last_event_id="-1")]
    assert {part.event.partition("|")[0] for part in parts} == {
        *("metadata", "values", "updates", "tasks", "checkpoints", "end")
    }
    values = [part for part in parts if part.event.startswith("values")]
    assert {part.event.partition(":")[0] for part in values} == {"values", "values|child"}
    assert [message["type"] for message in values[-1].data["messages"]] == ["human", "ai"]
    assert values[-1].data["messages"][-1]["content"][0]["text"] == "echo: hi"


async def test_a_postponed_run_keeps_nobody_waiting(thread: Wire, client: LangGraphClient) -> None:
    await client.threads.create(thread_id=thread.thread_id)
    postponed = await client.runs.create(thread.thread_id, "steps", input={}, after_seconds=3600)
    now = await thread.start("chat", input=human("now"))
    assert states(await thread.until(now, "lifecycle")) == ["running", "completed"]
    later = await thread.start("chat", input=human("and again"))
    async with thread.events("lifecycle") as events:
        await up_to_end(events, later)
        await client.runs.cancel(thread.thread_id, postponed["run_id"])
        assert states(await up_to_end(events, postponed["run_id"])) == ["interrupted"]


async def test_a_run_of_the_run_api_begins_after_the_one_before_it(thread: Wire, client: LangGraphClient) -> None:
    await client.threads.create(thread_id=thread.thread_id)
    first = await begun(client, thread.thread_id)
    second = await thread.start("chat", input={"messages": []}, multitask_strategy="interrupt")
    ids = [event["event_id"].split(":")[1] for event in await thread.until(second, "lifecycle")]
    assert ids == [first["run_id"]] * 2 + [second] * 2
