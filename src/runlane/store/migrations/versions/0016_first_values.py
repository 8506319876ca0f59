"""First values: what a thread shows while its first run still goes on."""

from __future__ import annotations

from alembic import op

from runlane.store.migrations import revisions, script, statements

revision: str = "0016"
down_revision: str | None = max(known for known in revisions() if known < revision)


def upgrade() -> None:
    bind = op.get_bind()
    for statement in statements(script(revision, "sqlite" if bind.dialect.name == "sqlite" else "postgres")):
        bind.exec_driver_sql(statement, execution_options={"no_parameters": True})
