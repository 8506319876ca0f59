"""News of many runs at once, for a process that watches what others execute: new events, and ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from runlane.records import StreamEnd, StreamEvent
from runlane.store.rows import dumps
from runlane.store.statements import Row, Transaction, statement
from runlane.store.transactions.events import events_of
from runlane.store.transactions.run_queries import DELETED, end_of
from runlane.store.transactions.values import Assembly

#: Segments of one run that are read at once.
MAX_SEGMENTS: Final = 100

_STATES: Final = """SELECT seq, thread_id, status, end_reason, events_end,
         (SELECT MAX(last_seq) FROM events WHERE run_seq = runs.seq) AS last_seq
       FROM runs WHERE seq IN """
STATES = statement(
    "news_states",
    f"{_STATES} (SELECT value FROM json_each(:run_seqs))",
    postgres=f"{_STATES} (SELECT CAST(w AS BIGINT) FROM json_array_elements_text(CAST(:run_seqs AS JSON)) AS w)",
)
_SEGMENTS: Final = """SELECT run_seq, first_seq, last_seq, frames, refs FROM (
         SELECT {columns}, SUM(LENGTH(frames)) OVER (ORDER BY {order}) - LENGTH(frames) AS size_before FROM {found}
       ) AS found WHERE size_before < :max_bytes ORDER BY run_seq, last_seq"""
# The segments of each run after its cursor, in order; all of them together have no more than so many bytes, but for the
# last one. A size is known without reading what it is of.
SEGMENTS = statement(
    "news_segments",
    _SEGMENTS.format(
        columns="e.run_seq, first_seq, last_seq, frames, refs",
        order="e.run_seq, last_seq",
        found="""json_each(:cursors) AS w CROSS JOIN events AS e
             ON e.run_seq = json_extract(w.value, '$[0]') AND last_seq > json_extract(w.value, '$[1]')""",
    ),
    postgres=_SEGMENTS.format(
        columns="w.run_seq, first_seq, last_seq, frames, refs",
        order="w.run_seq, last_seq",
        found=f"""(SELECT CAST(value ->> 0 AS BIGINT) AS run_seq, CAST(value ->> 1 AS BIGINT) AS after
                  FROM json_array_elements(CAST(:cursors AS JSON)) AS value) AS w
             CROSS JOIN LATERAL (
               SELECT first_seq, last_seq, frames, refs FROM events WHERE run_seq = w.run_seq AND last_seq > w.after
               ORDER BY last_seq LIMIT {MAX_SEGMENTS}) AS e""",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNews:
    """What has happened to a run.

    Attributes:
        events: Those after the number that was asked for, oldest first; none if it was ``None``.
        last: The number of the newest event in the run's log; 0 if there is none.
        whole: There are no more events than these, or none were wanted.
        end: The end of its stream, or ``None`` while it is active.
    """

    events: tuple[StreamEvent, ...]
    last: int
    whole: bool
    end: StreamEnd | None


def read_news(cursors: Mapping[int, int | None], max_bytes: int) -> Transaction[dict[int, RunNews]]:
    """Return the news of each run in *cursors*, by its number.

    Args:
        cursors: After which event each run is to be read; ``None``: its events are not wanted.
        max_bytes: Reading stops once there is so much; a run whose events are not all there is to be asked for again.
    """
    states: dict[int, Row] = {row["seq"]: row for row in (yield STATES(run_seqs=dumps(list(cursors))))}
    behind = [
        (run_seq, after)
        for run_seq, after in cursors.items()
        if after is not None and run_seq in states and (states[run_seq]["last_seq"] or 0) > after
    ]
    events: dict[int, list[StreamEvent]] = {}
    if behind:
        segments = yield SEGMENTS(cursors=dumps(behind), max_bytes=max_bytes)
        for run_seq, of_run in _by_run(segments).items():
            events[run_seq] = yield from _decoded(states[run_seq]["thread_id"], of_run, cursors[run_seq] or 0)
    return {run_seq: _news(states.get(run_seq), events.get(run_seq, ()), after) for run_seq, after in cursors.items()}


def _by_run(segments: Sequence[Row]) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = {}
    for segment in segments:
        found.setdefault(segment["run_seq"], []).append(segment)
    return found


def _decoded(thread_id: str, segments: Sequence[Row], after: int) -> Transaction[list[StreamEvent]]:
    refs = "".join([segment["refs"] for segment in segments if segment["refs"]])
    reading: Assembly | None = None
    if refs:
        reading = Assembly(thread_id)
        yield from reading.read(refs)
    return [event for segment in segments for event in events_of(segment, reading) if event.seq > after]


def _news(state: Row | None, events: Sequence[StreamEvent], after: int | None) -> RunNews:
    if state is None:
        return RunNews(events=(), last=0, whole=True, end=DELETED)
    last: int = state["last_seq"] or 0
    reached = events[-1].seq if events else after
    return RunNews(events=tuple(events), last=last, whole=reached is None or reached >= last, end=end_of(state))
