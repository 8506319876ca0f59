"""End-to-end demo: start a server, drive real agents with the official SDK, verify every claim.

Run ``python examples/demo.py``; it needs no key and no network, takes about 20 seconds, and exits 0 only if everything
happened. ``--url URL`` drives a server that is already running with ``examples/assistant``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx
from demo_kit import ChatPrinter, DemoError, Reader, Report, ServerProcess, text_of
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import LangGraphError
from langgraph_sdk.schema import Run, RunCreateMetadata, StreamPart
from rich.console import Console

PROJECT = Path(__file__).parent / "assistant"
GRAPHS = {"chat", "research", "approval"}
STEP_S = 0.3
HALF_A_STEP_S = STEP_S / 2  # after a step's event, this is the middle of the next step
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")
TIME_LIMIT_S = 120.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Demo:
    """What every part of the demo works with."""

    client: LangGraphClient
    report: Report


async def read(stream: AsyncIterator[StreamPart]) -> Reader:
    """Read a stream to its end."""
    async with Reader(stream) as reader:
        async for _ in reader:
            pass
    return reader


def research(topic: str, *, steps: int, seconds: float) -> dict[str, Any]:
    return {"topic": topic, "steps": steps, "seconds": seconds}


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


async def status_of(demo: Demo, thread_id: str, run: RunCreateMetadata | Run) -> str:
    return (await demo.client.runs.get(thread_id, run["run_id"]))["status"]


async def log_of(demo: Demo, thread_id: str) -> list[dict[str, Any]]:
    state: Any = await demo.client.threads.get_state(thread_id)
    log: list[dict[str, Any]] = state["values"]["log"]
    return log


def topic_of(entry: dict[str, Any]) -> str:
    topic: str = entry["topic"]
    return topic


async def streamed_chat(demo: Demo) -> None:
    report, question = demo.report, "What is the weather in Oslo and Lisbon, and what is 19 + 23?"
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": question}]}
    thread_id = (await demo.client.threads.create())["thread_id"]
    report.token(f"   you   > {question}\n")
    printer, asked_at = ChatPrinter(report), time.monotonic()
    stream = demo.client.runs.stream(
        thread_id,
        "chat",
        input=asked,
        stream_mode=["messages-tuple", "values"],
        stream_resumable=True,
    )
    async with Reader(stream) as seen:
        async for part in seen:
            printer.show(part)
    arrivals = printer.arrivals
    first, spread = (arrivals[0] - asked_at, arrivals[-1] - arrivals[0]) if arrivals else (0.0, 0.0)
    report.check(
        f"{len(arrivals)} pieces of text came one by one: the first after {ms(first)}, the last {ms(spread)} later",
        ok=len(arrivals) >= 10 and spread > 0.2,
    )
    tools = sorted(message["name"] for message in printer.messages if message["type"] == "tool")
    report.check("the agent called its tools and got their results", ok={"add", "weather"} <= set(tools), got=tools)
    state: Any = await demo.client.threads.get_state(thread_id)
    last = state["values"]["messages"][-1]
    report.check(
        "the stored messages equal the streamed ones", ok=text_of(last) == printer.text != "", got=text_of(last)
    )
    usage = last.get("usage_metadata") or {}
    report.check(
        f"the last answer counted its tokens: {usage.get('input_tokens')} in, {usage.get('output_tokens')} out",
        ok=usage.get("input_tokens", 0) > 0 and usage.get("output_tokens", 0) > 0,
        got=usage,
    )
    report.check("the stream closed with end: success", ok=seen.ending == "success", got=seen.tail)


async def cancel_half_way(demo: Demo) -> None:
    report, client = demo.report, demo.client
    runs: list[RunCreateMetadata] = []
    thread_id = (await client.threads.create())["thread_id"]
    took = 0.0
    stream = client.runs.stream(
        thread_id,
        "research",
        input=research("whales", steps=12, seconds=STEP_S),
        stream_mode="custom",
        stream_resumable=True,
        on_run_created=runs.append,
    )
    async with Reader(stream) as seen:
        async for part in seen:
            if part.event == "custom" and part.data["step"] == 6:
                await asyncio.sleep(HALF_A_STEP_S)
                began = time.monotonic()
                await client.runs.cancel(thread_id, runs[0]["run_id"], wait=True)
                took = time.monotonic() - began
    report.say(f"12 steps were asked for; cancelled in the middle of step {seen.steps[-1] + 1}, answered in {ms(took)}")
    status = await status_of(demo, thread_id, runs[0])
    report.check("the run is interrupted", ok=status == "interrupted", got=status)
    report.check("its stream closed with end: interrupted", ok=seen.ending == "interrupted", got=seen.tail)
    before = await log_of(demo, thread_id)
    await asyncio.sleep(2 * STEP_S)
    later = await log_of(demo, thread_id)
    report.check(
        f"nothing runs on after the answer: {len(before)} steps are kept, no more follow",
        ok=before == later and 0 < len(before) < 12,
        got=len(later),
    )

    again = await client.runs.create(thread_id, "research", input=research("owls", steps=3, seconds=0.05))
    await client.runs.join(thread_id, again["run_id"])
    thread, log = await client.threads.get(thread_id), await log_of(demo, thread_id)
    report.check(
        "the same thread took another run: success, and the thread is idle",
        ok=(await status_of(demo, thread_id, again)) == "success" and thread["status"] == "idle",
        got=thread["status"],
    )
    added = [topic_of(entry) for entry in log[len(before) :]]
    report.check(
        f"which added its 3 steps to the {len(before)}",
        ok=log[: len(before)] == before and added == ["owls"] * 3,
        got=[topic_of(entry) for entry in log],
    )


async def enqueue(demo: Demo) -> None:
    report, client = demo.report, demo.client
    thread_id = (await client.threads.create())["thread_id"]
    first = await client.runs.create(thread_id, "research", input=research("first", steps=5, seconds=0.15))
    second = await client.runs.create(
        thread_id, "research", input=research("second", steps=3, seconds=0.05), multitask_strategy="enqueue"
    )
    waiting = await status_of(demo, thread_id, second)
    report.check("enqueue: the second run waits", ok=waiting == "pending", got=waiting)
    await client.runs.join(thread_id, second["run_id"])
    endings = [await status_of(demo, thread_id, first), await status_of(demo, thread_id, second)]
    report.check("enqueue: both runs end in success", ok=endings == ["success", "success"], got=endings)
    order = [(topic, len(list(entries))) for topic, entries in groupby(await log_of(demo, thread_id), topic_of)]
    report.check(
        "enqueue: all 5 steps of the first came before the 3 of the second",
        ok=order == [("first", 5), ("second", 3)],
        got=order,
    )


async def interrupt(demo: Demo) -> None:
    report, client = demo.report, demo.client
    runs: list[RunCreateMetadata] = []
    thread_id = (await client.threads.create())["thread_id"]
    stream = client.runs.stream(
        thread_id,
        "research",
        input=research("first", steps=20, seconds=STEP_S),
        stream_mode="custom",
        stream_resumable=True,
        on_run_created=runs.append,
    )
    second, asked_at = None, 0.0
    async with Reader(stream) as seen:
        async for part in seen:
            if part.event == "custom" and second is None:
                await asyncio.sleep(HALF_A_STEP_S)
                asked_at = time.monotonic()
                second = await client.runs.create(
                    thread_id,
                    "research",
                    input=research("second", steps=3, seconds=0.05),
                    multitask_strategy="interrupt",
                )
    stopped_after = time.monotonic() - asked_at
    if second is None:
        raise DemoError("the first run never reported a step")
    await client.runs.join(thread_id, second["run_id"])
    endings = [await status_of(demo, thread_id, runs[0]), await status_of(demo, thread_id, second)]
    report.check(
        f"interrupt: the first run is stopped {ms(stopped_after)} after the second was asked for, in step"
        f" {seen.steps[-1] + 1} of 20; the second succeeds",
        ok=endings == ["interrupted", "success"] and seen.steps[-1] < 20,
        got=endings,
    )
    topics = [topic_of(entry) for entry in await log_of(demo, thread_id)]
    report.check(
        "interrupt: the second went on from what the first had done",
        ok=topics[-3:] == ["second"] * 3 and set(topics[:-3]) == {"first"},
        got=topics,
    )


async def double_texting(demo: Demo) -> None:
    await enqueue(demo)
    await interrupt(demo)


async def approval(demo: Demo) -> None:
    report, client = demo.report, demo.client
    thread_id = (await client.threads.create())["thread_id"]
    run = await client.runs.create(thread_id, "approval", input={"request": "Invite Ana to the review on Friday"})
    await client.runs.join(thread_id, run["run_id"])
    thread, state = await client.threads.get(thread_id), await client.threads.get_state(thread_id)
    pending: list[Any] = [item for task in state["tasks"] for item in task["interrupts"]]
    if pending:
        args = pending[0]["value"]["args"]
        report.say(f"{pending[0]['value']['question']} to {args['to']}, subject: {args['subject']}", mark="?")
    report.check("the state shows the open interrupt", ok=len(pending) == 1, got=state["tasks"])
    statuses = (await status_of(demo, thread_id, run), thread["status"])
    report.check(
        "the run is over (success), and its thread is interrupted until someone answers",
        ok=statuses == ("success", "interrupted"),
        got=statuses,
    )
    report.say("a human changes the address and approves", mark="!")
    answer = {"decision": "approve", "edit": {"to": "ana@example.com"}}
    result: Any = await client.runs.wait(thread_id, "approval", command={"resume": answer})
    report.check(f"the agent acted: {result.get('outcome')}", ok=result.get("outcome") == "sent to ana@example.com")
    thread = await client.threads.get(thread_id)
    report.check("and the thread is idle", ok=thread["status"] == "idle", got=thread["status"])


async def kill_and_continue(demo: Demo, server: ServerProcess) -> None:
    report, client = demo.report, demo.client
    runs: list[RunCreateMetadata] = []
    thread_id = (await client.threads.create())["thread_id"]
    stream = client.runs.stream(
        thread_id,
        "research",
        input=research("tides", steps=12, seconds=STEP_S),
        stream_mode=["custom", "values"],
        stream_resumable=True,
        on_run_created=runs.append,
    )
    old_pid = server.pid
    async with Reader(stream) as before:
        async for part in before:
            if part.event == "values" and part.data.get("done") == 5:
                await asyncio.sleep(HALF_A_STEP_S)
                await server.kill()
                break
    last_id = before.parts[-1].id
    report.say(f"kill -9 of the server, process {old_pid}, in the middle of step 6 of 12; last event seen: {last_id}")
    took = await server.start()
    report.say(f"started again on the same database: process {server.pid} answers after {ms(took)}")

    run_id, joined_at = runs[0]["run_id"], time.monotonic()
    async with Reader(client.runs.join_stream(thread_id, run_id, last_event_id=last_id)) as after:
        async for part in after:
            if part.event == "custom" and after.steps == [part.data["step"]]:
                report.say(
                    f"the reader is back: its next step is {part.data['step']}, {ms(time.monotonic() - joined_at)} on"
                )
    status = await status_of(demo, thread_id, runs[0])
    report.check(
        "the run and its stream ended as success",
        ok=status == after.ending == "success",
        got=(status, after.ending),
    )
    whole = await read(client.runs.join_stream(thread_id, run_id, last_event_id="-1"))
    check_continuation(report, before, after, whole)
    log = await log_of(demo, thread_id)
    steps = [entry["step"] for entry in log]
    report.check("each of the 12 steps is recorded once, in order", ok=steps == list(range(1, 13)), got=steps)
    shares = [(pid, len(list(entries))) for pid, entries in groupby(entry["pid"] for entry in log)]
    report.check(
        "done by two processes: " + ", then ".join(f"{count} steps by {pid}" for pid, count in shares),
        ok=[pid for pid, _ in shares] == [old_pid, server.pid],
    )


def check_continuation(report: Report, before: Reader, after: Reader, whole: Reader) -> None:
    """Check that what was read before and after the crash is the run's whole stream, each event once."""
    ids = before.ids + after.ids
    report.check(
        f"{len(before.ids)} events before the crash and {len(after.ids)} after it: none missing, none twice",
        ok=ids == whole.ids and None not in ids and len(set(ids)) == len(ids),
        got=f"{len(whole.ids)} in the whole stream, {len(set(ids))} different ones read",
    )


