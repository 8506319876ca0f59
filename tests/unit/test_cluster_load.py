"""The load of the cluster's test adapts to what the cluster can do."""

from __future__ import annotations

import asyncio

from cluster.load import IN_TIME_S, LEAST, Load


async def test_the_load_grows_while_runs_end_in_time_and_never_over_its_limit() -> None:
    load = Load(most=10)
    for _ in range(200):
        load.ended(IN_TIME_S)
    assert load.limit == 10


async def test_the_load_shrinks_once_runs_are_late_and_not_below_its_least() -> None:
    load = Load(most=100)
    for _ in range(2000):
        load.ended(IN_TIME_S)
    before = load.limit
    load.ended(IN_TIME_S + 1)
    load.ended(IN_TIME_S + 1)  # it was admitted under the same load
    assert LEAST < load.limit < before
    assert load.limit > before / 2


async def test_slots_are_given_in_order_and_only_as_many_as_there_are() -> None:
    load, order = Load(most=1), list[int]()

    async def take(number: int) -> None:
        async with load.slot():
            order.append(number)
            await asyncio.sleep(0)
            assert order[-1] == number

    await asyncio.gather(*(take(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4]
