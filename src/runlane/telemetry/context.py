"""The run, or the HTTP request, whose code executes: log records, printed lines and spans belong to it.

Both are context variables: tasks, timers and threads that copy their context inherit them. A thread that the code of a
graph starts by itself has neither.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import Final

from runlane.errors import RequestUnreadable
from runlane.records import RunRecord
from runlane.telemetry.run_log import RunLog

log = logging.getLogger("runlane.print")

#: Characters of a line that is printed in pieces; a longer one is logged in parts.
MAX_LINE: Final = 8192


class RunScope:
    """One attempt at a run, as the log knows it.

    Attributes:
        failed: Its failure was logged with its cause, so that its ending need not warn again.
        log: Keeps what is logged here; ``None``: it is not kept.
    """

    __slots__ = ("_fields", "_lines", "_run", "failed", "log")

    def __init__(self, run: RunRecord, log: RunLog | None = None) -> None:
        self.failed = False
        self.log = log
        self._run = run
        self._fields: Mapping[str, str | int] | None = None
        self._lines: dict[int, str] = {}

    @property
    def fields(self) -> Mapping[str, str | int]:
        """The fields that every record of the attempt has."""
        if self._fields is None:
            run, request_id = self._run, None
            with suppress(RequestUnreadable):
                request_id = run.stored.origin.request_id
            found: dict[str, str | int | None] = {
                "run_id": run.run_id,
                "thread_id": run.thread_id,
                "attempt": run.attempt,
                "graph": run.graph_id,
                "owner": owner_hash(run.owner),
                "request_id": request_id,
            }
            self._fields = {name: value for name, value in found.items() if value is not None}
        return self._fields

    def print(self, text: str) -> None:
        """Log the lines that *text*, which the attempt's code printed, completes. Called on any of its threads."""
        thread = threading.get_ident()  # two threads of a run print lines of their own
        *lines, rest = (self._lines.pop(thread, "") + text).split("\n")
        for line in lines:
            _log_line(line)
        if len(rest) > MAX_LINE:
            _log_line(rest)
        elif rest:
            self._lines[thread] = rest

    def flush(self) -> None:
        """Log what was printed without the end of its line."""
        while self._lines:
            _log_line(self._lines.popitem()[1])


def _log_line(line: str) -> None:
    log.info("run.printed message=%s", json.dumps(line, ensure_ascii=False), extra={"fields": {"message": line}})


#: The attempt whose code executes.
SCOPE: Final[ContextVar[RunScope | None]] = ContextVar("runlane_scope", default=None)
#: The id of the HTTP request that is answered.
REQUEST_ID: Final[ContextVar[str | None]] = ContextVar("runlane_request_id", default=None)


def context_fields() -> Mapping[str, str | int]:
    """Return the fields of a record that is logged here and now; empty outside of runs and requests."""
    scope = SCOPE.get()
    if scope is not None:
        return scope.fields
    request_id = REQUEST_ID.get()
    return {} if request_id is None else {"request_id": request_id}


def flush_printed() -> None:
    """Log what the attempt whose code executes has printed without the end of its line."""
    scope = SCOPE.get()
    if scope is not None:
        scope.flush()


def current_request_id() -> str | None:
    """Return the id of the request that is answered, or of the one that created the run whose code executes."""
    found = context_fields().get("request_id")
    return None if found is None else str(found)


def owner_hash(owner: str) -> str | None:
    """Return what stands for *owner* in logs, metrics and traces; ``None`` for the one owner of a single tenant.

    An owner may be an e-mail address. The hash tells owners apart, and finds an owner whose name is known.
    """
    return hashlib.sha256(owner.encode("utf-8", "surrogatepass")).hexdigest()[:12] if owner else None
