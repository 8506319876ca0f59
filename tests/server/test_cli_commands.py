"""The commands that call a server, each by its own example, and what all of them keep to."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import pty
import select
import shlex
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner, Result

from cli_reference import PAGE, example_of, leaves, options_of, written
from runlane.cli.main import app
from runlane.cli.output import safe
from server_kit import NOWHERE, PATIENCE_S, NewDatabase, Server, running_server

PROJECT = Path(__file__).parent / "webhook_project" / "langgraph.json"
SECRET = "whsec_" + base64.b64encode(b"a key that nobody guesses").decode()
COMMANDS = dict(leaves(app))
#: Commands that call a server, and have an example.
CALLING = [name for name, command in COMMANDS.items() if any(one.opts[0] == "--url" for one in options_of(command))]
#: Commands that print a line of JSON for each thing that they follow.
LINES = ("runlane runs tail", "runlane runs logs")
ESCAPE = "\x1b[31m\u202e\u009b"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    database = f"sqlite:///{tmp_path_factory.mktemp('ledger')}/ledger.db"
    with running_server(database, PROJECT, webhook_secret=SECRET) as running:
        yield running


@pytest.fixture
def api(served: Server) -> Iterator[httpx.Client]:
    with api_of(served) as made:
        yield made


@pytest.fixture(scope="module")
def served_anyhow(new_database: NewDatabase) -> Iterator[Server]:
    """Give a server on either database."""
    with running_server(new_database(), PROJECT, webhook_secret=SECRET) as running:
        yield running


def api_of(server: Server) -> httpx.Client:
    return httpx.Client(base_url=server.url, timeout=PATIENCE_S)


def call(server: Server, *arguments: str) -> Result:
    return CliRunner(env={"RUNLANE_URL": server.url, "RUNLANE_PROFILES": "/nowhere"}).invoke(app, arguments)


def printed(server: Server, *arguments: str) -> Any:
    """Return the JSON that a command prints."""
    told = call(server, *arguments, "--json")
    assert told.exit_code == 0, told.output
    return json.loads(told.stdout)


def ended_run(api: httpx.Client, **body: Any) -> tuple[str, str]:
    """Return the ids of a run that has ended and of its thread."""
    thread_id = api.post("/threads", json={}).json()["thread_id"]
    given = {"assistant_id": "steps", "input": {"steps": 1}, **body}
    run_id = api.post(f"/threads/{thread_id}/runs", json=given).json()["run_id"]
    api.get(f"/threads/{thread_id}/runs/{run_id}/join").raise_for_status()
    return run_id, thread_id


def ids(api: httpx.Client, name: str) -> dict[str, str]:
    """Return what stands for the words in examples."""
    hook = {"webhook": "http://127.0.0.1:9/nobody"} if "webhooks" in name else {}
    run_id, thread_id = ended_run(api, **hook)
    assistant = api.post("/assistants", json={"graph_id": "steps"}).json()["assistant_id"]
    cron = api.post("/runs/crons", json={"assistant_id": "steps", "schedule": "0 0 1 1 *"}).json()["cron_id"]
    api.put("/store/items", json={"namespace": ["notes", "oslo"], "key": "weather", "value": {"rain": True}})
    if "interrupts" in name:
        _, thread_id = ended_run(api, assistant_id="approval", input={"topic": "x"})
    worker = api.get("/operator/workers").json()["here"]
    return {"RUN_ID": run_id, "THREAD_ID": thread_id, "ASSISTANT_ID": assistant, "CRON_ID": cron, "WORKER_ID": worker}


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
@pytest.mark.parametrize("name", CALLING)
def test_a_commands_example_does_what_help_says(
    name: str, options: tuple[str, ...], served_anyhow: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = example_of(COMMANDS[name])
    assert example is not None, f"{name} has no example"
    assert example.startswith(f"{name} ") or example == name
    monkeypatch.chdir(tmp_path)
    with api_of(served_anyhow) as api:
        if name == "runlane threads import":
            ended_run(api)
            assert call(served_anyhow, "threads", "export", "threads.jsonl").exit_code == 0
        known = ids(api, name)
        asks = "--yes" in {one.opts[0] for one in options_of(COMMANDS[name])}
        options = (*options, "--yes") if options and asks else options
        words = [*(known.get(word, word) for word in shlex.split(example)[1:]), *options]
        told = call(served_anyhow, *words)
        assert told.exit_code == 0, told.output
        if options:
            values = told.stdout.splitlines() if name in LINES else [told.stdout]
            assert all(json.loads(value) is not None for value in values)
        if name == "runlane workers drain":
            [worker] = api.get("/operator/workers").json()["workers"]
            assert worker["drain_asked_at"] is not None
            assert call(served_anyhow, *words, "--undo").exit_code == 0


class Other(BaseHTTPRequestHandler):
    """A server that is none of Runlane, and answers everything with 200 and JSON."""

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline()
        if self.raw_requestline and self.parse_request():
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.answer(b"{}")
        self.close_connection = True

    def answer(self, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(200)
        for name, value in (("content-length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        return None


@contextlib.contextmanager
def answering(handler: type[Other]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def other_url() -> Iterator[str]:
    with answering(Other) as url:
        yield url


@pytest.mark.parametrize("name", CALLING)
def test_each_command_says_that_no_server_of_runlane_answers(name: str, other_url: str, tmp_path: Path) -> None:
    words = [NOWHERE if word.isupper() else word for word in shlex.split(example_of(COMMANDS[name]) or "")[1:]]
    (tmp_path / "threads.jsonl").write_text('{"thread": {"thread_id": "x", "metadata": {}, "values": null}}\n')
    words = [str(tmp_path / word) if word == "threads.jsonl" else word for word in words]
    told = CliRunner().invoke(app, [*words, "--url", "http://127.0.0.1:9"])
    assert told.exit_code == 4, told.output
    assert told.stderr.startswith("error: No server answers at http://127.0.0.1:9 (")
    told = CliRunner().invoke(app, [*words, "--url", other_url.replace("http:", "https:")])
    assert (told.exit_code, "cannot be reached over TLS" in told.stderr) == (4, True), told.stderr
    told = CliRunner().invoke(app, [*words, "--url", other_url])
    assert (told.exit_code, told.stdout) == (4, "")
    assert told.stderr == f"error: {other_url} does not answer like a Runlane server. Check the address.\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_80_columns(name: str) -> None:
    told = CliRunner(env={"COLUMNS": "200"}).invoke(app, [*name.split()[1:], "--help"])
    assert told.exit_code == 0
    assert [line for line in told.output.splitlines() if len(line) > 80 and "Example: " not in line] == []


def test_the_reference_is_what_the_commands_say() -> None:
    page = PAGE.read_text()
    assert page == written(page), "run ./dev docs"


def test_runs_are_listed_though_newer_threads_have_none(served: Server, api: httpx.Client) -> None:
    run_id, thread_id = ended_run(api)
    for _ in range(25):
        api.post("/threads", json={})
    assert printed(served, "runs", "ls", "--limit", "1")[0]["run_id"] == run_id
    told = call(served, "runs", "ls", "--thread", thread_id)
    titles, row = told.stdout.splitlines()
    assert titles.split() == ["RUN", "STATUS", "AGE", "DURATION", "GRAPH", "CAUSE", "ERROR", "THREAD"]
    assert (row.split()[:2], row.split()[4:6]) == ([run_id, "success"], ["steps", "completed"])
    assert "\x1b" not in told.stdout


def test_runs_are_filtered_and_more_than_a_page_is_listed(served: Server, api: httpx.Client) -> None:
    thread_id = api.post("/threads", json={}).json()["thread_id"]
    many = [{"assistant_id": "steps", "input": {"steps": 1}, "metadata": {"batch": thread_id}}] * 203
    made = [run["run_id"] for run in api.post("/runs/batch", json=many).json()]
    found = printed(served, "runs", "ls", "--text", thread_id, "--since", "1h", "--graph", "steps", "--limit", "1000")
    assert [run["run_id"] for run in found] == made[::-1]
    assert printed(served, "runs", "ls", "--text", thread_id, "--until", "1h") == []
    assert call(served, "runs", "ls", "--text", "no such text").stderr == "No runs.\n"


def test_a_run_that_failed_is_told_apart_from_one_that_waits_for_an_answer(served: Server) -> None:
    started = call(served, "runs", "start", "failing", "--input", "{}", "--wait")
    assert started.exit_code == 6
    run_id = started.stderr.split()[0]
    assert call(served, "runs", "wait", run_id).exit_code == 6
    shown = call(served, "runs", "show", run_id).stdout
    assert "error " in shown
    asking = call(served, "runs", "start", "approval", "--input", "{}", "--wait")
    assert asking.exit_code == 7


def test_what_a_server_refuses_is_told_with_its_reason(served: Server) -> None:
    told = call(served, "crons", "create", "never", "steps")
    assert (told.exit_code, told.stderr.startswith("error: The server refused (422): ")) == (5, True)
    for arguments in (("runs", "show", NOWHERE), ("threads", "show", NOWHERE), ("store", "get", "a", "b")):
        assert call(served, *arguments).exit_code == 3
    for arguments in (("runs", "ls", "--since", "soon"), ("runs", "start", "steps", "--input", "{"), ("runs", "dance")):
        assert call(served, *arguments).exit_code == 2


def test_a_run_that_is_refused_leaves_no_thread(served: Server, api: httpx.Client) -> None:
    before = api.post("/threads/count", json={}).json()
    assert call(served, "runs", "start", "nobody").exit_code == 5
    assert call(served, "runs", "start", "steps", "--input", '{"steps": NaN}').exit_code == 2
    assert api.post("/threads/count", json={}).json() == before
    started = printed(served, "runs", "start", "steps", "--input", '{"steps": 1}')
    assert api.get(f"/threads/{started['thread_id']}").status_code == 200


def test_texts_of_agents_cannot_move_the_terminal(served: Server, api: httpx.Client) -> None:
    run_id, thread_id = ended_run(api, metadata={"note": ESCAPE})
    api.patch(f"/threads/{thread_id}", json={"metadata": {"graph_id": ESCAPE}}).raise_for_status()
    shown = ("runs", "show", run_id), ("threads", "ls"), ("threads", "show", thread_id)
    for arguments in (*shown, *[(*one, "--json") for one in shown], ("runs", "tail", run_id)):
        told = call(served, *arguments)
        assert told.exit_code == 0, told.output
        assert not set(told.output) & set(ESCAPE) - set("[31m"), arguments
    assert safe(f"a{ESCAPE}b\r\n") == "a\\x1b[31m\\u202e\\x9bb\\r\\n"


def test_a_failed_run_is_started_again(served: Server, api: httpx.Client) -> None:
    run_id, thread_id = ended_run(api)
    again = printed(served, "runs", "retry", run_id, "--from-start")
    assert (again["thread_id"], again["metadata"]["retry_of"], again["kwargs"]["input"]) == (
        thread_id,
        run_id,
        {"steps": 1},
    )


def test_many_runs_are_cancelled_and_retried_after_a_preview(served: Server, api: httpx.Client) -> None:
    threads = [api.post("/threads", json={}).json()["thread_id"] for _ in range(3)]
    later = {"assistant_id": "steps", "input": {"steps": 1}, "after_seconds": 86_400, "metadata": {"batch": threads[0]}}
    runs = [api.post(f"/threads/{thread_id}/runs", json=later).json()["run_id"] for thread_id in threads]
    explained = call(served, "runs", "explain", runs[0]).stdout
    assert explained.endswith(f"To change this: withdraw it (runlane runs cancel {runs[0]})\n")
    selected = ("--text", threads[0], "--waits-for", "delay")
    assert call(served, "runs", "cancel").exit_code == 2
    asking = call(served, "runs", "cancel", *selected)
    assert (asking.exit_code, "3 match; 3 would be cancelled." in asking.stderr) == (2, True)
    assert call(served, "runs", "cancel", *selected, "--json").exit_code == 2, "it cannot ask"
    done = call(served, "runs", "cancel", *selected, "--yes", "--reason", "wrong deploy")
    assert (done.exit_code, done.stdout) == (0, "3 done, 0 refused, 0 not found\n")
    again = call(served, "runs", "cancel", *runs, "--yes")
    assert "3 cannot be cancelled: they have ended." in again.stderr
    retried = printed(served, "runs", "retry", *runs, NOWHERE, "--yes")
    assert retried["preview"]["not_found"] == 1
    outcomes = {one["run_id"]: one["outcome"] for one in retried["results"]}
    assert outcomes == {**dict.fromkeys(runs, "done"), NOWHERE: "not_found"}
    assert call(served, "runs", "retry", *runs, "--wait").exit_code == 2


def test_exported_threads_are_imported_with_their_values(served: Server, api: httpx.Client, tmp_path: Path) -> None:
    _, thread_id = ended_run(api)
    before = api.get(f"/threads/{thread_id}").json()
    file = str(tmp_path / "threads.jsonl")
    assert call(served, "threads", "export", file, "--limit", "1").exit_code == 0
    assert call(served, "threads", "import", file).stdout == "Imported 0 threads; 1 existed.\n"
    assert call(served, "threads", "delete", thread_id, "--yes").exit_code == 0
    assert call(served, "threads", "import", file).stdout == "Imported 1 thread; 0 existed.\n"
    after = api.get(f"/threads/{thread_id}").json()
    assert (after["values"], after["metadata"]["graph_id"]) == (before["values"], "steps")
    told = call(served, "threads", "export", file)
    assert told.exit_code == 2, "a file is never overwritten"


def test_a_profile_names_a_server_and_where_its_secrets_are(
    served: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "profiles.toml"
    file.write_text(
        f'[profiles.here]\nurl = "{served.url}"\napi_key_command = "printf secret"\n'
        '[profiles.away]\nurl = "http://127.0.0.1:9"\napi_key_env = "AWAY_KEY"\n'
        '[profiles.odd]\nurl = "http://127.0.0.1:9"\napi_key = "plain"\n'
    )
    runner = CliRunner(env={"RUNLANE_PROFILES": str(file), "RUNLANE_URL": "http://127.0.0.1:9"})
    assert runner.invoke(app, ["threads", "ls", "--profile", "here"]).exit_code == 2, "the file has a plain secret"
    file.write_text(file.read_text().partition("[profiles.odd]")[0])
    assert runner.invoke(app, ["threads", "ls", "--profile", "here"]).exit_code == 0
    assert runner.invoke(app, ["threads", "ls", "--profile", "nobody"]).exit_code == 2
    elsewhere = runner.invoke(app, ["threads", "ls", "--profile", "here", "--url", "http://127.0.0.1:9"])
    assert elsewhere.exit_code == 2, "the profile's secrets are for its server"
    unset = runner.invoke(app, ["threads", "ls", "--profile", "away"])
    assert (unset.exit_code, "$AWAY_KEY" in unset.stderr) == (2, True)
    file.write_text(file.read_text().replace("printf secret", "false"))
    assert runner.invoke(app, ["threads", "ls", "--profile", "here"]).exit_code == 2


def test_a_server_is_shown_with_its_queue_and_what_failed(served: Server) -> None:
    before = printed(served, "status")
    assert (before["healthy"], before["url"]) == (True, served.url)
    failed = call(served, "runs", "start", "failing", "--input", "{}", "--wait").stderr.split()[0]
    assert printed(served, "status")["failed_last_hour"] == before["failed_last_hour"] + 1
    assert failed in call(served, "top").stdout


def test_reports_tell_what_runs_took_and_how_they_failed(served: Server) -> None:
    failed = call(served, "runs", "start", "failing", "--input", "{}", "--wait").stderr.split()[0]
    graphs: dict[str, Any] = {}
    for _ in range(20):  # each report counts some of the runs that ended, the oldest first
        graphs |= {one["name"]: one for one in printed(served, "report", "--by", "graph")}
    assert graphs["failing"]["failed"] == graphs["failing"]["runs"] >= 1
    assert "failing" in call(served, "report", "--by", "graph").stdout
    [group] = printed(served, "failures", "--graph", "failing")
    assert (group["run_id"], group["graph_id"]) == (failed, "failing")
    shown = call(served, "failures").stdout
    assert f"{group['error']}: {group['message']}" in shown
    unknown = call(served, "failures", "--new-since-build", "never")
    assert (unknown.exit_code, "never" in unknown.stderr) == (3, True)


def test_a_load_tells_how_many_runs_failed(served: Server) -> None:
    found = printed(served, "bench", "steps", "--input", '{"steps": 1}', "--runs", "12", "--concurrency", "3")
    assert (found["runs"], found["failed"], found["first_error"]) == (12, 0, None)
    assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"] <= found["max_ms"]
    failing = call(served, "bench", "failing", "--input", "{}", "--runs", "2")
    assert failing.exit_code == 1
    assert call(served, "bench", "nothing").exit_code == 5


def test_every_option_has_a_help_text() -> None:
    bare = [
        f"{name} {option.opts[0]}"
        for name, command in COMMANDS.items()
        for option in command.params
        if isinstance(option, click.Option) and not option.help and not option.hidden
    ]
    assert bare == []


class Screen:
    """A command on a terminal of its own, as a shell starts it."""

    LAUNCH = """import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)  # which is ignored in what a script runs in the background
