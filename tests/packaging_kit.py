"""What the extras of the project install here."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def required(extra: str) -> list[str]:
    """Return what the project requires with *extra*; the base install for ``""``."""
    return [*PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] if extra else ())]


def closure(requirements: Iterable[str]) -> set[str]:
    """Return the names of all distributions that *requirements* install here, without Runlane itself."""
    found: set[tuple[str, str]] = set()
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) in found:
                continue
            found.add((name, wanted))
            texts = required(wanted) if name == "runlane" else distribution(name).requires or []
            waiting += [(Requirement(text), wanted) for text in texts]
    return {name for name, _ in found if name != "runlane"}
