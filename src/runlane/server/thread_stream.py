"""The stream of a thread: the events of all its runs, and of its state."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["Threads"])
