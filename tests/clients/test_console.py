"""The console in a real Chromium, on servers of its own: each file of ``console/`` is a test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.conftest import HERE, PROJECT, RunNode, missing
from runlane.server.auth.keys import new_key
from server_kit import running_server

CONSOLE = HERE.parents[1] / "console"
FILES = sorted((HERE / "console").glob("*.test.mjs"))


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
    with (
        running_server(f"sqlite:///{tmp_path}/open.db", PROJECT, drain_grace_s=0.2) as asks_nobody,
        running_server(f"sqlite:///{tmp_path}/keyed.db", PROJECT, drain_grace_s=0.2, api_keys=str(keys)) as keyed,
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


def test_the_committed_files_are_what_the_source_builds() -> None:
    node = shutil.which("node")
    if node is None or not (CONSOLE / "node_modules" / ".stamp").is_file():
        missing("the packages that build the console are not installed: `./dev test` installs them")
    for command in (["node_modules/.bin/tsc", "--noEmit"], [node, "build.mjs", "--check"]):
        done = subprocess.run(
            command, cwd=CONSOLE, env=os.environ, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
