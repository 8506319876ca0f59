"""The log records of runs in the ledger: in order, fenced, bounded, and gone with what they are of."""

from __future__ import annotations

import pytest

from ledger_kit import LONG_AGO, claim, finish, running, turn
from runlane.errors import LeaseLost
from runlane.lifecycle import RunEvent
from runlane.records import ANY_OWNER, Lease
from runlane.store.ledger import RunStore
from runlane.store.transactions.run_logs import KEPT_ATTEMPTS, LogPlace
from runlane.telemetry.run_log import LogSegment, RunLogRecord


def segment(lease: Lease, first: int, last: int, *, oldest: int = 1, text: str = "said\n\u202e\x1b[31m") -> LogSegment:
    numbers = range(first, last + 1)
    records = [RunLogRecord(lease.attempt, n, 1_000_000 * n, "info", "graph", f"{text}{n}", None) for n in numbers]
    return LogSegment(records=tuple(records), oldest=oldest)


async def numbers(store: RunStore, lease: Lease) -> list[tuple[int, int]]:
    page = await store.run_logs.read(lease.seq, limit=1000)
    assert not page.more
    return [(record.attempt, record.number) for record in page.records]


async def test_records_are_read_back_page_by_page(store: RunStore) -> None:
    lease = await running(store)
    written = segment(lease, 1, 3).records + segment(lease, 4, 5).records
    await store.run_logs.append(lease, segment(lease, 1, 3))
    await store.run_logs.append(lease, segment(lease, 4, 5))
    first = await store.run_logs.read(lease.seq, limit=2)
    assert (first.records, first.more) == (written[:2], True)
    rest = await store.run_logs.read(lease.seq, after=LogPlace(attempt=1, number=2), limit=3)
    assert (rest.records, rest.more) == (written[2:], False)
    assert (await store.run_logs.read(lease.seq, after=LogPlace(attempt=1, number=5))).records == ()


async def test_a_page_of_large_records_ends_early(store: RunStore) -> None:
    lease = await running(store)
    large = segment(lease, 1, 5, text="x" * 400_000)
    await store.run_logs.append(lease, large)
    page = await store.run_logs.read(lease.seq)
    assert (page.records, page.more) == (large.records[:3], True)


async def test_a_segment_that_is_written_again_with_later_records_is_there_once(store: RunStore) -> None:
    lease = await running(store)
    await store.run_logs.append(lease, segment(lease, 1, 3))
    await store.run_logs.append(lease, segment(lease, 1, 5))
    await store.run_logs.append(lease, segment(lease, 4, 6, oldest=4))  # its first records were dropped meanwhile
    assert await numbers(store, lease) == [(1, number) for number in range(1, 7)]


async def test_what_is_not_kept_any_more_is_deleted(store: RunStore) -> None:
    lease = await running(store)
    await store.run_logs.append(lease, segment(lease, 1, 3))
    await store.run_logs.append(lease, segment(lease, 4, 6))
    await store.run_logs.append(lease, segment(lease, 7, 9, oldest=5))
    assert await numbers(store, lease) == [(1, number) for number in range(4, 10)]


async def test_an_attempt_that_lost_its_run_writes_nothing_and_the_next_one_goes_on(store: RunStore) -> None:
    first = await running(store)
    await store.run_logs.append(first, segment(first, 1, 1))
    await finish(store, first, RunEvent.RELEASE)
    with pytest.raises(LeaseLost):
        await store.run_logs.append(first, segment(first, 2, 2))
    second = (await claim(store, first.run_id)).lease
    await store.run_logs.append(second, segment(second, 1, 1))
    await finish(store, second)
    with pytest.raises(LeaseLost):
        await store.run_logs.append(second, segment(second, 2, 2))
    assert await numbers(store, first) == [(1, 1), (2, 1)]


async def test_only_the_last_attempts_are_kept(store: RunStore) -> None:
    lease = await running(store)
    for _ in range(KEPT_ATTEMPTS + 1):
        await store.run_logs.append(lease, segment(lease, 1, 1))
        await finish(store, lease, RunEvent.RELEASE)
        lease = (await claim(store, lease.run_id)).lease
    assert await numbers(store, lease) == [(attempt, 1) for attempt in range(2, KEPT_ATTEMPTS + 2)]


@pytest.mark.parametrize("how", ["run", "thread", "retention of events", "retention of runs"])
async def test_records_are_deleted_with_what_they_are_of(store: RunStore, how: str) -> None:
    kept, lease = await running(store, "kept"), await running(store)
    for one in (kept, lease):
        await store.run_logs.append(one, segment(one, 1, 1))
    await finish(store, lease)
    if how == "run":
        await store.runs.delete(lease.run_id, owner=ANY_OWNER)
    elif how == "thread":
        await store.threads.delete("t", owner=ANY_OWNER)
    else:
        await turn(store, LONG_AGO, lease.run_id)
        purge = store.events.purge if how == "retention of events" else store.runs.purge
        assert await purge(older_than_s=60) == 1
    assert await numbers(store, lease) == []
    assert await numbers(store, kept) == [(1, 1)]
