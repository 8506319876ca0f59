"""Agents that call this server's assistants by the Agent2Agent protocol, in both of its versions."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient

from runlane.server.protocols.a2a.wire import METHODS
from server_kit import LONG_S, NOWHERE, begun, parse_frames, system_id

OLD, NEW = "0.3", "1.0"
NAMES = {version: {operation: method for method, operation in METHODS[version].items()} for version in METHODS}
CHAT = f"/a2a/{system_id('chat')}"


def message(version: str, text: str, **fields: Any) -> dict[str, Any]:
    part = {"kind": "text", "text": text} if version == OLD else {"text": text}
    role = "user" if version == OLD else "ROLE_USER"
    return {"role": role, "messageId": str(uuid4()), "parts": [part], **fields}


async def ask(
    http: httpx.AsyncClient, version: str, operation: str, params: Any, path: str = CHAT, **changes: Any
) -> httpx.Response:
    body = {"jsonrpc": "2.0", "id": "1", "method": NAMES[version][operation], "params": params, **changes}
    headers = {} if version == OLD else {"a2a-version": version}
    return await http.post(path, json=body, headers=headers)


async def result(http: httpx.AsyncClient, version: str, operation: str, params: Any, path: str = CHAT) -> Any:
    answer = await ask(http, version, operation, params, path)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["id"] == "1"
    assert "error" not in found, found
    return found["result"]


async def refusal(http: httpx.AsyncClient, version: str, operation: str, params: Any, path: str = CHAT) -> int:
    return int((await ask(http, version, operation, params, path)).json()["error"]["code"])


def task_in(version: str, found: Any) -> Any:
    return found if version == OLD else found["task"]


def state(version: str, name: str) -> str:
    return name if version == OLD else f"TASK_STATE_{name.upper().replace('-', '_')}"


@pytest.mark.parametrize(
    "path", [CHAT, f"{CHAT}/.well-known/agent-card.json", f"{CHAT}/.well-known/agent.json", "/a2a/chat"]
)
async def test_a_card_says_where_an_agent_is_and_how_it_is_spoken_to(http: httpx.AsyncClient, path: str) -> None:
    card = (await http.get(path)).json()
    assert card == (await http.get("/.well-known/agent-card.json", params={"assistant_id": system_id("chat")})).json()
    assert card["url"] == f"{str(http.base_url).rstrip('/')}{CHAT}"
    assert card["capabilities"] == {"streaming": True, "pushNotifications": False, "extendedAgentCard": False}
    assert [(one["protocolVersion"], one["url"]) for one in card["supportedInterfaces"]] == [
        (NEW, card["url"]),
        (OLD, card["url"]),
    ]
    assert {"name", "description", "version", "skills", "defaultInputModes", "protocolVersion"} <= card.keys()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/.well-known/agent-card.json", 400),
        (f"/a2a/{NOWHERE}", 404),
        (f"/a2a/{system_id('steps')}", 404),
        ("/a2a/nonsense", 422),
    ],
)
async def test_there_is_no_card_of_what_is_no_agent(http: httpx.AsyncClient, path: str, status: int) -> None:
    assert (await http.get(path)).status_code == status


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_a_message_is_answered_with_the_task_that_it_became(
    http: httpx.AsyncClient, client: LangGraphClient, version: str
) -> None:
    task = task_in(version, await result(http, version, "send", {"message": message(version, "hi")}))
    thread_id, _, run_id = task["id"].partition(":")
    assert (task["contextId"], task["status"]["state"]) == (thread_id, state(version, "completed"))
    [artifact] = task["artifacts"]
    assert [part["text"] for part in artifact["parts"]] == ["echo: hi"]
    assert ("kind" in task, "kind" in artifact["parts"][0]) == (version == OLD, version == OLD)
    assert (await client.runs.get(thread_id, run_id))["status"] == "success"
    again = await result(http, version, "get", {"id": task["id"], "historyLength": 5})
    assert again["artifacts"] == task["artifacts"]
    assert [(said["role"].lower()[-5:], said["parts"][0]["text"]) for said in again["history"]] == [
        ("user" if version == OLD else "_user", "hi"),
        ("agent", "echo: hi"),
    ]


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_a_context_is_a_conversation(http: httpx.AsyncClient, version: str) -> None:
    context = str(uuid4())
    for text in ("one", "two"):
        sent = {"message": message(version, text, contextId=context)}
        task = task_in(version, await result(http, version, "send", sent))
        assert task["contextId"] == context
    found = await result(http, version, "get", {"id": task["id"], "historyLength": 3})
    assert [said["parts"][0]["text"] for said in found["history"]] == ["echo: one", "two", "echo: two"]


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_a_stream_has_the_task_its_text_as_it_comes_and_how_it_ended(
    http: httpx.AsyncClient, version: str
) -> None:
    answer = await ask(http, version, "stream", {"message": message(version, "a b c")})
    assert answer.headers["content-type"].startswith("text/event-stream")
    frames = [frame for frame in parse_frames(answer.text) if frame.name != ":"]
    assert {frame.name for frame in frames} == {"message"}
    found = [frame.data["result"] for frame in frames]
    kinds = {"task": "task", "statusUpdate": "status-update", "artifactUpdate": "artifact-update"}
    if version == NEW:
        assert all(len(one) == 1 for one in found)
        found = [{"kind": kinds[name], **one[name]} for one in found for name in one]
    assert [found[0]["kind"], found[1]["kind"], found[-1]["kind"]] == ["task", "status-update", "status-update"]
    assert found[1]["status"]["state"] == state(version, "working")
    assert found[-1]["status"]["state"] == state(version, "completed")
    assert [one.get("final") for one in (found[1], found[-1])] == ([False, True] if version == OLD else [None, None])
    updates = [one for one in found if one["kind"] == "artifact-update"]
    assert "".join(part["text"] for one in updates for part in one["artifact"]["parts"]) == "echo: a b c"
    assert [one["append"] for one in updates] == [False, *[True] * (len(updates) - 1)]
    task = await result(http, version, "get", {"id": found[0]["id"]})
    assert task["artifacts"][0]["artifactId"] == updates[0]["artifact"]["artifactId"]


@pytest.mark.parametrize("version", [OLD, NEW])
async def test_who_does_not_wait_gets_the_task_at_once_and_can_cancel_it(
    http: httpx.AsyncClient, client: LangGraphClient, version: str
) -> None:
    thread_id = str((await client.threads.create())["thread_id"])
    first = await begun(client, thread_id)
    unhurried = {"blocking": False} if version == OLD else {"returnImmediately": True}
    sent = {"message": message(version, "later", contextId=thread_id), "configuration": unhurried}
    task = task_in(version, await result(http, version, "send", sent))
    assert task["status"]["state"] == state(version, "submitted")
    found = await result(http, version, "cancel", {"id": task["id"]})
    assert (found["id"], found["status"]["state"]) == (task["id"], state(version, "canceled"))
    assert await refusal(http, version, "cancel", {"id": task["id"]}) == -32002
    await client.runs.cancel(thread_id, first["run_id"], wait=True)


async def test_a_task_that_is_going_on_is_subscribed_to(http: httpx.AsyncClient, client: LangGraphClient) -> None:
    thread_id = str((await client.threads.create())["thread_id"])
    first = await begun(client, thread_id, input={"steps": 1, "delay_s": LONG_S})
    sent = {"message": message(OLD, "hi", contextId=thread_id), "configuration": {"blocking": False}}
    task = await result(http, OLD, "send", sent)
    body = {"jsonrpc": "2.0", "id": 1, "method": "tasks/resubscribe", "params": {"id": task["id"]}}
    async with http.stream("POST", CHAT, json=body) as response:
        await client.runs.cancel(thread_id, first["run_id"])
        text = "".join([piece async for piece in response.aiter_text()])
    frames = [frame for frame in parse_frames(text) if frame.name != ":"]
    assert frames[-1].data["result"]["status"]["state"] == "completed"
    assert await refusal(http, OLD, "subscribe", {"id": task["id"]}) == -32004


async def test_an_agent_that_asks_waits_for_input_and_is_answered_once(
    http: httpx.AsyncClient, client: LangGraphClient
) -> None:
    path = f"/a2a/{system_id('asking')}"
    task = await result(http, OLD, "send", {"message": message(OLD, "go")}, path)
    assert task["status"]["state"] == "input-required"
    assert "sure?" in task["status"]["message"]["parts"][0]["text"]
    assert "artifacts" not in task
    reply = {"message": message(OLD, "yes", taskId=task["id"], contextId=task["contextId"])}
    answered = await result(http, OLD, "send", reply, path)
    assert (answered["contextId"], answered["status"]["state"]) == (task["contextId"], "completed")
    assert answered["artifacts"][0]["parts"][0]["text"] == "you said yes"
    assert await refusal(http, OLD, "send", reply, path) == -32004


async def test_an_answer_reaches_the_question_of_its_task_and_no_other(http: httpx.AsyncClient) -> None:
    path = f"/a2a/{system_id('asking')}"
    first = await result(http, OLD, "send", {"message": message(OLD, "go")}, path)
    replies = [{"message": message(OLD, text, taskId=first["id"])} for text in ("one", "two", "three")]
    answers = [one.json() for one in await asyncio.gather(*(ask(http, OLD, "send", one, path) for one in replies))]
    assert sorted(one["error"]["code"] if "error" in one else 0 for one in answers) == [-32004, -32004, 0]
    sent = {"message": message(OLD, "again", contextId=first["contextId"])}
    second = await result(http, OLD, "send", sent, path)
    assert second["status"]["state"] == "input-required"
    assert await refusal(http, OLD, "send", replies[0], path) == -32004
    answered = await result(http, OLD, "send", {"message": message(OLD, "yes", taskId=second["id"])}, path)
    assert answered["artifacts"][0]["parts"][0]["text"] == "you said yes"


async def test_a_state_has_one_time_wherever_it_is_told(http: httpx.AsyncClient, client: LangGraphClient) -> None:
    sent = task_in(NEW, await result(http, NEW, "send", {"message": message(NEW, "hi")}))
    thread_id, _, run_id = sent["id"].partition(":")
    [listed] = (await result(http, NEW, "list", {"contextId": thread_id}))["tasks"]
    found = await result(http, NEW, "get", {"id": sent["id"]})
    assert sent["status"] == found["status"] == listed["status"]
    ended_at: Any = (await client.http.get(f"/threads/{thread_id}/runs/{run_id}"))["ended_at"]
    assert ended_at.startswith(sent["status"]["timestamp"].removesuffix("Z"))
    answer = await ask(http, NEW, "stream", {"message": message(NEW, "hi")})
    frames = [frame.data["result"] for frame in parse_frames(answer.text) if frame.name != ":"]
    found = await result(http, NEW, "get", {"id": frames[0]["task"]["id"]})
    assert frames[-1]["statusUpdate"]["status"] == found["status"]
    run: Any = await client.runs.get(*frames[0]["task"]["id"].split(":"))
    assert run["started_at"].startswith(frames[1]["statusUpdate"]["status"]["timestamp"].removesuffix("Z"))


async def test_the_tasks_of_a_context_are_listed_the_newest_state_first(http: httpx.AsyncClient) -> None:
    path, context = f"/a2a/{system_id('asking')}", str(uuid4())
    asked = await result(http, OLD, "send", {"message": message(OLD, "go", contextId=context)}, path)
    done = await result(http, OLD, "send", {"message": message(OLD, "yes", taskId=asked["id"])}, path)
    failed = await result(http, OLD, "send", {"message": message(OLD, "fail", contextId=context)}, path)

    async def listed(**params: Any) -> Any:
        return await result(http, NEW, "list", {"contextId": context, **params}, path)

    def ids(page: Any) -> list[str]:
        return [task["id"] for task in page["tasks"]]

    everything = await listed()
    assert ids(everything) == [failed["id"], done["id"], asked["id"]]
    assert {name: everything[name] for name in ("nextPageToken", "pageSize", "totalSize")} == {
        "nextPageToken": "",
        "pageSize": 50,
        "totalSize": 3,
    }
    assert not any("artifacts" in task or "history" in task for task in everything["tasks"])
    first = await listed(pageSize=2, includeArtifacts=True, historyLength=1)
    assert [part["text"] for part in first["tasks"][1]["artifacts"][0]["parts"]] == ["you said yes"]
    assert len(first["tasks"][1]["history"]) == 1
    second = await listed(pageSize=2, pageToken=first["nextPageToken"])
    assert (ids(first), ids(second)) == ([failed["id"], done["id"]], [asked["id"]])
    assert (first["totalSize"], second["nextPageToken"]) == (3, "")
    for state_, tasks in (("COMPLETED", [done]), ("INPUT_REQUIRED", [asked]), ("FAILED", [failed]), ("WORKING", [])):
        assert ids(await listed(status=f"TASK_STATE_{state_}")) == [task["id"] for task in tasks]
    assert ids(await listed(statusTimestampAfter=done["status"]["timestamp"])) == [failed["id"], done["id"]]
    asking = next(task for task in everything["tasks"] if task["id"] == asked["id"])
    assert asking["status"]["message"]["parts"][0]["text"] == "sure?"
    assert ids(await result(http, NEW, "list", {"contextId": context})) == []
    assert ids(await result(http, NEW, "list", {"contextId": NOWHERE}, path)) == []


@pytest.mark.parametrize(
    "params", [{}, {"pageSize": 0}, {"pageSize": 101}, {"pageToken": "x"}, {"status": "TASK_STATE_NONE"}]
)
async def test_a_list_that_cannot_be_made_is_refused(http: httpx.AsyncClient, params: Any) -> None:
    context = {"contextId": NOWHERE} if params else {}
    assert await refusal(http, NEW, "list", {**context, **params}) == -32602


async def test_a_task_that_fails_says_why(http: httpx.AsyncClient) -> None:
    task = await result(http, OLD, "send", {"message": message(OLD, "fail")}, f"/a2a/{system_id('asking')}")
    assert task["status"]["state"] == "failed"
    assert task["status"]["message"]["parts"][0]["text"] == "ValueError: no"


async def test_data_is_said_as_json(http: httpx.AsyncClient) -> None:
    sent = message(OLD, "x", parts=[{"kind": "data", "data": {"a": 1}}])
    task = await result(http, OLD, "send", {"message": sent})
    assert task["artifacts"][0]["parts"][0]["text"] == 'echo: {"a":1}'


@pytest.mark.parametrize(
    ("operation", "params", "code"),
    [
        ("send", {}, -32602),
        ("send", {"message": {"role": "user", "messageId": "1", "parts": []}}, -32602),
        ("send", {"message": message(OLD, "x", parts=[{"kind": "text"}])}, -32602),
        ("send", {"message": message(OLD, "x", parts=[{"kind": "file", "file": {"uri": "u"}}])}, -32005),
        ("send", {"message": message(OLD, "x", contextId="nonsense")}, -32602),
        ("send", {"message": message(OLD, "x", taskId=f"{NOWHERE}:{NOWHERE}")}, -32001),
        ("send", {"message": message(OLD, "x"), "configuration": {"pushNotificationConfig": {"url": "u"}}}, -32003),
        ("get", {"id": f"{NOWHERE}:{NOWHERE}"}, -32001),
        ("get", {"id": "nonsense"}, -32001),
        ("get", {}, -32602),
        ("cancel", {"id": NOWHERE}, -32001),
        ("push", {}, -32003),
        ("card", {}, -32007),
    ],
)
async def test_what_cannot_be_done_is_refused_in_the_protocols_own_words(
    http: httpx.AsyncClient, operation: str, params: Any, code: int
) -> None:
    assert await refusal(http, OLD, operation, params) == code


@pytest.mark.parametrize(
    ("body", "headers", "code"),
    [
        ("not json", {}, -32700),
        ("[]", {}, -32600),
        ('{"jsonrpc":"2.0","method":"tasks/get"}', {}, -32600),
        ('{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":[]}', {}, -32602),
        ('{"jsonrpc":"2.0","id":1,"method":"SendMessage"}', {}, -32601),
        ('{"jsonrpc":"2.0","id":1,"method":"message/send"}', {"a2a-version": "1.0"}, -32601),
        ('{"jsonrpc":"2.0","id":1,"method":"ListTasks"}', {"a2a-version": "1.0"}, -32602),
        ('{"jsonrpc":"2.0","id":1,"method":"GetTask"}', {"a2a-version": "2.0"}, -32009),
    ],
)
async def test_a_malformed_request_is_refused(
    http: httpx.AsyncClient, body: str, headers: dict[str, str], code: int
) -> None:
    answer = await http.post(CHAT, content=body, headers=headers)
    assert (answer.status_code, json.loads(answer.text)["error"]["code"]) == (200, code)


async def test_another_agents_task_is_not_found(http: httpx.AsyncClient) -> None:
    task = await result(http, OLD, "send", {"message": message(OLD, "hi")})
    assert await refusal(http, OLD, "get", {"id": task["id"]}, f"/a2a/{system_id('tools')}") == -32001
