"""Scopes of operators: who runs the server sees the things of all owners, as far as their scopes go. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
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
    RUNS_RETRY = "runs:retry"  # start runs that have ended again, for their owners; run, pause and resume crons
    RUNS_ANSWER = "runs:answer"  # answer what graphs ask people, for the owners; with payload:read
    PAYLOAD_READ = "payload:read"  # see payload in what they read
    ADMIN = "admin"  # delete, manage keys, read the audit; with all scopes of runs


_OF_RUNS: Final = frozenset(scope for scope in OperatorScope if scope.startswith("runs:"))
_READING: Final = frozenset({"read", "search"})
#: What there is to do with the things of owners, as ``langgraph_sdk.Auth`` names it.
_OWNED: Final[Mapping[str, tuple[str, ...]]] = {
    "assistants": ("create", "read", "update", "delete", "search"),
    "threads": ("create", "read", "update", "delete", "search", "create_run"),
    "crons": ("create", "read", "update", "delete", "search"),
    "store": ("put", "get", "search", "list_namespaces", "delete"),
}
#: What an update of a thread can be beside a change of it, by what the request says that it does.
_THREAD_ACTS: Final[Mapping[str, OperatorScope]] = {
    "interrupt": OperatorScope.RUNS_CANCEL,
    "rollback": OperatorScope.RUNS_CANCEL,
    "retry": OperatorScope.RUNS_RETRY,
    "answer": OperatorScope.RUNS_ANSWER,
    "repair": OperatorScope.ADMIN,
    "resend": OperatorScope.RUNS_RETRY,  # the webhook of a run
}
#: What an update of a cron can be beside a change of it, by what the request says that it does.
_CRON_ACTS: Final = frozenset({"run", "pause", "resume"})
#: What is the server's, so that only operators may do it, and the scope that each action needs.
SERVERS: Final[Mapping[str, Mapping[str, OperatorScope]]] = {
    "audit": {"read": OperatorScope.ADMIN},
    "keys": {"read": OperatorScope.ADMIN},
    "overview": {"read": OperatorScope.RUNS_READ},
    "totals": {"read": OperatorScope.RUNS_READ},
    "failures": {"read": OperatorScope.RUNS_READ},
    "doctor": {"read": OperatorScope.RUNS_READ, "repair": OperatorScope.ADMIN},
    "limits": {"read": OperatorScope.RUNS_READ},
    "settings": {"read": OperatorScope.ADMIN},
    "workers": {"read": OperatorScope.RUNS_READ, "drain": OperatorScope.ADMIN},
}
#: What of it has no payload; failures have the messages of errors.
WITHOUT_PAYLOAD: Final = SERVERS.keys() - {"failures"}


def scopes_of(permissions: Iterable[str]) -> frozenset[OperatorScope]:
    """Return the scopes among *permissions*; one that does not exist gives nothing."""
    known = {f"{PREFIX}{scope.value}": scope for scope in OperatorScope}
    found = {known[permission] for permission in permissions if permission in known}
    return frozenset(found | _OF_RUNS if OperatorScope.ADMIN in found else found)


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
    if resource in SERVERS:
        return SERVERS[resource].get(action)
    if resource == "store":  # items belong to their owner alone
        return None
    if action in _READING:
        return OperatorScope.RUNS_READ
    if action == "delete":
        return OperatorScope.ADMIN
    if resource == "threads" and action == "update":
        return _THREAD_ACTS.get(str(value.get("action")))
    if resource == "threads" and action == "create_run":
        return _scope_of_run(value)
    if resource == "crons" and action == "update" and value.get("action") in _CRON_ACTS:
        return OperatorScope.RUNS_RETRY
    return None


def _scope_of_run(value: Mapping[str, Any]) -> OperatorScope | None:
    if "retry_of" in value:
        return OperatorScope.RUNS_RETRY
    return OperatorScope.RUNS_ANSWER if "interrupt_ids" in value else None


def permitted(scopes: Set[OperatorScope]) -> tuple[str, ...]:
    """Return what an operator with *scopes* may do, as ``<resource>.<action>``."""
    asked = [(f"{resource}.{action}", required_scope(resource, action, {})) for resource, action in _actions()]
    asked += [("threads.cancel", OperatorScope.RUNS_CANCEL), ("threads.retry", OperatorScope.RUNS_RETRY)]
    asked += [("crons.run", OperatorScope.RUNS_RETRY), ("crons.pause", OperatorScope.RUNS_RETRY)]
    asked += [("threads.repair", OperatorScope.ADMIN)]
    if OperatorScope.PAYLOAD_READ in scopes:
        asked += [("threads.answer", OperatorScope.RUNS_ANSWER)]
    return tuple(sorted(name for name, scope in asked if scope in scopes))


def owners_actions(allows: Callable[[str, str], bool]) -> tuple[str, ...]:
    """Return what an owner may do, as ``<resource>.<action>``, where *allows* says what they may ask for."""
    found = [
        f"{resource}.{action}" for resource, action in _actions() if resource in _OWNED and allows(resource, action)
    ]
    if "threads.update" in found:
        found += ["threads.cancel", "threads.repair"]
        found += ["threads.retry"] if "threads.create_run" in found else []
    if {"threads.read", "threads.create_run"} <= set(found):
        found.append("threads.answer")
    if "crons.update" in found:
        found += ["crons.pause"]
        found += ["crons.run"] if "threads.create_run" in found else []
    return tuple(sorted(found))


def everything() -> tuple[str, ...]:
    """Return whatever there is to do, as ``<resource>.<action>``."""
    return tuple(sorted({*permitted(frozenset(OperatorScope)), *owners_actions(lambda _resource, _action: True)}))


def _actions() -> Iterator[tuple[str, str]]:
    return ((resource, action) for kinds in (_OWNED, SERVERS) for resource in kinds for action in kinds[resource])


def needs_payload(value: Mapping[str, Any]) -> bool:
    """Return whether a search compares payload, so that its answer tells of it, or somebody answers what they see."""
    if "interrupt_ids" in value:
        return True
    if "retry_of" in value:
        return False  # it starts a run, whose metadata this is
    metadata = value.get("metadata") or {}
    return any(value.get(name) for name in _PAYLOAD_FILTERS) or not metadata.keys() <= SHOWN_METADATA


def act_of(action: str, value: Mapping[str, Any], *, shows_payload: bool) -> str | None:
    """Return what the audit calls *action*; ``None`` if it is not recorded.

    That is a read that shows no payload, a preview, and each run that an act, which is recorded, starts.
    """
    if "preview" in value or action == "create_run":
        return None
    if action in _READING:
        return "payload.read" if shows_payload else None
    asked = value.get("action", action)
    return "cancel" if asked == "interrupt" else str(asked)
