"""What agents produce as JSON documents: what has not changed is neither encoded nor stored again."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any, Final

from runlane.agents.encode import Shape, encode, shape_of
from runlane.documents.document import MIN_DOCUMENT_BYTES, Builder, Document, Encoded, whole
from runlane.documents.memory import ThreadMemory
from runlane.documents.parts import BYTES
from runlane.documents.splitting import document_of

_TEXT: Final = {str}


class Json:
    """JSON as a codec; its documents keep their bytes, which live readers are shown."""

    item_kind = BYTES
    between = b","
    keeps_bytes = True

    def __init__(self, name: str = "json", shape: Shape = shape_of) -> None:
        """Args:
        name: Another one for another *shape*, see :func:`encode`.
        """
        self.name = name
        self._shape = shape

    def encode(self, value: Any) -> bytes:
        """Return *value* as :func:`encode` does."""
        return encode(value, self._shape)

    def splits(self, value: Any) -> bool:
        """Return whether the text of *value* is that of its items; keys with odd characters may become the same."""
        if type(value) is dict:
            return {*map(type, value)} <= _TEXT and all(map(str.isprintable, value))
        return type(value) is list

    def begin(self, value: Any) -> bytes:
        return b"[" if type(value) is list else b"{"

    def key(self, key: Any) -> bytes:
        return encode(key) + b":"

    def end(self, value: Any) -> bytes:
        return b"]" if type(value) is list else b"}"


class JsonDocuments:
    """Encodes what one attempt produces, with what is known of its thread."""

    def __init__(self, memory: ThreadMemory | None = None) -> None:
        self._memory = memory or ThreadMemory()
        self._codec = Json()
        self._names = [self._codec.name]
        self._has_large = bool(self._memory.stored(self._codec.name))

    def with_shape(self, name: str, shape: Shape) -> JsonDocuments:
        """Return what encodes with another *shape*, and the same memory."""
        other = copy(self)
        other._codec = Json(name, shape)
        self._names.append(name)
        return other

    def of(self, value: Any) -> Encoded:
        """Return *value* as JSON text: bytes if they are few, else a document; :meth:`accept` it once it is on its way.

        Raises:
            Unserialisable: It has no JSON form.
        """
        if not self._has_large:
            data = self._codec.encode(value)
            if len(data) < MIN_DOCUMENT_BYTES:
                return data
            self._has_large = True
        return document_of(value, self._codec, self._memory)

    def without(self, encoded: Encoded, out_of: Callable[[bytes], bytes]) -> Encoded:
        """Return what *out_of*, which takes secrets out of JSON text, leaves of a text.

        A part is a piece of the text, so that there is no secret in any if there is none in the whole.
        """
        data = whole(encoded)
        left = out_of(data)
        if left == data:
            return encoded
        if len(left) < MIN_DOCUMENT_BYTES:
            return left
        builder = Builder(self._memory.stored(self._codec.name), keeps_bytes=True)
        builder.add_opaque(left, is_spine=True)
        document = builder.document()
        self._memory.keep_nodes(document.parts)
        return document

    def accept(self, document: Document) -> None:
        """Take what *document* brings for stored: it is on its way to the database, before what follows."""
        for name in self._names:  # what is stored is stored, whatever shape it has
            self._memory.accept(name, document.refs, document.parts)
