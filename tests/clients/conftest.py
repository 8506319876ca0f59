"""A server for clients in JavaScript, Node, and a browser; what is missing fails in CI and is skipped elsewhere."""

from __future__ import annotations

import functools
import http.server
import logging
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from runlane.telemetry.log_handler import RunLogHandler
from server_kit import Server, running_server

HERE = Path(__file__).parent
PROJECT = HERE / "project" / "langgraph.json"
VITE = "node_modules/vite/bin/vite.js"
PROCESS_S = 150.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

RunNode = Callable[..., None]


def missing(what: str) -> NoReturn:
    """Fail in CI, where everything has to be; skip elsewhere."""
    if os.environ.get("CI"):
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


@pytest.fixture(scope="session", autouse=True)
def _logs_are_kept() -> None:
    """Keep the logs of runs, as ``runlane serve`` does."""
    logging.getLogger().addHandler(RunLogHandler())


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Give the server that the clients share."""
    with running_server(
        f"sqlite:///{tmp_path_factory.mktemp('clients')}/runlane.db", PROJECT, drain_grace_s=0.2
    ) as running:
        yield running


@pytest.fixture(scope="session")
def run_node(server: Server) -> RunNode:
    """Give a function that runs Node with arguments, and fails with what it printed."""
    node = shutil.which("node")
    if node is None:
        missing("Node is not installed: these tests need Node 20 or later, with npm")
    if not (HERE / "node_modules" / ".stamp").is_file():
        missing("the JavaScript packages are not installed: `./dev test` installs them")

    def run(*arguments: str, **environment: str) -> None:
        try:
            done = subprocess.run(
                [node, *arguments],
                cwd=HERE,
                env={**os.environ, "RUNLANE_URL": server.url, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=PROCESS_S,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            printed = late.output.decode() if isinstance(late.output, bytes) else late.output
            pytest.fail(f"not over after {PROCESS_S:.0f} s; so far:\n{printed}", pytrace=False)
        if done.returncode != 0:
            pytest.fail(done.stdout, pytrace=False)

    return run


@pytest.fixture(scope="session")
def browser() -> str:
    """Give the path of a Chromium."""
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    missing("no Chromium is installed: `./dev test` installs it, as root on a machine with apt")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def pages(run_node: RunNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Build the React pages, and give the address where they are served: another origin than the server's."""
    folder = tmp_path_factory.mktemp("pages")
    run_node(
        "node_modules/vite/bin/vite.js",
        "build",
        "pages",
        "--outDir",
        str(folder),
        "--emptyOutDir",
        "--logLevel",
        "warn",
    )
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder))
    ) as listening:
        thread = threading.Thread(target=listening.serve_forever, name="pages")
        thread.start()
        yield f"http://localhost:{listening.server_port}"
        listening.shutdown()
        thread.join()
