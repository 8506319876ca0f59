"""Each kind of a query's field: what is accepted, what it becomes, and what an error says that it must be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest
from starlette.requests import Request

from runlane.errors import InvalidRequest
from runlane.lifecycle import CancelAction
from runlane.server.http.queries import Page, QueryModel, read_query

ID = "7f9b3c1e-8f5d-4b61-9d55-0e1a2b3c4d5e"


class Everything(Page):
    flag: bool = False
    maybe: bool | None = None
    depth: Annotated[int, msgspec.Meta(ge=1)] | bool = False
    run_id: UUID | None = None
    action: CancelAction = CancelAction.INTERRUPT
    format: Literal["text", "json"] = "text"
    select: tuple[str, ...] = ()
    modes: tuple[Literal["a", "b"], ...] = ()


class Named(QueryModel):
    key: str


def read(query: str, model: type[Any] = Everything, *, strict: bool = False) -> tuple[Any, list[str]]:
    """Return the query, and the names that were ignored."""
    app = SimpleNamespace(state=SimpleNamespace(settings=SimpleNamespace(strict=strict)))
    request = Request({"type": "http", "query_string": query.encode(), "headers": [], "app": app, "state": {}})
    return read_query(request, model), request.scope["state"].get("ignored", [])


@pytest.mark.parametrize(
    ("query", "name", "value"),
    [
        ("", "limit", 10),
        ("limit=7", "limit", 7),
        ("limit=7&limit=8", "limit", 8),
        ("flag=TRUE", "flag", True),
        ("flag=yes", "flag", True),
        ("flag=0", "flag", False),
        ("flag=", "flag", False),
        ("", "maybe", None),
        ("maybe=false", "maybe", False),
        ("depth=true", "depth", True),
        ("depth=1", "depth", 1),
        (f"run_id={ID.upper()}", "run_id", UUID(ID)),
        ("action=rollback", "action", CancelAction.ROLLBACK),
        ("format=json", "format", "json"),
        ("select=a,b&select=c", "select", ("a", "b", "c")),
        ('select=["a,b"]', "select", ("a,b",)),
        ("select=", "select", ()),
        ("modes=a&modes=b", "modes", ("a", "b")),
    ],
)
def test_a_value_becomes_what_its_type_says(query: str, name: str, value: Any) -> None:
    found = getattr(read(query)[0], name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("limit=ten", "'limit' is 'ten'; it must be an integer."),
        ("limit=1.0", "'limit' is '1.0'; it must be an integer."),
        ("limit=0", "'limit' is '0'; it must be an integer from 1 to 1000."),
        ("offset=-1", "it must be an integer from 0 to 9007199254740992."),
        ("flag=maybe", "'flag' is 'maybe'; it must be true or false."),
        ("depth=0", "'depth' is '0'; it must be an integer from 1."),
        ("run_id=1", "'run_id' is '1'; it must be a UUID."),
        ("action=stop", "'action' is 'stop'; it must be one of interrupt, rollback."),
        ("format=xml", "'format' is 'xml'; it must be one of text, json."),
        ("select=[1]", "'select' is '[1]'; it must be a list of strings."),
        ("modes=a,c", "'modes' is 'a,c'; it must be one of a, b."),
    ],
)
def test_an_error_names_the_parameter_and_what_it_must_be(query: str, text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(query)
    assert str(refused.value).endswith(text)


def test_a_required_parameter_is_missed() -> None:
    assert read("key=", Named)[0].key == ""
    with pytest.raises(InvalidRequest, match="'key' is missing"):
        read("", Named)


def test_an_unknown_name_is_ignored_and_named_or_refused() -> None:
    assert read("limit=7&colour=red") == (Everything(limit=7), ["colour"])
    with pytest.raises(InvalidRequest, match="Unknown query parameters: colour"):
        read("colour=red", strict=True)
