"""One reader of many runs: in turn, at the client's pace, and with bounded memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from component.test_slow_readers import Client
from component.test_streams import Stage
from ledger_kit import admit
from run_kit import ENDED_LONG_AGO, on_jumping_time, turn, until
from runlane.lifecycle import EndReason, RunStatus
from runlane.records import ANY_OWNER, StreamEnd, StreamGap
from runlane.server.http.responses import StreamingBody
from runlane.server.http.stream_items import Cursor, ItemWriter
from runlane.server.routes.watch import _Frames
from runlane.store.transactions.run_states import StreamedRun
from runlane.streams.budget import FIRST_PART_BYTES, MAX_PART_BYTES, TAILS_BYTES, UNTAKEN_BYTES
from runlane.streams.multiplex import FRAME_BYTES, TURN_BYTES, Multiplexer
from runlane.streams.shared_log import SHARED_BYTES

Item = dict[str, Any]


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = await Stage().begin()
    yield made
    await made.driver.aclose()


async def beside(stage: Stage, count: int) -> list[Stage]:
    """Return *stage*, and attempts of other runs on the same ledger and bridge; *count* in all."""
    others = []
    for number in range(1, count):
        other = Stage(driver=stage.driver)
        other.store, other.bridge = stage.store, stage.bridge
        others.append(await other.begin(await admit(stage.store, f"t{number}")))
    return [stage, *others]


async def opened(stages: Sequence[Stage], after: Mapping[int, int] | None = None) -> Multiplexer[StreamedRun]:
    """Return a reader of the runs of *stages*, after the events of these numbers."""
    bridge, store = stages[0].bridge, stages[0].store
    runs = await store.runs.streamed([stage.run.run_id for stage in stages], owner=ANY_OWNER)
    return bridge.multiplex({run: (after or {}).get(run.seq, 0) for run in runs})


async def sent(stages: Sequence[Stage], client: Client) -> asyncio.Task[None]:
    """Send the streams of the runs to *client*."""
    reader = await opened(stages)
    runs = await stages[0].store.runs.streamed([stage.run.run_id for stage in stages], owner=ANY_OWNER)
    writers, cursor = {run.seq: ItemWriter(run, protocol=False) for run in runs}, Cursor()
    for run in runs:
        cursor.put(run.seq, 0)
    frames = _Frames(reader.frames(), writers, cursor, (), None, heartbeat_s=60.0)
    body = StreamingBody(frames, media_type="text/event-stream", headers={}, on_close=reader.close)
    return asyncio.create_task(body({"type": "http"}, client.receive, client.send))


def frames_of(body: bytes) -> list[list[Item]]:
    """Return the items of each frame, which all have to be whole."""
    frames = [part for part in body.split(b"\r\n\r\n") if part and not part.startswith(b":")]
    for frame in frames:
        assert frame.startswith(b"event: items\r\ndata: [")
        assert frame.splitlines()[2].startswith(b"id: ")
    return [json.loads(frame.splitlines()[1].removeprefix(b"data: ")) for frame in frames]


def numbers(items: list[Item], stage: Stage) -> list[int]:
    return [int(item["id"][11:]) for item in items if item["run_id"] == stage.run.run_id]


async def test_a_run_with_a_long_log_does_not_keep_others_waiting(stage: Stage) -> None:
    stages = await beside(stage, 20)
    for _ in range(100):
        stage.emit(*[b'"%s"' % (b"x" * 1000)] * 100)
        await stage.committed()
    for other in stages[1:]:
        other.emit(1, 2)
        await other.end()
    reader = await opened(stages)
    frames = reader.frames()
    seen: list[int] = []
    for _ in range(2):
        seen += [run.seq for run, _ in await anext(frames)]
    assert {other.run.seq for other in stages[1:]} <= set(seen)
    await frames.aclose()


@pytest.mark.parametrize("size", [10, 5_000, 3 * TURN_BYTES, 2 * MAX_PART_BYTES])
@pytest.mark.parametrize("live", [True, False])
async def test_every_item_of_every_run_comes_once_in_whole_frames(stage: Stage, size: int, live: bool) -> None:
    stages, client = await beside(stage, 3), Client()
    client.read()
    sending = await sent(stages, client) if live else None
    count = 6 if size < MAX_PART_BYTES else 2
    for number in range(count):
        for one in stages:
            one.emit(b'"%d %s"' % (number, b"x" * size))
            if live:
                await one.committed()
    for one in stages:
        await one.end()
    await (sending or await sent(stages, client))
    frames = frames_of(client.body)
    items = [item for frame in frames for item in frame]
    for one in stages:
        assert numbers(items, one) == list(range(1, count + 2))
        assert [item["event"] for item in items if item["run_id"] == one.run.run_id] == ["e"] * count + ["end"]
    assert max(sum(len(json.dumps(item)) for item in frame) for frame in frames) <= max(2 * FRAME_BYTES, size + 1000)
    assert not stage.bridge._live


async def test_a_reader_goes_on_after_the_places_that_it_has(stage: Stage) -> None:
    stages = await beside(stage, 2)
    for one in stages:
        one.emit(*range(10))
        await one.end()
    reader = await opened(stages, {stages[0].run.seq: 7, stages[1].run.seq: 10})
    items = [(run.seq, item.seq) async for frame in reader.frames() for run, part in frame for item in part]  # type: ignore[union-attr]
    assert sorted(items) == [*((stages[0].run.seq, number) for number in (8, 9, 10, 11)), (stages[1].run.seq, 11)]


async def test_what_retention_removed_is_told_and_a_run_that_was_deleted_meanwhile_ends(stage: Stage) -> None:
    stages = await beside(stage, 2)
    for one in stages:
        one.emit(1, 2, 3)
        await one.end()
    reader = await opened(stages)
    await turn(stage.store, ENDED_LONG_AGO, stage.run.run_id)
    assert await stage.store.events.purge(older_than_s=3600) == 1
    await stage.store.runs.delete(stages[1].run.run_id, owner=ANY_OWNER)
    items = {run.seq: list(part) async for frame in reader.frames() for run, part in frame}  # type: ignore[arg-type]
    assert [type(item) for item in items[stages[0].run.seq]] == [StreamGap, StreamEnd]
    assert items[stages[1].run.seq] == [
        StreamEnd(seq=1, status=RunStatus.INTERRUPTED, end_reason=EndReason.ROLLED_BACK)
    ]


async def test_a_client_that_never_reads_holds_one_part_of_all_its_runs_and_no_more(stage: Stage) -> None:
    stages, client = await beside(stage, 200), Client()
    payload = b'"%s"' % (b"x" * 2_000)
    sending = await sent(stages, client)
    await until(lambda: client.pieces)
    for _ in range(3):
        for one in stages:
            one.emit(*[payload] * 10)
            await one.committed()
    await until(lambda: client.held_bytes > UNTAKEN_BYTES)
    for _ in range(100):
        await asyncio.sleep(0)
    assert client.most_bytes <= UNTAKEN_BYTES + 4 * FIRST_PART_BYTES
    assert stage.bridge._log.kept_bytes <= SHARED_BYTES
    for one in stages:
        await one.end()
    client.read()
    await sending
    items = [item for frame in frames_of(client.body) for item in frame]
    for one in stages:
        assert numbers(items, one) == list(range(1, 32))
    assert not stage.bridge._live


async def test_runs_that_are_read_share_the_memory_for_their_newest_events(stage: Stage) -> None:
    stages, client = await beside(stage, 16), Client()
    sending = await sent(stages, client)
    await until(lambda: client.pieces)
    for _ in range(10):
        for one in stages:
            one.emit(*[b'"%s"' % (b"x" * 75_000)] * 5)
            await one.committed()
    assert sum(live.tail_bytes for live in stage.bridge._live.values()) <= TAILS_BYTES < 16 * 50 * 75_000
    sending.cancel()
    await asyncio.wait([sending])


async def test_a_client_that_leaves_is_forgotten(stage: Stage) -> None:
    stages, client = await beside(stage, 3), Client()
    sending = await sent(stages, client)
    await until(lambda: client.pieces and stage.bridge.readers == 3)
    sending.cancel()
    await asyncio.wait([sending])
    assert stage.bridge.readers == 0
    assert not any(live.wakes for live in stage.bridge._live.values())
    assert not stage.feed.present


async def test_when_the_process_closes_the_stream_is_cut_without_ends(stage: Stage) -> None:
    stages, client = await beside(stage, 2), Client()
    client.read()
    sending = await sent(stages, client)
    stage.emit(1)
    await stage.committed()
    await until(lambda: b'"e"' in client.body)
    stage.bridge.dismiss_readers()
    await sending
    assert (client.over, b'"end"' in client.body) == (False, False)


@on_jumping_time
async def test_what_nobody_told_of_is_found_after_a_heartbeats_time() -> None:
    stage = await Stage().begin()
    other = stage.beside()
    stage.bridge.release(stage.run.run_id, stage.claim.lease.attempt)
    reader = await opened([stage])
    frames = reader.frames()
    waiting = asyncio.ensure_future(anext(frames))
    await asyncio.sleep(1)
    other.emit(1)
    await other.committed()
    while not (frame := await waiting):
        waiting = asyncio.ensure_future(anext(frames))
    assert [item.seq for _, part in frame for item in part] == [1]  # type: ignore[union-attr]
    await frames.aclose()
    await stage.driver.aclose()
