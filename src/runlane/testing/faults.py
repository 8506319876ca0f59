"""Kinds of faults, and profiles: how likely the ledger and notifications fail."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from runlane.dispatch.local import LocalDispatch
from runlane.dispatch.shared import SharedDispatch
from runlane.records import Head
from runlane.settings import Limits
from runlane.testing.history import History

#: Every kind of fault that a simulation counts, and what it is.
KINDS: Final = {
    "process killed": "between two steps of its code, without any clean-up",
    "process frozen": "for some leases; then it goes on with all that it held",
    "process cut off": "from the ledger, for some leases",
    "clock skewed": "a process was started with a clock that is wrong by a second or an hour",
    "clock stepped": "that of one process, by up to an hour",
    "ledger clock set back": "by up to 5 s",
    "ledger clock set forward": "by up to an hour: leases look over",
    "ledger out": "for everybody, for longer than ten seconds and than any lease",
    "shutdown asked": "while clients are busy",
    "shutdown signal repeated": "during the shutdown",
    "store slow": "an operation took up to 0.1 s",
    "store hung": "an operation took some leases, or was lost",
    "store failed before commit": "nothing was written",
    "store failed after commit": "it was written, but whoever wrote it heard of a lost connection",
    "store unreachable": "an operation of a process that was cut off",
    "notification lost": "of work, of a cancel, or of what a stream or thread has",
    "notification late": "by up to 2 s",
    "notification repeated": "at once",
    "permit lost": "a job that says that runs can be claimed",
    "permit late": "by up to 2 s",
    "permit repeated": "to the same process, or to another",
    "caller cancelled at an await": "in an admission, a cancel, a join or a stream",
    "caller left": "after a while",
    "client disconnected": "from the stream of its run, which is to be cancelled then",
    "client disconnected for good": "from the stream of its run, which is to continue",
    "request repeated": "with its idempotency key, at another process, after its answer was lost",
    "lane flooded": "with 40 or 200 runs at once",
    "maintenance": "reconciling, rescuing, purging and dispatching in two processes at once",
    "reader reconnected": "with the last event id that it had",
    "events removed": "while somebody may still want them",
    "cancellation swallowed": "by an agent",
    "exception raised": "by an agent",
    "BaseException raised": "by an agent: SystemExit, KeyboardInterrupt, CancelledError, or one of its own",
}


@dataclass(frozen=True, slots=True)
class FaultProfile:
    """Probabilities: an operation is slow, fails before or after its commit, or hangs; and that a hint goes astray."""

    slow: float = 0.0
    fails_before: float = 0.0
    fails_after: float = 0.0
    hangs: float = 0.0
    astray: float = 0.0


NO_FAULTS: Final = FaultProfile()
PROFILES: Final = {
    "mild": FaultProfile(slow=0.1),
    "slow": FaultProfile(slow=0.7, hangs=0.01),
    "unreliable": FaultProfile(slow=0.3, fails_before=0.03, fails_after=0.02, hangs=0.01, astray=0.1),
    "severe": FaultProfile(slow=0.4, fails_before=0.15, fails_after=0.1, hangs=0.05, astray=0.3),
    "lossy": FaultProfile(slow=0.2, fails_after=0.2),
    "outage": FaultProfile(fails_before=1.0),
    "hanging": FaultProfile(slow=0.2, hangs=0.2),
    "lost notifications": FaultProfile(slow=0.1, astray=0.8),
}


class Faults:
    """The faults of a seed: one profile at a time, and outages."""

    def __init__(self, history: History) -> None:
        self.history = history
        self._profile = NO_FAULTS
        self._out_until = 0.0

    @property
    def profile(self) -> FaultProfile:
        return PROFILES["outage"] if self.history.clock() < self._out_until else self._profile

    def switch(self, kind: str) -> None:
        """Switch to the profile *kind*."""
        self._profile = PROFILES[kind]
        self.history.note("profile", is_=kind)

    def begin_outage(self, seconds: float) -> None:
        """Make the ledger unavailable for *seconds*, whatever the profile."""
        self.history.fault("ledger out")
        self.history.note("out", seconds=round(seconds, 2))
        self._out_until = self.history.clock() + seconds

    def stop(self) -> None:
        """Stop all faults."""
        self.history.note("calm")
        self._profile, self._out_until = NO_FAULTS, 0.0


class Careless:
    """Carries hints of a process: loses them, delivers them late, or twice."""

    def __init__(self, faults: Faults, dice: random.Random, kind: str = "notification") -> None:
        self._faults = faults
        self._dice = dice
        self._kind = kind

    def __call__(self, deliver: Callable[[], None]) -> None:
        dice, likelihood = self._dice, self._faults.profile.astray
        if not likelihood or dice.random() >= likelihood:
            deliver()
            return
        fault = dice.choice(("lost", "late", "repeated"))
        self._faults.history.fault(f"{self._kind} {fault}")
        if fault == "late":
            asyncio.get_running_loop().call_later(dice.random() * 2, deliver)
        elif fault == "repeated":
            deliver()
            deliver()


class CarelessDispatch(LocalDispatch):
    """A process that claims the run of each hint."""

    def __init__(self, limits: Limits, carry: Careless) -> None:
        super().__init__(limits)
        self._carry = carry

    def submit(self, head: Head, *, delay_s: float = 0.0) -> None:
        self._carry(lambda: LocalDispatch.submit(self, head, delay_s=delay_s))

    def cancel(self, run_id: str) -> None:
        self._carry(lambda: LocalDispatch.cancel(self, run_id))


class CarelessSharedDispatch(SharedDispatch):
    """A process that asks the ledger for heads."""

    def __init__(self, limits: Limits, carry: Careless) -> None:
        super().__init__(limits)
        self._carry = carry

    def submit(self, head: Head, *, delay_s: float = 0.0) -> None:
        self._carry(lambda: SharedDispatch.submit(self, head, delay_s=delay_s))

    def cancel(self, run_id: str) -> None:
        self._carry(lambda: SharedDispatch.cancel(self, run_id))
