"""The documentation as data. ``./dev docs`` runs this file: it renews links to code, and prints the words per page."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]

FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!\!)\[[^\]]*\]\(([^)\s]+)\)")
INLINE_CODE = re.compile(r"`[^`]+`")
ANCHOR = re.compile(r'<a id="([^"]+)"></a>')
#: A link to a definition in the sources: its name, dotted in a class, the file, and the line.
CODE_LINK = re.compile(r"\[`([\w.]+)`\]\(([^)#\s]*\bsrc/[^)#\s]+\.py)(?:#L(\d+))?\)")
#: Words that readers do not search for, with what the field says.
REPLACED_WORDS = {
    r"\blikeness\b": "semantic search, semantic similarity",
    r"\b[Vv]erdicts?\b": "outcome",
    r"\bleft behind\b": "abandoned",
    r"\bkept leases?\b": "external lease",
    r"\bway of a run\b": "life of a run",
    r"\bwhat must not be\b": "invariant violations",
    r"\b[Nn]otices?\b": "notification",
    r"\b(?:its|their|whose) turn\b": "start order, head of the lane",
    r"\b(?:database|ledger|store) (?:is|was) out\b": "unavailable",
    r"\b[Ss]ays? whether\b": "returns whether",
    r"\banew\b": "again",
    r"\b(?:lands?|landed)\b": "is committed",
    r"\b[Ww]hat to know\b": "limitations",
    r"\b(?:hostile|simulated) worlds?\b": "fault profile, seed",
    r"\bconceal": "redact",
}


def prose(page: Path) -> str:
    """Return the page without its code blocks."""
    return FENCE.sub("", page.read_text())


def headings(page: Path) -> list[str]:
    return re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the page's anchors: its own, and those that GitHub makes of headings."""
    found: Counter[str] = Counter()
    names = set(ANCHOR.findall(prose(page)))
    for heading in headings(page):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        names.add(f"{name}-{found[name]}" if found[name] else name)
        found[name] += 1
    return names


def definitions(file: Path) -> dict[str, range]:
    """Return the lines of each function, class and constant of *file*; those of a class as ``Class.name``."""
    return dict(_defined(ast.parse(file.read_text()).body, ""))


def _defined(body: list[ast.stmt], within: str) -> Iterator[tuple[str, range]]:
    for node in body:
        lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield within + node.name, lines
        if isinstance(node, ast.ClassDef):
            yield from _defined(node.body, f"{within}{node.name}.")
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        yield from ((within + target.id, lines) for target in targets if isinstance(target, ast.Name))


def with_renewed_links(page: Path) -> str:
    """Return the page with the line of each definition that it links to."""

    def renewed(match: re.Match[str]) -> str:
        line = definitions((page.parent / match[2]).resolve())[match[1]].start
        return f"[`{match[1]}`]({match[2]}#L{line})"

    return CODE_LINK.sub(renewed, page.read_text())


def words(page: Path) -> int:
    """Return how many words a page has, code included, but not the lines of tables."""
    return len(re.findall(r"\S*\w\S*", ANCHOR.sub("", page.read_text())))


def report() -> str:
    """Return the words per page, and in all."""
    counted = sorted((words(page), str(page.relative_to(ROOT))) for page in PAGES)
    lines = [f"{count:6,}  {name}" for count, name in counted]
    return "\n".join([*lines, f"{sum(count for count, _ in counted):6,}  words in all", ""])


if __name__ == "__main__":
    for each in PAGES:
        each.write_text(with_renewed_links(each))
    sys.stdout.write(report())
