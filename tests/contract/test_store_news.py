"""News of many runs in one read: what came since, in order, within bounds, and ends after the last event."""

from __future__ import annotations

from langchain_core.messages import AIMessage

from ledger_kit import finish, running
from runlane.agents.documents import JsonDocuments
from runlane.documents.document import Document, whole
from runlane.journal.remainder import append
from runlane.lifecycle import EndReason, RunStatus
from runlane.records import ANY_OWNER, Lease, StreamEnd, StreamEvent
from runlane.store.ledger import RunStore
from runlane.store.resources.events import NEWS_BYTES
from runlane.store.transactions.news import RunNews


def numbered(first: int, last: int, *, size: int = 0) -> tuple[StreamEvent, ...]:
    data = b'"%s"' % (b"x" * size)
    return tuple(StreamEvent(seq=n, name="messages", data=data) for n in range(first, last + 1))


async def write(store: RunStore, lease: Lease, events: tuple[StreamEvent, ...]) -> None:
    await store.driver.write(append(lease, events))


async def test_each_run_is_read_after_its_own_cursor(store: RunStore) -> None:
    one, other, quiet = [await running(store, thread) for thread in ("a", "b", "c")]
    await write(store, one, numbered(1, 3))
    await write(store, one, numbered(4, 5))
    await write(store, other, numbered(1, 2))
    found = await store.events.news({one.seq: 2, other.seq: 2, quiet.seq: 0})
    assert found == {
        one.seq: RunNews(events=numbered(3, 5), last=5, whole=True, end=None),
        other.seq: RunNews(events=(), last=2, whole=True, end=None),
        quiet.seq: RunNews(events=(), last=0, whole=True, end=None),
    }


async def test_a_run_whose_events_are_not_wanted_tells_of_its_last_one(store: RunStore) -> None:
    lease = await running(store)
    await write(store, lease, numbered(1, 3))
    assert (await store.events.news({lease.seq: None}))[lease.seq] == RunNews(events=(), last=3, whole=True, end=None)


async def test_an_end_follows_the_last_event(store: RunStore) -> None:
    lease = await running(store)
    await write(store, lease, numbered(1, 3))
    await finish(store, lease, events_end=3)
    end = StreamEnd(seq=4, status=RunStatus.SUCCESS, end_reason=EndReason.COMPLETED)
    assert await store.events.news({lease.seq: 1}) == {
        lease.seq: RunNews(events=numbered(2, 3), last=3, whole=True, end=end)
    }


async def test_a_run_that_was_deleted_has_ended(store: RunStore) -> None:
    lease = await running(store)
    run = (await finish(store, lease)).run
    await store.runs.delete(run.run_id, owner=ANY_OWNER)
    [news] = (await store.events.news({lease.seq: 0})).values()
    assert news.end == await store.events.end(lease.seq)
    assert news.end is not None


async def test_what_is_too_much_at_once_comes_with_the_next_reads(store: RunStore) -> None:
    leases = [await running(store, thread) for thread in ("a", "b", "c")]
    third = NEWS_BYTES // 3
    for lease in leases:
        await write(store, lease, numbered(1, 1, size=third))
        await write(store, lease, numbered(2, 2, size=third))
        await finish(store, lease, events_end=2)
    cursors: dict[int, int | None] = {lease.seq: 0 for lease in leases}
    seen: dict[int, list[int]] = {lease.seq: [] for lease in leases}
    reads = 0
    while cursors:
        reads += 1
        found = await store.events.news(cursors)
        size = sum(len(event.data) for news in found.values() for event in news.events)
        assert 0 < size <= NEWS_BYTES + third + 2
        for run_seq, news in found.items():
            seen[run_seq] += [event.seq for event in news.events]
            if news.whole:
                del cursors[run_seq]
            elif news.events:
                cursors[run_seq] = news.events[-1].seq
    assert reads > 1
    assert all(numbers == [1, 2] for numbers in seen.values())


async def test_documents_are_put_together_for_each_run(store: RunStore) -> None:
    leases = [await running(store, thread) for thread in ("a", "b")]
    values = []
    for lease in leases:
        value = JsonDocuments().of({"messages": [AIMessage(f"{lease.seq} " + "x" * 500, id=str(n)) for n in range(40)]})
        assert isinstance(value, Document)
        values.append(whole(value))
        event = StreamEvent(seq=1, name="values", data=values[-1])
        await store.driver.write(append(lease, (event,), documents={1: value}))
    found = await store.events.news({lease.seq: 0 for lease in leases})
    assert [found[lease.seq].events[0].data for lease in leases] == values
