"""Values of runs and threads as they are stored: text, or documents whose parts the thread shares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import orjson
from msgspec import structs

from runlane.documents.document import Body, Document, Encoded, assemble, body_of_text, whole
from runlane.documents.parts import bytes_of, split_refs
from runlane.errors import DocumentIncomplete
from runlane.outcomes import Snapshot
from runlane.records import RunRecord, Thread
from runlane.requests import StoredRequest
from runlane.store.rows import run_record, thread_record
from runlane.store.statements import Row, Rows, Transaction
from runlane.store.transactions.parts import mark_due, put_parts, read_parts


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredValue:
    """The columns of a value: its text; of a document, the body as text, and its references."""

    text: str | None = None
    refs: str | None = None


NO_VALUE: Final = StoredValue()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredState:
    """The columns of what a run left."""

    values: StoredValue = NO_VALUE
    result: StoredValue = NO_VALUE


NO_STATE: Final = StoredState()


def put_documents(thread_id: str, documents: Iterable[Document]) -> Transaction[bool]:
    """Store what *documents* bring; ``False`` if more is missing, and they cannot be stored as documents.

    That happens if writes on which they rely were dropped.
    """
    refs: set[str] = set()
    parts: dict[str, bytes] = {}
    for document in documents:
        refs.update(document.refs)
        parts.update(document.parts)
    try:
        yield from put_parts(thread_id, refs, parts)
    except DocumentIncomplete:
        yield from mark_due(thread_id)
        return False
    return True


def put_value(thread_id: str, value: Encoded | None) -> Transaction[StoredValue]:
    """Store the parts of *value*, and return its columns; it is stored as a whole if parts of it are not there."""
    if value is None:
        return NO_VALUE
    if isinstance(value, Document) and (yield from _put(thread_id, value)):
        return StoredValue(text=value.text, refs=value.ref_text)
    return StoredValue(text=whole(value).decode())


def _put(thread_id: str, document: Document) -> Transaction[bool]:
    """Store what *document* brings, most of which events have brought; ``False`` as in :func:`put_documents`."""
    try:
        yield from put_parts(thread_id, {*document.refs, *document.parts}, {})
    except DocumentIncomplete:
        return (yield from put_documents(thread_id, [document]))
    return True


def put_state(thread_id: str, state: Snapshot) -> Transaction[StoredState]:
    """Store the parts of what a run left, and return its columns."""
    values = yield from put_value(thread_id, state.values)
    if state.result is state.values:
        return StoredState(values=values, result=values)
    result = yield from put_value(thread_id, state.result)
    return StoredState(values=values, result=result)


class Assembly:
    """Puts documents of one thread together, and reads what they share once."""

    __slots__ = ("_parts", "_thread_id")

    def __init__(self, thread_id: str) -> None:
        self._thread_id = thread_id
        self._parts: dict[str, bytes] = {}

    @property
    def nodes(self) -> Mapping[str, bytes]:
        """What the parts of the package ``documents`` ask of a reader."""
        return {}

    def __contains__(self, ref: str) -> bool:
        return ref in self._parts

    def read(self, refs: str) -> Transaction[None]:
        """Read what *refs* stand for.

        Raises:
            DocumentIncomplete: A part is not there.
        """
        found = yield from read_parts(self._thread_id, split_refs(refs), self)
        self._parts.update(found)

    def bytes_of(self, body: Body, refs: str) -> bytes:
        """Return the bytes of a document whose *refs* were read."""
        return assemble(body, split_refs(refs), partial(bytes_of, parts=self._parts))


def value_of(thread_id: str, text: str | None, refs: str | None) -> Transaction[bytes | None]:
    """Return the JSON text of a value with the columns *text* and *refs*.

    Raises:
        DocumentIncomplete: A part of it is not there.
    """
    if text is None or refs is None:
        return None if text is None else text.encode()
    reading = Assembly(thread_id)
    yield from reading.read(refs)
    return reading.bytes_of(body_of_text(text), refs)


def request_of(row: Row) -> Transaction[StoredRequest]:
    """Return the request of a run with its input, which is stored apart from it if it is large.

    Raises:
        DocumentIncomplete: A part of it is not there.
    """
    input_text = yield from value_of(row["thread_id"], row["input"], row["input_refs"])
    return StoredRequest(row["kwargs"], input_text)


def run_of(row: Row, stored: StoredRequest | None = None) -> Transaction[RunRecord]:
    """Return a run with its whole request, which is not read again if it was *stored* by this transaction.

    Raises:
        DocumentIncomplete: A part of its input is not there.
    """
    run = run_record(row, stored)
    if stored is not None or row["input"] is None:
        return run
    stored = yield from request_of(row)
    return structs.replace(run, stored=stored)


def runs_of(rows: Rows) -> Transaction[tuple[RunRecord, ...]]:
    """Return runs with their whole requests."""
    runs = []
    for row in rows:
        run = yield from run_of(row)
        runs.append(run)
    return tuple(runs)


def thread_of(row: Row) -> Transaction[Thread]:
    """Return a thread with its values, or what it shows while it has none.

    Raises:
        DocumentIncomplete: A part of them is not there.
    """
    text = row["first_values"] if row["state_values"] is None else row["state_values"]
    data = yield from value_of(row["thread_id"], text, row["state_refs"])
    return replace(thread_record(row), values=None if data is None else orjson.loads(data))
