"""Items whose rows in pgvector's table are not what the items say. The table is there only where pgvector is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from runlane.store.statements import Row, Transaction, statement

#: Bytes of a number of a vector.
_NUMBER: Final = 4
# The numbers of a vector in the table, and in the index that processes were given.
_LENGTHS: Final = statement(
    "doctor.vector_lengths",
    "",
    postgres="""SELECT atttypmod AS stored, dims FROM pg_attribute, store_index
        WHERE attrelid = to_regclass('store_vectors') AND attname = 'embedding' ORDER BY store_index.ctid LIMIT 1""",
)
_PAGE: Final = statement(
    "doctor.items_with_rows",
    "",
    postgres="""SELECT owner, namespace, key, COALESCE(LENGTH(vectors), 0) AS bytes,
          (SELECT COUNT(*) FROM store_vectors AS v
           WHERE v.owner = i.owner AND v.namespace = i.namespace AND v.key = i.key) AS n
        FROM store_items AS i WHERE (owner, namespace, key) > (:owner, :namespace, :key)
        ORDER BY owner, namespace, key LIMIT :limit""",
)
_LOCK: Final = statement(
    "doctor.lock_item",
    "",
    postgres="""SELECT COALESCE(LENGTH(vectors), 0) AS bytes, (SELECT COUNT(*) FROM store_vectors
           WHERE owner = :owner AND namespace = :namespace AND key = :key) AS n
        FROM store_items WHERE owner = :owner AND namespace = :namespace AND key = :key FOR UPDATE""",
)
# Called under the item's lock.
_DELETE: Final = statement(
    "doctor.delete_vectors",
    "",
    postgres="DELETE FROM store_vectors WHERE owner = :owner AND namespace = :namespace AND key = :key",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorPage:
    """Items that were looked at, up to the key ``last``. Vectors have ``dims`` numbers, and in the table ``stored``."""

    dims: int
    stored: int
    items: int
    last: tuple[str, str, str]
    wrong: tuple[Row, ...]


def look_at_items(after: tuple[str, str, str], size: int) -> Transaction[VectorPage | None]:
    """Look at the items after the key *after*; ``None`` if there are none, or no table."""
    lengths = yield _LENGTHS()
    if not lengths:
        return None
    rows = yield _PAGE(owner=after[0], namespace=after[1], key=after[2], limit=size)
    if not rows:
        return None
    dims = lengths[0]["dims"]
    return VectorPage(
        dims=dims,
        stored=lengths[0]["stored"],
        items=len(rows),
        last=(rows[-1]["owner"], rows[-1]["namespace"], rows[-1]["key"]),
        wrong=tuple(row for row in rows if _is_wrong(row, dims)),
    )


def forget_rows(item: Row, dims: int) -> Transaction[bool]:
    """Delete an item's rows if they are not what it says; the next process with an index adds those that it says."""
    at = {name: item[name] for name in ("owner", "namespace", "key")}
    rows = yield _LOCK(**at)
    if not rows or not rows[0]["n"] or not _is_wrong(rows[0], dims):
        return False
    yield _DELETE(**at)
    return True


def _is_wrong(row: Row, dims: int) -> bool:
    return bool(row["n"] * dims * _NUMBER != row["bytes"])
