"""What one request may touch: the answer of authentication and authorisation, which every handler asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runlane.records import Owner
from runlane.store.filters import matches


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a request may touch.

    Attributes:
        owner: Whose the things are that it makes.
        reads: Whose things it sees; ``ANY_OWNER`` where a handler of the application decides by *where*.
        where: A filter on metadata that each thing it touches has to match (``{}`` matches all).
    """

    owner: str
    reads: Owner
    where: Mapping[str, Any] | None = None

    def permits(self, metadata: Mapping[str, Any]) -> bool:
        """Say whether a thing with *metadata*, of an owner that is read, may be touched; if not, it is not found."""
        return not self.where or matches(self.where, metadata)
