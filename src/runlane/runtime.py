"""The composition root: builds the parts of a process, starts and stops them in order. Nothing else names a backend."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from runlane.agents.base import Agent
from runlane.agents.host import AgentHost, InlineHost
from runlane.agents.sources import RunAgents
from runlane.agents.watchdog import WatchedLease
from runlane.dispatch.base import Dispatch
from runlane.dispatch.local import LocalDispatch
from runlane.dispatch.shared import SharedDispatch
from runlane.documents.memory import ThreadMemories
from runlane.error_texts import ErrorTexts
from runlane.errors import ConfigurationError
from runlane.execution.application import ApplicationRuns
from runlane.execution.executor import Executor
from runlane.execution.external import ExternalRuns
from runlane.execution.node_lease import NodeLease, new_worker_id, worker_state
from runlane.execution.notifier import CompletionNotifier, Ended
from runlane.execution.ports import Meter, NewSpans
from runlane.execution.run import AgentRunner
from runlane.execution.worker import Worker
from runlane.extras import needs_extra
from runlane.maintenance.freed_pages import FreedPages
from runlane.maintenance.part_sweeps import PartSweeper
from runlane.maintenance.purging import Purger
from runlane.maintenance.rescue import Rescuer
from runlane.maintenance.retention import item_sweep
from runlane.maintenance.sharing import shared_news, shared_work
from runlane.maintenance.totals import totals_loop
from runlane.manager import Reconcile, RunManager
from runlane.owners import OwnerRule
from runlane.records import Lease, RunRecord, ThreadTtl, Usage
from runlane.runs.cancellation import RunCanceller
from runlane.runs.submission import RunSubmitter
from runlane.runs.updates import RunUpdates
from runlane.settings import Limits, Settings
from runlane.store.backends import MEMORY, open_driver
from runlane.store.drivers.sqlite import SqliteDriver
from runlane.store.ledger import RunStore
from runlane.store.notifications import Notifications
from runlane.store.retry import PersistenceRetryPolicy
from runlane.store.statements import Driver
from runlane.streams.bridge import StreamBridge
from runlane.supervised_loop import together
from runlane.telemetry.emitter import Telemetry
from runlane.telemetry.observers import Observer
from runlane.telemetry.opening import open_telemetry

if TYPE_CHECKING:
    from runlane.checkpoints.saver import LedgerSaver
    from runlane.checkpoints.store import LedgerLongTermStore

    NewStore = Callable[[Driver, AgentHost], LedgerLongTermStore]

#: The first digit of a UUID's fourth group.
_VARIANT = "89ab"
#: A ledger in memory forgets ended runs after this long, as nothing else bounds it.
MEMORY_RETENTION_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """The parts of a running process. ``runs`` and ``streams`` are what an application uses."""

    settings: Settings
    runs: RunManager
    submitter: RunSubmitter
    streams: StreamBridge
    notifications: Notifications
    store: RunStore
    lease: NodeLease
    worker: Worker
    rescuer: Rescuer
    purger: Purger
    telemetry: Telemetry
    host: AgentHost
    agents: RunAgents
    saver: LedgerSaver | None
    long_term_store: LedgerLongTermStore | None

    async def drain(self, grace_s: float | None = None) -> None:
        """Admit nothing more, let runs finish, stop the rest, then let readers of streams stop where they are.

        For a process that is told to stop while responses are open. A later call with a shorter grace hurries an
        earlier one.

        Args:
            grace_s: How long runs may go on; the setting ``drain_grace_s`` by default.
        """
        await self.runs.shutdown(self.settings.drain_grace_s if grace_s is None else grace_s)
        self.streams.dismiss_readers()


def utc_now() -> datetime:
    """Return the present instant."""
    return datetime.now(UTC)


def new_run_id() -> str:
    """Return a UUID of version 7: ordered by time, so that indexes stay compact."""
    text = f"{time.time_ns() // 1_000_000:012x}7{os.urandom(10).hex()}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{_VARIANT[int(text[16], 16) & 3]}{text[17:20]}-{text[20:32]}"


@asynccontextmanager
async def open_runtime(
    database: str | None = None,
    *,
    settings: Settings | None = None,
    driver: Driver | None = None,
    graph_agent: Callable[[str], Agent] | None = None,
    graph_ids: Iterable[str] | None = None,
    pinned_graphs: Iterable[str] = (),
    new_host: Callable[[], AgentHost] = InlineHost,
    new_store: NewStore | None = None,
    hooks: Sequence[Ended] = (),
    observers: Sequence[Observer] = (),
    new_dispatch: Callable[[Limits], Dispatch] | None = None,
    new_id: Callable[[], str] = new_run_id,
    retry: PersistenceRetryPolicy | None = None,
    thread_ttl: ThreadTtl | None = None,
    secrets_provider: Callable[[RunRecord], Mapping[str, Any]] | None = None,
    exclusive: bool | None = None,
    worker_id: str | None = None,
    now: Callable[[], datetime] = utc_now,
) -> AsyncIterator[Runtime]:
    """Run everything that an application needs to have runs executed, until the context is left.

    On the way out admission closes, runs may finish for ``drain_grace_s``, the rest are stopped and handed back, or
    ended where nothing can continue them; then the database is closed.

    Args:
        database: ``sqlite:///path``, ``postgresql://...`` or ``memory://``; ``None`` keeps the ledger in memory.
        settings: Everything else; *database* wins over its database.
        driver: An open database instead; the caller closes it.
        graph_agent: Makes the agent of a graph id; without it runs execute what is attached to them.
        graph_ids: The graphs of *graph_agent*; runs of others are left to other processes of a shared ledger.
        pinned_graphs: Those whose runs go on only in processes of the same ``build``, on a shared ledger.
        new_host: Makes the place where agents run; the running loop by default.
        new_store: Makes the long-term store for agents of that place; by default one without an index.
        hooks: Called with each run that has ended.
        observers: Called with the events of :mod:`runlane.telemetry.events`; made by ``on``.
        new_dispatch: Makes what carries hints within this process, and may lose them; tests bring a careless one. By
            default each run is claimed by its hint, or, if others use the database, heads are claimed in its order.
        thread_ttl: When threads expire of which nothing else is said; a ``ThreadSweeper`` looks after that.
        secrets_provider: Returns what graphs are told beside a run's row; what is a secret by its name is redacted
            from what they say.
        exclusive: Whether no other process uses the database; by default true unless it is PostgreSQL.
    """
    settings = _settings(database, settings)
    async with AsyncExitStack() as stack:
        if driver is None:
            driver = await open_driver(settings)
            stack.push_async_callback(driver.aclose)
        alone = not settings.on_postgres if exclusive is None else exclusive
        telemetry = await stack.enter_async_context(open_telemetry(settings, observers))
        store = RunStore(
            driver, retry=retry, thread_ttl=thread_ttl, max_queued_runs=settings.max_queued_runs, telemetry=telemetry
        )
        source = _source(settings, graph_agent, secrets_provider, graph_ids, pinned_graphs)
        dispatch = (new_dispatch or (LocalDispatch if alone else SharedDispatch))(_limits(settings, exclusive=alone))
        core = _core(settings, store, dispatch, source, new_host(), new_store, hooks, telemetry, exclusive=alone)
        parts = _parts(core, new_id=new_id, worker_id=worker_id or new_worker_id(), now=now)
        await stack.enter_async_context(_running(core, parts))
        yield parts


def _settings(database: str | None, settings: Settings | None) -> Settings:
    settings = settings or Settings(database=database or MEMORY)
    if database is not None and settings.database != database:
        return Settings(**{**_fields(settings), "database": database})
    return settings


def _limits(settings: Settings, *, exclusive: bool) -> Limits:
    if exclusive and not settings.execute_runs:
        raise ConfigurationError(
            "execute_runs is false, and no other process can execute runs of this database: only PostgreSQL is shared. "
            "Set it to true, or use postgresql://..."
        )
    return Limits.of(settings)


def _source(
    settings: Settings,
    graph_agent: Callable[[str], Agent] | None,
    secrets_provider: Callable[[RunRecord], Mapping[str, Any]] | None,
    graph_ids: Iterable[str] | None,
    pinned: Iterable[str],
) -> RunAgents:
    executes = settings.execute_runs
    return RunAgents(graph_agent, secrets_provider, graph_ids, build=settings.build, pinned=pinned, executes=executes)


@asynccontextmanager
async def _running(core: _Core, parts: Runtime) -> AsyncIterator[None]:
    """Have everything of the process run, each part after what it needs, and stop it in the opposite order."""
    async with AsyncExitStack() as stack:
        stack.push_async_callback(core.dispatch.aclose)
        stack.push_async_callback(core.host.aclose)
        stack.push_async_callback(core.notifier.aclose)
        periodic: list[AbstractAsyncContextManager[Any]] = [
            parts.rescuer,
            parts.purger,
            PartSweeper(core.store, core.telemetry),
            totals_loop(core.store.totals, core.telemetry),
        ]
        if core.long_term_store is not None:
            await core.long_term_store.prepare()
            periodic.append(item_sweep(core.long_term_store, core.telemetry))
        if isinstance(core.store.driver, SqliteDriver):
            periodic.append(FreedPages(core.store.driver, core.telemetry))
        await stack.enter_async_context(together(*periodic, core.bridge.changes.running(core.telemetry)))
        if not core.exclusive:
            news = shared_news(
                core.dispatch, core.store, core.bridge, core.notifications, core.settings, core.telemetry
            )
            await stack.enter_async_context(news)
        if isinstance(core.dispatch, SharedDispatch):
            sharing = shared_work(core.dispatch, core.store, core.source, core.settings, core.telemetry)
            await stack.enter_async_context(sharing)
        await stack.enter_async_context(parts.worker)
        stack.push_async_callback(parts.runs.shutdown, core.settings.drain_grace_s)
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class _Core:
    """Dependencies that the parts of a process share."""

    settings: Settings
    store: RunStore
    bridge: StreamBridge
    dispatch: Dispatch
    source: RunAgents
    notifier: CompletionNotifier
    telemetry: Telemetry
    host: AgentHost
    saver: LedgerSaver | None
    long_term_store: LedgerLongTermStore | None
    notifications: Notifications
    exclusive: bool


def _core(
    settings: Settings,
    store: RunStore,
    dispatch: Dispatch,
    source: RunAgents,
    host: AgentHost,
    new_store: NewStore | None,
    hooks: Sequence[Ended],
    telemetry: Telemetry,
    *,
    exclusive: bool,
) -> _Core:
    notifications = Notifications()
    bridge = StreamBridge(
        store,
        heartbeat_s=settings.heartbeat_s,
        require_owner=settings.require_owner,
        notifications=notifications,
    )
    saver, long_term_store = _langgraph(store.driver, host, new_store)
    return _Core(
        settings=settings,
        store=store,
        bridge=bridge,
        dispatch=dispatch,
        source=source,
        notifier=CompletionNotifier(bridge, dispatch, hooks, telemetry),
        telemetry=telemetry,
        host=host,
        saver=saver,
        long_term_store=long_term_store,
        notifications=notifications,
        exclusive=exclusive,
    )


def _parts(core: _Core, *, new_id: Callable[[], str], worker_id: str, now: Callable[[], datetime]) -> Runtime:
    external: dict[str, Lease] = {}
    lease = _lease(core, worker_id)
    worker = Worker(
        worker_id=worker_id,
        store=core.store,
        dispatch=core.dispatch,
        executor=_executor(core),
        source=core.source,
        settings=core.settings,
        now=now,
        lease=lease,
        external=external,
        telemetry=core.telemetry,
    )
    if not core.exclusive:
        core.host.watch(WatchedLease(left_s=lease.left_s, lapse=worker.lapse))
    rescuer = Rescuer(
        lease=lease,
        store=core.store,
        dispatch=core.dispatch,
        source=core.source,
        notifier=core.notifier,
        settings=core.settings,
        held=worker.holds,
        follow_drain=worker.drains.follow,
        exclusive=core.exclusive,
        telemetry=core.telemetry,
    )
    canceller = _canceller(core)
    submitter = RunSubmitter(
        store=core.store,
        bridge=core.bridge,
        dispatch=core.dispatch,
        source=core.source,
        canceller=canceller,
        reserve=worker.reserve,
        worker_id=worker_id,
        new_id=new_id,
        now=now,
        telemetry=core.telemetry,
    )
    manager = _manager(core, submitter, canceller, external, worker_id, rescuer.reconcile, worker.drain)
    return Runtime(
        settings=core.settings,
        runs=manager,
        submitter=submitter,
        streams=core.bridge,
        notifications=core.notifications,
        store=core.store,
        lease=lease,
        worker=worker,
        rescuer=rescuer,
        purger=_purger(core),
        telemetry=core.telemetry,
        host=core.host,
        agents=core.source,
        saver=core.saver,
        long_term_store=core.long_term_store,
    )


def _canceller(core: _Core) -> RunCanceller:
    return RunCanceller(
        store=core.store,
        bridge=core.bridge,
        dispatch=core.dispatch,
        source=core.source,
        notifier=core.notifier,
        notifications=core.notifications,
        telemetry=core.telemetry,
    )


def _manager(
    core: _Core,
    submitter: RunSubmitter,
    canceller: RunCanceller,
    external: dict[str, Lease],
    worker_id: str,
    reconcile: Reconcile,
    drain: Callable[[float], Coroutine[Any, Any, None]],
) -> RunManager:
    updates = RunUpdates(core.store)
    application = ApplicationRuns(
        store=core.store,
        bridge=core.bridge,
        source=core.source,
        start=submitter.start,
        cancel=lambda run, reason: canceller.cancel(run.run_id, owner=run.owner, reason=reason),
        record_progress=updates.progress,
        closing=submitter.closing,
    )
    return RunManager(
        store=core.store,
        bridge=core.bridge,
        submitter=submitter,
        canceller=canceller,
        updates=updates,
        application=application,
        external=ExternalRuns(
            store=core.store,
            notifier=core.notifier,
            worker_id=worker_id,
            leases=external,
            lease_s=core.settings.lease_s,
            telemetry=core.telemetry,
        ),
        owners=OwnerRule(required=core.settings.require_owner),
        reconcile=reconcile,
        drain=drain,
    )


def _lease(core: _Core, worker_id: str) -> NodeLease:
    return NodeLease(
        worker_state(worker_id, core.settings, core.source.groups),
        store=core.store,
        exclusive=core.exclusive,
        # Nobody takes anything from a process that is alone: it goes on where it was after the machine was suspended.
        clock=core.host.control.time if core.exclusive else core.host.clock,
        lag_s=lambda: core.host.lag_s,
    )


def _purger(core: _Core) -> Purger:
    return Purger(
        store=core.store,
        settings=core.settings,
        forget_after_s=_forget_after_s(core.settings),
        telemetry=core.telemetry,
    )


def _forget_after_s(settings: Settings) -> float | None:
    if settings.run_retention_s:
        return settings.run_retention_s
    return MEMORY_RETENTION_S if settings.database.startswith(MEMORY) else None


def _executor(core: _Core) -> Executor:
    errors = ErrorTexts(masked=core.settings.mask_errors)
    runner = AgentRunner(
        store=core.store,
        host=core.host,
        source=core.source,
        settings=core.settings,
        errors=errors,
        saver=core.saver,
        long_term_store=None if core.long_term_store is None else core.long_term_store.for_run,
        new_meter=_new_meter(),
        new_spans=_new_spans(core),
        telemetry=core.telemetry,
    )
    return Executor(
        store=core.store,
        bridge=core.bridge,
        runner=runner,
        host=core.host,
        source=core.source,
        settings=core.settings,
        errors=errors,
        notifier=core.notifier,
        memories=ThreadMemories(),
        telemetry=core.telemetry,
    )


def _fields(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in Settings.__dataclass_fields__}


def _langgraph(
    driver: Driver, host: AgentHost, new_store: NewStore | None
) -> tuple[LedgerSaver | None, LedgerLongTermStore | None]:
    """Return LangGraph's saver and store on *driver*; ``None`` without the extra.

    Raises:
        ConfigurationError: A store was asked for without it.
    """
    if find_spec("langgraph") is None and new_store is None:
        return None, None
    with needs_extra("agents", "Checkpoints and the long-term store"):
        from runlane.checkpoints.saver import LedgerSaver  # noqa: PLC0415  # an extra
        from runlane.checkpoints.store import LedgerLongTermStore  # noqa: PLC0415  # an extra
    return LedgerSaver(driver), LedgerLongTermStore(driver) if new_store is None else new_store(driver, host)


def _new_spans(core: _Core) -> NewSpans | None:
    if core.telemetry.tracer is None:
        return None
    with needs_extra("otel", "Tracing"):
        from runlane.execution.spans import AttemptSpans  # noqa: PLC0415  # an extra
    return AttemptSpans(core.telemetry.tracer, core.store, payloads=core.settings.trace_payloads)


def _new_meter() -> Callable[[Callable[[Usage], None]], Meter] | None:
    """Return what counts the model calls of a run; ``None`` without LangChain, whose calls it counts."""
    if find_spec("langchain_core") is None:
        return None
    with needs_extra("agents", "Counting usage"):
        from runlane.agents.usage import UsageCallback  # noqa: PLC0415  # an extra
    return lambda report: UsageCallback(on_progress=report)
