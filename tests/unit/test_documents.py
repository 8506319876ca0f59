"""Documents: the bytes of a value, whatever it is, come back, and versions of it share what they have in common."""

from __future__ import annotations

import base64
import random
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from runlane.checkpoints.serializer import LedgerSerializer
from runlane.checkpoints.values import MessagePack, Values
from runlane.documents.document import Document, assemble, body_of, body_of_text
from runlane.documents.memory import MEMORY_BYTES, ThreadMemories, ThreadMemory
from runlane.documents.parts import Folding, bytes_of, expand, fold, is_item, ref_of, split_refs
from runlane.documents.splitting import document_of

CODEC = MessagePack(LedgerSerializer())


class Storage:
    """Parts that are stored, and what reads documents from them."""

    def __init__(self) -> None:
        self.parts: dict[str, bytes] = {}

    def put(self, document: bytes | Document, memory: ThreadMemory) -> int:
        """Store a document, and have the memory that it was made with know; return how many bytes that takes."""
        if isinstance(document, bytes):
            return len(document)
        self.parts.update(document.parts)
        memory.accept(CODEC.name, document.refs, document.parts)
        return document.size

    def read(self, document: bytes | Document) -> bytes:
        if isinstance(document, bytes):
            return document
        return assemble(body_of(document.body_bytes), document.refs, lambda ref: bytes_of(ref, self.parts))


def messages(number: int) -> list[BaseMessage]:
    return [(AIMessage if at % 2 else HumanMessage)(f"{at} " + "x" * 500, id=str(at)) for at in range(number)]


