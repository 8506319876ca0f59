"""Saved views, on each database: whose they are, and that nobody overwrites what they have not seen."""

from __future__ import annotations

import pytest

from runlane.errors import InvalidRequest, NotFound, ViewChanged
from runlane.store.ledger import RunStore
from runlane.store.transactions.saved_views import MAX_VIEWS, SavedView, ViewOwner

ANN, BOB = (ViewOwner(name=name, operates=True) for name in ("ann", "bob"))
OWNER = ViewOwner(name="ann", operates=False)


async def put(
    store: RunStore,
    owner: ViewOwner,
    name: str,
    query: str = "status=error",
    *,
    page: str = "runs",
    shared: bool = False,
    revision: int = 0,
) -> SavedView:
    return await store.saved_views.put(owner, page=page, name=name, query=query, shared=shared, revision=revision)


async def names(store: RunStore, owner: ViewOwner, page: str | None = None) -> list[tuple[str, str]]:
    return [(view.owner, view.name) for view in await store.saved_views.list(owner, page=page)]


async def test_operators_see_their_own_views_and_those_that_others_share(store: RunStore) -> None:
    await put(store, ANN, "mine")
    await put(store, ANN, "ours", shared=True)
    await put(store, BOB, "ours", page="threads")
    await put(store, OWNER, "theirs")
    assert await names(store, ANN) == [("ann", "mine"), ("ann", "ours")]
    assert await names(store, BOB) == [("ann", "ours"), ("bob", "ours")]
    assert await names(store, BOB, "threads") == [("bob", "ours")]
    assert await names(store, OWNER) == [("ann", "theirs")], "an owner is no operator of the same name"


async def test_a_view_is_changed_by_who_has_seen_it_as_it_is(store: RunStore) -> None:
    first = await put(store, ANN, "night")
    assert (first.revision, first.query) == (1, "status=error")
    second = await put(store, ANN, "night", "status=timeout", revision=1)
    assert (second.revision, second.query) == (2, "status=timeout")
    for revision in (0, 1, 7):
        with pytest.raises(ViewChanged, match="revision 2"):
            await put(store, ANN, "night", "status=pending", revision=revision)
    assert await put(store, ANN, "night", "status=timeout", revision=1) == second, "the answer was lost"
    with pytest.raises(ViewChanged):
        await put(store, ANN, "night", "status=timeout", revision=7)
    with pytest.raises(NotFound):
        await put(store, ANN, "gone", revision=1)


async def test_a_view_is_deleted_by_its_owner(store: RunStore) -> None:
    await put(store, ANN, "ours", shared=True)
    with pytest.raises(NotFound):
        await store.saved_views.delete(BOB, page="runs", name="ours")
    await store.saved_views.delete(ANN, page="runs", name="ours")
    assert await names(store, ANN) == []


async def test_nobody_has_more_views_than_they_may(store: RunStore) -> None:
    for number in range(MAX_VIEWS):
        await put(store, ANN, f"view {number}")
    with pytest.raises(InvalidRequest, match="delete one first"):
        await put(store, ANN, "one more")
    await put(store, ANN, "view 7", "status=success", revision=1)
    await put(store, BOB, "one more")
