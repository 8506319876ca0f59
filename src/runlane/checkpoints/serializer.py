"""Decoding the bytes of a checkpoint as data, without calling a function.

LangGraph's own serialiser imports and calls whatever the bytes name, so that who can write to the database could run
code in the server. This one makes only types that it also writes.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections import deque
from contextlib import suppress
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from typing import Any, Final, cast
from uuid import UUID

from langchain_core.runnables import Runnable
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer, _create_msgpack_ext_hook
from langgraph.store.base import Item
from pydantic import SecretBytes, SecretStr

from runlane.errors import CheckpointUnreadable

#: Kinds of values that are ever written; a pickle is none of them.
KINDS: Final = frozenset({"null", "bytes", "bytearray", "msgpack"})
#: Values that LangGraph writes by their base class, beside those types that it lists itself.
_VALUES: Final = (set, frozenset, deque, date, time, timedelta, tzinfo, Decimal, UUID)
_MODELS: Final = frozenset({("pydantic.main", "BaseModel"), ("pydantic.v1.main", "BaseModel")})
#: Packages that may be imported for a value; all other modules have to be there, as the graphs that use them do that.
_IMPORTED: Final = ("langchain_core.", "langgraph.")


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
        if data[0] not in KINDS:
            raise CheckpointUnreadable(data[0])
        return super().loads_typed(data)


class _DataTypes:
    """The classes that hold data, by module and name: those that LangGraph writes. Values of others stay as stored.

    No module is imported for a value: a graph has imported what its state is made of.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], bool] = {}

    def __contains__(self, key: tuple[str, str]) -> bool:
        known = self._known.get(key)
        if known is None:
            known = _holds_data(*key)
            if known:  # what is refused is rare, and made up by somebody
                self._known[key] = known
        return known


def _holds_data(module: Any, name: Any) -> bool:
    if not isinstance(module, str) or not isinstance(name, str):
        return False
    if module not in sys.modules and module.startswith(_IMPORTED):
        with suppress(ImportError, ValueError):  # there is none, or that is no name of a module
            importlib.import_module(module)
    # Not by getattr(): a module may import others for a name that it does not have yet.
    found = vars(sys.modules[module]).get(name) if module in sys.modules else None
    return inspect.isclass(found) and _is_data(found)


def _is_data(cls: type) -> bool:
    """Return whether *cls* is of a kind that only holds values: making one opens and calls nothing."""
    if cls in (SecretStr, SecretBytes) or issubclass(cls, (Enum, Item)):
        return True
    if issubclass(cls, _VALUES):
        return any(cls.__init__ is base.__init__ and cls.__new__ is base.__new__ for base in _VALUES)
    if issubclass(cls, tuple):
        return hasattr(cls, "_fields")
    bases = {(base.__module__, base.__name__) for base in cls.__mro__}
    if issubclass(cls, Runnable) or any(module.startswith("pydantic_settings") for module, _ in bases):
        return False  # models that make clients, or read files and the environment
    return not _MODELS.isdisjoint(bases) or "__dataclass_fields__" in vars(cls)
