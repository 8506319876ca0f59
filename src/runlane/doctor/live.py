"""The doctor of a running server: an examination now and then, in the background, and repairs of what it found."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Literal

import orjson

from runlane.doctor.examination import Examination, examine, repair
from runlane.doctor.findings import Finding
from runlane.doctor.of_thread import examine_thread
from runlane.doctor.opening import Database, OpenLedger
from runlane.errors import RunlaneError
from runlane.store.ledger import RunStore
from runlane.store.statements import T, Transaction

log = logging.getLogger("runlane.doctor")

#: An examination that is younger is not made again.
FRESH_S: Final = 900.0
#: How long one may take; what it has not seen by then is for `runlane doctor`.
WITHIN_S: Final = 120.0
MAX_FINDINGS: Final = 1_000

#: What became of a finding that was to be repaired: ``gone`` is not so any more, ``by_hand`` is an operator's task, and
#: ``unknown`` was not found by the last examination.
Outcome = Literal["would_repair", "repaired", "gone", "by_hand", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownFinding:
    """A finding over HTTP. *id* is the same for the same rule and subject.

    Attributes:
        subject: Ids and numbers; keys of stored items, which are their owner's, are left out.
        repair: What a repair would do; if it is not *repairable*, what to do.
    """

    id: str
    code: str
    subject: dict[str, str | int]
    meaning: str
    repair: str
    repairable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """The result of an examination that began at *as_of*; ``complete`` is false if it did not see everything."""

    as_of: datetime
    complete: bool
    checked: dict[str, int]
    findings: tuple[ShownFinding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """What became of a finding that was to be repaired, or what would."""

    id: str
    code: str | None
    subject: dict[str, str | int]
    meaning: str | None
    repair: str | None
    outcome: Outcome


class LiveDoctor:
    """Examines the ledger that a server uses, beside its requests.

    Attributes:
        latest: The last result; ``None`` before the first one.
    """

    def __init__(self, store: RunStore, *, sqlite: bool, within_s: float = WITHIN_S) -> None:
        self.latest: Examined | None = None
        self._ledger = OpenLedger(
            database=_Considerate(store.driver),
            sqlite=sqlite,
            exclusive=False,  # runs execute meanwhile
            in_use=None,
            migrate=lambda: False,
            log_bytes=store.sizes.log_bytes,
        )
        self._within_s = within_s
        self._findings: dict[str, Finding] = {}
        self._examining: asyncio.Task[None] | None = None

    async def __aenter__(self) -> LiveDoctor:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._examining is not None:
            self._examining.cancel()
            await asyncio.wait((self._examining,))

    @property
    def examining(self) -> bool:
        """Return whether an examination goes on."""
        return self._examining is not None and not self._examining.done()

    def look(self, *, again: bool = False) -> None:
        """Begin an examination, unless one goes on, or, without *again*, the last one is young enough."""
        fresh = self.latest is not None and (datetime.now(UTC) - self.latest.as_of).total_seconds() < FRESH_S
        if not self.examining and (again or not fresh):
            self._examining = asyncio.get_running_loop().create_task(self._examine())

    async def settled(self) -> None:
        """Wait for the examination that goes on, if one does."""
        if self._examining is not None:
            await asyncio.wait((self._examining,))

    async def repair(self, ids: Sequence[str], *, preview: bool) -> tuple[Repaired, ...]:
        """Repair the findings of the last examination with these ids, or say what that would do.

        Raises:
            StoreUnavailable: Those before were repaired.
        """
        found = {one: self._findings[one] for one in ids if one in self._findings}
        repaired = await self._repair(found, preview=preview)
        over = {one.id for one in repaired if one.outcome in ("repaired", "gone")}
        self._findings = {name: finding for name, finding in self._findings.items() if name not in over}
        if self.latest is not None:
            left = tuple(finding for finding in self.latest.findings if finding.id not in over)
            self.latest = replace(self.latest, findings=left)
        unknown = [
            Repaired(id=one, code=None, subject={}, meaning=None, repair=None, outcome="unknown")
            for one in ids
            if one not in found
        ]
        return (*repaired, *unknown)

    async def repair_thread(self, thread_id: str, *, preview: bool) -> tuple[Repaired, ...]:
        """Examine one thread, and repair what can be, or say what that would do."""
        findings = await examine_thread(self._ledger, thread_id)
        return await self._repair({_id(finding): finding for finding in findings}, preview=preview)

    async def _repair(self, findings: Mapping[str, Finding], *, preview: bool) -> tuple[Repaired, ...]:
        return tuple([await self._repair_one(name, finding, preview=preview) for name, finding in findings.items()])

    async def _repair_one(self, name: str, finding: Finding, *, preview: bool) -> Repaired:
        outcome: Outcome = "by_hand"
        if finding.fix is not None:
            outcome = "would_repair" if preview else "repaired" if await repair(self._ledger, finding) else "gone"
        shown = _shown(name, finding)
        return Repaired(
            id=name,
            code=shown.code,
            subject=shown.subject,
            meaning=shown.meaning,
            repair=shown.repair,
            outcome=outcome,
        )

    async def _examine(self) -> None:
        began = datetime.now(UTC)
        try:
            found = await examine(self._ledger, max_findings=MAX_FINDINGS, within_s=self._within_s, file=False)
        except RunlaneError as error:
            log.warning("doctor.failed why=%s", error)
            return
        except Exception:  # supervisor: nobody awaits this task; the last result stays
            log.exception("doctor.failed")
            return
        self._keep(found, began)
        log.info("doctor.examined findings=%d complete=%s", len(found.findings), found.complete)

    def _keep(self, found: Examination, began: datetime) -> None:
        self._findings = {_id(finding): finding for finding in found.findings}
        self.latest = Examined(
            as_of=began,
            complete=found.complete,
            checked=dict(found.checked),
            findings=tuple(_shown(name, finding) for name, finding in self._findings.items()),
        )


class _Considerate:
    """A server's database, of which an examination takes half of the time at most."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, transaction: Transaction[T]) -> T:
        clock = asyncio.get_running_loop().time
        began = clock()
        found = await self._database.read(transaction)
        await asyncio.sleep(clock() - began)
        return found

    async def write(self, transaction: Transaction[T]) -> T:
        return await self._database.write(transaction)

    async def aclose(self) -> None:
        """It is the server's."""


def _id(finding: Finding) -> str:
    return hashlib.sha256(orjson.dumps([finding.code, sorted(finding.subject.items())])).hexdigest()[:16]


def _shown(name: str, finding: Finding) -> ShownFinding:
    unreadable = finding.code == "row.unreadable"  # whose text may quote the row
    return ShownFinding(
        id=name,
        code=finding.code,
        subject={key: value for key, value in finding.subject.items() if key not in ("namespace", "key")},
        meaning="Its row cannot be read; `runlane doctor` says why." if unreadable else finding.meaning,
        repair=finding.repair,
        repairable=finding.fix is not None,
    )
