"""Write docs/reference/compatibility.md from compatibility.toml and the table of weaknesses."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from differential import listed

TESTS = Path(__file__).parent
DATA = TESTS / "compatibility.toml"
PAGE = TESTS.parent / "docs" / "reference" / "compatibility.md"

_INTRODUCTION = """\
# Compatibility

What a client of a LangGraph Server may ask, what the reference server does with it (`langgraph-api` 0.16.7, its
development server, as seen on the wire), what Runlane does, and the test that proves it. `./dev docs` writes this page
from `tests/compatibility.toml`; a test fails if a route or an option of a run is not here, if a test that is named here
does not exist, or if the page is stale.

Clients that the tests run unchanged: `langgraph-sdk` for Python in its two newest minor versions
(`tests/clients/test_sdk_matrix.py`), LangGraph's `RemoteGraph` (`tests/server/test_remote_graph.py`),
`@langchain/langgraph-sdk` on Node (`tests/clients/test_javascript.py`), and pages with its `useStream` and with that of
`@langchain/react`, in a real Chromium (`tests/clients/test_browser.py`).
"""
_DIFFERENCES = """\

## Differences on the wire

The same requests were sent to the reference server and are sent to Runlane by `tests/server/test_reference.py`, and the
answers compared: status, headers, JSON, and the events of streams. Every difference is one of these.

| | reference | Runlane | why |
|---|---|---|---|
"""
_WEAKNESSES = """\
## Known weaknesses

What goes wrong in servers of this API, and the tests that would fail if it went wrong in Runlane.

| | weakness | proof |
|---|---|---|
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the page; *tests* are files, or tests in them, relative to the folder of tests."""

    section: str
    api: str
    option: str
    reference: str
    runlane: str
    tests: tuple[str, ...]

    @property
    def subject(self) -> str:
        option = self.option if self.option[:3] in ("", "any") else f"`{self.option}`"
        if self.api == "run":
            return option
        return f"`{self.api}`, {option}" if option else f"`{self.api}`"


def rows() -> Iterator[Row]:
    """Yield the lines of the data file."""
    for section, lines in tomllib.loads(DATA.read_text()).items():
        for key, (reference, runlane, *tests) in lines.items():
            api, _, option = key.partition(" · ")
            yield Row(section=section, api=api, option=option, reference=reference, runlane=runlane, tests=tuple(tests))


def page(weaknesses: dict[str, list[str]]) -> str:
    """Return the page."""
    parts, section = [_INTRODUCTION], ""
    for row in rows():
        if row.section != section:
            section = row.section
            parts.append(f"\n## {section}\n\n| | reference | Runlane | proof |\n|---|---|---|---|\n")
        parts.append(f"| {row.subject} | {row.reference} | {row.runlane} | {_proof(row.tests)} |\n")
    parts.append(_DIFFERENCES)
    parts += [f"| {one.what} | {one.reference} | {one.runlane} | {one.why} |\n" for one in listed()]
    parts.append(f"\n{_WEAKNESSES}")
    for name, tests in weaknesses.items():
        number, _, text = name.partition(" ")
        parts.append(f"| {number} | {text} | {_proof(tests)} |\n")
    return "".join(parts)


def _proof(tests: Sequence[str]) -> str:
    return ", ".join(f"[`{test.rpartition(':')[2].rpartition('/')[2]}`]({_link(test)})" for test in tests)


def _link(test: str) -> str:
    return f"../../tests/{test.partition('::')[0]}"


if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))
    from server.test_weaknesses import PROOFS

    PAGE.write_text(page(PROOFS))
