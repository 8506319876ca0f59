"""What a thread's runs say and leave reads as if it were stored whole, through all that removes some of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from langchain_core.messages import AIMessage, BaseMessage

from ledger_kit import LONG_AGO, admit, claim, finish, running, turn
from runlane.agents.documents import JsonDocuments
from runlane.agents.encode import encode
from runlane.documents.document import Document, Encoded, whole
from runlane.documents.memory import ThreadMemory
from runlane.errors import DocumentIncomplete, NotFound, RequestUnreadable
from runlane.journal.remainder import append
from runlane.lifecycle import CancelAction, EndReason, RunEvent
from runlane.outcomes import Snapshot
from runlane.records import ANY_OWNER, NO_OWNER, Lease, StreamEvent
from runlane.store.drivers.memory import MemoryDriver
from runlane.store.ledger import RunStore
from runlane.store.migrate import apply_scripts
from runlane.store.statements import Rows, Transaction, statement
from runlane.store.transactions import events, parts, run_queries, threads
from runlane.store.transactions.parts import due_threads, referenced, sweep
from runlane.store.transactions.thread_search import ThreadFilter
from simulation.seams import Fragment, Patch, applied, finding, function, transaction

#: Histories in which a planted bug must be found.
ENOUGH = 12
PARTS = statement("test.parts", "SELECT thread_id, ref FROM parts")
DROP = statement("test.drop", "DELETE FROM parts WHERE thread_id = :thread_id")
ROW = statement("test.row", "SELECT * FROM threads WHERE thread_id = :thread_id")
SEGMENTS = statement("test.segments", "SELECT frames, refs FROM events")
PARTS_DATA = statement("test.parts_data", "SELECT data FROM parts")
RUNS = statement("test.runs", "SELECT * FROM runs")
NEWER = statement("test.newer", """UPDATE runs SET kwargs = '{"runlane_request":99}' WHERE run_id = :run_id""")
RESULTS = statement("test.results", "SELECT result, result_refs FROM runs")
LARGE = {"messages": [AIMessage(f"{at} " + "x" * 500, id=str(at)) for at in range(40)]}


def asking(query: Any) -> Transaction[Rows]:
    return (yield query)


async def rows_of(store: RunStore, query: Any) -> Rows:
    return await store.driver.read(asking(query))


async def parts_of(store: RunStore) -> set[tuple[str, str]]:
    return {(row["thread_id"], row["ref"]) for row in await rows_of(store, PARTS())}


async def exact(store: RunStore, thread_id: str) -> bool:
    """Return whether the parts of a thread are those that something refers to."""
    live = await store.driver.read(referenced(thread_id))
    return live == {ref for of, ref in await parts_of(store) if of == thread_id}


async def say(store: RunStore, lease: Lease, seq: int, *said: Encoded) -> None:
    """Append events."""
    events = [StreamEvent(seq=at, name="values", data=whole(one)) for at, one in enumerate(said, seq)]
    documents = {at: one for at, one in enumerate(said, seq) if isinstance(one, Document)}
    await store.driver.write(append(lease, events, None, documents))


def cut(documents: JsonDocuments, value: Any) -> Encoded:
    """Return *value* as it is sent on its way."""
    encoded = documents.of(value)
    if isinstance(encoded, Document):
        documents.accept(encoded)
    return encoded


async def show(store: RunStore, lease: Lease) -> list[bytes]:
    return [event.data for event in await store.events.read(lease.seq, after=0, max_bytes=2**30)]


async def test_the_events_results_and_values_of_a_large_state_are_stored_once(store: RunStore) -> None:
    documents, lease = JsonDocuments(), await running(store)
    encoded = cut(documents, LARGE)
    await say(store, lease, 1, encoded, documents.of({**LARGE, "more": 1}), b"{}")
    ended = await finish(store, lease, state=Snapshot(values=encoded, result=encoded), events_end=3)
    text = encode(LARGE)
    assert await show(store, lease) == [text, encode({**LARGE, "more": 1}), b"{}"]
    assert (await store.runs.result(lease.run_id, owner=ANY_OWNER))[1] == ended.result == text
    assert (await store.threads.get("t", owner=ANY_OWNER)).values == orjson.loads(text)
    kept = [
        *await rows_of(store, SEGMENTS()),
        *await rows_of(store, RESULTS()),
        *await rows_of(store, ROW(thread_id="t")),
    ]
    for row in kept:
        assert sum(len(column) for column in row.values() if isinstance(column, str | bytes)) < 5_000
    assert await exact(store, "t")


async def test_a_reader_gets_the_events_after_its_cursor(store: RunStore) -> None:
    documents, lease = JsonDocuments(), await running(store)
    states = [{"messages": [*LARGE["messages"], AIMessage(str(at) * 400)]} for at in range(8)]
    for at in (0, 4):
        said = [documents.of(state) for state in states[at : at + 4]]
        await say(store, lease, 1 + at, *said)
    for after in range(8):
        found = await store.events.read(lease.seq, after=after, max_bytes=2**30)
        assert [(event.seq, event.data) for event in found] == [
            (at + 1, encode(state)) for at, state in enumerate(states) if at >= after
        ]
    assert len(await store.events.read(lease.seq, after=0, max_bytes=1)) == 4


async def test_a_batch_that_is_appended_again_is_there_once(store: RunStore) -> None:
    documents, lease = JsonDocuments(), await running(store)
    encoded = documents.of(LARGE)
    for _ in range(2):
        await say(store, lease, 1, encoded)
    assert await show(store, lease) == [encode(LARGE)]
    assert await exact(store, "t")


async def test_what_relies_on_a_dropped_batch_is_stored_whole(store: RunStore) -> None:
    documents, lease = JsonDocuments(), await running(store)
    cut(documents, LARGE)  # it was on its way, and was refused
    longer = {**LARGE, "more": "m" * 5000}
    await say(store, lease, 1, documents.of(longer))
    encoded = documents.of(LARGE)
    await finish(store, lease, state=Snapshot(values=encoded, result=documents.of(longer)), events_end=1)
    assert await show(store, lease) == [encode(longer)]
    assert (await store.runs.result(lease.run_id, owner=ANY_OWNER))[1] == encode(longer)
    assert (await store.threads.get("t", owner=ANY_OWNER)).values == orjson.loads(encode(LARGE))
    await store.driver.write(sweep("t"))
    assert await parts_of(store) == set()


async def test_a_document_without_its_parts_is_an_error_and_no_half_of_it(store: RunStore) -> None:
    lease, encoded = await running(store), JsonDocuments().of(LARGE)
    await say(store, lease, 1, encoded)
    await finish(store, lease, state=Snapshot(values=encoded, result=encoded), events_end=1)
    await store.driver.write(dropping("t"))
    for read in (
        lambda: show(store, lease),
        lambda: store.runs.result(lease.run_id, owner=ANY_OWNER),
        lambda: store.threads.get("t", owner=ANY_OWNER),
    ):
        with pytest.raises(DocumentIncomplete):
            await read()
    assert (await store.threads.get("t", owner=ANY_OWNER, with_values=False)).values is None


def dropping(thread_id: str) -> Transaction[None]:
    yield DROP(thread_id=thread_id)


async def test_first_values_are_a_document_until_the_run_ends(store: RunStore) -> None:
    lease = await running(store)
    assert await store.threads.show_first_values(lease, JsonDocuments().of(LARGE))
    shown = await store.threads.get("t", owner=ANY_OWNER)
    assert shown.values == orjson.loads(encode(LARGE))
    assert (await rows_of(store, ROW(thread_id="t")))[0]["state_refs"] is not None
    await finish(store, lease, state=Snapshot(values=b'{"a":1}', result=b'{"a":1}'))
    row = (await rows_of(store, ROW(thread_id="t")))[0]
    assert (row["state_values"], row["state_refs"], row["first_values"]) == ('{"a":1}', None, None)
    await store.driver.write(sweep("t"))
    assert await parts_of(store) == set()


@pytest.mark.parametrize("event", [RunEvent.FAIL, RunEvent.STOP])
async def test_first_values_of_a_run_that_leaves_nothing_are_gone(store: RunStore, event: RunEvent) -> None:
    lease = await running(store)
    await store.threads.show_first_values(lease, JsonDocuments().of(LARGE))
    reason = EndReason.ROLLED_BACK if event is RunEvent.STOP else EndReason.FAILED
    await finish(store, lease, event, end_reason=reason)
    row = (await rows_of(store, ROW(thread_id="t")))[0]
    assert (row["state_values"], row["state_refs"], row["first_values"]) == (None, None, None)
    await store.driver.write(sweep("t"))
    assert await parts_of(store) == set()


async def test_a_run_that_leaves_no_state_keeps_the_document_of_the_one_before(store: RunStore) -> None:
    lease, encoded = await running(store), JsonDocuments().of(LARGE)
    await finish(store, lease, state=Snapshot(values=encoded, result=encoded))
    for event, changes in (
        (RunEvent.FAIL, {}),
        (RunEvent.STOP, {"end_reason": EndReason.ROLLED_BACK}),
        (RunEvent.SUCCEED, {"state": Snapshot()}),
    ):
        await finish(store, await running(store), event, **changes)
        assert (await store.threads.get("t", owner=ANY_OWNER)).values == orjson.loads(encode(LARGE))


async def test_values_are_searched_exactly_whatever_their_size(store: RunStore) -> None:
    for at in range(12):
        state = {"n": at % 3, "pad": "p" * (9000 if at % 2 else 10)}
        encoded = JsonDocuments().of(state)
        assert isinstance(encoded, Document) == bool(at % 2)
        await finish(store, await running(store, f"t{at:02}"), state=Snapshot(values=encoded, result=encoded))
    bare = await running(store, "bare")
    await store.threads.show_first_values(bare, JsonDocuments().of({"n": 1, "pad": "p" * 9000}))
    where = ThreadFilter(values={"n": 1})
    wanted = [f"t{at:02}" for at in range(12) if at % 3 == 1]
    found = await store.threads.search(owner=NO_OWNER, where=where, sort_by="thread_id", order="asc", limit=100)
    assert [thread.thread_id for thread in found] == wanted
    assert all(thread.values["n"] == 1 for thread in found)
    for offset in range(5):
        page = await store.threads.page(
            owner=NO_OWNER, where=where, sort_by="thread_id", order="asc", limit=2, offset=offset, count_at_most=100
        )
        assert [thread.thread_id for thread in page.threads] == wanted[offset : offset + 2]
        assert page.total == 4
    assert await store.threads.count(owner=NO_OWNER, where=where) == 4
    assert await store.threads.count(owner=NO_OWNER, where=where, at_most=2) == 2
    every = await store.threads.all(owner=NO_OWNER, where=where, limit=3)
    assert [thread.thread_id for thread in every] == wanted[:3]
    rest = await store.threads.all(owner=NO_OWNER, where=where, after=every[-1].thread_id, limit=3)
    assert [thread.thread_id for thread in rest] == wanted[3:]


async def test_a_search_without_values_reads_none(store: RunStore) -> None:
    encoded = JsonDocuments().of(LARGE)
    await finish(store, await running(store), state=Snapshot(values=encoded, result=encoded))
    await store.driver.write(dropping("t"))
    [found] = await store.threads.search(owner=NO_OWNER, where=ThreadFilter(), with_values=False)
    assert (found.thread_id, found.values) == ("t", None)
    with pytest.raises(DocumentIncomplete):
        await store.threads.search(owner=NO_OWNER, where=ThreadFilter())


async def test_a_large_input_is_stored_once_and_read_whole(store: RunStore) -> None:
    sent = orjson.loads(encode(LARGE))
    for _ in range(3):
        lease = await running(store, kwargs={"input": sent, "config": {"tags": ["a"]}})
        assert (await store.runs.get(lease.run_id, owner=ANY_OWNER)).stored.input == sent
        encoded = JsonDocuments().of(LARGE)
        ended = await finish(store, lease, state=Snapshot(values=encoded, result=encoded))
        assert ended.run.kwargs == {"input": sent, "config": {"tags": ["a"]}}
    for row in await rows_of(store, RUNS()):
        assert sum(len(column) for column in row.values() if isinstance(column, str)) < 5_000
    assert sum(len(row["data"]) for row in await rows_of(store, PARTS_DATA())) < 1.2 * len(encode(LARGE))
    assert await exact(store, "t")


async def test_a_claim_of_a_new_process_has_the_large_input(store: RunStore) -> None:
    sent = {"text": "\x00 é " + "t" * 20_000, "file": "A" * 40_000, "odd\nkey": [1.5, None, 2**60]}
    run_id = await admit(store, kwargs={"input": sent})
    claimed = await claim(store, run_id)
    assert claimed.run.kwargs == {"input": sent}
    await store.runs.request_cancel(
        run_id, owner=ANY_OWNER, action=CancelAction.INTERRUPT, reason=EndReason.USER_CANCEL
    )
    await finish(store, claimed.lease, RunEvent.STOP)
    assert (await store.runs.delete(run_id, owner=ANY_OWNER)).kwargs == {"input": sent}
    await store.driver.write(sweep("t"))
    assert await parts_of(store) == set()


async def test_a_large_input_whose_request_a_newer_version_stored_is_read_without_it(store: RunStore) -> None:
    lease = await running(store, kwargs={"input": "i" * 9000}, webhook="https://example.com/hook")
    await turn(store, NEWER, lease.run_id)
    [run] = await store.runs.list("t", owner=ANY_OWNER)
    with pytest.raises(RequestUnreadable):
        _ = run.stored.input
    assert (await finish(store, lease)).run.run_id == lease.run_id


async def test_secrets_of_a_run_with_a_large_input_end_with_it(store: RunStore) -> None:
    config = {"configurable": {"api_key": "sesame"}}
    lease = await running(store, kwargs={"input": orjson.loads(encode(LARGE)), "config": config})
    ended = await finish(store, lease)
    assert ended.run.stored.input == orjson.loads(encode(LARGE))
    assert "sesame" not in ended.run.stored.text
    assert all("sesame" not in str(dict(row)) for row in await rows_of(store, RUNS()))


@dataclass
class Said:
    """What a run said and left, as a plain model has it; ``None`` is gone."""

    lease: Lease
    events: list[bytes] | None = field(default_factory=list)
    result: bytes | None = None


@dataclass
class Model:
    """A thread whose history is random, and what it has to read as."""

    store: RunStore
    rng: random.Random
    thread_id: str = "t"
    state: dict[str, Any] = field(default_factory=dict)
    values: bytes | None = None
    runs: dict[str, Said] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    documents: JsonDocuments = field(default_factory=JsonDocuments)

    async def step(self) -> None:
        doing = [self.run, self.run, self.run, self.update, self.delete_run, self.purge, self.sweep, self.copy]
        await self.rng.choice(doing)()

    def change(self) -> None:
        """Change the state, as a graph does."""
        rng, messages = self.rng, list[BaseMessage](self.state.get("messages", []))
        kind = rng.randrange(8)
        if kind == 0 and messages:
            messages[rng.randrange(len(messages))] = AIMessage("other " + "o" * rng.randrange(900))
        elif kind == 1 and messages:
            del messages[rng.randrange(len(messages))]
        elif kind == 2 and messages:
            rng.choice(messages).content = f"in place {rng.random()}" + "i" * 300
        elif kind == 3:
            self.state = {**self.state, rng.choice("abc"): "v" * rng.choice([1, 900, 30_000])}
        else:
            messages += [AIMessage(f"{rng.random()} " + "m" * rng.randrange(700)) for _ in range(rng.randrange(12))]
        self.state = {**self.state, "messages": messages}

    async def run(self) -> None:
        """Run once: some events, a batch that is refused, a new attempt in another process, an ending."""
        rng, store = self.rng, self.store
        if rng.random() < 0.3:
            self.documents = JsonDocuments(ThreadMemory())
        given = self.given()
        lease = await running(store, self.thread_id, kwargs={"input": given})
        self.inputs[lease.run_id] = given
        said = Said(lease)
        refused = False
        for _ in range(rng.randrange(5)):
            self.change()
            encoded = cut(self.documents, self.state)
            if rng.random() < 0.15:
                refused = True  # nobody writes it: the journal is dropped
                break
            assert said.events is not None
            seq = len(said.events) + 1
            await say(store, lease, seq, encoded, b'"x"')
            if rng.random() < 0.2:
                await say(store, lease, seq, encoded, b'"x"')  # the answer was lost
            said.events += [whole(encoded), b'"x"']
        values = self.documents.of(self.state)
        result = values if rng.random() < 0.7 else self.documents.of({**self.state, "__interrupt__": [1]})
        assert said.events is not None
        end = len(said.events)
        ending = rng.random()
        if ending < 0.6:
            await finish(store, lease, state=Snapshot(values=values, result=result), events_end=end)
            self.values, said.result = whole(values), whole(result)
        elif ending < 0.8:
            await finish(store, lease, RunEvent.FAIL, events_end=end)
        else:
            await finish(store, lease, RunEvent.STOP, end_reason=EndReason.ROLLED_BACK, events_end=end)
        if refused or ending >= 0.6:
            self.documents = JsonDocuments(ThreadMemory())
        self.runs[lease.run_id] = said

    def given(self) -> Any:
        """Return the input of a run: some of the messages, as a client sends them, and something of its own."""
        messages = orjson.loads(encode(self.state.get("messages", [])))
        return {"messages": messages[: self.rng.randrange(40)], "own": "g" * self.rng.choice([1, 900, 30_000])}

    async def update(self) -> None:
        if self.runs:
            self.change()
            encoded = JsonDocuments().of(self.state)
            await self.store.threads.set_state(
                self.thread_id, owner=ANY_OWNER, state=Snapshot(values=encoded), metadata={}
            )
            self.values = whole(encoded)

    async def delete_run(self) -> None:
        if self.runs:
            run_id = self.rng.choice(list(self.runs))
            await self.store.runs.delete(run_id, owner=ANY_OWNER)
            del self.runs[run_id]

    async def purge(self) -> None:
        for run_id, said in self.runs.items():
            if self.rng.random() < 0.5:
                await turn(self.store, LONG_AGO, run_id)
                said.events = None
        await self.store.events.purge(older_than_s=60)

    async def sweep(self) -> None:
        if await self.store.driver.write(sweep(self.thread_id)):
            self.documents = JsonDocuments(ThreadMemory())  # the epoch tells of it
        assert await exact(self.store, self.thread_id)

    async def copy(self) -> None:
        if not self.runs:
            return
        copied = await self.store.threads.copy(self.thread_id, "copy", reads=ANY_OWNER, owner=NO_OWNER, metadata={})
        assert copied.values == (None if self.values is None else orjson.loads(self.values))
        await self.store.driver.write(sweep("copy"))
        assert await exact(self.store, "copy")
        await self.store.threads.delete("copy", owner=ANY_OWNER)

    async def check(self) -> None:
        """Check that everything reads as it was written."""
        found = {run.run_id: run.kwargs for run in await self.store.runs.list(None, owner=ANY_OWNER, limit=100)}
        assert found == {run_id: {"input": self.inputs[run_id]} for run_id in self.runs}
        for run_id, said in self.runs.items():
            assert await show(self.store, said.lease) == (said.events or [])
            assert (await self.store.runs.result(run_id, owner=ANY_OWNER))[1] == said.result
        if self.runs:
            thread = await self.store.threads.get(self.thread_id, owner=ANY_OWNER)
            assert thread.values == (None if self.values is None else orjson.loads(self.values))
        if self.thread_id not in await self.store.driver.read(due_threads("", 10)):
            assert await exact(self.store, self.thread_id), "what nothing refers to any more is to be swept"


async def live(store: RunStore, seed: int) -> None:
    model = Model(store, random.Random(seed))
    for _ in range(25):
        await model.step()
        await model.check()
    await model.sweep()
    await model.check()
    if await rows_of(store, ROW(thread_id="t")):
        await store.threads.delete("t", owner=ANY_OWNER)
    assert await parts_of(store) == set()


@pytest.mark.parametrize("seed", range(12))
async def test_everything_that_a_thread_keeps_reads_as_it_was_written(store: RunStore, seed: int) -> None:
    await live(store, seed)


def unseen(source: str) -> tuple[Fragment]:
    """Have a sweep see none of the references that a thread has in *source*."""
    return (Fragment(statement=parts.ROOTS, text=source, other=f"{source} AND 1 = 0"),)


def unmarked(remove: Any) -> tuple[Patch]:
    """Have *remove* take documents away without a mark that their thread is to be swept."""
    return (transaction(remove, lambda *_, **__: finding(parts.MARK_DUE, [])),)


MUTANTS: dict[str, tuple[Patch | Fragment, ...]] = {
    "a part of an event is removed": unseen("e.refs IS NOT NULL"),
    "a part of a result is removed": unseen("result_refs IS NOT NULL"),
    "a part of an input is removed": unseen("input_refs IS NOT NULL"),
    "a part of a thread's values is removed": unseen("state_refs IS NOT NULL"),
    "purged events leave their parts": unmarked(events.purge_events),
    "a deleted run leaves its parts": unmarked(run_queries.delete_run),
    "values that are set leave those before": unmarked(threads.set_thread_state),
    "a copy has no parts": (function(parts.copy_parts, lambda _: lambda source, target: iter(())),),
}


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_planted_bug_is_found(name: str) -> None:
    with applied(MUTANTS[name]):
        for seed in range(ENOUGH):
            memory = MemoryDriver()
            apply_scripts(memory)
            try:
                await live(RunStore(memory), seed)
            except (AssertionError, DocumentIncomplete):
                return
            finally:
                await memory.aclose()
    pytest.fail(f"nothing was found in {ENOUGH} histories")


async def test_a_deleted_thread_leaves_no_part(store: RunStore) -> None:
    encoded = JsonDocuments().of(LARGE)
    lease = await running(store)
    await say(store, lease, 1, encoded)
    await finish(store, lease, state=Snapshot(values=encoded, result=encoded), events_end=1)
    assert await parts_of(store)
    await store.threads.delete("t", owner=ANY_OWNER)
    assert await parts_of(store) == set()
    with pytest.raises(NotFound):
        await store.threads.get("t", owner=ANY_OWNER)
