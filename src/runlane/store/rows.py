"""Rows of the ledger as records, and values as columns. Instants are microseconds of UTC, documents JSON text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from runlane.leases import SeenLease
from runlane.lifecycle import (
    CancelAction,
    CancelSource,
    DisconnectMode,
    EndReason,
    MultitaskStrategy,
    RunStatus,
    ThreadStatus,
)
from runlane.records import (
    AnyOwner,
    Assistant,
    CancelReceipt,
    Head,
    Json,
    Lease,
    Owner,
    RunError,
    RunRecord,
    Thread,
    ThreadTtl,
    Usage,
)
from runlane.redaction import redacted_configuration
from runlane.requests import StoredRequest, json_bytes
from runlane.store.statements import Row

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NO_USAGE = Usage()
# Members by value: calling an enumeration takes ten times as long, and a run is read a few times in its life.
_STATUSES: Final = {member.value: member for member in RunStatus}
_REASONS: Final = {member.value: member for member in EndReason}
_STRATEGIES: Final = {member.value: member for member in MultitaskStrategy}
_DISCONNECTS: Final = {member.value: member for member in DisconnectMode}


def instant(us: int) -> datetime:
    return _EPOCH + timedelta(0, 0, us)  # by position: a keyword costs twice the rest


def maybe_instant(us: int | None) -> datetime | None:
    return None if us is None else instant(us)


def microseconds(at: datetime) -> int:
    return (at - _EPOCH) // _MICROSECOND


def dumps(value: Any) -> str:
    """Return *value* as compact JSON text.

    Raises:
        InvalidRequest: It is not JSON: a type, a number beyond 64 bits, a lone surrogate.
    """
    return json_bytes(value).decode()


def loads(text: str) -> Any:
    return orjson.loads(text)


def maybe_text(data: bytes | None) -> str | None:
    return None if data is None else data.decode()


def owner_params(owner: Owner) -> dict[str, Any]:
    """Return the parameters of ``conditions.IS_MINE``."""
    if isinstance(owner, AnyOwner):
        return {"any_owner": 1, "owner": ""}
    return {"any_owner": 0, "owner": owner}


def ttl_params(ttl: ThreadTtl | None) -> dict[str, Any]:
    """Return the columns that say when a thread expires."""
    if ttl is None:
        return {"ttl_us": None, "ttl_strategy": None}
    return {"ttl_us": round(ttl.ttl_s * 1_000_000), "ttl_strategy": ttl.strategy}


def error_text(error: RunError | None) -> str | None:
    return None if error is None else dumps({"error": error.error, "message": error.message})


def error_of(text: str | None) -> RunError | None:
    return None if text is None else RunError(**loads(text))


def usage_text(usage: Usage) -> str:
    return dumps(usage)


def usage_of(text: str | None) -> Usage:
    return _NO_USAGE if text is None else Usage(**loads(text))


def raised(usage: Usage, newer: Usage) -> Usage:
    """Return *newer*, where no number is below that of *usage*, nor a text or a model's numbers are missing."""
    if usage is _NO_USAGE:
        return newer
    counts = {
        field.name: max(getattr(usage, field.name), getattr(newer, field.name))
        for field in fields(Usage)
        if isinstance(getattr(newer, field.name), int)
    }
    return replace(
        newer,
        **counts,
        by_model=_raised_by_model(usage.by_model, newer.by_model),
        first_human_message=newer.first_human_message or usage.first_human_message,
        last_ai_message=newer.last_ai_message or usage.last_ai_message,
    )


def _raised_by_model(
    older: Mapping[str, Mapping[str, int]], newer: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, int]]:
    found = {model: dict(counts) for model, counts in older.items()}
    for model, counts in newer.items():
        mine = found.setdefault(model, {})
        for name, count in counts.items():
            mine[name] = max(count, mine.get(name, 0))
    return found


def receipt_of(row: Row) -> CancelReceipt | None:
    if row["cancel_requested_at"] is None:
        return None
    return CancelReceipt(
        run_id=row["run_id"],
        action=CancelAction(row["cancel_action"]),
        reason=EndReason(row["cancel_reason"]),
        requested_by=row["cancel_by"],
        requested_at=instant(row["cancel_requested_at"]),
        observed_at=maybe_instant(row["cancel_observed_at"]),
        stopped_at=maybe_instant(row["cancel_stopped_at"]),
        blocked_at=row["cancel_blocked_at"],
        source=None if row["cancel_source"] is None else CancelSource(row["cancel_source"]),
    )


