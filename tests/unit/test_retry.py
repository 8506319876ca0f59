"""The retry policy: what is tried again, how often, and after which delays; on a clock that jumps."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest

from runlane.errors import ConflictError, ConnectionCut, LedgerClosed, LedgerInUse, StoreUnavailable
from runlane.store.retry import PersistenceRetryPolicy, passes, pause_s

T = TypeVar("T")


class JumpingSelector(selectors.DefaultSelector):
    """Does not wait: the time that it would have waited has passed at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now_s += timeout or 0.0
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.jumping = JumpingSelector()
        super().__init__(self.jumping)

    def time(self) -> float:
        return self.jumping.now_s


def run(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(work)


class Operation:
    """Fails as told, then succeeds; knows when it was called."""

    def __init__(self, *failures: Exception, takes_s: float = 0.0) -> None:
        self.failures = list(failures)
        self.takes_s = takes_s
        self.called_at: list[float] = []

    async def __call__(self) -> str:
        self.called_at.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.takes_s)
        if self.failures:
            raise self.failures.pop(0)
        return "done"

    @property
    def delays(self) -> list[float]:
        return [round(later - earlier, 6) for earlier, later in zip(self.called_at, self.called_at[1:], strict=False)]


def busy() -> StoreUnavailable:
    return StoreUnavailable("busy")


def policy(**changes: Any) -> PersistenceRetryPolicy:
    return PersistenceRetryPolicy(**{"random": lambda: 1.0, **changes})


def test_a_success_is_returned_at_once() -> None:
    operation = Operation()
    assert run(policy().call(operation)) == "done"
    assert operation.called_at == [0.0]


def test_delays_grow_by_the_factor_up_to_the_longest() -> None:
    operation = Operation(*(busy() for _ in range(5)))
    retry = policy(max_attempts=6, initial_delay_s=0.1, factor=3.0, max_delay_s=0.5, deadline_s=100)
    assert run(retry.call(operation)) == "done"
    assert operation.delays == [0.1, 0.3, 0.5, 0.5, 0.5]


@pytest.mark.parametrize(("drawn", "part"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_a_delay_is_drawn_from_its_upper_half(drawn: float, part: float) -> None:
    operation = Operation(busy())
    run(policy(initial_delay_s=0.4, random=lambda: drawn).call(operation))
    assert operation.delays == [round(0.4 * part, 6)]


def test_no_more_than_the_configured_attempts_are_made_and_the_last_error_is_raised() -> None:
    errors = [busy() for _ in range(9)]
    operation = Operation(*errors)
    with pytest.raises(StoreUnavailable) as raised:
        run(policy(max_attempts=3).call(operation))
    assert raised.value is errors[2]
    assert len(operation.called_at) == 3


def test_no_attempt_starts_after_the_deadline() -> None:
    operation = Operation(*(busy() for _ in range(9)), takes_s=1.0)
    with pytest.raises(StoreUnavailable):
        run(policy(max_attempts=99, initial_delay_s=1.0, factor=1.0, deadline_s=5.0).call(operation))
    assert operation.called_at == [0.0, 2.0, 4.0]


def test_a_process_that_stood_still_tries_again_however_long_that_was() -> None:
    operation = Operation(ConnectionCut("idle for too long"), *(busy() for _ in range(9)), takes_s=60.0)
    with pytest.raises(StoreUnavailable):
        run(policy(initial_delay_s=1.0).call(operation))
    assert operation.called_at == [0.0, 61.0]


@pytest.mark.parametrize(
    "error",
    [ValueError("no"), ConflictError("t", "r"), LedgerInUse("x.db", 1), OSError("disk")],
    ids=lambda error: type(error).__name__,
)
def test_a_permanent_error_is_raised_at_once(error: Exception) -> None:
    operation = Operation(error)
    with pytest.raises(type(error)) as raised:
        run(policy().call(operation))
    assert raised.value is error
    assert len(operation.called_at) == 1


def test_a_permanent_error_that_has_a_passing_one_behind_it_is_not_tried_again() -> None:
    error = ValueError("no")
    error.__cause__ = error.__context__ = busy()
    operation = Operation(error)
    with pytest.raises(ValueError, match="no"):
        run(policy().call(operation))
    assert len(operation.called_at) == 1


def test_a_cancelled_caller_stops_waiting() -> None:
    async def scenario() -> list[float]:
        operation = Operation(*(busy() for _ in range(9)))
        waiting = asyncio.create_task(policy(initial_delay_s=1.0, deadline_s=100).call(operation))
        await asyncio.sleep(0.5)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return operation.called_at

    assert run(scenario()) == [0.0]


def test_by_default_the_delays_differ_between_callers() -> None:
    def delays() -> list[float]:
        operation = Operation(busy(), busy())
        run(PersistenceRetryPolicy().call(operation))
        return operation.delays

    assert delays() != delays()


def test_by_default_an_operation_is_tried_for_less_than_its_deadline() -> None:
    async def elapsed(call: Callable[[], Awaitable[str]]) -> float:
        with pytest.raises(StoreUnavailable):
            await PersistenceRetryPolicy().call(call)
        return asyncio.get_running_loop().time()

    assert 0 < run(elapsed(Operation(*(busy() for _ in range(9))))) < 5.0


def test_pauses_of_what_waits_out_an_outage_grow_to_a_second_and_stay_there() -> None:
    assert [pause_s(failures) for failures in (1, 2, 3, 6, 10_000)] == [0.05, 0.1, 0.2, 1.0, 1.0]


def test_what_will_not_pass_is_not_waited_for() -> None:
    errors = (busy(), LedgerClosed(), LedgerInUse("ledger.db", None), ValueError("mine"))
    assert [passes(error) for error in errors] == [True, False, False, False]
