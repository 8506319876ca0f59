"""Types of arguments and options: JSON from the command line, a file or stdin; times and durations."""

from __future__ import annotations

import json
import math
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, Final

import click

from runlane.errors import ConfigurationError
from runlane.settings import Settings

_AGO: Final = re.compile(r"(\d{1,9})(s|m|h|d|w)\Z")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class JsonValue(click.ParamType[Any]):
    """JSON: as it is, ``@FILE``, or ``-`` for stdin."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            if value == "-":
                return json.loads(_read(sys.stdin.buffer))
            if value.startswith("@"):
                with open(value[1:], "rb") as file:
                    return json.loads(_read(file))
            return json.loads(value)
        except (OSError, ValueError, RecursionError, ConfigurationError) as error:
            self.fail(f"{value!r:.80} is not JSON, nor @FILE with JSON in it ({error}).", param, ctx)


def _read(source: BinaryIO) -> bytes:
    """Return what *source* has.

    Raises:
        ConfigurationError: It is more than a server takes.
    """
    limit = Settings.load().max_body_bytes
    found = source.read(limit + 1)
    if len(found) > limit:
        raise ConfigurationError(
            f"it has more than {limit:,} bytes; if the server takes more, set RUNLANE_MAX_BODY_BYTES here too"
        )
    return found


class JsonObject(JsonValue):
    """A JSON object: as it is, ``@FILE``, or ``-`` for stdin."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        found = super().convert(value, param, ctx)
        if not isinstance(found, dict):
            self.fail(f'{value!r:.80} is no JSON object, such as {{"team": "billing"}}.', param, ctx)
        return found


class Finite(click.FloatRange):
    """A number that is neither NaN nor infinite."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


class Moment(click.ParamType[str]):
    """An instant: ISO 8601, in UTC unless it has an offset, or how long ago, such as ``30m``, ``2h`` or ``7d``."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if ago := _AGO.match(value):
            try:
                return (datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})).isoformat()
            except OverflowError:
                self.fail(f"{value!r} is before the beginning of time.", param, ctx)
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is neither a time such as 2026-01-31T12:00 nor an age such as 2h.", param, ctx)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()


JSON: Final = JsonValue()
JSON_OBJECT: Final = JsonObject()
MOMENT: Final = Moment()
