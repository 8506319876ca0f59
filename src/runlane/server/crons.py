"""Routes of crons: runs that start by the clock."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["Crons"])
