"""Texts of items and searches that are embedded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from langgraph.store.base import get_text_at_path, tokenize_path

#: The field that is the whole value; it may begin the path of any other.
WHOLE: Final = "$"


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """The texts of a batch to embed: texts of items, and queries, which a model may embed differently."""

    documents: tuple[str, ...]
    queries: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.documents or self.queries)


def texts_in(value: Mapping[str, Any], fields: Sequence[str]) -> list[str]:
    """Return the texts of *value* that are in *fields*, each once."""
    return list(dict.fromkeys(text for field in fields for text in get_text_at_path(value, _path(field)) if text))


def _path(field: str) -> str | list[str]:
    return WHOLE if field == WHOLE else tokenize_path(field.removeprefix(f"{WHOLE}."))
