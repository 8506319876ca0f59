"""Searching runs of all threads: filters, pages, whose they are, and what a search of a large ledger costs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ledger_kit import SET_BACK, WORKER, admit, ended, finish, running, turn
from runlane.errors import InvalidRequest
from runlane.lifecycle import CancelAction, CancelSource, EndReason, RunEvent, RunStatus
from runlane.records import ANY_OWNER, RunError
from runlane.requests import RunRequest
from runlane.store.ledger import RunStore
from runlane.store.statements import Transaction, statement
from runlane.store.transactions.run_search import (
    COMPARED,
    MANY_ACTIVE,
    MAX_COMPARED,
    MAX_COMPARED_SLOWLY,
    RunFilter,
    RunPage,
)
from runlane.store.transactions.selections import RETRY_KEY
from runlane.telemetry.prices import Price, Prices, cost_of

MANY = statement(
    "many",
    """WITH RECURSIVE n(i) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < :number)
       INSERT INTO runs (run_id, thread_id, owner, status, multitask_strategy, on_disconnect, metadata, kwargs,
                         graph_id, not_before, created_at, updated_at)
       SELECT :prefix || i, 'many', :owner, :status, 'enqueue', 'cancel', '{}', '{}', 'g', 1, i * 1000000, 1 FROM n""",
)


async def insert(store: RunStore, number: int, prefix: str, *, owner: str = "", status: str = "success") -> None:
    def made() -> Transaction[None]:
        yield MANY(number=number, prefix=prefix, owner=owner, status=status)

    await store.driver.write(made())


async def page(
    store: RunStore, owner: Any = ANY_OWNER, *, before: int | None = None, limit: int = 100, **where: Any
) -> RunPage:
    given = {} if before is None else {"before_seq": before}
    return await store.runs.search(owner=owner, where=RunFilter(**where), limit=limit, **given)


async def ids(store: RunStore, owner: Any = ANY_OWNER, **options: Any) -> list[str]:
    return [run.run_id for run in (await page(store, owner, **options)).runs]


async def test_runs_of_all_threads_are_found_newest_first_page_by_page(store: RunStore) -> None:
    made = [await admit(store, f"t{number % 3}") for number in range(7)][::-1]
    assert await ids(store) == made
    first = await page(store, limit=3)
    assert [run.run_id for run in first.runs] == made[:3]
    assert first.next_before == first.runs[-1].seq
    await admit(store, "another")  # a page that was begun does not move
    second = await page(store, limit=3, before=first.next_before)
    third = await page(store, limit=3, before=second.next_before)
    assert [run.run_id for run in (*second.runs, *third.runs)] == made[3:]
    assert third.next_before is None


async def test_each_filter_has_to_hold(store: RunStore) -> None:
    done = await ended(
        store, "a", assistant_id="x", request=RunRequest(graph_id="g1"), metadata={"city": "Łódź", "team": "Billing"}
    )
    failed = await ended(
        store,
        "b",
        RunEvent.FAIL,
        assistant_id="y",
        request=RunRequest(graph_id="g2"),
        owner="ann",
    )
    active = (await running(store, "c", request=RunRequest(graph_id="g1"))).run_id
    waiting = await admit(store, "c", request=RunRequest(graph_id="g2"))
    assert await ids(store, statuses=frozenset({RunStatus.SUCCESS})) == [done]
    assert await ids(store, statuses=frozenset({RunStatus.ERROR, RunStatus.TIMEOUT})) == [failed]
    assert await ids(store, statuses=frozenset({RunStatus.PENDING, RunStatus.RUNNING})) == [waiting, active]
    assert await ids(store, statuses=frozenset({RunStatus.ERROR, RunStatus.PENDING})) == [waiting, failed]
    assert await ids(store, thread_id="c") == [waiting, active]
    assert await ids(store, graph_id="g1") == [active, done]
    assert await ids(store, assistant_id="y") == [failed]
    assert await ids(store, graph_id="g1", assistant_id="y") == []
    assert (
        await ids(store, text="BILLING") == await ids(store, text="Łódź") == await ids(store, text=done[:13]) == [done]
    )
    assert await ids(store, text="nowhere") == []


async def test_runs_are_found_by_what_became_of_them(store: RunStore) -> None:
    done, failed = await ended(store, "a"), await ended(store, "b", RunEvent.FAIL)
    active = await running(store, "c")
    spent = await store.runs.set_progress(active.run_id, {"total_tokens": 700})
    assert spent
    assert await ids(store, end_reasons=frozenset({EndReason.FAILED})) == [failed]
    assert await ids(store, end_reasons=frozenset({EndReason.FAILED, EndReason.COMPLETED})) == [failed, done]
    assert await ids(store, worker_id=WORKER) == [active.run_id, failed, done]
    assert await ids(store, worker_id="another") == []
    assert await ids(store, min_tokens=700) == [active.run_id]
    assert await ids(store, min_tokens=701) == []
    assert await ids(store, run_ids=frozenset({done, active.run_id, "nothing"})) == [active.run_id, done]
    assert await ids(store, "ann", run_ids=frozenset({done})) == []
    assert await ids(store, run_ids=frozenset({done, failed}), end_reasons=frozenset({EndReason.FAILED})) == [failed]


async def test_runs_are_found_by_what_they_cost(store: RunStore) -> None:
    prices = Prices(
        {
            "m": Price(input=2, cached_input=1, output=10),
            "m-large": Price(input=20, cached_input=5, output=100),
        }
    )
    counts = {"input_tokens": 300_000, "cached_input_tokens": 100_000, "output_tokens": 10_000}
    by_model = [
        {"m-1": counts},
        {"m-large-1": counts},
        {"m-1": counts, "m-large-1": counts, "free": counts},
        {"free": counts},
        {},
    ]
    made = []
    for used in by_model:
        run = await running(store, f"t{len(made)}")
        assert await store.runs.set_progress(run.run_id, {"by_model": used})
        made.append(run.run_id)
    assert [cost_of(prices.costs(used)) for used in by_model] == [0.6, 5.5, 6.1, None, None]

    async def above(cost: float) -> list[str]:
        return sorted(made.index(run_id) for run_id in await ids(store, min_cost=cost, prices=prices))

    assert await above(0) == [0, 1, 2, 3, 4]
    assert await above(1e-6) == await above(0.6) == [0, 1, 2]
    assert await above(0.600001) == await above(5.5) == [1, 2]
    assert await above(6.1) == [2]
    assert await above(6.2) == await ids(store, min_cost=1) == []
    page = await store.runs.select(owner=ANY_OWNER, where=RunFilter(min_cost=6, prices=prices), limit=10)
    assert [run.run_id for run in page.runs] == [made[2]], "actions on many runs select by the same filter"


async def test_runs_are_found_by_what_they_wait_for(store: RunStore) -> None:
    await running(store, "a")
    behind = await admit(store, "a")
    free = await admit(store, "b")
    delayed = await admit(store, "c", delay_s=3600.0)
    assert await ids(store, waits_for="run") == [behind]
    assert await ids(store, waits_for="slots") == [free]
    assert await ids(store, waits_for="delay") == [delayed]
    assert await ids(store, waits_for="run", statuses=frozenset({RunStatus.SUCCESS})) == []


async def test_what_decides_about_a_run_is_read_with_the_same_filter(store: RunStore) -> None:
    failed = await ended(store, "a", RunEvent.FAIL, request=RunRequest(graph_id="g"))
    key = f"{RETRY_KEY}{failed}"
    retry = await admit(store, "a", idempotency_key=key, request=RunRequest(graph_id="g"))
    await store.runs.request_cancel(
        retry, owner="", action=CancelAction.INTERRUPT, reason=EndReason.USER_CANCEL, by=None, source=CancelSource.OWNER
    )
    newest, first = (await store.runs.select(owner=ANY_OWNER, where=RunFilter(thread_id="a"), limit=10)).runs
    assert (first.run_id, first.followed, first.retry_run_id, first.cancelled, first.begun) == (
        failed,
        True,
        retry,
        False,
        True,
    )
    assert (newest.run_id, newest.followed, newest.retry_run_id, newest.cancelled, newest.begun) == (
        retry,
        False,
        None,
        True,
        False,
    )
    page = await store.runs.select(owner=ANY_OWNER, where=RunFilter(thread_id="a"), limit=1)
    assert ([run.run_id for run in page.runs], page.next_before) == ([retry], newest.seq)


async def test_a_search_finds_what_is_in_errors(store: RunStore) -> None:
    error = RunError(error="RateLimitError", message='The model says "slow down"')
    done = (await finish(store, await running(store), RunEvent.FAIL, error=error)).run.run_id
    await ended(store, "other", RunEvent.FAIL)
    assert await ids(store, text="ratelimit") == await ids(store, text='"slow down"') == [done]


async def test_runs_are_found_by_when_they_were_admitted_though_the_clock_was_set_back(store: RunStore) -> None:
    first, second, third = [await admit(store, f"t{number}") for number in range(3)]
    at = {run.run_id: run.created_at for run in (await page(store)).runs}
    assert await ids(store, since=at[second]) == [third, second]
    assert await ids(store, until=at[second]) == [first]
    assert await ids(store, since=at[second], until=at[third]) == [second]
    assert await ids(store, since=at[third] + timedelta(hours=1)) == []
    assert await ids(store, until=at[first] - timedelta(hours=1)) == []
    await turn(store, SET_BACK, first)
    assert await ids(store, since=at[second]) == [third, second, first]


async def test_an_owners_search_finds_no_run_of_another_owner(store: RunStore) -> None:
    mine = [
        await ended(store, "a", owner="ann"),
        await ended(store, "a", RunEvent.FAIL, owner="ann"),
        (await running(store, "a", owner="ann")).run_id,
    ][::-1]
    await ended(store, "b", owner="bob")
    await ended(store, "b", RunEvent.FAIL, owner="bob")
    await running(store, "b", owner="bob")
    assert await ids(store, "ann") == mine
    assert await ids(store, "ann", statuses=frozenset({RunStatus.ERROR})) == [mine[1]]
    assert await ids(store, "ann", statuses=frozenset({RunStatus.RUNNING})) == [mine[0]]
    assert await ids(store, "ann", thread_id="b") == []
    assert await ids(store, "nobody") == []
    assert len(await ids(store)) == 6


async def test_a_filter_on_the_thread_decides_what_is_seen(store: RunStore) -> None:
    for thread_id, team in (("a", "blue"), ("b", "red")):
        await store.threads.create(thread_id, owner="", metadata={"team": team})
    blue, red = await ended(store, "a"), await ended(store, "b")
    assert await ids(store, where={"team": "blue"}) == await ids(store, metadata={"team": "blue"}) == [blue]
    assert await ids(store, where={"team": {"$eq": "red"}}) == [red]
    assert await ids(store, where={"team": "blue"}, metadata={"team": "red"}) == []
    with pytest.raises(InvalidRequest, match="metadata"):
        RunFilter(metadata={str(number): number for number in range(2000)})


async def test_a_run_that_waits_says_for_what(store: RunStore) -> None:
    first = (await running(store)).run_id
    await admit(store)
    waiting, active = (await page(store)).runs
    assert waiting.waiting_on is not None
    assert (waiting.waiting_on.reason, waiting.waiting_on.run_id) == ("run", first)
    assert active.waiting_on is None


async def test_a_search_of_a_large_ledger_ends_early_and_goes_on(store: RunStore) -> None:
    oldest = await ended(store, "t", request=RunRequest(graph_id="rare"))
    await insert(store, MAX_COMPARED + COMPARED, "run-")
    for owner in ("", ANY_OWNER):
        first = await page(store, owner, graph_id="rare")
        assert first.runs == ()
        assert first.next_before
        slow = await page(store, owner, min_cost=1, prices=Prices({"m": Price(input=1, output=1, cached_input=1)}))
        assert (slow.runs, slow.next_before) == ((), first.next_before + MAX_COMPARED - MAX_COMPARED_SLOWLY)
        second = await page(store, owner, graph_id="rare", before=first.next_before)
        assert ([run.run_id for run in second.runs], second.next_before) == ([oldest], None)
    for number in (500, MAX_COMPARED + 900):  # more runs than are compared come after, or before
        at = datetime.fromtimestamp(number, UTC)
        within = await page(store, since=at, until=at + timedelta(seconds=2))
        assert [run.run_id for run in within.runs] == [f"run-{number + 1}", f"run-{number}"]
        assert within.next_before is None
    assert await ids(store, statuses=frozenset({RunStatus.ERROR})) == []


async def test_more_active_runs_than_are_sorted_are_found_newest_first(store: RunStore) -> None:
    await insert(store, MANY_ACTIVE + 1, "waiting-", status="pending")
    newest = [f"waiting-{MANY_ACTIVE + 1}", f"waiting-{MANY_ACTIVE}"]
    assert await ids(store, statuses=frozenset({RunStatus.PENDING}), limit=2) == newest
