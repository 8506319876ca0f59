"""Whose pages may use a server, and under which names: the rules, as tables."""

from __future__ import annotations

import pytest

from runlane.server.config.http_section import CorsSection
from runlane.server.http.origin_middleware import host_name, is_local_name, is_same_origin


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("localhost:2024", "localhost"),
        ("LocalHost", "localhost"),
        ("127.0.0.1:2024", "127.0.0.1"),
        ("[::1]:2024", "::1"),
        ("evil.example.", "evil.example"),
        ("", ""),
        ("127.0.0.1:2024@x", ""),
        ("127.0.0.1:x.evil.example", ""),
        ("[::1].evil.example", ""),
        ("[::1", ""),
        ("localhost:2024:2024", ""),
    ],
)
def test_the_name_of_a_host_has_no_port_and_no_capitals(host: str, name: str) -> None:
    assert host_name(host) == name


@pytest.mark.parametrize(
    "name", ["localhost", "app.localhost", "127.0.0.1", "::1", "192.168.1.7", "box.example", "a.in.x"]
)
def test_addresses_and_names_that_cannot_be_rebound_are_local(name: str) -> None:
    assert is_local_name(name, {"box.example", "*.in.x"})


@pytest.mark.parametrize(
    "name", ["evil.example", "", "localhost.evil.example", "in.x", "evilin.x", "127.0.0.1.evil.example"]
)
def test_other_names_are_not_local(name: str) -> None:
    assert not is_local_name(name, {"box.example", "*.in.x"})


def test_every_name_can_be_allowed() -> None:
    assert is_local_name("evil.example", {"*"})


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://localhost:2024", "localhost:2024", True),
        ("https://api.example", "api.example", True),
        ("https://api.example", "API.example:443", True),
        ("http://api.example:80", "api.example", True),
        ("http://[::1]:2024", "[::1]:2024", True),
        ("http://localhost:3000", "localhost:2024", False),
        ("https://api.example.evil.example", "api.example", False),
        ("null", "localhost:2024", False),
        ("file://", "", False),
        ("http://[evil", "[evil", True),
        ("http://[evil", "localhost", False),
        ("chrome-extension://localhost:2024", "localhost:2024", False),
    ],
)
def test_a_page_is_the_servers_own_if_its_origin_names_the_same_host(origin: str, host: str, same: bool) -> None:
    assert is_same_origin(origin, host) is same


@pytest.mark.parametrize(
    ("cors", "every"),
    [
        (CorsSection(), True),
        (CorsSection(allow_origins=(), allow_origin_regex=".*"), True),
        (CorsSection(allow_origins=(), allow_origin_regex="https?://.+"), True),
        (CorsSection(allow_origins=("https://good.example",)), False),
        (CorsSection(allow_origins=(), allow_origin_regex=r"https://.*\.good\.example"), False),
    ],
)
def test_a_pattern_may_be_as_wide_as_a_star(cors: CorsSection, every: bool) -> None:
    assert cors.allows_every is every
