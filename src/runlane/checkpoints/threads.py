"""Operations on all checkpoints of a thread, for the server and for maintenance."""

from __future__ import annotations

from collections.abc import Callable

from langgraph.checkpoint.serde.base import SerializerProtocol

from runlane.checkpoints import pruning, sizes, transactions
from runlane.journal.rows import CheckpointRows
from runlane.store.statements import Driver, Transaction


class ThreadCheckpoints:
    """The checkpoints of whole threads. Transactions are to be part of one that concerns the thread's row too."""

    def __init__(self, driver: Driver, serde: SerializerProtocol) -> None:
        self._driver = driver
        self._serde = serde

    async def pruning(self, thread_id: str) -> Callable[[], Transaction[None]]:
        """Return what makes the transaction that deletes all that the thread's latest checkpoints do without.

        The transaction raises ThreadChanged if a checkpoint was stored since.
        """
        plan = await self._driver.read(pruning.plan(thread_id, self._serde.loads_typed))
        return lambda: pruning.apply(plan)

    def removing(self, thread_id: str) -> Transaction[None]:
        """Return the transaction that deletes all checkpoints of a thread."""
        return transactions.delete_thread(thread_id)

    def copying(self, source: str, target: str) -> Transaction[None]:
        """Return the transaction that copies all checkpoints of a thread to another; the copies belong to no run.

        The thread's parts are copied before.
        """
        return transactions.copy_rows(source, target)

    async def rows(self, thread_id: str) -> CheckpointRows:
        """Return all that is stored of a thread, to be written elsewhere."""
        return await self._driver.read(transactions.rows_of(thread_id))

    async def storage(self, thread_id: str) -> sizes.Storage:
        """Return how many bytes a thread's checkpoints take."""
        return await self._driver.read(sizes.storage(thread_id))
