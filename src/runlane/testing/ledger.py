"""The one ledger of a simulation, which notes every commit, and each process's unreliable way to it."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any

from runlane.errors import StoreUnavailable
from runlane.store.drivers.delivery import on_loop
from runlane.store.drivers.memory import MemoryDriver
from runlane.store.migrate import apply_scripts
from runlane.store.statements import T, Transaction
from runlane.store.transactions.rescues import rescue
from runlane.testing.exchange import Exchange
from runlane.testing.faults import Faults
from runlane.testing.history import History
from runlane.testing.virtual_loop import Livelock

#: The instant at which every simulation begins, in microseconds of UTC: 2026-01-01.
EPOCH_US = 1_767_225_600_000_000
#: An operation that takes longer is more than slow.
SLOW_S = 0.1
#: Transactions in one instant after which it is taken for an endless loop.
MAX_AT_ONCE = 10_000

_OWNER = """(SELECT status FROM runs WHERE {run}), (SELECT attempt FROM runs WHERE {run})"""
_TRIGGERS = f"""
CREATE TRIGGER sim_admit AFTER INSERT ON runs BEGIN
    SELECT sim_note('admit', NEW.run_id, NEW.thread_id, NEW.seq);
END;
CREATE TRIGGER sim_move AFTER UPDATE ON runs
    WHEN OLD.status <> NEW.status OR OLD.attempt <> NEW.attempt OR OLD.rescues <> NEW.rescues
      OR OLD.cancel_requested_at IS NOT NEW.cancel_requested_at
      OR (OLD.ended_at IS NOT NULL AND OLD.ended_at IS NOT NEW.ended_at)
BEGIN
    SELECT sim_note('move', NEW.run_id, OLD.status, NEW.status, NEW.attempt, OLD.rescues, NEW.rescues, NEW.worker_id,
                    NEW.end_reason, NEW.cancel_action, NEW.cancel_stopped_at IS NOT NULL,
                    NEW.updated_at, OLD.worker_id);
END;
CREATE TRIGGER sim_enter AFTER INSERT ON workers BEGIN
    SELECT sim_note('beat', NEW.worker_id);
END;
CREATE TRIGGER sim_beat AFTER UPDATE ON workers BEGIN
    SELECT sim_note('beat', NEW.worker_id);
END;
CREATE TRIGGER sim_log AFTER INSERT ON events BEGIN
    SELECT sim_note('log', NEW.run_seq, NEW.first_seq, NEW.last_seq, NEW.frames,
                    {_OWNER.format(run="seq = NEW.run_seq")});
END;
CREATE TRIGGER sim_state AFTER UPDATE ON threads WHEN OLD.state_values IS NOT NEW.state_values BEGIN
    SELECT sim_note('state', NEW.thread_id, NEW.state_values);
END;
CREATE TRIGGER sim_purge AFTER DELETE ON events BEGIN
    SELECT sim_note('purge', OLD.run_seq, OLD.last_seq, (SELECT status FROM runs WHERE seq = OLD.run_seq));
END;
CREATE TRIGGER sim_save AFTER INSERT ON checkpoints BEGIN
    SELECT sim_note('save', NEW.run_id, NEW.checkpoint_id, {_OWNER.format(run="run_id = NEW.run_id")});
END;
CREATE TRIGGER sim_remove AFTER DELETE ON checkpoints BEGIN
    SELECT sim_note('remove', OLD.run_id, OLD.checkpoint_id, {_OWNER.format(run="run_id = OLD.run_id")},
                    (SELECT worker_id FROM runs WHERE run_id = OLD.run_id));
