"""What agents produce as JSON documents: what has not changed is neither encoded nor stored again."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any

from runlane.agents.encode import Shape, encode
from runlane.documents.document import MIN_DOCUMENT_BYTES, Builder, Document, Encoded, whole
from runlane.documents.json_text import Json
from runlane.documents.memory import ThreadMemory
from runlane.documents.splitting import document_of


class JsonDocuments:
    """Encodes what one attempt produces, with what is known of its thread."""

    def __init__(self, memory: ThreadMemory | None = None) -> None:
        self._memory = memory or ThreadMemory()
        self._codec = Json(encode)
        self._names = [self._codec.name]
        self._has_large = bool(self._memory.stored(self._codec.name))

    def with_shape(self, name: str, shape: Shape) -> JsonDocuments:
        """Return what encodes with another *shape*, and the same memory."""
        other = copy(self)
        other._codec = Json(partial(encode, shape=shape), name)
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
