"""The hot paths do no more work than ``tests/costs.toml`` says. Not of time: that depends on the machine."""

from __future__ import annotations

import sqlite3

import pytest

import costs


@pytest.mark.parametrize("name", costs.PATHS)
def test_a_hot_path_costs_no_more_than_the_file_says(name: str) -> None:
    found = costs.regressions(name, costs.measured(name), costs.expected()[name])
    assert not found, "\n".join([*found, costs.HELP])


def test_a_commit_more_is_a_regression_and_so_are_many_calls_more() -> None:
    known = {"commits": 3, "statements": 26, "sql_bytes": 1000, "calls": 1000}
    assert costs.regressions("wait", {**known, "sql_bytes": 1050, "calls": 1050}, known) == []
    assert costs.regressions("wait", {name: value / 2 for name, value in known.items()}, known) == []
    found = costs.regressions("wait", {"commits": 4, "statements": 27, "sql_bytes": 1051, "calls": 1051}, known)
    assert [text.split()[1] for text in found] == ["commits", "statements", "sql_bytes", "calls"]


def test_calls_are_not_compared_with_those_of_another_version_of_python() -> None:
    known = {"commits": 3, "statements": 26, "sql_bytes": 1000, "calls": None}
    assert costs.regressions("wait", {**known, "calls": 9_000_000}, known) == []


def test_what_all_connections_execute_is_counted_only_while_counting() -> None:
    counters = costs.Counters()
    with counters.watching():
        connection = sqlite3.connect(":memory:", isolation_level=None)
        connection.execute("CREATE TABLE kept (value TEXT)")
        counters.counting = True
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO kept VALUES (?)", [("a",), ("b" * 1000,)])
        connection.execute("COMMIT")
        counters.counting = False
        connection.execute("DELETE FROM kept")
        connection.close()
    assert (counters.commits, counters.statements) == (1, 2)
    assert 1000 < counters.sql_bytes < 1100


def test_an_update_keeps_the_calls_of_other_versions_of_python() -> None:
    before = {"wait": {"calls": {"2.7": 1.0, costs.PYTHON: 2.0}}}
    text = costs.text_of({"wait": {"commits": 3, "statements": 26, "sql_bytes": 1000, "calls": 3}}, before)
    assert f'calls = {{ "2.7" = 1, "{costs.PYTHON}" = 3 }}' in text
