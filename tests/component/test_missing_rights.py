"""A role of PostgreSQL that lacks the rights on a table: all waits as in an outage, and goes on once it has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from uuid import uuid4

import pytest
from click.testing import CliRunner

from ledger_kit import ledger_connection
from run_kit import Stepper, ended, graph_run, opened, soon, until
from runlane.cli.main import app
from runlane.errors import StoreUnavailable
from runlane.lifecycle import RunStatus
from runlane.store.backends import migrate_postgres

REMEDY = "Give the role of the address the rights on all tables of the schema."


@pytest.fixture
def role(postgres_url: str) -> Iterator[str]:
    """Give a role that has the rights which Runlane needs, on an empty ledger, and is no superuser."""
    migrate_postgres(postgres_url)
    name = f"app_{uuid4().hex}"
    with ledger_connection(postgres_url, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {name} LOGIN".encode())
        admin.execute(f"GRANT USAGE ON SCHEMA runlane TO {name}".encode())
        for things in ("TABLES", "SEQUENCES", "FUNCTIONS"):
            admin.execute(f"GRANT ALL ON ALL {things} IN SCHEMA runlane TO {name}".encode())
        yield name
        admin.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


def as_role(url: str, role: str) -> str:
    return url.replace("//runlane@", f"//{role}@")


def rights(url: str, role: str, change: str, table: str) -> None:
    to = {"GRANT": "TO", "REVOKE": "FROM"}[change]
    with ledger_connection(url, autocommit=True) as admin:
        admin.execute(f"{change} ALL ON {table} {to} {role}".encode())


@pytest.mark.parametrize("table", ["runs", "checkpoints", "workers"])
def test_the_doctor_tells_on_one_line_that_it_may_not_read(table: str, role: str, postgres_url: str) -> None:
    rights(postgres_url, role, "REVOKE", table)
    result = CliRunner().invoke(app, ["doctor", "--database", as_role(postgres_url, role)])
    assert result.exit_code == 1
    assert result.exception is None or isinstance(result.exception, SystemExit)
    said = rf"error: The ledger is unavailable: PostgreSQL says: permission denied for table {table}\. .*{REMEDY}\n"
    assert re.fullmatch(said, result.stderr)


@pytest.mark.parametrize("table", ["checkpoints", "runs", "events"])
async def test_runs_wait_for_a_right_that_was_taken_away(
    table: str, role: str, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    stepper = Stepper()
    async with opened(database=as_role(postgres_url, role), graphs={"g": stepper.graph()}) as runtime:
        run = await runtime.runs.create("t", kwargs=graph_run())
        await soon(stepper.started.wait())
        rights(postgres_url, role, "REVOKE", table)
        stepper.go.set()
        await until(lambda: "permission denied" in caplog.text)
        if table == "runs":
            with pytest.raises(StoreUnavailable, match=re.escape(REMEDY)):
                await runtime.runs.get(run.run_id)
        rights(postgres_url, role, "GRANT", table)
        assert (await ended(runtime, run)).status is RunStatus.SUCCESS
    assert "run.attempt_crashed" not in caplog.text
