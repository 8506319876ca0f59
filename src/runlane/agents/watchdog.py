"""Stops agents once the lease of their process is over, also if the loop that renews it stands still."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from runlane.agents.blocking import own
from runlane.agents.places import describe, polls

log = logging.getLogger("runlane.agents")

#: The control loop has so long to stop the agents itself: it knows why, and others wait for longer (``GRACE_S``).
PATIENCE_S: Final = 0.2
#: How often the lease is looked at: timers do not count for how long the machine was suspended.
LOOK_EVERY_S: Final = 0.5


def uptime() -> float:
    """Return seconds on a clock that nobody sets; on Linux it goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedLease:
    """What a watchdog has to know of the lease of its process.

    Attributes:
        left_s: Returns for how many seconds it lasts; may be called on any thread.
        lapse: Stops all attempts, on the control loop.
    """

    left_s: Callable[[], float]
    lapse: Callable[[], None]


class Watchdog:
    """Watches the lease from a loop of agents, which is of another thread than the control loop.

    Whatever kept the control loop from renewing it, the watchdog's timer is on the loop of what has to stop: after the
    process stood still, it cancels the agents before their next step. To be used on that loop, but for its creation.
    """

    def __init__(self, lease: WatchedLease) -> None:
        self._lease = lease
        self._control = asyncio.get_running_loop()
        self._control_thread = threading.get_ident()
        self._cancels: dict[asyncio.Task[None], Callable[[], None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, task: asyncio.Task[None], cancel: Callable[[], None]) -> None:
        """Call *cancel* if the lease is over before *task*."""
        self._cancels[task] = cancel
        task.add_done_callback(self.forget)
        if self._timer is None:
            self._look()

    def forget(self, task: asyncio.Task[None]) -> None:
        """Leave alone a task that is over or was cancelled."""
        self._cancels.pop(task, None)

    def _look(self) -> None:
        self._timer = None
        if not self._cancels:
            return
        left_s = self._lease.left_s() + PATIENCE_S
        if left_s > 0:
            self._timer = asyncio.get_running_loop().call_later(min(left_s, LOOK_EVERY_S), self._look)
        else:
            self._stop()

    def _stop(self) -> None:
        cancels = tuple(self._cancels.values())
        with suppress(RuntimeError):  # the control loop is closed
            # Before what is cancelled reports it, so that the attempts know why.
            self._control.call_soon_threadsafe(self._lease.lapse)
        for cancel in cancels:
            cancel()
        log.warning(
            "agents.lease_over runs=%d place=%s: the control loop did not renew the lease in time. It was blocked, or "
            "the process stood still; other processes may take the runs.",
            len(cancels),
            self._control_place() or "unknown",
        )

    def _control_place(self) -> str | None:
        """Return where the code is that blocks the control loop, if there is any."""
        frame = sys._current_frames().get(self._control_thread)
        if frame is None or polls(frame) or frame.f_globals.get("__package__") in ("asyncio", "uvloop"):
            return None
        return describe(own(frame))
