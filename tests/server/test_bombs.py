"""What is sent to bring a server down is refused early, costs little, and delays nobody."""

from __future__ import annotations

import contextlib
import gc
import gzip
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import psutil
import pytest

from server_kit import NOWHERE, PATIENCE_S, NewDatabase, Server, running_server

LIMIT = 1_000_000
MIB = 1 << 20
HOST = b"Host: localhost\r\n"
#: What a refusal may leave in memory, for whatever was sent.
KEPT_BYTES = 96 * MIB


@pytest.fixture(scope="module")
def server(new_database: NewDatabase) -> Iterator[Server]:
    """Give a server of this file's own that takes small bodies."""
    with running_server(new_database(), max_body_bytes=LIMIT) as running:
        yield running


@pytest.fixture(autouse=True)
def _goes_on(server: Server) -> Iterator[None]:
    """Check that afterwards the server answers at once, and that the process has not grown."""
    gc.collect()
    before = psutil.Process().memory_info().rss
    yield
    began = time.monotonic()
    assert httpx.get(f"{server.url}/ok").status_code == 200
    assert time.monotonic() - began < 5
    gc.collect()
    assert psutil.Process().memory_info().rss - before < KEPT_BYTES


def _answer(server: Server, *pieces: bytes) -> bytes:
    """Return the first line of the answer to what *pieces* are, or nothing if the connection was closed without."""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as connection:
        with contextlib.suppress(OSError):  # it was refused while more was on its way
            for piece in pieces:
                connection.sendall(piece)
        with contextlib.suppress(ConnectionResetError):
            return connection.recv(65536).partition(b"\r\n")[0]
    return b""


def _refused(line: bytes) -> bool:
    return line == b"" or line.startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize(
    "target",
    [
        b"/" + b"a" * 65_536,
        b"/threads/" + b"%2f" * 20_000,
        b"/threads/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        b"/threads/" + b"../" * 5_000 + b"etc/passwd",
        b"/" + b"/" * 30_000,
        b"/threads/%00",
        b"/threads/%ff%fe",
        b"/threads/%",
        b"/threads/" + NOWHERE.encode() + b"/runs/" + b";a=b" * 10_000,
        b"/ok?" + b"a&" * 30_000 + b"%zz",
        b"//example.org/ok%",
        b"http://[::1/threads",
        b"\\threads\\",
    ],
    ids=lambda target: target[:24].decode(),
)
def test_a_path_that_leads_nowhere_is_not_found_or_refused(server: Server, target: bytes) -> None:
    line = _answer(server, b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")
    assert _refused(line) or (target.startswith(b"/ok") and b" 200 " in line), line


@pytest.mark.parametrize(
    "headers",
    [
        b"X-Big: " + b"a" * 100_000 + b"\r\n",
        b"".join(b"X-%d: 1\r\n" % number for number in range(10_000)),
        b"X-Same: 1\r\n" * 10_000,
        b"Cookie: " + b"a=b; " * 20_000 + b"\r\n",
        b"a" * 70_000 + b": 1\r\n",
    ],
    ids=["big", "many", "same", "cookies", "name"],
)
def test_bombs_of_headers_are_refused(server: Server, headers: bytes) -> None:
    line = _answer(server, b"GET /ok HTTP/1.1\r\n" + HOST + headers + b"\r\n")
    assert line == b"HTTP/1.1 431 Request Header Fields Too Large"


def test_a_header_that_never_ends_is_refused_before_it_has_arrived(server: Server) -> None:
    line = _answer(server, b"GET /ok HTTP/1.1\r\n" + HOST + b"X-Big: ", *[b"a" * 1000] * 70)
    assert line == b"HTTP/1.1 431 Request Header Fields Too Large"


def test_a_head_and_a_body_of_legal_sizes_are_taken_however_they_arrive(server: Server) -> None:
    body = b'{"metadata": {"a": "' + b"x" * 200_000 + b'"}}'
    head = b"POST /threads HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 60_000 + b"\r\n"
    whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    assert b" 200 " in _answer(server, whole)
    assert b" 200 " in _answer(server, *[whole[at : at + 10_000] for at in range(0, len(whole), 10_000)])


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: -1\r\n",
        b"Content-Length: 1e3\r\n",
        b"Content-Length: 0x10\r\n",
        b"Content-Length: 2\r\nContent-Length: 3\r\n",
        b"Content-Length: 2, 3\r\n",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n",
        b"Content-Length: 99999999999999999999\r\n",
    ],
)
def test_a_body_whose_end_is_not_certain_is_refused(server: Server, framing: bytes) -> None:
    """Else a proxy in front and the server could take different bytes for the next request."""
    smuggled = b"0\r\n\r\nGET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    line = _answer(server, b"POST /threads HTTP/1.1\r\n" + HOST + framing + b"\r\n{}" + smuggled)
    assert _refused(line), line


def test_a_chunked_body_beyond_the_limit_is_refused_before_it_has_arrived(server: Server) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    head = b"POST /threads HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    # No last chunk ever comes: who waits for the end of the body does not answer.
    assert _answer(server, head, *[chunk] * (LIMIT // 0x10000 + 2)) == b"HTTP/1.1 413 Request Entity Too Large"


def test_a_length_beyond_the_limit_is_refused_before_the_body_is_read(server: Server) -> None:
    head = b"POST /threads HTTP/1.1\r\n" + HOST + b"Content-Length: 100000000000\r\n\r\n"
    assert b" 413 " in _answer(server, head)


def test_chunks_of_one_byte_cost_no_more_than_their_bytes(server: Server) -> None:
    head = b"POST /threads HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    assert b" 200 " in _answer(server, head, b"1\r\n \r\n" * 50_000, b"2\r\n{}\r\n0\r\n\r\n")


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"a":[', b'[{"":'])
def test_json_of_any_depth_is_refused_in_no_time(server: Server, opening: bytes) -> None:
    body = b'{"metadata": ' + opening * (LIMIT // 2 // len(opening))
    answer = httpx.post(f"{server.url}/threads", content=body, timeout=PATIENCE_S)
    assert answer.status_code == 422


def test_wide_json_is_taken_or_refused(server: Server) -> None:
    for body in (
        b'{"metadata": {' + b",".join(b'"%d":0' % number for number in range(60_000)) + b"}}",
        b'{"metadata": {"a": [' + b"[]," * 200_000 + b"1]}}",
        b'{"metadata": {"a": ' + b"9" * 500_000 + b"}}",
    ):
        answer = httpx.post(f"{server.url}/threads", content=body, timeout=PATIENCE_S)
        assert answer.status_code in (200, 422), answer.text[:200]


def test_a_compressed_body_is_not_unpacked(server: Server) -> None:
    body = gzip.compress(b'{"metadata": {"a": "' + b"x" * 200 * MIB + b'"}}', 1)
    assert len(body) < LIMIT
    answer = httpx.post(f"{server.url}/threads", content=body, headers={"content-encoding": "gzip"})
    assert 400 <= answer.status_code < 500


def test_requests_that_never_end_and_idle_connections_delay_nobody(server: Server) -> None:
    with ExitStack() as stack, httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client:
        for number in range(300):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE_S))
            if number % 3 == 1:
                connection.sendall(b"POST /threads HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
            elif number % 3 == 2:
                connection.sendall(b"POST /threads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
        slowest = 0.0
        for _ in range(20):
            began = time.monotonic()
            assert client.post("/threads", json={}).status_code == 200
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 2
