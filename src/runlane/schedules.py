"""Cron expressions: which instants they name, in a time zone. Pure.

A schedule has five fields (minute, hour, day of month, month, day of week), or six with seconds as the last.
A schedule whose time of day has no ``*`` is kept through changes of the clock: a time that is skipped is due when the
clock has jumped, one that comes twice is due the first time. Others are due whenever the clock shows what they name.

Source: cron(8) of Debian, "local time changes"; the sixth field is where croniter has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from runlane.errors import InvalidRequest

MAX_LENGTH: Final = 256
_SECOND = timedelta(seconds=1)
_MINUTE = timedelta(minutes=1)
_ALIASES: Final[Mapping[str, str]] = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class Schedule:
    """A cron expression in a time zone."""

    def __init__(self, expression: str, timezone: str | None = None) -> None:
        """Read *expression* and *timezone*, a name of the IANA database (UTC without one).

        Raises:
            InvalidRequest: One of them makes no sense.
        """
        self._zone = _zone(timezone)
        fields = _fields(expression)
        self._expression = " ".join(fields)
        self._kept = not any(field.startswith("*") for field in fields[:3])
        try:
            CronSim(self._expression, datetime(2026, 1, 1, tzinfo=UTC))
        except CronSimError as error:
            raise _invalid(expression, str(error)) from None

    def after(self, instant: datetime) -> datetime | None:
        """Return the first slot after *instant*, in UTC; ``None`` if there is none within fifty years."""
        local = instant.astimezone(self._zone)
        for found in CronSim(self._expression, local.replace(tzinfo=None) if self._kept else local):
            slot = self._real(found)
            if slot > instant:
                return slot
        return None

    def local(self, instant: datetime) -> datetime:
        """Return *instant* in the schedule's time zone."""
        return instant.astimezone(self._zone)

    def newest(self, slot: datetime, until: datetime) -> datetime:
        """Return the newest slot from *slot*, which is one, to *until*, in a number of steps that grows slowly."""
        low, high = slot, until
        while high - low >= _SECOND:
            middle = low + (high - low) / 2
            found = self.after(middle)
            if found is not None and found <= until:
                low = found
            else:
                high = middle
        return low

    def _real(self, found: datetime) -> datetime:
        """Return the instant of a local time; of one that the clock skips, the instant after the jump."""
        if found.tzinfo is not None:
            return found.astimezone(UTC)
        while True:
            instant = found.replace(tzinfo=self._zone).astimezone(UTC)
            if instant.astimezone(self._zone).replace(tzinfo=None) == found:
                return instant
            found += _MINUTE


def _zone(name: str | None) -> tzinfo:
    if name is None or name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # no such zone, no name of a zone, a directory of zones
        raise InvalidRequest(
            f"timezone {name!r} is not in the IANA database; use a name such as 'Europe/Berlin'."
        ) from None


def _fields(expression: str) -> list[str]:
    """Return six fields, seconds first."""
    if len(expression) > MAX_LENGTH:
        raise _invalid(f"{expression[:20]}...", f"it is longer than {MAX_LENGTH} characters")
    fields = _ALIASES.get(expression.strip().lower(), expression).upper().split()
    if len(fields) not in (5, 6):
        raise _invalid(expression, f"it has {len(fields)} fields")
    days = fields[4].replace("-SUN", "-7")  # a week may end with Sunday
    return [fields[5] if len(fields) == 6 else "0", *fields[:4], days]


def _invalid(expression: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"schedule {expression!r} is not valid: {why}. It has five fields (minute, hour, day of month, month, day of "
        "week), or six with seconds as the last."
    )
