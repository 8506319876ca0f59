"""The checkpointer: LangGraph's conformance suite, fencing, write-behind, and what it stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.base import CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from ormsgpack import MsgpackEncodeError

from journal_kit import attempt_of
from runlane.checkpoints.saver import LedgerSaver
from runlane.errors import CheckpointUnreadable, InvalidRequest, LeaseLost, StoreUnavailable, UnsupportedOption
from runlane.journal.journal import AttemptJournal
from runlane.records import Lease
from runlane.store.drivers.memory import MemoryDriver
from runlane.store.drivers.postgres import PostgresDriver
from runlane.store.migrate import apply_scripts
from runlane.store.statements import Driver, Rows, Transaction, statement

TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
CLAIM = statement(
    "test.claim",
    """
    INSERT INTO runs (
        run_id, thread_id, owner, status, attempt, multitask_strategy, on_disconnect, metadata, kwargs, not_before,
        created_at, updated_at
    ) VALUES (:run_id, :thread_id, '', 'running', :attempt, 'reject', 'cancel', '{}', '{}', 0, 0, 0)
    """,
)
UPDATE = statement("test.update", "UPDATE runs SET attempt = :attempt, status = :status WHERE run_id = :run_id")


@pytest.fixture
async def saver(driver: Driver) -> LedgerSaver:
    return LedgerSaver(driver)


def all_rows(table: str) -> Transaction[Rows]:
    return (yield statement("test.all", f"SELECT * FROM {table}")())


async def count(driver: Driver, table: str) -> int:
    return len(await driver.read(all_rows(table)))


def claim(run_id: str, thread_id: str, attempt: int) -> Transaction[None]:
    yield CLAIM(run_id=run_id, thread_id=thread_id, attempt=attempt)


def update(lease: Lease, *, attempt: int = 1, status: str = "running") -> Transaction[None]:
    yield UPDATE(run_id=lease.run_id, attempt=attempt, status=status)


async def claimed(driver: Driver, run_id: str = "run", thread_id: str = "thread", seq: int = 1) -> Lease:
    """Return the lease of a run that is executing."""
    await driver.write(claim(run_id, thread_id, 1))
    return Lease(run_id=run_id, thread_id=thread_id, seq=seq, worker_id="w", attempt=1)


def at(thread_id: str = "thread", **more: str) -> dict[str, Any]:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": "", **more}}


async def put(saver: LedgerSaver, value: Any = "value", config: Any = None) -> Any:
    """Store a checkpoint with one channel, as the next of *config*'s."""
    version = saver.get_next_version(None, None)
    checkpoint = {**empty_checkpoint(), "channel_values": {"c": value}, "channel_versions": {"c": version}}
    return await saver.aput(config or at(), checkpoint, {"source": "loop", "step": 0}, {"c": version})


async def put_and_flush(saver: LedgerSaver, journal: AttemptJournal) -> None:
    await put(saver)
    await journal.flush()


class State(TypedDict, total=False):
    messages: Annotated[list[Any], add_messages]
    count: int
    constant: str


def counting_graph() -> Any:
    async def step(state: State) -> State:
        count = state.get("count", 0) + 1
        return {"count": count, "messages": [AIMessage(f"step {count}", id=str(count))]}

    builder = StateGraph(State).add_node("step", step).add_edge(START, "step")
    builder.add_conditional_edges("step", lambda state: "step" if state["count"] < 4 else END, ["step", END])
    return builder


async def history(saver: Any, thread_id: str = "thread") -> list[CheckpointTuple]:
    return [found async for found in saver.alist({"configurable": {"thread_id": thread_id}})]


async def test_langgraphs_conformance_suite_passes_completely(driver: Driver) -> None:
    @checkpointer_test(name="LedgerSaver")
    async def ledger_saver() -> AsyncIterator[LedgerSaver]:
        yield LedgerSaver(driver)

    report = await validate(ledger_saver)

    assert {name: result.failures for name, result in report.results.items() if not result.passed} == {}
    assert report.conformance_level() == "FULL"


SPECIAL = ["__error__", "__scheduled__", "__interrupt__", "__resume__"]
CALLS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from(["a", "b", *SPECIAL]), st.integers(0, 9)), min_size=1, max_size=3),
        st.sampled_from(["t1", "t2"]),
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(calls=CALLS)
def test_pending_writes_are_kept_as_langgraphs_own_saver_keeps_them(calls: list[Any]) -> None:
    async def compare() -> None:
        driver = MemoryDriver()
        apply_scripts(driver)
        saver, model = LedgerSaver(driver), InMemorySaver()
        checkpoint = empty_checkpoint()
        for one in (saver, model):
            config = await one.aput(at(), checkpoint, {}, {})
            for writes, task_id in calls:
                await one.aput_writes(config, writes, task_id, f"path of {task_id}")
        mine, theirs = await saver.aget_tuple(at()), await model.aget_tuple(at())
        assert mine is not None
        assert theirs is not None
        assert mine.pending_writes == theirs.pending_writes
        await driver.aclose()

    asyncio.run(compare())


