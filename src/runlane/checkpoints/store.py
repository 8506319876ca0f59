"""LangGraph's long-term store on the ledger."""

from __future__ import annotations

import asyncio
import copy
import heapq
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

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
from runlane.checkpoints.texts import Texts
from runlane.errors import InvalidRequest
from runlane.records import NO_OWNER
from runlane.store.retry import patiently
from runlane.store.statements import Driver, Row, Rows, Transaction

if TYPE_CHECKING:  # they need numpy, which only an index does
    from runlane.checkpoints.embeddings import Embedded, SemanticIndex
    from runlane.checkpoints.pgvector import Pgvector
    from runlane.checkpoints.vectors import Vector

T = TypeVar("T")
log = logging.getLogger("runlane.store")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE_US: Final = 60_000_000
#: After every change.
_LATEST: Final = 2**62

#: A thousand years; instants stay within 64 bits.
MAX_TTL_MINUTES: Final = 525_600_000
SWEEP_MINUTES: Final = 5
#: Items that a search holds at a time, with their values and vectors.
SCANNED: Final = 256
#: Items whose vectors one search on PostgreSQL reads, where the database cannot compare them: some seconds of a CPU.
MAX_COMPARED: Final = 50_000

ReadOp = GetOp | SearchOp | ListNamespacesOp
#: Less is better: what is compared, how recent the change is, where the item is.
_Ranked = tuple[float, int, str, str]


