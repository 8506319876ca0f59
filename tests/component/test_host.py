"""The agents' own loop, and what becomes of code that does not stop."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable

import pytest
import uvloop

from run_kit import until
from runlane.agents.blocking import BLOCKED_S
from runlane.agents.host import ThreadHost
from runlane.outcomes import Abandoned


def test_abandoned_code_is_cancelled_once_more_when_its_loop_closes() -> None:
    cancels: list[str] = []

    async def stubborn() -> None:
        for _ in range(2):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancels.append("cancelled")

    async def main() -> None:
        host = ThreadHost()
        handle = host.start(stubborn, name="test")
        await host.run(lambda: asyncio.sleep(0))
        handle.cancel()
        await host.run(lambda: asyncio.sleep(0))
        handle.abandon()
        with pytest.raises(Abandoned):
            await handle.done
        assert cancels == ["cancelled"]
        await host.aclose()

    asyncio.run(main())
    assert cancels == ["cancelled", "cancelled"]


def test_code_that_outlives_the_control_loop_reports_to_nobody_without_an_error() -> None:
    leave = threading.Event()

    async def blocking() -> None:
        leave.wait(30)

    async def main() -> ThreadHost:
        host = ThreadHost()
        handle = host.start(blocking, name="test")
        handle.abandon()
        with pytest.raises(Abandoned):
            await handle.done
        await host.aclose()
        return host

    host = asyncio.run(main())
    leave.set()
    host._thread.join(20)
    assert not host._thread.is_alive()
    del host
    gc.collect()  # what is torn down with an error would fail this test: pytest turns such errors into failures


def test_code_that_is_cancelled_before_its_first_step_has_stopped_at_once() -> None:
    began: list[str] = []

    async def code() -> None:
        began.append("began")

    async def main() -> None:
        host = ThreadHost()
        entered, leave = threading.Event(), threading.Event()

        def block() -> None:
            entered.set()
            leave.wait(30)

        host.call(block)  # so that start and cancel come to the loop together
        await asyncio.get_running_loop().run_in_executor(None, entered.wait, 20)
        handle = host.start(code, name="test")
        handle.cancel()
        leave.set()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(handle.done, 20)
        assert began == []
        await host.aclose()

    asyncio.run(main())


def test_code_that_blocks_the_agents_loop_is_named_once_with_its_line(caplog: pytest.LogCaptureFixture) -> None:
    async def blocking(entered: threading.Event, leave: threading.Event) -> None:
        entered.set()
        leave.wait(30)

    def said(key: str) -> list[str]:
        return [text for text in caplog.messages if text.startswith(key)]

    async def main() -> None:
        host = ThreadHost(uvloop.new_event_loop)
        for times in (1, 2):
            entered, leave = threading.Event(), threading.Event()
            handle = host.start(lambda entered=entered, leave=leave: blocking(entered, leave), name="test")
            await until(lambda before=host.blocked_s: host.blocked_s > before)
            leave.set()
            await handle.done
            await until(lambda times=times: len(said("agents.loop_answers ")) == times)
        assert host.blocked_s > 1.0
        await host.aclose()

    asyncio.run(main())
    [warned] = said("agents.loop_blocked ")
    assert "test_host.py:" in warned
    assert ".blocking: other runs wait" in warned


def test_a_process_that_stood_still_is_not_taken_for_a_blocked_loop(caplog: pytest.LogCaptureFixture) -> None:
    async def main(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        host = ThreadHost(new_loop)
        looking = asyncio.create_task(host._watch._look())
        await asyncio.sleep(0)
        threading.Event().wait(1.5 * BLOCKED_S)  # the fault itself
        await looking
        assert host.blocked_s == 0.0
        await host.aclose()

    for new_loop in (asyncio.new_event_loop, uvloop.new_event_loop):
        asyncio.run(main(new_loop))
    assert not [text for text in caplog.messages if text.startswith("agents.loop_blocked")]
