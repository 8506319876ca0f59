"""The parts of the store: one class per kind of row, one method per transaction."""

from __future__ import annotations
