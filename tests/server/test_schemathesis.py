"""Requests made from the server's own document: none is answered with a defect, or with a status that is not in it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from runlane.server.api import openapi_document
from server_kit import NewDatabase, Server, running_server

CONFIG = {
    "generation": {"deterministic": True, "max-examples": 10},
    # A method that a path does not have is answered with 405, which no document lists.
    "phases": {"coverage": {"unexpected-methods": []}},
}
#: Streams that stay open for ever on a thread that exists; their own tests read them.
ENDLESS = ("/threads/{thread_id}/stream", "/threads/{thread_id}/stream/events")
API = schemathesis.openapi.from_dict(openapi_document(), config=schemathesis.Config.from_dict(CONFIG))
ANSWER_S = 10.0
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
#: A graph that ends at once, whatever it is given.
GRAPH = "settings"


@pytest.fixture(scope="module")
def server(new_database: NewDatabase) -> Iterator[Server]:
    """Give a server of this file's own, which is left in a strange state."""
    with running_server(new_database()) as running:
        yield running


@pytest.fixture
def known(server: Server) -> Mapping[str, str]:
    """Give the ids of things that exist, for as long as the test does not delete them."""
    with httpx.Client(base_url=server.url) as http:
        assistant = http.post("/assistants", json={"graph_id": GRAPH}).json()["assistant_id"]
        thread = http.post("/threads", json={}).json()["thread_id"]
        body = {"assistant_id": assistant, "input": {}}
        http.post(f"/threads/{thread}/runs/wait", json=body).raise_for_status()
        run = http.get(f"/threads/{thread}/runs").json()[0]["run_id"]
        cron = http.post("/runs/crons", json={**body, "schedule": "0 0 1 1 *"}).json()["cron_id"]
    return {"thread_id": thread, "run_id": run, "assistant_id": assistant, "cron_id": cron}


def bounded(case: schemathesis.Case) -> schemathesis.Case:
    """Leave out what makes a request wait for years: it would be right to."""
    body: Any = case.body
    for one in body if isinstance(body, list) else [body]:
        if isinstance(one, dict):
            one.pop("after_seconds", None)
    return case


@pytest.fixture
def turns() -> Iterator[bool]:
    """Say of each request in turn whether it is about what exists."""
    return itertools.cycle([True, False])


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")  # of schemathesis itself
@API.parametrize()
@settings(
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # what fails is short enough
    suppress_health_check=list(HealthCheck),
)
def test_no_request_meets_a_defect_or_an_undocumented_status(
    case: schemathesis.Case, turns: Iterator[bool], known: Mapping[str, str], server: Server
) -> None:
    if next(turns) and case.path not in ENDLESS:
        case.path_parameters.update({name: value for name, value in known.items() if name in case.path_parameters})
        if isinstance(case.body, dict) and isinstance(case.body.get("assistant_id"), str):
            case.body["assistant_id"] = GRAPH
    response = bounded(case).call(base_url=server.url, timeout=ANSWER_S)
    assert response.status_code < 500, response.text
    case.validate_response(response, checks=CHECKS)
