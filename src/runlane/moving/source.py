"""What is read of another server's PostgreSQL database: one snapshot, and nothing is written there. Blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from runlane.errors import ConfigurationError
from runlane.moving.langgraph_rows import StoredThread
from runlane.store.drivers.postgres_address import parts_of
from runlane.store.drivers.postgres_errors import connecting
from runlane.store.migrate_postgres import CONNECT_TIMEOUT_S
from runlane.store.statements import Row

_HAS: Final = "SELECT to_regclass(quote_ident(%s)) IS NOT NULL AS found"
#: Of earlier versions, writes have no path of their task.
_MIGRATION: Final = "SELECT COALESCE(max(v), -1) AS newest FROM checkpoint_migrations"
_NEEDED: Final = 9
_THREADS: Final = "SELECT DISTINCT thread_id FROM checkpoints ORDER BY thread_id"
_CHECKPOINTS: Final = """SELECT checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata
    FROM checkpoints WHERE thread_id = %s ORDER BY checkpoint_ns COLLATE "C", checkpoint_id COLLATE "C" """
_BLOBS: Final = "SELECT checkpoint_ns, channel, version, type, blob FROM checkpoint_blobs WHERE thread_id = %s"
_WRITES: Final = """SELECT checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob
    FROM checkpoint_writes WHERE thread_id = %s
    ORDER BY checkpoint_ns, checkpoint_id, task_path, task_id, idx"""
_FETCHED: Final = 500


class Source:
    """A database of LangGraph's checkpointer and store, perhaps with Aegra's tables. A context manager."""

    def __init__(self, url: str, schema: str) -> None:
        self._url = url
        self._schema = schema

    def __enter__(self) -> Source:
        """Connect.

        Raises:
            ConfigurationError: The address cannot be used, or there are no checkpoints of a version that is known.
        """
        parts_of(self._url)
        with connecting():
            self._connection = psycopg.connect(
                self._url, connect_timeout=CONNECT_TIMEOUT_S, autocommit=True, row_factory=dict_row
            )
        self._connection.execute("SELECT set_config('search_path', quote_ident(%s), false)", (self._schema,))
        self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def has(self, table: str) -> bool:
        """Return whether there is a table of this name."""
        return bool(self._rows(_HAS, table)[0]["found"])

    def check_checkpoints(self) -> None:
        """Raise ConfigurationError if there are no checkpoints, or those of a version that is not known."""
        if not self.has("checkpoints") or not self.has("checkpoint_migrations"):
            raise ConfigurationError(
                f"Schema {self._schema!r} of the source has no checkpoints of langgraph-checkpoint-postgres. Name the "
                "schema with --from-schema."
            )
        if self._rows(_MIGRATION)[0]["newest"] < _NEEDED:
            raise ConfigurationError(
                "The source's checkpoints are of an early version: call setup() of langgraph-checkpoint-postgres 3 on "
                "it first."
            )

    def check_aegra(self) -> None:
        """Raise ConfigurationError if Aegra's tables are not there."""
        if not self.has("assistant") or not self.has("thread"):
            raise ConfigurationError(f"Schema {self._schema!r} of the source has no tables of Aegra.")

    def threads(self) -> list[str]:
        """Return the ids of all threads with checkpoints."""
        return [row["thread_id"] for row in self._rows(_THREADS)]

    def thread(self, thread_id: str) -> StoredThread:
        """Return all rows of a thread."""
        return StoredThread(
            thread_id=thread_id,
            checkpoints=self._rows(_CHECKPOINTS, thread_id),
            blobs=self._rows(_BLOBS, thread_id),
            writes=self._rows(_WRITES, thread_id),
        )

    def table(self, name: str) -> Iterator[Row]:
        """Yield the rows of a table, as JSON has them: a column that a version does not have is not there."""
        query = sql.SQL("SELECT to_jsonb(t) AS row FROM {} AS t").format(sql.Identifier(name))
        with self._connection.cursor(name=f"all_{name}") as cursor:
            cursor.itersize = _FETCHED
            for row in cursor.execute(query):
                yield row["row"]

    def _rows(self, query: str, *params: Any) -> Sequence[Row]:
        return self._connection.execute(query.encode(), params or None).fetchall()
