"""Which refusals of operators the audit keeps."""

from __future__ import annotations

from runlane.server.auth.acts import REFUSED_EVERY_S, Refusals


def test_one_refusal_in_a_while_is_kept_with_the_number_since() -> None:
    now = 0.0
    refusals = Refusals(lambda: now)
    assert [refusals.count("ann", "DELETE /threads") for _ in range(4)] == [1, None, None, None]
    assert refusals.count("ann", "GET /keys") == refusals.count("bob", "DELETE /threads") == 1
    now += REFUSED_EVERY_S
    assert [refusals.count("ann", "DELETE /threads") for _ in range(2)] == [4, None]


def test_no_more_are_told_apart_than_fit() -> None:
    refusals = Refusals(lambda: 0.0)
    assert [refusals.count(f"operator {number}", "") for number in range(2000)] == [1] * 2000
    assert refusals.count("operator 1999", "") is None
    assert len(refusals._last) == 1000
