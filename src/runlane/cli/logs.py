"""Logs: one line of ``key=value`` per record for machines, or coloured lines for a person at a terminal."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import click

from runlane.redaction import redact_text, shortened

#: uvicorn's logger of requests, whose records have the parts of a request as arguments.
ACCESS: Final = "uvicorn.access"
#: Libraries whose INFO is about themselves and not about a run.
CHATTY: Final = ("procrastinate", "asyncio", "httpcore", "httpx", "uvicorn.error", "watchfiles")

#: Colours of levels at a terminal.
COLOURS: Final = {
    logging.DEBUG: "bright_black",
    logging.INFO: "blue",
    logging.WARNING: "yellow",
    logging.ERROR: "red",
    logging.CRITICAL: "red",
}
#: Characters of a record; what is longer loses its middle.
MAX_RECORD: Final = 64 * 1024
#: How all lines of a record but its first begin.
CONTINUED: Final = "| "
#: All that is no text, but tabs and the line feeds of tracebacks.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
#: A path that cannot hold a secret or a control character: short words and UUIDs. Most paths are.
_PLAIN_PATH: Final = re.compile(r"(?:/(?:[a-z_]{1,20}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})){0,16}+/?")


class LogLevel(StrEnum):
    """From which level on records are shown."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class KeyValueFormatter(logging.Formatter):
    """``time=… level=info logger=runlane.worker event=run.started run_id=… attempt=1``, and lines of a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        instant = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = f"time={instant} level={record.levelname.lower()} logger={record.name} {fields_of(record)}"
        if is_plain_request(record):
            return line
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return _one_record(line)


class EventFormatter(logging.Formatter):
    """``14:03:59 WARNING  run.failed run_id=…``: for a person, with the level in colour at a terminal."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__(datefmt="%X")
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        text = fields_of(record).removeprefix("event=") if record.name == ACCESS else record.getMessage()
        text = _one_record(f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text)
        level = f"{record.levelname:<8}"
        if self._colour:
            level = click.style(level, fg=COLOURS.get(record.levelno), bold=record.levelno >= logging.ERROR)
        return f"{self.formatTime(record, self.datefmt)} {level} {text}"


def _one_record(text: str) -> str:
    """Return *text* as it is written: without secrets, of bounded length, and unable to look like another record.

    A record begins where a line does not begin with ``CONTINUED``. Characters that end a line for some readers, or
    that a terminal obeys, are escaped.
    """
    text = shortened(redact_text(text), MAX_RECORD)
    return _CONTROL.sub(_escaped, text).replace("\n", f"\n{CONTINUED}")


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def is_plain_request(record: logging.LogRecord) -> bool:
    """Return whether *record* is of a request in which there is nothing to redact: looking for it costs the most."""
    if record.name != ACCESS or not isinstance(record.args, tuple) or len(record.args) != 5:
        return False
    return _PLAIN_PATH.fullmatch(str(record.args[2]).partition("?")[0]) is not None


def fields_of(record: logging.LogRecord) -> str:
    """Return what *record* says as ``key=value`` pairs. A request's query is left out: it may hold what it pleases."""
    if record.name == ACCESS and isinstance(record.args, tuple) and len(record.args) == 5:
        client, method, path, _, status = record.args
        return f"event=http.request client={client} method={method} path={str(path).partition('?')[0]} status={status}"
    if record.name.startswith("runlane."):
        return f"event={record.getMessage()}"
    return f"event=log message={json.dumps(record.getMessage(), ensure_ascii=False)}"


def configure_logging(level: LogLevel, *, pretty: bool = False) -> None:
    """Send the process's records from *level* on to stderr."""
    handler: logging.Handler = logging.StreamHandler()
    handler.setFormatter(KeyValueFormatter())
    if pretty:
        handler.setFormatter(EventFormatter(colour=sys.stderr.isatty()))
    number = logging.getLevelNamesMapping()[level.value.upper()]
    logging.basicConfig(level=number, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in CHATTY:
        logging.getLogger(name).setLevel(number if level is LogLevel.DEBUG else max(number, logging.WARNING))
