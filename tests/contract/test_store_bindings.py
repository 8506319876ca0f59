"""A thread is read with the graph of its newest run, and with the one before if that run turns out not to count."""

from __future__ import annotations

from typing import Any

from ledger_kit import admit, cancel, ended, finish, running
from runlane.lifecycle import CancelAction, EndReason, RunEvent
from runlane.records import ANY_OWNER, Lease
from runlane.store.ledger import RunStore

A, B, C = ({"graph_id": name, "assistant_id": f"{name}-1"} for name in "abc")


async def bound(store: RunStore) -> Any:
    return (await store.threads.get("t", owner=ANY_OWNER)).metadata


async def rolled_back(store: RunStore, lease: Lease) -> None:
    await cancel(store, lease.run_id, CancelAction.ROLLBACK)
    await finish(store, lease, RunEvent.STOP, end_reason=EndReason.ROLLED_BACK)


async def test_a_run_that_is_rolled_back_gives_its_thread_the_graph_back_that_it_had(store: RunStore) -> None:
    await ended(store, thread_metadata=A)
    lease = await running(store, thread_metadata=B)
    assert await bound(store) == B
    await store.threads.patch("t", owner=ANY_OWNER, metadata={"colour": "red"})
    await rolled_back(store, lease)
    assert await bound(store) == {**A, "colour": "red"}


async def test_a_thread_without_a_graph_is_without_one_again(store: RunStore) -> None:
    await store.threads.create("t", owner="", metadata={"colour": "red"})
    await rolled_back(store, await running(store, thread_metadata=A))
    assert await bound(store) == {"colour": "red"}


async def test_a_run_of_the_same_graph_changes_nothing_and_neither_does_its_end(store: RunStore) -> None:
    await ended(store, thread_metadata=A)
    await rolled_back(store, await running(store, thread_metadata=A))
    assert await bound(store) == A


async def test_what_was_bound_since_stays(store: RunStore) -> None:
    lease = await running(store, thread_metadata=A)
    await store.threads.patch("t", owner=ANY_OWNER, metadata=C)
    await rolled_back(store, lease)
    assert await bound(store) == C


async def test_a_run_that_never_executed_gives_back_the_graph_that_there_was(store: RunStore) -> None:
    waiting = await admit(store, thread_metadata=A, delay_s=100)
    await cancel(store, waiting, CancelAction.INTERRUPT)
    assert await bound(store) == A  # its thread is still found by the graph that it was made for
    waiting = await admit(store, thread_metadata=B, delay_s=100)
    assert await bound(store) == B
    await cancel(store, waiting, CancelAction.INTERRUPT)
    assert await bound(store) == A


async def test_runs_that_are_rolled_back_one_after_the_other_lead_back_to_before_all_of_them(store: RunStore) -> None:
    await ended(store, thread_metadata=A)
    lease = await running(store, thread_metadata=B)
    waiting = await admit(store, thread_metadata=C)
    await rolled_back(store, lease)
    assert await bound(store) == C
    await cancel(store, waiting, CancelAction.ROLLBACK)
    assert await bound(store) == A


async def test_a_run_that_supersedes_others_leads_back_to_before_them(store: RunStore) -> None:
    await ended(store, thread_metadata=A)
    lease = await running(store, thread_metadata=B)
    await admit(store, thread_metadata=C, metadata=C)
    newest = await admit(store, thread_metadata=C, metadata=C, multitask_strategy="rollback")
    await finish(store, lease, RunEvent.STOP, end_reason=EndReason.ROLLED_BACK)
    assert await bound(store) == C
    await cancel(store, newest, CancelAction.ROLLBACK)
    assert await bound(store) == A


async def test_a_run_that_was_overtaken_takes_nothing_from_the_one_that_counts(store: RunStore) -> None:
    await ended(store, thread_metadata=A)
    delayed = await admit(store, thread_metadata=B, metadata=B, delay_s=100)
    await ended(store, thread_metadata=B, metadata=B)
    await cancel(store, delayed, CancelAction.ROLLBACK)
    assert await bound(store) == B
