"""The long-term store that a project configures: the key ``store`` of langgraph.json."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from langchain_core.embeddings import Embeddings
from langgraph.store.base import TTLConfig, ensure_embeddings

from runlane.agents.host import AgentHost
from runlane.agents.langgraph_json import GraphsFile, read_graphs_file
from runlane.agents.registry import import_object
from runlane.checkpoints.store import MAX_TTL_MINUTES, LedgerLongTermStore
from runlane.errors import ConfigurationError
from runlane.extras import needs_extra
from runlane.store.statements import Driver

Minutes = Annotated[float, msgspec.Meta(gt=0, le=MAX_TTL_MINUTES)]
#: Makes the store on an open database, for the place where agents run.
NewStore = Callable[[Driver, AgentHost], LedgerLongTermStore]
_EMBED: Final = "store.index.embed"


class IndexSection(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The semantic index of the long-term store."""

    dims: Annotated[int, msgspec.Meta(ge=1, le=65_536)]
    embed: str
    fields: Annotated[list[str], msgspec.Meta(min_length=1)] | None = None


class ItemTtlSection(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """TTLs of items."""

    refresh_on_read: bool = True
    default_ttl: Minutes | None = None
    sweep_interval_minutes: Annotated[int, msgspec.Meta(ge=1, le=MAX_TTL_MINUTES)] | None = None


class StoreSection(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The key ``store`` of langgraph.json."""

    index: IndexSection | None = None
    ttl: ItemTtlSection | None = None


def load_store(config: Path | None) -> NewStore | None:
    """Return what makes the store that *config* describes; nothing if it says nothing about one.

    Blocks; runs the user's code.

    Raises:
        ConfigurationError: It cannot be used.
    """
    file = None if config is None else read_graphs_file(config)
    section = None if file is None else file.section("store", StoreSection)
    if section is None or file is None:
        return None
    ttl = _ttl(section.ttl)
    if section.index is None:
        return lambda driver, host: LedgerLongTermStore(driver, ttl=ttl)
    return _with_index(file, section.index, ttl)


def _with_index(file: GraphsFile, index: IndexSection, ttl: TTLConfig | None) -> NewStore:
    with needs_extra("search", f"{file.path}: store.index"):
        from runlane.checkpoints.embeddings import SemanticIndex  # noqa: PLC0415  # an extra
    embed = _embeddings(file, index.embed)

    def new_store(driver: Driver, host: AgentHost) -> LedgerLongTermStore:
        semantic = SemanticIndex(
            dims=index.dims, embed=embed, fields=index.fields, on_agents=host.run, control=host.control
        )
        return LedgerLongTermStore(driver, ttl=ttl, index=semantic)

    return new_store


def _ttl(section: ItemTtlSection | None) -> TTLConfig | None:
    if section is None:
        return None
    return TTLConfig(
        refresh_on_read=section.refresh_on_read,
        default_ttl=section.default_ttl,
        sweep_interval_minutes=section.sweep_interval_minutes,
    )


def _embeddings(file: GraphsFile, spec: str) -> Any:
    """Return what *spec* names: an object of the project, or a provider's model."""
    where, _, name = spec.partition(":")
    if not where or not name:
        raise ConfigurationError(
            f"{file.path}: {_EMBED} {spec!r} must be 'path/to/file.py:name', 'package.module:name' or 'provider:model'."
        )
    if "." not in where and "/" not in where:
        return _provider(file, spec)
    file.apply()
    found = import_object(file, _EMBED, spec)
    if isinstance(found, type) or not (callable(found) or isinstance(found, Embeddings)):
        raise ConfigurationError(
            f"{file.path}: {_EMBED} {spec!r} is {found!r}, not a function of texts or an object of LangChain's class "
            "Embeddings."
        )
    return found


def _provider(file: GraphsFile, spec: str) -> Embeddings:
    try:
        return ensure_embeddings(spec)
    except Exception as error:  # packages that are missing, models and keys that do not exist: all said at the start
        raise ConfigurationError(f"{file.path}: {_EMBED} {spec!r} cannot be used: {error}") from error
