"""P1 and P4: what an attempt's code starts beside itself ends with it, or is said to go on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import StructuredTool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.store.base import Op, Result
from langgraph.store.base.batch import AsyncBatchedBaseStore

from agent_kit import tool_call
from run_kit import PATIENCE_S, FaultyDriver, at_once, ended, graph_run, items, opened, soon, until
from runlane.agents.coroutine import RunContext
from runlane.agents.host import InlineHost, ThreadHost
from runlane.journal.pacing import LARGE_EVENTS_BYTES
from runlane.lifecycle import RunStatus
from runlane.records import RunRecord, StreamEvent

NEVER_S = 3600.0
HOSTS = pytest.mark.parametrize("new_host", [InlineHost, ThreadHost])


class Sibling:
    """Works until it is cancelled, and then cleans up for some turns of its loop."""

    def __init__(self) -> None:
        self.began, self.ended = threading.Event(), threading.Event()

    async def work(self) -> str:
        self.began.set()
        try:
            await asyncio.sleep(NEVER_S)
        except asyncio.CancelledError:
            for _ in range(50):
                await asyncio.sleep(0)
            self.ended.set()
            raise
        return "worked"


class Deaf(Sibling):
    """Ignores every cancel until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    async def work(self) -> str:
        self.began.set()
        while not self.go.is_set():
            try:
                await asyncio.sleep(NEVER_S)
            except asyncio.CancelledError:
                continue
        self.ended.set()
        return "worked"


async def fails_beside(sibling: Sibling) -> str:
    while not sibling.began.is_set():  # noqa: ASYNC110 - the sibling may be on another thread
        await asyncio.sleep(0)
    raise ValueError("no")


def with_tools(sibling: Sibling) -> StateGraph[Any]:
    """Return a graph whose tool node calls a tool that fails and one that goes on."""

    async def works() -> str:
        """Work."""
        return await sibling.work()

    async def fails() -> str:
        """Fail."""
        return await fails_beside(sibling)

    def ask(state: MessagesState) -> Any:
        return {"messages": [AIMessage("", tool_calls=[tool_call("works", "1"), tool_call("fails", "2")])]}

    tools = [StructuredTool.from_function(coroutine=one) for one in (works, fails)]
    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask).add_node("tools", ToolNode(tools, handle_tool_errors=False))
    graph.add_edge(START, "ask").add_edge("ask", "tools").add_edge("tools", END)
    return graph


def gathering(sibling: Sibling) -> Callable[[RunContext], Awaitable[Any]]:
    async def agent(context: RunContext) -> Any:
        return await asyncio.gather(sibling.work(), fails_beside(sibling))

    return agent


@HOSTS
async def test_the_siblings_of_a_failed_tool_have_stopped_when_their_run_has_ended(new_host: Any) -> None:
    sibling = Sibling()
    async with opened(graphs={"g": with_tools(sibling)}, new_host=new_host, cancel_grace_s=PATIENCE_S) as runtime:
        run = await runtime.runs.create_or_reject("t", kwargs=graph_run(input={"messages": []}))
        failed = await ended(runtime, run)
        assert sibling.ended.is_set()
        assert failed.error is not None
        assert (failed.status, failed.error.message) == (RunStatus.ERROR, "no")


@HOSTS
async def test_the_other_branches_of_a_failed_gather_have_stopped_when_their_run_has_ended(new_host: Any) -> None:
    sibling = Sibling()
    async with opened(new_host=new_host, cancel_grace_s=PATIENCE_S) as runtime:
        failed = await ended(runtime, await runtime.runs.create_or_reject("t", agent=gathering(sibling)))
        assert sibling.ended.is_set()
        assert failed.status is RunStatus.ERROR


@HOSTS
async def test_a_cancel_is_not_called_stopped_while_a_branch_that_it_cannot_reach_goes_on(new_host: Any) -> None:
    sibling = Deaf()
    async with opened(new_host=new_host, cancel_grace_s=0.05, abandon_after_s=0.05) as runtime:
        run = await runtime.runs.create_or_reject("t", agent=gathering(sibling))
        await until(sibling.began.is_set)
        receipt = await soon(runtime.runs.cancel(run.run_id, wait=True))
        assert receipt is not None
        assert not sibling.ended.is_set()
        assert receipt.stopped_at is None
        assert str(receipt.blocked_at).endswith("Deaf.work")
        assert runtime.host.abandoned
        sibling.go.set()
        for handle in runtime.host.abandoned:
            handle.cancel()  # wakes it
        await until(lambda: not runtime.host.abandoned)
        assert sibling.ended.is_set()


async def test_a_branch_that_ignores_the_end_of_its_failed_run_is_abandoned_and_the_error_is_the_runs_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sibling = Deaf()
    async with opened(cancel_grace_s=0.05, abandon_after_s=0.05) as runtime:
        run = await runtime.runs.create_or_reject("t", agent=gathering(sibling))
        failed = await ended(runtime, run)
        assert failed.error is not None
        assert (failed.status, failed.error.message) == (RunStatus.ERROR, "no")
        assert any(
            f"agent.abandoned run_id={run.run_id} attempt=1" in text and text.endswith("Deaf.work")
            for text in caplog.messages
        )
        sibling.go.set()
        for handle in runtime.host.abandoned:
            handle.cancel()
        await until(lambda: not runtime.host.abandoned)


