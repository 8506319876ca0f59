"""The start of an attempt."""

from __future__ import annotations

from typing import Final

from runlane.records import Claim, Claimant, Lease, StreamEvent
from runlane.requests import StoredRequest
from runlane.store.conditions import EXECUTES, HEAD_OF_LANE, RUNNING
from runlane.store.rows import dumps, lease_record
from runlane.store.statements import Row, Rows, Transaction, statement
from runlane.store.transactions.events import insert_events, last_event, start_event
from runlane.store.transactions.heads import HeadsWanted, move_head, take_heads
from runlane.store.transactions.start_order import next_order
from runlane.store.transactions.values import run_of

# Locks the thread of a run. SQLite has one writer, so that there is nothing to lock.
LOCK_LANE = statement(
    "lock_lane",
    "",
    postgres="SELECT 1 AS locked FROM threads"
    " WHERE thread_id = (SELECT thread_id FROM runs WHERE run_id = :run_id) FOR UPDATE",
)
# A thread is bare if clients see it and it has no values. The epoch of its parts is another one for a thread that was
# deleted and made again.
_OF_THREAD: Final = """(SELECT temporary = 0 AND state_values IS NULL FROM threads
          WHERE thread_id = {thread}) AS bare, (SELECT
          CAST(created_at AS TEXT) || '.' || COALESCE(
            (SELECT epoch FROM part_sweeps AS s WHERE s.thread_id = threads.thread_id), 0) FROM threads
          WHERE thread_id = {thread}) AS parts_epoch"""
_OF_ONE: Final = _OF_THREAD.format(thread="(SELECT thread_id FROM runs WHERE run_id = :run_id)")


def _claiming(which: str, *, has_code: str, of_thread: str) -> str:
    # A run keeps its place among the starts in every attempt.
    return f"""UPDATE runs SET status = {RUNNING}, attempt = attempt + 1, worker_id = :worker_id,
          lease_us = :lease_us, build = :build, claimed_at = {{now}},
          home = CASE WHEN {has_code} THEN :worker_id ELSE home END, start_order = COALESCE(start_order, :number),
          started_at = COALESCE(started_at, {{now}}), updated_at = {{now}}
        WHERE {which} AND ({has_code} OR home IS NULL) AND {HEAD_OF_LANE}
        RETURNING {{run}}, {of_thread}"""


# Guard: it is the head of its lane, has no home elsewhere, and does not go on in another build.
CLAIM_RUN = statement(
    "claim_run",
    _claiming("run_id = :run_id", has_code=":has_code = 1", of_thread=_OF_ONE),
    postgres=_claiming(
        "run_id = :run_id AND (pinned_to IS NULL OR pinned_to = :build)", has_code=":has_code = 1", of_thread=_OF_ONE
    ),
)
# Guard: the same, of each, whose groups the claimant has. Called under the locks of their threads.
_CLAIM_HEADS: Final = _claiming(
    "seq IN {seqs}", has_code="run_id IN {attached}", of_thread=_OF_THREAD.format(thread="runs.thread_id")
)
CLAIM_HEADS = statement(
    "claim_heads",
    _CLAIM_HEADS.replace("{seqs}", "(SELECT value FROM json_each(:seqs))").replace(
        "{attached}", "(SELECT value FROM json_each(:attached))"
    ),
    postgres=_CLAIM_HEADS.replace(
        "{seqs}", "(SELECT CAST(jsonb_array_elements_text(CAST(:seqs AS jsonb)) AS BIGINT))"
    ).replace("{attached}", "(SELECT jsonb_array_elements_text(CAST(:attached AS jsonb)))"),
)
# Called under the locks of the runs' threads, by whoever has claimed them.
PIN_BUILD = statement(
    "pin_build",
    "",
    postgres="""UPDATE runs SET pinned_to = :build
        WHERE seq IN (SELECT CAST(jsonb_array_elements_text(CAST(:seqs AS jsonb)) AS BIGINT))""",
)
CLAIM_OF_ADMISSION = statement(
    "claim_of_admission",
    f"""SELECT {{run}}, {_OF_ONE} FROM runs
        WHERE run_id = :run_id AND worker_id = :worker_id AND attempt = 1 AND {EXECUTES}""",
)


