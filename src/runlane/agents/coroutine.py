"""Running a plain coroutine, or an async generator of events, as an agent."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeGuard

from runlane.agents.base import AgentCall
from runlane.outcomes import Snapshot
from runlane.records import Json, RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """The context of a coroutine agent."""

    call: AgentCall

    @property
    def run(self) -> RunRecord:
        return self.call.run

    @property
    def run_id(self) -> str:
        return self.call.run.run_id

    @property
    def thread_id(self) -> str:
        return self.call.run.thread_id

    @property
    def input(self) -> Any:
        """The input that the run was created with, or ``None``."""
        return self.call.run.stored.input

    @property
    def metadata(self) -> Json:
        return self.call.run.metadata

    @property
    def drain_requested(self) -> bool:
        """Return whether the process is about to stop: raise :class:`~runlane.Drained` at a good point to be
        called again, with the same input, on another process."""
        return self.call.drain.requested

    def emit(self, name: str, payload: Any) -> None:
        """Publish an event.

        Raises:
            Unserialisable: The payload has no JSON form.
        """
        self.call.emit(name, self.call.documents.of(payload))


CoroutineFunction = Callable[[RunContext], Awaitable[Any] | AsyncIterator[Any]]


class CoroutineAgent:
    """Runs ``function(context)``: an async function, whose return value is the result, or an async generator, whose
    items are events: ``(name, payload)``, or a payload alone, named ``custom``."""

    def __init__(self, function: CoroutineFunction, *, continuable: bool = False) -> None:
        """Args:
        continuable: The function may be called again, from its beginning, after a shutdown, a crash or an outage.
            Otherwise it is executed at most once.
        """
        self._function = function
        self.continuable = continuable

    async def run(self, call: AgentCall) -> Snapshot:
        """Execute the function once; a continued run starts from its beginning.

        Raises:
            Drained: The function raised it.
            Unserialisable: An event or the result has no JSON form.
            Exception: The run failed; the exception is the function's own.
        """
        context = RunContext(call=call)
        made = self._function(context)
        if not inspect.isasyncgen(made):
            result = await made if inspect.isawaitable(made) else made
            data = None if result is None else call.documents.of(result)
            return Snapshot(values=data, result=data)
        async with aclosing(made) as items:
            async for item in items:
                name, payload = item if _is_named(item) else ("custom", item)
                context.emit(name, payload)
                if call.congested():
                    await call.ready()
        return Snapshot()

    async def repair(self, call: AgentCall) -> Snapshot:
        """Return nothing: what a plain coroutine keeps between runs is its own affair."""
        return Snapshot()


def _is_named(item: Any) -> TypeGuard[tuple[str, Any]]:
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)
