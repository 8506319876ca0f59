"""Whose runs a call means, in applications with and without tenants. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from runlane.errors import OwnerRequired
from runlane.records import NO_OWNER, Owner


class Unnamed:
    """The owner was not named."""

    __slots__ = ()


UNNAMED: Final = Unnamed()
OwnerArgument = Owner | Unnamed


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerRule:
    """The rule for calls without an owner: the one tenant of an application without tenants, or an error."""

    required: bool = False

    def any(self, operation: str, owner: OwnerArgument) -> Owner:
        """Return whose runs *operation* may see.

        Raises:
            OwnerRequired: No owner was named.
        """
        if not isinstance(owner, Unnamed):
            return owner
        if self.required:
            raise OwnerRequired(operation)
        return NO_OWNER

    def one(self, operation: str, owner: OwnerArgument) -> str:
        """Return the one owner that *operation* makes a run for.

        Raises:
            OwnerRequired: No owner was named, or all of them.
        """
        if isinstance(owner, Unnamed) and not self.required:
            return NO_OWNER
        if isinstance(owner, str):
            return owner
        raise OwnerRequired(operation, one=True)
