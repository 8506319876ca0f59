"""A process that embeds the library on a ledger which others use too, and is told on its standard input what to do.

A line of its input is a request, a JSON object; a line of its output that begins with a bracket is an answer or an item
of a stream: ``[number of the request, what]``. Its other lines are its log. It ends when its input does.

Its agent makes steps. A step that is done is kept in the run's own log, which is durable and fenced, before the next
one begins: an attempt goes on after the last step that is kept.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from runlane import StreamEnd, StreamEvent, open_runtime
from runlane.agents.base import AgentCall
from runlane.agents.encode import encode
from runlane.errors import StoreUnavailable
from runlane.outcomes import Snapshot
from runlane.records import ANY_OWNER, RunRecord, StreamItem
from runlane.runtime import Runtime
from runlane.settings import Settings
from runlane.store.statements import Transaction
from runlane.store.transactions.runs import LOCK_RUN, LOCK_THREAD

#: Pause before what the database could not do is tried again.
RETRY_S = 0.05
#: How often events are told within a step, and how many at a time.
BURSTS, BURST = 5, 3


def say(number: int, what: Any) -> None:
    """Answer the request of that number."""
    sys.stdout.write(f"{json.dumps([number, what])}\n")
    sys.stdout.flush()


class Steps:
    """Makes the steps that a run asks for, and leaves a trace of each outside of Runlane."""

    continuable = True

    def __init__(self, process: LibraryProcess) -> None:
        self._process = process
        self._effects = os.open(os.environ["EFFECTS"], os.O_WRONLY | os.O_APPEND)

    async def run(self, call: AgentCall) -> Snapshot:
        """Make the steps that are left."""
        name, steps, seconds = (call.run.kwargs["input"][key] for key in ("name", "steps", "seconds"))
        before = await call.earlier()
        kept = last_kept(before)
        after = before[-1].seq if before else 0
        self._trace(call, name, "enter")
        try:
            for step in range(kept + 1, steps + 1):
                self._trace(call, name, str(step))
                call.emit("custom", encode({"step": step, "attempt": call.run.attempt}))
                for number in range(BURSTS):  # so that there is always something on its way to the ledger
                    for _ in range(BURST):
                        call.emit("token", encode({"burst": number, "attempt": call.run.attempt}))
                    await asyncio.sleep(seconds / BURSTS)
                mark = encode({"step": step, "attempt": call.run.attempt})
                call.emit("kept", mark)
                after = await self._committed(call.run, mark, after)
        finally:
            self._trace(call, name, "leave")
        return Snapshot(result=encode({"steps": steps}))

    async def repair(self, call: AgentCall) -> Snapshot:
        """Return nothing: a thread of steps is always valid."""
        return Snapshot()

    def _trace(self, call: AgentCall, name: str, what: str) -> None:
        os.write(self._effects, f"{name} {what} {call.run.attempt}\n".encode())

    async def _committed(self, run: RunRecord, mark: bytes, after: int) -> int:
        """Wait until the event *mark* is in the run's log, and return its number.

        A step of an attempt that has lost its run never is; the attempt is stopped while it waits.
        """
        runtime = await self._process.runtime
        while True:
            try:
                async with aclosing(runtime.streams.subscribe(run.run_id, after=after, owner=ANY_OWNER)) as items:
                    async for item in items:
                        after = item.seq if isinstance(item, StreamEvent) else after
                        if isinstance(item, StreamEvent) and (item.name, item.data) == ("kept", mark):
                            return item.seq
            except StoreUnavailable:
                logging.getLogger("steps").info("waiting run_id=%s", run.run_id)
            await asyncio.sleep(RETRY_S)


def last_kept(events: Sequence[StreamEvent]) -> int:
    """Return the last step that is done, by what earlier attempts told; 0 if none is."""
    return max((json.loads(event.data)["step"] for event in events if event.name == "kept"), default=0)


def hold_still(run: RunRecord, number: int) -> Transaction[None]:
    """Stop this process inside of a transaction that has locked *run* and its thread."""
    yield LOCK_THREAD(thread_id=run.thread_id)
    yield LOCK_RUN(run_id=run.run_id)
    say(number, "held")
    os.kill(os.getpid(), signal.SIGSTOP)


class LibraryProcess:
    """Does what it is asked to, each request in a task of its own."""

    def __init__(self) -> None:
        self.runtime: asyncio.Future[Runtime] = asyncio.get_running_loop().create_future()

    async def serve(self, requests: asyncio.StreamReader) -> None:
        """Do what is asked for until nobody can ask any more."""
        async with open_runtime(settings=Settings.load(), graph_agent=lambda _: Steps(self)) as runtime:
            self.runtime.set_result(runtime)
            logging.getLogger("library").info("library.ready")
            async with asyncio.TaskGroup() as group:  # what fails ends the process, and is seen in its log
                tasks = []
                while line := await requests.readline():
                    request = json.loads(line)
                    tasks.append(group.create_task(getattr(self, request.pop("do"))(runtime, **request)))
                for task in tasks:
                    task.cancel()

    async def create(self, runtime: Runtime, number: int, thread_id: str, **given: Any) -> None:
        """Admit a run to a thread, behind what it has, as a client that does not give up."""
        while True:
            try:
                run = await runtime.runs.create(
                    thread_id, idempotency_key=given["name"], kwargs={"graph_id": "steps", "input": given}
                )
            except StoreUnavailable:
                await asyncio.sleep(RETRY_S)
            else:
                return say(number, {"run_id": run.run_id, "seq": run.seq})

    async def watch(self, runtime: Runtime, number: int, run_id: str, after: int) -> None:
        """Tell the stream of a run from number *after* to its end."""
        while True:
            try:
                async for item in runtime.streams.subscribe(run_id, after=after, owner=ANY_OWNER):
                    say(number, shown(item))
                    if isinstance(item, StreamEnd):
                        return
                    after = item.seq if isinstance(item, StreamEvent) else after
            except StoreUnavailable:
                await asyncio.sleep(RETRY_S)

    async def cancel(self, runtime: Runtime, number: int, run_id: str) -> None:
        """Cancel a run and wait until it has ended, as a client that does not give up."""
        while True:
            try:
                receipt = await runtime.runs.cancel(run_id, wait=True)
                break
            except StoreUnavailable:
                await asyncio.sleep(RETRY_S)
        say(number, {"stopped": receipt is not None and receipt.stopped_at is not None})

    async def hold_still(self, runtime: Runtime, number: int, run_id: str) -> None:
        """Stop the process, as a paused machine does, in the middle of a write."""
        run = await runtime.runs.get(run_id)
        try:
            await runtime.store.driver.write(hold_still(run, number))
        except StoreUnavailable as error:
            logging.getLogger("library").info("library.let_go why=%s", error)


def shown(item: StreamItem) -> dict[str, Any]:
    """Return an item of a stream as JSON."""
    match item:
        case StreamEvent():
            return {"seq": item.seq, "name": item.name, "data": json.loads(item.data)}
        case StreamEnd():
            return {"seq": item.seq, "name": "end", "data": {"status": item.status}}
    return {"seq": item.resumes_at, "name": "gap", "data": None}


async def main() -> None:
    """Serve standard input."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stdout)
    requests = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
    await LibraryProcess().serve(requests)


if __name__ == "__main__":
    asyncio.run(main())
