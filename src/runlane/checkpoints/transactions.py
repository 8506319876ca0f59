"""The SQL of checkpoints, as transactions.

Of rows that several runs wrote under one key the newest is read, and no run replaces another run's row; so taking a run
back is deleting its rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from runlane.documents.compression import unpacked
from runlane.documents.parts import split_refs
from runlane.journal.rows import CheckpointRows, Params
from runlane.store.statements import Row, Rows, Statement, Transaction, statement
from runlane.store.transactions.parts import NOTHING, Known, copy_parts, mark_due, read_parts, sweep_now

#: Reads a serialised value: ``(type, bytes)``.
Loads = Callable[[tuple[str, bytes]], Any]

_COLUMNS: Final = (
    "seq, thread_id, checkpoint_ns, checkpoint_id, run_id, parent_id, type, checkpoint, metadata_type, metadata"
)
_GET: Final = statement(
    "checkpoints.get",
    f"""
    SELECT {_COLUMNS} FROM checkpoints
    WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns AND checkpoint_id = :checkpoint_id
    ORDER BY seq DESC LIMIT 1
    """,
)
#: The newest checkpoint of a namespace, and of its rows the one that was written last.
NEWEST_FIRST: Final = "ORDER BY checkpoint_id DESC, seq DESC"
GET_LATEST: Final = statement(
    "checkpoints.get_latest",
    f"""
    SELECT {_COLUMNS} FROM checkpoints WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns
    {NEWEST_FIRST} LIMIT 1
    """,
)
_NEWEST_ID: Final = statement(
    "checkpoints.newest_id",
    """
    SELECT MAX(checkpoint_id) AS checkpoint_id FROM checkpoints
    WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns
    """,
)
GET_BLOBS: Final = statement(
    "checkpoints.get_blobs",  # :versions is a JSON array of [channel, version]
    """
    SELECT b.channel, b.version, b.type, b.value, b.refs FROM json_each(:versions) AS wanted
    CROSS JOIN checkpoint_blobs AS b ON b.thread_id = :thread_id AND b.checkpoint_ns = :checkpoint_ns
        AND b.channel = wanted.value ->> 0 AND b.version = wanted.value ->> 1
    """,
    # Each is looked up by the primary key, whatever the planner knows of the table.
    postgres="""
    SELECT b.channel, b.version, b.type, b.value, b.refs
    FROM json_array_elements(CAST(:versions AS json)) AS wanted (pair)
    CROSS JOIN LATERAL (
        SELECT channel, version, type, value, refs FROM checkpoint_blobs
        WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns
          AND channel = wanted.pair ->> 0 AND version = wanted.pair ->> 1 LIMIT 1) AS b
    """,
)
GET_WRITES: Final = statement(
    "checkpoints.get_writes",  # :checkpoint_ids is a JSON array
    """
    SELECT w.checkpoint_id, w.task_id, w.task_path, w.type, w.writes, w.refs FROM json_each(:checkpoint_ids) AS wanted
    CROSS JOIN checkpoint_writes AS w ON w.thread_id = :thread_id AND w.checkpoint_ns = :checkpoint_ns
        AND w.checkpoint_id = wanted.value
    ORDER BY w.seq
    """,
    postgres="""
    SELECT w.checkpoint_id, w.task_id, w.task_path, w.type, w.writes, w.refs
    FROM json_array_elements_text(CAST(:checkpoint_ids AS json)) AS wanted (checkpoint_id)
    CROSS JOIN LATERAL (
        SELECT checkpoint_id, seq, task_id, task_path, type, writes, refs FROM checkpoint_writes
        WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns AND checkpoint_id = wanted.checkpoint_id
        ORDER BY seq LIMIT ALL OFFSET 0) AS w
    ORDER BY w.seq
    """,
)
_CALLS: Final = "SELECT run_id, task_id, task_path, type, writes, refs FROM checkpoint_writes"
WRITTEN: Final = statement(
    "checkpoints.written",
    f"""
    {_CALLS} WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns AND checkpoint_id = :checkpoint_id
    ORDER BY seq
    """,
)
_WRITTEN_IN: Final = statement(
    "checkpoints.written_in",  # a namespace
    f"{_CALLS} WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns ORDER BY checkpoint_id, seq",
)
_WRITTEN_BY: Final = statement(
    "checkpoints.written_by",
    f"{_CALLS} WHERE thread_id = :thread_id AND run_id = :run_id ORDER BY checkpoint_ns, checkpoint_id, seq",
)


def _list(name: str, where: str) -> Statement:
    """Newest first, below the cursor (:before_id, :before_seq), as far as :least_id."""
    return statement(
        name,
        f"""
        SELECT {_COLUMNS} FROM checkpoints
        WHERE {where} checkpoint_id <= :before_id AND (checkpoint_id < :before_id OR seq < :before_seq)
          AND checkpoint_id >= :least_id
        {NEWEST_FIRST} LIMIT :page
        """,
    )


_LIST_ALL: Final = _list("checkpoints.list_all", "")
_LIST_THREAD: Final = _list("checkpoints.list_thread", "thread_id = :thread_id AND")
_LIST_NAMESPACE: Final = _list(
    "checkpoints.list_namespace", "thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns AND"
)
_NAMESPACES: Final = statement(
    "checkpoints.namespaces",  # goes from each namespace to the next, whatever the number of checkpoints
    """
    WITH RECURSIVE found (checkpoint_ns) AS (
        SELECT min(checkpoint_ns) FROM checkpoints WHERE thread_id = :thread_id
        UNION ALL
        SELECT (SELECT min(c.checkpoint_ns) FROM checkpoints AS c
                WHERE c.thread_id = :thread_id AND c.checkpoint_ns > found.checkpoint_ns)
        FROM found WHERE found.checkpoint_ns IS NOT NULL)
    SELECT checkpoint_ns FROM found WHERE checkpoint_ns IS NOT NULL
    """,
)
_THREADS_OF_RUNS: Final = statement(
    "checkpoints.threads_of_runs",  # :run_ids is a JSON array; looks at every checkpoint
    """
    SELECT thread_id FROM checkpoints WHERE run_id IN {listed :run_ids}
    UNION SELECT thread_id FROM checkpoint_writes WHERE run_id IN {listed :run_ids}
    """,
)
_OF_RUNS = "thread_id = :thread_id AND run_id IN {listed :run_ids}"
CHECKPOINTS_OF_RUNS: Final = statement(
    "checkpoints.of_runs", f"SELECT seq, checkpoint_ns, checkpoint_id FROM checkpoints WHERE {_OF_RUNS}"
)
_DELETE_OF_RUNS: Final = tuple(
    statement(f"checkpoints.delete_{table}_of_runs", f"DELETE FROM {table} WHERE {_OF_RUNS}")
    for table in ("checkpoints", "checkpoint_writes")
)
DELETE_ORPHANED_WRITES: Final = statement(
    "checkpoints.delete_orphaned_writes",  # what other runs attached to a checkpoint that is gone
    """
    DELETE FROM checkpoint_writes
    WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns AND checkpoint_id = :checkpoint_id
      AND NOT EXISTS (
        SELECT 1 FROM checkpoints AS c WHERE c.thread_id = :thread_id AND c.checkpoint_ns = :checkpoint_ns
          AND c.checkpoint_id = :checkpoint_id)
    """,
)
_DELETE_BLOBS_OF_RUNS: Final = statement(
    "checkpoints.delete_blobs_of_runs",  # guard: no checkpoint that was stored later remains; it might use them
    f"""
    DELETE FROM checkpoint_blobs
    WHERE {_OF_RUNS} AND checkpoint_ns = :checkpoint_ns AND NOT EXISTS (
        SELECT 1 FROM checkpoints AS c WHERE c.thread_id = :thread_id AND c.checkpoint_ns = :checkpoint_ns
          AND c.seq > :first_seq)
    """,
)
_DELETE_THREAD: Final = tuple(
    statement(f"checkpoints.delete_{table}_of_thread", f"DELETE FROM {table} WHERE thread_id = :thread_id")
    for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
)

#: Each table's columns without the thread, the run, and the checkpoints' numbers.
_ROW: Final = {
    "checkpoints": "checkpoint_ns, checkpoint_id, parent_id, type, checkpoint, metadata_type, metadata",
    "checkpoint_blobs": "checkpoint_ns, channel, version, type, value, refs",
    "checkpoint_writes": "checkpoint_ns, checkpoint_id, seq, task_id, task_path, type, writes, refs",
}


def _copy(table: str, *, numbers: str = "", otherwise: str = "REPLACE") -> Statement:
    """Copy rows that belong to no run then: taking back a run of the source leaves them alone.

    On SQLite checkpoints get new *numbers*; on PostgreSQL all rows keep theirs, which only have to differ in a thread.
    """
    into = f"INTO {table} (thread_id, run_id, {_ROW[table]}"
    copied = f"SELECT :target, '', {_ROW[table]}"
    source = f"FROM {table} WHERE thread_id = :source"
    return statement(
        f"checkpoints.copy_{table}",
        f"INSERT OR {otherwise} {into}) {copied} {source}{' ORDER BY seq' if numbers else ''}",
        postgres=f"INSERT {into}{numbers}) OVERRIDING SYSTEM VALUE {copied}{numbers} {source} ON CONFLICT DO NOTHING",
    )


_COPY: Final = (
    _copy("checkpoints", numbers=", seq"),
    _copy("checkpoint_blobs", otherwise="IGNORE"),
    _copy("checkpoint_writes"),
)
_ROWS_OF_THREAD: Final = tuple(
    statement(
        f"checkpoints.rows_of_{table}",
        f"SELECT thread_id, run_id, {_ROW[table]} FROM {table} WHERE thread_id = :thread_id ORDER BY {order}",
    )
    for table, order in (("checkpoints", "seq"), ("checkpoint_blobs", "channel"), ("checkpoint_writes", "seq"))
)
#: Greater than every checkpoint id: where a listing begins.
LAST: Final = "\U0010ffff"
_LAST_SEQ: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A checkpoint as it is stored; the bodies of the checkpoint and its metadata are loaded, the rest is not.

    ``blobs`` has the rows of its channels (and may have others); ``writes`` the calls of put_writes in their order;
    ``parts`` what their documents consist of, but for what the reader knew.
    """

    row: Row
    checkpoint: dict[str, Any]
    metadata: dict[str, Any]
    blobs: Mapping[tuple[str, str], Row]
    writes: Sequence[Row]
    parts: Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A filter on checkpoints; ``None`` does not restrict. The cursor is exclusive."""

    thread_id: str | None = None
    checkpoint_ns: str | None = None
    checkpoint_id: str | None = None
    metadata: Params = field(default_factory=dict)
    before_id: str = LAST
    before_seq: int = 0

    @classmethod
    def of(cls, config: Params | None, metadata: Params | None, before: Params | None) -> Wanted:
        """Return what a saver's listing asks for by a config, metadata to hold, and a checkpoint to begin at."""
        at = config["configurable"] if config else {}
        before_id = before["configurable"].get("checkpoint_id") if before else None
        thread_id = at.get("thread_id")
        return cls(
            thread_id=None if thread_id is None else str(thread_id),
            checkpoint_ns=at.get("checkpoint_ns"),
            checkpoint_id=at.get("checkpoint_id") or None,
            metadata=metadata or {},
            before_id=before_id or LAST,
        )


