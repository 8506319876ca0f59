"""Builds the documentation site from docs/ into .venv/site, without the network: ``./dev site``.

The pages' order and titles in the navigation are those of the index, ``docs/README.md``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BUILT = ROOT / ".venv" / "site"
#: Beside docs/, since the builder reads nothing that is not below its configuration.
CONFIGURATION = ROOT / ".site.toml"

_SECTION = re.compile(r"^\*\*([\w ]+)\*\*", re.MULTILINE)
_LINK = re.compile(r"\[([^]]+)\]\(([^)]+\.md)\)")


def navigation(index: str) -> str:
    """Return the pages of *index* by section, as TOML: ``[{ "Tutorial" = [{ "Your first run" = "..." }] }]``."""
    _, *parts = _SECTION.split(index)
    sections = ['{ "Home" = "README.md" }']
    for title, text in zip(parts[::2], parts[1::2], strict=True):
        pages = [f"{{ {json.dumps(_plain(name))} = {json.dumps(page)} }}" for name, page in _LINK.findall(text)]
        sections.append(f"{{ {json.dumps(title)} = [{', '.join(pages)}] }}")
    return f"[{', '.join(sections)}]"


def build() -> None:
    """Build the site anew; a link to a page or heading that is not there, or any other warning, ends the process."""
    index = (DOCS / "README.md").read_text()
    CONFIGURATION.write_text((DOCS / "site.toml").read_text().replace("nav = []", f"nav = {navigation(index)}"))
    try:
        command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", CONFIGURATION]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    finally:
        CONFIGURATION.unlink()
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr.partition("Traceback")[0])


def _plain(title: str) -> str:
    return " ".join(title.replace("`", "").split())


if __name__ == "__main__":
    build()
    sys.stdout.write(f"{BUILT / 'index.html'}\n")
