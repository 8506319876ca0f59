"""Authentication and authorisation by the application's own ``langgraph_sdk.Auth``."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import hashlib
import inspect
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import orjson
from langgraph_sdk import Auth
from langgraph_sdk.auth.exceptions import HTTPException as SdkHTTPException
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.routing import Match
from starlette.types import Scope

from runlane.agents.langgraph_json import GraphsFile, read_graphs_file
from runlane.agents.registry import import_object
from runlane.errors import ConfigurationError, InvalidRequest
from runlane.records import ANY_OWNER
from runlane.server.auth.access import Access, Authority, User
from runlane.server.auth.keys import ApiKeys, check_owner
from runlane.server.http.json_bodies import read_json
from runlane.settings import Settings
from runlane.store.filters import filter_params

log = logging.getLogger("runlane.auth")

#: What a handler may ask for by name.
_PARAMETERS: Final = frozenset(
    {"request", "body", "path", "method", "path_params", "query_params", "headers", "authorization", "scopes"}
)
#: Blocking handlers that run at once; more wait.
_THREADS: Final = 32


class CacheSection(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """For how long the answer of the authentication handler is good for requests with the same headers."""

    cache_keys: list[str] = []
    ttl_seconds: float = 60.0
    max_size: int = 1000


class OpenApiSection(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The security schemes of the OpenAPI document. Source: OpenAPI 3.1, security schemes."""

    schemes: dict[str, Any] = msgspec.field(name="securitySchemes", default_factory=dict)
    security: list[dict[str, list[str]]] = []