def rows_of(thread_id: str) -> Transaction[CheckpointRows]:
    """Return all that is stored of a thread, to be written elsewhere."""
    found: list[list[Params]] = []
    for rows_of_table in _ROWS_OF_THREAD:
        rows = yield rows_of_table(thread_id=thread_id)
        found.append([_unpacked_row(row) for row in rows])
    parts = yield from parts_of([*found[1], *found[2]], thread_id, NOTHING)
    return CheckpointRows(checkpoints=found[0], blobs=found[1], writes=found[2], parts={thread_id: parts})


def _unpacked_row(row: Row) -> Params:
    return {name: unpacked(value) if isinstance(value, bytes) else value for name, value in row.items()}


def get(
    thread_id: str, checkpoint_ns: str, checkpoint_id: str | None, loads: Loads, known: Known | None = None
) -> Transaction[Stored | None]:
    """Return one checkpoint, the latest if no id is given; without *known*, the parts of its values are not read."""
    row = yield from find(thread_id, checkpoint_ns, checkpoint_id)
    if row is None:
        return None
    stored = yield from _complete([row], loads, known)
    return stored[0]


def find(thread_id: str, checkpoint_ns: str, checkpoint_id: str | None) -> Transaction[Row | None]:
    """Return the row of a checkpoint, the latest if no id is given."""
    if checkpoint_id:
        rows = yield _GET(thread_id=thread_id, checkpoint_ns=checkpoint_ns, checkpoint_id=checkpoint_id)
    else:
        rows = yield GET_LATEST(thread_id=thread_id, checkpoint_ns=checkpoint_ns)
    return rows[0] if rows else None


