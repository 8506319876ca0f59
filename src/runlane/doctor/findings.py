"""A finding of the doctor: what it means, and its repair."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from runlane.doctor.opening import OpenLedger
from runlane.store.statements import Transaction

#: Repairs, and returns whether it did: not if the finding does not hold any more.
Fix = Callable[[OpenLedger], Awaitable[bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that must not be.

    Attributes:
        code: The broken rule, such as ``thread.status``.
        subject: What breaks it: names and ids.
        meaning: The problem, and its effect.
        repair: The repair; without a ``fix``, the task of an operator.
    """

    code: str
    subject: Mapping[str, str | int]
    meaning: str
    repair: str
    fix: Fix | None = field(default=None, repr=False)

    @property
    def line(self) -> str:
        """The finding as one line of text."""
        subject = "".join(f" {name}={value}" for name, value in self.subject.items())
        told = "Repair" if self.fix is not None else "To do"
        return " ".join(f"{self.code}{subject}: {self.meaning} {told}: {self.repair}".split())


def by(make: Callable[[], Transaction[bool]]) -> Fix:
    """Return the fix that runs the transaction of *make*."""

    async def fix(ledger: OpenLedger) -> bool:
        return await ledger.database.write(make())

    return fix
