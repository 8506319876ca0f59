"""A PostgreSQL database as one end of a move."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final
from uuid import uuid4

import psycopg
from psycopg import sql

from runlane.errors import ConfigurationError
from runlane.moving.ends import End, Values
from runlane.moving.tables import Table, is_copied
from runlane.store.drivers.postgres_address import parts_of
from runlane.store.drivers.postgres_errors import connecting, translate
from runlane.store.migrate import APPLIED, Version
from runlane.store.migrate_postgres import CONNECT_TIMEOUT_S, migrate
from runlane.store.migrations import VERSION_TABLE
from runlane.store.statements import Query, Rows, run
from runlane.store.transactions.heads import move_head

#: Names the advisory lock of moves into one database; any fixed number would do.
_MOVE_LOCK: Final = 0x4D4F5645
#: Longer than a server that is told that a process is gone needs to end its session.
_LOCK_TIMEOUT: Final = "10s"
#: Rows that are fetched at once; some are large.
_FETCHED: Final = 200
_EXISTS: Final = "SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = %s AND tablename = %s"
_LIVE: Final = """SELECT worker_id FROM workers
    WHERE expires_at > extract(epoch from statement_timestamp()) * 1000000 ORDER BY worker_id"""
# A partition is a part of its table.
_TABLES: Final = """SELECT oid, relname FROM pg_catalog.pg_class
    WHERE relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema())
      AND relkind IN ('r', 'p') AND NOT relispartition"""
_COLUMNS: Final = f"""SELECT t.relname, array_agg(CAST(a.attname AS text) ORDER BY CAST(a.attname AS text) COLLATE "C")
    FROM ({_TABLES}) AS t JOIN pg_catalog.pg_attribute AS a ON a.attrelid = t.oid
    WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' GROUP BY t.relname"""
# Of each table the primary key, or else a unique index of columns that are never null.
_KEYS: Final = f"""SELECT DISTINCT ON (relname) relname, columns FROM (
      SELECT t.relname, i.indexrelid, i.indisprimary, array_agg(CAST(a.attname AS text) ORDER BY k.place) AS columns
      FROM ({_TABLES}) AS t JOIN pg_catalog.pg_index AS i ON i.indrelid = t.oid
      CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
      JOIN pg_catalog.pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = k.attnum
      WHERE i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
      GROUP BY t.relname, i.indexrelid, i.indisprimary HAVING bool_and(a.attnotnull)) AS found
    ORDER BY relname, indisprimary DESC, indexrelid"""
_IDENTITIES: Final = f"""SELECT t.relname, a.attname,
      pg_get_serial_sequence(quote_ident(current_schema()) || '.' || quote_ident(t.relname), a.attname)
    FROM ({_TABLES}) AS t JOIN pg_catalog.pg_attribute AS a ON a.attrelid = t.oid
    WHERE a.attidentity <> '' AND NOT a.attisdropped"""
_ORDERS: Final = "start_orders"
_SET: Final = "SELECT setval(CAST(%s AS regclass), GREATEST(%s, 1), %s > 0)"
_PENDING: Final = "SELECT DISTINCT thread_id FROM runs WHERE status = 'pending'"


