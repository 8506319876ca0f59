"""The log records of runs. A row is a segment: records of one attempt that were stored together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from runlane.documents.compression import packed, unpacked
from runlane.records import Lease
from runlane.store.statements import Transaction, statement
from runlane.store.transactions.fence import fenced
from runlane.telemetry.run_log import LogSegment, RunLogRecord

#: Attempts of a run whose logs are kept, the last ones.
KEPT_ATTEMPTS: Final = 10
#: Segments read at once, and the bytes after which a page ends.
_SEGMENTS: Final = 32
_PAGE_BYTES: Final = 1024 * 1024

# Guard: the lease. A segment whose answer was lost is written again, by then perhaps with more records.
PUT_LOG = statement(
    "put_log",
    """INSERT INTO run_logs (run_seq, attempt, first_number, last_number, records)
       VALUES (:run_seq, :attempt, :first_number, :last_number, :records)
       ON CONFLICT (run_seq, attempt, first_number)
         DO UPDATE SET last_number = excluded.last_number, records = excluded.records""",
)
# Guard: the lease.
TRIM_LOG = statement(
    "trim_log",
    """DELETE FROM run_logs WHERE run_seq = :run_seq
         AND (attempt < :first_attempt OR (attempt = :attempt AND last_number < :oldest))""",
)
READ_LOG = statement(
    "read_log",
    """SELECT attempt, first_number, last_number, records FROM run_logs
       WHERE run_seq = :run_seq AND (attempt > :attempt OR (attempt = :attempt AND last_number > :number))
       ORDER BY attempt, first_number LIMIT :limit""",
)
# Guard: the run has ended, and its row is locked.
DELETE_LOG = statement("delete_log", "DELETE FROM run_logs WHERE run_seq = :run_seq")

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[RunLogRecord])


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPlace:
    """The place of a record in the log of a run; the default is before the first one."""

    attempt: int = 0
    number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsPage:
    """Records of a run in order, and whether there are more."""

    records: tuple[RunLogRecord, ...]
    more: bool


def append_log(lease: Lease, segment: LogSegment) -> Transaction[None]:
    """Store *segment* while *lease* holds.

    Raises:
        LeaseLost: Another attempt has the run, or it is terminal; nothing was written.
    """
    yield from fenced(lease, put_log(lease, segment))


def put_log(lease: Lease, segment: LogSegment) -> Transaction[None]:
    """Store *segment* in a transaction that has checked the lease, and delete what is not kept any more."""
    yield PUT_LOG(
        run_seq=lease.seq,
        attempt=lease.attempt,
        first_number=segment.records[0].number,
        last_number=segment.records[-1].number,
        records=packed(_encoder.encode(segment.records)),
    )
    if segment.oldest > 1 or lease.attempt > KEPT_ATTEMPTS:
        first_attempt = lease.attempt - KEPT_ATTEMPTS + 1
        yield TRIM_LOG(run_seq=lease.seq, first_attempt=first_attempt, attempt=lease.attempt, oldest=segment.oldest)


def read_log(run_seq: int, after: LogPlace, limit: int) -> Transaction[RecordsPage]:
    """Return up to *limit* records that follow *after*, or fewer if they are large."""
    records: list[RunLogRecord] = []
    at, size = (after.attempt, after.number), 0
    while True:
        rows = yield READ_LOG(run_seq=run_seq, attempt=at[0], number=at[1], limit=_SEGMENTS)
        for row in rows:
            for record in _decoder.decode(unpacked(row["records"])):
                place = (record.attempt, record.number)
                if place <= at:  # segments overlap if one was written again after its first records were dropped
                    continue
                if len(records) == limit or size > _PAGE_BYTES:
                    return RecordsPage(records=tuple(records), more=True)
                at = place
                size += record.size
                records.append(record)
            at = max(at, (row["attempt"], row["last_number"]))  # a damaged segment may have fewer records
        if len(rows) < _SEGMENTS:
            return RecordsPage(records=tuple(records), more=False)
