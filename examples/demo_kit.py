"""Helpers of the demo: a report of verified claims, stream readers, and a server process."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import textwrap
import time
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
from langgraph_sdk.schema import StreamPart
from rich.console import Console
from rich.table import Table
from rich.text import Text

START_LIMIT_S = 30.0  # a cold start on a busy machine takes a few seconds
STOP_LIMIT_S = 15.0
SECTION_LIMIT_S = 45.0


class DemoError(Exception):
    """The demo cannot continue; the message is one line."""


@dataclass(kw_only=True, slots=True)
class Section:
    """The result of one part of the demo."""

    title: str
    passed: int = 0
    failures: list[str] = field(default_factory=list)
    skipped: str | None = None
    duration_s: float = 0.0


class Report:
    """Prints facts and checked claims, and remembers which claims did not hold."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._sections: list[Section] = []
        self._started_at = time.monotonic()

    @property
    def ok(self) -> bool:
        """Whether something was checked and nothing failed."""
        return any(s.passed for s in self._sections) and not any(s.failures for s in self._sections)

    @asynccontextmanager
    async def section(self, title: str) -> AsyncIterator[None]:
        """Head a part of the demo; an exception or a timeout inside is recorded as its failure."""
        current = Section(title=title)
        self._sections.append(current)
        self._console.print(f"\n[bold cyan]{len(self._sections)}  {title}[/]")
        began = time.monotonic()
        try:
            async with asyncio.timeout(SECTION_LIMIT_S):
                yield
        except TimeoutError:
            self.check(f"finished within {SECTION_LIMIT_S:.0f} s", ok=False)
        except Exception as exc:  # noqa: BLE001 - a broken part must not hide how the others go
            self.check("went through without an error", ok=False, got=f"{type(exc).__name__}: {exc}")
        finally:
            current.duration_s = time.monotonic() - began

    def check(self, claim: str, *, ok: bool, got: object = None) -> None:
        """Print *claim* with a tick, or with a cross and what was seen instead."""
        if ok:
            self._sections[-1].passed += 1
            self._line("✓", claim, "green")
            return
        text = claim if got is None else f"{claim} - but got {got!r:.300}"
        self._sections[-1].failures.append(text)
        self._line("✗", text, "bold red")

    def say(self, fact: str, *, mark: str = "·") -> None:
        """Print something that needs no check."""
        self._line(mark, fact, "dim")

    def skip(self, title: str, why: str) -> None:
        """Say that a part was left out, and why."""
        self._sections.append(Section(title=title, skipped=why))
        self._console.print(f"\n[bold cyan]{len(self._sections)}  {title}[/]")
        self.say(f"skipped: {why}")

    def title(self, text: str) -> None:
        self._console.rule(f"[bold]{text}[/]", align="left", style="cyan")

    def token(self, text: str) -> None:
        """Print a piece of streamed text at once, on the line that is being written."""
        self._console.print(Text(text, style="bold"), end="", soft_wrap=True)

    def summary(self) -> None:
        """Print the closing table and the verdict."""
        table = Table(show_header=True, header_style="dim", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("")
        table.add_column("part")
        table.add_column("checks", justify="right")
        table.add_column("time", justify="right")
        for s in self._sections:
            mark = "[dim]-[/]" if s.skipped else "[bold red]✗[/]" if s.failures else "[green]✓[/]"
            checks = "skipped" if s.skipped else f"{s.passed}/{s.passed + len(s.failures)}"
            table.add_row(mark, s.title, checks, "" if s.skipped else f"{s.duration_s:.1f} s")
        self._console.print()
        self.title("Summary")
        self._console.print(table)
        failed = sum(len(s.failures) for s in self._sections)
        took = f"{time.monotonic() - self._started_at:.0f} s"
        if self.ok:
            self._console.print(f"\n[bold green]Everything happened as it should[/], in {took}.")
        else:
            self._console.print(f"\n[bold red]{failed or 'All'} of the claims did not hold[/] ({took}).")

    def _line(self, mark: str, text: str, style: str) -> None:
        indent = " " * (len(mark) + 4)
        for number, line in enumerate(textwrap.wrap(text, self._console.width - len(indent)) or [""]):
            head = Text(f"   {mark} ", style=style) if number == 0 else Text(indent)
            self._console.print(head + Text(line, style="dim" if style == "dim" else ""))


class Reader:
    """Passes the parts of a run's stream on and keeps them; closes the stream at the end of its block."""

    def __init__(self, stream: AsyncIterator[StreamPart]) -> None:
        self._stream = cast("AsyncGenerator[StreamPart]", stream)
        self.parts: list[StreamPart] = []

    async def __aenter__(self) -> Reader:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> Reader:
        return self

    async def __anext__(self) -> StreamPart:
        self.parts.append(await anext(self._stream))
        return self.parts[-1]

    @property
    def ids(self) -> list[str | None]:
        return [part.id for part in self.parts]

    @property
    def steps(self) -> list[int]:
        """The steps that a research run reported, in the order seen."""
        return [part.data["step"] for part in self.parts if part.event == "custom"]

    @property
    def tail(self) -> list[str]:
        """The names of the last events, to be shown when a check fails."""
        return [part.event for part in self.parts[-3:]]

    @property
    def ending(self) -> str | None:
        """The status told by the one ``end`` event that closes the stream; ``None`` if it did not close so."""
        ends = [part for part in self.parts if part.event == "end"]
        if len(ends) != 1 or self.parts[-1].event != "end":
            return None
        status: str = ends[0].data["status"]
        return status


class ChatPrinter:
    """Prints a conversation as its stream arrives, and keeps what the checks need."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self.arrivals: list[float] = []
        self.text = ""
        self.messages: list[dict[str, Any]] = []
        self._writing = False

    def show(self, part: StreamPart) -> None:
        data: Any = part.data
        if part.event == "messages" and data[0]["type"] == "AIMessageChunk":
            self._show_token(text_of(data[0]))
        elif part.event == "values":
            known = len(self.messages)
            self.messages = data["messages"]
            for message in self.messages[known:]:
                self._show_message(message)

    def _show_token(self, token: str) -> None:
        if not token:
            return
        if not self._writing:
            self._writing, self.text = True, ""
            self._report.token("   agent > ")
        self.arrivals.append(time.monotonic())
        self.text += token
        self._report.token(token)

    def _show_message(self, message: dict[str, Any]) -> None:
        if self._writing:
            self._writing = False
            self._report.token("\n")
        for call in message.get("tool_calls") or ():
            args = ", ".join(f"{key}={value}" for key, value in call["args"].items())
            self._report.say(f"calls {call['name']}({args})", mark="      →")
        if message["type"] == "tool":
            self._report.say(text_of(message), mark="      ←")


def text_of(message: dict[str, Any]) -> str:
    """Return a message's text, whether its content is a string or a list of blocks."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content)


class ServerProcess:
    """A Runlane server on one port and one database, which can be killed and started again.

    Used as an async context manager it never outlives its block.
    """

    def __init__(
        self, project: Path, workdir: Path, *, env: dict[str, str], database: str | None = None, name: str = "server"
    ) -> None:
        """Args:
        database: The address of a database that exists; by default a file in *workdir*.
        name: Of its log in *workdir*.
        """
        self._log_path = workdir / f"{name}.log"
        self._env = env
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._command = (
            *(sys.executable, "-m", "runlane.cli.main", "serve", str(project)),
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--database", database or f"sqlite:///{workdir / 'demo.db'}", "--log-level", "warning"),
        )
        self._process: Process | None = None

    async def __aenter__(self) -> ServerProcess:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.kill()

    @property
    def pid(self) -> int:
        return self._running().pid

    async def start(self) -> float:
        """Start the server and wait until it answers; return the seconds that this took.

        Raises:
            DemoError: It exited, or did not answer in time; the message ends with the last lines of its log.
        """
        began = time.monotonic()
        with self._log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdout=log, stderr=log, env=self._env, start_new_session=True
            )
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as http:
            while not await self._answers(http):
                if self._process.returncode is not None:
                    raise DemoError(f"the server exited with {self._process.returncode}\n{self.log_tail()}")
                if time.monotonic() - began > START_LIMIT_S:
                    raise DemoError(f"the server did not answer within {START_LIMIT_S:.0f} s\n{self.log_tail()}")
                await asyncio.sleep(0.05)
        return time.monotonic() - began

    async def kill(self) -> None:
        """End the server as a power cut would (SIGKILL), with any children. Harmless if it is not running."""
        if self._process is None or self._process.returncode is not None:
            return
        with suppress(ProcessLookupError):  # it ended by itself a moment ago
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    async def terminate(self) -> int:
        """Ask the server to stop (SIGTERM) and return its exit code.

        Raises:
            DemoError: It was still running after 15 s.
        """
        process = self._running()
        process.terminate()
        try:
            async with asyncio.timeout(STOP_LIMIT_S):
                return await process.wait()
        except TimeoutError as exc:
            raise DemoError(f"the server was still running {STOP_LIMIT_S:.0f} s after SIGTERM") from exc

    def log_tail(self, lines: int = 8) -> str:
        """Return the last lines of what the server logged."""
        if not self._log_path.exists():
            return ""
        return "\n".join(self._log_path.read_text(errors="replace").splitlines()[-lines:])

    def _running(self) -> Process:
        if self._process is None:
            raise DemoError("the server was never started")
        return self._process

    @staticmethod
    async def _answers(http: httpx.AsyncClient) -> bool:
        try:
            return (await http.get("/ok")).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False
