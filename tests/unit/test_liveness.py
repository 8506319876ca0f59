"""When a lease that stays the same is over for an observer, by its looks at the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat

import pytest

from runlane.maintenance.liveness import GRACE_S, Contact, LeaseObserver

EVERY_S, LEASE_S, RENEWAL_S = 1.0, 30.0, 10.0
#: Looks within which a lease is over, if it ever is.
MANY = 500


@dataclass(frozen=True)
class Look:
    """A look that takes some seconds, if it succeeds, and the pause before the next one."""

    took_s: float = 0.0
    pause_s: float = EVERY_S
    succeeds: bool = True


@dataclass(frozen=True)
class Leased:
    lease_s: float = LEASE_S


def over_at(looks: Iterable[Look]) -> float | None:
    """Return when the look began by which a lease is over that all of them have seen; ``None``: never."""
    contact = Contact(every_s=EVERY_S, renewal_s=RENEWAL_S)
    observer: LeaseObserver[Leased] = LeaseObserver(contact)
    now = 0.0
    for look, _ in zip(looks, range(MANY), strict=False):
        asked_at, now = now, now + look.took_s
        if look.succeeds:
            contact.made(asked_at=asked_at, at=now)
            observer.note([Leased()], asked_at=asked_at, at=now)
        else:
            contact.broken()
        if observer.over(Leased()):
            return asked_at
        now += look.pause_s
    return None


def broken_at_20_s(look: Look) -> Iterator[Look]:
    """Return 21 quick looks, of which the last is *look*, and quick ones after it."""
    return chain(repeat(Look(), 20), [look], repeat(Look()))


@pytest.mark.parametrize(
    ("looks", "seconds"),
    [
        pytest.param(repeat(Look()), LEASE_S + GRACE_S, id="a healthy ledger"),
        pytest.param(broken_at_20_s(Look(took_s=10.0)), 31.0, id="a look as slow as a renewal may be"),
        pytest.param(broken_at_20_s(Look(took_s=10.5)), 31.5 + 31.0, id="a look that is slower"),
        pytest.param(broken_at_20_s(Look(pause_s=11.0)), 31.0, id="a pause longer by as much"),
        pytest.param(broken_at_20_s(Look(pause_s=11.5)), 31.5 + 31.0, id="a longer pause: the process stood still"),
        pytest.param(broken_at_20_s(Look(pause_s=600.0)), 620.0 + 31.0, id="a pause longer than the lease"),
        pytest.param(broken_at_20_s(Look(took_s=0.5, succeeds=False)), 21.5 + 31.0, id="a look that fails"),
        pytest.param(repeat(Look(took_s=3.0)), 36.0, id="a ledger that is always slow"),
        pytest.param(repeat(Look(took_s=10.0)), 44.0, id="a ledger on which renewals just succeed"),
        pytest.param(repeat(Look(took_s=10.5)), None, id="a ledger on which no renewal succeeds, and nothing executes"),
        pytest.param(repeat(Look(pause_s=11.5)), None, id="a process that stands still again and again"),
    ],
)
def test_only_time_of_contact_counts(looks: Iterable[Look], seconds: float | None) -> None:
    assert over_at(looks) == seconds


def test_contact_ends_when_nothing_was_asked_for_too_long() -> None:
    contact = Contact(every_s=EVERY_S, renewal_s=RENEWAL_S)
    assert not contact.lasts(0.0)
    contact.made(asked_at=0.0, at=5.0)
    assert contact.lasts(5.0 + EVERY_S + RENEWAL_S)
    assert not contact.lasts(5.0 + EVERY_S + RENEWAL_S + 0.1)
    contact.broken()
    assert not contact.lasts(5.0)


def test_the_time_of_a_renewal_is_the_grace_time_at_least() -> None:
    contact = Contact(every_s=EVERY_S, renewal_s=0.3)
    contact.made(asked_at=0.0, at=0.0)
    contact.made(asked_at=EVERY_S, at=EVERY_S + GRACE_S)
    assert contact.since == 0.0


def test_an_answer_that_was_waited_for_from_before_the_last_one_breaks_nothing() -> None:
    contact = Contact(every_s=EVERY_S, renewal_s=RENEWAL_S)
    contact.made(asked_at=0.0, at=1.0)
    contact.made(asked_at=2.0, at=2.0)
    contact.made(asked_at=1.5, at=2.5)
    contact.made(asked_at=4.0, at=4.0)
    assert contact.since == 1.0
