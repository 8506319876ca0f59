"""What a run was asked to do, as it is stored: typed, versioned, and readable where version 0.1 has written it."""

from __future__ import annotations

from typing import Any

import pytest

from runlane.errors import InvalidRequest, RequestUnreadable
from runlane.requests import NULL, SECRET_MARKS, VERSION, RunOrigin, RunRequest, StoredRequest, ThreadBinding, raw
from runlane.store.rows import dumps

SECRET = "planted-secret-0123456789"
EVERYTHING: dict[str, Any] = {
    "graph_id": "g",
    "input": {"n": [1, None, "ü"]},
    "command": {"resume": 1},
    "config": {"configurable": {"model": "m"}, "recursion_limit": 7},
    "context": {"who": "ann"},
    "stream_mode": ["values", "updates"],
    "stream_subgraphs": True,
    "interrupt_before": "*",
    "interrupt_after": ["a"],
    "durability": "sync",
    "checkpoint": {"checkpoint_id": "c", "checkpoint_ns": ""},
    "checkpoint_id": "c",
    "strict_resume": True,
    "protocol": "v2",
    "answers": ["i1"],
}


def test_every_option_has_a_case_here() -> None:
    assert EVERYTHING.keys() == set(RunRequest.__struct_fields__) - {"extra"}


@pytest.mark.parametrize(
    "given",
    [
        EVERYTHING,
        {},
        {"input": 0, "steps": 3, "extra": {"a": 1}},
        {"input": None, "config": None, "command": None, "strict_resume": False, "answers": [], "stream_mode": None},
    ],
)
def test_what_a_caller_gave_comes_back_as_it_was(given: dict[str, Any]) -> None:
    stored = StoredRequest(StoredRequest.of(RunRequest.of(given)).text)
    assert stored.given == given
    assert stored.input == given.get("input")


