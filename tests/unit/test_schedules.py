"""Which instants a cron expression names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runlane.errors import InvalidRequest
from runlane.schedules import Schedule

SPRING, AUTUMN = "2026-03-08 00:00", "2026-11-01 00:00"  # the days on which New York changes its clocks


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def slots(expression: str, after: str, count: int, timezone: str | None = None) -> list[str]:
    """Return slots as a clock of UTC shows them, without the year."""
    schedule, slot, found = Schedule(expression, timezone), utc(after), []
    for _ in range(count):
        following = schedule.after(slot)
        assert following is not None
        assert following.tzinfo is UTC
        assert following > slot
        slot = following
        found.append(f"{slot:%m-%d %H:%M:%S}".removesuffix(":00"))
    return found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("*/20 * * * *", ["01-01 00:20", "01-01 00:40", "01-01 01:00"]),
        ("0 9 * * MON-FRI", ["01-01 09:00", "01-02 09:00", "01-05 09:00"]),
        ("0 9 * * sat-sun", ["01-03 09:00", "01-04 09:00", "01-10 09:00"]),
        ("0 0 * * 7", ["01-04 00:00", "01-11 00:00", "01-18 00:00"]),
        ("0 0 L * *", ["01-31 00:00", "02-28 00:00", "03-31 00:00"]),
        ("0 0 * * MON#2", ["01-12 00:00", "02-09 00:00", "03-09 00:00"]),
        ("0 0 13 * 5", ["01-02 00:00", "01-09 00:00", "01-13 00:00"]),
        ("0 0 29 2 *", ["02-29 00:00", "02-29 00:00", "02-29 00:00"]),
        ("* * * * * */20", ["01-01 00:00:20", "01-01 00:00:40", "01-01 00:01"]),
        ("0 12 * * * 5", ["01-01 12:00:05", "01-02 12:00:05", "01-03 12:00:05"]),
        ("@daily", ["01-02 00:00", "01-03 00:00", "01-04 00:00"]),
        (" @Hourly ", ["01-01 01:00", "01-01 02:00", "01-01 03:00"]),
    ],
)
def test_an_expression_names_instants(expression: str, expected: list[str]) -> None:
    assert slots(expression, "2026-01-01 00:00", 3) == expected


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        # 02:00 to 03:00 do not exist: what is due then is due at 03:00, which is 07:00 in UTC, and once.
        ("30 2 * * *", SPRING, ["03-08 07:00", "03-09 06:30"]),
        ("15,45 2 * * *", SPRING, ["03-08 07:00", "03-09 06:15"]),
        ("30 2 * * * 10", SPRING, ["03-08 07:00:10", "03-09 06:30:10"]),
        ("*/30 2 * * *", SPRING, ["03-09 06:00", "03-09 06:30"]),
        ("30 * * * *", "2026-03-08 06:00", ["03-08 06:30", "03-08 07:30"]),
        # 01:00 to 02:00 come twice, at 05:00 and at 06:00 in UTC.
        ("30 1 * * *", AUTUMN, ["11-01 05:30", "11-02 06:30"]),
        ("30 1 * * *", "2026-11-01 05:45", ["11-02 06:30"]),
        ("30 1 * * *", "2026-11-01 06:15", ["11-02 06:30"]),
        ("30 1 * * * 10", AUTUMN, ["11-01 05:30:10", "11-02 06:30:10"]),
        ("*/30 1 * * *", AUTUMN, ["11-01 05:00", "11-01 05:30", "11-01 06:00", "11-01 06:30", "11-02 06:00"]),
        ("0 * * * *", "2026-11-01 04:30", ["11-01 05:00", "11-01 06:00", "11-01 07:00"]),
        ("0 9 * * *", "2026-03-07 00:00", ["03-07 14:00", "03-08 13:00"]),
    ],
)
def test_a_schedule_is_kept_through_changes_of_the_clock(expression: str, after: str, expected: list[str]) -> None:
    assert slots(expression, after, len(expected), "America/New_York") == expected


def test_a_day_that_a_zone_skips_is_made_up_for_when_the_next_begins() -> None:
    """Samoa had no 30 December 2011: after the 29th, which ended at 10:00 in UTC, came the 31st."""
    assert slots("0 12 30 12 *", "2011-12-01 00:00", 2, "Pacific/Apia") == ["12-30 10:00", "12-29 22:00"]


@pytest.mark.parametrize(
    "expression",
    [
        "60 * * * *",
        "* * * *",
        "* * * * * * *",
        "a b c d e",
        "",
        "5-1 * * * *",
        "0 0 30 2 *",
        "*/0 * * * *",
        "* * * * MON#6",
        "0 0 ? * *",
        "@reboot",
        "* * * * ²",
        "9" * 300,
    ],
)
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(InvalidRequest, match="schedule"):
        Schedule(expression)


@pytest.mark.parametrize("timezone", ["", "Nowhere", "Europe", "../UTC", "/etc/localtime", "a\0b", "x" * 5000])
def test_what_is_no_time_zone_is_refused(timezone: str) -> None:
    with pytest.raises(InvalidRequest, match="timezone"):
        Schedule("* * * * *", timezone)


def test_a_schedule_that_names_no_date_has_no_slot() -> None:
    assert Schedule("* * */20 * 1L").after(utc("2026-01-01 00:00")) is None


@settings(deadline=None, max_examples=300)
@given(st.text("0123456789*/,-LW#?@ MONSUJAFEB", max_size=40))
def test_no_text_does_worse_than_be_refused(text: str) -> None:
    try:
        schedule = Schedule(text, "Europe/Berlin")
    except InvalidRequest:
        return
    schedule.after(utc("2026-01-01 00:00"))


FIELD = {"minute": st.integers(0, 59), "hour": st.integers(0, 23), "day": st.integers(1, 28)}


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(
        [
            "* * * * *",
            "*/7 * * * *",
            "{minute} * * * *",
            "{minute} {hour} * * *",
            "{minute} {hour} {day} * *",
            "* {hour} * * * {minute}",
            "* * * * * */13",
            "{minute} {hour} * * 3 5",
        ]
    ),
    st.fixed_dictionaries(FIELD),
    st.sampled_from([None, "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1)),
    st.timedeltas(timedelta(seconds=1), timedelta(days=40)),
)
def test_the_newest_slot_is_the_last_that_comes_before_the_next(
    pattern: str, values: dict[str, int], timezone: str | None, start: datetime, later: timedelta
) -> None:
    schedule = Schedule(pattern.format(**values), timezone)
    first = schedule.after(start.replace(tzinfo=UTC))
    assert first is not None
    until = first + later
    newest = schedule.newest(first, until)
    assert first <= newest <= until
    following = schedule.after(newest)
    assert following is not None
    assert following > until
    assert newest == first or schedule.after(newest - timedelta(microseconds=1)) == newest
