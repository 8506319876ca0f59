"""Simulating an application's own agent: crashes, deploys, outages and cancels at any await, drawn from seeds."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from runlane.agents.base import Agent
from runlane.agents.coroutine import CoroutineAgent
from runlane.extras import needs_extra
from runlane.testing.conversation import GRAPH_ID, Conversation
from runlane.testing.history import History
from runlane.testing.virtual_loop import Deadlock, Livelock, run_virtual
from runlane.testing.world import Failure, Report, Turn, World


def simulate(
    make_agent: Callable[[World], Any],
    turns: Sequence[Any],
    *,
    seeds: Iterable[int] = range(100),
    check: Callable[[World], None] | None = None,
    may_fail: bool = False,
) -> Report:
    """Live through one conversation on one thread per seed while everything around the agent fails.

    Processes are killed and started again, stand still for longer than their leases, are cut off from the ledger and
    redeployed; the ledger fails before and after its commits; the client cancels, rolls back, and sends its next
    message before the answer. Then all is well again, and the last turn is played once more. Time is virtual: a sleep
    takes no time. Synchronous nodes and tools are executed in one go, on the loop; what they call must not be a graph.

    A promise is broken if a run that nobody stopped does not succeed, if a run does not end, if the last turn does not
    succeed in peace, if a tool call of the state's ``messages`` does not have exactly one result, or if *check* says
    so.

    Args:
        make_agent: Called with the world for each simulated process; returns a LangGraph graph (compiled, a
            ``StateGraph``, or a factory), an async function or generator of one argument (the run's context), or
            anything with ``run`` and ``repair``. What it closes over dies with its process; ``world.note`` does not.
        turns: The inputs of the runs, in order, as JSON values; a :class:`Turn` for a command or other options.
        check: Called with each world in the end; raises AssertionError with what is wrong.
        may_fail: Whether the agent may raise, so that a run may end as ``error``.

    Raises:
        ValueError: There are no turns.
        RuntimeError: It is called inside of a running event loop; call it from a function that is not async.
    """
    if not turns:
        raise ValueError("simulate() needs at least one turn, the input of a run.")
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("An event loop is running: call simulate() from a function that is not async.")
    played = [turn if isinstance(turn, Turn) else Turn(input=turn) for turn in turns]
    report = Report()
    with _quiet():
        for seed in seeds:
            _play(seed, lambda world: _agent(make_agent(world)), played, check, report, may_fail=may_fail)
    return report


def _play(
    seed: int,
    make_agent: Callable[[World], Agent],
    turns: Sequence[Turn],
    check: Callable[[World], None] | None,
    report: Report,
    *,
    may_fail: bool,
) -> None:
    history = History(lambda: asyncio.get_running_loop().time())
    world = World(seed, history)

    async def main() -> list[str]:
        conversation = Conversation(world, history, make_agent, may_fail=may_fail)
        broken = await conversation.play(turns)
        broken += _checked(check, world)
        world.end()
        report.faults += history.faults
        await conversation.dispose()
        return broken

    try:
        broken = run_virtual(main)
    except (Deadlock, Livelock) as error:
        broken = [f"{type(error).__name__} {error}: all wait for something outside of the simulation, or turn for ever"]
    report.seeds += 1
    report.runs += len(world.runs)
    report.endings.update(run.status.value for run in world.runs)
    if broken:
        report.failures.append(Failure(seed, tuple(broken), history.text()))


def _checked(check: Callable[[World], None] | None, world: World) -> list[str]:
    if check is None:
        return []
    try:
        check(world)
    except AssertionError as error:
        return [str(error) or "the check failed"]
    return []


def _agent(made: Any) -> Agent:
    if hasattr(made, "repair"):
        return made  # type: ignore[no-any-return]  # it says that it is one
    if inspect.iscoroutinefunction(made) or inspect.isasyncgenfunction(made):
        return CoroutineAgent(made)
    with needs_extra("agents", "A graph"):
        from runlane.graphs import GraphAgent, Registry  # noqa: PLC0415  # an extra
    return GraphAgent(Registry.from_graphs({GRAPH_ID: made}), GRAPH_ID)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the log of injected faults."""
    log = logging.getLogger("runlane")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)
