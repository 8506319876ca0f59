"""Multitask strategies: what happens to a thread's active runs when another run is asked for. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runlane.errors import UnsupportedStrategyError
from runlane.lifecycle import CancelAction, MultitaskStrategy


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What admission does: refuse because of *blocked_by*, or admit and ask *cancel* of the active runs."""

    blocked_by: str | None = None
    cancel: CancelAction | None = None


def parse_strategy(text: str) -> MultitaskStrategy:
    """Return the strategy named *text*.

    Raises:
        UnsupportedStrategyError: There is no such strategy.
    """
    try:
        return MultitaskStrategy(text)
    except ValueError:
        raise UnsupportedStrategyError(str(text)) from None


def decide(strategy: MultitaskStrategy, active_run_ids: Sequence[str]) -> Decision:
    """Decide the admission of a run to a thread whose active runs, oldest first, are *active_run_ids*.

    The new run never starts before every earlier run of the lane has ended, whatever the strategy.
    """
    if not active_run_ids or strategy is MultitaskStrategy.ENQUEUE:
        return Decision()
    if strategy is MultitaskStrategy.REJECT:
        return Decision(blocked_by=active_run_ids[0])
    if strategy is MultitaskStrategy.INTERRUPT:
        return Decision(cancel=CancelAction.INTERRUPT)
    return Decision(cancel=CancelAction.ROLLBACK)
