"""Counting runs that ended into the totals that operators ask for."""

from __future__ import annotations

from functools import partial
from typing import Final

from runlane.store.resources.totals import BATCH, Totals
from runlane.supervised_loop import SupervisedLoop
from runlane.telemetry.emitter import SILENT, Telemetry

#: How old the totals are at most while nobody asks for them. As long as no run ends, it costs a read.
COUNT_EVERY_S: Final = 30.0


def totals_loop(totals: Totals, telemetry: Telemetry = SILENT) -> SupervisedLoop:
    """Return the loop that counts, at start and then twice a minute. One process counts at a time."""
    return SupervisedLoop("totals", partial(count, totals), every_s=COUNT_EVERY_S, telemetry=telemetry)


async def count(totals: Totals) -> None:
    """Count all runs that ended, in batches, so that writers in between do not wait long."""
    while await totals.count() == BATCH:
        continue
