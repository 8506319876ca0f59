"""The agents' own loop, and what becomes of code that does not stop."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest

from runlane.agents.host import Abandoned, ThreadHost


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
