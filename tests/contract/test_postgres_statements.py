"""Every statement is one that PostgreSQL understands, whether or not a test comes to execute it there."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest

import runlane
from ledger_kit import ledger_connection
from runlane.store.statements import Statement

_PARAMETER = re.compile(r"%\((\w+)\)s")
#: Statements that are for SQLite's file alone.
SQLITE_ONLY = {"space.give_back"}
#: Not part of an installation without their extra, or started by being imported.
NOT_IMPORTED = ("runlane.__main__", "runlane.cli.entry")
#: PostgreSQL prepares queries and changes of rows alone.
UTILITIES = ("LOCK TABLE", "DROP TABLE", "CREATE")
#: Its table is made where the extension is; tests/contract/test_long_term_search.py executes it.
NEEDS_PGVECTOR = {"pgvector.left", "doctor.items_with_rows", "doctor.lock_item", "doctor.delete_vectors"}


def statements() -> Mapping[str, Statement]:
    """Return the statements that the modules of the package hold, by their names."""
    found: dict[str, Statement] = {}
    for module in pkgutil.walk_packages(runlane.__path__, "runlane."):
        if module.name not in NOT_IMPORTED:
            for value in vars(importlib.import_module(module.name)).values():
                found.update({one.name: one for one in _held(value)})
    return found


def _held(value: Any) -> Iterator[Statement]:
    if isinstance(value, Statement):
        yield value
    elif isinstance(value, tuple | list):
        for one in value:
            yield from _held(one)
    elif isinstance(value, dict):
        yield from _held([*value.values()])
    elif hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        yield from _held([getattr(value, name) for name in value.__dataclass_fields__])


STATEMENTS = statements()


def prepared(sql: str) -> str:
    names = list(dict.fromkeys(_PARAMETER.findall(sql)))
    return _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", sql).replace("%%", "%")


@pytest.fixture(scope="module")
def connection(postgres_ledger: str) -> Iterator[psycopg.Connection]:
    with ledger_connection(postgres_ledger, autocommit=True) as made:
        yield made


@pytest.mark.parametrize("name", sorted(STATEMENTS.keys() - SQLITE_ONLY - NEEDS_PGVECTOR))
def test_postgresql_understands(name: str, connection: psycopg.Connection) -> None:
    sql = STATEMENTS[name].postgres.strip()
    if sql and not sql.startswith(UTILITIES):
        connection.execute(f"PREPARE one AS {prepared(sql)}".encode())
        connection.execute("DEALLOCATE one")
