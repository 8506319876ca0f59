"""The page for whoever comes from DeerFlow names all of its run manager, and only what is here."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

import runlane
from runlane.records import Counters
from runlane.store.drivers.memory import MemoryDriver
from signature_kit import arguments

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "migrate-from-deer-flow.md"
HEAD = "| DeerFlow | Runlane | What changes |"
CODE = re.compile(r"`([^`]+)`")
#: A name of the package, perhaps attributes of it, perhaps an argument of the last.
CLAIM = re.compile(r"(\w+)((?:\.\w+)*)(?:\((\w+)=\))?")
ABSENT = "not there"
#: What has its parts only once it is made.
WITH_PARTS = {"RunStore": runlane.RunStore(MemoryDriver())}

#: What DeerFlow's run manager has: names, arguments, fields, statuses.
THEIRS = {
    *("RunManager(store)", "RunManager(persistence_retry_policy)", "PersistenceRetryPolicy", "max_attempts"),
    *("initial_delay", "max_delay", "backoff_factor", "MemoryRunStore", "RunRepository", "RunRow"),
    *("create", "create_or_reject", "get", "aget", "list_by_thread", "set_status", "update_model_name"),
    *("update_run_progress", "update_run_completion", "cancel", "has_inflight", "reconcile_orphaned_inflight_runs"),
    *("cleanup", "shutdown", "thread_id", "assistant_id", "on_disconnect", "metadata", "kwargs", "model_name"),
    *("multitask_strategy", "limit", "status", "error", "action", "before", "delay", "timeout", "user_id"),
    *("run_id", "task", "abort_event", "abort_action", "store_only", "created_at", "updated_at"),
    *("total_input_tokens", "total_output_tokens", "total_tokens", "llm_call_count", "lead_agent_tokens"),
    *("subagent_tokens", "middleware_tokens", "message_count", "last_ai_message", "first_human_message"),
    *("RunStatus.pending", "RunStatus.running", "RunStatus.success", "RunStatus.error", "RunStatus.timeout"),
    *("RunStatus.interrupted", "DisconnectMode.cancel", "DisconnectMode.continue_", "ConflictError"),
    *("UnsupportedStrategyError", "StreamBridge.publish", "StreamBridge.publish_end", "StreamBridge.subscribe"),
    *("StreamBridge.cleanup", "StreamBridge.close", "last_event_id", "heartbeat_interval", "MemoryStreamBridge"),
    *("queue_maxsize", "HEARTBEAT_SENTINEL", "END_SENTINEL", "put", "update_status", "delete", "list_pending"),
    *("list_inflight", "aggregate_tokens_by_thread", "run_agent", "RunContext", "RunJournal", "RunEventStore"),
}


def rows() -> list[tuple[str, str]]:
    """Return the first two cells of each row of the tables that map names."""
    found = []
    for table in PAGE.read_text().split(HEAD)[1:]:
        for line in table.strip().splitlines()[1:]:
            if not line.startswith("|"):
                break
            theirs, ours, _ = line.strip("|").split(" | ", 2)
            found.append((theirs, ours))
    return found


def claims() -> list[str]:
    """Return what the page says is here, by the form of :data:`CLAIM`."""
    in_tables = [claim for _, ours in rows() if ABSENT not in ours for claim in CODE.findall(ours)]
    prose = re.findall(
        r"`((?:RunManager|RunStore|ApplicationAttempt|Runtime|Settings|StreamBridge|RunRecord)(?:\.\w+)+)`",
        PAGE.read_text(),
    )
    theirs = {name for cell, _ in rows() for name in CODE.findall(cell)}
    return sorted({*in_tables, *same_names(), *(name for name in prose if name not in theirs)})


def same_names() -> list[str]:
    """Return what the rows claim that say "the same of" a method, whose arguments are meant, or of a class."""
    found = []
    for cell, ours in rows():
        if same := re.match(r"the same of `(\w+)(\.\w+)?`", ours):
            found += [f"{same[1]}{same[2]}({name}=)" if same[2] else f"{same[1]}.{name}" for name in CODE.findall(cell)]
    return found


def is_here(claim: str) -> bool:
    """Return whether *claim* names something of the package."""
    match = CLAIM.fullmatch(claim)
    assert match is not None, claim
    name, attributes, argument = match.groups()
    found: Any = WITH_PARTS.get(name) or getattr(runlane, name, None)
    if found is None:
        return False
    for attribute in attributes.split(".")[1:]:
        fields = getattr(found, "__dataclass_fields__", {})
        if not (hasattr(found, attribute) or attribute in fields):
            return False
        found = getattr(found, attribute, None)
    return argument is None or argument in arguments(found)


def test_every_row_says_what_is_here_or_that_nothing_is() -> None:
    assert [theirs for theirs, ours in rows() if not CODE.findall(ours) and ours.strip() != ABSENT] == []


@pytest.mark.parametrize("claim", claims())
def test_what_the_page_says_is_here_is_here(claim: str) -> None:
    assert is_here(claim)


def test_the_page_names_all_of_the_run_manager() -> None:
    assert THEIRS - {name for theirs, _ in rows() for name in CODE.findall(theirs)} == set()


def test_the_statuses_and_modes_have_the_same_texts() -> None:
    for kind, texts in (
        (runlane.RunStatus, ["pending", "running", "success", "error", "timeout", "interrupted"]),
        (runlane.DisconnectMode, ["cancel", "continue"]),
    ):
        assert issubclass(kind, Enum)
        assert [member.value for member in kind] == texts


def test_counters_are_accepted_as_they_were_spelt() -> None:
    recorded = [name for name in THEIRS if re.search(r"tokens$|_count$|_message$", name)]
    assert len(recorded) == 10
    assert set(recorded) <= set(Counters.__annotations__)


@pytest.mark.parametrize(
    "claim",
    [
        "RunManager.creat",
        "RunManager.create(metdata=)",
        "RunManager.create_or_reject(metdata=)",
        "Managr",
        "RunRecord.task",
        "RunStore.runs.gett",
    ],
)
def test_a_name_that_is_not_here_is_found(claim: str) -> None:
    assert not is_here(claim)
