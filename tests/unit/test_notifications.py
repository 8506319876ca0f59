"""What processes tell each other: gathered, cut into payloads that PostgreSQL takes, and never trusted."""

from __future__ import annotations

import asyncio

import msgspec

from run_kit import on_virtual_time
from runlane.store.notifications import (
    GATHER_S,
    MAX_PAYLOAD_BYTES,
    MAX_WAITING,
    Changes,
    Notifications,
    changes_in,
    channel_of,
)


class Sending:
    """Takes what is due, and notes when."""

    def __init__(self, notifications: Notifications) -> None:
        self.notifications = notifications
        self.sent: list[tuple[float, Changes]] = []

    def due(self) -> None:
        at = asyncio.get_running_loop().time()
        self.sent += [(at, changes_in(payload)) for payload in self.notifications.take()]


@on_virtual_time
async def test_the_first_change_is_told_at_once_and_those_that_follow_together() -> None:
    notifications = Notifications()
    sending = Sending(notifications)
    with notifications.sent_when(sending.due):
        notifications.run_changed(1)
        await asyncio.sleep(0.001)
        for _ in range(3):
            notifications.run_changed(2)
            notifications.run_changed(3)
            notifications.cancel_recorded("run")
            notifications.thread_changed("thread")
        await asyncio.sleep(1)
    assert [changes for _, changes in sending.sent] == [
        Changes(runs=(1,)),
        Changes(cancels=("run",), runs=(2, 3), threads=("thread",)),
    ]
    assert sending.sent[1][0] - sending.sent[0][0] >= GATHER_S


@on_virtual_time
async def test_nothing_is_kept_for_nobody() -> None:
    notifications = Notifications()
    notifications.run_changed(1)
    with notifications.sent_when(lambda: None):
        assert not notifications.take()


@on_virtual_time
async def test_who_sends_again_tells_that_something_was_missed() -> None:
    notifications = Notifications()
    with notifications.sent_when(lambda: None):
        notifications.run_changed(1)
    notifications.run_changed(2)
    sending = Sending(notifications)
    with notifications.sent_when(sending.due):
        await asyncio.sleep(1)
        notifications.run_changed(3)
        await asyncio.sleep(1)
    assert [changes for _, changes in sending.sent] == [Changes(missed=True), Changes(runs=(3,))]


@on_virtual_time
async def test_of_too_many_changes_it_is_told_that_there_were_some() -> None:
    notifications = Notifications()
    with notifications.sent_when(lambda: None):
        for run_seq in range(MAX_WAITING + 2):
            notifications.run_changed(run_seq)
        notifications.cancel_recorded("run")
        found = [changes_in(payload) for payload in notifications.take()]
    assert found == [Changes(runs=(MAX_WAITING + 1,), cancels=("run",)), Changes(missed=True)]


@on_virtual_time
async def test_payloads_are_as_small_as_postgresql_wants_them() -> None:
    notifications = Notifications()
    threads = [f"\u00e4-{number:04}" * 20 for number in range(400)]
    with notifications.sent_when(lambda: None):
        for number, thread_id in enumerate(threads):
            notifications.run_changed(number)
            notifications.thread_changed(thread_id)
            notifications.cancel_recorded(str(number))
        notifications.thread_changed("x" * MAX_PAYLOAD_BYTES)
        payloads = notifications.take()
    assert max(map(len, payloads)) <= MAX_PAYLOAD_BYTES
    found = [changes_in(payload) for payload in payloads]
    assert [seq for changes in found for seq in changes.runs] == list(range(400))
    assert [thread_id for changes in found for thread_id in changes.threads] == threads
    assert [run_id for changes in found for run_id in changes.cancels] == [str(number) for number in range(400)]


def test_a_payload_that_nobody_understands_tells_nothing() -> None:
    for payload in (b"", b"nonsense", b"[]", b'{"runs": "all"}', b'{"runs": [1.5]}'):
        assert changes_in(payload) == Changes()
    assert changes_in(msgspec.json.encode({"runs": [1], "later": {}})) == Changes(runs=(1,))


def test_a_channel_has_a_name_that_postgresql_takes() -> None:
    assert len(channel_of("x" * 63)) < 64
    assert channel_of("one") != channel_of("other")
