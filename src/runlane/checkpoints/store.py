"""LangGraph's long-term store on the ledger."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    validate_op_namespace,
)

from runlane.checkpoints import items
from runlane.checkpoints.sync import wait_from_another_thread
from runlane.errors import InvalidRequest, UnsupportedOption
from runlane.records import NO_OWNER
from runlane.store.statements import Driver, Row, Rows, Transaction

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE_US: Final = 60_000_000

ReadOp = GetOp | SearchOp | ListNamespacesOp


class LedgerLongTermStore(BaseStore):
    """Keeps an owner's items in the ledger.

    A batch sees the store as it was before the batch: its reads are one snapshot, then its writes are one transaction.
    A search answers the most recently changed items first. An expired item is gone at once, unless the configuration
    says ``omit_expired: False``; :meth:`sweep` removes it. The synchronous methods work from other threads than the
    loop's.
    """

    supports_ttl = True

    def __init__(
        self,
        driver: Driver,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        ttl: TTLConfig | None = None,
        owner: str = NO_OWNER,
    ) -> None:
        """Use the tables of *driver*'s database.

        Args:
            loop: Where synchronous calls of other threads are executed; the running loop by default.
            ttl: LangGraph's configuration of expiry; minutes.
        """
        super().__init__()
        self.ttl_config = ttl
        self._driver = driver
        self._loop = loop or asyncio.get_running_loop()
        self._scope = {"owner": owner, "expired_too": not (ttl or {}).get("omit_expired", True)}

    def for_owner(self, owner: str) -> LedgerLongTermStore:
        """Return the same store for another owner's items."""
        other = copy.copy(self)
        other._scope = {**self._scope, "owner": owner}
        return other

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Execute *ops*, and return their results in the same order.

        Raises:
            InvalidRequest: An operation makes no sense; none was executed.
            UnsupportedOption: A semantic query, or an index; none was executed.
            StoreUnavailable: Nothing was written.
        """
        wanted = list(ops)
        for op in wanted:
            _check(op)
        reads = {at: op for at, op in enumerate(wanted) if isinstance(op, ReadOp)}
        puts = {(op.namespace, op.key): _Put(op) for op in wanted if isinstance(op, PutOp)}  # the last one counts
        results: list[Result] = [None] * len(wanted)
        touched: list[Row] = []
        if reads:
            answers, touched = await self._driver.read(self._read(list(reads.values())))
            for at, answer in zip(reads, answers, strict=True):
                results[at] = answer
        if puts or touched:
            await self._driver.write(self._write(touched, list(puts.values())))
        return results

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Execute *ops* from another thread than the loop's."""
        return wait_from_another_thread(self.abatch(ops), self._loop)

    async def sweep(self) -> int:
        """Delete every owner's expired items and return how many there were."""
        return await self._driver.write(_sweep())

    def _read(self, ops: Sequence[ReadOp]) -> Transaction[tuple[list[Result], list[Row]]]:
        """Answer *ops*, and say which of the rows are to live longer for having been read."""
        answers: list[Result] = []
        touched: list[Row] = []
        for op in ops:
            if isinstance(op, GetOp):
                rows = yield items.GET(**self._scope, namespace=items.encode_namespace(op.namespace), key=op.key)
                answers.append(Item(**_fields(rows[0])) if rows else None)
            elif isinstance(op, SearchOp):
                rows = yield from self._search(op)
                answers.append([SearchItem(**_fields(row)) for row in rows])
            else:
                found = yield items.NAMESPACES(**self._scope)
                answers.append(_listing([items.decode_namespace(row["namespace"]) for row in found], op))
                continue
            if op.refresh_ttl:
                touched += [row for row in rows if row["ttl_us"] is not None]
        return answers, touched

    def _search(self, op: SearchOp) -> Transaction[Rows]:
        low, high = items.namespace_range(op.namespace_prefix)
        scope = {**self._scope, "low": low, "high": high}
        if not op.filter:
            return (yield items.SEARCH(**scope, limit=op.limit, offset=op.offset))
        rows = yield items.SEARCH(**scope, limit=-1, offset=0)
        matching = [row for row in rows if items.value_matches(orjson.loads(row["value"]), op.filter)]
        return matching[op.offset : op.offset + op.limit]

    def _write(self, touched: Sequence[Row], puts: Sequence[_Put]) -> Transaction[None]:
        for row in touched:
            yield items.TOUCH(owner=self._scope["owner"], namespace=row["namespace"], key=row["key"])
        for put in puts:
            at = {"owner": self._scope["owner"], "namespace": put.namespace, "key": put.key}
            if put.value is None:
                yield items.DELETE(**at)
            else:
                yield items.PUT(**at, value=put.value, ttl_us=put.ttl_us)


class _Put:
    """A write, serialised on the caller's thread."""

    __slots__ = ("key", "namespace", "ttl_us", "value")

    def __init__(self, op: PutOp) -> None:
        self.namespace, self.key = items.encode_namespace(op.namespace), op.key
        self.value = None if op.value is None else items.encode_value(op.value)
        self.ttl_us = None if op.ttl is None else round(op.ttl * _MINUTE_US)


def _sweep() -> Transaction[int]:
    return len((yield items.SWEEP()))


def _check(op: Op) -> None:
    if not isinstance(op, ReadOp | PutOp):
        raise InvalidRequest(f"The store has no operation {type(op).__name__!r}.")
    validate_op_namespace(op)
    if isinstance(op, SearchOp) and op.query is not None:
        raise UnsupportedOption("query", "this store has no index for semantic search.")
    if isinstance(op, PutOp):
        if op.index:
            raise UnsupportedOption("index", "this store has no index for semantic search.")
        if op.ttl is not None and op.ttl <= 0:
            raise InvalidRequest(f"A time to live is a positive number of minutes, not {op.ttl!r}.")
    if isinstance(op, SearchOp | ListNamespacesOp) and min(op.limit, op.offset) < 0:
        raise InvalidRequest("'limit' and 'offset' cannot be negative.")


def _listing(namespaces: list[tuple[str, ...]], op: ListNamespacesOp) -> list[tuple[str, ...]]:
    matching = {
        namespace[: op.max_depth]
        for namespace in namespaces
        if all(items.namespace_matches(namespace, condition) for condition in op.match_conditions or ())
    }
    return sorted(matching)[op.offset : op.offset + op.limit]


def _fields(row: Row) -> dict[str, Any]:
    return {
        "namespace": items.decode_namespace(row["namespace"]),
        "key": row["key"],
        "value": orjson.loads(row["value"]),
        "created_at": _EPOCH + timedelta(microseconds=row["created_at"]),
        "updated_at": _EPOCH + timedelta(microseconds=row["updated_at"]),
    }
