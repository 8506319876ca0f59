"""Errors as a person reads them: one line, the user's own frames where their code failed, and an exit code."""

from __future__ import annotations

import sys
import sysconfig
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from runlane.cli.output import safe
from runlane.errors import ConfigurationError, GraphLoadError, NotFound, RunlaneError

EXIT_FAILED: Final = 1
#: What was asked for cannot be done as it was asked; the code that command lines use for wrong usage.
EXIT_USAGE: Final = 2
EXIT_NOT_FOUND: Final = 3
#: No server answers, or what answers is none of Runlane.
EXIT_UNREACHABLE: Final = 4
#: The server refused the request.
EXIT_REFUSED: Final = 5
#: The run that was waited for failed or timed out.
EXIT_RUN_FAILED: Final = 6
#: The run that was waited for was interrupted: it was cancelled, or asks somebody.
EXIT_RUN_INTERRUPTED: Final = 7
#: The user interrupted the command; 128 and the number of SIGINT, as shells have it.
EXIT_INTERRUPTED: Final = 130


class ServerError(RunlaneError):
    """The server cannot be reached, or does not answer like one of Runlane; the message is one line."""

    code = "server"


class NoServer(ServerError):
    """No server answers; it may be restarting."""


class ServerRefused(RunlaneError):
    """The server refused a request; the message is one line."""

    code = "refused"


#: Exit codes by error, the first that fits.
_CODES: Final = (
    (ConfigurationError, EXIT_USAGE),
    (NotFound, EXIT_NOT_FOUND),
    (ServerError, EXIT_UNREACHABLE),
    (ServerRefused, EXIT_REFUSED),
    (RunlaneError, EXIT_FAILED),
)

_PACKAGE: Final = Path(__file__).parents[1]


@contextmanager
def reporting() -> Iterator[None]:
    """Turn errors of Runlane and Ctrl-C into a line on stderr and an exit code; anything else is a defect."""
    try:
        with interruptible():
            yield
    except RunlaneError as error:
        click.echo(f"{click.style('error:', fg='red', bold=True)} {safe(error)}", err=True)
        if isinstance(error, GraphLoadError) and error.__cause__ is not None:
            click.echo(user_traceback(error.__cause__), err=True, nl=False)
        raise click.exceptions.Exit(next(code for kind, code in _CODES if isinstance(error, kind))) from None


@contextmanager
def interruptible(left: str = "") -> Iterator[None]:
    """On Ctrl-C, say what is *left* of what the body did, and exit."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"Interrupted. {left}".rstrip(), err=True)
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is done, unless *yes* says that it may be.

    Raises:
        click.Abort: The answer was no.
        ConfigurationError: Nobody is there to answer.
    """
    if yes:
        return
    try:
        click.confirm(question, abort=True, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        click.echo(err=True)
        raise ConfigurationError("Nothing was done, as nobody said yes. Add --yes to do it unasked.") from None


def user_traceback(error: BaseException) -> str:
    """Return the traceback of *error* without the frames of Runlane, of Python and of installed packages.

    Empty if no frame is left and the error says nothing about a place itself.
    """
    report = traceback.TracebackException.from_exception(error)
    shown: traceback.TracebackException | None = report
    while shown is not None:
        shown.stack = traceback.StackSummary.from_list([frame for frame in shown.stack if _is_users(frame.filename)])
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)
    text = "".join(report.format())
    return text if report.stack or isinstance(error, SyntaxError) or report.__cause__ or report.__context__ else ""


def _is_users(filename: str) -> bool:
    if filename.startswith("<"):
        return False
    path = Path(filename).resolve()
    paths = sysconfig.get_paths()
    libraries = {Path(paths[name]).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return not any(path.is_relative_to(library) for library in (_PACKAGE, *libraries))


def exit_for(run: Mapping[str, Any]) -> None:
    """Exit with the code for *run*, which has ended; do nothing if it succeeded."""
    if run["status"] == "interrupted" or run["end_reason"] == "paused":
        raise click.exceptions.Exit(EXIT_RUN_INTERRUPTED)
    if run["status"] != "success":
        raise click.exceptions.Exit(EXIT_RUN_FAILED)
