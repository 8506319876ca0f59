"""``runlane new``: a project to begin with."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

import click

from runlane.cli.options import PATH
from runlane.cli.reporting import reporting
from runlane.errors import ConfigurationError

#: Templates, and what to do with a project that was made of them.
_SERVED: Final = "runlane dev {folder}"
TEMPLATES: Final = {
    "chat": (
        _SERVED,
        'runlane runs start agent --wait --input \'{"messages": [{"role": "user", "content": "2 + 3"}]}\'',
    ),
    "approval": (_SERVED, 'runlane runs start agent --input \'{"request": "the review is on Friday."}\''),
    "deep": (
        "pip install -r {folder}/requirements.txt",
        _SERVED,
        'runlane runs start agent --wait --input \'{"messages": [{"role": "user", "content": "High water"}]}\'',
    ),
    "coroutine": ("cd {folder} && python main.py",),
}


@click.command(epilog="Example: runlane new chat my-agent")
@click.argument("template", type=click.Choice(list(TEMPLATES)))
@click.argument("folder", type=PATH)
def new(template: str, folder: Path) -> None:
    """Make a project: a chat agent, one that asks for approval, a deep agent, or a plain coroutine.

    It runs without a key; a deep agent needs the package that its requirements.txt names. FOLDER must be empty, or not
    exist.
    """
    with reporting():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigurationError(f"{folder} exists and is not an empty folder.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for source in files("runlane.cli").joinpath("templates", template).iterdir():
                if source.is_file():
                    (folder / source.name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"{folder} cannot be written: {error.strerror}.") from error
    click.echo(f"Made {folder}. Next:")
    for line in TEMPLATES[template]:
        click.echo(f"  {line.format(folder=folder) if '{folder}' in line else line}")
