"""LangGraph graphs as agents. This module needs the extra ``agents``; without it ``import runlane`` works as well."""

from __future__ import annotations

from runlane.extras import needs_extra

with needs_extra("agents", "runlane.graphs"):
    from runlane.agents.graph import GraphAgent
    from runlane.agents.registry import Registry

__all__ = ["GraphAgent", "Registry"]
