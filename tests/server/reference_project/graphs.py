"""Graphs whose answers tell what a server gave them, and what it can show."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict

#: Values that LangGraph's serialiser stores, by kind.
VALUES = {
    "address": IPv4Address("192.0.2.7"),
    "address6": IPv6Address("2001:db8::7"),
    "network": IPv4Network("192.0.2.0/24"),
    "zone": ZoneInfo("Europe/Berlin"),
    "path": Path("/opt/x"),
    "decimal": Decimal("1.50"),
    "uuid": UUID("3f2b8c1e-0000-4000-8000-000000000001"),
    "set": {1},
    "frozenset": frozenset({2}),
    "bytes": b"ab",
    "instant": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    "date": date(2026, 1, 2),
    "span": timedelta(seconds=90),
    "tuple": (1, 2),
}


class State(TypedDict, total=False):
    kinds: list[str]
    value: Any


async def give_values(state: State) -> dict[str, Any]:
    return {"value": {kind: VALUES[kind] for kind in state["kinds"]}}


async def give_keys(state: State, config: RunnableConfig) -> dict[str, Any]:
    """Return the names of what the configuration has, but for LangGraph's own."""
    configurable = config["configurable"]
    return {
        "value": {
            "configurable": sorted(key for key in configurable if not key.startswith("__")),
            "metadata": sorted(config["metadata"]),
            "user_id": configurable.get("user_id"),
            "langgraph_auth_user_id": configurable.get("langgraph_auth_user_id"),
            "langgraph_auth_permissions": list(configurable.get("langgraph_auth_permissions") or ()),
        }
    }


async def whisper(state: State) -> dict[str, Any]:
    """Call one thing that traces show, and one that they do not."""
    shout = RunnableLambda(len).with_config(run_name="shout")
    hidden = RunnableLambda(len).with_config(run_name="whisper", tags=["langsmith:hidden"])
    return {"value": await shout.ainvoke("a") + await hidden.ainvoke("bc")}


values = StateGraph(State).add_node("give", give_values).add_edge(START, "give").compile()
hidden = StateGraph(State).add_node("give", whisper).add_edge(START, "give").compile()
keys = StateGraph(State).add_node("give", give_keys).add_edge(START, "give").compile()
