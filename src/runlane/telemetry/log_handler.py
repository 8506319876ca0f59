"""The handler of ``logging`` that keeps what the code of runs logs in the logs of their runs."""

from __future__ import annotations

import logging
from typing import Final

from runlane.telemetry.context import SCOPE

#: The logger of the starts and ends of runs, which their rows have anyhow: a run that logs nothing else writes nothing.
TRANSITIONS: Final = "runlane.runs"
_formatter: Final = logging.Formatter()


class RunLogHandler(logging.Handler):
    """Keeps each record that is logged while the code of a run executes in the log of that run.

    Other records pass. It writes nothing itself, and waits for nothing: the ledger has the records some seconds later.
    """

    def emit(self, record: logging.LogRecord) -> None:
        scope = SCOPE.get()
        if scope is None or scope.log is None or record.name == TRANSITIONS:
            return
        try:
            text, exception = _texts(record)
            level = record.levelname.lower()
            scope.log.add(at_s=record.created, level=level, logger=record.name, text=text, exception=exception)
        except Exception:  # noqa: BLE001 - as every handler: a record that cannot be formatted must not fail who logs it
            self.handleError(record)


def _texts(record: logging.LogRecord) -> tuple[str, str | None]:
    """Return the message and the traceback of *record*; Runlane writes tracebacks below the first line of a message."""
    text, exception = record.getMessage(), ""
    if record.name.startswith("runlane."):
        text, _, exception = text.partition("\n")
    if record.exc_info:
        exception = _formatter.formatException(record.exc_info)
    return text, exception or None
