"""What Alembic runs for an upgrade: everything in the transaction that is open on the connection it is handed."""

from __future__ import annotations

from alembic import context

from runlane.store.migrations import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
