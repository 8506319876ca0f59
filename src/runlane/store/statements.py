"""SQL as text with a name, and transactions as generators that do no I/O.

A transaction is a generator: it yields a :class:`Query` and is sent the rows of its answer; what it returns is the
result. A driver of a few lines runs it in one database transaction, so each is written once for all backends.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol, TypeVar

import msgspec

Row = Mapping[str, Any]
Rows = Sequence[Row]
T = TypeVar("T")

_NAMED = re.compile(r"(?<!:):([a-z_][a-z0-9_]*)")
#: The texts in a parameter that is a JSON array, as a subquery: ``{listed :run_ids}``.
_LISTED = re.compile(r"\{listed :([a-z_]+)\}")

#: The columns of the receipt of a run's cancel.
RECEIPT: Final = (
    "cancel_action, cancel_reason, cancel_by, cancel_requested_at, cancel_observed_at, cancel_stopped_at, "
    "cancel_blocked_at, cancel_source"
)

# What is read of each kind of row. Columns are named, since a prepared statement fails once per connection when a newer
# version has added one to what `*` stands for. A run's result can be large, and is asked for by itself.
_RUN = (
    "run_id, thread_id, owner, seq, assistant_id, graph_id, status, end_reason, attempt, rescues, worker_id, "
    "multitask_strategy, on_disconnect, metadata, kwargs, model_name, error, usage, events_end, "
    f"temporary, idempotency_key, {RECEIPT}, not_before, created_at, updated_at, started_at, ended_at, "
    "webhook, start_order, home, input, input_refs"
)
#: Without its values, which can be large: who locks a thread reads no more, since a client that does not receive it
#: would hold the lock.
_THREAD_HEAD = (
    "thread_id, owner, status, settled, metadata, config, interrupts, error, created_at, updated_at, state_updated_at, "
    "state_order, ttl_us, ttl_strategy, temporary"
)
_THREAD = f"{_THREAD_HEAD}, state_values, first_values, state_refs"
_ASSISTANT = (
    "assistant_id, owner, version, graph_id, name, description, config, context, metadata, created_at, updated_at"
)
_CRON = (
    "cron_id, owner, permissions, assistant_id, assistant_owner, thread_id, thread_owner, thread_where, schedule, "
    "timezone, end_at, payload, metadata, on_run_completed, missed, overlap, enabled, next_run_at, last_slot_at, "
    "last_run_id, recent_run_ids, error, revision, created_at, updated_at"
)
_DELIVERY = (
    "run_id, thread_id, owner, metadata, url, host, run, state_values, omitted, status, attempts, tries, next_at, "
    "created_at, ended_at"
)
_PG_NOW = "(extract(epoch from statement_timestamp()) * 1000000)::bigint"
#: Where the two dialects differ: fragment name -> (SQLite, PostgreSQL). Instants are integers, microseconds of UTC;
#: a statement has one, and starts after the locks of the one before it were granted.
_FRAGMENTS = {
    "{now}": (":now", _PG_NOW),
    # Until when a run may be delayed and is due; one that nobody delayed always is, even if the clock was set back.
    "{due}": ("MAX(:now, created_at)", f"GREATEST({_PG_NOW}, created_at)"),
    "{for_update}": ("", "FOR UPDATE"),
    "{for_key_share}": ("", "FOR KEY SHARE"),
    "{key_share_skip_locked}": ("", "FOR KEY SHARE SKIP LOCKED"),
    "{for_no_key_update}": ("", "FOR NO KEY UPDATE"),
    "{skip_locked}": ("", "FOR UPDATE SKIP LOCKED"),
    "{run}": (_RUN, _RUN),
    # Where a row is, for tables without a number: an order to look through all of them, above ``{first_place}``.
    "{place}": ("rowid", "ctid"),
    "{first_place}": ("0", "CAST('(0,0)' AS tid)"),
    "{thread}": (_THREAD, _THREAD),
    "{thread_without_values}": (_THREAD_HEAD, _THREAD_HEAD),
    "{assistant}": (_ASSISTANT, _ASSISTANT),
    "{cron}": (_CRON, _CRON),
    "{delivery}": (_DELIVERY, _DELIVERY),
}


@dataclass(frozen=True, slots=True)
class Statement:
    """Named SQL in both dialects. Calling it binds parameters."""

    name: str
    sqlite: str
    postgres: str
    #: The same for many sets of parameters, each an array, whose answers have the number of their set as ``place``,
    #: from 1; for PostgreSQL.
    together: Statement | None = None
    #: Names of the columns of SQLite's answers, once one had rows.
    columns: list[str] = field(default_factory=list, compare=False, repr=False)

    def __call__(self, **params: Any) -> Query:
        return Query(self, params)

    def many(self, rows: Sequence[Mapping[str, Any]]) -> Query:
        return Query(self, None, rows)

    @property
    def reads(self) -> bool:
        """Return whether it writes nothing."""
        return self.sqlite.startswith("SELECT") or self.postgres.startswith("SELECT")


class Query(msgspec.Struct, frozen=True):
    """A statement with its parameters: one set, or many for which no rows are returned."""

    statement: Statement
    params: dict[str, Any] | None
    many: Sequence[Mapping[str, Any]] = ()


Transaction = Generator[Query, Rows, T]
#: Makes a transaction that is part of another, such as the removal of a thread's checkpoints.
ExtraWrites = Callable[[], Transaction[None]]


def statement(name: str, sql: str, *, postgres: str | None = None, together: str | None = None) -> Statement:
    """Return *sql* as a statement; ``:name`` is a parameter, *postgres* a variant.

    *together* is one of PostgreSQL for many sets of parameters: see :attr:`Statement.together`.

    Fragments, such as ``{now}``, are in ``_FRAGMENTS`` and ``_LISTED``.
    """
    other = sql if postgres is None else postgres
    lite = _LISTED.sub(r"(SELECT value FROM json_each(:\1))", sql)
    other = _LISTED.sub(r"(SELECT json_array_elements_text(CAST(:\1 AS json)))", other)
    for fragment, (in_sqlite, in_postgres) in _FRAGMENTS.items():
        lite, other = lite.replace(fragment, in_sqlite), other.replace(fragment, in_postgres)
    return Statement(name, lite, _NAMED.sub(r"%(\1)s", other.replace("%", "%%")), _together(name, together))


def _together(name: str, sql: str | None) -> Statement | None:
    """Return *sql* as a statement whose parameters are sent as they are: as text, arrays cost many times as much."""
    if sql is None:
        return None
    for fragment, (_, in_postgres) in _FRAGMENTS.items():
        sql = sql.replace(fragment, in_postgres)
    return Statement(name, "", _NAMED.sub(r"%(\1)b", sql.replace("%", "%%")))


def listed(members: Iterable[StrEnum]) -> str:
    """Return *members* as a list in SQL, such as ``('pending', 'running')``."""
    return "(" + ", ".join(f"'{member.value}'" for member in sorted(members)) + ")"


def quoted(member: StrEnum) -> str:
    """Return *member* as a text in SQL, such as ``'pending'``."""
    return f"'{member.value}'"


def contains_in_postgres(column: str) -> str:
    """Return the PostgreSQL condition that JSON in *column* contains that of the parameter of the same name.

    The type jsonb takes no NUL, not even an escaped one, so that one such document would fail every search; here it
    is compared as a replacement character.
    """
    document, wanted = (f"CAST(replace({text}, '\\u0000', '\\ufffd') AS jsonb)" for text in (column, f":{column}"))
    return f"{document} @> {wanted}"


class Driver(Protocol):
    """Runs transactions on one database."""

    async def write(self, transaction: Transaction[T]) -> T:
        """Run *transaction* atomically and durably; when this returns, the result is committed.

        An exception that the generator raises rolls its own effects back, and only those, and is raised here.
        If the caller is cancelled the transaction may still commit.

        Raises:
            StoreUnavailable: Nothing was written.
        """
        ...

    async def read(self, transaction: Transaction[T]) -> T:
        """Run a read-only *transaction* on a consistent snapshot.

        Raises:
            StoreUnavailable: The database cannot be read now.
        """
        ...

    def submit(
        self,
        make: Callable[[], Transaction[Any]],
        loop: asyncio.AbstractEventLoop | None,
        callback: Callable[[Any, BaseException | None], None],
        *,
        size: int = 0,
    ) -> None:
        """Queue what *make* returns, from any thread; *callback(result, error)* runs on *loop* afterwards.

        *make* is called again if the transaction has to be run once more, since others failed beside it. Without a
        *loop* the callback runs at once on the thread that knows the answer, the driver's or the caller's: it must be
        quick. Submissions are committed and answered in the order in which they were queued; a write may overtake them.

        Args:
            size: About how many bytes it writes, for those that are much: not too many are committed together.

        Raises:
            StoreUnavailable: The driver is closed.
        """
        ...

    async def aclose(self) -> None:
        """Finish what was accepted and close; a second call does nothing."""
        ...


def run(transaction: Transaction[T], execute: Callable[[Query], Rows]) -> T:
    """Drive *transaction* with a blocking *execute*."""
    try:
        query = next(transaction)
        while True:
            try:
                rows = execute(query)
            except BaseException as error:  # noqa: BLE001 - the generator's own clean-up sees the driver's error
                query = transaction.throw(error)
            else:
                query = transaction.send(rows)
    except StopIteration as stop:
        result: T = stop.value
        return result
