"""Telling an operator that what attempts write is delayed."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable

log = logging.getLogger("runlane.journal")


class Delays:
    """Logs delays of all journals of a process: once for those that one failure has delayed. From any thread."""

    def __init__(self) -> None:
        # Not the error itself, which keeps its frames.
        self._last: Callable[[], BaseException | None] = lambda: None

    def note(self, run_id: str, error: BaseException) -> None:
        """Log that writes of a run, and of those committed together with it, are delayed by *error*."""
        if self._last() is not error:
            self._last = weakref.ref(error)
            log.warning("journal.delayed run_id=%s why=%s", run_id, error)
