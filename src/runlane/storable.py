"""Texts that every database and every encoder takes. Pure."""

from __future__ import annotations


def storable(text: str) -> str:
    """Return *text* with U+FFFD for what UTF-8 or PostgreSQL cannot express: lone surrogates and NUL."""
    if text.isascii():
        return text.replace("\0", "\ufffd")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")
