"""The history of channels that are kept as changes since a snapshot (LangGraph's ``DeltaChannel``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from langgraph.checkpoint.base import DeltaChannelHistory

from runlane.checkpoints.rows import merge_writes
from runlane.checkpoints.transactions import (
    GET_BLOBS,
    GET_WRITES,
    Loads,
    checkpoint_in,
    find,
    json_list,
    parts_of,
    versions_of,
)
from runlane.checkpoints.values import Reading
from runlane.store.statements import Row, Rows, Transaction
from runlane.store.transactions.parts import Known


@dataclass(frozen=True, slots=True, kw_only=True)
class Ancestor:
    """The contribution of a checkpoint: values of some of the channels, and the calls of put_writes on it."""

    values: Mapping[str, Row]
    writes: Rows
    parts: Mapping[str, bytes]


def ancestors(
    thread_id: str, checkpoint_ns: str, checkpoint_id: str | None, channels: Sequence[str], loads: Loads, known: Known
) -> Transaction[list[Ancestor]]:
    """Return the ancestors of a checkpoint, parent first, as far as one of *channels* has no value yet."""
    row = yield from find(thread_id, checkpoint_ns, checkpoint_id)
    at = {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns}
    chain: list[Ancestor] = []
    missing = set(channels)
    while row is not None and row["parent_id"] and missing:
        row = yield from find(thread_id, checkpoint_ns, row["parent_id"])
        if row is None:
            break
        versions = dict(versions_of(checkpoint_in(row, loads)))
        wanted = json_list([(channel, versions[channel]) for channel in missing if channel in versions])
        blobs = yield GET_BLOBS(**at, versions=wanted)
        writes = yield GET_WRITES(**at, checkpoint_ids=json_list([row["checkpoint_id"]]))
        parts = yield from parts_of([*blobs, *writes], thread_id, known)
        chain.append(Ancestor(values={blob["channel"]: blob for blob in blobs}, writes=writes, parts=parts))
        missing -= chain[-1].values.keys()
    return chain


def histories(chain: Sequence[Ancestor], channels: Sequence[str], reading: Reading) -> dict[str, DeltaChannelHistory]:
    """Return, for each channel, the value that it starts from, if any, and the writes since, oldest first."""
    result: dict[str, DeltaChannelHistory] = {channel: {"writes": []} for channel in channels}
    missing = set(channels)
    for ancestor in chain:
        for write in reversed(merge_writes(ancestor.writes, ancestor.parts, reading)):
            if write[1] in missing:
                result[write[1]]["writes"].append(write)
        for channel in missing & ancestor.values.keys():
            blob = ancestor.values[channel]
            result[channel]["seed"] = reading.load(blob, "value", ancestor.parts)
            missing.remove(channel)
    for history in result.values():
        history["writes"].reverse()
    return result
