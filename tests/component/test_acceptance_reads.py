"""The acceptance list, items 28 to 32: reading.

Item or known defect -> test:

    28, D4, D5    test_another_tenants_runs_do_not_exist, test_a_manager_that_requires_owners_..., test_an_owner_...
    29, D2, D3, D31  test_a_list_is_the_newest_admissions_first, test_a_part_of_a_list_that_makes_no_sense_is_refused
    30, D28       test_an_outage_is_never_an_absence
    31, D26       test_what_was_read_or_given_cannot_change_the_ledger
    32, D56, D6   test_a_run_says_why_it_ended_and_what_it_used
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from run_kit import ONCE, FaultyDriver, Scripted, at_once, ended, items, opened, soon
from runlane import ANY_OWNER, InvalidRequest, NotFound, StoreUnavailable
from runlane.errors import OwnerRequired
from runlane.lifecycle import CancelAction, DisconnectMode, EndReason, MultitaskStrategy, RunStatus
from runlane.records import Usage
from runlane.runtime import Runtime
from runlane.store.ledger import RunStore
from runlane.store.statements import Transaction

Call = Callable[[Runtime, str, Any], Awaitable[Any]]

CALLS: dict[str, Call] = {
    "get": lambda runtime, run_id, owner: runtime.runs.get(run_id, **owner),
    "aget": lambda runtime, run_id, owner: runtime.runs.aget(run_id, **owner),
    "join": lambda runtime, run_id, owner: runtime.runs.join(run_id, **owner),
    "set_status": lambda runtime, run_id, owner: runtime.runs.set_status(run_id, "running", **owner),
    "update_model_name": lambda runtime, run_id, owner: runtime.runs.update_model_name(run_id, "m", **owner),
    "update_run_progress": lambda runtime, run_id, owner: runtime.runs.update_run_progress(run_id, **owner),
    "update_run_completion": lambda runtime, run_id, owner: runtime.runs.update_run_completion(run_id, **owner),
    "cancel": lambda runtime, run_id, owner: runtime.runs.cancel(run_id, **owner),
    "delete": lambda runtime, run_id, owner: runtime.runs.delete(run_id, **owner),
    "subscribe": lambda runtime, run_id, owner: items(runtime, run_id, **owner),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("live", [True, False])
async def test_another_tenants_runs_do_not_exist(name: str, live: bool) -> None:
    """Item 28: whether they execute here, or are rows only; to no call."""
    agent = Scripted()
    async with opened() as runtime:
        run = await runtime.runs.create_or_reject("t", agent=agent, owner="ann")
        await soon(agent.started.wait())
        if not live:
            agent.go.set()
            await ended(runtime, run)
        before = await runtime.runs.get(run.run_id, owner="ann")
        for owner in ({"owner": "bob"}, {"owner": ""}, {}):
            with pytest.raises(NotFound):
                await soon(CALLS[name](runtime, run.run_id, owner))
        assert await runtime.runs.get(run.run_id, owner=ANY_OWNER) == before


async def test_lists_have_the_runs_of_their_owner_only(runtime: Runtime) -> None:
    """Item 28."""
    await runtime.runs.create_or_reject("t", owner="ann", kwargs={"input": "secret"})
    await runtime.runs.update_run_progress(
        (await runtime.runs.list_by_thread("t", owner="ann"))[0].run_id, owner="ann", total_tokens=5
    )
    assert await runtime.runs.list_by_thread("t", owner="bob") == []
    assert not await runtime.runs.has_inflight("t", owner="bob")
    assert (await runtime.runs.usage_by_thread("t", owner="bob")).total_tokens == 0
    assert len(await runtime.runs.list_by_thread("t", owner=ANY_OWNER)) == 1
    assert await runtime.runs.has_inflight("t", owner="ann")
    assert (await runtime.runs.usage_by_thread("t", owner="ann")).total_tokens == 5


async def test_a_run_that_starts_while_its_thread_is_asked_is_in_flight() -> None:
    driver = StartingDriver()
    async with opened(driver) as runtime:
        run = await runtime.runs.create_or_reject("t")
        driver.run_id = run.run_id
        assert await runtime.runs.has_inflight("t")
        assert (await runtime.runs.get(run.run_id)).status is RunStatus.RUNNING


class StartingDriver(FaultyDriver):
    """A ledger in which another worker starts a run directly after the next read."""

    run_id: str | None = None

    async def read(self, transaction: Transaction[Any]) -> Any:
        found = await super().read(transaction)
        if self.run_id is not None:
            run_id, self.run_id = self.run_id, None
            assert await RunStore(self).attempts.claim(run_id, "another-worker", lease_s=60)
        return found


@pytest.mark.parametrize("name", CALLS)
async def test_a_manager_that_requires_owners_refuses_calls_that_name_none(name: str) -> None:
    """Item 28: three states, and the bypass is explicit."""
    async with opened(require_owner=True) as runtime:
        run = await runtime.runs.create_or_reject("t", owner="")
        with pytest.raises(OwnerRequired):
            await CALLS[name](runtime, run.run_id, {})
        with pytest.raises(OwnerRequired):
            await runtime.runs.create_or_reject("u")
        with pytest.raises(OwnerRequired):
            await runtime.runs.create_or_reject("u", owner=ANY_OWNER)
        for read in (runtime.runs.list_by_thread, runtime.runs.has_inflight, runtime.runs.usage_by_thread):
            with pytest.raises(OwnerRequired):
                await read("t")
        assert (await runtime.runs.get(run.run_id, owner=ANY_OWNER)).status is RunStatus.PENDING


async def test_an_owner_survives_a_restart(tmp_path: Any) -> None:
    """Item 28: D5."""
    database = f"sqlite:///{tmp_path / 'runs.db'}"
    async with opened(database=database) as runtime:
        run = await runtime.runs.create_or_reject("t", owner="ann", agent=at_once)
        await ended(runtime, run)
    async with opened(database=database) as runtime:
        assert (await runtime.runs.get(run.run_id, owner="ann")).owner == "ann"
        with pytest.raises(NotFound):
            await runtime.runs.get(run.run_id, owner="bob")


async def test_a_list_is_the_newest_admissions_first(runtime: Runtime) -> None:
    """Item 29: ended runs and live ones in one order, whatever part of it is asked for."""
    done = [await runtime.runs.create("t", agent=at_once) for _ in range(4)]
    for run in done:
        await ended(runtime, run)
    agent = Scripted()
    live = [await runtime.runs.create("t", agent=agent) for _ in range(3)]
    wanted = [run.run_id for run in reversed([*done, *live])]
    for limit in range(1, 9):
        found = await runtime.runs.list_by_thread("t", limit=limit)
        assert [run.run_id for run in found] == wanted[:limit]
    assert [run.run_id for run in await runtime.runs.list_by_thread("t", limit=2, offset=3)] == wanted[3:5]
    assert len({run.seq for run in await runtime.runs.list_by_thread("t")}) == 7


@pytest.mark.parametrize("part", [{"limit": 0}, {"limit": -1}, {"limit": 1001}, {"offset": -1}], ids=str)
async def test_a_part_of_a_list_that_makes_no_sense_is_refused(runtime: Runtime, part: dict[str, int]) -> None:
    """Item 29."""
    with pytest.raises(InvalidRequest):
        await runtime.runs.list_by_thread("t", **part)


async def test_an_outage_is_never_an_absence() -> None:
    """Item 30."""
    driver = FaultyDriver()
    async with opened(driver, retry=ONCE, poll_s=3600) as runtime:
        run = await runtime.runs.create_or_reject("t")
        for name in ("get_run", "list_runs", "has_active", "thread_usage"):
            driver.faults[name] = StoreUnavailable("unplugged")
        for call in CALLS.values():
            with pytest.raises(StoreUnavailable):
                await call(runtime, run.run_id, {})
        assert {"get_run", "list_runs", "thread_usage"} & set(driver.counts)
        for read in (runtime.runs.list_by_thread, runtime.runs.has_inflight, runtime.runs.usage_by_thread):
            with pytest.raises(StoreUnavailable):
                await read("t")
        driver.faults.clear()
        assert (await runtime.runs.get(run.run_id)).status is RunStatus.PENDING


async def test_what_was_read_or_given_cannot_change_the_ledger(runtime: Runtime) -> None:
    """Item 31."""
    metadata: dict[str, Any] = {"tags": ["a"]}
    kwargs: dict[str, Any] = {"input": {"x": 1}}
    run = await runtime.runs.create_or_reject("t", metadata=metadata, kwargs=kwargs)
    metadata["tags"].append("b")
    kwargs["input"]["x"] = 2
    (await runtime.runs.get(run.run_id)).metadata["tags"].append("c")
    found = await runtime.runs.get(run.run_id)
    assert (found.metadata, found.kwargs) == ({"tags": ["a"]}, {"input": {"x": 1}})


async def test_a_run_says_why_it_ended_and_what_it_used(runtime: Runtime) -> None:
    """Item 32."""

    async def fails(context: Any) -> None:
        raise ValueError("no such city")

    run = await runtime.runs.create_or_reject(
        "t",
        "assistant",
        agent=fails,
        model_name="m-1",
        on_disconnect="continue",
        multitask_strategy="enqueue",
        metadata={"k": 1},
    )
    failed = await ended(runtime, run)
    assert (failed.status, failed.end_reason, failed.model_name) == (RunStatus.ERROR, EndReason.FAILED, "m-1")
    assert failed.error is not None
    assert (failed.error.error, failed.error.message) == ("ValueError", "no such city")
    assert (failed.on_disconnect, failed.multitask_strategy) == (DisconnectMode.CONTINUE, MultitaskStrategy.ENQUEUE)
    assert failed.started_at is not None
    assert failed.ended_at is not None
    assert failed.created_at <= failed.started_at <= failed.ended_at
    assert (await runtime.runs.update_model_name(run.run_id, "m-2")).model_name == "m-2"


async def test_a_stopped_run_has_its_receipt(runtime: Runtime) -> None:
    """Item 32."""
    agent = Scripted()
    run = await runtime.runs.create_or_reject("t", agent=agent)
    await soon(agent.started.wait())
    await runtime.runs.cancel(run.run_id, by="ann", reason=EndReason.DISCONNECT)
    stopped = await ended(runtime, run)
    assert stopped.end_reason is EndReason.DISCONNECT
    assert stopped.cancel is not None
    assert (stopped.cancel.action, stopped.cancel.requested_by) == (CancelAction.INTERRUPT, "ann")


@pytest.mark.parametrize(
    "counters",
    [
        {"input_tokens": "5"},
        {"input_tokens": -1},
        {"llm_calls": 1.5},
        {"total_tokens": True},
        {"by_model": 3},
        {"by_model": {"m": {"input_tokens": "5"}}},
        {"last_ai_message": 5},
    ],
    ids=str,
)
async def test_what_is_no_counter_cannot_spoil_the_threads_sum(runtime: Runtime, counters: dict[str, Any]) -> None:
    """Item 14."""
    run = await runtime.runs.create_or_reject("t")
    run = await runtime.runs.set_status(run.run_id, "running")
    with pytest.raises(InvalidRequest, match=next(iter(counters))):
        await runtime.runs.update_run_progress(run.run_id, **counters)
    with pytest.raises(InvalidRequest, match=next(iter(counters))):
        await runtime.runs.update_run_completion(run.run_id, status="success", **counters)
    assert await runtime.runs.get(run.run_id) == run
    assert await runtime.runs.usage_by_thread("t") == Usage()
