"""An examination of one thread: the rules on its row, its newest runs, its checkpoints, its values and their parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from runlane.doctor import parts, values
from runlane.doctor.checks import SCANS, Judge, Scan
from runlane.doctor.examination import judged
from runlane.doctor.findings import Finding
from runlane.doctor.opening import OpenLedger
from runlane.store.statements import Row, Rows, Transaction, statement

#: Runs that are examined, the newest ones; all that are active are among the newest of a usual thread.
RUNS: Final = 20
_NEWEST: Final = statement(
    "doctor.newest_runs", "SELECT seq, run_id FROM runs WHERE thread_id = :thread_id ORDER BY seq DESC LIMIT :limit"
)
#: Scans by what their keys are.
_OF_THREADS: Final = ("threads", "checkpointed threads")
_OF_NUMBERS: Final = ("runs", "event logs")
_OF_RUNS: Final = ("webhook deliveries", "attempted deliveries")


async def examine_thread(ledger: OpenLedger, thread_id: str) -> tuple[Finding, ...]:
    """Return what is wrong with a thread and its newest runs; its graph is not asked whether it can read the state.

    Raises:
        StoreUnavailable: It cannot be read.
    """
    broken = await ledger.database.read(_broken(thread_id))
    findings = [finding for judge, row in broken if (finding := judged(judge, row, ledger.exclusive)) is not None]
    looked = await ledger.database.read(values.look_at(thread_id, values.serializer()))
    if (finding := values.judge(looked)) is not None:
        findings.append(finding)
    findings.extend(parts.judge(await ledger.database.read(parts.look_at(thread_id))))
    return tuple(findings)


def _broken(thread_id: str) -> Transaction[Sequence[tuple[Judge, Row]]]:
    """Return the rows of a thread that break a rule, with what judges them."""
    runs = yield _NEWEST(thread_id=thread_id, limit=RUNS)
    found: list[tuple[Judge, Row]] = []
    for scan in SCANS:
        for key in _keys(scan, thread_id, runs):
            for check, rows in (yield from scan.page(_before(key), key)):
                found += [(check.judge, row) for row in rows if _is_of(row, thread_id, runs)]
    return found


def _keys(scan: Scan, thread_id: str, runs: Rows) -> Iterator[str | int]:
    """Yield the keys of a scan's rows that are the thread's."""
    if scan.name in _OF_THREADS:
        yield thread_id
    elif scan.name in _OF_NUMBERS:
        yield from (row["seq"] for row in runs)
    elif scan.name in _OF_RUNS:
        yield from (row["run_id"] for row in runs)


def _before(key: str | int) -> str | int:
    """Return a key that sorts before *key*, with few others or none between them."""
    return key - 1 if isinstance(key, int) else key[:-1]


def _is_of(row: Row, thread_id: str, runs: Rows) -> bool:
    if "thread_id" in row:
        return bool(row["thread_id"] == thread_id)
    return "run_id" not in row or any(row["run_id"] == run["run_id"] for run in runs)
