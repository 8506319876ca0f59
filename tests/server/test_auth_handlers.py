"""What users may touch: the application's own handlers decide, and where none does each user has what they made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from auth_kit import bearer, guarded_server
from server_kit import NOWHERE, PATIENCE_S

Login = Callable[[str], httpx.Client]
RUN = {"assistant_id": "configured", "input": {}}


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Login]]:
    """Give a function that serves with an ``Auth`` of the tests and returns clients by the name of their user."""
    with ExitStack() as stack:

        def start(auth: str, **settings: str) -> Login:
            server = stack.enter_context(guarded_server(tmp_path, auth, **settings))

            def login(name: str) -> httpx.Client:
                client = httpx.Client(base_url=server.url, headers=bearer(name), timeout=PATIENCE_S)
                return stack.enter_context(client)

            return login

        yield start


def thread_of(client: httpx.Client) -> str:
    return str(client.post("/threads", json={}).json()["thread_id"])


def test_the_most_specific_handler_is_asked_and_may_change_what_is_made(serve: Callable[..., Login]) -> None:
    ann = serve("ranked")("ann")
    thread = ann.post("/threads", json={"metadata": {"mine": 1}}).json()
    assert thread["metadata"] == {"mine": 1, "by": "both threads.create"}
    changed = ann.patch(f"/threads/{thread['thread_id']}", json={"metadata": {}}).json()
    assert changed["metadata"]["by"] == "resource threads.update"
    assistant = ann.post("/assistants", json={"graph_id": "chat"}).json()
    assert assistant["metadata"]["by"] == "action assistants.create"
    changed = ann.patch(f"/assistants/{assistant['assistant_id']}", json={"name": "x"}).json()
    assert changed["metadata"]["by"] == "global assistants.update"


def test_a_handler_says_who_created_an_assistant(serve: Callable[..., Login]) -> None:
    ann = serve("naming")("ann")
    made = ann.post("/assistants", json={"graph_id": "chat", "metadata": {"created_by": "eve"}}).json()
    assert made["metadata"]["created_by"] == "ann"


def test_each_answer_of_a_handler_is_what_it_says(serve: Callable[..., Login]) -> None:
    login = serve("verdicts")
    path = f"/threads/{thread_of(login('yes'))}"
    answers = {name: login(name).get(path) for name in ("yes", "no", "asserting", "legal")}
    assert {name: one.status_code for name, one in answers.items()} == {
        "yes": 200,
        "no": 403,
        "asserting": 403,
        "legal": 451,
    }
    assert answers["no"].json()["detail"] == "Forbidden: threads.read is not allowed for this user."
    assert answers["asserting"].json()["detail"] == "Not on Mondays."
    assert answers["legal"].headers["link"] == "<https://law.example>"


@pytest.mark.parametrize("name", ["broken", "list", "ne", "text"])
def test_a_handler_that_fails_or_says_nothing_that_means_something_lets_nobody_in(
    serve: Callable[..., Login], name: str
) -> None:
    login = serve("verdicts")
    answer = login(name).get(f"/threads/{thread_of(login('yes'))}")
    assert answer.status_code == 500
    assert "token" not in answer.text


def test_a_filter_shares_what_it_matches_and_nothing_else(serve: Callable[..., Login]) -> None:
    login = serve("sharing")
    ann, bob, eve = (login(name) for name in ("ann@red", "bob@red", "eve@blue"))
    thread_id = thread_of(ann)
    assert bob.get(f"/threads/{thread_id}").json()["metadata"]["teams"] == ["red"]
    assert [one["thread_id"] for one in bob.post("/threads/search", json={}).json()] == [thread_id]
    assert eve.get(f"/threads/{thread_id}").status_code == 404
    assert eve.patch(f"/threads/{thread_id}", json={"metadata": {"teams": ["blue"]}}).status_code == 404
    assert eve.post("/threads/search", json={}).json() == []
    assert eve.post("/threads/search", json={}).headers["x-pagination-total"] == "0"
    assert eve.post("/threads/count", json={}).json() == 0
    run_id = ann.post(f"/threads/{thread_id}/runs", json={"assistant_id": "steps", "input": {"steps": 1}}).json()[
        "run_id"
    ]
    assert [one["run_id"] for one in bob.post("/runs/search", json={}).json()] == [run_id]
    assert eve.post("/runs/search", json={"thread_id": thread_id}).json() == []
    given = {"thread_id": thread_id, "if_exists": "do_nothing"}
    assert bob.post("/threads", json=given).json()["thread_id"] == thread_id
    assert eve.post("/threads", json=given).status_code == 409
    assert bob.post("/threads", json={"thread_id": thread_id}).status_code == 409


def test_a_run_on_a_shared_thread_is_its_users_own_and_reached_through_the_thread(serve: Callable[..., Login]) -> None:
    login = serve("sharing")
    ann, bob, eve = (login(name) for name in ("ann@red", "bob@red", "eve@blue"))
    thread_id = thread_of(ann)
    shown = bob.post(f"/threads/{thread_id}/runs/wait", json=RUN).json()
    assert (shown["options"]["user_id"], shown["user"]["identity"]) == ("bob", "bob")
    [run] = ann.get(f"/threads/{thread_id}/runs").json()
    for path in (f"/threads/{thread_id}/runs/{run['run_id']}", f"/runs/{run['run_id']}"):
        assert ann.get(path).status_code == 200
        assert eve.get(path).status_code == 404
    for if_not_exists in ("create", "reject"):
        refused = eve.post(f"/threads/{thread_id}/runs", json={**RUN, "if_not_exists": if_not_exists})
        assert refused.status_code == 404
    waiting = bob.post(f"/threads/{thread_id}/runs", json={**RUN, "after_seconds": 900}).json()
    named = {"thread_id": thread_id, "run_ids": [waiting["run_id"]]}
    assert eve.post("/runs/cancel", json=named).status_code == 404
    assert eve.post("/runs/cancel", json={"status": "all"}).status_code == 404
    assert ann.post("/runs/cancel", json={"status": "all"}).status_code == 204
    bob.post(f"/threads/{thread_id}/runs", json={**RUN, "after_seconds": 900})
    assert bob.delete(f"/threads/{thread_id}").status_code == 403
    assert ann.delete(f"/threads/{thread_id}").status_code == 204
    assert bob.get(f"/threads/{thread_id}").status_code == 404


def test_a_thread_that_a_run_makes_has_what_the_handler_put_on_the_run(serve: Callable[..., Login]) -> None:
    login = serve("sharing")
    ann, bob = login("ann@red"), login("bob@red")
    ann.post(f"/threads/{NOWHERE}/runs/wait", json={**RUN, "if_not_exists": "create"})
    assert bob.get(f"/threads/{NOWHERE}").status_code == 200
    kept = ann.post("/runs", json={**RUN, "on_completion": "keep"}).json()
    assert bob.get(f"/runs/{kept['run_id']}").status_code == 200


def test_who_may_only_look_cannot_cancel_by_any_way(serve: Callable[..., Login]) -> None:
    login = serve("sharing")
    ann, guest = login("ann@red"), login("guest@red")
    thread_id = thread_of(ann)
    run = ann.post(f"/threads/{thread_id}/runs", json={**RUN, "after_seconds": 900}).json()
    path = f"/threads/{thread_id}/runs/{run['run_id']}"
    assert guest.get(path).status_code == 200
    for refused in (
        guest.post(f"{path}/cancel"),
        guest.get(f"{path}/join?cancel_on_disconnect=true"),
        guest.get(f"{path}/stream?cancel_on_disconnect=true"),
        guest.post("/runs/cancel", json={"status": "all"}),
        guest.post(f"/threads/{thread_id}/state", json={"values": {}}),
    ):
        assert (refused.status_code, refused.json()["detail"]) == (403, "Guests only look.")
    assert ann.get(path).json()["status"] == "pending"


def test_without_a_handler_a_user_has_what_they_made(serve: Callable[..., Login]) -> None:
    """Weakness 32 of the reference server: crons and assistants of all were everybody's."""
    login = serve("sharing")
    ann, bob = login("ann@red"), login("bob@red")
    cron = ann.post("/runs/crons", json={"schedule": "0 0 1 1 *", **RUN}).json()
    assistant = ann.post("/assistants", json={"graph_id": "chat", "name": "Ann's"}).json()
    assert ann.get(f"/runs/crons/{cron['cron_id']}").status_code == 200
    assert bob.get(f"/runs/crons/{cron['cron_id']}").status_code == 404
    assert bob.post("/runs/crons/search", json={}).json() == []
    assert bob.get(f"/assistants/{assistant['assistant_id']}").status_code == 404
    assert "Ann's" not in bob.post("/assistants/search", json={"limit": 100}).text
    taken = {"assistant_id": assistant["assistant_id"], "input": {}}
    assert bob.post("/runs/wait", json=taken).status_code == 404
    assert bob.post("/runs/wait", json=RUN).status_code == 200, "a graph's own assistant is everybody's"


