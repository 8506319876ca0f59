"""An operator is told once of what delays many runs."""

from __future__ import annotations

import pytest

from runlane.errors import StoreUnavailable
from runlane.journal.delays import Delays


def test_what_one_failure_delays_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    delays, first, second = Delays(), StoreUnavailable("idle"), StoreUnavailable("idle")
    for run_id in ("a", "b", "c"):
        delays.note(run_id, first)
    delays.note("d", second)
    assert [record.getMessage().split()[1] for record in caplog.records] == ["run_id=a", "run_id=d"]
