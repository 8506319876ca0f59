"""The console in a real Chromium, on servers of its own: each file of ``console/`` is a test."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from clients.conftest import HERE, PROJECT, RunNode, missing
from runlane.server.auth.keys import new_key
from server_kit import PATIENCE_S, running_server

CONSOLE = HERE.parents[1] / "console"
OPERATOR = HERE / "console" / "operator.test.mjs"
FILES = sorted(set((HERE / "console").glob("*.test.mjs")) - {OPERATOR})


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Give the addresses of a server that asks nobody, and of one that asks for keys, with keys of each role."""
    keys = tmp_path / "keys"
    roles = {
        "ADMIN_KEY": new_key("ada", keys, scopes=["admin", "payload:read"]),
        "READER_KEY": new_key("rita", keys, scopes=["runs:read"]),
        "OWNER_KEY": new_key("acme", keys),
        "OTHER_KEY": new_key("umbrella", keys),
    }
    prices = tmp_path / "prices.toml"
    prices.write_text("[echo]\ninput = 2000\noutput = 10000\n")
    given = {"drain_grace_s": 0.2, "prices": str(prices)}
    with (
        running_server(f"sqlite:///{tmp_path}/open.db", PROJECT, **given) as asks_nobody,
        running_server(f"sqlite:///{tmp_path}/keyed.db", PROJECT, api_keys=str(keys), **given) as keyed,
    ):
        yield {
            "RUNLANE_URL": asks_nobody.url,
            "KEYED_URL": keyed.url,
            "KEYED_DATABASE": f"{tmp_path}/keyed.db",
            "PYTHON": sys.executable,
            **roles,
        }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_console_does_what_its_file_says(
    file: Path, run_node: RunNode, browser: str, servers: dict[str, str]
) -> None:
    run_node("--test", "--test-timeout=200000", "--test-reporter=spec", str(file), CHROMIUM=browser, **servers)


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Give the address of a server after a deploy that broke a graph, with a damaged thread, and few slots."""
    keys, database = tmp_path / "keys", f"sqlite:///{tmp_path}/broken.db"
    owner = new_key("acme", keys)
    roles = {
        "ADMIN_KEY": new_key("ada", keys, scopes=["admin", "payload:read"]),
        "OWNER_KEY": owner,
        "OTHER_KEY": new_key("umbrella", keys),
    }
    given = {"drain_grace_s": 0.2, "api_keys": str(keys), "max_concurrent_runs": 6, "max_runs_per_owner": 3}
    with (
        running_server(database, _deploy(tmp_path, "billing"), build="before", **given) as before,
        httpx.Client(base_url=before.url, headers={"X-Api-Key": owner}, timeout=PATIENCE_S) as http,
    ):
        for number in range(4):
            thread = http.post("/threads", json={"metadata": {"number": number}}).json()["thread_id"]
            http.post(f"/threads/{thread}/runs/wait", json={"assistant_id": "billing", "input": {}}).raise_for_status()
    with contextlib.closing(sqlite3.connect(tmp_path / "broken.db")) as ledger, ledger:
        ledger.execute("UPDATE threads SET status = 'busy' WHERE thread_id = ?", (thread,))
    with running_server(database, _deploy(tmp_path, "billing_anew"), build="after", **given) as after:
        yield {"RUNLANE_URL": after.url, "KEYED_URL": after.url, "DAMAGED": thread, **roles}


def _deploy(folder: Path, billing: str) -> Path:
    """Return a project whose graph ``billing`` is the one of that name in the code."""
    graphs = {name: f"{PROJECT.parent}/talk.py:{name}" for name in ("chat", "reviewed", "gate")}
    project = folder / f"{billing}.json"
    project.write_text(
        json.dumps(
            {
                "dependencies": [str(PROJECT.parent)],
                "graphs": {**graphs, "billing": f"{PROJECT.parent}/talk.py:{billing}"},
                "webhooks": {"url": {"disable_loopback": False}},
            }
        )
    )
    return project


def test_an_operator_finds_what_is_broken_and_mends_it(run_node: RunNode, browser: str, broken: dict[str, str]) -> None:
    run_node("--test", "--test-timeout=120000", "--test-reporter=spec", str(OPERATOR), CHROMIUM=browser, **broken)


def test_the_committed_files_are_what_the_source_builds() -> None:
    node = shutil.which("node")
    if node is None or not (CONSOLE / "node_modules" / ".stamp").is_file():
        missing("the packages that build the console are not installed: `./dev test` installs them")
    for command in (["node_modules/.bin/tsc", "--noEmit"], [node, "build.mjs", "--check"]):
        done = subprocess.run(
            command, cwd=CONSOLE, env=os.environ, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
