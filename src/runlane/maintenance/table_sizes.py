"""How large each table is, measured now and then, since it takes a look at the whole database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from runlane.store.resources.sizes import Sizes
from runlane.supervised_loop import SupervisedLoop
from runlane.telemetry.emitter import SILENT, Telemetry

#: After the start, which has better things to do.
FIRST_AFTER_S: Final = 60.0
EVERY_S: Final = 900.0
#: A measurement takes at most so much of the time: a pause is a thousand times as long as it took.
PAUSES: Final = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Bytes of each table with its indexes, when the last one was measured, and how long all of them took."""

    tables: Mapping[str, int]
    at: datetime
    took_s: float


class TableSizes:
    """Measures the tables in the background, one at a time, so that no snapshot is held for long.

    Attributes:
        latest: The last measurement; ``None`` before the first.
    """

    def __init__(
        self,
        sizes: Sizes,
        telemetry: Telemetry = SILENT,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.latest: Measured | None = None
        self._sizes = sizes
        self._now = now
        self._loop = SupervisedLoop(
            "table sizes", self.measure, every_s=self.period_s, telemetry=telemetry, at_once=False
        )

    async def __aenter__(self) -> TableSizes:
        self._loop.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._loop.stop()

    def period_s(self) -> float:
        """Return the pause before the next measurement."""
        return FIRST_AFTER_S if self.latest is None else max(EVERY_S, PAUSES * self.latest.took_s)

    async def measure(self) -> Measured:
        """Measure all tables now."""
        clock = asyncio.get_running_loop().time
        began = clock()
        tables = {name: await self._sizes.table(name) for name in await self._sizes.table_names()}
        self.latest = Measured(tables=tables, at=self._now(), took_s=clock() - began)
        return self.latest
