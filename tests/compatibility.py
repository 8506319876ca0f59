"""Write docs/reference/compatibility.md from compatibility.toml and differences.toml."""

from __future__ import annotations

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

Look up whether a route or option of the LangGraph Server API works as you expect: its behaviour in the reference
server (`langgraph-api` 0.16.7, development server, observed on the wire) and in Runlane, with the test that proves it.
`./dev docs` writes this page from `tests/compatibility.toml` and `tests/differences.toml`; tests fail if a route or
option is missing.

Clients that the tests run unchanged: `langgraph-sdk` for Python in its two newest minor versions
(`tests/clients/test_sdk_matrix.py`), `RemoteGraph` (`tests/server/test_remote_graph.py`), `@langchain/langgraph-sdk` on
Node (`tests/clients/test_javascript.py`), and its `useStream` and that of `@langchain/react` in Chromium
(`tests/clients/test_browser.py`).

`tests/server/test_weaknesses.py` lists known defects of servers of this API, each with tests that would fail if Runlane
had it.
"""
_DIFFERENCES = """\

## Differences on the wire

`tests/server/test_reference.py` sends the same requests to both servers and compares status, headers, JSON and stream
events. These are all differences:

| | reference | Runlane | why |
|---|---|---|---|
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


def page() -> str:
    """Return the page."""
    parts, section = [_INTRODUCTION], ""
    for row in rows():
        if row.section != section:
            section = row.section
            parts.append(f"\n## {section}\n\n| | reference | Runlane | proof |\n|---|---|---|---|\n")
        parts.append(f"| {row.subject} | {row.reference} | {row.runlane} | {_proof(row.tests)} |\n")
    parts.append(_DIFFERENCES)
    parts += [f"| {one.what} | {one.reference} | {one.runlane} | {one.why} |\n" for one in listed()]
    return "".join(parts)


def _proof(tests: Sequence[str]) -> str:
    return ", ".join(f"[`{test.rpartition(':')[2].rpartition('/')[2]}`]({_link(test)})" for test in tests)


def _link(test: str) -> str:
    return f"../../tests/{test.partition('::')[0]}"


if __name__ == "__main__":
    PAGE.write_text(page())
