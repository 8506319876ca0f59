"""Traces of runs, as a collector of OTLP receives them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolCall
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import interrupt
from opentelemetry import trace

from ledger_kit import admit, claim
from run_kit import FaultyDriver, Stepper, ended, graph_run, opened, soon, until
from runlane.lifecycle import CancelAction, EndReason, RunStatus
from runlane.requests import RunOrigin, RunRequest, StoredRequest
from runlane.store.ledger import RunStore
from runlane.telemetry.tracing import SCHEMA_URL
from trace_kit import ERROR, UNSET, Collector, attributes, collecting


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        yield running


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def _talking() -> StateGraph[Any]:
    call = AIMessage(
        "",
        tool_calls=[ToolCall(name="add", args={"a": 1, "b": 2}, id="call-1")],
        usage_metadata={"input_tokens": 7, "output_tokens": 3, "total_tokens": 10},
        response_metadata={"model_name": "fake-1", "finish_reason": "tool_calls"},
    )
    model = GenericFakeChatModel(messages=iter([call]))

    async def speak(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("speak", speak).add_node("tools", ToolNode([add]))
    return graph.add_edge(START, "speak").add_edge("speak", "tools").add_edge("tools", END)


def _asked(text: str) -> dict[str, Any]:
    return graph_run(input={"messages": [{"type": "human", "content": text}]})


async def test_a_run_has_spans_of_its_attempt_nodes_models_and_tools(collector: Collector) -> None:
    async with opened(graphs={"g": _talking()}, traces=True) as runtime:
        run = await runtime.runs.create("t", kwargs=_asked("sesame"), owner="ann@example.com")
        assert (await ended(runtime, run)).status is RunStatus.SUCCESS
    whole = collector.one("run g")
    assert (whole.parent_span_id, whole.status.code) == (b"", UNSET)
    told = attributes(whole)
    assert (told["runlane.run.id"], told["gen_ai.conversation.id"], told["gen_ai.agent.name"]) == (run.run_id, "t", "g")
    assert (told["runlane.run.status"], told["runlane.run.end_reason"]) == ("success", "completed")
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (7, 3)
    assert collector.children(whole) == ["queue", "invoke_agent g"]
    attempt = collector.one("invoke_agent g")
    assert collector.children(attempt) == ["node speak", "node tools"]
    assert collector.children(collector.one("node speak")) == ["chat"]
    chat = attributes(collector.one("chat"))
    assert chat["gen_ai.operation.name"] == "chat"
    assert (chat["gen_ai.response.model"], chat["gen_ai.response.finish_reasons"]) == ("fake-1", ["tool_calls"])
    assert (chat["gen_ai.usage.input_tokens"], chat["gen_ai.usage.output_tokens"]) == (7, 3)
    assert collector.children(collector.one("node tools")) == ["execute_tool add"]
    called = attributes(collector.one("execute_tool add"))
    assert (called["gen_ai.tool.name"], called["gen_ai.tool.call.id"]) == ("add", "call-1")
    assert collector.schema_urls == {SCHEMA_URL}
    assert collector.services == {"runlane"}
    for kept_out in ("sesame", "ann", '"a"'):
        assert all(kept_out not in str(span) for span in collector.spans)


async def test_payloads_are_in_spans_if_the_setting_says_so_and_secrets_are_not(collector: Collector) -> None:
    async with opened(graphs={"g": _talking()}, traces=True, trace_payloads=True) as runtime:
        config = {"configurable": {"api_key": "abracadabra-12345"}}
        kwargs = {**_asked("say abracadabra-12345 please"), "config": config}
        await ended(runtime, await runtime.runs.create("t", kwargs=kwargs))
    chat, called = attributes(collector.one("chat")), attributes(collector.one("execute_tool add"))
    assert '"say *** please"' in chat["gen_ai.input.messages"]
    assert '"name": "add"' in chat["gen_ai.output.messages"]
    assert called["gen_ai.tool.call.result"] == "3"
    assert "'a': 1" in called["gen_ai.tool.call.arguments"]


async def test_a_run_that_is_cancelled_ends_its_spans_and_is_no_error(collector: Collector) -> None:
    stepper = Stepper()
    async with opened(graphs={"g": stepper.graph()}, traces=True) as runtime:
        run = await runtime.runs.create("t", kwargs=graph_run())
        await soon(stepper.started.wait())
        await runtime.runs.cancel(run.run_id, action=CancelAction.INTERRUPT, wait=True)
    whole, attempt = collector.one("run g"), collector.one("invoke_agent g")
    assert (attributes(whole)["runlane.run.status"], whole.status.code) == ("interrupted", UNSET)
    assert [event.name for event in attempt.events] == ["runlane.cancel_observed"]
    cut = collector.one("node second")
    assert (attributes(cut)["runlane.cut_off"], cut.status.code) == (True, UNSET)
    assert cut.end_time_unix_nano >= cut.start_time_unix_nano > 0


async def test_a_run_that_fails_is_an_error(collector: Collector) -> None:
    async def fails(_: MessagesState) -> Any:
        raise ValueError("sesame")

    graph = StateGraph(MessagesState).add_node("fails", fails).add_edge(START, "fails")
    async with opened(graphs={"g": graph}, traces=True) as runtime:
        await ended(runtime, await runtime.runs.create("t", kwargs=_asked("x")))
    for name in ("run g", "invoke_agent g", "node fails"):
        span = collector.one(name)
        assert (span.status.code, attributes(span)["error.type"]) == (ERROR, "ValueError")
        assert "sesame" not in str(span)


async def test_an_interrupt_is_no_error_and_the_run_that_answers_is_linked_to_it(collector: Collector) -> None:
    async def ask(_: MessagesState) -> Any:
        return {"messages": [AIMessage(interrupt("sure?"))]}

    graph = StateGraph(MessagesState).add_node("ask", ask).add_edge(START, "ask").add_edge("ask", END)
    async with opened(graphs={"g": graph}, traces=True) as runtime:
        first = await runtime.runs.create("t", kwargs=_asked("x"))
        assert (await ended(runtime, first)).end_reason is EndReason.PAUSED
        second = await runtime.runs.create("t", kwargs={"graph_id": "g", "command": {"resume": "yes"}})
        assert (await ended(runtime, second)).status is RunStatus.SUCCESS
    runs = {attributes(span)["runlane.run.id"]: span for span in collector.named("run g")}
    attempts = {attributes(span)["runlane.run.id"]: span for span in collector.named("invoke_agent g")}
    asked, answered = collector.named("node ask")
    assert {span.status.code for span in (*runs.values(), *attempts.values(), asked, answered)} == {UNSET}
    assert attributes(asked)["runlane.interrupted"] is True
    [link] = attempts[second.run_id].links
    assert attributes(link) == {"runlane.link": "resumes", "runlane.run.id": first.run_id}
    assert (link.trace_id, link.span_id) == (runs[first.run_id].trace_id, runs[first.run_id].span_id)


async def test_a_run_that_is_handed_over_is_one_trace_of_two_processes(collector: Collector) -> None:
    stepper, driver = Stepper(), FaultyDriver()
    async with opened(driver, graphs={"g": stepper.graph()}, traces=True) as runtime:
        run = await runtime.runs.create("t", kwargs=graph_run())
        await soon(stepper.started.wait())
        asyncio.get_running_loop().call_later(0.01, stepper.go.set)
    assert collector.named("run g") == []
    async with opened(driver, graphs={"g": stepper.graph()}, traces=True) as runtime:
        assert (await ended(runtime, run)).status is RunStatus.SUCCESS
    whole = collector.one("run g")
    assert collector.children(whole) == ["queue", "invoke_agent g", "invoke_agent g"]
    first, second = collector.named("invoke_agent g")
    assert [attributes(each)["runlane.attempt.end"] for each in (first, second)] == ["released", "success"]
    assert [(link.trace_id, link.span_id) for link in second.links] == [(first.trace_id, first.span_id)]
    assert attributes(whole)["runlane.run.attempts"] == 2


async def test_the_span_of_a_dead_worker_is_written_by_the_process_that_rescues(collector: Collector) -> None:
    stepper, driver = Stepper(), FaultyDriver()
    stepper.go.set()
    store = RunStore(driver)
    run_id = await admit(store, kwargs=graph_run())
    await claim(store, run_id, "dead")
    async with opened(driver, graphs={"g": stepper.graph()}, traces=True) as runtime:
        await soon(runtime.runs.join(run_id))
    lost, second = sorted(collector.named("invoke_agent g"), key=lambda span: span.start_time_unix_nano)
    assert (lost.status.code, lost.status.message) == (ERROR, "worker lost")
    assert attributes(lost)["runlane.attempt.end"] == "worker_lost"
    assert [link.span_id for link in second.links] == [lost.span_id]
    whole = collector.one("run g")
    assert {lost.parent_span_id, second.parent_span_id} == {whole.span_id}
    assert (whole.status.code, attributes(whole)["runlane.run.rescues"]) == (UNSET, 1)


async def test_an_attempt_that_lost_its_run_leaves_the_span_to_the_one_that_took_it(collector: Collector) -> None:
    stepper, driver = Stepper(), FaultyDriver()
    async with opened(driver, graphs={"g": stepper.graph()}, traces=True, lease_s=0.3, poll_s=3600) as runtime:
        run = await runtime.runs.create("t", kwargs=graph_run())
        await soon(stepper.started.wait())
        [lease] = [each for each in await runtime.store.attempts.leases(living=[]) if each.run_id == run.run_id]
        await runtime.store.attempts.rescue(lease, max_rescues=3)
        await until(lambda: not runtime.worker.executing)
    assert collector.named("invoke_agent g") == []


@pytest.mark.parametrize("sampled", [True, False])
async def test_a_run_is_part_of_the_trace_of_its_client(collector: Collector, sampled: bool) -> None:
    stepper, driver = Stepper(), FaultyDriver()
    stepper.go.set()
    traceparent = f"00-{'ab' * 16}-{'cd' * 8}-0{int(sampled)}"
    run_id = await admit(RunStore(driver), kwargs=graph_run(), origin=RunOrigin(traceparent=traceparent))
    async with opened(driver, graphs={"g": stepper.graph()}, traces=True) as runtime:
        await soon(runtime.runs.join(run_id))
    if not sampled:
        assert collector.spans == []
        return
    assert collector.one("run g").parent_span_id.hex() == "cd" * 8
    assert {span.trace_id.hex() for span in collector.spans} == {"ab" * 16}


async def test_spans_of_the_graphs_own_are_within_the_attempt(collector: Collector) -> None:
    seen: list[str] = []

    async def node(_: MessagesState) -> Any:
        seen.append(format(trace.get_current_span().get_span_context().span_id, "016x"))
        return {}

    graph = StateGraph(MessagesState).add_node("node", node).add_edge(START, "node")
    async with opened(graphs={"g": graph}, traces=True) as runtime:
        await ended(runtime, await runtime.runs.create("t", kwargs=_asked("x")))
    assert seen == [collector.one("invoke_agent g").span_id.hex()]


@pytest.mark.parametrize("apart", [False, True])
def test_a_request_keeps_its_traceparent_and_a_version_that_older_processes_do_not_read(apart: bool) -> None:
    request, origin = RunRequest.of({"input": {"a": 1}}), RunOrigin(traceparent="00-x")
    stored = StoredRequest.of(request, origin)
    if apart:
        stored = StoredRequest(stored.without_input().text, b'{"a":1}')
    assert stored.text.startswith('{"runlane_request":3,')
    assert (stored.traceparent, stored.request) == ("00-x", request)
    assert StoredRequest.of(request).text.startswith('{"runlane_request":1,')
    assert StoredRequest.of(request).traceparent is None


def test_without_traces_nothing_of_opentelemetry_is_imported() -> None:
    wanted = "('opentelemetry.exporter', 'runlane.telemetry.tracing', 'runlane.agents.spans')"
    code = f"import sys, runlane.server.app; print([name for name in sys.modules if name.startswith({wanted})])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
