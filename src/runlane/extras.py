"""Optional dependencies: what a module that is missing belongs to, and what to install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

from runlane.errors import ConfigurationError

Extra = Literal["agents", "otel", "postgres", "search", "server"]

#: Top-level modules that an installation has only with the extra.
MODULES: Final[dict[Extra, frozenset[str]]] = {
    "agents": frozenset({"langchain_core", "langgraph", "ormsgpack"}),
    "otel": frozenset({"opentelemetry"}),
    "postgres": frozenset({"procrastinate", "psycopg", "psycopg_pool"}),
    "search": frozenset({"numpy"}),
    "server": frozenset({"click", "cronsim", "dotenv", "httpx", "starlette", "uvicorn", "watchfiles"}),
}


def install_hint(extra: Extra) -> str:
    """Return the command that installs *extra*."""
    return f"pip install 'runlane[{extra}]'"


@contextmanager
def needs_extra(extra: Extra, feature: str) -> Iterator[None]:
    """Translate the ``ModuleNotFoundError`` of an import within.

    Args:
        feature: Begins the message, such as ``"PostgreSQL"``.

    Raises:
        ConfigurationError: A module of *extra* is not installed; the message has the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in MODULES[extra]:
            raise
        raise ConfigurationError(f"{feature} needs an extra: {install_hint(extra)}.") from error
