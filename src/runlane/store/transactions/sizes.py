"""How large the database, its tables and a thread are, in bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from runlane.store.statements import Row, Transaction, statement

# Only where SQLite was built with the virtual table dbstat, as nearly every distribution does.
_TABLES: Final = statement(
    "sizes.tables",
    r"""SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\'
        AND EXISTS (SELECT 1 FROM pragma_module_list WHERE name = 'dbstat') ORDER BY name""",
    postgres="SELECT tablename AS name FROM pg_tables WHERE schemaname = current_schema() ORDER BY name",
)
# SQLite reads the header of each page of the table, PostgreSQL asks for the sizes of files.
_TABLE: Final = statement(
    "sizes.table",
    """SELECT coalesce(sum(pgsize), 0) AS bytes FROM dbstat
       WHERE aggregate = TRUE AND name IN (SELECT name FROM sqlite_schema WHERE tbl_name = :name)""",
    postgres="SELECT coalesce(pg_total_relation_size(to_regclass(quote_ident(:name))), 0) AS bytes",
)
# The texts are made bytes, as their length in characters may be a quarter of that.
_RUNS: Final = statement(
    "sizes.runs",
    """SELECT count(*) AS n, coalesce(sum(length(CAST(kwargs AS BLOB)) + length(CAST(metadata AS BLOB))
         + coalesce(length(CAST(result AS BLOB)), 0) + coalesce(length(result_refs), 0)
         + coalesce(length(CAST(input AS BLOB)), 0) + coalesce(length(input_refs), 0)), 0) AS bytes
       FROM runs WHERE thread_id = :thread_id""",
    postgres="""SELECT count(*) AS n, coalesce(sum(octet_length(kwargs) + octet_length(metadata)
         + coalesce(octet_length(result), 0) + coalesce(length(result_refs), 0)
         + coalesce(octet_length(input), 0) + coalesce(length(input_refs), 0)), 0)::bigint AS bytes
       FROM runs WHERE thread_id = :thread_id""",
)
_EVENTS: Final = statement(
    "sizes.events",
    """SELECT count(*) AS n, CAST(coalesce(sum(length(frames) + coalesce(length(refs), 0)), 0) AS bigint) AS bytes
       FROM events WHERE run_seq IN (SELECT seq FROM runs WHERE thread_id = :thread_id)""",
)
_LOGS: Final = statement(
    "sizes.logs",
    """SELECT count(*) AS n, CAST(coalesce(sum(length(records)), 0) AS bigint) AS bytes
       FROM run_logs WHERE run_seq IN (SELECT seq FROM runs WHERE thread_id = :thread_id)""",
)
_PARTS: Final = statement(
    "sizes.parts",
    """SELECT count(*) AS n, CAST(coalesce(sum(length(data)), 0) AS bigint) AS bytes
       FROM parts WHERE thread_id = :thread_id""",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Rows, and the bytes of the values in them."""

    count: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSize:
    """The size of a thread in the ledger, without its checkpoints: its runs with their results, events and logs.

    ``parts`` are shared by these and the checkpoints: what is large is in them, once.
    """

    runs: Size
    events: Size
    logs: Size
    parts: Size


def table_names() -> Transaction[tuple[str, ...]]:
    """Return the tables that can be measured."""
    rows = yield _TABLES()
    return tuple(row["name"] for row in rows)


def table_bytes(name: str) -> Transaction[int]:
    """Return what a table takes with its indexes; 0 if it is gone. In SQLite this looks at each of its pages."""
    [row] = yield _TABLE(name=name)
    found: int = row["bytes"]
    return found


def thread_size(thread_id: str) -> Transaction[LedgerSize]:
    """Measure a thread; this looks at each of its rows."""
    runs = yield _RUNS(thread_id=thread_id)
    events = yield _EVENTS(thread_id=thread_id)
    logs = yield _LOGS(thread_id=thread_id)
    parts = yield _PARTS(thread_id=thread_id)
    return LedgerSize(runs=size_of(runs[0]), events=size_of(events[0]), logs=size_of(logs[0]), parts=size_of(parts[0]))


def total(sizes: Iterable[Size]) -> Size:
    """Return the sum of *sizes*."""
    found = tuple(sizes)
    return Size(count=sum(size.count for size in found), bytes=sum(size.bytes for size in found))


def size_of(row: Row) -> Size:
    return Size(count=row["n"], bytes=row["bytes"])
