"""An examination: every rule on every page of the ledger, each page on one snapshot, and repairs one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from runlane.agents.registry import Registry
from runlane.doctor import judgements, parts, roles, states, values, vectors
from runlane.doctor.checks import SCANS, Judge, Scan
from runlane.doctor.findings import Finding, by
from runlane.doctor.opening import OpenLedger, is_damaged
from runlane.errors import ConfigurationError, LeaseLost, StoreUnavailable
from runlane.store.migrate import Version, pending
from runlane.store.migrations import Dialect, Index, kind
from runlane.store.statements import Row, Rows, Statement, Transaction
from runlane.store.transactions import doctor as ledger_sql
from runlane.store.transactions.doctor_vectors import look_at_items
from runlane.store.transactions.fleet import fleet

#: Rows of a page: what is read at once, so that neither memory nor a live server feels the examination.
PAGE: Final = 500
#: What is kept of findings; a ledger with more is repaired in several rounds.
MAX_FINDINGS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """The result of an examination. ``complete`` is false if it was not possible, or not useful, to look at all."""

    checked: Mapping[str, int]
    findings: Sequence[Finding]
    complete: bool


async def examine(
    ledger: OpenLedger,
    *,
    graphs: Registry | None = None,
    page_size: int = PAGE,
    max_findings: int = MAX_FINDINGS,
    within_s: float | None = None,
    file: bool = True,
) -> Examination:
    """Look through *ledger*, and change nothing.

    Args:
        graphs: With these the states of threads are read too, which executes their code.
        within_s: After so long it ends with what it has found; ``None``: once it has seen everything.
        file: Read SQLite's whole file for damage first, and stop there if there is any.

    Raises:
        ConfigurationError: A newer version made it, or it is no ledger.
        StoreUnavailable: It cannot be read.
    """
    checked: dict[str, int] = {}
    basic = await _basics(ledger, file=file)
    if basic:  # the rest could not be trusted
        return Examination(checked=checked, findings=basic, complete=False)
    findings: list[Finding] = []
    complete = True
    try:
        async with asyncio.timeout(within_s):
            async for finding in _all(ledger, checked, page_size, graphs):
                findings.append(finding)
                if len(findings) >= max_findings:
                    complete = False
                    break
    except TimeoutError:
        complete = False
    return Examination(checked=checked, findings=findings, complete=complete)


async def repair(ledger: OpenLedger, finding: Finding) -> bool:
    """Repair *finding* in a transaction of its own; ``False`` if it is not so any more, or has no repair.

    Raises:
        LedgerInUse: A server owns the file.
        StoreUnavailable: Nothing was written.
    """
    if finding.fix is None:
        return False
    try:
        return await finding.fix(ledger)
    except LeaseLost:  # the run has moved on
        return False
    except (ValueError, LookupError, TypeError):  # the row cannot be read, which is a finding of its own
        return False


async def _basics(ledger: OpenLedger, *, file: bool) -> list[Finding]:
    """Return what makes every other look useless: a broken file, another schema."""
    return (await _damage(ledger) if file else []) or await other_schema(ledger)


async def _damage(ledger: OpenLedger) -> list[Finding]:
    try:
        said = await ledger.database.read(_rows(ledger_sql.INTEGRITY))
    except StoreUnavailable as error:
        if is_damaged(error):
            return [_broken(str(error.__cause__))]
        raise
    told = [str(next(iter(row.values()))) for row in said]
    if told != ["ok"]:
        return [_broken(text) for text in told]
    foreign = await ledger.database.read(_rows(ledger_sql.FOREIGN_KEYS))
    return [_broken(f"a row of {row['table']} refers to one of {row['parent']} that is not there") for row in foreign]


async def other_schema(ledger: OpenLedger) -> list[Finding]:
    """Return that the schema is not this version's, if it is not.

    Raises:
        ConfigurationError: A newer version made it, or it is no ledger.
    """
    version = await ledger.database.read(_version())
    if not version.revision:
        raise ConfigurationError(
            "The database is no ledger: it has no schema of Runlane. Name another with --database."
        )
    dialect: Dialect = "sqlite" if ledger.sqlite else "postgres"
    if all(kind(revision, dialect) == "contract" for revision in pending(version)):
        return []
    return [
        Finding(
            code="schema.behind",
            subject={"schema": version.revision},
            meaning="The schema is not this version's, so nothing else was checked.",
            repair="it is brought up to date, as `runlane migrate` and `runlane serve` do.",
            fix=_migrate,
        )
    ]


async def _migrate(ledger: OpenLedger) -> bool:
    if ledger.in_use is not None:
        raise ledger.in_use
    return await asyncio.to_thread(ledger.migrate)


def _broken(text: str) -> Finding:
    return Finding(
        code="file.integrity",
        subject={},
        meaning=f"SQLite says that the file is damaged ({text}), so nothing else was checked.",
        repair="restore the file from a backup; without one, save what can be read with `sqlite3 FILE .recover`.",
    )


def _version() -> Transaction[Version]:
    if not (yield ledger_sql.HAS_SCHEMA()):
        return Version()
    [column] = yield ledger_sql.HAS_MIN_READER()
    rows = yield ledger_sql.READABLE_BY() if column["n"] else ledger_sql.APPLIED()
    return Version.of([tuple(row.values()) for row in rows])


def _rows(query: Statement) -> Transaction[Sequence[Row]]:
    return (yield query())


async def _all(
    ledger: OpenLedger, checked: dict[str, int], page_size: int, graphs: Registry | None
) -> AsyncIterator[Finding]:
    for scan in SCANS:
        async for finding in _scan(ledger, scan, checked, page_size):
            yield finding
    for look in (_values, _parts, _vectors):
        async for finding in look(ledger, checked):
            yield finding
    if graphs is not None:
        async for finding in states.unreadable(ledger, graphs, checked):
            yield finding
    for finding in await _of_cluster(ledger):
        yield finding
    dialect: Dialect = "sqlite" if ledger.sqlite else "postgres"
    for index in await ledger.database.read(ledger_sql.missing_indexes(dialect)):
        yield _without_index(index, dialect)


async def _of_cluster(ledger: OpenLedger) -> list[Finding]:
    if ledger.sqlite:
        return []
    stranded = judgements.stranded(await ledger.database.read(fleet()))
    return [*stranded, *roles.judge(await ledger.database.read(roles.row_security()))]


def _without_index(index: Index, dialect: Dialect) -> Finding:
    lacking = "which prevents duplicate rows" if index.unique else "so that reads scan whole tables"
    return Finding(
        code="schema.guard" if index.unique else "schema.index",
        subject={"index": index.name},
        meaning=f"This index is missing, {lacking}.",
        repair="it is made again; writers wait meanwhile.",
        fix=by(partial(ledger_sql.make_index, index, dialect)),
    )


async def _scan(ledger: OpenLedger, scan: Scan, checked: dict[str, int], page_size: int) -> AsyncIterator[Finding]:
    checked[scan.name] = 0
    after: Any = scan.first
    while True:
        count, upto, found = await ledger.database.read(_page(scan, after, page_size))
        if upto is None:
            return
        checked[scan.name] += count
        for judge, rows in found:
            for row in rows:
                finding = judged(judge, row, ledger.exclusive)
                if finding is not None:
                    yield finding
        after = upto


def judged(judge: Judge, row: Row, exclusive: bool) -> Finding | None:
    """Return what *judge* says of a row; a row that it cannot read is a finding too."""
    try:
        return judge(row, exclusive)
    except (ValueError, LookupError, TypeError) as error:
        return Finding(
            code="row.unreadable",
            subject={name: row[name] for name in ("run_id", "thread_id", "cron_id") if name in row},
            meaning=f"Its row cannot be read ({type(error).__name__}: {error}).",
            repair="restore the row from a backup, or correct it.",
        )


def _page(scan: Scan, after: Any, size: int) -> Transaction[tuple[int, Any, list[tuple[Judge, Rows]]]]:
    [window] = yield scan.query(after, size)
    if window["upto"] is None:
        return 0, None, []
    found = yield from scan.page(after, window["upto"])
    return window["n"], window["upto"], [(check.judge, rows) for check, rows in found]


async def _parts(ledger: OpenLedger, checked: dict[str, int]) -> AsyncIterator[Finding]:
    checked["parts of values"], after = 0, ""
    while (looked := await ledger.database.read(parts.look_at_next(after))) is not None:
        checked["parts of values"] += looked.parts
        for finding in parts.judge(looked):
            yield finding
        after = looked.thread_id


async def _values(ledger: OpenLedger, checked: dict[str, int]) -> AsyncIterator[Finding]:
    checked["checkpointed values"] = 0
    loads, after = values.serializer(), ""
    while (looked := await ledger.database.read(values.look_at_next(after, loads))) is not None:
        checked["checkpointed values"] += looked.values
        finding = values.judge(looked)
        if finding is not None:
            yield finding
        after = looked.thread_id


async def _vectors(ledger: OpenLedger, checked: dict[str, int]) -> AsyncIterator[Finding]:
    checked["items with vectors"], after = 0, ("", "", "")
    while (page := await ledger.database.read(look_at_items(after, PAGE))) is not None:
        checked["items with vectors"] += page.items
        for finding in vectors.judge(page):
            yield finding
        if page.stored != page.dims:
            return
        after = page.last
