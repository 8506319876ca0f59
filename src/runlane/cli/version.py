"""The version of Runlane, and the build: which code it is, from a wheel or a checkout."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Final

import click

PACKAGE: Final = Path(__file__).parents[1]


def build_of(package: Path) -> str:
    """Return a hash of the names and contents of the files in *package*, without what Python makes of them."""
    found = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            found.update(f"{path.relative_to(package).as_posix()} {content}\n".encode())
    return found.hexdigest()[:12]


def print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Print the version and the build, and end."""
    if wanted and not context.resilient_parsing:
        click.echo(f"{version('runlane')} (build {build_of(PACKAGE)})")
        context.exit()
