"""What a move needs of a database, whichever it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from runlane.moving.tables import Table
from runlane.store.migrate import Version

Values = tuple[Any, ...]


class End(ABC):
    """A ledger that is moved from, or to: one connection, used by one thread, which blocks. A context manager.

    Attributes:
        name: Its address without a password, which tells it from other ledgers.
        mark: What stands for a parameter.
    """

    mark: ClassVar[str]
    name: str

    @abstractmethod
    def __enter__(self) -> End:
        """Connect, and keep other moves and, as far as the database allows it, servers out."""

    @abstractmethod
    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Disconnect, and translate an error of the database's driver."""

    @abstractmethod
    def exists(self) -> bool:
        """Return whether there is a ledger, of whatever version."""

    @abstractmethod
    def make(self) -> None:
        """Make a ledger of this version, or migrate the one that is there."""

    @abstractmethod
    def version(self) -> Version:
        """Return the version of its schema, whose revision says so while it is the target of a move."""

    @abstractmethod
    def keep_unchanged(self) -> None:
        """Have everything read from now on be of one snapshot, and let no server start.

        Raises:
            ConfigurationError: A server uses the ledger.
        """

    @abstractmethod
    def reserve(self) -> None:
        """Keep other moves into it out.

        Raises:
            ConfigurationError: A server uses the ledger.
        """

    @abstractmethod
    def tables(self) -> Mapping[str, Table]:
        """Return the tables by name."""

    @abstractmethod
    def execute(self, sql: str, params: Sequence[Any] = ()) -> list[Values]:
        """Execute a statement, and return its rows."""

    @abstractmethod
    def stream(self, sql: str, params: Sequence[Any] = ()) -> Iterator[Values]:
        """Yield the rows of a query, holding few of them."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[object]:
        """Commit what the block writes, if it succeeds."""

    @abstractmethod
    def insert(self, table: Table, rows: Sequence[Values]) -> None:
        """Insert *rows*, which have the values of the table's columns."""

    @abstractmethod
    def counters(self) -> dict[str, int]:
        """Return the last number that each counter has given out; one is named for its column, as ``runs.seq``."""

    @abstractmethod
    def set_counters(self, last: Mapping[str, int]) -> None:
        """Have counters go on after *last*, and after what is in their columns."""

    @abstractmethod
    def derive(self) -> None:
        """Set the columns that only this database has."""

    def rows(self, table: Table, after: Sequence[Any] | None = None) -> Iterator[Values]:
        """Yield the rows of *table* above the key *after*, in the order of its key."""
        key = _listed(table.key)
        above = f" WHERE ({key}) > ({', '.join([self.mark] * len(table.key))})" if after else ""
        order = f" ORDER BY {key}" if table.key else ""
        return self.stream(f'SELECT {_listed(table.columns)} FROM "{table.name}"{above}{order}', after or ())

    def count(self, table: Table) -> int:
        """Return how many rows *table* has."""
        [(number,)] = self.execute(f'SELECT COUNT(*) FROM "{table.name}"')
        return int(number)


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)