class LedgerLongTermStore(BaseStore):
    """Keeps an owner's items in the ledger.

    A batch sees the store as it was before the batch: its reads are one snapshot, then its writes are one transaction.
    A search answers the most alike items first if it has a query and there is an index, else the most recently changed.
    Without an index neither a query nor fields to embed have an effect, as in LangGraph's own stores; that is logged
    once. An expired item is gone at once, unless the configuration says ``omit_expired: False``. The synchronous
    methods work from other threads than the loop's.

    Entered as a context, it deletes expired items every now and then; without that, :meth:`sweep` does.
    """

    supports_ttl = True

    def __init__(
        self,
        driver: Driver,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        ttl: TTLConfig | None = None,
        index: SemanticIndex | None = None,
        owner: str = NO_OWNER,
    ) -> None:
        """Use the tables of *driver*'s database.

        Args:
            loop: Where synchronous calls of other threads are executed; the running loop by default.
            ttl: LangGraph's configuration of expiry; minutes.
            index: What is embedded; without it there is no search by similarity.
        """
        super().__init__()
        self.ttl_config = ttl
        self._driver = driver
        self._index = index
        self._loop = loop or asyncio.get_running_loop()
        self._scope: dict[str, Any] = {"owner": owner, "expired_too": not (ttl or {}).get("omit_expired", True)}
        self._patient = False
        self._shared = _Shared()
        #: How often :meth:`sweep` has to be called, if items are to be removed once they have expired.
        self.sweep_every_s = 60.0 * ((ttl or {}).get("sweep_interval_minutes") or SWEEP_MINUTES)

    async def prepare(self) -> None:
        """Make the ledger's vectors those of the index; call it before the first use of a store with an index.

        Raises:
            ConfigurationError: There are vectors that cannot be compared with those of the index.
        """
        if self._index is None:
            return
        await self._driver.write(items.use_dims(self._index.dims))
        is_postgres, self._shared.pgvector = await self._index.open_pgvector(self._driver)
        if is_postgres and self._shared.pgvector is None:
            self._shared.max_compared = MAX_COMPARED
            log.warning(
                "store.no_pgvector limit=%d why=%s",
                MAX_COMPARED,
                "PostgreSQL has no extension 'vector', or vectors are too long for it: searches read all vectors.",
            )

    @property
    def indexed(self) -> bool:
        """Return whether there is semantic search."""
        return self._index is not None

    def for_owner(self, owner: str) -> LedgerLongTermStore:
        """Return the same store for another owner's items."""
        other = copy.copy(self)
        other._scope = {**self._scope, "owner": owner}
        return other

    def for_run(self, owner: str) -> LedgerLongTermStore:
        """Return the store as a run of *owner* has it: it waits while the ledger is unavailable."""
        waiting = self.for_owner(owner)
        waiting._patient = True
        return waiting

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Execute *ops*, and return their results in the same order.

        Raises:
            InvalidRequest: An operation makes no sense; none was executed.
            EmbeddingFailed: None was executed.
            StoreUnavailable: Nothing was written.
        """
        batch = self._batch(ops)
        embedded = await self._index.embed(batch.texts) if self._index is not None and batch.texts else None
        return await self._execute(batch, embedded)

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Execute *ops* from another thread than the loop's, which embeds their texts itself."""
        batch = self._batch(ops)
        embedded = self._index.embed_blocking(batch.texts) if self._index is not None and batch.texts else None
        return wait_from_another_thread(self._execute(batch, embedded), self._loop)

    async def sweep(self) -> int:
        """Delete every owner's expired items and return how many there were; other writes go in between."""
        swept = 0
        while some := await self._driver.write(items.sweep_some()):
            swept += some
        if swept:
            log.info("store.swept items=%d", swept)
        return swept

    def _batch(self, ops: Iterable[Op]) -> _Batch:
        batch = _Batch(ops, self._index)
        if batch.needs_index and self._index is None and not self._shared.told.is_set():
            self._shared.told.set()
            log.warning(
                "store.no_index why=%s", "'query' and 'index' have no effect; see 'store.index' in langgraph.json."
            )
        return batch

    async def _execute(self, batch: _Batch, embedded: Embedded | None) -> list[Result]:
        results: list[Result] = [None] * batch.size
        touched: list[Row] = []
        if batch.reads:
            reads = list(batch.reads.values())
            answers, touched = await self._ask(lambda: self._driver.read(self._read(reads, embedded)))
            for at, answer in zip(batch.reads, answers, strict=True):
                results[at] = answer
        if batch.puts or touched:
            await self._ask(lambda: self._driver.write(self._write(touched, batch.puts, embedded)))
        return results

    async def _ask(self, operation: Callable[[], Awaitable[T]]) -> T:
        return await (patiently(operation) if self._patient else operation())

    def _read(self, ops: Sequence[ReadOp], embedded: Embedded | None) -> Transaction[tuple[list[Result], list[Row]]]:
        """Answer *ops*, and say which of the rows are to live longer for having been read."""
        answers: list[Result] = []
        touched: list[Row] = []
        for op in ops:
            rows: Sequence[Row]
            if isinstance(op, GetOp):
                rows = yield items.GET(**self._scope, namespace=items.encode_namespace(op.namespace), key=op.key)
                answers.append(Item(**_fields(rows[0])) if rows else None)
            elif isinstance(op, SearchOp):
                found = yield from self._search(op, embedded)
                rows = [row for row, _ in found]
                answers.append([SearchItem(**_fields(row), score=score) for row, score in found])
            else:
                low, high = items.listed_range(op.match_conditions or ())
                listed = yield items.NAMESPACES(**self._scope, low=low, high=high)
                answers.append(_listing([items.decode_namespace(row["namespace"]) for row in listed], op))
                continue
            if op.refresh_ttl:
                touched += [row for row in rows if row["ttl_us"] is not None]
        return answers, touched

    def _search(self, op: SearchOp, embedded: Embedded | None) -> Transaction[list[tuple[Row, float | None]]]:
        low, high = items.namespace_range(op.namespace_prefix)
        query = embedded.queries[op.query] if op.query and embedded is not None else None
        if not op.namespace_prefix and query is None:
            return [(row, None) for row in (yield from self._newest(op))]
        if not op.filter and query is None:
            rows = yield items.SEARCH(**self._scope, low=low, high=high, limit=op.limit, offset=op.offset)
            return [(row, None) for row in rows]
        wanted, best = op.offset + op.limit, list[_Ranked]()
        if query is not None and self._shared.pgvector is not None:
            scope = {**self._scope, "low": low, "high": high}
            nearest = yield from self._shared.pgvector.nearest(scope, query, wanted, partial(_matches, op))
            return list(nearest[op.offset :])
        compared, texts = 0, items.texts_of(op.filter)
        at: dict[str, Any] = {"namespace": low, "key": "", "inclusive": True}
        while True:
            rows = yield items.SCAN(**self._scope, **at, **texts, high=high, embedded=query is not None, limit=SCANNED)
            compared += len(rows)
            if query is not None and self._shared.max_compared is not None and compared > self._shared.max_compared:
                raise InvalidRequest(
                    f"A search compares no more than {self._shared.max_compared:,} items without pgvector. Search a "
                    "longer namespace, or install the extension 'vector' in the database and start again."
                )
            best += self._ranked(rows, op, query)
            if len(best) > 2 * wanted or len(rows) < SCANNED:
                best = heapq.nsmallest(wanted, best)
            if len(rows) < SCANNED:
                break
            at = {"namespace": rows[-1]["namespace"], "key": rows[-1]["key"], "inclusive": False}
        found: list[tuple[Row, float | None]] = []
        for distance, _, namespace, key in best[op.offset :]:
            [row] = yield items.GET(**self._scope, namespace=namespace, key=key)
            found.append((row, None if query is None else -distance))
        return found

    def _newest(self, op: SearchOp) -> Transaction[list[Row]]:
        """Return what *op* finds among all items of the owner: the most recently changed, without a query."""
        texts = items.texts_of(op.filter)
        at: dict[str, Any] = {"changed_at": _LATEST, "namespace": "", "key": ""}
        if not op.filter:
            return list((yield items.NEWEST(**self._scope, **at, **texts, limit=op.limit, offset=op.offset)))
        found, passed = list[Row](), 0
        while True:
            rows = yield items.NEWEST(**self._scope, **at, **texts, limit=SCANNED, offset=0)
            matching = [row for row in rows if _matches(op, row)]
            found += matching[max(0, op.offset - passed) :]
            passed += len(matching)
            if len(rows) < SCANNED or len(found) >= op.limit:
                return found[: op.limit]
            last = rows[-1]
            at = {"changed_at": last["updated_at"], "namespace": last["namespace"], "key": last["key"]}

    def _ranked(self, rows: Rows, op: SearchOp, query: Vector | None) -> list[_Ranked]:
        """Return those of *rows* that match the filter, with what they are ordered by."""
        matching = [row for row in rows if _matches(op, row)]
        if query is None or self._index is None:
            similarity = [0.0] * len(matching)
        else:
            similarity = self._index.similarity([row["vectors"] for row in matching], query)
        return [
            (-alike, -row["updated_at"], row["namespace"], row["key"])
            for alike, row in zip(similarity, matching, strict=True)
        ]

    def _write(self, touched: Sequence[Row], puts: Sequence[_Put], embedded: Embedded | None) -> Transaction[None]:
        owner: str = self._scope["owner"]
        writes: list[tuple[str, str, _Put | None]] = [(row["namespace"], row["key"], None) for row in touched]
        writes += [(put.namespace, put.key, put) for put in puts]
        # In one order, so that two batches do not wait for each other.
        for namespace, key, put in sorted(writes, key=lambda write: write[:2]):
            at = {"owner": owner, "namespace": namespace, "key": key}
            if put is None:
                yield items.TOUCH(**at)
            elif put.value is None:
                yield items.DELETE(**at)
            else:
                vectors = None if embedded is None else embedded.stored(put.texts)
                yield items.PUT(**at, value=put.value, ttl_us=put.ttl_us, vectors=vectors)
                if vectors is not None and self._shared.pgvector is not None:
                    yield self._shared.pgvector.put(at, vectors)