class AuthSection(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The key ``auth`` of langgraph.json. There is no way in for Studio or LangSmith, so that none can be disabled."""

    path: str
    disable_studio_auth: bool = False
    allow_langsmith_api_keys: bool = False
    openapi: OpenApiSection | None = None
    cache: CacheSection | None = None
    known_user: str | None = None


def load_authority(config: Path | None, settings: Settings) -> Authority | None:
    """Return what authenticates requests: the project's ``auth``, or the keys file of the settings, or nothing.

    Blocks; runs the user's code.

    Raises:
        ConfigurationError: Both are given, or one cannot be used.
    """
    file = None if config is None else read_graphs_file(config)
    section = None if file is None else file.section("auth", AuthSection)
    if section is None or file is None:
        return ApiKeys(Path(settings.api_keys)) if settings.api_keys else None
    if settings.api_keys:
        raise ConfigurationError(f"{file.path}: 'auth' and the setting api_keys exclude each other: remove one.")
    return ProjectAuth(file, section, missing_handler=settings.auth_missing_handler)


class ProjectAuth:
    """The application's handlers. Its ``async`` ones run on the server's loop, the others on threads of their own."""

    def __init__(self, file: GraphsFile, section: AuthSection, *, missing_handler: str) -> None:
        where = f"{file.path}: auth.path {section.path!r}"
        if section.allow_langsmith_api_keys:
            raise ConfigurationError(
                f"{file.path}: auth.allow_langsmith_api_keys is not supported: no request leaves for LangSmith."
            )
        auth = import_object(file, "auth.path", section.path)
        if not isinstance(auth, Auth):
            raise ConfigurationError(f"{where} is of type {type(auth).__name__}, not langgraph_sdk.Auth.")
        if auth._authenticate_handler is None:
            raise ConfigurationError(f"{where} has no handler: decorate one with @auth.authenticate.")
        self._auth = auth
        self._missing = missing_handler
        self._authenticate: Callable[..., Any] = auth._authenticate_handler
        self._wanted = _wanted(where, self._authenticate)
        self._cache = None if section.cache is None else _Cache(file.path, section.cache)
        self._known_user = _function(file, "auth.known_user", section.known_user)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="auth")
        self.openapi: Mapping[str, Any] = {} if section.openapi is None else msgspec.to_builtins(section.openapi)

    @property
    def reads_body(self) -> bool:
        return not self._wanted.isdisjoint({"body", "request"})

    async def aclose(self) -> None:
        """Let the threads end once their handlers have."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def authenticate(self, connection: HTTPConnection) -> User:
        """Return what the application's handler makes of the request."""
        key = None if self._cache is None else self._cache.key(connection)
        if self._cache is not None and key is not None and (found := self._cache.get(key)) is not None:
            return found
        arguments = await _arguments(connection, self._wanted)
        try:
            user = _user(await self._called(self._authenticate, **arguments))
        except (HTTPException, SdkHTTPException) as error:
            raise _as_raised(error) from error
        except InvalidRequest:
            raise  # the body that it reads is not one that the server takes
        except Exception as error:  # the application's code may raise anything; its text may hold a secret
            raise _defect("authenticate", error) from error
        if self._cache is not None and key is not None:
            self._cache.put(key, user)
        return user

    def version(self) -> object:
        return None  # nobody tells when the application changes its mind

    async def knows(self, owner: str) -> bool:
        """Return what the application's ``known_user`` says; without one every owner is known."""
        return self._known_user is None or bool(await self._called(self._known_user, owner))

    async def _called(self, handler: Callable[..., Any], *given: Any, **arguments: Any) -> Any:
        if inspect.iscoroutinefunction(handler):
            return await handler(*given, **arguments)
        call = functools.partial(contextvars.copy_context().run, handler, *given, **arguments)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, call)
        return await found if inspect.isawaitable(found) else found

    def allows(self, resource: str, action: str) -> bool:
        """Return whether a handler decides, or nothing forbids what none decides."""
        return self._missing != "deny" or self._handler(resource, action) is not None

    async def access(self, user: User, resource: str, action: str, value: dict[str, Any]) -> Access:
        """Return what the most specific handler of *resource* and *action* says."""
        handler = self._handler(resource, action)
        where: Mapping[str, Any] | None = None
        if handler is None:
            if self._missing == "deny":
                raise _forbidden(resource, action)
            decided = self._missing == "allow"
        else:
            where = await self._decision(handler, user, resource, action, value)
            decided = True
        own = resource == "store" or not decided  # items of the store have no metadata to decide by
        return Access(
            owner=user.identity,
            reads=user.identity if own else ANY_OWNER,
            where=None if own else where,
            user=user,
        )

    def _handler(self, resource: str, action: str) -> Callable[..., Awaitable[Any]] | None:
        for key in ((resource, action), (resource, "*"), ("*", action)):
            if found := self._auth._handlers.get(key):
                return found[-1]
        return self._auth._global_handlers[-1] if self._auth._global_handlers else None

    async def _decision(
        self, handler: Callable[..., Awaitable[Any]], user: User, resource: str, action: str, value: dict[str, Any]
    ) -> Mapping[str, Any] | None:
        context = Auth.types.AuthContext(
            permissions=user.permissions, user=user, resource=cast(Any, resource), action=cast(Any, action)
        )
        try:
            answer = await handler(ctx=context, value=value)
            if answer is None or answer is True:
                return None
            if answer is not False:
                filter_params(answer)
                return cast(Mapping[str, Any], answer)
        except (HTTPException, SdkHTTPException) as error:
            raise _as_raised(error) from error
        except AssertionError as error:
            raise HTTPException(403, str(error) or "Forbidden") from error
        except Exception as error:  # as above
            raise _defect(f"{resource}.{action}", error) from error
        raise _forbidden(resource, action)


def _function(file: GraphsFile, where: str, spec: str | None) -> Callable[..., Any] | None:
    if spec is None:
        return None
    found = import_object(file, where, spec)
    if not callable(found):
        raise ConfigurationError(f"{file.path}: {where} {spec!r} is a {type(found).__name__}, not a function.")
    return cast(Callable[..., Any], found)


def _wanted(where: str, handler: Callable[..., Any]) -> frozenset[str]:
    """Return the parameters of *handler* that are given to it.

    Raises:
        ConfigurationError: It needs one that there is not.
    """
    parameters = inspect.signature(handler).parameters.values()
    for parameter in parameters:
        optional = parameter.default is not parameter.empty or parameter.kind is parameter.VAR_KEYWORD
        if parameter.name not in _PARAMETERS and not optional:
            known = ", ".join(sorted(_PARAMETERS))
            raise ConfigurationError(f"{where}: its handler asks for {parameter.name!r}; there are {known}.")
    return _PARAMETERS & {parameter.name for parameter in parameters}


