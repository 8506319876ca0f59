"""The server's use of the library: graphs on their own loop, system assistants, and the drain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import uvloop
from langchain_core.runnables import RunnableConfig
from starlette.applications import Starlette

from runlane.agents.graph import GraphAgent
from runlane.agents.host import AgentHost, ThreadHost
from runlane.agents.invocation import run_config
from runlane.agents.isolation import GraphHosts
from runlane.agents.registry import Registry, load_registry, system_assistant_id
from runlane.agents.state import ThreadStates
from runlane.agents.users import RunUser, RunUsers, run_user
from runlane.errors import ConfigurationError, ConflictError, NotFound
from runlane.lifecycle import EndReason, RunStatus
from runlane.maintenance.crons import CronScheduler
from runlane.maintenance.retention import ThreadSweeper
from runlane.records import ANY_OWNER, Assistant, Owner, RunRecord, Thread
from runlane.runtime import Runtime, new_run_id, open_runtime
from runlane.server.auth.access import Access, Authority
from runlane.server.auth.grants import Grants
from runlane.server.auth.handlers import load_authority
from runlane.server.config.expiry import Expiry, load_expiry
from runlane.server.config.http_section import HttpSection
from runlane.server.config.long_term import load_store
from runlane.server.deliveries import new_deliverer
from runlane.server.http.probing import DatabaseProbe
from runlane.settings import Settings
from runlane.store.ledger import RunStore
from runlane.store.statements import ExtraWrites
from runlane.store.transactions.assistants import SHARED_OWNER, NewAssistant
from runlane.telemetry.observers import Observer
from runlane.webhooks.deliverer import Deliverer

T = TypeVar("T")
#: Tries to delete a thread whose clients go on admitting runs.
DELETE_TRIES = 10


class Service:
    """What the routes use."""

    #: What is known of the users of runs that this process admitted.
    users: RunUsers

    #: What fires crons; it makes runs by the rules of the routes, which stand on this.
    crons: CronScheduler

    def __init__(
        self,
        runtime: Runtime,
        registry: Registry,
        host: ThreadHost | GraphHosts,
        webhooks: Deliverer,
        grants: Grants | None = None,
    ) -> None:
        self.runtime = runtime
        self.registry = registry
        self._host = host
        self.grants = grants
        self.runs = runtime.runs
        self.streams = runtime.streams
        self.store = runtime.store
        self.new_id = new_run_id
        self.section = HttpSection()
        #: By id and by graph. They never change, so that a run on one needs no read.
        self.system_assistants: dict[str, Assistant] = {}
        self.webhooks = webhooks
        self.probe = DatabaseProbe(runtime.store)
        self._drained: asyncio.Task[None] | None = None

    @property
    def authority(self) -> Authority | None:
        """What says who sends a request; ``None`` if nobody is asked."""
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
        return await self._host.run(make)

    @property
    def agents_blocked_s(self) -> float:
        """For how long code has blocked the agents' loop in all, in seconds."""
        return self._host.blocked_s

    async def drain(self, grace_s: float | None = None) -> None:
        """Admit nothing more, let runs finish, hand the rest back, then end the open streams without ``end``.

        A later call with a shorter grace hurries an earlier one.
        """
        grace = self.runtime.settings.drain_grace_s if grace_s is None else grace_s
        if self._drained is not None and grace < self.runtime.settings.drain_grace_s:
            await self.runtime.worker.drain(grace)
        if self._drained is None:
            self._drained = asyncio.ensure_future(self.runs.shutdown(grace))
        await asyncio.shield(self._drained)
        self.streams.dismiss_readers()

    async def ended(self, run: RunRecord) -> None:
        """Tell the run's webhook; remove a rolled back run."""
        if run.webhook is not None:
            self.webhooks.wake()
        self.users.forget(run.run_id)
        if run.end_reason is EndReason.ROLLED_BACK:
            await self.delete_rolled_back(run.run_id)

    async def delete_rolled_back(self, run_id: str) -> None:
        """Delete the row of a rolled back run, as the LangGraph API does."""
        try:
            await self.store.runs.delete(run_id, owner=ANY_OWNER)
        except NotFound:
            return

    async def delete_thread(self, thread_id: str, owner: Owner) -> None:
        """Stop the thread's runs, wait until their code has stopped, and delete all that the thread has.

        Raises:
            ConflictError: Clients admit runs faster than they can be stopped.
        """
        await self.store.threads.get(thread_id, owner=owner)
        for tries_left in reversed(range(DELETE_TRIES)):
            await self.stop_runs(thread_id, ANY_OWNER)
            try:
                await self.store.threads.delete(
                    thread_id, owner=owner, extra_writes=self.on_checkpoints("removing", thread_id)
                )
            except NotFound:
                return
            except ConflictError:
                if not tries_left:
                    raise
                continue
            return

    def on_checkpoints(self, name: str, *args: str) -> ExtraWrites | None:
        """Return what makes the saver's transaction *name*; ``None`` if there are no checkpoints."""
        return None if self.runtime.saver is None else partial(getattr(self.runtime.saver, name), *args)

    async def stop_runs(self, thread_id: str, owner: Owner) -> None:
        """Cancel every active run of the thread, the last admitted first, and wait for their ends."""
        for status in (RunStatus.PENDING, RunStatus.RUNNING):
            for run in await self.store.runs.list(thread_id, owner=owner, status=status, limit=1000):
                try:
                    await self.runs.cancel(run.run_id, wait=True, owner=owner)
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


