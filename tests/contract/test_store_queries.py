"""Reading runs, their counters and results, and whose they are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from typing import Any

import pytest

from ledger_kit import a_run, admit, cancel, claim, ended, finish, running
from runlane.errors import ConflictError, NotFound
from runlane.lifecycle import CancelAction, RunEvent, RunStatus
from runlane.outcomes import Snapshot
from runlane.records import ANY_OWNER, NO_OWNER, RunError, Usage
from runlane.store.ledger import RunStore
from runlane.store.rows import microseconds
from runlane.store.statements import Transaction
from runlane.store.transactions.assistants import AssistantFilter, NewAssistant
from runlane.store.transactions.tasks import TaskFilter
from runlane.store.transactions.thread_search import ThreadFilter

USAGE = Usage(input_tokens=5, output_tokens=7, total_tokens=12, llm_calls=2, by_model={"m": {"total": 12}})


async def ids(store: RunStore, thread_id: str | None = "t", **options: Any) -> list[str]:
    found = await store.runs.list(thread_id, **{"owner": ANY_OWNER, **options})
    return [run.run_id for run in found]


# Lists.


async def test_runs_are_listed_newest_admission_first_and_paged(store: RunStore) -> None:
    made = [await admit(store) for _ in range(5)]
    other = await admit(store, "u")
    assert await ids(store) == made[::-1]
    assert await ids(store, limit=2) == made[:2:-1]
    assert await ids(store, limit=2, offset=4) == made[:1]
    assert await ids(store, limit=0) == []
    assert await ids(store, None) == [other, *made[::-1]]
    assert await ids(store, "nobody") == []


async def test_runs_are_listed_by_status(store: RunStore) -> None:
    done, active = await ended(store), (await running(store)).run_id
    waiting = await admit(store)
    assert await ids(store, status=RunStatus.SUCCESS) == [done]
    assert await ids(store, status=RunStatus.RUNNING) == [active]
    assert await ids(store, None, status=RunStatus.PENDING) == [waiting]
    assert await ids(store, status=RunStatus.TIMEOUT) == []


async def test_an_assistants_runs_of_a_thread_are_listed_the_newest_status_first(store: RunStore) -> None:
    mine: dict[str, Any] = {"assistant_id": "mine", "owner": "ann"}
    paused = await ended(store, event=RunEvent.PAUSE, **mine)
    failed = await ended(store, event=RunEvent.FAIL, **mine)
    await ended(store, assistant_id="other", owner="ann")
    done = await ended(store, **mine)
    active = (await running(store, **mine)).run_id
    waiting = await admit(store, **mine)
    await admit(store, "u", **mine)

    async def listed(owner: Any = "ann", before: tuple[int, int] | None = None, limit: int = 10, **where: Any) -> Any:
        found, total = await store.runs.list_tasks(
            "t", owner=owner, where=TaskFilter(assistant_id="mine", **where), before=before, limit=limit
        )
        return [run.run_id for run in found], total

    assert await listed() == await listed(ANY_OWNER) == ([waiting, active, done, failed, paused], 5)
    assert await listed("bob") == ([], 0)
    assert await listed(limit=2) == ([waiting, active], 5)
    last = await store.runs.get(active, owner=ANY_OWNER)
    assert last.started_at is not None
    assert await listed(before=(microseconds(last.started_at), last.seq), limit=2) == ([done, failed], 5)
    assert await listed(statuses=(RunStatus.ERROR, RunStatus.TIMEOUT)) == ([failed], 1)
    assert await listed(statuses=(RunStatus.SUCCESS,), paused=True) == ([paused], 1)
    assert await listed(statuses=(RunStatus.SUCCESS,), paused=False) == ([done], 1)
    assert await listed(statuses=(RunStatus.PENDING,)) == ([waiting], 1)
    assert await listed(after_us=microseconds(last.started_at)) == ([waiting], 1)


async def test_active_runs_of_all_owners_are_found_oldest_first_in_pieces(store: RunStore) -> None:
    await ended(store, "a")
    active = [await admit(store, name, owner=name) for name in "bcd"]
    await claim(store, active[1])
    found = await store.runs.inflight(limit=2)
    assert [run.run_id for run in found] == active[:2]
    assert [run.run_id for run in await store.runs.inflight(after_seq=found[-1].seq)] == active[2:]


async def test_heads_of_lanes_are_read_page_by_page_with_what_they_are_counted_by(store: RunStore) -> None:
    heads = [await admit(store, str(n), owner=f"owner-{n}", kwargs={"graph_id": f"g{n}"}) for n in range(3)]
    first = await store.queue.runnable(limit=2)
    second = await store.queue.runnable(after_seq=first[-1][0].seq, limit=2)
    assert [head.run_id for head, _ in (*first, *second)] == heads
    assert [(head.owner, head.graph_id) for head, _ in second] == [("owner-2", "g2")]


# Results.


async def test_a_waiter_gets_the_runs_own_result(store: RunStore) -> None:
    run_id = await admit(store)
    assert await store.runs.result(run_id, owner=ANY_OWNER) == (RunStatus.PENDING, None, None)
    lease = (await claim(store, run_id)).lease
    state = Snapshot(values=b'{"all":1}', result='{"answer":"é"}'.encode())
    await finish(store, lease, state=state)
    await finish(store, await running(store), state=Snapshot(result=b'{"other":1}'))
    assert await store.runs.result(run_id, owner=ANY_OWNER) == (RunStatus.SUCCESS, '{"answer":"é"}'.encode(), None)


async def test_a_waiter_of_a_failed_run_gets_its_error(store: RunStore) -> None:
    lease = await running(store)
    await finish(store, lease, RunEvent.FAIL, error=RunError(error="E", message="m"))
    expected = (RunStatus.ERROR, None, {"error": "E", "message": "m"})
    assert await store.runs.result(lease.run_id, owner=ANY_OWNER) == expected


# Counters.


async def test_progress_is_recorded_while_a_run_is_active_and_never_falls(store: RunStore) -> None:
    lease = await running(store)
    assert await store.runs.set_progress(lease.run_id, asdict(USAGE))
    assert await store.runs.set_progress(
        lease.run_id, asdict(replace(USAGE, input_tokens=1, llm_calls=3, first_human_message="hi"))
    )
    run = await store.runs.get(lease.run_id, owner=ANY_OWNER)
    assert run.usage == replace(USAGE, llm_calls=3, first_human_message="hi")
    assert not await store.runs.set_progress("nobody", asdict(USAGE))


async def test_the_numbers_of_a_model_and_a_text_that_were_recorded_stay(store: RunStore) -> None:
    lease = await running(store)
    before = replace(USAGE, by_model={"m": {"input_tokens": 5, "llm_calls": 1}}, last_ai_message="hi")
    await store.runs.set_progress(lease.run_id, asdict(before))
    await store.runs.set_progress(lease.run_id, {"by_model": {"m": {"input_tokens": 2, "llm_calls": 2}, "n": {}}})
    run = await store.runs.complete_usage(lease.run_id, {"by_model": {"n": {"llm_calls": 1}}})
    both = {"m": {"input_tokens": 5, "llm_calls": 2}, "n": {"llm_calls": 1}}
    assert run.usage == replace(before, by_model=both)


async def test_progress_changes_only_the_fields_that_it_names(store: RunStore) -> None:
    lease = await running(store)
    await store.runs.set_progress(lease.run_id, {"last_ai_message": "newer", "by_model": {"m": {"llm_calls": 1}}})
    await store.runs.set_progress(lease.run_id, {"total_tokens": 5, "first_human_message": None})
    run = await store.runs.get(lease.run_id, owner=ANY_OWNER)
    assert run.usage == Usage(total_tokens=5, last_ai_message="newer", by_model={"m": {"llm_calls": 1}})


async def test_progress_of_an_attempt_that_lost_its_run_is_not_recorded(store: RunStore) -> None:
    lease = await running(store)
    assert await store.runs.set_progress(lease.run_id, {"llm_calls": 1}, attempt=lease.attempt)
    await finish(store, lease, RunEvent.RELEASE)
    assert not await store.runs.set_progress(lease.run_id, {"llm_calls": 2}, attempt=lease.attempt)
    await claim(store, lease.run_id)
    assert not await store.runs.set_progress(lease.run_id, {"llm_calls": 2}, attempt=lease.attempt)
    assert (await store.runs.get(lease.run_id, owner=ANY_OWNER)).usage.llm_calls == 1


@pytest.mark.parametrize("event", [RunEvent.SUCCEED, RunEvent.STOP, RunEvent.FAIL, RunEvent.RELEASE])
async def test_the_end_of_an_attempt_records_its_counters_whatever_it_is(store: RunStore, event: RunEvent) -> None:
    lease = await running(store)
    await store.runs.set_progress(lease.run_id, asdict(replace(USAGE, llm_calls=9)))
    run = (await finish(store, lease, event, usage=USAGE)).run
    assert run.usage == replace(USAGE, llm_calls=9)


async def test_an_end_without_counters_keeps_those_of_the_progress(store: RunStore) -> None:
    lease = await running(store)
    await store.runs.set_progress(lease.run_id, asdict(USAGE))
    assert (await finish(store, lease, RunEvent.EXPIRE)).run.usage == USAGE


async def test_final_counters_land_after_any_ending_and_never_fall(store: RunStore) -> None:
    lease = await running(store)
    await finish(store, lease, RunEvent.STOP, usage=USAGE)
    changes = {"input_tokens": 1, "output_tokens": 100, "message_count": None, "last_ai_message": "bye"}
    run = await store.runs.complete_usage(lease.run_id, changes)
    assert run.usage == replace(USAGE, output_tokens=100, last_ai_message="bye")
    assert await store.runs.get(lease.run_id, owner=ANY_OWNER) == run
    assert run.status is RunStatus.INTERRUPTED


async def test_completing_a_run_that_does_not_exist_makes_none(store: RunStore) -> None:
    with pytest.raises(NotFound):
        await store.runs.complete_usage("nobody", asdict(USAGE))
    with pytest.raises(NotFound):
        await store.runs.set_model("nobody", "m")
    assert await ids(store, None) == []


async def test_a_threads_usage_is_that_of_all_its_runs_oldest_first(store: RunStore) -> None:
    for number, event in enumerate((RunEvent.SUCCEED, RunEvent.STOP, RunEvent.FAIL), 1):
        await finish(store, await running(store), event, usage=Usage(llm_calls=number))
    await ended(store)
    await finish(store, await running(store, "u"), usage=USAGE)
    assert [usage.llm_calls for usage in await store.runs.thread_usage("t", owner=ANY_OWNER)] == [1, 2, 3]


async def test_the_model_of_a_run_can_be_named_later(store: RunStore) -> None:
    run_id = await admit(store)
    assert (await store.runs.set_model(run_id, "m")).model_name == "m"
    assert (await store.runs.set_model(run_id, None)).model_name is None


# Deleting.


async def test_only_an_ended_run_is_deleted(store: RunStore) -> None:
    run_id = await admit(store)
    with pytest.raises(ConflictError):
        await store.runs.delete(run_id, owner=ANY_OWNER)
    lease = (await claim(store, run_id)).lease
    with pytest.raises(ConflictError):
        await store.runs.delete(run_id, owner=ANY_OWNER)
    run = (await finish(store, lease)).run
    thread = await store.threads.get("t", owner=ANY_OWNER)
    assert await store.runs.delete(run_id, owner=ANY_OWNER) == run
    assert await store.threads.get("t", owner=ANY_OWNER) == thread
    for gone in (store.runs.delete(run_id, owner=ANY_OWNER), store.runs.get(run_id, owner=ANY_OWNER)):
        with pytest.raises(NotFound):
            await gone


async def test_the_number_of_a_deleted_run_is_never_used_again(store: RunStore) -> None:
    last = await ended(store)
    seq = (await store.runs.delete(last, owner=ANY_OWNER)).seq
    assert (await store.runs.get(await admit(store), owner=ANY_OWNER)).seq > seq


# Tenancy: each call with an id of ann's, made by eve.


def nothing() -> Transaction[None]:
    yield from ()


Foreign = Callable[[RunStore, str], Awaitable[object]]
FOREIGN: dict[str, Foreign] = {
    "get_run": lambda store, run_id: store.runs.get(run_id, owner="eve"),
    "run_result": lambda store, run_id: store.runs.result(run_id, owner="eve"),
    "delete_run": lambda store, run_id: store.runs.delete(run_id, owner="eve"),
    "request_cancel": lambda store, run_id: cancel(store, run_id, CancelAction.ROLLBACK, owner="eve"),
    "admit": lambda store, run_id: store.runs.admit(a_run("t", owner="eve", multitask_strategy="rollback")),
    "get_thread": lambda store, run_id: store.threads.get("t", owner="eve"),
    "patch_thread": lambda store, run_id: store.threads.patch("t", owner="eve", metadata={"a": 1}),
    "idle_thread": lambda store, run_id: store.threads.get_idle("t", owner="eve"),
    "set_thread_state": lambda store, run_id: store.threads.set_state(
        "t", owner="eve", state=Snapshot(values=b"{}"), metadata={}
    ),
    "delete_thread": lambda store, run_id: store.threads.delete("t", owner="eve"),
    "change_idle_thread": lambda store, run_id: store.threads.change_idle("t", owner="eve", extra_writes=nothing),
    "copy_thread": lambda store, run_id: store.threads.copy("t", "u", reads="eve", owner="eve", metadata={}),
    "get_assistant": lambda store, run_id: store.assistants.get("a", owner="eve"),
    "update_assistant": lambda store, run_id: store.assistants.update("a", owner="eve", changes={"name": "x"}),
    "set_latest": lambda store, run_id: store.assistants.set_latest("a", owner="eve", version=1),
    "list_versions": lambda store, run_id: store.assistants.versions("a", owner="eve"),
    "delete_assistant": lambda store, run_id: store.assistants.delete("a", owner="eve"),
}


async def anns(store: RunStore) -> str:
    await store.assistants.create(
        NewAssistant(assistant_id="a", owner="ann", graph_id="g", config={}, context={}, metadata={"m": 1})
    )
    return await ended(store, "t", owner="ann", thread_metadata={"m": 1}, idempotency_key="k")


@pytest.mark.parametrize("call", FOREIGN)
async def test_another_owners_id_is_not_found_and_its_row_untouched(store: RunStore, call: str) -> None:
    run_id = await anns(store)

    async def everything() -> list[object]:
        return [
            await store.runs.list(None, owner=ANY_OWNER),
            await store.threads.search(owner=ANY_OWNER, where=ThreadFilter()),
            await store.assistants.search(owner=ANY_OWNER, where=AssistantFilter()),
        ]

    before = await everything()
    with pytest.raises(NotFound):
        await FOREIGN[call](store, run_id)
    assert await everything() == before


async def test_lists_searches_and_counts_hold_the_owners_rows_only(store: RunStore) -> None:
    run_id = await anns(store)
    assert await ids(store, "t", owner="eve") == await ids(store, None, owner="eve") == []
    assert await ids(store, "t", owner="ann") == await ids(store, None, owner="ann") == [run_id]
    for owner, count in (("ann", 1), ("eve", 0), (NO_OWNER, 0), (ANY_OWNER, 1)):
        threads = ThreadFilter(metadata={"m": 1}, ids=("t",))
        assistants = AssistantFilter(metadata={"m": 1})
        assert await store.threads.count(owner=owner, where=threads) == count
        assert len(await store.threads.search(owner=owner, where=threads)) == count
        assert await store.assistants.count(owner=owner, where=assistants) == count
        assert len(await store.assistants.search(owner=owner, where=assistants)) == count
    await store.runs.complete_usage(run_id, {"llm_calls": 1})
    assert await store.runs.thread_usage("t", owner="eve") == ()
    assert len(await store.runs.thread_usage("t", owner="ann")) == 1


async def test_a_key_of_another_owner_is_not_answered(store: RunStore) -> None:
    run_id = await anns(store)
    mine = await store.runs.admit(a_run("mine", owner="eve", idempotency_key="k"))
    assert (mine.reused, mine.run.run_id != run_id) == (False, True)


# Reading while others write.


async def test_reads_and_writes_at_once_see_whole_transactions(store: RunStore) -> None:
    async def cycle(number: int) -> None:
        lease = await running(store, f"t{number}")
        await finish(store, lease)

    async def watch() -> None:
        for _ in range(20):
            for thread in await store.threads.search(owner=ANY_OWNER, where=ThreadFilter(), limit=100):
                assert thread.status.value in ("busy", "idle")
            for run in await store.runs.list(None, owner=ANY_OWNER):
                assert (run.ended_at is not None) == run.status.terminal

    await asyncio.gather(watch(), *(cycle(number) for number in range(20)))
