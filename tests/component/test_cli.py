"""The command line without a server process: what it says, what it logs, and how light it is."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner

from run_kit import opened
from runlane.agents.registry import load_registry
from runlane.cli.client import ServerEvent, _lines, parse_events
from runlane.cli.logs import (
    CONTINUED,
    MAX_RECORD,
    EventFormatter,
    KeyValueFormatter,
    LogLevel,
    _one_record,
    configure_logging,
)
from runlane.cli.main import app
from runlane.cli.project import find_project
from runlane.cli.reporting import user_traceback
from runlane.cli.version import PACKAGE, build_of
from runlane.errors import GraphLoadError
from runlane.leases import WorkerState
from runlane.store.migrations import VERSION_TABLE

ID = "00000000-0000-4000-8000-000000000000"
HEAVY = ("langgraph", "langchain_core", "fastapi", "uvicorn", "httpx", "pydantic", "watchfiles")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "langgraph.json").write_text(
        json.dumps({"graphs": {"a": "./a.py:graph"}, "env": {"RUNLANE_MAX_RESCUES": "7", "RUNLANE_POLL_S": "9"}})
    )
    return tmp_path


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """Give the root logger, and put it back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def test_the_command_line_imports_nothing_heavy() -> None:
    code = "import sys, runlane.cli.main; print(' '.join(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert [name for name in modules if name in HEAVY] == []


@pytest.mark.parametrize("command", [["serve"], ["dev"], ["runs", "ls"], ["runs", "tail"], ["migrate"]])
def test_every_command_has_help(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


@pytest.mark.parametrize("command", ["serve", "dev", "migrate"])
def test_a_missing_configuration_is_told_in_one_line(
    command: str, tmp_path: Path, root_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNLANE_DATABASE", raising=False)
    result = CliRunner().invoke(app, [command, str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"error: {tmp_path}/langgraph.json does not exist. "
        "Name a folder with a langgraph.json, or the file itself with --config."
    ]


def test_a_folder_as_the_configuration_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["serve", "--config", str(tmp_path)])
    assert (result.exit_code, result.stderr.partition(". ")[0]) == (2, f"error: {tmp_path} is not a file")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--database", "mysql://root:secret@db/runs"], "Setting database is 'mysql://root:***@db/runs'"),
        (["--max-concurrent-runs", "0"], "Setting max_concurrent_runs is 0"),
        (["--run-timeout", "-1"], "Setting run_timeout_s is -1.0"),
    ],
)
def test_a_bad_setting_is_told_in_one_line_without_secrets(
    options: list[str], told: str, project: Path, root_logger: logging.Logger
) -> None:
    result = CliRunner().invoke(app, ["serve", str(project), *options])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert told in result.stderr
    assert "secret" not in result.output


def test_the_default_database_is_in_the_projects_folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNLANE_DATABASE", raising=False)
    assert find_project(project).settings().database == f"sqlite:///{project}/.runlane/runlane.db"


