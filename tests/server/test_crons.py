"""Crons, through the official client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from auth_kit import bearer, guarded_server
from server_kit import LONG_S, NOWHERE, NewDatabase, begun, ended, running_server, sdk, system_id

SECOND = timedelta(seconds=1)
#: Not before this year is over, and never while a test of these runs.
RARELY = "0 0 1 1 *"
EVERY_SECOND = "* * * * * *"


@pytest.fixture
async def crons(client: LangGraphClient) -> AsyncIterator[Any]:
    """Give the client's crons, and delete what the test made."""
    yield client.crons
    for cron in await client.crons.search(limit=1000):
        await client.crons.delete(cron["cron_id"])


async def read(http: httpx.AsyncClient, cron_id: str) -> Any:
    response = await http.get(f"/runs/crons/{cron_id}")
    assert response.status_code == 200, response.text
    return response.json()


async def fired(http: httpx.AsyncClient, cron_id: str, *, after: str | None = None) -> Any:
    """Return the cron once it has started another run than *after*, or says why not."""
    while (cron := await read(http, cron_id))["last_run_id"] == after and cron["error"] is None:
        pass
    return cron


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def refusal(http: httpx.AsyncClient, path: str = "/runs/crons", **body: Any) -> tuple[int, str]:
    response = await http.post(path, json={"assistant_id": "steps", "schedule": RARELY, **body})
    return response.status_code, response.text


async def test_the_crons_of_a_thread_go_with_it(client: LangGraphClient, crons: Any, thread_id: str) -> None:
    other = await crons.create("steps", schedule=RARELY)
    await crons.create_for_thread(thread_id, "steps", schedule=RARELY)
    await client.threads.delete(thread_id)
    assert [one["cron_id"] for one in await crons.search()] == [other["cron_id"]]


async def test_the_graph_of_a_crons_run_finds_what_started_it(crons: Any, client: LangGraphClient) -> None:
    made = await crons.create("settings", schedule=EVERY_SECOND, input={}, on_run_completed="keep")
    assert made["payload"]["config"]["configurable"] == {"cron_id": made["cron_id"]}
    await fired(client.http.client, made["cron_id"])
    [thread] = await client.threads.search(
        metadata={"cron_id": made["cron_id"]}, sort_by="created_at", sort_order="asc", limit=1
    )
    [run] = await client.runs.list(thread["thread_id"])
    await client.runs.join(thread["thread_id"], run["run_id"])
    state = await client.threads.get_state(thread["thread_id"])
    assert state["values"]["options"]["cron_id"] == made["cron_id"]


async def test_a_cron_reads_back_as_it_was_made(crons: Any, http: httpx.AsyncClient) -> None:
    end_time = datetime(2199, 1, 1, tzinfo=UTC)
    made = await crons.create(
        "steps",
        schedule="30 9 * * MON-FRI",
        input={"steps": 1},
        metadata={"m": 1},
        config={"tags": ["t"], "recursion_limit": 7},
        context={"x": 1},
        interrupt_before=["a"],
        interrupt_after="*",
        on_run_completed="keep",
        multitask_strategy="reject",
        end_time=end_time,
        timezone=ZoneInfo("Europe/Berlin"),
        stream_mode=["values", "updates"],
        stream_subgraphs=True,
        stream_resumable=True,
        durability="exit",
    )
    assert await read(http, made["cron_id"]) == made
    assert (made["assistant_id"], made["thread_id"], made["user_id"]) == (system_id("steps"), None, "")
    assert (made["schedule"], made["timezone"]) == ("30 9 * * MON-FRI", "Europe/Berlin")
    assert (instant(made["end_time"]), made["on_run_completed"], made["enabled"]) == (end_time, "keep", True)
    assert (made["missed"], made["overlap"], made["error"]) == ("once", "allow", None)
    assert made["metadata"] == {"m": 1}
    assert made["payload"] == {
        "assistant_id": system_id("steps"),
        "input": {"steps": 1},
        "metadata": {"m": 1},
        "schedule": "30 9 * * MON-FRI",
        "config": {"tags": ["t"], "recursion_limit": 7, "configurable": {"cron_id": made["cron_id"]}},
        "context": {"x": 1},
        "interrupt_before": ["a"],
        "interrupt_after": "*",
        "multitask_strategy": "reject",
        "stream_mode": ["values", "updates"],
        "stream_subgraphs": True,
        "stream_resumable": True,
        "durability": "exit",
    }
    following = instant(made["next_run_date"]).astimezone(ZoneInfo("Europe/Berlin"))
    assert (following.hour, following.minute, following.weekday() < 5) == (9, 30, True)
    assert following > datetime.now(UTC)


