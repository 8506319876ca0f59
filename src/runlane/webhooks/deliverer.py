"""The background part that tells URLs of the ends of runs, until each has answered or a day has passed."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Final

import orjson

from runlane.errors import InvalidRequest, StoreUnavailable
from runlane.records import RunRecord
from runlane.settings import Settings
from runlane.store.ledger import RunStore
from runlane.store.transactions.webhooks import Attempted, ClaimedDelivery, DeliveryStatus, Lane
from runlane.supervised_loop import SupervisedLoop
from runlane.telemetry.emitter import SILENT, Telemetry
from runlane.webhooks.policy import Target, WebhookPolicy
from runlane.webhooks.sender import MAX_PER_PLACE, Sender, WebhookResponse
from runlane.webhooks.signing import signature, signing_keys

log = logging.getLogger("runlane.webhooks")

#: What is waited after each try: quick ones for a hiccup, then longer, about 24 hours together.
RETRY_DELAYS_S: Final = (5, 30, 120, 600, 1800, 3600, 7200, 14_400, 28_800, 28_800)
#: Of a delay, so that what failed together is not tried again together.
JITTER: Final = 0.2
#: A receiver may ask to be left alone for so long, at most.
MAX_RETRY_AFTER_S: Final = 28_800.0
#: Sent at the same time by one process. An owner who is alone has half of it.
MAX_IN_FLIGHT: Final = 64
#: After which a delivery is tried again that found no free place at its host's address.
CROWDED_DELAY_S: Final = 5.0
#: More than an attempt takes: looking up a name, waiting for a place, sending, and writing the outcome.
LEASE_S: Final = 120.0
#: What is on its way when the process stops may arrive for so long; then it is sent again by the next one.
CLOSE_GRACE_S: Final = 2.0
#: What a body has beside a run's fields.
EXTRA_FIELDS: Final = frozenset({"run_started_at", "run_ended_at", "webhook_sent_at", "values", "omitted"})

Payload = Callable[[RunRecord], dict[str, Any]]
Post = Callable[[Target, Sequence[tuple[str, str]], bytes], Awaitable[WebhookResponse]]


def follows(answer: WebhookResponse, tries: int, now: datetime, chance: float) -> tuple[DeliveryStatus, float]:
    """Return what becomes of a delivery after its *tries*-th try, and in how many seconds the next one is.

    2xx is delivered, 410 means that nobody wants it; everything else, other 4xx too (receivers are misconfigured or
    deployed wrongly for a while), is tried again. A receiver may ask for a longer delay, not for a shorter one.

    Args:
        chance: From 0 to 1.
    """
    if answer.status_code is not None and 200 <= answer.status_code < 300:
        return DeliveryStatus.DELIVERED, 0.0
    if answer.status_code == 410:
        return DeliveryStatus.GONE, 0.0
    if answer.crowded:
        return DeliveryStatus.PENDING, CROWDED_DELAY_S
    if tries > len(RETRY_DELAYS_S):
        return DeliveryStatus.FAILED, 0.0
    delay_s = RETRY_DELAYS_S[tries - 1] * (1 - JITTER + 2 * JITTER * chance)
    return DeliveryStatus.PENDING, max(delay_s, min(answer.retry_after_s(now), MAX_RETRY_AFTER_S))


class Deliverer:
    """Sends what is due: at once when it is woken, else every ``poll_s``; a slow receiver holds up only itself."""

    def __init__(
        self,
        *,
        store: RunStore,
        policy: WebhookPolicy,
        payload: Payload,
        settings: Settings,
        now: Callable[[], datetime],
        sender: Sender | None = None,
        local: Post | None = None,
        chance: Callable[[], float] = random.random,
        close_grace_s: float = CLOSE_GRACE_S,
        telemetry: Telemetry = SILENT,
    ) -> None:
        """Args:
            payload: Makes the fields of a run on the wire.
            local: Calls the project's own application, if there is one.

        Raises:
            ConfigurationError: The setting ``webhook_secret`` is malformed.
        """
        self.policy = policy
        self._store = store
        self._payload = payload
        self._now = now
        self._chance = chance
        self._close_grace_s = close_grace_s
        self._telemetry = telemetry
        self._sender = sender or Sender(policy.permits)
        self._local = local
        self._keys = signing_keys(settings.webhook_secret)
        self._loop = SupervisedLoop("webhooks", self._send_due, every_s=settings.poll_s, telemetry=telemetry)
        self._sending: dict[asyncio.Task[None], Lane] = {}

    async def __aenter__(self) -> Deliverer:
        self._loop.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._loop.stop()
        if self._sending:
            await asyncio.wait(tuple(self._sending), timeout=self._close_grace_s)
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        self._sender.close()

    def wake(self) -> None:
        """Look now for what is due."""
        self._loop.soon()

    async def _send_due(self) -> None:
        if len(self._sending) >= MAX_IN_FLIGHT:
            return
        busy = Counter(self._sending.values())
        due = await self._store.webhooks.claim(
            capacity=MAX_IN_FLIGHT, per_host=MAX_PER_PLACE, busy=busy, lease_s=LEASE_S
        )
        for delivery in due:
            task = asyncio.get_running_loop().create_task(self._deliver(delivery))
            self._sending[task] = delivery.lane
            task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        del self._sending[task]
        self._loop.soon()  # there is room again
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("webhook.failed", exc_info=error)

    async def _deliver(self, delivery: ClaimedDelivery) -> None:
        sent_at, began = self._now(), asyncio.get_running_loop().time()
        stopped = False
        try:
            answer = await self._attempt(delivery, sent_at)
        except asyncio.CancelledError:
            stopped, answer = True, WebhookResponse(error="The process stopped before there was an answer.")
        except Exception as error:  # supervisor: what cannot be sent fails like what is not taken, and is given up
            log.exception("webhook.failed run_id=%s", delivery.run_id)
            answer = WebhookResponse(error=f"It could not be sent: {type(error).__name__}.")
        status, delay_s = follows(answer, delivery.tries, self._now(), self._chance())
        attempted = Attempted(
            number=delivery.attempt,
            sent_at=sent_at,
            duration_s=asyncio.get_running_loop().time() - began,
            status_code=answer.status_code,
            error=answer.error,
        )
        try:
            await self._store.webhooks.settle(
                delivery.run_id,
                attempted,
                status=status,
                delay_s=0.0 if stopped else delay_s,
                counts=not answer.crowded,
            )
        except StoreUnavailable as error:  # it is sent again once its lease is over
            log.warning("webhook.outcome_not_written run_id=%s why=%s", delivery.run_id, error)
        self._telemetry.webhook_attempted(
            delivery.run_id,
            number=delivery.attempt,
            outcome=status.value,
            status_code=answer.status_code,
            error=answer.error,
            duration_s=attempted.duration_s,
        )
        if stopped:
            raise asyncio.CancelledError

    async def _attempt(self, delivery: ClaimedDelivery, sent_at: datetime) -> WebhookResponse:
        try:
            target = self.policy.target(delivery.url)
        except InvalidRequest as error:  # the rules have changed since the run was admitted
            return WebhookResponse(error=str(error))
        body = self.body(delivery, sent_at)
        headers = self._headers(delivery.run_id, sent_at, body)
        if not target.host and self._local is not None:
            return await self._local(target, headers, body)
        return await self._sender.post(target, headers, body, owner=delivery.lane.owner)

    def body(self, delivery: ClaimedDelivery, sent_at: datetime) -> bytes:
        """Return what is sent: the run's fields as it ended, with its values, and when that happened."""
        run = delivery.run
        fields = {
            **self._payload(run),
            "run_started_at": run.started_at,
            "run_ended_at": run.ended_at,
            "webhook_sent_at": sent_at,
            "values": None if delivery.values is None else orjson.Fragment(delivery.values),
            "omitted": delivery.omitted,
        }
        allowed = self.policy.allowed_fields
        return orjson.dumps({name: value for name, value in fields.items() if allowed is None or name in allowed})

    def _headers(self, run_id: str, sent_at: datetime, body: bytes) -> list[tuple[str, str]]:
        timestamp = int(sent_at.timestamp())
        headers = [
            *self.policy.headers,
            ("content-type", "application/json"),
            ("webhook-id", run_id),
            ("webhook-timestamp", str(timestamp)),
        ]
        if self._keys:
            headers.append(("webhook-signature", signature(self._keys, run_id, timestamp, body)))
        if not any(name.lower() == "user-agent" for name, _ in headers):
            headers.append(("user-agent", "runlane"))
        return headers
