"""The audit: what operators did, and when keys were used."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from runlane.store.retrying import RetryingDriver
from runlane.store.transactions import audit
from runlane.store.transactions.audit import EVERY_ACT, NEWEST_ACT, Act, ActFilter, RecordedAct


class Audit:
    """``store.audit``."""

    def __init__(self, database: RetryingDriver) -> None:
        self._database = database

    async def record(self, act: Act) -> str:
        """Record an act that begins, durably, and return its id."""
        return await self._database.write(lambda: audit.record(act))

    async def complete(self, audit_id: str, status: int, result: Mapping[str, int] | None = None) -> None:
        """Record the status of the answer to an act, and what it came to."""
        await self._database.write(lambda: audit.complete(audit_id, status, result))

    async def list(
        self, *, before: str = NEWEST_ACT, where: ActFilter = EVERY_ACT, limit: int = 100
    ) -> tuple[RecordedAct, ...]:
        """Return acts that match, and whose id is below *before*, the newest first."""
        return await self._database.read(lambda: audit.acts(before, where, limit))

    async def key_used(self, key_id: str) -> None:
        """Record that an API key is in use."""
        await self._database.write(lambda: audit.key_used(key_id))

    async def key_uses(self) -> Mapping[str, datetime]:
        """Return when each API key was used last, to the hour."""
        return await self._database.read(audit.key_uses)

    async def purge(self, *, older_than_s: float, limit: int = 1000) -> int:
        """Delete up to *limit* acts that are older, and return how many."""
        return await self._database.write(lambda: audit.purge_acts(older_than_s, limit))
