"""Agent cards: how an agent is called, and what it takes."""

from __future__ import annotations

from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from runlane.errors import NotFound
from runlane.records import Assistant
from runlane.server.http.queries import QueryModel
from runlane.server.http.requests import BadRequest
from runlane.server.http.responses import json_response
from runlane.server.routes.assistants import assistant_to_run
from runlane.server.routes.authorization import service_of
from runlane.server.service import graph_config

TEXT: Final = ("text/plain", "application/json")


class CardQuery(QueryModel):
    assistant_id: str | None = None


async def any_card(request: Request, query: CardQuery) -> Response:
    """Describe the agent that the query names."""
    if query.assistant_id is None:
        raise BadRequest("Name the agent: ?assistant_id=...")
    return json_response(await _card(request, query.assistant_id))


async def card(request: Request) -> Response:
    """Describe an agent, in both versions of the protocol at once."""
    return json_response(await _card(request, request.path_params["assistant_id"]))


async def _card(request: Request, named: str) -> dict[str, Any]:
    assistant = await find_agent(request, named)
    url = f"{str(request.base_url).rstrip('/')}/a2a/{assistant.assistant_id}"
    description = assistant.description or f"The agent {assistant.name}."
    skill = {"id": assistant.graph_id, "name": assistant.name, "description": description, "tags": ["agent"]}
    return {
        "name": assistant.name,
        "description": description,
        "version": str(assistant.version),
        "url": url,
        "preferredTransport": "JSONRPC",
        "protocolVersion": "0.3.0",
        "supportedInterfaces": [
            {"url": url, "protocolBinding": "JSONRPC", "protocolVersion": spoken} for spoken in ("1.0", "0.3")
        ],
        "provider": {"organization": "Runlane", "url": str(request.base_url)},
        "capabilities": {"streaming": True, "pushNotifications": False, "extendedAgentCard": False},
        "defaultInputModes": list(TEXT),
        "defaultOutputModes": list(TEXT),
        "skills": [skill],
    }


async def find_agent(request: Request, named: str) -> Assistant:
    """Return the assistant *named*.

    Raises:
        NotFound: There is none that the request may read, or its graph takes no messages.
    """
    service, assistant = service_of(request), await assistant_to_run(request, named)
    if assistant.graph_id not in service.registry.graph_ids:
        raise NotFound("graph", assistant.graph_id)
    states = service.states(assistant.owner, graph_config(assistant))
    schemas = orjson.loads(await service.on_agents(lambda: states.schemas(assistant.graph_id)))
    if "messages" not in ((schemas["input_schema"] or {}).get("properties") or {}):
        raise NotFound("agent that takes messages", named)
    return assistant
