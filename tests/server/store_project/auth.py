"""Handlers that change where a request to the store goes, and refuse one."""

from __future__ import annotations

from typing import Any

from langgraph_sdk import Auth

auth = Auth()


@auth.authenticate
async def authenticate(headers: dict[bytes, bytes]) -> str:
    return headers[b"authorization"].decode().removeprefix("Bearer ")


@auth.on.store
async def within(ctx: Auth.types.AuthContext, value: Any) -> bool:
    """Put everything under the name of the day, which no client sends."""
    value["namespace"] = ("monday", *(value["namespace"] or ()))
    return bool(ctx.action != "delete")