async def test_a_cron_of_seconds_starts_a_run_within_a_second_of_its_slot(
    crons: Any, client: LangGraphClient, http: httpx.AsyncClient
) -> None:
    made = await crons.create(
        "steps", schedule=EVERY_SECOND, input={"steps": 2}, metadata={"m": 1}, on_run_completed="keep"
    )
    cron = await fired(http, made["cron_id"])
    run = (await http.get(f"/runs/{cron['last_run_id']}")).json()
    delay = instant(run["created_at"]) - instant(cron["last_run_date"])
    assert timedelta(0) <= delay < SECOND, delay
    assert instant(cron["last_run_date"]) == instant(made["next_run_date"])
    run = await ended(client, run)
    assert (run["status"], run["metadata"]["cron_id"], run["metadata"]["m"]) == ("success", made["cron_id"], 1)
    assert instant(run["metadata"]["cron_run_date"]) == instant(cron["last_run_date"])
    assert (await client.threads.get_state(run["thread_id"]))["values"]["done"] == [0, 1]
    again = await fired(http, made["cron_id"], after=cron["last_run_id"])
    other = (await http.get(f"/runs/{again['last_run_id']}")).json()
    assert other["thread_id"] != run["thread_id"]


async def test_the_thread_of_a_run_is_temporary_unless_it_is_to_be_kept(
    crons: Any, client: LangGraphClient, http: httpx.AsyncClient
) -> None:
    made = await crons.create("steps", schedule=EVERY_SECOND, input={"steps": 1})
    cron = await fired(http, made["cron_id"])
    assert made["on_run_completed"] == "delete"
    run = (await http.get(f"/runs/{cron['last_run_id']}")).json()
    assert run["kwargs"]["temporary"] is True
    assert await client.threads.search(ids=[run["thread_id"]]) == []


