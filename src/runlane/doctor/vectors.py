"""Findings about pgvector's table of vectors."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from runlane.doctor.findings import Finding, by
from runlane.store.transactions.doctor_vectors import VectorPage, forget_rows

_AGAIN = "the next process with an index that starts adds those of the item"


def judge(page: VectorPage) -> Iterator[Finding]:
    """Yield what is wrong with the rows of a page of items."""
    if page.stored != page.dims:
        yield Finding(
            code="item.vector_rows",
            subject={"table": page.stored, "index": page.dims},
            meaning="The table of vectors holds others than the index says, so every semantic search fails.",
            repair="restart a process with an index, which makes the table again.",
        )
        return
    for row in page.wrong:
        yield Finding(
            code="item.vector_rows",
            subject={"namespace": row["namespace"], "key": row["key"], "rows": row["n"]},
            meaning="The table of vectors does not have this item's vectors, so semantic searches miss it.",
            repair=f"its rows are deleted; {_AGAIN}." if row["n"] else f"none is needed; {_AGAIN}.",
            fix=by(partial(forget_rows, row, page.dims)) if row["n"] else None,
        )
