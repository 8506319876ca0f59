"""Who gets in: the application's own authentication, and what a refusal says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from auth_kit import bearer, guarded_server, project
from runlane.errors import ConfigurationError
from runlane.server.auth.handlers import load_authority
from runlane.settings import Settings
from server_kit import NOWHERE, PROJECT, Server, running_server


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with guarded_server(tmp_path_factory.mktemp("odd"), "odd") as running:
        yield running


def ask(server: Server, path: str = f"/threads/{NOWHERE}", **headers: str) -> httpx.Response:
    return httpx.get(server.url + path, headers=headers)


def test_the_status_the_text_and_the_headers_of_a_refusal_are_the_handlers_own(odd: Server) -> None:
    unknown = ask(odd)
    assert (unknown.status_code, unknown.json()["detail"]) == (401, "Who are you?")
    assert unknown.headers["www-authenticate"] == "Bearer"
    limited = ask(odd, **bearer("limited"))
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "7")
    banned = ask(odd, **bearer("banned"))
    assert (banned.status_code, banned.json()["detail"]) == (403, "Banned")


def test_whatever_else_a_handler_raises_is_500_without_its_text(odd: Server) -> None:
    broken = ask(odd, **bearer("broken"))
    assert broken.status_code == 500
    assert "directory" not in broken.text
    assert "token" not in broken.text


def test_no_user_is_401(odd: Server) -> None:
    assert ask(odd, **bearer("nobody")).status_code == 401


@pytest.mark.parametrize("answer", ["false", "0", "null", '"false"', '""', "[]", '"true"', "1"])
def test_only_true_says_that_a_user_is_authenticated(odd: Server, answer: str) -> None:
    assert ask(odd, **bearer(f"is:{answer}")).status_code == 401
    assert ask(odd, **bearer("is:true")).status_code == 404


def test_no_user_may_be_nobody_or_everybody(odd: Server) -> None:
    assert [ask(odd, **bearer(name)).status_code for name in ("*", "empty")] == [500, 500]


def test_a_handler_that_is_no_coroutine_runs_on_a_thread_and_is_given_what_it_names(odd: Server) -> None:
    assert ask(odd, **bearer("alice")).status_code == 404


def test_what_anybody_may_ask_needs_no_authentication(odd: Server) -> None:
    for path in ("/", "/ok", "/info", "/docs", "/openapi.json"):
        assert ask(odd, path).status_code == 200, path


def test_a_path_that_does_not_exist_is_not_told_from_one_that_does(odd: Server) -> None:
    assert ask(odd, "/nothing").status_code == 401


@pytest.mark.parametrize(
    ("auth", "named"),
    [
        ({"path": "./missing.py:auth"}, "auth.path"),
        ({"path": f"{PROJECT.parent}/auth.py:SECRET"}, "not langgraph_sdk.Auth"),
        ({"allow_langsmith_api_keys": True}, "allow_langsmith_api_keys"),
        ({"studio": True}, "studio"),
        ({"openapi": {"paths": {}}}, "paths"),
        ({"cache": {"ttl_seconds": 5}}, "cache_keys"),
    ],
)
def test_an_auth_section_that_cannot_be_honoured_is_refused_at_the_start(
    tmp_path: Path, auth: dict[str, object], named: str
) -> None:
    with pytest.raises(ConfigurationError, match=named):
        load_authority(project(tmp_path, **auth), Settings())


def test_two_ways_to_authenticate_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="exclude each other"):
        load_authority(project(tmp_path), Settings(api_keys="keys"))


def test_the_header_of_langgraph_studio_opens_nothing(odd: Server) -> None:
    """Weakness 30 of the reference server."""
    assert ask(odd, **{"x-auth-scheme": "langsmith"}).status_code == 401
    assert json.loads(ask(odd, **{"x-auth-scheme": "langsmith", "x-api-key": "x"}).text)["detail"] == "Who are you?"


def test_a_user_is_known_for_a_while_by_the_headers_that_the_cache_names(tmp_path: Path) -> None:
    schemes = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}, "security": [{"token": []}]}
    cache = {"cache_keys": ["Authorization"], "ttl_seconds": 3600, "max_size": 2}
    config = project(tmp_path, path=f"{PROJECT.parent}/auth.py:counted", cache=cache, openapi=schemes)
    with running_server("memory://", config) as server:

        def asked(name: str) -> int:
            answer = httpx.post(f"{server.url}/threads", json={}, headers=bearer(name)).json()
            return int(answer["metadata"]["asked"])

        first = asked("ann")
        assert (asked("ann"), asked("bob"), asked("ann")) == (first, first + 1, first)
        assert (asked("eve"), asked("bob"), asked("ann")) == (first + 2, first + 1, first + 3)
        assert ask(server).status_code == 401
        document = ask(server, "/openapi.json").json()
    assert document["components"]["securitySchemes"] == schemes["securitySchemes"]
