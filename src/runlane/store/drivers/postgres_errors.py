"""What PostgreSQL's errors mean to callers, and to the connection on which they happened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg import errors

from runlane.errors import ConnectionCut, RowsLocked, StoreUnavailable

#: The class of what PostgreSQL will never take; psycopg counts it among what passes. Source: PostgreSQL, appendix A.
TOO_LARGE: Final = "54"
#: Another server has taken this one's place, or its operator lets nobody write.
READ_ONLY: Final = errors.ReadOnlySqlTransaction
#: What a prepared statement becomes when somebody changes a table, or a pooler gives it to another session.
LOST_STATEMENTS: Final = (errors.InvalidSqlStatementName, errors.DuplicatePreparedStatement)
#: Where the server says that a statement has to be prepared again: it has no code of its own.
#: Source: PostgreSQL, ``RevalidateCachedQuery`` in ``plancache.c``.
CHANGED_PLAN: Final = "RevalidateCachedQuery"

_OUTAGES: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    READ_ONLY,
    errors.TransactionTimeout,
    errors.IdleInTransactionSessionTimeout,
)


def is_stale(error: BaseException) -> bool:
    """Return whether a connection is of no use any more, although it is open."""
    if isinstance(error, errors.FeatureNotSupported):
        return error.diag.source_function == CHANGED_PLAN
    return isinstance(error, (READ_ONLY, *LOST_STATEMENTS))


def translate(error: Exception, *, cut: bool = False) -> Exception:
    """Return what callers see: contention, or an outage such as a lost connection or a full server; or a defect.

    Args:
        cut: The connection was there, and is lost.
    """
    if isinstance(error, psycopg.Error) and (error.sqlstate or "").startswith(TOO_LARGE):
        return error
    if isinstance(error, _OUTAGES) or is_stale(error):
        contended = isinstance(error, errors.LockNotAvailable | errors.DeadlockDetected)
        kind = RowsLocked if contended else ConnectionCut if cut else StoreUnavailable
        unavailable = kind(f"PostgreSQL says: {first_line(error)}")
        unavailable.__cause__ = error
        return unavailable
    return error


@contextmanager
def translated() -> Iterator[None]:
    """Raise an error of PostgreSQL as what callers see."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error) from error


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
