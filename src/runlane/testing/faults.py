"""What goes wrong, by kind; and the weather, which says how likely the network and the notices fail."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from runlane.dispatch.local import LocalDispatch
from runlane.records import Head
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
    "notification lost": "of work, or of a cancel",
    "notification late": "by up to 2 s",
    "notification repeated": "at once",
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
class Weather:
    """How likely an operation is slow, fails before or after its commit, or hangs; and that a hint goes astray."""

    slow: float = 0.0
    fails_before: float = 0.0
    fails_after: float = 0.0
    hangs: float = 0.0
    astray: float = 0.0


FINE: Final = Weather()
WEATHERS: Final = {
    "fair": Weather(slow=0.1),
    "slow": Weather(slow=0.7, hangs=0.01),
    "rough": Weather(slow=0.3, fails_before=0.03, fails_after=0.02, hangs=0.01, astray=0.1),
    "storm": Weather(slow=0.4, fails_before=0.15, fails_after=0.1, hangs=0.05, astray=0.3),
    "lossy": Weather(slow=0.2, fails_after=0.2),
    "outage": Weather(fails_before=1.0),
    "mud": Weather(slow=0.2, hangs=0.2),
    "silence": Weather(slow=0.1, astray=0.8),
}


class Sky:
    """The weather of a world, which changes."""

    def __init__(self, history: History) -> None:
        self.history, self._turned, self._out_until = history, FINE, 0.0

    @property
    def weather(self) -> Weather:
        return WEATHERS["outage"] if self.history.clock() < self._out_until else self._turned

    def turn(self, kind: str) -> None:
        """Have the weather of *kind* from now on."""
        self._turned = WEATHERS[kind]
        self.history.note("weather", is_=kind)

    def go_out(self, seconds: float) -> None:
        """Have no ledger for *seconds*, whatever the weather turns to."""
        self.history.fault("ledger out")
        self.history.note("out", seconds=round(seconds, 2))
        self._out_until = self.history.clock() + seconds

    def clear(self) -> None:
        self._turned, self._out_until = FINE, 0.0


class CarelessDispatch(LocalDispatch):
    """Loses hints, delivers them late, or twice."""

    def __init__(self, sky: Sky, dice: random.Random) -> None:
        super().__init__()
        self._sky, self._careless = sky, dice

    def submit(self, head: Head, *, delay_s: float = 0.0) -> None:
        self._carry(lambda: LocalDispatch.submit(self, head, delay_s=delay_s))

    def cancel(self, run_id: str) -> None:
        self._carry(lambda: LocalDispatch.cancel(self, run_id))

    def _carry(self, deliver: Callable[[], None]) -> None:
        dice, likelihood = self._careless, self._sky.weather.astray
        if not likelihood or dice.random() >= likelihood:
            deliver()
            return
        fault = dice.choice(("lost", "late", "repeated"))
        self._sky.history.fault(f"notification {fault}")
        if fault == "late":
            asyncio.get_running_loop().call_later(dice.random() * 2, deliver)
        elif fault == "repeated":
            deliver()
            deliver()
