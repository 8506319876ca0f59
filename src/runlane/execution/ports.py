"""Ports: what execution needs of the parts around it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol

from runlane.agents.base import Agent
from runlane.documents.memory import ThreadMemory
from runlane.journal.journal import AttemptJournal
from runlane.records import RunRecord, Usage
from runlane.store.statements import Transaction


class Meter(Protocol):
    """Counts tokens as a callback of the agent's model calls."""

    def snapshot(self) -> Usage:
        """Return what was counted so far."""
        ...

    def counting(self) -> AbstractContextManager[None]:
        """Count the calls of the context, without being passed to them."""
        ...


#: Makes the meter of an attempt, which reports what was used so far to the function given.
NewMeter = Callable[[Callable[[Usage], None]], Meter]


class Spans(Protocol):
    """Makes spans as a callback of the agent's nodes, models and tools."""

    def close(self) -> None:
        """End the spans of code that has not ended."""
        ...


#: Makes the spans of an attempt, without what the function given takes out of texts.
NewSpans = Callable[[RunRecord, Callable[[str], str]], Awaitable[Spans]]


class AttemptCheckpointer(Protocol):
    """The checkpointer of one attempt: nothing is written once the lease is lost."""

    @property
    def waiting(self) -> bool:
        """Return whether a read or a write is with the database."""
        ...

    def end(self) -> None:
        """Refuse what is written from now on: the agent has returned."""
        ...

    def staged(self) -> AbstractAsyncContextManager[Any]:
        """Give a saver whose writes are committed with the attempt's ending, if the block succeeds, or not at all."""
        ...

    def rollback(self) -> Transaction[None]:
        """Return the transaction that removes everything that the run checkpointed."""
        ...


class Checkpointer(Protocol):
    """Makes the checkpointers of attempts."""

    def of_attempt(
        self,
        journal: AttemptJournal,
        *,
        write_behind: bool,
        redact: Callable[[Any], str] | None = None,
        memory: ThreadMemory | None = None,
    ) -> AttemptCheckpointer:
        """Return the checkpointer that writes through *journal*; errors are redacted.

        Args:
            memory: What is known of the thread's large values.
        """
        ...


class AgentSource(Protocol):
    """Finds what a run executes."""

    @property
    def groups(self) -> Mapping[str, str] | None:
        """Return the graph of each group of runs that this process can execute; ``None``: all of them."""
        ...

    @property
    def build(self) -> str:
        """Return which code this process executes; empty if nobody said."""
        ...

    @property
    def pinned(self) -> tuple[str, ...]:
        """Return the graphs whose runs go on in the build only in which they began."""
        ...

    def can_execute(self, run_id: str, home: str | None) -> bool:
        """Return whether this process has the run's code, or the graphs for a run without a *home*."""
        ...

    def attached(self, run_id: str) -> bool:
        """Return whether code is attached to the run."""
        ...

    def agent(self, run: RunRecord) -> Agent:
        """Return the run's agent; any exception fails the run."""
        ...

    def private(self, run: RunRecord) -> Mapping[str, Any]:
        """Return what the agent is told beside the run's row."""
        ...

    def forget(self, run_id: str) -> None:
        """Forget the run's code and secrets: it has ended."""
        ...
