"""An SQLite file as one end of a move."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from runlane.moving.ends import End, Values
from runlane.moving.tables import Table
from runlane.store.drivers.sqlite import BUSY_TIMEOUT_S, make_private, take_lock, translate, unopened
from runlane.store.migrate import APPLIED, Version, migrate_sqlite
from runlane.store.migrations import VERSION_TABLE


class SqliteEnd(End):
    """A file, which nobody else can open as a ledger meanwhile."""

    mark = "?"

    def __init__(self, path: str) -> None:
        """Use the file at *path*, which need not exist."""
        self._path = Path(os.path.realpath(path))
        self.name = f"sqlite:///{self._path}"

    def __enter__(self) -> SqliteEnd:
        self._lock = take_lock(self._path)
        try:
            make_private(self._path)
            self._connection = sqlite3.connect(self._path, isolation_level=None, timeout=BUSY_TIMEOUT_S)
        except (sqlite3.Error, OSError) as error:
            os.close(self._lock)
            raise unopened(self._path, error) from error
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._connection.close()
        os.close(self._lock)
        if isinstance(error, sqlite3.Error):
            raise translate(error, self._path) from error

    def exists(self) -> bool:
        return bool(self.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (VERSION_TABLE,)))

    def make(self) -> None:
        migrate_sqlite(self._path)

    def version(self) -> Version:
        return Version.of(self.execute(APPLIED))

    def keep_unchanged(self) -> None:
        self._connection.execute("BEGIN")  # the lock keeps others out

    def reserve(self) -> None:
        """Nothing: the lock keeps others out."""

    def tables(self) -> Mapping[str, Table]:
        names = self.execute(
            r"SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\'"
        )
        return {name: self._table(name) for (name,) in names}

    def _table(self, name: str) -> Table:
        found = self.execute('SELECT name, "notnull", pk FROM pragma_table_info(?) ORDER BY cid', (name,))
        key = tuple(column for column, _, place in sorted(found, key=lambda row: row[2]) if place)
        filled = {column for column, is_filled, _ in found if is_filled}
        unique = self.execute('SELECT name FROM pragma_index_list(?) WHERE "unique" AND NOT partial', (name,))
        for (index,) in () if key else unique:
            columns = tuple(column for (column,) in self.execute("SELECT name FROM pragma_index_info(?)", (index,)))
            key = key or (columns if filled.issuperset(columns) else ())
        return Table(name=name, columns=tuple(sorted(column for column, _, _ in found)), key=key)

    def execute(self, sql: str, params: Sequence[object] = ()) -> list[Values]:
        return self._connection.execute(sql, params).fetchall()

    def stream(self, sql: str, params: Sequence[object] = ()) -> Iterator[Values]:
        return iter(self._connection.execute(sql, params))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.rollback()
            raise
        self._connection.commit()

    def insert(self, table: Table, rows: Sequence[Values]) -> None:
        columns = ", ".join(f'"{column}"' for column in table.columns)
        marks = ", ".join("?" * len(table.columns))
        self._connection.executemany(f'INSERT INTO "{table.name}" ({columns}) VALUES ({marks})', rows)

    def counters(self) -> dict[str, int]:
        last = {f"{name}.seq": number for name, number in self.execute("SELECT name, seq FROM sqlite_sequence")}
        [(newest,)] = self.execute("SELECT newest FROM start_orders")
        return {**last, "start_orders": newest}

    def set_counters(self, last: Mapping[str, int]) -> None:
        self.execute("UPDATE start_orders SET newest = ?", (last["start_orders"],))
        counted = self.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND sql LIKE '%AUTOINCREMENT%'")
        for (name,) in counted:
            number = max(last.get(f"{name}.seq", 0), self.execute(f'SELECT COALESCE(MAX(seq), 0) FROM "{name}"')[0][0])
            self.execute("DELETE FROM sqlite_sequence WHERE name = ?", (name,))
            self.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, number))

    def derive(self) -> None:
        """Nothing: the lanes' heads are in memory."""