def test_items_of_the_store_are_their_owners_under_the_namespace_that_a_handler_chooses(
    serve: Callable[..., Login],
) -> None:
    login = serve("sharing")
    ann, bob = login("ann@red"), login("bob@red")
    ann.put("/store/items", json={"namespace": ["notes"], "key": "k", "value": {"v": 1}})
    found = ann.get("/store/items?namespace=notes&key=k").json()
    assert (found["namespace"], found["value"]) == (["red", "notes"], {"v": 1})
    assert len(ann.post("/store/items/search", json={"namespace_prefix": []}).json()["items"]) == 1
    assert ann.post("/store/namespaces", json={}).json()["namespaces"] == [["red", "notes"]]
    assert bob.get("/store/items?namespace=notes&key=k").json() is None


@pytest.mark.parametrize(("missing", "read", "made"), [("own", 404, 200), ("allow", 200, 200), ("deny", 403, 403)])
def test_the_setting_says_what_happens_without_a_handler(
    serve: Callable[..., Login], missing: str, read: int, made: int
) -> None:
    login = serve("verdicts", auth_missing_handler=missing)
    ann, bob = login("ann"), login("bob")
    answer = ann.post("/assistants", json={"graph_id": "chat"})
    assert answer.status_code == made
    path = f"/assistants/{answer.json().get('assistant_id', NOWHERE)}"
    assert bob.get(path).status_code == read


