"""Makes everything of a release but its upload, in .venv/release: ``./dev release``.

It builds wheel and sdist twice and compares them, checks them, installs the wheel apart from the sources and executes a
run with it, and writes the software bill of materials, the notes and the checksums. ``--draft`` is for trying it: it
needs no version in the changelog, no tag, and no clean working copy.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
MADE = ROOT / ".venv" / "release"
TOOLS = ROOT / ".venv" / "release-tools" / "bin"
UV = ROOT / ".venv" / "bin" / "uv"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
RUN = """
import asyncio
from runlane import open_runtime

async def agent(context):
    return context.input + 1

async def main():
    async with open_runtime("sqlite:///runs.db") as runtime:
        run = await runtime.runs.create("thread", agent=agent, kwargs={"input": 42})
        await runtime.runs.join(run.run_id)
        print((await runtime.runs.get(run.run_id)).status)

asyncio.run(main())
"""


class NotReleasable(Exception):
    """What has to be done before this can be released."""


def output(*command: str | Path, cwd: Path = ROOT) -> str:
    """Return what *command* prints; it ends the process if it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotReleasable(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def notes(changelog: str, version: str) -> str:
    """Return what *changelog* says of *version*."""
    found = re.search(rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## \[|\Z)", changelog, re.MULTILINE | re.DOTALL)
    if found is None:
        raise NotReleasable(f"CHANGELOG.md has no section [{version}]: give [Unreleased] this name and a date.")
    return found[1].strip() + "\n"


def check_sources() -> None:
    """Check that the release is what the tag names."""
    if output("git", "status", "--porcelain"):
        raise NotReleasable("The working copy has changes: commit them first.")
    if f"v{VERSION}" not in output("git", "tag", "--points-at", "HEAD").split():
        raise NotReleasable(f"This commit has no tag v{VERSION}: `git tag --sign v{VERSION}`.")


def build() -> list[Path]:
    """Build wheel and sdist, and once more to see that the same sources make the same bytes."""
    for folder in (MADE, MADE / "again"):
        output(UV, "build", "--quiet", "--python", sys.executable, "--no-build-isolation", "--out-dir", folder, ROOT)
    built = sorted(MADE.glob("runlane-*"))
    for file in built:
        if file.read_bytes() != (MADE / "again" / file.name).read_bytes():
            raise NotReleasable(f"{file.name} is not reproducible: two builds differ.")
    shutil.rmtree(MADE / "again")
    return built


def try_wheel(wheel: Path) -> None:
    """Install *wheel* as its users do, and execute a run with it."""
    home = MADE / "trial"
    python = home / "bin" / "python"
    output(UV, "venv", "--quiet", "--python", sys.executable, home)
    output(UV, "pip", "sync", "--quiet", "--python", python, "--require-hashes", ROOT / "deploy" / "runtime.lock")
    output(UV, "pip", "install", "--quiet", "--python", python, "--no-deps", wheel)
    if VERSION not in (said := output(home / "bin" / "runlane", "--version", cwd=home)):
        raise NotReleasable(f"`runlane --version` of the wheel prints {said!r}, not {VERSION}.")
    if (result := output(python, "-c", RUN, cwd=home).strip()) != "success":
        raise NotReleasable(f"A run with the wheel printed {result!r}.")
    shutil.rmtree(home)


def write_bill_of_materials() -> Path:
    """List the packages of a whole installation, with their hashes, as CycloneDX."""
    bill = MADE / f"runlane-{VERSION}.cdx.json"
    options = ["--pyproject", ROOT / "pyproject.toml", "--output-reproducible", "--output-file", bill]
    output(TOOLS / "cyclonedx-py", "requirements", *options, ROOT / "deploy" / "runtime.lock")
    return bill


def main() -> None:
    parser = argparse.ArgumentParser(prog="./dev release", description=__doc__)
    parser.add_argument("--draft", action="store_true", help="try it before the version is named and tagged")
    draft: bool = parser.parse_args().draft
    os.environ["SOURCE_DATE_EPOCH"] = output("git", "log", "-1", "--format=%ct").strip()
    if not draft:
        check_sources()
    news = notes((ROOT / "CHANGELOG.md").read_text(), "Unreleased" if draft else VERSION)
    shutil.rmtree(MADE, ignore_errors=True)
    MADE.mkdir(parents=True)
    (MADE / "NOTES.md").write_text(news)
    built = build()
    output(TOOLS / "twine", "check", "--strict", *built)
    try_wheel(next(file for file in built if file.suffix == ".whl"))
    files = [*built, write_bill_of_materials()]
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (MADE / "SHA256SUMS").write_text("".join(sums))
    sys.stdout.writelines(f"{file}\n" for file in sorted(MADE.glob("[!.]*")))


if __name__ == "__main__":
    try:
        main()
    except NotReleasable as error:
        sys.exit(f"release: {error}")
