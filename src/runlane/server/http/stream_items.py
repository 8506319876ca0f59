"""Items of runs' streams as JSON objects, for answers that have those of many runs, or a page of them."""

from __future__ import annotations

import re
from typing import Final

import orjson

from runlane.agents.protocol_events import stream_mode_event
from runlane.errors import InvalidRequest
from runlane.records import StreamEnd, StreamEvent, StreamGap, StreamItem
from runlane.server.http.responses import Piece, wire_name
from runlane.streams.batches import EventBatch, LargeEvent, LargePiece
from runlane.streams.watch import Streamed

#: The kind of what is made of a batch; see :meth:`EventBatch.made`.
_KIND: Final = "items"
#: A place in a run's stream: the numbers of the run and of the event, and ``e`` if that is its end.
_PLACE: Final = re.compile(r"(\d{1,18})-(\d{1,18})(e?)\Z")
#: The longest one, and a comma.
PLACE_CHARS: Final = 39


class Cursor:
    """The places in many runs' streams after which a reader goes on, as text that a client sends back."""

    def __init__(self, text: str | None = None) -> None:
        """Raises:
        InvalidRequest: *text* is no cursor.
        """
        self._places: dict[int, tuple[int, bool]] = {}
        self._texts: dict[int, bytes] = {}
        for place in text.split(",") if text else ():
            match = _PLACE.match(place)
            if match is None:
                raise InvalidRequest("'cursor' is not the id of an event of this stream; leave it out to begin again.")
            self.put(int(match[1]), int(match[2]), ended=bool(match[3]))

    def put(self, run_seq: int, number: int, *, ended: bool = False) -> None:
        """Go on after event *number* of the run with the number *run_seq*; not at all if its stream has *ended*."""
        self._places[run_seq] = number, ended
        self._texts[run_seq] = b"%d-%d%s" % (run_seq, number, b"e" if ended else b"")

    def __contains__(self, run_seq: int) -> bool:
        return run_seq in self._places

    def number(self, run_seq: int) -> int:
        """Return the number of the event after which a run is read."""
        return self._places[run_seq][0]

    def ended(self, run_seq: int) -> bool:
        """Return whether a run's stream has been read to its end."""
        return self._places[run_seq][1]

    def __bytes__(self) -> bytes:
        return b",".join(self._texts.values())


class ItemWriter:
    """Turns items of one run's stream into JSON objects with commas between them.

    An event is ``{"run_id", "id", "event", "data"}``; without ``data`` if *hides_payload*.
    """

    def __init__(self, run: Streamed, *, protocol: bool, hides_payload: bool = False) -> None:
        """Args:
        protocol: The run's events are those of the event-streaming protocol.
        """
        self._run = run
        self._protocol = protocol
        self._hides_payload = hides_payload
        self._begin = f'{{"run_id":"{run.run_id}","id":"{run.seq:010d}-'.encode()

    def __call__(self, part: EventBatch | LargeEvent) -> Piece:
        """Return *part* as bytes, which readers of the same kind share; empty if it has nothing to show."""
        kind = _KIND, self._hides_payload
        if isinstance(part, LargeEvent):
            return LargePiece(event=part, kind=kind, make=self._items)
        return part.made(kind, self._items)

    def _items(self, batch: EventBatch) -> bytes:
        return b",".join([item for item in map(self.item, batch) if item])

    def item(self, item: StreamItem) -> bytes:
        """Return one item; empty if readers of the run API are not shown it."""
        if isinstance(item, StreamEnd):
            data = orjson.dumps({"status": item.status, "end_reason": item.end_reason})
            return b'%s%08d","event":"end","data":%s}' % (self._begin, item.seq, data)
        if isinstance(item, StreamGap):
            at = b"%010d-%08d" % (self._run.seq, item.resumes_at)
            return b'{"run_id":"%s","event":"gap","data":{"resumes_at":"%s"}}' % (self._run.run_id.encode(), at)
        return self._event(item)

    def _event(self, event: StreamEvent) -> bytes:
        shown = stream_mode_event(event) if self._protocol else event
        if shown is None:
            return b""
        name = orjson.dumps(wire_name(shown.name))
        if self._hides_payload:
            return b'%s%08d","event":%s}' % (self._begin, shown.seq, name)
        return b'%s%08d","event":%s,"data":%s}' % (self._begin, shown.seq, name, shown.data)
