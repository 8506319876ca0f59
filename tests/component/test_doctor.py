"""The doctor: a ledger with a real history is whole; each way of damaging one is found, shown and, safely, repaired."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ledger_kit import a_run
from run_kit import Stepper, at_once, ended, graph_run, opened, soon
from runlane.cli.main import app
from runlane.lifecycle import CancelAction, EndReason
from runlane.records import ANY_OWNER, NO_OWNER
from runlane.runtime import Runtime
from runlane.store.assistant_transactions import NewAssistant
from runlane.store.cron_transactions import CronPlan, CronTarget
from runlane.store.rows import instant
from runlane.store.sqlite import now_us

HOUR_US = 3_600_000_000


async def fails(context: Any) -> None:
    context.emit("custom", {"n": 1})
    raise ValueError("no")


async def speaks(context: Any) -> str:
    for number in range(3):
        context.emit("custom", {"n": number})
    return "done"


async def live(runtime: Runtime, stepper: Stepper) -> None:
    """Do what an application does: graphs, coroutines, failures, queues, cancels, rollbacks, a deleted thread."""
    await ended(runtime, await runtime.runs.create("graph", "a", kwargs=graph_run()))
    await ended(runtime, await runtime.runs.create("graph", "a", kwargs=graph_run()))
    for action in CancelAction:
        stepper.started.clear()
        stepper.go.clear()
        run = await runtime.runs.create(action.value, "a", kwargs=graph_run())
        queued = await runtime.runs.create(action.value, "a", kwargs=graph_run())
        await soon(stepper.started.wait())
        await runtime.runs.cancel(run.run_id, action=action)
        stepper.go.set()
        await ended(runtime, run)
        await ended(runtime, queued)
    for thread_id, agent in (("fails", fails), ("speaks", speaks), ("speaks", at_once)):
        run = await runtime.runs.create(thread_id, "a")
        runtime.runs.start(run, agent)
        await ended(runtime, run)
    assert runtime.saver is not None
    await ended(runtime, await runtime.runs.create("gone", "a", kwargs=graph_run()))
    saver = runtime.saver
    await runtime.store.delete_thread("gone", owner=ANY_OWNER, first=lambda: saver.removing("gone"))
    await _others(runtime)


async def _others(runtime: Runtime) -> None:
    """Add an assistant with two versions, crons that go on, that pause and that are over, and a webhook."""
    new = NewAssistant(assistant_id="a", owner=NO_OWNER, graph_id="g", config={}, context={}, metadata={})
    await runtime.store.create_assistant(new, if_exists_return=False)
    await runtime.store.update_assistant("a", owner=NO_OWNER, changes={"name": "second"})
    for name, enabled, end_us in (("goes on", True, None), ("paused", False, None), ("over", True, HOUR_US)):
        plan = CronPlan(
            schedule="0 0 * * *",
            timezone=None,
            end_at=None if end_us is None else instant(end_us),
            payload={},
            metadata={},
            on_run_completed=None,
            missed="once",
            overlap="allow",
            enabled=enabled,
            next_run_at=instant(now_us() + HOUR_US) if name == "goes on" else None,
        )
        target = CronTarget(owner=NO_OWNER, assistant_id="a", assistant_owner="*")
        await runtime.store.create_cron(name, target, plan)
    told = a_run("told", webhook="https://hooks.example.com/run")
    await runtime.store.admit(told)
    await runtime.store.request_cancel(
        told.run_id, owner=ANY_OWNER, action=CancelAction.INTERRUPT, reason=EndReason.USER_CANCEL, by=None
    )


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the file of a ledger with a real history, which nobody uses any more."""
    path = tmp_path_factory.mktemp("history") / "runlane.db"

    async def make() -> None:
        stepper = Stepper()
        stepper.go.set()
        async with opened(database=f"sqlite:///{path}", graphs={"g": stepper.graph()}) as runtime:
            await live(runtime, stepper)

    asyncio.run(make())
    return path


@pytest.fixture
def ledger(history: Path, tmp_path: Path) -> Path:
    """Give a copy of that ledger, to be damaged."""
    return Path(shutil.copy(history, tmp_path / "runlane.db"))


def doctor(path: Path, *options: str, answer: str | None = None) -> Any:
    return CliRunner().invoke(app, ["doctor", "--database", f"sqlite:///{path}", *options], input=answer)


def found(path: Path) -> set[str]:
    """Return the codes of what the doctor finds, having checked that its exit code says so too."""
    result = doctor(path, "--json")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    codes = {finding["code"] for finding in json.loads(result.stdout)["findings"]}
    assert result.exit_code == (1 if codes else 0)
    return codes


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for sql in statements:
            connection.execute(sql)


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


