"""Errors as a person reads them: one line, the user's own frames where their code failed, and an exit code."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from runlane.errors import ConfigurationError, GraphLoadError, RunlaneError

EXIT_FAILED: Final = 1
#: What was asked for cannot be done as it was asked; the code that command lines use for wrong usage.
EXIT_USAGE: Final = 2

_PACKAGE: Final = Path(__file__).parents[1]


@contextmanager
def reporting() -> Iterator[None]:
    """Turn errors of Runlane into a line on stderr and an exit code; anything else is a defect and goes through."""
    try:
        yield
    except RunlaneError as error:
        click.echo(f"{click.style('error:', fg='red', bold=True)} {error}", err=True)
        if isinstance(error, GraphLoadError) and error.__cause__ is not None:
            click.echo(user_traceback(error.__cause__), err=True, nl=False)
        raise click.exceptions.Exit(EXIT_USAGE if isinstance(error, ConfigurationError) else EXIT_FAILED) from None


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