@dataclass(slots=True)
class _Shared:
    """What the stores of all owners share.

    ``told``: it was logged that queries are ignored. ``pgvector``: the table that the database compares vectors in;
    without it a search on PostgreSQL compares ``max_compared`` items at most.
    """

    told: threading.Event = field(default_factory=threading.Event)
    pgvector: Pgvector | None = None
    max_compared: int | None = None


class _Batch:
    """Operations that make sense, serialised on the caller's thread, and the texts that they need embedded.

    Raises:
        InvalidRequest: One makes no sense.
    """

    def __init__(self, ops: Iterable[Op], index: SemanticIndex | None) -> None:
        wanted = list(ops)
        for op in wanted:
            _check(op)
        self.size = len(wanted)
        self.needs_index = any(_needs_index(op) for op in wanted)
        self.reads = {at: op for at, op in enumerate(wanted) if isinstance(op, ReadOp)}
        last = {(op.namespace, op.key): op for op in wanted if isinstance(op, PutOp)}  # the last one counts
        self.puts = [_Put(op, index) for op in last.values()]
        self.texts = Texts(
            documents=tuple(dict.fromkeys(text for put in self.puts for text in put.texts)),
            queries=tuple({op.query: None for op in self.reads.values() if isinstance(op, SearchOp) and op.query}),
        )


class _Put:
    """A write."""

    __slots__ = ("key", "namespace", "texts", "ttl_us", "value")

    def __init__(self, op: PutOp, index: SemanticIndex | None) -> None:
        self.namespace = items.encode_namespace(op.namespace)
        self.key = op.key
        self.value = None if op.value is None else items.encode_value(op.value)
        self.ttl_us = None if op.ttl is None else round(op.ttl * _MINUTE_US)
        self.texts: list[str] = []
        if index is not None and op.value is not None and op.index is not False:
            self.texts = index.texts(op.value, op.index)


def _matches(op: SearchOp, row: Row) -> bool:
    return not op.filter or items.value_matches(orjson.loads(row["value"]), op.filter)


def _needs_index(op: Op) -> bool:
    return bool(op.query if isinstance(op, SearchOp) else isinstance(op, PutOp) and op.index)


def _check(op: Op) -> None:
    if not isinstance(op, ReadOp | PutOp):
        raise InvalidRequest(f"The store has no operation {type(op).__name__!r}.")
    validate_op_namespace(op)
    if isinstance(op, PutOp):
        _check_put(op)
        return
    if isinstance(op, SearchOp):
        items.check_filter(op.filter)
    if isinstance(op, SearchOp | ListNamespacesOp) and min(op.limit, op.offset) < 0:
        raise InvalidRequest("'limit' and 'offset' cannot be negative.")


def _check_put(op: PutOp) -> None:
    if op.ttl is not None and not 0 < op.ttl <= MAX_TTL_MINUTES:
        raise InvalidRequest(f"A time to live is a number of minutes from 0 to {MAX_TTL_MINUTES}, not {op.ttl!r}.")


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
