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
#: What to do where a connection cannot be made, which may last until somebody changes something.
CHECK_ACCESS: Final = "Check the address, that the server runs and takes writes, and that it lets this role in."
#: What to do where a server takes connections and no writes.
NAME_PRIMARY: Final = (
    "Nothing was written. It takes no writes, as a standby: try again once it does, or name the primary in the address."
)
#: A right of the role was never given, or was taken away.
NO_RIGHTS: Final = errors.InsufficientPrivilege
#: What to do then.
GIVE_RIGHTS: Final = "Nothing was written. Give the role of the address the rights on all tables of the schema."
_REMEDIES: Final = ((READ_ONLY, NAME_PRIMARY), (NO_RIGHTS, GIVE_RIGHTS))

_OUTAGES: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    READ_ONLY,
    NO_RIGHTS,
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

    A right that the role lacks is an outage too: an operator ends it, and what waits goes on then.

    Args:
        cut: The connection was there, and is lost.
    """
    if not isinstance(error, psycopg.Error) or (error.sqlstate or "").startswith(TOO_LARGE):
        return error
    if isinstance(error, _OUTAGES) or is_stale(error):
        contended = isinstance(error, errors.LockNotAvailable | errors.DeadlockDetected)
        kind = RowsLocked if contended else ConnectionCut if cut else StoreUnavailable
        return outage(error, kind=kind)
    return error


def outage(
    error: psycopg.Error, *, kind: type[StoreUnavailable] = StoreUnavailable, remedy: str | None = None
) -> StoreUnavailable:
    """Return *error* as what callers see, with the *remedy*, or else that of a statement that failed so."""
    why = f"PostgreSQL says: {one_line(error)}"
    if remedy is None:
        remedy = next((told for cause, told in _REMEDIES if isinstance(error, cause)), None)
    unavailable = kind(why) if remedy is None else kind(why, remedy=remedy)
    unavailable.__cause__ = error
    return unavailable


@contextmanager
def translated() -> Iterator[None]:
    """Raise an error of PostgreSQL as what callers see."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error) from error


@contextmanager
def connecting() -> Iterator[None]:
    """Raise what prevents a connection as an outage that says what to check."""
    try:
        yield
    except psycopg.OperationalError as error:
        raise outage(error, remedy=CHECK_ACCESS) from error


def one_line(error: Exception) -> str:
    """Return what *error* says: of a statement what the server says first, of a connection everything."""
    said = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    lines = [" ".join(line.split()) for line in (said or str(error)).splitlines() if line.strip()]
    ended = [line if line.endswith((".", ":", ";", "?", "!")) else f"{line}." for line in lines]
    return " ".join(ended).rstrip(".") or type(error).__name__
