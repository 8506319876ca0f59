"""JSON text as a codec of documents, and documents of JSON text that is at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson

from runlane.documents.document import MIN_DOCUMENT_BYTES, Builder, Document
from runlane.documents.memory import ThreadMemory
from runlane.documents.parts import BYTES
from runlane.documents.splitting import document_of

_TEXT: Final = {str}


class Json:
    """JSON as a codec; its documents keep their bytes, which live readers are shown."""

    min_shared_bytes = MIN_DOCUMENT_BYTES
    item_kind = BYTES
    between = b","
    keeps_bytes = True

    def __init__(self, encode: Callable[[Any], bytes], name: str = "json") -> None:
        """Args:
        encode: Returns compact JSON text.
        name: Another one for another form of what it returns.
        """
        self.name = name
        self.encode = encode

    def splits(self, value: Any) -> bool:
        """Return whether the text of *value* is that of its items; keys with odd characters may become the same."""
        if type(value) is dict:
            return {*map(type, value)} <= _TEXT and all(map(str.isprintable, value))
        return type(value) is list

    def begin(self, value: Any) -> bytes:
        return b"[" if type(value) is list else b"{"

    def key(self, key: Any) -> bytes:
        return self.encode(key) + b":"

    def end(self, value: Any) -> bytes:
        return b"]" if type(value) is list else b"}"


_CODEC: Final = Json(orjson.dumps)


def document_of_text(text: bytes) -> Document | None:
    """Return compact JSON text as a document that shares parts with those of the same values; ``None`` if it is small.

    Text that would not come back exactly is cut without regard to what it says.
    """
    if len(text) < MIN_DOCUMENT_BYTES:
        return None
    document = document_of(orjson.loads(text), _CODEC, ThreadMemory())
    if isinstance(document, Document) and document.data == text:
        return document
    builder = Builder(frozenset(), keeps_bytes=True)
    builder.add_opaque(text, is_spine=True)
    return builder.document()
