"""Profiles: servers with names, and how to get the secrets that they want. The file never has a secret itself."""

from __future__ import annotations

import os
import shlex
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from runlane.errors import ConfigurationError

#: How long a command may take to print a secret; somebody may have to unlock a key first.
COMMAND_TIMEOUT_S: Final = 60.0


class _Profile(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    url: str
    #: Name of an environment variable, or a command that prints the key.
    api_key_env: str | None = None
    api_key_command: str | None = None
    headers: dict[str, str] = {}
    #: Headers by the name of an environment variable.
    header_env: dict[str, str] = {}
    header_command: dict[str, str] = {}


class _File(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    default: str | None = None
    profiles: dict[str, _Profile] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A server, and what each request to it carries."""

    url: str
    headers: Mapping[str, str] = field(repr=False)


def profiles_path(environment: Mapping[str, str] = os.environ) -> Path:
    """Return where the profiles are: ``RUNLANE_PROFILES``, or ``runlane/profiles.toml`` in the user's configuration."""
    if given := environment.get("RUNLANE_PROFILES"):
        return Path(given)
    home = environment.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "runlane" / "profiles.toml"


def find_profile(name: str | None, environment: Mapping[str, str] = os.environ) -> Profile | None:
    """Return the profile *name*; without a name the file's default, ``None`` if there is none.

    Raises:
        ConfigurationError: There is no such profile, the file cannot be used, or a secret cannot be got.
    """
    path = profiles_path(environment)
    if not path.exists():
        if name is None:
            return None
        raise ConfigurationError(f"There is no profile {name!r}, as there is no file {path}.")
    file = _read(path)
    wanted = name or file.default
    if wanted is None:
        return None
    if wanted not in file.profiles:
        known = ", ".join(sorted(file.profiles)) or "none"
        raise ConfigurationError(f"{path} has no profile {wanted!r}; it has {known}.")
    return _resolved(wanted, file.profiles[wanted], environment)


def _read(path: Path) -> _File:
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigurationError(f"{path} cannot be used: {error}.") from error


def _resolved(name: str, profile: _Profile, environment: Mapping[str, str]) -> Profile:
    headers = dict(profile.headers)
    variables = dict(profile.header_env)
    commands = dict(profile.header_command)
    if profile.api_key_env is not None:
        variables["x-api-key"] = profile.api_key_env
    if profile.api_key_command is not None:
        commands["x-api-key"] = profile.api_key_command
    for header, variable in variables.items():
        if variable not in environment:
            raise ConfigurationError(f"Profile {name!r} takes {header} from ${variable}, which is not set.")
        headers[header] = environment[variable]
    for header, command in commands.items():
        headers[header] = _printed(name, header, command)
    return Profile(url=profile.url, headers=headers)


def _printed(name: str, header: str, command: str) -> str:
    """Return the first line that *command* prints; it is not shown, whatever happens."""
    problem: Any
    try:
        done = subprocess.run(
            shlex.split(command), stdout=subprocess.PIPE, text=True, timeout=COMMAND_TIMEOUT_S, check=False
        )
        problem = f"ended with exit code {done.returncode}" if done.returncode else "printed nothing"
        if not done.returncode and done.stdout.strip():
            return done.stdout.strip().splitlines()[0]
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        problem = f"failed ({type(error).__name__})"
    raise ConfigurationError(f"Profile {name!r}: the command for {header} {problem}.")
