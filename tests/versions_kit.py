"""Versions of Runlane's code that tests run beside each other: processes with another ``PYTHONPATH``.

The last version is in ``previous-version.tar.xz``, since a checkout need not have the repository's history. ``./dev
previous COMMIT`` replaces it.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import os
import shutil
import sys
import tarfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess, run

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src"
_ARCHIVE = Path(__file__).with_name("previous-version.tar.xz")
#: Which commit the archive is of, and the SHA-256 of the tar file in it.
_STATED = _ARCHIVE.with_name("previous-version.toml")
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


def archived(commit: str) -> bytes | None:
    """Return the tar file of the code at *commit*; ``None`` if this is no repository that has it."""
    git = ("git", "-C", str(ROOT), "archive", "--format=tar", commit, "src/runlane")
    done = run(git, capture_output=True, check=False) if shutil.which("git") else None
    return done.stdout if done is not None and done.returncode == 0 else None


def previous_archive() -> tuple[str, bytes]:
    """Return the commit of the last version, and its tar file, which is the one that is stated."""
    stated = tomllib.loads(_STATED.read_text())
    archive = lzma.decompress(_ARCHIVE.read_bytes())
    assert hashlib.sha256(archive).hexdigest() == stated["sha256"], "run ./dev previous COMMIT"
    return stated["commit"], archive


def previous_version(folder: Path) -> Path:
    """Unpack the code of the last version into *folder*."""
    _, archive = previous_archive()
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        if hasattr(tarfile, "data_filter"):  # Python 3.11.4 and later
            tar.extractall(folder, filter="data")
        else:
            tar.extractall(folder)  # of this repository
    return folder / "src"


def keep(commit: str) -> None:
    """Make the code at *commit* the last version."""
    named = run(
        ("git", "-C", str(ROOT), "rev-parse", commit), capture_output=True, text=True, check=True
    ).stdout.strip()
    archive = archived(named)
    assert archive is not None
    _ARCHIVE.write_bytes(lzma.compress(archive, preset=9))
    _STATED.write_text(f'commit = "{named}"\nsha256 = "{hashlib.sha256(archive).hexdigest()}"\n')


def env_of(src: Path) -> dict[str, str]:
    """Return the environment in which a process runs the code in *src*."""
    return {**os.environ, "PYTHONPATH": str(src)}


def command(*args: str) -> tuple[str, ...]:
    """Return the command ``runlane`` with *args*, for a process in such an environment."""
    return (sys.executable, "-P", "-m", "runlane.cli.main", *args)


def runlane(src: Path, *args: str) -> CompletedProcess[str]:
    """Run the command ``runlane`` of the code in *src*."""
    return run(command(*args), env=env_of(src), capture_output=True, text=True, check=False)


if __name__ == "__main__":
    keep(sys.argv[1])
