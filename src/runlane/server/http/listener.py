"""The socket that a server listens on, taken before anything else is started."""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys
from typing import Final

from runlane.errors import ConfigurationError

#: The highest number of a port. A higher one would wrap round silently, and another port be listened on.
MAX_PORT: Final = 65_535
#: What the system keeps of a connection beyond what is on its way to the client, who may not read: it would take
#: megabytes. Source: tcp(7); "TCP_NOTSENT_LOWAT" of Linux and macOS.
UNSENT_BYTES: Final = 128 * 1024
_TCP_NOTSENT_LOWAT: Final[int | None] = getattr(socket, "TCP_NOTSENT_LOWAT", 25 if sys.platform == "linux" else None)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to *host* and *port* (0: any free one); it does not listen yet.

    Raises:
        ConfigurationError: The port is in use, not allowed or no port, or there is no such host.
    """
    if not 0 <= port <= MAX_PORT:
        raise ConfigurationError(f"Cannot listen on port {port}: a port is a number from 0 to {MAX_PORT}.")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError, OverflowError) as error:
        raise ConfigurationError(f"Cannot listen on {host}:{port}: {error}.") from error
    # "localhost" may be both; clients that try one family only try the older.
    family, _, _, _, address = min(found, key=lambda info: info[0] is not socket.AF_INET)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if _TCP_NOTSENT_LOWAT is not None:  # connections inherit it
            listener.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        listener.bind(address)
    except (OSError, OverflowError) as error:
        listener.close()
        raise not_available(host, port, error) from error
    return listener


def not_available(host: str, port: int, error: Exception) -> ConfigurationError:
    """Return the error that tells the user why *host* and *port* cannot be had."""
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return ConfigurationError(
            f"Port {port} on {host} is in use. Stop what listens there, or choose another port with --port."
        )
    return ConfigurationError(f"Cannot listen on {host}:{port}: {getattr(error, 'strerror', None) or error}.")


def is_loopback(listener: socket.socket) -> bool:
    """Return whether only this machine reaches *listener*."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def url_of(listener: socket.socket) -> str:
    """Return the address at which a client on this machine finds *listener*."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def address_of(listener: socket.socket) -> str:
    """Return the address and port that *listener* is bound to; ``0.0.0.0`` and ``[::]`` are every address."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
