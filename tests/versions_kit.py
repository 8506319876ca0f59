"""Versions of Runlane's code that tests run beside each other: processes with another ``PYTHONPATH``."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess, run

SRC = Path(__file__).parents[1] / "src"
_SCRIPTS = Path("runlane", "store", "migrations", "sql")


def next_version(folder: Path, scripts: Mapping[str, str]) -> Path:
    """Make the code of a later version in *folder*: this one with more changes of the schema, SQL by name.

    A name is like ``9001_more``; the SQL is that of both dialects.
    """
    src = folder / "src"
    shutil.copytree(SRC, src)  # with its bytecode, so that the first process need not make it
    for name, sql in scripts.items():
        for dialect in ("sqlite", "postgres"):
            (src / _SCRIPTS / f"{name}.{dialect}.sql").write_text(sql)
    return src


def env_of(src: Path) -> dict[str, str]:
    """Return the environment in which a process runs the code in *src*."""
    return {**os.environ, "PYTHONPATH": str(src)}


def command(*args: str) -> tuple[str, ...]:
    """Return the command ``runlane`` with *args*, for a process in such an environment."""
    return (sys.executable, "-P", "-m", "runlane.cli.main", *args)


def runlane(src: Path, *args: str) -> CompletedProcess[str]:
    """Run the command ``runlane`` of the code in *src*."""
    return run(command(*args), env=env_of(src), capture_output=True, text=True, check=False)
