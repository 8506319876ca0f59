"""Telemetry events, and the observers that are called with them."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import threading
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec import structs

from agent_kit import NOW, run_record
from documents import DOCS
from runlane.errors import ConfigurationError
from runlane.lifecycle import CancelAction, EndReason, RunStatus
from runlane.records import CancelReceipt, RunError, RunRecord
from runlane.telemetry import events
from runlane.telemetry.context import MAX_LINE, RunScope
from runlane.telemetry.emitter import SILENT, Telemetry
from runlane.telemetry.events import (
    CancelStopped,
    LoopTurned,
    OfRun,
    RunAdmitted,
    RunFinished,
    RunReleased,
    TelemetryEvent,
    WorkerDrained,
)
from runlane.telemetry.observers import on

KINDS = [
    kind
    for _, kind in inspect.getmembers(events, inspect.isclass)
    if issubclass(kind, TelemetryEvent) and kind not in (TelemetryEvent, OfRun)
]


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.fixture
def run() -> RunRecord:
    return structs.replace(run_record(run_id="r"), started_at=None)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_event_is_a_frozen_value_with_a_key_of_its_own(kind: type[TelemetryEvent]) -> None:
    assert kind.__struct_config__.frozen
    assert [other for other in KINDS if other.key == kind.key] == [kind]


def test_observers_see_the_events_of_a_class_and_of_its_subclasses(run: RunRecord) -> None:
    seen: list[tuple[str, str]] = []
    telemetry = Telemetry(
        [
            on(RunReleased, lambda event: seen.append(("released", event.run_id))),
            on(OfRun, lambda event: seen.append(("run", event.key))),
            on(TelemetryEvent, lambda event: seen.append(("all", event.key))),
        ]
    )
    telemetry.run_released(run)
    telemetry.worker_drained(duration_s=1.0)
    assert seen == [("released", "r"), ("run", "run.released"), ("all", "run.released"), ("all", "worker.drained")]


def test_an_event_that_nobody_observes_is_not_made(run: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    for kind in KINDS:
        monkeypatch.setattr(kind, "__init__", lambda self, **_: made.append(type(self).__name__))
    for telemetry in (SILENT, Telemetry([on(WorkerDrained, lambda _: None)])):
        telemetry.run_admitted(run)
        telemetry.run_finished(run)
        telemetry.loop_turned("test", duration_s=1.0, error=None)
    assert made == []


def test_what_an_observer_raises_is_logged_once_and_harms_no_other(
    run: RunRecord, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[TelemetryEvent] = []
    telemetry = Telemetry([on(OfRun, lambda _: 1 / 0), on(OfRun, seen.append)])  # type: ignore[arg-type,return-value]  # a careless observer
    for _ in range(3):
        telemetry.run_released(run)
    telemetry.run_admitted(run)
    assert len(seen) == 4
    said = [(record.levelname, record.getMessage(), bool(record.exc_info)) for record in caplog.records]
    assert said == [
        ("ERROR", "telemetry.observer_failed event=run.released", True),
        ("ERROR", "telemetry.observer_failed event=run.admitted", True),
    ]


def test_a_coroutine_function_is_no_observer() -> None:
    async def late(_: RunFinished) -> None: ...

    with pytest.raises(ConfigurationError, match="RunFinished is a coroutine function"):
        on(RunFinished, late)  # type: ignore[arg-type]  # what a user might do


FINISHED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("it waited, then it ran", {"started_at": after(2), "ended_at": after(5)}, {"queued_s": 2.0, "executing_s": 3.0}),
    (
        "its delay is no waiting",
        {"not_before": after(1.5), "started_at": after(2), "ended_at": after(5)},
        {"queued_s": 0.5, "executing_s": 3.0},
    ),
    ("it never started", {"ended_at": after(5)}, {"queued_s": 5.0, "executing_s": 0.0}),
    (
        "the clock was set back",
        {"started_at": after(-2), "ended_at": after(-5)},
        {"queued_s": 0.0, "executing_s": 0.0},
    ),
    (
        "it failed",
        {"started_at": after(2), "ended_at": after(5), "error": RunError(error="ValueError", message="secret")},
        {"error": "ValueError"},
    ),
]


@pytest.mark.parametrize(("fields", "payload"), [case[1:] for case in FINISHED], ids=[case[0] for case in FINISHED])
def test_a_finished_run_says_how_long_it_took(run: RunRecord, fields: dict[str, Any], payload: dict[str, Any]) -> None:
    seen: list[RunFinished] = []
    Telemetry([on(RunFinished, seen.append)]).run_finished(structs.replace(run, **fields))
    [event] = seen
    assert {name: getattr(event, name) for name in payload} == payload
    assert "secret" not in repr(event)


def test_a_finished_run_that_was_cancelled_has_stopped_before(run: RunRecord) -> None:
    seen: list[OfRun] = []
    cancel = CancelReceipt(
        run_id="r",
        action=CancelAction.INTERRUPT,
        reason=EndReason.USER_CANCEL,
        requested_by=None,
        requested_at=after(3),
        stopped_at=after(4),
    )
    stopped = structs.replace(run, cancel=cancel, status=RunStatus.INTERRUPTED, ended_at=after(4.5))
    Telemetry([on(OfRun, seen.append)]).run_finished(stopped)
    assert [type(event) for event in seen] == [CancelStopped, RunFinished]
    assert isinstance(seen[0], CancelStopped)
    assert seen[0].after_s == 1.0


def test_the_handlers_of_an_event_fit_it() -> None:
    """For mypy: each ignored error is one that it has to find."""
    on(RunFinished, lambda event: _take(event.end_reson))  # type: ignore[attr-defined]
    on(LoopTurned, _needs_admitted)  # type: ignore[arg-type]


def _needs_admitted(event: RunAdmitted) -> None:
    _take(event.strategy)


def _take(value: object) -> None: ...


def test_every_event_is_documented_with_its_fields() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) ?\| ", section("Telemetry"), re.MULTILINE)
    documented = {name: re.findall(r"`(\w+)`", cells) for name, cells in rows}
    of_run = OfRun.__struct_fields__
    own = {
        kind.__name__: [name for name in kind.__struct_fields__ if not (issubclass(kind, OfRun) and name in of_run)]
        for kind in KINDS
    }
    assert documented == own


def section(title: str) -> str:
    """Return the section *title* of the reference of the Python API."""
    text = (DOCS / "reference" / "python-api.md").read_text()
    return text.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_the_library_runs_without_what_observers_need() -> None:
    """Prometheus and OpenTelemetry are the business of observers."""
    code = "import runlane, sys; print({'prometheus_client', 'opentelemetry'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_threads_of_a_run_print_lines_of_their_own(run: RunRecord, caplog: pytest.LogCaptureFixture) -> None:
    scope, both = RunScope(run), threading.Barrier(2)

    def say(name: str) -> None:
        scope.print(f"{name} ")
        both.wait()
        scope.print(f"{name}\n")

    with caplog.at_level("INFO", "runlane.print"):
        threads = [threading.Thread(target=say, args=(name,)) for name in ("ann", "bob")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        scope.print("x" * (MAX_LINE + 1))
        scope.print("cut off")
        scope.flush()
    said = [record.__dict__["fields"]["message"] for record in caplog.records]
    assert sorted(said[:2]) == ["ann ann", "bob bob"]
    assert said[2:] == ["x" * (MAX_LINE + 1), "cut off"]
