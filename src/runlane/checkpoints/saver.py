"""LangGraph's checkpointer on the ledger."""

from __future__ import annotations

import asyncio
import copy
import inspect
import itertools
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import ERROR

from runlane.checkpoints import clock, delta, resuming, rows, taking_back, transactions
from runlane.checkpoints.access import CheckpointAccess, Direct, Journaled, Place, Staged
from runlane.checkpoints.blocking import BlockingSaver
from runlane.checkpoints.serializer import LedgerSerializer
from runlane.checkpoints.threads import ThreadCheckpoints
from runlane.checkpoints.transactions import Wanted
from runlane.checkpoints.values import NAME, Values
from runlane.documents.memory import ThreadMemory
from runlane.documents.parts import split_refs
from runlane.errors import ThreadChanged, UnsupportedOption
from runlane.journal.journal import AttemptJournal
from runlane.journal.rows import CheckpointRows
from runlane.records import TaskWrites
from runlane.store.statements import Driver, Transaction

T = TypeVar("T")
Redact = Callable[[Any], str]

#: Rows that a listing reads in one transaction.
PAGE: Final = 50


class LedgerSaver(BlockingSaver):
    """Keeps LangGraph's checkpoints in the ledger, as its *access* does.

    By itself it is for the application's own state updates: each write is awaited, and no lease is asked for. The
    synchronous methods work from other threads than the loop's.
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
        super().__init__(serde or LedgerSerializer(), loop or asyncio.get_running_loop())
        self._driver = driver
        self._access: CheckpointAccess = Direct(driver)
        # A version is never given out twice, so that a value of a run that was taken back is never taken for another's.
        self._version_suffix = os.urandom(8).hex()
        self._version_count = itertools.count()

    @property
    def threads(self) -> ThreadCheckpoints:
        """Operations on all checkpoints of a thread."""
        return ThreadCheckpoints(self._driver, self.serde)

    def of_attempt(
        self,
        journal: AttemptJournal,
        *,
        write_behind: bool,
        redact: Redact | None = None,
        memory: ThreadMemory | None = None,
    ) -> AttemptSaver:
        """Return the saver of the attempt that *journal* belongs to.

        Args:
            write_behind: Return from writes before they are committed (durability ``async`` and ``exit``); a failure
                is raised by a later write. Otherwise writes are committed when they return.
            redact: Returns the text of an error that a task wrote as it may be shown.
            memory: What is known of the thread already.
        """
        access = Journaled(self._driver, journal, write_behind=write_behind)
        return AttemptSaver(self, access, redact, memory or ThreadMemory())

    def get_next_version(self, current: str | None, channel: None) -> str:
        """Return a version that is greater than *current* and was never given out before."""
        number = int(str(current).partition(".")[0]) + 1 if current is not None else 1
        return f"{number:010}.{self._version_suffix}{next(self._version_count):x}"

    # Reading

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that *config* names, or the latest of its thread and namespace.

        What this process writes after it gets a greater id than all that its namespace has.
        """
        place, checkpoint_id = _address(config)
        reading = self._values(place[0]).reading()
        getting = partial(transactions.get, *place, checkpoint_id, self.serde.loads_typed, reading.known)
        stored = await self._access.read(getting, of=place, is_small=True)
        saved = None if stored is None else rows.tuple_of(stored, reading)
        if saved is not None:
            newest = saved.checkpoint["id"]
            if checkpoint_id:  # a fork, which is newer than what there is beside it
                found = await self._access.read(partial(transactions.newest_id, *place), of=place, is_small=True)
                newest = found or newest
            clock.follow(newest)
            await resuming.begin_new_task(self, config, saved)
        return saved

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Yield checkpoints, newest first."""
        wanted: Wanted | None = Wanted.of(config, filter, before)
        left = limit
        seen: set[tuple[str, str, str]] = set()
        while wanted is not None and (left is None or left > 0):
            size = PAGE if left is None or filter else min(left, PAGE)
            reading = self._values(None).reading()
            finding = partial(transactions.page, wanted, size, self.serde.loads_typed, reading.known)
            found, wanted = await self._access.read(finding)
            for stored in found[:left]:
                key = (stored.row["thread_id"], stored.row["checkpoint_ns"], stored.row["checkpoint_id"])
                if key in seen:  # an older row of the same checkpoint
                    continue
                seen.add(key)
                yield rows.tuple_of(stored, reading)
                left = None if left is None else left - 1

    async def namespaces(self, thread_id: str) -> list[str]:
        """Return the namespaces in which a thread has checkpoints: the root graph's, and those of its subgraphs."""
        return await self._access.read(lambda: transactions.namespaces(str(thread_id)), is_small=True)

    async def written(
        self, thread_id: str, checkpoint_ns: str, checkpoint_id: str | None = None
    ) -> Sequence[TaskWrites]:
        """Return the calls of put_writes on a checkpoint, or on all of a namespace, in their order; none is merged."""
        reading = self._values(str(thread_id)).reading()
        wanted = partial(transactions.written, str(thread_id), checkpoint_ns, checkpoint_id, reading.known)
        found, parts = await self._access.read(wanted)
        return [rows.call_of(row, parts, reading) for row in found]

    async def written_by(self, thread_id: str, run_id: str) -> Sequence[TaskWrites]:
        """Return the calls of put_writes that a run made on a thread."""
        reading = self._values(str(thread_id)).reading()
        wanted = partial(transactions.written_by, str(thread_id), run_id, reading.known)
        found, parts = await self._access.read(wanted)
        return [rows.call_of(row, parts, reading) for row in found]

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return what *channels* are rebuilt from, in one read."""
        place, checkpoint_id = _address(config)
        reading = self._values(place[0]).reading()
        finding = partial(delta.ancestors, *place, checkpoint_id, channels, self.serde.loads_typed, reading.known)
        return delta.histories(await self._access.read(finding, of=place), channels, reading)

    # Writing

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store *checkpoint*, with the values of the channels in *new_versions*."""
        saved = self._checkpoint(config, checkpoint, metadata, new_versions)
        await self._write(saved)
        return {"configurable": saved.address}

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store what a task wrote, beside the checkpoint that it started from."""
        await self._write(self._writes(config, writes, task_id, task_path))

    # LangGraph asks for the parameters of this method once for each run, and working them out takes a while.
    vars()["aput_writes"].__signature__ = inspect.signature(vars()["aput_writes"])

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        saved = self._checkpoint(config, checkpoint, metadata, new_versions)
        self._wait(self._write(saved))
        return {"configurable": saved.address}

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self._wait(self._write(self._writes(config, writes, task_id, task_path)))

    async def _write(self, saved: CheckpointRows) -> None:
        await self._access.write(saved)

    def _checkpoint(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> CheckpointRows:
        merged = rows.metadata_of(config, metadata)
        run_id = self._run_id(merged)
        values = self._values(str(config["configurable"]["thread_id"]))
        return rows.checkpoint_rows(
            config, checkpoint, merged, new_versions, run_id=run_id, serde=self.serde, values=values
        )

    def _writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> CheckpointRows:
        run_id = self._run_id(config.get("metadata", {}))
        call = TaskWrites(run_id=run_id, task_id=task_id, task_path=task_path, writes=writes)
        return rows.write_rows(config, call, values=self._values(str(config["configurable"]["thread_id"])))

    def _values(self, thread_id: str | None) -> Values:
        """Return what writes and reads values of a thread, or of any. It relies on nothing that was stored before."""
        return Values(self.serde, ThreadMemory())

    def _run_id(self, metadata: Mapping[str, Any]) -> str:
        """Return whose rows these are: those of the run that the caller names, or nobody's."""
        return str(metadata.get("run_id") or "")

    # Taking away

    async def take_back(self, thread_id: str, checkpoint_ns: str, run_id: str) -> bool:
        """Take back the newest that a run wrote in a namespace; return whether the newest there was of that run."""
        finding = partial(taking_back.newest, thread_id, checkpoint_ns, run_id, self.serde.loads_typed)
        taken = await self._access.read(finding, of=(thread_id, checkpoint_ns))
        if taken is not None:
            await self._access.change(taken)
        return taken is not None

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete all checkpoints of a thread."""
        await self._access.change(lambda: transactions.delete_thread(str(thread_id)))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Take these runs back: their threads read as before them."""
        await self._access.change(lambda: transactions.delete_runs_everywhere(run_ids))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints of a thread to another; the copies belong to no run."""
        await self._access.change(lambda: transactions.copy_thread(str(source_thread_id), str(target_thread_id)))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete all checkpoints of these threads, or all that the latest of each namespace can do without.

        Raises:
            UnsupportedOption: *strategy* is neither ``keep_latest`` nor ``delete``.
        """
        if strategy not in ("keep_latest", "delete"):
            raise UnsupportedOption("strategy", f"{strategy!r} is neither 'keep_latest' nor 'delete'.")
        for thread_id in map(str, thread_ids):
            if strategy == "delete":
                await self.adelete_thread(thread_id)
                continue
            while True:
                try:
                    await self._access.change(await self.threads.pruning(thread_id))
                except ThreadChanged:  # something was stored between looking and deleting: look again
                    continue
                break


