"""Graphs served from PostgreSQL."""

from __future__ import annotations

import httpx

from server_kit import PROJECT, running_server


def test_threads_and_items_outlive_the_server_that_wrote_them(postgres_url: str) -> None:
    def chat(client: httpx.Client, text: str) -> list[str]:
        asked = {"assistant_id": "chat", "input": {"messages": [{"role": "user", "content": text}]}}
        answer = client.post(f"/threads/{thread_id}/runs/wait", json=asked)
        assert answer.status_code == 200, answer.text
        return [message["content"] for message in answer.json()["messages"] if message["type"] == "human"]

    with running_server(postgres_url, PROJECT) as server, httpx.Client(base_url=server.url) as client:
        thread_id = client.post("/threads", json={}).json()["thread_id"]
        first = chat(client, "one")
        client.put("/store/items", json={"namespace": ["n"], "key": "k", "value": {"v": 1}})
    with running_server(postgres_url, PROJECT) as server, httpx.Client(base_url=server.url) as client:
        second = chat(client, "two")
        item = client.get("/store/items", params={"namespace": "n", "key": "k"}).json()
        history = client.get(f"/threads/{thread_id}/history", params={"limit": 100}).json()

    assert (first, second) == (["one"], ["one", "two"])
    assert item["value"] == {"v": 1}
    assert len(history) == 6
