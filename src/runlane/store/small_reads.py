"""Small reads, which take less on the calling thread than handing them over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from runlane.errors import StoreUnavailable
from runlane.store.statements import Driver, Transaction

T = TypeVar("T")


async def read_small(
    driver: Driver,
    make: Callable[[], Transaction[T]],
    otherwise: Callable[[], Awaitable[T]],
    *,
    snapshot: bool = True,
) -> T:
    """Return what the transaction finds on the calling thread; if *driver* cannot read there now, *otherwise*.

    Args:
        snapshot: Whether the transaction has several statements, which are to see the same state.
    """
    read_now: Callable[..., Any] | None = getattr(driver, "read_now", None)
    if read_now is not None:
        with suppress(StoreUnavailable):
            found: T = read_now(make(), snapshot=snapshot)
            return found
    return await otherwise()
