"""The audit of operators' acts, and the last uses of keys, on each database."""

from __future__ import annotations

from runlane.store.ledger import RunStore
from runlane.store.statements import Driver, Transaction, statement
from runlane.store.transactions.audit import Act, ActFilter

LONG_AGO = statement("used_long_ago", "UPDATE key_uses SET last_used_at = last_used_at - 3600000001")


def _used_long_ago() -> Transaction[None]:
    yield LONG_AGO()


def act(number: int) -> Act:
    return Act(
        actor=f"operator {number % 2}",
        key_id=None,
        action="cancel",
        route="POST /runs/{run_id}/cancel",
        subject={"run_id": str(number), "run_ids": ["a", "b"]},
        request_id=None,
        address="::1",
    )


async def test_acts_are_read_newest_first_and_page_by_page(store: RunStore) -> None:
    ids = [await store.audit.record(act(number)) for number in range(5)]
    assert ids == sorted(ids)
    first = await store.audit.list(limit=2)
    rest = await store.audit.list(before=first[-1].audit_id)
    assert [found.audit_id for found in (*first, *rest)] == ids[::-1]
    assert rest[-1].subject == {"run_id": "0", "run_ids": ["a", "b"]}
    assert {found.subject["run_id"] for found in await store.audit.list(where=ActFilter(actor="operator 1"))} == {
        "1",
        "3",
    }
    assert await store.audit.list(where=ActFilter(action="delete")) == ()


async def test_a_result_is_recorded_once(store: RunStore) -> None:
    audit_id = await store.audit.record(act(0))
    assert [found.status for found in await store.audit.list()] == [None]
    await store.audit.complete(audit_id, 202, {"done": 3})
    await store.audit.complete(audit_id, 500)
    assert [(found.status, found.result) for found in await store.audit.list()] == [(202, {"done": 3})]


async def test_acts_of_a_time_are_found(store: RunStore) -> None:
    for number in range(4):
        await store.audit.record(act(number))
    at = [found.recorded_at for found in await store.audit.list()][::-1]
    within = ActFilter(since=at[1], until=at[3])
    assert {found.subject["run_id"] for found in await store.audit.list(where=within)} == {"1", "2"}
    newest = await store.audit.list(where=ActFilter(since=at[1]), limit=1)
    assert [found.subject["run_id"] for found in newest] == ["3"]
    assert await store.audit.list(where=ActFilter(until=at[0])) == ()


async def test_acts_are_purged_once_they_are_old(store: RunStore) -> None:
    for number in range(3):
        await store.audit.record(act(number))
    assert await store.audit.purge(older_than_s=3600) == 0
    assert [await store.audit.purge(older_than_s=-1, limit=2) for _ in range(3)] == [2, 1, 0]
    assert await store.audit.list() == ()


async def test_a_key_in_use_is_recorded_once_an_hour(store: RunStore, driver: Driver) -> None:
    assert await store.audit.key_uses() == {}
    await store.audit.key_used("k")
    first = await store.audit.key_uses()
    await store.audit.key_used("k")
    assert await store.audit.key_uses() == first
    await driver.write(_used_long_ago())
    await store.audit.key_used("k")
    assert (await store.audit.key_uses())["k"] > first["k"]