def test_a_setting_comes_from_the_option_then_the_environment_then_the_project(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNLANE_POLL_S", "8")
    settings = find_project(project).settings(drain_grace_s=1.5)
    assert (settings.drain_grace_s, settings.poll_s, settings.max_rescues) == (1.5, 8.0, 7)


def test_the_version_is_that_of_the_installed_package() -> None:
    told = CliRunner().invoke(app, ["--version"]).stdout
    assert told == f"{metadata.version('runlane')} (build {build_of(PACKAGE)})\n"


def test_migrate_makes_the_schema_and_may_be_repeated(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/new.db"
    for _ in range(2):
        result = CliRunner().invoke(app, ["migrate", "--database", database])
        assert result.exit_code == 0, result.output
    assert (tmp_path / "new.db").exists()
    told = CliRunner().invoke(app, ["migrate", "--compact", "--json", "--database", database])
    found = json.loads(told.stdout)
    assert (found["database"], found["rewritten_values"]) == (database, 0)
    assert found["compacted"]["bytes_after"] == (tmp_path / "new.db").stat().st_size


async def test_workers_are_listed_with_instants_as_the_api_has_them(new_postgres_ledger: Callable[[], str]) -> None:
    database = new_postgres_ledger()
    async with opened(database=database) as runtime:
        await runtime.store.workers.beat(WorkerState(worker_id="w", lease_s=60, build="b", groups=("g",)))
        told = await asyncio.to_thread(CliRunner().invoke, app, ["workers", "ls", "--json", "--database", database])
        fleet = await runtime.store.workers.fleet()
    found = json.loads(told.stdout)
    assert list(found) == ["workers", "builds", "stranded"]
    [shown] = [worker for worker in found["workers"] if worker["worker_id"] == "w"]
    [known] = [worker for worker in fleet.workers if worker.worker_id == "w"]
    assert [shown["started_at"], shown["renewed_at"]] == [known.started_at.isoformat(), known.renewed_at.isoformat()]
    assert (shown["graphs"], shown["draining_since"]) == (["g"], None)


def test_migrate_says_that_a_schema_is_a_newer_versions(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/new.db"
    assert CliRunner().invoke(app, ["migrate", "--database", database]).exit_code == 0
    with closing(sqlite3.connect(tmp_path / "new.db")) as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
        connection.commit()
    told = CliRunner().invoke(app, ["migrate", "--database", database])
    assert told.exit_code == 0, told.output
    assert told.stdout == f"{database} has the schema of a newer version, which this one can use.\n"


def test_migrate_does_not_show_the_password_of_its_database(postgres_url: str) -> None:
    database = f"{postgres_url}{'&' if '?' in postgres_url else '?'}password=hunter2"
    told = CliRunner().invoke(app, ["migrate", "--database", database])
    assert (told.exit_code, "password=***" in told.stdout, "hunter2" in told.output) == (0, True, False), told.output
    found = json.loads(CliRunner().invoke(app, ["migrate", "--json", "--database", database]).stdout)
    assert (found["applied"], found["left"], found["waits_for"], found["needed"]) == ([], [], [], False)
    assert "hunter2" not in str(found)


def test_migrate_compacts_a_file_and_says_its_size_before_and_after(tmp_path: Path) -> None:
    file = tmp_path / "old.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript("CREATE TABLE old (x); INSERT INTO old VALUES (zeroblob(8000000)); DELETE FROM old")
    result = CliRunner().invoke(app, ["migrate", "--compact", "--database", f"sqlite:///{file}"])
    assert result.exit_code == 0, result.output
    assert re.search(r"old.db has 0\.\d MB, and had 8\.\d MB\.", result.stdout)
    assert "Copying" in result.stderr
    assert file.stat().st_size < 1_000_000


def test_only_a_file_can_be_compacted() -> None:
    result = CliRunner().invoke(app, ["migrate", "--compact", "--database", "postgresql://127.0.0.1:9/none"])
    assert result.exit_code == 2
    assert "--compact copies an SQLite file" in result.stderr


@pytest.mark.parametrize("command", ["serve", "dev"])
@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_that_there_cannot_be_is_refused_and_not_wrapped_round(command: str, port: str, project: Path) -> None:
    result = CliRunner().invoke(app, [command, str(project), "--port", port])
    assert result.exit_code == 2
    assert result.stderr == f"error: Cannot listen on port {port}: a port is a number from 0 to 65535.\n"


def test_a_build_is_another_when_a_file_is(tmp_path: Path) -> None:
    builds = []
    for name, text in (("a.py", "one"), ("a.py", "two"), ("b.py", "two")):
        (tmp_path / "a.py").unlink(missing_ok=True)
        (tmp_path / name).write_text(text)
        builds.append(build_of(tmp_path))
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "b.pyc").write_text("made")
    assert len(set(builds)) == 3
    assert build_of(tmp_path) == builds[-1]


@pytest.mark.parametrize("command", [["ls"], ["show", ID], ["tail", ID], ["cancel", ID], ["ls", "--thread", ID]])
def test_a_server_that_does_not_answer_is_told_in_one_line(command: list[str]) -> None:
    result = CliRunner().invoke(app, ["runs", *command, "--url", "http://127.0.0.1:9"])
    assert result.exit_code == 4
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: No server answers at http://127.0.0.1:9 (")


@pytest.mark.parametrize(
    ("source", "is_told"),
    [
        ("raise ValueError('x')\n", ["graph.py", "ValueError: x"]),
        ("def graph(:\n", ["graph.py", "SyntaxError"]),
        ("import json\njson.loads('{')\n", ["graph.py", "JSONDecodeError"]),
        ("try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('x') from e\n", ["ZeroDivisionError"]),
    ],
)
def test_a_traceback_has_the_users_frames_only(source: str, is_told: list[str], tmp_path: Path) -> None:
    (tmp_path / "langgraph.json").write_text(json.dumps({"graphs": {"a": "./graph.py:graph"}}))
    (tmp_path / "graph.py").write_text(source)
    with pytest.raises(GraphLoadError) as raised:
        load_registry(tmp_path / "langgraph.json")
    assert raised.value.__cause__ is not None
    text = user_traceback(raised.value.__cause__)
    assert all(part in text for part in is_told), text
    files = [line for line in text.splitlines() if line.lstrip().startswith("File ")]
    assert files
    assert all(str(tmp_path) in line for line in files), text


def test_a_missing_source_file_has_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "langgraph.json").write_text(json.dumps({"graphs": {"a": "./absent.py:graph"}}))
    with pytest.raises(GraphLoadError) as raised:
        load_registry(tmp_path / "langgraph.json")
    assert raised.value.__cause__ is not None
    assert user_traceback(raised.value.__cause__) == ""


def record(name: str, message: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord(name, logging.INFO, "file.py", 1, message, arguments, None)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (record("runlane.worker", "run.started run_id=%s", "r1"), "logger=runlane.worker event=run.started run_id=r1"),
        (record("other", 'said "%s"', "x"), 'logger=other event=log message="said \\"x\\""'),
        (
            record("runlane.http", "http.request method=%s path=%s status=%d", "GET", "/ok", 200),
            "logger=runlane.http event=http.request method=GET path=/ok status=200",
        ),
    ],
)
def test_a_log_line_is_key_value_pairs(given: logging.LogRecord, line: str) -> None:
    time, level, rest = KeyValueFormatter().format(given).split(" ", 2)
    assert time.startswith("time=")
    assert (level, rest) == ("level=info", line)


