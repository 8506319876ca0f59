"""Acting on many runs: which of them can be acted on, and what it costs. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from runlane.lifecycle import CancelAction, RunStatus
from runlane.store.transactions.selections import SelectedRun


class BulkAction(StrEnum):
    """What is done with each run."""

    CANCEL = "cancel"
    ROLLBACK = "rollback"
    RETRY = "retry"


class Refusal(StrEnum):
    """Why a run is not acted on."""

    ENDED = "ended"
    CANCELLED = "cancelled"
    ACTIVE = "active"
    SUCCEEDED = "succeeded"
    RETRIED = "retried"
    FOLLOWED = "followed"
    NO_GRAPH = "no_graph"
    BUSY = "busy"
    FORBIDDEN = "forbidden"


#: In a sentence about one run, and about several.
_WHY: Final = {
    Refusal.ENDED: ("it has ended", "they have ended"),
    Refusal.CANCELLED: ("it has been cancelled before", "they have been cancelled before"),
    Refusal.ACTIVE: ("it has not ended", "they have not ended"),
    Refusal.SUCCEEDED: ("it succeeded", "they succeeded"),
    Refusal.RETRIED: ("it has been retried before", "they have been retried before"),
    Refusal.FOLLOWED: ("its thread has a newer run", "their threads have newer runs"),
    Refusal.NO_GRAPH: ("this server does not have its graph", "this server does not have their graphs"),
    Refusal.BUSY: ("its thread has an active run", "their threads have active runs"),
    Refusal.FORBIDDEN: ("you may not start it", "you may not start them"),
}
_DONE: Final = {BulkAction.CANCEL: "cancelled", BulkAction.ROLLBACK: "rolled back", BulkAction.RETRY: "retried"}
CANCELS: Final = {BulkAction.CANCEL: CancelAction.INTERRUPT, BulkAction.ROLLBACK: CancelAction.ROLLBACK}


def refusal(action: BulkAction, run: SelectedRun, graphs: Collection[str | None]) -> Refusal | None:
    """Return why *run* cannot be acted on, if so.

    Args:
        graphs: Those that this server has.
    """
    if action is not BulkAction.RETRY:
        return Refusal.ENDED if run.status.terminal else Refusal.CANCELLED if run.cancelled else None
    if not run.status.terminal:
        return Refusal.ACTIVE
    if run.status is RunStatus.SUCCESS:
        return Refusal.SUCCEEDED
    if run.retry_run_id is not None:
        return Refusal.RETRIED
    if run.followed:
        return Refusal.FOLLOWED
    return None if run.graph_id in graphs else Refusal.NO_GRAPH


def why_refused(why: Refusal) -> str:
    """Return why a run is not acted on, as the rest of a sentence."""
    return _WHY[why][0]


def refused_sentence(action: BulkAction, why: Refusal | str, count: int = 1) -> str:
    """Return that *count* runs are not acted on, and why: one of the reasons here, or the code of an error."""
    text = _WHY[why][count > 1] if isinstance(why, Refusal) else f"the server refused ({why})"
    return f"{count} cannot be {_DONE[action]}: {text}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """How many runs would not be acted on for one reason."""

    reason: Refusal
    count: int
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a roll back takes back, as far as the ledger knows: runs that have begun, and the tokens that they used."""

    begun: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What an action would do now.

    Attributes:
        matched: Runs that match; with *capped* there are more, or may be.
        acted: How many of these would be acted on.
        not_found: How many of the ids name no run.
        cost: Of a roll back.
        bound: Given with the action, it leaves out runs that are admitted after this preview.
    """

    action: BulkAction
    matched: int
    capped: bool
    acted: int
    refused: tuple[Refused, ...]
    not_found: int
    cost: Cost | None
    bound: str
    sentence: str


def preview(
    action: BulkAction, runs: list[SelectedRun], graphs: Collection[str | None], *, capped: bool, not_found: int
) -> Preview:
    """Return what *action* would do with *runs*, the newest first."""
    judged = [(run, refusal(action, run, graphs)) for run in runs]
    acted = [run for run, why in judged if why is None]
    counts = Counter(why for _, why in judged if why is not None)
    refused = tuple(
        Refused(reason=why, count=count, sentence=refused_sentence(action, why, count))
        for why, count in counts.most_common()
    )
    cost = None
    if action is BulkAction.ROLLBACK:
        cost = Cost(begun=sum(run.begun for run in acted), tokens=sum(run.tokens for run in acted))
    return Preview(
        action=action,
        matched=len(runs),
        capped=capped,
        acted=len(acted),
        refused=refused,
        not_found=not_found,
        cost=cost,
        bound=str(max((run.seq for run in runs), default=0)),
        sentence=_sentence(action, len(runs), len(acted), refused, cost, capped=capped, not_found=not_found),
    )


def _sentence(
    action: BulkAction,
    matched: int,
    acted: int,
    refused: tuple[Refused, ...],
    cost: Cost | None,
    *,
    capped: bool,
    not_found: int,
) -> str:
    parts = [f"{matched:,}{' or more' if capped else ''} match; {acted:,} would be {_DONE[action]}."]
    parts += [one.sentence for one in refused]
    if not_found:
        parts.append(f"{not_found} not found.")
    if cost is not None and cost.begun:
        parts.append(
            f"{cost.begun} of them have begun: their threads lose what these runs did, which took {cost.tokens:,} "
            "tokens so far; what their tools did elsewhere stays done."
        )
    return " ".join(parts)
