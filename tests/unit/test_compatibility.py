"""The page about compatibility has every route and every option of a run, names tests that exist, and is not stale."""

from __future__ import annotations

import ast

import msgspec
import pytest

from compatibility import PAGE, TESTS, Row, page, rows
from runlane.server.api import openapi_document
from runlane.server.http.requests import RunCreate

#: What no OpenAPI document describes.
SOCKETS = {"WS /threads/{thread_id}/stream/events"}


def test_every_route_has_a_line_and_every_line_a_route() -> None:
    paths = openapi_document()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert {row.api for row in rows() if not row.option} == routes | SOCKETS
    assert {row.api for row in rows() if row.option} <= routes | {"run"}


def test_every_option_of_a_run_has_a_line() -> None:
    fields = {field.encode_name for field in msgspec.structs.fields(RunCreate)}
    assert {row.option for row in rows() if row.api == "run"} == fields | {"any other field"}


@pytest.mark.parametrize("row", list(rows()), ids=lambda row: row.subject)
def test_what_proves_a_line_exists(row: Row) -> None:
    assert row.tests
    for test in row.tests:
        file, _, name = test.partition("::")
        assert (TESTS / file).is_file(), test
        assert not name or name in _functions((TESTS / file).read_text()), test


def _functions(source: str) -> set[str]:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)}


def test_the_page_is_what_the_data_says() -> None:
    assert PAGE.read_text() == page(), "run ./dev docs"