def newest_id(thread_id: str, checkpoint_ns: str) -> Transaction[str | None]:
    """Return the greatest id of a checkpoint in a namespace."""
    rows = yield _NEWEST_ID(thread_id=thread_id, checkpoint_ns=checkpoint_ns)
    newest: str | None = rows[0]["checkpoint_id"]
    return newest


def namespaces(thread_id: str) -> Transaction[list[str]]:
    """Return the namespaces in which a thread has checkpoints."""
    rows = yield _NAMESPACES(thread_id=thread_id)
    return [row["checkpoint_ns"] for row in rows]


def written(
    thread_id: str, checkpoint_ns: str, checkpoint_id: str | None, known: Known
) -> Transaction[tuple[Rows, Mapping[str, bytes]]]:
    """Return the calls of put_writes on a checkpoint, or on all of a namespace, in their order, and their parts."""
    place = {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns}
    if checkpoint_id is None:
        rows = yield _WRITTEN_IN(**place)
    else:
        rows = yield WRITTEN(**place, checkpoint_id=checkpoint_id)
    return rows, (yield from parts_of(rows, thread_id, known))


def written_by(thread_id: str, run_id: str, known: Known) -> Transaction[tuple[Rows, Mapping[str, bytes]]]:
    """Return the calls of put_writes that a run made on a thread, and their parts."""
    rows = yield _WRITTEN_BY(thread_id=thread_id, run_id=run_id)
    return rows, (yield from parts_of(rows, thread_id, known))


