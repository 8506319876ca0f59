"""Explanations over HTTP."""

from __future__ import annotations

from typing import Any

import httpx

from server_kit import LONG_S

SLOW = {"assistant_id": "steps", "input": {"steps": 2, "delay_s": LONG_S}}
STEP = {"assistant_id": "steps", "input": {"steps": 1}}


async def started(http: httpx.AsyncClient, thread_id: str, body: dict[str, Any]) -> str:
    run: str = (await http.post(f"/threads/{thread_id}/runs", json=body)).json()["run_id"]
    return run


async def explained(http: httpx.AsyncClient, path: str) -> dict[str, Any]:
    answer = await http.get(f"{path}/explain")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_run_that_waits_says_for_what(http: httpx.AsyncClient, thread_id: str) -> None:
    first, second = [await started(http, thread_id, body) for body in (SLOW, STEP)]
    waiting = await explained(http, f"/threads/{thread_id}/runs/{second}")
    assert waiting["sentence"].startswith(f"It waits for run {first} of its thread since ")
    assert [remedy["does"] for remedy in waiting["remedies"]] == ["withdraw it", f"cancel run {first}"]
    assert [remedy["command"] for remedy in waiting["remedies"]] == [
        f"runlane runs cancel {second}",
        f"runlane runs cancel {first}",
    ]
    for remedy in waiting["remedies"]:
        assert (await http.request(remedy["method"], remedy["path"])).status_code == 202


async def test_a_cancelled_run_says_who_cancelled_it(http: httpx.AsyncClient, thread_id: str) -> None:
    run_id = await started(http, thread_id, SLOW)
    await http.post(f"/runs/{run_id}/cancel", params={"wait": "true"})
    told = await explained(http, f"/runs/{run_id}")
    assert told["sentence"].startswith("A client of the API cancelled it.")
    [cancel] = [step for step in told["steps"] if step["kind"] == "cancel_requested"]
    assert (cancel["by"], cancel["source"], cancel["action"]) == ("api", "owner", "interrupt")
    assert (await http.get(f"/runs/{run_id}")).json()["cancel"]["source"] == "owner"


async def test_a_run_that_ended_says_what_the_thread_kept(http: httpx.AsyncClient, thread_id: str) -> None:
    await http.post(f"/threads/{thread_id}/runs/wait", json=STEP)
    run_id = (await http.get(f"/threads/{thread_id}/runs")).json()[0]["run_id"]
    told = await explained(http, f"/threads/{thread_id}/runs/{run_id}")
    checkpoint = (await http.get(f"/threads/{thread_id}/state")).json()["checkpoint"]["checkpoint_id"]
    assert told["sentence"] == "It completed."
    assert [step["kind"] for step in told["steps"]] == ["admitted", "claimed", "ended", "kept"]
    assert told["steps"][-1]["checkpoint_id"] == checkpoint
    rolled_back = await started(http, thread_id, SLOW)
    await http.post(f"/runs/{rolled_back}/cancel", params={"wait": "true", "action": "rollback"})
    state = (await http.get(f"/threads/{thread_id}/state")).json()
    assert state["checkpoint"]["checkpoint_id"] == checkpoint
