"""The loop on which everything periodic runs, on a virtual clock."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from run_kit import on_virtual_time
from runlane.errors import StoreUnavailable
from runlane.supervised_loop import SupervisedLoop, together
from runlane.telemetry.emitter import Telemetry
from runlane.telemetry.events import LoopTurned
from runlane.telemetry.observers import on

DOWN = StoreUnavailable("down")


class Turns:
    """Notes when turns began, and raises or waits as it was told for each of them."""

    def __init__(self, *script: Exception | float | None) -> None:
        self.at: list[float] = []
        self.cancelled = 0
        self._script = list(script)

    async def __call__(self) -> int:
        self.at.append(round(asyncio.get_running_loop().time(), 3))
        step = self._script.pop(0) if self._script else None
        if isinstance(step, Exception):
            raise step
        if step is not None:
            try:
                await asyncio.sleep(step)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return len(self.at)


CASES: list[tuple[str, tuple[Exception | float | None, ...], dict[str, Any], list[float]]] = [
    ("a period after each turn", (), {}, [0, 10, 20]),
    ("a turn takes time beside the period", (3.0, 4.0), {}, [0, 13, 27]),
    ("after a period only", (), {"at_once": False}, [10, 20, 30]),
    ("a period that changes", (), {"every_s": iter((1.0, 5.0, 2.0, 90.0)).__next__}, [0, 1, 6, 8]),
    ("up to a tenth earlier", (), {"jitter": 0.1, "chance": iter((0.0, 1.0, 0.5, 0.0)).__next__}, [0, 10, 19, 28.5]),
    ("a failure is tried again sooner", (DOWN, DOWN, DOWN), {}, [0, 1, 3, 7, 17]),
    ("a failure in between", (None, ValueError("no"), None), {}, [0, 10, 11, 21]),
    ("no pause is longer than a period", (DOWN,) * 6, {}, [0, 1, 3, 7, 15, 25]),
    ("nor longer than wanted", (DOWN,) * 4, {"longest_retry_s": 2.0}, [0, 1, 3, 5, 7, 17]),
    ("a short period is no reason to fail often", (DOWN, DOWN), {"every_s": 0.25}, [0, 0.25, 0.5, 0.75]),
    ("without a period the turn waits itself", (4.0, DOWN, 2.0), {"every_s": 0.0, "stop_grace_s": 0.0}, [0, 4, 5]),
]


@pytest.mark.parametrize(("script", "options", "at"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
@on_virtual_time
async def test_turns_come_when_they_are_due(
    script: tuple[Exception | float | None, ...], options: dict[str, Any], at: list[float]
) -> None:
    turns = Turns(*script)
    async with SupervisedLoop("test", turns, **{"every_s": 10.0, **options}):
        await asyncio.sleep(at[-1] + 0.01)
    assert turns.at == at


@on_virtual_time
async def test_it_turns_soon_when_it_is_asked_to_also_during_a_turn() -> None:
    turns = Turns(None, 2.0)
    async with SupervisedLoop("test", turns, every_s=10.0) as loop:
        await asyncio.sleep(3)
        loop.soon()
        await asyncio.sleep(1)
        loop.soon()
        loop.soon()
        await asyncio.sleep(5)
    assert turns.at == [0, 3, 5]


@on_virtual_time
async def test_being_asked_does_not_shorten_the_pause_after_a_failure() -> None:
    turns = Turns(DOWN)
    async with SupervisedLoop("test", turns, every_s=10.0, retry_s=4.0) as loop:
        for _ in range(30):
            await asyncio.sleep(0.1)
            loop.soon()
        await asyncio.sleep(1.5)
    assert turns.at == [0, 4]


@pytest.mark.parametrize(
    ("turn_s", "grace_s", "stopped_at", "cancelled"),
    [(3.0, 5.0, 3.0, 0), (3.0, 0.5, 1.5, 1), (3.0, 0.0, 1.0, 1), (0.5, 5.0, 1.0, 0)],
    ids=["a turn may end", "but not take for ever", "without a grace time", "in a pause"],
)
@on_virtual_time
async def test_stopping_awaits_the_turn_for_a_grace_time_and_no_pause(
    turn_s: float, grace_s: float, stopped_at: float, cancelled: int
) -> None:
    turns = Turns(turn_s)
    loop = SupervisedLoop("test", turns, every_s=60.0, stop_grace_s=grace_s)
    loop.start()
    await asyncio.sleep(1)
    await loop.stop()
    assert (asyncio.get_running_loop().time(), turns.cancelled) == (stopped_at, cancelled)
    await loop.stop()
    await asyncio.sleep(100)
    assert turns.at == [0]
    assert asyncio.all_tasks() == {asyncio.current_task()}


@on_virtual_time
async def test_loops_that_hang_together_stop_within_one_grace_time() -> None:
    hanging = [Turns(60.0) for _ in range(3)]
    async with together(*(SupervisedLoop("test", turns, every_s=60.0, stop_grace_s=2.0) for turns in hanging)):
        await asyncio.sleep(1)
    assert asyncio.get_running_loop().time() == 3.0
    assert [turns.cancelled for turns in hanging] == [1, 1, 1]


async def test_a_loop_that_was_never_started_can_be_stopped() -> None:
    await SupervisedLoop("test", Turns(), every_s=60.0).stop()


@on_virtual_time
async def test_stopping_ends_the_pause_after_a_failure() -> None:
    async with SupervisedLoop("test", Turns(DOWN, DOWN, DOWN), every_s=60.0, retry_s=30.0):
        await asyncio.sleep(1)
    assert asyncio.get_running_loop().time() == 1


@on_virtual_time
async def test_something_cancelled_that_a_turn_awaits_does_not_end_the_loop() -> None:
    turned: list[int] = []

    async def turn() -> None:
        turned.append(1)
        if len(turned) == 1:
            other = asyncio.create_task(asyncio.sleep(1))
            other.cancel()
            await other

    async with SupervisedLoop("test", turn, every_s=10.0):
        await asyncio.sleep(5)
    assert len(turned) == 2


@on_virtual_time
async def test_each_kind_of_failure_is_logged_once_until_it_is_over(caplog: pytest.LogCaptureFixture) -> None:
    defect = ValueError("defect")
    turns = Turns(DOWN, DOWN, defect, defect, DOWN, None, defect)
    with caplog.at_level(logging.INFO, "runlane.loop"):
        async with SupervisedLoop("test", turns, every_s=1.0):
            await asyncio.sleep(7.5)
    said = [
        (record.levelname, record.getMessage().partition(" why=")[0], bool(record.exc_info))
        for record in caplog.records
    ]
    assert said == [
        ("WARNING", "loop.waiting loop=test", False),
        ("ERROR", "loop.failed loop=test", True),
        ("WARNING", "loop.waiting loop=test", False),
        ("INFO", "loop.recovered loop=test failures=5", False),
        ("ERROR", "loop.failed loop=test", True),
        ("INFO", "loop.recovered loop=test failures=1", False),
    ]


@on_virtual_time
async def test_every_turn_is_an_event() -> None:
    seen: list[LoopTurned] = []
    options: dict[str, Any] = {"every_s": 10.0, "telemetry": Telemetry([on(LoopTurned, seen.append)])}
    async with SupervisedLoop("test", Turns(2.0, DOWN), **options):
        await asyncio.sleep(13.5)
    assert [(event.loop, event.duration_s, event.error) for event in seen] == [
        ("test", 2.0, None),
        ("test", 0.0, "StoreUnavailable"),
        ("test", 0.0, None),
    ]
