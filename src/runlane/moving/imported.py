"""What is imported, and the transactions that store it; what is there already stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from runlane.errors import RunlaneError
from runlane.journal import rows
from runlane.journal.rows import CheckpointRows
from runlane.lifecycle import ThreadStatus
from runlane.records import ANY_OWNER, Json, ThreadTtl
from runlane.store.rows import dumps, microseconds, owner_params, ttl_params
from runlane.store.statements import Row, Transaction, statement
from runlane.store.transactions.crons import GET_CRON, CronPlan, CronTarget, create_cron
from runlane.store.transactions.start_order import next_order

# Guard: the id is free.
_INSERT_THREAD: Final = statement(
    "import.thread",
    """INSERT INTO threads (thread_id, owner, status, settled, metadata, config, state_values, interrupts, created_at,
         updated_at, state_updated_at, state_order, ttl_us, ttl_strategy)
       VALUES (:thread_id, :owner, :status, :status, :metadata, '{}', :state_values, :interrupts, :created_at,
         :updated_at, :updated_at, :state_order, CAST(:ttl_us AS BIGINT), :ttl_strategy)
       ON CONFLICT (thread_id) DO NOTHING RETURNING thread_id""",
)
_COUNTS: Final = statement(
    "import.counts",
    """SELECT (SELECT COUNT(*) FROM checkpoints WHERE thread_id = :thread_id) AS checkpoints,
              (SELECT COUNT(*) FROM checkpoint_blobs WHERE thread_id = :thread_id) AS blobs,
              (SELECT COUNT(*) FROM checkpoint_writes WHERE thread_id = :thread_id) AS writes""",
)
# Guard: the id is free.
_INSERT_ASSISTANT: Final = statement(
    "import.assistant",
    """INSERT INTO assistants (assistant_id, owner, version, graph_id, name, description, config, context, metadata,
         created_at, updated_at)
       VALUES (:assistant_id, :owner, :version, :graph_id, :name, :description, :config, :context, :metadata,
         :created_at, :updated_at)
       ON CONFLICT (assistant_id) DO NOTHING RETURNING assistant_id""",
)
# It follows the insertion of the assistant.
_INSERT_VERSION: Final = statement(
    "import.assistant_version",
    """INSERT INTO assistant_versions (assistant_id, version, graph_id, name, description, config, context, metadata,
         created_at)
       VALUES (:assistant_id, :version, :graph_id, :name, :description, :config, :context, :metadata, :created_at)
       ON CONFLICT (assistant_id, version) DO NOTHING""",
)
# Guard: the owner has no such item.
_INSERT_ITEM: Final = statement(
    "import.item",
    """INSERT INTO store_items (owner, namespace, key, value, created_at, updated_at, ttl_us, expires_at)
       VALUES (:owner, :namespace, :key, :value, :created_at, :updated_at, CAST(:ttl_us AS BIGINT),
         CAST(:expires_at AS BIGINT))
       ON CONFLICT (owner, namespace, key) DO NOTHING RETURNING key""",
)


class ImportFailed(RunlaneError):
    """The ledger has not stored what it was given; nothing of the thread was written."""

    code = "import_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedThread:
    """A thread with its history; ``values`` is its state as JSON text."""

    thread_id: str
    owner: str
    status: ThreadStatus
    metadata: Json
    values: str | None
    interrupts: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime
    ttl: ThreadTtl | None
    history: CheckpointRows


def put_thread(thread: ImportedThread) -> Transaction[bool]:
    """Store *thread* with its history, and return whether its id was free.

    Raises:
        ImportFailed: Other rows are in the ledger than were given.
    """
    state_order = yield from next_order()
    made = yield _INSERT_THREAD(
        thread_id=thread.thread_id,
        owner=thread.owner,
        status=thread.status.value,
        metadata=dumps(thread.metadata),
        state_values=thread.values,
        interrupts=dumps(thread.interrupts),
        created_at=microseconds(thread.created_at),
        updated_at=microseconds(thread.updated_at),
        state_order=state_order,
        **ttl_params(thread.ttl),
    )
    if not made:
        return False
    yield from rows.put(thread.history)
    [stored] = yield _COUNTS(thread_id=thread.thread_id)
    given = {name: len(getattr(thread.history, name)) for name in ("checkpoints", "blobs", "writes")}
    if dict(stored) != given:
        raise ImportFailed(f"Thread {thread.thread_id} would have {dict(stored)} instead of {given}.")
    return True


def put_assistant(assistant: Row, versions: Sequence[Row]) -> Transaction[bool]:
    """Store an assistant with its versions, given as the columns of the ledger; return whether its id was free."""
    if not (yield _INSERT_ASSISTANT(**assistant)):
        return False
    yield _INSERT_VERSION.many(versions)
    return True


def put_items(items: Sequence[Row]) -> Transaction[int]:
    """Store items, given as the columns of the ledger, and return how many were not there."""
    written = 0
    for item in items:
        written += len((yield _INSERT_ITEM(**item)))
    return written


def put_cron(cron_id: str, target: CronTarget, plan: CronPlan) -> Transaction[bool]:
    """Store a cron, and return whether its id was free.

    Raises:
        NotFound: Its thread is not there.
    """
    if (yield GET_CRON(cron_id=cron_id, **owner_params(ANY_OWNER))):
        return False
    yield from create_cron(cron_id, target, plan)
    return True
