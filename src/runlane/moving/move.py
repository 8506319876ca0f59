"""Moving a ledger to another database: copied table by table, compared, then handed over.

Each batch is committed with how far it has come, so a move that was interrupted goes on there. Until the end the
target's version says that it is one, and no server starts on it. All rows of both databases are compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import orjson

from runlane.errors import ConfigurationError, RunlaneError
from runlane.moving.ends import End, Values
from runlane.moving.tables import STATE_TABLE, Table, copied
from runlane.store.migrate import MOVING, pending
from runlane.store.migrations import NEWEST, VERSION_TABLE

#: Rows, and about as many bytes, that one transaction copies.
BATCH_ROWS: Final = 1000
BATCH_BYTES: Final = 8_000_000
#: Rows that are compared between two reports.
REPORT_EVERY: Final = 1000
_SOURCE: Final = "source"
_HASH_BYTES: Final = 16
_MASK: Final = (1 << 8 * _HASH_BYTES) - 1

#: Is told what is done, how much of it, and how much there is.
Progress = Callable[[str, int, int], None]


class MoveIncomplete(RunlaneError):
    """The databases differ after the copy; the target is not used by any server."""

    code = "move_incomplete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What was moved: the rows of each table, and whether an earlier call had begun it."""

    rows: Mapping[str, int]
    resumed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Rows of a table, and the sum of their hashes, whatever their order is."""

    rows: int
    checksum: int


class CopiedUpTo(msgspec.Struct, frozen=True):
    """How far a table is copied: after the row with the key ``after``, so many rows."""

    after: list[Any] | None = None
    rows: int = 0
    complete: bool = False


def move(source: End, target: End, progress: Progress) -> Moved:
    """Copy the ledger *source* to *target*, where there is none, or one that an interrupted move has left. Blocks.

    Raises:
        ConfigurationError: There is nothing to move, a server uses one of them, the versions differ, or the target is
            not empty.
        MoveIncomplete: The source has changed since the move was begun.
    """
    if source.name == target.name:
        raise ConfigurationError(f"{source.name} cannot be moved to itself.")
    with source:
        _check_source(source)
        source.keep_unchanged()
        return _move(source, target, progress)


def _move(source: End, target: End, progress: Progress) -> Moved:
    with target:  # which makes its file, so that what can be refused before has been
        resumed = _begin(source, target)
        tables = copied(source.tables(), target.tables())
        counts = {table.name: source.count(table) for table in tables}
        _copy(source, target, tables, sum(counts.values()), progress)
        _compare(source, target, tables, sum(counts.values()), progress)
        _hand_over(source, target)
        return Moved(rows=counts, resumed=resumed)


def _check_source(source: End) -> None:
    if not source.exists():
        raise ConfigurationError(f"{source.name} has no ledger, so there is nothing to move.")
    version = source.version()
    if version.revision > NEWEST and not version.revision.startswith(MOVING):
        raise ConfigurationError(f"{source.name} has the schema of a newer version, which can move it.")
    if pending(version):
        raise ConfigurationError(
            f"{source.name} has the schema of an earlier version. Back it up, run `runlane migrate --database ...` on "
            "it, and move it then."
        )


def _begin(source: End, target: End) -> bool:
    """Mark *target* as that of a move, and return whether it was already."""
    target.reserve()
    mark = MOVING + NEWEST
    if target.exists() and target.version().revision == mark:
        begun = target.execute(f"SELECT value FROM {STATE_TABLE} WHERE name = {target.mark}", (_SOURCE,))
        if begun != [(source.name,)]:
            raise ConfigurationError(
                f"A move from {begun[0][0]} into {target.name} has begun. Complete it, or move into an empty database."
            )
        return True
    target.make()
    tables = copied(source.tables(), target.tables())
    full = [table.name for table in tables if target.execute(f'SELECT 1 FROM "{table.name}" LIMIT 1')]
    if full:
        raise ConfigurationError(
            f"{target.name} is not empty: it has rows in {', '.join(full)}. Use an empty database."
        )
    with target.transaction():
        target.execute(f"CREATE TABLE {STATE_TABLE} (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
        _remember(target, _SOURCE, source.name)
        target.execute(f"UPDATE {VERSION_TABLE} SET version_num = {target.mark}", (mark,))
    return False


def _copy(source: End, target: End, tables: Sequence[Table], total: int, progress: Progress) -> None:
    done = 0
    for table in tables:
        place = _place(target, table)
        done += place.rows
        progress("Copying", done, total)
        if place.complete:
            continue
        for batch in _batches(source.rows(table, place.after), limited=bool(table.key)):
            key = [batch[-1][table.columns.index(column)] for column in table.key]
            place = CopiedUpTo(key, place.rows + len(batch), not table.key)
            with target.transaction():
                target.insert(table, batch)
                _remember(target, f"table {table.name}", orjson.dumps(msgspec.to_builtins(place)).decode())
            done += len(batch)
            progress("Copying", done, total)


def _place(target: End, table: Table) -> CopiedUpTo:
    rows = target.execute(f"SELECT value FROM {STATE_TABLE} WHERE name = {target.mark}", (f"table {table.name}",))
    return msgspec.json.decode(rows[0][0], type=CopiedUpTo) if rows else CopiedUpTo()


def _remember(target: End, name: str, value: str) -> None:
    mark = target.mark
    target.execute(f"DELETE FROM {STATE_TABLE} WHERE name = {mark}", (name,))
    target.execute(f"INSERT INTO {STATE_TABLE} (name, value) VALUES ({mark}, {mark})", (name, value))


def _batches(rows: Iterable[Values], *, limited: bool) -> Iterator[list[Values]]:
    batch: list[Values] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(len(value) for value in row if isinstance(value, (str, bytes)))
        if limited and (len(batch) >= BATCH_ROWS or size >= BATCH_BYTES):
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def summary(rows: Iterable[Values], report: Callable[[], None] = lambda: None) -> Summary:
    """Return how many *rows* there are, and the sum of their hashes."""
    count = checksum = 0
    for row in rows:
        digest = hashlib.blake2b(msgspec.msgpack.encode(row), digest_size=_HASH_BYTES).digest()
        checksum = (checksum + int.from_bytes(digest)) & _MASK
        count += 1
        if count % REPORT_EVERY == 0:
            report()
    return Summary(rows=count, checksum=checksum)


def _compare(source: End, target: End, tables: Sequence[Table], total: int, progress: Progress) -> None:
    done = 0

    def report() -> None:
        nonlocal done
        done += REPORT_EVERY
        progress("Comparing", min(done, 2 * total), 2 * total)

    different = []
    for table in tables:
        kept = summary(source.rows(table), report)
        with target.transaction():
            arrived = summary(target.rows(table), report)
        if kept != arrived:
            different.append(f"{table.name} ({kept.rows} and {arrived.rows} rows)")
    if different:
        raise MoveIncomplete(
            f"{source.name} and {target.name} differ in {', '.join(different)}: the source has changed since the move "
            "was begun. Delete the target, and move again."
        )
    progress("Comparing", 2 * total, 2 * total)


def _hand_over(source: End, target: End) -> None:
    """Make *target* a ledger that servers use."""
    with target.transaction():
        target.set_counters(source.counters())
        target.derive()
        target.execute(f"DROP TABLE {STATE_TABLE}")
        target.execute(f"UPDATE {VERSION_TABLE} SET version_num = {target.mark}", (NEWEST,))
