"""All events of a thread: those of its runs, one run after the other, from the first that is kept on, then live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Final

from runlane.errors import NotFound
from runlane.lifecycle import RunStatus
from runlane.records import ANY_OWNER, RunRecord
from runlane.server.auth.access import Access
from runlane.server.protocols.v2.events import QUESTION, RunEvents, Subscription, WireEvent, gap_event, place, position
from runlane.store.ledger import RunStore
from runlane.streams.bridge import StreamBridge

#: Runs that are looked up at once.
RUNS_PAGE: Final = 50
#: The SDKs hear of questions and of ends on a connection of their own, and then end the readers of the others: what
#: came before has to be there first. The same on a new connection, which they replace by a wider one for each thing
#: that an application asks for right after it has started a run: an end that comes meanwhile ends what waits for the
#: wider one, with nothing.
PAUSE_DELAY_S: Final = 0.1


class ThreadEvents:
    """A reader of one thread, which may not exist yet. It keeps no events: a slow one reads from the log.

    Clients make a thread's id, open its stream, and let their first ``run.start`` create the thread.
    """

    def __init__(
        self,
        store: RunStore,
        bridge: StreamBridge,
        thread_id: str,
        wanted: Subscription,
        *,
        access: Access,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._bridge = bridge
        self._thread_id = thread_id
        self._wanted = wanted
        self._now = now
        self._access = access
        self._existed = False
        self._since = wanted.since or 0
        self._passed = max(0, place(self._since)[0] - 1)
        self._read: set[int] = set()
        self._in_order = self._newest = True

    async def exists(self) -> bool:
        """Return whether the thread exists already; events come once it does.

        Raises:
            NotFound: It is not the client's, or it was deleted: the client has read from it.
        """
        try:
            thread = await self._store.threads.get(self._thread_id, owner=ANY_OWNER, with_values=False)
        except NotFound:
            if self._existed or self._since:
                raise
            return False
        if not self._access.sees(thread):
            raise NotFound("thread", self._thread_id)
        self._existed = True
        return True

    async def batches(self) -> AsyncGenerator[Sequence[WireEvent], None]:
        """Yield events in batches, without end; an empty one comes after silence, or where nothing is wanted.

        Ends when the process closes.

        Raises:
            NotFound: The thread was deleted, or was created by another owner meanwhile.
        """
        opened_at = asyncio.get_running_loop().time()
        with self._bridge.thread_news(self._thread_id) as wake:
            if self._since and (gap := await self._gap()) is not None:
                yield [gap]
            while not self._bridge.dismissed:
                wake.clear()
                run = await self._next()
                # In this order: of a thread that another owner created since the look for runs, none was found.
                if await self.exists() and run is not None:
                    async with aclosing(self._of_run(run, opened_at)) as batches:
                        async for batch in batches:
                            yield batch
                elif not await self._heard(wake):
                    yield ()

    async def _heard(self, wake: asyncio.Event) -> bool:
        try:
            async with asyncio.timeout(self._bridge.heartbeat_s):
                await wake.wait()
        except TimeoutError:
            return False
        return True

    async def _next(self) -> RunRecord | None:
        """Return the run to read next: the first that was not read and is not postponed to later."""
        after = self._passed
        self._in_order = True
        while runs := await self._store.runs.with_events(self._thread_id, after_seq=after, limit=RUNS_PAGE):
            for run in runs:
                if run.seq in self._read:
                    continue
                if not self._postponed(run):
                    self._newest = run is runs[-1]
                    return run
                self._in_order = False
            after = runs[-1].seq
        return None

    async def _of_run(self, run: RunRecord, opened_at: float) -> AsyncGenerator[Sequence[WireEvent], None]:
        events = RunEvents(self._store, run, self._wanted)
        after = await self._resume_at(run)
        with self._bridge.watch(run) as watch:
            async for part in watch.parts(after=after):
                found = [event for event in await events.of(part) if event.seq > self._since]
                pause = next((place for place, event in enumerate(found) if event.pauses), None)
                if pause is not None:
                    if self._newest:
                        if pause:
                            yield found[:pause]
                            found = found[pause:]
                        await self._delay_pause(opened_at)
                    if await self._went_on(run):
                        found = [event for event in found if event.method != QUESTION]
                yield found
        if self._bridge.dismissed:
            return
        if self._in_order:
            self._passed = run.seq
            self._read = {seq for seq in self._read if seq > run.seq}
        else:  # a run before it is postponed
            self._read.add(run.seq)

    async def _delay_pause(self, opened_at: float) -> None:
        """Wait until other connections have what comes before a question or an end."""
        new_for_s = asyncio.get_running_loop().time() - opened_at
        control_s = PAUSE_DELAY_S if self._wanted.only_control else 0.0
        await asyncio.sleep(max(0.0, PAUSE_DELAY_S - new_for_s) + control_s)

    async def _went_on(self, run: RunRecord) -> bool:
        """Return whether a later run of the thread has begun, or will next: what *run* asked is not open any more."""
        later = await self._store.runs.with_events(self._thread_id, after_seq=run.seq, limit=RUNS_PAGE)
        return any(not self._postponed(one) for one in later)

    def _postponed(self, run: RunRecord) -> bool:
        return run.status is RunStatus.PENDING and not run.attempt and run.not_before > max(self._now(), run.created_at)

    async def _gap(self) -> WireEvent | None:
        """Return the word that what followed the client's number was removed, or ``None``."""
        run_seq, number = place(self._since)
        end = await self._store.events.end(run_seq, thread_id=self._thread_id)
        if end is None or end.seq <= number:
            return None
        kept = await self._store.runs.with_events(self._thread_id, after_seq=run_seq - 1, limit=1)
        return None if kept and kept[0].seq == run_seq else gap_event(self._since, position(run_seq, end.seq + 1))

    async def _resume_at(self, run: RunRecord) -> int:
        """Return the number in the run's log after which the client goes on."""
        run_seq, number = place(self._since)
        if run_seq != run.seq:
            return 0
        end = await self._store.events.end(run.seq)
        return number if end is None else min(number, end.seq - 1)
