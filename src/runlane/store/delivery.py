"""Transactions that were queued from any thread, and telling those who wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from runlane.store.statements import Transaction

T = TypeVar("T")

#: Called on the waiter's loop with the result, or with the error that rolled the transaction back.
Callback = Callable[[Any, BaseException | None], None]


@dataclass(frozen=True, slots=True)
class Submission:
    """A queued transaction and whom to tell."""

    transaction: Transaction[Any]
    loop: asyncio.AbstractEventLoop
    callback: Callback


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a submission."""

    submission: Submission
    result: Any
    error: BaseException | None


def deliver(answers: Sequence[Answer]) -> None:
    """Tell the waiters, waking each event loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Answer]] = {}
    for answer in answers:
        by_loop.setdefault(answer.submission.loop, []).append(answer)
    for loop, mine in by_loop.items():
        try:
            loop.call_soon_threadsafe(_call_back, mine)
        except RuntimeError:  # the loop is closed: nobody waits any more, and the commit stands
            continue


def _call_back(answers: Sequence[Answer]) -> None:
    for answer in answers:
        try:
            answer.submission.callback(answer.result, answer.error)
        except Exception as error:  # noqa: BLE001 - one waiter's defect must not leave the others waiting
            context = {"message": "a callback of the ledger failed", "exception": error}
            answer.submission.loop.call_exception_handler(context)


def resolve(future: asyncio.Future[T], result: T, error: BaseException | None) -> None:
    """Settle *future*, unless its waiter has gone."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
