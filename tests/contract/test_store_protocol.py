"""What the event-streaming protocol asks of the ledger."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ledger_kit import LONG_AGO, a_run, admit, cancel, claim, ended, finish, turn
from runlane.errors import NoSuchInterrupt
from runlane.lifecycle import RunEvent
from runlane.outcomes import Snapshot
from runlane.records import ANY_OWNER, StreamEvent
from runlane.requests import RunRequest
from runlane.store.ledger import RunStore
from runlane.store.transactions.events import insert_events
from runlane.store.transactions.fence import fenced


async def paused(store: RunStore, *interrupt_ids: str) -> str:
    """Leave the thread with open interrupts, and return the run that asked."""
    run_id = await admit(store)
    lease = (await claim(store, run_id)).lease
    state = Snapshot(
        values=b"{}", interrupts={"task": [{"id": one, "value": "?"} for one in interrupt_ids]}, unfinished=True
    )
    await finish(store, lease, RunEvent.PAUSE, state=state)
    return run_id


async def answer(store: RunStore, *interrupt_ids: str) -> str:
    return await admit(store, request=RunRequest(answers=interrupt_ids))


async def refusal(store: RunStore, *interrupt_ids: str) -> str:
    with pytest.raises(NoSuchInterrupt) as refused:
        await answer(store, *interrupt_ids)
    return str(refused.value)


async def test_an_open_interrupt_is_answered(store: RunStore) -> None:
    await paused(store, "a")
    await claim(store, await answer(store, "a"))


async def test_an_interrupt_that_was_never_asked_takes_no_answer(store: RunStore) -> None:
    await paused(store, "a")
    assert "nothing of this thread waits for it" in await refusal(store, "b")


async def test_a_second_answer_is_told_which_run_has_the_first(store: RunStore) -> None:
    await paused(store, "a")
    first = await answer(store, "a")
    assert f"answered already, by run {first!r}" in await refusal(store, "a")
    lease = (await claim(store, first)).lease
    assert first in await refusal(store, "a")
    await finish(store, lease, RunEvent.SUCCEED, state=Snapshot(values=b"{}"))
    assert first in await refusal(store, "a")


async def test_an_answer_that_is_repeated_after_its_admission_was_lost_is_the_same_run(store: RunStore) -> None:
    await paused(store, "a")
    new = a_run("t", request=RunRequest(answers=("a",)))
    first = await store.runs.admit(new)
    again = await store.runs.admit(new)
    assert (again.run, again.reused) == (first.run, True)


async def test_of_many_answers_at_once_one_is_taken(store: RunStore) -> None:
    await paused(store, "a")
    outcomes = await asyncio.gather(*(answer(store, "a") for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(outcome, str) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, NoSuchInterrupt) for outcome in outcomes) == 9


async def test_a_batch_with_one_answer_too_many_is_refused_whole(store: RunStore) -> None:
    await paused(store, "a", "b")
    await answer(store, "a")
    await refusal(store, "b", "a")
    await answer(store, "b")


async def test_several_interrupts_are_answered_one_after_the_other(store: RunStore) -> None:
    await paused(store, "a", "b")
    first, second = await answer(store, "a"), await answer(store, "b")
    assert [run.run_id for run in await store.runs.list("t", owner=ANY_OWNER)][:2] == [second, first]


async def test_an_answer_that_was_cancelled_before_it_began_can_be_given_again(store: RunStore) -> None:
    await paused(store, "a")
    await cancel(store, await answer(store, "a"))
    await answer(store, "a")


async def test_a_question_may_come_again_under_its_id(store: RunStore) -> None:
    await paused(store, "a")
    lease = (await claim(store, await answer(store, "a"))).lease
    again: Any = {"task": [{"id": "a", "value": "and now?"}]}
    await finish(store, lease, RunEvent.PAUSE, state=Snapshot(values=b"{}", interrupts=again, unfinished=True))
    await answer(store, "a")


async def test_a_thread_that_goes_on_without_an_answer_takes_none(store: RunStore) -> None:
    await paused(store, "a")
    other = await admit(store)
    assert f"the thread goes on with run {other!r}" in await refusal(store, "a")


async def test_runs_come_in_the_order_of_admission_if_they_have_events_or_may_get_some(store: RunStore) -> None:
    with_events = await admit(store)
    lease = (await claim(store, with_events)).lease
    await store.driver.write(_append(lease))
    await finish(store, lease, RunEvent.SUCCEED, events_end=1)
    never_began = await admit(store)
    await cancel(store, never_began)
    active = await admit(store)
    await ended(store, thread_id="other")
    found = await store.runs.with_events("t", after_seq=0)
    assert [run.run_id for run in found] == [with_events, never_began, active]
    assert await store.runs.with_events("t", after_seq=found[0].seq, limit=1) == (found[1],)
    await turn(store, LONG_AGO, with_events)
    await store.events.purge(older_than_s=60.0)
    assert [run.run_id for run in await store.runs.with_events("t", after_seq=0)] == [never_began, active]


def _append(lease: Any) -> Any:
    return fenced(lease, insert_events(lease, [StreamEvent(seq=1, name="values", data=b"{}")]))
