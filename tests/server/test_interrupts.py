"""A human in the loop: pauses, answers, breakpoints."""

from __future__ import annotations

from typing import Any

from langgraph_sdk.client import LangGraphClient

from server_kit import ended


async def _answers(client: LangGraphClient, thread_id: str) -> list[Any]:
    return list((await client.threads.get_state(thread_id))["values"].get("answers", []))  # type: ignore[call-overload]


async def test_a_pause_is_a_success_and_leaves_the_thread_interrupted(client: LangGraphClient, thread_id: str) -> None:
    values: Any = await client.runs.wait(thread_id, "approval", input={"topic": "x"})
    [pending] = values["__interrupt__"]
    assert pending["value"] == {"question": "approve?", "topic": "x"}
    [run] = await client.runs.list(thread_id)
    assert run["status"] == "success"
    assert (await client.threads.get(thread_id))["status"] == "interrupted"
    state = await client.threads.get_state(thread_id)
    assert state["next"] == ["ask"]
    assert state["tasks"][0]["interrupts"][0]["id"] == pending["id"]


async def test_an_answer_reaches_the_interrupt_and_wins_over_an_empty_input(
    client: LangGraphClient, thread_id: str
) -> None:
    await client.runs.wait(thread_id, "approval", input={"topic": "x"})
    answer = {"decisions": [{"type": "approve"}]}
    values: Any = await client.runs.wait(thread_id, "approval", input={}, command={"resume": answer})
    assert (values["answers"], values["decided"]) == ([answer], "decided on 1")
    thread = await client.threads.get(thread_id)
    assert (thread["status"], thread["interrupts"]) == ("idle", {})


async def test_two_parallel_interrupts_are_answered_by_their_ids(client: LangGraphClient, thread_id: str) -> None:
    values: Any = await client.runs.wait(thread_id, "approvals", input={"topic": "x"})
    assert set(values) == {"__interrupt__"}
    first, second = values["__interrupt__"]
    assert len((await client.threads.get(thread_id))["interrupts"]) == 2
    refused: Any = await client.runs.wait(thread_id, "approvals", command={"resume": "one for both"}, raise_error=False)
    assert "interrupt" in refused["__error__"]["message"]
    partly: Any = await client.runs.wait(thread_id, "approvals", command={"resume": {first["id"]: 1}})
    assert [one["id"] for one in partly["__interrupt__"]] == [second["id"]]
    values = await client.runs.wait(thread_id, "approvals", command={"resume": {second["id"]: 2}})
    assert (sorted(values["answers"]), values["decided"]) == ([1, 2], "decided on 2")


async def test_resume_and_update_are_applied_together(client: LangGraphClient, thread_id: str) -> None:
    await client.runs.wait(thread_id, "approval", input={"topic": "x"})
    values: Any = await client.runs.wait(
        thread_id, "approval", command={"resume": "yes", "update": {"topic": "changed"}}
    )
    assert (values["topic"], values["answers"]) == ("changed", ["yes"])


async def test_no_input_asks_the_same_question_again(client: LangGraphClient, thread_id: str) -> None:
    first: Any = await client.runs.wait(thread_id, "approval", input={"topic": "x"})
    again: Any = await client.runs.wait(thread_id, "approval", input=None)
    assert again["__interrupt__"] == first["__interrupt__"]


async def test_goto_the_end_with_an_empty_input_is_taken(client: LangGraphClient, thread_id: str) -> None:
    await client.runs.wait(thread_id, "approval", input={"topic": "x"})
    run = await client.runs.create(thread_id, "approval", input={}, command={"goto": "__end__"})
    assert (await ended(client, run))["status"] == "success"


async def test_goto_a_node_runs_it(client: LangGraphClient, thread_id: str) -> None:
    await client.runs.wait(thread_id, "steps", input={"steps": 1})
    values: Any = await client.runs.wait(thread_id, "steps", command={"goto": "step"})
    assert values["done"] == [0, 1]
    values = await client.runs.wait(thread_id, "steps", command={"goto": {"node": "step", "input": {"done": []}}})
    assert values["done"] == [0, 1, 0]


async def test_a_breakpoint_pauses_and_no_input_goes_on(client: LangGraphClient, thread_id: str) -> None:
    for before in ("*", ["step"]):
        thread_id = (await client.threads.create())["thread_id"]
        await client.runs.wait(thread_id, "steps", input={"steps": 1}, interrupt_before=before)
        thread = await client.threads.get(thread_id)
        assert (thread["status"], thread["values"]["done"]) == ("interrupted", [])
        assert (await client.threads.get_state(thread_id))["next"] == ["step"]
        values: Any = await client.runs.wait(thread_id, "steps", input=None)
        assert values["done"] == [0]


async def test_a_breakpoint_after_a_node_pauses_behind_it(client: LangGraphClient, thread_id: str) -> None:
    await client.runs.wait(thread_id, "steps", input={"steps": 2}, interrupt_after=["step"])
    thread = await client.threads.get(thread_id)
    assert (thread["status"], thread["values"]["done"]) == ("interrupted", [0])


async def test_an_interrupt_in_a_subgraph_is_answered_through_its_parent(
    client: LangGraphClient, thread_id: str
) -> None:
    await client.runs.wait(thread_id, "nested_approval", input={"topic": "x"})
    values: Any = await client.runs.wait(thread_id, "nested_approval", command={"resume": "yes"})
    assert values["answers"] == ["yes"]


async def test_a_stateless_run_has_nothing_to_resume(client: LangGraphClient) -> None:
    answer = await client.http.client.post("/runs/wait", json={"assistant_id": "approval", "command": {"resume": 1}})
    assert answer.status_code == 400


async def test_an_answer_to_what_was_not_asked_fails_if_it_is_to_be_strict(
    client: LangGraphClient, thread_id: str
) -> None:
    info: Any = await client.http.get("/info")
    assert info["flags"]["strict_resume"]
    asked: Any = await client.runs.wait(thread_id, "approval", input={"topic": "x"})
    [pending] = asked["__interrupt__"]
    stray = {"resume": {"0" * 32: "yes"}}
    ignored: Any = await client.runs.wait(thread_id, "approval", command=stray)
    assert ignored["__interrupt__"][0]["id"] == pending["id"]
    before = await client.threads.get_state(thread_id)
    failed: Any = await client.runs.wait(thread_id, "approval", command=stray, strict_resume=True, raise_error=False)
    assert failed["__error__"]["error"] == "UnknownInterruptError"
    assert "0" * 32 in failed["__error__"]["message"]
    state = await client.threads.get_state(thread_id)
    assert state["checkpoint"] == before["checkpoint"]  # it failed before anything was written
    assert [one["id"] for one in state["interrupts"]] == [pending["id"]]
    command: Any = {"resume": {pending["id"]: "yes"}}
    values: Any = await client.runs.wait(thread_id, "approval", command=command, strict_resume=True)
    assert values["answers"] == ["yes"]
