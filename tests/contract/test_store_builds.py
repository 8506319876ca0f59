"""Builds of workers: runs of some graphs go on in the build in which they began, and what nobody can run is seen."""

from __future__ import annotations

from typing import Any

import pytest

from ledger_kit import a_run, admit, finish, held, waiting
from runlane.leases import WorkerState
from runlane.lifecycle import RunEvent
from runlane.outcomes import Snapshot
from runlane.records import ANY_OWNER, NO_OWNER, Claim, Claimant, Finished
from runlane.store.drivers.postgres import PostgresDriver
from runlane.store.ledger import RunStore
from runlane.store.transactions.fleet import Stranded
from runlane.store.transactions.heads import OF_BUILD, HeadsWanted

GRAPH = {"graph_id": "g"}


def of_build(build: str, *, pinned: bool = True) -> Claimant:
    """Give a worker of *build* whose graph goes on in the same build only."""
    return Claimant(worker_id=build, lease_s=60, has_code=False, build=build, pinned=("g",) if pinned else ())


async def claims(store: RunStore, build: str, *, pinned: bool = True) -> tuple[Claim, ...]:
    groups = {"g": "g", f"g{OF_BUILD}{build}": "g"}
    found, _ = await store.attempts.claim_heads(HeadsWanted(slots=9, groups=groups), of_build(build, pinned=pinned))
    return found


async def claimed(store: RunStore, build: str, *, pinned: bool = True) -> list[str]:
    return [claim.run.run_id for claim in await claims(store, build, pinned=pinned)]


@pytest.fixture
def shared(store: RunStore) -> RunStore:
    """Give a ledger that workers of more than one build can share."""
    if not isinstance(store.driver, PostgresDriver):
        pytest.skip("one process has one build")
    return store


async def test_a_run_goes_on_in_the_build_in_which_it_began(shared: RunStore) -> None:
    run_id = await admit(shared, kwargs=GRAPH)
    following = await admit(shared, kwargs=GRAPH)
    assert await claimed(shared, "old") == [run_id]
    await shared.attempts.rescue(await held(shared, run_id), max_rescues=1)
    assert await claimed(shared, "new") == []
    assert await claimed(shared, "old") == [run_id]
    await shared.attempts.rescue(await held(shared, run_id), max_rescues=0)
    assert await claimed(shared, "new") == [following], "a run that has not begun is of no build"


async def test_a_run_that_may_goes_on_in_any_build(shared: RunStore) -> None:
    run_id = await admit(shared, kwargs=GRAPH)
    assert await claimed(shared, "old", pinned=False) == [run_id]
    await shared.attempts.rescue(await held(shared, run_id), max_rescues=1)
    assert await claimed(shared, "new") == [run_id]


async def test_an_answer_goes_on_in_the_build_that_asked(shared: RunStore) -> None:
    answer = {**GRAPH, "command": {"resume": 1}}
    await admit(shared, kwargs=GRAPH)
    [asking] = await claims(shared, "old")
    state = Snapshot(values=b"{}", interrupts={"task": [{"id": "i", "value": 1}]}, paused=True)
    await finish(shared, asking.lease, RunEvent.PAUSE, state=state)
    await shared.threads.copy("t", "copy", reads=ANY_OWNER, owner=NO_OWNER, metadata={})
    at_once = await shared.runs.admit(a_run(kwargs=answer), claimant=of_build("new"))
    assert at_once.claim is None
    answers = {at_once.run.run_id, await admit(shared, "copy", kwargs=answer)}
    assert await claimed(shared, "new") == []
    assert set(await claimed(shared, "old")) == answers


@pytest.mark.parametrize(
    "waits", [{**GRAPH, "command": {"resume": 1}}, {**GRAPH, "input": {"n": 1}}], ids=["answer", "input"]
)
async def test_an_answer_that_waits_while_the_run_executes_goes_on_in_the_build_that_asks(
    shared: RunStore, waits: dict[str, Any]
) -> None:
    await admit(shared, kwargs=GRAPH)
    [asking] = await claims(shared, "old")
    waiting = await admit(shared, kwargs=waits)
    done = await finish(shared, asking.lease, RunEvent.PAUSE, state=Snapshot(values=b"{}", paused=True))
    assert isinstance(done, Finished)
    assert done.next_run is not None
    assert done.next_run.run_id == waiting
    builds = {"new": [], "old": [waiting]} if "command" in waits else {"new": [waiting]}
    for build, found in builds.items():
        assert await claimed(shared, build) == found


async def test_what_does_not_answer_an_interrupt_begins_in_any_build(shared: RunStore) -> None:
    await admit(shared, kwargs=GRAPH)
    [first] = await claims(shared, "old")
    await finish(shared, first.lease, RunEvent.PAUSE, state=Snapshot(values=b"{}", paused=True))
    fresh = await admit(shared, kwargs={**GRAPH, "input": {"n": 1}})
    [second] = await claims(shared, "new")
    assert second.run.run_id == fresh
    await finish(shared, second.lease, state=Snapshot(values=b"{}"))
    following = await admit(shared, kwargs=GRAPH)
    assert await claimed(shared, "newest") == [following], "nothing waits for an answer any more"