async def test_the_runs_of_a_cron_on_a_thread_are_on_that_thread(
    crons: Any, client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    made = await crons.create_for_thread(thread_id, "steps", schedule=EVERY_SECOND, input={"steps": 1})
    assert (made["thread_id"], made["on_run_completed"]) == (thread_id, None)
    first = await fired(http, made["cron_id"])
    await fired(http, made["cron_id"], after=first["last_run_id"])
    await crons.delete(made["cron_id"])
    runs = await client.runs.list(thread_id)
    assert len(runs) >= 2
    assert {run["metadata"]["cron_id"] for run in runs} == {made["cron_id"]}


async def test_a_thread_that_is_busy_is_left_alone_if_the_strategy_rejects(
    crons: Any, client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    run = await begun(client, thread_id)
    made = await crons.create_for_thread(
        thread_id, "steps", schedule=EVERY_SECOND, input={"steps": 1, "delay_s": 0}, multitask_strategy="reject"
    )
    while (await read(http, made["cron_id"]))["last_run_date"] is None:
        pass
    assert [one["run_id"] for one in await client.runs.list(thread_id)] == [run["run_id"]]
    await client.runs.cancel(thread_id, run["run_id"], wait=True)
    assert (await fired(http, made["cron_id"]))["error"] is None


async def test_a_cron_may_wait_for_its_own_last_run(crons: Any, http: httpx.AsyncClient) -> None:
    body = {"assistant_id": "steps", "schedule": EVERY_SECOND, "overlap": "skip"}
    made = (await http.post("/runs/crons", json={**body, "input": {"steps": 1, "delay_s": LONG_S}})).json()
    first = await fired(http, made["cron_id"])
    while (cron := await read(http, made["cron_id"]))["last_run_date"] == first["last_run_date"]:
        pass
    assert cron["last_run_id"] == first["last_run_id"]
    await http.post(f"/runs/{first['last_run_id']}/cancel?wait=true")
    second = await fired(http, made["cron_id"], after=first["last_run_id"])
    await crons.delete(made["cron_id"])
    await http.post(f"/runs/{second['last_run_id']}/cancel?wait=true")


async def test_a_disabled_cron_does_not_run_until_it_is_enabled(crons: Any, http: httpx.AsyncClient) -> None:
    made = await crons.create("steps", schedule=EVERY_SECOND, input={"steps": 1}, enabled=False)
    other = await crons.create("steps", schedule=EVERY_SECOND, input={"steps": 1})
    first = await fired(http, other["cron_id"])
    await fired(http, other["cron_id"], after=first["last_run_id"])
    assert (made["enabled"], made["next_run_date"], (await read(http, made["cron_id"]))["last_run_date"]) == (
        False,
        None,
        None,
    )
    changed = await crons.update(made["cron_id"], enabled=True)
    assert changed["enabled"]
    await fired(http, made["cron_id"])


async def test_a_change_is_of_what_is_given_and_counts_from_now(crons: Any, http: httpx.AsyncClient) -> None:
    made = await crons.create(
        "steps", schedule=RARELY, input={"steps": 1}, metadata={"a": 1, "b": 1}, end_time=datetime(2199, 1, 1)
    )
    changed = await crons.update(
        made["cron_id"],
        schedule="0 12 * * *",
        timezone="Asia/Tokyo",
        input={"steps": 3},
        metadata={"b": 2},
        context={"x": 1},
        on_run_completed="keep",
        stream_mode="updates",
        durability="sync",
    )
    assert await read(http, made["cron_id"]) == changed
    assert instant(made["end_time"]) == instant(changed["end_time"]) == datetime(2199, 1, 1, tzinfo=UTC)
    assert (changed["metadata"], changed["on_run_completed"]) == ({"a": 1, "b": 2}, "keep")
    assert changed["payload"]["input"] == {"steps": 3}
    assert changed["payload"]["context"] == {"x": 1}
    assert (changed["payload"]["stream_mode"], changed["payload"]["durability"]) == ("updates", "sync")
    following = instant(changed["next_run_date"])
    assert (following.hour, following - datetime.now(UTC) < timedelta(days=1)) == (3, True)
    assert (await crons.update(made["cron_id"], end_time=None))["end_time"] is None


async def test_a_change_of_nothing_is_400(crons: Any, http: httpx.AsyncClient) -> None:
    made = await crons.create("steps", schedule=RARELY)
    for body in ({}, {"assistant": "x"}):
        response = await http.patch(f"/runs/crons/{made['cron_id']}", json=body)
        assert response.status_code == 400, response.text


async def test_an_end_that_has_come_stops_a_cron(crons: Any, http: httpx.AsyncClient) -> None:
    made = await crons.create(
        "steps", schedule=EVERY_SECOND, input={"steps": 1}, end_time=datetime.now(UTC) + 2 * SECOND
    )
    while (cron := await read(http, made["cron_id"]))["next_run_date"] is not None:
        pass
    assert cron["last_run_id"] is not None
    assert instant(cron["last_run_date"]) <= instant(cron["end_time"])
    ended_now = await crons.update(
        (await crons.create("steps", schedule=RARELY))["cron_id"], end_time=datetime.now(UTC)
    )
    assert ended_now["next_run_date"] is None


async def test_a_deleted_cron_is_gone_and_its_runs_stay(
    crons: Any, client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    made = await crons.create_for_thread(thread_id, "steps", schedule=EVERY_SECOND, input={"steps": 1})
    cron = await fired(http, made["cron_id"])
    await crons.delete(made["cron_id"])
    for response in (
        await http.get(f"/runs/crons/{made['cron_id']}"),
        await http.patch(f"/runs/crons/{made['cron_id']}", json={"enabled": False}),
        await http.delete(f"/runs/crons/{made['cron_id']}"),
    ):
        assert response.status_code == 404
    assert (await client.runs.get(thread_id, cron["last_run_id"]))["run_id"] == cron["last_run_id"]


async def test_a_cron_whose_assistant_is_deleted_is_disabled_and_says_why(
    crons: Any, client: LangGraphClient, http: httpx.AsyncClient
) -> None:
    assistant = await client.assistants.create("steps")
    made = await crons.create(assistant["assistant_id"], schedule=EVERY_SECOND, input={"steps": 1})
    await client.assistants.delete(assistant["assistant_id"])
    while (cron := await read(http, made["cron_id"]))["error"] is None:
        pass
    assert (cron["enabled"], cron["error"]["error"]) == (False, "NotFoundForRun")


async def test_a_cron_runs_its_assistant_as_it_is_then(
    crons: Any, client: LangGraphClient, http: httpx.AsyncClient
) -> None:
    assistant = await client.assistants.create("settings", context={"model": "old"})
    made = await crons.create(assistant["assistant_id"], schedule=RARELY, on_run_completed="keep")
    await client.assistants.update(assistant["assistant_id"], context={"model": "new"})
    await crons.update(made["cron_id"], schedule=EVERY_SECOND)
    cron = await fired(http, made["cron_id"])
    run = (await http.get(f"/runs/{cron['last_run_id']}")).json()
    assert run["kwargs"]["context"] == {"model": "new"}


async def test_search_and_count_filter_sort_and_page(crons: Any, http: httpx.AsyncClient, thread_id: str) -> None:
    a = (await crons.create("steps", schedule="0 0 1 2 *", metadata={"k": "a"}))["cron_id"]
    b = (await crons.create_for_thread(thread_id, "chat", schedule="0 0 1 1 *", metadata={"k": "b"}))["cron_id"]
    c = (await crons.create("chat", schedule="0 0 1 3 *", enabled=False))["cron_id"]

    async def found(**where: Any) -> list[str]:
        return [cron["cron_id"] for cron in await crons.search(**where)]

    assert await found() == [c, b, a]
    assert await found(assistant_id="steps") == await found(assistant_id=system_id("steps")) == [a]
    assert await found(thread_id=thread_id) == await found(metadata={"k": "b"}) == [b]
    assert await found(enabled=False) == [c]
    assert await found(sort_by="cron_id", sort_order="asc") == sorted([a, b, c])
    assert await found(sort_by="next_run_date", sort_order="desc", enabled=True) in ([a, b], [b, a])
    assert await found(limit=1, offset=1) == [b]
    assert [await crons.count(), await crons.count(assistant_id="chat"), await crons.count(metadata={"k": "a"})] == [
        3,
        2,
        1,
    ]
    assert await crons.count(thread_id=thread_id) == 1
    picked = await crons.search(select=["cron_id", "enabled", "now"], enabled=False)
    assert picked[0].keys() == {"cron_id", "enabled", "now"}
    assert "now" not in (await crons.search(enabled=False))[0]
    page = await http.post("/runs/crons/search", json={"limit": 2})
    assert (page.headers["x-pagination-total"], page.headers["x-pagination-next"]) == ("3", "2")
    assert (await http.post("/runs/crons/search", json={"select": ["nothing"]})).status_code == 422


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"schedule": "61 * * * *"}, "minute"),
        ({"schedule": "* * *"}, "3 fields"),
        ({"schedule": "* * * * * * *"}, "7 fields"),
        ({"schedule": "every day"}, "schedule"),
        ({"schedule": "0 0 31 2 *"}, "schedule"),
        ({"schedule": "* * */20 * 1L"}, "no date"),
        ({"schedule": ""}, "schedule"),
        ({"schedule": "1," * 200 + "1 * * * *"}, "256"),
        ({"schedule": 5}, "schedule"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"timezone": "America"}, "timezone"),
        ({"timezone": "../../etc/passwd"}, "timezone"),
        ({"timezone": "/etc/localtime"}, "timezone"),
        ({"timezone": None}, "timezone"),
        ({"end_time": "2020-01-01T00:00:00Z"}, "never run"),
        ({"end_time": "0001-01-01T00:00:00+14:00"}, "end_time"),
        ({"end_time": "tomorrow"}, "end_time"),
        ({"enabled": "yes"}, "enabled"),
        ({"missed": "all"}, "missed"),
        ({"overlap": "enqueue"}, "overlap"),
        ({"on_run_completed": "archive"}, "on_run_completed"),
        ({"stream_mode": "tools"}, "stream_mode"),
        ({"durability": "never"}, "durability"),
        ({"interrupt_before": 5}, "interrupt_before"),
        ({"webhook": "file:///etc/passwd"}, "webhook"),
        ({"config": {"recursion_limit": 0}}, "recursion_limit"),
        ({"multitask_strategy": "queue"}, "multitask_strategy"),
        ({"assistant_id": "nobody"}, "nobody"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_name(
    crons: Any, http: httpx.AsyncClient, body: dict[str, Any], named: str
) -> None:
    status, text = await refusal(http, **body)
    assert (status, named in text) == (422, True), text
    assert await crons.count() == 0


async def test_a_cron_whose_run_would_be_refused_is_not_made(
    crons: Any, client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    assert (await refusal(http, assistant_id=NOWHERE))[0] == 404
    assert (await refusal(http, f"/threads/{NOWHERE}/runs/crons"))[0] == 404
    assert (await refusal(http, "/threads/x/runs/crons"))[0] == 422
    assert (await refusal(http, config={"configurable": {"a": 1}}, context={"b": 1}))[0] == 400
    status, text = await refusal(http, f"/threads/{thread_id}/runs/crons", on_run_completed="delete")
    assert (status, "on_run_completed" in text) == (422, True)
    assert await crons.count() == 0
    made = await crons.create("steps", schedule=RARELY, config={"configurable": {"a": 1}})
    changed = await http.patch(f"/runs/crons/{made['cron_id']}", json={"context": {"b": 1}})
    assert changed.status_code == 400
    assert await read(http, made["cron_id"]) == made


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_an_id_that_is_no_uuid_is_422(http: httpx.AsyncClient, method: str) -> None:
    assert (await http.request(method, "/runs/crons/7", json={"enabled": True})).status_code == 422


async def test_a_restarted_server_goes_on(new_database: NewDatabase) -> None:
    database = new_database()
    with running_server(database) as server:
        async with sdk(server) as client, httpx.AsyncClient(base_url=server.url) as http:
            made = await client.crons.create(
                "steps", schedule=EVERY_SECOND, input={"steps": 1}, on_run_completed="keep"
            )
            before = await fired(http, made["cron_id"])
    with running_server(database) as server:
        async with sdk(server) as client, httpx.AsyncClient(base_url=server.url) as http:
            await fired(http, made["cron_id"], after=before["last_run_id"])


async def test_a_cron_and_its_runs_are_its_makers(tmp_path: Path) -> None:
    """Weakness 32 of the reference server: crons were visible across users."""
    with guarded_server(tmp_path, "stamping") as server:
        async with (
            httpx.AsyncClient(base_url=server.url, headers=bearer("alice")) as alice,
            httpx.AsyncClient(base_url=server.url, headers=bearer("bob")) as bob,
        ):
            thread_id = (await alice.post("/threads", json={})).json()["thread_id"]
            body = {"assistant_id": "configured", "schedule": EVERY_SECOND, "input": {}}
            made = (await alice.post(f"/threads/{thread_id}/runs/crons", json=body)).json()
            assert (made["user_id"], made["metadata"]) == ("alice", {"stamp": "alice"})
            cron = await fired(alice, made["cron_id"])
            assert cron["error"] is None
            await alice.delete(f"/runs/crons/{made['cron_id']}")
            path = f"/threads/{thread_id}/runs/{cron['last_run_id']}"
            shown = (await alice.get(f"{path}/join")).json()
            assert shown["user"]["identity"] == "alice"
            assert shown["user"]["permissions"] == ["alice:all"]
            assert (await alice.get(path)).json()["metadata"]["stamp"] == "alice"
            assert (await bob.get(path)).status_code == 404
            theirs = await bob.post(f"/threads/{thread_id}/runs/crons", json=body)
            assert theirs.status_code == 404
            rare = (await alice.post("/runs/crons", json={**body, "schedule": RARELY})).json()
            assert (await bob.get(f"/runs/crons/{rare['cron_id']}")).status_code == 404
            assert (await bob.post("/runs/crons/search", json={})).json() == []
            assert (await bob.post("/runs/crons/count", json={})).json() == 0
            assert (await alice.post("/runs/crons/count", json={})).json() == 1
            await alice.patch(f"/runs/crons/{rare['cron_id']}", json={"metadata": {"stamp": "bob", "m": 1}})
            assert (await read(alice, rare["cron_id"]))["metadata"] == {"stamp": "alice", "m": 1}


async def test_a_cron_shows_its_next_slots_in_its_time_zone(http: httpx.AsyncClient) -> None:
    body = {"assistant_id": "steps", "schedule": "0 9 * * 1-5", "timezone": "Europe/Berlin"}
    made = (await http.post("/runs/crons", json=body)).json()
    slots = [datetime.fromisoformat(slot) for slot in made["next_slots"]]
    assert [(slot.hour, slot.minute) for slot in slots] == [(9, 0)] * 5
    assert len({slot.date() for slot in slots}) == 5
    assert slots[0] == instant(made["next_run_date"])
    assert slots == sorted(slots)
    assert made["late_s"] is None
    changed = await http.patch(f"/runs/crons/{made['cron_id']}", json={"end_time": slots[1].isoformat()})
    assert len(changed.json()["next_slots"]) == 2
    paused = await http.patch(f"/runs/crons/{made['cron_id']}", json={"enabled": False})
    assert paused.json()["next_slots"] == []
    await http.delete(f"/runs/crons/{made['cron_id']}")


async def test_a_cron_is_run_by_hand_as_a_slot_would_run_it(
    crons: Any, client: LangGraphClient, http: httpx.AsyncClient
) -> None:
    made = await crons.create(
        "steps", schedule=RARELY, input={"steps": 2}, metadata={"m": 1}, on_run_completed="keep", enabled=False
    )
    answer = await http.post(f"/runs/crons/{made['cron_id']}/run")
    assert answer.status_code == 200, answer.text
    run = await ended(client, answer.json())
    assert answer.headers["location"] == f"/threads/{run['thread_id']}/runs/{run['run_id']}/stream"
    assert (run["status"], run["metadata"]["cron_id"], run["metadata"]["m"]) == ("success", made["cron_id"], 1)
    assert (await client.threads.get_state(run["thread_id"]))["values"]["done"] == [0, 1]
    assert await read(http, made["cron_id"]) == {
        **made,
        "last_run_id": run["run_id"],
        "recent_run_ids": [run["run_id"]],
    }
    found = (await http.post("/runs/search", json={"run_ids": [run["run_id"]]})).json()
    assert [one["status"] for one in found] == ["success"]


async def test_a_lost_answer_to_a_run_by_hand_makes_no_second_run(crons: Any, http: httpx.AsyncClient) -> None:
    body = {"assistant_id": "steps", "schedule": RARELY, "input": {"steps": 1, "delay_s": LONG_S}, "overlap": "skip"}
    cron_id = (await http.post("/runs/crons", json=body)).json()["cron_id"]
    key = {"idempotency-key": cron_id}
    first = (await http.post(f"/runs/crons/{cron_id}/run", headers=key)).json()
    again = await http.post(f"/runs/crons/{cron_id}/run", headers=key)
    assert (again.status_code, again.json()["run_id"]) == (200, first["run_id"])
    refused = await http.post(f"/runs/crons/{cron_id}/run")
    assert (refused.status_code, refused.json()["code"]) == (409, "cron_run_active")
    assert first["run_id"] in refused.text
    await http.post(f"/runs/{first['run_id']}/cancel?wait=true")
    other = (await http.post("/runs/crons", json=body)).json()["cron_id"]
    reused = await http.post(f"/runs/crons/{other}/run", headers=key)
    assert (reused.status_code, reused.json()["code"]) == (409, "idempotency_key_reused")


async def test_a_thread_that_is_busy_refuses_a_run_by_hand_if_the_strategy_rejects(
    crons: Any, client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    run = await begun(client, thread_id)
    made = await crons.create_for_thread(thread_id, "steps", schedule=RARELY, multitask_strategy="reject")
    refused = await http.post(f"/runs/crons/{made['cron_id']}/run")
    assert (refused.status_code, refused.json()["code"]) == (409, "thread_busy")
    await client.runs.cancel(thread_id, run["run_id"], wait=True)
    assert (await http.post(f"/runs/crons/{made['cron_id']}/run")).json()["thread_id"] == thread_id


async def test_who_may_start_no_run_on_its_thread_does_not_run_a_cron(tmp_path: Path) -> None:
    with guarded_server(tmp_path, "stamping") as server:
        async with (
            httpx.AsyncClient(base_url=server.url, headers=bearer("alice")) as alice,
            httpx.AsyncClient(base_url=server.url, headers=bearer("bob")) as bob,
        ):
            thread_id = (await alice.post("/threads", json={})).json()["thread_id"]
            body = {"assistant_id": "configured", "schedule": RARELY, "input": {}}
            for path in ("/runs/crons", f"/threads/{thread_id}/runs/crons"):
                cron_id = (await alice.post(path, json=body)).json()["cron_id"]
                assert (await bob.post(f"/runs/crons/{cron_id}/run")).status_code == 404
                run = (await alice.post(f"/runs/crons/{cron_id}/run")).json()
                told = (await alice.get(f"/threads/{run['thread_id']}/runs/{run['run_id']}/join")).json()
                assert told["user"]["permissions"] == ["alice:all"]
                assert run["metadata"]["stamp"] == "alice"
            assert len((await alice.get(f"/threads/{thread_id}/runs")).json()) == 1


def test_a_cron_whose_graph_the_server_has_no_more_can_be_paused_and_not_resumed(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/ledger.db"
    with running_server(database) as server:
        made = httpx.post(f"{server.url}/runs/crons", json={"assistant_id": "chat", "schedule": RARELY}).json()
    with running_server(database, Path(__file__).parent / "webhook_project" / "langgraph.json") as server:
        cron = f"{server.url}/runs/crons/{made['cron_id']}"
        assert httpx.patch(cron, json={"enabled": False}).json()["enabled"] is False
        assert httpx.patch(cron, json={"enabled": True}).status_code == 404
