"""The agent of a run: code that the application attached, or the graph that the run names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeGuard

from runlane.agents.base import Agent
from runlane.agents.coroutine import CoroutineAgent, CoroutineFunction
from runlane.errors import InvalidRequest, NotFound
from runlane.records import RunRecord
from runlane.store.transactions.heads import OF_BUILD

#: What can be attached to a run.
AgentLike = Agent | CoroutineFunction


class RunAgents:
    """Agents of this process's runs: attached ones first, then what *graph_agent* makes of the run's graph.

    Args:
        secrets_provider: What the agent of a run is told that the run's row does not have.
        graph_ids: The graphs that *graph_agent* can make agents of; all by default.
        build: Which code that is.
        pinned: Those of them whose runs go on in the build only in which they began.
        executes: Whether this process executes runs, so that code can be attached.
    """

    def __init__(
        self,
        graph_agent: Callable[[str], Agent] | None = None,
        secrets_provider: Callable[[RunRecord], Mapping[str, Any]] | None = None,
        graph_ids: Iterable[str] | None = None,
        *,
        build: str = "",
        pinned: Iterable[str] = (),
        executes: bool = True,
    ) -> None:
        self._executes = executes
        self.build = build
        self.pinned = tuple(pinned)
        self._graph_ids = None if graph_ids is None else tuple(graph_ids)
        self._graph_agent = graph_agent
        self._secrets_provider = secrets_provider
        self._attached: dict[str, Agent] = {}

    @property
    def groups(self) -> Mapping[str, str] | None:
        """Return the graph of each group of runs that this process can execute; ``None``: all of them."""
        if self._graph_agent is None:
            return {}
        if self._graph_ids is None:
            return None
        groups = {graph_id: graph_id for graph_id in self._graph_ids}
        return groups | {f"{graph_id}{OF_BUILD}{self.build}": graph_id for graph_id in self.pinned}

    def attach(self, run_id: str, agent: AgentLike) -> None:
        """Make *agent*, an :class:`Agent` or an async function or generator of one argument, what the run executes.

        Raises:
            InvalidRequest: It is neither, or this process executes no runs.
        """
        if not self._executes:
            raise InvalidRequest(
                "This process executes no runs, as execute_runs is false, so that code attached to one would never be "
                "called. Name a graph of the workers, or set execute_runs to true."
            )
        if _is_agent(agent):
            self._attached[run_id] = agent
        elif callable(agent):
            self._attached[run_id] = CoroutineAgent(agent)
        else:
            raise InvalidRequest(f"{agent!r} is no agent: it must be an async function or async generator function.")

    def can_execute(self, run_id: str, home: str | None) -> bool:
        """Return whether this process has the run's code, or the graphs for a run without a *home*."""
        return run_id in self._attached or (home is None and self._graph_agent is not None)

    def attached(self, run_id: str) -> bool:
        """Return whether code is attached to the run."""
        return run_id in self._attached

    def agent(self, run: RunRecord) -> Agent:
        """Return the run's agent.

        Raises:
            NotFound: Nothing is attached, and the run names no graph.
        """
        attached = self._attached.get(run.run_id)
        if attached is not None:
            return attached
        graph_id = run.graph_id
        if self._graph_agent is None or not graph_id:
            raise NotFound("agent of run", run.run_id)
        return self._graph_agent(graph_id)

    def private(self, run: RunRecord) -> Mapping[str, Any]:
        """Return what the run's agent is told beside its row, in which there may be secrets."""
        return {} if self._secrets_provider is None else self._secrets_provider(run)

    def forget(self, run_id: str) -> None:
        """Drop what was attached; the run has ended."""
        self._attached.pop(run_id, None)


def _is_agent(agent: AgentLike) -> TypeGuard[Agent]:
    return hasattr(agent, "repair")
