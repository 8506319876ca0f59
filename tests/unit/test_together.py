"""Transactions that run side by side ask together, and do not answer for each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from runlane.errors import LeaseLost
from runlane.store.drivers.together import together
from runlane.store.statements import Query, Rows, Transaction, run, statement

HELD = statement("held", "SELECT 1", together="SELECT of each")
PUT = statement("put", "INSERT", together="INSERT of each")
LOOK = statement("look", "SELECT 2")
MANY = statement("many", "INSERT 2")


@dataclass
class Server:
    """Answers as a database does in which the runs numbered *held* are held."""

    held: set[int]
    sent: list[tuple[str, Any]] = field(default_factory=list)

    def execute(self, query: Query) -> Rows:
        params = query.params
        self.sent.append((query.statement.postgres, params if params is not None else list(query.many)))
        if query.statement is HELD.together and params is not None:
            return [{"place": place, "run": run} for place, run in enumerate(params["run"], 1) if run in self.held]
        if query.statement is HELD and params is not None:
            return [{"run": params["run"]}] if params["run"] in self.held else []
        return [{"seen": True}] if query.statement is LOOK else []


def append(run: int, *, looks: bool = False, fails_late: bool = False) -> Transaction[str]:
    held = yield HELD(run=run)
    if not held:
        raise LeaseLost(str(run), 1)
    assert [row["run"] for row in held] == [run]
    if looks:
        assert (yield LOOK(run=run))
    yield PUT(run=run)
    if fails_late:
        raise ValueError(run)
    yield MANY.many([{"row": f"{run}a"}, {"row": f"{run}b"}])
    return f"wrote {run}"


def nothing() -> Transaction[str]:
    return "nothing"
    yield


def test_many_transactions_send_as_many_statements_as_one() -> None:
    server = Server(held={1, 2, 3})
    answers = run(together([append(run) for run in (1, 2, 3)]), server.execute)
    assert answers == [("wrote 1", None), ("wrote 2", None), ("wrote 3", None)]
    assert server.sent == [
        ("SELECT of each", {"run": [1, 2, 3]}),
        ("INSERT of each", {"run": [1, 2, 3]}),
        ("INSERT 2", [{"row": f"{run}{letter}"} for run in (1, 2, 3) for letter in "ab"]),
    ]


def test_a_transaction_that_fails_before_it_writes_fails_alone() -> None:
    server = Server(held={1, 3})
    first, second, third = run(together([append(run) for run in (1, 2, 3)]), server.execute)
    assert (first, third) == (("wrote 1", None), ("wrote 3", None))
    assert isinstance(second[1], LeaseLost)
    assert server.sent[1] == ("INSERT of each", {"run": [1, 3]})


def test_a_transaction_that_fails_after_it_has_written_stops_all() -> None:
    server = Server(held={1, 2})
    with pytest.raises(ValueError, match="2"):
        run(together([append(1), append(2, fails_late=True)]), server.execute)


def test_transactions_at_different_statements_wait_for_nobody() -> None:
    server = Server(held={1, 2, 3})
    answers = run(together([append(1), nothing(), append(2, looks=True), append(3)]), server.execute)
    assert answers == [("wrote 1", None), ("nothing", None), ("wrote 2", None), ("wrote 3", None)]
    assert [sql for sql, _ in server.sent] == [
        *("SELECT of each", "INSERT of each", "SELECT 2"),
        *("INSERT 2", "INSERT"),
        "INSERT 2",
    ]


def test_a_statement_that_has_no_form_for_many_is_sent_for_each() -> None:
    server = Server(held={1, 2})
    run(together([append(1, looks=True), append(2, looks=True)]), server.execute)
    assert [sql for sql, _ in server.sent].count("SELECT 2") == 2
