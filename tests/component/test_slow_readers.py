"""P12: a client that does not read holds its place in the stream, and next to no memory; who reads gets everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import pytest

from component.test_streams import Stage
from run_kit import until
from runlane.records import StreamEnd, StreamEvent
from runlane.server.http.responses import EventWriter, Piece, StreamingBody
from runlane.server.routes.runs import _RunPieces
from runlane.streams.batches import EventBatch, LargeEvent, LargePiece
from runlane.streams.budget import FIRST_PART_BYTES, MAX_PART_BYTES, TAIL_BYTES, UNTAKEN_BYTES
from runlane.streams.shared_log import SHARED_BYTES

READERS = 100


class Client:
    """A connection with the flow control of a server's: nothing is written while it holds more than a little."""

    def __init__(self) -> None:
        self.body = b""
        self.held_bytes = self.most_bytes = self.pieces = 0
        self._reads = asyncio.Event()
        self.over = False

    def read(self) -> None:
        """Take everything from now on."""
        self._reads.set()
        self.held_bytes = 0

    async def send(self, message: Any) -> None:
        if self.held_bytes > UNTAKEN_BYTES:
            await self._reads.wait()
        data = message.get("body", b"")
        self.body += data
        self.pieces += bool(data)
        if not self._reads.is_set():
            self.held_bytes += len(data)
        self.most_bytes = max(self.most_bytes, self.held_bytes)
        self.over = message["type"] == "http.response.body" and not message["more_body"]

    async def receive(self) -> Any:
        return await asyncio.Event().wait()


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = await Stage().begin()
    yield made
    await made.driver.aclose()


def streaming(stage: Stage, stack: ExitStack) -> tuple[Client, asyncio.Task[None]]:
    """Send the run's stream from its beginning to a client."""
    watch = stack.enter_context(stage.bridge.watch(stage.run))
    pieces = _RunPieces(watch.parts(), EventWriter(stage.run), heartbeat_s=60)
    body = StreamingBody(pieces, media_type="text/event-stream", headers={})
    client = Client()
    return client, asyncio.create_task(body({"type": "http"}, client.receive, client.send))


