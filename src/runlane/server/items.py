"""Routes of the long-term store: items in namespaces."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(tags=["Store"])
