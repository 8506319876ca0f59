"""Whatever a parser is given, it answers or raises the error that it documents, and never another one."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent_kit import run_record
from fuzz_kit import fuzzed, json_texts, texts, values
from runlane.agents.langgraph_json import PACKAGING_KEYS, SECTIONS, UNSUPPORTED_KEYS, read_graphs_file
from runlane.cli.client import parse_events
from runlane.errors import ConfigurationError, InvalidRequest
from runlane.schedules import Schedule
from runlane.server.auth.handlers import AuthSection
from runlane.server.config.expiry import load_expiry
from runlane.server.config.http_section import http_section
from runlane.server.config.long_term import StoreSection
from runlane.server.config.webhooks import RUN_FIELDS
from runlane.server.http.responses import cursor_of
from runlane.server.routes.thread_stream import _position
from runlane.store.filters import filter_params, matches
from runlane.webhooks.policy import WebhookPolicy, WebhooksSection, webhook_policy

NOW = datetime(2026, 3, 1, tzinfo=UTC)
#: Keys of a langgraph.json and of its sections, with what they may begin to look like.
KEYS = st.sampled_from([*sorted(PACKAGING_KEYS | SECTIONS | UNSUPPORTED_KEYS), "graphs", "dependencies", "env"])
INNER = st.one_of(
    st.sampled_from(["app", "cors", "allow_origin_regex", "mount_prefix", "configurable_headers", "includes"]),
    st.sampled_from(["ttl", "default_ttl", "sweep_limit", "index", "dims", "embed", "path", "cache", "openapi"]),
    st.sampled_from(["url", "headers", "allowed_fields"]),
)
SECTION = st.recursive(values, lambda inner: st.dictionaries(INNER, inner, max_size=4), max_leaves=6)
GRAPHS = st.just({"g": "./g.py:graph"}) | st.dictionaries(texts, texts, max_size=3) | values
MEMBERS = st.one_of(
    st.tuples(st.just("graphs"), GRAPHS),
    st.tuples(st.just("dependencies"), st.lists(texts.map(lambda text: f"./{text}"), max_size=3)),
    st.tuples(st.just("env"), st.dictionaries(texts, texts, max_size=3) | texts),
    st.tuples(st.sampled_from(sorted(SECTIONS)), SECTION),
    st.tuples(KEYS, SECTION),
    st.tuples(texts, values),
)
FILES = json_texts(MEMBERS) | st.binary(max_size=60)


@fuzzed(120)
@given(raw=FILES)
@example(raw=b"[" * 100_000)
@example(raw=b'{"graphs": {"g": "a:b"}, "x": ' + b"9" * 5000 + b"}")
@example(raw=b'{"graphs": {"g": "a:b"}, "dependencies": [".\\u0000"]}')
@example(raw=b'{"graphs": {"g": "a:b"}, "dependencies": ["./\\ud800"]}')
@example(raw=b'{"graphs": {"g": "a:b"}, "env": "\\u0000"}')
@example(raw=b'{"graphs": {"g": "a:b"}, "env": "' + b"a" * 5000 + b'"}')
@example(raw=b'{"graphs": {"g": "a:b"}, "env": "file"}')
@example(raw=b'{"graphs": {"g": "a:b"}, "env": {"A": "\\u0000"}}')
@example(raw=b'{"graphs": {"g": "a:b"}, "env": {"A=B": "", "": "c"}}')
@example(raw=b'{"graphs": {"g": "a:b"}, "env": {"\\ud800": "\\ud800"}}')
@example(raw=b'{"graphs": {"g": "a:b"}, "http": {"cors": {"allow_origin_regex": "(" }}}')
@example(raw=b'{"graphs": {"g": "a:b"}, "http": {"cors": {"allow_origin_regex": "a{99999999999}" }}}')
def test_a_langgraph_json_is_understood_or_a_configuration_error(
    raw: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "langgraph.json"
    path.write_bytes(raw)
    (path.parent / "file").write_bytes(b"\xff=\x00\nA=\x00")
    with contextlib.suppress(ConfigurationError), pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.environ", dict[str, str]())
        patch.syspath_prepend(".")
        file = read_graphs_file(path)
        _apply_like_an_environment(file.env)
        for load in (http_section, _webhooks, lambda one: one.section("auth", AuthSection)):
            with contextlib.suppress(ConfigurationError):
                load(file)
        with contextlib.suppress(ConfigurationError):
            file.section("store", StoreSection)
        load_expiry(path)


def _apply_like_an_environment(env: Any) -> None:
    """An environment has names and values without NUL, in names no ``=`` either, and all of it has an encoding."""
    for name, value in env.items():
        assert name
        assert "=" not in name
        assert "\0" not in name + value
        (name + value).encode("utf-8", "surrogateescape")


def _webhooks(file: Any) -> None:
    section = file.section("webhooks", WebhooksSection)
    if section is not None:
        webhook_policy(section, {}, RUN_FIELDS)


@fuzzed(120)
@given(
    text=texts
    | st.from_regex(r"[\d*/,\-#LW@ A-Z?]{1,30}")
    | st.lists(st.sampled_from(["*", "0", "*/5", "1-9", ","])).map(" ".join),
    zone=st.none() | texts | st.sampled_from(["Europe/Berlin", "../etc/passwd", "/etc", "Europe", "utc", "Etc/GMT+12"]),
)
@example(text="0 0 31 2 *", zone=None)
@example(text="* * * * * *", zone="Pacific/Apia")
@example(text=f"{'9' * 200}/1 * * * *", zone=None)
@example(text="1-9999999999 * * * *", zone=None)
@example(text="\u0661 * * * *", zone=None)
def test_a_schedule_is_understood_or_an_invalid_request(text: str, zone: str | None) -> None:
    with contextlib.suppress(InvalidRequest):
        following = Schedule(text, zone).after(NOW)
        assert following is None or following > NOW


@fuzzed(120)
@given(cursor=texts | st.from_regex(r"-?\d{0,25}-?\d{0,25}-?\d{0,25}"))
@example(cursor="\u0661-\u0662")
@example(cursor="0000000001-00000001\n")
@example(cursor=f"{'9' * 19}-{'9' * 19}")
def test_a_cursor_is_a_position_or_an_invalid_request(cursor: str) -> None:
    with contextlib.suppress(InvalidRequest):
        at = cursor_of(run_record(), cursor)
        assert at is None or 0 <= at < 2**63, "a database has no such number"
    with contextlib.suppress(InvalidRequest):
        position = _position(cursor)
        assert position is None or all(-1 <= part < 2**63 for part in (position.order, position.seq))


@fuzzed(120)
@given(
    where=values | st.dictionaries(texts | st.sampled_from(["$or", "$and", "$eq", "owner"]), values), document=values
)
def test_a_filter_of_an_authorisation_is_understood_or_a_configuration_error(where: Any, document: Any) -> None:
    with contextlib.suppress(ConfigurationError):
        params = filter_params(where)
        assert params["where_json"] is None or json.loads(params["where_json"]) is not None
        assert matches(where or {}, document) in (True, False)


@fuzzed(120)
@given(
    url=texts
    | st.builds("{}://{}{}{}".format, st.sampled_from(["http", "https", "HTTP", "ftp", ""]), texts, texts, texts)
    | st.from_regex(r"https?://[\[\]0-9a-fx:.%@\\/?#]{0,30}")
)
@example(url="http://[::ffff:127.0.0.1]/")
@example(url="http://0x7f.1/")
@example(url="http://xn--\u00df/")
@example(url="http://[fe80::1%25eth0]/")
@example(url=f"http://{'a.' * 4000}b/")
@example(url="http://a:99999/")
@example(url="http://a:\u0661/")
def test_a_webhooks_url_is_a_target_or_an_invalid_request(url: str) -> None:
    with contextlib.suppress(InvalidRequest):
        target = WebhookPolicy().target(url)
        wire = target.host + target.target
        assert not set(wire) & set(b"\r\n\0 "), "it would end a line of the request"


@fuzzed(120)
@given(lines=st.lists(texts | st.sampled_from(["", ":", "data", "data:", "data: x", "id: 1", "event: a", "retry: x"])))
def test_any_stream_of_lines_is_a_stream_of_events(lines: list[str]) -> None:
    events = list(parse_events(iter(lines)))
    assert len(events) <= lines.count("")
