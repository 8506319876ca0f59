"""Events take no more memory than their text: they are kept for readers."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from runlane.agents.encode import encode, encode_lenient
from runlane.records import Lease
from runlane.store.transactions.events import start_event

LEASE = Lease(run_id="r", thread_id="t", seq=1, worker_id="w", attempt=1)


@pytest.mark.parametrize(
    "make",
    [lambda: start_event(LEASE, 0), lambda: encode({"n": 1}), lambda: encode_lenient({"n": object()})],
    ids=["start", "event", "trace"],
)
def test_an_event_takes_little_more_than_its_text(make: Callable[[], object]) -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = [make() for _ in range(100)]
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken < 400 * len(kept)
