"""The space that an SQLite file takes: what of it is free, and giving that back a piece at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from runlane.store.statements import Transaction, statement

#: Value of SQLite's ``auto_vacuum`` with which freed pages are given back on request.
_INCREMENTAL: Final = 2

_PAGES: Final = statement(
    "space.pages",
    """SELECT page_size, page_count AS pages, freelist_count AS free, auto_vacuum
       FROM pragma_page_size, pragma_page_count, pragma_freelist_count, pragma_auto_vacuum""",
    postgres="""SELECT 1 AS page_size, pg_database_size(current_database()) AS pages, 0 AS free, 0 AS auto_vacuum""",
)
# A page at a time: Python makes one step of a statement without columns, and a step gives back one page.
_GIVE_BACK: Final = statement("space.give_back", "PRAGMA incremental_vacuum(1)")
#: 256 KiB, for which other writes wait about two milliseconds.
PIECE: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSpace:
    """The pages of a file. ``shrinkable``: freed ones can be given back while it is used.

    A PostgreSQL database is shown as pages of a byte, none of them free.
    """

    page_bytes: int
    pages: int
    free_pages: int
    shrinkable: bool

    @property
    def bytes(self) -> int:
        return self.pages * self.page_bytes

    @property
    def free_bytes(self) -> int:
        return self.free_pages * self.page_bytes

    def spare(self, share: float, least: int) -> bool:
        """Return whether more than *share* of the pages are free, and more than *least*."""
        return self.free_pages > max(least, share * self.pages)


def file_space() -> Transaction[FileSpace]:
    """Return the pages of the file; this reads nothing but its header, or asks PostgreSQL for the sizes of files."""
    [row] = yield _PAGES()
    return FileSpace(
        page_bytes=row["page_size"],
        pages=row["pages"],
        free_pages=row["free"],
        shrinkable=row["auto_vacuum"] == _INCREMENTAL,
    )


def give_back() -> Transaction[None]:
    """Move ``PIECE`` pages at most from the end of the file to free places, and shorten it."""
    for _ in range(PIECE):
        yield _GIVE_BACK()
