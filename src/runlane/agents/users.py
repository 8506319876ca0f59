"""Whose run it is, as its graph sees it. What an application's authentication says of a user is never stored."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from runlane.records import NO_OWNER, RunRecord

#: Where a graph finds its user, beside the id and the permissions alone; clients cannot set what begins so.
PREFIX: Final = "langgraph_auth_"
USER_KEY: Final = "langgraph_auth_user"
#: Runs whose users' fields are remembered; those of the longest waiting are forgotten first.
_MAX_USERS: Final = 100_000


class RunUser(dict[str, Any]):
    """``langgraph_sdk``'s ``BaseUser``: a mapping whose keys are also attributes."""

    __slots__ = ()

    @property
    def identity(self) -> str:
        return str(self["identity"])

    @property
    def display_name(self) -> str:
        return str(self["display_name"])

    @property
    def is_authenticated(self) -> bool:
        return True

    @property
    def permissions(self) -> Sequence[str]:
        found: Sequence[str] = self["permissions"]
        return found

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"The user has no {name!r}.") from None


def run_user(identity: str, permissions: Iterable[str], fields: Mapping[str, Any]) -> RunUser | None:
    """Return the user *identity* as a graph sees them; ``None`` if that is nobody in particular."""
    if identity == NO_OWNER:
        return None
    known = {"identity": identity, "permissions": list(permissions), "is_authenticated": True}
    return RunUser({"display_name": identity, **fields, **known})


class RunUsers:
    """The users of this process's runs: identity and permissions, which the run has, and what is known beyond them.

    The rest is in this process's memory only. A run that another process continues has identity and permissions.
    """

    def __init__(self) -> None:
        self._fields: OrderedDict[str, Mapping[str, Any]] = OrderedDict()

    def remember(self, run_id: str, fields: Mapping[str, Any]) -> None:
        """Keep *fields* of the user of a run until :meth:`forget`."""
        self._fields[run_id] = fields
        if len(self._fields) > _MAX_USERS:
            self._fields.popitem(last=False)

    def forget(self, run_id: str) -> None:
        self._fields.pop(run_id, None)

    def fields_of(self, run: RunRecord) -> Mapping[str, Any]:
        """Return what is known of the user of *run* beyond what the run has."""
        return self._fields.get(run.run_id, {})

    def of(self, run: RunRecord) -> RunUser | None:
        """Return the user of *run*; ``None`` if it belongs to nobody in particular."""
        return run_user(run.owner, run.stored.origin.permissions, self.fields_of(run))


def user_keys(user: RunUser | None) -> dict[str, Any]:
    """Return what a graph finds of its user in ``configurable``. ``user_id`` is theirs too, whatever a client says.

    The keys are always there, so that a graph reads them in the same way on a server that knows no users.
    """
    identity = "" if user is None else user.identity
    return {
        "user_id": identity,
        USER_KEY: user,
        f"{USER_KEY}_id": identity,
        f"{PREFIX}permissions": [] if user is None else user.permissions,
    }


def without_user(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a checkpoint of the graph's stream without the user in its configs, as clients are shown it."""
    shown = dict(payload)
    for name in ("config", "parent_config"):
        configurable = (shown.get(name) or {}).get("configurable")
        if configurable:
            kept = {key: value for key, value in configurable.items() if not key.startswith(PREFIX)}
            shown[name] = {**shown[name], "configurable": kept}
    return shown
