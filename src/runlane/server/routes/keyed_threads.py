"""Threads of stateless runs that have an idempotency key: their ids, which no client can give to a thread of its own.

Whoever knows another owner's name and key can work the id out. If they could make a thread with it first, that owner's
request would find a thread that is not theirs.
"""

from __future__ import annotations

import hashlib
from typing import Final
from uuid import UUID

#: How these ids begin. With version 8 of RFC 9562, which is the application's own, one of 2**36 other ids does.
_MARK: Final = b"keyd"


def keyed_thread_id(owner: str, key: str, index: int | None) -> str:
    """Return the id of the thread of *owner*'s stateless run with *key*, the one at *index* of a batch."""
    digest = hashlib.sha256(f"{owner}\n{'' if index is None else index}\n{key}".encode()).digest()
    number = int.from_bytes(_MARK + digest[:12])
    number = number & ~(0xF << 76) | 8 << 76  # version 8
    number = number & ~(0b11 << 62) | 0b10 << 62  # variant of RFC 9562
    return str(UUID(int=number))


def is_keyed(thread_id: str) -> bool:
    """Return whether only a stateless run with a key can make the thread with *thread_id*."""
    found = UUID(thread_id)
    return found.version == 8 and found.bytes.startswith(_MARK)
