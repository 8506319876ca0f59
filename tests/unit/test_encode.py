"""Every value that an agent may produce has one JSON form, or a clear error."""

from __future__ import annotations

import json
import math
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.store.base import Item
from langgraph.types import Command, Interrupt, Send
from pydantic import BaseModel, SecretStr

from runlane.agents.encode import Unserialisable, encode, encode_lenient

CALL = {"name": "add", "args": {"a": 1}, "id": "c1", "type": "tool_call"}
MESSAGES: list[BaseMessage] = [
    HumanMessage("hi", id="1"),
    HumanMessage([{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "data:"}}]),
    AIMessage("ok", tool_calls=[CALL], usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),  # type: ignore[list-item]  # a tool call is a dict
    AIMessageChunk("to", id="2", tool_call_chunks=[{"name": "add", "args": '{"a"', "id": "c1", "index": 0}]),  # type: ignore[list-item]  # a chunk is a dict
    AIMessageChunk("", chunk_position="last"),
    AIMessage("more", surprise=1),
    ToolMessage("3", tool_call_id="c1", artifact={"deep": [1]}, status="error"),
    SystemMessage("be brief", additional_kwargs={"x": 1}, response_metadata={"y": None}),
    FunctionMessage("4", name="f"),
    RemoveMessage("1"),
]


class Colour(Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: int


class Model(BaseModel):
    name: str
    when: datetime


class Celsius(float):
    pass


class Stamp(date):
    pass


@dataclass
class Plain:
    a: int
    b: Any


def decoded(value: Any) -> Any:
    return json.loads(encode(value))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_has_exactly_the_fields_of_its_model_dump(message: BaseMessage) -> None:
    assert decoded({"messages": [message]}) == {"messages": [json.loads(json.dumps(message.model_dump()))]}


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (ValueError("boom"), "ValueError('boom')"),
        (b"\x00\xff", "AP8="),
        (bytearray(b"a"), "YQ=="),
        ((1, "2"), [1, "2"]),
        ({3}, [3]),
        (frozenset({"a"}), ["a"]),
        (deque([1, 2]), [1, 2]),
        (Point(1, 2), {"x": 1, "y": 2}),
        (Plain(1, {2}), {"a": 1, "b": [2]}),
        (Model(name="n", when=datetime(2026, 1, 2, tzinfo=UTC)), {"name": "n", "when": "2026-01-02T00:00:00+00:00"}),
        (SecretStr("hunter2"), "**********"),
        (datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "2026-01-02T03:04:05.000006+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (timedelta(minutes=1), 60.0),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Celsius(1.5), 1.5),
        (Stamp(2026, 1, 2), "2026-01-02"),
        (Decimal("1.10"), "1.10"),
        (PurePosixPath("a/b"), "a/b"),
        (Colour.RED, "red"),
        ({Colour.RED: Colour.RED}, {"red": "red"}),
        (OrderedDict(a=1), {"a": 1}),
        (math.nan, None),
        ([math.inf, -math.inf], [None, None]),
        (2**80, 2**80),
        ("a\x00b", "a\ufffdb"),
        ("literal \\u0000", "literal \\u0000"),
        ("\\\x00", "\\\ufffd"),
        ({"k\x00": 1}, {"k\ufffd": 1}),
        ("\ud800", "\ufffd"),
        ({1: "a", None: "b", False: "c", (1, 2): "d"}, {"1": "a", "null": "b", "false": "c", "(1, 2)": "d"}),
        ({1: {"m": HumanMessage("hi", id="1"), "s": {4}}}, {"1": {"m": decoded(HumanMessage("hi", id="1")), "s": [4]}}),
        (Interrupt(value={"q": 1}, id="i1"), {"value": {"q": 1}, "id": "i1", "response_schema": None}),
        (Send("node", {"a": 1}), {"node": "node", "arg": {"a": 1}}),
        (Command(goto="x"), {"graph": None, "update": None, "resume": None, "goto": "x"}),
    ],
)
def test_a_value_has_its_json_form(value: Any, form: Any) -> None:
    assert decoded(value) == form
    assert decoded({"nested": [value]}) == {"nested": [form]}


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (threading.Lock(), "_thread.lock"),
        (object(), "builtins.object"),
        (lambda: 1, "function"),
        (Model, "Model"),
        ({1: {"deep": [threading.Lock()]}}, "_thread.lock"),
    ],
)
def test_a_value_without_json_form_is_an_error_that_names_its_type(value: Any, named: str) -> None:
    with pytest.raises(Unserialisable, match=named):
        encode(value)
    assert encode_lenient({"kept": 1, "lost": value}).startswith(b'{"kept":1,"lost":')


def test_a_value_that_holds_itself_is_an_error() -> None:
    value: dict[str, Any] = {}
    value["self"] = value
    with pytest.raises(Unserialisable, match="itself"):
        encode(value)


def test_a_value_that_nests_too_deeply_is_an_error() -> None:
    value: list[Any] = []
    for _ in range(5000):
        value = [value]
    with pytest.raises(Unserialisable, match="nests"):
        encode(value)


def test_text_is_kept_as_utf8() -> None:
    assert encode("naïve – 東京 🎉") == '"naïve – 東京 🎉"'.encode()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (ip_address("192.0.2.7"), "192.0.2.7"),
        (ip_address("2001:db8::7"), "2001:db8::7"),
        (ip_interface("192.0.2.7/24"), "192.0.2.7/24"),
        (ip_network("192.0.2.0/24"), "192.0.2.0/24"),
        (ip_network("2001:db8::/32"), "2001:db8::/32"),
        (ZoneInfo("Europe/Berlin"), "Europe/Berlin"),
        (timezone(timedelta(hours=1)), "UTC+01:00"),
    ],
)
def test_what_langgraphs_serialiser_takes_is_shown_as_text(value: Any, text: str) -> None:
    serializer = JsonPlusSerializer()
    assert serializer.loads_typed(serializer.dumps_typed(value)) == value
    assert json.loads(encode({"value": value})) == {"value": text}


def test_an_item_of_the_store_is_its_fields() -> None:
    item = Item(
        value={"n": 1},
        key="k",
        namespace=("a",),
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
        updated_at=datetime(2026, 1, 2, tzinfo=UTC),
    )
    assert json.loads(encode(item))["value"] == {"n": 1}
