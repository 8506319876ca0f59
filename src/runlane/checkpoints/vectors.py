"""Vectors as they are stored, and how alike they are. Pure; the only module that needs numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

#: Four bytes a number, in the same order on every machine.
_STORED: Final = np.dtype("<f4")

Vector = NDArray[np.float32]


def unit_vectors(vectors: Any, *, dims: int, count: int) -> NDArray[np.float32]:
    """Return *count* vectors as rows of length 1, so that their products are cosines; one of zeros stays as it is.

    Raises:
        ValueError: These are not *count* vectors of *dims* finite numbers.
    """
    rows = np.asarray(vectors, dtype=np.float64)
    if rows.shape != (count, dims):
        raise ValueError(f"expected {count} vectors of {dims} numbers, got the shape {rows.shape}")
    if not np.isfinite(rows).all():
        raise ValueError("a vector has a number that is not finite")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0), dtype=_STORED)


def literal(vector: Vector) -> str:
    """Return a vector as pgvector reads it."""
    return "[" + ",".join(f"{number:.9g}" for number in vector.tolist()) + "]"


def literals(stored: bytes, dims: int) -> list[str]:
    """Return an item's stored vectors as pgvector reads them."""
    return [literal(vector) for vector in np.frombuffer(stored, dtype=_STORED).reshape(-1, dims)]


def similarity(stored: Sequence[bytes], query: NDArray[np.float32]) -> list[float]:
    """Return how alike each item is to *query*: the cosine of the best of the vectors that it has stored."""
    if not stored:
        return []
    width = _STORED.itemsize * len(query)
    cosines = np.frombuffer(b"".join(stored), dtype=_STORED).reshape(-1, len(query)) @ query
    begins = np.cumsum([0, *(len(one) // width for one in stored[:-1])])
    return [float(best) for best in np.maximum.reduceat(cosines, begins)]
