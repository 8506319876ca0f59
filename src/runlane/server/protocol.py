"""The event-streaming protocol: commands and events of a thread, over SSE and WebSocket."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["Protocol"])
