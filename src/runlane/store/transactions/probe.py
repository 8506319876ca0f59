"""A write of a health check: a database that can be read may have a full disk, or be in recovery."""

from __future__ import annotations

import secrets
from typing import Final

from runlane.store.statements import Transaction, statement

#: Bytes that are written: a page or two, so that a disk without a free page is noticed.
PROBE_BYTES: Final = 4096

# Other bytes each time: SQLite does not write a page again that would stay as it is.
WRITE_PROBE = statement(
    "write_probe",
    """INSERT INTO probes (place, written_at, filler) VALUES (1, {now}, :filler)
       ON CONFLICT (place) DO UPDATE SET written_at = excluded.written_at, filler = excluded.filler""",
)


def probe() -> Transaction[None]:
    """Write something that nobody reads."""
    yield WRITE_PROBE(filler=secrets.token_hex(PROBE_BYTES // 2))
