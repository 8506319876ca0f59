"""One stream of many runs, and pages of what a run has streamed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from auth_kit import bearer, guarded_server, keyed_server, revoke
from runlane.server.auth.keys import new_key
from server_kit import (
    LONG_S,
    NOWHERE,
    PATIENCE_S,
    Frame,
    Server,
    begun,
    ended,
    read_frames,
    running_server,
)

STEPS = {"assistant_id": "steps", "input": {"steps": 3, "delay_s": 0}, "stream_mode": ["values", "updates"]}
Item = dict[str, Any]


class Watcher:
    """A client of one stream of many runs."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()
        self.cursor = ""
        self.items: list[Item] = []

    async def frame(self) -> list[Item]:
        """Return the items of the next frame; raises StopAsyncIteration at the end."""
        fields: dict[str, str] = {}
        while True:
            line = await anext(self._lines)
            if not line and fields:
                assert fields["event"] == "items"
                self.cursor = fields["id"]
                found: list[Item] = json.loads(fields["data"])
                self.items += found
                return found
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value

    async def until(self, event: str, times: int = 1) -> list[Item]:
        """Read until so many items of this kind have come; return all."""
        while sum(item["event"] == event for item in self.items) < times:
            await self.frame()
        return self.items

    async def status_of(self, run: Any, status: str) -> list[Item]:
        """Read until it is told that *run* has this status; return all items."""
        told: list[Item] = []
        while not any(item["run_id"] == run["run_id"] and item["data"]["status"] == status for item in told):
            told = [item for item in await self.frame() if item["event"] == "changed"]
        return self.items

    async def rest(self) -> list[Item]:
        """Read to the end; return all items."""
        try:
            while True:
                await self.frame()
        except StopAsyncIteration:
            return self.items


@asynccontextmanager
async def watching(
    http: httpx.AsyncClient, *runs: Any, cursor: str | None = None, changes: bool = False, **sent: Any
) -> AsyncIterator[Watcher]:
    """Open a stream of *runs*: runs from their beginning, or what is asked of each."""
    asked = [run if "after" in run or set(run) <= {"run_id", "thread_id"} else from_start(run) for run in runs]
    body = {"runs": asked, "changes": changes, **({} if cursor is None else {"cursor": cursor})}
    async with http.stream("POST", "/watch", json=body, **sent) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        yield Watcher(response)


def from_start(run: Any) -> Item:
    return {"run_id": run["run_id"], "after": "-"}


def of_run(items: list[Item], run: Any) -> list[tuple[str, str]]:
    return [(item["id"], item["event"]) for item in items if item["run_id"] == run["run_id"]]


async def own_stream(http: httpx.AsyncClient, run: Any) -> list[Frame]:
    return await read_frames(http, "GET", f"/runs/{run['run_id']}/stream", headers={"Last-Event-ID": "-"})


async def finished(client: LangGraphClient, count: int, **asked: Any) -> list[Any]:
    """Return *count* runs that have ended, each of a thread of its own."""
    runs = []
    for _ in range(count):
        thread_id = (await client.threads.create())["thread_id"]
        runs.append(await client.runs.create(thread_id, **{**STEPS, **asked}))
    for run in runs:
        await ended(client, run)
    return runs


async def test_every_run_has_the_items_of_its_own_stream_and_the_stream_closes_after_the_last_end(
    client: LangGraphClient, http: httpx.AsyncClient
) -> None:
    runs = await finished(client, 3)
    async with watching(http, *runs) as watcher:
        items = await watcher.rest()
    for run in runs:
        frames = await own_stream(http, run)
        assert of_run(items, run) == [(frame.id, frame.name) for frame in frames]
        data = [item["data"] for item in items if item["run_id"] == run["run_id"]]
        assert data == [frame.data for frame in frames]


async def test_what_happens_from_now_on_comes_as_it_happens(client: LangGraphClient, http: httpx.AsyncClient) -> None:
    thread_id = (await client.threads.create())["thread_id"]
    run = await begun(client, thread_id)
    async with watching(http, {"run_id": run["run_id"], "thread_id": thread_id}) as watcher:
        assert await watcher.frame() == []
        await client.runs.cancel(thread_id, run["run_id"])
        items = await watcher.rest()
    assert items[-1]["event"] == "end"
    assert items[-1]["data"] == {"status": "interrupted", "end_reason": "user_cancel"}
    assert "metadata" not in [item["event"] for item in items], "that was before"


