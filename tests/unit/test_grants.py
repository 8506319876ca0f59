"""Requests that go on end when their senders are not known any more, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from runlane.server.auth.access import Access, User
from runlane.server.auth.grants import OUTAGE_PERIODS, Grant, Grants

EVERY_S = 1000.0
ANN = User("ann", ("read", "write"))


class Scripted:
    """An authority that answers as it is told."""

    openapi: Mapping[str, Any] = {}
    reads_body = False

    def __init__(self) -> None:
        self.answer: User | Exception = ANN
        self.asked = 0
        self.content = 1

    async def authenticate(self, connection: HTTPConnection | None = None) -> User:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def access(self, user: User, resource: str, action: str, value: dict[str, Any]) -> Access:
        return Access(owner=user.identity, reads=user.identity, user=user)

    def version(self) -> object:
        return self.content

    def allows(self, resource: str, action: str) -> bool:
        return True

    async def knows(self, owner: str) -> bool:
        return True

    async def aclose(self) -> None:
        """Nothing is held."""


class Request:
    """A request that goes on until it is ended."""

    def __init__(self, grants: Grants, authority: Scripted, *, streams: bool = True) -> None:
        self.held = asyncio.Event()
        self.grant: Grant | None = None
        self._streams = streams
        self.task = asyncio.create_task(self._run(grants, authority))

    async def _run(self, grants: Grants, authority: Scripted) -> None:
        with grants.held(ANN, authority.authenticate) as self.grant:
            self.grant.open = self._streams
            self.held.set()
            await asyncio.Event().wait()


def now() -> float:
    return asyncio.get_running_loop().time()


async def checked(
    authority: Scripted, *, at: Callable[[], float], streams: bool = True, outage: bool = False
) -> int | None:
    """Return with which status a request is ended if it is looked at then; ``None`` if it is not."""
    grants = Grants(authority, every_s=EVERY_S)
    request = Request(grants, authority, streams=streams)
    await request.held.wait()
    assert request.grant is not None
    if outage:
        request.grant.known_at -= EVERY_S * OUTAGE_PERIODS
    await asyncio.gather(*grants.look(at()))
    over = request.grant.over
    if over is None:
        request.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request.task
    return over


def due() -> float:
    return now() + EVERY_S


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_sender_who_is_refused_is_ended_when_it_is_time(status: int) -> None:
    authority = Scripted()
    authority.answer = HTTPException(status)
    assert await checked(authority, at=now) is None
    assert authority.asked == 0
    assert await checked(authority, at=due) == status


async def test_who_is_still_known_goes_on() -> None:
    assert await checked(Scripted(), at=due) is None


@pytest.mark.parametrize("user", [User("bob", ANN.permissions), User("ann", ("read",))])
async def test_another_user_or_other_permissions_end_it(user: User) -> None:
    authority = Scripted()
    authority.answer = user
    assert await checked(authority, at=due) == 401


async def test_the_order_of_permissions_says_nothing() -> None:
    authority = Scripted()
    authority.answer = User("ann", ("write", "read"))
    assert await checked(authority, at=due) is None


@pytest.mark.parametrize("failure", [HTTPException(500), HTTPException(503), HTTPException(429), ValueError("broken")])
async def test_an_outage_of_the_directory_ends_nothing_at_first_and_not_for_ever(failure: Exception) -> None:
    authority = Scripted()
    authority.answer = failure
    assert await checked(authority, at=due) is None
    assert await checked(authority, at=due, outage=True) is not None


async def test_all_are_asked_at_once_when_the_authority_has_changed() -> None:
    authority = Scripted()
    grants = Grants(authority, every_s=EVERY_S)
    requests = [Request(grants, authority) for _ in range(3)]
    for request in requests:
        await request.held.wait()
    authority.answer, authority.content = HTTPException(401), 2
    await asyncio.gather(*grants.look(now()))
    await asyncio.gather(*(request.task for request in requests), return_exceptions=True)
    assert [request.grant.over for request in requests if request.grant] == [401] * 3
    assert grants.look(now()) == []


async def test_what_has_not_begun_its_answer_is_left_to_end_by_itself() -> None:
    authority = Scripted()
    authority.answer = HTTPException(401)
    assert await checked(authority, at=due, streams=False) is None