def test_a_handler_may_read_the_body_which_the_route_reads_too(serve: Callable[..., Login]) -> None:
    nobody = serve("reading")("nobody")
    thread = nobody.post("/threads", json={"metadata": {"sender": "ann"}}).json()
    assert thread["metadata"] == {"sender": "ann"}
    assert nobody.get(f"/threads/{thread['thread_id']}?sender=ann").status_code == 200
    assert nobody.get(f"/threads/{thread['thread_id']}?sender=bob").status_code == 404
    assert nobody.post("/threads", content=b"{").status_code == 422
    assert nobody.post("/threads", content=b"x" * 9_000_000).status_code == 413


def test_with_an_assistant_only_threads_go_that_its_user_may_delete(serve: Callable[..., Login]) -> None:
    login = serve("plain")
    ann, bob = login("ann"), login("bob")
    assistant_id = ann.post("/assistants", json={"graph_id": "configured"}).json()["assistant_id"]
    mine, posing = thread_of(ann), bob.post("/threads", json={"metadata": {"assistant_id": assistant_id}}).json()
    run = {"assistant_id": assistant_id, "input": {}}
    assert ann.post(f"/threads/{mine}/runs/wait", json=run).status_code == 200
    assert ann.delete(f"/assistants/{assistant_id}?delete_threads=true").status_code == 204
    assert ann.get(f"/threads/{mine}").status_code == 404
    assert bob.get(f"/threads/{posing['thread_id']}").status_code == 200


def test_another_users_tasks_are_not_listed(serve: Callable[..., Login]) -> None:
    login = serve("plain")
    ann, bob = login("ann"), login("bob")
    run = {"assistant_id": "chat", "input": {"messages": "hi"}}
    thread_id = thread_of(ann)
    assert ann.post(f"/threads/{thread_id}/runs/wait", json=run).status_code == 200
    call = {"jsonrpc": "2.0", "id": 1, "method": "ListTasks", "params": {"contextId": thread_id}}
    mine, theirs = (
        one.post("/a2a/chat", json=call, headers={"a2a-version": "1.0"}).json()["result"]["totalSize"]
        for one in (ann, bob)
    )
    assert (mine, theirs) == (1, 0)
