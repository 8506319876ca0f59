"""Routes that concern many runs: batches and cancelling many."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["Runs"])