def run_record(row: Row, stored: StoredRequest | None = None) -> RunRecord:
    """Return the run of *row*, with its request as it was *stored*, if that is known."""
    stored, graph_id = stored or StoredRequest(row["kwargs"]), row["graph_id"]
    if graph_id is None and not stored.versioned:  # a run from before the column has it in its request alone
        graph_id = stored.request.graph_id
    return RunRecord(
        run_id=row["run_id"],
        thread_id=row["thread_id"],
        owner=row["owner"],
        seq=row["seq"],
        assistant_id=row["assistant_id"],
        graph_id=graph_id,
        status=_STATUSES[row["status"]],
        end_reason=None if row["end_reason"] is None else _REASONS[row["end_reason"]],
        attempt=row["attempt"],
        rescues=row["rescues"],
        worker_id=row["worker_id"],
        multitask_strategy=_STRATEGIES[row["multitask_strategy"]],
        on_disconnect=_DISCONNECTS[row["on_disconnect"]],
        metadata=loads(row["metadata"]),
        stored=stored,
        model_name=row["model_name"],
        error=error_of(row["error"]),
        cancel=receipt_of(row),
        usage=usage_of(row["usage"]),
        temporary=bool(row["temporary"]),
        not_before=instant(row["not_before"]),
        created_at=instant(row["created_at"]),
        updated_at=instant(row["updated_at"]),
        started_at=maybe_instant(row["started_at"]),
        ended_at=maybe_instant(row["ended_at"]),
        webhook=row["webhook"],
        start_order=row["start_order"],
        home=row["home"],
    )


def scrubbed_kwargs(row: Row) -> str | None:
    """Return what is kept of the request of a run that ends; ``None``: all of it."""
    scrubbed = StoredRequest(row["kwargs"]).scrubbed()
    return None if scrubbed is None else scrubbed.text


def head_record(row: Row) -> Head:
    return Head(
        run_id=row["run_id"],
        seq=row["seq"],
        owner=row["owner"],
        assistant_id=row["assistant_id"],
        graph_id=row["graph_id"],
        home=row["home"],
    )


def lease_record(row: Row) -> Lease:
    return Lease(
        run_id=row["run_id"],
        thread_id=row["thread_id"],
        seq=row["seq"],
        worker_id=row["worker_id"],
        attempt=row["attempt"],
    )


def seen_lease(row: Row) -> SeenLease:
    return SeenLease(
        run_id=row["run_id"],
        attempt=row["attempt"],
        worker_id=row["worker_id"],
        lease_s=row["lease_us"] / 1_000_000,
        beats=row["beats"],
    )


def thread_config(config: Json, given: Mapping[str, Any] | None) -> Json:
    """Return what a thread shows of how its runs were configured: all but ``configurable``, which is of one run."""
    if given is None:
        return config
    return {**config, **redacted_configuration(given), "configurable": {}}


def thread_record(row: Row) -> Thread:
    """Return a thread without its values, which may be a document."""
    return Thread(
        thread_id=row["thread_id"],
        owner=row["owner"],
        status=ThreadStatus(row["status"]),
        metadata=loads(row["metadata"]),
        config=loads(row["config"]),
        values=None,
        interrupts=loads(row["interrupts"]),
        error=error_of(row["error"]),
        created_at=instant(row["created_at"]),
        updated_at=instant(row["updated_at"]),
        state_updated_at=instant(row["state_updated_at"]),
        state_order=row["state_order"],
        ttl=None if row["ttl_us"] is None else ThreadTtl(ttl_s=row["ttl_us"] / 1_000_000, strategy=row["ttl_strategy"]),
    )


def assistant_record(row: Row) -> Assistant:
    return Assistant(
        assistant_id=row["assistant_id"],
        owner=row["owner"],
        graph_id=row["graph_id"],
        name=row["name"],
        description=row["description"],
        config=loads(row["config"]),
        context=loads(row["context"]),
        metadata=loads(row["metadata"]),
        version=row["version"],
        created_at=instant(row["created_at"]),
        updated_at=instant(row["updated_at"]),
    )
