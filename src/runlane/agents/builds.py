"""Builds: which code a process executes, so that others see whether it is the same."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import Final

from runlane.agents.langgraph_json import GraphsFile

_LENGTH: Final = 12


def build_of(file: GraphsFile) -> str:
    """Return the build of a project: a hash of its graphs' entries, and of the files that they name.

    What those files import is not in it: set ``build`` where that matters.
    """
    found = hashlib.sha256()
    for graph_id, spec in sorted(file.graphs.items()):
        found.update(f"{graph_id}\0{spec.path}\0".encode())
        with suppress(OSError):  # a module's name, or a file that loading the graph complains about
            found.update((file.folder / spec.path.rpartition(":")[0]).read_bytes())
    return found.hexdigest()[:_LENGTH]


def pinned_graphs(file: GraphsFile) -> tuple[str, ...]:
    """Return the graphs whose runs go on in the build only in which they began."""
    return tuple(graph_id for graph_id, spec in file.graphs.items() if spec.resume_on == "same_build")