async def test_a_graph_leaves_the_history_that_it_leaves_in_memory(saver: LedgerSaver) -> None:
    model = InMemorySaver()
    for one in (saver, model):
        graph = counting_graph().compile(checkpointer=one)
        await graph.ainvoke({"messages": [HumanMessage("hi", id="0")], "constant": "same"}, at())
        await graph.aupdate_state(at(), {"count": 9}, as_node="step")

    mine, theirs = await history(saver), await history(model)

    assert [found.checkpoint["channel_values"] for found in mine] == [
        found.checkpoint["channel_values"] for found in theirs
    ]
    assert [found.metadata for found in mine] == [found.metadata for found in theirs]
    assert [[write[1:] for write in found.pending_writes or ()] for found in mine] == [
        [write[1:] for write in found.pending_writes or ()] for found in theirs
    ]
    assert [found.parent_config for found in mine] == [found.config for found in mine[1:]] + [None]


async def test_a_value_is_stored_once_for_each_version_of_its_channel(driver: Driver, saver: LedgerSaver) -> None:
    graph = counting_graph().compile(checkpointer=saver)
    await graph.ainvoke({"constant": "same"}, at())

    rows = await driver.read(all_rows("checkpoint_blobs"))

    assert sum(row["channel"] == "constant" for row in rows) == 1
    assert sum(row["channel"] == "count" for row in rows) == 4
    assert len(await history(saver)) == 6


async def test_a_listing_goes_on_over_pages_and_can_be_filtered(saver: LedgerSaver) -> None:
    config = None
    for step in range(120):
        config = await saver.aput(config or at(), empty_checkpoint(), {"source": "loop", "step": step}, {})

    assert [found.metadata["step"] for found in await history(saver)] == list(range(119, -1, -1))
    filtered = [found async for found in saver.alist(at(), filter={"step": 3})]
    assert [found.metadata["step"] for found in filtered] == [3]
    before = [found async for found in saver.alist(at(), before=filtered[0].config, limit=2)]
    assert [found.metadata["step"] for found in before] == [2, 1]


@pytest.mark.parametrize("status", ["pending", "success", "interrupted"])
@pytest.mark.parametrize("write_behind", [True, False])
async def test_an_attempt_whose_run_does_not_run_writes_no_checkpoint(
    driver: Driver, saver: LedgerSaver, status: str, write_behind: bool
) -> None:
    lease = await claimed(driver)
    bound, journal = attempt_of(saver, driver, lease, write_behind=write_behind)
    await driver.write(update(lease, status=status))

    with pytest.raises(LeaseLost):
        await put_and_flush(bound, journal)

    assert [await count(driver, table) for table in TABLES] == [0, 0, 0]


async def test_a_stale_attempt_writes_no_checkpoint(driver: Driver, saver: LedgerSaver) -> None:
    lease = await claimed(driver)
    bound, _ = attempt_of(saver, driver, lease, write_behind=False)
    config = await put(bound, "mine")
    await driver.write(update(lease, attempt=2))

    with pytest.raises(LeaseLost):
        await put(bound, "stale", config)
    with pytest.raises(LeaseLost):
        await bound.aput_writes(config, [("c", "stale")], "task")
    with pytest.raises(LeaseLost):
        await bound.adelete_thread("thread")

    found = await history(saver)
    assert [one.checkpoint["channel_values"] for one in found] == [{"c": "mine"}]
    assert found[0].pending_writes == []


async def test_a_failure_behind_is_raised_by_the_next_write_and_by_flush_and_is_final(
    driver: Driver, saver: LedgerSaver
) -> None:
    lease = await claimed(driver)
    bound, journal = attempt_of(saver, driver, lease, write_behind=True)
    await driver.write(update(lease, attempt=2))
    await put(bound)
    with pytest.raises(LeaseLost):
        await journal.flush()
    await driver.write(update(lease, attempt=1))  # even if it could write again

    with pytest.raises(LeaseLost):
        await put(bound)
    with pytest.raises(LeaseLost):
        await bound.aget_tuple(at())
    with pytest.raises(LeaseLost):
        await journal.flush()
    assert await history(saver) == []


