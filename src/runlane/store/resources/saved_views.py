"""Saved views of the console's pages."""

from __future__ import annotations

from runlane.store.retrying import RetryingDriver
from runlane.store.transactions import saved_views
from runlane.store.transactions.saved_views import SavedView, ViewOwner


class SavedViews:
    """``store.saved_views``."""

    def __init__(self, database: RetryingDriver) -> None:
        self._database = database

    async def list(self, owner: ViewOwner, *, page: str | None = None) -> tuple[SavedView, ...]:
        """Return the views of *owner* and those that are shared with them."""
        return await self._database.read(lambda: saved_views.views(owner, page))

    async def put(
        self, owner: ViewOwner, *, page: str, name: str, query: str, shared: bool, revision: int
    ) -> SavedView:
        """Save a view of which this *revision* was seen; 0: a new one.

        Raises:
            ViewChanged: It has been changed, or made, meanwhile.
            NotFound: It has been deleted meanwhile.
            InvalidRequest: They have as many as they may.
        """
        return await self._database.write(lambda: saved_views.put_view(owner, page, name, query, shared, revision))

    async def delete(self, owner: ViewOwner, *, page: str, name: str) -> None:
        """Delete a view.

        Raises:
            NotFound: They have none of this name.
        """
        await self._database.write(lambda: saved_views.delete_view(owner, page, name))
