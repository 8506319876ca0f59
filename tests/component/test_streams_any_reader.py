"""P5 for any history: one attempt after the other publishes, while readers come, leave and come back as they like."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from component.test_streams import Stage
from ledger_kit import finish
from run_kit import ENDED_LONG_AGO, turn
from runlane import StoreUnavailable
from runlane.lifecycle import RunEvent
from runlane.records import StreamEnd, StreamEvent, StreamGap, StreamItem
from runlane.streams.budget import TAIL_BYTES
from runlane.streams.live import TAIL_EVENTS
from runlane.testing.virtual_loop import run_virtual

READERS = 4
APPEND = "insert_segment"

numbers = st.integers(0, READERS - 1)
actions = st.one_of(
    st.tuples(st.just("emit"), st.integers(1, 5), st.sampled_from([1, 1, 1, 300, TAIL_BYTES // 2])),
    st.tuples(st.just("emit"), st.just(TAIL_EVENTS + 1), st.just(1)),  # more than is kept in memory
    st.tuples(st.just("come"), numbers),
    st.tuples(st.just("leave"), numbers),
    st.tuples(st.just("turns"), st.integers(1, 8)),
    st.tuples(st.just("pause"), st.sampled_from([0.001, 0.01, 0.1, 6.0])),
    st.tuples(st.just("outage")),
    st.tuples(st.just("back")),
    st.tuples(st.just("next attempt")),
)


@dataclass
class Follower:
    """A client that reads on from the last id that it saw, over as many connections as it likes."""

    seen: list[StreamItem] = field(default_factory=list)
    task: asyncio.Task[None] | None = None

    @property
    def cursor(self) -> int:
        return max((item.seq for item in self.seen if isinstance(item, StreamEvent)), default=0)

    def come(self, stage: Stage) -> None:
        if self.task is None and not self.over:
            self.task = asyncio.ensure_future(self._read(stage))

    async def _read(self, stage: Stage) -> None:
        async for item in stage.bridge.subscribe(stage.run.run_id, after=self.cursor):
            self.seen.append(item)

    async def leave(self) -> None:
        task, self.task = self.task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    @property
    def over(self) -> bool:
        return bool(self.seen) and isinstance(self.seen[-1], StreamEnd)


class History:
    """Does what was drawn, and keeps what was published."""

    def __init__(self) -> None:
        self.published: list[bytes] = []
        self.readers = [Follower() for _ in range(READERS)]

    async def begin(self) -> None:
        self.stage = await Stage().begin()

    async def act(self, name: str, *given: Any) -> None:
        if name == "emit":
            count, size = given
            data = [b'"%s"' % (b"%d " % (len(self.published) + number)).ljust(size, b".") for number in range(count)]
            self.published += data
            self.stage.emit(*data)
        elif name == "come":
            self.readers[given[0]].come(self.stage)
        elif name == "leave":
            await self.readers[given[0]].leave()
        elif name == "turns":
            for _ in range(given[0]):
                await asyncio.sleep(0)
        elif name == "pause":
            await asyncio.sleep(given[0])
        elif name == "outage":
            self.stage.driver.faults[APPEND] = StoreUnavailable("it is out")
        elif name == "back":
            self.stage.driver.faults.clear()
        else:
            await self.next_attempt()
        self.check_prefixes()

    async def committed(self) -> int | None:
        """Wait until everything is committed and shown; return the number of the last event."""
        self.stage.driver.faults.clear()
        await self.stage.committed()
        return (await self.stage.journal.close()).events_end

    async def next_attempt(self) -> None:
        last = await self.committed()
        await finish(self.stage.store, self.stage.claim.lease, RunEvent.RELEASE, events_end=last)
        self.stage.bridge.release(self.stage.run.run_id, self.stage.run.attempt)
        await self.stage.begin(attempt_of=self.stage.run.run_id)

    async def end(self) -> None:
        last = await self.committed()
        finished = await finish(self.stage.store, self.stage.claim.lease, events_end=last)
        self.stage.bridge.close(finished.run, events_end=last, result=b"1")

    def check_prefixes(self) -> None:
        """Whoever reads has seen the beginning of what was published, each event once."""
        for reader in self.readers:
            events = [item for item in reader.seen if isinstance(item, StreamEvent)]
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            assert [event.data for event in events] == self.published[: len(events)]

    async def read_to_the_end(self) -> None:
        for reader in self.readers:
            reader.come(self.stage)
        await asyncio.gather(*(reader.task for reader in self.readers if reader.task is not None))


async def lived(history: History, drawn: list[tuple[Any, ...]]) -> None:
    await history.begin()
    assert history.stage.failures == []
    for name, *given_ in drawn:
        # An outage of ten seconds is told to the run, and its events end; that is another rule.
        if name == "pause" and given_[0] > 1:
            history.stage.driver.faults.clear()
        await history.act(name, *given_)


@given(drawn=st.lists(actions, max_size=25))
@settings(max_examples=150, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_whoever_reads_and_comes_back_gets_every_event_once_and_one_end(drawn: list[tuple[Any, ...]]) -> None:
    async def main() -> None:
        history = History()
        await lived(history, drawn)
        await history.end()
        await history.read_to_the_end()
        history.check_prefixes()
        for reader in history.readers:
            *events, end = reader.seen
            assert [type(event) for event in events] == [StreamEvent] * len(history.published)
            assert isinstance(end, StreamEnd)
            assert end.seq == len(history.published) + 1
        assert history.stage.failures == []
        await history.stage.driver.aclose()

    run_virtual(main)


@given(drawn=st.lists(actions, max_size=15))
@settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_whoever_comes_after_retention_is_told_of_the_gap_if_and_only_if_there_is_one(
    drawn: list[tuple[Any, ...]],
) -> None:
    async def main() -> None:
        history = History()
        await lived(history, drawn)
        for reader in history.readers:
            await reader.leave()
        await history.end()
        await turn(history.stage.store, ENDED_LONG_AGO, history.stage.run.run_id)
        while await history.stage.store.events.purge(older_than_s=60):
            pass
        before = {id(reader): len(reader.seen) for reader in history.readers}
        await history.read_to_the_end()
        for reader in history.readers:
            missing = before[id(reader)] < len(history.published)
            kinds = [type(item) for item in reader.seen[before[id(reader)] :]]
            assert kinds == [StreamGap, StreamEnd] if missing else [StreamEnd]
        await history.stage.driver.aclose()

    run_virtual(main)
