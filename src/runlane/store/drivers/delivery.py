"""Transactions that were queued from any thread, and telling those who wait for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from runlane.store.statements import Query, Transaction

T = TypeVar("T")

log = logging.getLogger("runlane.store")

#: Called on the waiter's loop, or without one on the thread that knows, with the result, or with the error that rolled
#: the transaction back.
Callback = Callable[[Any, BaseException | None], None]


class Submission(msgspec.Struct, frozen=True):
    """A queued transaction and whom to tell.

    Attributes:
        first: Its first query, if it has been advanced to that.
        again: Makes the same transaction to be run once more, if that may be needed.
        size: About how many bytes it writes.
    """

    transaction: Transaction[Any]
    loop: asyncio.AbstractEventLoop | None
    callback: Callback
    first: Query | None = None
    again: Callable[[], Transaction[Any]] | None = None
    size: int = 0


class SubmissionResult(msgspec.Struct, frozen=True):
    """The result of a submission."""

    submission: Submission
    result: Any
    error: BaseException | None


def deliver(answers: Sequence[SubmissionResult]) -> None:
    """Notify the waiters, waking each event loop once."""
    by_loop: dict[asyncio.AbstractEventLoop | None, list[SubmissionResult]] = {}
    for answer in answers:
        by_loop.setdefault(answer.submission.loop, []).append(answer)
    for loop, mine in by_loop.items():
        if loop is None:
            _call_back(mine)
            continue
        try:
            loop.call_soon_threadsafe(_call_back, mine)
        except RuntimeError:  # the loop is closed: nobody waits any more, and the commit stands
            continue


def _call_back(answers: Sequence[SubmissionResult]) -> None:
    for answer in answers:
        try:
            answer.submission.callback(answer.result, answer.error)
        except Exception as error:  # a waiter's defect must not keep the others from their answers
            loop = answer.submission.loop
            if loop is None:
                log.exception("store.callback_failed")
            else:
                loop.call_exception_handler({"message": "a callback of the ledger failed", "exception": error})


def on_loop(loop: asyncio.AbstractEventLoop | None, callback: Callback) -> Callback:
    """Return what calls *callback* soon on *loop*, or without one at once."""
    if loop is None:
        return callback

    def tell(result: Any, error: BaseException | None) -> None:
        loop.call_soon_threadsafe(callback, result, error)

    return tell


def resolve(future: asyncio.Future[T], result: T, error: BaseException | None) -> None:
    """Settle *future*, unless its waiter has gone."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
