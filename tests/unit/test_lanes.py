"""Which transaction is next on PostgreSQL: one of each lane at a time, lanes in turn, urgent ones past all others."""

from __future__ import annotations

import pytest

from runlane.errors import LedgerClosed
from runlane.store.drivers.delivery import Submission
from runlane.store.drivers.lanes import Job, Lanes, Server, lane_of
from runlane.store.statements import Query, Statement, Transaction, statement

WRITE = statement("write", "UPDATE runs SET owner = :owner WHERE run_id = :run_id")
LOCK = statement("lock", "SELECT 1 FROM threads WHERE thread_id = :thread_id")


def nothing() -> Transaction[None]:
    yield WRITE()


def job(lane: str | None = None, *, urgent: bool = False, begins_with: Statement = WRITE, writes: bool = True) -> Job:
    submission = Submission(nothing(), None, lambda result, error: None)
    return Job(submission=submission, begins_with=begins_with, writes=writes, lane=lane, urgent=urgent)


def put(lanes: Lanes, *jobs: Job) -> None:
    for one in jobs:
        lanes.put(one)


def test_one_of_a_lane_runs_at_a_time_and_they_keep_their_order() -> None:
    lanes, server = Lanes(max_reads=1), Server(urgent_only=False)
    first, second, third = (job("a") for _ in range(3))
    put(lanes, first, second, third)
    for one in (first, second, third):
        assert lanes.take(server) is one
        lanes.done(one)
    lanes.close()
    assert lanes.take(server) is None


def test_lanes_take_turns_and_a_busy_one_holds_up_nobody() -> None:
    lanes, server, other = Lanes(max_reads=1), Server(urgent_only=False), Server(urgent_only=False)
    a, b = [job("a") for _ in range(3)], job("b")
    put(lanes, *a, b)
    assert lanes.take(server) is a[0]
    assert lanes.take(other) is b
    lanes.done(a[0])
    late = job("c")
    lanes.put(late)
    assert [lanes.take(server), lanes.take(other)] == [a[1], late]


def test_reads_and_others_without_a_lane_wait_for_nobody() -> None:
    lanes, servers = Lanes(max_reads=1), [Server(urgent_only=False) for _ in range(3)]
    jobs = [job() for _ in servers]
    put(lanes, *jobs)
    assert [lanes.take(server) for server in servers] == jobs


def test_so_many_reads_run_at_once_and_writes_pass_those_that_wait() -> None:
    lanes, servers = Lanes(max_reads=2), [Server(urgent_only=False) for _ in range(4)]
    reads, write = [job(writes=False) for _ in range(4)], job()
    urgent = job(writes=False, urgent=True)
    put(lanes, *reads, write, urgent)
    assert [lanes.take(server) for server in servers] == [urgent, *reads[:2], write]
    lanes.done(write)
    lanes.done(urgent)
    late = job()
    lanes.put(late)
    assert lanes.take(servers[0]) is late, "writes and urgent reads let no other read go on"
    assert lanes.drop(reads[2])
    lanes.done(reads[0])
    assert lanes.take(servers[1]) is reads[2]
    assert not lanes.begin(reads[2])
    lanes.done(reads[2])
    assert lanes.take(servers[1]) is reads[3]
    lanes.close()
    assert lanes.take(servers[2]) is None


def test_urgent_ones_go_first_and_some_servers_take_nothing_else() -> None:
    lanes, reserved, server = Lanes(max_reads=1), Server(urgent_only=True), Server(urgent_only=False)
    usual, urgent = [job(), job()], [job(urgent=True), job(urgent=True)]
    put(lanes, *usual, *urgent)
    assert [lanes.take(reserved), lanes.take(server), lanes.take(server)] == [*urgent, usual[0]]
    lanes.close()
    assert lanes.take(reserved) is None, "the usual one is not for it"
    assert lanes.take(server) is usual[1], "what was accepted is run before the end"


def test_what_was_dropped_is_not_begun_and_what_has_begun_is_not_dropped() -> None:
    lanes, server = Lanes(max_reads=1), Server(urgent_only=False)
    dropped, begun = job("a"), job("a")
    put(lanes, dropped, begun)
    assert lanes.drop(dropped)
    assert lanes.take(server) is dropped
    assert not lanes.begin(dropped)
    lanes.done(dropped)
    assert lanes.take(server) is begun
    assert lanes.begin(begun)
    assert not lanes.drop(begun)


def test_jobs_of_a_lane_that_begin_alike_join_the_first_of_them_in_their_order() -> None:
    lanes, server = Lanes(max_reads=1), Server(urgent_only=False)
    first, second, dropped, third, unlike = job("a"), job("a"), job("a"), job("a"), job("a", begins_with=LOCK)
    put(lanes, first, second, dropped, job("b"), unlike, third)
    assert lanes.take(server) is first
    assert lanes.begin(first)
    assert lanes.drop(dropped)
    assert lanes.join(first) is second
    assert not lanes.drop(second), "it has begun"
    assert lanes.join(first) is None, "the next one waits for another lock first"
    lanes.done(first)
    lanes.take(server)
    assert lanes.take(server) is unlike
    assert lanes.join(unlike) is None
    lanes.done(unlike)
    assert lanes.take(server) is third
    assert lanes.join(third) is None
    assert lanes.join(job()) is None, "what has no lane waits for nobody's lock"


def test_nothing_is_accepted_after_the_end() -> None:
    lanes = Lanes(max_reads=1)
    lanes.close()
    with pytest.raises(LedgerClosed):
        lanes.put(job())


@pytest.mark.parametrize(
    ("query", "lane"),
    [
        (WRITE(thread_id="t", run_id="r"), "t"),
        (WRITE(run_id="r"), "r"),
        (WRITE(owner="o"), None),
        (WRITE.many([{"thread_id": "t"}]), None),
    ],
)
def test_a_lane_is_the_thread_or_else_the_run_that_the_first_statement_names(query: Query, lane: str | None) -> None:
    assert lane_of(query) == lane
