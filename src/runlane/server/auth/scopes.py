"""Scopes of operators: who runs the server sees the things of all owners, as far as their scopes go. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Final

from runlane.errors import ConfigurationError
from runlane.server.http.payload import SHOWN_METADATA

#: A permission that begins so is a scope, whoever gave it: a name of its own, so that no permission that an application
#: has for its users makes them operators.
PREFIX: Final = "operator:"
#: What a search may compare that is payload.
_PAYLOAD_FILTERS: Final = ("values", "text", "query", "filter")


class OperatorScope(StrEnum):
    """What an operator may do with the things of all owners."""

    RUNS_READ = "runs:read"  # read threads, runs, assistants, crons and webhooks, without payload
    RUNS_CANCEL = "runs:cancel"
    PAYLOAD_READ = "payload:read"  # see payload in what they read
    ADMIN = "admin"  # delete, manage keys, read the audit; with the scopes to read and to cancel


_READING: Final = frozenset({"read", "search"})


def scopes_of(permissions: Iterable[str]) -> frozenset[OperatorScope]:
    """Return the scopes among *permissions*; one that does not exist gives nothing."""
    known = {f"{PREFIX}{scope.value}": scope for scope in OperatorScope}
    found = {known[permission] for permission in permissions if permission in known}
    return frozenset(
        found | {OperatorScope.RUNS_READ, OperatorScope.RUNS_CANCEL} if OperatorScope.ADMIN in found else found
    )


def permissions_of(scopes: Iterable[str]) -> tuple[str, ...]:
    """Return the permissions of a key with *scopes*.

    Raises:
        ConfigurationError: There is no such scope.
    """
    known = {scope.value for scope in OperatorScope}
    given = sorted(set(scopes))
    if unknown := [scope for scope in given if scope not in known]:
        raise ConfigurationError(f"There is no scope {unknown[0]!r}; there are {', '.join(sorted(known))}.")
    return tuple(f"{PREFIX}{scope}" for scope in given)


def required_scope(resource: str, action: str, value: Mapping[str, Any]) -> OperatorScope | None:
    """Return the scope that *action* on *resource* needs; ``None`` if no operator may do it."""
    if resource in ("keys", "audit"):
        return OperatorScope.ADMIN
    if resource == "store":  # items belong to their owner alone
        return None
    if action in _READING:
        return OperatorScope.RUNS_READ
    if action == "delete":
        return OperatorScope.ADMIN
    if resource == "threads" and action == "update" and "action" in value:
        return OperatorScope.RUNS_CANCEL
    return None


def filters_by_payload(value: Mapping[str, Any]) -> bool:
    """Return whether a search compares payload, so that its answer tells of it."""
    metadata = value.get("metadata") or {}
    return any(value.get(name) for name in _PAYLOAD_FILTERS) or not metadata.keys() <= SHOWN_METADATA


def act_of(action: str, value: Mapping[str, Any], *, shows_payload: bool) -> str | None:
    """Return what the audit calls *action*; ``None`` if it is not recorded: a read that shows no payload."""
    if action in _READING:
        return "payload.read" if shows_payload else None
    asked = value.get("action")
    return {"interrupt": "cancel", "rollback": "rollback"}.get(str(asked), action) if asked else action
