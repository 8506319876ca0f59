"""Servers that ask who sends a request, in each of the ways in which they can."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runlane.server.auth.keys import new_key
from server_kit import PROJECT, Server, running_server


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
