"""All cases by name: what each measures, and which sides can do it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from client import Figures, Server
from conversations import big_state, image, long_chat, long_chat_stream
from crowds import growth, restart, search, stalled, start, viewers
from load import LOADS
from sides import RunlaneSide, Side
from sizes import Sizes

Measure = Callable[[Side, Sizes, Path], Awaitable[Figures]]


@dataclass(frozen=True, slots=True)
class Case:
    measure: Measure
    can: Callable[[Side], bool]
    timeout_s: float = 300.0
    #: It uses the server that all such cases of a round share.
    is_load: bool = False


def _all(_: Side) -> bool:
    return True


def _manages(side: Side) -> bool:
    return side.manages


def _can_start(side: Side) -> bool:
    return side.name != "other"


def _runlane(side: Side) -> bool:
    return isinstance(side, RunlaneSide)


def _this(side: Side) -> bool:
    return side.name == RunlaneSide.name


def _on_the_shared_server(load: Callable[[Server, Sizes], Awaitable[Figures]]) -> Measure:
    async def measure(side: Side, sizes: Sizes, folder: Path) -> Figures:
        return await load(await side.shared(), sizes)

    return measure


#: Of the loads, those that need no run manager.
_PLAIN: Final = ("wait", "ttfe", "stream", "fanout", "idle", "steps")
CASES: Final[dict[str, Case]] = {
    **{
        name: Case(_on_the_shared_server(load), _all if name in _PLAIN else _manages, is_load=True)
        for name, load in LOADS.items()
    },
    "long_chat": Case(long_chat, _all, 900),
    "long_chat_stream": Case(long_chat_stream, _all, 900),
    "image": Case(image, _all),
    "big_state": Case(big_state, _all, 600),
    "start": Case(start, _can_start),
    "viewers": Case(viewers, _manages, 600),
    "stalled": Case(stalled, _manages, 600),
    "restart": Case(restart, _runlane, 900),
    "growth": Case(growth, _runlane, 1800),
    "search": Case(search, _this, 1800),
}
