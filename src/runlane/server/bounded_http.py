"""HTTP/1.1 with a bound on a request's head: neither the parser nor uvicorn has one."""

from __future__ import annotations

from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Request line and headers together; proxies and other servers take from 8 to 64 KiB.
MAX_HEAD_BYTES: Final = 64 * 1024
_REFUSAL: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class _TooLarge(Exception):  # a way out of the parser, whose caller then refuses
    pass


class BoundedHttp(HttpToolsProtocol):
    """Refuses a head of more than ``MAX_HEAD_BYTES`` with 431, at the latest when as much of it has arrived."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head, self._head_bytes, self._arrived, self._refused = True, 0, 0, False

    def data_received(self, data: bytes) -> None:
        self._arrived = len(data)
        super().data_received(data)
        if self._in_head and not self._refused:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refused = True
                self.send_400_response("")

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_bytes + self._arrived > MAX_HEAD_BYTES and self._size() > MAX_HEAD_BYTES:
            self._refused = True
            raise _TooLarge
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        if not self._refused:
            super().send_400_response(msg)
            return
        self.transport.write(_REFUSAL)
        self.transport.close()

    def _size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
