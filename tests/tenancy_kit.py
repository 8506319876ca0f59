"""What another tenant can ask of each route of the server, and what may be answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import httpx

from runlane.server.api import RESOURCES
from runlane.server.http.route import Route

RUN = {"assistant_id": "steps", "input": {"steps": 1}}
NOTE = {"namespace": ["notes"], "key": "diary"}
RPC = {"jsonrpc": "2.0", "id": 1}
LIST_TOOLS = {**RPC, "method": "tools/list"}
#: The graph that examples are about: it takes messages.
GRAPH = "chat"
#: Not due while a test runs.
LATER = {"after_seconds": 86_400}


@dataclass(frozen=True, kw_only=True)
class Belongings:
    """The ids of what a tenant has: a thread with a run that has ended, one with a run that waits, and more."""

    secret: str
    thread_id: str
    run_id: str
    checkpoint_id: str
    waiting_thread_id: str
    waiting_run_id: str
    assistant_id: str
    agent_id: str
    cron_id: str


def belongings(client: httpx.Client, secret: str) -> Belongings:
    """Make some of everything for the user of *client*."""

    def made(path: str, body: Any) -> Any:
        answer = client.post(path, json=body)
        assert answer.status_code == 200, (path, answer.text)
        return answer.json()

    threads = [made("/threads", {"metadata": {"secret": secret}})["thread_id"] for _ in range(2)]
    made(f"/threads/{threads[0]}/runs/wait", {**RUN, "webhook": "https://hooks.invalid/told"})
    assistant = {"graph_id": "steps", "name": secret, "metadata": {"secret": secret}}
    cron = {"schedule": "0 0 1 1 *", **RUN, "metadata": {"secret": secret}}
    put = client.put("/store/items", json={**NOTE, "value": {"secret": secret}})
    assert put.status_code == 204, put.text
    return Belongings(
        secret=secret,
        thread_id=threads[0],
        run_id=client.get(f"/threads/{threads[0]}/runs").json()[0]["run_id"],
        checkpoint_id=client.get(f"/threads/{threads[0]}/state").json()["checkpoint"]["checkpoint_id"],
        waiting_thread_id=threads[1],
        waiting_run_id=made(f"/threads/{threads[1]}/runs", {**RUN, **LATER})["run_id"],
        assistant_id=made("/assistants", assistant)["assistant_id"],
        agent_id=made("/assistants", {**assistant, "graph_id": "chat"})["assistant_id"],
        cron_id=made(f"/threads/{threads[0]}/runs/crons", cron)["cron_id"],
    )


def routes() -> dict[str, Route]:
    """Return every route that the server has and not everybody may ask, by its name."""
    return {route.name: route for resource in RESOURCES for route in resource.routes if not route.public}


def addressed() -> dict[str, Route]:
    """Return the routes whose path names what of a tenant they are about; of views everybody names their own."""
    others = ("/views/", "/operator/")
    return {name: route for name, route in routes().items() if route.parameters and not any(o in name for o in others)}


def body_of(route: Route, has: Belongings) -> Any:
    """Return the route's example about what *has* names; ``None`` if it takes no body."""
    return _about(route.example, {**asdict(has), "assistant_id": GRAPH})


def _about(example: Any, ids: Mapping[str, str]) -> Any:
    if isinstance(example, list):
        return [_about(one, ids) for one in example]
    if not isinstance(example, dict):
        return example
    return {name: ids.get(name) or _about(value, ids) for name, value in example.items()}


Answer = Callable[[httpx.Response], bool]


def status(expected: int) -> Answer:
    return lambda answer: answer.status_code == expected


def exactly(expected: Any) -> Answer:
    return lambda answer: answer.status_code == 200 and answer.json() == expected


def has_only(**fields: Any) -> Answer:
    return lambda answer: answer.status_code == 200 and fields.items() <= answer.json().items()


def refused_by_rpc(answer: httpx.Response) -> bool:
    """Return whether a JSON-RPC call was refused before anything ran."""
    return answer.status_code == 200 and "error" in answer.json()


