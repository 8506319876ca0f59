"""What one client may take of the server, and that it is told which limit it met."""

from __future__ import annotations

import io
import json
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPResponse
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.sync.client import connect

from runlane.server.http.bounded_http import MAX_HEAD_BYTES, MAX_HEADERS, OTHER_FILES, limits_of
from runlane.server.http.errors import close_reason
from runlane.server.http.json_bodies import MAX_VALUES
from runlane.settings import Settings
from server_kit import PATIENCE_S, NewDatabase, Server, running_server

TIMEOUT_S = 2.0
LINE_END = b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD = b"POST /threads HTTP/1.1\r\nHost: localhost\r\n"
USED = b"GET /ok HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def limited(new_database: NewDatabase) -> Iterator[Server]:
    """Give a server of this file's own with small limits."""
    database = new_database()
    with running_server(database, request_timeout_s=TIMEOUT_S) as running:
        yield running


class Kept(io.BufferedReader):
    """A reader of a connection that one answer does not close for the next: they may arrive together."""

    def close(self) -> None:
        return


class Raw:
    """A connection on which a client says what it likes."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), PATIENCE_S)
        self._reader = Kept(self.socket.makefile("rb", buffering=0))

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.raw.close()
        self.socket.close()

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.socket.sendall(piece)

    def answer(self) -> tuple[int, dict[str, Any], HTTPResponse]:
        """Return the next answer: its status, its JSON, and itself."""
        response = HTTPResponse(self)  # type: ignore[arg-type]  # it asks a socket for its file, and for nothing else
        response.begin()
        return response.status, json.loads(response.read()), response

    def makefile(self, _: str) -> Kept:
        return self._reader

    def closed(self) -> bool:
        """Return whether the server closes the connection without another word."""
        return self._reader.read(1) == b""


@pytest.fixture
def raw(limited: Server) -> Iterator[Raw]:
    with Raw(limited) as made:
        yield made


@pytest.mark.parametrize(
    ("pieces", "told"),
    [
        ([HEAD, b"X-Big: " + b"a" * 70_000, b"\r\n\r\n"], f"larger than {MAX_HEAD_BYTES} bytes"),
        ([HEAD, b"X-Big: " + b"a" * 70_000], f"larger than {MAX_HEAD_BYTES} bytes"),
        ([b"GET /" + b"a" * 70_000 + LINE_END], f"larger than {MAX_HEAD_BYTES} bytes"),
        ([b"GET /ok?" + b"a=1&" * 20_000 + LINE_END], f"larger than {MAX_HEAD_BYTES} bytes"),
        ([HEAD, b"a: 1\r\n" * MAX_HEADERS, b"\r\n"], f"more than {MAX_HEADERS} headers"),
        ([CHUNKED, b"2\r\n{}\r\n", b"0\r\n", b"X-Trailer: 1\r\n" * 40_000], "trailers"),
        ([CHUNKED, b"2\r\n{}\r\n", b"0\r\n", b"X-Trailer: ", b"a" * 600_000], "trailers"),
        ([CHUNKED, b"2;", b"a" * 600_000], "trailers"),
    ],
    ids=["header", "header without end", "path", "query", "headers", "trailers", "trailer", "chunk extension"],
)
def test_what_is_too_large_is_refused_and_named_though_more_is_on_its_way(
    raw: Raw, pieces: list[bytes], told: str
) -> None:
    raw.send(*pieces)
    status, body, response = raw.answer()
    assert (status, body["code"], response.headers["connection"]) == (431, "headers_too_large", "close")
    assert told in body["detail"]
    assert raw.closed()


@pytest.mark.parametrize("hosts", [b"", b"Host: a\r\nHost: b\r\n", b"Host: a\r\nhost: a\r\n"])
def test_a_request_without_one_host_is_refused(raw: Raw, hosts: bytes) -> None:
    raw.send(b"GET /ok HTTP/1.1\r\n" + hosts + b"\r\n")
    status, body, response = raw.answer()
    assert (status, body["code"], response.headers["connection"]) == (400, "host_not_single", "close")
    assert raw.closed()


def test_a_request_that_does_not_arrive_is_refused_in_time(limited: Server) -> None:
    cases = ([b"G"], [HEAD], [HEAD + b"Content-Length: 9\r\n\r\n", b"{"], [CHUNKED, b"1\r\n"])
    with ExitStack() as stack:
        began = time.monotonic()
        slow = [stack.enter_context(Raw(limited)) for _ in cases]
        for one, pieces in zip(slow, cases, strict=True):
            one.send(*pieces)
        for one in slow:
            status, body, _ = one.answer()
            assert (status, body["code"]) == (408, "request_timeout")
            assert "request_timeout_s" in body["detail"]
            assert one.closed()
        assert time.monotonic() - began >= TIMEOUT_S * 0.9


def test_one_that_trickles_is_refused_too(raw: Raw) -> None:
    raw.send(HEAD + b"Content-Length: 1000\r\n\r\n")
    while not select.select([raw.socket], [], [], TIMEOUT_S / 10)[0]:
        raw.send(b" ")
    assert raw.answer()[0] == 408


def test_a_connection_that_asks_for_nothing_is_closed(limited: Server) -> None:
    cases = ((b"", b"", b""), (b"", b"\r\n", b"HTTP/1.1 408"), (USED, b"\r\n", b""))
    with ExitStack() as stack:
        idle = [stack.enter_context(Raw(limited)) for _ in cases]
        for one, (before, junk, _) in zip(idle, cases, strict=True):
            one.send(before)
            assert before == b"" or one.answer()[0] == 200
            one.send(junk)
        assert [one.socket.recv(12) for one in idle] == [told for _, _, told in cases]


def test_what_takes_long_to_answer_has_its_time(limited: Server) -> None:
    body = {"assistant_id": "steps", "input": {"steps": 1, "delay_s": 1.5 * TIMEOUT_S}}
    with httpx.Client(base_url=limited.url, timeout=PATIENCE_S) as client:
        assert "event: end" in client.post("/runs/stream", json=body).text
        assert client.get("/ok").status_code == 200


def test_requests_that_come_together_are_answered_one_by_one(raw: Raw) -> None:
    body = b'{"metadata": {"a": "' + b"x" * 200_000 + b'"}}'
    one = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    raw.send(one * 3 + HEAD)
    assert [raw.answer()[0] for _ in range(3)] == [200, 200, 200]
    raw.send(b"Content-Length: 2\r\n\r\n{}")
    assert raw.answer()[0] == 200


def test_connections_beyond_the_limit_are_told_so_and_the_next_is_served(new_database: NewDatabase) -> None:
    with running_server(new_database(), max_connections=5) as server, ExitStack() as stack:
        idle = [stack.enter_context(asked(server)) for _ in range(5)]
        assert [one.answer()[0] for one in idle] == [200] * 5
        with asked(server) as refused:
            status, body, response = refused.answer()
            assert (status, body["code"]) == (503, "too_many_connections")
            assert response.headers["retry-after"] == "1"
            assert "max_connections" in body["detail"]
            assert refused.closed()
        idle[0].send(USED)
        assert idle[0].answer()[0] == 200
        stack.close()
        answered = 0
        while answered != 200:  # the server has to see that they are gone
            with asked(server) as served:
                answered = served.answer()[0]


def asked(server: Server) -> Raw:
    """Return a connection on which a request was sent."""
    made = Raw(server)
    made.send(USED)
    return made


def test_not_every_file_that_the_process_may_open_is_left_to_connections() -> None:
    settings = Settings(max_connections=1000)
    assert limits_of(settings, 100_000).max_connections == 1000
    assert limits_of(settings, -1).max_connections == 1000
    assert limits_of(settings, OTHER_FILES + 500).max_connections == 500
    assert limits_of(settings, 10).max_connections == 1


def _socket_url(server: Server, client: httpx.Client) -> str:
    thread_id = client.post("/threads", json={}).json()["thread_id"]
    return f"{server.url.replace('http', 'ws')}/threads/{thread_id}/stream/events"


def test_a_message_beyond_the_limit_closes_its_socket_and_is_not_waited_for(
    server: Server, patient: httpx.Client
) -> None:
    with connect(_socket_url(server, patient), compression=None, proxy=None) as wire:
        wire.send('{"id": 1, "method": "nothing"}')
        assert json.loads(wire.recv(PATIENCE_S))["id"] == 1
        size = server.app.state.settings.max_body_bytes + 1
        # the beginning of a frame with a text, its length, and the mask
        wire.socket.sendall(b"\x81\xff" + size.to_bytes(8, "big") + bytes(4))
        with pytest.raises(ConnectionClosed) as closed:
            wire.recv(PATIENCE_S)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


def test_messages_are_not_unpacked(server: Server, patient: httpx.Client) -> None:
    extensions = [ClientPerMessageDeflateFactory()]
    with connect(_socket_url(server, patient), compression=None, extensions=extensions, proxy=None) as wire:
        assert not wire.protocol.extensions


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ("[" + "[]," * MAX_VALUES + "0]", f"The command has more than {MAX_VALUES} values"),
        ("[" * 201 + "]" * 201, "The command nests deeper than 200 levels"),
        ('"\\u0000"', "A string in the command has a NUL"),
        ("[", "The command is not valid JSON"),
    ],
    ids=["values", "depth", "NUL", "no JSON"],
)
def test_a_command_has_the_limits_of_a_body(server: Server, patient: httpx.Client, params: str, told: str) -> None:
    with connect(_socket_url(server, patient), compression=None, proxy=None) as wire:
        wire.send(f'{{"id": 1, "method": "nothing", "params": {params}}}')
        answer = json.loads(wire.recv(PATIENCE_S))
        assert answer["type"] == "error"
        assert told in answer["message"]


def test_a_text_that_repeats_what_was_sent_is_cut(server: Server, patient: httpx.Client) -> None:
    long = "é" * 100_000
    told = patient.post("/threads", json={long: 1, "metadata": long})
    assert told.status_code == 422
    assert len(told.text) < 10_000
    with connect(_socket_url(server, patient), compression=None, proxy=None) as wire:
        wire.send(json.dumps({"id": 1, "method": "subscription.unsubscribe", "params": {"subscription_id": long}}))
        assert len(json.loads(wire.recv(PATIENCE_S))["message"]) < 5000


def test_the_reason_of_a_close_has_at_most_123_bytes() -> None:
    assert len(close_reason("é" * 1000).encode()) == 122
    assert close_reason("no\ud800") == "no?"


@pytest.fixture
def patient(server: Server) -> Iterator[httpx.Client]:
    """Give a client that waits, of a server with the limits that are usual."""
    with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as made:
        yield made


def test_a_body_with_an_encoding_is_refused_and_named(patient: httpx.Client) -> None:
    for path in ("/threads", "/runs/batch", "/threads/search"):
        answer = patient.post(path, content=b"{}", headers={"content-encoding": "br"})
        assert (answer.status_code, answer.json()["code"]) == (415, "encoded_body")
        assert "'br'" in answer.json()["detail"]
    assert patient.post("/threads", json={}, headers={"content-encoding": "Identity"}).status_code == 200


@pytest.mark.parametrize("value", [b"0,", b"[],", b"[[", b'{"a":1},', b'"",'])
def test_more_values_than_memory_should_have_are_refused(patient: httpx.Client, value: bytes) -> None:
    body = b'{"metadata": {"a": [' + value * (MAX_VALUES // (2 if value in (b"[[", b"[],") else 1) + 1) + b"0]}}"
    answer = patient.post("/threads", content=body[: 8 * 1024 * 1024])
    assert answer.status_code == 422
    assert f"more than {MAX_VALUES} values" in answer.json()["detail"]


def test_a_long_text_has_any_number_of_commas_and_brackets(patient: httpx.Client) -> None:
    text = r"one, [two], {three}, \" and \\" * 150_000
    answer = patient.post("/threads", json={"metadata": {"a": text}})
    assert answer.status_code == 200
    assert answer.json()["metadata"]["a"] == text


def test_more_ids_than_a_page_has_are_refused_and_named(patient: httpx.Client) -> None:
    for path, body in (
        ("/threads/search", {"ids": ["a"] * 1001}),
        ("/threads/count", {"ids": ["a"] * 1001}),
        ("/threads/prune", {"thread_ids": ["a"] * 1001}),
        ("/runs/cancel", {"thread_id": "a", "run_ids": ["a"] * 1001}),
    ):
        answer = patient.post(path, json=body)
        assert answer.status_code == 422
        assert "length <= 1000" in answer.json()["detail"]
        assert "ids" in answer.json()["detail"]
    answer = patient.post("/runs/batch", json=[{"assistant_id": "steps"}] * 1001)
    assert (answer.status_code, "1 to 1000" in answer.json()["detail"]) == (422, True)
