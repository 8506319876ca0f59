"""A document: bytes of which some are written out and the others are parts. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final
from zlib import crc32

import msgspec

from runlane.documents.parts import BYTES, ITEM, ITEM_NODE, NODE, Folding, node, ref_of

#: Documents that are smaller are not cut.
MIN_DOCUMENT_BYTES: Final = 4096
#: Small neighbours are one part.
_MIN_PART_BYTES: Final = 256
_MAX_SMALL_BYTES: Final = 2048
#: Bytes whose inside is not known are cut at multiples of this, behind a beginning that most often differs.
_BLOCK_BYTES: Final = 8192
_OPAQUE_START_BYTES: Final = 64
#: Lists of one memory whose earlier versions are known.
_MAX_FOLDINGS: Final = 16
#: An image, or another file as base64. Before it is what ends the text before in JSON, MessagePack or a data URL; so
#: its bytes are the same part wherever it stands.
_LARGE_BYTES: Final = 16 * 1024
_FILE: Final = re.compile(rb'(?:"|base64,|[\xdb\xc6].{4})([A-Za-z0-9+/=_-]{%d,})' % _LARGE_BYTES, re.DOTALL)

#: Bytes that are written out, or the number of references that stand there.
Body = Sequence[bytes | int]


@dataclass(frozen=True, slots=True)
class Document:
    """A value's serialised bytes as they are stored.

    Attributes:
        body: What is written out, and how many of ``refs`` come in between.
        refs: References to parts, in the order of their places.
        parts: The parts that may not be stored yet, by reference.
        data: The bytes, if the codec keeps them.
    """

    body: Body
    refs: Sequence[str]
    parts: dict[str, bytes]
    data: bytes | None = None

    @property
    def ref_text(self) -> str:
        """All references, one after the other."""
        return "".join(self.refs)

    @property
    def body_bytes(self) -> bytes:
        """The body as MessagePack."""
        return msgspec.msgpack.encode(self.body)

    @property
    def text(self) -> str:
        """The body of a JSON document as JSON: what is written out are texts."""
        return msgspec.json.encode([each if isinstance(each, int) else each.decode() for each in self.body]).decode()

    def framed(self, before: bytes, after: bytes) -> Document:
        """Return this with literal bytes before and after it."""
        body = [before, *self.body, after]
        if isinstance(self.body[0], bytes):
            body[:2] = [before + self.body[0]]
        if isinstance(self.body[-1], bytes):
            body[-2:] = [body[-2] + after]  # type: ignore[operator]  # it is the last of the body, with what was before
        data = None if self.data is None else before + self.data + after
        return Document(body=tuple(body), refs=self.refs, parts=self.parts, data=data)

    @property
    def size(self) -> int:
        """Bytes to be stored."""
        written = sum(len(each) for each in self.body if isinstance(each, bytes))
        return written + len(self.ref_text) + sum(map(len, self.parts.values()))


#: A serialised value: its bytes if they are few, else a document.
Encoded = bytes | Document

_unpack: Final = msgspec.msgpack.Decoder(list[bytes | int])
_untext: Final = msgspec.json.Decoder(list[str | int])


def body_of(data: bytes) -> Body:
    """Return a body from MessagePack."""
    return _unpack.decode(data)


def body_of_text(text: str) -> Body:
    """Return a body from JSON."""
    return [each if isinstance(each, int) else each.encode() for each in _untext.decode(text)]


def whole(encoded: Encoded) -> bytes:
    """Return all bytes of a value; a document must have been made with them."""
    if isinstance(encoded, bytes):
        return encoded
    assert encoded.data is not None
    return encoded.data


def assemble(body: Body, refs: Sequence[str], bytes_at: Callable[[str], bytes]) -> bytes:
    """Return the bytes of a document; *bytes_at* gives those that a reference stands for."""
    pieces, at = list[bytes](), 0
    for each in body:
        if isinstance(each, int):
            pieces += map(bytes_at, refs[at : at + each])
            at += each
        else:
            pieces.append(each)
    return b"".join(pieces)


def parts_of(data: bytes, *, kind: str = BYTES) -> dict[str, bytes]:
    """Return *data* as one part, or, if there are files in it, as several and the node of *kind* over them, which is
    the last."""
    cuts = _files(data)
    if not cuts:
        return {ref_of(kind, data): data}
    found: dict[str, bytes] = {}
    refs: list[str] = []
    for piece in _pieces(data, cuts):
        refs.append(ref_of(BYTES, piece))
        found[refs[-1]] = piece
    ref, packed = node(ITEM_NODE if kind == ITEM else NODE, refs)
    return {**found, ref: packed}


def _files(data: bytes) -> list[tuple[int, int]]:
    """Return where files lie in *data*."""
    return [match.span(1) for match in _FILE.finditer(data)] if len(data) >= _LARGE_BYTES else []


def _is_file(data: bytes) -> bool:
    return len(data) >= _LARGE_BYTES and _FILE.fullmatch(b'"' + data) is not None


def _pieces(data: bytes, cuts: Sequence[tuple[int, int]], at: int = 0) -> Iterator[bytes]:
    """Yield what is in *data* from *at*, with each of *cuts* as a piece of its own."""
    for begin, end in cuts:
        if begin > at:
            yield data[at:begin]
        yield data[begin:end]
        at = end
    if at < len(data):
        yield data[at:]


class Builder:
    """Makes a document of bytes and parts that come in their order.

    ``stored`` are references that are stored for sure; parts that are not among them are given with the document.
    """

    __slots__ = ("_all", "_body", "_foldings", "_literal", "_parts", "_refs", "_run", "_small", "_stored")

    def __init__(
        self, stored: AbstractSet[str], *, foldings: dict[str, Folding] | None = None, keeps_bytes: bool = False
    ) -> None:
        """Args:
        foldings: Those of earlier versions of lists, by their first references; kept for later ones.
        keeps_bytes: Give the bytes of the whole document too.
        """
        self._stored = stored
        self._foldings = {} if foldings is None else foldings
        self._all: list[bytes] | None = [] if keeps_bytes else None
        self._body: list[bytes | int] = []
        self._refs: list[str] = []
        self._parts: dict[str, bytes] = {}
        self._literal = bytearray()
        self._small = bytearray()
        self._run: list[str] = []

    def write(self, data: bytes) -> None:
        """Write *data* out: what stands around the items of a list."""
        self._note(data)
        self._end_run()
        self._literal += data

    def add(self, data: bytes) -> None:
        """Add bytes of an item, alone or with small ones beside it."""
        if len(data) >= _MIN_PART_BYTES:
            self.add_parts(parts_of(data), data)
            return
        self._note(data)
        self._small += data
        size = len(self._small)
        if size >= _MAX_SMALL_BYTES or (size >= _MIN_PART_BYTES and not crc32(data) & 7):
            self._end_small()

    def add_parts(self, parts: dict[str, bytes], data: bytes) -> None:
        """Add an item as what :func:`parts_of` has made of *data*."""
        self._note(data)
        self._end_small()
        self._put(parts)
        self._run.append(next(reversed(parts)))

    def add_stored(self, refs: Sequence[str], data: Sequence[bytes]) -> None:
        """Add items that are stored; *data* are their bytes, if those are asked for."""
        if refs:
            if self._all is not None:
                self._all += data
            self._end_small()
            self._run += refs

    def add_opaque(self, data: bytes, *, is_spine: bool) -> None:
        """Add bytes whose inside is not known."""
        begin, files = 0, _files(data)
        if is_spine and not (files and files[0][0] < _OPAQUE_START_BYTES):
            begin = min(len(data), _OPAQUE_START_BYTES)
            while 0 < begin < len(data) and data[begin] & 0xC0 == 0x80:  # what is written out is text in JSON
                begin -= 1
            self.write(data[:begin])
        for piece in _pieces(data, files, begin):
            size = len(piece) if _is_file(piece) else _BLOCK_BYTES
            for at in range(0, len(piece), size):
                block = piece[at : at + size]
                self.add_parts({ref_of(BYTES, block): block}, block)

    def document(self) -> Document:
        """Return the document."""
        self._end_run()
        if self._literal:
            self._body.append(bytes(self._literal))
        data = None if self._all is None else b"".join(self._all)
        return Document(body=tuple(self._body), refs=tuple(self._refs), parts=self._parts, data=data)

    def _note(self, data: bytes) -> None:
        if self._all is not None:
            self._all.append(data)

    def _put(self, parts: Mapping[str, bytes]) -> None:
        self._parts.update({ref: data for ref, data in parts.items() if ref not in self._stored})

    def _end_small(self) -> None:
        data = bytes(self._small)
        self._small.clear()
        if data:
            ref = ref_of(BYTES, data)
            self._put({ref: data})
            self._run.append(ref)

    def _end_run(self) -> None:
        """End a list: its last small items are written out, as the next version will most often add to them."""
        rest = bytes(self._small)
        self._small.clear()
        if self._run:
            if self._run[0] not in self._foldings and len(self._foldings) >= _MAX_FOLDINGS:
                self._foldings.clear()
            folding = self._foldings.setdefault(self._run[0], Folding())
            folded, nodes = folding.fold(self._run, self._stored)
            self._run = []
            self._put(nodes)
            if self._literal:
                self._body.append(bytes(self._literal))
                self._literal.clear()
            self._refs += folded
            self._body.append(len(folded))
        self._literal += rest