class AttemptSaver(LedgerSaver):
    """The saver of one attempt: it writes through the attempt's journal, and in its run's name."""

    _access: Journaled

    def __init__(self, saver: LedgerSaver, access: Journaled, redact: Redact | None, memory: ThreadMemory) -> None:
        """Take everything else from *saver*."""
        vars(self).update(vars(saver))  # LangGraph's constructor takes longer than a commit's share of a run
        lease = access.journal.lease
        self._access = access
        self._redact = redact
        self._memory = memory
        self._thread_id = lease.thread_id
        self._owner_id = lease.run_id
        self._version_suffix = f"{lease.seq:x}-{lease.attempt:x}-"
        self._version_count = itertools.count()

    @property
    def waiting(self) -> bool:
        """Return whether a read or a write is in flight."""
        return self._access.waiting

    def end(self) -> None:
        """Refuse what is written from now on: the agent has returned."""
        self._access.end()

    def rollback(self) -> Transaction[None]:
        """Return the transaction that takes back all that the run has checkpointed: the thread reads as before it."""
        lease = self._access.journal.lease
        return transactions.delete_runs(lease.thread_id, [lease.run_id])

    @asynccontextmanager
    async def staged(self) -> AsyncIterator[LedgerSaver]:
        """Give a saver whose writes are committed with the attempt's ending, if the block succeeds, or not at all.

        Raises:
            LeaseLost: The attempt does not own its run any more.
        """
        async with self._access.journal.stage() as stage:
            staging: Any = copy.copy(self)
            staging._access = Staged(stage, self._access)
            staging._memory = self._memory.staged()
            yield staging

    def _writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> CheckpointRows:
        writes = rows.kept_of_task(writes)
        if self._redact is not None:
            redact = self._redact
            writes = [(channel, redact(value) if channel == ERROR else value) for channel, value in writes]
        return super()._writes(config, writes, task_id, task_path)

    async def _write(self, saved: CheckpointRows) -> None:
        await super()._write(saved)
        written = [row for row in (*saved.blobs, *saved.writes) if row["thread_id"] == self._thread_id]
        tops = split_refs("".join(row["refs"] or "" for row in written))
        self._memory.accept(NAME, tops, saved.parts.get(self._thread_id, ()))

    def _run_id(self, metadata: Mapping[str, Any]) -> str:
        return self._owner_id

    def _values(self, thread_id: str | None) -> Values:
        return Values(self.serde, self._memory if thread_id == self._thread_id else ThreadMemory())


def _address(config: RunnableConfig) -> tuple[Place, str | None]:
    """Return the thread and namespace that *config* names, and the checkpoint if it names one."""
    wanted = config["configurable"]
    return (str(wanted["thread_id"]), wanted.get("checkpoint_ns", "")), wanted.get("checkpoint_id")
