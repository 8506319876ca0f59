"""Kinds of addresses, and how places are shared."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from typing import Any

import pytest

from runlane.store.shares import allowance
from runlane.webhooks.addresses import Kind, kind_of, place_of
from runlane.webhooks.policy import UrlRules, WebhookPolicy
from runlane.webhooks.sender import Names, Places

#: What no deployment can allow.
NEVER = [
    "0.0.0.0",
    "0.1.2.3",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.170.2",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::127.0.0.1",
    "::ffff:0:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:168.63.129.16",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::168.63.129.16",
    "64:ff9b:1::a9fe:a9fe",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:5601:5601",
    "2001:20::1",
    "2001:db8::1",
    "2002:a9fe:a9fe::1",
    "2002:808:808::1",
    "3fff::1",
    "3fff:fff::1",
    "5f00::1",
    "4000::1",
    "fd00:42::42",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
    "fe80::1",
    "fe80::a9fe:a9fe",
    "fe80::1%eth0",
    "ff02::1",
]
KINDS: list[tuple[Kind, list[str]]] = [
    ("never", NEVER),
    ("loopback", ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"]),
    (
        "private",
        [
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.201",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "198.18.0.1",
            "fc00::1",
            "fd00::1",
            "fec0::1",
            "::ffff:10.0.0.1",
            "64:ff9b::192.168.1.1",
        ],
    ),
    (
        "public",
        [
            "1.1.1.1",
            "172.32.0.1",
            "192.0.1.1",
            "2606:4700::1",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
        ],
    ),
]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in KINDS for text in texts])
def test_an_address_is_of_one_kind_in_every_form(kind: Kind, text: str) -> None:
    assert kind_of(ipaddress.ip_address(text)) == kind


@pytest.mark.parametrize("text", NEVER)
def test_not_even_who_allows_private_networks_allows_metadata_and_what_nobody_has(text: str) -> None:
    rules = UrlRules(disable_loopback=False, disable_private_ips=False)
    assert not WebhookPolicy(rules=rules).permits(text)


def test_what_python_calls_private_or_reserved_is_never_public() -> None:
    for text in (text for kind, texts in KINDS if kind == "public" for text in texts if ":" not in text):
        assert ipaddress.ip_address(text).is_global


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2606:4700:1:2:3:4:5:6", "2606:4700:1:2::/64"),
    ],
)
def test_a_place_is_an_address_or_the_network_that_one_machine_has(text: str, place: str) -> None:
    assert place_of(text) == place


@pytest.mark.parametrize(
    ("capacity", "mine", "others", "more"),
    [
        (64, 0, 0, 32),
        (64, 32, 0, 0),
        (64, 30, 0, 2),
        (64, 0, 32, 16),
        (64, 0, 63, 1),
        (64, 0, 64, 0),
        (64, 1, 63, 0),
    ],
)
def test_an_owner_has_half_of_what_the_others_leave(capacity: int, mine: int, others: int, more: int) -> None:
    assert allowance(capacity, mine=mine, others=others) == more


def test_six_owners_who_take_all_they_may_leave_a_place_for_a_seventh() -> None:
    taken: list[int] = []
    for _ in range(6):
        taken.append(allowance(64, mine=0, others=sum(taken)))
    assert taken == [32, 16, 8, 4, 2, 1]
    assert allowance(64, mine=0, others=sum(taken)) == 1


async def test_a_place_is_waited_for_by_who_has_their_part_and_not_by_a_newcomer() -> None:
    places = Places(4)
    for _ in range(2):
        await places.enter("ann", {"a"})
    third = asyncio.ensure_future(places.enter("ann", {"a", "b"}))
    await places.enter("ben", {"a"})
    await places.enter("ann", {"b"})
    assert not third.done()
    for _ in range(2):
        await places.leave("ann", {"a"})
    await third


async def test_names_that_nobody_answers_for_hold_up_no_other_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop's own pool has four to thirty threads for everything."""
    answered, real = threading.Event(), socket.getaddrinfo

    def look_up(host: str, *rest: Any, **more: Any) -> Any:
        if host == "tarpit.example":
            answered.wait()
            raise OSError
        return real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    names = Names()
    slow = [asyncio.ensure_future(names("tarpit.example", 80)) for _ in range(64)]
    assert await names("127.0.0.1", 80) == ["127.0.0.1"]
    answered.set()
    assert all(isinstance(one, OSError) for one in await asyncio.gather(*slow, return_exceptions=True))
    names.close()