@dataclass(frozen=True, slots=True)
class Damage:
    """How a ledger is damaged, and what the doctor is to say; *clean* if it can repair it."""

    codes: tuple[str, ...]
    sql: tuple[str, ...]
    clean: bool = True


ONE = "(SELECT run_id FROM runs WHERE thread_id = 'speaks' ORDER BY seq LIMIT 1)"
FAILED = "(SELECT run_id FROM runs WHERE thread_id = 'fails')"
SEQ = "(SELECT seq FROM runs WHERE thread_id = 'speaks' ORDER BY seq LIMIT 1)"
FUTURE = 2**52
RUNNING = "status = 'running', end_reason = NULL, ended_at = NULL, events_end = NULL, worker_id = 'w'"
BUSY = "UPDATE threads SET status = 'busy' WHERE thread_id = 'speaks'"
LATE = f"INSERT INTO events VALUES ({SEQ}, 1000, 1000, x'90')"

DAMAGES = {
    "busy without a run": Damage(("thread.status",), (BUSY,)),
    "not busy with a run": Damage(
        ("thread.status",),
        (f"UPDATE runs SET {RUNNING}, lease_expires_at = {FUTURE} WHERE run_id = {ONE}",),
    ),
    "two running in a lane": Damage(
        ("lane.two_running", "schema.guard"),
        (
            "DROP INDEX runs_one_running",
            f"UPDATE runs SET {RUNNING}, lease_expires_at = {FUTURE} WHERE thread_id = 'speaks'",
            BUSY,
        ),
    ),
    "the index against that is gone": Damage(("schema.guard",), ("DROP INDEX runs_one_running",)),
    "a lease that is long over": Damage(
        ("run.abandoned",), (f"UPDATE runs SET {RUNNING}, lease_expires_at = 1 WHERE run_id = {ONE}", BUSY)
    ),
    "running without a lease": Damage(("run.abandoned",), (f"UPDATE runs SET {RUNNING} WHERE run_id = {ONE}", BUSY)),
    "ended without an instant": Damage(("run.end",), (f"UPDATE runs SET ended_at = NULL WHERE run_id = {ONE}",)),
    "ended without a last event": Damage(("run.end",), (f"UPDATE runs SET events_end = NULL WHERE run_id = {ONE}",)),
    "failed without a reason": Damage(("run.end",), (f"UPDATE runs SET end_reason = NULL WHERE run_id = {FAILED}",)),
    "cancelled without a reason": Damage(
        ("run.end",), ("UPDATE runs SET end_reason = NULL WHERE cancel_action IS NOT NULL",)
    ),
    "succeeded without a reason": Damage(
        ("run.end",), (f"UPDATE runs SET end_reason = NULL WHERE run_id = {ONE}",), clean=False
    ),
    "events after the end": Damage(
        ("events.after_end",),
        (f"INSERT INTO events SELECT {SEQ}, events_end + 1, events_end + 1, x'90' FROM runs WHERE run_id = {ONE}",),
    ),
    "events after the end, and after a gap": Damage(("events.after_end", "events.gap"), (LATE,)),
    "an end amid a segment": Damage(
        ("events.after_end",), (f"UPDATE runs SET events_end = 1 WHERE run_id = {ONE}",), clean=False
    ),
    "the last events are lost": Damage(
        ("events.cut_off",), (f"UPDATE runs SET events_end = 1000 WHERE run_id = {ONE}",), clean=False
    ),
    "a gap in a log": Damage(
        ("events.gap",), (f"UPDATE events SET first_seq = first_seq + 1 WHERE run_seq = {SEQ}",), clean=False
    ),
    "events of no run": Damage(("events.run",), ("INSERT INTO events VALUES (999999, 1, 1, x'90')",)),
    "events of a run that was deleted": Damage(("events.run",), (f"DELETE FROM runs WHERE run_id = {ONE}",)),
    "runs of no thread": Damage(("run.thread",), ("DELETE FROM threads WHERE thread_id = 'speaks'",)),
    "runs and checkpoints of no thread": Damage(("run.thread",), ("DELETE FROM threads WHERE thread_id = 'graph'",)),
    "runs of two owners of no thread": Damage(
        ("run.thread",),
        ("DELETE FROM threads WHERE thread_id = 'speaks'", f"UPDATE runs SET owner = 'other' WHERE run_id = {ONE}"),
        clean=False,
    ),
    "checkpoints of no thread": Damage(
        ("checkpoints.thread",),
        tuple(
            f"INSERT INTO {table} SELECT {columns} FROM {table} WHERE thread_id = 'graph'"
            for table, columns in (
                (
                    "checkpoints",
                    "seq + 100000, 'nobody', checkpoint_ns, checkpoint_id, run_id, parent_id, type, checkpoint, "
                    "metadata_type, metadata",
                ),
                ("checkpoint_blobs", "'nobody', checkpoint_ns, channel, version, run_id, type, value"),
                (
                    "checkpoint_writes",
                    "'nobody', checkpoint_ns, checkpoint_id, seq, run_id, task_id, task_path, type, writes",
                ),
            )
        ),
    ),
    "values of no thread": Damage(
        ("checkpoints.thread",), ("INSERT INTO checkpoint_blobs VALUES ('nobody', '', 'c', '1', 'r', 'null', x'')",)
    ),
    "writes of no thread": Damage(
        ("checkpoints.thread",),
        ("INSERT INTO checkpoint_writes VALUES ('nobody', '', 'c', 1, 'r', 't', '', 'null', x'')",),
    ),
    "what no run stored of no thread": Damage(
        ("checkpoints.thread",),
        ("INSERT INTO checkpoint_blobs VALUES ('nobody', '', 'c', '1', '', 'null', x'')",),
        clean=False,
    ),
    "values that no checkpoint names": Damage(
        ("checkpoints.values",), ("INSERT INTO checkpoint_blobs VALUES ('graph', '', 'log', 'x', 'r', 'null', x'')",)
    ),
    "writes of no checkpoint": Damage(
        ("checkpoints.writes",),
        ("INSERT INTO checkpoint_writes VALUES ('graph', '', 'none', 1, 'r', 't', '', 'null', x'')",),
    ),
    "a checkpoint that cannot be read": Damage(
        ("checkpoints.unreadable",),
        ("UPDATE checkpoints SET checkpoint = x'c1' WHERE seq = (SELECT MIN(seq) FROM checkpoints)",),
        clean=False,
    ),
    "an assistant without its version": Damage(
        ("assistant.version",), ("DELETE FROM assistant_versions WHERE version = 2",)
    ),
    "a cron without its next date": Damage(
        ("cron.next",), ("UPDATE crons SET next_run_at = NULL WHERE cron_id = 'goes on'",)
    ),
    "a cron whose schedule is none": Damage(
        ("cron.next",), ("UPDATE crons SET next_run_at = NULL, schedule = 'x' WHERE cron_id = 'goes on'",), clean=False
    ),
    "a delivery that stays claimed": Damage(
        ("delivery.stuck",), (f"UPDATE webhook_deliveries SET attempts = 1, next_at = {FUTURE}",)
    ),
    "a schema that is behind": Damage(
        ("schema.behind",),
        (
            "ALTER TABLE runs DROP COLUMN webhook",
            "DROP TABLE webhook_deliveries",
            "DROP TABLE webhook_attempts",
            "UPDATE runlane_version SET version_num = '0005'",
        ),
    ),
}


