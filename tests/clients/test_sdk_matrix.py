"""Versions of LangGraph's packages, each in an environment of its own: minor versions of the client, the oldest graphs.

All other tests run with the newest versions.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from langgraph_sdk.client import AssistantsClient, CronClient, RunsClient, StoreClient, ThreadsClient

from clients.conftest import HERE
from server_kit import Server

#: Taken while tests are collected: the tests of the server hide the certificates from what they start.
ENVIRONMENT = {**os.environ, "UV_SYSTEM_CERTS": "1"}
UV = Path(sys.executable).with_name("uv")
LOCKS = sorted(HERE.glob("sdk-*.lock"))
ROOT = HERE.parents[1]
OLDEST = HERE / "langgraph-oldest.lock"
#: What depends on LangGraph most: execution, interrupts, subgraphs, checkpoints, both protocols.
GRAPH_TESTS = (
    "component/test_graph_agent.py",
    "component/test_graph_agent_state.py",
    "component/test_subgraphs.py",
    "component/test_half_done_tasks.py",
    "contract/test_checkpoints_delta.py",
    "server/test_interrupts.py",
    "server/test_protocol_events.py",
)
CLIENTS = {
    "assistants": AssistantsClient,
    "threads": ThreadsClient,
    "runs": RunsClient,
    "crons": CronClient,
    "store": StoreClient,
}


def run(*command: str | Path, timeout_s: float = 120) -> str:
    done = subprocess.run(
        command,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(done.stdout, pytrace=False)
    return done.stdout


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_version_of_the_client_manages_all_that_it_can_ask(lock: Path, server: Server, tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    run(UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv")
    run(UV, "pip", "sync", "--quiet", "--python", python, "--require-hashes", lock)
    assert run(python, HERE / "sdk_smoke.py", server.url).startswith(lock.stem.removeprefix("sdk-") + ".")


def test_the_oldest_langgraph_passes_the_tests_of_graphs(tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    run(UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv")
    run(UV, "pip", "sync", "--quiet", "--python", python, "--require-hashes", ROOT / "requirements.lock")
    run(UV, "pip", "install", "--quiet", "--python", python, "--no-deps", "--require-hashes", "-r", OLDEST)
    run(UV, "pip", "install", "--quiet", "--python", python, "--no-deps", "--no-build-isolation", "--editable", ROOT)
    tests = [ROOT / "tests" / name for name in GRAPH_TESTS]
    run(python, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", "--rootdir", ROOT, *tests, timeout_s=170)


def test_deep_agents_and_langfuse_do_what_their_pages_say(tmp_path: Path) -> None:
    """Their packages need newer versions of some others than they agree on, or are needed for nothing else."""
    python = tmp_path / "venv" / "bin" / "python"
    run(UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv")
    run(UV, "pip", "sync", "--quiet", "--python", python, "--require-hashes", HERE / "integrations.lock")
    run(UV, "pip", "install", "--quiet", "--python", python, "--no-deps", "--no-build-isolation", "--editable", ROOT)
    tests = (
        f"{ROOT}/tests/server/test_cookbook.py::test_a_recipe_prints_what_its_page_says[deep-agents]",
        f"{ROOT}/tests/server/test_cli_projects.py::test_a_new_deep_agent_keeps_files",
        HERE / "langfuse_traces.py",
    )
    run(python, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", "--rootdir", ROOT, *tests, timeout_s=170)


def test_the_oldest_langgraph_is_the_lower_bound_of_the_package() -> None:
    tested = dict(re.findall(r"^([a-z-]+)==([\d.]+)", OLDEST.read_text(), re.MULTILINE))
    [bounds] = re.findall(r"^agents = \[(.+)\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert tested == dict(re.findall(r'"([a-z-]+)>=([\d.]+)', bounds))


def test_there_are_two_minor_versions_and_the_newest_is_the_one_that_all_tests_use() -> None:
    versions = [re.search(r"^langgraph-sdk==(\d+\.\d+)", lock.read_text(), re.MULTILINE) for lock in LOCKS]
    minors = [found[1] for found in versions if found]
    [used] = re.findall(r'"langgraph-sdk>=(\d+\.\d+)', (ROOT / "pyproject.toml").read_text())
    assert (len(minors), minors[-1]) == (2, used)


@pytest.mark.parametrize("name", CLIENTS)
def test_every_method_of_the_client_is_called_by_a_test(name: str) -> None:
    files = [HERE / "sdk_smoke.py", *HERE.parent.rglob("test_*.py")]
    tests = "\n".join(file.read_text() for file in files)
    called = set(re.findall(rf"\.{name}\.(\w+)\(", tests))
    methods = {method for method, value in vars(CLIENTS[name]).items() if callable(value) and method[0] != "_"}
    assert methods
    assert methods - called == set()
