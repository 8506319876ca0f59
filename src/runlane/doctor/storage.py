"""How large an examined ledger is: its file, its tables, and the threads that take most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from runlane.doctor.opening import OpenLedger
from runlane.store.statements import Transaction, statement
from runlane.store.transactions.sizes import table_bytes, table_names
from runlane.store.transactions.space import FileSpace, file_space

#: Threads that are named.
LARGEST: Final = 5

_LARGEST: Final = """SELECT thread_id, CAST(sum(bytes) AS bigint) AS bytes FROM (
    SELECT thread_id, length(data) AS bytes FROM parts UNION ALL
    SELECT thread_id, {length}(kwargs) + coalesce({length}(input), 0) + coalesce({length}(result), 0) FROM runs
    UNION ALL
    SELECT runs.thread_id, length(events.frames) FROM events JOIN runs ON runs.seq = events.run_seq UNION ALL
    SELECT thread_id, length(checkpoint) + length(metadata) FROM checkpoints UNION ALL
    SELECT thread_id, length(value) FROM checkpoint_blobs UNION ALL
    SELECT thread_id, length(writes) FROM checkpoint_writes) AS kept
    GROUP BY thread_id ORDER BY bytes DESC, thread_id LIMIT :limit"""
_LARGEST_THREADS: Final = statement(
    "doctor.largest_threads", _LARGEST.format(length="length"), postgres=_LARGEST.format(length="octet_length")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerStorage:
    """What takes how many bytes; ``tables`` with their indexes, ``threads`` without, the largest first."""

    database: FileSpace
    log_bytes: int
    tables: Mapping[str, int]
    threads: Mapping[str, int]


async def measure(ledger: OpenLedger) -> LedgerStorage:
    """Measure *ledger*, which reads all of it.

    Raises:
        StoreUnavailable: It cannot be read.
    """
    read = ledger.database.read
    tables = {name: await read(table_bytes(name)) for name in await read(table_names())}
    return LedgerStorage(
        database=await read(file_space()),
        log_bytes=ledger.log_bytes(),
        tables=dict(sorted(tables.items(), key=lambda item: (-item[1], item[0]))),
        threads=await read(_largest_threads()),
    )


def _largest_threads() -> Transaction[dict[str, int]]:
    rows = yield _LARGEST_THREADS(limit=LARGEST)
    return {row["thread_id"]: row["bytes"] for row in rows}