async def test_writes_behind_a_closed_ledger_fail(driver: Driver, saver: LedgerSaver) -> None:
    bound, journal = attempt_of(saver, driver, await claimed(driver), write_behind=True)
    await put(bound)
    await driver.aclose()

    with pytest.raises(StoreUnavailable):
        await journal.flush()
    with pytest.raises(StoreUnavailable):
        await put(bound)


async def test_a_run_reads_what_it_wrote_behind(driver: Driver, saver: LedgerSaver) -> None:
    bound, _ = attempt_of(saver, driver, await claimed(driver), write_behind=True)

    config = None
    for value in range(50):
        config = await put(bound, value, config)
        await bound.aput_writes(config, [("c", value)], "task")
        found = await bound.aget_tuple(at())
        assert found is not None
        assert found.checkpoint["channel_values"] == {"c": value}
        assert found.pending_writes == [("task", "c", value)]


async def test_writes_behind_are_committed_in_order_without_being_asked_for(driver: Driver, saver: LedgerSaver) -> None:
    bound, _ = attempt_of(saver, driver, await claimed(driver), write_behind=True)
    config = None
    for value in range(20):
        config = await put(bound, value, config)
    while len(found := await history(saver)) < 20:
        await asyncio.sleep(0)  # the committed part is always the beginning
        assert [one.checkpoint["channel_values"]["c"] for one in found] == list(range(len(found) - 1, -1, -1))


async def test_a_write_that_is_not_behind_is_committed_when_it_returns(driver: Driver, saver: LedgerSaver) -> None:
    bound, _ = attempt_of(saver, driver, await claimed(driver), write_behind=False)
    await put(bound, 1)

    found = await saver.aget_tuple(at())

    assert found is not None
    assert found.checkpoint["channel_values"] == {"c": 1}


async def test_writes_behind_wait_for_the_disk_when_too_much_is_in_memory(driver: Driver, saver: LedgerSaver) -> None:
    bound, _ = attempt_of(saver, driver, await claimed(driver), write_behind=True)
    await put(bound, b"x" * (17 * 1024 * 1024))

    assert await count(driver, "checkpoints") == 1


async def test_what_is_left_is_committed_with_the_runs_end_or_not_at_all(driver: Driver, saver: LedgerSaver) -> None:
    lease = await claimed(driver)
    bound, journal = attempt_of(saver, driver, lease, write_behind=True)
    await put(bound)

    def finish(rest: Transaction[None], *, fail: bool) -> Transaction[None]:
        yield from update(lease, status="success")
        yield from rest
        if fail:
            raise StoreUnavailable("the disk is full")

    with pytest.raises(StoreUnavailable):
        await driver.write(finish((await journal.close()).transaction(), fail=True))
    assert await history(saver) == []
    await driver.write(finish((await journal.close()).transaction(), fail=False))

    assert len(await history(saver)) == 1
    with pytest.raises(LeaseLost):
        await put(bound)


async def test_closing_waits_for_what_is_on_its_way_and_says_if_that_failed(driver: Driver, saver: LedgerSaver) -> None:
    lease = await claimed(driver)
    bound, journal = attempt_of(saver, driver, lease, write_behind=True)
    await put(bound)
    await driver.write(update(lease, attempt=2))
    flushing = asyncio.create_task(journal.flush())
    await asyncio.sleep(0)

    with pytest.raises(LeaseLost):
        await journal.close()
    with pytest.raises(LeaseLost):
        await flushing


async def test_a_graph_whose_lease_is_lost_fails_and_leaves_what_was_committed(
    driver: Driver, saver: LedgerSaver
) -> None:
    lease = await claimed(driver)

    async def lose(_: State) -> State:
        await driver.write(update(lease, attempt=2))
        return {"count": 1}

    builder = StateGraph(State).add_node("lose", lose).add_edge(START, "lose")
    graph = builder.compile(checkpointer=attempt_of(saver, driver, lease, write_behind=False)[0])

    with pytest.raises(LeaseLost):
        await graph.ainvoke({"count": 0}, at(), durability="sync")

    assert [found.metadata["step"] for found in await history(saver)] == [0, -1]


