"""Routes of the Agent2Agent protocol."""

from __future__ import annotations

from typing import Any, Final

from runlane.server.http import answers
from runlane.server.http.requests import Body, Object
from runlane.server.http.route import Resource, Route
from runlane.server.protocols.a2a.calls import call
from runlane.server.protocols.a2a.card import any_card, card

_EXAMPLE: Final[Object] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "message/send",
    "params": {
        "message": {"role": "user", "messageId": "1", "parts": [{"kind": "text", "text": "Where is my order?"}]}
    },
}


class A2aRequest(Body):
    """A request of JSON-RPC 2.0."""

    jsonrpc: str
    method: str
    id: int | str | None = None
    params: dict[str, Any] | None = None


A2A = Resource(
    tag="A2A",
    group="a2a",
    routes=(
        Route("GET /.well-known/agent-card.json", any_card, answer=answers.AgentCard, errors=(400, 404)),
        Route("GET /a2a/{assistant_id}/.well-known/agent-card.json", card, answer=answers.AgentCard, errors=(404,)),
        Route("GET /a2a/{assistant_id}/.well-known/agent.json", card, answer=answers.AgentCard, errors=(404,)),
        Route("GET /a2a/{assistant_id}", card, answer=answers.AgentCard, errors=(404,)),
        Route(
            "POST /a2a/{assistant_id}",
            call,
            answer=answers.RpcAnswer,
            errors=(409, 429),
            reads=A2aRequest,
            example=_EXAMPLE,
        ),
    ),
)
