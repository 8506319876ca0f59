"""Commands about a project or a database: what they make works, and what is wrong is told all at once."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from runlane.cli.main import app
from runlane.cli.new import TEMPLATES
from server_kit import PATIENCE_S, running_server


def call(*arguments: str, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(app, arguments)


@pytest.mark.parametrize(
    ("template", "given", "key", "expected"),
    [
        ("chat", {"messages": [{"role": "user", "content": "2 + 3"}]}, "messages", "That is 5."),
        ("approval", {"request": "hello"}, "__interrupt__", "Send this e-mail?"),
    ],
)
def test_a_new_project_answers_without_a_key_or_a_network(
    template: str, given: dict[str, Any], key: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    folder = tmp_path / f"new_{template}"
    assert call("new", template, str(folder)).exit_code == 0
    assert call("validate", str(folder)).exit_code == 0
    with (
        running_server(f"sqlite:///{tmp_path}/ledger.db", folder / "langgraph.json") as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE_S) as api,
    ):
        answer = api.post("/runs/wait", json={"assistant_id": "agent", "input": given}).json()
    assert expected in json.dumps(answer[key])


@pytest.mark.skipif(not find_spec("deepagents"), reason="tests/clients runs it in an environment of its own")
def test_a_new_deep_agent_keeps_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert call("new", "deep", str(tmp_path / "made")).exit_code == 0
    given = {"messages": [{"role": "user", "content": "High water"}]}
    with (
        running_server(f"sqlite:///{tmp_path}/ledger.db", tmp_path / "made" / "langgraph.json") as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE_S) as api,
    ):
        done = api.post("/runs/wait", json={"assistant_id": "agent", "input": given}).json()
    assert done["messages"][-1]["content"].startswith("The notes are in /notes-")
    assert [file["content"] for file in done["files"].values()] == ["# High water\n"]


def test_a_new_coroutine_runs(tmp_path: Path) -> None:
    assert call("new", "coroutine", str(tmp_path / "made")).exit_code == 0
    done = subprocess.run(
        [sys.executable, "main.py"],
        cwd=tmp_path / "made",
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    assert done.stdout.splitlines()[-1] == "success"


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    for template in TEMPLATES:
        assert call("new", template, str(tmp_path)).exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_everything_that_is_wrong_with_a_project_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text("from langgraph.graph import *\nagent = StateGraph(dict)\n")
    (tmp_path / "bad.py").write_text("def deep():\n    return 1 / 0\n\ndeep()\n")
    config = {
        "dependencies": ["."],
        "graphs": {"crashes": "./bad.py:agent", "missing": "./nowhere.py:agent", "number": "./good.py:END"},
        "auth": {"path": "./nobody.py:auth"},
        "store": {"index": {"dims": 2, "embed": "./nobody.py:embed"}},
    }
    (tmp_path / "langgraph.json").write_text(json.dumps(config))
    told = call("validate", str(tmp_path), RUNLANE_MAX_CONCURRENT_RUNS="none")
    assert told.exit_code == 1
    wrong = [
        line.split(":")[0].removeprefix("error  ") for line in told.stdout.splitlines() if line.startswith("error")
    ]
    assert wrong[:5] == ["settings", "graph crashes", "graph missing", "graph number", "auth"]
    assert 'bad.py", line 2, in deep' in told.stdout
    found = json.loads(call("validate", str(tmp_path), "--json").stdout)
    assert {one["check"]: one["error"] is None for one in found}["settings"] is True
    assert not (tmp_path / ".runlane").exists()


def test_a_backup_of_a_database_in_use_has_its_runs(tmp_path: Path) -> None:
    project = Path(__file__).parent / "project" / "langgraph.json"
    database, target = f"sqlite:///{tmp_path}/ledger.db", tmp_path / "backup.db"
    with running_server(database, project) as server, httpx.Client(base_url=server.url, timeout=PATIENCE_S) as api:
        api.post("/runs/wait", json={"assistant_id": "steps", "input": {"steps": 1}}).raise_for_status()
        done = call("backup", "--database", database, "--to", str(target), "--json")
        assert json.loads(done.stdout) == {"file": str(target), "bytes": target.stat().st_size}
        assert call("backup", "--database", database, "--to", str(target)).exit_code == 2, "it is not overwritten"
    with closing(sqlite3.connect(target)) as copy:
        assert copy.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    assert call("doctor", "--database", f"sqlite:///{target}").exit_code == 0
    assert call("backup", "--database", f"sqlite:///{tmp_path}/none.db", "--to", str(tmp_path / "b")).exit_code == 2
    damaged = tmp_path / "damaged.db"
    damaged.write_text("no database " * 100)
    told = call("backup", "--database", f"sqlite:///{damaged}", "--to", str(tmp_path / "c"))
    assert (told.exit_code, (tmp_path / "c").exists()) == (1, False)


def test_one_damaged_thread_is_repaired_and_no_other(tmp_path: Path) -> None:
    project = Path(__file__).parent / "project" / "langgraph.json"
    database = f"sqlite:///{tmp_path}/ledger.db"
    with running_server(database, project) as server, httpx.Client(base_url=server.url, timeout=PATIENCE_S) as api:
        one, other = (api.post("/threads", json={}).json()["thread_id"] for _ in range(2))
    assert call("threads", "repair", one, "--database", database).exit_code == 0
    with closing(sqlite3.connect(f"{tmp_path}/ledger.db", isolation_level=None)) as ledger:
        ledger.execute("UPDATE threads SET status = 'busy'")
    assert call("threads", "repair", one, "--database", database, "--yes").exit_code == 0
    assert call("threads", "repair", one, "--database", database).stdout == f"Nothing is wrong with thread {one}.\n"
    assert call("threads", "repair", "nobody", "--database", database).exit_code == 3
    told = CliRunner().invoke(app, ["threads", "repair", other, "--database", database], input="n\n")
    assert (told.exit_code, f"thread={other}" in told.output, one in told.output) == (1, True, False)
    assert call("threads", "repair", other, "--database", database, "--json").exit_code == 2, "it cannot ask"
    repaired = json.loads(call("threads", "repair", other, "--database", database, "--json", "--yes").stdout)
    assert repaired["repaired"] == repaired["findings"] != []


def test_the_command_for_postgresql_has_no_password(tmp_path: Path) -> None:
    for database in (
        "postgresql://ann:hunter2@db/runs?sslmode=require",
        "postgresql://ann@db/runs?password=hunter2&sslmode=require",
    ):
        told = call("backup", "--database", database, "--to", "a file")
        assert told.exit_code == 2
        assert "pg_dump --format=custom --file='a file' 'postgresql://ann@db/runs?sslmode=require'" in told.stderr
        assert "PGPASSWORD" in told.stderr
        assert "hunter2" not in told.output


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_a_shell_completes_commands(shell: str) -> None:
    told = call("completion", shell)
    assert told.exit_code == 0
    assert "_RUNLANE_COMPLETE" in told.stdout
    words = {"_RUNLANE_COMPLETE": "zsh_complete", "COMP_WORDS": "runlane runs st", "COMP_CWORD": "2"}
    completed = CliRunner(env=words).invoke(app, [], prog_name="runlane")
    assert "start" in completed.output.splitlines()
