"""From Aegra's rows to the ledger's. Pure.

Source: Aegra, ``core/orm.py`` and the migrations beside it; ``api/store.py`` for the namespaces of users;
``services/cron_service.py`` for the fields and the schedules of crons.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from runlane.agents.registry import system_assistant_id
from runlane.lifecycle import ThreadStatus
from runlane.records import NO_OWNER, ThreadTtl
from runlane.schedules import Schedule
from runlane.store.rows import dumps, microseconds
from runlane.store.statements import Row
from runlane.store.transactions.assistants import SHARED_OWNER
from runlane.store.transactions.crons import CronPlan, CronTarget

#: Who everybody is where there is no authentication.
_ANONYMOUS: Final = "anonymous"
#: Whose the assistants are that belong to graphs.
_SYSTEM: Final = "system"
#: Begins the namespaces of what a user stored, followed by the user.
_USERS: Final = "users"
#: What a cron asks for its runs.
_ASKED: Final = frozenset(
    {
        "input",
        "config",
        "context",
        "interrupt_before",
        "interrupt_after",
        "webhook",
        "multitask_strategy",
        "stream_mode",
        "stream_subgraphs",
        "durability",
        "checkpoint_during",
    }
)
#: Fields of a schedule with seconds, which come first; here they come last.
_WITH_SECONDS: Final = 6


def instant_of(text: str) -> datetime:
    """Return the instant that JSON made of a ``timestamptz`` is."""
    return datetime.fromisoformat(text).astimezone(UTC)


def owner_of(user_id: str, otherwise: str = NO_OWNER) -> str:
    """Return whose in the ledger the things of a user are; *otherwise* is whose those of nobody in particular are."""
    return {_ANONYMOUS: otherwise, _SYSTEM: SHARED_OWNER}.get(user_id, user_id)


def is_of_graph(row: Row) -> bool:
    """Return whether an assistant is the one that each server makes of a graph, under the same id."""
    return bool(row["user_id"] == _SYSTEM and row["assistant_id"] == system_assistant_id(row["graph_id"]))


def assistant_columns(row: Row, otherwise: str) -> dict[str, Any]:
    """Return the ledger's columns of an assistant."""
    return {
        **_version_columns(row),
        "owner": owner_of(row["user_id"], otherwise),
        "updated_at": microseconds(instant_of(row["updated_at"])),
    }


def version_columns(row: Row, assistant: Row) -> dict[str, Any]:
    """Return the ledger's columns of a version of *assistant*, which has a name."""
    return _version_columns({**row, "name": row["name"] or assistant["name"]})


def _version_columns(row: Row) -> dict[str, Any]:
    return {
        **{name: row[name] for name in ("assistant_id", "version", "graph_id", "name", "description")},
        **{name: dumps(row.get(name) or {}) for name in ("config", "context", "metadata")},
        "created_at": microseconds(instant_of(row["created_at"])),
    }


def status_of(row: Row) -> ThreadStatus:
    """Return the status of a thread without an active run: of one that had one, that it is idle."""
    known = {status.value: status for status in (ThreadStatus.INTERRUPTED, ThreadStatus.ERROR)}
    return known.get(row["status"], ThreadStatus.IDLE)


def ttl_of(row: Row) -> ThreadTtl:
    """Return when a thread expires, from its row in ``thread_ttl``."""
    return ThreadTtl(ttl_s=row["ttl_minutes"] * 60.0)


def item_address(prefix: str, otherwise: str) -> tuple[str, str]:
    """Return the owner of a namespace, and the rest of it as it is in the source."""
    labels = prefix.split(".", 2)
    if len(labels) == 3 and labels[0] == _USERS:
        return owner_of(labels[1], otherwise), labels[2]
    return otherwise, prefix


def cron_of(row: Row, assistant: Row, thread_owner: str | None, otherwise: str) -> tuple[CronTarget, CronPlan]:
    """Return the target and the plan of a cron.

    Raises:
        InvalidRequest: Its schedule makes no sense here.
    """
    payload = row["payload"] or {}
    fields = row["schedule"].split()
    if len(fields) == _WITH_SECONDS:
        fields = [*fields[1:], fields[0]]
    schedule, timezone = " ".join(fields), payload.get("timezone")
    Schedule(schedule, timezone)
    thread_id = row["thread_id"]
    next_run_at = _maybe(row["next_run_date"]) if row["enabled"] else None
    plan = CronPlan(
        schedule=schedule,
        timezone=timezone,
        end_at=_maybe(row["end_time"]),
        payload={name: value for name, value in payload.items() if name in _ASKED},
        metadata=row["metadata"] or {},
        on_run_completed=None if thread_id is not None else row["on_run_completed"] or "delete",
        missed="once",
        overlap="allow",
        enabled=row["enabled"],
        next_run_at=next_run_at,
    )
    target = CronTarget(
        owner=owner_of(row["user_id"], otherwise),
        assistant_id=row["assistant_id"],
        assistant_owner=owner_of(assistant["user_id"], otherwise),
        thread_id=thread_id,
        thread_owner=thread_owner,
    )
    return target, plan


def _maybe(text: str | None) -> datetime | None:
    return None if text is None else instant_of(text)
