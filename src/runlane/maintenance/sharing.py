"""What a process does because others share its ledger: it tells them of heads, and looks for cancels of theirs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from runlane.dispatch.shared import SharedDispatch
from runlane.execution.cancel_watch import CancelWatch
from runlane.execution.ports import AgentSource
from runlane.extras import needs_extra
from runlane.settings import Settings
from runlane.store.drivers.memory import MemoryDriver
from runlane.store.ledger import RunStore
from runlane.telemetry.emitter import Telemetry


@asynccontextmanager
async def shared_work(
    dispatch: SharedDispatch,
    store: RunStore,
    source: AgentSource,
    settings: Settings,
    worker_id: str,
    telemetry: Telemetry,
) -> AsyncIterator[None]:
    """Share work with other processes until the block is left.

    Raises:
        ConfigurationError: The database is PostgreSQL, and its extra is not installed.
        StoreUnavailable: It cannot be reached.
    """
    async with AsyncExitStack() as stack:
        # A simulated ledger is in memory, whatever its address says.
        if settings.database.startswith("postgres") and not isinstance(store.driver, MemoryDriver):
            with needs_extra("postgres", "PostgreSQL"):
                from runlane.dispatch.permits import Permits  # noqa: PLC0415  # an extra
            permits = Permits(settings.database, settings.database_schema, dispatch, telemetry)
            await stack.enter_async_context(permits.running(source.groups, executes=settings.execute_runs))
        watch = CancelWatch(store=store, dispatch=dispatch, worker_id=worker_id, telemetry=telemetry)
        await stack.enter_async_context(watch)
        yield
