"""The address of a PostgreSQL database: what is said of one that cannot be used has nothing of its password."""

from __future__ import annotations

import traceback

import pytest
from click.testing import CliRunner

from runlane.cli.main import app
from runlane.errors import ConfigurationError
from runlane.store.drivers.postgres_address import parts_of
from runlane.store.drivers.postgres_link import Times, address
from runlane.store.drivers.postgres_notifications import Listener
from runlane.store.notifications import Notifications

#: Addresses whose password is "hunter2", with characters that make them others, and what is said of each.
UNUSABLE = {
    "postgresql://me:hunter2%zz@h/db": "invalid percent-encoded token",
    "postgresql://me:hunter2%00@h/db": "forbidden value %00 in percent-encoded value",
    "postgresql://me:p@hunter2/w%s@h/db": "invalid percent-encoded token",
    "postgresql://me:p@hunter2@h/db": 'its host has an "@"',
    "postgresql://localhost:hunter2/w@h/db": "its port is not a number",
    "postgresql://me:hunter2@[::1]x5432/db": 'unexpected character "x" at position 30 in URI',
    "postgresql://me:hunter2@[::1/db": 'end of string reached when looking for matching "]"',
    "postgresql://me:hunter2@[]/db": "IPv6 host address may not be empty in URI",
    "postgresql://me:hunter2@h/db?sslmod=require": 'invalid URI query parameter: "sslmod"',
    "postgresql://me:hunter2@h/db?a=b=hunter2": 'extra key/value separator "=" in URI query parameter',
    "postgresql://me@h/db?hunter2": 'missing key/value separator "=" in URI query parameter',
    "hunter2": 'missing "="',
}


@pytest.mark.parametrize("url", UNUSABLE)
def test_an_address_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="percent-encoded") as refused:
        parts_of(url)
    assert UNUSABLE[url] in str(refused.value)
    assert "hunter2" not in "".join(traceback.format_exception(refused.value)).replace(repr(url), "")


@pytest.mark.parametrize(
    "command",
    [
        ["workers", "ls", "--database"],
        ["migrate", "--database"],
        ["doctor", "--database"],
        ["migrate", "--from", "sqlite:///none.db", "--to"],
        ["import", "langgraph-postgres", "--graph", "agent", "--dry-run", "--from"],
    ],
    ids=" ".join,
)
def test_no_command_shows_a_password_that_is_not_encoded(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "postgresql://me:p@hunter2/w%s@h/db"])
    assert result.exit_code == 2
    assert "hunter2" not in result.output


def test_the_address_for_notifications_is_refused_before_it_is_used() -> None:
    with pytest.raises(ConfigurationError, match="cannot be used"):
        Listener(
            "postgresql://h/db",
            "runlane",
            url="hunter2",
            outgoing=Notifications(),
            receive=lambda _: None,
            missed=lambda: None,
        )


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:p%40ss%2Fw%25@h:5433/db?sslmode=require",
        "postgresql://one:1,two:2/db",
        "postgresql:///db?host=/run/a@b",
        "postgresql:///db?host=@abstract",
        "postgresql:///",
    ],
)
def test_other_addresses_are_used(url: str) -> None:
    assert "target_session_attrs=read-write" in address(url, Times())
