"""The place in the code where a task is now, for a person who wonders why it does not stop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, Final

from runlane.storable import storable

#: More than any real chain of awaits has links.
_MAX_LINKS: Final = 1000


def describe(frame: FrameType) -> str:
    """Return *frame* as ``file:line function``."""
    return storable(f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}")


def polls(frame: FrameType) -> bool:
    """Return whether *frame* is where asyncio's own loop waits for something to do."""
    above = frame.f_back
    return (
        frame.f_globals.get("__name__") == "selectors"
        and above is not None
        and above.f_globals.get("__name__") == "asyncio.base_events"
    )


def innermost(awaited: Any) -> FrameType | None:
    """Return the frame in which suspended code waits, before it enters asyncio itself.

    Goes through what Python shows of an await: coroutines, generators, the steps of an async generator, and tasks that
    are waited for, such as those in which a graph runs its nodes.
    """
    found: FrameType | None = None
    for _ in range(_MAX_LINKS):
        kind = next((kind for kind in ("cr", "ag", "gi") if hasattr(awaited, f"{kind}_frame")), None)
        if kind is None:
            awaited = _behind(awaited)
        else:
            frame = getattr(awaited, f"{kind}_frame")
            if frame is None:
                break
            inside = frame.f_globals.get("__package__") == "asyncio"
            found = found if inside else frame
            task = _running(frame.f_locals.values()) if inside else None
            awaited = task or getattr(awaited, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
        if awaited is None:
            break
    return found


def _behind(awaited: Any) -> Any:
    """Return what is behind an awaited object that has no frame itself, or ``None``."""
    if isinstance(awaited, asyncio.Task):
        return None if awaited.done() else awaited.get_coro()
    if isinstance(awaited, asyncio.Future):  # of gather, if it has children
        return _running([getattr(awaited, "_children", ())])
    for referent in gc.get_referents(awaited):  # a step of an async generator, or the iterator of a future
        if hasattr(referent, "ag_frame") or isinstance(referent, asyncio.Future):
            return referent
    return None


def _running(values: Iterable[Any]) -> asyncio.Task[Any] | None:
    """Return the first unfinished task among *values*, or in a collection or a task group among them."""
    return next((task for task in _tasks(values) if not task.done()), None)


def _tasks(values: Iterable[Any]) -> Iterator[asyncio.Task[Any]]:
    for value in values:
        held = getattr(value, "_tasks", ()) if isinstance(value, asyncio.TaskGroup) else value
        members = tuple(held) if isinstance(held, set | frozenset | list | tuple | dict) else (held,)
        yield from (member for member in members if isinstance(member, asyncio.Task))
