"""A type checker finds the mistakes that a user of the library makes: names, spellings and kinds of arguments."""

from __future__ import annotations

import typing
from enum import StrEnum
from pathlib import Path

import pytest
from mypy import api

from runlane.lifecycle import (
    ActionLike,
    CancelAction,
    DisconnectLike,
    DisconnectMode,
    MultitaskStrategy,
    RunStatus,
    StatusLike,
    StrategyLike,
)
from runlane.records import Counters, Usage

ROOT = Path(__file__).parents[2]

RIGHT = """
from collections.abc import AsyncIterator

from runlane import (
    CancelAction, CancelRecorded, CoroutineAgent, Ending, OwnerRequired, RunContext, RunError, RunManager,
    RunRecord, RunRequest, StreamBridge, StreamHeartbeat, StreamItem,
)
from runlane.graphs import GraphAgent


async def answer(context: RunContext) -> dict[str, int]:
    return {"answer": context.input}


async def steps(context: RunContext) -> AsyncIterator[tuple[str, int]]:
    yield "step", 1


async def use(runs: RunManager, streams: StreamBridge, graph: GraphAgent) -> Ending:
    run = await runs.create("t", multitask_strategy="interrupt", on_disconnect="continue", metadata={"a": 1})
    run = await runs.create_or_reject("t", "a", multitask_strategy="enqueue", agent=steps, kwargs={"input": 1})
    asked: RunRequest = run.request
    graph_id: str | None = asked.graph_id
    runs.start(run, answer)
    runs.start(run, steps)
    runs.start(run, CoroutineAgent(answer, continuable=True))
    runs.start(run, graph)
    async with runs.attempt(run) as attempt:
        await attempt.record_progress(total_tokens=1)
        action: CancelAction | None = attempt.abort_action
    await runs.set_status(run.run_id, "running")
    await runs.cancel(run.run_id, action="rollback")
    await runs.update_run_progress(run.run_id, total_input_tokens=1, llm_calls=None)
    await runs.update_run_completion(run.run_id, status="error", error="it failed", llm_call_count=2)
    await runs.shutdown(grace_s=1)
    async for item in streams.subscribe(run.run_id):
        only: StreamItem = item
    async for beat in streams.subscribe(run.run_id, heartbeats=True):
        either: StreamItem | StreamHeartbeat = beat
    return await runs.join(run.run_id)
"""
WRONG = {
    'await runs.create("t", metdata={})': "metdata",
    'await runs.create("t", multitask_strategy="intterupt")': "multitask_strategy",
    'await runs.create_or_reject("t", multitask_strategy="intterupt")': "multitask_strategy",
    'await runs.create_or_reject("t", on_disconnect="cancle")': "on_disconnect",
    'await runs.create_or_reject("t", agent=42)': "agent",
    "runs.start(run, 42)": "start",
    "runs.start(run, len)": "start",
    'runs.attempt("run")': "attempt",
    'await runs.set_status(run.run_id, "sucess")': "set_status",
    'await runs.cancel(run.run_id, action="intterupt")': "action",
    "await runs.update_run_progress(run.run_id, total_tokns=1)": "total_tokns",
    'await runs.update_run_progress(run.run_id, total_tokens="1")': "total_tokens",
    'await runs.update_run_completion(run.run_id, status="done")': "status",
    "await runs.update_run_completion(run.run_id, total_tokns=1)": "total_tokns",
    "await attempt.record_progress(total_tokns=1)": "total_tokns",
    "await runs.shutdown(timeout_s=1)": "timeout_s",
}
HEAD = """
from runlane import RunManager, RunRecord
from runlane.execution.application import ApplicationAttempt


async def use(runs: RunManager, run: RunRecord, attempt: ApplicationAttempt) -> None:
"""


def test_a_type_checker_finds_nothing_in_right_calls_and_each_wrong_one(tmp_path: Path) -> None:
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text(HEAD + "".join(f"    {call}\n" for call in WRONG))
    files = [str(tmp_path / name) for name in ("right.py", "wrong.py")]
    out, problems, _ = api.run(["--config-file", str(ROOT / "pyproject.toml"), "--no-error-summary", *files])
    assert not problems
    errors = [line.split(":", 2) for line in out.splitlines() if ": error:" in line]
    assert [error for error in errors if error[0].endswith("right.py")] == []
    found = {int(number): text for _, number, text in errors}
    for number, (call, named) in enumerate(WRONG.items(), HEAD.count("\n") + 1):
        assert named in found.get(number, ""), call


@pytest.mark.parametrize(
    ("spellings", "kind"),
    [
        (StatusLike, RunStatus),
        (DisconnectLike, DisconnectMode),
        (StrategyLike, MultitaskStrategy),
        (ActionLike, CancelAction),
    ],
)
def test_a_choice_can_be_spelt_as_each_of_its_members(spellings: object, kind: type[StrEnum]) -> None:
    members, texts = typing.get_args(spellings)
    assert members is kind
    assert list(typing.get_args(texts)) == [member.value for member in kind]


def test_the_counters_are_the_fields_of_usage_and_other_spellings_of_them() -> None:
    others = {"total_input_tokens", "total_output_tokens", "llm_call_count"}
    assert set(Counters.__annotations__) == set(Usage.__dataclass_fields__) | others
