"""States of many runs at once, without what was asked of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from runlane.errors import RequestUnreadable
from runlane.lifecycle import EndReason, RunStatus
from runlane.records import Owner
from runlane.requests import StoredRequest
from runlane.store.conditions import IS_MINE
from runlane.store.rows import dumps, instant, owner_params
from runlane.store.statements import Row, Transaction, statement

_STATE = "run_id, thread_id, owner, seq, status, end_reason, updated_at"
RUN_STATES = statement(
    "run_states", f"SELECT {_STATE}, kwargs FROM runs WHERE run_id IN {{listed :run_ids}} AND {IS_MINE}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """Where a run stands."""

    run_id: str
    thread_id: str
    owner: str
    seq: int
    status: RunStatus
    end_reason: EndReason | None
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamedRun(RunState):
    """A run whose stream is read; with *protocol* its events are those of the event-streaming protocol."""

    protocol: bool


def run_states(run_ids: Sequence[str], owner: Owner) -> Transaction[tuple[StreamedRun, ...]]:
    """Return those of the runs that *owner* has."""
    rows = yield RUN_STATES(run_ids=dumps(list(run_ids)), **owner_params(owner))
    return tuple(StreamedRun(**_state(row), protocol=_has_protocol(row["kwargs"])) for row in rows)


def _state(row: Row) -> dict[str, Any]:
    return {
        "run_id": row["run_id"],
        "thread_id": row["thread_id"],
        "owner": row["owner"],
        "seq": row["seq"],
        "status": RunStatus(row["status"]),
        "end_reason": None if row["end_reason"] is None else EndReason(row["end_reason"]),
        "updated_at": instant(row["updated_at"]),
    }


def _has_protocol(kwargs: str) -> bool:
    with suppress(RequestUnreadable):  # a newer version wrote it, whose events are read as they are
        return StoredRequest(kwargs).request.protocol is not None
    return False
