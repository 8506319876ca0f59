"""What a thread shows of its newest checkpoint, as far as that can be told without its graph. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import INTERRUPT

from runlane.agents.encode import Unserialisable, encode
from runlane.agents.graph import asked
from runlane.checkpoints.transactions import versions_of
from runlane.journal.rows import CheckpointRows, Params

#: How names of channels begin that are LangGraph's own.
_INTERNAL: Final = ("__", "branch:")
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownState:
    """The state of a thread: JSON text of its values, its interrupts by task, and when it began and ended."""

    values: str | None
    interrupts: Mapping[str, Any]
    metadata: Mapping[str, Any]
    first_at: datetime
    last_at: datetime


NOTHING: Final = ShownState(values=None, interrupts={}, metadata={}, first_at=_LONG_AGO, last_at=_LONG_AGO)


def shown_state(history: CheckpointRows, serde: SerializerProtocol) -> ShownState:
    """Return what a thread with this *history* shows: nothing, if its graph has not stored a checkpoint."""
    rows = sorted(
        (row for row in history.checkpoints if not row["checkpoint_ns"]), key=lambda row: row["checkpoint_id"]
    )
    if not rows:
        return NOTHING
    first, last = (serde.loads_typed((row["type"], row["checkpoint"])) for row in (rows[0], rows[-1]))
    return ShownState(
        values=_values(last, history, serde),
        interrupts=dict(_interrupts(rows[-1], history, serde)),
        metadata=serde.loads_typed((rows[-1]["metadata_type"], rows[-1]["metadata"])),
        first_at=datetime.fromisoformat(first["ts"]).astimezone(UTC),
        last_at=datetime.fromisoformat(last["ts"]).astimezone(UTC),
    )


def _values(checkpoint: Mapping[str, Any], history: CheckpointRows, serde: SerializerProtocol) -> str | None:
    blobs = {(row["channel"], row["version"]): row for row in history.blobs if not row["checkpoint_ns"]}
    found = {}
    for channel, version in versions_of(checkpoint):
        blob = blobs.get((channel, version))
        if blob is not None and not channel.startswith(_INTERNAL):
            found[channel] = serde.loads_typed((blob["type"], blob["value"]))
    try:
        return encode(found).decode()
    except Unserialisable:
        return None


def _interrupts(checkpoint: Params, history: CheckpointRows, serde: SerializerProtocol) -> Iterator[tuple[str, Any]]:
    for row in history.writes:
        if (row["checkpoint_ns"], row["checkpoint_id"]) == ("", checkpoint["checkpoint_id"]):
            for channel, value in serde.loads_typed((row["type"], row["writes"])):
                if channel == INTERRUPT:
                    yield row["task_id"], orjson.loads(encode([asked(item) for item in value]))
