"""Two operations of the store at the same time: paused after each statement, and compared with one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from interleaving import Make, Outcome, Side, alone, interleaved, two_sides
from ledger_kit import ledger_connection
from operations_kit import LEAVES, OPERATIONS, Lane, World, Worlds


@dataclass(frozen=True, slots=True)
class Serial:
    """The ledger after operations that ran one after the other, and what each returned."""

    state: list[Any]
    shown: dict[int, str]


class Pairs:
    """Tries pairs of operations on the ledger of one database."""

    def __init__(self, connection: psycopg.Connection[Any], sides: tuple[Side, Side]) -> None:
        self._connection = connection
        self._sides = sides
        self._worlds = Worlds(connection)

    def check(self, lane: Lane, one: str, other: str) -> None:
        """Pause each of the two after each of its statements, while the other goes on.

        Raises:
            AssertionError: What came of it is neither as if one came first nor as if one had left all for later.
        """
        names = (one, other)
        in_order = [self._serial(lane, names, 0, 1), self._serial(lane, names, 1, 0)]
        by_itself = {number: self._serial(lane, names, number).state for number in (0, 1)}
        for first, second in ((0, 1), (1, 0)):
            after = 0
            while after == 0 or self._sides[0].statements >= after:
                after += 1
                world = self._worlds.new(lane)
                make = _made(lane, world, names[first]), _made(lane, world, names[second])
                outcomes = interleaved(self._sides, *make, after)
                found = {first: outcomes[0], second: outcomes[1]}
                where = f"{names[first]!r} paused after {after} statements, {names[second]!r} meanwhile"
                _compare(names, self._worlds.state(), found, in_order, by_itself, where)

    def _serial(self, lane: Lane, names: tuple[str, str], *order: int) -> Serial:
        world = self._worlds.new(lane)
        shown = {number: alone(self._connection, _made(lane, world, names[number])).shown for number in order}
        return Serial(self._worlds.state(), shown)


def _made(lane: Lane, world: World, name: str) -> Make:
    return lambda: OPERATIONS[lane][name](world)


def _compare(
    names: tuple[str, str],
    state: list[Any],
    found: dict[int, Outcome],
    in_order: list[Serial],
    by_itself: dict[int, list[Any]],
    where: str,
) -> None:
    for done in found.values():
        assert not isinstance(done.error, psycopg.Error), f"{where}: {done.error}"
    shown = {number: done.shown for number, done in found.items()}
    if Serial(state, shown) in in_order:
        return
    if any(shown[number] == LEAVES.get(names[number]) and state == by_itself[1 - number] for number in (0, 1)):
        return
    assert (state, shown) in [(serial.state, serial.shown) for serial in in_order], where


@contextmanager
def pairs_on(url: str) -> Iterator[Pairs]:
    """Give what tries pairs on the ledger at *url*, whose rows are lost."""
    with ledger_connection(url, row_factory=dict_row) as connection, two_sides(url) as sides:
        yield Pairs(connection, sides)