END;
"""
_FACTS = {
    "admit": ("run", "thread", "seq"),
    "move": (
        *("run", "old", "new", "attempt", "old_rescues", "rescues", "worker", "reason", "action"),
        *("stopped", "at_us", "held_by"),
    ),
    "beat": ("worker",),
    "log": ("seq", "first", "last", "frames", "status", "attempt"),
    "save": ("run", "checkpoint", "status", "attempt"),
    "remove": ("run", "checkpoint", "status", "attempt", "worker"),
    "state": ("thread", "values"),
    "purge": ("seq", "last", "status"),
}


class Ledger(MemoryDriver):
    """A ledger in memory on the virtual clock; what was committed is noted in the order of the commits."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.exchange = Exchange()
        self._ahead_us = 0
        super().__init__(clock=self.now_us)
        self._uncommitted: list[tuple[Any, ...]] = []
        self._instant = 0.0
        self._at_once = 0
        self._connection.create_function("sim_note", -1, self._gather)
        apply_scripts(self)
        self.execute_script(_TRIGGERS)

    def now_us(self) -> int:
        return EPOCH_US + int(self.history.clock() * 1_000_000) + self._ahead_us

    def set_clock(self, seconds: float) -> None:
        """Set its clock forward, or back, as whoever keeps the machine's time may."""
        self.history.fault("ledger clock set back" if seconds < 0 else "ledger clock set forward")
        self.history.note("ledger_clock", seconds=round(seconds, 2), at_us=self.now_us())
        self._ahead_us += int(seconds * 1_000_000)

    def apply(self, transaction: Transaction[T], by: str = "") -> T:
        """Run *transaction* atomically, for the process *by*."""
        self._count()
        self._uncommitted.clear()
        result = super().apply(transaction)
        for kind, *values in self._uncommitted:
            if kind == "purge":
                self.history.fault("events removed")
            self.history.note(kind, **dict(zip(_FACTS[kind], values, strict=True)), by=by)
        return result

    def _count(self) -> None:
        """End a simulation that asks the ledger for ever without time passing."""
        now = self.history.clock()
        self._at_once = self._at_once + 1 if now == self._instant else 0
        self._instant = now
        if self._at_once > MAX_AT_ONCE:
            self.history.note("livelock")
            raise Livelock(f"at {now:.3f} s the ledger is asked for ever")

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Return rows, for the checker."""
        cursor = self._connection.execute(sql)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def _gather(self, *values: Any) -> None:
        self._uncommitted.append(values)


@dataclass(frozen=True, slots=True)
class Fate:
    """The fate of one operation: it arrives, or not; its answer arrives, or not; each after a while."""

    before_s: float = 0.0
    arrives: bool = True
    after_s: float = 0.0
    answered: bool = True
    outlives_sender: bool = False


_FAULTS = {"hang": "hung", "before": "failed before commit", "after": "failed after commit", "slow": "slow"}
Settle = Callable[[Any, BaseException | None], None]


class FaultyDriver(MemoryDriver):
    """A process's connection to the ledger: a driver by its contract, with faults.

    An operation that was sent may arrive although its sender has gone. Submissions keep their order.
    """

    def __init__(
        self, ledger: Ledger, faults: Faults, dice: random.Random, *, hang_s: float, process: str = ""
    ) -> None:
        # No database of its own: the ledger is elsewhere.
        self._ledger = ledger
        self._faults = faults
        self._dice = dice
        self._hang_s = hang_s
        self._process = process
        self._queue: deque[tuple[Transaction[Any], Settle]] = deque()
        self._pumping = False
        self.cut_off_until = 0.0
        self.unplugged = False
        self.troubled_until = 0.0

    @property
    def exchange(self) -> Exchange:
        return self._ledger.exchange

    def reachable(self) -> bool:
        """Return whether the ledger can be reached now, slowly or not."""
        return not self.unplugged and asyncio.get_running_loop().time() >= self.cut_off_until

    async def write(self, transaction: Transaction[T]) -> T:
        return await self._ask(transaction, writes=True)

    async def read(self, transaction: Transaction[T]) -> T:
        return await self._ask(transaction, writes=False)

    def submit(
        self,
        make: Callable[[], Transaction[Any]],
        loop: asyncio.AbstractEventLoop | None,
        callback: Any,
        *,
        size: int = 0,
    ) -> None:
        self._queue.append((make(), on_loop(loop, callback)))
        if not self._pumping:
            self._pump()

    async def aclose(self) -> None:
        return

    def apply(self, transaction: Transaction[T]) -> T:
        return self._ledger.apply(transaction, self._process)

    def _pump(self) -> None:
        self._pumping = bool(self._queue)
        if not self._queue:
            return
        transaction, settle = self._queue.popleft()

        def settled(result: Any, error: BaseException | None) -> None:
            settle(result, error)
            self._pump()

        self._send(self._fate(writes=True), transaction, settled)

    async def _ask(self, transaction: Transaction[T], *, writes: bool) -> T:
        if getattr(transaction, "__name__", "") == rescue.__name__:
            self._ledger.history.note("rescuing", process=self._process)
        fate = self._fate(writes=writes)
        if fate == Fate():
            return self.apply(transaction)
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if answer.done():
                return
            if error is None:
                answer.set_result(result)
            else:
                answer.set_exception(error)

        self._send(fate, transaction, settle)
        return await answer

    def _send(self, fate: Fate, transaction: Transaction[Any], settle: Settle) -> None:
        loop, senders = asyncio.get_running_loop(), copy_context()

        def arrive() -> None:
            result, error = None, None
            try:
                if not fate.arrives:
                    raise StoreUnavailable("the connection was lost")
                result = self.apply(transaction)
            except Exception as failure:  # noqa: BLE001 - it belongs to the sender
                error = failure
            if not fate.answered and error is None:
                error = StoreUnavailable("the connection was lost while it committed")
            loop.call_later(fate.after_s, settle, result, error, context=senders)

        loop.call_later(fate.before_s, arrive, context=Context() if fate.outlives_sender else senders)

    def _fate(self, *, writes: bool) -> Fate:
        fate = self._draw(writes=writes)
        if not (fate.arrives and fate.answered) or fate.before_s + fate.after_s > SLOW_S:
            ends_at = asyncio.get_running_loop().time() + fate.before_s + fate.after_s
            self.troubled_until = max(self.troubled_until, ends_at)
        return fate

    def _draw(self, *, writes: bool) -> Fate:
        dice, profile = self._dice, self._faults.profile
        cut_off_s = self.cut_off_until - asyncio.get_running_loop().time()
        if self.unplugged:
            return Fate(arrives=False)
        outlives = dice.random() < 0.5
        if cut_off_s > 0:
            late = dice.random() < 0.4
            self._faults.history.fault("store unreachable")
            return Fate(cut_off_s + dice.random() * 0.1, arrives=late, outlives_sender=outlives)
        draw = dice.random()
        for likelihood, fate in (
            (profile.hangs, "hang"),
            (profile.fails_before, "before"),
            (profile.fails_after if writes else 0.0, "after"),
            (profile.slow, "slow"),
        ):
            if draw < likelihood:
                return self._bad(fate, outlives)
            draw -= likelihood
        return Fate()

    def _bad(self, kind: str, outlives: bool) -> Fate:
        dice = self._dice
        short_s = dice.random() * 0.05
        self._faults.history.fault(f"store {_FAULTS[kind]}")
        if kind == "hang":
            split = dice.random()
            hang_s = dice.random() * self._hang_s
            return Fate(hang_s * split, dice.random() < 0.7, hang_s * (1 - split), outlives_sender=outlives)
        if kind == "before":
            return Fate(short_s, arrives=False)
        if kind == "after":
            return Fate(short_s, answered=False, after_s=dice.random() * 0.05, outlives_sender=outlives)
        return Fate(short_s, after_s=dice.random() * 0.05, outlives_sender=outlives)
