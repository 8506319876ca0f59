"""A run of a plain coroutine, on a database of its own, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from runlane import StreamEnd, open_runtime


async def agent(context: Any) -> AsyncIterator[tuple[str, Any]]:
    for word in ("Runs", "survive", "crashes."):
        yield "word", word


async def main() -> None:
    async with open_runtime("sqlite:///runlane.db") as runtime:
        run = await runtime.runs.create_or_reject("thread", "agent", multitask_strategy="reject")
        runtime.runs.start(run, agent)
        async for event in runtime.streams.subscribe(run.run_id):
            print(event.status if isinstance(event, StreamEnd) else event)


asyncio.run(main())
