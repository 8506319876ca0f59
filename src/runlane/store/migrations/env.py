"""What Alembic runs for an upgrade: everything in one transaction, on the connection that it is handed."""

from __future__ import annotations

from alembic import context

from runlane.store.migrations import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
