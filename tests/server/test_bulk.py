"""Acting on many runs: what a preview says, what a killed client loses, and what is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from auth_kit import guarded_server
from runlane.server.auth.keys import new_key
from server_kit import LONG_S, NOWHERE, PATIENCE_S, NewDatabase, begun, ended, running_server

STEP = {"assistant_id": "steps", "input": {"steps": 1}}
LATER = {**STEP, "after_seconds": 86_400}
Clients = dict[str, httpx.Client]


async def preview(http: httpx.AsyncClient, action: str, **where: Any) -> Any:
    answer = await http.post("/runs/bulk/preview", json={"action": action, "filter": where})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def act(http: httpx.AsyncClient, action: str, where: dict[str, Any], bound: str, **options: Any) -> Any:
    body = {"action": action, "filter": where, "bound": bound, **options}
    answer = await http.post("/runs/bulk", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def waiting(client: LangGraphClient, thread_id: str, number: int) -> list[str]:
    """Admit runs that wait, and return their ids, the newest first."""
    made = [
        await client.runs.create(thread_id, "steps", input={"steps": 1}, after_seconds=86_400) for _ in range(number)
    ]
    return [run["run_id"] for run in made][::-1]


async def failed(client: LangGraphClient, thread_id: str) -> str:
    return str((await ended(client, await client.runs.create(thread_id, "failing", input={"kind": "x"})))["run_id"])


async def test_a_preview_says_how_many_and_why_not_the_others(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    await ended(client, await client.runs.create(thread_id, "steps", input={"steps": 1}))
    await failed(client, thread_id)
    [newest, *_] = await waiting(client, thread_id, 3)
    told = await preview(http, "cancel", thread_id=thread_id)
    assert (told["matched"], told["acted"], told["capped"], told["not_found"], told["cost"]) == (5, 3, False, 0, None)
    assert told["refused"] == [{"reason": "ended", "count": 2, "sentence": told["refused"][0]["sentence"]}]
    assert told["sentence"] == "5 match; 3 would be cancelled. 2 cannot be cancelled: they have ended."
    assert (await client.runs.get(thread_id, newest))["status"] == "pending", "a preview changes nothing"
    told = await preview(http, "retry", thread_id=thread_id)
    assert {one["reason"]: one["count"] for one in told["refused"]} == {"active": 3, "succeeded": 1, "followed": 1}
    assert told["acted"] == 0


async def test_a_roll_back_says_what_it_takes_back(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    await begun(client, thread_id)
    await waiting(client, thread_id, 1)
    told = await preview(http, "rollback", thread_id=thread_id)
    assert told["cost"] == {"begun": 1, "tokens": 0}
    assert "1 of them have begun" in told["sentence"]
    done = await act(http, "rollback", {"thread_id": thread_id}, told["bound"])
    assert done["done"] == 2
    again = await preview(http, "rollback", thread_id=thread_id)
    assert again["acted"] == 0, "those that have not stopped have been cancelled"


async def test_pages_go_on_where_a_killed_client_stopped_and_repeat_nothing(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    runs, where = await waiting(client, thread_id, 5), {"thread_id": thread_id}
    bound = (await preview(http, "cancel", **where))["bound"]
    first = await act(http, "cancel", where, bound, limit=2)
    assert ([one["run_id"] for one in first["results"]], first["done"]) == (runs[:2], 2)
    lost = await act(http, "cancel", where, bound, limit=2)  # the same request, whose answer was lost
    assert [(one["outcome"], one["reason"]) for one in lost["results"]] == [("refused", "ended")] * 2
    assert lost["next"] == first["next"]
    rest = await act(http, "cancel", where, bound, after=first["next"])
    assert ([one["run_id"] for one in rest["results"]], rest["done"], rest["next"]) == (runs[2:], 3, None)
    for run_id in runs:
        run = await client.runs.get(thread_id, run_id)
        assert (run["status"], run["cancel"]["action"]) == ("interrupted", "interrupt")


async def test_runs_that_came_or_ended_after_the_preview_are_left_alone(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    [first, second], where = await waiting(client, thread_id, 2), {"thread_id": thread_id}
    bound = (await preview(http, "cancel", **where))["bound"]
    [later] = await waiting(client, thread_id, 1)
    await client.runs.cancel(thread_id, second)
    done = await act(http, "cancel", where, bound)
    told = {one["run_id"]: (one["outcome"], one["sentence"]) for one in done["results"]}
    assert told == {
        first: ("done", None),
        second: ("refused", "1 cannot be cancelled: it has ended."),
    }
    assert (await act(http, "cancel", where, bound, after="9" * 18))["refused"] == 2, (
        "a cursor is no way round the bound"
    )
    assert (await client.runs.get(thread_id, later))["status"] == "pending"


async def test_a_list_of_ids_tells_those_that_name_nothing_once(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    runs = await waiting(client, thread_id, 3)
    where = {"run_ids": [NOWHERE, *[run_id.upper() for run_id in runs]]}
    told = await preview(http, "cancel", **where)
    assert (told["matched"], told["acted"], told["not_found"]) == (3, 3, 1)
    first = await act(http, "cancel", where, told["bound"], limit=2)
    assert [(one["run_id"], one["outcome"]) for one in first["results"]] == [
        *[(run_id, "done") for run_id in runs[:2]],
        (NOWHERE, "not_found"),
    ]
    rest = await act(http, "cancel", where, told["bound"], limit=2, after=first["next"])
    assert [(one["run_id"], one["outcome"]) for one in rest["results"]] == [(runs[2], "done")]
    assert rest["next"] is None


async def test_two_actions_at_once_cancel_each_run_once(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    runs, where = await waiting(client, thread_id, 20), {"thread_id": thread_id}
    bound = (await preview(http, "cancel", **where))["bound"]
    found = await asyncio.gather(*(act(http, action, where, bound) for action in ("cancel", "rollback")))
    done = [one["run_id"] for page in found for one in page["results"] if one["outcome"] == "done"]
    assert sorted(done) == sorted(runs)
    assert all(one["sentence"] for page in found for one in page["results"] if one["outcome"] == "refused")


async def test_failed_runs_are_retried_once_whoever_asks_again(
    client: LangGraphClient, http: httpx.AsyncClient
) -> None:
    threads = [(await client.threads.create())["thread_id"] for _ in range(3)]
    runs = [await failed(client, thread_id) for thread_id in threads]
    where = {"run_ids": runs}
    bound = (await preview(http, "retry", **where))["bound"]
    both = await asyncio.gather(*(act(http, "retry", where, bound) for _ in range(2)))
    retries = {
        one["run_id"]: one["retry_run_id"] for page in both for one in page["results"] if one["outcome"] == "done"
    }
    assert retries.keys() == set(runs)
    again = await act(http, "retry", where, bound)
    assert {one["run_id"]: one["retry_run_id"] for one in again["results"]} == retries
    assert {one["reason"] for one in again["results"]} == {"retried"}
    for run_id, thread_id in zip(runs, threads, strict=True):
        made = await client.runs.list(thread_id)
        assert [run["run_id"] for run in made] == [retries[run_id], run_id]
        assert made[0]["metadata"]["retry_of"] == run_id
        assert made[0]["kwargs"]["input"] is None, "it goes on from the checkpoint of the first one"


async def test_a_retry_asks_again_if_the_run_kept_no_checkpoint(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    await ended(client, await client.runs.create(thread_id, "steps", input={"steps": 1}))
    [run_id] = await waiting(client, thread_id, 1)
    path = f"/threads/{thread_id}/runs/{run_id}/retry"
    early = await http.post(path, json={})
    assert (early.status_code, early.json()["code"]) == (409, "not_retryable")
    await client.runs.cancel(thread_id, run_id, wait=True)
    key = {"Idempotency-Key": "once"}
    first, again = [(await http.post(path, json={}, headers=key)).json() for _ in range(2)]
    assert (first["run_id"], first["kwargs"]["input"]) == (again["run_id"], {"steps": 1})
    other = await http.post(path, json={"from_start": True}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    assert (await ended(client, first))["status"] == "success"


async def test_a_retry_sends_no_value_that_stands_for_a_secret(
    client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    config = {"configurable": {"api_key": "sk-0123456789abcdef0123", "tone": "kind"}}
    run = await ended(client, await client.runs.create(thread_id, "failing", input={"kind": "x"}, config=config))  # type: ignore[arg-type]  # the SDK's Config is a TypedDict
    answer = await http.post(f"/runs/{run['run_id']}/retry", json={"from_start": True})
    configurable = answer.json()["kwargs"]["config"]["configurable"]
    assert configurable["tone"] == "kind"
    assert "api_key" not in configurable


@pytest.mark.parametrize(
    "body",
    [
        {"action": "dance", "filter": {}},
        {"action": "cancel"},
        {"action": "cancel", "filter": {"run_ids": ["x"]}},
        {"action": "cancel", "filter": {"run_ids": [NOWHERE] * 1001}},
    ],
)
async def test_what_makes_no_sense_is_refused(http: httpx.AsyncClient, body: Any) -> None:
    assert (await http.post("/runs/bulk/preview", json=body)).status_code == 422
    assert (await http.post("/runs/bulk", json={**body, "bound": "1"})).status_code == 422


async def test_an_action_has_to_be_previewed_and_is_bounded(http: httpx.AsyncClient) -> None:
    for given in ({}, {"bound": "1", "limit": 101}, {"bound": "all"}):
        body = {"action": "cancel", "filter": {}, **given}
        assert (await http.post("/runs/bulk", json=body)).status_code == 422


@pytest.fixture(scope="module")
def clients(new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """Give clients of one server: of owners, and of operators."""
    file = tmp_path_factory.mktemp("keys") / "keys"
    scopes = {"stopper": ["runs:read", "runs:cancel"], "fixer": ["runs:read", "runs:retry"], "chief": ["admin"]}
    keys = {name: new_key(name, file) for name in ("alice", "bob")}
    keys |= {name: new_key(name, file, scopes=has) for name, has in scopes.items()}
    with ExitStack() as stack:
        server = stack.enter_context(running_server(new_database(), api_keys=str(file)))
        yield {
            name: stack.enter_context(httpx.Client(base_url=server.url, headers={"x-api-key": key}, timeout=PATIENCE_S))
            for name, key in keys.items()
        }


def _made(client: httpx.Client, body: Any) -> Any:
    thread_id = client.post("/threads", json={}).json()["thread_id"]
    return client.post(f"/threads/{thread_id}/runs", json=body).json()


def test_an_owner_acts_on_their_own_runs_alone(clients: Clients) -> None:
    mine, theirs = _made(clients["alice"], LATER), _made(clients["bob"], LATER)
    for where in ({"run_ids": [mine["run_id"], theirs["run_id"]]}, {"status": "pending"}):
        body = {"action": "cancel", "filter": where}
        told = clients["alice"].post("/runs/bulk/preview", json=body).json()
        assert told["matched"] == 1
        # A bound that lets everything through shows nothing more.
        done = clients["alice"].post("/runs/bulk", json={**body, "bound": "9" * 18, "limit": 1}).json()
        outcomes = {one["run_id"]: one["outcome"] for one in done["results"]}
        assert outcomes.pop(theirs["run_id"], "not_found") == "not_found"
        assert outcomes == {mine["run_id"]: "done"}
        mine = _made(clients["alice"], LATER)
    assert clients["bob"].get(f"/runs/{theirs['run_id']}").json()["status"] == "pending"


def test_operators_act_for_owners_within_their_scopes_and_it_is_recorded_once(clients: Clients) -> None:
    runs = [_made(clients["alice"], LATER)["run_id"] for _ in range(2)]
    body = {"action": "cancel", "filter": {"run_ids": runs}}
    refused = clients["fixer"].post("/runs/bulk/preview", json=body)
    assert (refused.status_code, "runs:cancel" in refused.text) == (403, True)
    told = clients["stopper"].post("/runs/bulk/preview", json=body).json()
    act = {**body, "bound": told["bound"], "reason": "deploy 7 is rolled back"}
    assert clients["stopper"].post("/runs/bulk", json=act).json()["done"] == 2
    retry = {"action": "retry", "filter": {"run_ids": runs}, "bound": told["bound"]}
    assert clients["stopper"].post("/runs/bulk", json=retry).status_code == 403
    done = clients["fixer"].post("/runs/bulk", json=retry).json()
    assert done["done"] == 2, done
    made = clients["alice"].get(f"/runs/{done['results'][0]['retry_run_id']}").json()
    assert made["metadata"]["retry_of"] in runs, "the retry belongs to the owner"
    acts = [one for one in clients["chief"].get("/audit").json() if one["subject"].get("run_ids") == runs]
    assert [(one["actor"], one["action"], one["status"], one["result"]) for one in acts] == [
        ("fixer", "retry", 200, {"done": 2, "refused": 0, "not_found": 0}),
        ("stopper", "cancel", 200, {"done": 2, "refused": 0, "not_found": 0}),
    ]
    assert acts[1]["subject"]["reason"] == "deploy 7 is rolled back"
    assert acts[1]["user_agent"].startswith("python-httpx")


def test_an_operator_without_payload_cannot_select_by_it(clients: Clients) -> None:
    for where in ({"text": "x"}, {"metadata": {"customer": "x"}}):
        body = {"action": "cancel", "filter": where}
        assert clients["stopper"].post("/runs/bulk/preview", json=body).status_code == 403
        assert clients["stopper"].post("/runs/bulk", json={**body, "bound": "1"}).status_code == 403


def test_a_projects_handlers_decide_on_each_run(tmp_path: Path) -> None:
    with guarded_server(tmp_path, "sharing") as server, ExitStack() as stack:
        named = {
            name: stack.enter_context(
                httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {name}"}, timeout=PATIENCE_S)
            )
            for name in ("ann@blue", "ben@blue", "eve@red", "guest@blue")
        }
        run = _made(named["ann@blue"], {**STEP, "input": {"steps": 2, "delay_s": LONG_S}})
        body = {"action": "cancel", "filter": {"run_ids": [run["run_id"]]}, "bound": "9" * 18}
        assert named["guest@blue"].post("/runs/bulk", json=body).status_code == 403
        assert named["eve@red"].post("/runs/bulk", json=body).json()["not_found"] == 1
        assert named["ben@blue"].post("/runs/bulk", json=body).json()["done"] == 1