def foreign(has: Belongings) -> dict[str, list[tuple[Any, Answer]]]:
    """Return what is asked of the routes without ids in their path, in bodies with the ids of *has*, and the answers.

    Who asks has nothing.
    """
    call = {**RPC, "method": "tools/call", "params": {"name": has.secret, "arguments": {"steps": 1}}}
    theirs = {**RUN, "assistant_id": has.assistant_id}

    def unseen(answer: httpx.Response) -> bool:
        return answer.status_code == 200 and has.secret not in answer.text

    mine = {"metadata": {"secret": has.secret}}
    return {
        "POST /runs": [(theirs, status(404))],
        "POST /runs/wait": [(theirs, status(404))],
        "POST /runs/stream": [(theirs, status(404))],
        "POST /runs/batch": [([theirs], status(404))],
        "POST /runs/cancel": [
            ({"thread_id": has.waiting_thread_id, "run_ids": [has.waiting_run_id]}, status(404)),
            ({"status": "all"}, status(404)),
        ],
        "POST /runs/bulk/preview": [
            ({"action": action, "filter": which}, has_only(matched=0, not_found=missing))
            for action in ("cancel", "retry")
            for which, missing in (
                ({}, 0),
                ({"owner": "alice"}, 0),
                ({"thread_id": has.waiting_thread_id}, 0),
                ({"run_ids": [has.waiting_run_id, has.run_id]}, 2),
            )
        ],
        "POST /runs/bulk": [
            (
                {"action": action, "filter": {"run_ids": [has.waiting_run_id]}, "bound": "999999"},
                exactly(_nothing_found(action, has.waiting_run_id)),
            )
            for action in ("cancel", "rollback", "retry")
        ],
        "POST /runs/search": [
            ({}, exactly([])),
            ({"thread_id": has.thread_id}, exactly([])),
            ({"owner": "alice"}, exactly([])),
            ({"text": has.run_id}, exactly([])),
        ],
        "POST /watch": [
            ({"runs": [{"run_id": has.run_id, "after": "-"}]}, status(200))
        ],  # and told of none: test_watch
        "POST /interrupts/search": [({}, exactly([])), ({"owner": "alice"}, exactly([]))],
        "POST /interrupts/answered": [({}, exactly([])), ({"thread_id": has.thread_id}, exactly([]))],
        "POST /runs/crons": [({"schedule": "0 0 1 1 *", **theirs}, status(404))],
        "POST /runs/crons/search": [({}, exactly([])), ({"thread_id": has.thread_id}, exactly([]))],
        "POST /runs/crons/count": [({}, exactly(0))],
        "POST /threads": [
            ({"thread_id": has.thread_id, "if_exists": way}, status(409)) for way in ("raise", "do_nothing")
        ],
        "POST /threads/search": [
            ({}, exactly([])),
            ({"ids": [has.thread_id]}, exactly([])),
            ({"owner": "alice"}, exactly([])),
            (mine, exactly([])),
        ],
        "POST /threads/count": [({}, exactly(0)), ({"owner": "alice"}, exactly(0)), (mine, exactly(0))],
        "POST /threads/prune": [({"thread_ids": [has.thread_id]}, has_only(pruned_count=0))],
        "POST /assistants": [
            ({"assistant_id": has.assistant_id, "graph_id": "steps", "if_exists": way}, status(409))
            for way in ("raise", "do_nothing")
        ],
        "POST /assistants/search": [(mine, exactly([])), ({"name": has.secret}, exactly([]))],
        "POST /assistants/count": [(mine, exactly(0)), ({"name": has.secret}, exactly(0))],
        "GET /store/items": [({"namespace": "notes", "key": "diary"}, exactly(None))],
        "POST /store/items/search": [({"namespace_prefix": []}, exactly({"items": []}))],
        "POST /store/namespaces": [({}, exactly({"namespaces": []}))],
        "DELETE /store/items": [(NOTE, status(204))],
        "PUT /store/items": [({**NOTE, "value": {"secret": "none"}}, status(204))],
        "GET /.well-known/agent-card.json": [({"assistant_id": has.agent_id}, status(404))],
        "GET /webhooks": [({}, lambda answer: has.run_id not in answer.text)],
        "GET /me": [({}, unseen)],
        "GET /views": [({}, exactly([]))],
        "PUT /views/{page}/{name:path}": [({"query": ""}, status(422))],
        "DELETE /views/{page}/{name:path}": [(None, status(422))],
        "GET /audit": [({}, status(403))],
        "POST /operator/workers/{worker_id}/drain": [({}, status(403))],
        "DELETE /operator/workers/{worker_id}/drain": [({}, status(403))],
        "GET /operator/doctor": [({}, status(403))],
        "POST /operator/doctor": [({}, status(403))],
        "POST /operator/doctor/repair": [({"findings": ["0" * 16]}, status(403))],
        "GET /operator/limits": [({}, status(403))],
        "GET /operator/settings": [({}, status(403))],
        "GET /operator/workers": [({}, status(403))],
        "GET /keys": [({}, status(403))],
        "GET /operator/overview": [({}, status(403))],
        "GET /operator/failures": [({}, status(403))],
        "GET /operator/totals": [({}, lambda answer: "alice" not in answer.text), ({"owner": "alice"}, status(403))],
        "POST /mcp": [(LIST_TOOLS, unseen), (call, refused_by_rpc)],
    }


def _nothing_found(action: str, run_id: str) -> dict[str, Any]:
    """Return the answer of a bulk action on a run of somebody else."""
    found = {"run_id": run_id, "thread_id": None, "outcome": "not_found", "status": None}
    result = {**found, "reason": None, "sentence": None, "retry_run_id": None}
    return {"action": action, "done": 0, "refused": 0, "not_found": 1, "results": [result], "next": None}


def path_of(name: str, has: Belongings) -> tuple[str, str]:
    """Return the method and the path of a route with ids of *has*; a cancel is about the run that waits."""
    method, _, template = name.partition(" ")
    ids = {**asdict(has), "namespace:path": "child", "page": "runs", "name:path": "mine", "worker_id": "nobody"}
    if template.endswith("/cancel"):
        ids |= {"thread_id": has.waiting_thread_id, "run_id": has.waiting_run_id}
    if template.startswith("/a2a/"):
        ids["assistant_id"] = has.agent_id
    for key, value in ids.items():
        template = template.replace(f"{{{key}}}", value)
    assert "{" not in template, f"{name} has an id that no tenant has here: give it to Belongings"
    return method, template


def ask(client: httpx.Client, method: str, path: str, body: Any = None) -> httpx.Response:
    """Send a request and read the answer, unless it is a stream that never ends."""
    sent = {"params": body} if method == "GET" else {"json": body} if body is not None else {}
    request = client.build_request(method, path, **sent)
    answer = client.send(request, stream=True)
    if not answer.headers.get("content-type", "").startswith("text/event-stream"):
        answer.read()
    answer.close()
    return answer