def values(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(6)
    if kind == 0 and depth < 4:
        return [values(rng, depth + 1) for _ in range(rng.choice([0, 3, 20, 60] if depth < 2 else [2]))]
    if kind == 1 and depth < 4:
        return {f"k{at}": values(rng, depth + 1) for at in range(rng.choice([0, 3, 20] if depth < 2 else [2]))}
    if kind == 2:
        return "s" * rng.choice([0, 1, 50, 300, 5000, 20000])
    if kind == 3:
        return rng.choice([None, True, 1.5, 2**40, b"b" * 18000, (1, [2]), {1, 2}, {1: "key"}])
    return rng.choice(messages(6)) if kind == 4 else rng.randrange(10**6)


@pytest.mark.parametrize("seed", range(60))
def test_the_bytes_of_any_value_come_back(seed: int) -> None:
    rng, memory, storage = random.Random(seed), ThreadMemory(), Storage()
    state = [values(rng) for _ in range(20)]
    for _ in range(5):
        at = rng.randrange(len(state))
        state = rng.choice([[*state, values(rng)], state[:at] + state[at + 1 :], [values(rng), *state], state])
        value = rng.choice([state, {"messages": state, "other": 1}, [{"inner": state}]])
        document = document_of(value, CODEC, memory)
        storage.put(document, memory)
        assert storage.read(document) == CODEC.encode(value)


def test_each_turn_of_a_conversation_takes_what_is_new() -> None:
    memory, storage, state = ThreadMemory(), Storage(), list[BaseMessage]()
    taken = []
    for message in messages(800):
        state = [*state, message]
        taken.append(storage.put(document_of(state, CODEC, memory), memory))
    assert storage.read(document_of(state, CODEC, memory)) == CODEC.encode(state)
    assert sum(taken) < 2 * len(CODEC.encode(state))
    assert sum(taken[700:]) < 1.5 * sum(taken[100:200])


def test_a_file_is_one_part_wherever_it_stands() -> None:
    file = base64.b64encode(random.Random(1).randbytes(100_000)).decode()
    url = f"data:image/png;base64,{file}"
    content: list[Any] = [{"type": "image_url", "image_url": {"url": url}}]
    memory, storage = ThreadMemory(), Storage()
    first = storage.put(document_of([HumanMessage(content, id="1")], CODEC, memory), memory)
    again = [{"messages": [{"role": "user", "content": content}]}, [*messages(3), HumanMessage(content, id="2")], file]
    assert first > len(file)
    for value in again:
        # Who knows of nothing brings it again.
        assert storage.put(document_of(value, CODEC, ThreadMemory()), ThreadMemory()) > len(file)
        document = document_of(value, CODEC, memory)
        assert storage.put(document, memory) < 4000
        assert storage.read(document) == CODEC.encode(value)


def test_a_message_that_is_changed_in_place_is_stored_as_it_is() -> None:
    memory, storage = ThreadMemory(), Storage()
    state = [AIMessage("x" * 500, id=str(at), response_metadata={"tokens": 1}) for at in range(20)]
    storage.put(document_of(state, CODEC, memory), memory)
    changes = [("content", "y" * 500), ("response_metadata", {"tokens": True}), ("additional_kwargs", {"a": [1]})]
    for field, value in changes:
        setattr(state[7], field, value)
        document = document_of(state, CODEC, memory)
        storage.put(document, memory)
        assert storage.read(document) == CODEC.encode(state)
    state[3].response_metadata["tokens"] = 1.0
    document = document_of(state, CODEC, memory)
    storage.put(document, memory)
    assert storage.read(document) == CODEC.encode(state)


def test_an_entry_that_is_remembered_is_read_with_its_key() -> None:
    memory = ThreadMemory()
    values = Values(LedgerSerializer(), memory)
    value = {"notes": {f"note {at}": f"{at}" + "x" * 3000 for at in range(8)}}
    (kind, body, refs), parts, _ = values.dump(value)
    memory.accept(CODEC.name, split_refs(refs or ""), parts)
    reading = values.reading()
    assert not [ref for ref in parts if ref in reading.known and not is_item(ref)]
    assert reading.load({"type": kind, "value": body, "refs": refs}, "value", parts) == value


def test_lists_with_the_same_items_have_the_same_references_in_any_history() -> None:
    refs = [ref_of(".", b"%d" % at) for at in range(5000)]
    folded, nodes = fold(refs)
    assert list(expand(folded, nodes)) == refs
    assert len(folded) < 64
    longer, more = fold([*refs, ref_of(".", b"new")])
    assert len(more.keys() - nodes.keys()) <= 4
    assert list(expand(longer, more)) == [*refs, ref_of(".", b"new")]


def test_a_body_is_read_from_json_too() -> None:
    document = Document(body=(b'{"a":[', 2, b"]}"), refs=(".1" * 10 + "x",) * 2, parts={})
    assert tuple(body_of_text(document.text)) == document.body


def remembered(memories: ThreadMemories, state: list[BaseMessage], epoch: str) -> tuple[Document, ThreadMemory]:
    memory = memories.take("thread", epoch)
    document = document_of(state, CODEC, memory)
    assert isinstance(document, Document)
    memory.accept(CODEC.name, document.refs, document.parts)
    return document, memory


def test_a_memory_relies_on_nothing_once_parts_were_removed() -> None:
    memories, state = ThreadMemories(), messages(50)
    whole, memory = remembered(memories, state, "1")
    memories.give_back("thread", memory)
    same, memory = remembered(memories, state, "1")
    assert not same.parts
    memories.give_back("thread", memory)
    after, _ = remembered(memories, state, "2")
    assert after.parts == whole.parts


def test_a_document_that_was_not_accepted_does_not_count_as_stored() -> None:
    state, memory = messages(50), ThreadMemory()
    first, second = document_of(state, CODEC, memory), document_of(state, CODEC, memory)
    assert isinstance(first, Document)
    assert isinstance(second, Document)
    assert second.parts == first.parts


def test_code_that_outlives_its_attempt_does_not_change_the_memory_that_was_given_back() -> None:
    memories, state = ThreadMemories(), messages(50)
    _, memory = remembered(memories, state, "1")
    memories.give_back("thread", memory)
    late = document_of([*state, *messages(60)[50:]], CODEC, memory)
    assert isinstance(late, Document)
    memory.accept(CODEC.name, late.refs, late.parts)
    again, _ = remembered(memories, [*state, *messages(60)[50:]], "1")
    assert again.parts == late.parts


def test_a_memory_at_rest_forgets_the_versions_that_are_past() -> None:
    memories, state = ThreadMemories(), messages(51)
    sizes = []
    for message in messages(3000)[51:]:
        state = [*state[-50:], message]
        _, memory = remembered(memories, state, "1")
        memories.give_back("thread", memory)
        sizes.append(memories.bytes)
    assert max(sizes[1500:]) < 1.1 * max(sizes[:1500])


def test_memories_at_rest_are_bounded() -> None:
    memories = ThreadMemories(max_bytes=200_000)
    for number in range(10):
        memory = memories.take(f"thread {number}", "1")
        document_of(messages(50), CODEC, memory)
        memories.give_back(f"thread {number}", memory)
    assert 0 < memories.bytes <= 200_000
    assert memories.take("thread 9", "1").bytes
    assert not memories.take("thread 0", "1").bytes


def test_a_large_message_that_is_remembered_counts_with_its_size() -> None:
    memories, memory = ThreadMemories(max_bytes=200_000), ThreadMemory()
    document_of([HumanMessage("x" * 300_000, id="1")], CODEC, memory)
    memories.give_back("thread", memory)
    assert not memories.bytes


def test_a_memory_in_use_forgets_what_a_long_run_has_left_behind() -> None:
    memory = ThreadMemory()
    for number in range(200):
        document_of([HumanMessage(f"{number}" + "x" * 1_000_000, id=str(number))], CODEC, memory)
    assert memory.bytes <= 2 * MEMORY_BYTES


@pytest.mark.parametrize("seed", range(20))
def test_versions_of_a_list_fold_as_each_would_by_itself(seed: int) -> None:
    rng = random.Random(seed)
    folding, refs, stored = Folding(), list[str](), dict[str, bytes]()
    for _ in range(60):
        known = frozenset(stored) if rng.random() < 0.8 else frozenset(rng.sample(sorted(stored), len(stored) // 2))
        alone, nodes = fold(refs)
        folded, new = folding.fold(refs, known)
        assert folded == alone
        assert nodes.keys() <= known | new.keys()
        assert list(expand(folded, {**stored, **new})) == refs
        stored.update(nodes)
        if rng.random() < 0.2 and refs:
            del refs[rng.randrange(len(refs)) :]
        refs += [ref_of(".", rng.randbytes(8)) for _ in range(rng.randrange(30))]