async def graceful_stop(demo: Demo, server: ServerProcess) -> None:
    began = time.monotonic()
    code = await server.terminate()
    demo.report.check(
        f"SIGTERM: the server stopped in {ms(time.monotonic() - began)}, exit code 0", ok=code == 0, got=code
    )


async def require_graphs(client: LangGraphClient) -> None:
    """Raise DemoError unless the server has the example's graphs."""
    try:
        found = {assistant["graph_id"] for assistant in await client.assistants.search(limit=100)}
    except (httpx.HTTPError, LangGraphError) as exc:
        raise DemoError(f"the server cannot list its assistants: {exc!r}") from exc
    if missing := GRAPHS - found:
        raise DemoError(f"the server lacks {', '.join(sorted(missing))}: serve examples/assistant with it")


async def drive(report: Report, url: str, server: ServerProcess | None) -> None:
    async with get_client(url=url) as client:
        await require_graphs(client)
        demo = Demo(client=client, report=report)
        async with report.section("Stream a chat with tools"):
            await streamed_chat(demo)
        async with report.section("Cancel a run"):
            await cancel_half_way(demo)
        async with report.section("Send a second message during a run"):
            await double_texting(demo)
        async with report.section("Human in the loop: approve an e-mail"):
            await approval(demo)
        if server is None:
            report.skip("kill -9 and SIGTERM", "the server of --url is not stopped")
            return
        async with report.section("kill -9 during a run"):
            await kill_and_continue(demo, server)
        async with report.section("Graceful shutdown"):
            await graceful_stop(demo, server)


