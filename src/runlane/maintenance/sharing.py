"""What a process does because others share its ledger: they tell each other of heads, cancels and streams."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from runlane.dispatch.base import Dispatch
from runlane.dispatch.shared import SharedDispatch
from runlane.execution.ports import AgentSource
from runlane.extras import needs_extra
from runlane.settings import Settings
from runlane.store.drivers.memory import MemoryDriver
from runlane.store.ledger import RunStore
from runlane.store.notifications import Changes, Notifications
from runlane.streams.bridge import StreamBridge
from runlane.telemetry.emitter import Telemetry

log = logging.getLogger("runlane.permits")


@asynccontextmanager
async def shared_work(
    dispatch: SharedDispatch,
    store: RunStore,
    source: AgentSource,
    settings: Settings,
    telemetry: Telemetry,
) -> AsyncIterator[None]:
    """Offer heads to other processes, and take their offers, until the block is left.

    Raises:
        ConfigurationError: The database is PostgreSQL, and its extra is not installed.
        StoreUnavailable: It cannot be reached.
    """
    if not _on_postgres(settings, store):
        yield
        return
    with needs_extra("postgres", "PostgreSQL"):
        from runlane.dispatch.permits import Permits  # noqa: PLC0415  # an extra
        from runlane.store.drivers.postgres import PostgresDriver  # noqa: PLC0415  # an extra
    if isinstance(store.driver, PostgresDriver) and store.driver.pooled:
        # Notifications and the schema of a session are lost there.
        log.warning("permits.off why=pooler polled=true")
        yield
        return
    permits = Permits(settings.database, settings.database_schema, dispatch, telemetry)
    async with permits.running(source.groups, executes=settings.execute_runs):
        yield


@asynccontextmanager
async def shared_news(
    dispatch: Dispatch,
    store: RunStore,
    bridge: StreamBridge,
    notifications: Notifications,
    settings: Settings,
    telemetry: Telemetry,
) -> AsyncIterator[None]:
    """Tell other processes of events and cancels, and readers and runs of theirs, until the block is left.

    Raises:
        ConfigurationError: The database is PostgreSQL, and its extra is not installed.
    """
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(bridge.following(telemetry))
        if _on_postgres(settings, store):
            with needs_extra("postgres", "PostgreSQL"):
                from runlane.store.drivers.postgres_notifications import Listener  # noqa: PLC0415  # an extra
            listener = Listener(
                settings.database,
                settings.database_schema,
                url=settings.database_direct or settings.database,
                outgoing=notifications,
                receive=partial(hear, bridge, dispatch),
                missed=bridge.look,
                telemetry=telemetry,
            )
            await stack.enter_async_context(listener)
        yield


def hear(bridge: StreamBridge, dispatch: Dispatch, changes: Changes) -> None:
    """Tell readers and attempts of this process what another one has changed."""
    bridge.hear(changes)
    for run_id in changes.cancels:
        dispatch.cancel(run_id)


def _on_postgres(settings: Settings, store: RunStore) -> bool:
    """Return whether the ledger is on PostgreSQL; a simulated one is in memory, whatever its address says."""
    return settings.on_postgres and not isinstance(store.driver, MemoryDriver)