def test_what_runlane_keeps_is_not_among_what_was_asked() -> None:
    origin = RunOrigin(request_id="r", permissions=("a", "b"), fingerprint="f")
    binding = ThreadBinding(was={"graph_id": "a"}, wrote={"graph_id": "b"})
    stored = StoredRequest(StoredRequest.of(RunRequest.of({"permissions": ["mine"]}), origin, binding).text)
    assert (stored.origin, stored.binding, stored.given) == (origin, binding, {"permissions": ["mine"]})
    assert stored.request.extra == {"permissions": ["mine"]}
    rebound = ThreadBinding(was={}, wrote={"graph_id": "b"})
    assert StoredRequest(stored.rebound(rebound).text).binding == rebound
    assert stored.rebound(rebound).origin == origin


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"config": "x"}, "config"),
        ({"stream_mode": "values"}, "stream_mode"),
        ({"durability": "never"}, "durability"),
        ({"strict_resume": "yes"}, "strict_resume"),
    ],
)
def test_an_option_of_another_kind_is_refused_by_name(given: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        RunRequest.of(given)


@pytest.mark.parametrize("unfit", [object(), 2**70, "\ud800"], ids=["type", "number", "surrogate"])
def test_what_is_not_json_is_refused(unfit: Any) -> None:
    for given in ({"input": unfit}, {"mine": unfit}, {"config": {"configurable": {"a": unfit}}}):
        with pytest.raises(InvalidRequest, match="stored as JSON"):
            RunRequest.of(given)


def test_a_row_of_version_0_1_is_read() -> None:
    marks = {
        "request_id": "r",
        "permissions": ["a"],
        "request_fingerprint": "f",
        "thread_binding": {"was": {"x": 1}, "is": {"x": 2}},
    }
    stored = StoredRequest(dumps({"runlane_secrets": True, **EVERYTHING, **marks, "steps": 3}))
    assert stored.given == {**EVERYTHING, "steps": 3}
    assert stored.origin == RunOrigin(request_id="r", permissions=("a",), fingerprint="f")
    assert stored.binding == ThreadBinding(was={"x": 1}, wrote={"x": 2})
    assert stored.secrets


def test_what_version_0_1_took_unchecked_is_the_callers_and_no_graphs() -> None:
    given = {"input": 1, "config": [1], "stream_mode": "values", "request_id": 5, "permissions": {"a": 1}}
    stored = StoredRequest(dumps(given))
    assert stored.given == given
    assert stored.request == RunRequest(input=raw(1), extra={name: given[name] for name in given if name != "input"})
    assert stored.origin == RunOrigin()


@pytest.mark.parametrize(
    "text",
    [
        f'{{"runlane_request":{VERSION + 1},"request":{{}}}}',
        f'{{"runlane_request":{VERSION},"request":{{"new_option":1}}}}',
        f'{{"runlane_request":{VERSION},"request":{{"config":1}}}}',
        "{",
        "[]",
    ],
)
def test_what_a_newer_version_stored_is_refused_instead_of_guessed(text: str) -> None:
    with pytest.raises(RequestUnreadable):
        _ = StoredRequest(text).request


def test_a_newer_version_is_named() -> None:
    with pytest.raises(RequestUnreadable, match=f"version {VERSION + 1}, and this Runlane reads up to {VERSION}"):
        _ = StoredRequest(f'{{"runlane_request":{VERSION + 1}}}').origin


def test_an_input_is_not_parsed_with_the_rest() -> None:
    stored = StoredRequest('{"runlane_request":1,"request":{"graph_id":"g","input":{"a" : 1}}}')
    assert stored.request.graph_id == "g"
    assert bytes(stored.request.input) == b'{"a" : 1}'
    assert RunRequest().input == NULL


def test_a_request_without_secrets_is_kept_as_it_is() -> None:
    request = RunRequest.of({"input": {"api_key": SECRET}, "config": {"configurable": {"model": "m"}}})
    stored = StoredRequest.of(request)
    assert not stored.secrets
    assert stored.shown == request
    assert stored.scrubbed() is None
    assert stored.configurations == ()


def test_a_text_without_its_input_is_of_a_version_that_misses_none() -> None:
    stored = StoredRequest.of(RunRequest.of({"graph_id": "g", "input": {"a": 1}}))
    apart = stored.without_input()
    assert apart.text.startswith('{"runlane_request":2,')
    whole = StoredRequest(apart.text, b'{"a":1}')
    assert (whole.input, whole.request, whole.whole_text) == ({"a": 1}, stored.request, stored.text)
    assert whole != apart


@pytest.mark.parametrize("mark", range(len(SECRET_MARKS)))
@pytest.mark.parametrize("place", ["config", "context"])
def test_a_request_with_secrets_is_scrubbed_of_them(place: str, mark: int) -> None:
    given = {"graph_id": "g", place: {"configurable": {"api_key": SECRET, "a": 1}}}
    stored = StoredRequest.of(RunRequest.of(given))
    if SECRET_MARKS[mark] == '{"runlane_secrets"':
        stored = StoredRequest(dumps({"runlane_secrets": True, **given}))
    if '"runlane_request":2' in SECRET_MARKS[mark]:
        stored = stored.without_input()
    if f'"runlane_request":{VERSION}' in SECRET_MARKS[mark]:
        stored = StoredRequest.of(RunRequest.of(given), RunOrigin(traceparent=f"00-{'1' * 32}-{'1' * 16}-01"))
    assert stored.text.startswith(SECRET_MARKS[mark])
    assert stored.given == given, "the graph is configured as asked"
    assert SECRET not in str(stored.shown.given())
    assert SECRET not in repr(stored)
    scrubbed = stored.scrubbed()
    assert scrubbed is not None
    assert SECRET not in scrubbed.text
    assert not scrubbed.text.startswith(SECRET_MARKS)
    assert StoredRequest(scrubbed.text).given == {"graph_id": "g", place: {"configurable": {"api_key": "***", "a": 1}}}