async def test_the_cursor_of_a_frame_goes_on_after_it(client: LangGraphClient, http: httpx.AsyncClient) -> None:
    long = {"messages": [{"type": "human", "content": "word " * 300}]}
    runs = await finished(client, 3, assistant_id="chat", input=long, stream_mode=["messages-tuple"])
    async with watching(http, *runs) as whole:
        expected = await whole.rest()
    async with watching(http, *runs) as watcher:
        await watcher.frame()
        await watcher.frame()
        first, cursor = watcher.items, watcher.cursor
    assert any(0 < len(of_run(first, run)) < len(of_run(expected, run)) for run in runs), "none is cut in the middle"
    async with watching(http, *runs, cursor=cursor) as watcher:
        rest = await watcher.rest()
    for run in runs:
        assert of_run(first + rest, run) == of_run(expected, run)
    async with watching(http, *runs, cursor=watcher.cursor) as watcher:
        assert await watcher.rest() == [], "all of it has been read, the ends too"


async def test_the_first_cursor_of_a_run_that_is_read_from_now_on_misses_nothing(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    run = await begun(client, thread_id)
    now = {"run_id": run["run_id"]}
    async with watching(http, now) as watcher:
        await watcher.frame()
    await client.runs.cancel(thread_id, run["run_id"], wait=True)
    async with watching(http, now, cursor=watcher.cursor) as watcher:
        assert [item["event"] for item in await watcher.rest()][-1:] == ["end"]


async def test_a_run_that_is_not_there_is_told_and_the_others_are_read(
    client: LangGraphClient, http: httpx.AsyncClient
) -> None:
    [run, other] = await finished(client, 2)
    elsewhere = {**from_start(other), "thread_id": run["thread_id"]}
    async with watching(http, {"run_id": NOWHERE}, from_start(run), elsewhere) as watcher:
        first = await watcher.frame()
        items = await watcher.rest()
    assert sorted((item["run_id"], item["event"]) for item in first) == sorted(
        [(NOWHERE, "not_found"), (other["run_id"], "not_found")]
    )
    assert {item["run_id"] for item in items[len(first) :]} == {run["run_id"]}


async def test_runs_of_the_event_streaming_protocol_are_read_in_their_stream_modes(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    command = {"id": 1, "method": "run.start", "params": {"assistant_id": "steps", "input": {"steps": 2}}}
    started = await http.post(f"/threads/{thread_id}/commands", json=command)
    assert started.status_code == 200, started.text
    [run] = await client.runs.list(thread_id)
    await ended(client, run)
    async with watching(http, run) as watcher:
        items = await watcher.rest()
    frames = await own_stream(http, run)
    assert of_run(items, run) == [(frame.id, frame.name) for frame in frames]
    page = await http.get(f"/runs/{run['run_id']}/events", params={"limit": 1000})
    assert page.json() == items[:-1]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"runs": []},
        {"runs": [{"run_id": "no-uuid"}]},
        {"runs": [{"run_id": NOWHERE}] * 2},
        {"runs": [{"run_id": f"00000000-0000-4000-8000-{number:012d}"} for number in range(201)]},
        {"runs": [{"run_id": NOWHERE}], "cursor": "1-2,x"},
    ],
)
async def test_a_request_that_makes_no_sense_is_refused(http: httpx.AsyncClient, body: Any) -> None:
    assert (await http.post("/watch", json=body)).status_code == 422


async def test_an_id_of_another_runs_event_is_refused(client: LangGraphClient, http: httpx.AsyncClient) -> None:
    run, other = await finished(client, 2)
    foreign = (await own_stream(http, other))[0].id
    answer = await http.post("/watch", json={"runs": [{"run_id": run["run_id"], "after": foreign}]})
    assert (answer.status_code, "after" in answer.text) == (422, True)


