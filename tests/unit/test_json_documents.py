"""What agents produce as JSON documents: the text is that of the whole value, and no part has a secret."""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from typing import Any, NamedTuple

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from pydantic import BaseModel

from runlane.agents.documents import JsonDocuments
from runlane.agents.encode import Unserialisable, encode
from runlane.agents.protocol_events import slim
from runlane.documents.document import Document, Encoded, assemble, body_of, body_of_text, whole
from runlane.documents.memory import ThreadMemory
from runlane.documents.parts import bytes_of
from runlane.redaction import RunSecrets

SECRET = "a secret of a run, which is long"


class Inner(BaseModel):
    name: str
    more: list[Any] = []


class Outer(BaseModel):
    inner: Inner
    at: datetime = datetime(2026, 1, 1, tzinfo=UTC)


class Colour(Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Record:
    text: str
    _hidden: int = 1


class Storage:
    """Parts that are stored, and what reads documents from them."""

    def __init__(self) -> None:
        self.parts: dict[str, bytes] = {}

    def put(self, documents: JsonDocuments, encoded: Encoded) -> int:
        """Store a text; return how many bytes that takes."""
        if isinstance(encoded, bytes):
            return len(encoded)
        documents.accept(encoded)
        self.parts.update(encoded.parts)
        return encoded.size

    def read(self, encoded: Encoded) -> bytes:
        """Return what is stored of a text, from either form of its body."""
        if isinstance(encoded, bytes):
            return encoded
        bytes_at = partial(bytes_of, parts=self.parts)
        read = assemble(body_of_text(encoded.text), encoded.refs, bytes_at)
        assert read == assemble(body_of(encoded.body_bytes), encoded.refs, bytes_at)
        return read


def messages(number: int) -> list[BaseMessage]:
    return [(AIMessage if at % 2 else HumanMessage)(f"{at} " + "x" * 500, id=str(at)) for at in range(number)]


def odd(rng: random.Random) -> Any:
    """Return a value that JSON does not have, or has in another form."""
    return rng.choice(
        [
            ["a\0b" * 100, "\\\0", {"k\0": 1, "k\ufffd": 2}],
            {"\ud800": 1, "high": "\ud800" * 400},
            [2**70, -(2**64), 2**63],
            {1: "a", None: "b", 2.5: "c"},
            b"bytes" * 2000,
            Outer(inner=Inner(name="é" * 300, more=[1, Inner(name="x")])),
            [Colour.RED, Point(1, 2), Record("r" * 300), {1, 2}, float("nan"), (1, (2,))],
            AIMessage("c" * 300, additional_kwargs={"n": 2**70, "nul": "\0"}, id="1"),
            HumanMessage([{"type": "text", "text": "ü\0" * 300}, "b"], id="2", name="\ud800"),
        ]
    )


def values(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(7)
    if kind == 0 and depth < 4:
        return [values(rng, depth + 1) for _ in range(rng.choice([0, 3, 20, 60] if depth < 2 else [2]))]
    if kind == 1 and depth < 4:
        return {f"k{at}": values(rng, depth + 1) for at in range(rng.choice([0, 3, 20] if depth < 2 else [2]))}
    if kind == 2:
        return rng.choice(["s", "é", '"\\\n']) * rng.choice([0, 1, 50, 300, 5000, 20000])
    if kind == 3:
        return odd(rng)
    return rng.choice(messages(6)) if kind == 4 else rng.randrange(10**6)


@pytest.mark.parametrize("seed", range(40))
def test_the_text_is_that_of_the_whole_value(seed: int) -> None:
    rng, storage = random.Random(seed), Storage()
    documents = JsonDocuments(ThreadMemory())
    state = [values(rng) for _ in range(20)]
    for _ in range(5):
        at = rng.randrange(len(state))
        state = rng.choice([[*state, values(rng)], state[:at] + state[at + 1 :], [values(rng), *state], state])
        value = rng.choice([state, {"messages": state, "other": 1}, [{"inner": state}], (state, odd(rng))])
        encoded = documents.of(value)
        storage.put(documents, encoded)
        assert whole(encoded) == encode(value)
        assert storage.read(encoded) == encode(value)


@pytest.mark.parametrize("value", [object(), Storage, {"x": [object()]}])
def test_a_large_value_without_json_form_is_an_error(value: Any) -> None:
    for around in ([*messages(20), value], {"messages": messages(20), "other": value}, [value] * 100):
        with pytest.raises(Unserialisable):
            JsonDocuments().of(around)


def test_a_value_that_holds_itself_is_an_error() -> None:
    value: list[Any] = [*messages(20)]
    value.append(value)
    with pytest.raises(Unserialisable):
        JsonDocuments().of(value)


def test_each_state_of_a_conversation_takes_what_is_new() -> None:
    documents, storage, state = JsonDocuments(), Storage(), list[BaseMessage]()
    taken = []
    for message in messages(800):
        state = [*state, message]
        taken.append(storage.put(documents, documents.of({"messages": state})))
    assert sum(taken) < 3 * len(encode(state))
    assert sum(taken[700:]) < 1.5 * sum(taken[100:200])


def test_a_message_that_has_not_changed_is_not_encoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    documents, state, encoded = JsonDocuments(), messages(400), list[Any]()
    Storage().put(documents, documents.of({"messages": state}))
    plain = documents._codec.encode
    monkeypatch.setattr(documents._codec, "encode", lambda value: encoded.append(value) or plain(value))
    documents.of({"messages": [*state, HumanMessage("new", id="new")]})
    assert len([one for one in encoded if isinstance(one, BaseMessage)]) <= 3


def test_what_was_not_accepted_is_brought_again() -> None:
    documents, state = JsonDocuments(), messages(40)
    first, again = documents.of(state), documents.of(state)
    assert isinstance(first, Document)
    assert isinstance(again, Document)
    assert again.parts == first.parts
    documents.accept(again)
    known = documents.of(state)
    assert isinstance(known, Document)
    assert not known.parts


def test_another_shape_has_texts_of_its_own_and_the_same_memory() -> None:
    documents, storage, state = JsonDocuments(), Storage(), messages(100)
    other = documents.with_shape("json.slim", slim)
    for _ in range(2):
        for each, shape in ((documents, None), (other, slim)):
            encoded = each.of({"messages": state})
            storage.put(documents, encoded)
            assert storage.read(encoded) == encode({"messages": state}, shape)
    known = other.of({"messages": state})
    assert isinstance(known, Document)
    assert not known.parts


def test_a_document_can_be_framed() -> None:
    documents, storage = JsonDocuments(), Storage()
    for value in (messages(40), {"messages": messages(40)}, "x" * 30_000):
        encoded = documents.of(value)
        assert isinstance(encoded, Document)
        framed = encoded.framed(b'{"data":', b"}")
        storage.put(documents, framed)
        assert whole(framed) == b'{"data":' + encode(value) + b"}"
        assert storage.read(framed) == whole(framed)


@pytest.mark.parametrize("seed", range(20))
def test_no_part_has_a_secret_of_the_run(seed: int) -> None:
    rng, storage, documents = random.Random(seed), Storage(), JsonDocuments()
    secrets = RunSecrets([{"api_key": SECRET, "password": "short"}])
    state: list[Any] = messages(30)
    for _ in range(6):
        at = rng.randrange(len(state))
        state = [*state[:at], values(rng), HumanMessage(f"{rng.random()}" + "y" * rng.randrange(9000)), *state[at:]]
        if rng.random() < 0.5:
            said: list[Any] = [SECRET, f"é {SECRET} é" * 400, {"password": "short", "x": "é" * 5000}, AIMessage(SECRET)]
            state = [*state[:at], rng.choice(said), *state[at:]]
        encoded = documents.without(documents.of({"messages": state}), secrets.out_of)
        storage.put(documents, encoded)
        assert storage.read(encoded) == whole(encoded) == secrets.out_of(encode({"messages": state}))
    everything = b"\n".join(storage.parts.values())
    assert SECRET.encode() not in everything
    assert b'"password":"short"' not in everything


def test_a_file_is_one_part_in_all_states() -> None:
    documents, storage = JsonDocuments(), Storage()
    file = base64.b64encode(random.Random(1).randbytes(100_000)).decode()
    url = f"data:image/png;base64,{file}"
    state: list[BaseMessage] = [HumanMessage([{"type": "image_url", "image_url": {"url": url}}], id="1")]
    assert storage.put(documents, documents.of({"messages": state})) > len(file)
    for message in messages(20):
        state = [*state, message]
        assert storage.put(documents, documents.of({"messages": state})) < 4000
