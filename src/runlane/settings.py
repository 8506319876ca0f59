"""One frozen value that configures a process, validated once."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from runlane.errors import ConfigurationError

log = logging.getLogger("runlane.settings")

ENV_PREFIX = "RUNLANE_"
#: What the command line reads beside the settings, without the prefix.
COMMAND_VARIABLES: Final = frozenset({"API_KEY", "HOST", "LOG_FORMAT", "LOG_LEVEL", "PORT", "URL"})
_SCHEMA: Final = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")
_KINDS: Mapping[str, str] = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "text"}
_BOUNDS: Mapping[str, tuple[float, float]] = {
    "max_concurrent_runs": (1, 1_000_000),
    "max_queued_runs": (1, 1_000_000),
    "max_runs_per_owner": (0, 1_000_000),
    "max_runs_per_assistant": (0, 1_000_000),
    "max_runs_per_graph": (0, 1_000_000),
    "run_timeout_s": (0.001, 365 * 86_400),
    "lease_s": (0.1, 86_400),
    "max_rescues": (0, 1000),
    "cancel_grace_s": (0, 3600),
    "abandon_after_s": (0, 3600),
    "drain_grace_s": (0, 86_400),
    "start_within_s": (0.01, 86_400),
    "poll_s": (0.01, 3600),
    "heartbeat_s": (0.01, 3600),
    "event_retention_s": (1, 10 * 365 * 86_400),
    "run_log_bytes": (0, 16 * 1024 * 1024),
    "run_retention_s": (0, 10 * 365 * 86_400),
    "stateless_retention_s": (0, 10 * 365 * 86_400),
    "max_body_bytes": (1024, 2**31),
    "max_connections": (1, 1_000_000),
    "database_connections": (3, 1000),
    "request_timeout_s": (0.1, 86_400),
    "reauthenticate_s": (0.01, 86_400),
    "audit_retention_s": (1, 10 * 365 * 86_400),
    "webhook_retention_s": (1, 10 * 365 * 86_400),
}

#: Of a field: its value is a secret, or an address of a database, which may have a password.
SECRET: Final = {"shown": "secret"}
ADDRESS: Final = {"shown": "address"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The configuration of a process. Every field can be given as ``RUNLANE_<NAME>`` in the environment.

    Attributes:
        database: ``sqlite:///path``, ``postgresql://...``, or ``memory://`` (gone with the process).
        database_schema: PostgreSQL's schema that holds all tables of Runlane; it is made if it does not exist.
        database_connections: Connections of this process to PostgreSQL at most: one for what attempts write, one for
            leases, the rest for everything else.
        database_direct: The address of the same database without a pooler, for the one connection that listens to other
            processes; empty: ``database``.
        synchronous: SQLite's durability: ``full`` survives power loss, ``normal`` a crash of the process only.
        max_concurrent_runs: Runs that execute at once in this process; more wait, in the order of admission.
        build: Which code a process executes, as others see it; by default made from the files of the graphs.
        execute_runs: Whether this process executes runs; without it, others that share the database have to.
        isolate_graphs: Execute the runs of each graph on a loop thread of its own.
        max_queued_runs: Runs that may wait behind the head of one thread's lane; more are refused.
        max_runs_per_owner: Runs of one owner that execute at once, in all processes of a ledger; 0 is no limit.
        max_runs_per_assistant: Runs of one assistant that execute at once, likewise; 0 is no limit.
        max_runs_per_graph: Runs of one graph that execute at once, likewise; 0 is no limit.
        run_timeout_s: A run that executes longer ends as ``timeout``.
        lease_s: A worker that has not renewed its leases for this long is dead. Renewed every third of it.
        max_rescues: A run that loses its worker more often than this ends as ``error``.
        cancel_grace_s: How long cancelled code may clean up before it is cancelled again.
        abandon_after_s: How long after that until it is abandoned and reported.
        drain_grace_s: How long runs may go on after SIGTERM before they are stopped and handed back.
        start_within_s: A run that no code is attached to for so long ends as ``error`` (library only).
        poll_s: How often the ledger is asked for work whose notification was lost.
        heartbeat_s: Silence on a stream after which a comment is sent.
        event_retention_s: Events and log records of an ended run are kept for so long.
        run_log_bytes: How much of what each attempt at a run logs is kept with the run, the newest records; 0: none.
        run_retention_s: Ended runs are kept for so long, with their usage and idempotency keys; 0 keeps them.
        stateless_retention_s: Ended stateless runs are kept for so long, with their threads, for readers that were cut.
        max_body_bytes: Larger request bodies are refused with 413, larger messages on sockets with 1009.
        max_connections: More connections at once, idle ones and streams included, are refused with 503.
        request_timeout_s: A request that has not arrived so long after its beginning is refused with 408.
        strict: Refuse unknown request fields instead of naming them in ``Runlane-Ignored``.
        require_owner: Calls of the library must name an owner.
        mask_errors: Show "An internal error occurred" for exceptions whose class does not say that their text was
            written for callers; ``False`` shows all texts, without secrets.
        allowed_hosts: Names, separated by spaces, of a proxy or a tunnel in front of a server that listens on this
            machine only and has no authentication. Addresses and ``localhost`` are always accepted.
        api_keys: A file of API keys, which every request must then have one of; empty: none is asked for.
        auth_missing_handler: What a user of the project's own authentication may touch where no ``@auth.on`` handler
            decides: their ``own`` things, whatever they ask for (``allow``), or nothing (``deny``).
        reauthenticate_s: How often the sender of an open stream or WebSocket is authenticated again.
        audit_retention_s: What operators did is kept for so long.
        webhook_secret: What webhooks are signed with (``whsec_...``, or several separated by spaces); empty: nothing.
        prices: A TOML file of what models cost; empty: no cost is known.
        traces: Send spans of runs by OTLP, as the variables ``OTEL_*`` say; needs the extra ``otel``.
        trace_payloads: Spans have prompts, answers, and arguments and results of tools, without secrets.
        webhook_retention_s: Webhooks that were delivered or given up are kept for so long.
    """

    database: str = field(default="sqlite:///.runlane/runlane.db", metadata=ADDRESS)
    database_schema: str = "runlane"
    database_connections: int = 10
    database_direct: str = field(default="", repr=False, metadata=ADDRESS)
    synchronous: str = "full"
    max_concurrent_runs: int = 1000
    build: str = ""
    execute_runs: bool = True
    max_queued_runs: int = 1000
    max_runs_per_owner: int = 0
    max_runs_per_assistant: int = 0
    max_runs_per_graph: int = 0
    run_timeout_s: float = 86_400.0
    lease_s: float = 30.0
    max_rescues: int = 3
    cancel_grace_s: float = 5.0
    abandon_after_s: float = 5.0
    drain_grace_s: float = 10.0
    start_within_s: float = 60.0
    poll_s: float = 5.0
    heartbeat_s: float = 5.0
    event_retention_s: float = 86_400.0
    run_log_bytes: int = 64 * 1024
    run_retention_s: float = 0.0
    stateless_retention_s: float = 300.0
    max_body_bytes: int = 50 * 1024 * 1024
    max_connections: int = 10_000
    request_timeout_s: float = 120.0
    isolate_graphs: bool = False
    strict: bool = False
    require_owner: bool = False
    mask_errors: bool = True
    allowed_hosts: str = ""
    api_keys: str = ""
    auth_missing_handler: str = "own"
    reauthenticate_s: float = 30.0
    audit_retention_s: float = 365 * 86_400.0
    webhook_secret: str = field(default="", repr=False, metadata=SECRET)
    webhook_retention_s: float = 7 * 86_400.0
    prices: str = ""
    traces: bool = False
    trace_payloads: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in _BOUNDS.items():
            value, kind = getattr(self, name), str(self.__dataclass_fields__[name].type)
            if not isinstance(value, int if kind == "int" else int | float):
                raise ConfigurationError(f"Setting {name} is {value!r}; it must be {_KINDS[kind]}.")
            if not low <= value <= high:
                raise ConfigurationError(f"Setting {name} is {value!r}; it must be from {low} to {high}.")
        if self.synchronous not in ("full", "normal"):
            raise ConfigurationError(f"Setting synchronous is {self.synchronous!r}; it must be 'full' or 'normal'.")
        if self.auth_missing_handler not in ("own", "allow", "deny"):
            raise ConfigurationError(
                f"Setting auth_missing_handler is {self.auth_missing_handler!r}; it must be 'own', 'allow' or 'deny'."
            )
        if not _SCHEMA.fullmatch(self.database_schema):
            raise ConfigurationError(
                f"Setting database_schema is {self.database_schema!r}; it must be a name of lower-case letters, digits "
                "and '_', at most 63, that does not begin with a digit or 'pg_'."
            )
        schemes = ("sqlite:///", "postgresql://", "postgres://", "memory://")
        if not self.database.startswith(schemes) or self.database == "sqlite:///":
            raise ConfigurationError(
                f"Setting database is {_without_password(self.database)!r}; it must be sqlite:///PATH, "
                "postgresql://HOST/NAME or memory://."
            )

    @property
    def on_postgres(self) -> bool:
        """Return whether the database is one that processes can share."""
        return self.database.startswith("postgres")

    @property
    def slots(self) -> int:
        """Return how many runs this process may execute at once; 0 if it executes none."""
        return self.max_concurrent_runs if self.execute_runs else 0

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None, **given: Any) -> Settings:
        """Return settings from *given* (``None`` counts as not given), else the environment, else the defaults.

        A variable that begins like one of ours and names no setting is warned of: it may be a misspelt one.

        Raises:
            ConfigurationError: A value cannot be used, or *given* names no setting.
        """
        environment = os.environ if environment is None else environment
        known = {setting.name: setting for setting in fields(cls)}
        _warn_of_unknown(environment, known)
        values: dict[str, Any] = {}
        for name, setting in known.items():
            text = environment.get(ENV_PREFIX + name.upper())
            if text is not None:
                values[name] = _parse(name, str(setting.type), text)
        for name, value in given.items():
            if name not in known:
                raise ConfigurationError(f"There is no setting {name!r}.")
            if value is not None:
                values[name] = value
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of executing runs: of this process (``slots``), and of one owner, assistant or graph; 0 is no limit."""

    slots: int = 0
    per_owner: int = 0
    per_assistant: int = 0
    per_graph: int = 0

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Return the limits that *settings* say."""
        return cls(
            slots=settings.slots,
            per_owner=settings.max_runs_per_owner,
            per_assistant=settings.max_runs_per_assistant,
            per_graph=settings.max_runs_per_graph,
        )

    @property
    def shared(self) -> bool:
        """Return whether a limit holds for all processes that share a ledger together."""
        return bool(self.per_owner or self.per_assistant or self.per_graph)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSetting:
    """A setting as operators see it.

    Attributes:
        value: ``None`` for a secret, or for an address that cannot be read; of others the password is left out.
        secret: It has a value, which is not shown.
        source: Where the value comes from: a variable of the environment; a command's option or the project
            (``given``); or nowhere (``default``).
        variable: The variable that sets it.
    """

    name: str
    value: str | float | bool | None
    default: str | float | bool | None
    secret: bool
    source: Literal["environment", "given", "default"]
    variable: str


