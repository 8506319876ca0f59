"""A graph that is given secrets in every way there is, and ends in every way there is; and who may ask it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph_sdk import Auth

auth = Auth()


@auth.authenticate
async def authenticate(authorization: str | None, headers: dict[bytes, bytes]) -> Any:
    """Return a user with a secret; a token that ends with ``-unknown`` meets a defect that tells it."""
    if (authorization or "").endswith("-unknown"):
        raise ValueError(
            f"the directory does not know 'authorization': '{authorization}', cookie={headers[b'cookie']!r}"
        )
    return {"identity": "ann", "permissions": ["all"], "secret_token": os.environ["CANARY_USER"]}


class State(TypedDict, total=False):
    end: str
    had: list[str]


def crash_once() -> None:
    """Kill the process, unless it is the second one."""
    mark = Path(os.environ["CRASHED"])
    if not mark.exists():
        mark.touch()
        os._exit(7)


async def node(state: State, config: RunnableConfig) -> State:
    given = config["configurable"]
    user = given["langgraph_auth_user"]
    get_stream_writer()({"began": state["end"]})
    if state["end"] == "failure":
        raise ValueError(f"the provider refused {given['api_key']} of {config['metadata']}")
    if state["end"] == "strange":
        raise ConnectionError(f"cannot reach postgresql://ann:{given['api_key']}@db with {given}")
    if state["end"] == "cancel":
        await asyncio.sleep(3600)
    if state["end"] == "crash":
        crash_once()
    had = [name for name in ("api_key", "x-auth-token") if str(given.get(name)).startswith("canary-")]
    had += ["env"] if os.environ["OPENAI_API_KEY"].startswith("canary-") else []
    had += ["user"] if str(user.get("secret_token")).startswith("canary-") else []
    return {"had": had}


graph = StateGraph(State).add_node("node", node).add_edge(START, "node").add_edge("node", END).compile()