@HOSTS
async def test_a_run_has_ended_once_the_task_that_it_did_not_wait_for_has(new_host: Any) -> None:
    done = threading.Event()
    tasks: set[asyncio.Task[None]] = set()

    async def late() -> None:
        for _ in range(50):
            await asyncio.sleep(0)
        done.set()

    async def agent(context: RunContext) -> str:
        tasks.add(asyncio.create_task(late()))
        return "result"

    async with opened(new_host=new_host, cancel_grace_s=PATIENCE_S) as runtime:
        run = await ended(runtime, await runtime.runs.create_or_reject("t", agent=agent))
        assert (run.status, done.is_set()) == (RunStatus.SUCCESS, True)


async def test_a_task_that_outlives_its_successful_agent_for_too_long_is_stopped_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sibling = Sibling()
    tasks: set[asyncio.Task[str]] = set()

    async def agent(context: RunContext) -> str:
        tasks.add(asyncio.create_task(sibling.work()))
        return "result"

    async with opened(cancel_grace_s=0.05, abandon_after_s=PATIENCE_S) as runtime:
        run = await ended(runtime, await runtime.runs.create_or_reject("t", agent=agent))
        assert (run.status, sibling.ended.is_set()) == (RunStatus.SUCCESS, True)
        [said] = [text for text in caplog.messages if text.startswith("run.tasks_stopped ")]
        assert said.endswith("Sibling.work")


async def test_a_cancelled_thread_of_an_embedding_application_is_waited_for() -> None:
    began, go, returned = threading.Event(), threading.Event(), threading.Event()

    def blocking() -> None:
        began.set()
        go.wait(PATIENCE_S)
        returned.set()

    async def agent(context: RunContext) -> None:
        try:
            await asyncio.to_thread(blocking)
        except asyncio.CancelledError:
            asyncio.get_running_loop().call_later(0.2, go.set)
            raise

    async with opened(cancel_grace_s=PATIENCE_S) as runtime:
        run = await runtime.runs.create_or_reject("t", agent=agent)
        await until(began.is_set)
        receipt = await soon(runtime.runs.cancel(run.run_id, wait=True))
        assert receipt is not None
        assert receipt.stopped_at is not None
        assert returned.is_set()


async def test_a_thread_of_an_embedding_application_that_does_not_return_is_abandoned_and_named() -> None:
    began, go = threading.Event(), threading.Event()

    def blocking() -> None:
        began.set()
        go.wait(PATIENCE_S)

    async def agent(context: RunContext) -> None:
        await asyncio.to_thread(blocking)

    async with opened(cancel_grace_s=0.05, abandon_after_s=0.05) as runtime:
        run = await runtime.runs.create_or_reject("t", agent=agent)
        await until(began.is_set)
        receipt = await soon(runtime.runs.cancel(run.run_id, wait=True))
        assert receipt is not None
        assert receipt.stopped_at is None
        assert receipt.blocked_at is not None
        go.set()
        await until(lambda: not runtime.host.abandoned)


class Batched(AsyncBatchedBaseStore):
    """A store of an application; LangGraph starts its one task for whoever uses it first."""

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        return [None for _ in ops]

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        raise NotImplementedError


async def test_a_client_that_an_attempt_opened_for_everybody_goes_on_after_it() -> None:
    stores: list[Batched] = []

    async def agent(context: RunContext) -> str:
        if not stores:
            stores.append(Batched())
        await stores[0].aget(("n",), "k")
        if context.input == "fail":
            raise ValueError
        return "done"

    async with opened(cancel_grace_s=PATIENCE_S) as runtime:
        for number, asked in enumerate(("fail", "", "")):
            run = await runtime.runs.create_or_reject(f"t{number}", agent=agent, kwargs={"input": asked})
            assert (await ended(runtime, run)).status is (RunStatus.ERROR if asked else RunStatus.SUCCESS)
        assert not stores[0]._task.done()
    stores[0]._task.cancel()


async def test_a_run_that_an_agent_asks_for_is_admitted_even_if_the_agent_fails_meanwhile() -> None:
    driver, gate = FaultyDriver(), asyncio.Event()
    async with opened(driver) as runtime:
        asking: list[asyncio.Task[Any]] = []

        async def parent(context: RunContext) -> None:
            driver.gates["admit"] = gate
            asking.append(asyncio.create_task(runtime.runs.create("child", agent=at_once, on_disconnect="continue")))
            await driver.held.wait()
            raise ValueError

        await ended(runtime, await runtime.runs.create_or_reject("t", agent=parent))
        assert asking[0].cancelled()
        gate.set()
        found: list[RunRecord] = []
        while not found:
            await asyncio.sleep(0)
            found = list(await runtime.runs.list_by_thread("child"))
        assert (await ended(runtime, found[0])).status is RunStatus.SUCCESS


async def test_what_an_agent_emitted_on_postgres_as_it_failed_is_recorded(postgres_url: str) -> None:
    async def agent(context: RunContext) -> None:
        context.emit("custom", "x" * 2 * LARGE_EVENTS_BYTES)
        for _ in range(5):
            await asyncio.sleep(0)
        raise ValueError

    async with opened(database=postgres_url) as runtime:
        run = await ended(runtime, await runtime.runs.create_or_reject("t", agent=agent))
        assert run.status is RunStatus.ERROR
        names = [item.name for item in await items(runtime, run.run_id) if isinstance(item, StreamEvent)]
        assert names == ["metadata", "custom", "error"]