async def _arguments(connection: HTTPConnection, wanted: frozenset[str]) -> dict[str, Any]:
    scope = connection.scope
    simple: dict[str, Callable[[], Any]] = {
        "request": lambda: connection,
        "path": lambda: scope["path"],
        "method": lambda: scope.get("method", "GET"),
        "path_params": lambda: _path_params(scope),
        "query_params": lambda: dict(connection.query_params),
        "headers": lambda: dict(scope["headers"]),
        "authorization": lambda: connection.headers.get("authorization"),
        "scopes": list,
    }
    arguments = {name: make() for name, make in simple.items() if name in wanted}
    if "body" in wanted:
        arguments["body"] = await _body(connection)
    return arguments


async def _body(connection: HTTPConnection) -> Any:
    if not isinstance(connection, Request):
        return {}
    await connection.body()  # kept, so that the handler may read the request once more
    return await read_json(connection, connection.app.state.settings.max_body_bytes)


def _path_params(scope: Scope) -> dict[str, Any]:
    """Return the parameters of the route that will be taken; routing itself comes after authentication."""
    for one in scope["app"].router.routes:
        match, child = one.matches(scope)
        if match is Match.FULL:
            return dict(child.get("path_params", {}))
    return {}


def _user(answer: Any) -> User:
    """Return the user that the application's handler means.

    Raises:
        HTTPException: It says that nobody is.
        ConfigurationError: It says nothing that can be understood.
    """
    if answer is None:
        raise HTTPException(401, "Unauthorized")
    if isinstance(answer, str):
        return User(check_owner(answer))
    read = answer.get if isinstance(answer, Mapping) else functools.partial(getattr, answer)
    if read("is_authenticated", True) is not True:  # 0, None or "false" do not say that somebody is
        raise HTTPException(401, "Unauthorized")
    permissions = read("permissions", None) or ()
    if not isinstance(permissions, Sequence | set | frozenset) or not all(isinstance(one, str) for one in permissions):
        raise ConfigurationError("The permissions of a user must be a list of texts.")
    return User(check_owner(read("identity", None)), tuple(permissions), answer)


def _as_raised(error: HTTPException | SdkHTTPException) -> HTTPException:
    """Return the error of the application's handler as one that is answered: with its status, text and headers."""
    if not 400 <= error.status_code <= 599:
        return _defect(f"status {error.status_code}", error)
    return HTTPException(error.status_code, str(error.detail), dict(error.headers or {}))


def _defect(handler: str, error: Exception) -> HTTPException:
    log.error("auth.handler_failed handler=%s", handler, exc_info=error)
    return HTTPException(500, "The server's authentication failed; its log has the cause.")


def _forbidden(resource: str, action: str) -> HTTPException:
    return HTTPException(403, f"Forbidden: {resource}.{action} is not allowed for this user.")


def secured(document: dict[str, Any], authority: Authority | None) -> dict[str, Any]:
    """Return an OpenAPI *document* that says how *authority* is asked."""
    described = {} if authority is None else dict(authority.openapi)
    document["components"] |= {"securitySchemes": described.pop("securitySchemes", {})} if described else {}
    return {**document, **described}


class _Cache:
    """Users by the headers that name them; bounded, and only those who got in."""

    def __init__(self, path: Path, section: CacheSection) -> None:
        if not section.cache_keys or section.ttl_seconds <= 0 or section.max_size < 1:
            raise ConfigurationError(
                f"{path}: auth.cache needs cache_keys (names of headers), and ttl_seconds and max_size above 0."
            )
        self._names = tuple(name.lower() for name in section.cache_keys)
        self._ttl_s = section.ttl_seconds
        self._max_size = section.max_size
        self._users: OrderedDict[bytes, tuple[float, User]] = OrderedDict()

    def key(self, connection: HTTPConnection) -> bytes | None:
        """Return what the request's user hangs on, hashed: headers are long, and secrets; ``None`` without any."""
        found = [connection.headers.get(name) for name in self._names]
        if all(value is None for value in found):
            return None
        return hashlib.sha256(orjson.dumps(found)).digest()

    def get(self, key: bytes) -> User | None:
        until, user = self._users.get(key, (0.0, None))
        return user if time.monotonic() < until else None

    def put(self, key: bytes, user: User) -> None:
        self._users[key] = (time.monotonic() + self._ttl_s, user)
        self._users.move_to_end(key)
        if len(self._users) > self._max_size:
            self._users.popitem(last=False)
