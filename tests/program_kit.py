"""Programs that tests run, of the machine or unpacked by ``./dev test``."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

VENV = Path(__file__).parents[1] / ".venv"


def program(name: str, *, package: str) -> str:
    """Return a program; without it the test fails in CI and is skipped elsewhere."""
    unpacked = VENV / package / "usr"
    found = shutil.which(name) or shutil.which(name, path=f"{unpacked / 'sbin'}{os.pathsep}{unpacked / 'bin'}")
    if found is None:
        why = f"{name} is not installed: ./dev test unpacks it on Debian and Ubuntu"
        if os.environ.get("CI"):
            pytest.fail(why, pytrace=False)
        pytest.skip(why)
    return found
