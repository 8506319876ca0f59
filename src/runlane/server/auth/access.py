"""Access of one request: the result of authentication and authorisation, which every handler needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypedDict

from starlette.requests import HTTPConnection

from runlane.lifecycle import CancelSource
from runlane.records import NO_OWNER, AnyOwner, Owner, Thread
from runlane.server.auth.scopes import OperatorScope, scopes_of
from runlane.store.filters import matches


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Access of one request.

    Attributes:
        owner: Whose the things are that it makes.
        reads: Whose things it sees; ``ANY_OWNER`` where a handler of the application decides by *where*.
        where: A filter on metadata that each thing it touches has to match (``{}`` matches all).
        user: Who sent it; ``None`` on a server that does not ask.
    """

    owner: str
    reads: Owner
    where: Mapping[str, Any] | None = None
    user: User | None = None

    @property
    def operates(self) -> bool:
        """Return whether it is an operator's, who acts for the owners of things."""
        return self.user is not None and bool(self.user.scopes)

    def sees(self, thread: Thread) -> bool:
        """Return whether *thread*, read without regard to its owner, may be touched; if not, it is not found."""
        mine = isinstance(self.reads, AnyOwner) or thread.owner == self.reads
        return mine and self.permits(thread.metadata)

    def permits(self, metadata: Mapping[str, Any]) -> bool:
        """Return whether a thing with *metadata*, of an owner that is read, may be touched; if not, it is not found."""
        return not self.where or matches(self.where, metadata)


class Canceller(TypedDict):
    """Who cancels runs, as arguments of :meth:`RunManager.cancel`."""

    by: str
    source: CancelSource


#: Everything, for a server without authentication: its things have no owner.
OPEN: Final = Access(owner=NO_OWNER, reads=NO_OWNER)


class User:
    """The sender of a request: ``langgraph_sdk``'s ``BaseUser``, over what the application's own handler returned.

    Whoever has ``scopes`` is an operator, and owns nothing. ``key_id`` is of the API key that they sent.
    """

    __slots__ = ("_source", "identity", "key_id", "permissions", "scopes")

    def __init__(
        self, identity: str, permissions: Sequence[str] = (), source: Any = None, *, key_id: str | None = None
    ) -> None:
        self.identity = identity
        self.permissions = tuple(permissions)
        self.scopes = scopes_of(self.permissions)
        self.key_id = key_id
        self._source = {"identity": identity} if source is None else source

    @property
    def is_authenticated(self) -> bool:
        return True

    @property
    def sees_payload(self) -> bool:
        """Return whether they may see what users and graphs wrote, in what they may read."""
        return not self.scopes or OperatorScope.PAYLOAD_READ in self.scopes

    @property
    def display_name(self) -> str:
        return str(_field(self._source, "display_name") or self.identity)

    def fields(self) -> Mapping[str, Any]:
        """Return what the application's handler says of the user, for the graphs that it runs; may be secret."""
        if isinstance(self._source, Mapping):
            return dict(self._source)
        return {name: value for name, value in getattr(self._source, "__dict__", {}).items() if name[:1] != "_"}

    def __getattr__(self, name: str) -> Any:
        found = None if name.startswith("__") else _field(self._source, name)
        if found is None:
            raise AttributeError(f"The user has no {name!r}.")
        return found

    def __getitem__(self, key: str) -> Any:
        if key in ("identity", "permissions", "is_authenticated", "display_name"):
            return getattr(self, key)
        if key not in self:
            raise KeyError(key)
        return _field(self._source, key)

    def __contains__(self, key: object) -> bool:
        return key in self._source if isinstance(self._source, Mapping) else hasattr(self._source, str(key))

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields())


def _field(source: Any, name: str) -> Any:
    return source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)


class Authority(Protocol):
    """Says who sends a request, and what they may touch. One per process; what it refuses is an ``HTTPException``."""

    openapi: Mapping[str, Any]

    @property
    def reads_body(self) -> bool:
        """Return whether authentication reads the request's body."""
        ...

    async def authenticate(self, connection: HTTPConnection) -> User:
        """Return who sends the request or opens the socket.

        Raises:
            HTTPException: Nobody who is known (401), or whatever the application's handler raised.
        """
        ...

    async def access(self, user: User, resource: str, action: str, value: dict[str, Any]) -> Access:
        """Return what *user* may touch; the application's handler may change *value* in place.

        Raises:
            HTTPException: Nothing (403), or whatever the handler raised.
        """
        ...

    def allows(self, resource: str, action: str) -> bool:
        """Return whether it may allow *action* on *resource*; what is asked, and of whom, is decided by ``access``."""
        ...

    def version(self) -> object:
        """Return what its answers depend on, as far as it can tell; once it is another, all have to be asked again."""
        ...

    async def knows(self, owner: str) -> bool:
        """Return whether *owner* could still send a request; ``True`` where nobody can tell."""
        ...

    async def aclose(self) -> None:
        """Release what it holds; a second call does nothing."""
        ...
