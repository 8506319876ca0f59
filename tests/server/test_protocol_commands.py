"""Commands of the streaming protocol: what each does, and what is refused at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from protocol_kit import Wire, human, of
from server_kit import LONG_S, NOWHERE, NewDatabase, Server, running_server, sdk

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


async def asked(thread: Wire, graph: str, **params: Any) -> list[str]:
    """Run *graph* until it asks, and return the ids of its questions."""
    events = await thread.until(await thread.start(graph, **{"input": {}, **params}), "input", "lifecycle")
    return [question["interrupt_id"] for question in of(events, "input.requested")]


async def resumed(thread: Wire, after: int = 0) -> Any:
    """Return the last state of the newest run, once it has ended."""
    runs = (await thread.http.get(f"/threads/{thread.thread_id}/runs")).json()
    return of(await thread.until(runs[0]["run_id"], "values", "lifecycle", since=after), "values")[-1]


# Starting


async def test_a_run_makes_its_thread(thread: Wire, client: LangGraphClient) -> None:
    await thread.until(await thread.start("chat", input=human("hello"), metadata={"tier": "gold"}))
    found = await client.threads.get(thread.thread_id)
    assert (found["status"], (found["metadata"] or {})["graph_id"]) == ("idle", "chat")
    assert [run["metadata"]["tier"] for run in await client.runs.list(thread.thread_id)] == ["gold"]


@pytest.mark.parametrize("spelling", ["multitask_strategy", "multitaskStrategy"])
async def test_a_busy_thread_is_refused_at_once(thread: Wire, spelling: str) -> None:
    run_id = await thread.start("steps", input={"delay_s": LONG_S})
    async with asyncio.timeout(2):
        code, text = await thread.refused("run.start", assistant_id="steps", input={}, **{spelling: "reject"})
    assert code == "unknown_error"
    assert text.startswith("409: ")
    assert run_id in text


async def test_a_run_behind_another_is_pending_at_once(thread: Wire, client: LangGraphClient) -> None:
    await thread.start("steps", input={"delay_s": LONG_S})
    async with asyncio.timeout(2):
        second = await thread.start("steps", input={})
    assert (await client.runs.get(thread.thread_id, second))["status"] == "pending"


async def test_a_run_that_supersedes_starts_once_the_other_has_stopped(thread: Wire, client: LangGraphClient) -> None:
    first = await thread.start("steps", input={"delay_s": LONG_S})
    async with thread.events("lifecycle") as events:
        await anext(events)
    second = await thread.start("steps", input={"delay_s": 0}, multitaskStrategy="interrupt")
    await thread.until(second, "lifecycle")
    assert (await client.runs.get(thread.thread_id, first))["status"] == "interrupted"
    assert (await client.runs.get(thread.thread_id, second))["status"] == "success"


async def test_a_run_forks_from_a_checkpoint(thread: Wire, client: LangGraphClient) -> None:
    events = await thread.until(await thread.start("chat", input=human("first")), "checkpoints", "lifecycle")
    await thread.until(await thread.start("chat", input=human("second")))
    end_of_first = of(events, "checkpoints")[-1]["id"]
    config = {"configurable": {"thread_id": thread.thread_id, "checkpoint_id": end_of_first}}
    await thread.until(await thread.start("chat", input=human("other"), config=config))
    state: Any = await client.threads.get_state(thread.thread_id)
    texts = [message["content"] for message in state["values"]["messages"] if message["type"] == "human"]
    assert texts == ["first", "other"]


async def test_a_run_after_a_cancelled_one_is_a_new_run(thread: Wire, client: LangGraphClient) -> None:
    first = await thread.start("steps", input={"delay_s": LONG_S, "steps": 1})
    async with thread.events("lifecycle") as events:
        await anext(events)
    await client.runs.cancel(thread.thread_id, first, wait=True)
    run_id = await thread.start("steps", input={"delay_s": 0, "steps": 3})
    assert of(await thread.until(run_id), "values")[-1]["done"] == [0, 1, 2]


# Answers


@pytest.mark.parametrize("answer", ["yes", {}, {"0" * 32: "yes"}, {"stops of mine": ["home"]}])
async def test_an_answer_may_come_as_the_input_of_a_run_whatever_it_looks_like(answer: Any, thread: Wire) -> None:
    await asked(thread, "journey")
    run_id = await thread.start("journey", input=answer)
    assert of(await thread.until(run_id), "values")[-1]["stops"] == ["set_out", "ask"]


async def test_an_answer_resumes_the_run(thread: Wire) -> None:
    [interrupt_id] = await asked(thread, "journey")
    answer = await thread.command("input.respond", namespace=[], interrupt_id=interrupt_id, response="yes")
    assert (answer["type"], answer["result"]) == ("success", {})
    assert (await resumed(thread))["stops"] == ["set_out", "ask"]


async def test_of_many_answers_at_once_one_counts_and_the_others_are_told(thread: Wire, client: Any) -> None:
    [interrupt_id] = await asked(thread, "journey")
    many = [Wire(thread.http, thread.thread_id) for _ in range(12)]
    answers = await asyncio.gather(
        *(one.command("input.respond", interrupt_id=interrupt_id, response=n) for n, one in enumerate(many))
    )
    taken = [answer for answer in answers if answer["type"] == "success"]
    refused = [answer for answer in answers if answer["type"] == "error"]
    assert len(taken) == 1
    assert {answer["error"] for answer in refused} == {"no_such_interrupt"}
    runs = await client.runs.list(thread.thread_id)
    assert len(runs) == 2
    assert all(f"answered already, by run '{runs[0]['run_id']}'" in answer["message"] for answer in refused)
    told = (await resumed(thread))["messages"][-1]["content"]
    assert told == f"told {answers.index(taken[0])}"


async def test_an_answer_after_the_run_went_on_is_told_who_gave_the_first(thread: Wire) -> None:
    [interrupt_id] = await asked(thread, "journey")
    await thread.command("input.respond", interrupt_id=interrupt_id, response="yes")
    await resumed(thread)
    code, text = await thread.refused("input.respond", interrupt_id=interrupt_id, response="no")
    assert code == "no_such_interrupt"
    assert "answered already" in text


async def test_several_questions_are_answered_together(thread: Wire) -> None:
    first, second = await asked(thread, "approvals")
    await thread.command(
        "input.respond",
        responses=[
            {"namespace": [], "interrupt_id": first, "response": "a"},
            {"namespace": [], "interrupt_id": second, "response": "b"},
        ],
    )
    assert sorted((await resumed(thread))["answers"]) == ["a", "b"]


async def test_several_questions_are_answered_one_after_the_other_without_waiting(thread: Wire) -> None:
    first, second = await asked(thread, "approvals")
    for interrupt_id in (first, second):
        answer = await thread.command("input.respond", interrupt_id=interrupt_id, response=interrupt_id)
        assert answer["type"] == "success"
    assert sorted((await resumed(thread))["answers"]) == sorted([first, second])


async def test_two_questions_of_one_node_are_two(thread: Wire) -> None:
    [first] = await asked(thread, "twice")
    await thread.command("input.respond", interrupt_id=first, response="one")
    runs = (await thread.http.get(f"/threads/{thread.thread_id}/runs")).json()
    events = await thread.until(runs[0]["run_id"], "input", "lifecycle")
    [question] = of(events, "input.requested")
    assert question["value"] == "second?"
    assert (await thread.refused("input.respond", interrupt_id=first, response="two"))[0] == "no_such_interrupt"
    await thread.command("input.respond", interrupt_id=question["interrupt_id"], response="two")
    assert (await resumed(thread))["stops"] == ["one", "two"]


async def test_an_answer_may_update_the_state_as_well(thread: Wire) -> None:
    [interrupt_id] = await asked(thread, "approval", input={"topic": "x"})
    await thread.command("input.respond", interrupt_id=interrupt_id, response="yes", update={"topic": "y"})
    assert (await resumed(thread))["topic"] == "y"


async def test_a_resumed_run_has_the_config_of_the_run_that_asked(thread: Wire, client: LangGraphClient) -> None:
    [interrupt_id] = await asked(thread, "journey", config={"configurable": {"mood": "good"}, "tags": ["a"]})
    await thread.command("input.respond", interrupt_id=interrupt_id, response=1, config={"tags": ["b"]})
    await resumed(thread)
    config: Any = (await client.runs.list(thread.thread_id))[0]["kwargs"]["config"]
    assert (config["configurable"]["mood"], config["tags"]) == ("good", ["b"])


async def test_a_run_that_starts_with_an_answer_resumes(thread: Wire) -> None:
    await asked(thread, "journey")
    await thread.until(await thread.start("journey", input="from elsewhere"))
    assert (await resumed(thread))["messages"][-1]["content"] == "told from elsewhere"


async def test_a_run_after_a_cancelled_answer_is_no_answer(thread: Wire, client: LangGraphClient) -> None:
    [interrupt_id] = await asked(thread, "patient")
    await thread.command("input.respond", interrupt_id=interrupt_id, response="yes")
    answering = (await client.runs.list(thread.thread_id))[0]["run_id"]
    async with thread.events("custom") as events:
        await anext(events)
    await client.runs.cancel(thread.thread_id, answering, wait=True)
    run_id = await thread.start("patient", input="anew")
    runs: Any = await client.runs.list(thread.thread_id)
    assert (runs[0]["run_id"], runs[0]["kwargs"]["input"], runs[0]["kwargs"]["command"]) == (run_id, "anew", None)


async def test_new_input_on_a_thread_that_waits_is_no_answer(thread: Wire) -> None:
    await asked(thread, "approval", input={"topic": "x"})
    events = await thread.until(await thread.start("approval", input={"topic": "y"}), "input", "values", "lifecycle")
    assert of(events, "input.requested")[-1]["value"] == {"question": "approve?", "topic": "y"}
    assert of(events, "values")[-1]["answers"] == []


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"interrupt_id": "0" * 32, "response": 1}, "no_such_interrupt"),
        ({"response": 1}, "invalid_argument"),
        ({"responses": []}, "invalid_argument"),
        ({"responses": [{"interrupt_id": "a"}, {"interrupt_id": "a"}]}, "invalid_argument"),
        ({"responses": [{"response": 1}]}, "invalid_argument"),
        ({"interrupt_id": 7}, "invalid_argument"),
    ],
)
async def test_an_answer_that_makes_no_sense_is_refused(thread: Wire, params: Any, code: str) -> None:
    await asked(thread, "journey")
    assert (await thread.refused("input.respond", **params))[0] == code


async def test_a_thread_that_never_ran_has_nothing_to_answer(thread: Wire, client: LangGraphClient) -> None:
    await client.threads.create(thread_id=thread.thread_id)
    assert (await thread.refused("input.respond", interrupt_id="a", response=1))[0] == "no_such_run"


# Looking and forking


async def test_the_tree_of_a_run_has_its_subgraphs(thread: Wire) -> None:
    await thread.start("parent", input={})
    async with thread.events("lifecycle", namespaces=[["child"]]) as events:
        namespace = (await anext(events))["params"]["namespace"]
    tree = (await thread.command("agent.getTree"))["result"]["tree"]
    child = {"namespace": namespace, "graph_name": "child", "status": "started"}
    assert tree == {"namespace": [], "status": "running", "graph_name": "parent", "children": [child]}


async def test_a_thread_on_which_nothing_executes_has_no_tree(thread: Wire) -> None:
    await thread.until(await thread.start("chat", input=human("x")))
    assert (await thread.refused("agent.getTree"))[0] == "no_such_run"


async def test_a_state_is_read_whole_or_by_keys_and_by_namespace(thread: Wire) -> None:
    events = await thread.until(await thread.start("nested_approval", input={"topic": "x"}))
    [namespace] = {tuple(event["params"]["namespace"]) for event in events if event["params"]["namespace"]}
    whole = (await thread.command("state.get", namespace=[]))["result"]
    assert whole["values"] == {"topic": "x", "answers": []}
    assert whole["checkpoint"] == {"id": of(events, "checkpoints")[-1]["id"], "ns": ""}
    inner = (await thread.command("state.get", namespace=namespace, keys=["topic"]))["result"]
    assert (inner["values"], inner["checkpoint"]["ns"]) == ({"topic": "x"}, "|".join(namespace))


async def test_checkpoints_are_listed_and_forked(thread: Wire) -> None:
    events = await thread.until(await thread.start("chat", input=human("first")))
    await thread.until(await thread.start("chat", input=human("second")))
    listed = (await thread.command("state.listCheckpoints"))["result"]["checkpoints"]
    first = [checkpoint["id"] for checkpoint in of(events, "checkpoints")]
    assert [checkpoint["id"] for checkpoint in listed][-3:] == first[::-1]
    page = (await thread.command("state.listCheckpoints", limit=1, before=listed[0]["id"]))["result"]["checkpoints"]
    assert page == [listed[1]]
    forked = (await thread.command("state.fork", checkpoint_id=first[-1], input=human("other")))["result"]
    assert forked["thread_id"] == thread.thread_id
    messages = of(await thread.until(forked["run_id"]), "values")[-1]["messages"]
    assert [message["content"] for message in messages if message["type"] == "human"] == ["first", "other"]


async def test_a_thread_that_never_ran_has_no_state(thread: Wire, client: LangGraphClient) -> None:
    await client.threads.create(thread_id=thread.thread_id)
    for method, params in (
        ("state.get", {}),
        ("state.listCheckpoints", {}),
        ("state.fork", {"checkpoint_id": NOWHERE}),
    ):
        assert (await thread.refused(method, **params))[0] == "no_such_run"


# What is wrong


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("input.inject", {}, "unknown_command"),
        ("", {}, "unknown_command"),
        ("run.start", {}, "invalid_argument"),
        ("run.start", {"assistant_id": "nowhere"}, "invalid_argument"),
        ("run.start", {"assistant_id": "chat", "multitask_strategy": "wait"}, "invalid_argument"),
        ("run.start", {"assistant_id": "chat", "config": {"configurable": {"checkpoint_id": "x"}}}, "invalid_argument"),
        ("run.start", {"assistant_id": "chat", "langsmith_tracer": {}}, "not_supported"),
        ("run.start", [], "invalid_argument"),
    ],
)
async def test_a_command_that_makes_no_sense_is_refused(thread: Wire, method: str, params: Any, code: str) -> None:
    command = {"id": 1, "method": method, "params": params}
    answer = (await thread.http.post(f"/threads/{thread.thread_id}/commands", json=command)).json()
    assert (answer["type"], answer["id"], answer["error"]) == ("error", 1, code)
    assert (await thread.http.get(f"/threads/{thread.thread_id}")).status_code == 404


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"{}", b'{"id": 1}', b'{"method": "run.start"}', b'{"id": "1", "method": "x"}']
)
async def test_what_is_no_command_is_a_bad_request(thread: Wire, body: bytes) -> None:
    answer = await thread.http.post(f"/threads/{thread.thread_id}/commands", content=body)
    assert answer.status_code == 400
    assert "detail" in answer.json()


async def test_what_no_version_of_the_protocol_knows_is_ignored_and_named(thread: Wire) -> None:
    params = {"assistant_id": "chat", "input": human("x"), "mood": "good"}
    command = {"id": 1, "method": "run.start", "params": params, "urgent": True}
    answer = await thread.http.post(f"/threads/{thread.thread_id}/commands", json=command)
    assert (answer.json()["type"], answer.headers["runlane-ignored"]) == ("success", "urgent, mood")
    body = {"channels": ["lifecycle"], "filter": "all"}
    async with thread.http.stream("POST", f"/threads/{thread.thread_id}/stream/events", json=body) as response:
        assert response.headers["runlane-ignored"] == "filter"


@pytest.mark.parametrize(
    ("method", "params"),
    [("input.respond", {"interrupt_id": "a"}), ("run.start", {"assistant_id": NOWHERE})],
)
async def test_a_thread_or_assistant_that_there_is_not_is_told(thread: Wire, method: str, params: Any) -> None:
    command = {"id": 1, "method": method, "params": params}
    answer = await thread.http.post(f"/threads/{thread.thread_id}/commands", json=command)
    assert answer.status_code == 404
