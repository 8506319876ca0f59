"""Cutting values into parts while they are encoded, each item once for as long as it does not change."""

from __future__ import annotations

from typing import Any, Final, Protocol

from runlane.documents.document import MIN_DOCUMENT_BYTES, Builder, Document, parts_of
from runlane.documents.memory import ThreadMemory
from runlane.documents.parts import BYTES

#: Lists and dictionaries are cut by their items if these are not tiny.
_MIN_ITEM_BYTES: Final = 64
_SAMPLES: Final = 4
#: Of so many items it is asked how large they are, before all are encoded.
_MANY: Final = 16
#: Items that are larger are cut in turn; on the spine smaller ones too, as there are few.
_LARGE_ITEM_BYTES: Final = 16 * 1024
_MAX_DEPTH: Final = 8
#: Marks the first item where something comes between items.
_FIRST: Final = object()


class Codec(Protocol):
    """A serialisation in which a list is a beginning, its items, and an end, and a dictionary its entries likewise.

    Attributes:
        name: Under which a memory keeps what it knows of this codec.
        min_shared_bytes: From how many bytes on a value is cut in a thread that has documents of this codec.
        item_kind: The kind of the parts that are items of a list.
        between: What comes before every item but the first.
        keeps_bytes: Whether the bytes of a document are asked for, beside its parts.
    """

    name: str
    min_shared_bytes: int
    item_kind: str
    between: bytes
    keeps_bytes: bool

    def encode(self, value: Any) -> bytes:
        """Return the bytes of any value."""
        ...

    def splits(self, value: Any) -> bool:
        """Return whether *value* is a list or a dictionary that is the sequence of its encoded items."""
        ...

    def begin(self, value: Any) -> bytes:
        """Return what comes before the items."""
        ...

    def key(self, key: Any) -> bytes:
        """Return the key of an entry, with what comes before its value."""
        ...

    def end(self, value: Any) -> bytes:
        """Return what comes after the items."""
        ...


def document_of(value: Any, codec: Codec, memory: ThreadMemory) -> bytes | Document:
    """Return *value* encoded: as bytes if they are few, else as a document.

    The bytes of the document are those that the codec makes of the whole value. Once it is on its way to the database,
    the caller has the *memory* :meth:`~ThreadMemory.accept` it.
    """
    stored = memory.stored(codec.name)
    if not _is_long(value, codec, memory):
        data = codec.encode(value)
        if len(data) < (codec.min_shared_bytes if stored else MIN_DOCUMENT_BYTES):
            return data
    cutting = _Cutting(
        codec, memory, Builder(stored, foldings=memory.foldings(codec.name), keeps_bytes=codec.keeps_bytes)
    )
    cutting.value(value, is_spine=True)
    document = cutting.builder.document()
    memory.keep_nodes(document.parts)
    return document


class _Cutting:
    """The cutting of one value. The spine are the value and those around its lists: it is written out."""

    __slots__ = ("_codec", "_memory", "builder")

    def __init__(self, codec: Codec, memory: ThreadMemory, builder: Builder) -> None:
        self._codec = codec
        self._memory = memory
        self.builder = builder

    def value(self, value: Any, *, is_spine: bool, depth: int = 0) -> None:
        """Add *value*."""
        codec, builder = self._codec, self.builder
        if not self._is_cut(value) or depth > _MAX_DEPTH:
            builder.add_opaque(codec.encode(value), is_spine=is_spine)
            return
        write = builder.write if is_spine else builder.add
        write(codec.begin(value))
        keys = list(value) if isinstance(value, dict) else [None] * len(value)
        marks = [(_FIRST, keys[0]), *keys[1:]] if codec.between else keys  # nothing comes before the first
        things = list(value.values()) if isinstance(value, dict) else value
        is_spine = is_spine and len(value) < _MANY
        refs, data = self._memory.encoded(things, marks, codec.name)
        begin = 0
        for at, ref in enumerate(refs):
            if not ref:  # it is new, has changed, or is of a kind that is not remembered
                builder.add_stored(refs[begin:at], data[begin:at])
                before = (codec.between if at else b"") + (codec.key(keys[at]) if isinstance(value, dict) else b"")
                self._item(before, marks[at], things[at], is_spine=is_spine, depth=depth)
                begin = at + 1
        builder.add_stored(refs[begin:], data[begin:])
        write(codec.end(value))

    def _is_cut(self, value: Any) -> bool:
        if not value or not self._codec.splits(value):
            return False
        return len(value) < _MANY or _item_bytes(value, self._codec, self._memory) > 0

    def _item(self, before: bytes, mark: Any, thing: Any, *, is_spine: bool, depth: int) -> None:
        codec, memory, builder = self._codec, self._memory, self.builder
        if memory.remembers(thing):
            data = before + codec.encode(thing)
            parts = parts_of(data, kind=BYTES if before else codec.item_kind)
            builder.add_parts(parts, data)
            ref = next(reversed(parts))
            memory.remember(thing, mark, codec.name, ref, len(data), data if codec.keeps_bytes else b"")
            return
        if not _is_long(thing, codec, memory):
            data = codec.encode(thing)
            if len(data) < (codec.min_shared_bytes if is_spine else _LARGE_ITEM_BYTES) or not codec.splits(thing):
                builder.add(before + data)
                return
        (builder.write if is_spine else builder.add)(before)
        self.value(thing, is_spine=is_spine, depth=depth + 1)


def _is_long(value: Any, codec: Codec, memory: ThreadMemory, depth: int = 0) -> bool:
    """Return whether *value* has so many items of some size that it need not be encoded to know that it is large."""
    if not value or not codec.splits(value):
        return False
    if len(value) >= _MANY:
        return _item_bytes(value, codec, memory) * len(value) >= MIN_DOCUMENT_BYTES
    inner = value.values() if isinstance(value, dict) else value
    return depth < _MAX_DEPTH and any(_is_long(each, codec, memory, depth + 1) for each in inner)


def _item_bytes(value: Any, codec: Codec, memory: ThreadMemory) -> int:
    """Return about how many bytes an item of *value* has; 0 if they are too small to be cut by."""
    items = value if isinstance(value, list) else list(value.values())
    if memory.knows(items[0], codec.name):
        return MIN_DOCUMENT_BYTES
    samples = items[:: max(1, len(items) // _SAMPLES)][:_SAMPLES]
    size = sum(len(codec.encode(each)) for each in samples) // len(samples)
    return size if size >= _MIN_ITEM_BYTES else 0
