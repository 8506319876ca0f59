"""Paths into a thread, with which a search answers only what a page shows of large states."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from runlane.errors import InvalidRequest

_KEY: Final = r"[^.\[\]]+"
_PATH: Final = re.compile(rf"{_KEY}(?:\.{_KEY}|\[-?\d{{1,9}}\])*\Z")
_STEP: Final = re.compile(rf"\[(-?\d+)\]|({_KEY})")
_Steps = tuple[str | int, ...]


class Extraction:
    """Return the value at each path: keys with dots between them, and indexes in brackets (``values.messages[-1]``).

    Source: ``extract`` of the LangGraph Server's search of threads.
    """

    def __init__(self, paths: Mapping[str, str]) -> None:
        """Take *paths* by the names under which their values are answered.

        Raises:
            InvalidRequest: One is not a path.
        """
        self._paths = {alias: _steps(path) for alias, path in paths.items()}

    def reads(self, key: str) -> bool:
        """Return whether a path begins with *key*."""
        return any(steps[0] == key for steps in self._paths.values())

    def __call__(self, document: Any) -> dict[str, Any]:
        """Return what each path finds in *document*; where there is nothing, ``None``."""
        return {alias: _found(document, steps) for alias, steps in self._paths.items()}


def _steps(path: str) -> _Steps:
    if not _PATH.match(path):
        raise InvalidRequest(f"extract has {path!r}, which is no path such as 'values.messages[-1].content'.")
    return tuple(int(index) if index else key for index, key in _STEP.findall(path))


def _found(document: Any, steps: _Steps) -> Any:
    for step in steps:
        try:
            if isinstance(step, int) != isinstance(document, list):
                return None
            document = document[step]
        except (KeyError, IndexError, TypeError):
            return None
    return document
