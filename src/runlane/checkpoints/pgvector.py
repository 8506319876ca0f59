"""Vectors in a table of pgvector's, so that the database compares them. It holds what ``store_items.vectors`` says.

The table is made when the first process with an index starts after the extension was installed. A trigger removes the
vectors of an item whose ``vectors`` change, so that processes that do not know the table leave none of an older text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from runlane.checkpoints.items import COLUMNS, IS_LIVE
from runlane.checkpoints.vectors import Vector, literal, literals
from runlane.store.statements import Driver, Query, Row, Transaction, statement

#: What is known of pgvector: ``shared`` whether the database is PostgreSQL, ``place`` the extension's schema.
_FIND: Final = statement(
    "pgvector.find",
    "SELECT 0 AS shared, NULL AS place",
    postgres="""SELECT 1 AS shared, (SELECT quote_ident(n.nspname) FROM pg_extension AS e
                  JOIN pg_namespace AS n ON n.oid = e.extnamespace WHERE e.extname = 'vector') AS place""",
)
_DIMS: Final = statement(
    "pgvector.dims",
    "",
    postgres="""SELECT atttypmod AS dims FROM pg_attribute
                WHERE attrelid = to_regclass('store_vectors') AND attname = 'embedding'""",
)
_LOCK: Final = statement("pgvector.lock", "", postgres="LOCK TABLE store_index IN SHARE ROW EXCLUSIVE MODE")
_DROP: Final = statement("pgvector.drop", "", postgres="DROP TABLE store_vectors")
_FORGET: Final = statement(
    "pgvector.forget",
    "",
    postgres="""CREATE OR REPLACE FUNCTION forget_vectors() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                  DELETE FROM store_vectors
                  WHERE owner = NEW.owner AND namespace = NEW.namespace AND key = NEW.key;
                  RETURN NULL;
                END $$""",
)
_TRIGGER: Final = statement(
    "pgvector.trigger",
    "",
    postgres="""CREATE OR REPLACE TRIGGER forget_vectors AFTER UPDATE OF vectors ON store_items
                FOR EACH ROW EXECUTE FUNCTION forget_vectors()""",
)
# Locks the items: nobody changes their vectors meanwhile.
_LEFT: Final = statement(
    "pgvector.left",
    "",
    postgres="""SELECT owner, namespace, key, vectors FROM store_items AS i
                WHERE vectors IS NOT NULL AND (owner, namespace, key) > (:owner, :namespace, :key)
                  AND NOT EXISTS (SELECT 1 FROM store_vectors AS v WHERE v.owner = i.owner
                                    AND v.namespace = i.namespace AND v.key = i.key)
                ORDER BY owner, namespace, key LIMIT :limit FOR UPDATE""",
)
_HAS_INDEX: Final = statement(
    "pgvector.has_index",
    "",
    postgres="""SELECT 1 AS found FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
                JOIN pg_am AS a ON a.oid = c.relam
                WHERE i.indrelid = to_regclass('store_vectors') AND a.amname <> 'btree'""",
)
#: Numbers of the longest vector that the extension stores.
MAX_DIMS: Final = 16_000
#: Items that one transaction adds to the table.
_PAGE: Final = 200
#: Vectors that are read at once, at first and at most.
_FEW: Final = 32
_MANY: Final = 2048


class Pgvector:
    """The table, for vectors of so many numbers."""

    def __init__(self, place: str, dims: int) -> None:
        """Use the extension in the schema *place*, which is quoted."""
        self._dims = dims
        self._make = statement(
            "pgvector.make",
            "",
            postgres=f"""CREATE TABLE store_vectors (
                           owner TEXT COLLATE "C" NOT NULL,
                           namespace TEXT COLLATE "C" NOT NULL,
                           key TEXT COLLATE "C" NOT NULL,
                           nth INTEGER NOT NULL,
                           embedding {place}.vector({dims:d}) NOT NULL,
                           PRIMARY KEY (owner, namespace, key, nth),
                           FOREIGN KEY (owner, namespace, key) REFERENCES store_items ON DELETE CASCADE)""",
        )
        self._insert = statement(
            "pgvector.insert",
            "",
            postgres=f"""INSERT INTO store_vectors (owner, namespace, key, nth, embedding)
                         VALUES (:owner, :namespace, :key, :nth, CAST(:embedding AS {place}.vector))""",
        )
        # The negative inner product: of vectors of length 1, the cosine.
        distance = "embedding OPERATOR({place}.<#>) CAST(:query AS {place}.vector)"
        nearest = f"""SELECT {{columns}}, distance, {{live}} AS live FROM (
                        SELECT owner, namespace, key, {distance} AS distance FROM store_vectors
                        WHERE owner = :owner AND namespace >= :low AND namespace < :high
                        ORDER BY {{order}}, namespace, key, nth LIMIT :limit OFFSET :offset) AS found
                      JOIN store_items USING (owner, namespace, key) ORDER BY distance, namespace, key"""
        words = {"columns": COLUMNS, "live": IS_LIVE, "place": place}
        self._nearest = statement("pgvector.nearest", "", postgres=nearest.format(**words, order="distance"))
        # A sum has no index, so all are compared.
        self._exactly = statement(
            "pgvector.exactly", "", postgres=nearest.format(**words, order=f"({distance.format(**words)}) + 0")
        )

    def put(self, at: Mapping[str, str], stored: bytes) -> Query:
        """Return what adds the vectors of an item, which has none in the table."""
        return self._insert.many(
            [{**at, "nth": nth, "embedding": text} for nth, text in enumerate(literals(stored, self._dims))]
        )

    def nearest(
        self, scope: Mapping[str, Any], query: Vector, wanted: int, matches: Callable[[Row], bool]
    ) -> Transaction[list[tuple[Row, float]]]:
        """Return the items that are most alike to *query*, so many as are wanted, each with its similarity.

        Args:
            scope: The owner, whether expired ones count, and between which namespaces.
        """
        found, complete = yield from self._look(self._nearest, scope, query, wanted, matches)
        if not complete and (yield _HAS_INDEX()):  # an approximate index ends before it has seen everything
            found, _ = yield from self._look(self._exactly, scope, query, wanted, matches)
        return list(found.values())[:wanted]

    def _look(
        self, looking: Any, scope: Mapping[str, Any], query: Vector, wanted: int, matches: Callable[[Row], bool]
    ) -> Transaction[tuple[dict[tuple[str, str], tuple[Row, float]], bool]]:
        """Return the best items, and whether there are as many as are wanted."""
        found: dict[tuple[str, str], tuple[Row, float]] = {}
        seen: set[tuple[str, str]] = set()
        text, offset, size = literal(query), 0, max(_FEW, 2 * wanted)
        while True:
            rows = yield looking(**scope, query=text, limit=size, offset=offset)
            for row in rows:
                item = (row["namespace"], row["key"])
                if item not in seen:  # the best of its vectors comes first
                    seen.add(item)
                    if row["live"] and matches(row):
                        found[item] = (row, -row["distance"])
            if len(found) >= wanted or len(rows) < size:
                return found, len(found) >= wanted
            offset, size = offset + size, min(2 * size, _MANY)

    def prepare(self) -> Transaction[None]:
        """Make the table, if it is not there or holds vectors of another length."""
        yield _LOCK()
        known = yield _DIMS()
        if known and known[0]["dims"] == self._dims:
            return
        if known:
            yield _DROP()
        yield self._make()
        yield _FORGET()
        yield _TRIGGER()

    def add_left(self, after: Mapping[str, str]) -> Transaction[Mapping[str, str] | None]:
        """Add the vectors of some items that have none in the table, and return the last of them, if there was one."""
        rows = yield _LEFT(**after, limit=_PAGE)
        for row in rows:
            yield self.put({name: row[name] for name in after}, row["vectors"])
        return {name: rows[-1][name] for name in after} if rows else None


async def open_pgvector(driver: Driver, dims: int) -> tuple[bool, Pgvector | None]:
    """Return whether the database is PostgreSQL, and its table of vectors, with all that items say, if it has one."""
    shared, place = await driver.read(_found())
    if place is None or dims > MAX_DIMS:
        return shared, None
    table = Pgvector(place, dims)
    await driver.write(table.prepare())
    after: Mapping[str, str] | None = {"owner": "", "namespace": "", "key": ""}
    while after is not None:
        after = await driver.write(table.add_left(after))
    return shared, table


def _found() -> Transaction[tuple[bool, str | None]]:
    [row] = yield _FIND()
    return bool(row["shared"]), row["place"]
