"""WebSockets whose large messages are sent in fragments, so that a client that does not read holds little memory."""

from __future__ import annotations

from typing import Any, Final, cast

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from runlane.streams.budget import UNTAKEN_BYTES

#: Key in the extensions of a connection's scope: it takes messages in fragments.
FRAGMENTS: Final = "runlane.fragments"
#: Key in a message ``websocket.send`` whose ``bytes`` are UTF-8 of a piece of a text; says if that is first and last.
FRAGMENT: Final = "runlane.fragment"


class BoundedSocket(WebSocketsSansIOProtocol):
    """Sends a fragment when the connection has taken the one before. Source: RFC 6455, section 5.4."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=UNTAKEN_BYTES)

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            cast(dict[str, Any], self.scope["extensions"])[FRAGMENTS] = {}

    async def send(self, message: Any) -> None:
        bounds = message.get(FRAGMENT)
        if bounds is None:
            await super().send(message)
            return
        await self.writable.wait()
        if self.disconnected or self.close_sent:
            raise ClientDisconnected
        if bounds["first"]:
            self.conn.send_text(message["bytes"], fin=bounds["last"])
        else:
            self.conn.send_continuation(message["bytes"], fin=bounds["last"])
        self.transport.write(b"".join(self.conn.data_to_send()))
