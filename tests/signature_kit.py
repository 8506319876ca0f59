"""Which arguments a public function takes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

UNPACKED = re.compile(r"Unpack\[(\w+)\]")


def arguments(function: Callable[..., Any]) -> set[str]:
    """Return the names of the arguments that *function* takes, with those of an unpacked ``TypedDict``."""
    parameters = inspect.signature(function).parameters
    found = set(parameters)
    for unpacked in (UNPACKED.fullmatch(str(parameter.annotation)) for parameter in parameters.values()):
        if unpacked is not None:
            found |= set(inspect.unwrap(function).__globals__[unpacked[1]].__annotations__)
    return found
