"""Crons: runs that start by the clock."""

from __future__ import annotations

from alembic import op

from runlane.store.migrations import script, statements

revision: str = "0004"
down_revision: str | None = "0003"


def upgrade() -> None:
    bind = op.get_bind()
    for statement in statements(script(revision, "sqlite" if bind.dialect.name == "sqlite" else "postgres")):
        bind.exec_driver_sql(statement, execution_options={"no_parameters": True})