def frames_of(stage: Stage, payloads: list[bytes]) -> bytes:
    """Return the whole stream that a client gets, but for its end."""
    events = [StreamEvent(seq=number, name="e", data=data) for number, data in enumerate(payloads, 1)]
    frames = EventWriter(stage.run)(EventBatch(events))
    assert isinstance(frames, bytes)
    return b": heartbeat\r\n\r\n" + frames


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("size", [100, 20_000, 3_000_000])
async def test_clients_that_never_read_hold_one_small_part_each_and_one_that_reads_gets_all(
    stage: Stage, size: int, live: bool
) -> None:
    """Events are small, larger than a first part, or larger than any part and than what is kept in memory."""
    payloads = [b'"%d %s"' % (number, b"x" * size) for number in range(max(5, 2 * TAIL_BYTES // size // 8))]
    if not live:
        stage.emit(*payloads)
        await stage.end()
    with ExitStack() as stack:
        clients, tasks = zip(*(streaming(stage, stack) for _ in range(READERS)), strict=True)
        if live:
            for payload in payloads:
                stage.emit(payload)
                await stage.committed()
            await stage.end()
        await until(lambda: all(client.held_bytes > UNTAKEN_BYTES for client in clients))
        for _ in range(100):
            await asyncio.sleep(0)
        assert max(client.most_bytes for client in clients) <= UNTAKEN_BYTES + 2 * FIRST_PART_BYTES
        assert stage.bridge._log.kept_bytes <= SHARED_BYTES
        clients[0].read()
        await until(lambda: clients[0].over)
        assert clients[0].body.startswith(frames_of(stage, payloads))
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    assert stage.bridge._log.kept_bytes == 0
    assert not stage.bridge._live


async def test_the_next_piece_is_made_only_when_the_client_has_taken_the_one_before(stage: Stage) -> None:
    stage.emit(*[b'"' + b"x" * 5_000 + b'"'] * 100)
    await stage.end()
    made = 0
    with stage.bridge.watch(stage.run) as watch:

        async def counted() -> AsyncIterator[Piece]:
            nonlocal made
            async for piece in _RunPieces(watch.parts(), EventWriter(stage.run), heartbeat_s=60):
                made += 1
                yield piece

        client = Client()
        body = StreamingBody(counted(), media_type="text/event-stream", headers={})
        sending = asyncio.create_task(body({"type": "http"}, client.receive, client.send))
        await until(lambda: client.held_bytes > UNTAKEN_BYTES)
        for _ in range(100):
            await asyncio.sleep(0)
        assert made == client.pieces
        client.read()
        await sending
        assert (made, client.over) == (client.pieces, True)


async def test_what_is_remembered_for_all_readers_is_bounded_and_forgotten_parts_are_read_again(stage: Stage) -> None:
    big = SHARED_BYTES // 8
    payloads = [b'"%d %s"' % (number, b"x" * big) for number in range(8)]
    for payload in payloads:
        stage.emit(payload)
        await stage.committed()
    await stage.end()
    with stage.bridge.watch(stage.run) as watch:
        parts = [part async for part in watch.parts()]
        large = [part for part in parts if isinstance(part, LargeEvent)]
        assert [event.seq for event in large] == list(range(1, 9))
        assert stage.bridge._log.kept_bytes <= SHARED_BYTES
        for event, payload in zip(large, payloads, strict=True):
            piece, made = LargePiece(event=event, kind="data", make=lambda batch: batch[0].data), b""  # type: ignore[union-attr]
            more = True
            while more:
                data, more = await piece.part(len(made))
                made += data
            assert made == payload
            assert stage.bridge._log.kept_bytes <= SHARED_BYTES


async def test_viewers_at_the_same_place_share_what_was_encoded(stage: Stage) -> None:
    with ExitStack() as stack:
        watches = [stack.enter_context(stage.bridge.watch(stage.run)) for _ in range(50)]
        readers = [(watch.parts(), EventWriter(stage.run)) for watch in watches]
        for _ in range(3):
            waiting = [asyncio.ensure_future(anext(parts)) for parts, _ in readers]
            await asyncio.sleep(0)
            stage.emit(1, 2)
            await stage.committed()
            frames = [write(await part) for part, (_, write) in zip(waiting, readers, strict=True)]
            assert len({id(frame) for frame in frames}) == 1
        chosen = EventWriter(stage.run, ["custom"])
        stage.emit(3)
        await stage.committed()
        part = await anext(readers[0][0])
        assert (readers[0][1](part), chosen(part)) != (b"", b"")
        assert chosen(part) == b""
        for parts, _ in readers:
            await parts.aclose()


@pytest.mark.parametrize("live", [True, False])
async def test_readers_of_a_large_event_share_what_was_made_of_it(stage: Stage, live: bool) -> None:
    stage.emit(b'"' + b"x" * 2 * MAX_PART_BYTES + b'"')
    await stage.committed()
    if not live:
        await stage.end()
    made = 0

    def make(batch: EventBatch) -> bytes:
        nonlocal made
        made += 1
        return EventWriter(stage.run)._frames(batch)

    with ExitStack() as stack:
        readers = [stack.enter_context(stage.bridge.watch(stage.run)).parts() for _ in range(20)]
        for reader in readers:
            part = await anext(reader)
            assert isinstance(part, LargeEvent)
            assert (await LargePiece(event=part, kind="frame", make=make).part(0))[1]
        assert made == 1
        for reader in readers:
            await reader.aclose()


async def test_readers_of_one_place_in_the_log_share_one_read(stage: Stage) -> None:
    stage.emit(*range(100))
    await stage.end()
    with ExitStack() as stack:
        readers = [stack.enter_context(stage.bridge.watch(stage.run)).parts() for _ in range(20)]
        firsts = await asyncio.gather(*(anext(reader) for reader in readers))
        assert len({id(first) for first in firsts}) == 1
        rest = [item async for part in readers[0] if isinstance(part, EventBatch) for item in part]
        assert [type(item) for item in rest] == [StreamEnd]
        for reader in readers:
            await reader.aclose()