async def register_system_assistants(store: RunStore, registry: Registry) -> dict[str, Assistant]:
    """Give every graph its assistant, which all owners see; return them by id and by graph."""
    found: dict[str, Assistant] = {}
    for graph_id in registry.graph_ids:
        assistant = found[graph_id] = await store.assistants.create(
            NewAssistant(
                assistant_id=system_assistant_id(graph_id),
                owner=SHARED_OWNER,
                graph_id=graph_id,
                name=registry.name(graph_id),
                description=registry.description(graph_id),
                config={},
                context={},
                metadata={"created_by": "system"},
            ),
            if_exists_return=True,
        )
        found[assistant.assistant_id] = assistant
    return found


def _check_checkpoints(settings: Settings, registry: Registry) -> None:
    if settings.database.startswith(("postgres://", "postgresql://")) and registry.graph_ids:
        raise ConfigurationError(
            "Graphs cannot be served from PostgreSQL yet: it keeps no checkpoints, and threads would have no memory. "
            "Use sqlite:///PATH."
        )


async def _grants(stack: AsyncExitStack, config: Path | None, settings: Settings) -> Grants | None:
    authority = await asyncio.get_running_loop().run_in_executor(None, load_authority, config, settings)
    if authority is None:
        return None
    stack.push_async_callback(authority.aclose)
    return await stack.enter_async_context(Grants(authority, every_s=settings.reauthenticate_s))


def _thread_sweeper(runtime: Runtime, expiry: Expiry) -> ThreadSweeper:
    return ThreadSweeper(
        store=runtime.store,
        saver=runtime.saver,
        every_s=expiry.every_s,
        limit=expiry.limit,
        telemetry=runtime.telemetry,
    )


@asynccontextmanager
async def open_service(
    config: Path | None,
    settings: Settings,
    registry: Registry | None = None,
    own: Starlette | None = None,
    observers: Sequence[Observer] = (),
) -> AsyncIterator[Service]:
    """Load the graphs, open the runtime, and rescue what the last process left, before the first request.

    Args:
        own: The project's own application.
        observers: Called with the events of :mod:`runlane.telemetry.events`.

    Raises:
        ConfigurationError: langgraph.json or the settings cannot be used, or the database keeps no checkpoints.
        LedgerInUse: Another process owns the database.
    """
    hosts: list[ThreadHost | GraphHosts] = []

    def new_host() -> AgentHost:
        make = GraphHosts if settings.isolate_graphs else ThreadHost
        hosts.append(make(uvloop.new_event_loop))
        return hosts[-1]

    if registry is None:
        assert config is not None
        path = config
        registry = await asyncio.get_running_loop().run_in_executor(None, load_registry, path)
    _check_checkpoints(settings, registry)
    graphs = registry
    late: list[Service] = []
    users = RunUsers()

    async def ended(run: RunRecord) -> None:
        if late:
            await late[0].ended(run)

    expiry = load_expiry(config)
    async with AsyncExitStack() as stack:
        grants = await _grants(stack, config, settings)
        runtime = await stack.enter_async_context(
            open_runtime(
                settings=settings,
                graph_agent=lambda graph_id: GraphAgent(graphs, graph_id, users),
                new_host=new_host,
                new_store=await asyncio.get_running_loop().run_in_executor(None, load_store, config),
                hooks=(ended,),
                observers=observers,
                thread_ttl=expiry.default,
                secrets_provider=users.fields_of,
            )
        )
        webhooks = await stack.enter_async_context(new_deliverer(config, runtime, own))
        service = Service(runtime, registry, hosts[0], webhooks, grants)
        service.system_assistants = await register_system_assistants(runtime.store, registry)
        service.users = users
        late.append(service)
        await stack.enter_async_context(_thread_sweeper(runtime, expiry))
        yield service
