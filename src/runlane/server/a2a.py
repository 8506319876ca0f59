"""The Agent2Agent protocol: every assistant is an agent that others can call."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["A2A"])
