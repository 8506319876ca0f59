"""Logs: ``key=value`` or JSON for machines, or coloured lines for a person at a terminal.

Every record of a run has the run's fields, whoever logs it: Runlane, the graph, a library, or ``print``.
"""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, TextIO

import click

from runlane.redaction import redact_text, shortened
from runlane.telemetry.context import SCOPE, context_fields
from runlane.telemetry.log_handler import RunLogHandler

#: Options of ``--log-format``.
FORMATS: Final = ("text", "json", "pretty")
#: The pairs of a message's template: a placeholder or a text.
_PAIR: Final = re.compile(r' (\w+)=(?:"?%[.\d]*[a-z]"?|("[^"]*"|\S+))')
#: The logger of requests, whose records have the path as their second argument.
ACCESS: Final = "runlane.http"
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
        line = f"time={_instant(record)} level={record.levelname.lower()} logger={record.name} {_text_of(record)}"
        return line if is_plain_request(record) else _one_record(line)


class JsonFormatter(logging.Formatter):
    """One JSON object per record: ``time``, ``level``, ``logger``, ``event``, its fields, and ``exception``."""

    def format(self, record: logging.LogRecord) -> str:
        fields = fields_of(record)
        if not is_plain_request(record):
            fields = {name: _redacted(value) for name, value in fields.items()}
        head = {"time": _instant(record), "level": record.levelname.lower(), "logger": record.name}
        return json.dumps({**head, **fields}, default=str)


class EventFormatter(logging.Formatter):
    """``14:03:59 WARNING  run.failed run_id=…``: for a person, with the level in colour at a terminal."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__(datefmt="%X")
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        text = _one_record(_text_of(record, for_person=True))
        level = f"{record.levelname:<8}"
        if self._colour:
            level = click.style(level, fg=COLOURS.get(record.levelno), bold=record.levelno >= logging.ERROR)
        return f"{self.formatTime(record, self.datefmt)} {level} {text}"


def _instant(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _redacted(value: Any) -> Any:
    return shortened(redact_text(value), MAX_RECORD) if isinstance(value, str) else value


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
    if record.name != ACCESS or not isinstance(record.args, tuple) or len(record.args) < 2:
        return False
    return _PLAIN_PATH.fullmatch(str(record.args[1])) is not None


def _text_of(record: logging.LogRecord, *, for_person: bool = False) -> str:
    """Return *record* as text: its message, the fields of its context that it does not have itself, its traceback.

    Args:
        for_person: A message of others is shown as it is, and of the context only the run.
    """
    message, context = record.getMessage(), context_fields()
    if record.name.startswith("runlane."):
        known = f" {record.msg}" if "fields" not in record.__dict__ else f" {message}"
        context = {name: value for name, value in context.items() if f" {name}=" not in known}
        text = message if for_person else f"event={message}"
    else:
        text = message if for_person else f"event=log message={json.dumps(message, ensure_ascii=False)}"
    if for_person:
        context = {name: value for name, value in context.items() if name == "run_id"}
    first, line_feed, others = text.partition("\n")
    text = "".join((first, *(f" {name}={value}" for name, value in context.items()), line_feed, others))
    return f"{text}\n{_traceback(record)}" if record.exc_info else text


def _traceback(record: logging.LogRecord) -> str:
    return logging.Formatter().formatException(record.exc_info) if record.exc_info else ""


def fields_of(record: logging.LogRecord) -> Mapping[str, Any]:
    """Return what *record* says by name: its event, its fields, those of its context, and its traceback."""
    message, _, details = record.getMessage().partition("\n")
    found: dict[str, Any] = {"event": "log", "message": record.getMessage()}
    if record.name.startswith("runlane."):
        event, _, rest = message.partition(" ")
        given = getattr(record, "fields", None)
        pairs = _pairs(record) if given is None else given
        found = {"event": event, **({"message": rest} if pairs is None else pairs)}
        if details:
            found["exception"] = details
    if record.exc_info:
        found["exception"] = _traceback(record)
    return {**context_fields(), **found}


def _pairs(record: logging.LogRecord) -> Mapping[str, Any] | None:
    """Return the pairs of a message by its template, in which the ends of values are known; ``None``: it has others."""
    template = str(record.msg).partition("\n")[0]
    arguments = list(record.args) if isinstance(record.args, tuple) else []
    found: dict[str, Any] = {}
    for name, text in _PAIR.findall(template):
        if text:
            found[name] = text.strip('"')
        elif arguments:
            found[name] = arguments.pop(0)
    left = _PAIR.sub("", template).partition(" ")
    return found if not left[2] and "%" not in left[0] else None


class PrintedLines:
    """Stands for ``sys.stdout``: what the code of a run prints is logged, line by line, and all else is written on."""

    def __init__(self, stdout: TextIO) -> None:
        self._stdout = stdout

    def write(self, text: str) -> int:
        scope = SCOPE.get()
        if scope is None:
            return self._stdout.write(text)
        scope.print(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stdout, name)


def configure_logging(level: LogLevel, *, style: str = "text") -> None:
    """Send the process's records from *level* on to stderr, and what graphs print to where their records go.

    Args:
        style: One of ``FORMATS``.
    """
    handler: logging.Handler = logging.StreamHandler()
    formatters = {"text": KeyValueFormatter, "json": JsonFormatter}
    handler.setFormatter(formatters[style]() if style in formatters else EventFormatter(colour=sys.stderr.isatty()))
    number = logging.getLevelNamesMapping()[level.value.upper()]
    logging.basicConfig(level=number, handlers=[handler, RunLogHandler()], force=True)
    logging.captureWarnings(True)
    for name in CHATTY:
        logging.getLogger(name).setLevel(number if level is LogLevel.DEBUG else max(number, logging.WARNING))


def log_printed_lines() -> None:
    """Log what graphs print, and write what others print at the end of each line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    sys.stdout = PrintedLines(sys.stdout)