def server_environment(*, real_model: bool) -> dict[str, str]:
    """Return this process's environment, without the providers' keys unless a real model is wanted."""
    return {name: value for name, value in os.environ.items() if real_model or name not in KEYS}


async def run_demo(report: Report, args: argparse.Namespace) -> None:
    report.title("Runlane: agents that do not lose work")
    async with AsyncExitStack() as stack:
        server = None
        if args.url is None:
            workdir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="runlane-demo-")))
            server = ServerProcess(PROJECT, workdir, env=server_environment(real_model=args.real_model))
            await stack.enter_async_context(server)
            took = await server.start()
            model = "a model behind your key" if args.real_model else "a scripted model, no key needed"
            report.say(f"server: {server.url}, process {server.pid}, ready after {ms(took)}; {model}")
        url: str = args.url or (server.url if server else "")
        async with asyncio.timeout(TIME_LIMIT_S):
            await drive(report, url, server)
        if server and not report.ok and (tail := server.log_tail()):
            report.title("The server's last log lines")
            report.token(f"{tail}\n")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0] if __doc__ else None)
    parser.add_argument("--url", help="drive the server at this address instead of starting one")
    parser.add_argument("--real-model", action="store_true", help=f"let the chat use {' or '.join(KEYS)}")
    return parser.parse_args()


async def main() -> int:
    args, console = parse_args(), Console(width=None if sys.stdout.isatty() else 100)
    report, task = Report(console), asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await run_demo(report, args)
    except DemoError as exc:
        console.print(f"\n[bold red]The demo cannot continue:[/] {exc}", markup=True, highlight=False)
        return 1
    except TimeoutError:
        report.summary()
        console.print(f"[bold red]Stopped: the demo took longer than {TIME_LIMIT_S:.0f} s.[/]")
        return 1
    report.summary()
    return 0 if report.ok else 1


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
