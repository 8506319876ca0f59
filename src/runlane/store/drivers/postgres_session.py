"""Transactions on one connection to PostgreSQL. Blocks: it belongs to one thread."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Final

import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus

from runlane.errors import RowsLocked, StoreUnavailable
from runlane.store.drivers.delivery import Submission, SubmissionResult
from runlane.store.drivers.postgres_errors import is_stale, one_line, translate
from runlane.store.drivers.postgres_link import Cursor, Link, plain
from runlane.store.drivers.together import together
from runlane.store.statements import Query, Rows, Statement, run, statement

#: How long to wait before a lost commit is asked for again.
ASK_AGAIN_S: Final = 0.2
#: After so many writes a connection takes another row of ``commits``: while somebody holds an old snapshot, as a backup
#: does for hours, every version of a row stays, and each write reads all of them.
WRITES_OF_A_ROW: Final = 1000


def _postgres(name: str, sql: str) -> Statement:
    return statement(name, "", postgres=sql)


# Guard: none; a connection has a row of its own. It locks the row until the transaction ends.
_RECORD: Final = _postgres(
    "commits.record",
    """INSERT INTO commits (connection, last, written_at) VALUES (:connection, :last, {now})
       ON CONFLICT (connection) DO UPDATE SET last = excluded.last, written_at = excluded.written_at""",
)
# Guard: none. It waits for the transaction that has the row, even for one that makes it, and changes nothing.
_ASK: Final = _postgres(
    "commits.ask",
    """INSERT INTO commits (connection, last, written_at) VALUES (:connection, 0, {now})
       ON CONFLICT (connection) DO UPDATE SET written_at = excluded.written_at RETURNING last""",
)
# Guard: none; this connection's own row, which it does not use any more.
_FORGET: Final = _postgres("commits.forget", "DELETE FROM commits WHERE connection = :connection")
# Guard: nothing was written by its connection for a month, so that its process is gone.
_FORGET_OLD: Final = _postgres("commits.forget_old", "DELETE FROM commits WHERE written_at < {now} - 30 * 86400000000")
#: Ends transactions that hold locks while their process does not receive what it asked for: it is frozen, or cut off.
#: The server's own limits do not count while it sends; ``tcp_user_timeout`` does, where there is TCP.
_END_FROZEN: Final = _postgres(
    "end_frozen",
    """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
         AND application_name = current_setting('application_name') AND backend_xid IS NOT NULL
         AND state = 'active' AND wait_event = 'ClientWrite'
         AND query_start < clock_timestamp() - CAST(:send_ms AS FLOAT) * interval '1 ms'""",
)
_BEGIN_WRITE: Final = plain("BEGIN ISOLATION LEVEL READ COMMITTED")
_BEGIN_READ: Final = plain("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
_SAVEPOINT: Final = plain("SAVEPOINT one")
_RELEASE: Final = plain("RELEASE SAVEPOINT one")


class PostgresSession:
    """Runs one transaction after the other."""

    def __init__(self, link: Link, *, closing: threading.Event) -> None:
        """Args:
        closing: Set when nobody waits any longer for the end of an outage.
        """
        self._link = link
        self._closing = closing
        #: What is sent along with the next statement.
        self._before: list[Query] = []
        self._row = secrets.randbits(63)
        self._writes = 0

    @property
    def pooled(self) -> bool:
        """Return whether a pooler gives sessions for one transaction each, as far as a connection was made."""
        return bool(self._link.settings)

    def check(self) -> None:
        """Find out whether the database takes connections, and transactions on them."""
        for query in (_BEGIN_READ, plain("COMMIT")):  # not at once: some poolers say what is wrong, and hang up
            self._link.send(query, prepare=False)

    def read(self, reading: Submission) -> SubmissionResult:
        """Run a read-only transaction on one snapshot; :meth:`end_read` is called once its result is on its way."""
        try:
            self._begin(_BEGIN_READ)
            return SubmissionResult(reading, self._drive(reading), None)
        except Exception as error:  # noqa: BLE001 - it belongs to the waiter
            return SubmissionResult(reading, None, self._failed(error))

    def end_read(self) -> None:
        """End what :meth:`read` has begun."""
        try:
            self._end()
        except psycopg.Error:  # it has its answer; the next one gets another connection
            self._link.discard()

    def commit_group(self, first: Submission, others: Iterable[Submission] = ()) -> list[SubmissionResult]:
        """Run *first*, then each of *others* in its own savepoint, commit all, and return what became of each.

        Each of *others* is asked for once the one before it has run; none of them if *first* fails, as they would have
        to wait for the same lock. A commit whose answer is lost is asked for.
        """
        group, results = [first], []
        try:
            last = self._begin_write()
            results.append(SubmissionResult(first, self._drive(first), None))
            for other in others:
                group.append(other)
                results.append(self._in_savepoint(other))
            self._commit(last)
        except Exception as error:  # noqa: BLE001 - nothing of the group is written; its waiters hear why
            failure = self._failed(error)
            return [SubmissionResult(one, None, failure) for one in group]
        return results

    def commit_together(self, group: Sequence[Submission]) -> list[SubmissionResult]:
        """Run *group* side by side, commit all, and return what became of each.

        They wait for no lock that one of the others has, and may be run again.
        """
        if len(group) == 1:
            return self.commit_group(group[0])
        try:
            last = self._begin_write()
            answers = run(together([submission.transaction for submission in group]), self._execute)
            self._commit(last)
        except Exception as error:  # noqa: BLE001 - nothing of the group is written; its waiters hear why
            about_all = self._link.lost or is_stale(error)
            failure = self._failed(error)
            if about_all:
                return [SubmissionResult(one, None, failure) for one in group]
            return self._one_by_one(group)
        return [SubmissionResult(one, result, error) for one, (result, error) in zip(group, answers, strict=True)]

    def close(self) -> None:
        """Close the connection, and forget what it wrote."""
        try:
            if self._writes and not self._link.closed:
                self._begin(_BEGIN_WRITE)
                self._execute(_FORGET(connection=self._row))
                self._execute(_FORGET_OLD())
                self._end()
        except psycopg.Error:  # whoever closes next does it
            pass
        finally:
            self._link.discard()

    # Transactions

    def _begin(self, begin: Query) -> None:
        self._link.connect()
        self._before = [begin, *self._link.settings]

    def _begin_write(self) -> int:
        """Begin a transaction that writes, and return its number on this connection's row of ``commits``."""
        self._begin(_BEGIN_WRITE)
        self._writes += 1
        if self._writes % WRITES_OF_A_ROW == 0:
            self._before.append(_FORGET(connection=self._row))
            self._row = secrets.randbits(63)
        self._before.append(_RECORD(connection=self._row, last=self._writes))
        return self._writes

    def _drive(self, submission: Submission) -> Any:
        """Run what was submitted inside the transaction that is open, and return its result."""
        transaction = submission.transaction
        try:
            query = submission.first or next(transaction)
            while True:
                try:
                    rows = self._execute(query)
                except BaseException as error:  # noqa: BLE001 - the generator's own clean-up sees the driver's error
                    query = transaction.throw(error)
                else:
                    query = transaction.send(rows)
        except StopIteration as stop:
            return stop.value

    def _in_savepoint(self, submission: Submission) -> SubmissionResult:
        """Run one transaction of a group; an error undoes what it did, and its caller hears it."""
        self._before.append(_SAVEPOINT)
        try:
            answer = SubmissionResult(submission, self._drive(submission), None)
        except Exception as error:
            if self._link.lost or is_stale(error):
                raise
            self._tell("ROLLBACK TO SAVEPOINT one")
            answer = SubmissionResult(submission, None, translate(error))
        self._before.append(_RELEASE)
        return answer

    def _one_by_one(self, group: Sequence[Submission]) -> list[SubmissionResult]:
        """Commit each of *group*, which could not be run together, and return what became of each."""
        results: list[SubmissionResult] = []
        for place, one in enumerate(group):
            assert one.again is not None
            results += self.commit_group(Submission(one.again(), one.loop, one.callback))
            error = results[-1].error
            if isinstance(error, StoreUnavailable) and not isinstance(error, RowsLocked):
                return results + [SubmissionResult(other, None, error) for other in group[place + 1 :]]
        return results

    def _commit(self, last: int) -> None:
        try:
            done = self._end()
        except psycopg.Error as error:
            # The server says when a transaction is over: then it has refused to commit it.
            lost = self._link.status != TransactionStatus.IDLE
            self._undo(error)
            if lost and self._was_committed(last, error):
                return
            raise
        if done != "COMMIT":
            raise RuntimeError(f"PostgreSQL answered COMMIT with {done}: an error inside the transaction was ignored.")

    def _end(self) -> str | None:
        """End the transaction and return what the server says it did."""
        if self._nothing_sent:
            self._before = []
            return "COMMIT"
        return self._tell("COMMIT").statusmessage

    def _failed(self, error: Exception) -> Exception:
        """Undo what is open, and return what callers see."""
        failure = translate(error, cut=self._link.cut)
        self._undo(error)
        return failure

    def _undo(self, error: BaseException) -> None:
        """Roll back what is open; give the connection up if it is of no use any more."""
        self._before = []
        if is_stale(error) or self._link.lost:
            self._link.discard()
        elif self._link.status != TransactionStatus.IDLE:
            try:
                self._tell("ROLLBACK")
                if isinstance(error, errors.LockNotAvailable):
                    self._link.send(_END_FROZEN(send_ms=self._link.times.send_s * 1000))
            except psycopg.Error:
                self._link.discard()

    def _was_committed(self, last: int, lost: psycopg.Error) -> bool:
        """Ask whether the write numbered *last* was committed, for as long as nobody can say."""
        while True:
            try:
                self._begin(_BEGIN_WRITE)
                found = self._execute(_ASK(connection=self._row))
                self._end()
                return bool(found[0]["last"] == last)
            except psycopg.Error as error:
                self._link.discard()
                if not isinstance(translate(error), StoreUnavailable):
                    raise
            if self._closing.wait(ASK_AGAIN_S):
                raise StoreUnavailable(
                    f"PostgreSQL says: {one_line(lost)}. Whether the last write was committed could not be asked"
                ) from lost

    # Statements

    def _execute(self, query: Query) -> Rows:
        if not query.statement.postgres:
            return ()
        begins, fresh = self._nothing_sent, self._link.is_fresh
        before = self._before
        try:
            cursor = self._sent(query)
        except psycopg.Error as error:
            # Nobody has seen anything of this transaction yet.
            if not begins or fresh or not (self._link.closed or is_stale(error)):
                raise
            self._link.discard()
            self._link.connect()
            self._before = before
            cursor = self._sent(query)
        return cursor.fetchall() if query.params is not None and cursor.description else ()

    def _tell(self, sql: str) -> Cursor:
        return self._sent(plain(sql), prepare=False)

    def _sent(self, query: Query, *, prepare: bool | None = None) -> Cursor:
        """Send *query* after what is to be sent before it, and wait for the answer."""
        before, self._before = self._before, []
        return self._link.send(query, after=before, prepare=prepare)

    @property
    def _nothing_sent(self) -> bool:
        return bool(self._before) and self._before[0] in (_BEGIN_READ, _BEGIN_WRITE)
