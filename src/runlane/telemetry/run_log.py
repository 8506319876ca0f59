"""The log of an attempt at a run: its newest records, which wait here until the ledger has them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec

from runlane.redaction import redact_text, shortened
from runlane.storable import storable

#: Characters of the text of a record, and of its traceback; what is longer loses its middle.
MAX_TEXT: Final = 4096
MAX_EXCEPTION: Final = 16 * 1024
#: What a record counts beside its texts, so that many short ones are bounded too.
_RECORD_BYTES: Final = 128


def _nothing() -> None:
    pass


class RunLogRecord(msgspec.Struct, frozen=True, array_like=True):
    """A record that the code of a run logged, without secrets.

    Attributes:
        number: From 1 in each attempt. Numbers that are missing are of records that were not kept.
        level: ``debug``, ``info``, ``warning``, ``error``, ``critical``, or what a library calls its own level.
        exception: The traceback, if there is one.
    """

    attempt: int
    number: int
    at_us: int
    level: str
    logger: str
    text: str
    exception: str | None = None

    @property
    def at(self) -> datetime:
        return datetime.fromtimestamp(self.at_us / 1e6, UTC)

    @property
    def size(self) -> int:
        """Bytes that it counts, as nearly as its characters tell."""
        return _RECORD_BYTES + len(self.logger) + len(self.text) + len(self.exception or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSegment:
    """Records of one attempt, in order and at least one, to be stored; those before number *oldest* are not kept."""

    records: tuple[RunLogRecord, ...]
    oldest: int


class RunLog:
    """The newest records of one attempt. Any thread may add one.

    Records are given to the ledger by :meth:`unwritten`, the same ones until :meth:`written` says that it has them.
    """

    __slots__ = ("_attempt", "_bytes", "_last", "_lock", "_max_bytes", "_on_unwritten", "_redact", "_sizes", "_waiting")

    def __init__(self, attempt: int, max_bytes: int, on_unwritten: Callable[[], None]) -> None:
        """Begin.

        Args:
            max_bytes: How much of an attempt is kept, the newest records.
            on_unwritten: Called, on the thread that logs, once there is something to be written.
        """
        self._attempt = attempt
        self._max_bytes = max_bytes
        self._on_unwritten = on_unwritten
        self._redact: Callable[[str], str] = redact_text
        self._lock = threading.Lock()
        self._last = 0
        self._sizes: deque[int] = deque()  # of the records that are kept, those that the ledger has included
        self._bytes = 0
        self._waiting: deque[RunLogRecord] = deque()

    def redact_with(self, redact: Callable[[str], str]) -> None:
        """Redact texts by *redact* from now on: the secrets of the run are known."""
        self._redact = redact

    def add(self, *, at_s: float, level: str, logger: str, text: str, exception: str | None) -> None:
        """Add a record, in the place of the oldest ones if there is no room for it."""
        text = self._kept(text, MAX_TEXT)
        exception = None if exception is None else self._kept(exception, MAX_EXCEPTION)
        logger = storable(logger[:MAX_TEXT])
        with self._lock:
            if not self._max_bytes:
                return
            self._last += 1
            record = RunLogRecord(self._attempt, self._last, int(at_s * 1e6), level, logger, text, exception)
            is_first = not self._waiting
            self._waiting.append(record)
            self._sizes.append(record.size)
            self._bytes += record.size
            while self._bytes > self._max_bytes and len(self._sizes) > 1:
                self._bytes -= self._sizes.popleft()
            self._forget(self._oldest)
        if is_first:
            self._on_unwritten()

    def unwritten(self) -> LogSegment | None:
        """Return what the ledger does not have yet; ``None`` if that is nothing."""
        with self._lock:
            if not self._waiting:
                return None
            return LogSegment(records=tuple(self._waiting), oldest=self._oldest)

    def written(self, segment: LogSegment) -> bool:
        """Note that the ledger has *segment*, or will never take it; return whether there is more to write."""
        with self._lock:
            self._forget(segment.records[-1].number + 1)
            return bool(self._waiting)

    def close(self) -> None:
        """Take nothing more, and let go of what is here and of who wrote it."""
        with self._lock:
            self._max_bytes = 0
            self._on_unwritten = _nothing
            self._waiting.clear()

    @property
    def _oldest(self) -> int:
        return self._last - len(self._sizes) + 1

    def _forget(self, before: int) -> None:
        while self._waiting and self._waiting[0].number < before:
            self._waiting.popleft()

    def _kept(self, text: str, limit: int) -> str:
        return storable(shortened(self._redact(text), limit))
