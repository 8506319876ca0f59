"""Which graph and assistant a thread is read with: those of its newest run, until that run turns out not to count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from runlane.lifecycle import ACTIVE, EndReason, RunStatus
from runlane.records import Json
from runlane.store.rows import dumps, loads
from runlane.store.statements import Row, Transaction, listed, statement

#: In a run's kwargs: what it wrote into its thread's metadata, and what was there before; not if that is the same.
BINDING: Final = "thread_binding"
_ACTIVE = listed(ACTIVE)

THREAD_METADATA = statement("thread_metadata", "SELECT metadata FROM threads WHERE thread_id = :thread_id")
# Guard: the thread's lock, which the caller holds.
REBIND_THREAD = statement("rebind_thread", "UPDATE threads SET metadata = :metadata WHERE thread_id = :thread_id")
# The next run of the thread that counts: it waits, executes, or has executed and was not rolled back.
NEXT_THAT_COUNTS = statement(
    "next_that_counts",
    f"""SELECT run_id, status, metadata, kwargs FROM runs WHERE thread_id = :thread_id AND seq > :seq
          AND (status IN {_ACTIVE} OR (attempt > 0 AND end_reason <> '{EndReason.ROLLED_BACK.value}'))
        ORDER BY seq LIMIT 1""",
)
SET_BINDING = statement("set_binding", "UPDATE runs SET kwargs = :kwargs WHERE run_id = :run_id")


def bound(kwargs: Json, before: Json, written: Json) -> dict[str, Any]:
    """Return *kwargs* with what a run has *written* into its thread's metadata and what was there before."""
    was = {name: before[name] for name in written if name in before}
    return dict(kwargs) if was == written else {**kwargs, BINDING: {"was": was, "is": dict(written)}}


def unbind(row: Row, *, wholly: bool) -> Transaction[None]:
    """Give the thread of a run that does not count the graph back that it had before; called under the thread's lock.

    Args:
        wholly: Also if it had none.
    """
    binding = loads(row["kwargs"]).get(BINDING)
    if binding is None or not (wholly or binding["was"]):
        return
    later = yield NEXT_THAT_COUNTS(thread_id=row["thread_id"], seq=row["seq"])
    if later and (yield from _inherited(later[0], binding)):
        return
    found = yield THREAD_METADATA(thread_id=row["thread_id"])
    metadata = loads(found[0]["metadata"]) if found else {}
    if _part(metadata, binding["is"]) == binding["is"]:
        kept = {name: value for name, value in metadata.items() if name not in binding["is"]}
        yield REBIND_THREAD(thread_id=row["thread_id"], metadata=dumps({**kept, **binding["was"]}))


def _inherited(later: Row, binding: Json) -> Transaction[bool]:
    """Return whether the thread has its graph from *later*; what was before it is now what *binding* replaced."""
    kwargs = loads(later["kwargs"])
    own = kwargs.get(BINDING)
    if own is None and _part(loads(later["metadata"]), binding["is"]) != binding["is"]:
        return False  # it binds no thread
    own = own or {"was": binding["is"], "is": binding["is"]}
    if own["was"] == binding["is"] and RunStatus(later["status"]) in ACTIVE:
        yield SET_BINDING(run_id=later["run_id"], kwargs=dumps({**kwargs, BINDING: {**own, "was": binding["was"]}}))
    return True


def _part(metadata: Json, names: Mapping[str, Any]) -> dict[str, Any]:
    return {name: metadata[name] for name in names if name in metadata}
