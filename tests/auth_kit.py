"""Servers that ask who sends a request, in each of the ways in which they can."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from runlane.server.auth.keys import new_key
from server_kit import PATIENCE_S, PROJECT, Server, running_server

#: Clients of one server, by the names of their users.
Clients = dict[str, httpx.Client]


def project(folder: Path, **auth: Any) -> Path:
    """Write a project in *folder* with the tests' graphs and the key ``auth``."""
    graphs = {
        name: f"{PROJECT.parent}/graphs.py:{name}" for name in ("chat", "steps", "configured", "owned", "approval")
    }
    path = folder / "langgraph.json"
    path.write_text(json.dumps({"graphs": graphs, "auth": {"path": f"{PROJECT.parent}/auth.py:plain", **auth}}))
    return path


@contextmanager
def guarded_server(folder: Path, auth: str = "plain", **settings: Any) -> Iterator[Server]:
    """Serve with the object *auth* of the tests' ``auth.py``."""
    config = project(folder, path=f"{PROJECT.parent}/auth.py:{auth}")
    with running_server(f"sqlite:///{folder}/runlane.db", config, **settings) as running:
        yield running


@contextmanager
def keyed_server(folder: Path, *owners: str, **settings: Any) -> Iterator[tuple[Server, dict[str, str]]]:
    """Serve with API keys; give the key of each of *owners* too."""
    file = folder / "keys"
    keys = {owner: new_key(owner, file) for owner in owners}
    with running_server(f"sqlite:///{folder}/runlane.db", api_keys=str(file), **settings) as running:
        yield running, keys


def revoke(folder: Path, owner: str) -> None:
    """Remove the keys of *owner* from the file of :func:`keyed_server`."""
    file = folder / "keys"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if f" {owner}\t" not in line))


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}"}


@contextmanager
def operated_server(database: str, folder: Path, operators: Mapping[str, Sequence[str]]) -> Iterator[Clients]:
    """Serve with API keys; give clients of the owner ``alice``, and of *operators* with their scopes."""
    file = folder / "keys"
    keys = {"alice": new_key("alice", file)}
    keys |= {name: new_key(name, file, scopes=scopes) for name, scopes in operators.items()}
    with ExitStack() as stack:
        server = stack.enter_context(running_server(database, api_keys=str(file), drain_grace_s=0.2))
        yield {
            name: stack.enter_context(httpx.Client(base_url=server.url, headers={"x-api-key": key}, timeout=PATIENCE_S))
            for name, key in keys.items()
        }
