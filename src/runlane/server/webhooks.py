"""Routes of webhook deliveries: what was sent, what waits, and sending again."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["Webhooks"])