def parts_of(rows: Iterable[Row], thread_id: str, known: Known | None) -> Transaction[dict[str, bytes]]:
    """Return the parts of the documents in *rows*; none is read without *known*."""
    texts = [row["refs"] for row in rows if row["refs"] is not None]
    if known is None or not texts:
        return {}
    return (yield from read_parts(thread_id, split_refs("".join(texts)), known))


def page(wanted: Wanted, size: int, loads: Loads, known: Known) -> Transaction[tuple[list[Stored], Wanted | None]]:
    """Return the checkpoints among the next *size* rows that match, and where to go on, if there may be more."""
    listing = _LIST_ALL if wanted.thread_id is None else _LIST_THREAD
    if wanted.checkpoint_ns is not None and wanted.thread_id is not None:
        listing = _LIST_NAMESPACE
    before = (wanted.before_id, wanted.before_seq)
    if wanted.checkpoint_id is not None and wanted.checkpoint_id < wanted.before_id:
        before = (wanted.checkpoint_id, _LAST_SEQ)
    rows = yield listing(
        thread_id=wanted.thread_id,
        checkpoint_ns=wanted.checkpoint_ns,
        least_id=wanted.checkpoint_id or "",
        before_id=before[0],
        before_seq=before[1],
        page=size,
    )
    matching = [row for row in rows if _matches(row, wanted, loads)]
    stored = yield from _complete(matching, loads, known)
    if len(rows) < size:
        return stored, None
    return stored, replace(wanted, before_id=rows[-1]["checkpoint_id"], before_seq=rows[-1]["seq"])


def _matches(row: Row, wanted: Wanted, loads: Loads) -> bool:
    if wanted.checkpoint_ns is not None and row["checkpoint_ns"] != wanted.checkpoint_ns:
        return False
    if not wanted.metadata:
        return True
    metadata = metadata_in(row, loads)
    return all(metadata.get(key) == value for key, value in wanted.metadata.items())