def shown_settings(settings: Settings, environment: Mapping[str, str]) -> tuple[ShownSetting, ...]:
    """Return *settings* as operators may see them, whose process has *environment*."""
    return tuple(_shown_setting(settings, setting, environment) for setting in fields(settings))


def _shown_setting(settings: Settings, setting: Field[Any], environment: Mapping[str, str]) -> ShownSetting:
    value, kind = getattr(settings, setting.name), setting.metadata.get("shown")
    variable = ENV_PREFIX + setting.name.upper()
    source: Literal["environment", "given", "default"] = "default" if value == setting.default else "given"
    text = environment.get(variable)
    if text is not None and _parse(setting.name, str(setting.type), text) == value:
        source = "environment"
    if kind == "address":
        value = _address(value)
    return ShownSetting(
        name=setting.name,
        value=None if kind == "secret" else value,
        default=None if setting.default is MISSING else setting.default,
        secret=kind == "secret" and bool(value),
        source=source,
        variable=variable,
    )


def _address(url: str) -> str | None:
    """Return the address of a database without its user's password, or anything else that a query could say."""
    if not url.startswith("postgres"):
        return url
    try:
        parts = urlsplit(url)
        where = f"{parts.hostname or ''}{'' if parts.port is None else f':{parts.port}'}"
    except ValueError:
        return None
    user = f"{parts.username}@" if parts.username else ""
    return f"{parts.scheme}://{user}{where}{parts.path}"


def _warn_of_unknown(variables: Iterable[str], settings: Iterable[str]) -> None:
    known = {*(name.upper() for name in settings), *COMMAND_VARIABLES}
    ours = sorted(name.removeprefix(ENV_PREFIX) for name in variables if name.startswith(ENV_PREFIX))
    for name in ours:
        if name not in known:
            close = get_close_matches(name, known, n=1, cutoff=0.7)
            hint = f" did_you_mean={ENV_PREFIX}{close[0]}" if close else ""
            log.warning("settings.unknown_variable name=%s%s%s", ENV_PREFIX, name, hint)


def _parse(name: str, kind: str, text: str) -> Any:
    try:
        if kind == "bool":
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        return {"int": int, "float": float, "str": str}[kind](text)
    except (ValueError, KeyError):
        raise ConfigurationError(f"{ENV_PREFIX}{name.upper()} is {text!r}; it must be {_KINDS[kind]}.") from None


def _without_password(url: str) -> str:
    head, at, tail = url.rpartition("@")
    return f"{head.rpartition(':')[0]}:***@{tail}" if at and ":" in head.partition("//")[2] else url
