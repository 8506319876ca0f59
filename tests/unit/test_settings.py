"""Settings are checked once, whatever they come from."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from runlane.errors import ConfigurationError
from runlane.settings import Settings, shown_settings

NUMBERS = [field.name for field in fields(Settings) if str(field.type) in ("int", "float")]


def test_the_defaults_are_valid_and_frozen() -> None:
    settings = Settings.load({})
    assert settings == Settings()
    with pytest.raises(FrozenInstanceError):
        settings.lease_s = 1.0  # type: ignore[misc]


def test_an_argument_wins_over_the_environment_which_wins_over_the_default() -> None:
    environment = {"RUNLANE_LEASE_S": "7", "RUNLANE_MAX_RESCUES": "5"}
    settings = Settings.load(environment, lease_s=9.0, poll_s=None)
    assert (settings.lease_s, settings.max_rescues, settings.poll_s) == (9.0, 5, Settings().poll_s)


@pytest.mark.parametrize("name", [field.name for field in fields(Settings)])
def test_every_setting_can_be_given_in_the_environment(name: str) -> None:
    default = getattr(Settings(), name)
    text = {"database": "memory://", "synchronous": "normal", "auth_missing_handler": "deny"}.get(name)
    text = text or (str(not default).lower() if isinstance(default, bool) else str(default + type(default)(1)))
    found = getattr(Settings.load({f"RUNLANE_{name.upper()}": text}), name)
    assert found != default
    assert type(found) is type(default)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_a_number_out_of_bounds_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Settings.load({}, **{name: value})


@pytest.mark.parametrize(
    ("variable", "text"),
    [("LEASE_S", "soon"), ("MAX_RESCUES", "1.5"), ("STRICT", "perhaps"), ("SYNCHRONOUS", "off")]
    + [("DATABASE", text) for text in ("x.db", "", "sqlite:///")],
)
def test_a_bad_variable_is_refused_by_name(variable: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"(?i){variable}"):
        Settings.load({f"RUNLANE_{variable}": text})


@pytest.mark.parametrize("text", ["true", "TRUE", "1"])
def test_a_switch_is_read_as_people_write_it(text: str) -> None:
    assert Settings.load({"RUNLANE_STRICT": text}).strict is True
    assert Settings.load({"RUNLANE_STRICT": "false"}).strict is False


def test_a_setting_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="leese_s"):
        Settings.load({}, leese_s=1)


@pytest.mark.parametrize(
    ("name", "value", "wanted"), [("max_concurrent_runs", "5", "a whole number"), ("lease_s", None, "a number")]
)
def test_a_value_of_another_type_is_refused(name: str, value: object, wanted: str) -> None:
    given: dict[str, Any] = {name: value}
    with pytest.raises(ConfigurationError, match=f"Setting {name} is {value!r}; it must be {wanted}."):
        Settings(**given)


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        ("RUNLANE_DRAIN_GRACE", "name=RUNLANE_DRAIN_GRACE did_you_mean=RUNLANE_DRAIN_GRACE_S"),
        ("RUNLANE_LOGLEVEL", "name=RUNLANE_LOGLEVEL did_you_mean=RUNLANE_LOG_LEVEL"),
        ("RUNLANE_COLOUR", "name=RUNLANE_COLOUR"),
    ],
)
def test_a_variable_that_names_no_setting_is_warned_of(
    variable: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert Settings.load({variable: "1"}) == Settings()
    assert caplog.messages == [f"settings.unknown_variable {told}"]


def test_variables_of_others_and_of_the_command_line_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    Settings.load({"HOME": "/", "RUNLANE_PORT": "80", "RUNLANE_URL": "http://x", "RUNLANE_LEASE_S": "9"})
    assert not caplog.messages


@pytest.mark.parametrize("url", ["mysql://ann:secret@host/db", "mongodb://ann:secret@host"])
def test_a_refused_address_does_not_show_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Settings(database=url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("database", ["memory://", "sqlite:///runs.db", "postgresql://h/db", "postgres://h/db"])
def test_every_kind_of_database_is_accepted(database: str) -> None:
    settings: Any = Settings(database=database)
    assert settings.database == database


def test_secrets_and_passwords_are_not_shown() -> None:
    given = {
        "database": "postgresql://me:hidden@db:5432/runs?password=hidden",
        "database_direct": "postgresql://me:hidden@db/runs",
        "webhook_secret": "hidden",
    }
    shown = {one.name: one for one in shown_settings(Settings(**given), {})}
    assert "hidden" not in str(shown)
    assert shown["database"].value == "postgresql://me@db:5432/runs"
    assert (shown["webhook_secret"].value, shown["webhook_secret"].secret) == (None, True)
    assert shown_settings(Settings(database="postgresql://[x"), {})[0].value is None


def test_a_setting_that_is_left_out_of_logs_says_how_it_is_shown() -> None:
    assert all("shown" in setting.metadata for setting in fields(Settings) if not setting.repr)


def test_where_a_setting_comes_from_is_shown() -> None:
    environment = {"RUNLANE_MAX_RESCUES": "5", "RUNLANE_LEASE_S": "7"}
    settings = Settings.load(environment, lease_s=9.0, poll_s=2.0)
    shown = {one.name: (one.value, one.source) for one in shown_settings(settings, environment)}
    assert shown["max_rescues"] == (5, "environment")
    assert shown["lease_s"] == (9.0, "given")
    assert shown["poll_s"] == (2.0, "given")
    assert shown["heartbeat_s"] == (5.0, "default")
