"""Parts that nothing refers to, and references to parts that are missing; see :mod:`runlane.documents`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from runlane.doctor.findings import Finding, by
from runlane.store.conditions import RUNNING
from runlane.store.statements import Transaction, statement
from runlane.store.transactions.parts import PART_REFS, referenced, sweep

_NEXT: Final = statement(
    "doctor.next_with_parts",
    """SELECT min(thread_id) AS thread_id FROM (
    SELECT min(thread_id) AS thread_id FROM parts WHERE thread_id > :after UNION ALL
    SELECT min(thread_id) FROM runs WHERE thread_id > :after AND (result_refs IS NOT NULL OR input_refs IS NOT NULL)
    UNION ALL
    SELECT min(thread_id) FROM checkpoint_blobs WHERE thread_id > :after AND refs IS NOT NULL) AS found""",
)
# What executes may be between two of its writes; what is due will be swept.
_THREAD: Final = statement(
    "doctor.thread_of_parts",
    f"""SELECT (SELECT 1 FROM runs WHERE thread_id = :thread_id AND status = {RUNNING}) AS executes,
          (SELECT due FROM part_sweeps WHERE thread_id = :thread_id) AS due""",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsOfThread:
    """A thread whose parts were looked at: how many it has, and what is wrong with them."""

    thread_id: str
    parts: int
    unused: int = 0
    missing: int = 0


def look_at_next(after: str) -> Transaction[PartsOfThread | None]:
    """Look at the next thread that has parts; ``None`` if there is none. What executes is passed over."""
    thread_id: str | None = (yield _NEXT(after=after))[0]["thread_id"]
    return None if thread_id is None else (yield from look_at(thread_id))


def look_at(thread_id: str) -> Transaction[PartsOfThread]:
    """Look at the parts of a thread, unless it executes."""
    [thread] = yield _THREAD(thread_id=thread_id)
    if thread["executes"]:
        return PartsOfThread(thread_id=thread_id, parts=0)
    live = yield from referenced(thread_id)
    kept = {row["ref"] for row in (yield PART_REFS(thread_id=thread_id))}
    return PartsOfThread(
        thread_id=thread_id,
        parts=len(kept),
        unused=0 if thread["due"] else len(kept - live),
        missing=len(live - kept),
    )


def judge(looked: PartsOfThread) -> Iterator[Finding]:
    """Yield the findings about the parts of a thread."""
    if looked.missing:
        yield Finding(
            code="parts.missing",
            subject={"thread": looked.thread_id, "parts": looked.missing},
            meaning="Parts of its values are missing, so a checkpoint, event or result of it cannot be read.",
            repair="restore the thread from a backup, or delete it.",
        )
    if looked.unused:
        yield Finding(
            code="parts.unused",
            subject={"thread": looked.thread_id, "parts": looked.unused},
            meaning="Parts are kept that nothing refers to: they only take room.",
            repair="they are deleted.",
            fix=by(partial(_remove_unused, looked.thread_id)),
        )


def _remove_unused(thread_id: str) -> Transaction[bool]:
    return (yield from sweep(thread_id)) > 0