def test_a_ledger_with_a_real_history_is_whole(ledger: Path) -> None:
    before = dump(ledger)
    result = doctor(ledger)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "Nothing is wrong."
    with closing(sqlite3.connect(ledger)) as connection:
        runs = connection.execute("SELECT COUNT(*) FROM runs").fetchone()[0]
        values = connection.execute("SELECT COUNT(*) FROM checkpoint_blobs").fetchone()[0]
    assert f" {runs} runs," in result.stdout
    assert f" {values} checkpointed values." in result.stdout
    assert runs > 8
    assert values > 8
    assert dump(ledger) == before


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_found(damage: Damage, ledger: Path) -> None:
    change(ledger, *damage.sql)
    assert found(ledger) == set(damage.codes)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_repair_is_shown_before_it_is_made(damage: Damage, ledger: Path) -> None:
    change(ledger, *damage.sql)
    before = dump(ledger)
    result = doctor(ledger, "--repair", answer="n\n")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    for code in damage.codes:
        [line, *_] = [line for line in lines if line.startswith(f"{code} ")]
        assert (" Repair: " in line) or (" To do: " in line)
    assert dump(ledger) == before


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_needs_no_judgement_is_repaired_and_the_rest_is_left(damage: Damage, ledger: Path) -> None:
    change(ledger, *damage.sql)
    before = dump(ledger)
    result = doctor(ledger, "--repair", "--yes")
    assert result.exit_code == (0 if damage.clean else 1), result.output
    assert found(ledger) == (set() if damage.clean else set(damage.codes))
    if not damage.clean:
        assert dump(ledger) == before
