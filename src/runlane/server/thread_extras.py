"""Routes of threads that copy, prune and measure."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["Threads"])