os.login_tty(0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"""

    def __init__(self, *command: str) -> None:
        self.ours, self.terminal = pty.openpty()
        self.before = termios.tcgetattr(self.terminal)
        self.resize(80)
        call = [sys.executable, "-c", self.LAUNCH, "-m", "runlane.cli.main", *command]
        self.process = subprocess.Popen(call, stdin=self.terminal, env={**os.environ, "TERM": "xterm"})
        self.shown = b""

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def press(self, key: str) -> None:
        os.write(self.ours, key.encode())

    def wait_for(self, text: str, *, times: int = 1) -> None:
        while self.shown.count(text.encode()) < times:
            ready, _, _ = select.select([self.ours], [], [], PATIENCE_S)
            assert ready, self.shown
            self.shown += os.read(self.ours, 65536)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.terminal)


@pytest.mark.parametrize("key", ["q", "\x03"], ids=["q", "Ctrl-C"])
def test_top_draws_for_the_size_that_its_terminal_has_and_restores_it(served: Server, key: str) -> None:
    line = "running, "  # of the server, above the runs
    screen = Screen("top", "--url", served.url, "--interval", "3600")
    with contextlib.closing(screen):
        screen.wait_for(line)
        screen.resize(120)
        screen.wait_for(line, times=2)
        screen.press("x")
        screen.wait_for(line, times=3)
        screen.press(key)
        screen.wait_for("\x1b[?1049l")
        assert screen.process.wait(PATIENCE_S) == 0
        assert termios.tcgetattr(screen.terminal) == screen.before
        assert screen.shown.count(b"\x1b[?25h") == screen.shown.count(b"\x1b[?25l") > 0
        assert screen.shown.startswith(b"\x1b[?1049h")


def test_ctrl_c_in_an_export_says_what_is_left(tmp_path: Path) -> None:
    asked, released = threading.Event(), threading.Event()

    class Slow(Other):
        def answer(self, body: bytes, *headers: tuple[str, str]) -> None:
            if "/history" in self.path:
                asked.set()
                released.wait(PATIENCE_S)
            super().answer(json.dumps([{"thread_id": NOWHERE}]).encode(), ("runlane-version", "1"))

    file = tmp_path / "threads.jsonl"
    with answering(Slow) as url, contextlib.closing(Screen("threads", "export", str(file), "--url", url)) as screen:
        try:
            assert asked.wait(PATIENCE_S)
            assert file.exists()
            screen.press("\x03")
            screen.wait_for("Interrupted. The unfinished file")
            assert (screen.process.wait(PATIENCE_S), file.exists()) == (130, False)
        finally:
            released.set()


def test_top_goes_on_while_its_server_is_away(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        with running_server(f"sqlite:///{tmp_path}/runlane.db") as server:
            screen = stack.enter_context(contextlib.closing(Screen("top", "--url", server.url, "--interval", "0.5")))
            screen.wait_for("running, ")
        screen.wait_for("No server answers at")
        screen.press("q")
        assert screen.process.wait(PATIENCE_S) == 0


def test_an_answer_needs_the_interrupt_only_where_several_are_open(served: Server, api: httpx.Client) -> None:
    _, thread_id = ended_run(api, assistant_id="approval", input={"topic": "x"})
    [asked] = printed(served, "interrupts", "ls", "--thread", thread_id)
    assert asked["value"]["topic"] == "x"
    assert "approval" in call(served, "interrupts", "ls", "--thread", thread_id).stdout
    answered = printed(served, "interrupts", "answer", thread_id, '"yes"', "--wait")
    assert answered["status"] == "success"
    assert "yes" in str(answered["result"])
    late = call(served, "interrupts", "answer", thread_id, '"no"')
    assert (late.exit_code, "asks nothing now" in late.output) == (2, True), late.output
    late = call(served, "interrupts", "answer", thread_id, '"no"', "--interrupt", asked["id"])
    assert answered["run_id"] in late.output
