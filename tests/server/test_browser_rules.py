"""Every request that a chat page sends, as a browser sends it: from another origin, and after asking whether it may."""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import uuid4

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from server_kit import LONG_S, Frame, begun, ended, parse_frames

ORIGIN = "https://chat.example"
#: What no preflight is needed for; a browser asks first about other headers and methods. Source: the Fetch standard.
SAFE_HEADERS = {"accept", "accept-language", "content-language"}
SAFE_TYPES = {"text/plain;charset=UTF-8"}
#: What a script of another origin sees of an answer without being allowed more.
SAFE_ANSWERS = {"cache-control", "content-language", "content-length", "content-type", "expires", "last-modified"}
FORM = {
    "stream_mode": ["values", "messages-tuple", "custom"],
    "stream_subgraphs": True,
    "stream_resumable": True,
    "on_disconnect": "continue",
}


class Page:
    """Scripts of a page: they see what a browser would show them."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def fetch(
        self, method: str, path: str, body: Any = None, *, kind: str = "application/json", **headers: str
    ) -> tuple[httpx.Response, dict[str, str]]:
        """Return the answer and the headers that a script may read."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        content = None if body is None else json.dumps(body)
        if content is not None:
            given["content-type"] = kind
        await self._ask(method, path, given)
        answer = await self._http.request(method, path, content=content, headers={"origin": ORIGIN, **given})
        assert answer.headers["access-control-allow-origin"] in ("*", ORIGIN)
        shown = _names(answer.headers.get("access-control-expose-headers", "")) | SAFE_ANSWERS
        return answer, {name: value for name, value in answer.headers.items() if name in shown}

    async def _ask(self, method: str, path: str, headers: dict[str, str]) -> None:
        asked = {name for name, value in headers.items() if name not in SAFE_HEADERS and value not in SAFE_TYPES}
        if method in ("GET", "POST", "HEAD") and not asked:
            return
        question = {"origin": ORIGIN, "access-control-request-method": method}
        if asked:
            question["access-control-request-headers"] = ",".join(sorted(asked))
        answer = await self._http.options(path, headers=question)
        assert answer.status_code == 200, answer.text
        assert answer.headers["access-control-allow-origin"] in ("*", ORIGIN)
        assert asked <= _names(answer.headers["access-control-allow-headers"])
        assert method in re.split(", *", answer.headers["access-control-allow-methods"])


def _names(header: str) -> set[str]:
    return {name.strip().lower() for name in header.split(",")}


@pytest.fixture
def page(http: httpx.AsyncClient) -> Page:
    return Page(http)


def message(text: str) -> dict[str, Any]:
    return {"messages": [{"id": str(uuid4()), "type": "human", "content": [{"type": "text", "text": text}]}]}


def events(answer: httpx.Response) -> list[Frame]:
    return [frame for frame in parse_frames(answer.text) if frame.name != ":"]