SEGMENTS = (
    *("threads", "password", "api_key", "secret", "token", "ghp_" + "a1B2" * 9),
    *(
        "0192f7a0-1111-7222-8333-444455556666",
        "sk-proj-abcdefghijklmnopqrstuvwxyz123456",
        "a\x1b[2Jb",
        "ghp_" + "a1B2" * 9,
    ),
)


@pytest.mark.parametrize("path", ["/" + "/".join(each) for each in itertools.product(SEGMENTS, repeat=2)])
def test_a_request_whose_path_is_not_searched_for_secrets_has_none(path: str) -> None:
    asked = record("runlane.http", "http.request method=%s path=%s", "GET", path)
    assert KeyValueFormatter().format(asked).endswith(_one_record(asked.getMessage()))


def test_the_level_is_honoured_and_libraries_talk_less(
    root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(LogLevel.INFO)
    logging.getLogger("runlane.worker").info("run.started run_id=r1")
    logging.getLogger("runlane.worker").debug("run.detail")
    logging.getLogger("httpx").info("HTTP Request: GET https://api.example.com/?key=secret")
    told = capsys.readouterr().err
    assert "run.started" in told
    assert "run.detail" not in told
    assert "secret" not in told


ENDS = ("\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029")


@pytest.mark.parametrize("formatter", [KeyValueFormatter(), EventFormatter(colour=True)])
@pytest.mark.parametrize("end", ENDS)
def test_no_text_looks_like_a_record_of_its_own(formatter: logging.Formatter, end: str) -> None:
    forged = f"x{end}time=2026-01-01T00:00:00.000Z level=info logger=runlane.auth event=forged"
    try:
        raise ValueError(forged)
    except ValueError:
        raised = sys.exc_info()
    for name in ("runlane.worker", "other"):
        record = logging.LogRecord(name, logging.INFO, "", 1, "run.started why=%s", (forged,), raised)
        first, *others = formatter.format(record).splitlines()
        assert first
        assert all(line.startswith(CONTINUED) for line in others)


def test_a_record_is_of_bounded_length_and_nothing_that_a_terminal_obeys() -> None:
    record = logging.LogRecord("runlane.worker", logging.INFO, "", 1, "event why=%s", ("\x1b[2J" + "a" * 10**6,), None)
    line = KeyValueFormatter().format(record)
    assert "\x1b" not in line
    assert "\\x1b[2J" in line
    assert len(line) < MAX_RECORD + 100


def test_pretty_logs_show_the_event(root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogLevel.INFO, style="pretty")
    logging.getLogger("runlane.worker").info("run.started run_id=[r1]")
    logging.getLogger("library").info("said")
    shown = [line.split(maxsplit=2)[2] for line in capsys.readouterr().err.splitlines()]
    assert shown == ["run.started run_id=[r1]", "said"]


def test_lines_of_a_stream_end_with_lf_or_cr_lf_and_nowhere_else() -> None:
    pieces = [b'data: "a\xe2\x80', b'\xa8b"\r', b"\n\xc2\x85\x0b\x1c\n", b"\ncut off"]
    assert list(_lines(iter(pieces))) == ['data: "a\u2028b"', "\x85\x0b\x1c", ""]


def test_events_are_parsed_and_comments_and_cut_off_events_dropped() -> None:
    stream = ": heartbeat\n\nevent: values\ndata: {\ndata: }\nid: 1\n\ndata: 2\nid: 2\n\nevent: end\ndata: nev"
    assert list(parse_events(iter(stream.split("\n")))) == [
        ServerEvent(name="values", data="{\n}", id="1"),
        ServerEvent(name="message", data="2", id="2"),
    ]
