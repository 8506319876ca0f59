"""A process that stands still while it receives what it asked for keeps its locks for a moment only.

The server waits for it without any limit of its own, so another process ends what it holds.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time

import pytest

from ledger_kit import ledger_connection
from runlane.errors import ConnectionCut
from runlane.store.backends import migrate_postgres
from runlane.store.drivers.postgres import open_postgres
from runlane.store.drivers.postgres_link import Times
from runlane.store.retrying import RetryingDriver
from runlane.store.statements import Transaction, statement

LOCK = statement("lock", "SELECT place FROM probes WHERE place = 1 FOR UPDATE")
#: 30 MB, after a moment in which the process can be stopped.
RECEIVER = """
import asyncio, sys
from runlane.store.drivers.postgres import open_postgres
from runlane.store.statements import statement

def transaction():
    yield statement("lock", "UPDATE probes SET written_at = 1 WHERE place = 1")()
    yield statement("receive", "SELECT pg_sleep(0.3), repeat('x', 30000000)")()

async def main():
    driver = await open_postgres(sys.argv[1], max_connections=3)
    try:
        await driver.write(transaction())
    except Exception as error:
        print(type(error).__name__)
    await driver.aclose()

asyncio.run(main())
"""
SLEEPS = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"


def lock() -> Transaction[int]:
    rows = yield LOCK()
    return len(rows)


@pytest.fixture
def url(postgres_url: str) -> str:
    migrate_postgres(postgres_url)
    with ledger_connection(postgres_url, autocommit=True) as other:
        other.execute("INSERT INTO probes (place, written_at, filler) VALUES (1, 0, '')")
    return postgres_url


async def test_a_process_that_is_frozen_in_the_middle_of_receiving_does_not_keep_its_locks(url: str) -> None:
    def sleeps() -> None:
        with ledger_connection(url, autocommit=True) as other:
            while other.execute(SLEEPS).fetchone() == (0,):
                pass

    receiver = await asyncio.create_subprocess_exec(sys.executable, "-c", RECEIVER, url, stdout=asyncio.subprocess.PIPE)
    await asyncio.to_thread(sleeps)
    os.kill(receiver.pid, signal.SIGSTOP)
    driver = await open_postgres(url, max_connections=3, times=Times(lock_s=0.5, send_s=0.5))
    began = time.monotonic()
    try:
        assert await RetryingDriver(driver).write(lock) == 1
    finally:
        os.kill(receiver.pid, signal.SIGCONT)
    assert time.monotonic() - began < 5
    stdout, _ = await receiver.communicate()
    assert stdout.decode().strip() == ConnectionCut.__name__, "it was told that nothing was written"
    await driver.aclose()


async def test_a_busy_event_loop_keeps_no_transaction_open(url: str) -> None:
    """What an application blocks is its own loop."""
    driver = await open_postgres(url, max_connections=3, times=Times(idle_s=0.2))

    def both() -> Transaction[int]:
        yield LOCK()
        rows = yield LOCK()
        return len(rows)

    writing = asyncio.create_task(driver.write(both()))
    await asyncio.sleep(0)
    time.sleep(0.6)  # noqa: ASYNC251 - the fault itself
    assert await writing == 1
    await driver.aclose()
