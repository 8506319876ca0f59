"""The Model Context Protocol: every assistant is a tool."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["MCP"])
