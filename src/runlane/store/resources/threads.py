"""Threads: their metadata and state, search, copies, expiry and deletion."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from runlane.documents.document import Encoded
from runlane.outcomes import Snapshot
from runlane.records import Json, Lease, Order, Owner, PruneStrategy, Thread, ThreadTtl
from runlane.store.retrying import RetryingDriver
from runlane.store.statements import ExtraWrites
from runlane.store.transactions import interrupts, run_states, thread_search, threads
from runlane.store.transactions.interrupts import Answer, AskingPage, Permits
from runlane.store.transactions.thread_search import PageRequest, ThreadFilter, ThreadPage, ThreadPlace
from runlane.store.transactions.threads import NewThread


class Threads:
    """``store.threads``. *extra_writes* are part of the method's transaction: what happens to the checkpoints."""

    def __init__(self, database: RetryingDriver, *, thread_ttl: ThreadTtl | None) -> None:
        self._database = database
        self._thread_ttl = thread_ttl

    async def create(
        self,
        thread_id: str,
        *,
        owner: str,
        metadata: Json,
        if_exists_return: bool = False,
        ttl: ThreadTtl | None = None,
        state: Snapshot | None = None,
        extra_writes: ExtraWrites | None = None,
    ) -> Thread:
        """Create a thread; AlreadyExists if the id is taken (and not by this owner with *if_exists_return*).

        With a *state* it begins with a history, whose checkpoints the *extra_writes* make.
        """
        new = NewThread(
            thread_id=thread_id,
            owner=owner,
            metadata=metadata,
            ttl=ttl or self._thread_ttl,
            state=state,
            extra_writes=extra_writes,
        )
        return await self._database.write(lambda: threads.create_thread(new, if_exists_return=if_exists_return))

    async def get(self, thread_id: str, *, owner: Owner, with_values: bool = True) -> Thread:
        """Return the thread, or raise NotFound; without its values if they are not asked for."""
        return await self._database.read(lambda: threads.get_thread(thread_id, owner, with_values=with_values))

    async def metadata(self, thread_ids: Collection[str]) -> dict[str, Json]:
        """Return the metadata of those of the threads that are there, by their ids, whoever has them."""
        return await self._database.read(lambda: run_states.threads_metadata(thread_ids))

    async def get_idle(self, thread_id: str, *, owner: Owner) -> Thread:
        """Return the thread, without its values, if none of its runs is active; ConflictError otherwise."""
        return await self._database.write(lambda: threads.idle_thread(thread_id, owner))

    async def patch(self, thread_id: str, *, owner: Owner, metadata: Json, ttl: ThreadTtl | None = None) -> Thread:
        """Merge *metadata* shallowly into the thread's; *ttl*, if given, is counted from now."""
        await self._database.write(lambda: threads.patch_thread(thread_id, owner, metadata, ttl))
        return await self.get(thread_id, owner=owner)  # its values are read without a lock

    async def show_first_values(self, lease: Lease, values: Encoded) -> bool:
        """Let a thread that has no values show *values* until the run of *lease* ends; return whether it does now.

        ``False``: it has values, or the attempt has lost its run.
        """
        return await self._database.write(lambda: threads.show_first_values(lease, values))

    async def set_state(
        self,
        thread_id: str,
        *,
        owner: Owner,
        state: Snapshot,
        metadata: Json,
        seen: datetime | None = None,
        extra_writes: ExtraWrites | None = None,
    ) -> Thread:
        """Record a state made outside of a run, after the *extra_writes*, which write its checkpoints.

        Args:
            seen: The thread's ``updated_at`` when that was begun; ``None``: whatever has happened since.

        Raises:
            ConflictError: A run is active; nothing was written.
            ThreadChanged: Something has happened on the thread since *seen*; nothing was written.
        """
        await self._database.write(
            lambda: threads.set_thread_state(thread_id, owner, state, metadata, seen=seen, extra_writes=extra_writes)
        )
        return await self.get(thread_id, owner=owner)  # its values are read without a lock

    async def change_idle(self, thread_id: str, *, owner: Owner, extra_writes: ExtraWrites) -> None:
        """Do the *extra_writes*, which leave the thread reading as before; ConflictError while a run is active."""
        await self._database.write(lambda: threads.change_idle_thread(thread_id, owner, extra_writes))

    async def copy(
        self,
        source: str,
        target: str,
        *,
        reads: Owner,
        owner: str,
        metadata: Json,
        extra_writes: ExtraWrites | None = None,
    ) -> Thread:
        """Copy a thread without its runs; the *extra_writes* copy its checkpoints.

        Raises:
            ConflictError: A run executes.
        """
        await self._database.write(
            lambda: threads.copy_thread(
                source, target, reads=reads, owner=owner, metadata=metadata, extra_writes=extra_writes
            )
        )
        return await self.get(target, owner=owner)  # its values are read without a lock

    async def asking(
        self, *, owner: Owner, permits: Permits | None, thread_id: str | None, after: tuple[int, str], limit: int
    ) -> AskingPage:
        """Return threads whose graphs wait for answers, those that have asked the longest first.

        Args:
            permits: Says by a thread's metadata whether it may be seen; ``None``: all may.
        """
        return await self._database.read(lambda: interrupts.asking(owner, permits, thread_id, after, limit))

    async def answers(
        self, *, owner: Owner, permits: Permits | None, thread_id: str | None, limit: int
    ) -> tuple[Answer, ...]:
        """Return runs that answer interrupts, the newest first."""
        return await self._database.read(lambda: interrupts.answers(owner, permits, thread_id, limit))

    async def search(
        self,
        *,
        owner: Owner,
        where: ThreadFilter,
        sort_by: str = "updated_at",
        order: Order = "desc",
        limit: int = 10,
        offset: int = 0,
        with_values: bool = True,
    ) -> tuple[Thread, ...]:
        """Return threads that match *where*, sorted by one of ``SORT_KEYS``."""
        page = await self.page(
            owner=owner,
            where=where,
            sort_by=sort_by,
            order=order,
            limit=limit,
            offset=offset,
            count_at_most=0,
            with_values=with_values,
        )
        return page.threads

    async def page(
        self,
        *,
        owner: Owner,
        where: ThreadFilter,
        sort_by: str = "updated_at",
        order: Order = "desc",
        limit: int = 10,
        offset: int = 0,
        count_at_most: int,
        after: ThreadPlace | None = None,
        with_values: bool = True,
    ) -> ThreadPage:
        """Return a page as :meth:`search` does, and :meth:`count` what matches up to *count_at_most*, in one go.

        With *after*, the page begins at that place, and nothing is counted.
        """
        page = PageRequest(
            sort_by=sort_by,
            order=order,
            limit=limit,
            offset=offset,
            count_at_most=0 if after else count_at_most,
            after=after,
        )
        return await self._database.read(
            lambda: thread_search.page_threads(owner, where, page, with_values=with_values)
        )

    async def all(
        self, *, owner: Owner, where: ThreadFilter, after: str = "", limit: int, with_values: bool = True
    ) -> tuple[Thread, ...]:
        """Return threads that match *where*, those of stateless runs too, with ids above *after*, in their order."""
        return await self._database.read(
            lambda: thread_search.all_threads(owner, where, after, limit, with_values=with_values)
        )

    async def count(self, *, owner: Owner, where: ThreadFilter, at_most: int | None = None) -> int:
        """Return how many threads match *where*, or *at_most*."""
        return await self._database.read(lambda: thread_search.count_threads(owner, where, at_most=at_most))

    async def delete(self, thread_id: str, *, owner: Owner, extra_writes: ExtraWrites | None = None) -> None:
        """Delete a thread, its runs and their events, after the *extra_writes*; ConflictError while a run is active."""
        await self._database.write(lambda: threads.delete_thread(thread_id, owner, extra_writes))

    async def expired(self, *, limit: int, temporary: bool = False) -> tuple[tuple[str, PruneStrategy], ...]:
        """Return idle threads of all owners whose time is over, and what is to become of each.

        Args:
            temporary: Those of stateless runs instead of all others.
        """
        return await self._database.read(lambda: threads.expired_threads(limit, temporary=temporary))

    async def expire(
        self, thread_id: str, strategy: PruneStrategy, *, extra_writes: ExtraWrites | None = None
    ) -> Thread | None:
        """Delete an expired thread, or record that the *extra_writes* pruned it.

        Returns:
            The thread as it was, without its values; ``None`` if it is not expired any more, is busy, or is to be
            treated otherwise by now.
        """
        return await self._database.write(lambda: threads.expire_thread(thread_id, strategy, extra_writes))
