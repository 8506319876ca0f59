"""The interface of agents: what execution needs of anything that can be run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from runlane.agents.documents import JsonDocuments
from runlane.documents.document import Encoded
from runlane.error_texts import MASKED, ErrorTexts
from runlane.outcomes import Snapshot
from runlane.records import CancelReceipt, RunRecord, StreamEvent

#: Publishes one event: its name and its JSON text. Called on the agent's loop, in order; cheap; never blocks.
Emit = Callable[[str, Encoded], None]


class DrainSignal:
    """Asks an agent to stop at its next boundary. Safe from any thread; one per attempt."""

    __slots__ = ("_callbacks", "requested")

    def __init__(self) -> None:
        self.requested = False
        self._callbacks: list[Callable[[], None]] = []

    def request(self) -> None:
        """Ask; a second call does nothing."""
        if not self.requested:
            self.requested = True
            for callback in self._callbacks:
                callback()

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Call *callback*, on the requester's thread, once a drain is asked for (at once if it was)."""
        self._callbacks.append(callback)
        if self.requested:
            callback()


async def _at_once() -> None:
    return None


async def _nothing() -> Sequence[StreamEvent]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCall:
    """One attempt at one run, as an agent sees it.

    ``run.request`` is what it was asked to do. ``continued`` says that an earlier attempt of this run may have left
    checkpoints. ``saver`` is the ledger's checkpointer, bound to this attempt, so that a fenced attempt writes nothing;
    ``store`` is LangGraph's ``BaseStore``. An agent awaits ``ready()`` while ``congested()``, which
    bounds what is not yet committed. ``earlier()`` returns the newest events of the attempts before this one, oldest
    first. ``callbacks`` are LangChain callback handlers; in a block of ``counting()`` model calls are counted without
    them. ``cancelled()`` returns the receipt of a cancel of the run. ``over``, a future of the control loop, is the run
    once the attempt's ending is recorded; it is cancelled if the attempt has lost its run. ``first_values``, if given,
    shows JSON text as the values of the thread, which has none, until the run ends. ``documents`` encodes what can be
    large.
    """

    run: RunRecord
    emit: Emit
    congested: Callable[[], bool] = field(default=lambda: False)
    ready: Callable[[], Awaitable[None]] = field(default=_at_once)
    earlier: Callable[[], Awaitable[Sequence[StreamEvent]]] = field(default=_nothing)
    drain: DrainSignal = field(default_factory=DrainSignal)
    continued: bool = False
    saver: Any = None
    store: Any = None
    callbacks: Sequence[Any] = ()
    counting: Callable[[], AbstractContextManager[None]] = nullcontext
    cancelled: Callable[[], CancelReceipt | None] = field(default=lambda: None)
    over: asyncio.Future[RunRecord] | None = None
    errors: ErrorTexts = MASKED
    first_values: Callable[[Encoded], None] | None = None
    documents: JsonDocuments = field(default_factory=JsonDocuments)


class Agent(Protocol):
    """Something that can be run: a LangGraph graph, or a plain coroutine. All methods run on the agents' loop.

    ``continuable`` says that another attempt goes on from the last checkpoint, or may restart, so that a draining
    process may hand the run back; otherwise it is executed at most once: a shutdown, a crash or an outage ends its run.
    """

    continuable: bool

    async def run(self, call: AgentCall) -> Snapshot:
        """Execute until the end or a pause, emitting events on the way.

        Raises:
            Drained: A drain was asked for and the agent stopped at a boundary.
            Exception: The run failed; the exception is the user's own.
        """
        ...

    async def repair(self, call: AgentCall) -> Snapshot:
        """Make the thread valid after the run was stopped or failed, and return what it looks like now.

        Finished results of sibling tools are kept, every open tool call is closed with a result that says that it was
        interrupted and that its effect is unknown, and partial assistant text stands under the id that was streamed.
        """
        ...
