"""Reading a ``langgraph.json``: which graphs there are, and what their code needs around it.

Source: the configuration file of the LangGraph CLI.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast, get_args

import msgspec
from dotenv import dotenv_values

from runlane.errors import ConfigurationError

#: How an image is built, which is no concern of a process that runs.
PACKAGING_KEYS: Final = frozenset(
    {
        "$schema",
        "api_version",
        "base_image",
        "dockerfile_lines",
        "image_distro",
        "internal_docker_tag",
        "keep_pkg_tools",
        "node_version",
        "pip_config_file",
        "pip_installer",
        "python_version",
        "source",
    }
)
#: Keys that change what the server does, and that Runlane does not honour yet.
UNSUPPORTED_KEYS: Final = frozenset(
    {
        "disable_persistence",
        "encryption",
        "priority",
        "ui",
        "ui_config",
    }
)
#: Keys whose values the parts of the server that they concern check; see :meth:`GraphsFile.section`.
SECTIONS: Final = frozenset({"auth", "checkpointer", "http", "store", "webhooks"})
_KEYS: Final = frozenset({"graphs", "dependencies", "env"})
_GRAPH_KEYS: Final = frozenset({"path", "description", "resume_on"})
ResumeOn = Literal["any", "same_build"]
_RESUME_ON: Final[tuple[ResumeOn, ...]] = get_args(ResumeOn)
_OWN_CHECKPOINTS: Final = "Runlane keeps checkpoints in its own database, as data"
#: Keys within sections that are known and not honoured, the values that are taken nevertheless, and why.
REFUSED: Final[Mapping[str, tuple[tuple[Any, ...], str]]] = {
    "checkpointer.backend": (("default", None), _OWN_CHECKPOINTS),
    "checkpointer.path": ((), _OWN_CHECKPOINTS),
    "checkpointer.serde": ((), _OWN_CHECKPOINTS),
    "http.logging_headers": ((), "no request headers are logged"),
    "store.path": ((), "Runlane keeps the long-term store in its own database"),
}
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSpec:
    """One entry of ``graphs``: where the graph is (``path.py:name`` or ``package.module:name``), and what it is for.

    ``resume_on`` says where a run goes on that was handed back or has lost its worker: in any build of the code, or in
    the one only in which it began.
    """

    path: str
    description: str | None = None
    resume_on: ResumeOn = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphsFile:
    """A ``langgraph.json`` that was understood. Paths are absolute."""

    path: Path
    folder: Path
    graphs: Mapping[str, GraphSpec]
    import_paths: tuple[Path, ...]
    env: Mapping[str, str]
    sections: Mapping[str, Any]

    def section(self, key: str, model: type[T]) -> T | None:
        """Return the value of one of :data:`SECTIONS` as *model*, a msgspec ``Struct``; ``None`` if it is not there.

        Raises:
            ConfigurationError: It does not fit; the error names the key within.
        """
        found = self.sections.get(key)
        if found is None:
            return None
        for refused, (taken, why) in REFUSED.items():
            section, _, name = refused.partition(".")
            if section == key and isinstance(found, dict) and name in found and found[name] not in taken:
                raise ConfigurationError(f"{self.path}: key {refused!r} is not supported: {why}. Remove it.")
        try:
            return msgspec.convert(found, model, strict=True)
        except msgspec.ValidationError as error:
            why = str(error).replace("$", f"{key}") if "`$" in str(error) else f"{error} - at `{key}`"
            raise ConfigurationError(f"{self.path}: {why}.") from None

    def apply(self) -> None:
        """Let this process import the dependencies and see the variables; those that it already has win."""
        for path in reversed(self.import_paths):
            if str(path) not in sys.path:
                sys.path.insert(0, str(path))
        for name, value in self.env.items():
            os.environ.setdefault(name, value)


def read_graphs_file(path: Path) -> GraphsFile:
    """Read and check the file at *path*; nothing is imported yet.

    Raises:
        ConfigurationError: The file is missing or not JSON, a key is unknown, not supported, or of the wrong type.
    """
    document = _parse(path)
    for key, value in document.items():
        if key in UNSUPPORTED_KEYS and value:
            raise ConfigurationError(f"{path}: key {key!r} is not supported yet: remove it.")
        if key not in UNSUPPORTED_KEYS | PACKAGING_KEYS | SECTIONS | _KEYS:
            raise ConfigurationError(f"{path}: unknown key {key!r}.")
    folder = path.resolve().parent
    return GraphsFile(
        path=path,
        folder=folder,
        graphs=_graphs(path, document.get("graphs")),
        import_paths=_import_paths(path, folder, document.get("dependencies") or []),
        env=_env(path, folder, document.get("env") or {}),
        sections={key: document[key] for key in SECTIONS & document.keys()},
    )


def _parse(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"{path} does not exist.") from None
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{path} cannot be read: {exc}") from exc
    except json.JSONDecodeError as exc:
        raise ConfigurationError(f"{path}:{exc.lineno}:{exc.colno}: not valid JSON: {exc.msg}.") from exc
    except (ValueError, RecursionError) as exc:  # a number of thousands of digits, thousands of brackets
        raise ConfigurationError(f"{path}: cannot be understood: {exc}.") from exc
    if not all(_is_text(text) for text in _strings(document)):
        raise ConfigurationError(f"{path}: a string has a NUL character or half of a surrogate pair: remove it.")
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path}: expected an object, found {type(document).__name__}.")
    return document


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in (*value, *(value.values() if isinstance(value, dict) else ())):
            yield from _strings(one)


def _is_text(text: str) -> bool:
    """Return whether *text* can be the name of a file or a variable, or its value."""
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def _graphs(path: Path, graphs: Any) -> dict[str, GraphSpec]:
    if not isinstance(graphs, dict) or not graphs:
        raise ConfigurationError(f"{path}: 'graphs' must name at least one graph.")
    return {graph_id: _graph(path, graph_id, entry) for graph_id, entry in graphs.items()}


def _graph(path: Path, graph_id: str, entry: Any) -> GraphSpec:
    where = entry.get("path") if isinstance(entry, dict) else entry
    description = entry.get("description") if isinstance(entry, dict) else None
    if isinstance(entry, dict) and (unknown := sorted(entry.keys() - _GRAPH_KEYS)):
        raise ConfigurationError(f"{path}: unknown key {unknown[0]!r} in graphs.{graph_id}.")
    if not isinstance(where, str) or not all(where.rpartition(":")) or not isinstance(description, str | None):
        raise ConfigurationError(
            f"{path}: graphs.{graph_id} must be 'path/to/file.py:name', 'package.module:name', "
            "or an object with that as 'path' and a 'description'."
        )
    resume_on = entry.get("resume_on", "any") if isinstance(entry, dict) else "any"
    if resume_on not in _RESUME_ON:
        raise ConfigurationError(
            f"{path}: graphs.{graph_id}.resume_on is {resume_on!r}; it must be 'any' or 'same_build'."
        )
    if where.rpartition(":")[0].endswith((".js", ".ts", ".mjs", ".mts", ".cts", ".cjs")):
        raise ConfigurationError(f"{path}: graphs.{graph_id} is a JavaScript graph; Runlane runs Python graphs.")
    return GraphSpec(path=where, description=description, resume_on=cast(ResumeOn, resume_on))


def _import_paths(path: Path, folder: Path, dependencies: Any) -> tuple[Path, ...]:
    """Return the folders of local dependencies; the others are packages, which are installed or not."""
    if not isinstance(dependencies, list) or not all(isinstance(item, str) for item in dependencies):
        raise ConfigurationError(f"{path}: 'dependencies' must be a list of paths and package names.")
    found: list[Path] = []
    for item in dependencies:
        if not item.startswith("."):
            continue
        local = (folder / item).resolve()
        if not os.path.isdir(local):  # unlike Path.is_dir it takes any name
            raise ConfigurationError(f"{path}: dependency {item!r} is not a folder.")
        found += [local, *([local / "src"] if (local / "src").is_dir() else [])]
    return tuple(found)


def _env(path: Path, folder: Path, env: Any) -> dict[str, str]:
    if isinstance(env, str):
        file = folder / env
        if not os.path.isfile(file):
            raise ConfigurationError(f"{path}: the 'env' file {env!r} does not exist.")
        try:
            env = {name: value for name, value in dotenv_values(file).items() if value is not None}
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigurationError(f"{path}: the 'env' file {env!r} cannot be read: {exc}") from exc
    if not isinstance(env, dict):
        raise ConfigurationError(f"{path}: 'env' must be an object or the path of a .env file.")
    found = {str(name): str(value) for name, value in env.items()}
    for name, value in found.items():
        if not name or "=" in name or not _is_text(name + value):
            raise ConfigurationError(f"{path}: 'env' has {name!r}, which cannot be a variable of the environment.")
    return found
