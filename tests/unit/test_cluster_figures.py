"""The table of a cluster's figures says which promise is not met, and which figure is worth nothing."""

from __future__ import annotations

from cluster.figures import BUSY_PERCENT, Figure, table


def test_a_figure_that_misses_its_mark_or_was_measured_on_a_busy_machine_says_so() -> None:
    figures = [
        Figure("a", "1 ms", "≤ 2 ms", met=True, others_percent=0.0),
        Figure("b", "3 ms", "≤ 2 ms", met=False, others_percent=0.0),
        Figure("c", "4", "", met=None, others_percent=BUSY_PERCENT + 1),
    ]
    rows = table(figures).splitlines()[2:]
    assert rows == [
        "| a | 1 ms | ≤ 2 ms | met |",
        "| b | 3 ms | ≤ 2 ms | **not met** |",
        "| c | 4 |  | busy: others used 16 % |",
    ]