async def test_what_no_worker_can_execute_is_seen_and_does_not_fail(shared: RunStore) -> None:
    run_id = await admit(shared, kwargs=GRAPH)
    unknown = await admit(shared, "u", kwargs={"graph_id": "unknown"})
    await admit(shared, "v", kwargs={"graph_id": "unknown"})
    assert await claimed(shared, "old") == [run_id]
    await shared.attempts.rescue(await held(shared, run_id), max_rescues=1)
    new = WorkerState(worker_id="w", lease_s=60, build="new", capacity=3, groups=("g", f"g{OF_BUILD}new"))
    await shared.workers.beat(new)
    oldest_at = [(await shared.runs.get(run_id, owner=ANY_OWNER)).created_at for run_id in (run_id, unknown)]
    fleet = await shared.workers.fleet()
    assert fleet.stranded == (
        Stranded(graph_id="g", build="old", threads=1, oldest_at=oldest_at[0]),
        Stranded(graph_id="unknown", build=None, threads=2, oldest_at=oldest_at[1]),
    )
    [worker] = fleet.workers
    assert (worker.build, worker.capacity, worker.state, worker.graphs) == ("new", 3, "ready", ("g",))


async def test_only_runs_that_more_workers_could_execute_ask_for_them(shared: RunStore) -> None:
    forgotten = await admit(shared, kwargs=GRAPH)
    assert await claimed(shared, "old") == [forgotten]
    await shared.attempts.rescue(await held(shared, forgotten), max_rescues=1)
    await waiting(shared, forgotten, 900)

    async def asked_s() -> list[float]:
        stats = await shared.queue.stats()
        return [stats.unblocked_wait_max_s, stats.no_build_wait_max_s]

    async def worker(build: str, **changes: Any) -> None:
        given = {"capacity": 1, **changes}
        await shared.workers.beat(WorkerState(worker_id=build, lease_s=60, build=build, groups=("g",), **given))

    assert await asked_s() == pytest.approx([900, 0], abs=5), "a deployment that is scaled to zero is scaled up"
    await worker("api", capacity=0)
    assert await asked_s() == pytest.approx([900, 0], abs=5)
    await worker("new")
    await worker("old", draining=True)
    assert await asked_s() == pytest.approx([0, 900], abs=5)
    await waiting(shared, await admit(shared, "other", kwargs={"graph_id": "nobody has it"}), 300)
    assert await asked_s() == pytest.approx([300, 900], abs=5)
    await worker("old")
    assert await asked_s() == pytest.approx([900, 0], abs=5)


async def test_who_can_execute_a_pending_run_is_told_by_graph_build_and_home(shared: RunStore) -> None:
    begun = await admit(shared, kwargs=GRAPH)
    assert await claimed(shared, "old") == [begun]
    assert await shared.workers.executors(begun) is None, "it does not wait"
    await shared.attempts.rescue(await held(shared, begun), max_rescues=1)
    new = await admit(shared, "u", kwargs=GRAPH)
    at_home = await admit(shared, "v", home="app")
    for worker in (
        WorkerState(worker_id="old", lease_s=60, build="1", capacity=3, groups=("g", f"g{OF_BUILD}1")),
        WorkerState(worker_id="new", lease_s=60, build="2", capacity=3, groups=("g", f"g{OF_BUILD}2")),
        WorkerState(worker_id="stops", lease_s=60, build="old", draining=True, groups=("g", f"g{OF_BUILD}old")),
        WorkerState(worker_id="api", lease_s=60, capacity=0, groups=("g",)),
        WorkerState(worker_id="app", lease_s=60, capacity=1, groups=()),
    ):
        await shared.workers.beat(worker)

    async def able(run_id: str) -> set[str]:
        found = await shared.workers.executors(run_id)
        assert found is not None
        assert len(found.able) + len(found.others) == 5
        return {worker.worker_id for worker in found.able}

    assert await able(begun) == set()
    assert await able(new) == {"old", "new"}
    assert await able(at_home) == {"app"}


async def test_a_worker_is_shown_with_its_runs_and_state(store: RunStore) -> None:
    await admit(store, kwargs=GRAPH)
    await claimed(store, "b")
    await store.workers.beat(WorkerState(worker_id="b", lease_s=60, capacity=2))
    await store.workers.beat(WorkerState(worker_id="c", lease_s=60, draining=True))
    await store.workers.beat(WorkerState(worker_id="d", lease_s=-1))
    fleet = await store.workers.fleet()
    assert {worker.worker_id: (worker.running, worker.state) for worker in fleet.workers} == {
        "b": (1, "ready"),
        "c": (0, "draining"),
        "d": (0, "silent"),
    }
