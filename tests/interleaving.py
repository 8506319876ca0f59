"""Two transactions on PostgreSQL, paused between any two of their statements.

The simulation has one writer, so it cannot show what locks and isolation let through. Here each transaction has a
session and a thread of its own; the schedule says which goes on. One that waits for a lock of the other is let wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

import psycopg
from psycopg.rows import dict_row

from ledger_kit import ledger_connection
from runlane.store.statements import Query, Rows, Transaction, run

#: Makes a transaction; it is run several times.
Make = Callable[[], Transaction[Any]]
#: Between two looks at whether a statement waits for a lock.
LOOK_S = 0.002
LIMIT_S = 20.0


class State(Enum):
    """Where a transaction is between two statements."""

    OPEN = "open"
    BLOCKED = "blocked"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a transaction: its result, or the error that rolled it back."""

    result: Any
    error: Exception | None

    @property
    def shown(self) -> str:
        if self.error is not None:
            return type(self.error).__name__
        status = getattr(getattr(self.result, "run", None), "status", None)
        name = type(self.result).__name__
        if status is not None:
            return f"{name} {status}"
        return f"{name} {self.result}" if isinstance(self.result, bool | int) else name


def execute(cursor: psycopg.Cursor[Any], query: Query) -> Rows:
    """Execute *query* as a driver does."""
    text = query.statement.postgres.encode()
    if not text:
        return ()
    if query.params is None:
        cursor.executemany(text, query.many)
        return ()
    cursor.execute(text, query.params)
    return cursor.fetchall() if cursor.description else ()


class Side:
    """One of two transactions, in a session of its own."""

    def __init__(self, url: str) -> None:
        self._connection = ledger_connection(url, row_factory=dict_row)
        self._look = ledger_connection(url, autocommit=True)
        self._threads = ThreadPoolExecutor(max_workers=1)
        self._pending: Future[bool] | None = None
        self.statements = 0

    def begin(self, make: Make) -> None:
        self._transaction = make()
        self._rows: Rows | None = None
        self.outcome: Outcome | None = None
        self.statements = 0

    def step(self) -> State:
        """Execute the next statement, or the commit; or see what became of one that waited for a lock."""
        if self._pending is None:
            self._pending = self._threads.submit(self._one)
        until = time.monotonic() + LIMIT_S
        while not wait([self._pending], LOOK_S).done:
            if self._is_blocked() and not self._pending.done():
                return State.BLOCKED
            assert time.monotonic() < until, "a statement does not end, and waits for no lock"
        over, self._pending = self._pending.result(), None
        return State.OVER if over else State.OPEN

    def finish(self) -> State:
        """Go on until the end, or until a lock is waited for."""
        state = State.OPEN
        while state is State.OPEN:
            state = self.step()
        return state

    def wait(self) -> None:
        """Wait for a lock that the other side has let go by now, and go on until the end."""
        until = time.monotonic() + LIMIT_S
        while self.finish() is State.BLOCKED:
            assert time.monotonic() < until, "a lock is waited for that nobody holds any more"
            time.sleep(LOOK_S)

    def close(self) -> None:
        self._threads.shutdown()
        self._connection.close()
        self._look.close()

    def _one(self) -> bool:
        """Execute one statement; return whether the transaction is over."""
        try:
            query = next(self._transaction) if self._rows is None else self._transaction.send(self._rows)
            while not query.statement.postgres:
                query = self._transaction.send(())
            self._rows = execute(self._connection.cursor(), query)
            self.statements += 1
            return False
        except StopIteration as stop:
            self._connection.commit()
            self.outcome = Outcome(stop.value, None)
        except Exception as error:  # noqa: BLE001 - it is what became of the transaction
            self._connection.rollback()
            self.outcome = Outcome(None, error)
        return True

    def _is_blocked(self) -> bool:
        found = self._look.execute(
            "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s",
            (self._connection.info.backend_pid,),
        ).fetchone()
        return bool(found and found[0])


@contextmanager
def two_sides(url: str) -> Iterator[tuple[Side, Side]]:
    """Give two sides on the ledger at *url*."""
    sides = Side(url), Side(url)
    try:
        yield sides
    finally:
        for side in sides:
            side.close()


def interleaved(sides: tuple[Side, Side], first: Make, second: Make, after: int) -> tuple[Outcome, Outcome]:
    """Pause *first* after so many of its statements, let *second* go on as far as it can, then each to its end."""
    one, other = sides
    one.begin(first)
    other.begin(second)
    over = False
    while one.statements < after and not over:
        over = one.step() is State.OVER
    waits = other.finish() is State.BLOCKED
    if not over:
        one.wait()
    if waits:
        other.wait()
    assert one.outcome is not None
    assert other.outcome is not None
    return one.outcome, other.outcome


def alone(connection: psycopg.Connection[Any], make: Make) -> Outcome:
    """Run a transaction while there is no other."""
    try:
        result = run(make(), lambda query: execute(connection.cursor(), query))
        connection.commit()
    except Exception as error:  # noqa: BLE001 - it is what became of the transaction
        connection.rollback()
        return Outcome(None, error)
    return Outcome(result, None)
