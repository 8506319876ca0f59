"""Signals that drain an application which embeds the library."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from run_kit import Scripted, opened, soon, until
from runlane import EndReason, RunStatus, drain_on_signals
from runlane.signals import STOP_SIGNALS


@pytest.fixture
def told() -> Iterator[list[int]]:
    """Give the signals that the handlers of a server received."""
    received: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, handle) for number in STOP_SIGNALS}
    yield received
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOP_SIGNALS)
async def test_a_signal_drains_and_reaches_who_handled_it_before(told: list[int], number: signal.Signals) -> None:
    async with opened() as runtime, drain_on_signals(runtime):
        agent = Scripted()
        run = await runtime.runs.create_or_reject("t", agent=agent)
        await soon(agent.started.wait())
        os.kill(os.getpid(), number)
        stopped = await soon(runtime.runs.join(run.run_id))
        assert (stopped.status, stopped.end_reason) == (RunStatus.INTERRUPTED, EndReason.DRAINED_OVER)
        assert told == [number]
    assert signal.getsignal(number) is not signal.SIG_DFL


async def test_a_second_signal_hurries_the_drain(told: list[int]) -> None:
    async with opened(drain_grace_s=3600.0) as runtime, drain_on_signals(runtime):
        agent = Scripted()
        run = await runtime.runs.create_or_reject("t", agent=agent)
        await soon(agent.started.wait())
        os.kill(os.getpid(), signal.SIGTERM)
        await until(lambda: runtime.runs.closed)
        assert not agent.stopping.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert (await soon(runtime.runs.join(run.run_id))).end_reason is EndReason.DRAINED_OVER
        assert len(told) == 2


async def test_handlers_are_put_back_unless_others_replaced_them(told: list[int]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    async with opened() as runtime:
        async with drain_on_signals(runtime):
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert signal.getsignal(signal.SIGTERM) == before
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        async with drain_on_signals(runtime):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


async def test_in_another_thread_signals_are_left_alone(told: list[int], caplog: pytest.LogCaptureFixture) -> None:
    """As in a test client of Starlette, which runs the lifespan in a thread."""

    async def live() -> None:
        async with opened() as runtime, drain_on_signals(runtime):
            pass

    with caplog.at_level(logging.WARNING, "runlane.signals"):
        thread = threading.Thread(target=asyncio.run, args=(live(),))
        thread.start()
        await asyncio.to_thread(thread.join)
    assert "signals.not_handled" in caplog.text


SCRIPT = """
import asyncio, os, signal
from runlane import Settings, drain_on_signals, open_runtime

signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a process that has served before leaves it ignored to its children

async def agent(context):
    os.kill(os.getpid(), signal.SIGTERM)
    try:
        await asyncio.Event().wait()
    finally:
        print("stopped", flush=True)

async def main():
    settings = Settings(database="memory://", drain_grace_s=0)
    async with open_runtime(settings=settings) as runtime, drain_on_signals(runtime):
        await runtime.runs.create("t", agent=agent)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_signal_that_nobody_handles_ends_the_process_after_the_drain() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SCRIPT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, log = await soon(process.communicate())
    assert b"tasks_stopped" not in log, "the drain was taken for work of the agent that the signal interrupted"
    assert (process.returncode, out) == (-signal.SIGTERM, b"stopped\n")
