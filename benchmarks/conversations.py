"""Cases of what a conversation costs as it grows: in time, in bytes written, and on disk."""

from __future__ import annotations

import asyncio
import base64
import random
import sqlite3
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client import Connection, Figures, Server, expect, new_thread, run_of
from sides import RunlaneSide, Side
from sizes import Sizes

MB = 1e6
#: How long the removal of old events may take.
PURGE_TIMEOUT_S = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one run of a conversation took."""

    wall_s: float
    cpu_s: float
    written_bytes: int


def _noise(size: int) -> str:
    return base64.b64encode(random.randbytes(size))[:size].decode()


def _message(content: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


async def _turn(server: Server, connection: Connection, path: str, body: Mapping[str, Any]) -> Turn:
    cpu_s, written, start_s = server.fine_cpu_s(), server.written_bytes(), time.perf_counter()
    answer = await connection.read("POST", path, body)
    wall_s = time.perf_counter() - start_s
    expect(b"__error__" not in answer[:200] and b"event: error" not in answer, f"{path}: {answer[:300]!r}")
    return Turn(wall_s=wall_s, cpu_s=server.fine_cpu_s() - cpu_s, written_bytes=server.written_bytes() - written)


def _marked(turns: Sequence[Turn], sizes: Sizes, *, is_known: bool) -> Figures:
    """Give what the marked turns took, as medians with their neighbours."""
    figures: Figures = {}
    for mark in sizes.chat_marks:
        near = turns[max(0, mark - 1 - sizes.chat_neighbours) : mark + sizes.chat_neighbours]
        figures[f"ms_turn_{mark}"] = 1e3 * statistics.median(turn.wall_s for turn in near)
        if is_known:
            figures[f"cpu_ms_turn_{mark}"] = 1e3 * statistics.median(turn.cpu_s for turn in near)
            written = statistics.median(turn.written_bytes for turn in near)
            if written:
                figures[f"written_kb_turn_{mark}"] = written / 1e3
    return figures


def _growth(figures: Figures) -> Figures:
    """Give how much more the last turn took than an early one: time against turn 5, bytes against turn 50."""
    ratios = {}
    for name, key, early in (("ms_400_of_5", "ms", 5), ("written_400_of_50", "written_kb", 50)):
        first, last = figures.get(f"{key}_turn_{early}"), figures.get(f"{key}_turn_400")
        if first and last is not None:
            ratios[name] = last / first
    return ratios


async def _stored(side: Side, sizes: Sizes, folder: Path) -> Figures:
    """Give what is on disk now that the server has stopped, and, for Runlane, once events are past their retention."""
    if not side.stores:
        return {}
    figures = {"disk_mb": side.disk_bytes(folder) / MB}
    if isinstance(side, RunlaneSide):
        await _purge(side, sizes, folder)
        figures["past_retention_mb"] = _used_bytes(side.file(folder)) / MB
    return figures


async def _purge(side: RunlaneSide, sizes: Sizes, folder: Path) -> None:
    """Have the server remove all events, and whatever else it removes, until the files do not change."""
    await asyncio.sleep(1.1)  # what ended just now is not yet a second old
    async with side.serving(folder, event_retention_s=1, poll_s=1):
        deadline = time.monotonic() + PURGE_TIMEOUT_S
        before, since = (-1, -1), time.monotonic()
        while time.monotonic() < deadline and time.monotonic() - since < sizes.unchanged_s:
            now = (_events(side.file(folder)), side.disk_bytes(folder))
            if now != before:
                before, since = now, time.monotonic()
            await asyncio.sleep(sizes.unchanged_s / 10)


def _used_bytes(file: Path) -> int:
    """Give the size of the pages that are in use: a server gives the free ones back in the minutes after."""
    connection = sqlite3.connect(file)
    try:
        size, count, free = (
            int(connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_size", "page_count", "freelist_count")
        )
        return size * (count - free)
    finally:
        connection.close()


def _events(file: Path) -> int:
    with suppress(sqlite3.Error):
        connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=5)
        try:
            return int(connection.execute("SELECT count(*) FROM events").fetchone()[0])
        finally:
            connection.close()
    return 0


async def _chat(side: Side, sizes: Sizes, folder: Path, kind: str, options: Mapping[str, Any]) -> Figures:
    body = {**_message(_noise(sizes.message_bytes)), "size": sizes.message_bytes}
    async with side.serving(folder) as server:
        memory = server.memory_bytes()
        async with Connection(server) as connection:
            for _ in range(sizes.warm_runs):
                await connection.read(
                    "POST", f"/threads/{await new_thread(connection)}/runs/wait", run_of("chat", body)
                )
            path = f"/threads/{await new_thread(connection)}/runs/{kind}"
            turns = [
                await _turn(server, connection, path, run_of("chat", body, **options)) for _ in range(sizes.chat_turns)
            ]
        figures = _marked(turns, sizes, is_known=server.pid is not None)
        if server.pid is not None:
            figures["memory_mb"] = (server.memory_bytes() - memory) / MB
    return {**await _stored(side, sizes, folder), **figures, **_growth(figures)}


async def long_chat(side: Side, sizes: Sizes, folder: Path) -> Figures:
    """Take many turns on one thread, each a message and an answer of 440 bytes; read the state after each."""
    return await _chat(side, sizes, folder, "wait", {})


async def long_chat_stream(side: Side, sizes: Sizes, folder: Path) -> Figures:
    """Take the same turns, and stream values and messages."""
    return await _chat(side, sizes, folder, "stream", {"stream_mode": ["values", "messages-tuple"]})


async def image(side: Side, sizes: Sizes, folder: Path) -> Figures:
    """Begin a thread with an image of 2 MB as a data URL, and take 20 turns."""
    url = "data:image/png;base64," + base64.b64encode(random.randbytes(sizes.image_bytes)).decode()
    content = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    async with side.serving(folder) as server:
        memory = server.memory_bytes()
        async with Connection(server) as connection:
            path = f"/threads/{await new_thread(connection)}/runs/wait"
            turns = []
            for number in range(sizes.image_turns):
                values = {**_message("And this?" if number else content), "size": sizes.message_bytes}
                turns.append(await _turn(server, connection, path, run_of("chat", values)))
        figures: Figures = {"ms_per_turn": 1e3 * statistics.median(turn.wall_s for turn in turns[1:])}
        if server.pid is not None:
            figures["cpu_ms_per_turn"] = 1e3 * statistics.median(turn.cpu_s for turn in turns[1:])
            figures["memory_mb"] = (server.memory_bytes() - memory) / MB
    return {**await _stored(side, sizes, folder), **figures}


async def big_state(side: Side, sizes: Sizes, folder: Path) -> Figures:
    """Fill a dictionary with 20,000 keys of 1 KB in one step, then add a key in each of 50 steps."""
    fill = {"n": sizes.state_keys, "size": 1000, "count": 0, "steps": 0}
    async with side.serving(folder) as server:
        memory = server.memory_bytes()
        async with Connection(server) as connection:
            path = f"/threads/{await new_thread(connection)}/runs/wait"
            await _turn(server, connection, path, run_of("filler", fill))
            added = await _turn(server, connection, path, run_of("filler", {**fill, "steps": sizes.state_steps}))
        figures: Figures = {"ms_per_step": 1e3 * added.wall_s / sizes.state_steps}
        if server.pid is not None:
            figures["cpu_ms_per_step"] = 1e3 * added.cpu_s / sizes.state_steps
            figures["memory_mb"] = (server.memory_bytes() - memory) / MB
    return {**await _stored(side, sizes, folder), **figures}
