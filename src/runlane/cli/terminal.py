"""The terminal of a command that draws on all of it: keys as they are pressed, and a new size as it is given."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def pressed_keys() -> Iterator[Callable[[float], str]]:
    """Give a function that waits for a key, so many seconds at most, and returns it.

    It returns an empty text when the terminal has another size, and when the time is over. Keys are read without
    Enter and are not shown; after the block the terminal is as it was.
    """
    keys = [sys.stdin.fileno()] if sys.stdin.isatty() else []
    with ExitStack() as undo:
        signals, wake = os.pipe()
        undo.callback(os.close, signals)
        undo.callback(os.close, wake)
        # A handler runs in the interpreter, which may be about to wait: only the number in the pipe ends that wait.
        os.set_blocking(wake, False)
        undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(wake))
        undo.callback(signal.signal, signal.SIGWINCH, signal.signal(signal.SIGWINCH, lambda *_: None))
        for key in keys:
            undo.callback(termios.tcsetattr, key, termios.TCSADRAIN, termios.tcgetattr(key))
            tty.setcbreak(key)

        def wait(limit_s: float) -> str:
            ready, _, _ = select.select([signals, *keys], [], [], limit_s)
            if signals in ready:
                os.read(signals, 1024)
            return "".join(os.read(key, 1).decode(errors="replace") for key in keys if key in ready)

        yield wait
