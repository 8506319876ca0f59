"""LangGraph's checkpointer on the ledger."""

from __future__ import annotations

import asyncio
import copy
import inspect
import itertools
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, TypeVar, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import ERROR

from runlane.checkpoints import delta, pruning, resuming, rows, sizes, taking_back, transactions
from runlane.checkpoints.attempt import Ahead, AttemptWriter, kept_of_task
from runlane.checkpoints.serializer import LedgerSerializer
from runlane.checkpoints.sync import wait_from_another_thread
from runlane.checkpoints.transactions import AsIf, Wanted
from runlane.errors import StoreUnavailable, ThreadChanged, UnsupportedOption
from runlane.journal.rows import CheckpointRows, put
from runlane.records import Lease, TaskWrites
from runlane.store.drivers.memory import MemoryDriver
from runlane.store.migrate import apply_scripts
from runlane.store.retry import patiently
from runlane.store.statements import Driver, Transaction
from runlane.store.transactions.fence import fenced

T = TypeVar("T")
Conceal = Callable[[Any], str]
ReadNow = Callable[[Transaction[Any]], Any]

#: Rows that a listing reads in one transaction.
PAGE: Final = 50


class LedgerSaver(BaseCheckpointSaver[str]):
    """Keeps LangGraph's checkpoints in the ledger.

    As it is, each write is awaited and nobody's lease is asked for: for the application's own state updates. A run gets
    a saver from :meth:`bind`. The synchronous methods work from other threads than the loop's.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        serde: SerializerProtocol | None = None,
    ) -> None:
        """Use the tables of *driver*'s database.

        Args:
            loop: Where synchronous calls of other threads are executed; the running loop by default.
            serde: By default one that reads data only, and never a pickle.
        """
        super().__init__(serde=serde or LedgerSerializer())
        self._driver = driver
        self._loop = loop or asyncio.get_running_loop()
        # A point read takes less than handing it to another thread, so a driver may offer to do it here.
        self._read_now: ReadNow | None = getattr(driver, "read_now", None)
        self._writer: AttemptWriter | None = None
        self._gathered: CheckpointRows | None = None
        self._reading: list[None] = []  # one for each read on its way, of those that gather for this one too
        self._write_behind = False
        self._redact: Conceal | None = None
        # A version is never given out twice, so that a value of a run that was taken back is never taken for another's.
        self._version_suffix = os.urandom(8).hex()
        self._version_count = itertools.count()

    def bind(
        self, lease: Lease, *, write_behind: bool, ahead: Ahead | None = None, redact: Conceal | None = None
    ) -> LedgerSaver:
        """Return the saver of one attempt: it writes only while *lease* holds, and in that run's name.

        Args:
            write_behind: Return from writes before they are committed (durability ``async`` and ``exit``); a failure
                is raised by the next write, and by :meth:`flush`. Otherwise writes are committed when they return.
            ahead: Lets the run's events be committed before the checkpoints that follow them.
            redact: Returns the text of an error that a task wrote as it may be shown.
        """
        bound = object.__new__(type(self))  # copy.copy() takes longer than a commit's share of a run
        vars(bound).update(vars(self))
        bound._writer = AttemptWriter(self._driver, lease, ahead)
        bound._write_behind, bound._redact = write_behind, redact
        bound._reading = []
        bound._version_suffix = f"{lease.seq:x}-{lease.attempt:x}-"
        bound._version_count = itertools.count()
        return bound

    def gather(self) -> LedgerSaver:
        """Return a saver that keeps what is written and reads as if it were stored; :meth:`remaining` writes it.

        For one state update on a thread: each of its reads costs as much as writing all that was kept.
        """
        gathering = copy.copy(self)
        gathering._gathered = CheckpointRows()
        gathering._gathered.extend(self._gathered or CheckpointRows())
        return gathering

    def keep(self, gathering: LedgerSaver) -> None:
        """Have :meth:`remaining` also write what *gathering*, made by this saver's :meth:`gather`, has kept."""
        self._gathered = gathering._gathered

    async def take_back(self, thread_id: str, checkpoint_ns: str, run_id: str) -> bool:
        """Take back the newest that a run wrote in a namespace; return whether the newest there was of that run."""
        taken = await self._read(partial(taking_back.newest, thread_id, checkpoint_ns, run_id, self.serde.loads_typed))
        if taken is not None and self._gathered is not None:
            self._gathered.changes.append(taken)
        elif taken is not None:
            await self._change(taken())
        return taken is not None

    @asynccontextmanager
    async def draft(self) -> AsyncIterator[LedgerSaver]:
        """Give a saver of a ledger of its own, in memory, for a thread that does not exist yet; see :meth:`rows`."""
        drafting, driver = copy.copy(self), MemoryDriver()
        await asyncio.to_thread(apply_scripts, driver)
        drafting._driver, drafting._read_now = driver, None
        try:
            yield drafting
        finally:
            await driver.aclose()

    async def rows(self, thread_id: str) -> CheckpointRows:
        """Return all that is stored of a thread; :func:`~runlane.checkpoints.transactions.put` writes it elsewhere."""
        return await self._driver.read(transactions.rows_of(thread_id))

    async def flush(self) -> None:
        """Wait until everything written through this saver is committed.

        Raises:
            LeaseLost: The attempt does not own its run any more; what it wrote since is dropped.
            LedgerClosed: It was closed before.
        """
        if self._writer is not None:
            await self._writer.flush()

    async def seal(self) -> Transaction[None]:
        """End the attempt's writing, and return a transaction that writes what is not submitted yet.

        Run it inside the transaction that finishes the run, after its guard: both are committed together, for the price
        of one. Ask again if that was not committed. An unbound saver has nothing to write.

        Raises:
            LeaseLost: The attempt does not own its run any more.
            LedgerClosed: Something earlier was not written before that.
        """
        return put(CheckpointRows()) if self._writer is None else await self._writer.seal()

    def remaining(self) -> Transaction[None]:
        """Return a new transaction that writes what is left after :meth:`seal`, and what was gathered."""
        if self._writer is not None:
            yield from self._writer.remaining()
        yield from put(self._gathered or CheckpointRows())

    def reopen(self) -> None:
        """Take writes again after :meth:`seal`, whose rest is kept."""
        if self._writer is not None:
            self._writer.reopen()

    @property
    def waiting(self) -> bool:
        """Whether a read or a write of this saver, or of one that gathers for it, is with the database."""
        return bool(self._reading) or (self._writer is not None and self._writer.waiting)

    def delete_runs(self, thread_id: str, run_ids: Sequence[str]) -> Transaction[None]:
        """Return the transaction that takes these runs back: the thread reads exactly as before the first of them."""
        return transactions.delete_runs(thread_id, run_ids, lease=None if self._writer is None else self._writer.lease)

    def get_next_version(self, current: str | None, channel: None) -> str:
        """Return a version that is greater than *current* and was never given out before."""
        number = int(str(current).partition(".")[0]) + 1 if current is not None else 1
        return f"{number:010}.{self._version_suffix}{next(self._version_count):x}"

    # Reading

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that *config* names, or the latest of its thread and namespace."""
        reading = partial(transactions.get, *await self._visible(config), self.serde.loads_typed)
        stored = await self._read(reading, self._read_now)
        saved = None if stored is None else rows.tuple_of(stored, self.serde)
        if saved is not None:
            await resuming.begin_new_task(self, config, saved)
        return saved

    async def _read(self, reading: Callable[[], Transaction[T]], read_now: ReadNow | None = None) -> T:
        """Read, with *read_now* if that can be had. An attempt waits for as long as the ledger is out."""
        if read_now is not None and not self._gathered:
            with suppress(StoreUnavailable):
                return cast(T, read_now(reading()))
        self._reading.append(None)
        try:
            if self._writer is None:
                return await self._ask(reading)
            return await patiently(lambda: self._ask(reading))
        finally:
            self._reading.pop()

    async def _ask(self, reading: Callable[[], Transaction[T]]) -> T:
        try:
            if not self._gathered:
                return await self._driver.read(reading())
            await self._driver.write(transactions.as_if(self._gathered, reading()))
        except AsIf as answer:
            return cast(T, answer.found)
        raise AssertionError("as_if() always raises")

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Yield checkpoints, newest first."""
        await self.flush()
        wanted: Wanted | None = Wanted.of(config, filter, before)
        left = limit
        seen: set[tuple[str, str, str]] = set()
        while wanted is not None and (left is None or left > 0):
            size = PAGE if left is None or filter else min(left, PAGE)
            page = partial(transactions.page, wanted, size, self.serde.loads_typed)
            found, wanted = await self._read(page)
            for stored in found[:left]:
                key = (stored.row["thread_id"], stored.row["checkpoint_ns"], stored.row["checkpoint_id"])
                if key in seen:  # an older row of the same checkpoint
                    continue
                seen.add(key)
                yield rows.tuple_of(stored, self.serde)
                left = None if left is None else left - 1

    async def namespaces(self, thread_id: str) -> list[str]:
        """Return the namespaces in which a thread has checkpoints: the root graph's, and those of its subgraphs."""
        await self.flush()
        return await self._read(lambda: transactions.namespaces(str(thread_id)))

    async def written(
        self, thread_id: str, checkpoint_ns: str, checkpoint_id: str | None = None
    ) -> Sequence[TaskWrites]:
        """Return the calls of put_writes on a checkpoint, or on all of a namespace, in their order; none is merged."""
        await self.flush()
        wanted = partial(transactions.written, str(thread_id), checkpoint_ns, checkpoint_id)
        return [rows.call_of(row, self.serde) for row in await self._read(wanted)]

    async def written_by(self, thread_id: str, run_id: str) -> Sequence[TaskWrites]:
        """Return the calls of put_writes that a run made on a thread."""
        await self.flush()
        found = await self._read(lambda: transactions.written_by(str(thread_id), run_id))
        return [rows.call_of(row, self.serde) for row in found]

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return what *channels* are rebuilt from, in one read."""
        thread_id, checkpoint_ns, checkpoint_id = await self._visible(config)
        loads = self.serde.loads_typed
        chain = await self._read(partial(delta.ancestors, thread_id, checkpoint_ns, checkpoint_id, channels, loads))
        return delta.histories(chain, channels, loads)

    async def _visible(self, config: RunnableConfig) -> tuple[str, str, str | None]:
        """Return the thread, namespace and checkpoint of *config*, once what this run wrote there is committed."""
        wanted = config["configurable"]
        thread_id, checkpoint_ns = str(wanted["thread_id"]), wanted.get("checkpoint_ns", "")
        if self._writer is not None and self._writer.touches(thread_id, checkpoint_ns):
            await self._writer.flush()
        return thread_id, checkpoint_ns, wanted.get("checkpoint_id")

    # Writing

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store *checkpoint*, with the values of the channels in *new_versions*."""
        batch = self._checkpoint(config, checkpoint, metadata, new_versions)
        await self._store(batch)
        return {"configurable": batch.address}

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store what a task wrote, beside the checkpoint that it started from."""
        await self._store(self._writes(config, writes, task_id, task_path))

    async def _store(self, batch: CheckpointRows) -> None:
        writer = self._writer
        if self._gathered is not None:
            self._gathered.extend(batch)
        elif writer is None:
            await self._driver.write(put(batch))
        elif writer.add(batch) or not self._write_behind:
            await writer.flush()
        else:
            writer.submit_soon(asyncio.get_running_loop())

    # LangGraph asks for the parameters of this method once for each run, and working them out takes a while.
    vars()["aput_writes"].__signature__ = inspect.signature(vars()["aput_writes"])

    def _checkpoint(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> CheckpointRows:
        merged = rows.metadata_of(config, metadata)
        run_id = self._run_id(merged)
        return rows.checkpoint_rows(config, checkpoint, merged, new_versions, run_id=run_id, serde=self.serde)

    def _writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> CheckpointRows:
        if self._writer is not None:
            writes = kept_of_task(writes)
        if self._redact is not None:
            redact = self._redact
            writes = [(channel, redact(value) if channel == ERROR else value) for channel, value in writes]
        call = TaskWrites(
            run_id=self._run_id(config.get("metadata", {})), task_id=task_id, task_path=task_path, writes=writes
        )
        return rows.write_rows(config, call, serde=self.serde)

    def _run_id(self, metadata: Mapping[str, Any]) -> str:
        """Return whose rows these are: the bound run's, else the one that the caller names, else nobody's."""
        return self._writer.lease.run_id if self._writer is not None else str(metadata.get("run_id") or "")

    # Taking away

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete all checkpoints of a thread."""
        await self._change(transactions.delete_thread(str(thread_id)))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Take these runs back: their threads read as before them."""
        await self._change(transactions.delete_runs_everywhere(run_ids))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints of a thread to another; the copies belong to no run."""
        await self._change(transactions.copy_thread(str(source_thread_id), str(target_thread_id)))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete all checkpoints of these threads, or all that the latest of each namespace can do without.

        Raises:
            UnsupportedOption: *strategy* is neither ``keep_latest`` nor ``delete``.
        """
        if strategy not in ("keep_latest", "delete"):
            raise UnsupportedOption("strategy", f"{strategy!r} is neither 'keep_latest' nor 'delete'.")
        for thread_id in map(str, thread_ids):
            if strategy == "delete":
                await self._change(transactions.delete_thread(thread_id))
                continue
            while True:
                pruned = await self.pruning(thread_id)
                try:
                    await self._change(pruned())
                except ThreadChanged:  # something was stored between looking and deleting: look again
                    continue
                break

    # For transactions that concern a thread's row too

    async def pruning(self, thread_id: str) -> Callable[[], Transaction[None]]:
        """Return what makes the transaction that deletes all that the thread's latest checkpoints do without.

        The transaction raises ThreadChanged if a checkpoint was stored since.
        """
        plan = await self._driver.read(pruning.plan(thread_id, self.serde.loads_typed))
        return lambda: pruning.apply(plan)

    def removing(self, thread_id: str) -> Transaction[None]:
        """Return the transaction that deletes all checkpoints of a thread."""
        return transactions.delete_thread(thread_id)

    def copying(self, source: str, target: str) -> Transaction[None]:
        """Return the transaction that copies all checkpoints of a thread to another; the copies belong to no run."""
        return transactions.copy_thread(source, target)

    async def storage(self, thread_id: str) -> sizes.Storage:
        """Return how many bytes a thread's checkpoints take."""
        return await self._driver.read(sizes.storage(thread_id))

    async def _change(self, transaction: Transaction[T]) -> T:
        """Run *transaction* after everything written before, and under the lease where there is one."""
        await self.flush()
        if self._writer is not None:
            transaction = fenced(self._writer.lease, transaction)
        return await self._driver.write(transaction)

    # From other threads

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self._wait(self.aget_tuple(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        listing = self.alist(config, filter=filter, before=before, limit=limit)
        while (found := self._wait(anext(listing, None))) is not None:
            yield found

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return self._wait(self.aget_delta_channel_history(config=config, channels=channels))

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        batch = self._checkpoint(config, checkpoint, metadata, new_versions)
        self._wait(self._store(batch))
        return {"configurable": batch.address}

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self._wait(self._store(self._writes(config, writes, task_id, task_path)))

    def delete_thread(self, thread_id: str) -> None:
        self._wait(self.adelete_thread(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        self._wait(self.adelete_for_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        self._wait(self.acopy_thread(source_thread_id, target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        self._wait(self.aprune(thread_ids, strategy=strategy))

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return wait_from_another_thread(coroutine, self._loop)