async def sent(page: Page, thread_id: str, **body: Any) -> tuple[list[Frame], dict[str, str]]:
    """Send what a form sends, and return the events and the headers that the page sees."""
    answer, shown = await page.fetch(
        "POST", f"/threads/{thread_id}/runs/stream", {"assistant_id": "chat", **FORM, **body}
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return events(answer), shown


async def states(page: Page, thread_id: str) -> list[Any]:
    return list((await page.fetch("POST", f"/threads/{thread_id}/history", {"limit": 10}))[0].json())


@pytest.mark.parametrize("headers", [{}, {"x_api_key": "k", "x_auth_scheme": "langsmith"}])
async def test_row_1_the_page_learns_that_the_server_is_there(page: Page, headers: dict[str, str]) -> None:
    answer, _ = await page.fetch("GET", "/info", **headers)
    assert answer.is_success


@pytest.mark.parametrize("key", ["graph_id", "assistant_id"])
async def test_row_2_the_list_of_threads_is_found_by_what_ran_on_them(page: Page, thread_id: str, key: str) -> None:
    said = message("a title")
    await sent(page, thread_id, input=said)
    mine = (await page.fetch("GET", f"/threads/{thread_id}"))[0].json()["metadata"]
    query = {"metadata": {key: mine[key]}, "limit": 100, "offset": 0}
    found = (await page.fetch("POST", "/threads/search", query))[0].json()
    [listed] = [one for one in found if one["thread_id"] == thread_id]
    assert listed["values"]["messages"][0]["content"] == said["messages"][0]["content"]


async def test_row_3_a_thread_is_made_idle_and_without_values(page: Page) -> None:
    made = (await page.fetch("POST", "/threads", {"metadata": {}}))[0].json()
    assert made["thread_id"]
    assert (made["status"], made["values"]) == ("idle", None)


async def test_row_4_a_message_keeps_its_id_and_the_page_sees_where_its_run_is(page: Page, thread_id: str) -> None:
    said = message("hi")
    frames, shown = await sent(page, thread_id, input=said)
    run_id = frames[0].data["run_id"]
    assert shown["content-location"] == f"/threads/{thread_id}/runs/{run_id}"
    assert shown["location"] == f"/threads/{thread_id}/runs/{run_id}/stream"
    values = [frame.data for frame in frames if frame.name == "values"]
    assert values[-1]["messages"][0]["id"] == said["messages"][0]["id"]
    assert all(frame.id for frame in frames if frame.name in ("values", "messages", "metadata"))


async def test_row_5_an_edited_message_forks_and_both_branches_are_in_the_history(page: Page, thread_id: str) -> None:
    await sent(page, thread_id, input=message("one"))
    root = (await states(page, thread_id))[-1]["checkpoint"]
    at = {"checkpoint_id": root["checkpoint_id"], "checkpoint_ns": ""}
    frames, _ = await sent(page, thread_id, input=message("two"), checkpoint=at)
    texts = [one["content"] for one in [f.data for f in frames if f.name == "values"][-1]["messages"]]
    assert texts == [[{"type": "text", "text": "two"}], "echo: two"]
    parents = [state["parent_checkpoint"] for state in await states(page, thread_id)]
    assert sum(parent is not None and parent["checkpoint_id"] == root["checkpoint_id"] for parent in parents) == 2


async def test_row_6_an_answer_is_made_again_from_its_checkpoint(page: Page, thread_id: str) -> None:
    await sent(page, thread_id, input=message("one"))
    before = (await states(page, thread_id))[1]["checkpoint"]
    await sent(page, thread_id, checkpoint={"checkpoint_id": before["checkpoint_id"], "checkpoint_ns": ""})
    head = (await states(page, thread_id))[0]
    assert len(head["values"]["messages"]) == 2
    assert head["next"] == []


async def test_row_7_a_decision_reaches_the_question_although_an_empty_input_came_with_it(
    page: Page, thread_id: str
) -> None:
    await sent(page, thread_id, assistant_id="approval", input={"topic": "x"})
    command = {"resume": {"decisions": [{"type": "approve"}]}}
    more = {"command": command, "stream_resumable": False, "on_disconnect": "cancel"}
    frames, _ = await sent(page, thread_id, assistant_id="approval", input={}, **more)
    last = [frame.data for frame in frames if frame.name == "values"][-1]
    assert last["answers"] == [{"decisions": [{"type": "approve"}]}]


async def test_row_8_a_thread_can_be_marked_as_resolved(page: Page, thread_id: str) -> None:
    await sent(page, thread_id, assistant_id="approval", input={"topic": "x"})
    frames, _ = await sent(page, thread_id, assistant_id="approval", input={}, command={"goto": "__end__"})
    assert "error" not in {frame.name for frame in frames}


async def test_row_9_a_history_has_what_branches_and_questions_are_drawn_from(page: Page, thread_id: str) -> None:
    await sent(page, thread_id, assistant_id="approval", input={"topic": "x"})
    head, *_, root = await states(page, thread_id)
    assert head["tasks"][0]["interrupts"][0]["value"] == {"question": "approve?", "topic": "x"}
    assert head["tasks"][0]["interrupts"][0]["id"]
    assert head["next"] == ["ask"]
    assert {"checkpoint_id", "checkpoint_ns", "thread_id"} <= set(head["checkpoint"])
    assert root["parent_checkpoint"] is None
    assert {"values", "created_at", "metadata", "parent_checkpoint"} <= set(head)


async def test_row_10_a_reloaded_page_gets_every_frame_from_the_first(page: Page, thread_id: str) -> None:
    frames, shown = await sent(page, thread_id, input=message("a b"))
    path = f"{shown['location']}?cancel_on_disconnect=0"
    answer, _ = await page.fetch("GET", path, last_event_id="-1")
    assert events(answer) == frames


async def test_row_11_a_run_is_cancelled_without_a_body_and_the_thread_stays_usable(
    page: Page, client: LangGraphClient, thread_id: str
) -> None:
    run = await begun(client, thread_id)
    answer, _ = await page.fetch("POST", f"/threads/{thread_id}/runs/{run['run_id']}/cancel?wait=0&action=interrupt")
    assert (answer.status_code, answer.content) == (202, b"")
    assert (await ended(client, run))["status"] == "interrupted"
    frames, _ = await sent(page, thread_id, input=message("next"))
    assert frames[-1].data["status"] == "success"


async def test_row_12_a_broken_connection_goes_on_after_the_last_event(page: Page, thread_id: str) -> None:
    frames, shown = await sent(page, thread_id, input=message("a b"))
    middle = len(frames) // 2
    answer, _ = await page.fetch("GET", shown["location"], last_event_id=frames[middle].id)
    assert events(answer) == frames[middle + 1 :]


async def test_a_body_that_a_proxy_calls_text_is_read_as_json(page: Page) -> None:
    made, _ = await page.fetch("POST", "/threads", {"metadata": {"a": 1}}, kind="text/plain;charset=UTF-8")
    assert made.json()["metadata"] == {"a": 1}


async def test_a_page_that_leaves_does_not_end_a_run_that_shall_continue(
    page: Page, client: LangGraphClient, http: httpx.AsyncClient, thread_id: str
) -> None:
    body = {"assistant_id": "steps", "input": {"steps": 2, "delay_s": LONG_S}, **FORM}
    async with http.stream("POST", f"/threads/{thread_id}/runs/stream", json=body) as response:
        run_id = response.headers["content-location"].rpartition("/")[2]
    answer, _ = await page.fetch("GET", f"/threads/{thread_id}/runs/{run_id}")
    assert answer.json()["status"] in ("pending", "running")
    await client.runs.cancel(thread_id, run_id, wait=True)