def claim(run_id: str, claimant: Claimant) -> Transaction[Claim | None]:
    """Start an attempt at *run_id* if it is its lane's head and nothing of the thread executes; else ``None``."""
    yield LOCK_LANE(run_id=run_id)
    claimed = yield from claim_head(run_id, claimant)
    if claimed is not None:
        yield from move_head(claimed.run.thread_id)
    return claimed


def claim_heads(wanted: HeadsWanted, claimant: Claimant) -> Transaction[tuple[tuple[Claim, ...], bool]]:
    """Start attempts at up to ``wanted.slots`` heads of lanes, each of another thread, in the order of their turns.

    ``claimant.has_code`` counts for none: the runs whose code it has are in *wanted*.

    Returns:
        The claims; and whether more might start now, as some that were chosen could not.
    """
    taken, held_back = yield from take_heads(wanted)
    rows: Rows = ()
    if taken:
        # One number for all: no two of them are of one thread.
        number = yield from next_order()
        rows = yield CLAIM_HEADS(
            seqs=dumps([head["seq"] for head in taken]),
            attached=dumps(wanted.attached),
            worker_id=claimant.worker_id,
            lease_us=int(claimant.lease_s * 1_000_000),
            build=claimant.build or None,
            number=number,
        )
    yield from _pin(rows, claimant)
    claimed = {row["seq"]: row for row in rows}
    left = [head for head in (*taken, *held_back) if head["seq"] not in claimed]
    for head in left:
        yield from move_head(head["thread_id"])
    claims = []
    for row in (claimed[head["seq"]] for head in taken if head["seq"] in claimed):
        last = (yield from last_event(row["seq"])) if row["attempt"] > 1 else 0
        claims.append((yield from _claim(row, lease_record(row), last)))
    return tuple(claims), bool(left)


def claim_head(
    run_id: str, claimant: Claimant, *, streamed: bool = False, stored: StoredRequest | None = None
) -> Transaction[Claim | None]:
    """Start an attempt at *run_id* under the lock of its thread, whose head the caller moves.

    Args:
        streamed: Also append the event of the start, which somebody waits for: it needs no commit of its own then.
        stored: The run's request, if it was read; who admitted the run and its attempt then have one copy of it.
    """
    number = yield from next_order()
    rows = yield CLAIM_RUN(
        run_id=run_id,
        worker_id=claimant.worker_id,
        lease_us=int(claimant.lease_s * 1_000_000),
        build=claimant.build or None,
        has_code=int(claimant.has_code),
        number=number,
    )
    if not rows:
        return None
    yield from _pin(rows, claimant)
    last = 0
    if rows[0]["attempt"] > 1:
        last = yield from last_event(rows[0]["seq"])
    lease = lease_record(rows[0])
    if not streamed:
        return (yield from _claim(rows[0], lease, last, stored=stored))
    start = start_event(lease, last)
    yield from insert_events(lease, [start])
    return (yield from _claim(rows[0], lease, start.seq, start, stored=stored))


def _pin(rows: Rows, claimant: Claimant) -> Transaction[None]:
    """Have claimed runs go on in the claimant's build only, if they are of such graphs."""
    pinned = [row["seq"] for row in rows if row["graph_id"] in claimant.pinned]
    if pinned:
        yield PIN_BUILD(build=claimant.build, seqs=dumps(pinned))


def claimed_before(run_id: str, claimant: Claimant, *, streamed: bool) -> Transaction[Claim | None]:
    """Return the claim that an admission made at once for *claimant*, and whose answer was lost."""
    rows = yield CLAIM_OF_ADMISSION(run_id=run_id, worker_id=claimant.worker_id)
    if not rows:
        return None
    lease = lease_record(rows[0])
    if not streamed:
        return (yield from _claim(rows[0], lease, 0))
    return (yield from _claim(rows[0], lease, 1, start_event(lease, 0)))


def _claim(
    row: Row, lease: Lease, events_end: int, start: StreamEvent | None = None, *, stored: StoredRequest | None = None
) -> Transaction[Claim]:
    return Claim(
        run=(yield from run_of(row, stored)),
        lease=lease,
        events_end=events_end,
        start=start,
        bare=bool(row["bare"]),
        parts_epoch=row["parts_epoch"],
    )
