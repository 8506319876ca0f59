"""The server's document describes every answer, and can be read by those who make clients from it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from answer_kit import documented
from runlane.lifecycle import CancelAction, EndReason, MultitaskStrategy, RunStatus, ThreadStatus
from runlane.store.transactions.webhooks import DeliveryStatus

SCHEMAS = documented()["components"]["schemas"]


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in documented()["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


@pytest.mark.parametrize(("name", "operation"), list(operations()), ids=[name for name, _ in operations()])
def test_every_answer_that_has_a_body_has_a_schema(name: str, operation: dict[str, Any]) -> None:
    for status, response in operation["responses"].items():
        if status not in ("202", "204"):
            assert response["content"], (name, status)
            assert all("schema" in kind for kind in response["content"].values()), (name, status)


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_one(name: str) -> None:
    jsonschema_rs.validator_for({**SCHEMAS[name], "components": documented()["components"]})


def test_every_reference_leads_somewhere() -> None:
    found = set(re.findall(r'"\$ref": ?"#/components/schemas/(\w+)"', json.dumps(documented())))
    assert found <= SCHEMAS.keys()


@pytest.mark.parametrize(
    "kind",
    [CancelAction, DeliveryStatus, EndReason, MultitaskStrategy, RunStatus, ThreadStatus],
    ids=lambda kind: kind.__name__,
)
def test_statuses_and_strategies_are_enums(kind: Any) -> None:
    assert sorted(SCHEMAS[kind.__name__]["enum"]) == sorted(one.value for one in kind)
