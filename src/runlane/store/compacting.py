"""Copying an SQLite file without its free pages, which also makes a file of an earlier version shrink from then on."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runlane.errors import StoreUnavailable
from runlane.store.drivers.sqlite import BUSY_TIMEOUT_S, take_lock, translate

#: Instructions of SQLite between two reports: a few hundred rows.
REPORT_EVERY: Final = 1000

#: Is told bytes that are copied, and how many there are about.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compacted:
    """Bytes of a file before and after it was copied."""

    before: int
    after: int


def compact_sqlite(path: str | Path, progress: Progress) -> Compacted:
    """Replace the file at *path* by a copy without free pages. Blocks; an interruption leaves the file as it was.

    Raises:
        LedgerInUse: Another process owns the file.
        StoreUnavailable: The copy could not be made, such as for want of space; the file is as it was.
    """
    path = Path(os.path.realpath(path))
    lock = take_lock(path)
    copy = Path(f"{path}.compact")
    try:
        before = path.stat().st_size
        with closing(sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_S)) as connection:
            _copy(connection, path, copy, progress)
        _replace(path, copy)
        return Compacted(before=before, after=path.stat().st_size)
    except sqlite3.Error as error:
        if error.sqlite_errorname == "SQLITE_INTERRUPT":  # Ctrl-C within the progress
            raise KeyboardInterrupt from None
        raise translate(error, path) from error
    except OSError as error:
        why = f"cannot compact {path}: {error}"
        raise StoreUnavailable(why, remedy="The file is as it was.") from error
    finally:
        with suppress(FileNotFoundError):
            copy.unlink()
        os.close(lock)


def _copy(connection: sqlite3.Connection, path: Path, copy: Path, progress: Progress) -> None:
    # The file has no log after this, nor have others opened it: a log must never meet another file than its own.
    connection.execute("PRAGMA journal_mode=DELETE")
    pages, free, page_bytes = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    needed = (pages - free) * page_bytes
    available = shutil.disk_usage(path.parent).free
    if available < needed:
        raise StoreUnavailable(
            f"cannot compact {path}: the copy takes about {needed:,} bytes and {available:,} are free in its folder",
            remedy="Make room, or move the file to a larger disk first.",
        )
    with suppress(FileNotFoundError):  # of an attempt that was killed
        copy.unlink()
    os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    connection.set_progress_handler(lambda: progress(min(copy.stat().st_size, needed), needed), REPORT_EVERY)
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # of the copy: the file keeps its format
    connection.execute("VACUUM INTO ?", (str(copy),))
    progress(needed, needed)


def _replace(path: Path, copy: Path) -> None:
    """Let *copy* take the place of *path*, with its owner and permissions, once it is on the disk."""
    found = path.stat()
    os.chmod(copy, found.st_mode & 0o7777)
    os.chown(copy, found.st_uid, found.st_gid)
    _sync(copy)
    os.replace(copy, path)
    _sync(path.parent)


def _sync(name: Path) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
