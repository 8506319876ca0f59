"""The section ``checkpointer`` of langgraph.json: when threads expire of which nothing else is said.

Source: the configuration file of the LangGraph CLI.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from runlane.agents.langgraph_json import read_graphs_file
from runlane.maintenance.retention import SWEEP_EVERY_S, SWEEP_LIMIT
from runlane.records import PruneStrategy, ThreadTtl

Minutes = Annotated[float, msgspec.Meta(gt=0, le=52_560_000)]


class ThreadTtlSection(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    strategy: PruneStrategy = "delete"
    default_ttl: Minutes | None = None
    sweep_interval_minutes: Minutes | None = None
    sweep_limit: Annotated[int, msgspec.Meta(ge=1)] | None = None


class CheckpointerSection(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    backend: str | None = None
    ttl: ThreadTtlSection | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """The expiry of threads whose creator sets none, and its sweep."""

    default: ThreadTtl | None = None
    every_s: float = SWEEP_EVERY_S
    limit: int = SWEEP_LIMIT


def load_expiry(config: Path | None) -> Expiry:
    """Read what the file at *config* says; without a file, or a word in it, nothing expires of itself.

    Raises:
        ConfigurationError: The section has what is not supported; it names the key.
    """
    section = None if config is None else read_graphs_file(config).section("checkpointer", CheckpointerSection)
    if section is None or section.ttl is None:
        return Expiry()
    ttl = section.ttl
    return Expiry(
        default=None if ttl.default_ttl is None else ThreadTtl(ttl_s=ttl.default_ttl * 60, strategy=ttl.strategy),
        every_s=SWEEP_EVERY_S if ttl.sweep_interval_minutes is None else ttl.sweep_interval_minutes * 60,
        limit=ttl.sweep_limit or SWEEP_LIMIT,
    )
