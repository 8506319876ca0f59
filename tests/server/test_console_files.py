"""The console's page: which files there are, under which rules a browser runs them, and where they are not served."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from runlane.server.auth.keys import new_key
from runlane.server.routes.console import FILES
from server_kit import Server, running_server

NAMES = sorted(file.name for file in FILES.iterdir() if file.name != "index.html")


@pytest.fixture
def files(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as client:
        yield client


def test_the_page_is_at_a_path_with_a_slash_to_which_the_other_one_leads(files: httpx.Client) -> None:
    moved = files.get("/console")
    assert (moved.status_code, moved.headers["location"]) == (307, "console/")
    assert files.get("/console/").text == (FILES / "index.html").read_text()


def test_every_file_that_the_page_names_is_served(files: httpx.Client) -> None:
    for name in re.findall(r'(?:src|href)="([^"]+)"', files.get("/console/").text):
        assert files.get(f"/console/{name}").status_code == 200
    for name in NAMES:
        assert files.get(f"/console/{name}").content == (FILES / name).read_bytes()


@pytest.mark.parametrize("name", ["", *NAMES])
def test_a_browser_runs_files_of_this_server_only_and_no_text_as_code(files: httpx.Client, name: str) -> None:
    headers = files.get(f"/console/{name}").headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "unsafe" not in headers["content-security-policy"]


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_file_is_sent_again_only_if_it_is_another(server: Server, encoding: str) -> None:
    with httpx.Client(base_url=server.url, headers={"accept-encoding": encoding}) as http:
        first = http.get("/console/style.css")
        assert first.headers.get("content-encoding", "identity") == encoding
        assert first.headers["cache-control"] == "no-cache"
        again = http.get("/console/style.css", headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        changed = http.get("/console/style.css", headers={"if-none-match": '"of-another-version"'})
        assert changed.content == first.content


def test_a_client_without_compression_gets_bytes_as_they_are(server: Server) -> None:
    with httpx.stream("GET", f"{server.url}/console/app.js", headers={"accept-encoding": "gzip"}) as packed:
        raw = b"".join(packed.iter_raw())
    assert gzip.decompress(raw) == (FILES / "app.js").read_bytes()


@pytest.mark.parametrize(
    "path", ["/console/../api.py", "/console/%2e%2e/settings.py", "/console/none.js", "/console/a/b"]
)
def test_nothing_else_is_served(files: httpx.Client, path: str) -> None:
    assert files.get(path).status_code in (404, 405)


def test_the_page_needs_no_key_and_its_data_does(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    new_key("acme", keys)
    with (
        running_server(f"sqlite:///{tmp_path}/a.db", api_keys=str(keys)) as server,
        httpx.Client(base_url=server.url) as http,
    ):
        assert http.get("/console/").status_code == 200
        assert http.get("/console/app.js").status_code == 200
        assert http.get("/me").status_code == 401


def test_a_project_can_do_without_the_console_or_move_it(tmp_path: Path) -> None:
    def served(**http: object) -> Path:
        file = tmp_path / "langgraph.json"
        file.write_text(json.dumps({"dependencies": ["."], "graphs": {"g": "./g.py:graph"}, "http": http}))
        return file

    (tmp_path / "g.py").write_text("async def graph(): ...\n")
    with running_server(f"sqlite:///{tmp_path}/b.db", served(disable_ui=True)) as server:
        assert httpx.get(f"{server.url}/console/").status_code == 404
    with running_server(f"sqlite:///{tmp_path}/c.db", served(mount_prefix="/agents/v1")) as server:
        assert httpx.get(f"{server.url}/agents/v1/console/").status_code == 200
        assert httpx.get(f"{server.url}/agents/v1/console/app.js").status_code == 200


def test_a_foreign_page_can_neither_frame_the_console_nor_use_the_browsers_key(tmp_path: Path) -> None:
    """No cookie or stored login of a browser opens the API, only the header that the page adds."""
    keys = tmp_path / "keys"
    key = new_key("acme", keys)
    with (
        running_server(f"sqlite:///{tmp_path}/d.db", api_keys=str(keys)) as server,
        httpx.Client(base_url=server.url) as http,
    ):
        for cookie in (f"x-api-key={key}", f"runlane.credential={key}", f"authorization=Bearer {key}"):
            assert http.get("/me", headers={"cookie": cookie}).status_code == 401
        answer = http.get("/me", headers={"x-api-key": key})
        assert answer.json()["identity"] == "acme"
        assert "set-cookie" not in answer.headers
        foreign = http.get("/me", headers={"x-api-key": key, "origin": "https://elsewhere.example"})
        assert "access-control-allow-credentials" not in foreign.headers
