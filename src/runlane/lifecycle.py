"""Statuses, the events that move a run, and the one table of legal moves. Pure.

Nothing outside this module spells a status; five store operations apply these moves, nothing else does.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Literal

from runlane.errors import IllegalTransition


class RunStatus(StrEnum):
    """Where a run is; the last four are terminal and never change."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"

    @property
    def terminal(self) -> bool:
        return self in TERMINAL


class ThreadStatus(StrEnum):
    """The status of a thread; computed in the transactions that move its runs."""

    IDLE = "idle"
    BUSY = "busy"
    INTERRUPTED = "interrupted"
    ERROR = "error"


class RunEvent(StrEnum):
    """Events of a run's life; the comment names the store operation that applies it."""

    CLAIM = "claim"  # claim
    CANCEL = "cancel"  # request_cancel: stored as an intent while the run executes
    SUCCEED = "succeed"  # finish
    PAUSE = "pause"  # finish: the graph waits for a human
    FAIL = "fail"  # finish
    EXPIRE = "expire"  # finish: the run's deadline passed
    STOP = "stop"  # finish: after a cancel
    RELEASE = "release"  # finish: handed back by a draining worker
    RESCUE = "rescue"  # rescue: the worker died
    GIVE_UP = "give_up"  # rescue: the worker died too often; or the run never started


class EndReason(StrEnum):
    """Why a run ended, stored beside its status."""

    COMPLETED = "completed"
    PAUSED = "paused"
    USER_CANCEL = "user_cancel"
    SUPERSEDED = "superseded"
    DISCONNECT = "disconnect"
    ROLLED_BACK = "rolled_back"
    DEADLINE = "deadline"
    FAILED = "failed"
    WORKER_LOST = "worker_lost"
    NEVER_STARTED = "never_started"
    DRAINED_OVER = "drained_over"


class DisconnectMode(StrEnum):
    """The effect of a disconnect of the creating client on its run."""

    CANCEL = "cancel"
    CONTINUE = "continue"


class MultitaskStrategy(StrEnum):
    """The treatment of a new run on a busy thread."""

    REJECT = "reject"
    ENQUEUE = "enqueue"
    INTERRUPT = "interrupt"
    ROLLBACK = "rollback"


class CancelAction(StrEnum):
    """The effect of a cancel: it keeps the run's checkpoints, or the thread as it was before the run."""

    INTERRUPT = "interrupt"
    ROLLBACK = "rollback"


class HandBack(StrEnum):
    """Why an attempt ended and its run goes on in another."""

    DRAIN = "drain"  # its worker was drained or shut down
    OUTAGE = "outage"  # its worker could not renew its lease
    APPLICATION = "application"  # the application that executes it let go of it
    LOST = "lost"  # its worker died


class CancelSource(StrEnum):
    """Who asked for a cancel, as far as it is known; the receipt's ``requested_by`` names them."""

    OWNER = "owner"  # a request of the run's owner, or of whom they let cancel it
    OPERATOR = "operator"
    RUN = "run"  # a newer run of its thread, by its multitask strategy
    CLIENT = "client"  # a client that went away
    APPLICATION = "application"  # code that uses the library


#: What callers may spell: a member, or its text.
StatusLike = RunStatus | Literal["pending", "running", "success", "error", "timeout", "interrupted"]
DisconnectLike = DisconnectMode | Literal["cancel", "continue"]
StrategyName = Literal["reject", "enqueue", "interrupt", "rollback"]
StrategyLike = MultitaskStrategy | StrategyName
ActionLike = CancelAction | Literal["interrupt", "rollback"]

_S, _E = RunStatus, RunEvent

TERMINAL: Final = frozenset({_S.SUCCESS, _S.ERROR, _S.TIMEOUT, _S.INTERRUPTED})
ACTIVE: Final = frozenset({_S.PENDING, _S.RUNNING})
FAILED: Final = frozenset({_S.ERROR, _S.TIMEOUT})

MOVES: Final[Mapping[tuple[RunStatus, RunEvent], RunStatus]] = MappingProxyType(
    {
        (_S.PENDING, _E.CLAIM): _S.RUNNING,
        (_S.PENDING, _E.CANCEL): _S.INTERRUPTED,
        (_S.PENDING, _E.GIVE_UP): _S.ERROR,
        (_S.RUNNING, _E.CANCEL): _S.RUNNING,
        (_S.RUNNING, _E.SUCCEED): _S.SUCCESS,
        (_S.RUNNING, _E.PAUSE): _S.SUCCESS,
        (_S.RUNNING, _E.FAIL): _S.ERROR,
        (_S.RUNNING, _E.EXPIRE): _S.TIMEOUT,
        (_S.RUNNING, _E.STOP): _S.INTERRUPTED,
        (_S.RUNNING, _E.RELEASE): _S.PENDING,
        (_S.RUNNING, _E.RESCUE): _S.PENDING,
        (_S.RUNNING, _E.GIVE_UP): _S.ERROR,
    }
)


def move(run_id: str, status: RunStatus, event: RunEvent) -> RunStatus:
    """Return the status that *event* leads to.

    Raises:
        IllegalTransition: The table has no such move; every move out of a terminal status is one.
    """
    try:
        return MOVES[status, event]
    except KeyError:
        raise IllegalTransition(run_id, status.value, event.value) from None
