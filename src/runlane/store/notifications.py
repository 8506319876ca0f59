"""Notifications between processes that share a ledger: hints of what has changed in it, never facts.

They may be lost, late or repeated: whoever hears of a change reads the ledger, which is also read without any.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Final

import msgspec

#: Notifications of one process are at least so far apart. The first one after a pause is sent at once.
GATHER_S: Final = 0.005
#: PostgreSQL refuses a payload of 8000 bytes. Source: PostgreSQL, NOTIFY.
MAX_PAYLOAD_BYTES: Final = 7900
#: What a payload has beside its values.
_FRAME_BYTES: Final = 64
#: Changes that wait to be sent; instead of more, others are told that there were more.
MAX_WAITING: Final = 10_000


class Changes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What has changed in the ledger.

    Attributes:
        runs: Numbers of runs that have new events, or have ended.
        threads: Ids of threads of which a run was admitted, has started or has ended, or whose state was written.
        cancels: Ids of runs that execute and are to stop.
        read: Numbers of runs that somebody reads in the process that tells.
        missed: Whether something else has changed that nobody was told of: whatever is watched is to be read.
    """

    runs: tuple[int, ...] = ()
    threads: tuple[str, ...] = ()
    cancels: tuple[str, ...] = ()
    read: tuple[int, ...] = ()
    missed: bool = False


_decoder = msgspec.json.Decoder(Changes)


class Notifications:
    """What other processes are to be told of, gathered until it is sent. Used on the control loop only.

    Nothing is gathered while there is nobody who sends it. Once somebody does so again, others are told that they have
    missed something: also what was taken may not have been sent.
    """

    def __init__(self) -> None:
        self._due: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._taken_at = float("-inf")
        self._runs: dict[int, None] = {}
        self._threads: dict[str, None] = {}
        self._cancels: dict[str, None] = {}
        self._read: dict[int, None] = {}
        self._missed = False

    @contextmanager
    def sent_when(self, due: Callable[[], None]) -> Iterator[None]:
        """Gather changes and call *due* when there are some to :meth:`take`, until the block is left."""
        self._due = due
        if self._missed:
            self._arrange()
        try:
            yield
        finally:
            self._due = None
            self._forget()

    def run_changed(self, run_seq: int) -> None:
        """Tell that a run has new events or has ended."""
        if self._due is not None:
            self._runs[run_seq] = None
            self._arrange()

    def thread_changed(self, thread_id: str) -> None:
        """Tell that there is news of a thread."""
        if self._due is not None:
            self._threads[thread_id] = None
            self._arrange()

    def cancel_recorded(self, run_id: str) -> None:
        """Tell that a run that executes is to stop."""
        if self._due is not None:
            self._cancels[run_id] = None
            self._arrange()

    def run_read(self, run_seq: int) -> None:
        """Tell that somebody reads a run here."""
        if self._due is not None:
            self._read[run_seq] = None
            self._arrange()

    def take(self) -> list[bytes]:
        """Return the payloads of what was gathered, which is forgotten with that."""
        if not self._waiting:
            return []
        self._taken_at = asyncio.get_running_loop().time()
        found = list(_payloads(cancels=self._cancels, runs=self._runs, threads=self._threads, read=self._read))
        if self._missed:
            found.append(msgspec.json.encode({"missed": True}))
        self._clear()
        return found

    @property
    def _waiting(self) -> int:
        return len(self._runs) + len(self._threads) + len(self._cancels) + len(self._read) + self._missed

    def _arrange(self) -> None:
        if self._waiting > MAX_WAITING:
            self._forget()
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time(), self._taken_at + GATHER_S), self._is_due)

    def _is_due(self) -> None:
        self._timer = None
        if self._due is not None:
            self._due()

    def _forget(self) -> None:
        """Forget what waits, but for that there was something."""
        self._clear()
        self._missed = True

    def _clear(self) -> None:
        self._missed = False
        self._runs.clear()
        self._threads.clear()
        self._cancels.clear()
        self._read.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def changes_in(payload: bytes) -> Changes:
    """Return what *payload* tells of; nothing if it is not one of this version's."""
    try:
        return _decoder.decode(payload)
    except msgspec.DecodeError:
        return Changes()


def channel_of(schema: str) -> str:
    """Return the channel of the ledger in *schema*: channels are those of a whole database, and have short names."""
    return f"runlane-{hashlib.sha256(schema.encode()).hexdigest()[:16]}"


def _payloads(
    *, cancels: Iterable[str], runs: Iterable[int], threads: Iterable[str], read: Iterable[int]
) -> Iterator[bytes]:
    """Yield *cancels* first, in as few payloads as they fit in; an id that fits in none is left out."""
    told: Iterable[tuple[str, int | str]] = chain(
        (("cancels", run_id) for run_id in cancels),
        (("runs", run_seq) for run_seq in runs),
        (("threads", thread_id) for thread_id in threads),
        (("read", run_seq) for run_seq in read),
    )
    waiting: dict[str, list[int | str]] = {}
    left = room = MAX_PAYLOAD_BYTES - _FRAME_BYTES
    for kind, value in told:
        size = len(msgspec.json.encode(value)) + 1
        if size > room:
            continue
        if size > left:
            yield msgspec.json.encode(waiting)
            waiting, left = {}, room
        waiting.setdefault(kind, []).append(value)
        left -= size
    if waiting:
        yield msgspec.json.encode(waiting)