def _complete(rows: Rows, loads: Loads, known: Known | None) -> Transaction[list[Stored]]:
    """Load what belongs to each checkpoint, with two statements for each thread and namespace among *rows*."""
    loaded = [(row, checkpoint_in(row, loads)) for row in rows]
    groups: dict[tuple[str, str], list[tuple[Row, dict[str, Any]]]] = defaultdict(list)
    for row, checkpoint in loaded:
        groups[row["thread_id"], row["checkpoint_ns"]].append((row, checkpoint))
    blobs: dict[tuple[str, str], dict[tuple[str, str], Row]] = {}
    writes: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    parts: dict[tuple[str, str], Mapping[str, bytes]] = {}
    for (thread_id, checkpoint_ns), members in groups.items():
        key = {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns}
        versions = {pair for _, checkpoint in members for pair in versions_of(checkpoint)}
        found = yield GET_BLOBS(**key, versions=json_list(versions))
        blobs[thread_id, checkpoint_ns] = {(blob["channel"], blob["version"]): blob for blob in found}
        calls = yield GET_WRITES(**key, checkpoint_ids=json_list({row["checkpoint_id"] for row, _ in members}))
        parts[thread_id, checkpoint_ns] = yield from parts_of([*found, *calls], thread_id, known)
        for row in calls:
            writes[thread_id, checkpoint_ns, row["checkpoint_id"]].append(row)
    return [
        Stored(
            row=row,
            checkpoint=checkpoint,
            metadata=metadata_in(row, loads),
            blobs=blobs[row["thread_id"], row["checkpoint_ns"]],
            writes=writes.get((row["thread_id"], row["checkpoint_ns"], row["checkpoint_id"]), ()),
            parts=parts[row["thread_id"], row["checkpoint_ns"]],
        )
        for row, checkpoint in loaded
    ]


def checkpoint_in(row: Row, loads: Loads) -> dict[str, Any]:
    """Return the body of the checkpoint in *row*.

    Raises:
        ValueError: It is damaged; *loads* may raise other errors.
    """
    found: dict[str, Any] = loads((row["type"], unpacked(row["checkpoint"])))
    return found


def metadata_in(row: Row, loads: Loads) -> dict[str, Any]:
    """Return the metadata of the checkpoint in *row*, as :func:`checkpoint_in` does."""
    found: dict[str, Any] = loads((row["metadata_type"], unpacked(row["metadata"])))
    return found


def versions_of(checkpoint: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Return the channels of *checkpoint*, each with its version as it is stored."""
    return [(channel, str(version)) for channel, version in checkpoint["channel_versions"].items()]


def delete_runs(thread_id: str, run_ids: Sequence[str]) -> Transaction[None]:
    """Take back what these runs wrote on a thread, so that it reads as before the first of them.

    That is their checkpoints, the channel values in them, and the writes which they attached to checkpoints of others.
    A value stays if a checkpoint that was stored later, by another run, remains and may use it.
    """
    params = {"thread_id": thread_id, "run_ids": json_list(run_ids)}
    gone = yield CHECKPOINTS_OF_RUNS(**params)
    for delete in _DELETE_OF_RUNS:
        yield delete(**params)
    first: dict[str, int] = {}
    for row in gone:
        first[row["checkpoint_ns"]] = min(row["seq"], first.get(row["checkpoint_ns"], row["seq"]))
    if gone:
        yield DELETE_ORPHANED_WRITES.many(
            [{**params, "checkpoint_ns": row["checkpoint_ns"], "checkpoint_id": row["checkpoint_id"]} for row in gone]
        )
        yield _DELETE_BLOBS_OF_RUNS.many(
            [{**params, "checkpoint_ns": ns, "first_seq": seq} for ns, seq in first.items()]
        )
    yield from mark_due(thread_id)


def delete_runs_everywhere(run_ids: Sequence[str]) -> Transaction[None]:
    """Take these runs back on whatever threads they have checkpointed; looks through all of them."""
    threads = yield _THREADS_OF_RUNS(run_ids=json_list(run_ids))
    for row in threads:
        yield from delete_runs(row["thread_id"], run_ids)


def delete_thread(thread_id: str) -> Transaction[None]:
    """Delete all checkpoints of a thread."""
    for delete in _DELETE_THREAD:
        yield delete(thread_id=thread_id)
    yield from mark_due(thread_id)


def copy_rows(source: str, target: str) -> Transaction[None]:
    """Copy all checkpoints of a thread to another, which has the parts of their values."""
    for copy in _COPY:
        yield copy(source=source, target=target)


def copy_thread(source: str, target: str) -> Transaction[None]:
    """Copy all checkpoints of a thread to another."""
    yield from copy_parts(source, target)
    yield from copy_rows(source, target)
    yield from sweep_now(target)


def json_list(values: Iterable[Any]) -> str:
    """Return *values* as a JSON array, which is how a list is bound to a statement."""
    return orjson.dumps(list(values)).decode()
