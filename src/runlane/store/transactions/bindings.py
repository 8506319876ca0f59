"""The graph and assistant to read a thread with: those of its newest run, until that run turns out not to count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runlane.lifecycle import ACTIVE, EndReason, RunStatus
from runlane.records import Json
from runlane.requests import StoredRequest, ThreadBinding
from runlane.store.conditions import IS_ACTIVE
from runlane.store.rows import dumps, loads
from runlane.store.statements import Row, Transaction, statement

THREAD_METADATA = statement("thread_metadata", "SELECT metadata FROM threads WHERE thread_id = :thread_id")
# Guard: the thread's lock, which the caller holds.
REBIND_THREAD = statement("rebind_thread", "UPDATE threads SET metadata = :metadata WHERE thread_id = :thread_id")
# The next run of the thread that counts: it waits, executes, or has executed and was not rolled back.
NEXT_THAT_COUNTS = statement(
    "next_that_counts",
    f"""SELECT run_id, status, metadata, kwargs FROM runs WHERE thread_id = :thread_id AND seq > :seq
          AND ({IS_ACTIVE} OR (attempt > 0 AND end_reason <> '{EndReason.ROLLED_BACK.value}'))
        ORDER BY seq LIMIT 1""",
)
# Called under the thread's lock, which every end of a run takes too.
SET_BINDING = statement("set_binding", "UPDATE runs SET kwargs = :kwargs WHERE run_id = :run_id")


def binding_of(before: Json, written: Json) -> ThreadBinding | None:
    """Return what a run has *written* into its thread's metadata and what was there before; ``None`` if the same."""
    was = {name: before[name] for name in written if name in before}
    return None if was == written else ThreadBinding(was=was, wrote=dict(written))


def unbind(row: Row, *, wholly: bool) -> Transaction[None]:
    """Give the thread of a run that does not count the graph back that it had before; called under the thread's lock.

    Args:
        wholly: Also if it had none.
    """
    binding = StoredRequest(row["kwargs"]).binding
    if binding is None or not (wholly or binding.was):
        return
    later = yield NEXT_THAT_COUNTS(thread_id=row["thread_id"], seq=row["seq"])
    if later and (yield from _inherited(later[0], binding)):
        return
    found = yield THREAD_METADATA(thread_id=row["thread_id"])
    metadata = loads(found[0]["metadata"]) if found else {}
    if _part(metadata, binding.wrote) == binding.wrote:
        kept = {name: value for name, value in metadata.items() if name not in binding.wrote}
        yield REBIND_THREAD(thread_id=row["thread_id"], metadata=dumps({**kept, **binding.was}))


def _inherited(later: Row, binding: ThreadBinding) -> Transaction[bool]:
    """Return whether the thread has its graph from *later*; what was before it is now what *binding* replaced."""
    stored = StoredRequest(later["kwargs"])
    if stored.binding is None and _part(loads(later["metadata"]), binding.wrote) != binding.wrote:
        return False  # it binds no thread
    own = stored.binding or ThreadBinding(was=binding.wrote, wrote=binding.wrote)
    if own.was == binding.wrote and RunStatus(later["status"]) in ACTIVE:
        rebound = stored.rebound(ThreadBinding(was=binding.was, wrote=own.wrote))
        yield SET_BINDING(run_id=later["run_id"], kwargs=rebound.text)
    return True


def _part(metadata: Json, names: Mapping[str, Any]) -> dict[str, Any]:
    return {name: metadata[name] for name in names if name in metadata}
