"""Telling whoever waits that a run has ended: readers, the lane's next run, and the application's hooks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from runlane.dispatch.base import Dispatch
from runlane.records import Finished, RunRecord
from runlane.streams.bridge import StreamBridge
from runlane.telemetry.emitter import SILENT, Telemetry
from runlane.work import own_task

log = logging.getLogger("runlane.notifier")

#: Hooks that have not ended so long after the last run did are cancelled: they must not keep the process.
HOOKS_GRACE_S: Final = 10.0

Ended = Callable[[RunRecord], Awaitable[None]]


class CompletionNotifier:
    """Tells whoever waits that a run has ended: readers, the lane's next run, and after-finish hooks."""

    def __init__(
        self,
        bridge: StreamBridge,
        dispatch: Dispatch,
        hooks: Sequence[Ended] = (),
        telemetry: Telemetry = SILENT,
    ) -> None:
        self._bridge = bridge
        self._dispatch = dispatch
        self._hooks = tuple(hooks)
        self._telemetry = telemetry
        self._tasks: set[asyncio.Task[None]] = set()

    def announce(self, finished: Finished) -> None:
        """Announce what one ledger operation did: an ended or released run, and the run that may start now."""
        run = finished.run
        if run.status.terminal:
            self._telemetry.run_finished(run)
            self._bridge.close(run, events_end=finished.events_end, result=finished.result)
            for hook in self._hooks:
                task = own_task(_run_hook(hook, run))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        else:
            self._bridge.release(run.run_id, run.attempt)
        if finished.next_run is not None:
            self._dispatch.submit(finished.next_run)

    async def aclose(self) -> None:
        """Wait for the hooks that still run, but not for ever."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=HOOKS_GRACE_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _run_hook(hook: Ended, run: RunRecord) -> None:
    try:
        await hook(run)
    except Exception:  # the application's own code: its defect ends no run
        log.exception("run.hook_failed run_id=%s", run.run_id)
