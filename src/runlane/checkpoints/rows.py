"""From LangGraph's checkpoints to rows, and back. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    PendingWrite,
    get_checkpoint_metadata,
    writes_sort_key,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import ERROR, RESUME

from runlane.checkpoints.transactions import Stored, versions_of
from runlane.checkpoints.values import Reading, Values
from runlane.journal.rows import CheckpointRows, Params
from runlane.records import TaskWrites
from runlane.redaction import is_secret
from runlane.store.statements import Row, Rows

#: The task under which LangGraph stores what a command writes.
_COMMAND_TASK_ID: Final = "00000000-0000-0000-0000-000000000000"

#: LangGraph's mark of a failed task whose error handler goes on.
_HANDLED: Final = "__error_source_node__"


def kept_of_task(writes: Sequence[tuple[str, Any]]) -> Sequence[tuple[str, Any]]:
    """Return what is stored of a task: of one that failed or was cancelled, not what it had written until then.

    LangGraph takes a task that has written something for finished: it would show half of a node's work as done, and
    a continued run would go on without the other half, such as the edges that lead to the next node. Where an error
    handler goes on after the failure, everything is kept.
    """
    channels = {channel for channel, _ in writes}
    if ERROR not in channels or _HANDLED in channels:
        return writes
    return [(channel, value) for channel, value in writes if channel in WRITES_IDX_MAP]


def metadata_of(config: RunnableConfig, metadata: CheckpointMetadata) -> dict[str, Any]:
    """Return the metadata to store: LangGraph adds what the run is configured with, for clients to see."""
    every = get_checkpoint_metadata(config, metadata)
    wanted = config["configurable"]
    return {name: value for name, value in every.items() if name not in wanted or not is_secret(name, value)}


def checkpoint_rows(
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: Mapping[str, Any],
    new_versions: ChannelVersions,
    *,
    run_id: str,
    serde: SerializerProtocol,
    values: Values,
) -> CheckpointRows:
    """Return the rows of *checkpoint*, with the values of the channels in *new_versions*."""
    dumps = serde.dumps_typed
    wanted = config["configurable"]
    thread_id, checkpoint_ns = str(wanted["thread_id"]), wanted.get("checkpoint_ns", "")
    body: dict[str, Any] = {**checkpoint}
    channel_values = body.pop("channel_values")
    kind, data = dumps(body)
    metadata_kind, metadata_data = dumps(metadata)
    size = len(data) + len(metadata_data)
    blobs: list[Params] = []
    parts: dict[str, bytes] = {}
    for channel, version in new_versions.items():
        if channel in channel_values:
            (blob_kind, blob, refs), needed, blob_size = values.dump(channel_values[channel])
            size += blob_size
            parts.update(needed)
            blobs.append(
                {
                    "thread_id": thread_id,
                    "checkpoint_ns": checkpoint_ns,
                    "channel": channel,
                    "version": str(version),
                    "run_id": run_id,
                    "type": blob_kind,
                    "value": blob,
                    "refs": refs,
                }
            )
    row = {
        "thread_id": thread_id,
        "checkpoint_ns": checkpoint_ns,
        "checkpoint_id": checkpoint["id"],
        "run_id": run_id,
        "parent_id": wanted.get("checkpoint_id"),
        "type": kind,
        "checkpoint": data,
        "metadata_type": metadata_kind,
        "metadata": metadata_data,
    }
    return CheckpointRows(checkpoints=[row], blobs=blobs, parts={thread_id: parts} if parts else {}, size=size)


def write_rows(config: RunnableConfig, call: TaskWrites, *, values: Values) -> CheckpointRows:
    """Return the rows of one call of put_writes.

    An answer that a command brings is not stored. LangGraph would give it to whatever question comes next, in any
    later run; a task that takes the answer stores it as its own.
    """
    writes = [(channel, value) for channel, value in call.writes if not _is_loose_answer(call.task_id, channel)]
    if not writes:
        return CheckpointRows()
    # As LangGraph reads them: pairs are lists in MessagePack too.
    (kind, data, refs), parts, size = values.dump([list(pair) for pair in writes])
    wanted = config["configurable"]
    thread_id = str(wanted["thread_id"])
    row = {
        "thread_id": thread_id,
        "checkpoint_ns": wanted.get("checkpoint_ns", ""),
        "checkpoint_id": wanted["checkpoint_id"],
        "run_id": call.run_id,
        "task_id": call.task_id,
        "task_path": call.task_path,
        "type": kind,
        "writes": data,
        "refs": refs,
    }
    return CheckpointRows(writes=[row], parts={thread_id: parts} if parts else {}, size=size)


def tuple_of(stored: Stored, reading: Reading) -> CheckpointTuple:
    """Return a stored checkpoint as LangGraph reads it, without answers that earlier versions stored loosely."""
    row = stored.row
    channel_values = {}
    for channel, version in versions_of(stored.checkpoint):
        blob = stored.blobs.get((channel, version))
        if blob is not None:
            channel_values[channel] = reading.load(blob, "value", stored.parts)
    at = {"thread_id": row["thread_id"], "checkpoint_ns": row["checkpoint_ns"]}
    parent_id = row["parent_id"]
    return CheckpointTuple(
        config={"configurable": {**at, "checkpoint_id": row["checkpoint_id"]}},
        checkpoint=cast(Checkpoint, {**stored.checkpoint, "channel_values": channel_values}),
        metadata=cast(CheckpointMetadata, stored.metadata),
        parent_config={"configurable": {**at, "checkpoint_id": parent_id}} if parent_id else None,
        pending_writes=[
            write
            for write in merge_writes(stored.writes, stored.parts, reading)
            if not _is_loose_answer(write[0], write[1])
        ],
    )


def merge_writes(rows: Rows, parts: Mapping[str, bytes], reading: Reading) -> list[PendingWrite]:
    """Merge the calls of put_writes on one checkpoint, in LangGraph's order (``writes_sort_key``).

    Of a task's writes to a special channel the last counts, of the others the first at its place in the call.
    """
    merged: dict[tuple[str, int], tuple[str, PendingWrite]] = {}
    for row in rows:
        task_id = row["task_id"]
        for place, (channel, value) in enumerate(reading.load(row, "writes", parts)):
            idx = WRITES_IDX_MAP.get(channel, place)
            if idx < 0 or (task_id, idx) not in merged:
                merged[task_id, idx] = (row["task_path"], (task_id, channel, value))
    order = sorted(merged, key=lambda key: writes_sort_key(merged[key][0], *key))
    return [merged[key][1] for key in order]


def call_of(row: Row, parts: Mapping[str, bytes], reading: Reading) -> TaskWrites:
    """Return the call of put_writes that *row* stores."""
    return TaskWrites(
        run_id=row["run_id"],
        task_id=row["task_id"],
        task_path=row["task_path"],
        writes=[(channel, value) for channel, value in reading.load(row, "writes", parts)],
    )


def _is_loose_answer(task_id: str, channel: str) -> bool:
    return channel == RESUME and task_id == _COMMAND_TASK_ID
