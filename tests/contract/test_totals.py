"""Totals of runs that ended, on each database: each run counts once."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ledger_kit import admit, cancel, claim, ended, finish, running
from runlane.lifecycle import RunEvent
from runlane.maintenance.totals import count
from runlane.outcomes import Snapshot
from runlane.records import ANY_OWNER, Owner, RunError, Usage
from runlane.requests import RunRequest
from runlane.store.ledger import RunStore
from runlane.store.statements import Driver, Query, Rows, Transaction, statement
from runlane.store.transactions import failures, totals
from runlane.store.transactions.failure_queries import FailureFilter, FailureGroup
from runlane.store.transactions.failures import MAX_HASHES, OTHER_ERRORS, same_message, threads_of
from runlane.store.transactions.overview import quantile
from runlane.store.transactions.total_queries import By, Total, TotalFilter
from runlane.store.transactions.totals import TAKE_DELETED, TAKE_ENDED, seconds_of, step_of
from simulation.seams import answered, finding

GRAPH = RunRequest(graph_id="g")
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
# The totals, from the runs themselves.
FROM_RUNS = statement(
    "from_runs",
    """SELECT ended_at / 86400000000 AS day, owner, graph_id, COALESCE(build, '') AS build, status, end_reason,
         COUNT(*) AS runs,
         CAST(SUM(CASE WHEN started_at IS NULL THEN 0 ELSE ended_at - started_at END) AS BIGINT) AS executing_us,
         MIN(ended_at) AS first_ended_at, MAX(ended_at) AS last_ended_at
       FROM runs WHERE ended_at IS NOT NULL GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6""",
)
KEPT = statement(
    "kept",
    """SELECT day, owner, graph_id, build, status, end_reason, runs, executing_us, first_ended_at, last_ended_at
       FROM run_totals WHERE grain = 'full' ORDER BY day, owner, graph_id, build, status, end_reason""",
)
OF_BUILD = statement("of_build", "UPDATE runs SET build = :build WHERE run_id = :run_id")
A_DAY_AGO = statement("a_day_ago", "UPDATE runs SET ended_at = ended_at - 86400000000 WHERE run_id = :run_id")
RUN_IDS = statement("run_ids", "SELECT run_id, owner FROM runs ORDER BY seq")
OLD = {
    "run_totals": statement("old_days", "UPDATE run_totals SET day = day - 401"),
    "failure_groups": statement("old_groups", "UPDATE failure_groups SET last_at = last_at - 7777000000000"),
    "failure_totals": statement("old_hours", "UPDATE failure_totals SET hour = hour - 2161"),
    "minute_totals": statement("old_minutes", "UPDATE minute_totals SET minute = minute - 1501"),
}
#: Counts some runs that ended, or dies before it is done.
Counting = Callable[[RunStore, random.Random], Awaitable[None]]


async def listed(store: RunStore, by: By, *, owner: Owner = ANY_OWNER, **where: Any) -> tuple[Total, ...]:
    period = {"since": LONG_AGO, "until": datetime.now(UTC) + timedelta(days=9)}
    return await store.totals.list(by, TotalFilter(owner=owner, **{**period, **where}))


async def failed_groups(store: RunStore, since: datetime = LONG_AGO, **where: Any) -> tuple[FailureGroup, ...]:
    return await store.totals.failures(FailureFilter(since=since, **where))


def dying(transaction: Transaction[Any], chance: random.Random) -> Transaction[Any]:
    """Return *transaction*, which dies before one of its queries, or lives."""
    left = chance.randrange(14)

    def answer(query: Query) -> Transaction[Rows]:
        nonlocal left
        left -= 1
        if left < 0:
            raise InterruptedError
        return (yield query)

    return answered(transaction, answer)


async def count_together(store: RunStore, chance: random.Random) -> None:
    """Count as the product does: in one transaction."""
    with suppress(InterruptedError):
        await store.driver.write(dying(totals.count_ended(3), chance))


async def count_apart(store: RunStore, chance: random.Random) -> None:
    """Commit first that runs are counted, and then their totals: a planted bug."""

    def marked() -> Transaction[Rows]:
        return (yield TAKE_ENDED(limit=3))

    rows = await store.driver.write(marked())
    with suppress(InterruptedError):
        await store.driver.write(dying(answered(totals.count_ended(3), finding(TAKE_ENDED, rows)), chance))


async def forget_deleted(store: RunStore, chance: random.Random) -> None:
    """Count as if no run were deleted before: a planted bug."""
    with suppress(InterruptedError):
        await store.driver.write(dying(answered(totals.count_ended(3), finding(TAKE_DELETED, [])), chance))


async def rows_of(driver: Driver, query: Any, **params: Any) -> Rows:
    def ask() -> Transaction[Rows]:
        return (yield query(**params))

    return await driver.read(ask()) if query.reads else await driver.write(ask())


async def failed(store: RunStore, message: str, *, build: str = "", graph: str = "g", error: str = "KeyError") -> str:
    run_id = await admit(store, f"t-{random.random()}", request=RunRequest(graph_id=graph))
    lease = (await claim(store, run_id)).lease
    await rows_of(store.driver, OF_BUILD, build=build, run_id=run_id)
    await finish(store, lease, RunEvent.FAIL, error=RunError(error=error, message=message))
    return run_id


def used(model: str, tokens: int, text: str | None = None) -> Usage:
    counts = {"input_tokens": tokens, "output_tokens": 1, "total_tokens": tokens + 1, "llm_calls": 1}
    return Usage(**counts, by_model={model: counts}, first_human_message=text, last_ai_message=text)


async def random_history(store: RunStore, chance: random.Random, counting: Counting, *, runs: int) -> Rows:
    """Return the totals of runs of which some are counted meanwhile, and some deleted, from the runs themselves."""
    for _ in range(runs):
        thread_id, owner = f"t{chance.getrandbits(64)}", f"owner-{chance.randrange(3)}"
        run_id = await admit(store, thread_id, owner=owner, request=RunRequest(graph_id=chance.choice("ab")))
        fate = chance.choice([RunEvent.SUCCEED, RunEvent.FAIL, RunEvent.EXPIRE, "cancel", "hand back", "wait"])
        if fate == "cancel":
            await cancel(store, run_id)
        elif fate != "wait":
            lease = (await claim(store, run_id)).lease
            await rows_of(store.driver, OF_BUILD, build=chance.choice(["1", "2"]), run_id=run_id)
            if fate == "hand back":
                await finish(store, lease, RunEvent.RELEASE)
                lease = (await claim(store, run_id)).lease
                fate = RunEvent.SUCCEED
            error = None if fate is RunEvent.SUCCEED else RunError(error="E", message=f"at {run_id}")
            await finish(store, lease, fate, error=error, usage=used("m", 7))
        if chance.random() < 0.2:
            await counting(store, chance)
    wanted = await rows_of(store.driver, FROM_RUNS)
    for thread_id in chance.sample(await threads_of_ended(store), 5):
        await store.threads.delete(thread_id, owner=ANY_OWNER)
    return wanted


async def threads_of_ended(store: RunStore) -> list[str]:
    found = statement("threads_of_ended", "SELECT thread_id FROM runs WHERE ended_at IS NOT NULL ORDER BY thread_id")
    return [row["thread_id"] for row in await rows_of(store.driver, found)]


async def counted(store: RunStore, counting: Counting, chance: random.Random) -> Rows:
    """Return what the totals have once all is counted."""
    for _ in range(100):
        await counting(store, chance)
    return await rows_of(store.driver, KEPT)


@pytest.mark.parametrize("seed", range(3))
async def test_totals_are_those_of_the_runs_though_processes_die_and_runs_are_deleted(
    store: RunStore, seed: int
) -> None:
    chance = random.Random(seed)
    wanted = await random_history(store, chance, count_together, runs=40)
    assert await counted(store, count_together, chance) == wanted
    assert sum(row["runs"] for row in wanted) > 20
    assert await store.totals.oldest_uncounted() is None
    assert sum(group.runs for group in await failed_groups(store)) == sum(
        row["runs"] for row in wanted if row["status"] in ("error", "timeout")
    )
    minutes = (await store.totals.overview()).minutes
    assert sum(ending.runs for minute in minutes for ending in minute.ended) == sum(row["runs"] for row in wanted)


@pytest.mark.parametrize("bug", [count_apart, forget_deleted])
async def test_a_planted_bug_of_counting_is_found(store: RunStore, bug: Counting) -> None:
    chance = random.Random(0)
    wanted = await random_history(store, chance, bug, runs=40)
    assert await counted(store, bug, chance) != wanted


async def test_tokens_are_counted_by_model_without_the_texts_of_messages(store: RunStore, driver: Driver) -> None:
    text = 'a "quoted" \x00, and ,"first_human_message": of a model'
    for owner, model, tokens in (("ann", "large", 10), ("bob", "large,", 5), ("ann", "small", 1)):
        lease = await running(store, f"{owner}-{model}", owner=owner, request=GRAPH)
        await finish(store, lease, usage=used(model, tokens, text.replace("\x00", "")))
    await store.threads.delete("bob-large,", owner=ANY_OWNER)
    [kept] = await rows_of(driver, statement("kept_of_deleted", "SELECT usage FROM deleted_runs"))
    assert "quoted" not in kept["usage"]
    await count(store.totals)
    ann, bob = await listed(store, By.OWNER)
    assert (ann.name, ann.amounts.runs, ann.amounts.input_tokens, ann.amounts.total_tokens) == ("ann", 2, 11, 13)
    assert {model: spent.input_tokens for model, spent in ann.amounts.models.items()} == {"large": 10, "small": 1}
    assert (bob.name, bob.amounts.models["large,"].llm_calls) == ("bob", 1)
    assert [one.name for one in await listed(store, By.MODEL)] == ["large", "large,", "small"]
    assert [one.name for one in await listed(store, By.OWNER, limit=1)] == ["ann"]
    assert await listed(store, By.GRAPH, since=datetime.now(UTC) + timedelta(days=2)) == ()


async def test_a_run_that_is_deleted_before_it_is_counted_counts(store: RunStore) -> None:
    await ended(store, "gone", request=GRAPH)
    await store.threads.delete("gone", owner=ANY_OWNER)
    await count(store.totals)
    assert [one.amounts.runs for one in await listed(store, By.GRAPH)] == [1]


async def test_processes_that_count_at_once_count_each_run_once(store: RunStore) -> None:
    for number in range(30):
        await ended(store, f"t{number}", request=GRAPH)

    async def until_empty() -> None:
        for _ in range(30):
            await store.totals.count(limit=2)

    await asyncio.gather(until_empty(), until_empty(), until_empty())
    await count(store.totals)
    assert [one.amounts.runs for one in await listed(store, By.GRAPH)] == [30]


async def test_failures_are_grouped_by_their_messages_without_ids(store: RunStore) -> None:
    first = await failed(store, "no user 17 in 0d1f6a3e-8c5b-4e57-9a52-6f4d0c8b7a11", build="1")
    await rows_of(store.driver, A_DAY_AGO, run_id=first)
    last = await failed(store, "no user 18  in 9e107d9d-372b-4b1e-8a6f-1f0e2d3c4b5a", build="2")
    other = await failed(store, "out of memory", build="2", graph="h")
    await count(store.totals)
    now = datetime.now(UTC)
    recent = {group.message: group for group in await failed_groups(store, now - timedelta(hours=1))}
    assert recent["out of memory"].run_id == other
    group = recent["no user # in #"]
    assert (group.runs, group.threads, group.threads_estimated) == (1, 2, False)
    assert (group.first_build, group.last_build, group.run_id) == ("1", "2", last)
    assert group.thread_id == (await store.runs.get(last, owner=ANY_OWNER)).thread_id
    assert group.last_at - group.first_at > timedelta(hours=23)
    assert [group.runs for group in await failed_groups(store)] == [2, 1]
    assert [[point.runs for point in group.trend] for group in await failed_groups(store)] == [[1, 1], [1]]
    [by_day] = {point.at.hour for group in await failed_groups(store, trend="day") for point in group.trend}
    assert by_day == 0
    assert [group.run_id for group in await failed_groups(store, build="1")] == [last]
    assert [group.run_id for group in await failed_groups(store, graph_id="h")] == [other]
    assert [group.message for group in await failed_groups(store, new_since_build="2")] == ["out of memory"]


async def test_a_day_has_a_limited_number_of_new_groups(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "MAX_NEW_GROUPS", 2)
    for word in ("one", "two", "three", "four", "one"):
        await failed(store, word)
        await count(store.totals)
    groups = await failed_groups(store)
    assert {(group.error, group.message): group.runs for group in groups} == {
        ("KeyError", "one"): 2,
        ("KeyError", "two"): 1,
        (OTHER_ERRORS, ""): 2,
    }


@pytest.mark.parametrize("threads", [1, MAX_HASHES - 1, 1000, 100_000])
def test_threads_of_a_group_are_counted_or_estimated(threads: int) -> None:
    chance = random.Random(threads)
    hashes = sorted({chance.getrandbits(32) for _ in range(threads)})[:MAX_HASHES]
    assert threads_of(hashes) == pytest.approx(threads, rel=0 if threads < MAX_HASHES else 0.4)


async def test_totals_of_all_grains_have_the_same_sums(store: RunStore) -> None:
    chance = random.Random(1)
    wanted = await random_history(store, chance, count_together, runs=40)
    await counted(store, count_together, chance)
    runs, tokens = sum(row["runs"] for row in wanted), set()
    for by in By:
        for owners in ([ANY_OWNER], ["owner-0", "owner-1", "owner-2"]):
            for graphs in ([None], ["a", "b"]):
                found = [
                    one.amounts
                    for owner in owners
                    for graph_id in graphs
                    for one in await listed(store, by, owner=owner, graph_id=graph_id)
                ]
                assert by is By.MODEL or sum(one.runs or 0 for one in found) == runs
                tokens.add(sum(one.total_tokens for one in found))
    assert len(tokens) == 1


async def test_old_totals_are_dropped(store: RunStore) -> None:
    await failed(store, "out of memory")
    await count(store.totals)
    tables = {table: statement("rows_of_table", f"SELECT COUNT(*) AS n FROM {table}") for table in OLD}
    assert all([(await rows_of(store.driver, table))[0]["n"] for table in tables.values()])
    await store.totals.purge()
    assert all([(await rows_of(store.driver, table))[0]["n"] for table in tables.values()])
    for make_old in OLD.values():
        await rows_of(store.driver, make_old)
    await store.totals.purge()
    assert not any([(await rows_of(store.driver, table))[0]["n"] for table in tables.values()])


async def test_totals_are_of_days_owners_graphs_models_and_statuses(store: RunStore) -> None:
    for owner, graph, model, event in (
        ("ann", "g", "large", RunEvent.SUCCEED),
        ("ann", "h", "small", RunEvent.SUCCEED),
        ("bob", "g", "large", RunEvent.FAIL),
    ):
        lease = await running(store, f"{owner}-{graph}", owner=owner, request=RunRequest(graph_id=graph))
        error = RunError(error="E", message="m") if event is RunEvent.FAIL else None
        await finish(store, lease, event, usage=used(model, 10), error=error)
    [old] = [row for row in await rows_of(store.driver, RUN_IDS) if row["owner"] == "bob"]
    await rows_of(store.driver, A_DAY_AGO, run_id=old["run_id"])
    await count(store.totals)
    today, yesterday = (one.name for one in await listed(store, By.DAY))
    assert date_of(today) - date_of(yesterday) == timedelta(days=1)
    ann, bob = await listed(store, By.OWNER, daily=True)
    assert (ann.amounts.runs, bob.amounts.failed) == (2, 1)
    assert {day: amounts.runs for day, amounts in ann.days.items()} == {today: 2}
    assert {day: amounts.models["large"].input_tokens for day, amounts in bob.days.items()} == {yesterday: 10}
    assert [one.name for one in await listed(store, By.OWNER, until=bob.last_ended_at)] == ["bob"]
    assert [one.name for one in await listed(store, By.OWNER, graph_id="h")] == ["ann"]
    assert [one.name for one in await listed(store, By.GRAPH, owner="bob")] == ["g"]
    assert {one.name: one.amounts.runs for one in await listed(store, By.STATUS)} == {"success": 2, "error": 1}
    large, small = await listed(store, By.MODEL, daily=True)
    assert (large.name, large.amounts.total_tokens, large.amounts.runs) == ("large", 22, None)
    assert {day: amounts.total_tokens for day, amounts in large.days.items()} == {yesterday: 11, today: 11}
    assert [(one.name, one.amounts.total_tokens) for one in await listed(store, By.OWNER, model="small")] == [
        ("ann", 11)
    ]
    assert small.days[today].models["small"].llm_calls == 1


def date_of(day: str) -> datetime:
    return datetime.fromisoformat(day)


async def test_the_overview_is_of_what_waits_runs_and_ended(store: RunStore) -> None:
    first = await admit(store, "a", request=GRAPH)
    await admit(store, "b", request=GRAPH)
    lease = await running(store, "c", request=RunRequest(graph_id="h"))
    await ended(store, "d", request=GRAPH)
    await failed(store, "out of memory")
    before = await store.totals.overview()
    assert before.counted_until < before.as_of
    assert before.endings == ()
    await count(store.totals)
    seen = await store.totals.overview()
    assert seen.counted_until == seen.as_of
    assert (seen.running, seen.waiting) == (1, 2)
    assert [(one.graph_id, one.worker_id, one.runs) for one in seen.running_by] == [("h", lease.worker_id, 1)]
    assert [(one.graph_id, one.runs) for one in seen.queue] == [("g", 2)]
    assert [(one.owner, one.runs) for one in seen.queue_by_owner] == [("", 2)]
    assert seen.oldest_waiting is not None
    assert (seen.oldest_waiting.run_id, seen.oldest_waiting.thread_id) == (first, "a")
    assert {(one.status, one.end_reason): one.runs for one in seen.endings} == {
        ("success", "completed"): 1,
        ("error", "failed"): 1,
    }
    assert len(seen.minutes) == 60
    assert sum(minute.started for minute in seen.minutes) == 3
    assert (seen.attention.failed_threads, seen.attention.interrupted_threads) == (1, 0)


PAUSED = Snapshot(values=b"{}", paused=True)


@pytest.mark.parametrize(("event", "changes"), [(RunEvent.FAIL, {}), (RunEvent.PAUSE, {"state": PAUSED})])
async def test_threads_of_stateless_runs_need_no_attention(
    store: RunStore, event: RunEvent, changes: dict[str, Any]
) -> None:
    lease = await running(store, "own", request=GRAPH, temporary=True)
    await finish(store, lease, event, **changes)
    seen = await store.totals.overview()
    assert (seen.attention.failed_threads, seen.attention.interrupted_threads) == (0, 0)


@pytest.mark.parametrize("run_time_s", [0.001, 0.0013, 0.5, 1.0, 33.3, 86_400.0])
def test_an_estimate_of_a_run_time_is_within_nine_percent(run_time_s: float) -> None:
    estimate = quantile({step_of(round(run_time_s * 1_000_000)): 1}, 0.5)
    assert estimate == pytest.approx(run_time_s, rel=0.095)


def test_quantiles_are_of_all_runs() -> None:
    times = dict.fromkeys(range(100), 1)
    assert quantile(times, 0.95) == seconds_of(94)
    assert quantile({}, 0.5) is None
    assert step_of(0) == 0
    assert math.isfinite(seconds_of(step_of(10**18)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("timeout after 30.5s", "timeout after 2.25s"),
        ("<Thing at 0x7f3a>", "<Thing at 0x81bc>"),
        ("line\n  3", "line 4"),
    ],
)
def test_messages_of_the_same_failure_are_equal(one: str, other: str) -> None:
    assert same_message(one) == same_message(other)
