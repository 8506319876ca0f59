"""What else happens on a thread while its state is being written."""

from __future__ import annotations

import asyncio
import operator
import threading
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from typing import Annotated, Any

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import BadRequestError, ConflictError, NotFoundError, UnprocessableEntityError
from typing_extensions import TypedDict

from server_kit import PATIENCE_S, NewDatabase, Server, running_server, sdk


class Gate:
    """A place where graphs' code stops once somebody has armed it, and waits until it is opened."""

    def __init__(self) -> None:
        self._armed, self._reached, self._opened = False, threading.Event(), threading.Event()

    def arm(self) -> None:
        self._armed = True
        self._reached.clear()
        self._opened.clear()

    async def passes(self) -> None:
        if self._armed:
            self._armed = False
            self._reached.set()
            assert await asyncio.to_thread(self._opened.wait, PATIENCE_S)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, PATIENCE_S)

    def open(self) -> None:
        self._opened.set()


class Log(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


#: Where an update stops: between reading the state and writing it.
EDGE, NODE = Gate(), Gate()


def _gated() -> Any:
    async def work(state: Log) -> Any:
        await NODE.passes()
        return {"log": ["run"]}

    async def path(state: Log) -> str:
        await EDGE.passes()
        if "explode" in state["log"]:
            raise RuntimeError("no such luck")
        return END

    return StateGraph(Log).add_node("work", work).add_edge(START, "work").add_conditional_edges("work", path, [END])


@pytest.fixture(scope="module")
def server(new_database: NewDatabase) -> Iterator[Server]:
    with running_server(new_database(), graphs={"gated": _gated()}) as running:
        yield running


@pytest.fixture
async def client(server: Server) -> AsyncIterator[LangGraphClient]:
    async with sdk(server) as made:
        yield made


@pytest.fixture
async def thread_id(client: LangGraphClient) -> str:
    """Give a thread on which one run has ended."""
    thread_id = str((await client.threads.create())["thread_id"])
    await client.runs.wait(thread_id, "gated", input={"log": ["in"]})
    return thread_id


def updating(client: LangGraphClient, thread_id: str, note: str = "update", **more: Any) -> asyncio.Task[Any]:
    """Begin a state update that stops before it writes."""
    EDGE.arm()
    return asyncio.ensure_future(client.threads.update_state(thread_id, {"log": [note]}, as_node="work", **more))


async def log_of(client: LangGraphClient, thread_id: str) -> list[str]:
    """Return the thread's log, once it is sure that its row and its newest state say the same."""
    thread, state = await client.threads.get(thread_id), await client.threads.get_state(thread_id)
    assert thread["values"] == state["values"]
    return list(state["values"]["log"])


async def is_a_line(client: LangGraphClient, thread_id: str) -> bool:
    history = await client.threads.get_history(thread_id, limit=100)
    return all(newer["parent_checkpoint"] == older["checkpoint"] for newer, older in pairwise(history))


async def test_an_update_that_a_run_came_before_is_made_on_what_the_run_left(
    client: LangGraphClient, thread_id: str
) -> None:
    update = updating(client, thread_id)
    await EDGE.reached()
    await client.runs.wait(thread_id, "gated", input={"log": ["again"]})
    EDGE.open()
    await update
    assert await log_of(client, thread_id) == ["in", "run", "again", "run", "update"]
    assert await is_a_line(client, thread_id)


async def test_an_update_while_a_run_goes_on_is_refused_and_writes_nothing(
    client: LangGraphClient, thread_id: str
) -> None:
    update = updating(client, thread_id)
    await EDGE.reached()
    NODE.arm()
    run = await client.runs.create(thread_id, "gated", input={"log": ["again"]})
    await NODE.reached()
    EDGE.open()
    with pytest.raises(ConflictError) as refused:
        await update
    assert run["run_id"] in str(refused.value)
    NODE.open()
    await client.runs.join(thread_id, run["run_id"])
    assert await log_of(client, thread_id) == ["in", "run", "again", "run"]
    history = await client.threads.get_history(thread_id, limit=100)
    assert not any("update" in state["values"].get("log", ()) for state in history)
    assert await is_a_line(client, thread_id)


async def test_updates_at_once_are_made_one_after_the_other(client: LangGraphClient, thread_id: str) -> None:
    first = updating(client, thread_id, "late")
    await EDGE.reached()
    await client.threads.update_state(thread_id, {"log": ["early"]}, as_node="work")
    EDGE.open()
    await first
    assert await log_of(client, thread_id) == ["in", "run", "early", "late"]
    await asyncio.gather(*(client.threads.update_state(thread_id, {"log": [str(n)]}, as_node="work") for n in range(4)))
    assert sorted((await log_of(client, thread_id))[4:]) == ["0", "1", "2", "3"]
    assert await is_a_line(client, thread_id)


async def test_a_fork_that_something_came_before_is_the_newest_state_all_the_same(
    client: LangGraphClient, thread_id: str
) -> None:
    root = (await client.threads.get_history(thread_id, limit=100))[1]
    update = updating(client, thread_id, "fork", checkpoint=root["checkpoint"])
    await EDGE.reached()
    await client.runs.wait(thread_id, "gated", input={"log": ["again"]})
    EDGE.open()
    await update
    assert await log_of(client, thread_id) == ["in", "fork"]
    assert (await client.threads.get(thread_id))["status"] == "idle"


async def test_an_update_of_a_thread_that_was_deleted_meanwhile_leaves_nothing(
    server: Server, client: LangGraphClient, thread_id: str
) -> None:
    update = updating(client, thread_id)
    await EDGE.reached()
    await client.threads.delete(thread_id)
    EDGE.open()
    with pytest.raises(NotFoundError):
        await update
    saver = server.app.state.service.runtime.saver
    left = server.on_loop(saver.threads.storage(thread_id))
    assert (left.checkpoints.count, left.channels, left.writes.count) == (0, {}, 0)


async def test_whatever_the_graphs_code_raises_about_an_update_is_the_clients_error(
    client: LangGraphClient, thread_id: str
) -> None:
    with pytest.raises(BadRequestError, match="RuntimeError: no such luck"):
        await client.threads.update_state(thread_id, {"log": ["explode"]}, as_node="work")
    with pytest.raises(UnprocessableEntityError, match=r"supersteps cannot be applied: .*no such luck"):
        await client.threads.create(
            graph_id="gated", supersteps=[{"updates": [{"values": {"log": ["explode"]}, "as_node": "work"}]}]
        )
    assert await log_of(client, thread_id) == ["in", "run"]


async def test_two_clients_that_create_one_thread_with_different_histories_make_one_of_them(
    server: Server, client: LangGraphClient
) -> None:
    thread_id = "6b7c3b1e-0000-4000-8000-00000000aaaa"

    def creating(note: str) -> Any:
        updates = [{"values": {"log": [note]}, "as_node": "work"}]
        return client.threads.create(thread_id=thread_id, graph_id="gated", supersteps=[{"updates": updates}])

    EDGE.arm()
    late = asyncio.ensure_future(creating("late"))
    await EDGE.reached()
    await creating("early")
    EDGE.open()
    with pytest.raises(ConflictError):
        await late
    assert await log_of(client, thread_id) == ["early"]
    saver = server.app.state.service.runtime.saver
    assert server.on_loop(saver.threads.storage(thread_id)).checkpoints.count == 1
