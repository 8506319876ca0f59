"""Grants of open responses and sockets, which are authenticated again.

A key may be revoked, a token expire, or a user be removed while a stream is open. The sender is authenticated again
every ``reauthenticate_s``, and as soon as the authority says that its answers may have changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

from starlette.exceptions import HTTPException

from runlane.errors import InvalidRequest
from runlane.server.auth.access import Authority, User
from runlane.supervised_loop import SupervisedLoop
from runlane.telemetry.emitter import SILENT, Telemetry

log = logging.getLogger("runlane.auth")

#: How often the authority is asked whether its answers may have changed.
LOOK_EVERY_S: Final = 1.0
#: Authentications at once; more wait.
AT_ONCE: Final = 32
#: An authentication that takes longer counts as an outage of whatever it asks.
PATIENCE_S: Final = 10.0
#: Periods without an answer, during an outage of the user directory, after which every user is unknown.
OUTAGE_PERIODS: Final = 10


@dataclass(slots=True, eq=False, kw_only=True)
class Grant:
    """One request of a user who was let in.

    Attributes:
        task: Executes the request.
        open: Its answer has begun, or its socket is open, so that it may go on for long.
        over: The status with which the sender is refused now; ``None`` as long as they are known.
        known_at: When the sender was known last, by the loop's clock.
    """

    user: User
    authenticate: Callable[[], Awaitable[User]]
    task: asyncio.Task[Any]
    due_at: float
    known_at: float
    open: bool = False
    over: int | None = None

    async def confirm(self) -> None:
        """Authenticate the sender again.

        Raises:
            HTTPException: They are refused, or are another user now, or the same one with other permissions.
        """
        user = await self.authenticate()
        if user.identity != self.user.identity or set(user.permissions) != set(self.user.permissions):
            raise HTTPException(401, "The user has changed since the request was sent.")


class Grants:
    """All requests that go on, of one process."""

    def __init__(self, authority: Authority, *, every_s: float, telemetry: Telemetry = SILENT) -> None:
        self.authority = authority
        self._every_s = every_s
        self._version = authority.version()
        self._held: dict[Grant, None] = {}  # those that are due first come first
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._checks: dict[asyncio.Task[None], Grant] = {}
        self._loop = SupervisedLoop(
            "reauthentication", self._turn, every_s=min(LOOK_EVERY_S, every_s), telemetry=telemetry
        )

    async def __aenter__(self) -> Grants:
        self._loop.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._loop.stop()
        checks = tuple(self._checks)
        for check in checks:
            check.cancel()
        await asyncio.gather(*checks, return_exceptions=True)

    @contextmanager
    def held(self, user: User, authenticate: Callable[[], Awaitable[User]]) -> Iterator[Grant]:
        """Give the grant of the request that the current task executes."""
        task, now = asyncio.current_task(), asyncio.get_running_loop().time()
        assert task is not None
        grant = Grant(user=user, authenticate=authenticate, task=task, due_at=now + self._every_s, known_at=now)
        self._held[grant] = None
        try:
            yield grant
        finally:
            del self._held[grant]

    def look(self, now: float) -> list[asyncio.Task[None]]:
        """Begin to ask those who are due at *now*, or all if the authority changed; return what asks them."""
        version = self.authority.version()
        changed, self._version = version != self._version, version
        due = list(self._held if changed else takewhile(lambda grant: grant.due_at <= now, self._held))
        asked = set(self._checks.values())
        return [self._begin(grant, now) for grant in due if grant not in asked]

    def _begin(self, grant: Grant, now: float) -> asyncio.Task[None]:
        del self._held[grant]
        self._held[grant] = None
        grant.due_at = now + self._every_s
        check = asyncio.get_running_loop().create_task(self._check(grant))
        self._checks[check] = grant
        check.add_done_callback(self._checks.pop)
        return check

    async def _check(self, grant: Grant) -> None:
        time = asyncio.get_running_loop().time
        try:
            async with self._slots, asyncio.timeout(PATIENCE_S):
                await grant.confirm()
            grant.known_at = time()
            return
        except HTTPException as error:
            status = error.status_code
        except InvalidRequest:
            status = 401
        except TimeoutError:
            status = 503
        except Exception:  # supervisor: nobody awaits this task, and a defect is no word of the authority
            log.exception("auth.check_failed")
            status = 500
        cannot_tell = status == 429 or status >= 500
        if cannot_tell and time() - grant.known_at < OUTAGE_PERIODS * self._every_s:
            log.warning("auth.cannot_tell status=%d", status)
            return
        if grant in self._held and grant.open and grant.over is None:
            grant.over = status
            grant.task.cancel()
            log.info("auth.access_ended status=%d", status)

    async def _turn(self) -> None:
        self.look(asyncio.get_running_loop().time())
