"""A FastAPI application that embeds the library: it starts runs, streams them, and executes some in its handlers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse

from runlane import AdmissionClosed, CoroutineAgent, RunContext, Settings, StreamEnd, drain_on_signals, open_runtime


async def wait(context: RunContext) -> None:
    """Say that it started, and go on until it is stopped."""
    context.emit("started", {})
    await asyncio.Event().wait()


AGENTS = {"once": CoroutineAgent(wait), "again": CoroutineAgent(wait, continuable=True)}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with open_runtime(settings=Settings.load()) as runtime, drain_on_signals(runtime):
        app.state.runtime = runtime
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/runs/{thread_id}/{agent}")
async def create(thread_id: str, agent: str) -> str:
    run = await app.state.runtime.runs.create(thread_id, agent=AGENTS[agent])
    return str(run.run_id)


@app.get("/runs/{run_id}/stream")
async def stream(run_id: str) -> StreamingResponse:
    async def lines() -> AsyncIterator[bytes]:
        async for item in app.state.runtime.streams.subscribe(run_id):
            name = f"end {item.status}" if isinstance(item, StreamEnd) else item.name
            yield f"data: {name}\n\n".encode()

    return StreamingResponse(lines(), media_type="text/event-stream")


@app.get("/runs/{run_id}/join")
async def join(run_id: str) -> str:
    try:
        return str((await app.state.runtime.runs.join(run_id)).status)
    except AdmissionClosed as error:
        raise HTTPException(503, str(error)) from error


@app.post("/ask/{thread_id}")
async def ask(thread_id: str) -> StreamingResponse:
    """Execute a run in the handler itself, and stream it."""
    run = await app.state.runtime.runs.create(thread_id)

    async def lines() -> AsyncIterator[bytes]:
        yield f"data: {json.dumps(run.run_id)}\n\n".encode()
        async with app.state.runtime.runs.attempt(run) as attempt:
            yield b"data: started\n\n"
            await asyncio.Event().wait()
        yield f"data: end {attempt.ended.status}\n\n".encode()

    return StreamingResponse(lines(), media_type="text/event-stream")
