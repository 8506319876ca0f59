"""Transactions side by side: what several of them say at once is one statement. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runlane.store.statements import Query, Row, Rows, Transaction


class _Member:
    """One of the transactions, which waits for the answer to *query*, or is over."""

    __slots__ = ("_transaction", "_wrote", "error", "query", "result")

    def __init__(self, transaction: Transaction[Any]) -> None:
        self._transaction = transaction
        self._wrote = False
        self.query: Query | None = None
        self.result: Any = None
        self.error: Exception | None = None

    def advance(self, rows: Rows | None = None) -> None:
        """Hand over the answer to its query; there is none at the beginning."""
        try:
            self.query = next(self._transaction) if rows is None else self._transaction.send(rows)
        except StopIteration as stop:
            self.query, self.result = None, stop.value
        except Exception as error:
            if self._wrote:
                raise
            self.query, self.error = None, error
        else:
            self._wrote = self._wrote or not self.query.statement.reads


def together(transactions: Sequence[Transaction[Any]]) -> Transaction[list[tuple[Any, Exception | None]]]:
    """Run *transactions* within one, and return the result or the error of each.

    They go forward step by step: all that have the same statement next are answered by one, if there is a form of it
    for many. The order of their writes is that of *transactions* within a statement, and not otherwise: they must not
    depend on each other.

    Raises:
        Exception: Of a statement, or of a transaction that had written something: what all have done is to be undone.
    """
    members = [_Member(transaction) for transaction in transactions]
    for member in members:
        member.advance()
    while waiting := [member for member in members if member.query is not None]:
        for alike in _alike(waiting):
            answers = yield from _answers([member.query for member in alike if member.query is not None])
            for member, rows in zip(alike, answers, strict=True):
                member.advance(rows)
    return [(member.result, member.error) for member in members]


def _alike(waiting: Sequence[_Member]) -> list[list[_Member]]:
    """Return who can be answered by one statement."""
    found: dict[object, list[_Member]] = {}
    for member in waiting:
        query = member.query
        assert query is not None
        together = query.params is None or query.statement.together is not None
        key = (query.statement.name, query.params is None) if together else member
        found.setdefault(key, []).append(member)
    return list(found.values())


def _answers(queries: Sequence[Query]) -> Transaction[Sequence[Rows]]:
    first = queries[0]
    if len(queries) == 1:
        return [(yield first)]
    if first.params is None:
        yield first.statement.many([row for query in queries for row in query.many])
        return [()] * len(queries)
    assert first.statement.together is not None
    params = [query.params or {} for query in queries]
    answers: list[list[Row]] = [[] for _ in queries]
    for row in (yield first.statement.together(**{name: [each[name] for each in params] for name in first.params})):
        answers[row["place"] - 1].append(row)
    return answers
