"""API keys: made by the command line, kept as hashes, and good for their owner's things only."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import re
import socket
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from langgraph_sdk import get_client

from auth_kit import keyed_server
from runlane.cli.main import app
from runlane.errors import ConfigurationError
from runlane.server.auth.keys import ApiKeys, new_key, read_keys
from runlane.settings import Settings
from runlane.store.backends import open_driver
from runlane.store.drivers.sqlite import take_lock
from runlane.store.transactions.audit import EVERY_ACT, NEWEST_ACT, RecordedAct, acts
from server_kit import NOWHERE, NewDatabase, Server

#: Whatever ends a line for some reader; the file's own lines end with the first two.
ENDS = ("\n", "\r", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029")


def ask(server: Server, path: str = f"/threads/{NOWHERE}", **headers: str) -> httpx.Response:
    return httpx.get(server.url + path, headers={name.replace("_", "-"): value for name, value in headers.items()})


async def test_the_sdk_sends_a_key_and_each_owner_has_their_own(tmp_path: Path) -> None:
    with keyed_server(tmp_path, "ann", "bob") as (server, keys):
        ann, bob = (get_client(url=server.url, api_key=keys[name]) for name in ("ann", "bob"))
        thread = await ann.threads.create()
        assert (await ann.threads.get(thread["thread_id"]))["thread_id"] == thread["thread_id"]
        with pytest.raises(httpx.HTTPStatusError, match="not found"):
            await bob.threads.get(thread["thread_id"])
        shown = await ann.runs.wait(thread["thread_id"], "settings", input={})
        assert shown["user"] == {"identity": "ann", "permissions": [], "secret": False, "name": "ann"}
        for client in (ann, bob):
            await client.aclose()


def test_a_key_is_taken_as_x_api_key_or_bearer_and_nothing_else_is(tmp_path: Path) -> None:
    with keyed_server(tmp_path, "ann") as (server, keys):
        key = keys["ann"]
        for taken in ({"x_api_key": key}, {"authorization": f"Bearer {key}"}, {"authorization": f"bearer  {key}"}):
            assert ask(server, **taken).status_code == 404
        other = key[:-1] + ("A" if key[-1] != "A" else "B")
        unknown = new_key("ann", tmp_path / "other")
        for refused in (
            {},
            {"x_api_key": other},
            {"x_api_key": unknown},
            {"x_api_key": key[1:]},
            {"x_api_key": read_keys(tmp_path / "keys").popitem()[1].hash},
            {"authorization": f"Basic {key}"},
            {"authorization": key},
            {"x_auth_scheme": "langsmith"},
        ):
            answer = ask(server, **refused)
            assert answer.status_code == 401, refused
            assert answer.headers["www-authenticate"] == "Bearer"
            assert "key" in answer.json()["detail"]
        assert ask(server, "/ok").status_code == 200


def test_a_key_is_good_at_once_and_until_its_line_is_removed(tmp_path: Path) -> None:
    with keyed_server(tmp_path, "ann") as (server, keys):
        late = new_key("bob", tmp_path / "keys")
        assert ask(server, x_api_key=late).status_code == 404
        lines = (tmp_path / "keys").read_text().splitlines(keepends=True)
        (tmp_path / "keys").write_text("".join(line for line in lines if "ann" not in line))
        assert ask(server, x_api_key=keys["ann"]).status_code == 401
        assert ask(server, x_api_key=late).status_code == 404
        (tmp_path / "keys").unlink()
        assert ask(server, x_api_key=late).status_code == 401


def test_the_command_prints_the_key_once_and_keeps_its_hash_only(tmp_path: Path) -> None:
    file = tmp_path / "made" / "keys"
    made = CliRunner().invoke(app, ["keys", "new", "Ann of Red", "--file", str(file)])
    assert made.exit_code == 0
    key = made.stdout.strip()
    assert re.fullmatch(r"rlk_[0-9a-f]{16}_[A-Za-z0-9_-]{43}", key)
    stored = file.read_text()
    assert key not in stored
    assert key.split("_", 2)[2] not in stored
    assert file.stat().st_mode & 0o077 == 0
    again = CliRunner().invoke(app, ["keys", "new", "bob"], env={"RUNLANE_API_KEYS": str(file)})
    assert {made.identity for made in read_keys(file).values()} == {"Ann of Red", "bob"}
    assert again.stdout.strip() != key


def test_keys_are_listed_and_revoked_by_their_ids(tmp_path: Path) -> None:
    file = ["--file", str(tmp_path / "keys")]
    assert CliRunner().invoke(app, ["keys", "new", "ann", *file]).exit_code == 0
    scopes = ["--scope", "runs:read", "--scope", "runs:cancel", "--expires-in-days", "7"]
    made = json.loads(CliRunner().invoke(app, ["keys", "new", "night shift", *scopes, *file, "--json"]).stdout)
    assert (made["identity"], made["scopes"]) == ("night shift", ["runs:cancel", "runs:read"])
    key, key_id = made["key"], made["key_id"]
    listed = CliRunner().invoke(app, ["keys", "ls", *file]).stdout.splitlines()
    as_json = json.loads(CliRunner().invoke(app, ["keys", "ls", "--json", *file]).stdout)
    assert [one["key_id"] for one in as_json] == [line.split()[0] for line in listed[1:]]
    assert [line.split()[-1] for line in listed] == ["OWNER", "ann", "shift"]
    assert "runs:cancel,runs:read" in listed[2]
    assert key not in str(listed)
    revoked = CliRunner().invoke(app, ["keys", "revoke", key_id, *file, "--json"])
    assert json.loads(revoked.stdout) == {"revoked": True, "key_id": key_id}
    assert [made.identity for made in read_keys(tmp_path / "keys").values()] == ["ann"]
    again = CliRunner().invoke(app, ["keys", "revoke", key_id, *file])
    assert again.exit_code != 0
    assert "has no key" in again.output
    assert (tmp_path / "keys").stat().st_mode & 0o077 == 0


async def _acts(database: str) -> tuple[RecordedAct, ...]:
    """Return what the audit has; the database is made if it is missing."""
    driver = await open_driver(Settings(database=database))
    try:
        return await driver.read(acts(NEWEST_ACT, EVERY_ACT, 10))
    finally:
        await driver.aclose()


def test_keys_that_are_made_and_revoked_are_in_the_audit(new_database: NewDatabase, tmp_path: Path) -> None:
    database, file = new_database(), ["--file", str(tmp_path / "keys")]
    assert asyncio.run(_acts(database)) == ()
    made = CliRunner().invoke(app, ["keys", "new", "ann", "--scope", "admin", *file, "--database", database])
    key_id = made.stdout.split("_")[1]
    revoked = CliRunner().invoke(app, ["keys", "revoke", key_id, *file], env={"RUNLANE_DATABASE": database})
    assert (made.exit_code, revoked.exit_code) == (0, 0)
    last, first = asyncio.run(_acts(database))
    assert (first.action, first.route, first.status) == ("key.new", "runlane keys new", 200)
    assert first.subject == {"key_id": key_id, "identity": "ann", "scopes": ["admin"]}
    assert first.actor == f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"
    assert (last.action, last.actor, last.subject) == ("key.revoke", first.actor, {"key_id": key_id})


def test_a_key_is_made_unrecorded_only_if_no_database_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = CliRunner().invoke(app, ["keys", "new", "ann"])
    assert (made.exit_code, "Not recorded in an audit: No database is named." in made.stderr) == (0, True)
    (tmp_path / "ledger.db").touch()
    lock = take_lock(tmp_path / "ledger.db")  # as a server has it
    asked = CliRunner().invoke(app, ["keys", "new", "bob", "--database", f"sqlite:///{tmp_path}/ledger.db"])
    os.close(lock)
    no_ledger = CliRunner().invoke(app, ["keys", "new", "eve", "--database", f"sqlite:///{tmp_path}/ledger.db"])
    assert (no_ledger.exit_code, "The database is no ledger" in no_ledger.stderr) == (1, True)
    assert (asked.exit_code, "is in use by another Runlane process" in asked.stderr) == (1, True)
    in_memory = CliRunner().invoke(app, ["keys", "new", "mem", "--database", "memory://"])
    assert (in_memory.exit_code, "Nothing was done, as it cannot be recorded" in in_memory.stderr) == (1, True)
    assert asked.stdout + no_ledger.stdout + in_memory.stdout == ""
    [(key_id, key)] = read_keys(tmp_path / "runlane.keys").items()
    assert key.identity == "ann"
    kept = CliRunner().invoke(app, ["keys", "revoke", key_id, "--database", "memory://"])
    assert (kept.exit_code, kept.stdout, list(read_keys(tmp_path / "runlane.keys"))) == (1, "", [key_id])


def test_a_key_that_cannot_be_stored_is_in_the_audit_as_one_that_failed(
    new_database: NewDatabase, tmp_path: Path
) -> None:
    database = new_database()
    asyncio.run(_acts(database))
    (tmp_path / "keys").mkdir()
    refused = CliRunner().invoke(app, ["keys", "new", "ann", "--file", str(tmp_path / "keys"), "--database", database])
    assert (refused.exit_code, refused.stdout, "cannot be written" in refused.stderr) == (2, "", True)
    assert [(act.action, act.status) for act in asyncio.run(_acts(database))] == [("key.new", 400)]


def test_an_unknown_scope_makes_no_key(tmp_path: Path) -> None:
    refused = CliRunner().invoke(app, ["keys", "new", "x", "--scope", "runs:write", "--file", str(tmp_path / "keys")])
    assert refused.exit_code != 0
    assert "no scope 'runs:write'" in refused.output
    assert not (tmp_path / "keys").exists()


def test_a_key_that_has_expired_opens_nothing(tmp_path: Path) -> None:
    with keyed_server(tmp_path, "ann") as (server, keys):
        expired = new_key("ann", tmp_path / "keys", expires_in=timedelta(seconds=-1))
        later = new_key("ann", tmp_path / "keys", expires_in=timedelta(days=1))
        assert ask(server, x_api_key=expired).status_code == 401
        for key in (later, keys["ann"]):
            assert ask(server, x_api_key=key).status_code == 404


@pytest.mark.parametrize("owner", ["", " ", "*", "x" * 513, *(f"a{end}b" for end in ENDS), "a\x7fb"])
def test_an_owner_that_can_own_nothing_gets_no_key(tmp_path: Path, owner: str) -> None:
    refused = CliRunner().invoke(app, ["keys", "new", owner, "--file", str(tmp_path / "keys")])
    assert refused.exit_code != 0
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("end", ENDS[2:])
def test_an_owners_name_adds_no_line(tmp_path: Path, end: str) -> None:
    file = tmp_path / "keys"
    forged = f"0123456789abcdef {'0' * 64} admin"
    file.write_text(f"fedcba9876543210 {'1' * 64} eve{end}{forged}\n", encoding="utf-8")
    assert read_keys(file) == {}, "neither the line nor what stands in its owner's name"


def test_a_line_that_is_not_understood_lets_nobody_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "keys"
    key = new_key("ann", file)
    with file.open("a") as target:
        target.write(f"{key} ann\n0123456789abcdef {'0' * 64} *\n\n# a comment\nann\n")
    assert len(read_keys(file)) == 1
    assert [record.getMessage().split(" ")[2] for record in caplog.records] == ["line=3", "line=4", "line=7"]
    assert key not in caplog.text


def test_a_keys_file_that_is_missing_at_the_start_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="runlane keys new"):
        ApiKeys(tmp_path / "keys")


def test_the_document_of_the_api_says_how_to_authenticate(tmp_path: Path) -> None:
    with keyed_server(tmp_path, "ann") as (server, _):
        document = ask(server, "/openapi.json").json()
    assert document["components"]["securitySchemes"]["apiKey"]["name"] == "x-api-key"
    assert document["security"] == [{"apiKey": []}, {"bearer": []}]
    assert "ThreadCreate" in document["components"]["schemas"]
