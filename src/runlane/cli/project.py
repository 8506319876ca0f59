"""The project of a command: a project's ``langgraph.json``, and the settings of a process that serves it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from runlane.agents.langgraph_json import GraphsFile, read_graphs_file
from runlane.errors import ConfigurationError
from runlane.settings import ENV_PREFIX, Settings

CONFIG_NAME: Final = "langgraph.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project that can be served."""

    config: Path
    file: GraphsFile

    def settings(self, **given: Any) -> Settings:
        """Return the settings: from *given*, the environment, the project's ``env``, else the defaults.

        The default database is in the project's folder, wherever the command is called.

        Raises:
            ConfigurationError: A value cannot be used.
        """
        environment = {**self.file.env, **os.environ}
        environment.setdefault(f"{ENV_PREFIX}DATABASE", f"sqlite:///{self.file.folder}/.runlane/runlane.db")
        return Settings.load(environment, **given)


def find_project(where: Path, config: Path | None = None) -> Project:
    """Return the project in the folder *where*, or of the file *where* or *config*.

    Raises:
        ConfigurationError: There is no such file, or it cannot be used.
    """
    path = find_config(where, config)
    return Project(config=path, file=read_graphs_file(path))


def database_settings(where: Path, config: Path | None, database: str | None) -> Settings:
    """Return the settings of a command that needs nothing of a project if *database* or the environment names one.

    Raises:
        ConfigurationError: Neither does, and the project cannot be used; or a value cannot.
    """
    if database is not None or f"{ENV_PREFIX}DATABASE" in os.environ:
        return Settings.load(database=database)
    return find_project(where, config).settings()


def find_config(where: Path, config: Path | None = None) -> Path:
    """Return the path of the ``langgraph.json``.

    Raises:
        ConfigurationError: There is none.
    """
    path = config or (where if where.suffix == ".json" else where / CONFIG_NAME)
    if not path.is_file():
        raise ConfigurationError(
            f"{path} {'is not a file' if path.exists() else 'does not exist'}. "
            f"Name a folder with a {CONFIG_NAME}, or the file itself with --config."
        )
    return path.resolve()
