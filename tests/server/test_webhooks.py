"""Webhooks of runs over the API: admitted or refused, told of every end, seen and sent again."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from runlane.errors import ConfigurationError
from runlane.lifecycle import DisconnectMode, MultitaskStrategy, RunStatus
from runlane.records import RunRecord, Usage
from runlane.requests import StoredRequest
from runlane.server.config.webhooks import RUN_FIELDS
from runlane.server.http.responses import run_wire
from runlane.server.startup import open_service
from runlane.settings import Settings
from runlane.store.statements import Transaction, statement
from server_kit import NOWHERE, PATIENCE_S, NewDatabase, Server, begun, running_server, sdk
from webhook_kit import Receiver, answers, receiver

PROJECT = Path(__file__).parent / "webhook_project" / "langgraph.json"
SECRET = "whsec_" + base64.b64encode(b"a key that nobody guesses").decode()
STEP = {"steps": 1, "delay_s": 0}
NOW_DUE = statement("now_due", "UPDATE webhook_deliveries SET next_at = 0 WHERE run_id = :run_id")


@pytest.fixture(scope="module")
def hooked(new_database: NewDatabase) -> Iterator[Server]:
    """Give a server that may tell receivers on this machine."""
    database = new_database()
    with running_server(database, PROJECT, webhook_secret=SECRET) as running:
        yield running


@pytest.fixture
async def hooks(hooked: Server) -> AsyncIterator[LangGraphClient]:
    async with sdk(hooked) as made:
        yield made


@pytest.fixture
async def plain(hooked: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=hooked.url, timeout=PATIENCE_S) as made:
        yield made


@pytest.fixture
async def thread(hooks: LangGraphClient) -> str:
    return str((await hooks.threads.create())["thread_id"])


async def outcome(http: httpx.AsyncClient, run_id: str, attempts: int = 1) -> Any:
    """Return a delivery once the outcome of so many attempts is written."""
    while True:
        answer = await http.get(f"/webhooks/{run_id}")
        if answer.status_code == 200 and len(answer.json()["history"]) >= attempts:
            return answer.json()


def body(to: Receiver, **changes: Any) -> dict[str, Any]:
    return {"assistant_id": "steps", "input": STEP, "webhook": to.url(), **changes}


@pytest.mark.parametrize("path", ["runs", "runs/stream", "runs/wait"])
@pytest.mark.parametrize("stateless", [False, True])
async def test_every_way_to_start_a_run_tells_its_webhook(
    plain: httpx.AsyncClient, thread: str, path: str, stateless: bool
) -> None:
    prefix = "" if stateless else f"/threads/{thread}"
    async with receiver() as to:
        answer = await plain.post(f"{prefix}/{path}", json=body(to, metadata={"mine": 1}))
        assert answer.status_code == 200, answer.text
        [got] = await to.got(1)
    run_id = answer.headers["content-location"].rpartition("/")[2]
    told = got.json
    assert (told["run_id"], told["status"], told["end_reason"]) == (run_id, "success", "completed")
    assert told["metadata"]["mine"] == 1
    assert told["kwargs"]["webhook"] == to.url()
    assert told["values"] is None if stateless else told["values"]["done"] == [0]
    assert told["run_started_at"] <= told["run_ended_at"] <= told["webhook_sent_at"]
    assert told["error"] is None


async def test_every_run_of_a_batch_tells_its_webhook(plain: httpx.AsyncClient) -> None:
    async with receiver() as to:
        runs = (await plain.post("/runs/batch", json=[body(to), body(to)])).json()
        got = await to.got(2)
    assert {one.json["run_id"] for one in got} == {run["run_id"] for run in runs}


async def test_the_run_of_a_cron_tells_its_webhook(plain: httpx.AsyncClient) -> None:
    async with receiver() as to:
        cron = (await plain.post("/runs/crons", json=body(to, schedule="* * * * * *"))).json()
        [got] = await to.got(1)
        assert (await plain.delete(f"/runs/crons/{cron['cron_id']}")).status_code == 204
    assert (got.json["metadata"]["cron_id"], got.json["status"]) == (cron["cron_id"], "success")


async def test_a_cron_whose_webhook_is_not_allowed_is_refused(http: httpx.AsyncClient, thread_id: str) -> None:
    asked = {"assistant_id": "steps", "schedule": "0 0 1 1 *", "webhook": "http://localhost/"}
    for path in ("/runs/crons", f"/threads/{thread_id}/runs/crons"):
        answer = await http.post(path, json=asked)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_a_run_that_fails_tells_its_error(hooks: LangGraphClient, thread: str) -> None:
    async with receiver() as to:
        await hooks.runs.create(thread, "failing", input={}, webhook=to.url())
        [got] = await to.got(1)
    assert (got.json["status"], got.json["error"]) == ("error", {"error": "ValueError", "message": "boom"})


async def test_a_run_that_asks_a_human_tells_that_it_waits(hooks: LangGraphClient, thread: str) -> None:
    async with receiver() as to:
        await hooks.runs.create(thread, "approval", input={"topic": "t"}, webhook=to.url())
        [got] = await to.got(1)
    assert (got.json["status"], got.json["end_reason"]) == ("success", "paused")


@pytest.mark.parametrize("action", ["interrupt", "rollback"])
@pytest.mark.parametrize("pending", [False, True])
async def test_a_run_that_was_cancelled_is_told_though_it_may_be_gone(
    hooks: LangGraphClient, thread: str, action: Any, pending: bool
) -> None:
    async with receiver() as to:
        run = await begun(hooks, thread, webhook=None if pending else to.url())
        if pending:
            run = await hooks.runs.create(thread, "steps", input=STEP, webhook=to.url())
        await hooks.runs.cancel(thread, run["run_id"], action=action)
        [got] = await to.got(1)
    reason = "rolled_back" if action == "rollback" else "user_cancel"
    assert (got.json["run_id"], got.json["status"]) == (run["run_id"], "interrupted")
    assert got.json["end_reason"] == reason
    await hooks.threads.delete(thread)


async def test_a_superseded_run_is_told(hooks: LangGraphClient, thread: str) -> None:
    async with receiver() as to:
        await begun(hooks, thread, webhook=to.url())
        await hooks.runs.create(thread, "steps", input=STEP, multitask_strategy="interrupt")
        [got] = await to.got(1)
    assert (got.json["status"], got.json["end_reason"]) == ("interrupted", "superseded")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/hook",
        "http://localhost/hook",
        "http://169.254.169.254/latest/meta-data",
        "http://10.1.2.3/",
        "/on-this-server",
        "ftp://example.com",
        "nonsense",
        "https://user:pass@example.com/",
    ],
)
@pytest.mark.parametrize("path", ["/runs", "/runs/stream", "/runs/wait"])
async def test_a_url_that_is_not_allowed_is_refused_before_anything_is_admitted(
    http: httpx.AsyncClient, thread_id: str, path: str, url: str
) -> None:
    for prefix in ("", f"/threads/{thread_id}"):
        answer = await http.post(f"{prefix}{path}", json={"assistant_id": "steps", "input": STEP, "webhook": url})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert "webhook" in answer.json()["detail"]
    assert (await http.get(f"/threads/{thread_id}/runs")).json() == []


async def test_deliveries_are_listed_by_run_status_and_page(plain: httpx.AsyncClient, thread: str) -> None:
    async with receiver(answers(410)) as to:
        path = f"/threads/{thread}/runs/wait"
        ids = []
        for _ in range(3):
            answer = await plain.post(path, json=body(to))
            ids.append(answer.headers["content-location"].rpartition("/")[2])
            await outcome(plain, ids[-1])
    page = await plain.get("/webhooks", params={"limit": 2})
    assert [one["run_id"] for one in page.json()] == ids[:0:-1]
    after = {"limit": 2, "after": page.headers["x-pagination-next"]}
    older = [one["run_id"] for one in (await plain.get("/webhooks", params=after)).json()]
    assert (older[0], set(older) & set(ids[1:])) == (ids[0], set())
    for refused in ({"after": "x"}, {**after, "offset": 1}):
        assert (await plain.get("/webhooks", params=refused)).status_code == 422
    [oldest] = (await plain.get("/webhooks", params={"limit": 1, "offset": 2})).json()
    assert (oldest["run_id"], oldest["status"], oldest["thread_id"]) == (ids[0], "gone", thread)
    [one] = (await plain.get("/webhooks", params={"run_id": ids[1]})).json()
    assert (one["run_id"], one["status"], one["next_attempt_at"]) == (ids[1], "delivered", None)
    gone = (await plain.get("/webhooks", params={"delivery_status": "gone"})).json()
    assert {one["status"] for one in gone} == {"gone"}


async def test_a_delivery_shows_its_attempts_and_is_sent_again(
    hooked: Server, plain: httpx.AsyncClient, thread: str
) -> None:
    async with receiver(answers(410), answers(500)) as to:
        run = (await plain.post(f"/threads/{thread}/runs", json=body(to))).json()
        shown = await outcome(plain, run["run_id"])
        assert (shown["status"], shown["attempts"], shown["url"]) == ("gone", 1, to.url())
        [attempt] = shown["history"]
        assert (attempt["number"], attempt["status_code"], attempt["error"]) == (1, 410, None)
        assert datetime.fromisoformat(attempt["sent_at"]) <= datetime.now(UTC)
        again = await plain.post(f"/webhooks/{run['run_id']}/resend")
        assert (again.status_code, again.json()["status"]) == (200, "pending")
        shown = await outcome(plain, run["run_id"], attempts=2)
        assert (shown["status"], shown["history"][1]["status_code"]) == ("pending", 500)
        await plain.post(f"/webhooks/{run['run_id']}/resend")
        shown = await outcome(plain, run["run_id"], attempts=3)
    assert (shown["status"], shown["next_attempt_at"]) == ("delivered", None)
    first, second, third = to.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == third.headers["webhook-id"] == run["run_id"]
    assert {**first.json, "webhook_sent_at": None} == {**third.json, "webhook_sent_at": None}


async def test_what_the_deployment_adds_is_sent_and_shown_nowhere(plain: httpx.AsyncClient, thread: str) -> None:
    async with receiver() as to:
        run = (await plain.post(f"/threads/{thread}/runs", json=body(to))).json()
        [got] = await to.got(1)
        shown = [await outcome(plain, run["run_id"]), (await plain.get(f"/threads/{thread}/runs")).json()]
    assert got.headers["x-token"] == "Bearer from-the-environment"
    assert got.headers["webhook-signature"].startswith("v1,")
    for secret in ("from-the-environment", SECRET):
        assert secret not in json.dumps(shown)
        assert secret not in got.body.decode()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/webhooks/{NOWHERE}", 404),
        ("POST", f"/webhooks/{NOWHERE}/resend", 404),
        ("GET", "/webhooks/nonsense", 422),
        ("POST", "/webhooks/nonsense/resend", 422),
        ("GET", "/webhooks?run_id=nonsense", 422),
        ("GET", "/webhooks?delivery_status=lost", 422),
        ("GET", "/webhooks?limit=0", 422),
    ],
)
async def test_what_is_not_there_is_not_found_and_nonsense_is_refused(
    http: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    assert (await http.request(method, path)).status_code == status


async def test_the_next_process_tells_what_this_one_could_not(new_database: NewDatabase) -> None:
    database = new_database()
    async with receiver(answers(503)) as to:
        with running_server(database, PROJECT) as server:
            async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http:
                run_id = (await http.post("/runs", json=body(to))).json()["run_id"]
                assert (await outcome(http, run_id))["status"] == "pending"
            server.on_loop(_due(server, run_id))
        with running_server(database, PROJECT) as server:
            async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as http:
                shown = await outcome(http, run_id, attempts=2)
    assert (shown["status"], [one["status_code"] for one in shown["history"]]) == ("delivered", [503, 200])


async def _due(server: Server, run_id: str) -> None:
    def move() -> Transaction[None]:
        yield NOW_DUE(run_id=run_id)

    await server.app.state.service.store.driver.write(move())


async def test_deliveries_go_on_while_a_receiver_stalls(hooked: Server) -> None:
    until = asyncio.Event()

    async def stall(_: asyncio.StreamWriter) -> None:
        await until.wait()

    async with receiver(stall) as slow, receiver() as quick, httpx.AsyncClient(base_url=hooked.url) as http:
        await http.post("/runs", json=body(slow))
        await slow.got(1)
        await http.post("/runs", json=body(quick))
        await quick.got(1)
        assert len(slow.requests) == 1
        until.set()


@pytest.mark.parametrize(
    "webhooks",
    [{"urls": {}}, {"url": {"require_https": "yes"}}, {"headers": {"x": "${{ env.HOME }}"}}, {"allowed_fields": ["x"]}],
)
def test_a_section_that_cannot_be_honoured_keeps_the_server_from_starting(
    tmp_path: Path, webhooks: dict[str, Any]
) -> None:
    config = tmp_path / "langgraph.json"
    graphs = {"steps": str(PROJECT.parent.parent / "project" / "graphs.py") + ":steps"}
    config.write_text(json.dumps({"graphs": graphs, "webhooks": webhooks}))
    with pytest.raises(ConfigurationError, match="webhooks"):
        asyncio.run(_open(config))


async def _open(config: Path) -> None:
    async with open_service(config, Settings(database="memory://")):
        pass


def test_the_fields_that_a_deployment_may_choose_are_those_of_a_run() -> None:
    now = datetime.now(UTC)
    run = RunRecord(
        run_id="r",
        thread_id="t",
        owner="",
        seq=1,
        assistant_id=None,
        graph_id=None,
        status=RunStatus.SUCCESS,
        end_reason=None,
        attempt=1,
        rescues=0,
        worker_id=None,
        multitask_strategy=MultitaskStrategy.ENQUEUE,
        on_disconnect=DisconnectMode.CONTINUE,
        metadata={},
        stored=StoredRequest("{}"),
        model_name=None,
        error=None,
        cancel=None,
        usage=Usage(),
        temporary=False,
        not_before=now,
        created_at=now,
        updated_at=now,
        started_at=None,
        ended_at=None,
    )
    assert run_wire(run).keys() == RUN_FIELDS


async def test_a_relative_url_reaches_routes_of_the_projects_own_application_only(new_database: NewDatabase) -> None:
    project = PROJECT.parent.parent / "reference_project" / "langgraph.json"
    with running_server(new_database(), project) as server:
        async with sdk(server) as client:
            before = await client.threads.count()
            thread = await client.threads.create()
            run = await client.runs.create(thread["thread_id"], "steps", input=STEP, webhook="/threads")
            delivery = await outcome(client.http.client, run["run_id"])
            assert delivery["history"][0]["status_code"] is None
            assert "takes no POST" in delivery["history"][0]["error"]
            assert await client.threads.count() == before + 1