class PostgresEnd(End):
    """The ledger in one schema of a database."""

    mark = "%s"

    def __init__(self, url: str, schema: str) -> None:
        """Use the schema *schema* of the database at *url*; the schema need not exist.

        Raises:
            ConfigurationError: *url* is no address of a database.
        """
        given = parts_of(url)
        self._url = url
        self._schema = schema
        where = given.get("host") or given.get("hostaddr") or "localhost"
        self.name = f"postgresql://{where}:{given.get('port') or 5432}/{given.get('dbname') or ''}, schema {schema}"

    def __enter__(self) -> PostgresEnd:
        with connecting():
            self._connection = psycopg.connect(self._url, connect_timeout=CONNECT_TIMEOUT_S, autocommit=True)
        if self.execute("SELECT pg_is_in_recovery()") == [(True,)]:
            self._connection.close()
            raise ConfigurationError(
                f"{self.name} is a standby, whose tables can neither be locked nor written. Name the primary."
            )
        self.execute("SELECT set_config('search_path', quote_ident(%s), false)", (self._schema,))
        self.execute("SELECT set_config('lock_timeout', %s, false)", (_LOCK_TIMEOUT,))
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._connection.close()
        if isinstance(error, psycopg.Error):
            raise translate(error) from error

    def exists(self) -> bool:
        return bool(self.execute(_EXISTS, (self._schema, VERSION_TABLE)))

    def make(self) -> None:
        migrate(self._url, self._schema)

    def version(self) -> Version:
        return Version.of(self.execute(APPLIED))

    def keep_unchanged(self) -> None:
        self.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        # Before the snapshot is taken. A process writes its row there before anything else.
        self.execute("LOCK TABLE workers IN SHARE MODE")
        self._refuse_live()

    def reserve(self) -> None:
        self.execute("SELECT pg_advisory_lock(%s)", (_MOVE_LOCK,))
        if self.exists():
            self._refuse_live()

    def _refuse_live(self) -> None:
        live = [worker_id for (worker_id,) in self.execute(_LIVE)]
        if live:
            raise ConfigurationError(
                f"{self.name} is in use by {', '.join(live)}. Stop these processes; one that was killed is gone "
                "when its lease (setting lease_s) is over."
            )

    def tables(self) -> Mapping[str, Table]:
        keys = {name: tuple(columns) for name, columns in self.execute(_KEYS)}
        return {
            name: Table(name=name, columns=tuple(columns), key=keys.get(name, ()))
            for name, columns in self.execute(_COLUMNS)
        }

    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[Values]:
        cursor = self._connection.execute(sql.encode(), params or None)
        return cursor.fetchall() if cursor.description else []

    def stream(self, sql: str, params: Sequence[Any] = ()) -> Iterator[Values]:
        with self._connection.cursor(name=uuid4().hex) as cursor:
            cursor.itersize = _FETCHED
            yield from cursor.execute(sql.encode(), params or None)

    def transaction(self) -> AbstractContextManager[object]:
        return self._connection.transaction()

    def insert(self, table: Table, rows: Sequence[Values]) -> None:
        columns = sql.SQL(", ").join(map(sql.Identifier, table.columns))
        into = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table.name), columns)
        try:
            with self._connection.cursor() as cursor, cursor.copy(into) as copy:
                for row in rows:
                    copy.write_row(row)
        except psycopg.DataError as error:
            for row in rows:
                _refuse_nul(table, row, error)
            raise

    def counters(self) -> dict[str, int]:
        found = {f"{table}.{column}": self._last(sequence) for table, column, sequence in self._identities()}
        return {**found, _ORDERS: self._last(_ORDERS)}

    def _last(self, sequence: str) -> int:
        [(last,)] = self.execute(f"SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM {sequence}")
        return int(last)

    def set_counters(self, last: Mapping[str, int]) -> None:
        self.execute(_SET, (_ORDERS, last[_ORDERS], last[_ORDERS]))
        for table, column, sequence in self._identities():
            [(largest,)] = self.execute(f'SELECT COALESCE(MAX("{column}"), 0) FROM "{table}"')
            number = max(last.get(f"{table}.{column}", 0), largest)
            self.execute(_SET, (sequence, number, number))

    def _identities(self) -> list[Values]:
        return [found for found in self.execute(_IDENTITIES) if is_copied(found[0])]

    def derive(self) -> None:
        for (thread_id,) in self.execute(_PENDING):
            run(move_head(thread_id), self._run)

    def _run(self, query: Query) -> Rows:
        self._connection.execute(query.statement.postgres.encode(), query.params)
        return ()


def _refuse_nul(table: Table, row: Values, error: psycopg.DataError) -> None:
    """Raise ConfigurationError if *row* has a text with a NUL. It names the row, as a value may be long, and secret."""
    values = dict(zip(table.columns, row, strict=True))
    for column, value in values.items():
        if isinstance(value, str) and "\0" in value:
            which = ", ".join(f"{name} {values[name]!r}" for name in table.key)
            raise ConfigurationError(
                f"{table.name}.{column} holds a NUL, which PostgreSQL cannot store, in the row with {which}. Change "
                "it, and move again."
            ) from error