async def test_changes_of_runs_are_told_from_their_admission_to_their_end(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    async with watching(http, changes=True) as watcher:
        assert await watcher.frame() == []
        run = await begun(client, thread_id)
        waiting = await client.runs.create(thread_id, **STEPS)
        seen = await watcher.status_of(waiting, "pending")
        await client.runs.cancel(thread_id, run["run_id"])
        seen = await watcher.status_of(waiting, "success")
    assert {item["event"] for item in seen} == {"changed"}
    last = [item["data"] for item in seen if item["run_id"] == run["run_id"]][-1]
    stored = await client.runs.get(thread_id, run["run_id"])
    assert last == {name: stored[name] for name in ("thread_id", "status", "end_reason", "updated_at")}
    assert stored["status"] == "interrupted"


async def test_changes_come_beside_the_events_of_runs(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    [run] = await finished(client, 1)
    async with watching(http, run, changes=True) as watcher:
        await watcher.until("end")
        other = await client.runs.create(thread_id, **STEPS)
        seen = await watcher.status_of(other, "success")
    assert [event for _, event in of_run([item for item in seen if item["event"] != "changed"], run)][-1] == "end"


async def test_changes_are_told_of_the_senders_runs_only(tmp_path: Path) -> None:
    with keyed_server(tmp_path, "ann", "bob") as (server, keys):
        await _told_of_own_runs_only(server, [{"x-api-key": keys[name]} for name in ("ann", "bob")])


@pytest.mark.parametrize("kind", ["plain", "stamping", "narrowing"])
async def test_changes_are_told_of_runs_that_an_applications_handler_lets_read(tmp_path: Path, kind: str) -> None:
    with guarded_server(tmp_path, kind) as server:
        await _told_of_own_runs_only(server, [bearer("alice"), bearer("mallory")])


async def _told_of_own_runs_only(server: Server, users: list[dict[str, str]]) -> None:
    async with AsyncExitStack() as stack:
        ann, bob = [
            await stack.enter_async_context(httpx.AsyncClient(base_url=server.url, headers=headers, timeout=PATIENCE_S))
            for headers in users
        ]
        watcher = await stack.enter_async_context(watching(bob, changes=True))
        await watcher.frame()
        for client in (ann, bob):
            thread = (await client.post("/threads", json={})).json()
            await client.post(f"/threads/{thread['thread_id']}/runs/wait", json=STEPS)
            [run] = (await client.get(f"/threads/{thread['thread_id']}/runs")).json()
        seen = await watcher.status_of(run, "success")
        assert {item["run_id"] for item in seen} == {run["run_id"]}


async def test_two_hundred_runs_are_read_at_once(client: LangGraphClient, http: httpx.AsyncClient) -> None:
    threads = [await client.threads.create() for _ in range(4)]
    steps = {"assistant_id": "steps", "input": {"steps": 1}, "stream_mode": ["updates"]}
    runs = [
        await client.runs.create(threads[number % 4]["thread_id"], multitask_strategy="enqueue", **steps)
        for number in range(200)
    ]
    async with watching(http, *runs) as watcher:
        items = await watcher.rest()
    for run in runs:
        assert [event for _, event in of_run(items, run)] == ["metadata", "updates", "end"]
    assert len(watcher.cursor) < 200 * 40


async def test_another_tenants_runs_are_told_as_if_they_were_not_there(tmp_path: Path) -> None:
    with keyed_server(tmp_path, "ann", "bob") as (server, keys):
        async with AsyncExitStack() as stack:
            ann, bob = [
                await stack.enter_async_context(
                    httpx.AsyncClient(base_url=server.url, headers={"x-api-key": keys[name]}, timeout=PATIENCE_S)
                )
                for name in ("ann", "bob")
            ]
            await _only_the_owner_is_told(ann, bob)


@pytest.mark.parametrize("kind", ["plain", "stamping"])
async def test_what_an_applications_handler_refuses_is_told_as_if_it_were_not_there(tmp_path: Path, kind: str) -> None:
    with guarded_server(tmp_path, kind) as server:
        async with AsyncExitStack() as stack:
            ann, bob = [
                await stack.enter_async_context(
                    httpx.AsyncClient(base_url=server.url, headers=bearer(name), timeout=PATIENCE_S)
                )
                for name in ("alice", "mallory")
            ]
            await _only_the_owner_is_told(ann, bob)


async def _only_the_owner_is_told(owner: httpx.AsyncClient, other: httpx.AsyncClient) -> None:
    thread = (await owner.post("/threads", json={})).json()
    await owner.post(f"/threads/{thread['thread_id']}/runs/wait", json=STEPS)
    [run] = (await owner.get(f"/threads/{thread['thread_id']}/runs")).json()
    async with watching(owner, run) as watcher:
        seen = await watcher.rest()
        assert seen[-1]["event"] == "end"
    for cursor in (None, watcher.cursor):
        async with watching(other, run, cursor=cursor) as watcher:
            assert await watcher.rest() == [{"run_id": run["run_id"], "event": "not_found"}]
    assert (await other.get(f"/runs/{run['run_id']}/events")).status_code == 404


async def test_a_revoked_key_ends_the_stream(tmp_path: Path) -> None:
    with keyed_server(tmp_path, "ann") as (server, keys):
        headers = {"x-api-key": keys["ann"]}
        async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=PATIENCE_S) as http:
            thread_id = (await http.post("/threads", json={})).json()["thread_id"]
            slow = {"assistant_id": "steps", "input": {"steps": 1, "delay_s": LONG_S}}
            run = (await http.post(f"/threads/{thread_id}/runs", json=slow)).json()
            async with watching(http, run) as watcher:
                await watcher.until("metadata")
                revoke(tmp_path, "ann")
                with pytest.raises(httpx.RemoteProtocolError):
                    await watcher.rest()
        server.on_loop(server.app.state.service.runs.cancel(run["run_id"], wait=True, owner="ann"))


async def test_operators_who_may_not_see_payload_get_items_without_data(tmp_path: Path, new_database: Any) -> None:
    file = tmp_path / "keys"
    keys = {"ann": new_key("ann", file)}
    for name, scopes in {
        "chief": ["admin"],
        "reader": ["runs:read", "payload:read"],
        "stopper": ["runs:cancel"],
    }.items():
        keys[name] = new_key(name, file, scopes=scopes)
    with running_server(new_database(), api_keys=str(file)) as server:
        clients = {
            name: httpx.AsyncClient(base_url=server.url, headers={"x-api-key": key}, timeout=PATIENCE_S)
            for name, key in keys.items()
        }
        ann = clients["ann"]
        thread_id = (await ann.post("/threads", json={})).json()["thread_id"]
        await ann.post(f"/threads/{thread_id}/runs/wait", json=STEPS)
        [run] = (await ann.get(f"/threads/{thread_id}/runs")).json()
        seen: dict[str, list[Item]] = {}
        for name, omit in (("ann", {}), ("reader", {}), ("chief", {}), ("reader", {"Runlane-Payload": "omit"})):
            async with watching(clients[name], run, headers=omit) as watcher:
                seen[f"{name}{len(omit)}"] = await watcher.rest()
        assert seen["ann0"] == seen["reader0"]
        assert seen["chief0"] == seen["reader1"]
        bare = [{name: item[name] for name in ("run_id", "id", "event")} for item in seen["ann0"]]
        assert seen["chief0"] == [*bare[:-1], seen["ann0"][-1]], "the ending is no payload"
        page = (await clients["chief"].get(f"/runs/{run['run_id']}/events")).json()
        assert [{**item, "data": None} for item in page] == [{**item, "data": None} for item in bare[:-1]]
        assert not any(item["data"] for item in page)
        refused = await clients["stopper"].post("/watch", json={"runs": [from_start(run)]})
        assert refused.status_code == 403
        recorded = (await clients["chief"].get("/audit", params={"actor": "reader"})).json()
        assert [(act["action"], act["subject"]["run_ids"]) for act in recorded] == [("payload.read", [run["run_id"]])]
        for client in clients.values():
            await client.aclose()


async def test_pages_have_what_the_run_has_streamed_in_both_directions(
    client: LangGraphClient, http: httpx.AsyncClient
) -> None:
    [run] = await finished(client, 1)
    path = f"/runs/{run['run_id']}/events"
    async with watching(http, run) as watcher:
        whole = (await watcher.rest())[:-1]
    for name, start in (("after", {}), ("before", {"before": "999999"})):
        found: list[Item] = []
        asked: dict[str, str] = start
        while True:
            page = await http.get(path, params={"limit": 3, **asked})
            assert page.headers["X-Pagination-Total"] == str(len(whole))
            found = found + page.json() if name == "after" else page.json() + found
            if "X-Pagination-Next" not in page.headers:
                break
            assert len(page.json()) == 3
            asked = {name: page.headers["X-Pagination-Next"]}
        assert found == whole
    middle = await http.get(path, params={"after": 2, "limit": 2})
    assert middle.json() == whole[2:4]
    assert (await http.get(path, params={"after": 999999})).json() == []
    assert (await http.get(path, params={"before": 1})).json() == []
    for wrong in ({"after": "x"}, {"after": 1, "before": 3}, {"limit": 1001}, {"before": "0000009999-00000001"}):
        assert (await http.get(path, params=wrong)).status_code == 422, wrong
