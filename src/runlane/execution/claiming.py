"""Claims of this process that are on their way to the ledger: of runs that waited, and of runs that are admitted."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from runlane.dispatch.base import Dispatch, FreeSlots
from runlane.errors import NotFound, StoreUnavailable
from runlane.execution.ports import AgentSource
from runlane.records import ANY_OWNER, Claim, Claimant, Head
from runlane.settings import Limits, Settings
from runlane.store.ledger import RunStore
from runlane.store.transactions.heads import HeadsWanted

log = logging.getLogger("runlane.worker")


class Reservation:
    """A slot that is kept for a run while it is admitted. Whoever has it settles it, whatever came of the admission.

    Attributes:
        claimant: Who claims the run with its admission.
        sent_at: Since when it is on its way, on the clock of the lease.
        settled: Done once the slot is in use or free; cancelled if the worker does not wait for it any more.
    """

    def __init__(
        self,
        head: Head,
        claimant: Claimant,
        on_settled: Callable[[Reservation, Claim | None], None],
        *,
        sent_at: float,
    ) -> None:
        self.head = head
        self.claimant = claimant
        self.sent_at = sent_at
        self.settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._on_settled = on_settled

    def settle(self, claim: Claim | None) -> None:
        """Execute *claim* in the slot; ``None`` frees it."""
        self._on_settled(self, claim)


class Claims:
    """Claims that are on their way to the ledger. A cancel that is told meanwhile is told again when they arrive."""

    def __init__(
        self,
        *,
        worker_id: str,
        store: RunStore,
        dispatch: Dispatch,
        source: AgentSource,
        settings: Settings,
    ) -> None:
        self._worker_id = worker_id
        self._store = store
        self._dispatch = dispatch
        self._source = source
        self._lease_s = settings.lease_s
        self._limits = Limits.of(settings)
        self._sent: Counter[str] = Counter()
        self._heads_sent = False
        self._cancelled_early: set[str] = set()

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._sent or self._heads_sent

    def claimant(self, run_id: str) -> Claimant:
        """Return this worker as one that claims the run."""
        return self._claimant(has_code=self._source.attached(run_id))

    def _claimant(self, *, has_code: bool) -> Claimant:
        return Claimant(
            worker_id=self._worker_id,
            lease_s=self._lease_s,
            has_code=has_code,
            build=self._source.build,
            pinned=self._source.pinned,
        )

    def sent(self, run_id: str) -> None:
        """Note that a claim is on its way, until :meth:`arrived`."""
        self._sent[run_id] += 1

    def arrived(self, run_id: str) -> None:
        """Note that a claim was answered, or never will be."""
        if not count_down(self._sent, run_id) and run_id in self._cancelled_early:
            self._cancelled_early.discard(run_id)
            self._dispatch.cancel(run_id)

    def cancelled(self, run_id: str) -> None:
        """Note a cancel, which finds no attempt yet if the claim is on its way."""
        if run_id in self._sent or self._heads_sent:
            self._cancelled_early.add(run_id)

    async def claim(self, run_id: str) -> Claim | None:
        """Claim a run that waited; ``None`` if it cannot be claimed, now or ever."""
        self.sent(run_id)
        try:
            claim = await self._store.attempts.claim_by(self.claimant(run_id), run_id)
        except StoreUnavailable as error:
            log.warning("run.claim_failed run_id=%s why=%s", run_id, error)
            return None
        finally:
            self.arrived(run_id)
        if claim is None:
            await self._forget_if_ended(run_id)
        return claim

    async def claim_heads(self, free: FreeSlots, here: tuple[int, ...]) -> tuple[tuple[Claim, ...], bool]:
        """Claim what the ledger chooses for *free*, and return whether there might be more.

        :meth:`heads_arrived` is to be called once the attempts are known; until then cancels of any run are kept.
        """
        wanted = HeadsWanted(
            slots=free.slots,
            groups=self._source.groups,
            attached=tuple(run_id for run_id in free.attached if self._source.attached(run_id)),
            busy=here,
            limits=self._limits,
        )
        self._heads_sent = True
        try:
            claims, more = await self._store.attempts.claim_heads(wanted, self._claimant(has_code=False))
        except StoreUnavailable as error:
            log.warning("run.claims_failed why=%s", error)
            return (), False
        claimed = {claim.run.run_id for claim in claims}
        for run_id in free.attached:
            if run_id not in claimed:
                await self._forget_if_ended(run_id)
        return claims, more

    def heads_arrived(self) -> None:
        """Tell again of the cancels that came while heads were claimed."""
        self._heads_sent = False
        early, self._cancelled_early = (
            self._cancelled_early,
            {one for one in self._cancelled_early if one in self._sent},
        )
        for run_id in early - self._cancelled_early:
            self._dispatch.cancel(run_id)

    async def _forget_if_ended(self, run_id: str) -> None:
        try:
            ended = (await self._store.runs.get(run_id, owner=ANY_OWNER)).status.terminal
        except NotFound:
            ended = True
        except StoreUnavailable:
            return
        if ended:
            self._source.forget(run_id)


def count_down(counter: Counter[str], run_id: str) -> int:
    """Return how many are left of *run_id*, of which one less is counted from now on."""
    counter[run_id] -= 1
    left = counter[run_id]
    if not left:
        del counter[run_id]
    return left
