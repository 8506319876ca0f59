"""How a bug is planted: a named function, method or statement of the product does something else for a while.

A patch names what it changes and never quotes its text, so that the code may be rewritten behind the name.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from threading import Event
from typing import Any, TypeVar

from msgspec import structs

from runlane.store.statements import Query, Row, Rows, Statement, Transaction

T = TypeVar("T")

#: Answers a query of a transaction; it may ask others.
Answer = Callable[[Query], Transaction[Rows]]
#: Called whenever a patch makes a difference.
Reached = Callable[[], None]


class NeverReached(Exception):
    """A patch made no difference, so that the bug was not planted: what it names is used no more, or differently."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """Has ``make(original, reached)`` in the place of a function, or of an attribute of a class."""

    owner: Any
    name: str
    make: Callable[[Any, Reached], Any]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Apply it for a while.

        Raises:
            NeverReached: It has made no difference.
        """
        original = vars(self.owner)[self.name]
        reached = Event()
        changed = self.make(original, reached.set)
        with ExitStack() as stack:
            for place in self._places(original):
                for name in [name for name, value in vars(place).items() if value is original]:
                    stack.callback(setattr, place, name, original)
                    setattr(place, name, changed)
            yield
        if not reached.is_set():
            raise NeverReached(f"{self.name} was never called, or asked nothing that the patch answers")

    def _places(self, original: Any) -> list[Any]:
        """Return the class, or every module of the product that has imported the function."""
        if inspect.isclass(self.owner):
            return [self.owner]
        modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "runlane"]
        return [module for module in modules if any(value is original for value in vars(module).values())]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragment:
    """Has ``other`` in the place of a named fragment of a statement, in each dialect that has it.

    Whether the statement was executed meanwhile is not seen.
    """

    statement: Statement
    text: str
    other: str

    @contextmanager
    def applied(self) -> Iterator[None]:
        texts = {"sqlite": self.statement.sqlite, "postgres": self.statement.postgres}
        assert any(self.text in sql for sql in texts.values()), f"{self.statement.name} has no such fragment"
        for dialect, sql in texts.items():
            object.__setattr__(self.statement, dialect, sql.replace(self.text, self.other))
        try:
            yield
        finally:
            for dialect, sql in texts.items():
                object.__setattr__(self.statement, dialect, sql)


@contextmanager
def applied(patches: Sequence[Patch | Fragment]) -> Iterator[None]:
    """Have all *patches* in this interpreter, for a while."""
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch.applied())
        yield


def method(owner: type, name: str, make: Callable[[Any], Any]) -> Patch:
    """Return the patch of a method or property: ``make`` takes the original and returns what stands in its place."""
    return Patch(owner=owner, name=name, make=lambda original, reached: _telling(make(original), reached))


def function(original: Callable[..., Any], make: Callable[[Any], Any]) -> Patch:
    """Return the patch of a function, wherever it has been imported."""
    return _function(original, lambda original, reached: _telling(make(original), reached))


def _function(original: Callable[..., Any], make: Callable[[Any, Reached], Any]) -> Patch:
    return Patch(owner=sys.modules[original.__module__], name=original.__name__, make=make)


def _telling(changed: Any, reached: Reached) -> Any:
    """Return *changed*, a function or property, which tells that it is called."""
    if isinstance(changed, property):
        return property(_telling(changed.fget, reached))

    @wraps(changed)
    def telling(*args: Any, **options: Any) -> Any:
        reached()
        return changed(*args, **options)

    return telling


def transaction(original: Callable[..., Transaction[Any]], answer: Callable[..., Answer]) -> Patch:
    """Return the patch of a transaction: ``answer``, called with its arguments, answers each of its queries."""

    def make(original: Callable[..., Transaction[T]], reached: Reached) -> Callable[..., Transaction[T]]:
        @wraps(original)
        def changed(*args: Any, **options: Any) -> Transaction[T]:
            telling = _telling_answer(answer(*args, **options), reached)
            return (yield from answered(original(*args, **options), telling))

        return changed

    return _function(original, make)


def _telling_answer(answer: Answer, reached: Reached) -> Answer:
    """Return *answer*, which tells when it is another one than the ledger's to the same question."""

    def telling(query: Query) -> Transaction[Rows]:
        asked: list[Query] = []
        found: Rows | None = None

        def ask(other: Query) -> Transaction[Rows]:
            nonlocal found
            asked.append(other)
            found = yield other
            return found

        rows = yield from answered(answer(query), ask)
        if rows is not found or any(one is not query for one in asked):
            reached()
        return rows

    return telling


def answered(transaction: Generator[Query, Rows, T], answer: Answer) -> Transaction[T]:
    """Return *transaction* with its queries answered by *answer*."""
    try:
        query = next(transaction)
        while True:
            try:
                rows = yield from answer(query)
            except Exception as error:  # noqa: BLE001 - the transaction sees it, as from a driver
                query = transaction.throw(error)
            else:
                query = transaction.send(rows)
    except StopIteration as stop:
        result: T = stop.value
        return result


def reading(statement: Statement, change: Callable[[Row], Row]) -> Answer:
    """Change the rows that *statement* finds."""

    def answer(query: Query) -> Transaction[Rows]:
        rows = yield query
        return [change(row) for row in rows] if query.statement is statement else rows

    return answer


def finding(statement: Statement, found: Rows) -> Answer:
    """Have *statement* find *found*, whatever there is."""

    def answer(query: Query) -> Transaction[Rows]:
        if query.statement is statement:
            return found
        return (yield query)

    return answer


def after(statement: Statement, first: Callable[[Query], Query]) -> Answer:
    """Ask something else before *statement*."""

    def answer(query: Query) -> Transaction[Rows]:
        if query.statement is statement:
            yield first(query)
        return (yield query)

    return answer


def bound(statement: Statement, change: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Answer:
    """Bind other parameters to *statement*."""

    def answer(query: Query) -> Transaction[Rows]:
        if query.statement is statement:
            assert query.params is not None
            query = structs.replace(query, params=change(query.params))
        return (yield query)

    return answer
