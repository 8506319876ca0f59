"""What may be made of the bytes of a checkpoint: data, and nothing that calls a function.

LangGraph's own serialiser imports and calls whatever the bytes name, so that who can write to the database could run
code in the server. This one makes only types that it also writes.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections import deque
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Final, cast
from uuid import UUID

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer, _create_msgpack_ext_hook
from langgraph.store.base import Item

from runlane.errors import CheckpointUnreadable

#: Kinds of values that are ever written; a pickle is none of them.
_KINDS: Final = frozenset({"null", "bytes", "bytearray", "msgpack"})
#: What LangGraph writes by its base class, or by a method: models of pydantic, named tuples.
_BASES: Final = (Enum, Item, set, frozenset, deque, date, time, timedelta, tzinfo, Decimal, PurePath, UUID)
_METHODS: Final = ("model_dump", "get_secret_value", "dict", "_asdict")


class LedgerSerializer(JsonPlusSerializer):
    """LangGraph's serialiser, reading data only; with ``LANGGRAPH_STRICT_MSGPACK`` only LangGraph's list of types."""

    def __init__(self) -> None:
        super().__init__()
        if self._allowed_msgpack_modules is True:
            self._unpack_ext_hook = _create_msgpack_ext_hook(cast(set[tuple[str, ...]], _DataTypes()))

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Return the value.

        Raises:
            CheckpointUnreadable: It is of a kind that is never written, such as a pickle; it was not looked at.
        """
        if data[0] not in _KINDS:
            raise CheckpointUnreadable(data[0])
        return super().loads_typed(data)


class _DataTypes:
    """The classes that hold data, by module and name: those that LangGraph writes. Values of others stay as stored."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], bool] = {}

    def __contains__(self, key: tuple[str, str]) -> bool:
        known = self._known.get(key)
        if known is None:
            known = _holds_data(*key)
            if known:  # what is refused is rare, and made up by somebody
                self._known[key] = known
        return known


def _holds_data(module: str, name: str) -> bool:
    try:
        found = getattr(importlib.import_module(module), name, None)
    except (ImportError, TypeError, ValueError):  # there is none, or that is no name of a module
        return False
    if not inspect.isclass(found):
        return False
    return issubclass(found, _BASES) or dataclasses.is_dataclass(found) or any(hasattr(found, one) for one in _METHODS)
