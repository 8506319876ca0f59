"""Whatever happens to threads, their checkpoints read as in LangGraph's own saver, and no part is lost or left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ledger_kit import empty_ledger
from parts_kit import World
from run_kit import FaultyDriver, FaultyLedger
from runlane.checkpoints import transactions
from runlane.execution.executor import Executor
from runlane.store.drivers.postgres import open_postgres
from runlane.store.statements import Query, Rows, Transaction, statement
from runlane.store.transactions import parts
from simulation.seams import Fragment, Patch, after, applied, finding, function, method, transaction

STEPS = 25
#: Histories in which a planted bug must be found.
ENOUGH = 12
DELETE_PARTS_OF_RUNS = statement(
    "test.delete_parts_of_runs",
    """DELETE FROM parts WHERE thread_id = :thread_id AND EXISTS (
         SELECT 1 FROM checkpoint_blobs AS b WHERE b.thread_id = :thread_id AND instr(b.refs, parts.ref) > 0
           AND b.run_id IN (SELECT value FROM json_each(:run_ids)))""",
)


async def live(seed: int, driver: FaultyDriver | FaultyLedger, database: str = "memory://") -> None:
    world = World(driver, seed, database=database)
    await world.open()
    try:
        for _ in range(STEPS):
            await world.step()
        await world.end()
    except BaseException as error:
        error.add_note(f"seed {seed}: {', '.join(world.history)}")
        raise
    finally:
        await world.aclose()
        await driver.aclose()


@pytest.mark.parametrize("seed", range(4))
async def test_any_history_of_threads_reads_as_the_model_and_leaves_nothing(seed: int) -> None:
    await live(seed, FaultyDriver())


@pytest.mark.parametrize("seed", range(4, 6))
async def test_any_history_of_threads_on_postgresql_does_so_too(seed: int, postgres_ledger: str) -> None:
    empty_ledger(postgres_ledger)
    await live(seed, FaultyLedger(await open_postgres(postgres_ledger)), postgres_ledger)


def _without_the_oldest(query: Query) -> Transaction[Rows]:
    rows = yield query
    return rows[1:] if query.statement is parts.ROOTS else rows


def _nothing(original: Callable[..., Any]) -> Callable[..., Transaction[None]]:
    def changed(thread_id: str) -> Transaction[None]:
        yield from ()

    return changed


def _kept_anyway(original: Any) -> Any:
    return lambda self, attempt, memory, *, whole: original(self, attempt, memory, whole=True)


MUTANTS: dict[str, tuple[Patch | Fragment, ...]] = {
    "a part is removed that a checkpoint needs": (transaction(parts.referenced, lambda *_: _without_the_oldest),),
    "a rollback removes what others refer to": (
        transaction(
            transactions.delete_runs,
            lambda *_: after(
                transactions.CHECKPOINTS_OF_RUNS, lambda query: DELETE_PARTS_OF_RUNS(**(query.params or {}))
            ),
        ),
    ),
    "parts are left behind": (function(parts.mark_due, _nothing),),
    "a copy keeps what only the other thread needs": (function(parts.sweep_now, _nothing),),
    "a deleted thread leaves its parts": (function(parts.delete_parts, _nothing),),
    "a memory is kept after a refused journal": (method(Executor, "_rest", _kept_anyway),),
    "a thread is swept while a run executes": (
        transaction(parts.sweep, lambda *_: finding(parts.BUSY, [])),
        Fragment(statement=parts.DUE, text="NOT EXISTS", other="0 <= EXISTS"),
    ),
    "a sweep does not raise the epoch": (transaction(parts.sweep, lambda *_: finding(parts.NEXT_EPOCH, [])),),
}


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_planted_bug_is_found(name: str) -> None:
    with applied(MUTANTS[name]):
        for seed in range(ENOUGH):
            try:
                await live(seed, FaultyDriver())
            except Exception:  # noqa: BLE001 - the model, or a run that failed, has found it
                return
    pytest.fail(f"nothing was found in {ENOUGH} histories")
