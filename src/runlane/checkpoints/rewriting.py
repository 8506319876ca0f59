"""Rewriting large values of checkpoints that an earlier version stored whole, as documents.

The values read the same before and after, and whoever reads them meanwhile: a row is rewritten by one transaction that
stores its parts too. So it may be stopped at any time, and goes on with what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from langgraph.checkpoint.serde.base import SerializerProtocol

from runlane.checkpoints.serializer import LedgerSerializer
from runlane.checkpoints.values import MessagePack
from runlane.documents.document import MIN_DOCUMENT_BYTES, Builder, Document, assemble, body_of
from runlane.documents.memory import ThreadMemory
from runlane.documents.parts import bytes_of
from runlane.documents.splitting import document_of
from runlane.errors import DocumentIncomplete
from runlane.store.statements import Driver, Row, Rows, Statement, Transaction, statement
from runlane.store.transactions.parts import put_parts, read_parts

#: Is told how many threads are done, and how many there are.
Progress = Callable[[int, int], None]

_THREADS: Final = statement(
    "rewriting.threads", "SELECT count(DISTINCT thread_id) AS threads FROM checkpoints WHERE thread_id > :after"
)
_NEXT_THREAD: Final = statement(
    "rewriting.next_thread", "SELECT min(thread_id) AS thread_id FROM checkpoints WHERE thread_id > :after"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """Where large values are: the rows of a thread by their keys, one of them, and its change."""

    column: str
    keys: tuple[str, ...]
    large: Statement
    get: Statement
    put: Statement

    @classmethod
    def of(cls, table: str, column: str, *keys: str) -> _Table:
        listed = ", ".join(keys)
        where = " AND ".join(f"{key} = :{key}" for key in ("thread_id", *keys))
        old = f"type = 'msgpack' AND refs IS NULL AND length({column}) >= :least"
        return cls(
            column=column,
            keys=keys,
            large=statement(
                f"rewriting.large_{column}",
                f"SELECT {listed} FROM {table} WHERE thread_id = :thread_id AND {old} ORDER BY {listed}",
            ),
            get=statement(f"rewriting.get_{column}", f"SELECT {column} FROM {table} WHERE {where}"),
            # Guard: it has not been rewritten, or removed, since it was read.
            put=statement(
                f"rewriting.put_{column}",
                f"UPDATE {table} SET {column} = :{column}, refs = :refs WHERE {where} AND {old}",
            ),
        )


_TABLES: Final = (
    _Table.of("checkpoint_blobs", "value", "checkpoint_ns", "channel", "version"),
    _Table.of("checkpoint_writes", "writes", "checkpoint_ns", "checkpoint_id", "seq"),
)


async def rewrite_large_values(
    driver: Driver, progress: Progress = lambda done, threads: None, serde: SerializerProtocol | None = None
) -> int:
    """Store the large values of all checkpoints as documents, and return how many were rewritten.

    A value whose bytes would not come back exactly stays as it is. For the only process that uses the database: parts
    that it has stored must not be swept meanwhile.

    Raises:
        StoreUnavailable: The database cannot be read or written; what was rewritten so far stays so.
    """
    serde = serde or LedgerSerializer()
    codec, loads = MessagePack(serde), serde.loads_typed
    after, done, rewritten = "", 0, 0
    threads = (await driver.read(_asked(_THREADS, after=after)))[0]["threads"]
    while (thread_id := (await driver.read(_asked(_NEXT_THREAD, after=after)))[0]["thread_id"]) is not None:
        memory = ThreadMemory()
        for table in _TABLES:
            for row in await driver.read(_asked(table.large, thread_id=thread_id, least=MIN_DOCUMENT_BYTES)):
                key = {"thread_id": thread_id, **{name: row[name] for name in table.keys}}
                rewritten += await _rewrite(driver, table, key, codec, loads, memory)
        after, done = thread_id, done + 1
        progress(done, max(done, threads))
    return rewritten


async def _rewrite(
    driver: Driver,
    table: _Table,
    key: dict[str, Any],
    codec: MessagePack,
    loads: Callable[[tuple[str, bytes]], Any],
    memory: ThreadMemory,
) -> bool:
    rows = await driver.read(_asked(table.get, **key))
    data: bytes = rows[0][table.column]
    for document in _documents(data, codec, loads, memory):
        try:
            await driver.write(_checked(table, key, data, document))
        except (_Different, DocumentIncomplete):
            continue
        memory.accept(codec.name, document.refs, document.parts)
        return True
    return False


def _documents(
    data: bytes, codec: MessagePack, loads: Callable[[tuple[str, bytes]], Any], memory: ThreadMemory
) -> Iterator[Document]:
    """Yield *data* as a document of what it says, and as one of bytes: it may be of a type that nobody knows here."""
    try:
        said = document_of(loads(("msgpack", data)), codec, memory)
    except Exception:  # noqa: BLE001 - whatever cannot be decoded is bytes
        said = b""
    if isinstance(said, Document):
        yield said
    builder = Builder(memory.stored(codec.name))
    builder.add_opaque(data, is_spine=True)
    yield builder.document()


class _Different(Exception):
    """A document is not what it was made of; nothing is stored of it."""


def _checked(table: _Table, key: dict[str, Any], data: bytes, document: Document) -> Transaction[None]:
    """Store a document in the place of *data*.

    Raises:
        _Different: What is put together from what is stored is not *data*.
    """
    yield from put_parts(key["thread_id"], document.refs, document.parts)
    stored = yield from read_parts(key["thread_id"], document.refs)
    if assemble(body_of(document.body_bytes), document.refs, partial(bytes_of, parts=stored)) != data:
        raise _Different
    yield table.put(**key, **{table.column: document.body_bytes}, refs=document.ref_text, least=MIN_DOCUMENT_BYTES)


def _asked(wanted: Statement, **params: Any) -> Transaction[Rows]:
    rows: list[Row] = list((yield wanted(**params)))
    return rows
