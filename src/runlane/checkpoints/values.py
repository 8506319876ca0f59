"""Channels' values and tasks' writes as documents, and back."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, Final

from langgraph.checkpoint.serde.base import SerializerProtocol

from runlane.documents.compression import unpacked
from runlane.documents.document import Body, Document, assemble, body_of
from runlane.documents.memory import ThreadMemory
from runlane.documents.parts import ITEM, bytes_of, children, expand, is_item, is_node, split_refs
from runlane.documents.splitting import document_of
from runlane.store.statements import Row

#: The kind of a value that the serialiser writes as MessagePack; the others are few bytes, or bytes as they are.
_MSGPACK: Final = "msgpack"
#: A task writes the message that the next checkpoint has.
_MIN_SHARED_BYTES: Final = 512
Stored = tuple[str, bytes, str | None]
#: Under which a memory keeps what it knows of checkpoints.
NAME: Final = "checkpoints"


class MessagePack:
    """LangGraph's MessagePack as a codec: a list is its length and its items."""

    name = NAME
    min_shared_bytes = _MIN_SHARED_BYTES
    item_kind = ITEM
    between = b""
    keeps_bytes = False

    def __init__(self, serde: SerializerProtocol) -> None:
        self._dumps = serde.dumps_typed

    def encode(self, value: Any) -> bytes:
        """Return *value* as MessagePack, whatever its kind is: as the item of a list."""
        return self._dumps([value])[1][1:]

    def splits(self, value: Any) -> bool:
        if type(value) is dict:
            return all(type(key) is str for key in value)
        return type(value) is list

    def begin(self, value: Any) -> bytes:
        return _begin_list(len(value)) if type(value) is list else _begin(len(value), 0x80, 0xDE)

    def key(self, key: Any) -> bytes:
        return self.encode(key)

    def end(self, value: Any) -> bytes:
        return b""


class Values:
    """Values of one thread, written and read with what is known of the thread."""

    def __init__(self, serde: SerializerProtocol, memory: ThreadMemory) -> None:
        self._serde = serde
        self._codec = MessagePack(serde)
        self._memory = memory

    def dump(self, value: Any) -> tuple[Stored, dict[str, bytes], int]:
        """Return *value* as it is stored, the parts that it needs, and the bytes of both."""
        if not isinstance(value, (list, dict)):
            kind, data = self._serde.dumps_typed(value)
            if kind != _MSGPACK:
                return (kind, data, None), {}, len(data)
        document = document_of(value, self._codec, self._memory)
        if isinstance(document, Document):
            return (_MSGPACK, document.body_bytes, document.ref_text), document.parts, document.size
        return (_MSGPACK, document, None), {}, len(document)

    def reading(self) -> Reading:
        """Return what reads values that are stored now."""
        return Reading(self._serde, self._codec, self._memory)


class Reading:
    """One read of values: what of them is known need not be read, and is not asked again whether it is unchanged."""

    def __init__(self, serde: SerializerProtocol, codec: MessagePack, memory: ThreadMemory) -> None:
        self._loads = serde.loads_typed
        self._codec = codec
        self._memory = memory
        self.known: Final = memory.recall(codec.name)

    def load(self, row: Row, column: str, parts: Mapping[str, bytes]) -> Any:
        """Return the value in a column of a row.

        Args:
            parts: What was read for it; all but what is :attr:`known`.
        """
        if row["refs"] is None:
            return self._loads((row["type"], unpacked(row[column])))
        body, top = body_of(unpacked(row[column])), split_refs(row["refs"])
        every = {**self.known.nodes, **parts}
        items = list(expand(top, every))
        self._memory.keep_nodes(parts)
        self._memory.accept(self._codec.name, top, {*top, *parts, *items})
        if _is_list_of(items, body):
            return self._items(items, every)
        return self._loads((row["type"], assemble(body, top, partial(self._bytes_at, every))))

    def _items(self, items: Sequence[str], every: Mapping[str, bytes]) -> list[Any]:
        """Return the list of *items*: the objects that are known, and what the others are."""
        values: list[Any] = []
        taken: set[str] = set()
        for ref in items:
            # An earlier version of the value that is read together with this one has most of the items.
            thing = self.known.objects.get(ref) or self.known.find(ref)
            if thing is None:
                data = bytes_of(ref, every)
                thing = self._loads((_MSGPACK, data))
                self._memory.learn(thing, self._codec.name, ref, len(data))
            elif ref in taken:
                thing = deepcopy(thing)
            taken.add(ref)
            values.append(thing)
        return values

    def _bytes_at(self, every: Mapping[str, bytes], ref: str) -> bytes:
        if ref in self.known.objects:
            return self._codec.encode(self.known.objects[ref])
        if not is_node(ref):
            return every[ref]
        return b"".join([self._bytes_at(every, child) for child in children(every[ref])])


def _is_list_of(items: Sequence[str], body: Body) -> bool:
    """Return whether a document is a list, and each of *items* is one of its items."""
    return len(body) == 2 and body[0] == _begin_list(len(items)) and all(map(is_item, items))


def _begin_list(size: int) -> bytes:
    return _begin(size, 0x90, 0xDC)


def _begin(size: int, short: int, long: int) -> bytes:
    """Return what MessagePack has before *size* items: *short* and the number in one byte, or *long* and the number."""
    if size < 16:
        return bytes([short | size])
    return struct.pack(">BH", long, size) if size < 65536 else struct.pack(">BI", long + 1, size)
