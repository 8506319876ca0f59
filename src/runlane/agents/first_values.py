"""The first state of a run, which its thread shows while it has no values of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runlane.agents.documents import JsonDocuments
from runlane.agents.encode import Unserialisable
from runlane.documents.document import Encoded


class FirstState:
    """Shows the first state that says something, once."""

    def __init__(self, show: Callable[[Encoded], None] | None) -> None:
        self._show = show

    def seen(self, values: Any) -> None:
        """Show *values*, a state of the root graph, if it is the first; one without a JSON form is not shown."""
        if self._show is None or not values:
            return
        show, self._show = self._show, None
        try:
            show(JsonDocuments().of(values))  # it is written beside the journal: it brings all of its parts
        except Unserialisable:
            return
