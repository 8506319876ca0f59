"""Progress of an executing attempt: its usage so far, and the first state of its thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from typing import Final, Generic, TypeVar

from runlane.documents.document import Encoded
from runlane.errors import StoreUnavailable
from runlane.records import Claim, Usage
from runlane.store.ledger import RunStore
from runlane.work import own_task

log = logging.getLogger("runlane.progress")
T = TypeVar("T")

#: A run that ends sooner than this after its first state leaves its own values on the thread, with no write more.
FIRST_VALUES_AFTER_S: Final = 0.1


class NewestValue(Generic[T]):
    """Writes the newest value of something soon, one write at a time: none overtakes another."""

    __slots__ = ("_after_s", "_closed", "_loop", "_name", "_newest", "_run_id", "_task", "_write")

    def __init__(
        self, name: str, run_id: str, write: Callable[[T], Awaitable[object]], *, after_s: float = 0.0
    ) -> None:
        """Write on the running loop.

        Args:
            name: What the log calls the value.
            run_id: The run that it is of.
            write: Writes a value; one that the ledger could not take is followed by the next one, not repeated.
            after_s: How long a write waits for newer values, in seconds.
        """
        self._name = name
        self._run_id = run_id
        self._write = write
        self._after_s = after_s
        self._loop = asyncio.get_running_loop()
        self._newest: tuple[T] | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def put(self, value: T) -> None:
        """Have *value* written, unless a newer one comes first. May be called from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._take, value)
        except RuntimeError:  # the loop is closed: the process is ending
            return

    async def aclose(self) -> None:
        """Write nothing more; the attempt's ending has the final value."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None  # its error refers to this

    def _take(self, value: T) -> None:
        self._newest = (value,)
        if not self._closed and (self._task is None or self._task.done()):
            self._task = own_task(self._write_newest())

    async def _write_newest(self) -> None:
        if self._after_s:
            await asyncio.sleep(self._after_s)
        while self._newest is not None:
            (value,), self._newest = self._newest, None
            try:
                await self._write(value)
            except StoreUnavailable as error:
                log.warning("run.progress_not_written run_id=%s value=%s why=%s", self._run_id, self._name, error)
        self._task = None  # it would keep its context for as long as the run takes


def usage_progress(store: RunStore, claim: Claim) -> NewestValue[Usage]:
    """Return what records how much an attempt has used, together with the attempts before it."""
    lease, before = claim.lease, claim.run.usage

    async def write(used: Usage) -> None:
        await store.runs.set_progress(lease.run_id, asdict(before + used), attempt=lease.attempt)

    return NewestValue("usage", lease.run_id, write)


def first_values(store: RunStore, claim: Claim) -> NewestValue[Encoded]:
    """Return what shows JSON text as the values of a thread, which has none yet, while its run goes on."""
    write = partial(store.threads.show_first_values, claim.lease)
    return NewestValue("first_values", claim.lease.run_id, write, after_s=FIRST_VALUES_AFTER_S)
