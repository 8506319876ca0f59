"""What the code of a run logs is kept with the run, within bounds, and never at the cost of the run."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextvars import copy_context

import pytest

from run_kit import ONCE, FaultyDriver, ended, on_jumping_time, opened, soon
from runlane.agents.coroutine import RunContext
from runlane.errors import StoreUnavailable
from runlane.lifecycle import RunStatus
from runlane.records import RunRecord
from runlane.runtime import Runtime
from runlane.telemetry.context import SCOPE
from runlane.telemetry.log_handler import RunLogHandler
from runlane.telemetry.run_log import RunLogRecord

log = logging.getLogger("graph")
SECRET = "hunter2-hunter2-hunter2"
STATEMENTS = ("put_log", "trim_log")


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    root, added = logging.getLogger(), RunLogHandler()
    level = root.level
    root.addHandler(added)
    root.setLevel(logging.INFO)
    yield
    root.removeHandler(added)
    root.setLevel(level)


async def records(runtime: Runtime, run: RunRecord) -> tuple[RunLogRecord, ...]:
    return (await runtime.store.run_logs.read(run.seq, limit=1000)).records


async def test_what_a_run_logs_on_any_thread_is_kept_with_its_traceback_and_without_its_secrets() -> None:
    async def agent(context: RunContext) -> None:
        log.info("asks %s", SECRET)
        thread = threading.Thread(target=copy_context().run, args=(log.warning, "late\0\ud800"))
        thread.start()
        thread.join()
        try:
            raise LookupError(SECRET)
        except LookupError:
            log.exception("handled")
        scope = SCOPE.get()
        assert scope is not None
        scope.print("no end of line")
        raise ValueError(f"bad {SECRET}")

    async with opened() as runtime:
        kwargs = {"config": {"configurable": {"api_key": SECRET}}}
        run = await runtime.runs.create("t", agent=agent, kwargs=kwargs)
        assert (await ended(runtime, run)).status is RunStatus.ERROR
        log.info("of nobody")
        found = await records(runtime, run)

    said = [(record.number, record.level, record.logger, record.text) for record in found]
    assert said[:3] == [
        (1, "info", "graph", "asks ***"),
        (2, "warning", "graph", "late\ufffd\ufffd"),
        (3, "error", "graph", "handled"),
    ]
    assert (found[2].exception or "").endswith("LookupError: ***")
    [failed] = [record for record in found if record.text.startswith("run.failed ")]
    assert (failed.exception or "").endswith("ValueError: bad ***")
    assert any("no end of line" in record.text for record in found)
    assert SECRET not in repr(found)
    assert {record.attempt for record in found} == {1}


@on_jumping_time
async def test_records_are_there_while_the_run_executes_and_the_rest_once_it_has_ended() -> None:
    seen: list[tuple[RunLogRecord, ...]] = []

    async def agent(context: RunContext) -> None:
        for n in range(3):
            log.info("record %d", n)
        while not seen or len(seen[-1]) < 3:
            await asyncio.sleep(0.1)
            seen.append(await records(runtime, run))
        log.info("last")

    driver = FaultyDriver()
    async with opened(driver) as runtime:
        run = await runtime.runs.create("t", agent=agent)
        assert (await ended(runtime, run)).status is RunStatus.SUCCESS
        assert [record.text for record in await records(runtime, run)] == ["record 0", "record 1", "record 2", "last"]
    assert driver.counts["put_log"] == 2


@on_jumping_time
async def test_a_run_that_logs_nothing_writes_no_log() -> None:
    driver = FaultyDriver()

    async def agent(context: RunContext) -> str:
        return "quiet"

    async with opened(driver) as runtime:
        run = await runtime.runs.create("t", agent=agent)
        assert (await ended(runtime, run)).status is RunStatus.SUCCESS
    assert not driver.counts.keys() & set(STATEMENTS)


@on_jumping_time
async def test_the_newest_records_are_kept_and_numbers_tell_of_the_others() -> None:
    async def agent(context: RunContext) -> None:
        for n in range(1, 101):
            log.info("%s", n)
            if not n % 40:
                await asyncio.sleep(3.0)

    async with opened(FaultyDriver(), run_log_bytes=2000) as runtime:
        run = await runtime.runs.create("t", agent=agent)
        await ended(runtime, run)
        found = await records(runtime, run)
    numbers = [record.number for record in found]
    assert numbers == list(range(numbers[0], 101))
    assert 10 < len(numbers) < 20  # a segment that reaches into what is kept is kept whole
    assert [record.text for record in found] == [str(number) for number in numbers]


async def test_nothing_is_kept_where_the_setting_is_0() -> None:
    async def agent(context: RunContext) -> None:
        log.info("unheard")
        raise ValueError

    async with opened(run_log_bytes=0) as runtime:
        run = await runtime.runs.create("t", agent=agent)
        await ended(runtime, run)
        assert await records(runtime, run) == ()


@on_jumping_time
@pytest.mark.parametrize(
    ("error", "kept"), [(StoreUnavailable("unplugged"), [1, 2]), (ValueError("does not fit"), [2])]
)
async def test_a_ledger_that_does_not_take_records_fails_no_run(error: Exception, kept: list[int]) -> None:
    driver = FaultyDriver()

    async def agent(context: RunContext) -> str:
        driver.faults["put_log"] = error
        log.info("first")
        await asyncio.sleep(3.0)
        del driver.faults["put_log"]
        log.info("second")
        await asyncio.sleep(3.0)
        return "done"

    async with opened(driver, retry=ONCE) as runtime:
        run = await runtime.runs.create("t", agent=agent)
        assert (await ended(runtime, run)).status is RunStatus.SUCCESS
        assert [record.number for record in await records(runtime, run)] == kept


async def test_an_ending_that_the_ledger_refuses_with_the_log_is_recorded_without_it() -> None:
    driver = FaultyDriver()
    driver.faults["put_log"] = ValueError("does not fit")

    async def agent(context: RunContext) -> str:
        log.info("does not fit")
        return "done"

    async with opened(driver) as runtime:
        run = await runtime.runs.create("t", agent=agent)
        assert (await soon(ended(runtime, run))).status.terminal
        assert await records(runtime, run) == ()
