"""Whatever bytes come on a connection or on a socket, they are answered or refused, and the server goes on."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.sync.client import ClientConnection, connect

from fuzz_kit import fuzzed, json_texts, texts, values
from server_kit import PATIENCE_S, NewDatabase, Server, running_server

#: An answer that takes longer is not looked at; most take a millisecond, and half of what is sent has none.
ANSWER_S = 0.03
PIECES = st.one_of(
    st.sampled_from(
        [b"GET ", b"POST ", b"OPTIONS ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"/ok ", b"/threads ", b"* "]
    ),
    st.sampled_from([b"HTTP/1.1\r\n", b"HTTP/1.0\r\n", b"HTTP/9.9\r\n", b"Host: x\r\n", b"\r\n", b"\n", b"\r", b"\0"]),
    st.sampled_from([b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b": ", b" "]),
    st.sampled_from([b"Connection: upgrade\r\n", b"Upgrade: websocket\r\n", b"Upgrade: h2c\r\n", b"X: a\r\n b\r\n"]),
    st.sampled_from(
        [b"2\r\n{}\r\n", b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"2;a=b\r\n{}", b"-1\r\n", b"{}", b"2\r\n"]
    ),
    st.sampled_from([b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /threads HTTP/1.1\r\nHost: x\r\n", b"a" * 70_000]),
    st.binary(max_size=20),
)
COMMANDS = json_texts(
    st.one_of(
        st.tuples(st.just("id"), st.integers(0, 9) | values),
        st.tuples(st.just("method"), st.sampled_from(["subscription.subscribe", "run.start", "input.respond"]) | texts),
        st.tuples(st.just("params"), st.dictionaries(st.sampled_from(["channels", "since", "depth", "input"]), values)),
        st.tuples(st.just("params"), values),
        st.tuples(texts, values),
    )
)


@pytest.fixture(scope="module")
def server(new_database: NewDatabase) -> Iterator[Server]:
    """Give a server of this file's own, which is left in a strange state."""
    with running_server(new_database()) as running:
        yield running


@fuzzed(80)
@given(pieces=st.lists(PIECES, max_size=12))
@example(pieces=[b"GET http://[/ HTTP/1.1\r\nHost: x\r\n\r\n"])
@example(pieces=[b"GET /ok HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", b"\xff" * 200])
@example(pieces=[b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_no_bytes_meet_a_defect(pieces: list[bytes], server: Server) -> None:
    answer = b""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as connection:
        with suppress(OSError):  # it was refused while more was on its way
            for piece in pieces:
                connection.sendall(piece)
            select.select([connection], [], [], ANSWER_S)
            connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while part := connection.recv(65_536):
                answer += part
    assert b"HTTP/1.1 5" not in answer, pieces
    assert answer == b"" or answer.startswith(b"HTTP/1.1 "), pieces
    assert httpx.get(f"{server.url}/ok", timeout=PATIENCE_S).status_code == 200


@pytest.fixture(scope="module")
def wire(server: Server) -> Iterator[ClientConnection]:
    """Give a socket that stays open, whatever is sent."""
    thread_id = httpx.post(f"{server.url}/threads", json={}, timeout=PATIENCE_S).json()["thread_id"]
    with connect(f"{server.url.replace('http', 'ws')}/threads/{thread_id}/stream/events", proxy=None) as made:
        yield made


@fuzzed(100)
@given(command=COMMANDS | st.binary(max_size=40))
def test_no_command_meets_a_defect(command: bytes, wire: ClientConnection) -> None:
    wire.send(command)
    wire.send(b'{"id": 123456789, "method": "nothing"}')
    while (answer := json.loads(wire.recv(PATIENCE_S))).get("id") != 123456789:
        assert answer["type"] in ("success", "error", "event"), command
        assert answer.get("error") not in ("internal", "internal_error"), command