async def test_synchronous_calls_work_from_another_thread_and_are_refused_on_the_loops_own(
    driver: Driver, saver: LedgerSaver
) -> None:
    bound, _ = attempt_of(saver, driver, await claimed(driver), write_behind=True)
    builder = StateGraph(State).add_node("step", lambda state: {"count": 1}).add_edge(START, "step")

    def use() -> list[CheckpointTuple]:
        builder.compile(checkpointer=bound).invoke({"count": 0}, at())
        return list(bound.list(at(), limit=2))

    assert len(await asyncio.to_thread(use)) == 2
    with pytest.raises(asyncio.InvalidStateError, match="ainvoke"):
        builder.compile(checkpointer=saver).invoke({"count": 0}, at("other"))


async def test_versions_grow_and_are_never_given_out_twice(driver: Driver, saver: LedgerSaver) -> None:
    leases = [await claimed(driver, f"run {n}", f"thread {n}", seq=n) for n in (1, 2)]
    savers = [saver, LedgerSaver(driver), *(attempt_of(saver, driver, lease, write_behind=True)[0] for lease in leases)]
    first = [one.get_next_version(None, None) for one in savers for _ in range(10)]
    second = [one.get_next_version(version, None) for version in first for one in savers]

    assert len({*first, *second}) == len(first) + len(second)
    assert max(first) < min(second)
    assert saver.get_next_version(9, None) < saver.get_next_version(99, None)


async def test_odd_ids_and_values_survive(saver: LedgerSaver) -> None:
    for thread_id in ("nul", "ü/'\"%_", ""):
        await put(saver, f"{thread_id}\x00", at(thread_id))

    for thread_id in ("nul", "ü/'\"%_", ""):
        found = await history(saver, thread_id)
        assert [one.checkpoint["channel_values"]["c"] for one in found] == [f"{thread_id}\x00"]


async def test_an_id_with_a_nul_is_kept_apart_or_refused(driver: Driver, saver: LedgerSaver) -> None:
    await put(saver, "without", at("nul"))
    if isinstance(driver, PostgresDriver):
        with pytest.raises(InvalidRequest, match="thread_id holds a NUL"):
            await put(saver, "with", at("nul\x00"))
        return
    await put(saver, "with", at("nul\x00"))

    for thread_id, value in (("nul", "without"), ("nul\x00", "with")):
        found = await history(saver, thread_id)
        assert [one.checkpoint["channel_values"]["c"] for one in found] == [value]


@pytest.mark.parametrize(
    "value", [{1, 2}, datetime(2024, 1, 1, tzinfo=UTC), b"\x00", bytearray(b"b"), HumanMessage("hi")]
)
async def test_python_values_survive_in_channels_and_writes(saver: LedgerSaver, value: Any) -> None:
    config = await put(saver, value)
    await saver.aput_writes(config, [("c", value)], "task")
    found = await saver.aget_tuple(config)

    assert found is not None
    assert found.checkpoint["channel_values"] == {"c": value}
    assert found.pending_writes == [("task", "c", value)]


async def test_what_cannot_be_serialised_is_refused_and_nothing_is_written(driver: Driver, saver: LedgerSaver) -> None:
    with pytest.raises(MsgpackEncodeError):
        await put(saver, lambda: None)

    assert [await count(driver, table) for table in TABLES] == [0, 0, 0]


async def test_pickles_in_the_database_are_not_read(driver: Driver, saver: LedgerSaver) -> None:
    config = await put(saver)

    def tamper() -> Transaction[None]:
        yield statement("test.tamper", "UPDATE checkpoint_blobs SET type = 'pickle'")()

    await driver.write(tamper())

    with pytest.raises(CheckpointUnreadable):
        await saver.aget_tuple(config)


async def test_deleting_a_thread_leaves_no_row_of_it_and_all_of_others(driver: Driver, saver: LedgerSaver) -> None:
    graph = counting_graph().compile(checkpointer=saver)
    await graph.ainvoke({"count": 0}, at("kept"))
    kept = [await count(driver, table) for table in TABLES]
    await graph.ainvoke({"count": 0}, at("deleted"))
    await saver.adelete_thread("deleted")

    assert [await count(driver, table) for table in TABLES] == kept
    assert await history(saver, "deleted") == []


async def test_pruning_leaves_the_latest_state_and_no_value_that_it_does_not_use(
    driver: Driver, saver: LedgerSaver
) -> None:
    graph = counting_graph().compile(checkpointer=saver)
    await graph.ainvoke({"messages": [HumanMessage("hi", id="0")]}, at())
    before = await graph.aget_state(at())
    await saver.aprune(["thread"])

    assert (await graph.aget_state(at())).values == before.values
    assert await count(driver, "checkpoints") == 1
    assert await count(driver, "checkpoint_blobs") == len(before.values)
    with pytest.raises(UnsupportedOption):
        await saver.aprune(["thread"], strategy="guess")
