"""Ask whether advisories are known for the locked versions, and say what could not be asked; see `./dev audit`.

Exit codes: 0 all were asked and nothing is known; 1 an advisory applies; 3 nothing is known of those that were asked,
but some or all could not be.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
#: Where advisories are kept, in the order in which they are asked. Both have those of the Python Packaging Authority.
SERVICES = ("pypi", "osv")
LOCK_FOLDERS = ("", "deploy", "tests/clients")
FOUND, NOT_ASKED = 1, 3
LIMIT_S = 120


@dataclass(slots=True)
class Answers:
    """What is known of locked versions: advisories that apply, versions without one, and what could not be asked."""

    advisories: dict[str, list[str]] = field(default_factory=dict)
    clear: set[str] = field(default_factory=set)
    unknown: dict[str, str] = field(default_factory=dict)

    def add(self, dependencies: Iterable[dict[str, Any]]) -> None:
        """Take what pip-audit reports of one file."""
        for one in dependencies:
            name = one["name"]
            if "skip_reason" in one:
                self.unknown.setdefault(name, one["skip_reason"])
            elif one["vulns"]:
                self.advisories[f"{name} {one['version']}"] = [_line(advisory) for advisory in one["vulns"]]
            else:
                self.clear.add(f"{name} {one['version']}")

    def lines(self) -> list[str]:
        """Return the report for a person."""
        found = [f"{version}: {line}" for version, lines in self.advisories.items() for line in lines]
        asked = len(self.advisories) + len(self.clear)
        found.append(f"{asked} locked versions were asked about; advisories apply to {len(self.advisories)}.")
        if self.unknown or not asked:
            found.append(f"NOT ASKED about {len(self.unknown)} others, of which nothing is known here. Why, for one:")
            found.append(f"  {next(iter(self.unknown.values()), 'there was nothing to ask about')}")
        return found

    @property
    def code(self) -> int:
        if self.advisories:
            return FOUND
        return NOT_ASKED if self.unknown or not self.clear else 0


def _line(advisory: dict[str, Any]) -> str:
    fixed = ", ".join(advisory.get("fix_versions", ())) or "no version"
    also = ", ".join(advisory.get("aliases", ()))
    return f"{advisory['id']} ({also}), mended in {fixed}: {' '.join(advisory.get('description', '').split())[:300]}"


class Silent(Exception):
    """A service could not be asked; the text says why."""


def ask(auditor: Path, lock: Path, service: str, options: Sequence[str]) -> list[dict[str, Any]]:
    """Return what *service* knows of the versions in *lock*.

    Raises:
        Silent: It cannot be reached, or pip-audit does not work.
    """
    command = [str(auditor), "--requirement", str(lock), "--require-hashes", "--disable-pip", "--format", "json"]
    command += ["--vulnerability-service", service, "--progress-spinner", "off", *options]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Silent(f"{service}: {error}") from error
    try:
        dependencies: list[dict[str, Any]] = json.loads(ran.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        raise Silent(f"{service}: {(ran.stderr.strip() or 'no answer').splitlines()[-1][:300]}") from None
    return dependencies


def audit(auditor: Path, locks: Iterable[Path], options: Sequence[str]) -> Answers:
    """Ask one service after the other about each of *locks*, until every version in it was asked about."""
    answers, silent = Answers(), dict[str, str]()
    for lock in locks:
        why = {line.partition("==")[0]: "" for line in lock.read_text().splitlines() if "==" in line}
        for service in SERVICES:
            asked = Answers()
            if service not in silent:
                try:
                    asked.add(ask(auditor, lock, service, options))
                except Silent as error:
                    silent[service] = str(error)
            answers.advisories |= asked.advisories
            answers.clear |= asked.clear
            known = {version.partition(" ")[0] for version in (*asked.advisories, *asked.clear)}
            why = {
                name: f"{before}; {asked.unknown.get(name) or silent.get(service, 'not said')}".removeprefix("; ")
                for name, before in why.items()
                if name.partition("[")[0] not in known
            }
            if not why:
                break
        answers.unknown |= why
    answers.clear -= answers.advisories.keys()
    return answers


def locks_of(root: Path) -> list[Path]:
    return [lock for folder in LOCK_FOLDERS for lock in sorted((root / folder).glob("*.lock"))]


def main(auditor: str, *options: str) -> int:
    answers = audit(Path(auditor), locks_of(ROOT), options)
    sys.stdout.write("".join(f"audit: {line}\n" for line in answers.lines()))
    return answers.code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
