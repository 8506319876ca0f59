"""Observers: functions that are called with the events of one class, or of all."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from runlane.errors import ConfigurationError
from runlane.telemetry.events import TelemetryEvent

E = TypeVar("E", bound=TelemetryEvent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observer:
    """A function that is called with every event of ``kind``. Made by :func:`on`, which checks that the two fit."""

    kind: type[TelemetryEvent]
    handler: Callable[[Any], None]


def on(kind: type[E], handler: Callable[[E], None]) -> Observer:
    """Return the observer that calls *handler* with every event of *kind* and of its subclasses.

    The handler is called on Runlane's event loop, in the order of the events, and has to return at once: runs wait
    for it. What it raises is logged and changes nothing else.

    Args:
        kind: A class of :mod:`runlane.telemetry.events`; ``OfRun`` for all events of runs, ``TelemetryEvent`` for all.

    Raises:
        ConfigurationError: *handler* is a coroutine function.
    """
    if inspect.iscoroutinefunction(handler):
        raise ConfigurationError(
            f"The observer of {kind.__name__} is a coroutine function; pass a function, which may create a task."
        )
    return Observer(kind=kind, handler=handler)
