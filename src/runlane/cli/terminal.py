"""The terminal of a command that draws on all of it: keys as they are pressed, and a new size as it is given."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from contextlib import ExitStack
from types import TracebackType
from typing import Self


class Terminal:
    """Reads keys without Enter and without showing them; a context manager that leaves the terminal as it was."""

    def __init__(self) -> None:
        self._input = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._signals, self._wake = os.pipe()
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        self._undo.callback(os.close, self._signals)
        self._undo.callback(os.close, self._wake)
        # A handler runs in the interpreter, which may be about to wait: only the number in the pipe ends that wait.
        os.set_blocking(self._wake, False)
        self._undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(self._wake))
        self._undo.callback(signal.signal, signal.SIGWINCH, signal.signal(signal.SIGWINCH, lambda *_: None))
        if self._input is not None:
            self._undo.callback(termios.tcsetattr, self._input, termios.TCSADRAIN, termios.tcgetattr(self._input))
            tty.setcbreak(self._input)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._undo.close()

    def wait(self, limit_s: float) -> str:
        """Wait for a key or a new size, for *limit_s* at most; return the key, or an empty text."""
        watched = [self._signals] if self._input is None else [self._signals, self._input]
        ready, _, _ = select.select(watched, [], [], limit_s)
        if self._signals in ready:
            os.read(self._signals, 1024)
        return os.read(self._input, 1).decode(errors="replace") if self._input in ready else ""
