"""Starting a server: what is read first, what is opened in which order, and what is closed in the reverse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import uvloop

from runlane.agents.builds import build_of, pinned_graphs
from runlane.agents.graph import GraphAgent
from runlane.agents.host import AgentHost, ThreadHost
from runlane.agents.isolation import GraphHosts
from runlane.agents.langgraph_json import read_graphs_file
from runlane.agents.registry import Registry, load_registry, system_assistant_id
from runlane.agents.users import RunUsers
from runlane.doctor.live import LiveDoctor
from runlane.lifecycle import EndReason
from runlane.maintenance.retention import ThreadSweeper
from runlane.maintenance.table_sizes import TableSizes
from runlane.records import Assistant, RunRecord
from runlane.runtime import Runtime, open_runtime
from runlane.server.auth.grants import Grants
from runlane.server.auth.handlers import load_authority
from runlane.server.config.expiry import Expiry, load_expiry
from runlane.server.config.http_section import HttpSection
from runlane.server.config.long_term import NewStore, load_store
from runlane.server.config.webhooks import new_deliverer
from runlane.server.http.probing import DatabaseProbe
from runlane.server.http.responses import run_wire
from runlane.server.rollbacks import RollbackSweeper, delete_rolled_back
from runlane.server.service import Drain, Service
from runlane.settings import Settings
from runlane.store.backends import open_driver
from runlane.store.ledger import RunStore
from runlane.store.transactions.assistants import SHARED_OWNER, NewAssistant
from runlane.supervised_loop import together
from runlane.telemetry.emitter import Telemetry
from runlane.telemetry.logs import log_transitions
from runlane.telemetry.observers import Observer
from runlane.telemetry.prices import Prices, load_prices
from runlane.webhooks.deliverer import Post

#: What a server without a section ``http`` has.
NO_SECTION = HttpSection()


class RunEnded:
    """The server's hook for ended runs: wakes the webhook, and forgets the user."""

    def __init__(self, store: RunStore, users: RunUsers, wake_webhooks: Callable[[], None]) -> None:
        self._store = store
        self._users = users
        self._wake_webhooks = wake_webhooks

    async def __call__(self, run: RunRecord) -> None:
        if run.webhook is not None:
            self._wake_webhooks()
        self._users.forget(run.run_id)
        if run.end_reason is EndReason.ROLLED_BACK:
            await delete_rolled_back(self._store, run.run_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Project:
    """The keys of langgraph.json beside the sections ``auth``, ``http`` and ``webhooks``, and the file of prices."""

    graphs: Registry
    expiry: Expiry
    new_store: NewStore | None
    build: str
    pinned_graphs: tuple[str, ...]
    prices: Prices


def _load_project(config: Path | None, settings: Settings, registry: Registry | None) -> _Project:
    """Read the project at *config*. Blocks; runs the user's code."""
    if registry is None:
        assert config is not None
        registry = load_registry(config)
    file = None if config is None else read_graphs_file(config)
    return _Project(
        graphs=registry,
        expiry=load_expiry(config),
        new_store=load_store(config),
        build=settings.build or ("" if file is None else build_of(file)),
        pinned_graphs=() if file is None else pinned_graphs(file),
        prices=load_prices(settings.prices),
    )


@asynccontextmanager
async def open_service(
    config: Path | None,
    settings: Settings,
    registry: Registry | None = None,
    *,
    section: HttpSection = NO_SECTION,
    post_locally: Post | None = None,
    observers: Sequence[Observer] = (),
) -> AsyncIterator[Service]:
    """Load the graphs, open the runtime, and rescue what the last process left, before the first request.

    Args:
        registry: The graphs of *config*, if they are loaded already.
        post_locally: Sends a webhook to the project's own application, if there is one.
        observers: Called with the events of :mod:`runlane.telemetry.events`.

    Raises:
        ConfigurationError: langgraph.json or the settings cannot be used.
        LedgerInUse: Another process owns the database.
    """
    project = await asyncio.get_running_loop().run_in_executor(None, _load_project, config, settings, registry)
    users = RunUsers()
    async with AsyncExitStack() as stack:
        telemetry = Telemetry((*log_transitions(), *observers))
        grants = await stack.enter_async_context(_open_grants(config, settings, telemetry))
        driver = await stack.enter_async_context(aclosing(await open_driver(settings)))
        store = RunStore(driver)
        webhooks = new_deliverer(config, store, settings, payload=run_wire, local=post_locally, telemetry=telemetry)
        runtime = await stack.enter_async_context(
            open_runtime(
                settings=replace(settings, build=project.build),
                driver=driver,
                graph_agent=lambda graph_id: GraphAgent(project.graphs, graph_id, users),
                graph_ids=project.graphs.graph_ids,
                pinned_graphs=project.pinned_graphs,
                new_host=lambda: _new_host(settings),
                new_store=project.new_store,
                hooks=(RunEnded(store, users, webhooks.wake),),
                observers=observers,
                thread_ttl=project.expiry.default,
                secrets_provider=users.fields_of,
            )
        )
        table_sizes = TableSizes(store.sizes, telemetry)
        service = Service(
            runtime=runtime,
            registry=project.graphs,
            section=section,
            grants=grants,
            users=users,
            webhooks=await stack.enter_async_context(webhooks),
            system_assistants=await register_system_assistants(store, project.graphs),
            probe=DatabaseProbe(store),
            table_sizes=table_sizes,
            doctor=await stack.enter_async_context(LiveDoctor(store, sqlite=not settings.on_postgres)),
            drain=Drain(runtime),
            prices=project.prices,
        )
        await stack.enter_async_context(together(table_sizes, *_sweepers(runtime, project.expiry)))
        yield service


@asynccontextmanager
async def _open_grants(config: Path | None, settings: Settings, telemetry: Telemetry) -> AsyncIterator[Grants | None]:
    """Load what authenticates requests; ``None`` if nobody is asked who they are."""
    authority = await asyncio.get_running_loop().run_in_executor(None, load_authority, config, settings)
    if authority is None:
        yield None
        return
    reauthenticating = Grants(authority, every_s=settings.reauthenticate_s, telemetry=telemetry)
    async with aclosing(authority), reauthenticating as grants:
        yield grants


def _sweepers(runtime: Runtime, expiry: Expiry) -> tuple[ThreadSweeper, RollbackSweeper]:
    threads = ThreadSweeper(
        store=runtime.store,
        saver=runtime.saver,
        every_s=expiry.every_s,
        limit=expiry.limit,
        telemetry=runtime.telemetry,
    )
    return threads, RollbackSweeper(runtime.store, runtime.telemetry)


def _new_host(settings: Settings) -> AgentHost:
    make = GraphHosts if settings.isolate_graphs else ThreadHost
    return make(uvloop.new_event_loop)


async def register_system_assistants(store: RunStore, registry: Registry) -> dict[str, Assistant]:
    """Give every graph its assistant, which all owners see; return them by id and by graph."""
    made = await asyncio.gather(*(_system_assistant(store, registry, graph_id) for graph_id in registry.graph_ids))
    found = {assistant.graph_id: assistant for assistant in made}
    return found | {assistant.assistant_id: assistant for assistant in made}


async def _system_assistant(store: RunStore, registry: Registry, graph_id: str) -> Assistant:
    new = NewAssistant(
        assistant_id=system_assistant_id(graph_id),
        owner=SHARED_OWNER,
        graph_id=graph_id,
        name=registry.name(graph_id),
        description=registry.description(graph_id),
        config={},
        context={},
        metadata={"created_by": "system"},
    )
    return await store.assistants.create(new, if_exists_return=True)
