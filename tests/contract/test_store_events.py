"""The durable log: whole, in order, fenced, and bounded by retention."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import pytest

from ledger_kit import LONG_AGO, claim, ended, finish, held, running, turn
from runlane.errors import LeaseLost
from runlane.journal.remainder import append
from runlane.lifecycle import EndReason, RunEvent, RunStatus
from runlane.records import ANY_OWNER, Lease, StreamEnd, StreamEvent
from runlane.store.ledger import RunStore
from runlane.store.resources.events import READ_BYTES, READ_SEGMENTS

HOUR_S = 3600.0


def numbered(first: int, last: int) -> tuple[StreamEvent, ...]:
    return tuple(
        StreamEvent(seq=n, name="messages|ns", data=b'{"n": %d, "x": "\\u0000\xc3\xa9"}' % n)
        for n in range(first, last + 1)
    )


def submit(store: RunStore, lease: Lease, events: Sequence[StreamEvent]) -> asyncio.Future[None]:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(_: object, error: BaseException | None) -> None:
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    store.driver.submit(partial(append, lease, events), loop, settle)
    return done


async def test_what_was_appended_is_read_back_byte_for_byte(store: RunStore) -> None:
    lease = await running(store)
    await submit(store, lease, numbered(1, 3))
    await submit(store, lease, numbered(4, 4))
    assert await store.events.read(lease.seq, after=0) == numbered(1, 4)


async def test_a_batch_that_is_appended_again_is_there_once(store: RunStore) -> None:
    lease = await running(store)
    await submit(store, lease, numbered(1, 3))
    await submit(store, lease, numbered(1, 3))
    await submit(store, lease, numbered(4, 4))
    assert await store.events.read(lease.seq, after=0) == numbered(1, 4)


async def test_an_ending_that_does_not_know_its_last_event_ends_after_what_the_log_has(store: RunStore) -> None:
    lease = await running(store)
    await submit(store, lease, numbered(1, 3))
    await finish(store, lease, RunEvent.FAIL, events_end=None)
    end = await store.events.end(lease.seq)
    assert end is not None
    assert end.seq == 4


@pytest.mark.parametrize("after", range(7))
async def test_a_reader_gets_what_follows_its_cursor_even_within_a_segment(store: RunStore, after: int) -> None:
    lease = await running(store)
    await submit(store, lease, numbered(1, 3))
    await submit(store, lease, numbered(4, 6))
    assert await store.events.read(lease.seq, after=after) == numbered(after + 1, 6)


async def test_a_long_log_is_read_in_bounded_pieces_without_gap_or_repeat(store: RunStore) -> None:
    lease = await running(store)
    count = 2 * READ_SEGMENTS + 5
    await asyncio.gather(*(submit(store, lease, numbered(n, n)) for n in range(1, count + 1)))
    pieces, cursor = [], 0
    while piece := await store.events.read(lease.seq, after=cursor):
        pieces.append(piece)
        cursor = piece[-1].seq
    assert [len(piece) for piece in pieces] == [READ_SEGMENTS, READ_SEGMENTS, 5]
    assert sum(pieces, ()) == numbered(1, count)


async def test_a_log_of_large_events_is_read_in_pieces_of_about_as_many_bytes_as_may_be(store: RunStore) -> None:
    lease, large = await running(store), READ_BYTES // 10
    written = tuple(StreamEvent(seq=n, name="values", data=b'"%s"' % (b"x" * large)) for n in range(1, 41))
    for event in written:
        await submit(store, lease, [event])
    pieces, cursor = [], 0
    while piece := await store.events.read(lease.seq, after=cursor):
        pieces.append(piece)
        cursor = piece[-1].seq
    assert sum(pieces, ()) == written
    assert max(len(piece) for piece in pieces) <= 11
    assert len(pieces) <= 5


async def test_many_large_events_that_are_appended_at_once_are_not_read_at_once(store: RunStore) -> None:
    lease = await running(store)
    written = tuple(StreamEvent(seq=n, name="values", data=b'"%s"' % (b"x" * (READ_BYTES // 10))) for n in range(1, 81))
    for _ in range(2):  # the answer to a commit may be lost
        await submit(store, lease, written)
    pieces, cursor = [], 0
    while piece := await store.events.read(lease.seq, after=cursor):
        pieces.append(piece)
        cursor = piece[-1].seq
    assert sum(pieces, ()) == written
    assert max(len(piece) for piece in pieces) <= 12


async def test_submissions_are_answered_in_the_order_in_which_they_were_queued(store: RunStore) -> None:
    lease, order = await running(store), list[int]()
    loop, all_done = asyncio.get_running_loop(), asyncio.Event()

    def answered(number: int, error: BaseException | None) -> None:
        assert error is None
        order.append(number)
        if number == 300:
            all_done.set()

    for n in range(1, 301):
        store.driver.submit(partial(append, lease, numbered(n, n)), loop, lambda _, error, n=n: answered(n, error))  # type: ignore[misc]  # mypy cannot see that n is bound
    await all_done.wait()
    assert order == list(range(1, 301))


async def test_one_refused_append_does_not_harm_those_queued_with_it(store: RunStore) -> None:
    live, lost = await running(store, "a"), await running(store, "b")
    await finish(store, lost)
    results = await asyncio.gather(
        submit(store, live, numbered(1, 2)),
        submit(store, lost, numbered(1, 2)),
        submit(store, live, numbered(3, 4)),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), LeaseLost, type(None)]
    assert await store.events.read(live.seq, after=0) == numbered(1, 4)
    assert await store.events.read(lost.seq, after=0) == ()


async def test_an_old_attempt_appends_nothing_and_the_next_one_goes_on_behind_what_is_there(store: RunStore) -> None:
    old = await running(store)
    await submit(store, old, numbered(1, 5))
    await store.attempts.rescue(await held(store, old.run_id), max_rescues=3)
    with pytest.raises(LeaseLost):
        await submit(store, old, numbered(6, 6))
    claimed = await claim(store, old.run_id)
    assert claimed.events_end == 5
    with pytest.raises(LeaseLost):
        await submit(store, old, numbered(6, 6))
    await submit(store, claimed.lease, numbered(6, 7))
    assert await store.events.read(old.seq, after=0) == numbered(1, 7)


async def test_logs_of_different_runs_do_not_mix(store: RunStore) -> None:
    one, two = await running(store, "a"), await running(store, "b")
    await asyncio.gather(submit(store, one, numbered(1, 2)), submit(store, two, numbered(1, 1)))
    assert await store.events.read(one.seq, after=0) == numbered(1, 2)
    assert await store.events.read(two.seq, after=0) == numbered(1, 1)


async def test_a_stream_has_no_end_while_its_run_is_active_and_one_afterwards(store: RunStore) -> None:
    lease = await running(store)
    assert await store.events.end(lease.seq) is None
    await submit(store, lease, numbered(1, 3))
    await finish(store, lease, RunEvent.FAIL, events_end=3)
    assert await store.events.end(lease.seq) == StreamEnd(seq=4, status=RunStatus.ERROR, end_reason=EndReason.FAILED)


async def test_a_run_given_up_ends_its_stream_behind_its_last_event(store: RunStore) -> None:
    lease = await running(store)
    await submit(store, lease, numbered(1, 3))
    await store.attempts.rescue(await held(store, lease.run_id), max_rescues=0)
    assert await store.events.end(lease.seq) == StreamEnd(
        seq=4, status=RunStatus.ERROR, end_reason=EndReason.WORKER_LOST
    )


async def test_the_stream_of_a_run_that_is_gone_has_ended(store: RunStore) -> None:
    lease = await running(store)
    await finish(store, lease)
    await store.runs.delete(lease.run_id, owner=ANY_OWNER)
    assert await store.events.end(lease.seq) is not None


async def test_deleting_a_run_removes_its_events_and_no_others(store: RunStore) -> None:
    gone, kept = await running(store, "a"), await running(store, "b")
    await asyncio.gather(submit(store, gone, numbered(1, 2)), submit(store, kept, numbered(1, 2)))
    await finish(store, gone, events_end=2)
    await store.runs.delete(gone.run_id, owner=ANY_OWNER)
    assert await store.events.read(gone.seq, after=0) == ()
    assert await store.events.read(kept.seq, after=0) == numbered(1, 2)


async def test_retention_removes_the_events_of_runs_that_ended_long_ago_only(store: RunStore) -> None:
    leases = {name: await running(store, name) for name in ("old", "fresh", "active")}
    for lease in leases.values():
        await submit(store, lease, numbered(1, 2))
    for name in ("old", "fresh"):
        await finish(store, leases[name], events_end=2)
    await turn(store, LONG_AGO, leases["old"].run_id)
    await store.events.purge(older_than_s=60)
    assert await store.events.read(leases["old"].seq, after=0) == ()
    assert await store.events.read(leases["fresh"].seq, after=0) == numbered(1, 2)
    assert await store.events.read(leases["active"].seq, after=0) == numbered(1, 2)
    assert await store.events.end(leases["old"].seq) == StreamEnd(
        seq=3, status=RunStatus.SUCCESS, end_reason=EndReason.COMPLETED
    )


async def test_retention_takes_a_bounded_bite_of_the_oldest_runs(store: RunStore) -> None:
    leases = [await running(store, str(n)) for n in range(3)]
    for lease in leases:
        await submit(store, lease, numbered(1, 1))
        await finish(store, lease, events_end=1)
        await turn(store, LONG_AGO, lease.run_id)
    assert await store.events.purge(older_than_s=60, limit=2) == 2
    assert [len(await store.events.read(lease.seq, after=0)) for lease in leases] == [0, 0, 1]
    assert await store.events.purge(older_than_s=60, limit=2) == 1
    assert [len(await store.events.read(lease.seq, after=0)) for lease in leases] == [0, 0, 0]
    assert await store.events.purge(older_than_s=60, limit=2) == 0, "what was purged is not looked at again"


async def test_old_runs_are_deleted_oldest_first_in_parts(store: RunStore) -> None:
    old, temporary = await ended(store, "a"), await ended(store, "b", temporary=True)
    fresh = await ended(store, "c", temporary=True)
    active = await running(store, "d", temporary=True)
    for run_id in (old, temporary):
        await turn(store, LONG_AGO, run_id)
    assert await store.runs.purge(older_than_s=60, limit=1) == 1
    assert {run.run_id for run in await store.runs.list(None, owner=ANY_OWNER)} == {temporary, fresh, active.run_id}
    assert await store.runs.purge(older_than_s=60) == 1
    assert await store.runs.purge(older_than_s=60) == 0
    assert {run.run_id for run in await store.runs.list(None, owner=ANY_OWNER)} == {fresh, active.run_id}


async def test_a_page_before_an_event_has_the_events_that_precede_it(store: RunStore) -> None:
    lease = await running(store)
    begin = 1
    for size in (1, 7, 2, 30, 1, 1, 1, 1, 1, 5):  # of segments
        await submit(store, lease, numbered(begin, begin + size - 1))
        begin += size
    for before in (1, 2, 3, 9, 11, 40, 41, 42, 46, 50, 51, 1_000):
        for limit in (1, 3, 60):
            found = await store.events.read_before(lease.seq, before=before, limit=limit)
            last = min(before - 1, begin - 1)
            assert [event.seq for event in found] == list(range(max(1, last - limit + 1), last + 1)), (before, limit)
    assert await store.events.read_before(lease.seq, before=9, limit=2) == numbered(7, 8)
    assert await store.events.read_before(lease.seq + 1, before=9, limit=2) == ()


async def test_a_page_before_an_event_is_bounded_by_bytes_and_has_one_event_at_least(store: RunStore) -> None:
    lease = await running(store)
    sizes = (10, READ_BYTES // 2, READ_BYTES // 3, 2 * READ_BYTES, 10, 10)
    events = [StreamEvent(seq=n, name="e", data=b'"%s"' % (b"x" * size)) for n, size in enumerate(sizes, 1)]
    await submit(store, lease, events)
    pages = {before: await store.events.read_before(lease.seq, before=before, limit=100) for before in (7, 5, 4)}
    assert {before: [event.seq for event in page] for before, page in pages.items()} == {
        7: [5, 6],
        5: [4],
        4: [1, 2, 3],
    }
