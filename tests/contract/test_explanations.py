"""Explanations of every history that the table of moves allows, made on real ledgers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from ledger_kit import A_WORKER, WORKER, admit, claim, finish, held
from runlane.errors import RunlaneError
from runlane.lifecycle import ACTIVE, MOVES, CancelAction, CancelSource, EndReason, HandBack, RunEvent, RunStatus
from runlane.records import ANY_OWNER, Lease, RunError
from runlane.runs.explaining import Explanation, explain
from runlane.settings import Limits
from runlane.store.drivers.memory import MemoryDriver
from runlane.store.ledger import RunStore
from runlane.store.migrate import apply_scripts

#: Moves of a history: enough for three attempts, a cancel at any time, and an end.
LONGEST = 8
ERROR = RunError(error="ValueError", message="canary")
#: The moves of a run whose cancel was recorded; for all others the ledger answers the receipt.
AFTER_A_CANCEL = {RunEvent.CLAIM, RunEvent.STOP, RunEvent.RESCUE, RunEvent.GIVE_UP}
Path = tuple[RunEvent, ...]


def _paths(status: RunStatus = RunStatus.PENDING, so_far: Path = ()) -> Iterator[Path]:
    """Yield every sequence of moves from *status*, with one cancel at most, however far it has come."""
    yield so_far
    if status not in ACTIVE or len(so_far) == LONGEST:
        return
    for (before, event), after in MOVES.items():
        if before is not status or (RunEvent.CANCEL in so_far and event not in AFTER_A_CANCEL):
            continue
        # Once it has begun its cancel is recorded, and an attempt has to end it.
        recorded = event is RunEvent.CANCEL and RunEvent.CLAIM in so_far
        yield from _paths(status if recorded else after, (*so_far, event))


@dataclass
class Told:
    """What has happened, as it is to be told: kinds of steps, and of some the word that says why."""

    steps: list[tuple[str, str | None]] = field(default_factory=lambda: [("admitted", None)])
    attempt: int = 0
    cancelled: bool = False
    status: RunStatus = RunStatus.PENDING


async def _made(store: RunStore, path: Path, thread_id: str) -> tuple[str, Told]:
    run_id, told, lease = await admit(store, thread_id), Told(), None
    for event in path:
        if event is RunEvent.CLAIM:
            lease, told.attempt = (await claim(store, run_id)).lease, told.attempt + 1
            told.steps.append(("claimed", None))
        elif event is RunEvent.CANCEL:
            await store.runs.request_cancel(
                run_id,
                owner=ANY_OWNER,
                action=CancelAction.INTERRUPT,
                reason=EndReason.USER_CANCEL,
                by="night shift",
                source=CancelSource.OPERATOR,
            )
            told.cancelled = True
            told.steps.append(("cancel_requested", "user_cancel"))
        else:
            await _moved(store, run_id, event, lease, told)
    run = await store.runs.get(run_id, owner=ANY_OWNER)
    told.status = run.status
    if run.status.terminal:
        if run.cancel is not None and run.attempt:
            told.steps.append(("cancel_seen", None))
        told.steps.append(("ended", run.end_reason.value if run.end_reason else None))
    return run_id, told


async def _moved(store: RunStore, run_id: str, event: RunEvent, lease: Lease | None, told: Told) -> None:
    """Apply *event* as the ledger does."""
    if event is RunEvent.GIVE_UP and lease is None:
        assert await store.queue.give_up(run_id, EndReason.NEVER_STARTED, ERROR)
        return
    if event is RunEvent.GIVE_UP:
        run = await store.runs.get(run_id, owner=ANY_OWNER)
        if run.status is RunStatus.RUNNING:
            assert await store.attempts.rescue(await held(store, run_id), max_rescues=0)
        else:
            assert await store.queue.give_up(run_id, EndReason.NEVER_STARTED, ERROR, home=run.home)
        return
    if event is RunEvent.RESCUE:
        assert await store.attempts.rescue(await held(store, run_id), max_rescues=100)
        told.steps.append(("handed_back", "lost"))
        return
    assert lease is not None
    error = ERROR if event is RunEvent.FAIL else None
    handed_back = HandBack.DRAIN if event is RunEvent.RELEASE else None
    await finish(store, lease, event, error=error, handed_back=handed_back)
    if event is RunEvent.RELEASE:
        told.steps.append(("handed_back", "drain"))


def _check(explanation: Explanation, told: Told) -> None:
    steps = [(step.kind, why.value if (why := step.reason or step.handed_back) else None) for step in explanation.steps]
    assert steps == told.steps
    assert all(before.at <= after.at for before, after in pairwise(explanation.steps))
    claims = [step for step in explanation.steps if step.kind == "claimed"]
    assert [step.attempt for step in claims] == list(range(1, told.attempt + 1))
    assert all(step.worker_id == WORKER and WORKER in step.sentence for step in claims)
    assert "canary" not in str(explanation)
    sentence = explanation.sentence
    assert ("Operator 'night shift' cancelled it" in sentence) == told.cancelled
    assert (f"Attempt {told.attempt} executes on worker {WORKER}" in sentence) == (told.status is RunStatus.RUNNING)
    assert ("wait" in sentence.lower()) == (
        told.status is RunStatus.PENDING or explanation.end_reason is EndReason.PAUSED
    )
    assert bool(explanation.remedies) == (not told.status.terminal and not told.cancelled)


async def test_every_history_is_told_as_it_was() -> None:
    driver = MemoryDriver()
    apply_scripts(driver)
    store = RunStore(driver)
    paths = sorted(set(_paths()), key=len)
    assert len(paths) > 200
    for number, path in enumerate(paths):
        try:
            run_id, told = await _made(store, path, f"thread {number}")
        except RunlaneError as error:
            raise AssertionError(f"{path}: {error}") from error
        explanation = explain(await store.runs.history(run_id, owner=ANY_OWNER), Limits())
        try:
            _check(explanation, told)
        except AssertionError as error:
            raise AssertionError(f"{path}: {explanation}") from error
    await driver.aclose()


async def test_a_run_tells_of_its_attempts_its_canceller_and_its_end(store: RunStore) -> None:
    await store.workers.beat(A_WORKER)
    run_id, told = await _made(
        store, (RunEvent.CLAIM, RunEvent.RELEASE, RunEvent.CLAIM, RunEvent.CANCEL, RunEvent.STOP), "t"
    )
    explanation = explain(await store.runs.history(run_id, owner=ANY_OWNER), Limits())
    _check(explanation, told)
    assert explanation.sentence == "Operator 'night shift' cancelled it. Its code stopped."
    [drained] = [step.sentence for step in explanation.steps if step.handed_back is HandBack.DRAIN]
    assert drained.endswith(f"as worker {WORKER} was drained or shut down.")


async def test_a_run_remembers_its_first_and_its_newest_attempts(store: RunStore) -> None:
    run_id = await admit(store)
    for _ in range(60):
        await finish(store, (await claim(store, run_id)).lease, RunEvent.RELEASE)
    attempts = [attempt.attempt for attempt in (await store.runs.history(run_id, owner=ANY_OWNER)).past]
    assert attempts == [1, *range(12, 61)]


async def test_a_run_that_is_replaced_names_the_run_that_replaces_it(store: RunStore) -> None:
    first = (await claim(store, await admit(store))).lease
    second = await admit(store, multitask_strategy="rollback")
    history = await store.runs.history(first.run_id, owner=ANY_OWNER)
    assert f"Run {second} was started on its thread later" in explain(history, Limits()).sentence
    waiting = explain(await store.runs.history(second, owner=ANY_OWNER), Limits())
    assert f"waits for run {first.run_id} of its thread" in waiting.sentence
    assert [remedy.does for remedy in waiting.remedies] == ["withdraw it", f"cancel run {first.run_id}"]
