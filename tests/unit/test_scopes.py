"""Scopes of operators, and answers without payload."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from starlette.exceptions import HTTPException
from starlette.responses import Response

from runlane.errors import ConfigurationError
from runlane.server.api import RESOURCES
from runlane.server.auth.scopes import (
    OperatorScope,
    act_of,
    everything,
    needs_payload,
    owners_actions,
    permissions_of,
    permitted,
    required_scope,
    scopes_of,
)
from runlane.server.http import answers
from runlane.server.http.payload import can_be_hidden, hidden

READ, CANCEL, RETRY, ANSWER, ADMIN = (
    OperatorScope.RUNS_READ,
    OperatorScope.RUNS_CANCEL,
    OperatorScope.RUNS_RETRY,
    OperatorScope.RUNS_ANSWER,
    OperatorScope.ADMIN,
)


@pytest.mark.parametrize(
    ("permissions", "scopes"),
    [
        ((), set()),
        (("runs:read", "admin", "operator"), set()),
        (("operator:runs:read", "operator:nonsense"), {READ}),
        (("operator:admin",), {READ, CANCEL, RETRY, ANSWER, ADMIN}),
    ],
)
def test_only_permissions_of_that_name_are_scopes(permissions: tuple[str, ...], scopes: set[OperatorScope]) -> None:
    assert scopes_of(permissions) == scopes


def test_a_scope_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"no scope 'runs:write'; there are admin, payload:read"):
        permissions_of(["runs:write"])


@pytest.mark.parametrize(
    ("resource", "action", "value", "scope"),
    [
        ("threads", "read", {}, READ),
        ("threads", "search", {}, READ),
        ("crons", "search", {}, READ),
        ("threads", "update", {"action": "interrupt"}, CANCEL),
        ("threads", "update", {"action": "retry"}, RETRY),
        ("threads", "update", {"action": "resend"}, RETRY),
        ("threads", "create_run", {"retry_of": "x"}, RETRY),
        ("threads", "update", {"action": "answer"}, ANSWER),
        ("threads", "create_run", {"interrupt_ids": ["x"]}, ANSWER),
        ("crons", "update", {"action": "run"}, RETRY),
        ("crons", "update", {"action": "pause"}, RETRY),
        ("crons", "update", {"action": "resume"}, RETRY),
        ("crons", "update", {"metadata": {}}, None),
        ("threads", "update", {"values": {}}, None),
        ("threads", "update", {}, None),
        ("threads", "create_run", {}, None),
        ("assistants", "create", {}, None),
        ("threads", "delete", {}, ADMIN),
        ("keys", "read", {}, ADMIN),
        ("audit", "read", {}, ADMIN),
        ("store", "get", {}, None),
        ("store", "search", {}, None),
        ("store", "delete", {}, None),
    ],
)
def test_what_operators_may_do(resource: str, action: str, value: dict[str, Any], scope: OperatorScope | None) -> None:
    assert required_scope(resource, action, value) is scope


def test_what_a_user_may_do_is_listed_by_what_is_asked_of_them() -> None:
    assert set(permitted({READ})) >= {"assistants.search", "crons.read", "threads.read", "threads.search"}
    assert {name.partition(".")[2] for name in permitted({READ})} == {"read", "search"}
    assert set(permitted(set(OperatorScope))) >= {"audit.read", "keys.read", "threads.cancel", "threads.delete"}
    assert "threads.answer" not in permitted({READ, ANSWER})
    assert "threads.answer" in permitted({ANSWER, OperatorScope.PAYLOAD_READ})
    starts = owners_actions(lambda resource, action: resource == "threads" and action != "update")
    assert {name.partition(".")[2] for name in starts} == {"answer", "create", "create_run", "delete", "read", "search"}
    assert set(everything()) >= {"threads.cancel", "store.put", "audit.read"}


@pytest.mark.parametrize(
    ("value", "needed"),
    [
        ({"metadata": {}, "limit": 10, "status": "busy", "ids": ["x"]}, False),
        ({"metadata": {"graph_id": "agent"}}, False),
        ({"metadata": {"customer": "x"}}, True),
        ({"values": {"x": 1}}, True),
        ({"text": "x"}, True),
        ({"metadata": {"customer": "x"}, "retry_of": "x"}, False),
        ({"metadata": {}, "interrupt_ids": ["x"]}, True),
    ],
)
def test_a_search_by_payload_and_an_answer_need_payload(value: dict[str, Any], needed: bool) -> None:
    assert needs_payload(value) == needed


@pytest.mark.parametrize(
    ("action", "value", "shows", "act"),
    [
        ("read", {}, False, None),
        ("search", {}, True, "payload.read"),
        ("update", {"action": "interrupt"}, False, "cancel"),
        ("update", {"action": "rollback"}, False, "rollback"),
        ("update", {"action": "retry"}, False, "retry"),
        ("update", {"action": "run"}, False, "run"),
        ("update", {"action": "answer"}, True, "answer"),
        ("create_run", {"interrupt_ids": ["x"]}, True, None),
        ("update", {"action": "interrupt", "preview": True}, False, None),
        ("create_run", {"retry_of": "x"}, False, None),
        ("delete", {}, True, "delete"),
    ],
)
def test_what_is_recorded(action: str, value: dict[str, Any], shows: bool, act: str | None) -> None:
    assert act_of(action, value, shows_payload=shows) == act


def _hidden(value: Any, answer: Any) -> Any:
    return orjson.loads(hidden(Response(orjson.dumps(value), media_type="application/json"), answer).body)


def test_structure_is_shown_and_values_are_not() -> None:
    task = {"id": "t", "name": "ask", "path": [1], "error": "canary", "interrupts": [{"id": "i", "value": "canary"}]}
    state = {
        "values": {"canary": 1},
        "next": ["ask"],
        "tasks": [{**task, "state": {"values": "canary"}}],
        "new": "canary",
    }
    shown = {**task, "path": [], "error": None, "interrupts": [{"id": "i", "value": None}], "state": {"values": None}}
    assert _hidden(state, answers.WireThreadState) == {"values": {}, "next": ["ask"], "tasks": [shown]}


def test_of_metadata_ids_are_shown() -> None:
    metadata = {"graph_id": "agent", "customer": "canary", "run_id": {"x": "canary"}}
    assert _hidden([{"metadata": metadata}], list[answers.WireThread]) == [{"metadata": {"graph_id": "agent"}}]


@pytest.mark.parametrize("kind", [answers.Event, Any])
def test_answers_that_are_payload_cannot_be_shown(kind: Any) -> None:
    assert not can_be_hidden(kind)


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(HTTPException, match="403"):
        hidden(Response("canary", media_type="text/plain"), answers.WireThread)


def test_payload_can_be_taken_from_every_answer_that_is_declared() -> None:
    kinds = [route.answer for resource in RESOURCES for route in resource.routes if route.answer is not None]
    for kind in kinds:
        if can_be_hidden(kind):
            assert "canary" not in str(_hidden({"unknown": "canary"}, kind))
