"""Values of channels that no checkpoint names. Which ones a checkpoint names is inside it, so each is read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from runlane.checkpoints.transactions import Loads, checkpoint_in, versions_of
from runlane.doctor.findings import Finding, by
from runlane.lifecycle import RunStatus
from runlane.store.statements import Query, Transaction, statement
from runlane.store.transactions.runs import LOCK_THREAD

#: Checkpoints that are read at once.
PAGE: Final = 500
#: Keys of values that are held at once, a few MB; all checkpoints of the thread are read for each so many.
MAX_KEYS: Final = 20_000
Key = tuple[str, str, str]

# What executes may be between two of its writes.
_SETTLED = f"""EXISTS (SELECT 1 FROM threads WHERE threads.thread_id = {{id}}) AND NOT EXISTS (
  SELECT 1 FROM runs WHERE runs.thread_id = {{id}} AND runs.status = '{RunStatus.RUNNING.value}')"""
_WINDOW: Final = statement(
    "doctor.window_values",
    "SELECT thread_id FROM checkpoint_blobs WHERE thread_id > :after ORDER BY thread_id LIMIT 1",
)
IS_SETTLED: Final = statement("doctor.is_settled", f"SELECT 1 AS settled WHERE {_SETTLED.format(id=':thread_id')}")
_KEYS: Final = statement(
    "doctor.value_keys",
    """SELECT checkpoint_ns, channel, version FROM checkpoint_blobs
       WHERE thread_id = :thread_id AND (checkpoint_ns, channel, version) > (:ns, :channel, :version)
       ORDER BY checkpoint_ns, channel, version LIMIT :limit""",
)
_CHECKPOINTS: Final = statement(
    "doctor.checkpoints",
    """SELECT checkpoint_ns, checkpoint_id, seq, type, checkpoint FROM checkpoints
       WHERE thread_id = :thread_id AND (checkpoint_ns, checkpoint_id, seq) > (:ns, :checkpoint_id, :seq)
       ORDER BY checkpoint_ns, checkpoint_id, seq LIMIT :limit""",
)
_DELETE: Final = statement(
    "doctor.delete_value",
    """DELETE FROM checkpoint_blobs WHERE thread_id = :thread_id AND checkpoint_ns = :ns AND channel = :channel
         AND version = :version""",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """A thread whose values were looked at: how many there are, and how many of them no checkpoint names."""

    thread_id: str
    values: int
    unnamed: int
    unreadable: int | None = None


def serializer() -> Loads:
    """Return what reads checkpoints as the saver does, which never reads pickles."""
    return JsonPlusSerializer().loads_typed


def look_at_next(after: str, loads: Loads) -> Transaction[Looked | None]:
    """Look at the values of the first thread after *after*; ``None`` if there is none. What executes is passed over."""
    rows = yield _WINDOW(after=after)
    if not rows:
        return None
    thread_id: str = rows[0]["thread_id"]
    return (yield from look_at(thread_id, loads))


def look_at(thread_id: str, loads: Loads) -> Transaction[Looked]:
    """Look at the values of a thread, unless it executes."""
    return (yield from _look(thread_id, loads, delete=False))


def judge(looked: Looked) -> Finding | None:
    """Yield the findings about the values of a thread."""
    subject: dict[str, str | int] = {"thread": looked.thread_id}
    if looked.unreadable is not None:
        return Finding(
            code="checkpoints.unreadable",
            subject={**subject, "seq": looked.unreadable},
            meaning="A checkpoint of it cannot be decoded, so its history cannot be read.",
            repair="restore the thread from a backup, or delete it.",
        )
    if not looked.unnamed:
        return None
    return Finding(
        code="checkpoints.values",
        subject={**subject, "values": looked.unnamed},
        meaning="Values are kept that no checkpoint names: they only take room.",
        repair="they are deleted.",
        fix=by(partial(_delete_unnamed, looked.thread_id)),
    )


def _delete_unnamed(thread_id: str) -> Transaction[bool]:
    yield LOCK_THREAD(thread_id=thread_id)
    looked = yield from _look(thread_id, serializer(), delete=True)
    return looked.unnamed > 0


def _look(thread_id: str, loads: Loads, *, delete: bool) -> Transaction[Looked]:
    if not (yield IS_SETTLED(thread_id=thread_id)):
        return Looked(thread_id=thread_id, values=0, unnamed=0)
    values = unnamed = 0
    last: Key = ("", "", "")
    while True:
        rows = yield _KEYS(thread_id=thread_id, ns=last[0], channel=last[1], version=last[2], limit=MAX_KEYS)
        if not rows:
            return Looked(thread_id=thread_id, values=values, unnamed=unnamed)
        keys: list[Key] = [(row["checkpoint_ns"], row["channel"], row["version"]) for row in rows]
        left = set(keys)
        broken = yield from _take_named(thread_id, left, loads)
        if broken is not None:
            return Looked(thread_id=thread_id, values=values, unnamed=0, unreadable=broken)
        if delete and left:
            yield _delete(thread_id, left)
        values, unnamed, last = values + len(keys), unnamed + len(left), keys[-1]


def _take_named(thread_id: str, left: set[Key], loads: Loads) -> Transaction[int | None]:
    """Take from *left* what a checkpoint names; return the number of a checkpoint that cannot be decoded."""
    last: tuple[str, str, int] = ("", "", 0)
    while left:
        rows = yield _CHECKPOINTS(thread_id=thread_id, ns=last[0], checkpoint_id=last[1], seq=last[2], limit=PAGE)
        if not rows:
            break
        for row in rows:
            try:
                pairs = versions_of(checkpoint_in(row, loads))
            except (ValueError, LookupError, TypeError, NotImplementedError):  # not what the saver writes
                return int(row["seq"])
            left.difference_update((row["checkpoint_ns"], *pair) for pair in pairs)
        last = (rows[-1]["checkpoint_ns"], rows[-1]["checkpoint_id"], rows[-1]["seq"])
    return None


def _delete(thread_id: str, keys: set[Key]) -> Query:
    return _DELETE.many(
        [{"thread_id": thread_id, "ns": ns, "channel": channel, "version": version} for ns, channel, version in keys]
    )
