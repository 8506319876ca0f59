"""The databases: each runs transactions, and translates its errors."""

from __future__ import annotations
