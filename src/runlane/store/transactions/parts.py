"""Parts of documents: written once for each thread, read with their documents, and swept when nothing refers to them.

A sweep looks at all references of a thread, so that no count of references can ever be wrong. It is made while nothing
of the thread executes: an attempt relies on what it has read or written.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Final, Protocol

from runlane.documents.compression import packed, unpacked
from runlane.documents.parts import ITEM_NODE, NODE, children, is_node, split_refs
from runlane.errors import DocumentIncomplete
from runlane.store.conditions import RUNNING
from runlane.store.rows import dumps
from runlane.store.statements import Transaction, statement

#: Parts that one transaction removes, so that others need not wait long.
SWEEP_LIMIT: Final = 2000
#: Of more new parts at once none is compressed: every writer would wait for that.
_MAX_PACKED: Final = 256

_HAS_PARTS: Final = "EXISTS (SELECT 1 FROM parts WHERE thread_id = :thread_id)"
# Who writes the documents holds the thread, or its run's lease; a part is never changed.
_PUT: Final = statement(
    "parts.put",
    "INSERT INTO parts (thread_id, ref, data) VALUES (:thread_id, :ref, :data) ON CONFLICT (thread_id, ref) DO NOTHING",
)


# Each of the parts in :refs, a JSON array, is looked up by the index, whatever the planner knows of the table.
GET_PARTS: Final = statement(
    "parts.get",
    """SELECT p.ref, p.data FROM json_each(:refs) AS wanted
       CROSS JOIN parts AS p ON p.thread_id = :thread_id AND p.ref = wanted.value""",
    postgres="""SELECT p.ref, p.data FROM json_array_elements_text(CAST(:refs AS json)) AS wanted (ref)
       CROSS JOIN LATERAL (
         SELECT ref, data FROM parts WHERE thread_id = :thread_id AND ref = wanted.ref LIMIT 1) AS p""",
)
# Not NOT EXISTS, for which PostgreSQL from 16 on would rather read all parts of the thread.
_MISSING: Final = """SELECT wanted.{ref} AS ref FROM {wanted}
    WHERE (SELECT 1 FROM parts AS p WHERE p.thread_id = :thread_id AND p.ref = wanted.{ref}) IS NULL LIMIT 1"""
MISSING_PARTS: Final = statement(
    "parts.missing",
    _MISSING.format(ref="value", wanted="json_each(:refs) AS wanted"),
    postgres=_MISSING.format(ref="ref", wanted="json_array_elements_text(CAST(:refs AS json)) AS wanted (ref)"),
)
PART_REFS: Final = statement("parts.refs", "SELECT ref FROM parts WHERE thread_id = :thread_id")
_NODES: Final = statement(
    "parts.nodes",
    f"SELECT ref, data FROM parts WHERE thread_id = :thread_id AND substr(ref, 1, 1) IN ('{NODE}', '{ITEM_NODE}')",
)
#: The references of everything that a thread keeps.
_ROOTS: Final = (
    "SELECT refs FROM checkpoint_blobs WHERE thread_id = :thread_id AND refs IS NOT NULL",
    "SELECT refs FROM checkpoint_writes WHERE thread_id = :thread_id AND refs IS NOT NULL",
    "SELECT input_refs AS refs FROM runs WHERE thread_id = :thread_id AND input_refs IS NOT NULL",
    "SELECT result_refs AS refs FROM runs WHERE thread_id = :thread_id AND result_refs IS NOT NULL",
    """SELECT e.refs FROM runs AS r JOIN events AS e ON e.run_seq = r.seq AND e.refs IS NOT NULL
       WHERE r.thread_id = :thread_id""",
    "SELECT state_refs AS refs FROM threads WHERE thread_id = :thread_id AND state_refs IS NOT NULL",
)
ROOTS: Final = statement("parts.roots", " UNION ALL ".join(_ROOTS))
# While nothing of the thread executes.
_DELETE: Final = statement("parts.delete", "DELETE FROM parts WHERE thread_id = :thread_id AND ref = :ref")
# With the thread.
_DELETE_ALL: Final = statement("parts.delete_all", "DELETE FROM parts WHERE thread_id = :thread_id")
# To a thread that is being made.
_COPY: Final = statement(
    "parts.copy",
    """INSERT INTO parts (thread_id, ref, data) SELECT :target, ref, data FROM parts WHERE thread_id = :source
       ON CONFLICT (thread_id, ref) DO NOTHING""",
)
# A mark too many costs a look.
MARK_DUE: Final = statement(
    "parts.mark_due",
    f"""INSERT INTO part_sweeps (thread_id, epoch, due) SELECT CAST(:thread_id AS TEXT), 0, 1 WHERE {_HAS_PARTS}
        ON CONFLICT (thread_id) DO UPDATE SET due = 1""",
)
# Called when parts were removed. Whoever takes them for stored has the epoch of before.
NEXT_EPOCH: Final = statement(
    "parts.next_epoch",
    """INSERT INTO part_sweeps (thread_id, epoch, due) VALUES (:thread_id, 1, :due)
       ON CONFLICT (thread_id) DO UPDATE SET epoch = part_sweeps.epoch + 1, due = :due""",
)
# After a look that has found nothing.
_CLEAN: Final = statement("parts.clean", "UPDATE part_sweeps SET due = 0 WHERE thread_id = :thread_id AND due = 1")
# With the thread.
_FORGET: Final = statement("parts.forget", "DELETE FROM part_sweeps WHERE thread_id = :thread_id")
# Of a thread that only had checkpoints, and none any more.
_FORGET_EMPTY: Final = statement(
    "parts.forget_empty",
    f"""DELETE FROM part_sweeps WHERE thread_id = :thread_id AND NOT {_HAS_PARTS}
          AND NOT EXISTS (SELECT 1 FROM threads AS t WHERE t.thread_id = :thread_id)""",
)
_RUNNING_ON: Final = f"SELECT 1 FROM runs AS r WHERE r.status = {RUNNING} AND r.thread_id ="
DUE: Final = statement(
    "parts.due",
    f"""SELECT thread_id FROM part_sweeps AS s
        WHERE due = 1 AND thread_id > :after AND NOT EXISTS ({_RUNNING_ON} s.thread_id)
        ORDER BY thread_id LIMIT :limit""",
)
# Locks the thread, if it is there, and tells of one that another transaction has.
_LOCK: Final = statement(
    "parts.lock",
    "",
    postgres="""SELECT mine.thread_id IS NULL AS taken FROM threads AS t LEFT JOIN LATERAL (
          SELECT thread_id FROM threads WHERE thread_id = t.thread_id FOR UPDATE SKIP LOCKED) AS mine ON true
        WHERE t.thread_id = :thread_id""",
)
_KEY: Final = "hashtextextended(:thread_id, 0)"
# For who stores documents without a run or the thread's lock. They may rely on a part that nothing refers to yet.
SHARE_PARTS: Final = statement("parts.share", "", postgres=f"SELECT pg_advisory_xact_lock_shared({_KEY}) AS shared")
# For who removes parts or values. Lock order: thread, run, this.
HOLD_PARTS: Final = statement("parts.hold", "", postgres=f"SELECT pg_advisory_xact_lock({_KEY}) AS held")
BUSY: Final = statement("parts.busy", f"SELECT 1 AS busy WHERE EXISTS ({_RUNNING_ON} :thread_id)")


def put_parts(thread_id: str, refs: Iterable[str], parts: Mapping[str, bytes]) -> Transaction[None]:
    """Store *parts*, before the documents whose references are *refs*.

    Raises:
        DocumentIncomplete: Something that is referred to is neither there nor among *parts*; nothing is to be stored.
    """
    if parts:
        stored = _stored(parts)
        yield _PUT.many([{"thread_id": thread_id, "ref": ref, "data": data} for ref, data in stored.items()])
    wanted = {ref for ref in refs if ref not in parts}
    for ref, data in parts.items():
        if is_node(ref):
            wanted.update(child for child in children(data) if child not in parts)
    if wanted:
        missing = yield MISSING_PARTS(thread_id=thread_id, refs=dumps(list(wanted)))
        if missing:
            raise DocumentIncomplete(thread_id, missing[0]["ref"])


def _stored(parts: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """Return *parts* as they are stored. Nodes, which are hashes, do not become shorter."""
    if len(parts) > _MAX_PACKED:
        return parts
    return {ref: data if is_node(ref) else packed(data) for ref, data in parts.items()}


class Known(Protocol):
    """What a reader of parts knows already."""

    @property
    def nodes(self) -> Mapping[str, bytes]:
        """Nodes whose children it knows."""
        ...

    def __contains__(self, ref: str) -> bool: ...


class _Nothing:
    nodes: Mapping[str, bytes] = {}

    def __contains__(self, ref: str) -> bool:
        return False


#: A reader that knows nothing.
NOTHING: Final[Known] = _Nothing()


def read_parts(thread_id: str, refs: Iterable[str], known: Known = NOTHING) -> Transaction[dict[str, bytes]]:
    """Return the parts that documents consist of, but for those that are known.

    Raises:
        DocumentIncomplete: One is not there.
    """
    found: dict[str, bytes] = {}
    wanted = _unknown(refs, known, found)
    while wanted:
        rows = yield GET_PARTS(thread_id=thread_id, refs=dumps(list(wanted)))
        if len(rows) < len(wanted):
            raise DocumentIncomplete(thread_id, min(wanted - {row["ref"] for row in rows}))
        found.update({row["ref"]: unpacked(row["data"]) for row in rows})
        below = [child for row in rows if is_node(row["ref"]) for child in children(row["data"])]
        wanted = _unknown(below, known, found)
    return found


def _unknown(refs: Iterable[str], known: Known, found: Container[str]) -> set[str]:
    wanted: set[str] = set()
    for ref in refs:
        if ref in found or ref in known:
            continue
        if ref in known.nodes:
            wanted |= _unknown(children(known.nodes[ref]), known, found)
        else:
            wanted.add(ref)
    return wanted


def copy_parts(source: str, target: str) -> Transaction[None]:
    """Give another thread all parts of a thread; it is to be swept once its documents are there."""
    yield _COPY(source=source, target=target)


def delete_parts(thread_id: str) -> Transaction[None]:
    """Delete all parts of a thread, with its documents."""
    yield _DELETE_ALL(thread_id=thread_id)
    yield _FORGET(thread_id=thread_id)


def mark_due(thread_id: str) -> Transaction[None]:
    """Have a thread swept, as documents of it were removed."""
    yield MARK_DUE(thread_id=thread_id)


def due_threads(after: str, limit: int) -> Transaction[list[str]]:
    """Return threads that can be swept now, with ids above *after*, in their order."""
    rows = yield DUE(after=after, limit=limit)
    return [row["thread_id"] for row in rows]


def sweep(thread_id: str, limit: int = SWEEP_LIMIT) -> Transaction[int]:
    """Remove what nothing refers to any more, and return how many parts.

    None while a run of the thread executes, or another transaction works on the thread: it stays due.

    Args:
        limit: Of parts. If there are more, the thread stays due.
    """
    thread = yield _LOCK(thread_id=thread_id)
    if (thread and thread[0]["taken"]) or (yield BUSY(thread_id=thread_id)):
        return 0
    yield HOLD_PARTS(thread_id=thread_id)
    live = yield from referenced(thread_id)
    rows = yield PART_REFS(thread_id=thread_id)
    dead = [{"thread_id": thread_id, "ref": row["ref"]} for row in rows if row["ref"] not in live]
    if dead:
        yield _DELETE.many(dead[:limit])
        yield NEXT_EPOCH(thread_id=thread_id, due=int(len(dead) > limit))
    else:
        yield _CLEAN(thread_id=thread_id)
    if not live:
        yield _FORGET_EMPTY(thread_id=thread_id)
    return min(len(dead), limit)


def sweep_now(thread_id: str) -> Transaction[None]:
    """Sweep a thread in the transaction that removed documents of it, or copied them to it, or else later."""
    yield MARK_DUE(thread_id=thread_id)
    yield from sweep(thread_id)


def referenced(thread_id: str) -> Transaction[set[str]]:
    """Return all that the documents of a thread refer to, directly or by nodes."""
    rows = yield ROOTS(thread_id=thread_id)
    live = {ref for row in rows for ref in split_refs(row["refs"])}
    nodes = {row["ref"]: row["data"] for row in (yield _NODES(thread_id=thread_id))}
    unseen = [ref for ref in live if ref in nodes]
    while unseen:
        below = set(children(nodes[unseen.pop()])) - live
        live |= below
        unseen += [ref for ref in below if ref in nodes]
    return live
