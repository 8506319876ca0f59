"""``runlane dev``: a server process that is replaced whenever a file of the project changes.

The socket stays with this process, so that a client that calls meanwhile waits instead of being refused. The old
process hands its runs back and the new one continues them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import click
from watchfiles import Change, DefaultFilter, watch

from runlane.agents.langgraph_json import read_graphs_file
from runlane.errors import ConfigurationError
from runlane.server.config.http_section import http_section
from runlane.server.http.listener import address_of, bind, is_loopback, url_of

#: A server that is told to stop and has not after this long is killed; its runs are continued all the same.
STOP_LIMIT_S: Final = 30.0
LOOK_EVERY_MS: Final = 300
_FOLDERS_OF_OTHERS: Final = ("venv", "site-packages", ".runlane", ".langgraph_api", "dist", "build")


class SourceFilter(DefaultFilter):
    """Lets through the files that decide what a project does."""

    ignore_dirs: Sequence[str] = (*DefaultFilter.ignore_dirs, *_FOLDERS_OF_OTHERS)

    def __init__(self, config: Path) -> None:
        super().__init__()
        self._config = config

    def __call__(self, change: Change, path: str) -> bool:
        name = Path(path).name
        is_source = name.endswith(".py") or name.startswith(".env") or Path(path) == self._config
        return is_source and super().__call__(change, path)


def serve_and_reload(config: Path, options: Sequence[str], *, host: str, port: int) -> int:
    """Serve the project at *config* with *options* of ``runlane serve`` until a signal; return the exit code.

    Raises:
        ConfigurationError: The port is in use.
    """
    stop = threading.Event()

    def stopping(_: int, __: FrameType | None) -> None:
        stop.set()

    with bind(host, port) as listener:
        _greet(config, listener)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stopping)
        with _Child(config, options, listener) as child:
            for changes in watch(
                *_folders(config),
                watch_filter=SourceFilter(config),
                stop_event=stop,
                rust_timeout=LOOK_EVERY_MS,
                yield_on_timeout=True,
            ):
                if changes:
                    names = sorted({Path(path).name for _, path in changes})
                    click.secho(f"  changed: {', '.join(names)}; starting again", fg="cyan", err=True)
                    child.restart()
                else:
                    child.say_if_dead()
            return child.stop()


def _greet(config: Path, listener: socket.socket) -> None:
    url = url_of(listener)
    click.secho("\n  Runlane", bold=True, err=True)
    lines = [*_pages(config, url), ("Project", str(config.parent))]
    if not is_loopback(listener):  # the server warns, if it asks nobody who they are
        lines.insert(1, ("Network", f"reachable from other machines: listens on {address_of(listener)}"))
    for name, value in lines:
        click.echo(f"  {name:<8} {value}", err=True)
    click.echo("", err=True)


def _pages(config: Path, url: str) -> list[tuple[str, str]]:
    """Return what can be opened in a browser, below the project's prefix."""
    try:
        section = http_section(read_graphs_file(config))
    except ConfigurationError:  # the server tells
        return [("API", url)]
    api = f"{url}{section.mount_prefix}"
    found = [("API", api, None), ("Console", f"{api}/console/", "ui"), ("Docs", f"{api}/docs", "meta")]
    return [(name, address) for name, address, group in found if group not in section.disabled]


def _folders(config: Path) -> tuple[Path, ...]:
    """Return the folders to watch: the project's, and those that it depends on."""
    try:
        imported = read_graphs_file(config).import_paths
    except ConfigurationError:  # the server tells; a correction of the file itself is seen
        imported = ()
    return (config.parent, *(path for path in imported if not path.is_relative_to(config.parent)))


class _Child:
    """The server process of the moment."""

    def __init__(self, config: Path, options: Sequence[str], listener: socket.socket) -> None:
        self._fd = listener.fileno()
        self._command = [sys.executable, "-P", "-m", "runlane.cli.main", "serve", str(config), *options]
        self._command += ["--fd", str(self._fd)]
        self._process: subprocess.Popen[bytes] | None = None
        self._told = False

    def __enter__(self) -> _Child:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def restart(self) -> None:
        self.stop()
        self._start()

    def say_if_dead(self) -> None:
        """Tell once that the server has ended by itself."""
        if self._told or self._process is None or self._process.poll() is None:
            return
        self._told = True
        click.secho("  The server has stopped; it starts again when a file changes.", fg="yellow", err=True)

    def stop(self) -> int:
        """Let the server hand its runs back, and return its exit code."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.terminate()
        try:
            return self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _start(self) -> None:
        # Nobody who waits for a reload wants to wait for runs: they are handed back at once, unless that was set.
        environment = {"RUNLANE_DRAIN_GRACE_S": "0", **os.environ}
        self._told = False
        self._process = subprocess.Popen(self._command, pass_fds=(self._fd,), env=environment)
