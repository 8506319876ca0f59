"""The service behind the routes: the library, the graphs, and what the server adds to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

from langchain_core.runnables import RunnableConfig

from runlane.agents.invocation import run_config
from runlane.agents.registry import Registry
from runlane.agents.state import ThreadStates
from runlane.agents.users import RunUser, RunUsers, run_user
from runlane.checkpoints.saver import LedgerSaver
from runlane.doctor.live import LiveDoctor
from runlane.errors import ConflictError, NotFound
from runlane.lifecycle import RunStatus
from runlane.maintenance.table_sizes import TableSizes
from runlane.manager import RunManager
from runlane.records import ANY_OWNER, Assistant, Owner, Thread
from runlane.runtime import Runtime
from runlane.server.auth.access import Access, Authority, Canceller
from runlane.server.auth.grants import Grants
from runlane.server.config.http_section import HttpSection
from runlane.server.http.probing import DatabaseProbe
from runlane.store.ledger import RunStore
from runlane.store.statements import ExtraWrites
from runlane.streams.bridge import StreamBridge
from runlane.telemetry.prices import Prices
from runlane.webhooks.deliverer import Deliverer

T = TypeVar("T")
#: Tries to delete a thread whose clients go on admitting runs.
DELETE_TRIES = 10


class Drain:
    """The end of this process's runs: begun once, and hurried by whoever asks again with a shorter grace."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._begun: asyncio.Task[None] | None = None

    async def __call__(self, grace_s: float | None = None) -> None:
        """Admit nothing more, let runs finish, hand the rest back, then end the open streams without ``end``."""
        runtime = self._runtime
        grace = runtime.settings.drain_grace_s if grace_s is None else grace_s
        if self._begun is None:
            self._begun = asyncio.ensure_future(runtime.runs.shutdown(grace))
        elif grace < runtime.settings.drain_grace_s:
            await runtime.worker.drain(grace)
        await asyncio.shield(self._begun)
        runtime.streams.dismiss_readers()


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The service behind the routes.

    Attributes:
        section: The key ``http`` of langgraph.json.
        grants: Authentication of requests that go on; ``None`` if nobody is asked who they are.
        users: What is known of the users of runs that this process admitted.
        system_assistants: By id and by graph. They never change, so that a run on one needs no read.
    """

    runtime: Runtime
    registry: Registry
    section: HttpSection
    grants: Grants | None
    users: RunUsers
    webhooks: Deliverer
    system_assistants: Mapping[str, Assistant]
    probe: DatabaseProbe
    table_sizes: TableSizes
    doctor: LiveDoctor
    drain: Drain
    prices: Prices

    @property
    def runs(self) -> RunManager:
        return self.runtime.runs

    @property
    def streams(self) -> StreamBridge:
        return self.runtime.streams

    @property
    def store(self) -> RunStore:
        return self.runtime.store

    @property
    def authority(self) -> Authority | None:
        """Authentication; ``None`` without any."""
        return None if self.grants is None else self.grants.authority

    def states(self, access: Access | str, config: RunnableConfig | None = None) -> ThreadStates:
        """Return the states of threads as the user of *access*, or an owner of theirs, sees them.

        Call its methods through :meth:`on_agents`.

        Args:
            config: What a factory makes the graph by.
        """
        if isinstance(access, str):
            access = Access(owner=access, reads=access)
        store = self.runtime.long_term_store
        return ThreadStates(
            self.registry,
            store=None if store is None else store.for_owner(access.owner),
            user=_run_user(access),
            config=config,
        )

    async def states_of(self, access: Access | str, thread: Thread, graph_id: str) -> ThreadStates:
        """Return the states of *thread*; a factory gets the configuration of its last run, else of its assistant."""
        if not self.registry.is_made(graph_id):
            return self.states(access)
        runs = await self.store.runs.list(thread.thread_id, owner=ANY_OWNER, limit=1)
        if runs and runs[0].graph_id == graph_id:
            user = None if isinstance(access, str) else _run_user(access)
            return self.states(access, run_config(runs[0], graph_id, user=user, fork=False))
        assistant_id = thread.metadata.get("assistant_id")
        config: RunnableConfig = {}
        if isinstance(assistant_id, str):
            with suppress(NotFound):  # it was deleted since; its threads can still be read
                config = graph_config(await self.store.assistants.get(assistant_id, owner=ANY_OWNER))
        return self.states(access, config)

    async def on_agents(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine where graphs run."""
        return await self.runtime.host.run(make)

    @property
    def agents_blocked_s(self) -> float:
        """For how long code has blocked the agents' loop in all, in seconds."""
        return self.runtime.host.blocked_s

    async def delete_thread(self, thread_id: str, owner: Owner, by: Canceller) -> None:
        """Stop the thread's runs, wait until their code has stopped, and delete all that the thread has.

        Raises:
            ConflictError: Clients admit runs faster than they can be stopped.
        """
        await self.store.threads.get(thread_id, owner=owner, with_values=False)
        for tries_left in reversed(range(DELETE_TRIES)):
            await self.stop_runs(thread_id, ANY_OWNER, by)
            try:
                await self.store.threads.delete(thread_id, owner=owner, extra_writes=self.remove_checkpoints(thread_id))
            except NotFound:
                return
            except ConflictError:
                if not tries_left:
                    raise
                continue
            return

    @property
    def saver(self) -> LedgerSaver:
        assert self.runtime.saver is not None, "the server needs the extra 'agents', with which there is one"
        return self.runtime.saver

    def remove_checkpoints(self, thread_id: str) -> ExtraWrites:
        """Return what deletes a thread's checkpoints in the same transaction."""
        return partial(self.saver.threads.removing, thread_id)

    def copy_checkpoints(self, source_id: str, thread_id: str) -> ExtraWrites:
        """Return what copies the checkpoints of *source_id* to *thread_id*."""
        return partial(self.saver.threads.copying, source_id, thread_id)

    async def stop_runs(self, thread_id: str, owner: Owner, by: Canceller) -> None:
        """Cancel every active run of the thread, the last admitted first, and wait for their ends."""
        for status in (RunStatus.PENDING, RunStatus.RUNNING):
            for run in await self.store.runs.list(thread_id, owner=owner, status=status, limit=1000):
                try:
                    await self.runs.cancel(run.run_id, wait=True, owner=owner, **by)
                except NotFound:
                    continue

    def graph_of(self, thread: Thread) -> str | None:
        """Return the graph that last ran on the thread."""
        graph_id = thread.metadata.get("graph_id")
        return graph_id if isinstance(graph_id, str) and graph_id in self.registry.graph_ids else None


def graph_config(assistant: Assistant) -> RunnableConfig:
    """Return what a factory makes the graph of *assistant* by, where there is no run."""
    ids = {"assistant_id": assistant.assistant_id, "graph_id": assistant.graph_id}
    configurable = {**(assistant.config.get("configurable") or {}), **ids}
    return cast(RunnableConfig, {**assistant.config, "configurable": configurable})


def _run_user(access: Access) -> RunUser | None:
    user = access.user
    return None if user is None else run_user(user.identity, user.permissions, user.fields())
