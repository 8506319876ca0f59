"""Assistants and their versions."""

from __future__ import annotations

from runlane.records import Assistant, Json, Order, Owner
from runlane.store.retrying import RetryingDriver
from runlane.store.transactions import assistants
from runlane.store.transactions.assistants import AssistantFilter, NewAssistant


class Assistants:
    """``store.assistants``."""

    def __init__(self, database: RetryingDriver) -> None:
        self._database = database

    async def create(self, new: NewAssistant, *, if_exists_return: bool = False) -> Assistant:
        """Create version 1 of an assistant; AlreadyExists if the id is taken."""
        return await self._database.write(lambda: assistants.create_assistant(new, if_exists_return=if_exists_return))

    async def get(self, assistant_id: str, *, owner: Owner) -> Assistant:
        """Return the assistant, or raise NotFound."""
        return await self._database.fast_read(lambda: assistants.get_assistant(assistant_id, owner))

    async def update(self, assistant_id: str, *, owner: Owner, changes: Json) -> Assistant:
        """Make a new version with *changes*; metadata is merged."""
        return await self._database.write(lambda: assistants.update_assistant(assistant_id, owner, changes))

    async def set_latest(self, assistant_id: str, *, owner: Owner, version: int) -> Assistant:
        """Make an earlier version the current one."""
        return await self._database.write(lambda: assistants.set_latest(assistant_id, owner, version))

    async def versions(
        self, assistant_id: str, *, owner: Owner, metadata: Json | None = None, limit: int = 10, offset: int = 0
    ) -> tuple[Assistant, ...]:
        """Return the versions of an assistant, newest first."""
        return await self._database.read(lambda: assistants.list_versions(assistant_id, owner, metadata, limit, offset))

    async def search(
        self,
        *,
        owner: Owner,
        where: AssistantFilter,
        sort_by: str = "created_at",
        order: Order = "desc",
        limit: int = 10,
        offset: int = 0,
    ) -> tuple[Assistant, ...]:
        """Return assistants that match *where*, sorted by one of ``SORT_KEYS``."""
        return await self._database.read(
            lambda: assistants.search_assistants(owner, where, sort_by=sort_by, order=order, limit=limit, offset=offset)
        )

    async def count(self, *, owner: Owner, where: AssistantFilter) -> int:
        """Return how many assistants match *where*."""
        return await self._database.read(lambda: assistants.count_assistants(owner, where))

    async def delete(self, assistant_id: str, *, owner: Owner) -> None:
        """Delete an assistant and its versions; its runs stay."""
        await self._database.write(lambda: assistants.delete_assistant(assistant_id, owner))
